//! Rows as one moment shows them: those in memory over those of the tables.
//!
//! What is written goes into the *active* overlay. From time to time that one is *frozen*, another takes its place, and the
//! frozen one is written to the tables; until it is dropped, readers go by the tables as they were before. So the three
//! together show every moment from the last freeze on, and nothing changes under a reader.

use std::cell::Cell;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;

use super::counts::Counters;
use super::layout;
use super::overlay::{Moment, Overlay, Version};
use super::tables::{TableRows, TableSet};
use crate::store::{Position, StoreError};

/// Rows as one moment shows them.
pub(super) trait View {
    /// One row's value.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the rows of a range in order until the visitor breaks.
    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError>;
}

pub(super) type Visitor<'a> = dyn FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, StoreError> + 'a;

/// A range of row keys.
#[derive(Clone)]
pub(super) struct Range {
    pub(super) start: Bound<Vec<u8>>,
    pub(super) end: Bound<Vec<u8>>,
}

impl Range {
    /// Everything.
    pub(super) fn all() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// Everything that begins with the prefix.
    pub(super) fn prefix(prefix: &[u8]) -> Self {
        let end = layout::prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self { start: Bound::Included(prefix.to_vec()), end }
    }

    /// What of the range lies behind a key.
    pub(super) fn after(self, key: &[u8]) -> Self {
        Self { start: Bound::Excluded(key.to_vec()), ..self }
    }

    pub(super) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.start.as_ref().map(Vec::as_slice), self.end.as_ref().map(Vec::as_slice))
    }
}

/// Where rows are, for all who look from a moment on.
pub(super) struct Layers {
    /// That moment.
    pub(super) since: Moment,
    pub(super) counters: Arc<Counters>,
    pub(super) active: Arc<Overlay>,
    pub(super) frozen: Option<Arc<Overlay>>,
    /// The tables. They may hold what is in the frozen overlay: nobody who looks through these layers looks at a moment before
    /// it was frozen.
    pub(super) stored: Arc<TableSet>,
}

/// Writers wait where there are so many runs that looking through them shows.
const ACTIVE_RUNS_MAX: usize = 64;

/// What is in memory alone.
pub(super) struct InMemory {
    /// What was written since the last freeze, in bytes, nearly.
    pub(super) active_bytes: usize,
    /// Deletes among it that scans step over.
    pub(super) active_dead: usize,
    /// Runs among it.
    pub(super) active_runs: usize,
    /// What is being written to the tables, in bytes, nearly.
    pub(super) frozen_bytes: usize,
    /// What the tables have and readers that began earlier still hold, in bytes, nearly.
    pub(super) held_bytes: usize,
}

impl InMemory {
    pub(super) fn size_bytes(&self) -> usize {
        self.active_bytes + self.frozen_bytes + self.held_bytes
    }

    /// Whether there are so many runs that who writes more must wait.
    pub(super) fn has_many_runs(&self) -> bool {
        self.active_runs >= ACTIVE_RUNS_MAX
    }
}

/// The rows at a moment.
pub(super) struct RowsView {
    layers: Arc<Layers>,
    moment: Moment,
    /// The latest write that was seen.
    seen: Cell<Position>,
}

impl RowsView {
    pub(super) fn new(layers: Arc<Layers>, moment: Moment) -> Self {
        Self { layers, moment, seen: Cell::default() }
    }

    /// The latest write that was seen. What comes from the tables is durable and does not count.
    pub(super) fn seen(&self) -> Position {
        self.seen.get()
    }

    /// The moment that is shown.
    pub(super) fn moment(&self) -> Moment {
        self.moment
    }

    fn see(&self, position: Position) {
        self.seen.set(self.seen.get().max(position));
    }

    /// The rows of a range, for as long as they are wanted.
    pub(super) fn iter(&self, range: Range) -> StoredRows {
        let stored = self.layers.stored.range(&range);
        let mut rows = StoredRows {
            layers: self.layers.clone(),
            moment: self.moment,
            range,
            active: None,
            frozen: None,
            stored,
            next_stored: None,
            seen: Position::default(),
        };
        rows.active = rows.first_in(&rows.layers.active, rows.range.start.clone());
        rows.frozen = rows.layers.frozen.as_ref().and_then(|frozen| rows.first_in(frozen, rows.range.start.clone()));
        rows
    }
}

impl View for RowsView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.layers.counters.note_read();
        let written = self.layers.active.get(key, self.moment);
        let frozen = || self.layers.frozen.as_ref().and_then(|frozen| frozen.get(key, self.moment));
        if let Some(version) = written.or_else(frozen) {
            self.see(version.position);
            return Ok(version.value);
        }
        self.layers.stored.get(key)
    }

    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let mut rows = self.iter(range);
        let scanned = loop {
            match rows.next() {
                Ok(Some((key, value))) => match visit(key, value) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => break Ok(()),
                    Err(error) => break Err(error),
                },
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.see(rows.seen);
        scanned
    }
}

/// The rows of a range, as one moment shows them for as long as this lives.
pub(super) struct StoredRows {
    layers: Arc<Layers>,
    moment: Moment,
    range: Range,
    /// The next row of each layer.
    active: Option<(Bytes, Version)>,
    frozen: Option<(Bytes, Version)>,
    stored: TableRows,
    next_stored: Option<(Bytes, Bytes)>,
    seen: Position,
}

impl StoredRows {
    fn first_in(&self, overlay: &Overlay, start: Bound<Vec<u8>>) -> Option<(Bytes, Version)> {
        let start = start.as_ref().map(Vec::as_slice);
        let (_, end) = self.range.bounds();
        // An overlay takes no range whose end comes first.
        match (start, end) {
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end)) if start >= end => None,
            _ => overlay.first(start, end, self.moment),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        loop {
            if self.next_stored.is_none() {
                self.next_stored = self.stored.next()?;
            }
            let keys = [
                self.active.as_ref().map(|(key, _)| key),
                self.frozen.as_ref().map(|(key, _)| key),
                self.next_stored.as_ref().map(|(key, _)| key),
            ];
            let Some(first) = keys.into_iter().flatten().min().cloned() else { return Ok(None) };
            // The newest layer that has the row says what it is.
            let was_stored = self.next_stored.take_if(|(key, _)| *key == first).map(|(_, value)| value);
            let of_frozen = self.frozen.take_if(|(key, _)| *key == first).map(|(_, version)| version);
            if of_frozen.is_some()
                && let Some(frozen) = &self.layers.frozen
            {
                self.frozen = self.first_in(frozen, Bound::Excluded(first.to_vec()));
            }
            let of_active = self.active.take_if(|(key, _)| *key == first).map(|(_, version)| version);
            if of_active.is_some() {
                self.active = self.first_in(&self.layers.active, Bound::Excluded(first.to_vec()));
            }
            let value = match of_active.or(of_frozen) {
                Some(version) => {
                    self.seen = self.seen.max(version.position);
                    version.value
                }
                None => was_stored,
            };
            if let Some(value) = value {
                self.layers.counters.note_scanned();
                return Ok(Some((first, value)));
            }
        }
    }
}
