//! Reading rows: an object's live cells, names in order, records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::iter;
use std::mem;
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use bytes::Bytes;
use crossbeam_utils::CachePadded;

use super::NO_LOG;
use super::batch::Changes;
use super::counts::{Counters, RowCounts};
use super::layout::{self, RowId, RowKey};
use super::overlay::{Moment, Overlay};
use super::record::{self, Header, SiblingEntry};
use super::scan::LiveScan;
use super::tables::{TableCounts, TableSet, Tables};
use super::view::{InMemory, Layers, Range, RowsView, StoredRows, View};
use crate::domain::cell::{Cell, CellKey, Element, Floor, FloorTarget, LiveCells, Path, Payload, Selection};
use crate::domain::context::CausalContext;
use crate::domain::dot::{ActorId, Dot, Time};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::object;
use crate::store::{Content, Horizon, Layout, ObjectState, Position, StoreError};

/// The rows of a directory: its tables, and what is written over them in memory. All that is read and written passes here, and
/// is counted.
#[derive(Clone)]
pub(super) struct Rows(Arc<Inner>);

struct Inner {
    tables: Tables,
    counters: Arc<Counters>,
    // What every request writes to lies apart from what it reads.
    layers: CachePadded<RwLock<Generations>>,
    /// The last moment whose rows are all in the layers.
    visible: CachePadded<AtomicU64>,
    /// What the frozen overlay takes in memory, in bytes.
    frozen_bytes: AtomicUsize,
    /// Held from the look at the tables until they are shown, which may take as long as the disk does.
    publishing: Mutex<()>,
    /// What the tables have replaced and somebody may still look at.
    left: Mutex<Left>,
    /// What the overlays among it take in memory, in bytes.
    held_bytes: AtomicUsize,
    // With the rows, so that a scan which outlives the store keeps the directory too.
    _lock: File,
}

/// What readers that began earlier may still hold.
#[derive(Default)]
struct Left {
    /// Whoever lets go of a table last deletes its file, which takes a while: so that it is no reader, each set of tables is
    /// held here until nobody else holds it.
    tables: Vec<Arc<TableSet>>,
    /// Overlays that the tables have taken up.
    overlays: Vec<Weak<Overlay>>,
}

/// The layers, and what of earlier ones is looked at. Every reader holds those that it found, so they tell how far back
/// anybody looks.
struct Generations {
    current: Arc<Layers>,
    earlier: Vec<Arc<Layers>>,
}

/// Writes from one generation to the next.
const WRITES_PER_GENERATION: u64 = 64;

impl Rows {
    pub(super) fn new(tables: Tables, lock: File) -> Self {
        let counters = Arc::<Counters>::default();
        let stored = Arc::new(tables.current());
        let (counted, active) = (counters.clone(), Arc::default());
        let layers = Layers { since: Moment::default(), counters: counted, active, frozen: None, stored };
        Self(Arc::new(Inner {
            tables,
            counters,
            layers: CachePadded::new(RwLock::new(Generations { current: Arc::new(layers), earlier: Vec::new() })),
            visible: CachePadded::default(),
            frozen_bytes: AtomicUsize::new(0),
            publishing: Mutex::default(),
            left: Mutex::default(),
            held_bytes: AtomicUsize::new(0),
            _lock: lock,
        }))
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.0.tables
    }

    fn layers(&self) -> Arc<Layers> {
        self.0.layers.read().unwrap_or_else(PoisonError::into_inner).current.clone()
    }

    /// Begins a generation of layers, and lets go of earlier ones that nobody looks at. The earliest moment that anybody
    /// looks at or ever will.
    fn begin_generation(&self, change: impl FnOnce(&mut Layers)) -> Moment {
        let mut generations = self.0.layers.write().unwrap_or_else(PoisonError::into_inner);
        let Layers { counters, active, frozen, stored, .. } = &*generations.current;
        let mut next = Layers {
            since: Moment(self.0.visible.load(Ordering::Acquire)),
            counters: counters.clone(),
            active: active.clone(),
            frozen: frozen.clone(),
            stored: stored.clone(),
        };
        change(&mut next);
        let since = next.since;
        let before = mem::replace(&mut generations.current, Arc::new(next));
        generations.earlier.push(before);
        // None but those who hold them can hand them on.
        let left: Vec<_> = generations.earlier.extract_if(.., |layers| Arc::strong_count(layers) == 1).collect();
        let oldest = generations.earlier.first().map_or(since, |layers| layers.since);
        // Much may hang on them, which nobody should wait for.
        drop(generations);
        drop(left);
        oldest
    }

    /// The rows as they are now.
    pub(super) fn view(&self) -> RowsView {
        // The layers first: they show all moments up to the last that was written to them.
        let layers = self.layers();
        RowsView::new(layers, self.moment())
    }

    pub(super) fn counts(&self) -> RowCounts {
        self.0.counters.get()
    }

    pub(super) fn table_counts(&self) -> TableCounts {
        self.0.tables.counts(&self.layers().stored)
    }

    /// Tables of new rows that lie over each other.
    pub(super) fn new_runs(&self) -> usize {
        self.layers().stored.new_runs()
    }

    /// The overlay that is written to. The one writer keeps it, so that it need not look for it.
    pub(super) fn active(&self) -> Arc<Overlay> {
        self.layers().active.clone()
    }

    /// Writes rows to memory, where they are visible together. They are durable when the write at the position is. For the
    /// one writer, whose positions never fall. The moment from which on they are.
    pub(super) fn write(&self, active: &Overlay, changes: impl Into<Changes>, position: Position) -> Moment {
        let moment = Moment(self.0.visible.load(Ordering::Relaxed) + 1);
        let Changes { rows: changed, runs } = changes.into();
        for run in runs {
            self.0.counters.note_run(&run.counts);
            active.link(run, moment, position);
        }
        for (key, value) in changed {
            match &value {
                Some(value) => self.0.counters.note_put(key.len() + value.len()),
                None => self.0.counters.note_deleted(),
            }
            active.write(key, value, moment, position);
        }
        self.0.visible.store(moment.0, Ordering::Release);
        if moment.0.is_multiple_of(WRITES_PER_GENERATION) {
            let oldest = self.begin_generation(|_| {});
            active.let_go(oldest);
        }
        moment
    }

    /// The last moment that is shown.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.0.visible.load(Ordering::Acquire))
    }

    /// What is in memory now.
    pub(super) fn in_memory(&self, active: &Overlay) -> InMemory {
        InMemory {
            active_bytes: active.size_bytes(),
            active_dead: active.dead(),
            active_runs: active.run_count(),
            frozen_bytes: self.0.frozen_bytes.load(Ordering::Relaxed),
            held_bytes: self.0.held_bytes.load(Ordering::Relaxed),
        }
    }

    /// Begins a new overlay for what is written from now on. For the one writer, while nothing is frozen.
    pub(super) fn freeze(&self, active: &mut Arc<Overlay>) -> Arc<Overlay> {
        let frozen = mem::take(active);
        self.0.frozen_bytes.store(frozen.size_bytes(), Ordering::Relaxed);
        self.begin_generation(|layers| {
            layers.frozen = Some(frozen.clone());
            layers.active = active.clone();
        });
        frozen
    }

    /// Writes what is frozen to the tables, with the position up to which they then hold everything durably, and lets it go.
    pub(super) fn apply(&self, frozen: &Arc<Overlay>, position: Position) -> Result<(), StoreError> {
        self.apply_with(frozen, position, None)
    }

    /// The same where it is all that the log holds: in one step with it the tables say that there is no log.
    pub(super) fn apply_last(&self, frozen: &Arc<Overlay>, position: Position) -> Result<(), StoreError> {
        self.apply_with(frozen, position, Some(NO_LOG))
    }

    fn apply_with(&self, frozen: &Arc<Overlay>, position: Position, log: Option<u64>) -> Result<(), StoreError> {
        let held = layout::own_position();
        let value = record::encode_time(&held, Time(position.0));
        let own = log.map(named).into_iter().chain([(held.row, value)]).collect();
        let stored = self.layers().stored.clone();
        let mut failure = None;
        let rows = frozen.last_versions().filter(|(key, value)| {
            // A row that the tables do not have needs no mark there to say that it is deleted.
            value.is_some()
                || stored.get(key).map(|found| found.is_some()).unwrap_or_else(|error| {
                    failure.get_or_insert(error);
                    true
                })
        });
        self.0.tables.flush(with_rows(rows, own))?;
        if let Some(error) = failure {
            tracing::warn!(%error, "a row that was deleted could not be looked up in the tables");
        }
        self.left().overlays.push(Arc::downgrade(frozen));
        self.publish(|layers| layers.frozen = None);
        self.0.frozen_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the tables as they are now.
    pub(super) fn show_tables(&self) {
        self.publish(|_| {});
    }

    fn publish(&self, change: impl FnOnce(&mut Layers)) {
        let _publishing = self.0.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = Arc::new(self.0.tables.current());
        let mut before = None;
        self.begin_generation(|layers| {
            before = Some(mem::replace(&mut layers.stored, stored));
            change(layers);
        });
        self.left().tables.extend(before);
    }

    /// Lets go of what readers no longer hold, and deletes the files of tables that were merged into others. Whether something
    /// is still held.
    pub(super) fn let_go(&self) -> bool {
        // Generations that nobody looks at go first.
        self.begin_generation(|_| {});
        let mut left = self.left();
        let gone: Vec<_> = left.tables.extract_if(.., |tables| Arc::strong_count(tables) == 1).collect();
        left.overlays.retain(|overlay| overlay.strong_count() > 0);
        let held = left.overlays.iter().filter_map(Weak::upgrade).map(|overlay| overlay.size_bytes()).sum();
        self.0.held_bytes.store(held, Ordering::Relaxed);
        let more = !left.tables.is_empty() || !left.overlays.is_empty();
        drop(left);
        drop(gone);
        more
    }

    /// The position up to which the tables hold everything; before the first in a new directory.
    pub(super) fn position_held(&self) -> Result<Position, StoreError> {
        Ok(Position(time_at(&self.view(), &layout::own_position())?.unwrap_or_default().0))
    }

    /// The directory's actor, if it has one yet.
    pub(super) fn actor(&self) -> Result<Option<ActorId>, StoreError> {
        Ok(time_at(&self.view(), &layout::own_actor())?.map(|actor| ActorId(actor.0)))
    }

    /// The name of the log that may hold more than the tables do, [`NO_LOG`] where there is none to expect; `None` where they
    /// never said, as in a new directory and in one of an earlier format.
    pub(super) fn log_name(&self) -> Result<Option<u64>, StoreError> {
        Ok(time_at(&self.view(), &layout::own_log())?.map(|name| name.0))
    }

    /// Names the log that may hold more than the tables do from now on, or says that there is none to expect; and gives a new
    /// directory its actor. Durable when this returns, and so is all that the tables hold.
    pub(super) fn name_log(&self, name: u64, new_actor: Option<ActorId>) -> Result<(), StoreError> {
        let actor = |actor: ActorId| {
            let key = layout::own_actor();
            let value = record::encode_time(&key, Time(actor.0));
            (key.row, value)
        };
        let own = new_actor.map(actor).into_iter().chain([named(name)]).collect();
        self.0.tables.flush(with_rows(iter::empty(), own))?;
        self.show_tables();
        Ok(())
    }

    /// The durable bound of the clock; zero in a new directory.
    pub(super) fn clock_bound(&self) -> Result<Time, StoreError> {
        Ok(time_at(&self.view(), &layout::own_clock())?.unwrap_or_default())
    }

    pub(super) fn count(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        self.view().scan(Range::all(), &mut |row, _| {
            // What the tables say of themselves is no row of anybody's.
            count += u64::from(row != layout::own_position().row && row != layout::own_log().row);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(count)
    }

    pub(super) fn records(&self) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut records = Vec::new();
        self.view().scan(Range::prefix(layout::records()), &mut |row, value| {
            let (key, value) = record::open(&row, value)?;
            records.push((layout::record_name(&key)?, value));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(records)
    }

    /// Reads, and takes in what was seen, also where it led to an error.
    pub(super) fn seen_by<T>(
        &self,
        horizon: &Horizon,
        read: impl FnOnce(&RowsView) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let view = self.view();
        let result = read(&view);
        horizon.raise(view.seen());
        result
    }

    pub(super) fn read(
        &self,
        name: &ObjectName,
        selections: &[Selection],
        horizon: &Horizon,
    ) -> Result<LiveCells, StoreError> {
        self.seen_by(horizon, |view| Ok(read(view, name, selections)?.1))
    }

    /// Reads an object that is about to change: what is asked for of it, and where it was found.
    pub(super) fn read_to_change(
        &self,
        name: &ObjectName,
        selections: &[Selection],
        horizon: &Horizon,
    ) -> Result<(Found, LiveCells), StoreError> {
        let view = self.view();
        let result = read(&view, name, selections);
        horizon.raise(view.seen());
        result.map(|(object, cells)| (Found { view, object }, cells))
    }

    /// Opens an object's content at or under a path, and shows its values as of the same moment.
    pub(super) fn open_content(
        &self,
        name: &ObjectName,
        path: Path,
        from: Option<CellKey>,
        horizon: &Horizon,
    ) -> Result<Content, StoreError> {
        self.seen_by(horizon, |view| {
            let header = StoredObject::find(view, name)?.header.unwrap_or_else(|| Header::new(RowId([0; 16])));
            let stored = |range| view.iter(range);
            let values = live_cells(view, &header, &Selection::values(), stored)?;
            // Every write to the object changes its header, so whoever has seen that has seen all there is.
            let pages = LiveScan::new(view, &header, path, from, stored)?;
            Ok(Content { values, pages: Box::new(pages) })
        })
    }

    pub(super) fn inspect(&self, name: &ObjectName, horizon: &Horizon) -> Result<ObjectState, StoreError> {
        self.seen_by(horizon, |view| {
            let header = StoredObject::find(view, name)?.header.unwrap_or_else(|| Header::new(RowId([0; 16])));
            let values = live_cells(view, &header, &Selection::values(), |range| view.iter(range))?;
            let layout = if header.packed.is_some() { Layout::Packed } else { Layout::Spread };
            Ok(ObjectState { values, layout, floors: header.floors })
        })
    }

    pub(super) fn keys(
        &self,
        bucket: &BucketName,
        after: Option<Bytes>,
        limit: usize,
        horizon: &Horizon,
    ) -> Result<Vec<Bytes>, StoreError> {
        let prefix = layout::bucket(bucket);
        let mut range = Range::prefix(layout::scan_prefix(&prefix));
        if let Some(key) = after {
            range = range.after(&layout::name(&ObjectName { bucket: bucket.clone(), key }).row);
        }
        let mut keys = Vec::new();
        if limit == 0 {
            return Ok(keys);
        }
        self.seen_by(horizon, |view| {
            visit_listed(view, range, &mut |name| {
                if name.bucket == *bucket {
                    keys.push(name.key);
                }
                keys.len() >= limit
            })
        })?;
        Ok(keys)
    }

    /// The postings of a range that follow `after`. They come in the order of their whole keys: see [`Ordered`].
    pub(super) fn postings(
        &self,
        bucket: &BucketName,
        range: &IndexRange,
        after: Option<&Posting>,
        limit: usize,
        horizon: &Horizon,
    ) -> Result<Vec<Posting>, StoreError> {
        let mut found = Ordered::new(limit);
        let Some(bounds) = PostingBounds::new(bucket, range, after) else { return Ok(Vec::new()) };
        if limit == 0 {
            return Ok(Vec::new());
        }
        let kind = range.term_kind();
        let mut visit = |row: Bytes, value| {
            if !found.takes(&row) {
                return Ok(ControlFlow::Break(()));
            }
            let (key, value) = record::open(&row, value)?;
            // The scan of a cut prefix meets the rows of other indexes too.
            let Some(rest) = key.strip_prefix(&bounds.prefix[..]) else { return Ok(ControlFlow::Continue(())) };
            let posting = match kind {
                Some(kind) => layout::parse_posting(rest, kind)?,
                None => layout::parse_name_in_bucket(rest)?,
            };
            let is_wanted = range.contains(&posting) && after.is_none_or(|after| posting > *after);
            if is_wanted && (kind.is_some() || Header::is_listed_in(&value)?) {
                found.add(&row, posting);
            }
            Ok(if found.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        self.seen_by(horizon, |view| view.scan(bounds.rows, &mut visit))?;
        Ok(found.into_items())
    }

    pub(super) fn buckets(
        &self,
        bucket_type: &Bytes,
        after: Option<Bytes>,
        limit: usize,
        horizon: &Horizon,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.seen_by(horizon, |view| buckets(view, bucket_type, after, limit))
    }
}

/// Rows in order, and the tables' own where they belong.
fn with_rows(
    rows: impl Iterator<Item = (Bytes, Option<Bytes>)>,
    mut own: BTreeMap<Bytes, Bytes>,
) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
    let mut rows = rows.peekable();
    iter::from_fn(move || {
        let is_due = match (own.first_key_value(), rows.peek()) {
            (Some((key, _)), Some((next, _))) => key < next,
            (_, next) => next.is_none(),
        };
        if is_due { own.pop_first().map(|(key, value)| (key, Some(value))) } else { rows.next() }
    })
}

/// The row that names the log.
fn named(log: u64) -> (Bytes, Bytes) {
    let key = layout::own_log();
    let value = record::encode_time(&key, Time(log));
    (key.row, value)
}

/// Finds each bucket's first listed key and then jumps behind the bucket, so that the cost follows the number of buckets.
fn buckets(view: &RowsView, bucket_type: &Bytes, after: Option<Bytes>, limit: usize) -> Result<Vec<Bytes>, StoreError> {
    let type_prefix = layout::bucket_type(bucket_type);
    let type_end = layout::prefix_end(layout::scan_prefix(&type_prefix));
    let prefix_of =
        |bucket: &Bytes| layout::bucket(&BucketName { bucket_type: bucket_type.clone(), bucket: bucket.clone() });
    let is_cut = |prefix: &[u8]| layout::scan_prefix(prefix).len() < prefix.len();
    let mut start = match &after {
        None => Some(layout::scan_prefix(&type_prefix).to_vec()),
        Some(bucket) => {
            let prefix = prefix_of(bucket);
            let group = layout::scan_prefix(&prefix);
            // Buckets that share a cut prefix are looked at together, so the group may hold more of them.
            if is_cut(&prefix) { Some(group.to_vec()) } else { layout::prefix_end(group) }
        }
    };
    let mut buckets = Vec::new();
    while let Some(from) = start.take()
        && buckets.len() < limit
    {
        let end = type_end.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = None;
        visit_listed(view, Range { start: Bound::Included(from), end }, &mut |name| {
            let inside = name.bucket.bucket_type == *bucket_type;
            found = inside.then_some(name.bucket.bucket);
            inside
        })?;
        let Some(bucket) = found else { break };
        let prefix = prefix_of(&bucket);
        let group = layout::scan_prefix(&prefix);
        if is_cut(&prefix) {
            let names = buckets_of_group(view, bucket_type, group)?;
            buckets.extend(names.into_iter().filter(|name| after.as_ref().is_none_or(|after| name > after)));
        } else {
            buckets.push(bucket);
        }
        start = layout::prefix_end(group);
    }
    buckets.truncate(limit);
    Ok(buckets)
}

/// The buckets whose names' rows share a cut prefix. The rows lie in the order of their hashes, so only all of them
/// together say which buckets there are.
fn buckets_of_group(view: &dyn View, bucket_type: &Bytes, group: &[u8]) -> Result<BTreeSet<Bytes>, StoreError> {
    let mut buckets = BTreeSet::new();
    visit_listed(view, Range::prefix(group), &mut |name| {
        if name.bucket.bucket_type == *bucket_type {
            buckets.insert(name.bucket.bucket);
        }
        false
    })?;
    Ok(buckets)
}

/// Visits the names of listed objects until the visitor says that it has enough.
fn visit_listed(view: &dyn View, range: Range, enough: &mut dyn FnMut(ObjectName) -> bool) -> Result<(), StoreError> {
    view.scan(range, &mut |row, value| {
        let (key, value) = record::open(&row, value)?;
        let done = Header::is_listed_in(&value)? && enough(layout::parse_name(&key)?);
        Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
}

/// Where the rows of a range of postings lie. Rows of cut keys stand for all that share what they were cut to, so the
/// bounds may take in more than the range.
struct PostingBounds {
    /// What the whole keys of the index begin with.
    prefix: Vec<u8>,
    rows: Range,
}

impl PostingBounds {
    /// `None` where the range is empty.
    fn new(bucket: &BucketName, range: &IndexRange, after: Option<&Posting>) -> Option<Self> {
        let name = |key: &Bytes| {
            let row = layout::name(&ObjectName { bucket: bucket.clone(), key: key.clone() });
            row.whole.unwrap_or(row.row).to_vec()
        };
        let (prefix, low, high) = match range {
            IndexRange::Keys { from, to } => {
                let whole = |bound: &Bound<Bytes>| match bound {
                    Bound::Included(key) | Bound::Excluded(key) => Some(name(key)),
                    Bound::Unbounded => None,
                };
                (layout::bucket(bucket), whole(from), whole(to))
            }
            IndexRange::Terms { index, from, to } => {
                let low = layout::index_term(bucket, index, from);
                (layout::index(bucket, index), Some(low), Some(layout::index_term(bucket, index, to)))
            }
        };
        let resumed = after.and_then(|posting| match (&posting.term, range) {
            (None, IndexRange::Keys { .. }) => Some(name(&posting.key)),
            (Some(term), IndexRange::Terms { index, .. }) => {
                let row =
                    layout::posting(&ObjectName { bucket: bucket.clone(), key: posting.key.clone() }, index, term);
                Some(row.whole.unwrap_or(row.row).to_vec())
            }
            // A position in another index: whether a posting is behind it is told one by one.
            _ => None,
        });
        let start = low.max(resumed).unwrap_or_else(|| prefix.clone());
        let start = layout::scan_prefix(&start).to_vec();
        let end = layout::prefix_end(layout::scan_prefix(high.as_ref().unwrap_or(&prefix)));
        if end.as_ref().is_some_and(|end| *end <= start) {
            return None;
        }
        let rows = Range { start: Bound::Included(start), end: end.map_or(Bound::Unbounded, Bound::Excluded) };
        Some(Self { prefix, rows })
    }
}

/// Gathers up to a number of items in the order of their whole keys. Rows whose keys were cut to the same beginning lie in
/// the order of their hashes: of such a group the least are kept, and it is done when the scan has left it.
struct Ordered<T> {
    limit: usize,
    items: Vec<T>,
    group: Option<(Bytes, BTreeSet<T>)>,
}

impl<T: Ord> Ordered<T> {
    fn new(limit: usize) -> Self {
        Self { limit, items: Vec::new(), group: None }
    }

    /// Closes the group that the row is not in. Whether the row may hold anything that is wanted.
    fn takes(&mut self, row: &Bytes) -> bool {
        if self.group.as_ref().is_some_and(|(beginning, _)| !(layout::is_cut(row) && row.starts_with(beginning))) {
            self.close_group();
        }
        !self.is_full()
    }

    fn add(&mut self, row: &Bytes, item: T) {
        if !layout::is_cut(row) {
            self.items.push(item);
            return;
        }
        let beginning = row.slice_ref(layout::scan_prefix(row));
        let (_, group) = self.group.get_or_insert_with(|| (beginning, BTreeSet::new()));
        group.insert(item);
        if self.items.len() + group.len() > self.limit {
            group.pop_last();
        }
    }

    /// Whether no later row can change what was gathered.
    fn is_full(&self) -> bool {
        self.group.is_none() && self.items.len() >= self.limit
    }

    fn close_group(&mut self) {
        if let Some((_, group)) = self.group.take() {
            self.items.extend(group);
        }
    }

    fn into_items(mut self) -> Vec<T> {
        self.close_group();
        self.items
    }
}

/// An object as the rows know it.
pub(super) struct StoredObject {
    pub(super) name: RowKey,
    /// Its header's row, and what that spells, where the object is known.
    pub(super) row: Option<Bytes>,
    pub(super) header: Option<Header>,
}

impl StoredObject {
    pub(super) fn find(view: &dyn View, name: &ObjectName) -> Result<Self, StoreError> {
        let name = layout::name(name);
        let row = view.get(&name.row)?;
        let header = row.clone().map(|row| Header::of_row(&name, row)).transpose()?;
        Ok(Self { name, row, header })
    }
}

/// An object as it was found, and the rows as they were then.
pub(super) struct Found {
    pub(super) view: RowsView,
    pub(super) object: StoredObject,
}

fn read(view: &RowsView, name: &ObjectName, selections: &[Selection]) -> Result<(StoredObject, LiveCells), StoreError> {
    let object = StoredObject::find(view, name)?;
    let cells = match &object.header {
        Some(header) => live_cells(view, header, selections, |range| view.iter(range))?,
        None => LiveCells::default(),
    };
    Ok((object, cells))
}

/// An object's header, where the object is known.
pub(super) fn header(view: &dyn View, name: &RowKey) -> Result<Option<Header>, StoreError> {
    view.get(&name.row)?.map(|value| Header::of_row(name, value)).transpose()
}

fn live_cells(
    store: &dyn View,
    header: &Header,
    selections: &[Selection],
    stored: impl Fn(Range) -> StoredRows,
) -> Result<LiveCells, StoreError> {
    let view = header.rows(store);
    // Nearly all that is asked for is one cell.
    let mut cells = Vec::with_capacity(if selections.len() > 64 { selections.len() } else { 0 });
    for selection in selections {
        match selection {
            Selection::Key(CellKey { element: Element::Sibling(_), .. }) | Selection::Siblings => {
                siblings(view, header, selection, &mut cells)?;
            }
            Selection::Key(key) => cells_at(view, header, key, &mut cells)?,
            Selection::Subtree(path) => {
                let mut scan = LiveScan::new(store, header, path.clone(), None, &stored)?;
                while let Some(cell) = scan.next_cell()? {
                    cells.push(cell);
                }
            }
        }
    }
    let root = CellKey { path: Path::root(), element: Element::Presence };
    if selections.iter().any(|selection| selection.takes(&root)) {
        cells.extend(header.presence().map(|dot| Cell { key: root.clone(), dot, payload: Payload::Mark }));
    }
    Ok(LiveCells::new(cells))
}

fn siblings(view: &dyn View, header: &Header, selection: &Selection, cells: &mut Vec<Cell>) -> Result<(), StoreError> {
    for sibling in &header.siblings {
        let key = CellKey { path: Path::root(), element: Element::Sibling(sibling.dot.time) };
        if !selection.takes(&key) {
            continue;
        }
        let payload = Payload::Content(plain_value(view, header.id, sibling)?);
        cells.push(Cell { key, dot: sibling.dot, payload });
    }
    Ok(())
}

/// One plain value that the header lists.
pub(super) fn plain_value(
    view: &dyn View,
    id: RowId,
    sibling: &SiblingEntry,
) -> Result<Box<object::Content>, StoreError> {
    let row = layout::sibling(id, sibling.slot);
    let missing = StoreError::Damaged { what: "sibling" };
    let (_, mut value) = record::open(&row, view.get(&row)?.ok_or(missing.clone())?)?;
    if record::take_time(&mut value)? != sibling.dot.time {
        return Err(missing);
    }
    match record::decode_payload(&Element::Sibling(sibling.dot.time), value)? {
        Payload::Content(content) => Ok(content),
        _ => Err(missing),
    }
}

/// The live cells at one key of the content, one an actor.
fn cells_at(view: &dyn View, header: &Header, key: &CellKey, cells: &mut Vec<Cell>) -> Result<(), StoreError> {
    let Some(content) = header.content.filter(|_| !key.is_root_presence()) else { return Ok(()) };
    let floors = floors_above(view, header, content, &key.path)?;
    for &(actor, _) in &header.actors {
        let row = layout::cell(content, key, actor);
        let Some(value) = view.get(&row.row)? else { continue };
        let (_, mut value) = record::open(&row.row, value)?;
        let dot = Dot { actor, time: record::take_time(&mut value)? };
        if !floors.iter().any(|floor| floor.ends(key, dot)) {
            cells.push(Cell { key: key.clone(), dot, payload: record::decode_payload(&key.element, value)? });
        }
    }
    Ok(())
}

pub(super) fn floor_at(path: Path, dot: Dot) -> Floor {
    Floor { target: FloorTarget::Subtree(path), context: CausalContext::from_iter([dot]) }
}

/// The floors at a path and at every field around it. Most objects have none, and their header says so.
pub(super) fn floors_above(
    view: &dyn View,
    header: &Header,
    content: RowId,
    path: &Path,
) -> Result<Vec<Floor>, StoreError> {
    let mut floors = Vec::new();
    if header.floors == 0 {
        return Ok(floors);
    }
    for depth in 0..=path.fields().len() {
        let around = Path::from(path.fields()[..depth].to_vec());
        for &(actor, _) in &header.actors {
            if let Some(time) = time_at(view, &layout::floor(content, &around, actor))? {
                floors.push(floor_at(around.clone(), Dot { actor, time }));
            }
        }
    }
    Ok(floors)
}

/// The time with which a row's value begins, where the row is there.
pub(super) fn time_at(view: &dyn View, key: &RowKey) -> Result<Option<Time>, StoreError> {
    let Some(value) = view.get(&key.row)? else { return Ok(None) };
    record::take_time(&mut record::open(&key.row, value)?.1).map(Some)
}
