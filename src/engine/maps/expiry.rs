//! Forgets removed keys once no put from before their removal can arrive any more.
//!
//! What counts is how long this server has run since, as a clock measures it that nobody sets. The wall clock may jump ahead,
//! and would have everything forgotten at once. What was counted is stored at every look; a start goes on from there, so that
//! the time in which no server ran counts for nothing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{Inner, MapError};
use crate::domain::map::Partition;
use crate::engine::StoreError;
use crate::store::maps::Tombstone;

/// Removed keys that are forgotten in one commit, while other mutations of the partition wait.
const FORGOTTEN_AT_ONCE_MAX: usize = 256;
/// Between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The record of the time that was counted.
const RECORD: &str = "map_retention";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    /// Where the count is, in milliseconds. It began near the wall clock, as milliseconds since 1970, by which removals were
    /// stamped before there was a count.
    now_ms: u64,
    /// Where it began.
    began_ms: u64,
}

/// Counts the time that passes while the server runs.
pub(super) struct RetentionClock {
    started: Instant,
    /// What had been counted by then.
    counted: Counted,
}

impl RetentionClock {
    /// Goes on from the last look of an earlier process, or begins at the wall clock.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the record does not decode.
    pub(super) fn start(records: &[(Bytes, Bytes)], wall_ms: u64) -> Result<Self, StoreError> {
        let counted = match records.iter().find(|(key, _)| *key == RECORD) {
            Some((_, value)) => serde_json::from_slice(value).map_err(|_| damaged())?,
            None => Counted { now_ms: wall_ms, began_ms: wall_ms },
        };
        Ok(Self { started: Instant::now(), counted })
    }

    /// The count. It never goes back while the server runs.
    pub(super) fn now_ms(&self) -> u64 {
        self.counted.now_ms.saturating_add(millis(self.started.elapsed()))
    }

    /// What was removed before this was removed so long ago. Nothing was, while less than that has been counted: who knows by
    /// which clock it was stamped.
    fn before_ms(&self, retention: Duration) -> u64 {
        let before_ms = self.now_ms().saturating_sub(millis(retention));
        if before_ms < self.counted.began_ms { 0 } else { before_ms }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn damaged() -> StoreError {
    StoreError::Damaged { what: "time that maps remember removals" }
}

/// Looks again and again until the maps are gone.
pub(super) fn start(inner: &Arc<Inner>) {
    let pause = (inner.options.tombstone_retention / 10).clamp(PAUSE_MIN, PAUSE_MAX);
    tokio::spawn(run(Arc::downgrade(inner), pause));
}

async fn run(maps: Weak<Inner>, pause: Duration) {
    loop {
        sleep(pause).await;
        let Some(inner) = maps.upgrade() else { return };
        match inner.look().await {
            Ok(()) => {}
            Err(MapError::Store(StoreError::Closed | StoreError::ReadOnly { .. })) => return,
            Err(error) => tracing::warn!(%error, "removed keys of a map could not be forgotten"),
        }
    }
}

impl Inner {
    async fn look(&self) -> Result<(), MapError> {
        let (mut failed, mut waits) = (None, false);
        for partition in self.options.partitions.all() {
            match self.forget_old(partition).await {
                Ok(left) => waits |= left,
                Err(error) => failed = Some(error),
            }
        }
        // Where nothing waits nothing grows older, and the disk is left alone.
        if waits {
            self.keep_count()?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Stores what was counted. Nobody waits for it: a crash only has some removals remembered for longer.
    pub(super) fn keep_count(&self) -> Result<(), StoreError> {
        let counted = Counted { now_ms: self.retention_clock.now_ms(), ..self.retention_clock.counted };
        let value = serde_json::to_vec(&counted).map_err(|_| damaged())?;
        self.store.put_record(Bytes::from_static(RECORD.as_bytes()), Some(value.into()))?;
        Ok(())
    }

    /// Forgets the old removals of a partition. Whether there are younger ones.
    async fn forget_old(&self, partition: Partition) -> Result<bool, MapError> {
        let before_ms = self.retention_clock.before_ms(self.options.tombstone_retention);
        loop {
            let old = self.store.map_tombstones(partition, before_ms, FORGOTTEN_AT_ONCE_MAX).await?;
            if old.is_empty() {
                return Ok(!self.store.map_tombstones(partition, u64::MAX, 1).await?.is_empty());
            }
            let mut held = self.hold(partition, 0).await?;
            // In the log before what it tells of.
            let last = old.iter().map(|tombstone| tombstone.position).max().unwrap_or(0);
            self.note_forgotten(&mut held, partition, last)?;
            let numbers = held.numbers;
            let forgotten = old.into_iter().map(|Tombstone { key, digest, .. }| (key, digest)).collect();
            self.commit(held, partition, numbers, vec![], forgotten).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(counted: Counted) -> Vec<(Bytes, Bytes)> {
        vec![(RECORD.into(), serde_json::to_vec(&counted).unwrap().into())]
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn the_count_goes_by_time_that_passes_and_not_by_the_wall_clock() {
        let clock = RetentionClock::start(&[], 5_000_000_000).unwrap();
        assert_eq!((clock.now_ms(), clock.before_ms(HOUR)), (5_000_000_000, 0));
        tokio::time::advance(HOUR - Duration::from_millis(1)).await;
        assert_eq!((clock.now_ms(), clock.before_ms(HOUR)), (5_003_599_999, 0), "no hour has passed");
        tokio::time::advance(Duration::from_millis(3)).await;
        assert_eq!(clock.before_ms(HOUR), 5_000_000_002);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_goes_on_with_the_count_wherever_the_wall_clock_is() {
        let counted = Counted { now_ms: 20_000_000, began_ms: 10_000_000 };
        for wall_ms in [0, 20_000_001, u64::MAX] {
            let clock = RetentionClock::start(&records(counted), wall_ms).unwrap();
            assert_eq!((clock.now_ms(), clock.before_ms(HOUR)), (20_000_000, 16_400_000));
        }
        let damaged = [(RECORD.into(), "{".into())];
        assert!(RetentionClock::start(&damaged, 0).is_err());
    }
}
