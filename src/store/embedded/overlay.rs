//! Rows in memory, over those of the engine: what was written since the engine's tables last took everything up.
//!
//! There is one writer, and readers that wait for nobody. A row keeps all its versions, so that a reader sees the rows as
//! they were at one position while later writes go on.

use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;

use super::layout;
use crate::store::Position;

/// What a version costs beside its key and value: the node, the handles, the allocator's share. In bytes.
const VERSION_OVERHEAD_BYTES: usize = 160;

/// Rows by key.
#[derive(Default)]
pub(super) struct Overlay {
    rows: SkipMap<Bytes, Versions>,
    size_bytes: AtomicUsize,
    replaced: AtomicUsize,
}

/// A row as it was from a position on; without a value it is deleted.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) position: Position,
    pub(super) value: Option<Bytes>,
}

/// The versions of one row, in the order of their positions. Most rows have one.
struct Versions {
    first: Version,
    later: RwLock<Vec<Version>>,
}

impl Versions {
    fn at(&self, position: Position) -> Option<Version> {
        let later = self.later.read().unwrap_or_else(PoisonError::into_inner);
        let found = later.iter().rev().find(|version| version.position <= position);
        found.or_else(|| (self.first.position <= position).then_some(&self.first)).cloned()
    }
}

impl Overlay {
    /// Puts or deletes a row. Positions never fall from one call to the next.
    pub(super) fn write(&self, key: Bytes, value: Option<Bytes>, position: Position) {
        let size_bytes = key.len() + value.as_ref().map_or(0, Bytes::len) + VERSION_OVERHEAD_BYTES;
        self.size_bytes.fetch_add(size_bytes, Ordering::Relaxed);
        let is_deleted = value.is_none();
        let version = Version { position, value };
        let is_new = match self.rows.get(&key) {
            Some(row) => {
                row.value().later.write().unwrap_or_else(PoisonError::into_inner).push(version);
                false
            }
            None => {
                self.rows.insert(key.clone(), Versions { first: version, later: RwLock::default() });
                true
            }
        };
        if (is_deleted || !is_new) && layout::is_scanned(&key) {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A row as it is at a position, where it was written by then.
    pub(super) fn get(&self, key: &[u8], position: Position) -> Option<Version> {
        self.rows.get(key)?.value().at(position)
    }

    /// The first row of a range that was written by a position.
    pub(super) fn first(&self, start: Bound<&[u8]>, end: Bound<&[u8]>, position: Position) -> Option<(Bytes, Version)> {
        let mut rows = self.rows.range::<[u8], _>((start, end));
        rows.find_map(|row| Some((row.key().clone(), row.value().at(position)?)))
    }

    /// Every row as it is last.
    pub(super) fn last_versions(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        self.rows.iter().filter_map(|row| Some((row.key().clone(), row.value().at(Position(u64::MAX))?.value)))
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
    fn a_reader_sees_the_rows_of_its_position() {
        let overlay = Overlay::default();
        overlay.write(bytes("b"), Some(bytes("1")), Position(1));
        overlay.write(bytes("a"), Some(bytes("2")), Position(2));
        overlay.write(bytes("b"), None, Position(3));
        overlay.write(bytes("b"), Some(bytes("4")), Position(4));
        let at = |key: &str, position| overlay.get(key.as_bytes(), Position(position)).map(|version| version.value);
        assert_eq!(at("a", 1), None);
        assert_eq!(at("a", 2), Some(Some(bytes("2"))));
        let of_b: Vec<_> = (0..6).map(|position| at("b", position)).collect();
        let one = Some(Some(bytes("1")));
        let four = Some(Some(bytes("4")));
        assert_eq!(of_b, [None, one.clone(), one, Some(None), four.clone(), four]);
        let first = |start: Bound<&[u8]>, position| {
            overlay.first(start, Bound::Unbounded, Position(position)).map(|(key, _)| key)
        };
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
        overlay.write(bytes("c1"), Some(bytes("")), Position(1));
        assert_eq!(overlay.replaced(), 0);
        overlay.write(bytes("c1"), None, Position(2));
        overlay.write(bytes("c2"), None, Position(2));
        overlay.write(bytes("n"), Some(bytes("")), Position(3));
        overlay.write(bytes("n"), Some(bytes("")), Position(4));
        assert_eq!(overlay.replaced(), 2, "headers do not count");
    }
}
