//! What every store that keeps maps must do.

use std::num::NonZeroU32;

use bytes::Bytes;
use ombak::domain::map::{Digest, Entry, MapKey, MapName, Numbers, Partition, Partitions};
use ombak::store::Horizon;
use ombak::store::maps::{Change, KeyState, MapDelta, MapStore, PageLimits, Tombstone};
use ombak::store::memory::MemoryStore;

use super::support::*;

suite! {
    an_entry_is_read_when_it_is_committed
    a_lower_digest_changes_nothing
    a_delta_may_come_again
    changes_are_read_in_their_order_each_key_at_its_last
    changes_come_in_pages
    removed_keys_are_found_by_age_and_forgotten
    what_was_written_again_is_not_forgotten
    partitions_and_maps_do_not_mix
    keys_may_be_long
}

const LIMITS: PageLimits = PageLimits { entries_max: 100, size_bytes_max: 1 << 20 };

fn partition(number: u32) -> Partition {
    Partition::of_number(number).unwrap()
}

fn key(key: impl AsRef<[u8]>) -> MapKey {
    let map = MapName { primitive_name: bytes("m"), ..MapName::default() };
    MapKey { map, key: bytes(key) }
}

fn entry(term: u64, timestamp: u64, value: Option<&str>) -> Entry {
    Entry { digest: Digest { term, timestamp }, value: value.map(bytes) }
}

/// Entries of partition 1 in a row, as its primary writes them.
struct Writer<'a> {
    store: &'a dyn MapStore,
    partition: Partition,
    numbers: Numbers,
    now_ms: u64,
}

impl<'a> Writer<'a> {
    fn new(store: &'a dyn MapStore) -> Self {
        Self { store, partition: partition(1), numbers: Numbers::default(), now_ms: 1000 }
    }

    fn delta(&mut self, entries: Vec<(MapKey, Entry)>) -> MapDelta {
        self.numbers.position += entries.len() as u64;
        self.now_ms += 1;
        MapDelta {
            partition: self.partition,
            partitions: Partitions::new(NonZeroU32::new(8).unwrap()),
            numbers: self.numbers,
            written_ms: self.now_ms,
            entries,
            forgotten: vec![],
        }
    }

    async fn write(&mut self, entries: Vec<(MapKey, Entry)>) -> MapDelta {
        let delta = self.delta(entries);
        durable(self.store, self.store.commit_map(delta.clone())).await.unwrap();
        delta
    }

    async fn forget(&mut self, tombstones: Vec<Tombstone>) {
        let forgotten = tombstones.into_iter().map(|tombstone| (tombstone.key, tombstone.digest)).collect();
        let delta = MapDelta { forgotten, ..self.delta(vec![]) };
        durable(self.store, self.store.commit_map(delta)).await.unwrap();
    }

    async fn get(&self, key: &MapKey) -> Option<Entry> {
        self.store.map_entry(self.partition, key, &Horizon::default()).await.unwrap()
    }

    async fn changes(&self, after: u64) -> Vec<Change> {
        self.store.map_changes(self.partition, after, LIMITS, &Horizon::default()).await.unwrap()
    }

    async fn keys(&self) -> u64 {
        let states = self.store.map_partitions().await.unwrap();
        states.iter().find(|state| state.partition == self.partition).map_or(0, |state| state.keys)
    }
}

fn positions(changes: &[Change]) -> Vec<(u64, Bytes)> {
    changes.iter().map(|change| (change.position, change.key.key.clone())).collect()
}

async fn an_entry_is_read_when_it_is_committed(store: &dyn MapStore) {
    let mut writer = Writer::new(store);
    assert_eq!(writer.get(&key("k")).await, None);
    assert_eq!(store.map_partitions().await.unwrap(), []);
    let put = entry(1, 1, Some(""));
    let delta = writer.write(vec![(key("k"), put.clone())]).await;
    assert_eq!(writer.get(&key("k")).await, Some(put));
    writer.write(vec![(key("k"), entry(1, 2, None))]).await;
    assert_eq!(writer.get(&key("k")).await, Some(entry(1, 2, None)));
    let states = store.map_partitions().await.unwrap();
    assert_eq!((states.len(), states[0].numbers.position, states[0].keys), (1, 2, 1));
    assert_eq!(states[0].partitions, delta.partitions);
}

async fn a_lower_digest_changes_nothing(store: &dyn MapStore) {
    let mut writer = Writer::new(store);
    writer.write(vec![(key("k"), entry(2, 5, None))]).await;
    for (term, timestamp) in [(2, 5), (2, 4), (1, 9)] {
        writer.write(vec![(key("k"), entry(term, timestamp, Some("old")))]).await;
        assert_eq!(writer.get(&key("k")).await, Some(entry(2, 5, None)));
    }
    assert_eq!(positions(&writer.changes(0).await), [(1, bytes("k"))]);
    writer.write(vec![(key("k"), entry(3, 1, Some("new")))]).await;
    assert_eq!(writer.get(&key("k")).await, Some(entry(3, 1, Some("new"))));
}

async fn a_delta_may_come_again(store: &dyn MapStore) {
    let mut writer = Writer::new(store);
    let first = writer.write(vec![(key("a"), entry(1, 1, Some("1"))), (key("b"), entry(1, 2, Some("2")))]).await;
    let second = writer.write(vec![(key("a"), entry(1, 3, None))]).await;
    let before = (writer.changes(0).await, store.map_partitions().await.unwrap());
    for delta in [first, second] {
        durable(store, store.commit_map(delta)).await.unwrap();
        assert_eq!((writer.changes(0).await, store.map_partitions().await.unwrap()), before);
    }
}

async fn changes_are_read_in_their_order_each_key_at_its_last(store: &dyn MapStore) {
    let mut writer = Writer::new(store);
    // What another primary sends need not be in the order of its digests.
    for (at, timestamp) in [("a", 90), ("b", 10), ("c", 50)] {
        writer.write(vec![(key(at), entry(2, timestamp, Some(at)))]).await;
    }
    writer.write(vec![(key("a"), entry(2, 91, Some("again")))]).await;
    let changes = writer.changes(0).await;
    assert_eq!(positions(&changes), [(2, bytes("b")), (3, bytes("c")), (4, bytes("a"))]);
    assert_eq!(changes[2].entry, entry(2, 91, Some("again")));
    assert_eq!(positions(&writer.changes(3).await), [(4, bytes("a"))]);
    assert_eq!(writer.changes(4).await, []);
    assert_eq!(writer.keys().await, 3);
}

async fn changes_come_in_pages(store: &dyn MapStore) {
    let mut writer = Writer::new(store);
    let entries = (1..=10).map(|n| (key(format!("{n:02}")), entry(1, n, Some("0123456789"))));
    writer.write(entries.collect()).await;
    let page = async |after, entries_max, size_bytes_max| {
        let limits = PageLimits { entries_max, size_bytes_max };
        let page = store.map_changes(partition(1), after, limits, &Horizon::default()).await.unwrap();
        page.iter().map(|change| change.position).collect::<Vec<_>>()
    };
    assert_eq!(page(2, 3, 1 << 20).await, [3, 4, 5]);
    assert_eq!(page(2, 100, 24).await, [3, 4]);
    assert_eq!(page(2, 100, 1).await, [3], "one at least");

    let mut listed: Vec<KeyState> = Vec::new();
    let mut after = Bytes::new();
    loop {
        let page = store
            .map_keys(partition(1), after, PageLimits { entries_max: 4, ..LIMITS }, &Horizon::default())
            .await
            .unwrap();
        listed.extend(page.keys);
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    let mut timestamps: Vec<_> = listed.iter().map(|state| state.digest.timestamp).collect();
    timestamps.sort_unstable();
    assert_eq!(timestamps, (1..=10).collect::<Vec<_>>());
}

async fn removed_keys_are_found_by_age_and_forgotten(store: &dyn MapStore) {
    let mut writer = Writer::new(store);
    writer.write(vec![(key("a"), entry(1, 1, None)), (key("b"), entry(1, 2, Some("v")))]).await;
    writer.write(vec![(key("c"), entry(1, 3, None))]).await;
    let found = async |before_ms, limit| store.map_tombstones(partition(1), before_ms, limit).await.unwrap();
    assert_eq!(found(1001, 9).await, []);
    let tombstone = |name: &str, timestamp| {
        let (digest, position) = (Digest { term: 1, timestamp }, timestamp);
        Tombstone { key: key(name), digest, position }
    };
    assert_eq!(found(1002, 9).await, [tombstone("a", 1)]);
    assert_eq!(found(9999, 9).await, [tombstone("a", 1), tombstone("c", 3)]);
    assert_eq!(found(9999, 1).await.len(), 1);
    writer.forget(found(9999, 9).await).await;
    assert_eq!(found(9999, 9).await, []);
    assert_eq!((writer.get(&key("a")).await, writer.get(&key("c")).await), (None, None));
    assert_eq!(positions(&writer.changes(0).await), [(2, bytes("b"))]);
    assert_eq!(writer.keys().await, 1);
}

async fn what_was_written_again_is_not_forgotten(store: &dyn MapStore) {
    let mut writer = Writer::new(store);
    writer.write(vec![(key("a"), entry(1, 1, None))]).await;
    let old = store.map_tombstones(partition(1), 9999, 9).await.unwrap();
    writer.write(vec![(key("a"), entry(1, 2, Some("back")))]).await;
    writer.forget(old).await;
    assert_eq!(writer.get(&key("a")).await, Some(entry(1, 2, Some("back"))));
    assert_eq!(store.map_tombstones(partition(1), 9999, 9).await.unwrap(), []);
    let live = vec![Tombstone { key: key("a"), digest: Digest { term: 1, timestamp: 2 }, position: 2 }];
    writer.forget(live).await;
    assert_eq!(writer.keys().await, 1, "only tombstones are forgotten");
}

async fn partitions_and_maps_do_not_mix(store: &dyn MapStore) {
    let mut one = Writer::new(store);
    let mut two = Writer { partition: partition(2), ..Writer::new(store) };
    one.write(vec![(key("k"), entry(1, 1, Some("one")))]).await;
    two.write(vec![(key("k"), entry(1, 1, Some("two")))]).await;
    // Joined with dots these names would be one.
    let named = |namespace: &str, name: &str| MapKey {
        map: MapName { primitive_namespace: bytes(namespace), primitive_name: bytes(name), ..MapName::default() },
        key: bytes("k"),
    };
    one.write(vec![(named("a.b", "c"), entry(1, 2, Some("x"))), (named("a", "b.c"), entry(1, 3, Some("y")))]).await;
    assert_eq!(one.get(&key("k")).await, Some(entry(1, 1, Some("one"))));
    assert_eq!(two.get(&key("k")).await, Some(entry(1, 1, Some("two"))));
    assert_eq!(one.get(&named("a.b", "c")).await, Some(entry(1, 2, Some("x"))));
    assert_eq!(one.get(&named("a", "b.c")).await, Some(entry(1, 3, Some("y"))));
    assert_eq!(two.get(&named("a", "b.c")).await, None);
    assert_eq!(two.changes(0).await.len(), 1);
    let states = store.map_partitions().await.unwrap();
    assert_eq!(states.iter().map(|state| (state.partition.number(), state.keys)).collect::<Vec<_>>(), [(1, 3), (2, 1)]);
}

async fn keys_may_be_long(store: &dyn MapStore) {
    let mut writer = Writer::new(store);
    let long = |end: &str| key(format!("{}{end}", "\0x".repeat(20_000)));
    writer.write(vec![(long("a"), entry(1, 1, Some("a"))), (long("b"), entry(1, 2, Some("b")))]).await;
    assert_eq!(writer.get(&long("a")).await, Some(entry(1, 1, Some("a"))));
    assert_eq!(positions(&writer.changes(1).await), [(2, long("b").key)]);
    writer.write(vec![(long("a"), entry(1, 3, None))]).await;
    let removed = store.map_tombstones(partition(1), 9999, 9).await.unwrap();
    assert_eq!(removed[0].key, long("a"));
    writer.forget(removed).await;
    assert_eq!((writer.keys().await, writer.get(&long("a")).await), (1, None));
}

#[tokio::test]
async fn maps_are_there_when_the_directory_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let states = {
        let store = open(dir.path());
        let mut writer = Writer::new(&store);
        writer.numbers = Numbers { term: 3, timestamp: 9, follows: true, fence: 2, position: 0 };
        writer.write(vec![(key("k"), entry(3, 9, Some("v"))), (key("r"), entry(3, 8, None))]).await;
        store.map_partitions().await.unwrap()
    };
    let store = open(dir.path());
    assert_eq!(store.map_partitions().await.unwrap(), states);
    assert_eq!(states[0].numbers, Numbers { term: 3, timestamp: 9, follows: true, fence: 2, position: 2 });
    let writer = Writer::new(&store);
    assert_eq!(writer.changes(0).await.len(), 2);
    assert_eq!(store.map_tombstones(partition(1), u64::MAX, 9).await.unwrap().len(), 1);
}
