//! The sweep: deletes rows that floors have ended, a bounded number at a time, and then the floors.
//!
//! It runs on the committer's thread between batches, so nothing changes under it. What is to be swept stands in queue
//! rows, written with the floors: a restart goes on with them.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::commit::Batch;
use super::layout::{self, CellRow, RowId};
use super::record;
use super::rows::{self, Range, Rows, View};
use crate::domain::cell::Path;
use crate::domain::context::CausalContext;
use crate::domain::dot::Dot;
use crate::store::StoreError;

/// Rows looked at in one step: a write that arrives meanwhile waits for no more than that.
const ROWS_PER_STEP_MAX: usize = 512;

pub(super) struct Sweeper {
    waiting: VecDeque<(Bytes, Bytes)>,
    current: Option<Sweep>,
}

/// One queue row being worked on.
struct Sweep {
    queue_row: Bytes,
    content: RowId,
    path: Path,
    /// The row key of the object's name, and the name whole where it was cut.
    name: layout::RowKey,
    /// The last row looked at.
    behind: Option<Bytes>,
    /// The floors when the sweep began. Were they raised meanwhile, it begins again.
    floors: Option<CausalContext>,
}

impl Sweeper {
    /// Takes up what an earlier run of the server left.
    pub(super) fn load(rows: &Rows) -> Result<Self, StoreError> {
        let mut waiting = VecDeque::new();
        Batch::new(rows).scan(Range::prefix(layout::queues()), &mut |row, value| {
            waiting.push_back((row, value));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Self { waiting, current: None })
    }

    /// Takes up what a batch has queued.
    pub(super) fn add(&mut self, queued: Vec<(Bytes, Bytes)>) {
        self.waiting.extend(queued);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    /// Does a bounded piece of the work that waits.
    pub(super) fn step(&mut self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        let mut sweep = match self.current.take() {
            Some(sweep) => sweep,
            None => match self.waiting.pop_front() {
                Some((row, value)) => Sweep::begin(row, value)?,
                None => return Ok(()),
            },
        };
        if !sweep.step(batch)? {
            self.current = Some(sweep);
        }
        Ok(())
    }
}

impl Sweep {
    fn begin(queue_row: Bytes, queue_value: Bytes) -> Result<Self, StoreError> {
        let (key, value) = record::open(&queue_row, queue_value)?;
        let (content, path) = layout::parse_queue(&key)?;
        let name = record::decode_queue(value)?;
        Ok(Self { queue_row, content, path, name, behind: None, floors: None })
    }

    /// Whether the sweep is done.
    fn step(&mut self, batch: &mut Batch<'_>) -> Result<bool, StoreError> {
        let header = rows::header(batch, &self.name)?.filter(|header| header.content == Some(self.content));
        let Some(mut header) = header else {
            // The whole content is gone, with every floor in it.
            let done = self.delete_rows(batch, None)?;
            if done {
                batch.delete(self.queue_row.clone());
            }
            return Ok(done);
        };
        let mut floors = CausalContext::new();
        let mut floor_rows = Vec::new();
        for &actor in &header.actors {
            let row = layout::floor(self.content, &self.path, actor).row;
            if let Some(value) = batch.get(&row)? {
                floors.see(Dot { actor, time: record::take_time(&mut record::open(&row, value)?.1)? });
                floor_rows.push(row);
            }
        }
        if self.floors.as_ref() != Some(&floors) {
            self.floors = Some(floors.clone());
            self.behind = None;
        }
        if !self.delete_rows(batch, Some(&floors))? {
            return Ok(false);
        }
        header.floors = header.floors.saturating_sub(u32::try_from(floor_rows.len()).unwrap_or(u32::MAX));
        floor_rows.into_iter().for_each(|row| batch.delete(row));
        batch.put(self.name.row.clone(), header.encode(&self.name));
        batch.delete(self.queue_row.clone());
        Ok(true)
    }

    /// Deletes the next rows under the path that the floors end, or all of them where no floors are given. Whether it has
    /// reached the end.
    fn delete_rows(&mut self, batch: &mut Batch<'_>, floors: Option<&CausalContext>) -> Result<bool, StoreError> {
        let prefix = layout::subtree(self.content, &self.path);
        let mut range = Range::prefix(layout::scan_prefix(&prefix));
        if let Some(behind) = &self.behind {
            range = range.after(behind);
        }
        let mut looked_at = 0;
        let mut dead = Vec::new();
        let mut behind = None;
        batch.scan(range, &mut |row, value| {
            if looked_at == ROWS_PER_STEP_MAX {
                return Ok(ControlFlow::Break(()));
            }
            looked_at += 1;
            behind = Some(row.clone());
            let (key, mut value) = record::open(&row, value)?;
            let ended = match (floors, layout::parse_cell(&key)?) {
                (None, _) => true,
                (Some(_), CellRow::Floor(..)) => false,
                (Some(floors), CellRow::Cell(key, actor)) => {
                    let time = record::take_time(&mut value)?;
                    key.path.is_within(&self.path) && floors.covers(Dot { actor, time })
                }
            };
            if ended {
                dead.push(row);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        dead.into_iter().for_each(|row| batch.delete(row));
        let done = looked_at < ROWS_PER_STEP_MAX;
        if behind.is_some() {
            self.behind = behind;
        }
        Ok(done)
    }
}
