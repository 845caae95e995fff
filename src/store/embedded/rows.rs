//! Reading rows: an object's live cells, names in order, records.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode, Readable, Snapshot};

use super::engine_error;
use super::layout::{self, CellRow, RowId, RowKey};
use super::record::{self, Header};
use crate::domain::cell::{Cell, CellKey, Element, Floor, FloorTarget, LiveCells, Path, Selection};
use crate::domain::context::CausalContext;
use crate::domain::dot::{ActorId, Dot, Time};
use crate::domain::key::{BucketName, ObjectName};
use crate::store::StoreError;

const ACTOR_RECORD: &[u8] = b"store/actor";
const CLOCK_RECORD: &[u8] = b"store/clock";
/// Records of the store itself begin with this; the others are the engine's.
const OWN_RECORDS: &[u8] = b"store/";

/// The engine's one key space.
#[derive(Clone)]
pub(super) struct Rows {
    pub(super) database: Database,
    pub(super) keyspace: Keyspace,
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

impl View for SnapshotView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.snapshot.get(self.keyspace, key).map_err(engine_error)?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        for row in self.snapshot.range(self.keyspace, (range.start, range.end)) {
            let (key, value) = row.into_inner().map_err(engine_error)?;
            if visit(Bytes::from(key), Bytes::from(value))?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Rows {
    pub(super) fn new(database: Database, keyspace: Keyspace) -> Self {
        Self { database, keyspace }
    }

    fn view(&self) -> SnapshotView<'_> {
        SnapshotView { snapshot: self.database.snapshot(), keyspace: &self.keyspace }
    }

    /// The directory's actor: the one it has, or `new_actor` from now on.
    pub(super) fn establish_actor(&self, new_actor: ActorId) -> Result<ActorId, StoreError> {
        let key = layout::record(ACTOR_RECORD);
        if let Some(value) = self.view().get(&key)? {
            let (_, mut value) = record::open(&key, value)?;
            return record::take_time(&mut value).map(|Time(actor)| ActorId(actor));
        }
        let row = RowKey { row: key.clone(), whole: None };
        self.keyspace.insert(key, record::encode_floor(&row, Time(new_actor.0))).map_err(engine_error)?;
        self.database.persist(PersistMode::SyncAll).map_err(engine_error)?;
        Ok(new_actor)
    }

    /// The durable bound of the clock; zero in a new directory.
    pub(super) fn clock_bound(&self) -> Result<Time, StoreError> {
        let key = layout::record(CLOCK_RECORD);
        match self.view().get(&key)? {
            None => Ok(Time(0)),
            Some(value) => record::take_time(&mut record::open(&key, value)?.1),
        }
    }

    /// The row that raises the bound of the clock.
    pub(super) fn clock_row(bound: Time) -> (Bytes, Bytes) {
        let row = RowKey { row: layout::record(CLOCK_RECORD), whole: None };
        let value = record::encode_floor(&row, bound);
        (row.row, value)
    }

    pub(super) fn records(&self) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut records = Vec::new();
        self.view().scan(Range::prefix(layout::records()), &mut |row, value| {
            let (key, value) = record::open(&row, value)?;
            let name = layout::record_name(&key);
            if !name.starts_with(OWN_RECORDS) {
                records.push((name, value));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(records)
    }

    pub(super) fn read(&self, name: &ObjectName, selections: &[Selection]) -> Result<LiveCells, StoreError> {
        let view = self.view();
        match header(&view, &layout::name(name))? {
            Some(header) => live_cells(&view, &header, selections),
            None => Ok(LiveCells::default()),
        }
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
        let prefix = layout::bucket_type(bucket_type);
        let type_end = layout::prefix_end(layout::scan_prefix(&prefix));
        let behind = |bucket: &Bytes| {
            let name = BucketName { bucket_type: bucket_type.clone(), bucket: bucket.clone() };
            layout::prefix_end(layout::scan_prefix(&layout::bucket(&name)))
        };
        let view = self.view();
        let mut buckets: Vec<Bytes> = Vec::new();
        let mut last = after;
        while buckets.len() < limit {
            let start = match &last {
                None => Some(layout::scan_prefix(&prefix).to_vec()),
                Some(bucket) => behind(bucket),
            };
            let Some(start) = start else { break };
            let end = type_end.clone().map_or(Bound::Unbounded, Bound::Excluded);
            let mut found = None;
            self.visit_listed(&view, Range { start: Bound::Included(start), end }, &mut |name| {
                let inside = name.bucket.bucket_type == *bucket_type;
                found = inside.then_some(name.bucket.bucket);
                inside
            })?;
            let Some(bucket) = found else { break };
            buckets.push(bucket.clone());
            last = Some(bucket);
        }
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

fn live_cells(view: &dyn View, header: &Header, selections: &[Selection]) -> Result<LiveCells, StoreError> {
    let mut cells = Vec::new();
    for selection in selections {
        match selection {
            Selection::Siblings => siblings(view, header, &mut cells)?,
            Selection::Key(CellKey { element: Element::Sibling(_), .. }) => siblings(view, header, &mut cells)?,
            Selection::Key(key) => cells_at(view, header, key, &mut cells)?,
            Selection::Subtree(path) => cells_under(view, header, path, &mut cells)?,
        }
    }
    cells.retain(|cell| selections.iter().any(|selection| selection.takes(&cell.key)));
    Ok(LiveCells::new(cells))
}

fn siblings(view: &dyn View, header: &Header, cells: &mut Vec<Cell>) -> Result<(), StoreError> {
    if header.values + header.tombstones == 0 {
        return Ok(());
    }
    view.scan(Range::prefix(&layout::siblings(header.id)), &mut |row, value| {
        let dot = layout::parse_sibling(&row)?;
        let (_, mut value) = record::open(&row, value)?;
        record::take_time(&mut value)?;
        let key = CellKey { path: Path::root(), element: Element::Sibling(dot.time) };
        let payload = record::decode_payload(&key.element, value)?;
        cells.push(Cell { key, dot, payload });
        Ok(ControlFlow::Continue(()))
    })
}

fn cells_at(view: &dyn View, header: &Header, key: &CellKey, cells: &mut Vec<Cell>) -> Result<(), StoreError> {
    let Some(content) = header.content else { return Ok(()) };
    for &actor in &header.actors {
        let row = layout::cell(content, key, actor);
        let Some(value) = view.get(&row.row)? else { continue };
        let (_, mut value) = record::open(&row.row, value)?;
        let dot = Dot { actor, time: record::take_time(&mut value)? };
        if !floors_above(view, header, content, &key.path)?.iter().any(|floor| floor.ends(key, dot)) {
            cells.push(Cell { key: key.clone(), dot, payload: record::decode_payload(&key.element, value)? });
        }
    }
    Ok(())
}

fn cells_under(view: &dyn View, header: &Header, path: &Path, cells: &mut Vec<Cell>) -> Result<(), StoreError> {
    let Some(content) = header.content else { return Ok(()) };
    let mut floors = floors_above(view, header, content, path)?;
    let first = cells.len();
    let prefix = layout::subtree(content, path);
    view.scan(Range::prefix(layout::scan_prefix(&prefix)), &mut |row, value| {
        let (key, mut value) = record::open(&row, value)?;
        let time = record::take_time(&mut value)?;
        match layout::parse_cell(&key)? {
            CellRow::Floor(path, actor) => floors.push(floor_at(path, Dot { actor, time })),
            CellRow::Cell(key, actor) => {
                let payload = record::decode_payload(&key.element, value)?;
                cells.push(Cell { key, dot: Dot { actor, time }, payload });
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !floors.is_empty() {
        let found = cells.split_off(first);
        cells.extend(found.into_iter().filter(|cell| !floors.iter().any(|floor| floor.ends(&cell.key, cell.dot))));
    }
    Ok(())
}

fn floor_at(path: Path, dot: Dot) -> Floor {
    Floor { target: FloorTarget::Subtree(path), context: CausalContext::from_iter([dot]) }
}

/// The floors at a path and at every field around it. Most objects have none, and their header says so.
fn floors_above(view: &dyn View, header: &Header, content: RowId, path: &Path) -> Result<Vec<Floor>, StoreError> {
    let mut floors = Vec::new();
    if header.floors == 0 {
        return Ok(floors);
    }
    for depth in 0..=path.fields().len() {
        let around = Path::from(path.fields()[..depth].to_vec());
        for &actor in &header.actors {
            let row = layout::floor(content, &around, actor);
            if let Some(value) = view.get(&row.row)? {
                let time = record::take_time(&mut record::open(&row.row, value)?.1)?;
                floors.push(floor_at(around.clone(), Dot { actor, time }));
            }
        }
    }
    Ok(floors)
}
