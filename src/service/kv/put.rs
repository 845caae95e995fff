//! RpbPutReq (`kv.md` §7.1). `asis` is taken for a plain put: replication between clusters has its own way in.

use bytes::Bytes;

use crate::domain::key::ObjectName;
use crate::domain::object::PutCondition;
use crate::engine::{PutRequest, WriteOptions, generate_key};
use crate::message::Reply;
use crate::message::generated::{RpbPutReq, RpbPutResp};
use crate::service::Service;
use crate::service::error::Refusal;
use crate::service::options::{quorum, timeout};

use super::content::typed_value;
use super::{content, name};

pub(in crate::service) async fn put(service: &Service, request: Box<RpbPutReq>) -> Result<Reply, Refusal> {
    let Some(content) = request.content else { return Err(Refusal::malformed("a put without content")) };
    let bucket = name::checked(request.r#type, request.bucket, request.key.as_ref())?;
    let generated = match &request.key {
        Some(_) => None,
        None => Some(Bytes::from(generate_key()?)),
    };
    let key = request.key.or_else(|| generated.clone()).unwrap_or_default();
    let name = ObjectName { bucket, key };
    let head = request.return_head == Some(true);
    let put = PutRequest {
        content: content::from_message(content),
        context: request.vclock,
        condition: PutCondition {
            if_none_match: request.if_none_match == Some(true),
            if_not_modified: request.if_not_modified == Some(true),
        },
        options: WriteOptions {
            w: quorum(request.w),
            dw: quorum(request.dw),
            pw: quorum(request.pw),
            n_val: request.n_val,
            node_confirms: quorum(request.node_confirms),
            timeout: timeout(request.timeout),
        },
        return_view: head || request.return_body == Some(true),
    };
    let mut typed_value = typed_value(service, &name)?;
    let sink = (!head).then_some(&mut typed_value as _);
    let view = service.engine.put(&name, put, sink).await?;
    let (content, vclock) = match view {
        Some(view) => content::to_messages(&name, view, typed_value, head),
        None => (Vec::new(), None),
    };
    Ok(Reply::Put(RpbPutResp { content, vclock, key: generated }))
}
