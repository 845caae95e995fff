//! Requests about plain objects and their names.

pub(super) mod content;
pub(super) mod delete;
pub(super) mod get;
pub(super) mod list_buckets;
pub(super) mod list_keys;
pub(super) mod listing;
pub(super) mod map_reduce;
pub(super) mod name;
pub(super) mod put;
