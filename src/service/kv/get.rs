//! RpbGetReq (`kv.md` §6).

use crate::domain::context::ObjectIdentity;
use crate::domain::key::ObjectName;
use crate::engine::ReadOptions;
use crate::message::Reply;
use crate::message::generated::{RpbGetReq, RpbGetResp};
use crate::service::Service;
use crate::service::error::Refusal;
use crate::service::options::{quorum, required};

use super::content::typed_value;
use super::{content, name};

pub(in crate::service) async fn get(service: &Service, request: RpbGetReq) -> Result<Reply, Refusal> {
    let key = required(request.key);
    let bucket = name::checked(request.r#type, request.bucket, Some(&key))?;
    let name = ObjectName { bucket, key };
    let options = ReadOptions {
        r: quorum(request.r),
        pr: quorum(request.pr),
        n_val: request.n_val,
        node_confirms: request.node_confirms,
        notfound_ok: request.notfound_ok,
    };
    let head = request.head == Some(true);
    let mut typed_value = typed_value(service, &name)?;
    let sink = (!head).then_some(&mut typed_value as _);
    let view = service.engine.get(&name, options, sink).await?;

    let nothing = RpbGetResp::default();
    if view.is_deleted() {
        let tells_vclock = request.deletedvclock == Some(true) && !view.siblings.is_empty();
        let vclock = tells_vclock.then(|| view.context.encode(ObjectIdentity::of(&name)));
        return Ok(Reply::Get(RpbGetResp { vclock, ..nothing }));
    }
    // A vclock that does not decode is another one than this object's.
    if request.if_modified.is_some_and(|vclock| vclock == view.context.encode(ObjectIdentity::of(&name))) {
        return Ok(Reply::Get(RpbGetResp { unchanged: Some(true), ..nothing }));
    }
    let (content, vclock) = content::to_messages(&name, view, typed_value, head);
    Ok(Reply::Get(RpbGetResp { content, vclock, unchanged: None }))
}
