use std::num::NonZeroU32;

use super::*;
use crate::domain::dot::ActorId;
use crate::store::Store;
use crate::store::memory::MemoryStore;

fn options() -> MapOptions {
    MapOptions {
        partitions: Partitions::new(NonZeroU32::new(3).unwrap()),
        protocols: vec![],
        key_size_bytes_max: 16,
        value_size_bytes_max: 16,
        name_size_bytes_max: 16,
        tombstone_retention: RETENTION,
        request_timeout: Duration::from_secs(5),
    }
}

async fn start_on(store: &Arc<MemoryStore>) -> Maps {
    Maps::start(store.clone(), options()).await.unwrap()
}

async fn maps() -> Maps {
    start_on(&Arc::new(MemoryStore::new(ActorId(1)))).await
}

fn key(key: &'static str) -> MapKey {
    MapKey { map: MapName::default(), key: key.into() }
}

fn entry(term: u64, timestamp: u64, value: Option<&'static str>) -> Entry {
    Entry { digest: Digest { term, timestamp }, value: value.map(Bytes::from) }
}

impl Maps {
    fn home(&self, key: &MapKey) -> Partition {
        self.partitions().home_of(&key.key)
    }

    async fn put_text(&self, name: &'static str, value: &'static str, version: u64) -> Result<u64, MapError> {
        let key = key(name);
        self.put(self.home(&key), key, value.into(), Condition::of_version(version)).await
    }

    async fn remove_text(&self, name: &'static str, version: u64) -> Result<Option<Versioned>, MapError> {
        let key = key(name);
        self.remove(self.home(&key), key, Condition::of_version(version)).await
    }

    async fn get_text(&self, name: &'static str) -> Option<Versioned> {
        let key = key(name);
        self.get(self.home(&key), &key).await.unwrap()
    }

    async fn take(&self, requests: Vec<Entries>) -> usize {
        self.apply(self.home(&key("foo")), requests).await.unwrap().requests
    }
}

fn versioned(value: &'static str, version: u64) -> Option<Versioned> {
    Some(Versioned { value: value.into(), version })
}

#[tokio::test]
async fn versions_are_the_partitions_mutations_counted() {
    let maps = maps().await;
    assert_eq!(maps.put_text("foo", "a", 0).await.unwrap(), 1);
    assert_eq!(maps.put_text("foo", "b", 1).await.unwrap(), 2);
    assert!(matches!(maps.put_text("foo", "c", 1).await, Err(MapError::OptimisticLockFailure(_))));
    assert!(matches!(maps.remove_text("foo", 1).await, Err(MapError::OptimisticLockFailure(_))));
    assert_eq!(maps.get_text("foo").await, versioned("b", 2));
    assert_eq!(maps.remove_text("foo", 2).await.unwrap(), versioned("b", 2));
    assert_eq!(maps.remove_text("foo", 0).await.unwrap(), None, "no number is used up");
    assert_eq!(maps.get_text("foo").await, None);
    assert_eq!(maps.put_text("foo", "d", 0).await.unwrap(), 4);
    assert_eq!(maps.put_text("bar", "x", 0).await.unwrap(), 1, "partitions count apart");
}

#[tokio::test]
async fn versions_rise_across_restarts() {
    let store = Arc::new(MemoryStore::new(ActorId(1)));
    let first = start_on(&store).await.put_text("foo", "a", 0).await.unwrap();
    let maps = start_on(&store).await;
    assert!(maps.put_text("foo", "b", first).await.unwrap() > first);
    let other = MapOptions { partitions: Partitions::new(NonZeroU32::new(4).unwrap()), ..options() };
    let refused = Maps::start(store, other).await.map(|_| ());
    assert!(matches!(refused, Err(MapError::OtherPartitions { found: 3, configured: 4 })), "{refused:?}");
}

#[tokio::test]
async fn a_local_mutation_shuts_out_the_primary_that_it_follows() {
    let maps = maps().await;
    let terms = maps.terms();
    assert_eq!(*terms.borrow(), [1, 1, 1]);
    assert_eq!(maps.take(vec![vec![(key("foo"), entry(3, 40, Some("a")))]]).await, 1);
    assert_eq!(maps.get_text("foo").await, versioned("a", 40));
    assert_eq!(maps.put_text("foo", "b", 40).await.unwrap(), 41);
    assert_eq!(*terms.borrow(), [4, 1, 1]);
    // Whole or not at all, and nothing behind it.
    let stale = vec![(key("new"), entry(4, 60, None)), (key("foo"), entry(3, 60, Some("late")))];
    let requests = vec![vec![(key("foo"), entry(4, 50, Some("c")))], stale, vec![(key("foo"), entry(5, 1, None))]];
    assert_eq!(maps.take(requests).await, 1);
    assert_eq!(maps.get_text("foo").await, versioned("c", 50));
    assert_eq!(maps.put_text("foo", "d", 50).await.unwrap(), 51);
}

#[tokio::test]
async fn an_older_put_does_not_bring_a_removed_key_back() {
    let maps = maps().await;
    let request = |entry| vec![(key("foo"), entry)];
    let requests = vec![request(entry(1, 9, None)), request(entry(1, 8, Some("old"))), request(entry(1, 9, None))];
    assert_eq!(maps.take(requests).await, 3);
    assert_eq!(maps.get_text("foo").await, None);
    assert_eq!(maps.take(vec![request(entry(1, 8, Some("old")))]).await, 1);
    assert_eq!(maps.get_text("foo").await, None);
    assert_eq!(maps.put_text("foo", "new", 0).await.unwrap(), 10);
}

#[tokio::test]
async fn places_and_sizes_are_checked() {
    let maps = maps().await;
    let locate = |number, key: &MapKey| maps.locate(number, key).map(Partition::number);
    assert_eq!(locate(1, &key("foo")).unwrap(), 1);
    assert!(matches!(locate(0, &key("foo")), Err(MapError::MapNotFound)));
    assert!(matches!(locate(4, &key("foo")), Err(MapError::MapNotFound)));
    assert!(matches!(locate(2, &key("foo")), Err(MapError::KeyElsewhere { home: 1 })));
    let long = key("a key that is far too long");
    let home = maps.home(&long).number();
    assert!(matches!(locate(home, &long), Err(MapError::KeyTooLarge { bytes_max: 16 })));
    let map = MapName { primitive_name: "a name that is far too long".into(), ..MapName::default() };
    assert!(matches!(maps.find(1, &map), Err(MapError::NameTooLarge { .. })));
    let large = "a value that is far too large";
    assert!(matches!(maps.put_text("foo", large, 0).await, Err(MapError::ValueTooLarge { .. })));
    for (term, timestamp) in [(1, 0), (1, u64::MAX), (u64::MAX, 1)] {
        let refused = maps.check_entry(1, &key("foo"), &entry(term, timestamp, None));
        assert!(matches!(refused, Err(MapError::DigestOutOfRange)), "{refused:?}");
    }
}

#[tokio::test]
async fn protocols_may_be_listed() {
    let protocols = vec![(Bytes::from_static(b"default"), Bytes::from_static(b"test"))];
    let store = Arc::new(MemoryStore::new(ActorId(1)));
    let maps = Maps::start(store, MapOptions { protocols, ..options() }).await.unwrap();
    let named = |namespace: &'static str, name: &'static str| MapName {
        protocol_namespace: namespace.into(),
        protocol_name: name.into(),
        ..MapName::default()
    };
    assert!(maps.find(1, &named("default", "test")).is_ok());
    for unknown in [named("test", "default"), named("default", ""), MapName::default()] {
        assert!(matches!(maps.find(1, &unknown), Err(MapError::MapNotFound)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_compare_and_set_one_wins_each_version() {
    let maps = maps().await;
    maps.put_text("foo", "0", 0).await.unwrap();
    let increment = |maps: Maps| async move {
        let mut done = 0;
        while done < 50 {
            let found = maps.get_text("foo").await.unwrap();
            let number: u64 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
            let next = Bytes::from((number + 1).to_string());
            let partition = maps.home(&key("foo"));
            match maps.put(partition, key("foo"), next, Condition::Version(found.version)).await {
                Ok(_) => done += 1,
                Err(MapError::OptimisticLockFailure(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(increment(maps.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(maps.get_text("foo").await, versioned("200", 201));
}

const RETENTION: Duration = Duration::from_secs(3600);

/// Lets time pass, and those who look at times look.
async fn pass(time: Duration) {
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(60).min(end - tokio::time::Instant::now())).await;
        // A look takes several turns.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn removed_keys_are_forgotten_after_the_retention() {
    let maps = maps().await;
    maps.put_text("foo", "a", 0).await.unwrap();
    maps.remove_text("foo", 0).await.unwrap();
    maps.put_text("a", "stays", 0).await.unwrap();
    pass(RETENTION - Duration::from_secs(1)).await;
    assert_eq!(maps.key_count().await.unwrap(), 2);
    pass(Duration::from_secs(70)).await;
    assert_eq!(maps.key_count().await.unwrap(), 1);
    assert_eq!(maps.put_text("foo", "b", 0).await.unwrap(), 3, "the count goes on");
}

/// Writes a removal as one that the wall clock has stamped, before there was a count.
async fn remove_at(store: &MemoryStore, written_ms: u64) {
    let partitions = options().partitions;
    let partition = partitions.home_of(b"foo");
    let numbers = Numbers { timestamp: 7, position: 7, ..Numbers::default() };
    let entries = vec![(key("foo"), entry(1, 7, None))];
    let delta = MapDelta { partition, partitions, numbers, written_ms, entries, forgotten: vec![] };
    store.durable(store.commit_map(delta).unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_ahead_has_no_removal_forgotten() {
    let store = Arc::new(MemoryStore::new(ActorId(1)));
    // Years ago, if one believes the clock.
    remove_at(&store, 1).await;
    let maps = start_on(&store).await;
    pass(RETENTION - Duration::from_secs(1)).await;
    assert_eq!(maps.key_count().await.unwrap(), 1);
    pass(Duration::from_secs(70)).await;
    assert_eq!(maps.key_count().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_retention_goes_on_after_a_restart() {
    let store = Arc::new(MemoryStore::new(ActorId(1)));
    let maps = start_on(&store).await;
    maps.put_text("foo", "a", 0).await.unwrap();
    maps.remove_text("foo", 0).await.unwrap();
    pass(RETENTION / 2).await;
    drop(maps);
    // Nobody counts meanwhile.
    pass(2 * RETENTION).await;
    let maps = start_on(&store).await;
    pass(RETENTION / 2 - Duration::from_secs(1)).await;
    assert_eq!(maps.key_count().await.unwrap(), 1);
    // What was counted since the last look before the restart is counted again.
    pass(Duration::from_secs(130)).await;
    assert_eq!(maps.key_count().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_mark_of_a_standby_ends_when_a_removal_that_it_missed_is_forgotten() {
    let store = Arc::new(MemoryStore::new(ActorId(1)));
    let maps = start_on(&store).await;
    maps.put_text("foo", "a", 0).await.unwrap();
    let home = maps.home(&key("foo")).index();
    let at = |position: u64| {
        let mut positions = vec![9; 3];
        positions[home] = position;
        StandbyMark { node: 7, positions }
    };
    assert_eq!(maps.standby_mark("h:1").await.unwrap(), None);
    maps.put_standby_mark("h:1", &at(1)).await.unwrap();
    maps.put_standby_mark("h:2", &at(2)).await.unwrap();
    // However long it was away.
    pass(3 * RETENTION).await;
    assert_eq!(maps.standby_mark("h:1").await.unwrap(), Some(at(1)));
    maps.remove_text("foo", 0).await.unwrap();
    pass(RETENTION / 2).await;
    assert_eq!(maps.standby_mark("h:1").await.unwrap(), Some(at(1)));
    pass(RETENTION).await;
    for maps in [maps, start_on(&store).await] {
        assert_eq!(maps.standby_mark("h:1").await.unwrap(), None);
        assert_eq!(maps.standby_mark("h:2").await.unwrap(), Some(at(2)), "it has heard of the removal");
    }
}

/// The mark was made while the clock was wrong, and would look fresh until then.
#[tokio::test]
async fn a_mark_from_the_far_future_does_not_count() {
    let store = Arc::new(MemoryStore::new(ActorId(1)));
    let maps = start_on(&store).await;
    let mark = r#"{"node":7,"positions":[1,2,3],"acknowledged_ms":99999999999999}"#;
    store.put_record("map_standby/h:1".into(), Some(mark.into())).unwrap();
    assert_eq!(maps.standby_mark("h:1").await.unwrap(), None);
}

#[tokio::test]
async fn a_key_is_buried_only_where_nothing_is_known_of_it() {
    let maps = maps().await;
    maps.put_text("foo", "a", 0).await.unwrap();
    let bury = async |name| maps.bury(maps.home(&key(name)), key(name)).await.unwrap();
    bury("foo").await;
    assert_eq!(maps.get_text("foo").await, versioned("a", 1));
    bury("bar").await;
    let partition = maps.home(&key("bar"));
    assert_eq!(maps.entry(partition, &key("bar")).await.unwrap(), Some(entry(1, 1, None)));
    assert_eq!(*maps.synced_position(partition).borrow(), 1);
    let missing = [(key("bar"), Digest { term: 1, timestamp: 1 }), (key("bar"), Digest { term: 1, timestamp: 2 })];
    assert_eq!(maps.find_missing(partition, &missing).await.unwrap(), [1]);
}
