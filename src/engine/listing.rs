//! Listings: pages of keys and buckets, read as they are asked for, so that a listing of any length needs the memory of a
//! page.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{Engine, EngineError};
use crate::domain::key::BucketName;

/// A listing of one bucket's keys.
pub struct ListKeys {
    engine: Engine,
    bucket: BucketName,
    pages: Pages,
}

/// A listing of one type's buckets.
pub struct ListBuckets {
    engine: Engine,
    bucket_type: Bytes,
    pages: Pages,
}

/// Where a listing stands.
struct Pages {
    deadline: Instant,
    page_max: usize,
    last: Option<Bytes>,
    ended: bool,
}

impl Pages {
    fn new(patience: Duration, page_max: usize) -> Self {
        Self { deadline: Instant::now() + patience, page_max, last: None, ended: false }
    }

    fn turned(&mut self, page: Vec<Bytes>) -> Option<Vec<Bytes>> {
        self.ended = page.len() < self.page_max;
        self.last = page.last().cloned().or(self.last.take());
        (!page.is_empty()).then_some(page)
    }

    fn check_deadline(&self) -> Result<(), EngineError> {
        if Instant::now() >= self.deadline { Err(EngineError::Timeout) } else { Ok(()) }
    }
}

impl Engine {
    /// Lists a bucket's keys in pages of up to `page_max`.
    pub fn list_keys(&self, bucket: BucketName, patience: Duration, page_max: usize) -> Result<ListKeys, EngineError> {
        if self.inner.buckets.props(&bucket).is_none() {
            return Err(EngineError::NoSuchType);
        }
        Ok(ListKeys { engine: self.clone(), bucket, pages: Pages::new(patience, page_max) })
    }

    /// Lists the buckets of a type that hold at least one key, in pages of up to `page_max`.
    pub fn list_buckets(
        &self,
        bucket_type: Bytes,
        patience: Duration,
        page_max: usize,
    ) -> Result<ListBuckets, EngineError> {
        if self.inner.buckets.type_props(&bucket_type).is_none() {
            return Err(EngineError::NoSuchType);
        }
        Ok(ListBuckets { engine: self.clone(), bucket_type, pages: Pages::new(patience, page_max) })
    }
}

impl ListKeys {
    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// [`EngineError::Timeout`] when the listing as a whole takes longer than it may.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, EngineError> {
        self.pages.check_deadline()?;
        if self.pages.ended {
            return Ok(None);
        }
        let store = &self.engine.inner.store;
        let page = store.keys(&self.bucket, self.pages.last.as_ref(), self.pages.page_max);
        let page = timeout_at(self.pages.deadline, page).await.map_err(|_| EngineError::Timeout)??;
        Ok(self.pages.turned(page))
    }
}

impl ListBuckets {
    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// [`EngineError::Timeout`] when the listing as a whole takes longer than it may.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, EngineError> {
        self.pages.check_deadline()?;
        if self.pages.ended {
            return Ok(None);
        }
        let store = &self.engine.inner.store;
        let page = store.buckets(&self.bucket_type, self.pages.last.as_ref(), self.pages.page_max);
        let page = timeout_at(self.pages.deadline, page).await.map_err(|_| EngineError::Timeout)??;
        Ok(self.pages.turned(page))
    }
}
