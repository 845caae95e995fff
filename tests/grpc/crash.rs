//! SIGKILL under load, again and again on one data directory: the invariants of `atomix.md` §9 for one node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tonic::Code;

use super::client::*;
use super::standby::{Follower, everything};
use super::support::Server;

const WRITERS: usize = 8;
const INCREMENTERS: usize = 4;
const READERS: usize = 2;
const KEYS_PER_WRITER: u64 = 16;
const COUNTERS: usize = 2;
/// Calls that a round has seen answered at least. Not checked.
const ANSWERS_MIN: u64 = 200;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What a key of one writer may hold: what was acknowledged last, or the one change whose outcome is unknown.
#[derive(Clone, Debug, Default)]
struct Own {
    acknowledged: Option<Vec<u8>>,
    unknown: Option<Option<Vec<u8>>>,
}

/// A put that was acknowledged.
struct Acknowledged {
    partition: u32,
    began: Instant,
    ended: Instant,
    version: u64,
}

#[derive(Default)]
struct Log {
    puts: Mutex<Vec<Acknowledged>>,
    answers: AtomicU64,
}

impl Log {
    fn take(&self, key: &str, began: Instant, version: u64) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.puts.lock().unwrap().push(Acknowledged { partition: home(key), began, ended: Instant::now(), version });
    }
}

fn own_key(writer: usize, number: u64) -> String {
    format!("own-{writer}-{number}")
}

/// The lowest half of a writer's keys is never removed.
fn is_removed_at_times(number: u64) -> bool {
    number >= KEYS_PER_WRITER / 2
}

/// The versions acknowledged so far of keys that are never removed.
type Floors = Arc<Mutex<BTreeMap<String, u64>>>;

/// Writes to keys of its own until the server is gone.
async fn write(
    address: SocketAddr,
    writer: usize,
    mut sequence: u64,
    mut own: BTreeMap<String, Own>,
    floors: Floors,
    log: Arc<Log>,
) -> (u64, BTreeMap<String, Own>) {
    let mut client = connect(address).await;
    loop {
        sequence += 1;
        let number = sequence % KEYS_PER_WRITER;
        let key = own_key(writer, number);
        let state = own.entry(key.clone()).or_default();
        let began = Instant::now();
        let removes = is_removed_at_times(number) && sequence.is_multiple_of(3);
        let new = (!removes).then(|| format!("{writer}:{sequence}").into_bytes());
        let failed = match &new {
            Some(bytes) => match put(&mut client, &key, bytes, 0).await {
                Ok(version) => {
                    log.take(&key, began, version);
                    if !is_removed_at_times(number) {
                        floors.lock().unwrap().insert(key, version);
                    }
                    None
                }
                Err(status) => Some(status),
            },
            None => match remove(&mut client, &key, 0).await {
                Ok(removed) => {
                    assert_eq!(removed.map(|(bytes, _)| bytes), state.acknowledged, "what a remove answers");
                    log.answers.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Err(status) => Some(status),
            },
        };
        match failed {
            None => state.acknowledged = new,
            Some(status) => {
                assert!(!matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument), "{status:?}");
                state.unknown = Some(new);
                return (sequence, own);
            }
        }
    }
}

/// What the incrementers know of a counter.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    acknowledged: u64,
    unknown: u64,
}

/// Increments shared keys, each time where the version is still the one that was read. The values that were refused come too.
async fn increment(
    address: SocketAddr,
    incrementer: usize,
    round: u64,
    log: Arc<Log>,
) -> ([Count; COUNTERS], Vec<Vec<u8>>) {
    let mut client = connect(address).await;
    let mut counts = [Count::default(); COUNTERS];
    let mut refused = Vec::new();
    for sequence in 0_u64.. {
        let counter = (sequence as usize + incrementer) % COUNTERS;
        let key = format!("counter-{counter}");
        let Ok(found) = get(&mut client, &key).await else { break };
        let (bytes, version) = found.expect("it was put before the first round");
        let next = number_of(&bytes) + 1;
        // Of each value it can be told who wrote it.
        let new = format!("{next} {round}-{incrementer}-{sequence}").into_bytes();
        let began = Instant::now();
        match put(&mut client, &key, &new, version).await {
            Ok(version) => {
                log.take(&key, began, version);
                counts[counter].acknowledged += 1;
            }
            Err(status) if status.code() == Code::PermissionDenied => refused.push(new),
            Err(_) => {
                counts[counter].unknown += 1;
                break;
            }
        }
    }
    (counts, refused)
}

fn number_of(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// Reads keys that are never removed: none may be seen at less than was acknowledged or read before (I5).
async fn read(address: SocketAddr, floors: Floors) {
    let mut client = connect(address).await;
    let mut at = 0;
    loop {
        at += 1;
        let known = floors.lock().unwrap().iter().nth(at % (WRITERS * 8)).map(|(key, &version)| (key.clone(), version));
        let Some((key, floor)) = known else {
            tokio::task::yield_now().await;
            continue;
        };
        let Ok(found) = get(&mut client, &key).await else { return };
        let (_, version) = found.unwrap_or_else(|| panic!("{key} is lost"));
        assert!(version >= floor, "{key} is read at {version} after {floor}");
        let mut floors = floors.lock().unwrap();
        let entry = floors.entry(key).or_default();
        *entry = version.max(*entry);
    }
}

/// Versions are unique in their partition, and of two puts one of which ended before the other began the later one has the
/// greater (I2).
fn check_versions(puts: &mut [Acknowledged]) {
    for partition in 1..=PARTITIONS {
        let of_partition = || puts.iter().filter(move |put| put.partition == partition);
        let mut versions: Vec<_> = of_partition().map(|put| put.version).collect();
        versions.sort_unstable();
        assert!(versions.is_sorted_by(|a, b| a < b), "a version of partition {partition} was given twice");
        let mut by_end: Vec<_> = of_partition().collect();
        by_end.sort_by_key(|put| put.ended);
        let mut by_begin: Vec<_> = of_partition().collect();
        by_begin.sort_by_key(|put| put.began);
        let (mut ended, mut greatest) = (by_end.into_iter().peekable(), 0);
        for put in by_begin {
            while let Some(before) = ended.next_if(|before| before.ended < put.began) {
                greatest = greatest.max(before.version);
            }
            assert!(put.version > greatest, "partition {partition}: {} was given after {greatest}", put.version);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_invariants_hold_over_crashes_and_a_standby_is_equal() {
    let rounds = setting("OMBAK_CRASH_ROUNDS", 2);
    let length = Duration::from_secs(setting("OMBAK_CRASH_SECONDS", 1));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("primary");
    let standby_data = dir.path().join("standby");
    let mut primary = Server::start_on(&data, &[]);
    let mut standby = Server::start_on(&standby_data, &[]);
    let standby_at = standby.grpc.unwrap();
    let mut client = connect(primary.grpc.unwrap()).await;
    for counter in 0..COUNTERS {
        put(&mut client, &format!("counter-{counter}"), "0 first", 0).await.unwrap();
    }
    let log = Arc::new(Log::default());
    let floors = Floors::default();
    let mut own = vec![(0, BTreeMap::new()); WRITERS];
    let mut totals = [Count::default(); COUNTERS];
    let mut refused = Vec::new();

    for round in 1..=rounds {
        let address = primary.grpc.unwrap();
        let before = log.answers.load(Ordering::Relaxed);
        let began = Instant::now();
        let follower = Follower::start(&primary, standby_at);
        let writers: Vec<_> = own
            .drain(..)
            .enumerate()
            .map(|(n, (sequence, own))| tokio::spawn(write(address, n, sequence, own, floors.clone(), log.clone())))
            .collect();
        let incrementers: Vec<_> =
            (0..INCREMENTERS).map(|n| tokio::spawn(increment(address, n, round, log.clone()))).collect();
        let readers: Vec<_> = (0..READERS).map(|_| tokio::spawn(read(address, floors.clone()))).collect();
        let answers = || log.answers.load(Ordering::Relaxed) - before;
        while began.elapsed() < length || answers() < ANSWERS_MIN {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Every second time the standby goes down with its primary.
        if round % 2 == 0 {
            standby.kill();
        }
        primary.kill();
        drop(follower);
        for writer in writers {
            own.push(writer.await.unwrap());
        }
        for incrementer in incrementers {
            let (counts, values) = incrementer.await.unwrap();
            refused.extend(values);
            for (total, count) in totals.iter_mut().zip(counts) {
                total.acknowledged += count.acknowledged;
                total.unknown += count.unknown;
            }
        }
        for reader in readers {
            reader.await.unwrap();
        }

        primary = Server::start_on(&data, &[]);
        if round % 2 == 0 {
            standby = Server::start_on(&standby_data, &[("OMBAK_GRPC_LISTEN", &standby_at.to_string())]);
        }
        let mut client = connect(primary.grpc.unwrap()).await;
        for (_, own) in &mut own {
            for (key, state) in own {
                let found = get(&mut client, key).await.unwrap().map(|(bytes, _)| bytes);
                let is_allowed = found == state.acknowledged || state.unknown.as_ref() == Some(&found);
                assert!(is_allowed, "round {round}, {key}: {found:?} is there, known is {state:?}");
                // The outcome is known now, and must not change any more.
                *state = Own { acknowledged: found, unknown: None };
            }
        }
        for (counter, total) in totals.iter_mut().enumerate() {
            let (bytes, _) = get(&mut client, &format!("counter-{counter}")).await.unwrap().unwrap();
            let value = number_of(&bytes);
            let Count { acknowledged, unknown } = *total;
            assert!(
                (acknowledged..=acknowledged + unknown).contains(&value),
                "round {round}, counter {counter}: {value} of {total:?}",
            );
            assert!(!refused.contains(&bytes), "round {round}: a value that was refused is there");
            *total = Count { acknowledged: value, unknown: 0 };
        }
        check_versions(&mut log.puts.lock().unwrap());
        primary.printed(&["map", "backup", "--to", &standby_at.to_string(), "--once"]);
        let (here, there) = (everything(primary.grpc.unwrap()).await, everything(standby_at).await);
        assert_eq!(here, there, "round {round}: primary and standby");
        println!("round {round}: {} answers, {} refused so far, {} keys equal", answers(), refused.len(), here.len());
    }
}
