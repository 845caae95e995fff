//! Rows in memory, over those of the engine: what was written since the engine's tables last took everything up.
//!
//! There is one writer. A row keeps all its versions, so that a reader sees the rows as they were at one moment while later
//! writes go on. Most rows are asked for by their keys, which is a look into a hash table; scans go by an ordered list.

use std::collections::HashMap;
use std::hash::RandomState;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;

use super::layout;
use crate::store::Position;

/// What a row costs beside its key and value: the nodes, the handles, the allocator's share. In bytes.
const ROW_OVERHEAD_BYTES: usize = 320;
/// The same for another version of a row.
const VERSION_OVERHEAD_BYTES: usize = 96;

/// Parts of the hash table, so that readers seldom meet at a lock.
const PARTS: usize = 64;

type Part = HashMap<Bytes, Arc<Versions>, RandomState>;

/// Rows by key.
pub(super) struct Overlay {
    by_key: Box<[RwLock<Part>]>,
    in_order: SkipMap<Bytes, Arc<Versions>>,
    size_bytes: AtomicUsize,
    replaced: AtomicUsize,
}

/// When rows changed: every change of rows that belong together has its own, be it a write or a step of the sweep, which has
/// no position of its own in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) u64);

/// A row as it was from a moment on; without a value it is deleted.
#[derive(Clone)]
pub(super) struct Version {
    moment: Moment,
    /// The write that it is durable with.
    pub(super) position: Position,
    pub(super) value: Option<Bytes>,
}

/// The versions of one row, in the order of their moments. Most rows have one.
struct Versions {
    first: Version,
    later: RwLock<Vec<Version>>,
}

impl Versions {
    fn at(&self, moment: Moment) -> Option<Version> {
        let later = self.later.read().unwrap_or_else(PoisonError::into_inner);
        let found = later.iter().rev().find(|version| version.moment <= moment);
        found.or_else(|| (self.first.moment <= moment).then_some(&self.first)).cloned()
    }
}

impl Default for Overlay {
    fn default() -> Self {
        let hasher = RandomState::new();
        let part = |_| RwLock::new(Part::with_hasher(hasher.clone()));
        Self {
            by_key: (0..PARTS).map(part).collect(),
            in_order: SkipMap::new(),
            size_bytes: AtomicUsize::new(0),
            replaced: AtomicUsize::new(0),
        }
    }
}

impl Overlay {
    fn part(&self, key: &[u8]) -> &RwLock<Part> {
        // Nothing more than a spread: where all keys met at one part, they would only wait for each other.
        let spread = key.iter().fold(0_usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        &self.by_key[spread % PARTS]
    }

    fn versions(&self, key: &[u8]) -> Option<Arc<Versions>> {
        self.part(key).read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Puts or deletes a row. Moments and positions never fall from one call to the next.
    pub(super) fn write(&self, key: Bytes, value: Option<Bytes>, moment: Moment, position: Position) {
        let value_bytes = value.as_ref().map_or(0, Bytes::len);
        let is_deleted = value.is_none();
        let version = Version { moment, position, value };
        let is_scanned = layout::is_scanned(&key);
        let (is_new, size_bytes) = match self.versions(&key) {
            Some(versions) => {
                versions.later.write().unwrap_or_else(PoisonError::into_inner).push(version);
                (false, VERSION_OVERHEAD_BYTES + value_bytes)
            }
            None => {
                let size_bytes = ROW_OVERHEAD_BYTES + key.len() + value_bytes;
                let versions = Arc::new(Versions { first: version, later: RwLock::default() });
                self.in_order.insert(key.clone(), versions.clone());
                self.part(&key).write().unwrap_or_else(PoisonError::into_inner).insert(key, versions);
                (true, size_bytes)
            }
        };
        self.size_bytes.fetch_add(size_bytes, Ordering::Relaxed);
        if (is_deleted || !is_new) && is_scanned {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A row as it is at a moment, where it was written by then.
    pub(super) fn get(&self, key: &[u8], moment: Moment) -> Option<Version> {
        self.versions(key)?.at(moment)
    }

    /// The first row of a range that was written by a moment.
    pub(super) fn first(&self, start: Bound<&[u8]>, end: Bound<&[u8]>, moment: Moment) -> Option<(Bytes, Version)> {
        let mut rows = self.in_order.range::<[u8], _>((start, end));
        rows.find_map(|row| Some((row.key().clone(), row.value().at(moment)?)))
    }

    /// Every row as it is last.
    pub(super) fn last_versions(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        self.in_order.iter().filter_map(|row| Some((row.key().clone(), row.value().at(Moment(u64::MAX))?.value)))
    }

    /// What the rows take in memory, nearly, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// Versions in scanned tables that hold nothing any more: deletes, and what was written over.
    pub(super) fn replaced(&self) -> usize {
        self.replaced.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_reader_sees_the_rows_of_its_moment() {
        let overlay = Overlay::default();
        overlay.write(bytes("b"), Some(bytes("1")), Moment(1), Position(0));
        overlay.write(bytes("a"), Some(bytes("2")), Moment(2), Position(0));
        overlay.write(bytes("b"), None, Moment(3), Position(0));
        overlay.write(bytes("b"), Some(bytes("4")), Moment(4), Position(0));
        let at = |key: &str, moment| overlay.get(key.as_bytes(), Moment(moment)).map(|version| version.value);
        assert_eq!(at("a", 1), None);
        assert_eq!(at("a", 2), Some(Some(bytes("2"))));
        let of_b: Vec<_> = (0..6).map(|moment| at("b", moment)).collect();
        let one = Some(Some(bytes("1")));
        let four = Some(Some(bytes("4")));
        assert_eq!(of_b, [None, one.clone(), one, Some(None), four.clone(), four]);
        let first =
            |start: Bound<&[u8]>, moment| overlay.first(start, Bound::Unbounded, Moment(moment)).map(|(key, _)| key);
        assert_eq!(first(Bound::Unbounded, 1), Some(bytes("b")));
        assert_eq!(first(Bound::Unbounded, 2), Some(bytes("a")));
        assert_eq!(first(Bound::Excluded(b"a"), 9), Some(bytes("b")));
        assert_eq!(first(Bound::Excluded(b"b"), 9), None);
        let last: Vec<_> = overlay.last_versions().collect();
        assert_eq!(last, [(bytes("a"), Some(bytes("2"))), (bytes("b"), Some(bytes("4")))]);
    }

    #[test]
    fn rows_in_scanned_tables_that_change_again_are_counted() {
        let overlay = Overlay::default();
        overlay.write(bytes("c1"), Some(bytes("")), Moment(1), Position(0));
        assert_eq!(overlay.replaced(), 0);
        overlay.write(bytes("c1"), None, Moment(2), Position(0));
        overlay.write(bytes("c2"), None, Moment(2), Position(0));
        overlay.write(bytes("n"), Some(bytes("")), Moment(3), Position(0));
        overlay.write(bytes("n"), Some(bytes("")), Moment(4), Position(0));
        assert_eq!(overlay.replaced(), 2, "headers do not count");
    }
}
