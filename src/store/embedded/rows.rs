//! Reading rows: an object's live cells, names in order, records.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode, Readable, Snapshot};

use super::engine_error;
use super::layout::{self, RowId, RowKey};
use super::record::{self, Header};
use super::scan::LiveScan;
use crate::domain::cell::{Cell, CellKey, Element, Floor, FloorTarget, LiveCells, Path, Payload, Selection};
use crate::domain::context::CausalContext;
use crate::domain::dot::{ActorId, Dot, Time};
use crate::domain::key::{BucketName, ObjectName};
use crate::store::{Content, StoreError};

/// The engine's one key space.
#[derive(Clone)]
pub(super) struct Rows {
    pub(super) database: Database,
    pub(super) keyspace: Keyspace,
    // With the rows, so that a scan which outlives the store keeps the directory too.
    _lock: Arc<File>,
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
struct SnapshotView<'a> {
    snapshot: Snapshot,
    keyspace: &'a Keyspace,
}

impl SnapshotView<'_> {
    fn iter(&self, range: Range) -> fjall::Iter {
        self.snapshot.range(self.keyspace, (range.start, range.end))
    }
}

impl View for SnapshotView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.snapshot.get(self.keyspace, key).map_err(engine_error)?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        for row in self.iter(range) {
            let (key, value) = row.into_inner().map_err(engine_error)?;
            if visit(Bytes::from(key), Bytes::from(value))?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Rows {
    pub(super) fn new(database: Database, keyspace: Keyspace, lock: File) -> Self {
        Self { database, keyspace, _lock: Arc::new(lock) }
    }

    fn view(&self) -> SnapshotView<'_> {
        SnapshotView { snapshot: self.database.snapshot(), keyspace: &self.keyspace }
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

/// An object's header, where the object is known.
pub(super) fn header(view: &dyn View, name: &RowKey) -> Result<Option<Header>, StoreError> {
    let Some(value) = view.get(&name.row)? else { return Ok(None) };
    Header::decode(record::open(&name.row, value)?.1).map(Some)
}

fn live_cells(
    store: &dyn View,
    header: &Header,
    selections: &[Selection],
    stored: impl Fn(Range) -> fjall::Iter,
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
        let row = layout::sibling(header.id, sibling.slot);
        let missing = StoreError::Damaged { what: "sibling" };
        let (_, mut value) = record::open(&row, view.get(&row)?.ok_or(missing.clone())?)?;
        if record::take_time(&mut value)? != sibling.dot.time {
            return Err(missing);
        }
        let payload = record::decode_payload(&key.element, value)?;
        cells.push(Cell { key, dot: sibling.dot, payload });
    }
    Ok(())
}

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
