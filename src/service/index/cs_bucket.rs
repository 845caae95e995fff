//! RpbCSBucketReq: whole objects in the order of their keys, always as a stream (`queries.md` §2).

use std::ops::Bound;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::continuation;
use super::query::{patience, stream_refusal};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::{BucketName, ObjectName};
use crate::engine::{IndexQuery, Postings, ReadOptions};
use crate::erlang::print::binary;
use crate::message::Reply;
use crate::message::generated::{RpbContent, RpbCsBucketReq, RpbCsBucketResp, RpbGetResp, RpbIndexObject};
use crate::service::error::Refusal;
use crate::service::kv::content::{self, typed_value};
use crate::service::kv::name::listing_refusal;
use crate::service::options::required;
use crate::service::{Answer, Service, stream};

/// Keys read at a time, and the most objects of one frame.
const PAGE_MAX: usize = 100;
/// A frame whose objects have reached this many bytes takes no more of them. Its last one may carry it past this.
const FRAME_SIZE_BYTES_MAX: usize = 1024 * 1024;

pub(in crate::service) fn fold(service: &Service, request: RpbCsBucketReq) -> Result<Answer, Refusal> {
    let bucket = BucketName::new(request.r#type, required(request.bucket));
    let start = required(request.start_key);
    let from = match request.continuation {
        Some(token) => match continuation::decode(&token) {
            Some(Posting { term: None, key }) => Bound::Excluded(key),
            _ => return Err(Refusal::open(format!("{{invalid_continuation,{}}}", binary(&token)))),
        },
        None if request.start_incl == Some(false) => Bound::Excluded(start),
        None => Bound::Included(start),
    };
    let to = match request.end_key {
        None => Bound::Unbounded,
        Some(end) if request.end_incl == Some(true) => Bound::Included(end),
        Some(end) => Bound::Excluded(end),
    };
    let query = IndexQuery {
        patience: patience(request.timeout),
        ..IndexQuery::new(bucket.clone(), IndexRange::Keys { from, to })
    };
    let keys = service.engine.query_index(query, PAGE_MAX);
    let keys = keys.map_err(|error| listing_refusal(error, &bucket.bucket_type))?;
    let objects_max = request.max_results.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
    let fold = Fold { service: service.clone(), bucket, keys, objects_max, count: 0, last: None };
    Ok(stream::stream(|sender| fold.run(sender)))
}

struct Fold {
    service: Service,
    bucket: BucketName,
    keys: Postings,
    objects_max: Option<usize>,
    /// Objects sent.
    count: usize,
    /// The key of the last one.
    last: Option<Bytes>,
}

/// The connection does not want the rest.
struct Gone;

impl Fold {
    async fn run(mut self, sender: mpsc::Sender<Reply>) {
        let end = match self.send_objects(&sender).await {
            Ok(Ok(())) => Reply::CsBucket(RpbCsBucketResp {
                continuation: self.continuation(),
                done: Some(true),
                ..RpbCsBucketResp::default()
            }),
            Ok(Err(Gone)) => return,
            Err(refusal) => refusal.into_reply(),
        };
        // A connection that is gone does not want it either.
        let _ = sender.send(end).await;
    }

    async fn send_objects(&mut self, sender: &mpsc::Sender<Reply>) -> Result<Result<(), Gone>, Refusal> {
        while !self.is_full()
            && let Some(page) = self.keys.next().await.map_err(stream_refusal)?
        {
            let mut objects = Vec::new();
            let mut size_bytes = 0;
            for Posting { key, .. } in page {
                if self.is_full() {
                    break;
                }
                let Some(object) = self.object(key.clone()).await? else { continue };
                self.count += 1;
                self.last = Some(key);
                size_bytes += object.object.content.iter().map(content_size_bytes).sum::<usize>();
                objects.push(object);
                if size_bytes >= FRAME_SIZE_BYTES_MAX {
                    size_bytes = 0;
                    if send(sender, std::mem::take(&mut objects)).await.is_err() {
                        return Ok(Err(Gone));
                    }
                }
            }
            if !objects.is_empty() && send(sender, objects).await.is_err() {
                return Ok(Err(Gone));
            }
        }
        Ok(Ok(()))
    }

    fn is_full(&self) -> bool {
        self.objects_max.is_some_and(|max| self.count >= max)
    }

    /// An object as a get shows it; `None` where it has gone since its key was read.
    async fn object(&self, key: Bytes) -> Result<Option<RpbIndexObject>, Refusal> {
        let name = ObjectName { bucket: self.bucket.clone(), key };
        let mut typed_value = typed_value(&self.service, &name)?;
        let view = self.service.engine.get(&name, ReadOptions::default(), Some(&mut typed_value)).await?;
        if view.is_deleted() {
            return Ok(None);
        }
        let (content, vclock) = content::to_messages(&name, view, typed_value, false);
        Ok(Some(RpbIndexObject { key: name.key, object: RpbGetResp { content, vclock, unchanged: None } }))
    }

    /// A page that is full has a continuation, even where nothing follows.
    fn continuation(&mut self) -> Option<Bytes> {
        let key = self.last.take().filter(|_| self.is_full())?;
        Some(continuation::encode(&Posting { term: None, key }))
    }
}

fn content_size_bytes(content: &RpbContent) -> usize {
    let pairs = content.usermeta.iter().chain(&content.indexes);
    let pair = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    content.value.len() + pairs.map(|p| pair(&p.key) + pair(&p.value)).sum::<usize>()
}

async fn send(sender: &mpsc::Sender<Reply>, objects: Vec<RpbIndexObject>) -> Result<(), Gone> {
    let message = RpbCsBucketResp { objects, ..RpbCsBucketResp::default() };
    sender.send(Reply::CsBucket(message)).await.map_err(|_| Gone)
}
