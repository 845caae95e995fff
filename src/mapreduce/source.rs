//! Inputs of a job, pulled page by page.

use std::time::Duration;

use bytes::Bytes;

use super::error::{JobError, SendingError};
use super::filter::Pipeline;
use super::job::{IndexInput, Inputs, key_term};
use crate::domain::key::BucketName;
use crate::engine::{Engine, EngineError, IndexQuery, Listing as KeyListing, Postings};
use crate::erlang::Term;

/// Inputs that are pulled at a time.
const PAGE_MAX: usize = 1000;
/// Keys that are filtered before other tasks get their turn.
const FILTERED_AT_A_TIME: usize = 64;

/// Where inputs come from.
pub(super) struct Source {
    kind: Kind,
    inputs_left: usize,
    inputs_max: usize,
}

enum Kind {
    Keys(std::vec::IntoIter<Term>),
    Listing(Box<Listing>),
    Index(Box<Found>),
}

/// What an index query finds: a key for each entry, so one with several entries in the range comes as often.
struct Found {
    postings: Postings,
    bucket: BucketName,
}

struct Listing {
    listing: KeyListing,
    bucket: BucketName,
    test: KeyTest,
}

/// Which keys of a listing are inputs.
enum KeyTest {
    All,
    Filters(Pipeline),
}

impl Source {
    /// A source of these inputs. A listing fails after `patience`.
    pub(super) fn open(
        engine: &Engine,
        inputs: Inputs,
        patience: Duration,
        inputs_max: usize,
    ) -> Result<Self, SendingError> {
        let list = |bucket: BucketName, test| match engine.list_keys(bucket.clone(), patience, PAGE_MAX) {
            Ok(listing) => Ok(Kind::Listing(Box::new(Listing { listing, bucket, test }))),
            Err(error) => Err(sending(error, &bucket)),
        };
        let kind = match inputs {
            Inputs::Keys(keys) => Kind::Keys(keys.into_iter()),
            Inputs::Bucket(bucket) => list(bucket, KeyTest::All)?,
            Inputs::Filtered { bucket, filters } => list(bucket, KeyTest::Filters(Pipeline::compile(&filters)?))?,
            Inputs::Index(IndexInput { bucket, range }) => {
                let query = IndexQuery { patience: Some(patience), ..IndexQuery::new(bucket.clone(), range) };
                match engine.query_index(query, PAGE_MAX) {
                    Ok(postings) => Kind::Index(Box::new(Found { postings, bucket })),
                    Err(error) => return Err(sending(error, &bucket)),
                }
            }
            Inputs::Search => return Err(SendingError::SearchUnavailable),
            Inputs::Function { module, function, arg } => {
                return Err(SendingError::Function { module, function, arg });
            }
        };
        Ok(Self { kind, inputs_left: inputs_max, inputs_max })
    }

    /// The next inputs, which may be none although more follow; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Term>>, JobError> {
        let page = match &mut self.kind {
            Kind::Keys(keys) => {
                let page: Vec<_> = keys.take(PAGE_MAX).collect();
                (!page.is_empty()).then_some(page)
            }
            Kind::Index(found) => {
                let Found { postings, bucket } = &mut **found;
                let page = postings.next().await.map_err(|error| sending(error, bucket))?;
                page.map(|page| page.into_iter().map(|posting| key_term(bucket, posting.key)).collect())
            }
            Kind::Listing(listing) => {
                let Listing { listing, bucket, test } = &mut **listing;
                let page = listing.next().await.map_err(|error| sending(error, bucket))?;
                match page {
                    Some(keys) => Some(test.select(keys, bucket).await?),
                    None => None,
                }
            }
        };
        let count = page.as_ref().map_or(0, Vec::len);
        let left = self.inputs_left.checked_sub(count);
        self.inputs_left = left.ok_or(JobError::TooManyInputs { max: self.inputs_max })?;
        Ok(page)
    }
}

impl KeyTest {
    async fn select(&self, keys: Vec<Bytes>, bucket: &BucketName) -> Result<Vec<Term>, SendingError> {
        let mut selected = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(FILTERED_AT_A_TIME) {
            for key in chunk {
                if self.passes(key)? {
                    selected.push(key_term(bucket, key.clone()));
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(selected)
    }

    fn passes(&self, key: &Bytes) -> Result<bool, SendingError> {
        match self {
            Self::All => Ok(true),
            Self::Filters(filters) => Ok(filters.passes(key)?),
        }
    }
}

fn sending(error: EngineError, bucket: &BucketName) -> SendingError {
    match error {
        EngineError::NoSuchType => SendingError::NoSuchType(bucket.bucket_type.clone()),
        other => SendingError::Engine(other),
    }
}
