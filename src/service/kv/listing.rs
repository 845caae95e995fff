//! What the listings of keys and of buckets have in common: pages become frames.

use crate::engine::Listing;
use crate::message::Reply;
use crate::service::error::Refusal;
use crate::service::{Answer, stream};
use bytes::Bytes;

/// A frame for each page, then one that says it is the last and names nothing. An error ends the stream as well.
pub(super) fn stream(
    mut listing: Listing,
    frame: impl Fn(Vec<Bytes>, Option<bool>) -> Reply + Send + 'static,
) -> Answer {
    stream::stream(|sender| async move {
        loop {
            let page = listing.next().await;
            let ends = !matches!(page, Ok(Some(_)));
            let reply = match page {
                Ok(Some(names)) => frame(names, None),
                Ok(None) => frame(Vec::new(), Some(true)),
                Err(error) => Refusal::from(error).into_reply(),
            };
            if sender.send(reply).await.is_err() || ends {
                return;
            }
        }
    })
}
