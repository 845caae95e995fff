//! Listings: pages of keys and buckets, read as they are asked for, so that a listing of any length needs the memory of a
//! page.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{Engine, EngineError};
use crate::domain::key::BucketName;

/// A listing of names, and where it stands.
pub struct Listing {
    engine: Engine,
    names: Names,
    deadline: Instant,
    page_max: usize,
    last: Option<Bytes>,
    ended: bool,
}

/// What is listed.
enum Names {
    /// A bucket's keys.
    Keys(BucketName),
    /// A type's buckets that hold at least one key.
    Buckets(Bytes),
}

impl Engine {
    /// Lists a bucket's keys in pages of up to `page_max`.
    pub fn list_keys(&self, bucket: BucketName, patience: Duration, page_max: usize) -> Result<Listing, EngineError> {
        if self.inner.buckets.props(&bucket).is_none() {
            return Err(EngineError::NoSuchType);
        }
        Ok(Listing::new(self, Names::Keys(bucket), patience, page_max))
    }

    /// Lists the buckets of a type that hold at least one key, in pages of up to `page_max`.
    pub fn list_buckets(
        &self,
        bucket_type: Bytes,
        patience: Duration,
        page_max: usize,
    ) -> Result<Listing, EngineError> {
        if self.inner.buckets.type_props(&bucket_type).is_none() {
            return Err(EngineError::NoSuchType);
        }
        Ok(Listing::new(self, Names::Buckets(bucket_type), patience, page_max))
    }
}

impl Listing {
    fn new(engine: &Engine, names: Names, patience: Duration, page_max: usize) -> Self {
        let deadline = Instant::now() + patience;
        Self { engine: engine.clone(), names, deadline, page_max, last: None, ended: false }
    }

    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// [`EngineError::Timeout`] when the listing as a whole takes longer than it may.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, EngineError> {
        if Instant::now() >= self.deadline {
            return Err(EngineError::Timeout);
        }
        if self.ended {
            return Ok(None);
        }
        let (store, horizon) = (&self.engine.inner.store, &self.engine.horizon);
        let page = match &self.names {
            Names::Keys(bucket) => store.keys(bucket, self.last.as_ref(), self.page_max, horizon),
            Names::Buckets(bucket_type) => store.buckets(bucket_type, self.last.as_ref(), self.page_max, horizon),
        };
        let page = timeout_at(self.deadline, page).await.map_err(|_| EngineError::Timeout)??;
        self.ended = page.len() < self.page_max;
        self.last = page.last().cloned().or(self.last.take());
        Ok((!page.is_empty()).then_some(page))
    }
}
