//! DtFetchReq (`datatypes.md` §3).

use crate::domain::context::ObjectIdentity;
use crate::domain::key::{BucketName, ObjectName};
use crate::engine::{EngineError, Fetched, ReadOptions};
use crate::message::Reply;
use crate::message::generated::{DtFetchReq, DtFetchResp};
use crate::message::value::{EncodedReply, ValueReply};
use crate::service::Service;
use crate::service::error::Refusal;
use crate::service::options::quorum;

use super::refusal;
use super::value::{ReplyValue, type_number};

pub(in crate::service) async fn fetch(service: &Service, request: DtFetchReq) -> Result<Reply, Refusal> {
    let (Some(bucket), Some(key), Some(bucket_type)) = (request.bucket, request.key, request.r#type) else {
        return Err(Refusal::malformed("a fetch without bucket, key or type"));
    };
    let name = ObjectName { bucket: BucketName { bucket_type, bucket }, key };
    let refusal = |error: EngineError| refusal(error, &name.bucket.bucket_type);
    let bucket = service.engine.data_type_bucket(&name.bucket).map_err(refusal)?;
    // Riak turns a request for the default type into one for an old counter, which knows fewer options.
    let is_default_type = name.bucket.is_default_type();
    if !is_default_type {
        bucket.check_siblings().map_err(refusal)?;
    }
    let data_type = bucket.data_type().map_err(refusal)?;
    let options = ReadOptions {
        r: quorum(request.r),
        pr: quorum(request.pr),
        n_val: request.n_val.filter(|_| !is_default_type),
        node_confirms: request.node_confirms.filter(|_| !is_default_type),
        notfound_ok: request.notfound_ok,
    };
    let mut value = ReplyValue::new(data_type, ValueReply::Fetch, service.options.reply_size_bytes_max);
    let context = match service.engine.fetch(&name, &bucket, options, &mut value).await.map_err(refusal)? {
        Fetched::NotFound => {
            return Ok(Reply::DtFetch(DtFetchResp { context: None, r#type: type_number(data_type), value: None }));
        }
        Fetched::OtherContent => None,
        Fetched::Found(context) => {
            let tells_context = data_type.has_context() && request.include_context != Some(false);
            tells_context.then(|| context.encode(ObjectIdentity::of(&name)))
        }
    };
    let head = DtFetchResp { context, r#type: type_number(data_type), value: None };
    Ok(Reply::Value(EncodedReply::fetch(&head, value.finish())))
}
