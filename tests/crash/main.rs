//! SIGKILL under load, again and again on one data directory: what was acknowledged is there, once.

#[path = "../support/load.rs"]
mod load;
mod mixed;
#[path = "../support/requests.rs"]
mod requests;
mod starts;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ombak::message::generated::{DtOp, MapEntry};
use ombak::message::{Reply, Request};

use requests::*;
use support::{Connection, Server, frame, text};

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 16;
/// How long a round runs, and how many replies it has seen at least. Neither is checked.
const ROUND: Duration = Duration::from_secs(1);
const REPLIES_MIN: u64 = 200;

const SHARED: &str = "shared";
/// What a reply to an update without return_body looks like.
const DONE: [u8; 5] = [0, 0, 0, 1, 83];

/// How often a key was incremented: as acknowledged, and as sent.
#[derive(Clone, Copy, Default)]
struct Count {
    acknowledged: i64,
    sent: i64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.acknowledged += other.acknowledged;
        self.sent += other.sent;
    }
}

/// The counts of one connection: on its own counter, its own map, the shared counter and the shared map.
type Counts = [Count; 4];

/// The connection's four updates, in turn: even ones have counters, odd ones counters in maps.
fn updates(connection: usize) -> [Request; 4] {
    let own = format!("own-{connection}");
    let in_a_map = || map(&[], &[in_counter("visits", 1), in_set("seen", &["x"], &[])]);
    let increment = |bucket_type: &str, key: &str, op: DtOp| update(bucket_type, key, op);
    [
        increment("counters", &own, counter(1)),
        increment("maps", &own, in_a_map()),
        increment("counters", SHARED, counter(1)),
        increment("maps", SHARED, in_a_map()),
    ]
}

/// Increments one after the other until the server is gone.
fn increment_until_killed(address: SocketAddr, connection: usize, replies: &AtomicU64) -> Counts {
    let frames = updates(connection).map(|request| frame(request.code().number(), &request.encode()));
    let mut counts = Counts::default();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    for (frame, at) in frames.iter().zip(0..).cycle() {
        let count: &mut Count = &mut counts[at];
        count.sent += 1;
        if stream.write_all(frame).is_err() {
            break;
        }
        let mut reply = [0; DONE.len()];
        if stream.read_exact(&mut reply).is_err() {
            break;
        }
        assert_eq!(reply, DONE);
        count.acknowledged += 1;
        replies.fetch_add(1, Ordering::Relaxed);
    }
    counts
}

fn counter_value(connection: &mut Connection, key: &str) -> i64 {
    match connection.ask(&fetch("counters", key)) {
        Reply::DtFetch(reply) => reply.value.map_or(0, |value| value.counter_value.unwrap()),
        reply => panic!("{reply:?}"),
    }
}

/// The counter of a map; whenever it is there, the set that is written with it is too.
fn map_value(connection: &mut Connection, key: &str) -> i64 {
    let fields = map_fields(connection, key);
    let Some(visits) = fields.iter().find_map(|field| field.counter_value) else {
        assert!(fields.is_empty(), "half an update: {fields:?}");
        return 0;
    };
    assert_eq!(fields.len(), 2, "half an update: {fields:?}");
    assert_eq!(fields[0].set_value, ["x"]);
    visits
}

fn map_fields(connection: &mut Connection, key: &str) -> Vec<MapEntry> {
    match connection.ask(&fetch("maps", key)) {
        Reply::DtFetch(reply) => reply.value.map_or(vec![], |value| value.map_value),
        reply => panic!("{reply:?}"),
    }
}

#[track_caller]
fn expect_between(what: &str, value: i64, count: Count) {
    let Count { acknowledged, sent } = count;
    assert!(value >= acknowledged, "{what}: {value} of {acknowledged} acknowledged increments: some are lost");
    assert!(value <= sent, "{what}: {value} of {sent} increments that were sent: some are doubled");
}

/// A user profile that is written once and must stay as it is.
fn store_profile(connection: &mut Connection) -> Vec<MapEntry> {
    let address = in_map("address", &[], &[in_register("city", "Paris"), in_counter("moves", 2)]);
    let profile = map(
        &[],
        &[
            in_counter("visits", 1),
            in_set("interests", &["chess", "go"], &[]),
            in_register("name", "Alice"),
            in_flag("subscribed", true),
            address,
        ],
    );
    assert!(matches!(connection.ask(&update("maps", "profile", profile)), Reply::DtUpdate(_)));
    let stored = map_fields(connection, "profile");
    let names: Vec<_> = stored.iter().map(|entry| text(entry.field.name())).collect();
    assert_eq!(names, ["address", "interests", "name", "subscribed", "visits"]);
    stored
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start_on(&data, &[]);
    let profile = store_profile(&mut server.connect());
    let mut totals = [Counts::default(); CONNECTIONS];

    for round in 1..=ROUNDS {
        let replies = AtomicU64::new(0);
        let address = server.address;
        let started = Instant::now();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|connection| {
                    let replies = &replies;
                    scope.spawn(move || increment_until_killed(address, connection, replies))
                })
                .collect();
            while started.elapsed() < ROUND || replies.load(Ordering::Relaxed) < REPLIES_MIN {
                thread::sleep(Duration::from_millis(1));
            }
            server.kill();
            for (client, total) in clients.into_iter().zip(&mut totals) {
                let counts = client.join().unwrap();
                total.iter_mut().zip(counts).for_each(|(total, count)| total.add(count));
            }
        });
        println!("round {round}: {} increments acknowledged", replies.load(Ordering::Relaxed));

        server = Server::start_on(&data, &[]);
        let mut connection = server.connect();
        let mut shared = [Count::default(); 2];
        for (n, total) in totals.iter_mut().enumerate() {
            let own = format!("own-{n}");
            let values = [counter_value(&mut connection, &own), map_value(&mut connection, &own)];
            for (at, value) in values.into_iter().enumerate() {
                let what = format!("round {round}, connection {n}, {}", ["counter", "map"][at]);
                expect_between(&what, value, total[at]);
                // Whether the one in flight was stored is known now, and must not change any more.
                total[at] = Count { acknowledged: value, sent: value };
            }
            shared[0].add(total[2]);
            shared[1].add(total[3]);
        }
        expect_between(&format!("round {round}, shared counter"), counter_value(&mut connection, SHARED), shared[0]);
        expect_between(&format!("round {round}, shared map"), map_value(&mut connection, SHARED), shared[1]);
        assert_eq!(map_fields(&mut connection, "profile"), profile, "round {round}");
    }
}

const SET_CONNECTIONS: usize = 64;

/// What the surroundings say, so that the same test runs for long by hand: `tests/long.sh`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Adds members to the one set until the server is gone. Returns the numbers of the first that was not sent and of the
/// first that was not acknowledged.
fn add_until_killed(address: SocketAddr, connection: usize, first: u64, replies: &AtomicU64) -> (u64, u64) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sent, mut acknowledged) = (first, first);
    loop {
        let request = update("sets", "one", set(&[&member_name(connection, sent)], &[]));
        sent += 1;
        let mut reply = [0; DONE.len()];
        let written = stream.write_all(&frame(request.code().number(), &request.encode()));
        if written.is_err() || stream.read_exact(&mut reply).is_err() {
            return (sent, acknowledged);
        }
        assert_eq!(reply, DONE);
        acknowledged = sent;
        replies.fetch_add(1, Ordering::Relaxed);
    }
}

fn member_name(connection: usize, number: u64) -> String {
    format!("{connection:02}-{number:08}")
}

#[test]
fn no_acknowledged_member_of_one_set_is_lost() {
    let rounds = setting("OMBAK_CRASH_ROUNDS", 2);
    let round_length = Duration::from_secs(setting("OMBAK_CRASH_SECONDS", 1));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start_on(&data, &[]);
    // For each connection the numbers of those members that must be there, and of the next one to send.
    let mut present: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); SET_CONNECTIONS];
    let mut next = [0; SET_CONNECTIONS];

    for round in 1..=rounds {
        let replies = AtomicU64::new(0);
        let address = server.address;
        let started = Instant::now();
        let sent: Vec<(u64, u64)> = thread::scope(|scope| {
            let clients: Vec<_> = (0..SET_CONNECTIONS)
                .map(|connection| {
                    let (replies, first) = (&replies, next[connection]);
                    scope.spawn(move || add_until_killed(address, connection, first, replies))
                })
                .collect();
            while started.elapsed() < round_length || replies.load(Ordering::Relaxed) < REPLIES_MIN {
                thread::sleep(Duration::from_millis(1));
            }
            server.kill();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });

        server = Server::start_on(&data, &[]);
        let found = match server.connect().ask(&fetch("sets", "one")) {
            Reply::DtFetch(reply) => reply.value.unwrap().set_value,
            reply => panic!("{reply:?}"),
        };
        assert!(found.is_sorted_by(|a, b| a < b), "round {round}: a member is there twice, or out of order");
        let mut numbers = vec![BTreeSet::new(); SET_CONNECTIONS];
        for member in &found {
            let (connection, number) = text(member).split_once('-').map(|(c, n)| (c.parse(), n.parse())).unwrap();
            let connection: usize = connection.unwrap();
            numbers[connection].insert(number.unwrap());
        }
        for (connection, &(sent, acknowledged)) in sent.iter().enumerate() {
            present[connection].extend(next[connection]..acknowledged);
            let lost: Vec<_> = present[connection].difference(&numbers[connection]).collect();
            assert!(lost.is_empty(), "round {round}, connection {connection}: {lost:?} are lost");
            let never_sent = numbers[connection].iter().find(|&&number| number >= sent);
            assert_eq!(never_sent, None, "round {round}, connection {connection}");
            // Whether the one in flight was stored is known now, and must not change any more.
            present[connection] = std::mem::take(&mut numbers[connection]);
            next[connection] = sent;
        }
        println!(
            "round {round}: {} adds acknowledged, {} members are there, none is lost",
            replies.load(Ordering::Relaxed),
            found.len(),
        );
    }
}
