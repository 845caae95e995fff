//! What followers may be told: what no power failure can take back. A standby that held more would have changes that the
//! primary makes once more in another way.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::{Inner, MapError, Maps};
use crate::domain::map::{Numbers, Partition};
use crate::store::{Horizon, Position};

/// Where writes are answered before they are synced, tells followers of them later, until the maps are gone.
pub(super) fn start(inner: &Arc<Inner>) {
    if inner.store.answers_before_sync() {
        for partition in inner.options.partitions.all() {
            tokio::spawn(run(Arc::downgrade(inner), partition, inner.cell(partition).answered.subscribe()));
        }
    }
}

async fn run(maps: Weak<Inner>, partition: Partition, mut answered: watch::Receiver<(Position, Numbers)>) {
    while answered.changed().await.is_ok() {
        let (position, numbers) = *answered.borrow_and_update();
        let Some(synced) = maps.upgrade().map(|inner| inner.store.synced(position)) else { return };
        if synced.await.is_err() {
            return;
        }
        let Some(inner) = maps.upgrade() else { return };
        inner.publish(partition, numbers);
    }
}

impl Inner {
    /// Waits until no power failure can take what was seen.
    pub(super) async fn seen_synced(&self, horizon: &Horizon) -> Result<(), MapError> {
        self.synced(horizon.position()).await
    }

    /// Waits until no power failure can take a write.
    pub(super) async fn synced(&self, position: Position) -> Result<(), MapError> {
        if !self.store.is_synced(position) {
            self.store.hasten_sync();
            self.store.synced(position).await?;
        }
        Ok(())
    }
}

impl Maps {
    /// Has all that was answered by now reach those who follow.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn settle(&self) -> Result<(), MapError> {
        let inner = &self.inner;
        for partition in inner.options.partitions.all() {
            let (position, numbers) = *inner.cell(partition).answered.borrow();
            inner.synced(position).await?;
            inner.publish(partition, numbers);
        }
        Ok(())
    }
}
