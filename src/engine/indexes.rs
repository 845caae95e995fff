//! Index queries: pages of postings, read as they are asked for, so that a query of any length needs the memory of a page
//! and takes time in proportion to what it finds.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Engine, EngineError};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::BucketName;
use crate::domain::term_pattern::TermPattern;

/// What to find. The range alone is a whole query; the rest narrows it.
#[derive(Clone, Debug)]
pub struct IndexQuery {
    /// The bucket.
    pub bucket: BucketName,
    /// The piece of the index.
    pub range: IndexRange,
    /// The posting behind which to begin: the last one of an earlier page.
    pub after: Option<Posting>,
    /// What terms must match; in an index of keys, what keys must match.
    pub pattern: Option<TermPattern>,
    /// The most postings to find.
    pub results_max: Option<usize>,
    /// How long the query as a whole may take; for ever where there is none.
    pub patience: Option<Duration>,
}

impl IndexQuery {
    /// Everything in the range.
    pub fn new(bucket: BucketName, range: IndexRange) -> Self {
        Self { bucket, range, after: None, pattern: None, results_max: None, patience: None }
    }
}

/// A query under way.
pub struct Postings {
    engine: Engine,
    query: IndexQuery,
    deadline: Option<Instant>,
    page_max: usize,
    /// How many are still wanted.
    wanted: usize,
    ended: bool,
}

impl Engine {
    /// Finds postings in pages of up to `page_max`, in the order of the index.
    ///
    /// # Errors
    /// [`EngineError::NoSuchType`] when the bucket's type does not exist.
    pub fn query_index(&self, query: IndexQuery, page_max: usize) -> Result<Postings, EngineError> {
        if self.inner.buckets.props(&query.bucket).is_none() {
            return Err(EngineError::NoSuchType);
        }
        let deadline = query.patience.and_then(|patience| Instant::now().checked_add(patience));
        let wanted = query.results_max.unwrap_or(usize::MAX);
        Ok(Postings { engine: self.clone(), query, deadline, page_max: page_max.max(1), wanted, ended: wanted == 0 })
    }
}

impl Postings {
    /// The next page, never an empty one; `None` at the end.
    ///
    /// # Errors
    /// [`EngineError::Timeout`] when the query as a whole takes longer than it may.
    pub async fn next(&mut self) -> Result<Option<Vec<Posting>>, EngineError> {
        while !self.ended {
            let mut page = self.read_page().await?;
            if let Some(pattern) = &self.query.pattern {
                page.retain(|posting| matches(pattern, posting));
            }
            page.truncate(self.wanted);
            self.wanted -= page.len();
            self.ended |= self.wanted == 0;
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// The next page of the range. The pattern may leave little of it, so it is not bounded by what is still wanted then.
    async fn read_page(&mut self) -> Result<Vec<Posting>, EngineError> {
        let IndexQuery { bucket, range, after, pattern, .. } = &self.query;
        let limit = if pattern.is_some() { self.page_max } else { self.page_max.min(self.wanted) };
        let page = self.engine.inner.store.postings(bucket, range, after.as_ref(), limit);
        let page = match self.deadline {
            Some(deadline) if Instant::now() >= deadline => return Err(EngineError::Timeout),
            Some(deadline) => timeout_at(deadline, page).await.map_err(|_| EngineError::Timeout)??,
            None => page.await?,
        };
        self.ended = page.len() < limit;
        self.query.after = page.last().cloned().or(self.query.after.take());
        Ok(page)
    }
}

fn matches(pattern: &TermPattern, posting: &Posting) -> bool {
    match &posting.term {
        Some(term) => pattern.is_match(term.as_bytes()),
        None => pattern.is_match(&posting.key),
    }
}
