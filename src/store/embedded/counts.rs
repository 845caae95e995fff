//! What the store asks of its engine, counted: the cost of an operation in rows, which no machine's speed changes.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// Counters that all threads add to. None orders anything, so they are relaxed.
#[derive(Debug, Default)]
pub(super) struct Counters {
    read: AtomicU64,
    scanned: AtomicU64,
    put: AtomicU64,
    put_bytes: AtomicU64,
    deleted: AtomicU64,
}

impl Counters {
    pub(super) fn note_read(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_scanned(&self) {
        self.scanned.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_put(&self, size_bytes: usize) {
        self.put.fetch_add(1, Ordering::Relaxed);
        self.put_bytes.fetch_add(size_bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn note_deleted(&self) {
        self.deleted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> RowCounts {
        RowCounts {
            read: self.read.load(Ordering::Relaxed),
            scanned: self.scanned.load(Ordering::Relaxed),
            put: self.put.load(Ordering::Relaxed),
            put_bytes: self.put_bytes.load(Ordering::Relaxed),
            deleted: self.deleted.load(Ordering::Relaxed),
        }
    }
}
