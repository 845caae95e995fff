//! What the store asks of its engine, counted: the cost of an operation in rows, which no machine's speed changes.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use thread_local::ThreadLocal;

use super::run;

/// Rows and bytes since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows asked for by their key, those that are not there included.
    pub read: u64,
    /// Rows met by scans.
    pub scanned: u64,
    /// Rows put.
    pub put: u64,
    /// Keys and values of the rows put, in bytes.
    pub put_bytes: u64,
    /// Rows deleted.
    pub deleted: u64,
}

impl RowCounts {
    /// What was counted since an earlier moment.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            read: self.read - earlier.read,
            scanned: self.scanned - earlier.scanned,
            put: self.put - earlier.put,
            put_bytes: self.put_bytes - earlier.put_bytes,
            deleted: self.deleted - earlier.deleted,
        }
    }
}

/// Counters, for each thread its own: every request counts, and threads should not meet over that.
#[derive(Default)]
pub(super) struct Counters(ThreadLocal<CachePadded<ThreadCounters>>);

/// What one thread has counted. None orders anything, so they are relaxed.
#[derive(Default)]
struct ThreadCounters {
    read: AtomicU64,
    scanned: AtomicU64,
    put: AtomicU64,
    put_bytes: AtomicU64,
    deleted: AtomicU64,
}

/// Adds to a counter of the thread's own.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}

impl Counters {
    fn own(&self) -> &ThreadCounters {
        self.0.get_or_default()
    }

    pub(super) fn note_read(&self) {
        add(&self.own().read, 1);
    }

    pub(super) fn note_scanned(&self) {
        add(&self.own().scanned, 1);
    }

    pub(super) fn note_put(&self, size_bytes: usize) {
        let own = self.own();
        add(&own.put, 1);
        add(&own.put_bytes, size_bytes as u64);
    }

    pub(super) fn note_deleted(&self) {
        add(&self.own().deleted, 1);
    }

    /// Notes the rows of a run.
    pub(super) fn note_run(&self, counts: &run::Counts) {
        let own = self.own();
        add(&own.put, counts.put as u64);
        add(&own.put_bytes, counts.put_bytes as u64);
        add(&own.deleted, counts.deleted as u64);
    }

    pub(super) fn get(&self) -> RowCounts {
        let total = |counter: fn(&ThreadCounters) -> &AtomicU64| {
            self.0.iter().map(|counters| counter(counters).load(Ordering::Relaxed)).sum()
        };
        RowCounts {
            read: total(|counters| &counters.read),
            scanned: total(|counters| &counters.scanned),
            put: total(|counters| &counters.put),
            put_bytes: total(|counters| &counters.put_bytes),
            deleted: total(|counters| &counters.deleted),
        }
    }
}
