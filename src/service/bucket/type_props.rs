//! RpbGetBucketTypeReq and RpbSetBucketTypeReq (`kv.md` §11.3).

use super::convert;
use crate::engine::{EngineError, TypeError};
use crate::erlang::print::binary;
use crate::message::Reply;
use crate::message::generated::{RpbGetBucketResp, RpbGetBucketTypeReq, RpbSetBucketTypeReq};
use crate::service::Service;
use crate::service::error::Refusal;
use crate::service::options::required;

pub(in crate::service) fn get(service: &Service, request: RpbGetBucketTypeReq) -> Result<Reply, Refusal> {
    let name = required(request.r#type);
    match service.engine.buckets().type_props(&name) {
        Some(props) => Ok(Reply::Bucket(Box::new(RpbGetBucketResp { props: convert::to_message(&props) }))),
        None => Err(Refusal::open(format!("Invalid bucket type: {}", binary(&name)))),
    }
}

pub(in crate::service) async fn set(service: &Service, request: RpbSetBucketTypeReq) -> Result<Reply, Refusal> {
    let change = convert::from_message(request.props.unwrap_or_default())?;
    match service.engine.buckets().update_type(required(request.r#type), change).await {
        Ok(()) => Ok(Reply::SetBucket),
        Err(TypeError::Undefined | TypeError::NotActive) => Err(Refusal::open("Invalid bucket properties: not_active")),
        Err(TypeError::Default) => Err(Refusal::open("Invalid bucket properties: no_default_update")),
        Err(TypeError::Props(error)) => Err(EngineError::Props(error).into()),
        Err(TypeError::Store(error)) => Err(EngineError::Store(error).into()),
    }
}
