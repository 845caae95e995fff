//! Durability `relaxed`: a power failure takes what was not synced, and what maps have told to anybody is never told again of
//! something else.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::path::Path as DirPath;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ombak::domain::datatype::Operation;
use ombak::domain::datatype::limits::UpdateLimits;
use ombak::domain::dot::Time;
use ombak::domain::key::{BucketName, ObjectName};
use ombak::domain::map::{Condition, Digest, Entry, MapKey, MapName, Partitions};
use ombak::domain::object::ObjectLimits;
use ombak::engine::maps::{MapOptions, Maps, PageLimits};
use ombak::engine::{DeleteMode, Engine, EngineOptions, Update, WriteOptions};
use ombak::store::embedded::{Disk, Durability, EmbeddedOptions, EmbeddedStore};
use ombak::store::{Position, Store};
use tempfile::TempDir;

use super::support::*;

/// A disk that remembers what lay where something was written that is not synced.
#[derive(Default)]
struct LosingDisk {
    unsynced: Mutex<Vec<(File, u64, Vec<u8>)>>,
}

impl Disk for LosingDisk {
    fn create(&self, path: &DirPath, _is_synced_at_once: bool) -> io::Result<File> {
        File::options().create_new(true).read(true).write(true).open(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut before = vec![0; bytes.len()];
        // What lies behind the end of the file is as good as zeros.
        let _ = file.read_at(&mut before, offset)?;
        self.unsynced.lock().unwrap().push((file.try_clone()?, offset, before));
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.unsynced.lock().unwrap().clear();
        file.sync_data()
    }
}

/// A store that syncs in an hour, or when it is asked to.
struct Powered {
    dir: TempDir,
    disk: Arc<LosingDisk>,
    store: Arc<EmbeddedStore>,
}

impl Powered {
    fn on() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: TempDir) -> Self {
        let disk = Arc::new(LosingDisk::default());
        let durability = Durability::Relaxed(Duration::from_secs(3600));
        let options = EmbeddedOptions { durability, log_disk: disk.clone(), ..options(dir.path()) };
        Self { store: Arc::new(open_with(options)), dir, disk }
    }

    /// What there is when the power comes back. Nothing is written meanwhile.
    fn after_power_failure(&self) -> Self {
        for (file, offset, before) in self.disk.unsynced.lock().unwrap().drain(..).rev() {
            file.write_all_at(&before, offset).unwrap();
        }
        let copied = tempfile::tempdir().unwrap();
        copy(self.dir.path(), copied.path());
        Self::at(copied)
    }

    /// What there is after a clean end.
    fn restarted(self) -> Self {
        drop(self.store);
        Self::at(self.dir)
    }

    async fn maps(&self) -> Maps {
        let options = MapOptions {
            partitions: Partitions::new(NonZeroU32::MIN),
            protocols: vec![],
            key_size_bytes_max: 1024,
            value_size_bytes_max: 1024,
            name_size_bytes_max: 1024,
            tombstone_retention: Duration::from_secs(3600),
            request_timeout: Duration::from_secs(60),
        };
        Maps::start(self.store.clone(), options).await.unwrap()
    }
}

fn copy(from: &DirPath, to: &DirPath) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

fn key(key: &str) -> MapKey {
    MapKey { map: MapName::default(), key: bytes(key) }
}

fn first(maps: &Maps) -> ombak::domain::map::Partition {
    maps.partitions().get(1).unwrap()
}

async fn put(maps: &Maps, name: &str) -> u64 {
    maps.put(first(maps), key(name), bytes(name), Condition::None).await.unwrap()
}

/// The time of an update of a counter, by an engine that starts for it.
async fn time_of_an_update(powered: &Powered) -> Time {
    let limits = ObjectLimits { siblings_max: 100, object_size_bytes_max: 1 << 20 };
    let options = EngineOptions {
        context_actors_max: 1,
        delete_mode: DeleteMode::Keep,
        tombstones_waiting_bytes_max: 0,
        object_limits: limits,
        object_warnings: limits,
        key_size_bytes_max: 1024,
        update_limits: UpdateLimits {
            elements_max: 1,
            member_size_bytes_max: 1,
            field_name_size_bytes_max: 1,
            names_size_bytes_max: 1,
        },
        n_val_default: 3,
        create_default_types: true,
        request_timeout_default: Duration::from_secs(60),
    };
    let engine = Engine::start(powered.store.clone(), options).await.unwrap();
    let bucket = BucketName { bucket_type: bytes("counters"), bucket: bytes("b") };
    let name = ObjectName { bucket: bucket.clone(), key: bytes("k") };
    let bucket = engine.data_type_bucket(&bucket).unwrap();
    let update = Update { operation: Operation::Counter(1), context: None, options: WriteOptions::default() };
    engine.update(&name, &bucket, update, None).await.unwrap();
    read_all(&*powered.store, &name).await.all()[0].dot.time
}

const PAGE: PageLimits = PageLimits { entries_max: 100, size_bytes_max: 1 << 20 };

#[tokio::test]
async fn writes_are_answered_before_they_are_synced_and_synced_when_that_is_asked_for() {
    let powered = Powered::on();
    let store = &powered.store;
    assert!(store.answers_before_sync());
    let write = |value: &str| store.put_record(bytes("r"), Some(bytes(value))).unwrap();
    let first = write("1");
    store.durable(first).await.unwrap();
    assert!(!store.is_synced(first));
    let mut waiting = Box::pin(store.synced(first));
    let second = write("2");
    assert!(is_pending(&mut waiting).await);
    store.hasten_sync();
    waiting.await.unwrap();
    store.synced(second).await.unwrap();
    let third = write("3");
    store.durable(third).await.unwrap();
    assert!(store.is_synced(second) && !store.is_synced(third), "what was asked for, once");
    let after = powered.after_power_failure();
    assert_eq!(after.store.records().await.unwrap(), [(bytes("r"), bytes("2"))]);
}

/// Whether a future is not ready, after whoever may be at work has been.
async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(50), future).await.is_err()
}

#[tokio::test]
async fn versions_do_not_come_again_after_a_power_failure() {
    let powered = Powered::on();
    let maps = powered.maps().await;
    let mut told = 0;
    for _ in 0..10 {
        told = put(&maps, "before").await;
    }
    assert_eq!(told, 10);
    // Twice: the second start has reserved nothing yet.
    let failed = powered.after_power_failure().after_power_failure();
    let maps = failed.maps().await;
    assert_eq!(maps.get(first(&maps), &key("before")).await.unwrap(), None, "the failure took nothing");
    let mut versions = vec![];
    for _ in 0..2 {
        let version = put(&maps, "after").await;
        assert!(version > told, "{version} has been told before");
        told = version;
        versions.push(maps.get(first(&maps), &key("after")).await.unwrap().unwrap().version);
    }
    assert_eq!(versions[1], versions[0] + 1, "they count on");
}

#[tokio::test]
async fn versions_of_another_primary_do_not_come_again_after_a_power_failure() {
    let powered = Powered::on();
    let maps = powered.maps().await;
    // Far beyond what was reserved.
    let timestamp = 1 << 40;
    let entry = Entry { digest: Digest { term: 3, timestamp }, value: Some(bytes("v")) };
    maps.apply(first(&maps), vec![vec![(key("foreign"), entry)]]).await.unwrap();
    let failed = powered.after_power_failure();
    let maps = failed.maps().await;
    assert_eq!(maps.get(first(&maps), &key("foreign")).await.unwrap().unwrap().version, timestamp, "it was answered");
    assert!(put(&maps, "after").await > timestamp);
}

#[tokio::test]
async fn a_clean_end_leaves_out_no_version() {
    let powered = Powered::on();
    let maps = powered.maps().await;
    for version in 1..=3 {
        assert_eq!(put(&maps, "k").await, version);
    }
    maps.close();
    drop(maps);
    let powered = powered.restarted();
    let maps = powered.maps().await;
    assert_eq!(put(&maps, "k").await, 4);
    // Nothing was drawn since: what was reserved by an earlier process is not given back.
    let failed = powered.after_power_failure();
    failed.maps().await.close();
    let failed = failed.restarted();
    assert!(put(&failed.maps().await, "k").await > 4);
}

#[tokio::test]
async fn more_numbers_are_used_than_are_reserved_at_a_time() {
    let powered = Powered::on();
    let maps = powered.maps().await;
    let partition = first(&maps);
    let mut told = 0;
    for step in 1..=5_u64 {
        // Each put begins a term.
        let digest = Digest { term: 2 * step, timestamp: step * 50_000 };
        maps.apply(partition, vec![vec![(key("jump"), Entry { digest, value: None })]]).await.unwrap();
        told = put(&maps, "k").await;
        assert_eq!(told, step * 50_000 + 1);
    }
    let failed = powered.after_power_failure();
    assert!(put(&failed.maps().await, "k").await > told);
}

/// After a crash the clock runs ahead of the wall clock, which then keeps no two starts apart.
#[tokio::test]
async fn times_do_not_come_again_after_a_power_failure() {
    let powered = Powered::on();
    let an_hour_ahead = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
    let bound = Time(u64::try_from(an_hour_ahead.as_micros()).unwrap());
    powered.store.raise_clock_bound(bound).unwrap();
    let powered = powered.restarted();
    let told = time_of_an_update(&powered).await;
    assert!(told > bound);
    let failed = powered.after_power_failure();
    assert!(failed.store.clock_bound() >= told);
    assert!(time_of_an_update(&failed).await > told);
}

#[tokio::test]
async fn a_standby_is_fed_what_no_power_failure_takes_back() {
    let powered = Powered::on();
    let maps = powered.maps().await;
    put(&maps, "a").await;
    put(&maps, "b").await;
    let mut synced = maps.synced_position(first(&maps));
    assert_eq!(*synced.borrow_and_update(), 0, "followers were told of what is not synced");
    let fed = maps.changes(first(&maps), 0, PAGE).await.unwrap();
    assert_eq!(fed.len(), 2);
    synced.changed().await.unwrap();
    put(&maps, "c").await;
    let listed = maps.keys(first(&maps), bytes(""), PAGE).await.unwrap();
    put(&maps, "d").await;
    let entry = maps.entry(first(&maps), &key("d")).await.unwrap();
    put(&maps, "e").await;
    maps.settle().await.unwrap();
    assert_eq!(*synced.borrow_and_update(), 5, "whoever asks gets what was answered by then");
    put(&maps, "lost").await;

    let failed = powered.after_power_failure();
    let maps = failed.maps().await;
    assert_eq!(maps.changes(first(&maps), 0, PAGE).await.unwrap()[..2], fed);
    assert_eq!(maps.keys(first(&maps), bytes(""), PAGE).await.unwrap().keys[..3], listed.keys);
    assert_eq!(maps.entry(first(&maps), &key("d")).await.unwrap(), entry);
    assert_eq!(maps.key_count().await.unwrap(), 5);
}

#[tokio::test]
async fn followers_are_told_when_a_sync_comes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let durability = Durability::Relaxed(Duration::from_millis(20));
    let store = Arc::new(open_with(EmbeddedOptions { durability, ..options(dir.path()) }));
    let powered = Powered { dir, disk: Arc::default(), store };
    let maps = powered.maps().await;
    let mut synced = maps.synced_position(first(&maps));
    for position in 1..=3 {
        put(&maps, "k").await;
        synced.wait_for(|&synced| synced == position).await.unwrap();
    }
    assert!(powered.store.is_synced(Position(3)));
}
