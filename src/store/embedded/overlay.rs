//! Rows in memory, over those of the engine: what was written since the engine's tables last took everything up.
//!
//! There is one writer. Very many rows at once come in a run of their own, and look-ups and scans go through the few of them too. A row keeps the versions that somebody may still look at, so that a reader sees the rows as they were
//! at one moment while later writes go on. Most rows are asked for by their keys, which is a look into a hash table; scans go
//! by an ordered list.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::{iter, mem};

use ahash::RandomState;
use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use hashbrown::HashTable;

use super::layout;
use super::run::Run;
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
    /// What was written in one piece, in the order of moments. There are few, and often none.
    runs: RwLock<Vec<Linked>>,
    run_count: AtomicUsize,
    /// Rows that were written over, and when: the versions before that may be let go of. For the writer alone.
    written_over: Mutex<VecDeque<(Moment, Arc<Row>)>>,
    size_bytes: AtomicUsize,
    dead: AtomicUsize,
}

/// A run that is visible from a moment on.
#[derive(Clone)]
struct Linked {
    run: Arc<Run>,
    moment: Moment,
    position: Position,
}

impl Linked {
    fn version(&self, value: Option<Bytes>) -> Version {
        Version { moment: self.moment, position: self.position, value }
    }
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

/// Whether a key lies before the end of a range.
fn is_before(key: &[u8], end: Bound<&[u8]>) -> bool {
    match end {
        Bound::Unbounded => true,
        Bound::Included(end) => key <= end,
        Bound::Excluded(end) => key < end,
    }
}

impl Default for Overlay {
    fn default() -> Self {
        Self {
            by_key: (0..PARTS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            in_order: SkipMap::new(),
            runs: RwLock::default(),
            run_count: AtomicUsize::new(0),
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

    /// Puts and deletes the rows of a run, in a time that does not follow their number. None of them is written otherwise at the
    /// same moment. For the writer alone, as above.
    pub(super) fn link(&self, run: Run, moment: Moment, position: Position) {
        self.grow(run.size_bytes());
        self.dead.fetch_add(run.counts.dead, Ordering::Relaxed);
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        runs.push(Linked { run: Arc::new(run), moment, position });
        // Whoever sees the moment sees this too.
        self.run_count.store(runs.len(), Ordering::Relaxed);
    }

    /// How many runs there are: each makes reading a little slower.
    pub(super) fn run_count(&self) -> usize {
        self.run_count.load(Ordering::Relaxed)
    }

    /// The runs that are visible at a moment, the newest first.
    fn visit_runs<T>(&self, moment: Moment, mut visit: impl FnMut(&Linked) -> ControlFlow<T>) -> ControlFlow<T> {
        if self.run_count() == 0 {
            return ControlFlow::Continue(());
        }
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        runs.iter().rev().filter(|linked| linked.moment <= moment).try_for_each(&mut visit)
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
        let version = self.row(self.hasher.hash_one(key), key).and_then(|row| row.at(moment));
        let newer = self.visit_runs(moment, |linked| {
            if version.as_ref().is_some_and(|version| version.moment >= linked.moment) {
                return ControlFlow::Break(None);
            }
            match linked.run.get(key) {
                Some(value) => ControlFlow::Break(Some(linked.version(value))),
                None => ControlFlow::Continue(()),
            }
        });
        newer.break_value().flatten().or(version)
    }

    /// Whether a row was written after a moment.
    pub(super) fn is_written_since(&self, key: &[u8], moment: Moment) -> bool {
        if self.row(self.hasher.hash_one(key), key).is_some_and(|row| row.last_written() > moment) {
            return true;
        }
        let in_run = self.visit_runs(Moment(u64::MAX), |linked| match linked.moment > moment {
            true if linked.run.get(key).is_some() => ControlFlow::Break(true),
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(false),
        });
        in_run.break_value().unwrap_or(false)
    }

    /// The first row of a range that was written by a moment.
    pub(super) fn first(&self, start: Bound<&[u8]>, end: Bound<&[u8]>, moment: Moment) -> Option<(Bytes, Version)> {
        let mut rows = self.in_order.range::<[u8], _>((start, end));
        let mut first = rows.find_map(|row| Some((row.key().clone(), row.value().at(moment)?)));
        let ControlFlow::Continue(()) = self.visit_runs::<Infallible>(moment, |linked| {
            if linked.run.is_apart(start, end) {
                return ControlFlow::Continue(());
            }
            let at = linked.run.position(start);
            if let Some(key) = linked.run.key(at).filter(|key| is_before(key, end))
                && first.as_ref().is_none_or(|(other, version)| match key.cmp(other) {
                    Less => true,
                    Equal => linked.moment > version.moment,
                    Greater => false,
                })
            {
                first = Some((key, linked.version(linked.run.value(at))));
            }
            ControlFlow::Continue(())
        });
        first
    }

    /// Every row as it is last, in the order of keys.
    pub(super) fn last_versions(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        let last = Moment(u64::MAX);
        let mut rows = self.in_order.iter().filter_map(move |row| Some((row.key().clone(), row.value().at(last)?)));
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut runs: Vec<_> = runs.into_iter().map(|linked| (linked.run.key(0), 0, linked)).collect();
        let mut next_row = rows.next();
        iter::from_fn(move || {
            let of_runs = runs.iter().filter_map(|(key, ..)| key.as_ref());
            let first = next_row.iter().map(|(key, _)| key).chain(of_runs).min()?.clone();
            let mut newest = next_row.take_if(|(key, _)| *key == first).map(|(_, version)| version);
            if newest.is_some() {
                next_row = rows.next();
            }
            for (key, at, linked) in runs.iter_mut().filter(|(key, ..)| key.as_ref() == Some(&first)) {
                if newest.as_ref().is_none_or(|version| version.moment < linked.moment) {
                    newest = Some(linked.version(linked.run.value(*at)));
                }
                *at += 1;
                *key = linked.run.key(*at);
            }
            newest.map(|version| (first, version.value))
        })
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
    use super::super::run::RunBuilder;
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

    fn run(rows: &[(&'static str, Option<&'static str>)]) -> Run {
        let mut builder = RunBuilder::default();
        rows.iter().for_each(|(key, value)| builder.push(key.as_bytes(), value.map(str::as_bytes)));
        builder.finish()
    }

    #[test]
    fn rows_of_runs_are_seen_among_the_others_each_from_its_moment_on() {
        let overlay = Overlay::default();
        let empty_bytes = overlay.size_bytes();
        overlay.write(bytes("b"), value("1"), Moment(1), Position(1));
        overlay.link(run(&[("a", Some("2")), ("b", Some("2")), ("c1", Some("2"))]), Moment(2), Position(2));
        overlay.write(bytes("a"), value("3"), Moment(3), Position(3));
        overlay.link(run(&[("b", None), ("c1", None), ("d", Some("4"))]), Moment(4), Position(4));
        overlay.write(bytes("d"), value("5"), Moment(5), Position(5));
        let at = |key: &str, moment| {
            let version = overlay.get(key.as_bytes(), Moment(moment))?;
            Some((version.position.0, version.value.map(|value| value[0] - b'0')))
        };
        for moment in 0..=6 {
            let written = |versions: &[(u64, Option<u8>)]| versions.iter().rfind(|(at, _)| *at <= moment).copied();
            let rows = [
                ("a", written(&[(2, Some(2)), (3, Some(3))])),
                ("b", written(&[(1, Some(1)), (2, Some(2)), (4, None)])),
                ("c1", written(&[(2, Some(2)), (4, None)])),
                ("d", written(&[(4, Some(4)), (5, Some(5))])),
            ];
            let mut start = Bound::Unbounded;
            let mut scanned = Vec::new();
            while let Some((key, version)) =
                overlay.first(start.as_ref().map(|key: &Bytes| &key[..]), Bound::Excluded(b"e"), Moment(moment))
            {
                scanned.push((key.clone(), (version.position.0, version.value.map(|value| value[0] - b'0'))));
                start = Bound::Excluded(key);
            }
            let there = rows.iter().filter_map(|(key, version)| Some((bytes(key), (*version)?)));
            assert_eq!(scanned, there.collect::<Vec<_>>(), "at {moment}");
            rows.iter().for_each(|(key, version)| assert_eq!(at(key, moment), *version, "{key} at {moment}"));
        }
        let until = |end| overlay.first(Bound::Excluded(b"b"), Bound::Excluded(end), Moment(2)).map(|(key, _)| key);
        assert_eq!((until(b"c"), until(b"c2")), (None, Some(bytes("c1"))));
        assert!(overlay.is_written_since(b"b", Moment(3)) && !overlay.is_written_since(b"b", Moment(4)));
        let last: Vec<_> = overlay.last_versions().collect();
        let expected = [("a", value("3")), ("b", None), ("c1", None), ("d", value("5"))];
        assert_eq!(last, expected.map(|(key, value)| (bytes(key), value)));
        assert_eq!((overlay.dead(), overlay.run_count()), (1, 2));
        assert!(overlay.size_bytes() > empty_bytes + 6 * size_of::<usize>());
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
