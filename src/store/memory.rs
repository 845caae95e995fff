//! A store in memory, for tests and for runs that need nothing to last. It holds the domain's own replicas, so it is
//! the plainest statement of what a store must do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::maps::{Change, KeyPage, KeyState, MapDelta, MapStore, PageLimits, PartitionState, Tombstone};
use super::room::Room;
use super::{
    CellPages, Content, Durable, DurableCounts, Horizon, Layout, Measure, ObjectState, Position, Store, StoreError,
    StoreFuture,
};
use crate::domain::cell::{Cell, CellKey, LiveCells, Path, Selection};
use crate::domain::delta::Delta;
use crate::domain::dot::{ActorId, Time};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::map::{Entry, MapKey, Partition};
use crate::domain::object;
use crate::domain::replica::Replica;

/// The store. What it "persists" ends with it.
#[derive(Debug)]
pub struct MemoryStore {
    actor: ActorId,
    // Held for the length of one call and never across an await.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<ObjectName, Replica>,
    records: BTreeMap<Bytes, Bytes>,
    maps: BTreeMap<Partition, MapPartition>,
    closed: bool,
}

/// A partition of the maps.
#[derive(Debug)]
struct MapPartition {
    state: PartitionState,
    /// Each key with what it holds, the position of its last change, and when that was.
    entries: BTreeMap<MapKey, (Entry, u64, u64)>,
}

impl MapPartition {
    fn apply(&mut self, delta: &MapDelta) {
        for (position, key, entry) in delta.positioned() {
            if entry.replaces(self.entries.get(key).map(|(stored, ..)| stored)) {
                self.entries.insert(key.clone(), (entry.clone(), position, delta.written_ms));
            }
        }
        for (key, digest) in &delta.forgotten {
            let tombstone = Entry { digest: *digest, value: None };
            if self.entries.get(key).is_some_and(|(stored, ..)| *stored == tombstone) {
                self.entries.remove(key);
            }
        }
        if delta.numbers.position >= self.state.numbers.position {
            self.state.numbers = delta.numbers;
        }
        self.state.keys = self.entries.len() as u64;
    }

    /// The changes in order: position, key, entry, time.
    fn changes(&self) -> Vec<(u64, &MapKey, &Entry, u64)> {
        let mut changes: Vec<_> =
            self.entries.iter().map(|(key, (entry, position, ms))| (*position, key, entry, *ms)).collect();
        changes.sort_by_key(|(position, ..)| *position);
        changes
    }
}

impl MemoryStore {
    /// An empty store that writes as `actor`.
    pub fn new(actor: ActorId) -> Self {
        Self { actor, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change below is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is written is as durable as it will ever be, so every position is the first.
    fn write(&self, change: impl FnOnce(&mut Inner)) -> Result<Position, StoreError> {
        let mut inner = self.inner();
        if inner.closed {
            return Err(StoreError::Closed);
        }
        change(&mut inner);
        Ok(Position::default())
    }
}

impl Inner {
    /// The listed names from `start` on.
    fn listed(&self, start: Bound<ObjectName>) -> impl Iterator<Item = &ObjectName> {
        let listed = |(_, replica): &(&ObjectName, &Replica)| object::exists(&replica.select(&Selection::values()));
        self.objects.range((start, Bound::Unbounded)).filter(listed).map(|(name, _)| name)
    }
}

/// Where an object stands in the index that a range is of.
fn postings_of(name: &ObjectName, replica: &Replica, range: &IndexRange) -> Vec<Posting> {
    let posting = |term| Posting { term, key: name.key.clone() };
    match range {
        IndexRange::Keys { .. } => vec![posting(None)],
        IndexRange::Terms { index, .. } => {
            let cells = replica.select(&[Selection::Siblings]);
            let entries = cells.siblings().flat_map(|(_, content)| content.index_entries());
            entries.filter(|entry| entry.index == *index).map(|entry| posting(Some(entry.term))).collect()
        }
    }
}

/// What is in memory anyhow is one page.
struct OnePage(Vec<Cell>);

impl CellPages for OnePage {
    fn next(&mut self) -> StoreFuture<'_, Vec<Cell>> {
        ready(std::mem::take(&mut self.0))
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Store for MemoryStore {
    fn actor(&self) -> ActorId {
        self.actor
    }

    fn clock_bound(&self) -> Time {
        Time(0)
    }

    fn raise_clock_bound(&self, _: Time) -> Result<Position, StoreError> {
        self.write(|_| {})
    }

    fn read<'a>(
        &'a self,
        name: &'a ObjectName,
        selections: &'a [Selection],
        _: &'a Horizon,
    ) -> StoreFuture<'a, LiveCells> {
        ready(self.inner().objects.get(name).map(|replica| replica.select(selections)).unwrap_or_default())
    }

    fn open_content<'a>(
        &'a self,
        name: &'a ObjectName,
        path: Path,
        from: Option<CellKey>,
        _: &'a Horizon,
    ) -> StoreFuture<'a, Content> {
        let inner = self.inner();
        let select = |selections: &[Selection]| {
            inner.objects.get(name).map(|replica| replica.select(selections)).unwrap_or_default()
        };
        let is_asked_for = |cell: &&Cell| from.as_ref().is_none_or(|from| cell.key >= *from);
        let cells = select(&[Selection::Subtree(path)]).all().iter().filter(is_asked_for).cloned().collect();
        let values = select(&Selection::values());
        ready(Content { values, pages: Box::new(OnePage(cells)) })
    }

    fn inspect<'a>(&'a self, name: &'a ObjectName, _: &'a Horizon) -> StoreFuture<'a, ObjectState> {
        let values = self.inner().objects.get(name).map(|replica| replica.select(&Selection::values()));
        ready(ObjectState { values: values.unwrap_or_default(), layout: Layout::Packed, floors: 0 })
    }

    fn is_durable(&self, _: Position) -> bool {
        true
    }

    fn failure(&self) -> Option<StoreError> {
        None
    }

    fn measures(&self) -> Vec<Measure> {
        Vec::new()
    }

    fn durable_counts(&self) -> DurableCounts {
        DurableCounts::default()
    }

    fn durable(&self, _: Position) -> Durable {
        Durable::reached()
    }

    fn room(&self) -> Option<&Room> {
        None
    }

    fn commit(&self, name: ObjectName, delta: Delta) -> Result<Position, StoreError> {
        self.write(|inner| {
            let replica = inner.objects.entry(name.clone()).or_default();
            replica.apply(&delta);
            replica.forget_floors();
            if replica.is_empty() {
                inner.objects.remove(&name);
            }
        })
    }

    fn keys<'a>(
        &'a self,
        bucket: &'a BucketName,
        after: Option<&'a Bytes>,
        limit: usize,
        _: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Bytes>> {
        let named = |key: &Bytes| ObjectName { bucket: bucket.clone(), key: key.clone() };
        let start = after.map_or_else(|| Bound::Included(named(&Bytes::new())), |key| Bound::Excluded(named(key)));
        let inner = self.inner();
        let names = inner.listed(start).take_while(|name| name.bucket == *bucket);
        ready(names.take(limit).map(|name| name.key.clone()).collect())
    }

    fn buckets<'a>(
        &'a self,
        bucket_type: &'a Bytes,
        after: Option<&'a Bytes>,
        limit: usize,
        _: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Bytes>> {
        let first = BucketName { bucket_type: bucket_type.clone(), bucket: after.cloned().unwrap_or_default() };
        let inner = self.inner();
        let start = Bound::Included(ObjectName { bucket: first, key: Bytes::new() });
        let names = inner.listed(start).map(|name| &name.bucket).take_while(|b| b.bucket_type == *bucket_type);
        let mut buckets: Vec<Bytes> = names.map(|b| b.bucket.clone()).filter(|bucket| after != Some(bucket)).collect();
        buckets.dedup();
        buckets.truncate(limit);
        ready(buckets)
    }

    fn postings<'a>(
        &'a self,
        bucket: &'a BucketName,
        range: &'a IndexRange,
        after: Option<&'a Posting>,
        limit: usize,
        _: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Posting>> {
        let inner = self.inner();
        let start = Bound::Included(ObjectName { bucket: bucket.clone(), key: Bytes::new() });
        let names = inner.listed(start).take_while(|name| name.bucket == *bucket);
        let postings = names.flat_map(|name| postings_of(name, &inner.objects[name], range));
        let wanted = |posting: &Posting| range.contains(posting) && after.is_none_or(|after| posting > after);
        // Values side by side may hold the same entry.
        let found: BTreeSet<Posting> = postings.filter(wanted).collect();
        ready(found.into_iter().take(limit).collect())
    }

    fn records(&self) -> StoreFuture<'_, Vec<(Bytes, Bytes)>> {
        ready(self.inner().records.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn put_record(&self, key: Bytes, value: Option<Bytes>) -> Result<Position, StoreError> {
        self.write(|inner| {
            match value {
                Some(value) => inner.records.insert(key, value),
                None => inner.records.remove(&key),
            };
        })
    }

    fn close(&self) {
        self.inner().closed = true;
    }
}

impl MapStore for MemoryStore {
    fn map_partitions(&self) -> StoreFuture<'_, Vec<PartitionState>> {
        ready(self.inner().maps.values().map(|partition| partition.state).collect())
    }

    fn map_entry<'a>(
        &'a self,
        partition: Partition,
        key: &'a MapKey,
        _: &'a Horizon,
    ) -> StoreFuture<'a, Option<Entry>> {
        let inner = self.inner();
        let stored = inner.maps.get(&partition).and_then(|partition| partition.entries.get(key));
        ready(stored.map(|(entry, ..)| entry.clone()))
    }

    fn commit_map(&self, delta: MapDelta) -> Result<Position, StoreError> {
        self.write(|inner| {
            let MapDelta { partition, partitions, numbers, .. } = delta;
            let state = PartitionState { partition, partitions, numbers, keys: 0 };
            let new = || MapPartition { state, entries: BTreeMap::new() };
            inner.maps.entry(partition).or_insert_with(new).apply(&delta);
        })
    }

    fn map_changes<'a>(
        &'a self,
        partition: Partition,
        after: u64,
        limits: PageLimits,
        _: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Change>> {
        let inner = self.inner();
        let mut changes = Vec::new();
        let mut size_bytes = 0;
        for (position, key, entry, _) in inner.maps.get(&partition).map(MapPartition::changes).unwrap_or_default() {
            let full = changes.len() >= limits.entries_max.max(1) || size_bytes >= limits.size_bytes_max.max(1);
            if position > after && !full {
                size_bytes += key.key.len() + entry.value.as_ref().map_or(0, Bytes::len);
                changes.push(Change { position, key: key.clone(), entry: entry.clone() });
            }
        }
        ready(changes)
    }

    fn map_keys<'a>(
        &'a self,
        partition: Partition,
        after: Bytes,
        limits: PageLimits,
        _: &'a Horizon,
    ) -> StoreFuture<'a, KeyPage> {
        let inner = self.inner();
        let limit = limits.entries_max;
        // A page begins at the number of keys before it, in decimal: nobody writes while a test pages.
        let skipped = std::str::from_utf8(&after).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let entries = inner.maps.get(&partition).map(|partition| partition.entries.iter());
        let state = |(key, (entry, ..)): (&MapKey, &(Entry, u64, u64))| KeyState {
            key: key.clone(),
            digest: entry.digest,
            removed: entry.value.is_none(),
        };
        let keys: Vec<_> = entries.into_iter().flatten().skip(skipped).take(limit).map(state).collect();
        let next = if keys.len() < limit { Bytes::new() } else { (skipped + limit).to_string().into() };
        ready(KeyPage { keys, next })
    }

    fn map_tombstones(
        &self,
        partition: Partition,
        removed_before_ms: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Tombstone>> {
        let inner = self.inner();
        let mut changes = inner.maps.get(&partition).map(MapPartition::changes).unwrap_or_default();
        changes.retain(|(_, _, entry, ms)| entry.value.is_none() && *ms < removed_before_ms);
        changes.sort_by_key(|(.., ms)| *ms);
        let tombstone = |(position, key, entry, _): (u64, &MapKey, &Entry, u64)| {
            let (key, digest) = (key.clone(), entry.digest);
            Tombstone { key, digest, position }
        };
        ready(changes.into_iter().take(limit).map(tombstone).collect())
    }
}
