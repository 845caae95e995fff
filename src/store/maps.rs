//! Entries of partitioned maps beside the objects: the same engine and the same group commit, and rows of their own.

use bytes::Bytes;

use super::{Horizon, Position, Store, StoreError, StoreFuture};
use crate::domain::map::{Digest, Entry, MapKey, Numbers, Partition, Partitions};

/// A store that keeps maps too.
///
/// The contract beyond that of [`Store`]:
///
/// - A [`MapDelta`] is applied whole or not at all. It is visible when `commit_map` returns, and durable with its position.
/// - The caller serializes the deltas of one partition: it holds the partition from the read until `commit_map` returns.
/// - An entry replaces what is stored where its digest is greater, and is ignored otherwise: the same delta may be applied
///   twice.
/// - A partition's changes are read in the order of their positions, and each key stands there once, at its last change.
pub trait MapStore: Store {
    /// The partitions that were ever written to, in order.
    fn map_partitions(&self) -> StoreFuture<'_, Vec<PartitionState>>;

    /// What is stored of a key, removed ones included.
    fn map_entry<'a>(
        &'a self,
        partition: Partition,
        key: &'a MapKey,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Option<Entry>>;

    /// Writes one or several mutations of a partition.
    ///
    /// # Errors
    /// When they were not written.
    fn commit_map(&self, delta: MapDelta) -> Result<Position, StoreError>;

    /// The changes of a partition behind a position, in their order: as many as the limits allow, and at least one where there
    /// is any.
    fn map_changes<'a>(
        &'a self,
        partition: Partition,
        after: u64,
        limits: PageLimits,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Change>>;

    /// Keys of a partition, removed ones included, in the store's own order: as many as the limits allow, with the names of
    /// their maps. An empty `after` begins; later pages begin at the `next` of the one before.
    fn map_keys<'a>(
        &'a self,
        partition: Partition,
        after: Bytes,
        limits: PageLimits,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, KeyPage>;

    /// Up to `limit` keys that were removed before a time, the oldest first, by the times of their deltas.
    fn map_tombstones(
        &self,
        partition: Partition,
        removed_before_ms: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Tombstone>>;
}

/// One or several mutations of a partition, as they are committed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapDelta {
    /// The partition.
    pub partition: Partition,
    /// How many partitions there are: keys would not be found again among another number of them.
    pub partitions: Partitions,
    /// The partition's numbers once this is applied. The entries have the last positions up to `numbers.position`.
    pub numbers: Numbers,
    /// When it was written, in milliseconds of the caller's clock.
    pub written_ms: u64,
    /// What keys hold from now on, in order.
    pub entries: Vec<(MapKey, Entry)>,
    /// Removed keys of which nothing need be kept any more, unless something else was written to them.
    pub forgotten: Vec<(MapKey, Digest)>,
}

impl MapDelta {
    /// The entries with their positions.
    pub(crate) fn positioned(&self) -> impl Iterator<Item = (u64, &MapKey, &Entry)> {
        let first = (self.numbers.position + 1).saturating_sub(self.entries.len() as u64);
        (first..).zip(&self.entries).map(|(position, (key, entry))| (position, key, entry))
    }
}

/// What is stored of a partition as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// The partition.
    pub partition: Partition,
    /// How many partitions there were when it was written.
    pub partitions: Partitions,
    /// Its numbers.
    pub numbers: Numbers,
    /// Its keys, removed ones included.
    pub keys: u64,
}

/// A removed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The key.
    pub key: MapKey,
    /// The removal's digest.
    pub digest: Digest,
    /// The removal's place in the order of changes.
    pub position: u64,
}

/// A change of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the order of changes.
    pub position: u64,
    /// The key.
    pub key: MapKey,
    /// What the key holds since.
    pub entry: Entry,
}

/// How much one page may hold.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Changes or keys.
    pub entries_max: usize,
    /// Bytes of what they consist of. The last one may carry the page past it.
    pub size_bytes_max: usize,
}

/// Some keys of a partition with their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeyState>,
    /// Where the next page begins; empty when this was the last one. It means something to the same store only.
    pub next: Bytes,
}

/// A key and which mutation it is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// The key.
    pub key: MapKey,
    /// Its entry's digest.
    pub digest: Digest,
    /// Whether it was removed.
    pub removed: bool,
}

impl KeyState {
    /// What it takes of a page, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.key.key.len() + self.key.map.parts().iter().map(|part| part.len()).sum::<usize>()
    }
}
