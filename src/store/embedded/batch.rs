//! Rows that change together.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::RowLimits;
use super::change::ObjectChange;
use super::entry::LogEntry;
use super::layout;
use super::maps;
use super::overlay::Moment;
use super::record;
use super::rows::StoredObject;
use super::sweep::Queued;
use super::view::{Range, RowsView, View, Visitor};
use crate::store::StoreError;

/// Rows by key: values are put, absent ones deleted.
pub(super) type ChangedRows = BTreeMap<Bytes, Option<Bytes>>;

/// Rows that change together. What is read through it is as it will be.
pub(super) struct Batch {
    view: RowsView,
    changed: ChangedRows,
    /// Queue rows of sweeps that the batch asks for.
    queued: Vec<Queued>,
}

/// What a write changes, as things stood at a moment.
pub(super) struct Prepared {
    pub(super) changes: ChangedRows,
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
        Self { view, changed: BTreeMap::new(), queued: Vec::new() }
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
        Prepared { changes: self.changed, queued: self.queued, seen: self.view.moment() }
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
