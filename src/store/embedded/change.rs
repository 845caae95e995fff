//! From a delta to the rows that it changes.

use std::collections::BTreeSet;
use std::mem;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::RowLimits;
use super::batch::{Batch, ROWS_ONE_BY_ONE_MAX};
use super::layout::{self, RowId, RowKey};
use super::packed::PackedRows;
use super::record::{self, Header, SiblingEntry};
use super::rows::{self, StoredObject};
use super::sweep;
use super::view::{Range, View};
use crate::domain::cell::{Cell, CellKey, Element, Floor, FloorTarget, Path, Payload};
use crate::domain::context::CausalContext;
use crate::domain::delta::Delta;
use crate::domain::dot::{ActorId, Dot};
use crate::domain::index::Entry;
use crate::domain::key::ObjectName;
use crate::store::StoreError;

/// One object's rows while a delta is turned into them.
pub(super) struct ObjectChange<'a> {
    batch: &'a mut Batch,
    limits: RowLimits,
    object: &'a ObjectName,
    name: RowKey,
    header: Header,
    /// The header's row as it was.
    stored: Option<Bytes>,
    /// Index entries of the values that go.
    ended: BTreeSet<Entry>,
    /// Index entries of the values that come.
    begun: BTreeSet<Entry>,
    /// The rows of cells that were put into the packed ones, in bytes.
    packed_bytes: usize,
}

/// Cuts the contexts of a delta to the actors whose writes this object has: there is one writer, and whatever else a context
/// names has never been here, nor will it come. So what the delta costs does not follow what clients put into their contexts,
/// which a delta may hold once for each of very many floors. A floor that ends nothing is left out.
pub(super) fn cut_contexts(delta: &mut Delta, header: Option<&Header>) {
    // Nearly every context is short, and nearly all others are the one before them.
    let is_long = |context: &CausalContext| context.entries().len() > 1;
    if !delta.floors.iter().any(|floor| is_long(&floor.context)) {
        return;
    }
    let actors = header.map(Header::all_actors).unwrap_or_default();
    let (mut whole, mut cut) = (CausalContext::new(), CausalContext::new());
    for floor in delta.floors.iter_mut().filter(|floor| is_long(&floor.context)) {
        if floor.context != whole {
            let dot = |&actor: &ActorId| Some(Dot { actor, time: floor.context.time_of(actor)? });
            cut = actors.iter().filter_map(dot).collect();
            whole = mem::replace(&mut floor.context, cut.clone());
        } else {
            floor.context = cut.clone();
        }
    }
    delta.floors.retain(|floor| !floor.context.is_empty());
}

/// Names that make rows long, in bytes: those of the fields around, for each cell and floor.
const NAMES_BYTES_MAX: usize = 64 * 1024;

/// Whether a delta's rows are very many, or long by what they have in common.
fn is_many(delta: &Delta) -> bool {
    let of_floor = |floor: &Floor| match &floor.target {
        FloorTarget::Subtree(path) | FloorTarget::Element(CellKey { path, .. }) => names_bytes(path),
        FloorTarget::Siblings => 0,
    };
    delta.puts.len() + delta.floors.len() > ROWS_ONE_BY_ONE_MAX
        || delta.puts.iter().map(|cell| names_bytes(&cell.key.path)).sum::<usize>() > NAMES_BYTES_MAX
        || delta.floors.iter().map(of_floor).sum::<usize>() > NAMES_BYTES_MAX
}

fn names_bytes(path: &Path) -> usize {
    path.fields().iter().map(|field| field.name.len()).sum()
}

impl<'a> ObjectChange<'a> {
    pub(super) fn begin(
        batch: &'a mut Batch,
        limits: RowLimits,
        object: &'a ObjectName,
        found: Option<StoredObject>,
        dot: Dot,
    ) -> Result<Self, StoreError> {
        let found = match found {
            Some(found) => found,
            None => StoredObject::find(batch, object)?,
        };
        let StoredObject { name, row: stored, header } = found;
        let header = header.unwrap_or_else(|| Header::new(RowId::of(dot)));
        let (ended, begun) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { batch, limits, object, name, header, stored, ended, begun, packed_bytes: 0 })
    }

    pub(super) fn apply(mut self, delta: &Delta) -> Result<(), StoreError> {
        if is_many(delta) {
            self.batch.expect_many();
        }
        for floor in &delta.floors {
            self.raise(floor)?;
        }
        if self.header.is_empty() {
            // Whatever it was, what is left to write is a new beginning.
            self.header.packed.get_or_insert_default();
        }
        for cell in &delta.puts {
            self.put(cell);
            // Not only in the end: rows are kept in order here, and whole, which is no place for very many or very long ones.
            let Some(packed) = &self.header.packed else { continue };
            if packed.count() > self.limits.packed_cells_max || self.packed_bytes > self.limits.packed_size_bytes_max {
                self.spread_when_large();
            }
        }
        self.write_index()?;
        self.spread_when_large();
        let header = (!self.header.is_empty()).then(|| self.header.encode(&self.name));
        if self.stored != header {
            match header {
                Some(header) => self.batch.put(self.name.row, header),
                None => self.batch.delete(self.name.row),
            }
        }
        Ok(())
    }

    fn view(&self) -> &dyn View {
        self.header.rows(self.batch)
    }

    fn put_row(&mut self, key: Bytes, value: Bytes) {
        match &mut self.header.packed {
            Some(packed) => packed.put(key, value),
            None => self.batch.put(key, value),
        }
    }

    fn delete_row(&mut self, key: Bytes) {
        match &mut self.header.packed {
            Some(packed) => packed.delete(&key),
            None => self.batch.delete(key),
        }
    }

    /// Puts the row of a cell of the content. Nothing reads it before it is written.
    fn put_cell(&mut self, key: Bytes, value: Bytes) {
        match &mut self.header.packed {
            Some(packed) => {
                self.packed_bytes += key.len() + value.len();
                packed.put(key, value);
            }
            None => self.batch.write_unread(key, Some(value)),
        }
    }

    /// Deletes the row of a cell of the content. To meet it again is to delete it again.
    fn delete_cell(&mut self, key: Bytes) {
        match &mut self.header.packed {
            Some(packed) => packed.delete(&key),
            None => self.batch.write_unread(key, None),
        }
    }

    /// Gives each row of a packed object its own place, once they are too many to be written together.
    fn spread_when_large(&mut self) {
        let is_large = |packed: &mut PackedRows| {
            packed.count() > self.limits.packed_cells_max || packed.size_bytes() > self.limits.packed_size_bytes_max
        };
        if let Some(packed) = self.header.packed.take_if(is_large) {
            packed.into_rows().into_iter().for_each(|(key, value)| self.batch.put(key, value));
        }
    }

    fn put(&mut self, cell: &Cell) {
        if let Element::Sibling(_) = cell.key.element {
            return self.put_sibling(cell);
        }
        let content = *self.header.content.get_or_insert(RowId::of(cell.dot));
        if cell.key.is_root_presence() {
            return self.header.see(cell.dot);
        }
        if self.header.actors.iter().all(|(actor, _)| *actor != cell.dot.actor) {
            self.header.actors.push((cell.dot.actor, None));
        }
        let row = layout::cell(content, &cell.key, cell.dot.actor);
        let value = record::encode_cell(Some(&row), cell);
        self.put_cell(row.row, value);
    }

    fn put_sibling(&mut self, cell: &Cell) {
        let siblings = &mut self.header.siblings;
        siblings.retain(|sibling| sibling.dot != cell.dot);
        let mut taken: Vec<u32> = siblings.iter().map(|sibling| sibling.slot).collect();
        taken.sort_unstable();
        // The first number that is free.
        let slot = (0..).zip(&taken).take_while(|(slot, taken)| slot == *taken).count() as u32;
        let Payload::Content(content) = &cell.payload else { return };
        let mut indexed = false;
        for entry in content.index_entries() {
            indexed = true;
            self.begun.insert(entry);
        }
        siblings.push(SiblingEntry { dot: cell.dot, slot, deleted: content.deleted, indexed });
        self.put_row(layout::sibling(self.header.id, slot), record::encode_cell(None, cell));
    }

    fn raise(&mut self, floor: &Floor) -> Result<(), StoreError> {
        match &floor.target {
            FloorTarget::Siblings => self.end_siblings(|dot| floor.context.covers(dot)),
            FloorTarget::Element(CellKey { element: Element::Sibling(time), .. }) => {
                self.end_siblings(|dot| dot.time == *time && floor.context.covers(dot))
            }
            FloorTarget::Element(key) => self.end_element(key, &floor.context),
            FloorTarget::Subtree(path) => self.end_subtree(path, &floor.context),
        }
    }

    fn end_siblings(&mut self, ended: impl Fn(Dot) -> bool) -> Result<(), StoreError> {
        let gone: Vec<SiblingEntry> = self.header.siblings.extract_if(.., |sibling| ended(sibling.dot)).collect();
        for sibling in gone {
            if sibling.indexed {
                let content = rows::plain_value(self.view(), self.header.id, &sibling)?;
                self.ended.extend(content.index_entries());
            }
            self.delete_row(layout::sibling(self.header.id, sibling.slot));
        }
        Ok(())
    }

    /// Brings the rows of indexes to what the values now hold. An entry that one value had and another has keeps its row.
    fn write_index(&mut self) -> Result<(), StoreError> {
        let begun = mem::take(&mut self.begun);
        let mut ended = mem::take(&mut self.ended);
        for entry in begun.difference(&ended) {
            let row = layout::posting(self.object, &entry.index, &entry.term);
            let value = record::encode_posting(&row);
            self.batch.put(row.row, value);
        }
        ended.retain(|entry| !begun.contains(entry));
        if ended.is_empty() {
            return Ok(());
        }
        for sibling in self.header.siblings.iter().filter(|sibling| sibling.indexed) {
            let content = rows::plain_value(self.view(), self.header.id, sibling)?;
            content.index_entries().for_each(|entry| {
                ended.remove(&entry);
            });
        }
        for entry in ended {
            self.batch.delete(layout::posting(self.object, &entry.index, &entry.term).row);
        }
        Ok(())
    }

    fn end_element(&mut self, key: &CellKey, context: &CausalContext) -> Result<(), StoreError> {
        let Some(content) = self.header.content else { return Ok(()) };
        for at in 0..self.header.actors.len() {
            let (actor, _) = self.header.actors[at];
            if context.time_of(actor).is_none() {
                continue;
            }
            let row = layout::cell(content, key, actor);
            if rows::time_at(self.view(), &row)?.is_some_and(|time| context.covers(Dot { actor, time })) {
                self.delete_cell(row.row);
            }
        }
        Ok(())
    }

    /// Ends what is under a path: at once where it is little, else by a floor. A content that ends whole needs no floor:
    /// its rows lose their name.
    fn end_subtree(&mut self, path: &Path, context: &CausalContext) -> Result<(), StoreError> {
        let Some(content) = self.header.content else { return Ok(()) };
        let root = path.fields().is_empty();
        if root {
            for (actor, presence) in &mut self.header.actors {
                *presence = presence.filter(|&time| !context.covers(Dot { actor: *actor, time }));
            }
        }
        let whole = root && self.header.presence().next().is_none();
        match self.rows_ended(content, path, (!whole).then_some(context))? {
            Some(rows) => rows.into_iter().for_each(|row| self.delete_cell(row)),
            None => {
                let raised = whole || self.put_floors(content, path, context)?;
                if raised {
                    self.queue_sweep(content, path);
                }
            }
        }
        if whole {
            self.header.content = None;
            self.header.floors = 0;
            self.header.actors.clear();
        }
        Ok(())
    }

    /// The rows under a path that a context ends, or without one all of them; `None` where there are too many rows to look
    /// at while others wait.
    fn rows_ended(
        &self,
        content: RowId,
        path: &Path,
        context: Option<&CausalContext>,
    ) -> Result<Option<Vec<Bytes>>, StoreError> {
        // The rows of a packed object are at hand.
        let rows_max = if self.header.packed.is_some() { usize::MAX } else { self.limits.rows_ended_at_once_max };
        let mut seen = 0;
        let mut ended = Vec::new();
        let prefix = layout::subtree(content, path);
        self.view().scan(Range::prefix(layout::scan_prefix(&prefix)), &mut |row, value| {
            seen += 1;
            if seen > rows_max {
                return Ok(ControlFlow::Break(()));
            }
            if match context {
                None => true,
                Some(context) => sweep::ends(path, context, &row, value)?,
            } {
                ended.push(row);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((seen <= rows_max).then_some(ended))
    }

    /// Raises the floors at a path, of those actors that have cells at all. Whether one of them rose.
    fn put_floors(&mut self, content: RowId, path: &Path, context: &CausalContext) -> Result<bool, StoreError> {
        let mut raised = false;
        for &(actor, _) in &self.header.actors {
            let Some(time) = context.time_of(actor) else { continue };
            let row = layout::floor(content, path, actor);
            let stored = rows::time_at(self.batch, &row)?;
            if stored.is_some_and(|stored| stored >= time) {
                continue;
            }
            if stored.is_none() {
                self.header.floors += 1;
            }
            raised = true;
            let value = record::encode_time(&row, time);
            self.batch.put(row.row, value);
        }
        Ok(raised)
    }

    /// The queue row names the object, whose header counts the floors.
    fn queue_sweep(&mut self, content: RowId, path: &Path) {
        let row = layout::queue(content, path);
        let value = record::encode_queue(&row, &self.name);
        self.batch.queue(row.row, value);
    }
}
