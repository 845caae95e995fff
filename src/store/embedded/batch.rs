//! Rows that change together.

use std::collections::BTreeMap;
use std::mem;

use bytes::Bytes;

use super::RowLimits;
use super::change::ObjectChange;
use super::entry::LogEntry;
use super::layout;
use super::maps;
use super::overlay::Moment;
use super::record;
use super::rows::StoredObject;
use super::run::{Run, RunBuilder};
use super::sweep::Queued;
use super::view::{Range, RowsView, View, Visitor};
use crate::store::StoreError;

/// Rows by key: values are put, absent ones deleted.
pub(super) type ChangedRows = BTreeMap<Bytes, Option<Bytes>>;

/// More rows than these are written as a run: to write them one by one would hold up other writers for some milliseconds.
pub(super) const ROWS_ONE_BY_ONE_MAX: usize = 1024;
/// Of as many rows as that, those of one table are a run if they are more than these.
const ROWS_ASIDE_MAX: usize = 64;

/// What is written together.
#[derive(Default)]
pub(super) struct Changes {
    /// Rows that are written one by one.
    pub(super) rows: ChangedRows,
    /// Those that come as a whole. None of them is elsewhere too.
    pub(super) runs: Vec<Run>,
}

impl From<ChangedRows> for Changes {
    fn from(rows: ChangedRows) -> Self {
        Self { rows, runs: Vec::new() }
    }
}

impl Changes {
    /// Makes runs of rows that are many. Each is of one table, so that who looks for rows of another need not look in it.
    fn with_runs(mut rows: ChangedRows, unread: RunBuilder) -> Self {
        let mut runs = Vec::new();
        let unread = unread.finish();
        // Rows of a run that hold much in common are as large again when they are taken out of it.
        let whole_bytes = unread.counts.put_bytes + unread.counts.deleted_bytes;
        if unread.len() > ROWS_ONE_BY_ONE_MAX || whole_bytes > 2 * unread.size_bytes() {
            runs.push(unread);
        } else {
            rows.extend(unread.iter());
        }
        if rows.len() <= ROWS_ONE_BY_ONE_MAX {
            return Self { rows, runs };
        }
        let mut aside = ChangedRows::new();
        let mut many = mem::take(&mut rows);
        while let Some((first, _)) = many.first_key_value() {
            let table = layout::table(first).to_vec();
            let others = layout::prefix_end(&table).map_or_else(ChangedRows::new, |end| many.split_off(&end[..]));
            let mut of_table = mem::replace(&mut many, others);
            if of_table.len() <= ROWS_ASIDE_MAX {
                aside.append(&mut of_table);
                continue;
            }
            let mut run = RunBuilder::default();
            // One by one, so that what was moved is freed.
            of_table.into_iter().for_each(|(key, value)| run.push(&key, value.as_deref()));
            runs.push(run.finish());
        }
        Self { rows: aside, runs }
    }
}

/// Rows that change together. What is read through it is as it will be.
pub(super) struct Batch {
    view: RowsView,
    changed: ChangedRows,
    /// Rows that nobody reads again before they are written, where there are very many.
    unread: Option<RunBuilder>,
    /// Queue rows of sweeps that the batch asks for.
    queued: Vec<Queued>,
}

/// What a write changes, as things stood at a moment.
pub(super) struct Prepared {
    pub(super) changes: Changes,
    /// The queue rows among it.
    pub(super) queued: Vec<Queued>,
    pub(super) seen: Moment,
}

impl View for Batch {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(changed) = self.changed.get(key) {
            return Ok(changed.clone());
        }
        self.view.get(key)
    }

    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let mut changed = self.changed.range::<[u8], _>(range.bounds()).peekable();
        let mut stored = self.view.iter(range.clone());
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

impl Batch {
    /// A batch on the rows as they are now.
    pub(super) fn new(view: RowsView) -> Self {
        Self { view, changed: BTreeMap::new(), unread: None, queued: Vec::new() }
    }

    /// Prepares for very many rows that are not read again.
    pub(super) fn expect_many(&mut self) {
        self.unread.get_or_insert_default();
    }

    /// Puts or deletes a row that is not read again through the batch, nor put or deleted otherwise from now on.
    pub(super) fn write_unread(&mut self, key: Bytes, value: Option<Bytes>) {
        match &mut self.unread {
            None => {
                self.changed.insert(key, value);
            }
            Some(unread) => {
                self.changed.remove(&key);
                unread.push(&key, value.as_deref());
            }
        }
    }

    pub(super) fn put(&mut self, key: Bytes, value: Bytes) {
        self.changed.insert(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: Bytes) {
        self.changed.insert(key, None);
    }

    /// Puts a queue row: work for the sweep.
    pub(super) fn queue(&mut self, key: Bytes, value: Bytes) {
        self.queued.push((key.clone(), value.clone()));
        self.put(key, value);
    }

    /// What changes, ready to be written.
    pub(super) fn into_prepared(self) -> Prepared {
        let changes = match self.unread {
            None if self.changed.len() <= ROWS_ONE_BY_ONE_MAX => self.changed.into(),
            unread => Changes::with_runs(self.changed, unread.unwrap_or_default()),
        };
        Prepared { changes, queued: self.queued, seen: self.view.moment() }
    }

    /// Takes in one write, of an object that was found in the same view where that is given. After an error the batch is of no
    /// use.
    pub(super) fn add(
        &mut self,
        entry: &LogEntry,
        found: Option<StoredObject>,
        limits: RowLimits,
    ) -> Result<(), StoreError> {
        match entry {
            LogEntry::ClockBound(bound) => {
                let key = layout::own_clock();
                let value = record::encode_time(&key, *bound);
                self.put(key.row, value);
            }
            LogEntry::Record(name, value) => {
                let key = layout::record(name);
                match value {
                    Some(value) => {
                        let value = record::encode_record(&key, value);
                        self.put(key.row, value);
                    }
                    None => self.delete(key.row),
                }
            }
            LogEntry::Map(delta) => maps::apply(self, delta)?,
            LogEntry::Delta(name, delta) => ObjectChange::begin(self, limits, name, found, delta.dot)?.apply(delta)?,
        }
        Ok(())
    }
}
