//! A store in memory, for tests and for runs that need nothing to last. It holds the domain's own replicas, so it is
//! the plainest statement of what a store must do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{CellPages, Content, Horizon, Layout, ObjectState, Position, Store, StoreError, StoreFuture};
use crate::domain::cell::{Cell, CellKey, LiveCells, Path, Selection};
use crate::domain::delta::Delta;
use crate::domain::dot::{ActorId, Time};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::{BucketName, ObjectName};
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
    closed: bool,
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

    fn room(&self) -> Option<StoreFuture<'_, ()>> {
        None
    }

    fn is_durable(&self, _: Position) -> bool {
        true
    }

    fn durable(&self, _: Position) -> StoreFuture<'static, ()> {
        ready(())
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
