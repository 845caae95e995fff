//! The sweep: deletes rows that floors have ended, a bounded number at a time, and then the floors.
//!
//! It runs on the committer's thread between batches, so nothing changes under it. What is to be swept stands in queue
//! rows, written with the floors: a restart goes on with them.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::RowLimits;
use super::batch::Batch;
use super::layout::{self, CellRow, RowId, RowKey};
use super::record;
use super::rows::{self, Rows};
use super::view::{Range, View};
use crate::domain::cell::Path;
use crate::domain::context::CausalContext;
use crate::domain::dot::Dot;
use crate::store::StoreError;

pub(super) struct Sweeper {
    limits: RowLimits,
    waiting: VecDeque<(Bytes, Bytes)>,
    current: Option<Sweep>,
}

/// One queue row being worked on.
struct Sweep {
    queue_row: Bytes,
    content: RowId,
    path: Path,
    /// The row key of the object's name, and the name whole where it was cut.
    name: RowKey,
    /// What ended when the last step was done. Has more ended since, the sweep begins again.
    ended: Option<Ended>,
    /// The last row looked at.
    behind: Option<Bytes>,
}

/// What has ended under the path of a sweep.
#[derive(Clone, PartialEq)]
enum Ended {
    /// Everything: the content is gone.
    All,
    /// What the floors at the path cover.
    Covered(CausalContext),
}

/// Whether a cell row is at or under the path and covered by the context.
pub(super) fn ends(path: &Path, context: &CausalContext, row: &Bytes, value: Bytes) -> Result<bool, StoreError> {
    let (key, mut value) = record::open(row, value)?;
    Ok(match layout::parse_cell(&key)? {
        // Floors under the path have sweeps of their own.
        CellRow::Floor(..) => false,
        CellRow::Cell(key, actor) => {
            key.path.is_within(path) && context.covers(Dot { actor, time: record::take_time(&mut value)? })
        }
    })
}

impl Sweeper {
    /// Takes up what an earlier run of the server left.
    pub(super) fn load(rows: &Rows, limits: RowLimits) -> Result<Self, StoreError> {
        let mut waiting = VecDeque::new();
        rows.view().scan(Range::prefix(layout::queues()), &mut |row, value| {
            waiting.push_back((row, value));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Self { limits, waiting, current: None })
    }

    /// Takes up what a batch has queued.
    pub(super) fn add(&mut self, queued: Vec<(Bytes, Bytes)>) {
        self.waiting.extend(queued);
    }

    /// Whether nothing waits that may be done.
    pub(super) fn is_idle(&self) -> bool {
        self.limits.rows_swept_per_step_max == 0 || (self.waiting.is_empty() && self.current.is_none())
    }

    /// Does a bounded piece of the work that waits. After an error that work is given up until it is loaded again.
    pub(super) fn step(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        let mut sweep = match self.current.take() {
            Some(sweep) => sweep,
            None => match self.waiting.pop_front() {
                // Queued again while it was swept, it may be done already.
                Some((row, value)) if batch.get(&row)?.is_some() => Sweep::begin(row, value)?,
                _ => return Ok(()),
            },
        };
        if !sweep.step(batch, self.limits.rows_swept_per_step_max)? {
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
        Ok(Self { queue_row, content, path, name, ended: None, behind: None })
    }

    /// Whether the sweep is done.
    fn step(&mut self, batch: &mut Batch, rows_max: usize) -> Result<bool, StoreError> {
        let header = rows::header(batch, &self.name)?.filter(|header| header.content == Some(self.content));
        let mut floor_rows = Vec::new();
        let ended = match &header {
            None => Ended::All,
            Some(header) => {
                let mut floors = CausalContext::new();
                for &(actor, _) in &header.actors {
                    let floor = layout::floor(self.content, &self.path, actor);
                    if let Some(time) = rows::time_at(batch, &floor)? {
                        floors.see(Dot { actor, time });
                        floor_rows.push(floor.row);
                    }
                }
                Ended::Covered(floors)
            }
        };
        if self.ended.as_ref() != Some(&ended) {
            self.behind = None;
        }
        let done = self.delete_rows(batch, &ended, rows_max)?;
        self.ended = Some(ended);
        if !done {
            return Ok(false);
        }
        if let Some(mut header) = header {
            header.floors = header.floors.saturating_sub(u32::try_from(floor_rows.len()).unwrap_or(u32::MAX));
            batch.put(self.name.row.clone(), header.encode(&self.name));
        }
        floor_rows.into_iter().for_each(|row| batch.delete(row));
        batch.delete(self.queue_row.clone());
        Ok(true)
    }

    /// Deletes what has ended of the next rows under the path. Whether it has reached the end.
    fn delete_rows(&mut self, batch: &mut Batch, ended: &Ended, rows_max: usize) -> Result<bool, StoreError> {
        let prefix = layout::subtree(self.content, &self.path);
        let mut range = Range::prefix(layout::scan_prefix(&prefix));
        if let Some(behind) = &self.behind {
            range = range.after(behind);
        }
        let mut looked_at = 0;
        let mut dead = Vec::new();
        let mut behind = None;
        batch.scan(range, &mut |row, value| {
            looked_at += 1;
            behind = Some(row.clone());
            if match ended {
                Ended::All => true,
                Ended::Covered(floors) => ends(&self.path, floors, &row, value)?,
            } {
                dead.push(row);
            }
            Ok(if looked_at < rows_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        dead.into_iter().for_each(|row| batch.delete(row));
        self.behind = behind.or(self.behind.take());
        Ok(looked_at < rows_max)
    }
}
