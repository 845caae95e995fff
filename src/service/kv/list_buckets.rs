//! RpbListBucketsReq: one reply, or a stream (`kv.md` §10.2).

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::list_keys::FRAMES_AHEAD;
use super::name::listing_refusal;
use crate::domain::key::DEFAULT_TYPE;
use crate::engine::ListBuckets;
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
    if streams { Ok(stream(listing)) } else { collect(listing).await }
}

async fn collect(mut listing: ListBuckets) -> Result<Answer, Refusal> {
    let mut buckets = Vec::new();
    while let Some(page) = listing.next().await? {
        buckets.extend(page);
    }
    Ok(Answer::Reply(Reply::ListBuckets(RpbListBucketsResp { buckets, done: None })))
}

fn stream(mut listing: ListBuckets) -> Answer {
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    tokio::spawn(async move {
        loop {
            let page = listing.next().await;
            let ends = !matches!(page, Ok(Some(_)));
            let reply = match page {
                Ok(Some(buckets)) => Reply::ListBuckets(RpbListBucketsResp { buckets, done: None }),
                Ok(None) => Reply::ListBuckets(RpbListBucketsResp { buckets: Vec::new(), done: Some(true) }),
                Err(error) => Refusal::from(error).into_reply(),
            };
            // A connection that is gone does not want the rest.
            if sender.send(reply).await.is_err() || ends {
                return;
            }
        }
    });
    Answer::Stream(receiver)
}
