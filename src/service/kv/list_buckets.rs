//! RpbListBucketsReq: one reply, or a stream (`kv.md` §10.2).

use std::time::Duration;

use bytes::Bytes;

use super::listing::stream;
use super::name::listing_refusal;
use crate::domain::key::DEFAULT_TYPE;
use crate::engine::Listing;
use crate::message::Reply;
use crate::message::generated::{RpbListBucketsReq, RpbListBucketsResp};
use crate::service::error::Refusal;
use crate::service::options::timeout;
use crate::service::{Answer, Service};

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(480);

pub(in crate::service) async fn list_buckets(service: &Service, request: RpbListBucketsReq) -> Result<Answer, Refusal> {
    let streams = request.stream == Some(true);
    let listings = service.options.listings;
    let (enabled, class) = match streams {
        true => (listings.buckets_stream, "stream_list_buckets"),
        false => (listings.buckets, "list_buckets"),
    };
    if !enabled {
        return Err(Refusal::open(format!("Operation '{{riak_kv,{class}}}' is not enabled")));
    }
    let bucket_type = request.r#type.unwrap_or(Bytes::from_static(DEFAULT_TYPE));
    let patience = timeout(request.timeout).unwrap_or(TIMEOUT_DEFAULT);
    let listing = service.engine.list_buckets(bucket_type.clone(), patience, service.options.list_buckets_chunk);
    let listing = listing.map_err(|error| listing_refusal(error, &bucket_type))?;
    if !streams {
        return collect(listing).await;
    }
    Ok(stream(listing, |buckets, done| Reply::ListBuckets(RpbListBucketsResp { buckets, done })))
}

async fn collect(mut listing: Listing) -> Result<Answer, Refusal> {
    let mut buckets = Vec::new();
    while let Some(page) = listing.next().await? {
        buckets.extend(page);
    }
    Ok(Answer::Reply(Reply::ListBuckets(RpbListBucketsResp { buckets, done: None })))
}
