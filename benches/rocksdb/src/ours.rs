//! Ombak's embedded store, used as its engine uses it for plain objects.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ombak::domain::cell::{LiveCells, Selection};
use ombak::domain::context::CausalContext;
use ombak::domain::dot::{ActorId, Dot, Time};
use ombak::domain::key::{BucketName, ObjectName};
use ombak::domain::object::{Content, ObjectLimits, Put, PutCondition};
use ombak::domain::props::BucketProps;
use ombak::server::Idleness;
use ombak::store::embedded::{EmbeddedOptions, EmbeddedStore, MemoryShares};
use ombak::store::{Horizon, Store};
use tokio::sync::MutexGuard;

use crate::values::name_of_key;
use crate::{Engine, Rows};

const NO_LIMITS: ObjectLimits = ObjectLimits { siblings_max: usize::MAX, object_size_bytes_max: usize::MAX };

/// The options for a store that takes no more memory than this, in bytes.
fn options(dir: &Path, memory: u64, idleness: Arc<Idleness>) -> EmbeddedOptions {
    let mut options = EmbeddedOptions::new(dir.to_owned(), ActorId(7));
    options.idleness = Some(idleness);
    let shares = MemoryShares::of(memory, None);
    options.unapplied_size_bytes_max = shares.unapplied_bytes as usize;
    options.cache_size_bytes = shares.cache_bytes;
    options.rest_size_bytes = shares.rest_bytes;
    options
}

pub struct Ombak {
    store: EmbeddedStore,
    bucket: BucketName,
    props: BucketProps,
    time: AtomicU64,
}

impl Ombak {
    pub fn open(dir: &Path, memory: u64, idleness: Arc<Idleness>) -> Self {
        let store = EmbeddedStore::open(options(dir, memory, idleness)).expect("the directory does not open");
        // The clock in microseconds, as the engine's.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is wrong").as_micros() as u64;
        let time = now.max(store.clock_bound().0 + 1);
        // An hour ahead at one write a microsecond.
        store.raise_clock_bound(Time(time + 3_600_000_000)).expect("the store takes no writes");
        let bucket = BucketName::new(None, "bench".into());
        Self { store, bucket, props: BucketProps::of_default_type(3), time: AtomicU64::new(time) }
    }

    fn name(&self, key: u64) -> ObjectName {
        ObjectName { bucket: self.bucket.clone(), key: name_of_key(key) }
    }
}

impl Engine for Ombak {
    async fn put(&self, key: u64, value: Bytes, lock: MutexGuard<'_, ()>) {
        let name = self.name(key);
        // As the engine reserves it: twice what comes, and a little.
        let room = match self.store.room() {
            Some(room) => Some(room.reserve(2 * value.len() + 4096).await),
            None => None,
        };
        let horizon = Horizon::default();
        let mut content = Some(Content { value, ..Content::default() });
        let mut resolve = |seen: LiveCells| {
            let dot = Dot { actor: self.store.actor(), time: Time(self.time.fetch_add(1, Ordering::Relaxed)) };
            let content = Content {
                modified: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
                ..content.take().expect("it is asked for once")
            };
            let put = Put { content, context: CausalContext::new(), condition: PutCondition::default() };
            let written = put.resolve(&seen, dot, &self.props, NO_LIMITS).expect("nothing forbids it");
            Some(written.delta)
        };
        self.store
            .update(&name, Selection::values(), &horizon, &mut resolve)
            .await
            .expect("the store takes no writes");
        drop((lock, room));
        let position = horizon.position();
        if !self.store.is_durable(position) {
            self.store.durable(position).await.expect("the write failed");
        }
    }

    async fn get(&self, key: u64) -> usize {
        let horizon = Horizon::default();
        let seen = self.store.read(&self.name(key), &Selection::values(), &horizon).await.expect("the store failed");
        seen.siblings().map(|(_, content)| content.value.len()).sum()
    }

    fn rows(&self) -> Rows {
        let counts = self.store.counts();
        Rows { read: counts.read, put: counts.put, put_bytes: counts.put_bytes }
    }

    fn close(&self) {
        self.store.close();
    }
}
