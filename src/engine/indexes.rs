//! Index queries: pages of postings, read as they are asked for, so that a query of any length needs the memory of a page
//! and takes time in proportion to what it finds.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Engine, EngineError};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::BucketName;
use crate::domain::pattern::Pattern;

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
    pub pattern: Option<Pattern>,
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
        let page = self.engine.inner.store.postings(bucket, range, after.as_ref(), limit, &self.engine.horizon);
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

fn matches(pattern: &Pattern, posting: &Posting) -> bool {
    match &posting.term {
        Some(term) => pattern.is_match(term.as_bytes()),
        None => pattern.is_match(&posting.key),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::domain::datatype::limits::UpdateLimits;
    use crate::domain::dot::ActorId;
    use crate::domain::key::ObjectName;
    use crate::domain::object::{Content, ObjectLimits, PutCondition};
    use crate::engine::{DeleteMode, EngineOptions, PutRequest, WriteOptions};
    use crate::store::memory::MemoryStore;

    fn bucket() -> BucketName {
        BucketName::new(None, Bytes::from_static(b"b"))
    }

    /// An engine with objects 00 to 19, each under its number in `n_int` and under its last digit in `d_bin`.
    async fn engine() -> Engine {
        let limits = ObjectLimits { siblings_max: 100, object_size_bytes_max: 1 << 20 };
        let options = EngineOptions {
            delete_mode: DeleteMode::Keep,
            object_limits: limits,
            key_size_bytes_max: 100,
            context_actors_max: 100,
            update_limits: UpdateLimits {
                elements_max: 1,
                member_size_bytes_max: 1,
                field_name_size_bytes_max: 1,
                names_size_bytes_max: 1000,
            },
            object_warnings: limits,
            n_val_default: 3,
            create_default_types: false,
            tombstones_waiting_bytes_max: 1024 * 1024,
            request_timeout_default: Duration::from_secs(1),
        };
        let engine = Engine::start(Arc::new(MemoryStore::new(ActorId(1))), options).await.unwrap();
        for number in 0..20 {
            let pair = |index: &'static str, term: i32| (Bytes::from(index), Bytes::from(term.to_string()));
            let content =
                Content { indexes: vec![pair("N_int", number), pair("d_bin", number % 10)], ..Content::default() };
            let put = PutRequest {
                content,
                context: None,
                condition: PutCondition::default(),
                options: WriteOptions::default(),
                return_view: false,
            };
            let name = ObjectName { bucket: bucket(), key: Bytes::from(format!("{number:02}")) };
            engine.put(&name, put, None).await.unwrap();
        }
        engine
    }

    async fn pages(engine: &Engine, query: IndexQuery, page_max: usize) -> Vec<Vec<Bytes>> {
        let mut postings = engine.query_index(query, page_max).unwrap();
        let mut pages = Vec::new();
        while let Some(page) = postings.next().await.unwrap() {
            pages.push(page.into_iter().map(|posting| posting.key).collect());
        }
        assert!(postings.next().await.unwrap().is_none());
        pages
    }

    fn numbers() -> IndexQuery {
        let range = IndexRange::between(b"n_int", Bytes::from_static(b"3"), Bytes::from_static(b"9")).unwrap();
        IndexQuery::new(bucket(), range)
    }

    #[tokio::test]
    async fn pages_are_full_but_for_the_last_and_never_empty() {
        let engine = engine().await;
        assert_eq!(pages(&engine, numbers(), 3).await, [vec!["03", "04", "05"], vec!["06", "07", "08"], vec!["09"]]);
        assert_eq!(pages(&engine, numbers(), 7).await, [["03", "04", "05", "06", "07", "08", "09"]]);
        let nothing = IndexQuery::new(bucket(), IndexRange::exact(b"n_int", Bytes::from_static(b"99")).unwrap());
        assert!(pages(&engine, nothing, 3).await.is_empty());
    }

    #[tokio::test]
    async fn results_max_counts_what_the_pattern_leaves() {
        let engine = engine().await;
        let limited = |results_max| IndexQuery { results_max: Some(results_max), ..numbers() };
        assert_eq!(pages(&engine, limited(4), 3).await, [vec!["03", "04", "05"], vec!["06"]]);
        assert!(pages(&engine, limited(0), 3).await.is_empty());

        let range = IndexRange::between(b"d_bin", Bytes::new(), Bytes::from_static(b"z")).unwrap();
        let pattern = Pattern::compile(b"[37]").unwrap();
        let query = IndexQuery { pattern: Some(pattern), results_max: Some(3), ..IndexQuery::new(bucket(), range) };
        assert_eq!(pages(&engine, query, 2).await.concat(), ["03", "13", "07"]);

        let pattern = Pattern::compile(b"^1[05]$").unwrap();
        let query = IndexQuery { pattern: Some(pattern), ..IndexQuery::new(bucket(), IndexRange::BUCKET) };
        assert_eq!(pages(&engine, query, 4).await.concat(), ["10", "15"]);
    }

    #[tokio::test]
    async fn a_query_goes_on_behind_a_posting() {
        let engine = engine().await;
        let mut postings = engine.query_index(numbers(), 2).unwrap();
        let last = postings.next().await.unwrap().unwrap().pop();
        let rest = IndexQuery { after: last, results_max: Some(2), ..numbers() };
        assert_eq!(pages(&engine, rest, 10).await, [["05", "06"]]);
    }

    #[tokio::test]
    async fn a_query_that_takes_too_long_ends() {
        let engine = engine().await;
        let query = IndexQuery { patience: Some(Duration::ZERO), ..numbers() };
        let mut postings = engine.query_index(query, 2).unwrap();
        assert!(matches!(postings.next().await, Err(EngineError::Timeout)));
    }

    #[tokio::test]
    async fn a_bucket_type_must_be_there() {
        let engine = engine().await;
        let bucket = BucketName::new(Some(Bytes::from_static(b"none")), Bytes::new());
        let query = IndexQuery::new(bucket, IndexRange::BUCKET);
        assert!(matches!(engine.query_index(query, 2), Err(EngineError::NoSuchType)));
    }
}
