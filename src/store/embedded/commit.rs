//! Commit: the one way in which anything is written.
//!
//! A write is turned into rows by whoever asks for it, and put into memory, one at a time; then everybody sees it. Its entry
//! waits for the *committer*, a thread that appends what has gathered to the log and has the disk take it, all with one sync. A
//! second thread, the *applier*, carries rows from memory to the tables and sweeps dead ones.
//!
//! The lock that makes it one at a time is held for what memory can tell. A write or a step of the sweep is prepared before, as
//! things stood at a moment; under the lock it is asked whether what it depends on has changed since, and then it is prepared
//! again, without the lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use bytes::Bytes;
use crossbeam_utils::CachePadded;

use super::batch::{Batch, Prepared};
use super::change;
use super::durable::DurableMark;
use super::entry::LogEntry;
use super::layout;
use super::log::{FrameBuilder, FrameLimits, KEPT_BUFFER_BYTES_MAX, Log};
use super::overlay::{Moment, Overlay};
use super::pace::{Pace, RUNS_MAX};
use super::rows::{Found, Rows, StoredObject};
use super::sweep::{Applied, Queued, Step, Sweeper};
use super::view::{InMemory, RowsView};
use super::{Durability, Idleness, RowLimits};
use crate::store::room::Room;
use crate::store::{DurableCounts, Position, StoreError};

/// Deletes in memory that a scan may have to step over. Some thousands take a millisecond or two.
const DEAD_ROWS_MAX: usize = 8 * 1024;
/// Entries that wait for the log take no more than this, and one entry, where writers wait for room.
const PENDING_SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What most entries take beside their payloads, in bytes.
const ENTRY_BYTES: usize = 256;

/// An entry of more bytes than these is handed over, and copied where nobody waits.
const COPIED_ENTRY_BYTES_MAX: usize = 64 * 1024;

/// So many times what the log may grow by until the tables take it up it may hold, before writers wait for them. While rows are
/// carried to the tables it usually grows to twice as much.
const LOG_KEPT_TIMES_MAX: u64 = 4;

/// The longest wait for more entries before a frame is written.
const GATHERING_MAX: Duration = Duration::from_millis(1);
/// So many runs are a reason to have the tables take up what is in memory.
const FROZEN_RUNS_MIN: usize = 16;

/// How long a sweep rests whose end writes have overtaken.
const PUT_OFF: Duration = Duration::from_millis(1);

/// The guess at how many write rises by this part with each frame, and falls by that part where it was too high.
const GUESS_RISE: f32 = 1.0 / 64.0;
const GUESS_FALL: f32 = 1.0 / 8.0;

/// When nothing has been written for so long, the log's last frame is sealed.
const SEALED_AFTER: Duration = Duration::from_millis(100);

/// What those who write and the two threads share.
pub(super) struct Commits {
    pub(super) rows: Rows,
    limits: RowLimits,
    /// Rows in memory, in bytes: a part of this goes to the tables at a time.
    unapplied_size_bytes_max: usize,
    /// When the log has grown by this much, in bytes, the tables take up what is in memory, however little that is.
    log_unapplied_bytes_max: u64,
    frame_limits: FrameLimits,
    queue: CachePadded<Mutex<Queue>>,
    /// Wakes the committer.
    pending: Condvar,
    /// Wakes the applier.
    work: Condvar,
    /// What may be in memory until the tables have it.
    pub(super) room: Room,
    pace: Mutex<(Pace, Looked)>,
    /// The sweeps that have begun, for the applier. It is locked before the queue.
    sweeper: Mutex<Sweeper>,
    /// Writers that a sweep has overtaken: no sweep ends before they have written, so that none is overtaken twice.
    insistent: AtomicUsize,
    /// Whether the committer waits for more.
    gathering: AtomicBool,
    /// Entries that the log has taken, and syncs of it.
    logged_entries: AtomicU64,
    syncs: AtomicU64,
    /// What the log has taken, in bytes.
    pub(super) logged_bytes: AtomicU64,
    /// What it had taken when rows were last frozen.
    frozen_at_bytes: AtomicU64,
    /// The position up to which the tables hold everything durably, and what the log had taken of it, in bytes.
    pub(super) released: AtomicU64,
    released_at_bytes: AtomicU64,
    /// Whether rows must wait until tables are merged.
    merges_are_behind: AtomicBool,
    pub(super) merging: Merging,
    pub(super) durable: DurableMark,
    /// Where writes are called durable before they are synced: up to where they are.
    synced: Option<DurableMark>,
    /// Whether the applier is to panic.
    #[cfg(test)]
    applier_panics: AtomicBool,
}

/// When it was last looked at how much has come, and how much that was in a second.
struct Looked {
    at: Instant,
    admitted: u64,
    came_per_second: f64,
}

/// What comes is counted over no less than this: two looks right after each other would find that nothing came.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);

impl Looked {
    fn look(&mut self, at: Instant, admitted: u64) -> f64 {
        let since = at.saturating_duration_since(self.at);
        if since >= LOOK_INTERVAL_MIN {
            let came_per_second = (admitted - self.admitted) as f64 / since.as_secs_f64();
            *self = Self { at, admitted, came_per_second };
        }
        self.came_per_second
    }
}

/// Tells the merger when there may be something to merge.
#[derive(Default)]
pub(super) struct Merging {
    state: Mutex<MergingState>,
    changed: Condvar,
}

#[derive(Default)]
struct MergingState {
    is_wanted: bool,
    is_ended: bool,
}

impl Merging {
    fn change(&self, change: impl FnOnce(&mut MergingState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    pub(super) fn want(&self) {
        self.change(|state| state.is_wanted = true);
    }

    fn end(&self) {
        self.change(|state| state.is_ended = true);
    }

    /// Waits until there may be something to merge, but not longer than this. False at the end.
    pub(super) fn wait(&self, interval: Option<Duration>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.is_wanted && !state.is_ended {
            let Some(interval) = interval else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state = self.changed.wait_timeout(state, interval).unwrap_or_else(PoisonError::into_inner).0;
            break;
        }
        state.is_wanted = false;
        !state.is_ended
    }
}

/// What writes are made under.
struct Queue {
    /// The last write's.
    position: Position,
    /// Where rows are written to.
    active: Arc<Overlay>,
    /// Entries that the log does not have yet.
    frame: FrameBuilder,
    /// Sweeps that are to be begun.
    waiting: VecDeque<Queued>,
    /// When a sweep last wrote an object's header.
    swept_at: Moment,
    /// When what is active began.
    frozen_at: Moment,
    /// Why no more writes are taken.
    failure: Option<Arc<str>>,
    closing: bool,
    /// The log has everything, and there will be no more.
    drained: bool,
    /// The entries that the committer waits for, while it does.
    wanted: Option<u32>,
    applier_waits: bool,
    /// Up to here somebody waits for a sync, and not until it is due.
    sync_wanted: Position,
}

impl Queue {
    fn failure(&self) -> Option<StoreError> {
        self.failure.as_ref().map(|reason| StoreError::ReadOnly { reason: reason.to_string() })
    }

    /// Whether a sweep has written the header of the object that an entry changes, since it was looked at.
    fn is_overtaken(&self, entry: &LogEntry, seen: Moment) -> bool {
        let LogEntry::Delta(name, _) = entry else { return false };
        seen < self.swept_at && (seen < self.frozen_at || self.active.is_written_since(&layout::name(name).row, seen))
    }
}

/// What the applier is to do.
pub(super) enum Task {
    /// Carry what was frozen to the tables.
    Apply(Frozen),
    /// Nothing any more.
    End,
}

/// What was written up to some moment, on its way to the tables.
pub(super) struct Frozen {
    pub(super) overlay: Arc<Overlay>,
    /// The last write in it.
    pub(super) position: Position,
    /// Whether there will be no more.
    pub(super) is_last: bool,
}

impl Commits {
    /// Goes on behind the last position that the rows show.
    pub(super) fn new(
        rows: Rows,
        limits: RowLimits,
        unapplied_size_bytes_max: usize,
        log_unapplied_bytes_max: u64,
        position: Position,
    ) -> Result<Self, StoreError> {
        let waiting = Sweeper::load(&rows)?;
        let active = rows.active();
        let room = Room::new(unapplied_size_bytes_max);
        room.hold(rows.in_memory(&active).size_bytes());
        let queue = Queue {
            position,
            active,
            frame: FrameBuilder::default(),
            waiting,
            swept_at: Moment::default(),
            frozen_at: Moment::default(),
            failure: None,
            closing: false,
            drained: false,
            wanted: None,
            applier_waits: false,
            sync_wanted: Position::default(),
        };
        let durable = DurableMark::default();
        durable.reach(position);
        Ok(Self {
            rows,
            limits,
            unapplied_size_bytes_max,
            log_unapplied_bytes_max,
            frame_limits: FrameLimits::default(),
            queue: CachePadded::new(Mutex::new(queue)),
            pending: Condvar::new(),
            work: Condvar::new(),
            room,
            pace: Mutex::new((Pace::default(), Looked { at: Instant::now(), admitted: 0, came_per_second: 0.0 })),
            sweeper: Mutex::new(Sweeper::new(limits)),
            insistent: AtomicUsize::new(0),
            gathering: AtomicBool::new(false),
            logged_entries: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            logged_bytes: AtomicU64::new(0),
            frozen_at_bytes: AtomicU64::new(0),
            released: AtomicU64::new(position.0),
            released_at_bytes: AtomicU64::new(0),
            merges_are_behind: AtomicBool::new(false),
            merging: Merging::default(),
            durable,
            synced: None,
            #[cfg(test)]
            applier_panics: AtomicBool::new(false),
        })
    }

    /// The same, with writes called durable before they are synced.
    pub(super) fn answering_before_sync(mut self) -> Self {
        let synced = DurableMark::default();
        synced.reach(self.queue().position);
        self.synced = Some(synced);
        self
    }

    pub(super) fn answers_before_sync(&self) -> bool {
        self.synced.is_some()
    }

    /// Up to where no power failure can take a write.
    pub(super) fn synced(&self) -> &DurableMark {
        self.synced.as_ref().unwrap_or(&self.durable)
    }

    /// Has the committer sync what was written by now, and not when it is due.
    pub(super) fn hasten_sync(&self) {
        if self.synced.is_some() {
            let mut queue = self.queue();
            queue.sync_wanted = queue.position;
            drop(queue);
            self.pending.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic below leaves a write unmade or made whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweeper(&self) -> MutexGuard<'_, Sweeper> {
        // A panic below gives up a sweep, which the next start takes up again.
        self.sweeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a write. When this returns everybody sees it.
    pub(super) fn write(&self, entry: LogEntry) -> Result<Position, StoreError> {
        self.write_to(None, entry)
    }

    /// Makes a write to an object that was found, or is looked for.
    pub(super) fn write_to(&self, found: Option<Found>, mut entry: LogEntry) -> Result<Position, StoreError> {
        let seen = self.look(found, &mut entry)?;
        let encoded = self.encode(&entry)?;
        let prepared = self.prepare(seen, &entry)?;
        self.apply_write(entry, encoded, prepared)
    }

    /// An entry as the log has it. One that the log does not take is refused before rows are made of it.
    fn encode(&self, entry: &LogEntry) -> Result<Vec<u8>, StoreError> {
        let mut encoded = Vec::with_capacity(ENTRY_BYTES + entry.payload_bytes());
        entry.encode(&mut encoded)?;
        self.frame_limits.check_entry(encoded.len())?;
        Ok(encoded)
    }

    /// What a write is made on: things as they stand, or stood when its object was found. What the entry has too much is cut off.
    fn look(&self, found: Option<Found>, entry: &mut LogEntry) -> Result<(RowsView, Option<StoredObject>), StoreError> {
        let (view, object) = match (found, &*entry) {
            (Some(Found { view, object }), _) => (view, Some(object)),
            (None, LogEntry::Delta(name, _)) => {
                let view = self.rows.view();
                let object = StoredObject::find(&view, name)?;
                (view, Some(object))
            }
            (None, _) => (self.rows.view(), None),
        };
        if let (LogEntry::Delta(_, delta), Some(object)) = (entry, &object) {
            change::cut_contexts(delta, object.header.as_ref());
        }
        Ok((view, object))
    }

    /// What a write changes there.
    fn prepare(
        &self,
        (view, object): (RowsView, Option<StoredObject>),
        entry: &LogEntry,
    ) -> Result<Prepared, StoreError> {
        let mut batch = Batch::new(view);
        batch.add(entry, object, self.limits)?;
        Ok(batch.into_prepared())
    }

    /// Makes a write that was prepared. Nobody else writes the object meanwhile, but for a sweep that ends: then it is prepared
    /// again.
    fn apply_write(
        &self,
        mut entry: LogEntry,
        encoded: Vec<u8>,
        mut prepared: Prepared,
    ) -> Result<Position, StoreError> {
        let mut insistence = None;
        let mut queue = loop {
            let queue = self.queue();
            if queue.closing {
                return Err(StoreError::Closed);
            }
            if let Some(failure) = queue.failure() {
                return Err(failure);
            }
            if !queue.is_overtaken(&entry, prepared.seen) {
                break queue;
            }
            insistence.get_or_insert_with(|| Insistence::new(&self.insistent));
            drop(queue);
            let seen = self.look(None, &mut entry)?;
            prepared = self.prepare(seen, &entry)?;
        };
        match encoded.len() {
            ..=COPIED_ENTRY_BYTES_MAX => queue.frame.add(&encoded)?,
            _ => queue.frame.add_whole(encoded)?,
        }
        let position = Position(queue.position.0 + 1);
        queue.position = position;
        queue.waiting.extend(prepared.queued);
        self.rows.write(&queue.active, prepared.changes, position);
        drop(insistence);
        let in_memory = self.rows.in_memory(&queue.active);
        self.look_for_room(&queue, &in_memory);
        let count = queue.frame.count();
        let wake_committer = queue.wanted.take_if(|wanted| count >= *wanted).is_some();
        let wake_applier = queue.applier_waits && (self.has_sweeps(&queue) || self.is_due(&in_memory));
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

    /// Whether a sweep waits to be begun.
    fn has_sweeps(&self, queue: &Queue) -> bool {
        self.limits.rows_swept_per_step_max > 0 && !queue.waiting.is_empty()
    }

    pub(super) fn durable_counts(&self) -> DurableCounts {
        let (writes, syncs) = (self.logged_entries.load(Ordering::Relaxed), self.syncs.load(Ordering::Relaxed));
        DurableCounts { writes, syncs }
    }

    /// Why no more writes are taken, if so.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.queue().failure()
    }

    /// Tells how much is in memory now.
    fn look_for_room(&self, queue: &Queue, in_memory: &InMemory) {
        let bytes = in_memory.size_bytes() + queue.frame.size_bytes();
        // Many runs, or a log that has grown, are like much in memory: all of it ends when the tables take it up.
        let is_full = in_memory.has_many_runs()
            || self.log_kept_bytes() >= self.log_unapplied_bytes_max.saturating_mul(LOG_KEPT_TIMES_MAX);
        self.room.hold(if is_full { bytes.max(self.unapplied_size_bytes_max) } else { bytes });
    }

    /// What the log holds that the tables do not hold durably, and what else was written since then, in bytes.
    fn log_kept_bytes(&self) -> u64 {
        self.logged_bytes.load(Ordering::Relaxed).saturating_sub(self.released_at_bytes.load(Ordering::Relaxed))
    }

    /// Says that the tables hold durably what was last frozen, up to a position. Who waits for room is told when the tables are
    /// looked at.
    pub(super) fn release(&self, position: Position) {
        self.released_at_bytes.store(self.frozen_at_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.released.store(position.0, Ordering::Release);
    }

    /// Takes no more writes. Those that were made go on.
    pub(super) fn close(&self) {
        self.queue().closing = true;
        self.room.end();
        self.pending.notify_one();
    }

    /// Says that the log has everything, or will never have it.
    fn drained(&self) {
        self.queue().drained = true;
        self.work.notify_one();
    }

    /// Takes no more writes, for a reason; the first one stands. Those who wait are told.
    pub(super) fn fail(&self, error: &StoreError) {
        let mut queue = self.queue();
        let is_first = queue.failure.is_none();
        let reason = queue.failure.get_or_insert_with(|| error.to_string().into()).clone();
        drop(queue);
        for mark in [Some(&self.durable), self.synced.as_ref()].into_iter().flatten() {
            mark.end(error, StoreError::ReadOnly { reason: reason.to_string() });
        }
        self.room.end();
        self.pending.notify_one();
        self.work.notify_one();
        // Last: whatever becomes of the line, everybody has been told.
        if is_first {
            tracing::error!(%error, "a write failed; the store is read-only until it is restarted");
        }
    }

    /// Ends the committer's wait for more, since there is nobody at work who might write it.
    pub(super) fn end_gathering(&self) {
        if self.gathering.load(Ordering::SeqCst) {
            // With the lock: the committer looks and waits under it.
            drop(self.queue());
            self.pending.notify_one();
        }
    }

    /// Whether what is in memory should go to the tables.
    fn is_full(&self, in_memory: &InMemory) -> bool {
        // A quarter: while that is applied there is room for as much again, and more.
        in_memory.active_bytes >= self.unapplied_size_bytes_max / 4
            || in_memory.active_dead >= DEAD_ROWS_MAX
            || in_memory.active_runs >= FROZEN_RUNS_MIN
            || self.logged_bytes.load(Ordering::Relaxed) - self.frozen_at_bytes.load(Ordering::Relaxed)
                >= self.log_unapplied_bytes_max
    }

    /// Whether what is in memory should go to the tables now.
    fn is_due(&self, in_memory: &InMemory) -> bool {
        !self.merges_are_behind.load(Ordering::Relaxed) && self.is_full(in_memory)
    }

    /// Looks at what the log has grown to. Where writers wait for room nobody else may tell the applier.
    fn take_in_growth(&self, queue: &mut Queue) {
        let in_memory = self.rows.in_memory(&queue.active);
        self.look_for_room(queue, &in_memory);
        if queue.applier_waits && self.is_due(&in_memory) {
            queue.applier_waits = false;
            self.work.notify_one();
        }
    }

    /// What the applier is to do next. Sweeps where there is nothing else.
    pub(super) fn next_task(&self) -> Task {
        let mut sweeper = self.sweeper();
        let mut queue = self.queue();
        loop {
            if queue.failure.is_some() {
                return Task::End;
            }
            #[cfg(test)]
            assert!(!self.applier_panics.load(Ordering::SeqCst), "the test wants it");
            if queue.drained || self.is_due(&self.rows.in_memory(&queue.active)) {
                let logged_bytes = self.logged_bytes.load(Ordering::Relaxed);
                self.frozen_at_bytes.store(logged_bytes, Ordering::Relaxed);
                let overlay = self.freeze(&mut queue);
                return Task::Apply(Frozen { overlay, position: queue.position, is_last: queue.drained });
            }
            if queue.closing || (sweeper.is_idle() && !self.has_sweeps(&queue)) {
                queue.applier_waits = true;
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.applier_waits = false;
                continue;
            }
            drop(queue);
            let applied = self.sweep_step(&mut sweeper);
            // Writers that wait go first.
            thread::yield_now();
            queue = self.queue();
            if applied == Some(Applied::PutOff) {
                queue.applier_waits = true;
                queue = self.work.wait_timeout(queue, PUT_OFF).unwrap_or_else(PoisonError::into_inner).0;
                queue.applier_waits = false;
            }
        }
    }

    fn freeze(&self, queue: &mut Queue) -> Arc<Overlay> {
        queue.frozen_at = self.rows.moment();
        self.rows.freeze(&mut queue.active)
    }

    /// Does a bounded piece of the sweep. What came of it, if there was anything to do.
    fn sweep_step(&self, sweeper: &mut Sweeper) -> Option<Applied> {
        let (step, seen) = self.prepare_sweep(sweeper)?;
        Some(self.apply_sweep(sweeper, step, seen))
    }

    fn prepare_sweep(&self, sweeper: &mut Sweeper) -> Option<(Step, Moment)> {
        let queued = if sweeper.wants_another() { self.queue().waiting.pop_front() } else { None };
        let view = self.rows.view();
        // A row that cannot be read stops its own sweep and no write.
        let step = sweeper.prepare(&view, queued).unwrap_or_else(|error| {
            tracing::error!(%error, "dead rows cannot be swept; the next start tries again");
            None
        });
        Some((step?, view.moment()))
    }

    fn apply_sweep(&self, sweeper: &mut Sweeper, step: Step, seen: Moment) -> Applied {
        let mut queue = self.queue();
        if seen < queue.frozen_at {
            sweeper.begin_again(step);
            return Applied::PutOff;
        }
        let writers_insist = self.insistent.load(Ordering::Relaxed) > 0;
        let is_written = |row: &Bytes| queue.active.is_written_since(row, seen);
        let (changed, applied) = step.apply(sweeper, writers_insist, is_written);
        // No entry of the log: after a crash the sweep is done again, and only dead rows are back. It goes to the tables with
        // the last write.
        let moment = self.rows.write(&queue.active, changed, queue.position);
        if applied == Applied::Finished {
            queue.swept_at = moment;
        }
        applied
    }

    /// Says that the tables have taken something up, or that some were merged.
    pub(super) fn tables_changed(&self) {
        let runs = self.rows.new_runs();
        let behind = runs >= RUNS_MAX;
        self.look_at_pace(runs);
        let queue = self.queue();
        self.merges_are_behind.store(behind, Ordering::Relaxed);
        self.look_for_room(&queue, &self.rows.in_memory(&queue.active));
        drop(queue);
        self.work.notify_one();
    }

    fn look_at_pace(&self, runs: usize) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let (pace, looked) = &mut *pace;
        let came_per_second = looked.look(Instant::now(), self.room.admitted());
        self.room.pace(pace.look(runs, came_per_second));
    }

    /// Ends the merging of tables: what is under way is lost only to be done again.
    pub(super) fn end_merging(&self) {
        self.rows.tables().stop_merging();
        self.merging.end();
    }

    /// Takes no larger frames from now on.
    #[cfg(test)]
    pub(super) fn limit_frames(&mut self, limits: FrameLimits) {
        self.frame_limits = limits;
        self.queue().frame = FrameBuilder::new(limits);
    }

    /// Has the tables take up everything at once.
    #[cfg(test)]
    pub(super) fn apply(&self) -> Result<(), StoreError> {
        let mut queue = self.queue();
        let frozen = self.freeze(&mut queue);
        self.rows.apply(&frozen, queue.position)
    }

    /// Has the applier panic, with the lock held.
    #[cfg(test)]
    pub(super) fn have_applier_panic(&self) {
        let queue = self.queue();
        self.applier_panics.store(true, Ordering::SeqCst);
        drop(queue);
        self.work.notify_one();
    }

    /// Does a piece of the sweep at once, and in the middle of it something else.
    #[cfg(test)]
    pub(super) fn sweep_around(&self, meanwhile: impl FnOnce()) -> Option<Applied> {
        let mut sweeper = self.sweeper();
        let (step, seen) = self.prepare_sweep(&mut sweeper)?;
        meanwhile();
        Some(self.apply_sweep(&mut sweeper, step, seen))
    }

    /// Insists as a writer does that a sweep has overtaken.
    #[cfg(test)]
    pub(super) fn insist(&self) -> Insistence<'_> {
        Insistence::new(&self.insistent)
    }

    /// Makes a write as [`write`](Self::write) does, and in the middle of it something else.
    #[cfg(test)]
    pub(super) fn write_around(&self, mut entry: LogEntry, meanwhile: impl FnOnce()) -> Result<Position, StoreError> {
        let seen = self.look(None, &mut entry)?;
        let encoded = self.encode(&entry)?;
        let prepared = self.prepare(seen, &entry)?;
        meanwhile();
        self.apply_write(entry, encoded, prepared)
    }
}

/// A writer that a sweep has overtaken.
pub(super) struct Insistence<'a>(&'a AtomicUsize);

impl<'a> Insistence<'a> {
    /// Begins. The queue is locked, and so it is where a sweep asks.
    fn new(insistent: &'a AtomicUsize) -> Self {
        insistent.fetch_add(1, Ordering::Relaxed);
        Self(insistent)
    }
}

impl Drop for Insistence<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The committer: the thread that writes the log.
pub(super) struct Committer<'a> {
    commits: &'a Commits,
    log: Log,
    durability: Durability,
    idleness: Option<Arc<Idleness>>,
    /// Since when something lies in the log that was not synced.
    unsynced_since: Option<Instant>,
    /// The last entry that was appended, and the last that was synced.
    appended: Position,
    synced: Position,
    /// A guess at how many write at once, where each waits for its own entry.
    writers: f32,
}

/// What the committer is to do.
enum Next {
    /// Append the frame, whose first entry stands here.
    Frame(Position),
    /// Sync what was appended.
    Sync,
    /// Seal the last frame.
    Seal,
    /// Nothing any more.
    End,
}

impl<'a> Committer<'a> {
    pub(super) fn new(commits: &'a Commits, log: Log, durability: Durability, idleness: Option<Arc<Idleness>>) -> Self {
        // Writes may have been made already, and none of them is durable before this thread works.
        let behind = commits.durable.reached();
        let (appended, synced) = (behind, behind);
        Self { commits, log, durability, idleness, unsynced_since: None, appended, synced, writers: 0.0 }
    }

    /// Works until the store closes or a write fails.
    pub(super) fn run(mut self) -> Log {
        let mut frame = FrameBuilder::new(self.commits.frame_limits);
        loop {
            let written = match self.next(&mut frame) {
                Next::Frame(first) => self.write(&mut frame, first),
                Next::Sync => self.sync(),
                Next::Seal => self.seal(),
                Next::End => break,
            };
            let released = Position(self.commits.released.load(Ordering::Acquire));
            if let Err(error) = written.and_then(|()| self.log.release(released)) {
                self.commits.fail(&StoreError::Engine { reason: format!("the commit log: {error}") });
                break;
            }
        }
        self.commits.drained();
        self.log
    }

    /// Appends a frame, and opens the gates behind which its entries are waited for.
    fn write(&mut self, frame: &mut FrameBuilder, first: Position) -> io::Result<()> {
        let taken_bytes = self.log.append(frame, first)?;
        self.appended = Position(first.0 + u64::from(frame.count()) - 1);
        match self.durability {
            Durability::Fsync => self.sync()?,
            Durability::NoneForBenches => {}
            Durability::Relaxed(_) => {
                self.unsynced_since.get_or_insert_with(Instant::now);
            }
        }
        self.commits.logged_entries.fetch_add(frame.count().into(), Ordering::Relaxed);
        self.commits.logged_bytes.fetch_add(taken_bytes, Ordering::Relaxed);
        self.commits.durable.reach(self.appended);
        frame.clear(KEPT_BUFFER_BYTES_MAX);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.log.sync()?;
        self.unsynced_since = None;
        self.synced = self.appended;
        self.commits.syncs.fetch_add(1, Ordering::Relaxed);
        if let Some(synced) = &self.commits.synced {
            synced.reach(self.synced);
        }
        Ok(())
    }

    /// Says in the log that its last frame is on disk. Nobody waits for it.
    fn seal(&mut self) -> io::Result<()> {
        let taken_bytes = self.log.seal()?;
        self.commits.syncs.fetch_add(1, Ordering::Relaxed);
        self.commits.logged_bytes.fetch_add(taken_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for entries, lets more of them gather, and takes all there are.
    fn next(&mut self, frame: &mut FrameBuilder) -> Next {
        let commits = self.commits;
        let seal_at = self.log.wants_seal().then(|| Instant::now() + SEALED_AFTER);
        let mut queue = commits.queue();
        commits.take_in_growth(&mut queue);
        loop {
            if queue.failure.is_some() {
                return Next::End;
            }
            let due = match (self.durability, self.unsynced_since) {
                (Durability::Relaxed(interval), Some(since)) => Some(interval.saturating_sub(since.elapsed())),
                _ => None,
            };
            let is_wanted = self.synced < queue.sync_wanted && queue.sync_wanted <= self.appended;
            if due.is_some_and(|due| due.is_zero() || queue.closing || is_wanted) {
                return Next::Sync;
            }
            if queue.frame.count() > 0 {
                queue = self.gather(queue);
                mem::swap(frame, &mut queue.frame);
                commits.look_for_room(&queue, &commits.rows.in_memory(&queue.active));
                let first = Position(queue.position.0 + 1 - u64::from(frame.count()));
                drop(queue);
                return Next::Frame(first);
            }
            if queue.closing {
                return Next::End;
            }
            let now = Instant::now();
            if due.is_none() && seal_at.is_some_and(|seal_at| seal_at <= now) {
                return Next::Seal;
            }
            queue.wanted = Some(1);
            let wait = due.or_else(|| Some(seal_at?.saturating_duration_since(now)));
            queue = match wait {
                None => commits.pending.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => commits.pending.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0,
            };
            queue.wanted = None;
        }
    }

    /// Waits until half of those who write have written, or nobody is at work who might write, but not for long: so one
    /// half is at work while the other waits for the disk. Where there is one client it writes no more before it is
    /// answered.
    fn gather<'q>(&mut self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let Some(idleness) = &self.idleness else { return queue };
        if self.writers <= 1.0 {
            self.writers = queue.frame.count() as f32;
            return queue;
        }
        // At least two: a frame that is written as soon as an entry is there keeps those away who would write the next.
        let wanted = ((self.writers / 2.0) as u32).max(2);
        let gathering = &self.commits.gathering;
        let deadline = Instant::now() + GATHERING_MAX;
        gathering.store(true, Ordering::SeqCst);
        let mut nobody_is_at_work = idleness.is_complete();
        while queue.frame.count() < wanted
            && !nobody_is_at_work
            && !queue.closing
            && queue.frame.size_bytes() < PENDING_SIZE_BYTES_MAX
        {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue.wanted = Some(wanted);
            queue = self.commits.pending.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            nobody_is_at_work = idleness.is_complete();
        }
        queue.wanted = None;
        gathering.store(false, Ordering::SeqCst);

        // While nobody is at work, all who write wait for an answer: nearly all of them are in this frame.
        let count = queue.frame.count();
        if nobody_is_at_work {
            self.writers *= 1.0 - GUESS_FALL;
        } else if count >= wanted {
            self.writers *= 1.0 + GUESS_RISE;
        }
        self.writers = self.writers.max(count as f32);
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_right_after_each_other_do_not_find_that_nothing_came() {
        let begun = Instant::now();
        let mut looked = Looked { at: begun, admitted: 0, came_per_second: 0.0 };
        assert_eq!(looked.look(begun + Duration::from_secs(2), 2_000), 1_000.0);
        assert_eq!(looked.look(begun + Duration::from_millis(2_001), 2_000), 1_000.0);
        assert_eq!(looked.look(begun + Duration::from_secs(4), 2_000), 0.0);
    }
}
