//! RpbResetBucketReq: always a success, even for a type or bucket that is not there.

use crate::domain::key::BucketName;
use crate::message::Reply;
use crate::message::generated::RpbResetBucketReq;
use crate::service::Service;
use crate::service::error::Refusal;
use crate::service::options::required;

pub(in crate::service) async fn reset(service: &Service, request: RpbResetBucketReq) -> Result<Reply, Refusal> {
    let bucket = BucketName::new(request.r#type, required(request.bucket));
    service.engine.buckets().reset_props(&bucket).await?;
    Ok(Reply::ResetBucket)
}
