//! The rows on disk: sorted tables, which the crate `lsm-tree` writes and merges. This is the only file that uses it.
//!
//! The crate's own memory is never written to: rows come here from the overlay, many at a time and in order, and are durable
//! when [`Tables::flush`] returns. Nor do readers go through the crate's lock, which it holds while it has the disk take a
//! table: after each change they are handed a [`TableSet`], the tables that there are then, and look rows up in that.
//!
//! Parts of the crate that are used here are hidden from its documentation. So its version is pinned, and the tests below
//! hold it to what this file relies on.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lsm_tree::compaction::Leveled as Strategy;
use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use lsm_tree::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy,
    PinningPolicy, RestartIntervalPolicy,
};
use lsm_tree::table::filter::standard_bloom::Builder as Filter;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, CompressionType, Config, DescriptorTable, InternalValue, SequenceNumberCounter,
    Slice, Table, ValueType,
};

use super::view::Range;
use super::writeback::Writeback;
use crate::store::StoreError;

/// A block of rows, before it is compressed, in bytes. A look-up reads one.
const BLOCK_SIZE_BYTES: u32 = 4096;
/// A table that is merged from others is cut where it reaches this size, in bytes.
const TABLE_SIZE_BYTES: u64 = 64 * 1024 * 1024;
/// Bits of a table's filter for each of its rows: one look-up in a hundred reads a block in vain.
const FILTER_BITS_PER_ROW: f32 = 10.0;
/// Tables' files that are open at once.
const OPEN_FILES_MAX: usize = 1024;
/// Where so many tables of new rows lie over each other, they are merged.
const NEW_RUNS_MERGED: u8 = 4;

/// Where the crate keeps the tables' files in its directory.
const FILES_DIR: &str = "tables";

/// Every version of a row but the last may go: readers hold the tables that they look at.
const ALL_OLD_VERSIONS: u64 = u64::MAX >> 1;
/// The last version of a row, whatever its number.
const LAST_VERSION: u64 = u64::MAX;

/// The tables of a directory. There is one who flushes; any number may merge.
pub(super) struct Tables {
    tree: AnyTree,
    /// Where the tables' files are.
    files: PathBuf,
    strategy: Arc<Strategy>,
    cache: Arc<Cache>,
    /// The number under which rows were last written. Of two versions of a row that with the higher one is valid.
    last_written: Mutex<u64>,
    stopping: Arc<AtomicBool>,
    flushed_bytes: AtomicU64,
    merged_bytes: AtomicU64,
}

/// What the tables have done since they were opened, and what they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Bytes that look-ups and scans have read from files, whether the system had them in memory or not.
    pub read_bytes: u64,
    /// Blocks among them.
    pub blocks_read: u64,
    /// Blocks that were found in the cache.
    pub blocks_cached: u64,
    /// Bytes of new rows written to tables.
    pub flushed_bytes: u64,
    /// Bytes written by merging tables.
    pub merged_bytes: u64,
    /// What the tables take on disk, in bytes.
    pub disk_bytes: u64,
    /// How many tables there are.
    pub tables: u64,
    /// Tables of new rows that lie over each other: a look-up may have to ask each.
    pub new_runs: u64,
    /// What the cache holds, in bytes.
    pub cache_bytes: u64,
    /// Upper parts of filters and indexes, which stay in memory, in bytes.
    pub pinned_bytes: u64,
}

impl Tables {
    /// Opens the tables of a directory, which is made when it is absent.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn open(dir: &Path, cache_size_bytes: u64) -> Result<Self, StoreError> {
        remove_left_over(dir).map_err(|error| tables_error(error.into()))?;
        let cache = Arc::new(Cache::with_capacity_bytes(cache_size_bytes));
        let stopping = Arc::new(AtomicBool::new(false));
        let files = dir.join(FILES_DIR);
        // The crate counts its changes too. What it counts is told to nobody.
        let config = Config::new(dir, SequenceNumberCounter::default(), SequenceNumberCounter::default())
            .use_cache(cache.clone())
            .use_descriptor_table(Some(Arc::new(DescriptorTable::new(OPEN_FILES_MAX))))
            .data_block_size_policy(BlockSizePolicy::all(BLOCK_SIZE_BYTES))
            .data_block_restart_interval_policy(RestartIntervalPolicy::new([10, 16]))
            .data_block_compression_policy(CompressionPolicy::new([CompressionType::None, CompressionType::Lz4]))
            .index_block_compression_policy(CompressionPolicy::all(CompressionType::None))
            // A filter or an index is read in parts, so that a look-up never reads that of a whole table.
            .filter_block_partitioning_policy(PartitioningPolicy::all(true))
            .index_block_partitioning_policy(PartitioningPolicy::all(true))
            .filter_block_pinning_policy(PinningPolicy::all(false))
            .index_block_pinning_policy(PinningPolicy::all(false))
            .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(
                FILTER_BITS_PER_ROW,
            ))))
            .with_compaction_filter_factory(Some(Arc::new(Merges { dir: files.clone(), stopping: stopping.clone() })));
        let tree = config.open().map_err(tables_error)?;
        let last_written = Mutex::new(tree.get_highest_persisted_seqno().unwrap_or_default());
        let strategy = Strategy::default().with_table_target_size(TABLE_SIZE_BYTES).with_l0_threshold(NEW_RUNS_MERGED);
        Ok(Self {
            tree,
            files,
            strategy: Arc::new(strategy),
            cache,
            last_written,
            stopping,
            flushed_bytes: AtomicU64::new(0),
            merged_bytes: AtomicU64::new(0),
        })
    }

    /// The tables as they are now. It may wait for the disk, where a change is under way.
    pub(super) fn current(&self) -> TableSet {
        let version = self.tree.current_version();
        let mut set = TableSet { runs: Vec::new(), new_runs: 0 };
        for (depth, level) in version.iter_levels().enumerate() {
            for run in level.iter() {
                set.runs.push(Run { tables: run.iter().cloned().collect() });
            }
            if depth == 0 {
                set.new_runs = set.runs.len();
            }
        }
        set
    }

    /// Writes rows in the order of their keys, each once; without a value it is deleted. All of them are durable when this
    /// returns, or after a crash none. Whoever looks for them needs the tables as they are then.
    ///
    /// # Errors
    /// When they may not be durable. Then nothing more is to be written to these tables.
    pub(super) fn flush(&self, rows: impl Iterator<Item = (Bytes, Option<Bytes>)>) -> Result<(), StoreError> {
        let mut last_written = self.last_written.lock().unwrap_or_else(PoisonError::into_inner);
        *last_written += 1;
        let number = *last_written;
        let mut writeback = Writeback::new(&self.files);
        let versions = rows.map(|(key, value)| {
            writeback.note(key.len() + value.as_ref().map_or(0, Bytes::len));
            Ok(match value {
                Some(value) => InternalValue::from_components(key, value, number, ValueType::Value),
                None => InternalValue::new_tombstone(key, number),
            })
        });
        let Some((tables, _)) = self.tree.flush_to_tables(versions).map_err(tables_error)? else { return Ok(()) };
        self.tree.register_tables(&tables, None, None, &[], ALL_OLD_VERSIONS).map_err(tables_error)?;
        let size_bytes: u64 = tables.iter().map(|table| table.metadata.file_size).sum();
        self.flushed_bytes.fetch_add(size_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Merges some tables, if that is worth while. Whether it was.
    ///
    /// # Errors
    /// When it cannot be done. The tables are then as they were before, in memory; on disk they may be as they were to be.
    pub(super) fn merge_some(&self) -> Result<bool, StoreError> {
        let before = self.tree.current_version();
        match self.tree.compact(self.strategy.clone(), ALL_OLD_VERSIONS) {
            Err(_) if self.is_stopping() => return Ok(false),
            Err(error) => return Err(tables_error(error)),
            Ok(()) => {}
        }
        let after = self.tree.current_version();
        let is_new = |table: &&Table| {
            table.metadata.id >= before.iter_tables().map(|table| table.metadata.id + 1).max().unwrap_or_default()
        };
        // A flush meanwhile is counted here too: it is known by its level.
        let merged = after.iter_levels().skip(1).flat_map(|level| level.iter()).flat_map(|run| run.iter());
        let merged_bytes: u64 = merged.filter(is_new).map(|table| table.metadata.file_size).sum();
        self.merged_bytes.fetch_add(merged_bytes, Ordering::Relaxed);
        Ok(after.id() != before.id())
    }

    /// Has every merge end early, for good.
    pub(super) fn stop_merging(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self, set: &TableSet) -> TableCounts {
        let metrics = self.tree.metrics();
        let tables = || set.runs.iter().flat_map(|run| &run.tables);
        TableCounts {
            read_bytes: metrics.block_io(),
            blocks_read: metrics.block_load_io_count() as u64,
            blocks_cached: metrics.block_load_cached_count() as u64,
            flushed_bytes: self.flushed_bytes.load(Ordering::Relaxed),
            merged_bytes: self.merged_bytes.load(Ordering::Relaxed),
            disk_bytes: tables().map(|table| table.metadata.file_size).sum(),
            tables: tables().count() as u64,
            new_runs: set.new_runs as u64,
            cache_bytes: self.cache.size(),
            pinned_bytes: tables()
                .map(|table| table.pinned_block_index_size() + table.pinned_filter_size())
                .sum::<usize>() as u64,
        }
    }
}

/// Removes what an interrupted change of the list of tables has left: a file that was not yet renamed.
fn remove_left_over(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().as_encoded_bytes().starts_with(b".tmp") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

pub(super) fn tables_error(error: lsm_tree::Error) -> StoreError {
    StoreError::Engine { reason: format!("the tables: {error}") }
}

/// Looks at each row that is merged: has the disk take what is written, and ends the merge where the store is closing, since it
/// may take long and is lost only to be done again.
struct Merges {
    dir: PathBuf,
    stopping: Arc<AtomicBool>,
}

struct Merge {
    writeback: Writeback,
    stopping: Arc<AtomicBool>,
}

impl Factory for Merges {
    fn name(&self) -> &str {
        "ombak"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Merge { writeback: Writeback::new(&self.dir), stopping: self.stopping.clone() })
    }
}

impl CompactionFilter for Merge {
    fn filter_item(&mut self, row: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        self.writeback.note(row.key().len() + row.value()?.len());
        Ok(Verdict::Keep)
    }
}

/// Tables as they were at one moment. As long as this lives their files do too.
#[derive(Clone)]
pub(super) struct TableSet {
    /// The newest rows first.
    runs: Vec<Run>,
    /// Of these so many are new ones, which lie over each other.
    new_runs: usize,
}

/// Tables of which no two hold the same row, in the order of their keys.
#[derive(Clone)]
struct Run {
    tables: Vec<Table>,
}

impl Run {
    /// The table that a row is in, if any has it.
    fn table_of(&self, key: &[u8]) -> Option<&Table> {
        let at = self.tables.partition_point(|table| **table.metadata.key_range.max() < *key);
        self.tables.get(at).filter(|table| **table.metadata.key_range.min() <= *key)
    }

    /// The tables that may hold rows of a range.
    fn tables_of(&self, range: &Range) -> &[Table] {
        let (start, end) = range.bounds();
        let from = self.tables.partition_point(|table| match start {
            Bound::Included(start) => **table.metadata.key_range.max() < *start,
            Bound::Excluded(start) => **table.metadata.key_range.max() <= *start,
            Bound::Unbounded => false,
        });
        let to = self.tables.partition_point(|table| match end {
            Bound::Included(end) => **table.metadata.key_range.min() <= *end,
            Bound::Excluded(end) => **table.metadata.key_range.min() < *end,
            Bound::Unbounded => true,
        });
        self.tables.get(from..to).unwrap_or_default()
    }
}

impl TableSet {
    /// How many tables of new rows lie over each other.
    pub(super) fn new_runs(&self) -> usize {
        self.new_runs
    }

    /// A row's value.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let hash = Filter::get_hash(key);
        for table in self.runs.iter().filter_map(|run| run.table_of(key)) {
            if let Some(version) = table.get(key, LAST_VERSION, hash).map_err(tables_error)? {
                return Ok((!version.is_tombstone()).then(|| version.value.into()));
            }
        }
        Ok(None)
    }

    /// The rows of a range in order.
    pub(super) fn range(&self, range: &Range) -> TableRows {
        let mut sources = Vec::new();
        for run in &self.runs {
            let tables = run.tables_of(range);
            if !tables.is_empty() {
                sources.push(Source::new(tables.to_vec(), range));
            }
        }
        TableRows { sources, is_begun: false }
    }
}

/// The rows of a range in order, each as it is last. It holds the tables that it has not left.
pub(super) struct TableRows {
    sources: Vec<Source>,
    is_begun: bool,
}

type Versions = Box<dyn Iterator<Item = lsm_tree::Result<InternalValue>> + Send>;

/// One run's part of a range.
struct Source {
    range: (Bound<Slice>, Bound<Slice>),
    /// The tables that were not read to their end, the last one first: what is read of the last of these.
    tables: Vec<Table>,
    versions: Option<Versions>,
    next: Option<InternalValue>,
}

impl Source {
    fn new(mut tables: Vec<Table>, range: &Range) -> Self {
        tables.reverse();
        let (start, end) = range.bounds();
        Self { range: (start.map(Slice::from), end.map(Slice::from)), tables, versions: None, next: None }
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.next = None;
        while let Some(table) = self.tables.last() {
            let versions = self.versions.get_or_insert_with(|| Box::new(table.range(self.range.clone())));
            if let Some(version) = versions.next() {
                self.next = Some(version.map_err(tables_error)?);
                return Ok(());
            }
            self.versions = None;
            self.tables.pop();
        }
        Ok(())
    }
}

impl TableRows {
    pub(super) fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if !self.is_begun {
            self.is_begun = true;
            for source in &mut self.sources {
                source.advance()?;
            }
        }
        loop {
            // There are few runs, so that looking at each is quicker than keeping them in order.
            let nexts =
                self.sources.iter().enumerate().filter_map(|(at, source)| Some((at, &source.next.as_ref()?.key)));
            let Some((first, _)) = nexts.min_by(|(_, a), (_, b)| a.cmp(b)) else { return Ok(None) };
            let Some(version) = self.sources[first].next.take() else { return Ok(None) };
            self.sources[first].advance()?;
            // Older versions of it are behind it.
            for source in &mut self.sources {
                while source.next.as_ref().is_some_and(|next| next.key.user_key == version.key.user_key) {
                    source.advance()?;
                }
            }
            if !version.is_tombstone() {
                return Ok(Some((version.key.user_key.into(), version.value.into())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const CACHE_BYTES: u64 = 1024 * 1024;

    fn key(number: usize) -> Bytes {
        Bytes::from(format!("row {number:06}"))
    }

    fn put(numbers: impl Iterator<Item = usize>, value: &'static str) -> Vec<(Bytes, Option<Bytes>)> {
        numbers.map(|number| (key(number), Some(Bytes::from_static(value.as_bytes())))).collect()
    }

    fn delete(numbers: impl Iterator<Item = usize>) -> Vec<(Bytes, Option<Bytes>)> {
        numbers.map(|number| (key(number), None)).collect()
    }

    fn all(set: &TableSet) -> Vec<(Bytes, Bytes)> {
        let mut rows = set.range(&Range::all());
        std::iter::from_fn(|| rows.next().unwrap()).collect()
    }

    fn merge_all(tables: &Tables) {
        while tables.merge_some().unwrap() {}
    }

    #[test]
    fn the_last_version_of_each_row_is_found_in_whatever_table_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path(), CACHE_BYTES).unwrap();
        let mut expected = BTreeMap::new();
        for round in 0..20 {
            let value = ["a", "b", "c"][round % 3];
            let changed = match round % 4 {
                3 => delete((round..5000).step_by(7)),
                _ => put((round..5000).step_by(round + 1), value),
            };
            for (key, value) in &changed {
                match value {
                    Some(value) => expected.insert(key.clone(), value.clone()),
                    None => expected.remove(key),
                };
            }
            tables.flush(changed.into_iter()).unwrap();
            if round % 6 == 5 {
                merge_all(&tables);
            }
            let set = tables.current();
            assert_eq!(all(&set), expected.clone().into_iter().collect::<Vec<_>>(), "round {round}");
            for number in (0..5000).step_by(13) {
                assert_eq!(set.get(&key(number)).unwrap(), expected.get(&key(number)).cloned());
            }
        }
        drop(tables);
        let tables = Tables::open(dir.path(), CACHE_BYTES).unwrap();
        assert_eq!(all(&tables.current()), expected.clone().into_iter().collect::<Vec<_>>());
        // What is written after a restart is valid over what was written before it.
        tables.flush(put(0..10, "z").into_iter()).unwrap();
        assert_eq!(tables.current().get(&key(3)).unwrap().unwrap(), "z");
        merge_all(&tables);
        assert_eq!(tables.current().get(&key(3)).unwrap().unwrap(), "z");
    }

    #[test]
    fn a_range_is_what_lies_between_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path(), CACHE_BYTES).unwrap();
        for part in 0..3 {
            tables.flush(put((part..3000).step_by(3), "v").into_iter()).unwrap();
        }
        let set = tables.current();
        let numbers = |start: Bound<usize>, end: Bound<usize>| {
            let bound = |bound: Bound<usize>| bound.map(|number| key(number).to_vec());
            let mut rows = set.range(&Range { start: bound(start), end: bound(end) });
            std::iter::from_fn(|| rows.next().unwrap()).map(|(key, _)| key).collect::<Vec<_>>()
        };
        let expected = |range: std::ops::Range<usize>| range.map(key).collect::<Vec<_>>();
        assert_eq!(numbers(Bound::Included(10), Bound::Excluded(20)), expected(10..20));
        assert_eq!(numbers(Bound::Excluded(10), Bound::Included(20)), expected(11..21));
        assert_eq!(numbers(Bound::Unbounded, Bound::Excluded(3)), expected(0..3));
        assert_eq!(numbers(Bound::Included(2998), Bound::Unbounded), expected(2998..3000));
        assert_eq!(numbers(Bound::Included(5000), Bound::Unbounded), expected(0..0));
        assert_eq!(numbers(Bound::Included(20), Bound::Excluded(10)), expected(0..0));
    }

    #[test]
    fn whoever_holds_tables_sees_them_as_they_were_while_they_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path(), CACHE_BYTES).unwrap();
        tables.flush(put(0..5000, "before").into_iter()).unwrap();
        let set = tables.current();
        let mut begun = set.range(&Range::all());
        assert_eq!(begun.next().unwrap().unwrap().0, key(0));
        for _ in 0..8 {
            tables.flush(put(0..5000, "after").into_iter()).unwrap();
            merge_all(&tables);
        }
        assert_eq!(set.get(&key(4999)).unwrap().unwrap(), "before");
        let rest: Vec<_> = std::iter::from_fn(|| begun.next().unwrap()).collect();
        assert_eq!(rest.len(), 4999);
        assert!(rest.iter().all(|(_, value)| value == "before"));
        let files = || std::fs::read_dir(dir.path().join("tables")).unwrap().count();
        let held = files();
        drop((set, begun));
        assert!(files() < held, "the files go with whoever held them last");
        assert_eq!(tables.current().get(&key(4999)).unwrap().unwrap(), "after");
    }

    #[test]
    fn a_merge_into_the_last_level_leaves_no_marks_of_deletes() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path(), CACHE_BYTES).unwrap();
        tables.flush(put(0..1000, "v").into_iter()).unwrap();
        for _ in 0..8 {
            tables.flush(delete(0..1000).into_iter()).unwrap();
            merge_all(&tables);
        }
        let rows: u64 = tables.tree.current_version().iter_tables().map(|table| table.metadata.item_count).sum();
        assert!(rows <= 3000, "{rows} rows are left of what was deleted");
    }

    /// The crate keeps the number of a version only as long as it keeps the version: what this file numbers by must not fall
    /// below that of a version that is left.
    #[test]
    fn numbers_rise_over_those_that_are_left_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..12 {
            let tables = Tables::open(dir.path(), CACHE_BYTES).unwrap();
            let value = ["even", "odd"][round % 2];
            tables.flush(put(0..10, value).into_iter()).unwrap();
            tables.flush(delete(10..20).into_iter()).unwrap();
            merge_all(&tables);
            assert_eq!(tables.current().get(&key(5)).unwrap().unwrap(), value);
        }
    }

    #[test]
    fn a_look_up_reads_one_block_and_a_little_more() {
        let dir = tempfile::tempdir().unwrap();
        // Nothing stays in so small a cache.
        let tables = Tables::open(dir.path(), 1).unwrap();
        let rows = 200_000;
        tables.flush(put(0..rows, "some text that compresses as well as texts do").into_iter()).unwrap();
        tables.flush(put(0..1, "another").into_iter()).unwrap();
        merge_all(&tables);
        let set = tables.current();
        let before = tables.counts(&set);
        let looked_up = 1000;
        for number in (0..rows).step_by(rows / looked_up) {
            assert!(set.get(&key(number)).unwrap().is_some());
        }
        let read_bytes = tables.counts(&set).read_bytes - before.read_bytes;
        // A part of the filter, one of the index, and a block of rows.
        assert!(read_bytes <= looked_up as u64 * 3 * 4500, "{read_bytes} bytes for {looked_up} look-ups");
    }

    #[test]
    fn a_merge_that_is_told_to_stop_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path(), CACHE_BYTES).unwrap();
        for _ in 0..5 {
            tables.flush(put(0..1000, "v").into_iter()).unwrap();
        }
        let before = tables.current().new_runs();
        tables.stop_merging();
        assert_eq!(tables.merge_some(), Ok(false));
        assert_eq!(tables.current().new_runs(), before);
        assert_eq!(all(&tables.current()).len(), 1000);
    }

    #[test]
    fn a_list_of_tables_that_was_cut_short_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        Tables::open(dir.path(), CACHE_BYTES).unwrap().flush(put(0..10, "v").into_iter()).unwrap();
        for name in [".tmpAbCdEf", "v9", "tables/77"] {
            std::fs::write(dir.path().join(name), b"half").unwrap();
        }
        let tables = Tables::open(dir.path(), CACHE_BYTES).unwrap();
        assert_eq!(all(&tables.current()).len(), 10);
        for name in [".tmpAbCdEf", "v9", "tables/77"] {
            assert!(!dir.path().join(name).exists(), "{name} is left");
        }
    }
}
