//! Reading rows: an object's live cells, names in order, records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode, Readable, Snapshot};

use super::counts::{Counters, RowCounts};
use super::layout::{self, RowId, RowKey};
use super::record::{self, Header, SiblingEntry};
use super::scan::LiveScan;
use super::{Durability, engine_error};
use crate::domain::cell::{Cell, CellKey, Element, Floor, FloorTarget, LiveCells, Path, Payload, Selection};
use crate::domain::context::CausalContext;
use crate::domain::dot::{ActorId, Dot, Time};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::object;
use crate::store::{Content, Layout, ObjectState, StoreError};

/// The engine's one key space. All that is read and written passes here, and is counted.
#[derive(Clone)]
pub(super) struct Rows {
    pub(super) database: Database,
    pub(super) keyspace: Keyspace,
    durability: Durability,
    counters: Arc<Counters>,
    // With the rows, so that a scan which outlives the store keeps the directory too.
    _lock: Arc<File>,
}

/// When a write is to be on disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sync {
    /// Before the call returns.
    Now,
    /// With whatever is written next.
    Later,
}

/// Rows as one moment shows them.
pub(super) trait View {
    /// One row's value.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the rows of a range in order until the visitor breaks.
    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError>;
}

pub(super) type Visitor<'a> = dyn FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, StoreError> + 'a;

/// A range of row keys.
pub(super) struct Range {
    pub(super) start: Bound<Vec<u8>>,
    pub(super) end: Bound<Vec<u8>>,
}

impl Range {
    /// Everything that begins with the prefix.
    pub(super) fn prefix(prefix: &[u8]) -> Self {
        let end = layout::prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self { start: Bound::Included(prefix.to_vec()), end }
    }

    /// What of the range lies behind a key.
    pub(super) fn after(self, key: &[u8]) -> Self {
        Self { start: Bound::Excluded(key.to_vec()), ..self }
    }
}

/// The engine's own rows at one moment.
pub(super) struct SnapshotView<'a> {
    snapshot: Snapshot,
    rows: &'a Rows,
}

impl SnapshotView<'_> {
    fn iter(&self, range: Range) -> StoredRows {
        let rows = self.snapshot.range(&self.rows.keyspace, (range.start, range.end));
        StoredRows { rows, counters: self.rows.counters.clone() }
    }
}

/// Rows of a range, as one moment shows them for as long as this lives.
pub(super) struct StoredRows {
    rows: fjall::Iter,
    counters: Arc<Counters>,
}

impl StoredRows {
    pub(super) fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        self.counters.note_scanned();
        let (key, value) = row.into_inner().map_err(engine_error)?;
        Ok(Some((Bytes::from(key), Bytes::from(value))))
    }
}

impl View for SnapshotView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.counters.note_read();
        let value = self.snapshot.get(&self.rows.keyspace, key).map_err(engine_error)?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let mut rows = self.iter(range);
        while let Some((key, value)) = rows.next()? {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Rows {
    pub(super) fn new(database: Database, keyspace: Keyspace, durability: Durability, lock: File) -> Self {
        Self { database, keyspace, durability, counters: Arc::default(), _lock: Arc::new(lock) }
    }

    /// Has the engine write its table of new rows to disk in the background before it is full, and begin a new one. Not
    /// while another waits to be written: several would hold up all writes.
    pub(super) fn write_table_early(&self) -> bool {
        if self.keyspace.sealed_memtable_count() > 0 {
            return false;
        }
        // After an error nothing is lost: the table is written when it is full.
        if let Err(error) = self.keyspace.rotate_memtable() {
            tracing::warn!(%error, "the engine did not write its new rows early");
        }
        true
    }

    pub(super) fn view(&self) -> SnapshotView<'_> {
        SnapshotView { snapshot: self.database.snapshot(), rows: self }
    }

    pub(super) fn counts(&self) -> RowCounts {
        self.counters.get()
    }

    /// A row as it is now: for the committer, beside which nothing changes.
    pub(super) fn current(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.counters.note_read();
        let value = self.keyspace.get(key).map_err(engine_error)?;
        Ok(value.map(Bytes::from))
    }

    /// The rows of a range as they are now.
    pub(super) fn current_range(&self, range: Range) -> StoredRows {
        StoredRows { rows: self.keyspace.range((range.start, range.end)), counters: self.counters.clone() }
    }

    /// Writes rows together: values are put, absent ones deleted. Without a sync a crash may lose them, whole, with what
    /// is written after them.
    pub(super) fn write(&self, changed: BTreeMap<Bytes, Option<Bytes>>, sync: Sync) -> Result<(), StoreError> {
        let mode = match (sync, self.durability) {
            (Sync::Now, Durability::Fsync) => Some(PersistMode::SyncData),
            (Sync::Later, _) | (_, Durability::NoneForBenches) => None,
        };
        let mut batch = self.database.batch().durability(mode);
        for (key, value) in changed {
            match value {
                Some(value) => {
                    self.counters.note_put(key.len() + value.len());
                    batch.insert(&self.keyspace, key, value);
                }
                None => {
                    self.counters.note_deleted();
                    batch.remove(&self.keyspace, key);
                }
            }
        }
        batch.commit().map_err(engine_error)
    }

    /// The directory's actor: the one it has, or `new_actor` from now on.
    pub(super) fn establish_actor(&self, new_actor: ActorId) -> Result<ActorId, StoreError> {
        let key = layout::own_actor();
        if let Some(actor) = time_at(&self.view(), &key)? {
            return Ok(ActorId(actor.0));
        }
        let value = record::encode_time(&key, Time(new_actor.0));
        self.keyspace.insert(key.row, value).map_err(engine_error)?;
        self.database.persist(PersistMode::SyncAll).map_err(engine_error)?;
        Ok(new_actor)
    }

    /// The durable bound of the clock; zero in a new directory.
    pub(super) fn clock_bound(&self) -> Result<Time, StoreError> {
        Ok(time_at(&self.view(), &layout::own_clock())?.unwrap_or_default())
    }

    pub(super) fn count(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        let everything = Range { start: Bound::Unbounded, end: Bound::Unbounded };
        self.view().scan(everything, &mut |_, _| {
            count += 1;
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

    pub(super) fn read(&self, name: &ObjectName, selections: &[Selection]) -> Result<LiveCells, StoreError> {
        let view = self.view();
        match header(&view, &layout::name(name))? {
            Some(header) => live_cells(&view, &header, selections, |range| view.iter(range)),
            None => Ok(LiveCells::default()),
        }
    }

    /// Opens an object's content at or under a path, and shows its values as of the same moment.
    pub(super) fn open_content(
        &self,
        name: &ObjectName,
        path: Path,
        from: Option<CellKey>,
    ) -> Result<Content, StoreError> {
        let view = self.view();
        let name = layout::name(name);
        let header = header(&view, &name)?.unwrap_or_else(|| Header::new(RowId([0; 16])));
        let stored = |range| view.iter(range);
        let values = live_cells(&view, &header, &Selection::values(), stored)?;
        let pages = LiveScan::new(&view, &header, path, from, stored)?;
        Ok(Content { values, pages: Box::new(pages) })
    }

    pub(super) fn inspect(&self, name: &ObjectName) -> Result<ObjectState, StoreError> {
        let view = self.view();
        let header = header(&view, &layout::name(name))?.unwrap_or_else(|| Header::new(RowId([0; 16])));
        let values = live_cells(&view, &header, &Selection::values(), |range| view.iter(range))?;
        let layout = if header.packed.is_some() { Layout::Packed } else { Layout::Spread };
        Ok(ObjectState { values, layout, floors: header.floors })
    }

    pub(super) fn keys(
        &self,
        bucket: &BucketName,
        after: Option<Bytes>,
        limit: usize,
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
        self.visit_listed(&self.view(), range, &mut |name| {
            if name.bucket == *bucket {
                keys.push(name.key);
            }
            keys.len() >= limit
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
    ) -> Result<Vec<Posting>, StoreError> {
        let mut found = Ordered::new(limit);
        let Some(bounds) = PostingBounds::new(bucket, range, after) else { return Ok(Vec::new()) };
        if limit == 0 {
            return Ok(Vec::new());
        }
        let kind = range.term_kind();
        self.view().scan(bounds.rows, &mut |row, value| {
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
            if is_wanted && (kind.is_some() || Header::decode(value)?.is_listed()) {
                found.add(&row, posting);
            }
            Ok(if found.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found.into_items())
    }

    /// Finds each bucket's first listed key and then jumps behind the bucket, so that the cost follows the number of buckets.
    pub(super) fn buckets(
        &self,
        bucket_type: &Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let view = self.view();
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
            self.visit_listed(&view, Range { start: Bound::Included(from), end }, &mut |name| {
                let inside = name.bucket.bucket_type == *bucket_type;
                found = inside.then_some(name.bucket.bucket);
                inside
            })?;
            let Some(bucket) = found else { break };
            let prefix = prefix_of(&bucket);
            let group = layout::scan_prefix(&prefix);
            if is_cut(&prefix) {
                let names = self.buckets_of_group(&view, bucket_type, group)?;
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
    fn buckets_of_group(
        &self,
        view: &dyn View,
        bucket_type: &Bytes,
        group: &[u8],
    ) -> Result<BTreeSet<Bytes>, StoreError> {
        let mut buckets = BTreeSet::new();
        self.visit_listed(view, Range::prefix(group), &mut |name| {
            if name.bucket.bucket_type == *bucket_type {
                buckets.insert(name.bucket.bucket);
            }
            false
        })?;
        Ok(buckets)
    }

    /// Visits the names of listed objects until the visitor says that it has enough.
    fn visit_listed(
        &self,
        view: &dyn View,
        range: Range,
        enough: &mut dyn FnMut(ObjectName) -> bool,
    ) -> Result<(), StoreError> {
        view.scan(range, &mut |row, value| {
            let (key, value) = record::open(&row, value)?;
            let done = Header::decode(value)?.is_listed() && enough(layout::parse_name(&key)?);
            Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }
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

/// An object's header, where the object is known.
pub(super) fn header(view: &dyn View, name: &RowKey) -> Result<Option<Header>, StoreError> {
    let Some(value) = view.get(&name.row)? else { return Ok(None) };
    Header::decode(record::open(&name.row, value)?.1).map(Some)
}

fn live_cells(
    store: &dyn View,
    header: &Header,
    selections: &[Selection],
    stored: impl Fn(Range) -> StoredRows,
) -> Result<LiveCells, StoreError> {
    let view = header.rows(store);
    let mut cells = Vec::new();
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
pub(super) fn plain_value(view: &dyn View, id: RowId, sibling: &SiblingEntry) -> Result<object::Content, StoreError> {
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
