//! The embedded store: fjall behind one committer thread.
//!
//! Reads go to the engine directly, from a snapshot. Writes are queued; the committer turns all that wait into rows, makes
//! them durable in one batch with one fsync, and resolves their tickets. Being the only writer it needs no locks to read
//! what it is about to change, and what a floor ends is deleted at once or, where that is much, swept between batches.

mod churn;
mod commit;
mod counts;
mod layout;
#[cfg_attr(not(test), expect(dead_code, reason = "the record of a map write in the commit log that comes"))]
mod map_delta;
mod maps;
mod packed;
mod record;
mod rows;
mod scan;
mod sweep;
#[cfg(test)]
mod tests;

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions};
use thiserror::Error;

use self::commit::{Committer, Work, WorkQueue};
pub use self::counts::RowCounts;
use self::rows::Rows;
use super::maps::{Change, KeyPage, MapDelta, MapStore, PageLimits, PartitionState};
use super::{Content, ObjectState, Store, StoreError, StoreFuture, Ticket};
use crate::domain::cell::{CellKey, LiveCells, Path as DomainPath, Selection};
use crate::domain::delta::Delta;
use crate::domain::dot::{ActorId, Time};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::map::{Digest, Entry, MapKey, Partition};

/// The layout of a data directory that this release writes. Others are refused.
const FORMAT: &str = "ombak 1\n";

/// What a new data directory may hold before it has a format: the lock, a format whose writing was cut short, and what
/// file systems put at their root.
const NOT_FOREIGN: [&str; 3] = ["LOCK", "FORMAT.new", "lost+found"];

/// How the store is to be opened.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The data directory; made when it is absent.
    pub dir: PathBuf,
    /// Memory for blocks read from disk, in bytes.
    pub cache_size_bytes: u64,
    /// Memory for one table of rows not yet on disk, in bytes. Small ones cost speed and tail latency. The engine takes
    /// it when the directory is made, and keeps it.
    pub memtable_size_bytes: u64,
    /// The identity to write as, if the directory has none yet.
    pub new_actor: ActorId,
    /// When objects are laid out how, and how much work a large remove may be at a time.
    pub rows: RowLimits,
    /// What a ticket that resolves stands for.
    pub durability: Durability,
}

/// What it takes for a write to be called durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The disk has it. No server runs with less.
    #[default]
    Fsync,
    /// The system's memory has it, and a power failure may take it: so that benches measure the store and not the disk.
    NoneForBenches,
}

impl EmbeddedOptions {
    /// The usual options for a directory.
    pub fn new(dir: PathBuf, new_actor: ActorId) -> Self {
        Self {
            dir,
            cache_size_bytes: 256 * 1024 * 1024,
            memtable_size_bytes: 64 * 1024 * 1024,
            new_actor,
            rows: RowLimits::default(),
            durability: Durability::default(),
        }
    }
}

/// Bounds on rows.
#[derive(Clone, Copy, Debug)]
pub struct RowLimits {
    /// An object whose cells take up to this many bytes is one row; a larger one has a row for each cell.
    pub packed_size_bytes_max: usize,
    /// An object of up to this many cells is one row.
    pub packed_cells_max: usize,
    /// A remove deletes at once where it meets up to this many rows. What is larger gets a floor, and is swept.
    pub rows_ended_at_once_max: usize,
    /// Rows looked at in one step of the sweep, while other writes wait; none counts as one.
    pub rows_swept_per_step_max: usize,
}

impl Default for RowLimits {
    fn default() -> Self {
        Self {
            packed_size_bytes_max: 4096,
            packed_cells_max: 128,
            rows_ended_at_once_max: 128,
            rows_swept_per_step_max: 512,
        }
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory cannot be made, read or written.
    #[error("cannot use the data directory {}: {error}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another process has it.
    #[error("the data directory {} is in use by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// It was written by something else.
    #[error("the data directory {} has the format {found:?}, and this release knows only {FORMAT:?}", dir.display())]
    Format {
        /// The directory.
        dir: PathBuf,
        /// The first bytes of its format file.
        found: String,
    },
    /// It holds files but no format: not a data directory.
    #[error("{} is not empty and no data directory of Ombak's (it has no FORMAT file)", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// The engine cannot open it.
    #[error("the storage engine cannot open {}: {reason}", dir.display())]
    Engine {
        /// The directory.
        dir: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// A row without which the store cannot start is damaged.
    #[error("the data directory {} is damaged: {error}", dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// Which row.
        error: StoreError,
    },
}

/// The store.
pub struct EmbeddedStore {
    actor: ActorId,
    clock_bound: Time,
    rows: Rows,
    queue: WorkQueue,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens a data directory, making it when it is absent, and starts the committer.
    pub fn open(options: EmbeddedOptions) -> Result<Self, OpenError> {
        let dir = options.dir.clone();
        let lock = claim(&dir)?;
        let engine_error = |error: fjall::Error| OpenError::Engine { dir: dir.clone(), reason: error.to_string() };
        let database =
            Database::builder(dir.join("engine")).cache_size(options.cache_size_bytes).open().map_err(engine_error)?;
        let create = || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_size_bytes);
        let keyspace = database.keyspace("rows", create).map_err(engine_error)?;

        let rows = Rows::new(database, keyspace, options.durability, lock);
        let damaged = |error| OpenError::Damaged { dir: dir.clone(), error };
        let actor = rows.establish_actor(options.new_actor).map_err(damaged)?;
        let clock_bound = rows.clock_bound().map_err(damaged)?;
        let (queue, committer) = Committer::start(rows.clone(), options.rows).map_err(damaged)?;
        Ok(Self { actor, clock_bound, rows, queue, committer: Mutex::new(Some(committer)) })
    }

    /// What the store has asked of its engine since it was opened.
    pub fn counts(&self) -> RowCounts {
        self.rows.counts()
    }

    /// The number of rows in the directory, found by a scan of them all: for inspection, not for requests.
    pub fn row_count(&self) -> Result<u64, StoreError> {
        self.rows.count()
    }
}

/// Takes the directory for this process and checks that it is one of ours.
fn claim(dir: &Path) -> Result<File, OpenError> {
    let io = |error| OpenError::Io { dir: dir.to_owned(), error };
    fs::create_dir_all(dir).map_err(io)?;
    // Before the lock, which would be a file of ours in a directory that is not. Whoever has the lock may be putting its
    // first files here meanwhile, and its format is the first of them.
    if is_foreign(dir).map_err(io)? {
        return Err(OpenError::NotOurs { dir: dir.to_owned() });
    }
    let lock = File::options().create(true).truncate(false).write(true).open(dir.join("LOCK")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    match fs::read(dir.join("FORMAT")) {
        Ok(found) if found == FORMAT.as_bytes() => Ok(lock),
        Ok(found) => {
            let found = String::from_utf8_lossy(&found[..found.len().min(64)]).into_owned();
            Err(OpenError::Format { dir: dir.to_owned(), found })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => write_format(dir).map(|()| lock).map_err(io),
        Err(error) => Err(io(error)),
    }
}

/// Whether a directory holds anything but no format.
fn is_foreign(dir: &Path) -> std::io::Result<bool> {
    let mut foreign = false;
    for entry in fs::read_dir(dir)? {
        foreign |= !NOT_FOREIGN.iter().any(|name| entry.as_ref().is_ok_and(|entry| entry.file_name() == *name));
        entry?;
    }
    Ok(foreign && !dir.join("FORMAT").try_exists()?)
}

/// Makes the format durable before any data, and whole: a crash leaves a directory of a known format or an empty one.
fn write_format(dir: &Path) -> std::io::Result<()> {
    let new = dir.join("FORMAT.new");
    let mut file = File::create(&new)?;
    file.write_all(FORMAT.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, dir.join("FORMAT"))?;
    File::open(dir)?.sync_all()
}

impl Store for EmbeddedStore {
    fn actor(&self) -> ActorId {
        self.actor
    }

    fn clock_bound(&self) -> Time {
        self.clock_bound
    }

    fn raise_clock_bound(&self, bound: Time) -> Ticket {
        self.queue.push(Work::ClockBound(bound))
    }

    // Reads are served where they are asked for: most are answered from memory, and a hand-over to another thread would
    // cost more than the read.
    fn read<'a>(&'a self, name: &'a ObjectName, selections: &'a [Selection]) -> StoreFuture<'a, LiveCells> {
        Box::pin(async move { self.rows.read(name, selections) })
    }

    fn open_content<'a>(
        &'a self,
        name: &'a ObjectName,
        path: DomainPath,
        from: Option<CellKey>,
    ) -> StoreFuture<'a, Content> {
        Box::pin(async move { self.rows.open_content(name, path, from) })
    }

    fn inspect<'a>(&'a self, name: &'a ObjectName) -> StoreFuture<'a, ObjectState> {
        Box::pin(async move { self.rows.inspect(name) })
    }

    fn commit(&self, name: ObjectName, delta: Delta) -> Ticket {
        self.queue.push(Work::Delta(name, delta))
    }

    fn keys<'a>(
        &'a self,
        bucket: &'a BucketName,
        after: Option<&'a Bytes>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Bytes>> {
        let (rows, bucket, after) = (self.rows.clone(), bucket.clone(), after.cloned());
        blocking(move || rows.keys(&bucket, after, limit))
    }

    fn buckets<'a>(
        &'a self,
        bucket_type: &'a Bytes,
        after: Option<&'a Bytes>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Bytes>> {
        let (rows, bucket_type, after) = (self.rows.clone(), bucket_type.clone(), after.cloned());
        blocking(move || rows.buckets(&bucket_type, after, limit))
    }

    fn postings<'a>(
        &'a self,
        bucket: &'a BucketName,
        range: &'a IndexRange,
        after: Option<&'a Posting>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Posting>> {
        let (rows, bucket, range, after) = (self.rows.clone(), bucket.clone(), range.clone(), after.cloned());
        blocking(move || rows.postings(&bucket, &range, after.as_ref(), limit))
    }

    fn records(&self) -> StoreFuture<'_, Vec<(Bytes, Bytes)>> {
        let rows = self.rows.clone();
        blocking(move || rows.records())
    }

    fn put_record(&self, key: Bytes, value: Option<Bytes>) -> Ticket {
        self.queue.push(Work::Record(key, value))
    }

    fn close(&self) {
        self.queue.close();
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(committer) = committer
            && committer.join().is_err()
        {
            tracing::error!("the committer thread panicked");
        }
    }
}

impl MapStore for EmbeddedStore {
    fn map_partitions(&self) -> StoreFuture<'_, Vec<PartitionState>> {
        Box::pin(async move { self.rows.map_partitions() })
    }

    fn map_entry<'a>(&'a self, partition: Partition, key: &'a MapKey) -> StoreFuture<'a, Option<Entry>> {
        Box::pin(async move { self.rows.map_entry(partition, key) })
    }

    fn commit_map(&self, delta: MapDelta) -> Ticket {
        self.queue.push(Work::Map(delta))
    }

    fn map_changes(&self, partition: Partition, after: u64, limits: PageLimits) -> StoreFuture<'_, Vec<Change>> {
        let rows = self.rows.clone();
        blocking(move || rows.map_changes(partition, after, limits))
    }

    fn map_keys(&self, partition: Partition, after: Bytes, limits: PageLimits) -> StoreFuture<'_, KeyPage> {
        let rows = self.rows.clone();
        blocking(move || rows.map_keys(partition, &after, limits))
    }

    fn map_tombstones(
        &self,
        partition: Partition,
        removed_before_ms: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(MapKey, Digest)>> {
        let rows = self.rows.clone();
        blocking(move || rows.map_tombstones(partition, removed_before_ms, limit))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// Scans may run long, so they get a thread of their own.
fn blocking<T: Send + 'static>(
    scan: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> StoreFuture<'static, T> {
    Box::pin(async move { tokio::task::spawn_blocking(scan).await.unwrap_or(Err(StoreError::Closed)) })
}

fn engine_error(error: fjall::Error) -> StoreError {
    StoreError::Engine { reason: error.to_string() }
}
