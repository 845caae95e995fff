//! Quorum and time options, which most requests have in common.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::quorum::Quorum;

pub(super) fn quorum(value: Option<u32>) -> Option<Quorum> {
    value.map(Quorum)
}

pub(super) fn timeout(value: Option<u32>) -> Option<Duration> {
    value.map(|ms| Duration::from_millis(ms.into()))
}

/// A required field that is absent counts as zero-length (`kv.md` §1.5).
pub(super) fn required(value: Option<Bytes>) -> Bytes {
    value.unwrap_or_default()
}
