//! Commit: the one way in which anything is written.
//!
//! A write is turned into rows and put into memory by whoever asks for it, one at a time; then everybody sees it. Its entry
//! waits for the *committer*, a thread that appends what has gathered to the log and has the disk take it, all with one sync. A
//! second thread, the *applier*, carries rows from memory to the engine's tables and sweeps dead ones.

use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::batch::Batch;
use super::durable::DurableMark;
use super::entry::LogEntry;
use super::log::{FrameBuilder, Log};
use super::rows::Rows;
use super::sweep::Sweeper;
use super::{Durability, RowLimits};
use crate::store::{Position, StoreError};

/// Entries that wait for the log take no more than this, and one entry, where writers wait for room.
const PENDING_SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A buffer of the log that has grown beyond this is given back.
const KEPT_BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// What those who write and the two threads share.
pub(super) struct Commits {
    pub(super) rows: Rows,
    limits: RowLimits,
    /// Rows in memory beyond this, in bytes, make writers wait.
    unapplied_size_bytes_max: usize,
    queue: Mutex<Queue>,
    /// Wakes the committer.
    pending: Condvar,
    /// Wakes the applier.
    work: Condvar,
    /// Wakes writers who wait for room.
    room: Notify,
    pending_size_bytes: AtomicUsize,
    /// What the log has taken, in bytes.
    pub(super) logged_bytes: AtomicU64,
    /// The position up to which the tables hold everything durably.
    pub(super) released: AtomicU64,
    pub(super) durable: DurableMark,
}

/// What writes are made under.
struct Queue {
    /// The last write's.
    position: Position,
    /// Entries that the log does not have yet.
    frame: FrameBuilder,
    sweeper: Sweeper,
    /// Why no more writes are taken.
    failure: Option<Arc<str>>,
    closing: bool,
    /// The log has everything, and there will be no more.
    drained: bool,
    committer_waits: bool,
    applier_waits: bool,
}

impl Queue {
    fn failure(&self) -> Option<StoreError> {
        self.failure.as_ref().map(|reason| StoreError::ReadOnly { reason: reason.to_string() })
    }
}

/// What the applier is to do.
pub(super) enum Task {
    /// Carry what was written up to a position to the tables.
    Apply(Arc<super::overlay::Overlay>, Position),
    /// The same, and no more.
    ApplyLast(Arc<super::overlay::Overlay>, Position),
    /// Nothing any more.
    End,
}

impl Commits {
    /// Goes on behind the last position that the rows show.
    pub(super) fn new(
        rows: Rows,
        limits: RowLimits,
        unapplied_size_bytes_max: usize,
        position: Position,
    ) -> Result<Self, StoreError> {
        let sweeper = Sweeper::load(&rows, limits)?;
        let queue = Queue {
            position,
            frame: FrameBuilder::default(),
            sweeper,
            failure: None,
            closing: false,
            drained: false,
            committer_waits: false,
            applier_waits: false,
        };
        let durable = DurableMark::default();
        durable.reach(position);
        Ok(Self {
            rows,
            limits,
            unapplied_size_bytes_max,
            queue: Mutex::new(queue),
            pending: Condvar::new(),
            work: Condvar::new(),
            room: Notify::new(),
            pending_size_bytes: AtomicUsize::new(0),
            logged_bytes: AtomicU64::new(0),
            released: AtomicU64::new(position.0),
            durable,
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic below leaves a write unmade or made whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a write. When this returns everybody sees it.
    pub(super) fn write(&self, entry: &LogEntry) -> Result<Position, StoreError> {
        let mut queue = self.queue();
        if queue.closing {
            return Err(StoreError::Closed);
        }
        if let Some(failure) = queue.failure() {
            return Err(failure);
        }
        let mut batch = Batch::new(self.rows.view());
        batch.add(entry, self.limits)?;
        let (changed, queued) = batch.into_parts();
        let position = Position(queue.position.0 + 1);
        queue.position = position;
        queue.frame.add(|out| entry.encode(out));
        self.pending_size_bytes.store(queue.frame.size_bytes(), Ordering::Relaxed);
        queue.sweeper.add(queued);
        self.rows.write(changed, position);
        let wake_committer = mem::take(&mut queue.committer_waits);
        let wake_applier = queue.applier_waits && self.has_work(&queue);
        queue.applier_waits &= !wake_applier;
        drop(queue);
        if wake_committer {
            self.pending.notify_one();
        }
        if wake_applier {
            self.work.notify_one();
        }
        Ok(position)
    }

    /// Why no more writes are taken, if so.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.queue().failure()
    }

    /// Resolves when there is room for another write.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            if self.has_room() {
                return;
            }
            room.await;
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.pending_size_bytes.load(Ordering::Relaxed) < PENDING_SIZE_BYTES_MAX
            && self.rows.size_bytes_in_memory() < self.unapplied_size_bytes_max
    }

    /// Takes no more writes. Those that were made go on.
    pub(super) fn close(&self) {
        self.queue().closing = true;
        self.pending.notify_one();
    }

    /// Says that the log has everything, or will never have it.
    fn drained(&self) {
        self.queue().drained = true;
        self.work.notify_one();
    }

    /// Takes no more writes, for a reason.
    pub(super) fn fail(&self, error: &StoreError) {
        tracing::error!(%error, "a write failed; the store is read-only until it is restarted");
        let reason: Arc<str> = error.to_string().into();
        self.queue().failure.get_or_insert_with(|| reason.clone());
        self.durable.end(error, StoreError::ReadOnly { reason: reason.to_string() });
        self.room.notify_waiters();
        self.pending.notify_one();
        self.work.notify_one();
    }

    /// The committer's work, until the store closes or a write fails.
    pub(super) fn run_committer(&self, mut log: Log, durability: Durability) -> Log {
        let mut frame = FrameBuilder::default();
        let mut unsynced_since = None;
        loop {
            let first = match self.next_frame(&mut frame, durability, unsynced_since) {
                Next::Frame(first) => Some(first),
                Next::Sync => None,
                Next::End => break,
            };
            let written = first.map_or(Ok(()), |first| log.append(&mut frame, first));
            let synced = written.and_then(|()| match durability {
                Durability::Fsync => log.sync(),
                Durability::NoneForBenches => Ok(()),
                Durability::Relaxed(_) if first.is_some() => {
                    unsynced_since.get_or_insert_with(Instant::now);
                    Ok(())
                }
                Durability::Relaxed(_) => {
                    unsynced_since = None;
                    log.sync()
                }
            });
            let released = Position(self.released.load(Ordering::Acquire));
            if let Err(error) = synced.and_then(|()| log.release(released)) {
                self.fail(&StoreError::Engine { reason: format!("the commit log: {error}") });
                break;
            }
            if let Some(first) = first {
                self.logged_bytes.fetch_add(frame.size_bytes() as u64, Ordering::Relaxed);
                self.durable.reach(Position(first.0 + u64::from(frame.count()) - 1));
                frame.clear(KEPT_BUFFER_BYTES_MAX);
            }
        }
        self.drained();
        log
    }

    /// Waits for entries and takes all there are.
    fn next_frame(&self, frame: &mut FrameBuilder, durability: Durability, unsynced_since: Option<Instant>) -> Next {
        let mut queue = self.queue();
        loop {
            let due = match (durability, unsynced_since) {
                (Durability::Relaxed(interval), Some(since)) => Some(interval.saturating_sub(since.elapsed())),
                _ => None,
            };
            if due.is_some_and(|due| due.is_zero() || queue.closing) && queue.failure.is_none() {
                return Next::Sync;
            }
            if queue.failure.is_some() {
                return Next::End;
            }
            if queue.frame.count() > 0 {
                mem::swap(frame, &mut queue.frame);
                self.pending_size_bytes.store(0, Ordering::Relaxed);
                let first = Position(queue.position.0 + 1 - u64::from(frame.count()));
                drop(queue);
                if frame.size_bytes() >= PENDING_SIZE_BYTES_MAX {
                    self.room.notify_waiters();
                }
                return Next::Frame(first);
            }
            if queue.closing {
                return Next::End;
            }
            queue.committer_waits = true;
            queue = match due {
                None => self.pending.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(due) => self.pending.wait_timeout(queue, due).unwrap_or_else(PoisonError::into_inner).0,
            };
            queue.committer_waits = false;
        }
    }

    /// Whether the applier has something to do.
    fn has_work(&self, queue: &Queue) -> bool {
        !queue.sweeper.is_idle() || self.is_full()
    }

    /// Whether what is in memory should go to the tables.
    fn is_full(&self) -> bool {
        let active = self.rows.active();
        // A quarter: while that is applied there is room for as much again, and more.
        active.size_bytes() >= self.unapplied_size_bytes_max / 4 || active.replaced() >= super::churn::REPLACED_MAX
    }

    /// What the applier is to do next. Sweeps where there is nothing else.
    pub(super) fn next_task(&self) -> Task {
        let mut queue = self.queue();
        loop {
            if queue.failure.is_some() {
                return Task::End;
            }
            if queue.drained {
                return Task::ApplyLast(self.rows.freeze(), queue.position);
            }
            if self.is_full() {
                return Task::Apply(self.rows.freeze(), queue.position);
            }
            if queue.sweeper.is_idle() || queue.closing {
                queue.applier_waits = true;
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.applier_waits = false;
                continue;
            }
            self.sweep_step(&mut queue);
            drop(queue);
            // Writers that wait go first.
            std::thread::yield_now();
            queue = self.queue();
        }
    }

    /// Does a bounded piece of the sweep.
    fn sweep_step(&self, queue: &mut Queue) {
        let mut batch = Batch::new(self.rows.view());
        match queue.sweeper.step(&mut batch) {
            // No entry of the log: after a crash the sweep is done again, and only dead rows are back. It goes to the
            // tables with the last write.
            Ok(()) => self.rows.write(batch.into_parts().0, queue.position),
            // A row that cannot be read stops its own sweep and no write.
            Err(error) => tracing::error!(%error, "dead rows cannot be swept; the next start tries again"),
        }
    }

    /// Says that the tables have taken something up.
    pub(super) fn made_room(&self) {
        self.room.notify_waiters();
    }

    /// Does a piece of the sweep at once.
    #[cfg(test)]
    pub(super) fn sweep(&self) {
        let mut queue = self.queue();
        if !queue.sweeper.is_idle() {
            self.sweep_step(&mut queue);
        }
    }
}

/// What the committer is to do.
enum Next {
    /// Append the frame, whose first entry stands here.
    Frame(Position),
    /// Sync what was appended.
    Sync,
    /// Nothing any more.
    End,
}
