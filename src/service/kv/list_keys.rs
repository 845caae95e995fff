//! RpbListKeysReq: always a stream (`kv.md` §10.1).

use std::time::Duration;

use super::listing::stream;
use super::name::listing_refusal;
use crate::domain::key::BucketName;
use crate::message::Reply;
use crate::message::generated::{RpbListKeysReq, RpbListKeysResp};
use crate::service::error::Refusal;
use crate::service::options::{required, timeout};
use crate::service::{Answer, Service};

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

pub(in crate::service) fn list_keys(service: &Service, request: RpbListKeysReq) -> Result<Answer, Refusal> {
    if !service.options.listings.keys {
        return Err(Refusal::open("Operation '{riak_kv,stream_list_keys}' is not enabled"));
    }
    let bucket = BucketName::new(request.r#type, required(request.bucket));
    let patience = timeout(request.timeout).unwrap_or(TIMEOUT_DEFAULT);
    let bucket_type = bucket.bucket_type.clone();
    let listing = service.engine.list_keys(bucket, patience, service.options.list_keys_chunk);
    let listing = listing.map_err(|error| listing_refusal(error, &bucket_type))?;
    Ok(stream(listing, |keys, done| Reply::ListKeys(RpbListKeysResp { keys, done })))
}
