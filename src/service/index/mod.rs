//! Queries of secondary indexes, and the fold over a bucket in the order of its keys.

mod continuation;
pub(super) mod cs_bucket;
pub(super) mod query;
