//! Requests about buckets and bucket types.

pub(super) mod convert;
pub(super) mod preflist;
pub(super) mod props;
pub(super) mod reset;
pub(super) mod type_props;
