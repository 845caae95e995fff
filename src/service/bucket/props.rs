//! RpbGetBucketReq and RpbSetBucketReq (`kv.md` §11.3).

use super::convert;
use crate::domain::key::BucketName;
use crate::engine::EngineError;
use crate::message::Reply;
use crate::message::generated::{RpbGetBucketReq, RpbGetBucketResp, RpbSetBucketReq};
use crate::service::Service;
use crate::service::error::Refusal;
use crate::service::kv::name::no_bucket_type;
use crate::service::options::required;

pub(in crate::service) fn get(service: &Service, request: RpbGetBucketReq) -> Result<Reply, Refusal> {
    let bucket = BucketName::new(request.r#type, required(request.bucket));
    match service.engine.buckets().props(&bucket) {
        Some(props) => Ok(Reply::Bucket(Box::new(RpbGetBucketResp { props: convert::to_message(&props) }))),
        None => Err(no_bucket_type(&bucket.bucket_type)),
    }
}

pub(in crate::service) async fn set(service: &Service, request: RpbSetBucketReq) -> Result<Reply, Refusal> {
    let bucket = BucketName::new(request.r#type, required(request.bucket));
    let bucket_type = bucket.bucket_type.clone();
    let change = convert::from_message(request.props.unwrap_or_default())?;
    match service.engine.buckets().set_props(bucket, change).await {
        Ok(()) => Ok(Reply::SetBucket),
        Err(EngineError::NoSuchType) => Err(no_bucket_type(&bucket_type)),
        Err(other) => Err(other.into()),
    }
}
