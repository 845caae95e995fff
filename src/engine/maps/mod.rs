//! The maps of Atomix: put, get, remove, and what a backup takes in.
//!
//! Mutations of one partition are serialized by its lock, from the read of what they depend on until the store has them. The
//! lock holds the partition's numbers, so that whoever draws one has the lock.

mod expiry;
mod feed;
mod marks;
mod synced;

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::timeout;

use self::expiry::RetentionClock;
use self::marks::Ledger;
use super::wall_clock;
use crate::domain::map::{
    Condition, Digest, Entry, MapKey, MapName, Numbers, OptimisticLockFailure, Partition, Partitions, Versioned,
};
use crate::store::maps::{MapDelta, MapStore};
use crate::store::room::Reservation;
use crate::store::{Horizon, Position, StoreError};

pub use self::feed::StandbyMark;
pub use crate::store::maps::{Change, KeyPage, KeyState, PageLimits};

/// What the maps are told once.
#[derive(Clone, Debug)]
pub struct MapOptions {
    /// How many partitions there are. A directory that holds maps keeps the number it began with.
    pub partitions: Partitions,
    /// The protocols that are known, as namespace and name. None: all are.
    pub protocols: Vec<(Bytes, Bytes)>,
    /// The longest key, in bytes.
    pub key_size_bytes_max: usize,
    /// The largest value, in bytes.
    pub value_size_bytes_max: usize,
    /// The longest of the four parts of a map's name, in bytes.
    pub name_size_bytes_max: usize,
    /// How long it is remembered that a key was removed, of the time during which the server runs.
    pub tombstone_retention: Duration,
    /// How long a mutation waits for its turn in the partition.
    pub request_timeout: Duration,
}

/// Why an operation on a map failed. Nothing of it was applied, but where the store failed while it was writing.
#[derive(Debug, Error)]
pub enum MapError {
    /// There is no such protocol or partition (`atomix.md` §3: one text for both).
    #[error("map not found")]
    MapNotFound,
    /// A version was asked for that the key does not have.
    #[error(transparent)]
    OptimisticLockFailure(#[from] OptimisticLockFailure),
    /// The key hashes to another partition.
    #[error("the key belongs to partition {home}")]
    KeyElsewhere {
        /// The number of the partition that it hashes to.
        home: u32,
    },
    /// The key is longer than the limit.
    #[error("the key is longer than {bytes_max} bytes")]
    KeyTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The value is larger than the limit.
    #[error("the value is larger than {bytes_max} bytes")]
    ValueTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// A part of the map's name is longer than the limit.
    #[error("a name in the header is longer than {bytes_max} bytes")]
    NameTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// An entry has a digest that no primary can have drawn.
    #[error("malformed entry: the digest's numbers are out of range")]
    DigestOutOfRange,
    /// The mutation's turn did not come in time. It was not begun.
    #[error("the partition is busy")]
    Busy,
    /// The partition's numbers have run out.
    #[error("the partition has no numbers left")]
    NumbersExhausted,
    /// The directory's maps have another number of partitions.
    #[error("the maps of this data directory have {found} partitions and not {configured}; set map_partitions to that")]
    OtherPartitions {
        /// What it has.
        found: u32,
        /// What was asked for.
        configured: u32,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task that carried it out broke down. What it wrote is not known.
    #[error("outcome unknown")]
    Interrupted,
}

/// How far a stream's requests were taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// That many requests, from the first on, are durable whole. The next one, if there is any, comes from a primary that has
    /// been replaced, and nothing of it or of those behind it was kept.
    pub requests: usize,
}

/// What one request of a stream asks to be kept.
pub type Entries = Vec<(MapKey, Entry)>;

/// Runs the maps' operations on one store. Cloning gives another handle to the same maps.
#[derive(Clone)]
pub struct Maps {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn MapStore>,
    options: MapOptions,
    /// By index.
    partitions: Box<[PartitionCell]>,
    /// The terms of all partitions, by index.
    terms: watch::Sender<Vec<u64>>,
    /// By which removed keys grow old.
    retention_clock: RetentionClock,
}

struct PartitionCell {
    ledger: Arc<Mutex<Ledger>>,
    /// The last commit that is durable and may not be synced: where it stands in the store, and the numbers with it.
    answered: watch::Sender<(Position, Numbers)>,
    /// The position up to which everything is synced.
    synced: watch::Sender<u64>,
    /// The position up to which removals may have been forgotten.
    forgotten_to: AtomicU64,
}

/// A partition's ledger, for whoever may change them, and room in the store for what is written then.
struct Held {
    ledger: OwnedMutexGuard<Ledger>,
    _room: Option<Reservation>,
}

impl Deref for Held {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

/// What a write takes in memory beside what it brings, in bytes.
const WRITE_BYTES: usize = 4096;

/// What a mutation makes of a key.
enum Mutation {
    Put(Bytes),
    Remove,
    /// Writes a tombstone where nothing at all is known of the key.
    Bury,
}

/// What came of it.
struct Mutated {
    before: Option<Entry>,
    digest: Option<Digest>,
}

impl Maps {
    /// The maps of a store. Must be called inside a tokio runtime, since tombstones are forgotten in the background.
    ///
    /// # Errors
    /// [`MapError::OtherPartitions`], or when the store cannot be read.
    pub async fn start(store: Arc<dyn MapStore>, options: MapOptions) -> Result<Self, MapError> {
        let mut numbers = vec![Numbers::default(); options.partitions.count() as usize];
        for state in store.map_partitions().await? {
            if state.partitions != options.partitions {
                let (found, configured) = (state.partitions.count(), options.partitions.count());
                return Err(MapError::OtherPartitions { found, configured });
            }
            if let Some(numbers) = numbers.get_mut(state.partition.index()) {
                *numbers = state.numbers;
            }
        }
        let (terms, _) = watch::channel(numbers.iter().map(|numbers| numbers.term).collect());
        let records = store.records().await?;
        let cell = |(partition, numbers): (Partition, Numbers)| {
            let marks = marks::find(&records, partition)?;
            let (answered, _) = watch::channel((Position::default(), numbers));
            let (synced, _) = watch::channel(numbers.position);
            let forgotten_to = AtomicU64::new(marks.forgotten_to);
            let ledger = Arc::new(Mutex::new(Ledger::new(numbers, marks)));
            Ok(PartitionCell { ledger, answered, synced, forgotten_to })
        };
        let partitions = options.partitions.all().zip(numbers).map(cell).collect::<Result<_, StoreError>>()?;
        let wall_ms = u64::try_from(wall_clock().as_millis()).unwrap_or(u64::MAX);
        let retention_clock = RetentionClock::start(&records, wall_ms)?;
        let inner = Arc::new(Inner { store, options, partitions, terms, retention_clock });
        expiry::start(&inner);
        synced::start(&inner);
        Ok(Self { inner })
    }

    /// Leaves what the next start goes on from: no number is left out, and all the time that was counted counts. Without it, or
    /// after a mutation that follows it, all is as after a crash.
    pub fn close(&self) {
        let inner = &self.inner;
        let mut left = inner.keep_count();
        for partition in self.partitions().all() {
            // Whoever has it is at work, and may use what would be given back.
            if let Ok(mut held) = inner.cell(partition).ledger.clone().try_lock_owned() {
                left = left.and_then(|()| inner.give_back(&mut held, partition));
            }
        }
        match left {
            // Of a store that failed all is told.
            Ok(()) | Err(StoreError::Closed | StoreError::ReadOnly { .. }) => {}
            Err(error) => tracing::warn!(%error, "the maps end as after a crash"),
        }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> Partitions {
        self.inner.options.partitions
    }

    /// The store's identity, by which one data directory is told from another.
    pub fn node(&self) -> u64 {
        self.inner.store.actor().0
    }

    /// The terms of all partitions, by index, now and whenever one changes.
    pub fn terms(&self) -> watch::Receiver<Vec<u64>> {
        self.inner.terms.subscribe()
    }

    /// Whether there are maps of a protocol.
    pub fn knows_protocol(&self, namespace: &[u8], name: &[u8]) -> bool {
        let known = &self.inner.options.protocols;
        known.is_empty() || known.iter().any(|(space, known)| (&space[..], &known[..]) == (namespace, name))
    }

    /// The partition that a request names, where the request's map and key may be in it.
    ///
    /// # Errors
    /// [`MapError::MapNotFound`], [`MapError::KeyElsewhere`], [`MapError::KeyTooLarge`] or [`MapError::NameTooLarge`].
    pub fn locate(&self, partition: u32, key: &MapKey) -> Result<Partition, MapError> {
        let found = self.find(partition, &key.map)?;
        let home = self.partitions().home_of(&key.key);
        if home != found {
            return Err(MapError::KeyElsewhere { home: home.number() });
        }
        let bytes_max = self.inner.options.key_size_bytes_max;
        if key.key.len() > bytes_max {
            return Err(MapError::KeyTooLarge { bytes_max });
        }
        Ok(found)
    }

    /// The partition of a map by its number.
    ///
    /// # Errors
    /// [`MapError::MapNotFound`] or [`MapError::NameTooLarge`].
    pub fn find(&self, partition: u32, map: &MapName) -> Result<Partition, MapError> {
        if !self.knows_protocol(&map.protocol_namespace, &map.protocol_name) {
            return Err(MapError::MapNotFound);
        }
        let bytes_max = self.inner.options.name_size_bytes_max;
        if map.parts().iter().any(|part| part.len() > bytes_max) {
            return Err(MapError::NameTooLarge { bytes_max });
        }
        self.partitions().get(partition).ok_or(MapError::MapNotFound)
    }

    /// What a key holds.
    pub async fn get(&self, partition: Partition, key: &MapKey) -> Result<Option<Versioned>, MapError> {
        let horizon = Horizon::default();
        let entry = self.inner.store.map_entry(partition, key, &horizon).await?;
        self.inner.seen(&horizon).await?;
        Ok(entry.and_then(Entry::versioned))
    }

    /// Stores a value. Its version.
    ///
    /// # Errors
    /// [`MapError::OptimisticLockFailure`] where the condition does not hold.
    pub async fn put(
        &self,
        partition: Partition,
        key: MapKey,
        value: Bytes,
        condition: Condition,
    ) -> Result<u64, MapError> {
        let bytes_max = self.inner.options.value_size_bytes_max;
        if value.len() > bytes_max {
            return Err(MapError::ValueTooLarge { bytes_max });
        }
        let mutated = self.mutate(partition, key, Mutation::Put(value), condition).await?;
        Ok(mutated.digest.map_or(0, |digest| digest.timestamp))
    }

    /// Removes a key. What it held; a key that is not there is removed already.
    ///
    /// # Errors
    /// [`MapError::OptimisticLockFailure`] where the condition does not hold.
    pub async fn remove(
        &self,
        partition: Partition,
        key: MapKey,
        condition: Condition,
    ) -> Result<Option<Versioned>, MapError> {
        let mutated = self.mutate(partition, key, Mutation::Remove, condition).await?;
        Ok(mutated.before.and_then(Entry::versioned))
    }

    /// Holds an entry that another primary sends against the limits.
    ///
    /// # Errors
    /// Those of [`Maps::locate`], [`MapError::ValueTooLarge`] or [`MapError::DigestOutOfRange`].
    pub fn check_entry(&self, partition: u32, key: &MapKey, entry: &Entry) -> Result<Partition, MapError> {
        let partition = self.locate(partition, key)?;
        if !entry.digest.is_sound() {
            return Err(MapError::DigestOutOfRange);
        }
        let bytes_max = self.inner.options.value_size_bytes_max;
        if entry.value.as_ref().is_some_and(|value| value.len() > bytes_max) {
            return Err(MapError::ValueTooLarge { bytes_max });
        }
        Ok(partition)
    }

    /// Takes in what a primary sends for a partition, request by request, each whole or not at all: all together in one commit.
    /// The entries have been checked. When it returns, what was taken in is synced: the primary will never send it again.
    pub async fn apply(&self, partition: Partition, requests: Vec<Entries>) -> Result<Applied, MapError> {
        let brought_bytes = requests
            .iter()
            .flatten()
            .map(|(key, entry)| key.key.len() + entry.value.as_ref().map_or(0, Bytes::len))
            .sum();
        let held = self.inner.hold(partition, brought_bytes).await?;
        let inner = self.inner.clone();
        detached(async move { inner.apply(held, partition, requests).await }).await
    }

    async fn mutate(
        &self,
        partition: Partition,
        key: MapKey,
        mutation: Mutation,
        condition: Condition,
    ) -> Result<Mutated, MapError> {
        let value_bytes = if let Mutation::Put(value) = &mutation { value.len() } else { 0 };
        let brought_bytes = key.key.len() + value_bytes;
        let held = self.inner.hold(partition, brought_bytes).await?;
        let inner = self.inner.clone();
        detached(async move { inner.mutate(held, partition, key, mutation, condition).await }).await
    }
}

/// Runs what holds a partition to its end, whether or not somebody waits for it: a caller that leaves would free the partition
/// before its write can be read.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, MapError>> + Send + 'static,
) -> Result<T, MapError> {
    tokio::spawn(work).await.unwrap_or(Err(MapError::Interrupted))
}

impl Inner {
    /// Waits for room in the store and for the partition. Waiters get it in the order in which they asked.
    async fn hold(&self, partition: Partition, brought_bytes: usize) -> Result<Held, MapError> {
        let patience = self.options.request_timeout;
        // The rows, and the entry that waits for the log.
        let bytes = brought_bytes.saturating_mul(2).saturating_add(WRITE_BYTES);
        let room = match self.store.room() {
            Some(room) => Some(room.reserve_within(bytes, patience).await.map_err(|_| MapError::Busy)?),
            None => None,
        };
        let lock = self.cell(partition).ledger.clone();
        // First tried without a timer: where few write, most do not wait.
        let ledger = match lock.clone().try_lock_owned() {
            Ok(ledger) => ledger,
            Err(_) => timeout(patience, lock.lock_owned()).await.map_err(|_| MapError::Busy)?,
        };
        Ok(Held { ledger, _room: room })
    }

    fn cell(&self, partition: Partition) -> &PartitionCell {
        &self.partitions[partition.index()]
    }

    async fn mutate(
        &self,
        mut held: Held,
        partition: Partition,
        key: MapKey,
        mutation: Mutation,
        condition: Condition,
    ) -> Result<Mutated, MapError> {
        let horizon = Horizon::default();
        let before = self.store.map_entry(partition, &key, &horizon).await?;
        if let Err(failure) = condition.check(before.as_ref()) {
            drop(held);
            self.seen(&horizon).await?;
            return Err(failure.into());
        }
        let value = match mutation {
            Mutation::Put(value) => Some(value),
            Mutation::Remove if before.as_ref().is_some_and(|entry| entry.value.is_some()) => None,
            Mutation::Bury if before.is_none() => None,
            // Nothing to remove, and no number is used up for it.
            Mutation::Remove | Mutation::Bury => {
                drop(held);
                self.seen(&horizon).await?;
                return Ok(Mutated { before: None, digest: None });
            }
        };
        let mut numbers = held.numbers;
        let digest = numbers.draw().ok_or(MapError::NumbersExhausted)?;
        self.reserve(&mut held, partition, digest.timestamp).await?;
        self.commit(held, partition, numbers, vec![(key, Entry { digest, value })], vec![]).await?;
        Ok(Mutated { before, digest: Some(digest) })
    }

    async fn apply(&self, mut held: Held, partition: Partition, requests: Vec<Entries>) -> Result<Applied, MapError> {
        let horizon = Horizon::default();
        let mut numbers = held.numbers;
        let mut taken_in = 0;
        let mut kept = Vec::new();
        // What this commit itself has put where, by its place in `kept`.
        let mut latest: HashMap<MapKey, usize> = HashMap::new();
        for entries in requests {
            if entries.iter().any(|(_, entry)| numbers.is_stale(entry.digest)) {
                break;
            }
            for (key, entry) in entries {
                let replaces = match latest.get(&key) {
                    Some(&at) => entry.replaces(kept.get(at).map(|(_, kept)| kept)),
                    None => entry.replaces(self.store.map_entry(partition, &key, &horizon).await?.as_ref()),
                };
                numbers.see(entry.digest, replaces);
                if replaces {
                    latest.insert(key.clone(), kept.len());
                    kept.push((key, entry));
                }
            }
            taken_in += 1;
        }
        if numbers == held.numbers {
            drop(held);
            self.seen_synced(&horizon).await?;
        } else {
            // Others read these numbers before they are synced.
            self.reserve(&mut held, partition, numbers.timestamp).await?;
            let position = self.commit(held, partition, numbers, kept, vec![]).await?;
            self.synced(position).await?;
        }
        Ok(Applied { requests: taken_in })
    }

    /// Commits a delta and waits until it is durable. Where it stands. The one place that knows how long a partition is held.
    async fn commit(
        &self,
        mut held: Held,
        partition: Partition,
        numbers: Numbers,
        entries: Entries,
        forgotten: Vec<(MapKey, Digest)>,
    ) -> Result<Position, MapError> {
        let written_ms = self.retention_clock.now_ms();
        let partitions = self.options.partitions;
        let delta = MapDelta { partition, partitions, numbers, written_ms, entries, forgotten };
        let position = self.store.commit_map(delta)?;
        held.numbers = numbers;
        // It is visible: the next mutation goes on from it, while this one waits for the disk.
        drop(held);
        self.store.durable(position).await?;
        if self.store.is_synced(position) {
            self.publish(partition, numbers);
        } else {
            let is_later = |answered: &mut (Position, Numbers)| {
                let is_later = position > answered.0;
                if is_later {
                    *answered = (position, numbers);
                }
                is_later
            };
            self.cell(partition).answered.send_if_modified(is_later);
        }
        Ok(position)
    }

    /// Waits until everything that was seen is durable.
    async fn seen(&self, horizon: &Horizon) -> Result<(), MapError> {
        let position = horizon.position();
        if self.store.is_durable(position) { Ok(()) } else { Ok(self.store.durable(position).await?) }
    }

    /// Tells those who follow the partition what is synced. Others may have told them more already.
    fn publish(&self, partition: Partition, numbers: Numbers) {
        let rises = |known: &mut u64, now: u64| {
            let rises = now > *known;
            *known = now.max(*known);
            rises
        };
        self.cell(partition).synced.send_if_modified(|known| rises(known, numbers.position));
        self.terms.send_if_modified(|terms| rises(&mut terms[partition.index()], numbers.term));
    }
}

#[cfg(test)]
mod tests;
