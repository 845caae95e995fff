//! The embedded store: a commit log, rows in memory, and tables on disk.
//!
//! A write becomes rows in memory, where it is visible, and an entry of the log, which makes it durable. Reads see the rows in
//! memory over those of the tables, which take them up later. So a write costs one append that it shares with others, and a
//! row that changed a thousand times goes to a table once.

mod apply;
mod batch;
mod change;
mod commit;
mod content_record;
mod counts;
mod durable;
mod entry;
mod guard;
mod idle;
mod layout;
mod log;
mod map_delta;
mod maps;
mod memory;
mod overlay;
mod pace;
mod packed;
mod record;
mod replay;
mod rows;
mod run;
mod scan;
mod sweep;
mod tables;
mod take_over;
#[cfg(test)]
mod tests;
mod view;
mod writeback;

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use self::apply::{Applier, Merger};
use self::commit::{Commits, Committer};
pub use self::counts::RowCounts;
use self::entry::LogEntry;
pub use self::idle::Idleness;
pub use self::log::{Disk, LogError, SystemDisk};
use self::log::{ExpectedLog, Log, LogOptions};
pub use self::memory::MemoryShares;
use self::replay::{Replayed, replay};
use self::rows::Rows;
pub use self::tables::TableCounts;
use self::tables::Tables;

use super::maps::{Change, KeyPage, MapDelta, MapStore, PageLimits, PartitionState, Tombstone};
use super::room::Room;
use super::{
    Content, Durable, DurableCounts, Horizon, Measure, ObjectState, Position, Resolve, Store, StoreError, StoreFuture,
};
use crate::domain::cell::{CellKey, LiveCells, Path as DomainPath, Selection};
use crate::domain::delta::Delta;
use crate::domain::dot::{ActorId, Time};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::map::{Entry, MapKey, Partition};

/// The layout of a data directory that this release writes. Others are refused, but for those before.
const FORMAT: &str = "ombak 3\n";

/// The layouts whose tables are those of the engine fjall. The first had no commit log: to us it is one that is empty.
const FORMATS_TAKEN_OVER: [&str; 2] = ["ombak 1\n", "ombak 2\n"];

/// The log's name in tables that expect none: a log that was removed, or is not begun yet.
const NO_LOG: u64 = 0;

/// The log may grow by this many files before the tables take up what it holds, and let its files be written again.
const LOG_KEPT_FILES: u64 = 16;

/// Where the tables are in a data directory.
const TABLES_DIR: &str = "rows";

/// What a new data directory may hold before it has a format: the lock, a format whose writing was cut short, and what
/// file systems put at their root.
const NOT_FOREIGN: [&str; 3] = ["LOCK", "FORMAT.new", "lost+found"];

/// How the store is to be opened.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// The data directory; made when it is absent.
    pub dir: PathBuf,
    /// Memory for blocks read from disk, in bytes.
    pub cache_size_bytes: u64,
    /// Memory beside those two, in bytes: nobody counts what is taken of it.
    pub rest_size_bytes: u64,
    /// The identity to write as, if the directory has none yet.
    pub new_actor: ActorId,
    /// When objects are laid out how, and how much work a large remove may be at a time.
    pub rows: RowLimits,
    /// When a write is called durable.
    pub durability: Durability,
    /// Rows that are kept in memory until the tables have them, in bytes. Writers wait where there are more.
    pub unapplied_size_bytes_max: usize,
    /// The size of the commit log's files, in bytes. They are made before they are needed, and used again.
    pub log_file_size_bytes: u64,
    /// How the log's files are written.
    pub log_disk: Arc<dyn Disk>,
    /// Who may be about to write more; without it the log never waits for more.
    pub idleness: Option<Arc<Idleness>>,
}

/// What it takes for a write to be called durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The disk has it.
    #[default]
    Fsync,
    /// The system's memory has it, and the disk not later than this after: a power failure may take what came in between.
    Relaxed(Duration),
    /// The system's memory has it, and a power failure may take it: so that benches measure the store and not the disk.
    NoneForBenches,
}

impl EmbeddedOptions {
    /// The usual options for a directory.
    pub fn new(dir: PathBuf, new_actor: ActorId) -> Self {
        Self {
            dir,
            cache_size_bytes: 32 * 1024 * 1024,
            rest_size_bytes: 32 * 1024 * 1024,
            new_actor,
            rows: RowLimits::default(),
            durability: Durability::default(),
            unapplied_size_bytes_max: 64 * 1024 * 1024,
            log_file_size_bytes: 8 * 1024 * 1024,
            log_disk: Arc::new(SystemDisk),
            idleness: None,
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
    /// Rows looked at in one step of the sweep. Those that have ended are deleted together, while other writes wait. Without any
    /// nothing is swept.
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
    /// Its commit log cannot be read, or none begun.
    #[error("cannot use the data directory {}: {error}", dir.display())]
    Log {
        /// The directory.
        dir: PathBuf,
        /// Why.
        error: LogError,
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
    commits: Arc<Commits>,
    writes_left_out: u64,
    threads: Mutex<Option<Threads>>,
    shares: MemoryShares,
}

/// The threads that work behind the store.
struct Threads {
    committer: JoinHandle<Option<Log>>,
    /// Whether the tables hold everything in the end.
    applier: JoinHandle<Option<bool>>,
    merger: JoinHandle<Option<()>>,
}

impl EmbeddedStore {
    /// Opens a data directory, making it when it is absent: replays what its commit log holds, and begins a new one.
    ///
    /// # Errors
    /// Where the directory cannot be used, is in use, or does not hold all that was acknowledged.
    pub fn open(options: EmbeddedOptions) -> Result<Self, OpenError> {
        let dir = options.dir.clone();
        let Claim { lock, is_taken_over } = claim(&dir, &*options.log_disk)?;
        let damaged = |error| OpenError::Damaged { dir: dir.clone(), error };
        let log_error = |error| OpenError::Log { dir: dir.clone(), error };
        let tables_error = |error: StoreError| OpenError::Engine { dir: dir.clone(), reason: error.to_string() };
        let tables = Tables::open(&dir.join(TABLES_DIR), options.cache_size_bytes).map_err(tables_error)?;
        let rows = Rows::new(tables, lock);
        let known_actor = rows.actor().map_err(damaged)?;
        let actor = known_actor.unwrap_or(options.new_actor);
        let log_dir = dir.join("log");
        let held = rows.position_held().map_err(damaged)?;
        let expected = expected_log(rows.log_name().map_err(damaged)?, held, is_taken_over).map_err(damaged)?;
        let recovered = log::recover(&log_dir, held, expected).map_err(log_error)?;
        let replayed = replay(&rows, recovered, held, options.rows, options.unapplied_size_bytes_max);
        let Replayed { last: position, left_out } = replayed.map_err(log_error)?;
        // Where there was nothing to make again, what the tables show may be in the system's memory alone, and the log goes.
        if position == held && log::is_left(&log_dir).map_err(|error| log_error(error.into()))? {
            rows.name_log(NO_LOG, None).map_err(damaged)?;
        }
        let new_actor = known_actor.is_none().then_some(actor);
        let log = begin_log(&log_dir, &options, &rows, position, new_actor).map_err(log_error)?;
        // It tells that the log may have no name yet.
        take_over::remove_engine(&dir).map_err(|error| OpenError::Io { dir: dir.clone(), error })?;

        let clock_bound = rows.clock_bound().map_err(damaged)?;
        let log_kept_bytes = LOG_KEPT_FILES * options.log_file_size_bytes;
        let commits = Commits::new(rows, options.rows, options.unapplied_size_bytes_max, log_kept_bytes, position)
            .map_err(damaged)?;
        let commits = match options.durability {
            Durability::Relaxed(_) => commits.answering_before_sync(),
            Durability::Fsync | Durability::NoneForBenches => commits,
        };
        let commits = Arc::new(commits);
        if let Some(idleness) = &options.idleness {
            let commits = Arc::downgrade(&commits);
            idleness.when_complete(move || {
                if let Some(commits) = commits.upgrade() {
                    commits.end_gathering();
                }
            });
        }
        let thread_error = |error: std::io::Error| OpenError::Engine { dir: dir.clone(), reason: error.to_string() };
        let (durability, idleness) = (options.durability, options.idleness.clone());
        let commit = move |commits: &Commits| Committer::new(commits, log, durability, idleness).run();
        let committer = guard::spawn("committer", &commits, commit).map_err(thread_error)?;
        let apply = |commits: &Commits| Applier::new(commits).run();
        let applier = guard::spawn("applier", &commits, apply).map_err(thread_error)?;
        let merge = |commits: &Commits| Merger::new(commits).run();
        let merger = guard::spawn("merger", &commits, merge).map_err(thread_error)?;
        // Whatever the last process had left to merge.
        commits.tables_changed();
        commits.merging.want();
        let threads = Mutex::new(Some(Threads { committer, applier, merger }));
        let shares = MemoryShares {
            unapplied_bytes: options.unapplied_size_bytes_max as u64,
            cache_bytes: options.cache_size_bytes,
            rest_bytes: options.rest_size_bytes,
        };
        Ok(Self { actor, clock_bound, commits, writes_left_out: left_out, threads, shares })
    }

    fn rows(&self) -> &Rows {
        &self.commits.rows
    }

    /// What the store has asked of its rows since it was opened.
    pub fn counts(&self) -> RowCounts {
        self.rows().counts()
    }

    /// Acknowledged writes that the start could not make again, because rows of their objects are damaged. These objects say so.
    pub fn writes_left_out(&self) -> u64 {
        self.writes_left_out
    }

    /// What the store's tables are and have done since it was opened.
    pub fn table_counts(&self) -> TableCounts {
        self.rows().table_counts()
    }

    /// The number of rows in the directory, found by a scan of them all: for inspection, not for requests.
    pub fn row_count(&self) -> Result<u64, StoreError> {
        self.rows().count()
    }
}

/// What log there must be, by the name that the tables have for it.
fn expected_log(name: Option<u64>, held: Position, is_taken_over: bool) -> Result<ExpectedLog, StoreError> {
    match name {
        Some(NO_LOG) => Ok(ExpectedLog::None),
        Some(name) => Ok(ExpectedLog::Named(name)),
        // The tables of earlier formats say nothing of it.
        None if is_taken_over => Ok(ExpectedLog::Any),
        // The log is named before the first write, so there was none.
        None if held == Position(0) => Ok(ExpectedLog::None),
        None => Err(StoreError::Damaged { what: "name of the commit log" }),
    }
}

/// Begins a log where the tables hold durably what an earlier one held.
///
/// They say that there is none while the one is removed and the other made, and name the new one once all of it is on disk. So a
/// crash at any point leaves a log that is whole, or none that they would miss; and no write is made before.
fn begin_log(
    dir: &Path,
    options: &EmbeddedOptions,
    rows: &Rows,
    behind: Position,
    new_actor: Option<ActorId>,
) -> Result<Log, LogError> {
    if dir.try_exists()? {
        log::remove(dir)?;
    }
    let log_options = LogOptions {
        dir: dir.to_owned(),
        name: new_log_name()?,
        size_bytes: options.log_file_size_bytes,
        is_synced_at_once: matches!(options.durability, Durability::Fsync),
        disk: options.log_disk.clone(),
    };
    let name = log_options.name;
    let log = Log::create(log_options, behind)?;
    rows.name_log(name, new_actor)?;
    Ok(log)
}

fn new_log_name() -> std::io::Result<u64> {
    let mut name = [0; 8];
    getrandom::fill(&mut name).map_err(std::io::Error::other)?;
    // Any but the one that says that there is none.
    Ok(u64::from_be_bytes(name).max(NO_LOG + 1))
}

/// A directory that this process has.
struct Claim {
    lock: File,
    /// Whether it was taken over from an earlier format, and its log may have no name yet.
    is_taken_over: bool,
}

/// Takes the directory for this process and checks that it is one of ours.
fn claim(dir: &Path, disk: &dyn Disk) -> Result<Claim, OpenError> {
    let io = |error| OpenError::Io { dir: dir.to_owned(), error };
    make_dir(dir, disk).map_err(io)?;
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
    // A start that was killed may have taken it over, and not come to the name.
    let mut is_taken_over = take_over::has_engine(dir).map_err(io)?;
    match fs::read(dir.join("FORMAT")) {
        Ok(found) if found == FORMAT.as_bytes() => {}
        Ok(found) if FORMATS_TAKEN_OVER.iter().any(|format| found == format.as_bytes()) => {
            take_over::take_over(dir)?;
            write_format(dir, disk).map_err(io)?;
            is_taken_over = true;
        }
        Ok(found) => {
            let found = String::from_utf8_lossy(&found[..found.len().min(64)]).into_owned();
            return Err(OpenError::Format { dir: dir.to_owned(), found });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => write_format(dir, disk).map_err(io)?,
        Err(error) => return Err(io(error)),
    }
    Ok(Claim { lock, is_taken_over })
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
fn write_format(dir: &Path, disk: &dyn Disk) -> std::io::Result<()> {
    let new = dir.join("FORMAT.new");
    let mut file = File::create(&new)?;
    file.write_all(FORMAT.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, dir.join("FORMAT"))?;
    disk.sync_dir(dir)
}

/// Makes a directory, and those above it that are absent, and has the disk take every entry that this puts somewhere.
fn make_dir(dir: &Path, disk: &dyn Disk) -> std::io::Result<()> {
    // From the uppermost on; the last one above a relative path has no name.
    let mut above: Vec<&Path> = dir.ancestors().skip(1).collect();
    if above.last().is_some_and(|uppermost| uppermost.as_os_str().is_empty()) {
        above.pop();
        above.push(Path::new("."));
    }
    let sync_parent = |dir: &Path| match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => disk.sync_dir(Path::new(".")),
        Some(parent) => disk.sync_dir(parent),
        None => Ok(()),
    };
    let mut found = None;
    for dir in above.into_iter().rev().chain([dir]) {
        match fs::create_dir(dir) {
            Ok(()) => sync_parent(dir)?,
            Err(_) if dir.is_dir() => found = Some(dir),
            Err(error) => return Err(error),
        }
    }
    // A start that was killed may have made the last one that was there. Who may not look above it has not made it.
    if let Some(found) = found
        && !dir.join("FORMAT").try_exists()?
        && let Err(error) = sync_parent(found)
        && error.kind() != ErrorKind::PermissionDenied
    {
        return Err(error);
    }
    Ok(())
}

impl Store for EmbeddedStore {
    fn actor(&self) -> ActorId {
        self.actor
    }

    fn clock_bound(&self) -> Time {
        self.clock_bound
    }

    fn raise_clock_bound(&self, bound: Time) -> Result<Position, StoreError> {
        self.commits.write(LogEntry::ClockBound(bound))
    }

    // Reads are served where they are asked for: most are answered from memory, and a hand-over to another thread would
    // cost more than the read.
    fn read<'a>(
        &'a self,
        name: &'a ObjectName,
        selections: &'a [Selection],
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, LiveCells> {
        Box::pin(async move { self.rows().read(name, selections, horizon) })
    }

    fn open_content<'a>(
        &'a self,
        name: &'a ObjectName,
        path: DomainPath,
        from: Option<CellKey>,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Content> {
        Box::pin(async move { self.rows().open_content(name, path, from, horizon) })
    }

    fn inspect<'a>(&'a self, name: &'a ObjectName, horizon: &'a Horizon) -> StoreFuture<'a, ObjectState> {
        Box::pin(async move { self.rows().inspect(name, horizon) })
    }

    fn room(&self) -> Option<&Room> {
        Some(&self.commits.room)
    }

    fn commit(&self, name: ObjectName, delta: Delta) -> Result<Position, StoreError> {
        self.commits.write(LogEntry::Delta(name, delta))
    }

    fn update<'a>(
        &'a self,
        name: &'a ObjectName,
        selections: Vec<Selection>,
        horizon: &'a Horizon,
        resolve: Resolve<'a>,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let (found, seen) = self.rows().read_to_change(name, &selections, horizon)?;
            // A request may ask for very much: nothing of it is held longer than it is needed.
            drop(selections);
            if let Some(delta) = resolve(seen) {
                let entry = LogEntry::Delta(name.clone(), delta);
                horizon.raise(self.commits.write_to(Some(found), entry)?);
            }
            Ok(())
        })
    }

    fn is_durable(&self, position: Position) -> bool {
        self.commits.durable.is_reached(position)
    }

    fn failure(&self) -> Option<StoreError> {
        self.commits.failure()
    }

    fn durable_counts(&self) -> DurableCounts {
        self.commits.durable_counts()
    }

    fn measures(&self) -> Vec<Measure> {
        let tables = self.table_counts();
        let cached = self.shares.cache_bytes;
        vec![
            ("bytes of memory for the store at most", self.shares.unapplied_bytes + cached + self.shares.rest_bytes),
            ("bytes in memory that the tables do not have yet", self.commits.room.held() as u64),
            ("bytes of memory for these at most", self.shares.unapplied_bytes),
            ("bytes of blocks in the cache", tables.cache_bytes),
            ("bytes of memory for the cache at most", cached),
            ("bytes of the upper parts of filters and indexes in memory", tables.pinned_bytes),
            ("tables on disk", tables.tables),
            ("bytes in them", tables.disk_bytes),
            ("tables of new rows over each other", tables.new_runs),
            ("bytes read from tables", tables.read_bytes),
            ("blocks read from tables", tables.blocks_read),
            ("blocks found in the cache", tables.blocks_cached),
            ("bytes of new rows written to tables", tables.flushed_bytes),
            ("bytes written by merging tables", tables.merged_bytes),
        ]
    }

    fn durable(&self, position: Position) -> Durable {
        Durable::told_by(self.commits.durable.wait(position))
    }

    fn answers_before_sync(&self) -> bool {
        self.commits.answers_before_sync()
    }

    fn is_synced(&self, position: Position) -> bool {
        self.commits.synced().is_reached(position)
    }

    fn synced(&self, position: Position) -> Durable {
        Durable::told_by(self.commits.synced().wait(position))
    }

    fn hasten_sync(&self) {
        self.commits.hasten_sync();
    }

    fn keys<'a>(
        &'a self,
        bucket: &'a BucketName,
        after: Option<&'a Bytes>,
        limit: usize,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Bytes>> {
        let (rows, bucket, after) = (self.rows().clone(), bucket.clone(), after.cloned());
        blocking(horizon, move |horizon| rows.keys(&bucket, after, limit, horizon))
    }

    fn buckets<'a>(
        &'a self,
        bucket_type: &'a Bytes,
        after: Option<&'a Bytes>,
        limit: usize,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Bytes>> {
        let (rows, bucket_type, after) = (self.rows().clone(), bucket_type.clone(), after.cloned());
        blocking(horizon, move |horizon| rows.buckets(&bucket_type, after, limit, horizon))
    }

    fn postings<'a>(
        &'a self,
        bucket: &'a BucketName,
        range: &'a IndexRange,
        after: Option<&'a Posting>,
        limit: usize,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Posting>> {
        let (rows, bucket, range, after) = (self.rows().clone(), bucket.clone(), range.clone(), after.cloned());
        blocking(horizon, move |horizon| rows.postings(&bucket, &range, after.as_ref(), limit, horizon))
    }

    fn records(&self) -> StoreFuture<'_, Vec<(Bytes, Bytes)>> {
        Box::pin(async move { self.rows().records() })
    }

    fn put_record(&self, key: Bytes, value: Option<Bytes>) -> Result<Position, StoreError> {
        self.commits.write(LogEntry::Record(key, value))
    }

    fn close(&self) {
        self.commits.close();
        let Some(threads) = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (log, held) = (threads.committer.join(), threads.applier.join());
        self.commits.end_merging();
        match (log.ok().flatten(), held.ok().flatten(), threads.merger.join().ok().flatten()) {
            (Some(log), Some(true), Some(())) => {
                // The tables say that they need it no more: left behind it does no harm.
                if let Err(error) = log.remove() {
                    tracing::warn!(%error, "the commit log could not be removed");
                }
            }
            // What failed has been said, be it a write or a thread.
            _ => tracing::error!("the store closes after a failure: the next start replays its log"),
        }
    }
}

impl MapStore for EmbeddedStore {
    fn map_partitions(&self) -> StoreFuture<'_, Vec<PartitionState>> {
        Box::pin(async move { self.rows().map_partitions() })
    }

    fn map_entry<'a>(
        &'a self,
        partition: Partition,
        key: &'a MapKey,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Option<Entry>> {
        Box::pin(async move { self.rows().map_entry(partition, key, horizon) })
    }

    fn commit_map(&self, delta: MapDelta) -> Result<Position, StoreError> {
        self.commits.write(LogEntry::Map(delta))
    }

    fn map_changes<'a>(
        &'a self,
        partition: Partition,
        after: u64,
        limits: PageLimits,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Change>> {
        let rows = self.rows().clone();
        blocking(horizon, move |horizon| rows.map_changes(partition, after, limits, horizon))
    }

    fn map_keys<'a>(
        &'a self,
        partition: Partition,
        after: Bytes,
        limits: PageLimits,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, KeyPage> {
        let rows = self.rows().clone();
        blocking(horizon, move |horizon| rows.map_keys(partition, &after, limits, horizon))
    }

    fn map_tombstones(
        &self,
        partition: Partition,
        removed_before_ms: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Tombstone>> {
        let rows = self.rows().clone();
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || rows.map_tombstones(partition, removed_before_ms, limit));
            found.await.unwrap_or(Err(StoreError::Closed))
        })
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// Scans may run long, so they get a thread of their own.
fn blocking<'a, T: Send + 'static>(
    horizon: &'a Horizon,
    scan: impl FnOnce(&Horizon) -> Result<T, StoreError> + Send + 'static,
) -> StoreFuture<'a, T> {
    Box::pin(async move {
        let scanned = tokio::task::spawn_blocking(move || {
            let seen = Horizon::default();
            (scan(&seen), seen.position())
        });
        let (result, seen) = scanned.await.map_err(|_| StoreError::Closed)?;
        horizon.raise(seen);
        result
    })
}
