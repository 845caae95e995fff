//! The committer: the one thread that writes. It turns what waits in the queue into rows and makes all of it durable with one
//! fsync.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use fjall::PersistMode;
use tokio::sync::oneshot;

use super::engine_error;
use super::layout::{self, CellRow, RowId, RowKey};
use super::record::{self, Header};
use super::rows::{self, Range, Rows, View, Visitor};
use super::sweep::Sweeper;
use crate::domain::cell::{Cell, CellKey, Element, Floor, FloorTarget, Path};
use crate::domain::context::CausalContext;
use crate::domain::delta::Delta;
use crate::domain::dot::{ActorId, Dot, Time};
use crate::domain::key::ObjectName;
use crate::store::{StoreError, Ticket};

/// A field remove deletes up to this many rows at once. What is larger gets a floor row, and is swept.
const ROWS_ENDED_AT_ONCE_MAX: usize = 128;
/// The most writes of one batch. More of them wait for the next fsync; a bound keeps a batch's memory in sight.
const WRITES_PER_BATCH_MAX: usize = 4096;

/// One write that waits.
pub(super) enum Work {
    Delta(ObjectName, Delta),
    Record(Bytes, Option<Bytes>),
    ClockBound(Time),
}

type Waiting = (Work, oneshot::Sender<Result<(), StoreError>>);

/// The way to the committer. It is bounded by the callers: each waits for its ticket before it writes again.
pub(super) struct WorkQueue {
    // Taken at close, which ends the committer's loop once the queue is empty.
    sender: Mutex<Option<Sender<Waiting>>>,
}

impl WorkQueue {
    pub(super) fn push(&self, work: Work) -> Ticket {
        let (resolver, ticket) = Ticket::pending();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = sender.as_ref().is_some_and(|sender| sender.send((work, resolver)).is_ok());
        if sent { ticket } else { Ticket::resolved(Err(StoreError::Closed)) }
    }

    pub(super) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

pub(super) struct Committer {
    rows: Rows,
    queue: Receiver<Waiting>,
    sweeper: Sweeper,
    /// Why no more writes are taken.
    failure: Option<Arc<str>>,
}

impl Committer {
    /// Starts the thread, which runs until the queue is closed and empty.
    pub(super) fn start(rows: Rows) -> Result<(WorkQueue, JoinHandle<()>), StoreError> {
        let sweeper = Sweeper::load(&rows)?;
        let (sender, queue) = mpsc::channel();
        let committer = Self { rows, queue, sweeper, failure: None };
        let thread = thread::Builder::new().name("committer".into()).spawn(move || committer.run());
        let thread = thread.map_err(|error| StoreError::Engine { reason: error.to_string() })?;
        Ok((WorkQueue { sender: Mutex::new(Some(sender)) }, thread))
    }

    fn run(mut self) {
        while let Some(first) = self.next() {
            let mut batch = Batch::new(&self.rows);
            let mut written = Vec::new();
            let mut waiting = Some(first);
            while let Some((work, resolver)) = waiting {
                match self.failure.clone() {
                    Some(reason) => resolve(resolver, Err(StoreError::ReadOnly { reason: reason.to_string() })),
                    None => match batch.add(work) {
                        Ok(()) => written.push(resolver),
                        Err(error) => resolve(resolver, Err(error)),
                    },
                }
                waiting = if written.len() < WRITES_PER_BATCH_MAX { self.queue.try_recv().ok() } else { None };
            }
            if written.is_empty() {
                continue;
            }
            let queued = std::mem::take(&mut batch.queued);
            let result = batch.commit(Some(PersistMode::SyncData));
            match &result {
                Ok(()) => self.sweeper.add(queued),
                Err(error) => self.fail(error),
            }
            written.into_iter().for_each(|resolver| resolve(resolver, result.clone()));
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
        loop {
            if self.failure.is_some() || self.sweeper.is_idle() {
                return self.queue.recv().ok();
            }
            match self.queue.try_recv() {
                Ok(waiting) => return Some(waiting),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {
                    let mut batch = Batch::new(&self.rows);
                    // Not synced: a later write's fsync covers it, and a crash before that only leaves dead rows.
                    let swept = self.sweeper.step(&mut batch).and_then(|()| batch.commit(None));
                    if let Err(error) = swept {
                        self.fail(&error);
                    }
                }
            }
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
    /// Queue rows of sweeps that the batch asks for.
    pub(super) queued: Vec<(Bytes, Bytes)>,
}

impl View for Batch<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(changed) = self.changed.get(key) {
            return Ok(changed.clone());
        }
        let value = self.rows.keyspace.get(key).map_err(engine_error)?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let bounds = (as_slice(&range.start), as_slice(&range.end));
        let mut changed = self.changed.range::<[u8], _>(bounds).peekable();
        let mut stored = self.rows.keyspace.range((range.start.clone(), range.end.clone()));
        let mut next_stored = next_row(&mut stored)?;
        loop {
            let changed_first = match (changed.peek(), &next_stored) {
                (None, None) => return Ok(()),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((changed, _)), Some((stored, _))) => *changed <= stored,
            };
            let row = if changed_first {
                let Some((key, value)) = changed.next() else { return Ok(()) };
                if next_stored.as_ref().is_some_and(|(stored, _)| stored == key) {
                    next_stored = next_row(&mut stored)?;
                }
                value.clone().map(|value| (key.clone(), value))
            } else {
                std::mem::replace(&mut next_stored, None)
            };
            if !changed_first {
                next_stored = next_row(&mut stored)?;
            }
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

fn next_row(rows: &mut fjall::Iter) -> Result<Option<(Bytes, Bytes)>, StoreError> {
    let Some(row) = rows.next() else { return Ok(None) };
    let (key, value) = row.into_inner().map_err(engine_error)?;
    Ok(Some((Bytes::from(key), Bytes::from(value))))
}

impl<'a> Batch<'a> {
    pub(super) fn new(rows: &'a Rows) -> Self {
        Self { rows, changed: BTreeMap::new(), queued: Vec::new() }
    }

    pub(super) fn put(&mut self, key: Bytes, value: Bytes) {
        self.changed.insert(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: Bytes) {
        self.changed.insert(key, None);
    }

    /// Writes the batch, durable when `durability` says so.
    pub(super) fn commit(self, durability: Option<PersistMode>) -> Result<(), StoreError> {
        let mut batch = self.rows.database.batch().durability(durability);
        for (key, value) in self.changed {
            match value {
                Some(value) => batch.insert(&self.rows.keyspace, key, value),
                None => batch.remove(&self.rows.keyspace, key),
            }
        }
        batch.commit().map_err(engine_error)
    }

    /// Takes in one write, whole or not at all.
    fn add(&mut self, work: Work) -> Result<(), StoreError> {
        match work {
            Work::ClockBound(bound) => {
                let (key, value) = Rows::clock_row(bound);
                self.put(key, value);
            }
            Work::Record(name, value) => {
                let key = layout::record(&name);
                match value {
                    Some(value) => self.put(key, record::encode_record(&value)),
                    None => self.delete(key),
                }
            }
            Work::Delta(name, delta) => {
                // A write that cannot read what it needs changes nothing, so it works on rows of its own.
                let mut change = ObjectChange::begin(self, &name)?;
                change.apply(delta)?;
                let (changed, queued) = change.finish();
                self.changed.extend(changed);
                self.queued.extend(queued);
            }
        }
        Ok(())
    }
}

/// One object's rows while a delta is turned into them.
struct ObjectChange<'a, 'b> {
    batch: &'a Batch<'b>,
    name: RowKey,
    header: Header,
    stored: Option<Header>,
    changed: BTreeMap<Bytes, Option<Bytes>>,
    queued: Vec<(Bytes, Bytes)>,
}

impl<'a, 'b> ObjectChange<'a, 'b> {
    fn begin(batch: &'a Batch<'b>, name: &ObjectName) -> Result<Self, StoreError> {
        let name = layout::name(name);
        let stored = rows::header(batch, &name)?;
        // A new object gets the id of its first dot when that is known.
        let header = stored.clone().unwrap_or_else(|| Header::new(RowId([0; 16])));
        Ok(Self { batch, name, header, stored, changed: BTreeMap::new(), queued: Vec::new() })
    }

    fn apply(&mut self, delta: Delta) -> Result<(), StoreError> {
        if self.stored.is_none() {
            self.header = Header::new(RowId::of(delta.dot));
        }
        for floor in &delta.floors {
            self.raise(floor)?;
        }
        for cell in &delta.puts {
            self.put(cell);
        }
        Ok(())
    }

    fn finish(mut self) -> (BTreeMap<Bytes, Option<Bytes>>, Vec<(Bytes, Bytes)>) {
        if self.header.is_empty() {
            if self.stored.is_some() {
                self.changed.insert(self.name.row.clone(), None);
            }
        } else if self.stored.as_ref() != Some(&self.header) {
            self.changed.insert(self.name.row.clone(), Some(self.header.encode(&self.name)));
        }
        (self.changed, self.queued)
    }

    fn put(&mut self, cell: &Cell) {
        if let Element::Sibling(_) = cell.key.element {
            match &cell.payload {
                crate::domain::cell::Payload::Content(content) if content.deleted => self.header.tombstones += 1,
                _ => self.header.values += 1,
            }
            let row = layout::sibling(self.header.id, cell.dot);
            self.changed.insert(row, Some(record::encode_cell(None, cell)));
            return;
        }
        let content = *self.header.content.get_or_insert(RowId::of(cell.dot));
        if !self.header.actors.contains(&cell.dot.actor) {
            self.header.actors.push(cell.dot.actor);
        }
        let row = layout::cell(content, &cell.key, cell.dot.actor);
        let value = record::encode_cell(Some(&row), cell);
        self.changed.insert(row.row, Some(value));
    }

    fn raise(&mut self, floor: &Floor) -> Result<(), StoreError> {
        match &floor.target {
            FloorTarget::Siblings => self.end_siblings(|dot| floor.context.covers(dot)),
            FloorTarget::Element(CellKey { element: Element::Sibling(time), .. }) => {
                self.end_siblings(|dot| dot.time == *time && floor.context.covers(dot))
            }
            FloorTarget::Element(key) => self.end_element(key, &floor.context),
            FloorTarget::Subtree(path) if path.fields().is_empty() => self.end_content(&floor.context),
            FloorTarget::Subtree(path) => self.end_subtree(path, &floor.context),
        }
    }

    fn end_siblings(&mut self, ended: impl Fn(Dot) -> bool) -> Result<(), StoreError> {
        if self.header.values + self.header.tombstones == 0 {
            return Ok(());
        }
        let range = Range::prefix(&layout::siblings(self.header.id));
        let mut rows = Vec::new();
        self.batch.scan(range, &mut |row, value| {
            if ended(layout::parse_sibling(&row)?) {
                let (_, mut value) = record::open(&row, value)?;
                record::take_time(&mut value)?;
                rows.push((row, record::is_tombstone(&value)?));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (row, tombstone) in rows {
            let count = if tombstone { &mut self.header.tombstones } else { &mut self.header.values };
            *count = count.saturating_sub(1);
            self.changed.insert(row, None);
        }
        Ok(())
    }

    fn end_element(&mut self, key: &CellKey, context: &CausalContext) -> Result<(), StoreError> {
        let Some(content) = self.header.content else { return Ok(()) };
        for &actor in &self.header.actors {
            let row = layout::cell(content, key, actor).row;
            if let Some(value) = self.batch.get(&row)? {
                let time = record::take_time(&mut record::open(&row, value)?.1)?;
                if context.covers(Dot { actor, time }) {
                    self.changed.insert(row, None);
                }
            }
        }
        Ok(())
    }

    /// Ends the whole content at once: its rows lose their name, and are swept.
    fn end_content(&mut self, context: &CausalContext) -> Result<(), StoreError> {
        let Some(content) = self.header.content else { return Ok(()) };
        let root = CellKey { path: Path::root(), element: Element::Presence };
        for &actor in &self.header.actors {
            let row = layout::cell(content, &root, actor).row;
            let Some(value) = self.batch.get(&row)? else { continue };
            let time = record::take_time(&mut record::open(&row, value)?.1)?;
            if !context.covers(Dot { actor, time }) {
                return self.end_subtree(&Path::root(), context);
            }
        }
        self.header.content = None;
        self.header.floors = 0;
        self.header.actors.clear();
        self.queue_sweep(content, &Path::root());
        Ok(())
    }

    /// Ends what is under a path: at once where it is little, else by a floor.
    fn end_subtree(&mut self, path: &Path, context: &CausalContext) -> Result<(), StoreError> {
        let Some(content) = self.header.content else { return Ok(()) };
        let prefix = layout::subtree(content, path);
        let mut seen = 0;
        let mut ended = Vec::new();
        self.batch.scan(Range::prefix(layout::scan_prefix(&prefix)), &mut |row, value| {
            seen += 1;
            if seen > ROWS_ENDED_AT_ONCE_MAX {
                return Ok(ControlFlow::Break(()));
            }
            let (key, mut value) = record::open(&row, value)?;
            if let CellRow::Cell(key, actor) = layout::parse_cell(&key)?
                && key.path.is_within(path)
                && context.covers(Dot { actor, time: record::take_time(&mut value)? })
            {
                ended.push(row);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if seen <= ROWS_ENDED_AT_ONCE_MAX {
            self.changed.extend(ended.into_iter().map(|row| (row, None)));
            return Ok(());
        }
        for &(actor, time) in context.entries() {
            self.put_floor(content, path, actor, time)?;
        }
        self.queue_sweep(content, path);
        Ok(())
    }

    fn put_floor(&mut self, content: RowId, path: &Path, actor: ActorId, time: Time) -> Result<(), StoreError> {
        let row = layout::floor(content, path, actor);
        let stored = match self.batch.get(&row.row)? {
            Some(value) => Some(record::take_time(&mut record::open(&row.row, value)?.1)?),
            None => None,
        };
        if stored.is_none() {
            self.header.floors += 1;
        }
        if stored.is_none_or(|stored| stored < time) {
            let value = record::encode_floor(&row, time);
            self.changed.insert(row.row, Some(value));
        }
        Ok(())
    }

    /// The queue row names the object, whose header counts the floors.
    fn queue_sweep(&mut self, content: RowId, path: &Path) {
        let row = layout::queue(content, path);
        let value = record::encode_queue(&row, &self.name);
        self.changed.insert(row.row.clone(), Some(value.clone()));
        self.queued.push((row.row, value));
    }
}
