//! The committer: the one thread that writes. It turns what waits in the queue into rows and makes all of it durable with one
//! fsync.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use fjall::PersistMode;
use tokio::sync::oneshot;

use super::RowLimits;
use super::churn::Churn;
use super::layout::{self, RowId, RowKey};
use super::maps;
use super::packed::PackedRows;
use super::record::{self, Header, SiblingEntry};
use super::rows::{self, Range, Rows, Sync, View, Visitor};
use super::sweep::{self, Sweeper};
use crate::domain::cell::{Cell, CellKey, Element, Floor, FloorTarget, Path, Payload};
use crate::domain::context::CausalContext;
use crate::domain::delta::Delta;
use crate::domain::dot::{Dot, Time};
use crate::domain::index::Entry;
use crate::domain::key::ObjectName;
use crate::store::maps::MapDelta;
use crate::store::{StoreError, Ticket};

/// The most writes of one batch. More of them wait for the next fsync.
const WRITES_PER_BATCH_MAX: usize = 4096;
/// A batch that has grown to this many bytes takes no more writes. Its last one may carry it past this.
const BATCH_SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One write that waits.
pub(super) enum Work {
    Delta(ObjectName, Delta),
    Record(Bytes, Option<Bytes>),
    ClockBound(Time),
    Map(MapDelta),
}

pub(super) type Waiting = (Work, oneshot::Sender<Result<(), StoreError>>);

/// The way to the committer. It is bounded by the callers: each waits for its ticket before it writes again.
pub(super) struct WorkQueue {
    // Taken at close, which ends the committer's loop once the queue is empty.
    sender: Mutex<Option<Sender<Waiting>>>,
}

impl WorkQueue {
    pub(super) fn push(&self, work: Work) -> Ticket {
        let (resolver, ticket) = Ticket::pending();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref() else { return Ticket::resolved(Err(StoreError::Closed)) };
        if sender.send((work, resolver)).is_err() {
            return Ticket::resolved(Err(StoreError::ReadOnly { reason: "the committer ended".into() }));
        }
        ticket
    }

    pub(super) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

pub(super) struct Committer {
    rows: Rows,
    queue: Receiver<Waiting>,
    limits: RowLimits,
    sweeper: Sweeper,
    churn: Churn,
    /// Why no more writes are taken.
    failure: Option<Arc<str>>,
}

impl Committer {
    /// Starts the thread, which runs until the queue is closed and empty.
    pub(super) fn start(rows: Rows, limits: RowLimits) -> Result<(WorkQueue, JoinHandle<()>), StoreError> {
        let (sender, queue) = mpsc::channel();
        let committer = Self::new(rows, queue, limits)?;
        let thread = thread::Builder::new().name("committer".into()).spawn(move || committer.run());
        let thread = thread.map_err(|error| StoreError::Engine { reason: error.to_string() })?;
        Ok((WorkQueue { sender: Mutex::new(Some(sender)) }, thread))
    }

    pub(super) fn new(rows: Rows, queue: Receiver<Waiting>, limits: RowLimits) -> Result<Self, StoreError> {
        let sweeper = Sweeper::load(&rows, limits)?;
        Ok(Self { rows, queue, limits, sweeper, churn: Churn::new(), failure: None })
    }

    fn run(mut self) {
        while let Some(first) = self.next() {
            self.write(first);
            if self.failure.is_none() && self.churn.is_due() && self.rows.write_table_early() {
                self.churn.forget();
            }
            // A step after every batch, so that the sweep keeps up where writes never cease.
            self.sweep();
        }
        // The last rows that the sweep changed, and the engine's own files.
        if self.failure.is_none()
            && let Err(error) = self.rows.database.persist(PersistMode::SyncAll)
        {
            tracing::error!(%error, "the store could not be synced while closing");
        }
    }

    /// The next write; `None` when the queue is closed. While nothing waits, dead rows are swept.
    fn next(&mut self) -> Option<Waiting> {
        while self.failure.is_none() && !self.sweeper.is_idle() {
            match self.queue.try_recv() {
                Ok(waiting) => return Some(waiting),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => self.sweep(),
            }
        }
        self.queue.recv().ok()
    }

    /// Makes one write and all that wait behind it durable together.
    pub(super) fn write(&mut self, first: Waiting) {
        let mut batch = Batch::new(&self.rows);
        let mut written = Vec::new();
        let mut waiting = Some(first);
        while let Some((work, resolver)) = waiting {
            match &self.failure {
                Some(reason) => resolve(resolver, Err(StoreError::ReadOnly { reason: reason.to_string() })),
                None => match batch.add(work, self.limits) {
                    Ok(()) => written.push(resolver),
                    Err(error) => resolve(resolver, Err(error)),
                },
            }
            let full = written.len() >= WRITES_PER_BATCH_MAX || batch.size_bytes >= BATCH_SIZE_BYTES_MAX;
            waiting = if full { None } else { self.queue.try_recv().ok() };
        }
        let queued = std::mem::take(&mut batch.queued);
        self.churn.note(batch.changed.keys());
        let result = batch.commit(Sync::Now);
        match &result {
            Ok(()) => self.sweeper.add(queued),
            Err(error) => self.fail(error),
        }
        written.into_iter().for_each(|resolver| resolve(resolver, result.clone()));
    }

    /// Does a bounded piece of the sweep, if there is any to do.
    pub(super) fn sweep(&mut self) {
        if self.failure.is_some() || self.sweeper.is_idle() {
            return;
        }
        let mut batch = Batch::new(&self.rows);
        // A row that cannot be read stops its own sweep and no write.
        if let Err(error) = self.sweeper.step(&mut batch) {
            tracing::error!(%error, "dead rows cannot be swept; the next start tries again");
            return;
        }
        self.churn.note(batch.changed.keys());
        // Not synced: a later write's fsync covers it, and a crash before that only leaves dead rows.
        if let Err(error) = batch.commit(Sync::Later) {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &StoreError) {
        tracing::error!(%error, "a write failed; the store is read-only until it is restarted");
        self.failure = Some(error.to_string().into());
    }
}

fn resolve(resolver: oneshot::Sender<Result<(), StoreError>>, result: Result<(), StoreError>) {
    // A client that left does not wait for its ticket.
    let _ = resolver.send(result);
}

/// Rows that change together. Later writes of the batch see the earlier ones; a write that fails leaves nothing.
pub(super) struct Batch<'a> {
    rows: &'a Rows,
    changed: BTreeMap<Bytes, Option<Bytes>>,
    /// What `changed` held before the write that is being added, the latest change last.
    undo: Vec<(Bytes, Option<Option<Bytes>>)>,
    /// Queue rows of sweeps that the batch asks for.
    pub(super) queued: Vec<(Bytes, Bytes)>,
    /// Bytes put, those of rows that changed again included.
    size_bytes: usize,
}

impl View for Batch<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(changed) = self.changed.get(key) {
            return Ok(changed.clone());
        }
        self.rows.current(key)
    }

    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let bounds = (as_slice(&range.start), as_slice(&range.end));
        let mut changed = self.changed.range::<[u8], _>(bounds).peekable();
        let mut stored = self.rows.current_range(Range { start: range.start.clone(), end: range.end.clone() });
        let mut next_stored = stored.next()?;
        loop {
            let stored_first = match (changed.peek(), &next_stored) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some((changed, _)), Some((stored, _))) => stored < *changed,
            };
            let row = if stored_first {
                let row = next_stored.take();
                next_stored = stored.next()?;
                row
            } else {
                let Some((key, value)) = changed.next() else { return Ok(()) };
                if next_stored.as_ref().is_some_and(|(stored, _)| stored == key) {
                    next_stored = stored.next()?;
                }
                value.clone().map(|value| (key.clone(), value))
            };
            if let Some((key, value)) = row
                && visit(key, value)?.is_break()
            {
                return Ok(());
            }
        }
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

impl<'a> Batch<'a> {
    pub(super) fn new(rows: &'a Rows) -> Self {
        Self { rows, changed: BTreeMap::new(), undo: Vec::new(), queued: Vec::new(), size_bytes: 0 }
    }

    pub(super) fn put(&mut self, key: Bytes, value: Bytes) {
        self.size_bytes += key.len() + value.len();
        self.change(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: Bytes) {
        self.size_bytes += key.len();
        self.change(key, None);
    }

    fn change(&mut self, key: Bytes, value: Option<Bytes>) {
        let before = self.changed.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    pub(super) fn commit(self, sync: Sync) -> Result<(), StoreError> {
        self.rows.write(self.changed, sync)
    }

    /// Takes in one write, whole or not at all.
    fn add(&mut self, work: Work, limits: RowLimits) -> Result<(), StoreError> {
        let queued = self.queued.len();
        let added = self.try_add(work, limits);
        if added.is_err() {
            // What a write read may be damaged; those beside it in the batch are not.
            for (key, before) in self.undo.drain(..).rev() {
                match before {
                    Some(value) => self.changed.insert(key, value),
                    None => self.changed.remove(&key),
                };
            }
            self.queued.truncate(queued);
        }
        self.undo.clear();
        added
    }

    fn try_add(&mut self, work: Work, limits: RowLimits) -> Result<(), StoreError> {
        match work {
            Work::ClockBound(bound) => {
                let key = layout::own_clock();
                let value = record::encode_time(&key, bound);
                self.put(key.row, value);
            }
            Work::Record(name, value) => {
                let key = layout::record(&name);
                match value {
                    Some(value) => {
                        let value = record::encode_record(&key, &value);
                        self.put(key.row, value);
                    }
                    None => self.delete(key.row),
                }
            }
            Work::Map(delta) => maps::apply(self, delta)?,
            Work::Delta(name, delta) => ObjectChange::begin(self, limits, &name, delta.dot)?.apply(delta)?,
        }
        Ok(())
    }
}

/// One object's rows while a delta is turned into them.
struct ObjectChange<'a, 'b> {
    batch: &'a mut Batch<'b>,
    limits: RowLimits,
    object: &'a ObjectName,
    name: RowKey,
    header: Header,
    stored: Option<Header>,
    /// Index entries of the values that go.
    ended: BTreeSet<Entry>,
    /// Index entries of the values that come.
    begun: BTreeSet<Entry>,
}

impl<'a, 'b> ObjectChange<'a, 'b> {
    fn begin(
        batch: &'a mut Batch<'b>,
        limits: RowLimits,
        object: &'a ObjectName,
        dot: Dot,
    ) -> Result<Self, StoreError> {
        let name = layout::name(object);
        let stored = rows::header(batch, &name)?;
        let header = stored.clone().unwrap_or_else(|| Header::new(RowId::of(dot)));
        let (ended, begun) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { batch, limits, object, name, header, stored, ended, begun })
    }

    fn apply(mut self, delta: Delta) -> Result<(), StoreError> {
        for floor in &delta.floors {
            self.raise(floor)?;
        }
        if self.header.is_empty() {
            // Whatever it was, what is left to write is a new beginning.
            self.header.packed.get_or_insert_default();
        }
        for cell in &delta.puts {
            self.put(cell);
        }
        self.write_index()?;
        self.spread_when_large();
        if self.header.is_empty() {
            if self.stored.is_some() {
                self.batch.delete(self.name.row);
            }
        } else if self.stored.as_ref() != Some(&self.header) {
            let header = self.header.encode(&self.name);
            self.batch.put(self.name.row, header);
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
        self.put_row(row.row, value);
    }

    fn put_sibling(&mut self, cell: &Cell) {
        let siblings = &mut self.header.siblings;
        siblings.retain(|sibling| sibling.dot != cell.dot);
        let taken: BTreeSet<u32> = siblings.iter().map(|sibling| sibling.slot).collect();
        let slot = (0..=u32::MAX).find(|slot| !taken.contains(slot)).unwrap_or_default();
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
        let begun = std::mem::take(&mut self.begun);
        let mut ended = std::mem::take(&mut self.ended);
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
        let actors: Vec<_> = self.header.actors.iter().map(|&(actor, _)| actor).collect();
        for actor in actors {
            let row = layout::cell(content, key, actor);
            if rows::time_at(self.view(), &row)?.is_some_and(|time| context.covers(Dot { actor, time })) {
                self.delete_row(row.row);
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
            Some(rows) => rows.into_iter().for_each(|row| self.delete_row(row)),
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
        self.batch.put(row.row.clone(), value.clone());
        self.batch.queued.push((row.row, value));
    }
}
