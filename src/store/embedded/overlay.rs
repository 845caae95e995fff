//! Rows in memory, over those of the engine: what was written since the engine's tables last took everything up.
//!
//! There is one writer. A row keeps the versions that somebody may still look at, so that a reader sees the rows as they were
//! at one moment while later writes go on. Most rows are asked for by their keys, which is a look into a hash table; scans go
//! by an ordered list.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::{iter, mem};

use ahash::RandomState;
use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use hashbrown::HashTable;

use super::layout;
use crate::store::Position;

/// What a row costs beside its key and value: the nodes, the handles, the allocator's share. In bytes.
const ROW_OVERHEAD_BYTES: usize = 256;
/// The same for another version of a row.
const VERSION_OVERHEAD_BYTES: usize = 96;

/// Parts of the hash table, so that readers seldom meet at a lock.
const PARTS: usize = 64;

/// Rows by key.
pub(super) struct Overlay {
    by_key: Box<[RwLock<HashTable<Arc<Row>>>]>,
    hasher: RandomState,
    in_order: SkipMap<Bytes, Arc<Row>>,
    /// Rows that were written over, and when: the versions before that may be let go of. For the writer alone.
    written_over: Mutex<VecDeque<(Moment, Arc<Row>)>>,
    size_bytes: AtomicUsize,
    dead: AtomicUsize,
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

impl Version {
    fn size_bytes(&self) -> usize {
        VERSION_OVERHEAD_BYTES + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// One row. Its key stands beside its versions: whoever compares keys is about to look at them.
struct Row {
    key: Bytes,
    versions: RwLock<Versions>,
}

/// The versions of one row.
struct Versions {
    last: Version,
    /// Those before it, in the order of their moments.
    earlier: Vec<Version>,
}

impl Row {
    fn at(&self, moment: Moment) -> Option<Version> {
        let Versions { last, earlier } = &*self.versions.read().unwrap_or_else(PoisonError::into_inner);
        iter::once(last).chain(earlier.iter().rev()).find(|version| version.moment <= moment).cloned()
    }

    fn last_written(&self) -> Moment {
        self.versions.read().unwrap_or_else(PoisonError::into_inner).last.moment
    }

    fn write(&self, version: Version) {
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        let before = mem::replace(&mut versions.last, version);
        versions.earlier.push(before);
    }

    /// Lets go of the versions that nobody sees who looks at `oldest` or later. The bytes that this frees.
    fn let_go(&self, oldest: Moment) -> usize {
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        let Versions { last, earlier } = &mut *versions;
        let seen_from = match last.moment <= oldest {
            true => earlier.len(),
            false => earlier.iter().rposition(|version| version.moment <= oldest).unwrap_or(0),
        };
        earlier.drain(..seen_from).map(|version| version.size_bytes()).sum()
    }
}

impl Default for Overlay {
    fn default() -> Self {
        Self {
            by_key: (0..PARTS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            in_order: SkipMap::new(),
            written_over: Mutex::default(),
            size_bytes: AtomicUsize::new(0),
            dead: AtomicUsize::new(0),
        }
    }
}

impl Overlay {
    /// The part that rows with this hash are in. The table goes by other bits of it.
    fn part(&self, hash: u64) -> &RwLock<HashTable<Arc<Row>>> {
        &self.by_key[(hash >> 32) as usize % PARTS]
    }

    fn row(&self, hash: u64, key: &[u8]) -> Option<Arc<Row>> {
        self.part(hash).read().unwrap_or_else(PoisonError::into_inner).find(hash, |row| row.key == key).cloned()
    }

    /// Puts or deletes a row. Moments and positions never fall from one call to the next.
    pub(super) fn write(&self, key: Bytes, value: Option<Bytes>, moment: Moment, position: Position) {
        let is_dead = value.is_none() && layout::is_scanned(&key);
        let version = Version { moment, position, value };
        let version_bytes = version.size_bytes();
        let hash = self.hasher.hash_one(&key[..]);
        match self.row(hash, &key) {
            Some(row) => {
                row.write(version);
                self.grow(version_bytes);
                self.written_over().push_back((moment, row));
            }
            None => {
                self.grow(ROW_OVERHEAD_BYTES + key.len() + version_bytes);
                let versions = RwLock::new(Versions { last: version, earlier: Vec::new() });
                let row = Arc::new(Row { key: key.clone(), versions });
                self.in_order.insert(key, row.clone());
                let mut part = self.part(hash).write().unwrap_or_else(PoisonError::into_inner);
                part.insert_unique(hash, row, |row| self.hasher.hash_one(&row.key[..]));
            }
        }
        if is_dead {
            self.dead.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts bytes. There is one writer, so that nobody else changes the count.
    fn grow(&self, size_bytes: usize) {
        self.size_bytes.store(self.size_bytes() + size_bytes, Ordering::Relaxed);
    }

    fn written_over(&self) -> MutexGuard<'_, VecDeque<(Moment, Arc<Row>)>> {
        self.written_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of versions that nobody sees any more: nobody looks at a moment before `oldest`, nor ever will.
    pub(super) fn let_go(&self, oldest: Moment) {
        let mut written_over = self.written_over();
        let mut freed_bytes = 0;
        while let Some((_, row)) = written_over.pop_front_if(|(moment, _)| *moment <= oldest) {
            freed_bytes += row.let_go(oldest);
        }
        self.size_bytes.store(self.size_bytes() - freed_bytes, Ordering::Relaxed);
    }

    /// A row as it is at a moment, where it was written by then.
    pub(super) fn get(&self, key: &[u8], moment: Moment) -> Option<Version> {
        self.row(self.hasher.hash_one(key), key)?.at(moment)
    }

    /// Whether a row was written after a moment.
    pub(super) fn is_written_since(&self, key: &[u8], moment: Moment) -> bool {
        self.row(self.hasher.hash_one(key), key).is_some_and(|row| row.last_written() > moment)
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

    /// Deletes in scanned tables: a scan steps over such rows.
    pub(super) fn dead(&self) -> usize {
        self.dead.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn value(text: &'static str) -> Option<Bytes> {
        Some(bytes(text))
    }

    #[test]
    fn a_reader_sees_the_rows_of_its_moment() {
        let overlay = Overlay::default();
        overlay.write(bytes("b"), value("1"), Moment(1), Position(0));
        overlay.write(bytes("a"), value("2"), Moment(2), Position(0));
        overlay.write(bytes("b"), None, Moment(3), Position(0));
        overlay.write(bytes("b"), value("4"), Moment(4), Position(0));
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
    fn versions_that_nobody_sees_are_let_go() {
        let overlay = Overlay::default();
        overlay.write(bytes("a"), value("1"), Moment(1), Position(0));
        let size_bytes = overlay.size_bytes();
        for moment in 2..100 {
            overlay.write(bytes("a"), value("2"), Moment(moment), Position(0));
        }
        let at = |moment| overlay.get(b"a", Moment(moment)).and_then(|version| version.value);
        overlay.let_go(Moment(89));
        assert_eq!((at(88), at(89)), (None, Some(bytes("2"))), "who looks at 89 sees its version");
        assert_eq!(overlay.size_bytes(), size_bytes + 10 * (VERSION_OVERHEAD_BYTES + 1));
        overlay.write(bytes("a"), value("3"), Moment(100), Position(0));
        overlay.let_go(Moment(99));
        assert_eq!((at(98), at(99), at(100)), (None, Some(bytes("2")), Some(bytes("3"))));
        overlay.let_go(Moment(200));
        assert_eq!((at(99), at(100), overlay.size_bytes()), (None, Some(bytes("3")), size_bytes));
    }

    #[test]
    fn deleted_rows_in_scanned_tables_are_counted() {
        let overlay = Overlay::default();
        let write = |key, value, moment| overlay.write(bytes(key), value, Moment(moment), Position(0));
        write("c1", value(""), 1);
        assert_eq!(overlay.dead(), 0);
        write("c1", None, 2);
        write("c2", None, 2);
        write("n", None, 3);
        write("c3", value(""), 4);
        write("c3", value(""), 5);
        assert_eq!(overlay.dead(), 2, "headers do not count");
    }
}
