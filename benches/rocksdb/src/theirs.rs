//! RocksDB with the row that Ombak has for a plain object of this size: its header and its value, under its name.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBPinnableSlice, Options, WriteBatch, WriteBufferManager,
    WriteOptions,
};
use tokio::sync::{MutexGuard, oneshot};

use crate::values::name_of_key;
use crate::{Engine, Rows};

/// Bits of a filter for each key, as the usual advice is: one look-up of a hundred for a row that is not there reads a block.
const FILTER_BITS: f64 = 10.0;
/// How large RocksDB makes one table of new rows unless it is told otherwise.
const WRITE_BUFFER_BYTES: u64 = 64 * 1024 * 1024;
/// The actor that Ombak's rows name.
const ACTOR: u64 = 7;

/// How a write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Each writer asks for a sync; RocksDB makes one for those who ask at the same time.
    Own,
    /// A thread syncs the log for all who have written meanwhile.
    Gathered,
}

pub struct RocksDb {
    db: Arc<DB>,
    commit: Commit,
    /// Times of writes.
    time: AtomicU64,
    rows_read: AtomicU64,
    rows_put: AtomicU64,
    row_bytes_put: AtomicU64,
    waiting: Arc<Waiting>,
    syncer: Mutex<Option<JoinHandle<()>>>,
}

/// Those who have written and wait until the log is synced.
#[derive(Default)]
struct Waiting {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    writers: Vec<oneshot::Sender<()>>,
    closing: bool,
}

/// Its own defaults, but for what all who care about memory and look-ups set: LZ4, filters, and one bound for blocks, filters,
/// indexes and new rows.
fn options(memory: u64, threads: usize) -> Options {
    let size = |bytes: u64| usize::try_from(bytes).expect("there is as much memory");
    let cache = Cache::new_lru_cache(size(memory));
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_bloom_filter(FILTER_BITS, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(size(WRITE_BUFFER_BYTES.min(memory / 8)));
    // New rows take their memory from the cache.
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(
        size(memory / 4),
        false,
        cache,
    ));
    options.increase_parallelism(i32::try_from(threads.max(2)).unwrap_or(i32::MAX));
    // Or the system writes the tables all at once, and a sync of the log waits for that.
    options.set_bytes_per_sync(1024 * 1024);
    options
}

impl RocksDb {
    pub fn open(dir: &Path, memory: u64, threads: usize, commit: Commit) -> Self {
        let db = Arc::new(DB::open(&options(memory, threads), dir).expect("the directory does not open"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is wrong").as_micros() as u64;
        let waiting = Arc::new(Waiting::default());
        let syncer = (commit == Commit::Gathered).then(|| {
            let (db, waiting) = (db.clone(), waiting.clone());
            thread::spawn(move || waiting.sync(&db))
        });
        Self {
            db,
            commit,
            time: AtomicU64::new(now),
            rows_read: AtomicU64::new(0),
            rows_put: AtomicU64::new(0),
            row_bytes_put: AtomicU64::new(0),
            waiting,
            syncer: Mutex::new(syncer),
        }
    }

    fn row(&self, key: &[u8]) -> Option<DBPinnableSlice<'_>> {
        self.rows_read.fetch_add(1, Ordering::Relaxed);
        self.db.get_pinned(key).expect("the engine failed")
    }
}

impl Waiting {
    /// Syncs the log for those who wait, again and again.
    fn sync(&self, db: &DB) {
        loop {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.writers.is_empty() && !queue.closing {
                queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.writers.is_empty() {
                return;
            }
            let writers = std::mem::take(&mut queue.writers);
            drop(queue);
            db.flush_wal(true).expect("the log cannot be synced");
            for writer in writers {
                // Nobody gives up waiting.
                let _ = writer.send(());
            }
        }
    }

    fn queue(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).writers.push(sender);
        self.more.notify_one();
        receiver
    }
}

/// As long as Ombak's: a table, the default type, the bucket, the key and what ends each.
fn row_key(key: u64) -> Vec<u8> {
    [&b"n\x00\x01bench\x00\x01"[..], &name_of_key(key), b"\x00\x01"].concat()
}

/// As long as Ombak's: a version, the object's number and actor, the time and actor of its value, what is not there, and the value.
fn row(number: [u8; 8], time: u64, value: &[u8]) -> Vec<u8> {
    let actor = ACTOR.to_be_bytes();
    [&[1][..], &number, &actor, &time.to_be_bytes(), &actor, &time.to_be_bytes(), &[0; ABSENT_BYTES], value].concat()
}
/// Counts and lengths of what the object does not have.
const ABSENT_BYTES: usize = 52;
const NUMBER: std::ops::Range<usize> = 1..9;
const BEFORE_VALUE: usize = 41 + ABSENT_BYTES;

impl Engine for RocksDb {
    async fn put(&self, key: u64, value: Bytes, lock: MutexGuard<'_, ()>) {
        let row_key = row_key(key);
        let time = self.time.fetch_add(1, Ordering::Relaxed);
        // A new object is numbered by the time of its first value.
        let number = match self.row(&row_key) {
            Some(before) => before[NUMBER].try_into().expect("a row is longer"),
            None => time.to_be_bytes(),
        };
        let row = row(number, time, &value);
        self.rows_put.fetch_add(1, Ordering::Relaxed);
        self.row_bytes_put.fetch_add((row_key.len() + row.len()) as u64, Ordering::Relaxed);
        let mut batch = WriteBatch::default();
        batch.put(row_key, row);
        let mut write = WriteOptions::default();
        write.set_sync(self.commit == Commit::Own);
        self.db.write_opt(batch, &write).expect("the write failed");
        drop(lock);
        if self.commit == Commit::Gathered {
            self.waiting.queue().await.expect("the log is closed");
        }
    }

    async fn get(&self, key: u64) -> usize {
        // Whoever asked is given bytes of its own, as it is by Ombak.
        self.row(&row_key(key)).map_or(0, |row| Bytes::copy_from_slice(&row[BEFORE_VALUE..]).len())
    }

    fn rows(&self) -> Rows {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Rows { read: count(&self.rows_read), put: count(&self.rows_put), put_bytes: count(&self.row_bytes_put) }
    }

    fn close(&self) {
        self.waiting.queue.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.waiting.more.notify_one();
        if let Some(syncer) = self.syncer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            syncer.join().expect("the thread that syncs panicked");
        }
    }
}
