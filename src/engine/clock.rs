//! The server's hybrid logical clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::wall_clock;
use crate::domain::dot::{Dot, Time};
use crate::store::{Position, Store, StoreError};

/// How far ahead of what is issued the durable bound is set, in microseconds. After a crash the clock begins at the bound,
/// so it runs ahead of the wall clock by at most this.
const BOUND_LEAD_US: u64 = 10_000_000;

/// Draws dots. No time is issued twice, not even after a crash or when the wall clock is set back.
pub(super) struct HybridClock {
    store: Arc<dyn Store>,
    /// The bound is raised where it is no further ahead than this, in microseconds.
    lead_us_min: u64,
    issued: AtomicU64,
    bound: AtomicU64,
    /// Where the bound was last raised.
    raising: Mutex<Position>,
}

impl HybridClock {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        // Everything up to the bound may have been issued.
        let bound = store.clock_bound().0;
        // Where a power failure may take the bound with the writes under it, it is synced while half of it is used.
        let lead_us_min = if store.answers_before_sync() { BOUND_LEAD_US / 2 } else { 0 };
        Self {
            store,
            lead_us_min,
            issued: AtomicU64::new(bound),
            bound: AtomicU64::new(bound),
            raising: Mutex::default(),
        }
    }

    /// Waits until the bound of this start is safe from a power failure: until the wall clock has come up with it, the next
    /// start would issue the same times again.
    pub(super) async fn begin(&self) -> Result<(), StoreError> {
        if self.store.answers_before_sync() {
            let position = self.raise_bound(self.issued().0 + 1)?;
            self.store.synced(position).await?;
        }
        Ok(())
    }

    /// The latest time issued.
    pub(super) fn issued(&self) -> Time {
        Time(self.issued.load(Ordering::Acquire))
    }

    /// A new dot, later than all before it.
    pub(super) fn draw(&self) -> Result<Dot, StoreError> {
        loop {
            let wall = u64::try_from(wall_clock().as_micros()).unwrap_or(u64::MAX);
            let issued = self.issued.load(Ordering::Acquire);
            let next = wall.max(issued + 1);
            if next.saturating_add(self.lead_us_min) > self.bound.load(Ordering::Acquire) {
                self.raise_bound(next)?;
                continue;
            }
            if self.issued.compare_exchange(issued, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Ok(Dot { actor: self.store.actor(), time: Time(next) });
            }
        }
    }

    /// The bound is in the store's log before any write under a time that it allows, so nobody waits for it.
    /// The position of the last time that it was raised.
    fn raise_bound(&self, needed: u64) -> Result<Position, StoreError> {
        // Nothing is broken by a panic in between: the bound is raised again.
        let mut raised_at = self.raising.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bound.load(Ordering::Acquire) < needed.saturating_add(self.lead_us_min) {
            let bound = needed.saturating_add(BOUND_LEAD_US);
            *raised_at = self.store.raise_clock_bound(Time(bound))?;
            self.bound.store(bound, Ordering::Release);
            self.store.hasten_sync();
        }
        Ok(*raised_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dot::ActorId;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn times_rise_strictly_even_when_many_are_drawn_at_once() {
        let clock = Arc::new(HybridClock::new(Arc::new(MemoryStore::new(ActorId(1)))));
        let draw = |clock: Arc<HybridClock>| async move {
            let mut times = Vec::new();
            for _ in 0..1000 {
                times.push(clock.draw().unwrap().time);
            }
            assert!(times.is_sorted());
            times
        };
        let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(draw(clock.clone()))).collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4000);
        assert_eq!(clock.issued(), *all.last().unwrap());
    }
}
