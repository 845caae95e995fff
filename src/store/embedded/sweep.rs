//! The sweep: deletes rows that floors have ended, a bounded number at a time, and then the floors.
//!
//! It runs on the applier's thread while writes go on. A step is prepared on a view, where it may wait for the disk, and applied
//! together with writes, where it asks memory alone what has changed since. What is to be swept stands in queue rows, written
//! with the floors: a restart goes on with them.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::RowLimits;
use super::batch::ChangedRows;
use super::layout::{self, CellRow, RowId, RowKey};
use super::record;
use super::rows::{self, Rows};
use super::view::{Range, View};
use crate::domain::cell::Path;
use crate::domain::context::CausalContext;
use crate::domain::dot::Dot;
use crate::store::StoreError;

/// A queue row, and its value.
pub(super) type Queued = (Bytes, Bytes);

/// The sweeps that have begun.
pub(super) struct Sweeper {
    limits: RowLimits,
    begun: VecDeque<Sweep>,
    /// Whether the last step could not finish its sweep, so that another's turn comes first.
    was_put_off: bool,
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

/// What a step of a sweep is to do.
pub(super) struct Step {
    sweep: Sweep,
    /// Cells that have ended. One that was written since lives again, or its floor is one that the next step will see.
    dead: Vec<Bytes>,
    /// What ends the sweep, where the step has reached the end of its rows.
    finish: Option<Finish>,
}

/// The end of a sweep. It holds only where none of these rows was written since the step was prepared: the header counts the
/// floors, and a floor that has risen ends more than was swept.
struct Finish {
    header: Option<(Bytes, Bytes)>,
    floor_rows: Vec<Bytes>,
    queue_row: Bytes,
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
    pub(super) fn new(limits: RowLimits) -> Self {
        Self { limits, begun: VecDeque::new(), was_put_off: false }
    }

    /// What an earlier run of the server left to be swept.
    pub(super) fn load(rows: &Rows) -> Result<VecDeque<Queued>, StoreError> {
        let mut waiting = VecDeque::new();
        rows.view().scan(Range::prefix(layout::queues()), &mut |row, value| {
            waiting.push_back((row, value));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(waiting)
    }

    /// Whether another sweep is to be begun rather than one gone on with.
    pub(super) fn wants_another(&self) -> bool {
        self.was_put_off || self.begun.is_empty()
    }

    /// Prepares a step: of the sweep that a queue row asks for, or of one that has begun; nothing where none is left. After an
    /// error that sweep is given up until it is loaded again.
    pub(super) fn prepare(&mut self, view: &dyn View, queued: Option<Queued>) -> Result<Option<Step>, StoreError> {
        let sweep = match queued {
            // Queued again while it was swept, it may be done already.
            Some((row, _)) if view.get(&row)?.is_none() => return Ok(None),
            Some((row, value)) => Some(Sweep::begin(row, value)?),
            None => self.begun.pop_front(),
        };
        sweep.map(|sweep| sweep.step(view, self.limits.rows_swept_per_step_max)).transpose()
    }

    /// Whether no sweep has begun.
    pub(super) fn is_idle(&self) -> bool {
        self.begun.is_empty()
    }

    /// Takes back a step that cannot be applied. Its sweep begins again.
    pub(super) fn begin_again(&mut self, step: Step) {
        self.go_on(Sweep { ended: None, ..step.sweep }, true);
    }

    /// Takes back a sweep whose step was not its last.
    fn go_on(&mut self, sweep: Sweep, was_put_off: bool) {
        self.was_put_off = was_put_off;
        if was_put_off { self.begun.push_back(sweep) } else { self.begun.push_front(sweep) }
    }
}

impl Step {
    /// The rows that change, and whether the sweep is over. `is_written` tells which rows were written since the step was
    /// prepared; where writers insist on going first the sweep is not finished.
    pub(super) fn apply(
        self,
        sweeper: &mut Sweeper,
        writers_insist: bool,
        is_written: impl Fn(&Bytes) -> bool,
    ) -> (ChangedRows, Applied) {
        let Self { sweep, dead, finish } = self;
        let mut changed: ChangedRows = dead.into_iter().filter(|row| !is_written(row)).map(|row| (row, None)).collect();
        let Some(Finish { header, floor_rows, queue_row }) = finish else {
            sweeper.go_on(sweep, false);
            return (changed, Applied::GoesOn);
        };
        let header_row = header.as_ref().map(|(row, _)| row);
        let is_overtaken = header_row.into_iter().chain(&floor_rows).chain([&queue_row]).any(is_written);
        // A content that has ended is nobody's: no writer can have looked at what goes.
        if is_overtaken || (writers_insist && header.is_some()) {
            sweeper.go_on(sweep, true);
            return (changed, Applied::PutOff);
        }
        sweeper.was_put_off = false;
        let header = header.map(|(row, value)| (row, Some(value)));
        changed.extend(header.into_iter().chain(floor_rows.into_iter().chain([queue_row]).map(|row| (row, None))));
        (changed, Applied::Finished)
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// There is more to look at.
    GoesOn,
    /// Nothing is left to do but for the end, which writes have overtaken.
    PutOff,
    /// The sweep is over.
    Finished,
}

impl Sweep {
    fn begin(queue_row: Bytes, queue_value: Bytes) -> Result<Self, StoreError> {
        let (key, value) = record::open(&queue_row, queue_value)?;
        let (content, path) = layout::parse_queue(&key)?;
        let name = record::decode_queue(value)?;
        Ok(Self { queue_row, content, path, name, ended: None, behind: None })
    }

    /// Looks at what is next.
    fn step(mut self, view: &dyn View, rows_max: usize) -> Result<Step, StoreError> {
        let header = rows::header(view, &self.name)?.filter(|header| header.content == Some(self.content));
        let mut floor_rows = Vec::new();
        let ended = match &header {
            None => Ended::All,
            Some(header) => {
                let mut floors = CausalContext::new();
                for &(actor, _) in &header.actors {
                    let floor = layout::floor(self.content, &self.path, actor);
                    if let Some(time) = rows::time_at(view, &floor)? {
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
        let (dead, is_last) = self.dead_rows(view, &ended, rows_max)?;
        self.ended = Some(ended);
        if !is_last {
            return Ok(Step { sweep: self, dead, finish: None });
        }
        let header = header.map(|mut header| {
            header.floors = header.floors.saturating_sub(u32::try_from(floor_rows.len()).unwrap_or(u32::MAX));
            (self.name.row.clone(), header.encode(&self.name))
        });
        let finish = Finish { header, floor_rows, queue_row: self.queue_row.clone() };
        Ok(Step { sweep: self, dead, finish: Some(finish) })
    }

    /// What has ended of the next rows under the path, and whether these reach the end.
    fn dead_rows(&mut self, view: &dyn View, ended: &Ended, rows_max: usize) -> Result<(Vec<Bytes>, bool), StoreError> {
        let prefix = layout::subtree(self.content, &self.path);
        let mut range = Range::prefix(layout::scan_prefix(&prefix));
        if let Some(behind) = &self.behind {
            range = range.after(behind);
        }
        let mut looked_at = 0;
        let mut dead = Vec::new();
        let mut behind = None;
        view.scan(range, &mut |row, value| {
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
        self.behind = behind.or(self.behind.take());
        Ok((dead, looked_at < rows_max))
    }
}
