//! Forgets removed keys once no put from before their removal can arrive any more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::{Inner, MapError, now_ms};
use crate::domain::map::Partition;
use crate::engine::StoreError;

/// Removed keys that are forgotten in one commit, while other mutations of the partition wait.
const FORGOTTEN_AT_ONCE_MAX: usize = 256;
/// Between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Looks again and again until the maps are gone.
pub(super) fn start(inner: &Arc<Inner>) {
    let pause = (inner.options.tombstone_retention / 10).clamp(PAUSE_MIN, PAUSE_MAX);
    tokio::spawn(run(Arc::downgrade(inner), pause));
}

async fn run(maps: Weak<Inner>, pause: Duration) {
    loop {
        sleep(pause).await;
        let Some(inner) = maps.upgrade() else { return };
        for partition in inner.options.partitions.all() {
            match inner.forget_old(partition).await {
                Ok(()) => {}
                Err(MapError::Store(StoreError::Closed | StoreError::ReadOnly { .. })) => return,
                Err(error) => tracing::warn!(%error, "removed keys of a map could not be forgotten"),
            }
        }
    }
}

impl Inner {
    async fn forget_old(&self, partition: Partition) -> Result<(), MapError> {
        let retention_ms = u64::try_from(self.options.tombstone_retention.as_millis()).unwrap_or(u64::MAX);
        let before_ms = now_ms().saturating_sub(retention_ms);
        loop {
            let old = self.store.map_tombstones(partition, before_ms, FORGOTTEN_AT_ONCE_MAX).await?;
            let more = old.len() == FORGOTTEN_AT_ONCE_MAX;
            if old.is_empty() {
                return Ok(());
            }
            let held = self.hold(partition, 0).await?;
            let numbers = held.numbers;
            self.commit(held, partition, numbers, vec![], old).await?;
            if !more {
                return Ok(());
            }
        }
    }
}
