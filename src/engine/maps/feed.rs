//! What a standby is fed from, and how far it has come.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Change, KeyPage, MapError, Maps, Mutation, PageLimits};
use crate::domain::map::{Condition, Digest, Entry, MapKey, Partition};
use crate::store::{Horizon, StoreError};

/// Begins the names of records about standbys.
const STANDBY_RECORDS: &str = "map_standby/";

/// How far a standby has come, as the primary remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyMark {
    /// The standby's identity: an emptied one is another.
    pub node: u64,
    /// The positions up to which it has acknowledged everything, by the partition's index.
    // Under another name than when marks went by the wall clock and it was not noted what had been forgotten: those do not
    // count.
    #[serde(rename = "acknowledged")]
    pub positions: Vec<u64>,
}

impl Maps {
    /// What is stored of a key, removed ones included, once it is synced.
    pub async fn entry(&self, partition: Partition, key: &MapKey) -> Result<Option<Entry>, MapError> {
        let horizon = Horizon::default();
        let entry = self.inner.store.map_entry(partition, key, &horizon).await?;
        self.inner.seen_synced(&horizon).await?;
        Ok(entry)
    }

    /// The changes of a partition behind a position, each key at its last one, once they are synced.
    pub async fn changes(&self, partition: Partition, after: u64, limits: PageLimits) -> Result<Vec<Change>, MapError> {
        let horizon = Horizon::default();
        let changes = self.inner.store.map_changes(partition, after, limits, &horizon).await?;
        // A standby must not hold what a crash here may take back: its number would be given to something else. All that was
        // seen, since a change that is left out may have been followed by a later one of the same key.
        self.inner.seen_synced(&horizon).await?;
        Ok(changes)
    }

    /// The position up to which a partition is synced, now and whenever it rises.
    pub fn synced_position(&self, partition: Partition) -> watch::Receiver<u64> {
        self.inner.cell(partition).synced.subscribe()
    }

    /// The position up to which removals may have been forgotten. Whoever follows from before it may have missed some.
    pub fn forgotten_to(&self, partition: Partition) -> u64 {
        self.inner.cell(partition).forgotten_to.load(Ordering::SeqCst)
    }

    /// Keys of a partition with their digests, removed ones included, once they are synced; see
    /// [`MapStore::map_keys`](crate::store::maps::MapStore::map_keys).
    pub async fn keys(&self, partition: Partition, after: Bytes, limits: PageLimits) -> Result<KeyPage, MapError> {
        let horizon = Horizon::default();
        let page = self.inner.store.map_keys(partition, after, limits, &horizon).await?;
        self.inner.seen_synced(&horizon).await?;
        Ok(page)
    }

    /// How many keys there are, removed ones included.
    pub async fn key_count(&self) -> Result<u64, MapError> {
        Ok(self.inner.store.map_partitions().await?.iter().map(|state| state.keys).sum())
    }

    /// Those of some keys that are unknown here, or at a lower digest: their places in the list.
    pub async fn find_missing(&self, partition: Partition, keys: &[(MapKey, Digest)]) -> Result<Vec<usize>, MapError> {
        let horizon = Horizon::default();
        let mut missing = Vec::new();
        for (at, (key, digest)) in keys.iter().enumerate() {
            let stored = self.inner.store.map_entry(partition, key, &horizon).await?;
            if stored.is_none_or(|stored| stored.digest < *digest) {
                missing.push(at);
            }
        }
        self.inner.seen_synced(&horizon).await?;
        Ok(missing)
    }

    /// Writes that a key is removed, where nothing at all is known of it: so that a standby which still has it, because its
    /// removal has been forgotten meanwhile, hears of it.
    pub async fn bury(&self, partition: Partition, key: MapKey) -> Result<(), MapError> {
        self.mutate(partition, key, Mutation::Bury, Condition::None).await.map(|_| ())
    }

    /// How far a standby had come when it was last heard of. `None` where it was not, or where removals that it had not
    /// acknowledged may have been forgotten since.
    pub async fn standby_mark(&self, address: &str) -> Result<Option<StandbyMark>, MapError> {
        let name = record_name(address);
        let records = self.inner.store.records().await?;
        let Some((_, value)) = records.into_iter().find(|(key, _)| *key == name) else { return Ok(None) };
        // One that says nothing is as good as none: all keys are compared.
        let Ok(mark) = serde_json::from_slice::<StandbyMark>(&value) else { return Ok(None) };
        let misses = |(partition, &position)| self.forgotten_to(partition) > position;
        let fits = mark.positions.len() == self.partitions().count() as usize
            && !self.partitions().all().zip(&mark.positions).any(misses);
        Ok(fits.then_some(mark))
    }

    /// Remembers how far a standby has come.
    pub async fn put_standby_mark(&self, address: &str, mark: &StandbyMark) -> Result<(), MapError> {
        let value = serde_json::to_vec(mark).map_err(|_| StoreError::Damaged { what: "standby mark" })?;
        let position = self.inner.store.put_record(record_name(address), Some(value.into()))?;
        Ok(self.inner.store.durable(position).await?)
    }
}

fn record_name(address: &str) -> Bytes {
    format!("{STANDBY_RECORDS}{address}").into()
}
