//! RpbDelReq (`kv.md` §7.2).

use crate::domain::key::{BucketName, ObjectName};
use crate::domain::quorum::Quorum;
use crate::engine::{DeleteRequest, ReadOptions, WriteOptions};
use crate::message::Reply;
use crate::message::generated::RpbDelReq;
use crate::service::Service;
use crate::service::error::Refusal;
use crate::service::options::{quorum, required, timeout};

pub(in crate::service) async fn delete(service: &Service, request: RpbDelReq) -> Result<Reply, Refusal> {
    let bucket = BucketName::new(request.r#type, required(request.bucket));
    let name = ObjectName { bucket, key: required(request.key) };
    let delete = DeleteRequest {
        context: request.vclock,
        rw: quorum(request.rw),
        read: ReadOptions {
            r: quorum(request.r),
            pr: quorum(request.pr),
            n_val: request.n_val,
            ..ReadOptions::default()
        },
        write: WriteOptions {
            w: quorum(request.w),
            dw: quorum(request.dw),
            pw: quorum(request.pw),
            n_val: request.n_val,
            node_confirms: None::<Quorum>,
            timeout: timeout(request.timeout),
        },
    };
    service.engine.delete(&name, delete).await?;
    Ok(Reply::Delete)
}
