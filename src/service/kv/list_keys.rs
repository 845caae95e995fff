//! RpbListKeysReq: always a stream (`kv.md` §10.1).

use std::time::Duration;

use tokio::sync::mpsc;

use super::name::listing_refusal;
use crate::domain::key::BucketName;
use crate::message::Reply;
use crate::message::generated::{RpbListKeysReq, RpbListKeysResp};
use crate::service::error::Refusal;
use crate::service::options::{required, timeout};
use crate::service::{Answer, Service};

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Frames read ahead of the connection.
pub(in crate::service) const FRAMES_AHEAD: usize = 2;

pub(in crate::service) fn list_keys(service: &Service, request: RpbListKeysReq) -> Result<Answer, Refusal> {
    if !service.options.listings.keys {
        return Err(Refusal::open("Operation '{riak_kv,stream_list_keys}' is not enabled"));
    }
    let bucket = BucketName::new(request.r#type, required(request.bucket));
    let patience = timeout(request.timeout).unwrap_or(TIMEOUT_DEFAULT);
    let bucket_type = bucket.bucket_type.clone();
    let listing = service.engine.list_keys(bucket, patience, service.options.list_keys_chunk);
    let mut listing = listing.map_err(|error| listing_refusal(error, &bucket_type))?;
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    tokio::spawn(async move {
        loop {
            let page = listing.next().await;
            let ends = !matches!(page, Ok(Some(_)));
            let reply = match page {
                Ok(Some(keys)) => Reply::ListKeys(RpbListKeysResp { keys, done: None }),
                Ok(None) => Reply::ListKeys(RpbListKeysResp { keys: Vec::new(), done: Some(true) }),
                Err(error) => Refusal::from(error).into_reply(),
            };
            // A connection that is gone does not want the rest.
            if sender.send(reply).await.is_err() || ends {
                return;
            }
        }
    });
    Ok(Answer::Stream(receiver))
}
