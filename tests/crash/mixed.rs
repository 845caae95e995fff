//! SIGKILL at random times under a load of everything, pipelined: what was acknowledged is there, each request whole or not
//! at all, and the indexes say what the objects say.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ombak::message::generated::{MapEntry, RpbContent, RpbIndexReq, RpbPair, RpbPutReq};
use ombak::message::{Reply, Request};

use crate::requests::*;
use crate::setting;
use crate::support::{Connection, Server, frame, text};

const CONNECTIONS: u64 = 16;
/// Each connection has this many objects, and puts them in turn.
const OBJECTS: u64 = 20;
/// Each connection's sets hold their last members.
const MEMBERS: u64 = 5;
/// Batches that a connection sends before it reads the answers of the first.
const BATCHES_AHEAD: usize = 4;

/// What a connection does: each kind is numbered by itself, from 1 on.
const KINDS: usize = 4;

/// How far a kind has come: as acknowledged, and as sent.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    acknowledged: u64,
    sent: u64,
}

fn object_key(connection: u64, number: u64) -> String {
    format!("{connection}-{}", number % OBJECTS)
}

/// A put of the number as value and as entry of two indexes.
fn put_number(connection: u64, number: u64) -> Request {
    let pair = |name: &str, value: String| RpbPair { key: Some(name.to_owned().into()), value: Some(value.into()) };
    Request::Put(Box::new(RpbPutReq {
        bucket: Some("mixed".into()),
        key: Some(object_key(connection, number).into()),
        content: Some(RpbContent {
            value: number.to_string().into(),
            indexes: vec![pair("number_int", number.to_string()), pair("text_bin", format!("t{number}"))],
            ..RpbContent::default()
        }),
        ..RpbPutReq::default()
    }))
}

/// The `number`th request of a kind.
fn request(connection: u64, kind: usize, number: u64) -> Request {
    let own = format!("mixed-{connection}");
    // Of what a set has, the oldest goes.
    let gone = (number > MEMBERS).then(|| (number - MEMBERS).to_string());
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    match kind {
        0 => put_number(connection, number),
        1 => update("counters", &own, counter(1)),
        2 => update("sets", &own, set(&[&number.to_string()], &gone)),
        _ => {
            let inner = in_map("inner", &[], &[in_counter("count", 1), in_set("seen", &[&number.to_string()], &gone)]);
            update("maps", &own, map(&[], &[in_counter("count", 1), in_register("last", &number.to_string()), inner]))
        }
    }
}

/// Sends batches of one request of each kind, several ahead of the answers, until the server is gone.
fn work_until_killed(address: SocketAddr, connection: u64, mut progress: [Progress; KINDS]) -> [Progress; KINDS] {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut unanswered = 0;
    loop {
        let mut batch = Vec::new();
        for (kind, progress) in progress.iter_mut().enumerate() {
            progress.sent += 1;
            let request = request(connection, kind, progress.sent);
            batch.extend(frame(request.code().number(), &request.encode()));
        }
        if stream.write_all(&batch).is_err() {
            return progress;
        }
        unanswered += 1;
        if unanswered < BATCHES_AHEAD {
            continue;
        }
        for kind in 0..KINDS {
            match receive(&mut stream) {
                Some((code, payload)) => {
                    assert_ne!(code, 0, "{}", text(&payload));
                    progress[kind].acknowledged += 1;
                }
                None => return progress,
            }
        }
        unanswered -= 1;
    }
}

/// The next reply; none when the server is gone.
fn receive(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).ok()?;
    let length = u32::from_be_bytes(header[..4].try_into().unwrap()) as usize;
    let mut payload = vec![0; length - 1];
    stream.read_exact(&mut payload).ok()?;
    Some((header[4], payload))
}

fn number(bytes: &[u8]) -> u64 {
    text(bytes).parse().unwrap()
}

/// The objects of all connections, by key, and the number that each holds.
fn objects(connection: &mut Connection) -> BTreeMap<String, u64> {
    let keys = (0..CONNECTIONS).flat_map(|own| (0..OBJECTS).map(move |number| object_key(own, number)));
    let mut found = BTreeMap::new();
    for key in keys {
        match connection.ask(&get("default", "mixed", &key)) {
            Reply::Get(reply) if reply.content.is_empty() => {}
            Reply::Get(reply) => {
                assert_eq!(reply.content.len(), 1);
                found.insert(key, number(&reply.content[0].value));
            }
            reply => panic!("{reply:?}"),
        }
    }
    found
}

/// What an index holds: the key of each entry, and its term.
fn entries(connection: &mut Connection, index: &str, min: &str, max: &str) -> BTreeMap<String, String> {
    let query = RpbIndexReq {
        bucket: Some("mixed".into()),
        index: Some(index.to_owned().into()),
        qtype: Some(1),
        range_min: Some(min.to_owned().into()),
        range_max: Some(max.to_owned().into()),
        return_terms: Some(true),
        ..RpbIndexReq::default()
    };
    match connection.ask(&Request::Index(Box::new(query))) {
        Reply::Index(reply) => {
            let count = reply.results.len();
            let entry = |pair: RpbPair| (text(&pair.value.unwrap()), text(&pair.key.unwrap()));
            let entries: BTreeMap<_, _> = reply.results.into_iter().map(entry).collect();
            assert_eq!(entries.len(), count, "an object is in {index} twice");
            entries
        }
        reply => panic!("{reply:?}"),
    }
}

fn map_entries(connection: &mut Connection, key: &str) -> Vec<MapEntry> {
    match connection.ask(&fetch("maps", key)) {
        Reply::DtFetch(reply) => reply.value.map_or(vec![], |value| value.map_value),
        reply => panic!("{reply:?}"),
    }
}

/// The last of a set's members, which are that and those before it.
fn last_of(members: &[Bytes], own: u64) -> u64 {
    let mut members: Vec<u64> = members.iter().map(|member| number(member)).collect();
    members.sort_unstable();
    let last = members.last().copied().unwrap_or_default();
    let expected: Vec<u64> = (last.saturating_sub(MEMBERS) + 1..=last).collect();
    assert_eq!(members, expected, "a set of connection {own}");
    last
}

/// How far each kind has come by what the server shows. Each must show one request after the other, none of them half.
fn found(connection: &mut Connection, own: u64, objects: &BTreeMap<String, u64>) -> [u64; KINDS] {
    let key = format!("mixed-{own}");
    let mine = objects.iter().filter(|(key, _)| key.split_once('-').is_some_and(|(of, _)| of == own.to_string()));
    let last_put = mine.clone().map(|(_, number)| *number).max().unwrap_or_default();
    for (key, number) in mine {
        assert!(number + OBJECTS > last_put && object_key(own, *number) == *key, "{key} holds {number} of {last_put}");
    }

    let count = match connection.ask(&fetch("counters", &key)) {
        Reply::DtFetch(reply) => reply.value.map_or(0, |value| value.counter_value.unwrap()),
        reply => panic!("{reply:?}"),
    };

    let members = match connection.ask(&fetch("sets", &key)) {
        Reply::DtFetch(reply) => reply.value.map_or(vec![], |value| value.set_value),
        reply => panic!("{reply:?}"),
    };
    let last_member = last_of(&members, own);

    // The fields come by their names: count, inner, last.
    let last_map = match &map_entries(connection, &key)[..] {
        [] => 0,
        [count, inner, last] => {
            let done = u64::try_from(count.counter_value.unwrap()).unwrap();
            assert_eq!(number(last.register_value.as_ref().unwrap()), done, "map of connection {own}");
            let [inner_count, seen] = &inner.map_value[..] else { panic!("{inner:?}") };
            assert_eq!(inner_count.counter_value, count.counter_value, "map of connection {own}");
            assert_eq!(last_of(&seen.set_value, own), done, "map of connection {own}");
            done
        }
        entries => panic!("half an update: {entries:?}"),
    };
    [last_put, u64::try_from(count).unwrap(), last_member, last_map]
}

#[test]
fn everything_is_whole_after_a_kill_at_any_time() {
    let rounds = setting("OMBAK_CRASH_MIXED_ROUNDS", 10);
    let seed = setting("OMBAK_CRASH_SEED", fastrand::u64(..));
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start_on(&data, &[]);
    let mut done = [[0; KINDS]; CONNECTIONS as usize];
    let (mut total, mut lost_in_flight) = (0, 0);
    for round in 1..=rounds {
        let address = server.address;
        let progress: Vec<[Progress; KINDS]> = thread::scope(|scope| {
            let start = |own: u64| done[own as usize].map(|done| Progress { acknowledged: done, sent: done });
            let clients: Vec<_> =
                (0..CONNECTIONS).map(|own| scope.spawn(move || work_until_killed(address, own, start(own)))).collect();
            thread::sleep(Duration::from_millis(random.u64(20..800)));
            server.kill();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });

        server = Server::start_on(&data, &[]);
        let mut connection = server.connect();
        let objects = objects(&mut connection);
        for (own, progress) in (0..).zip(&progress) {
            let shown = found(&mut connection, own, &objects);
            for (kind, progress) in progress.iter().enumerate() {
                let Progress { acknowledged, sent } = *progress;
                let shown = shown[kind];
                assert!(
                    (acknowledged..=sent).contains(&shown),
                    "round {round}, connection {own}, kind {kind}: {shown} is there, {acknowledged} of {sent} acknowledged"
                );
                total += acknowledged - done[own as usize][kind];
                lost_in_flight += sent - shown;
            }
            done[own as usize] = shown;
        }
        let numbers = objects.iter().map(|(key, number)| (key.clone(), number.to_string())).collect();
        assert_eq!(entries(&mut connection, "number_int", "0", "999999999"), numbers, "round {round}");
        let texts = objects.iter().map(|(key, number)| (key.clone(), format!("t{number}"))).collect();
        assert_eq!(entries(&mut connection, "text_bin", "t", "u"), texts, "round {round}");
    }
    println!("{rounds} kills, {total} requests acknowledged, none lost; {lost_in_flight} in flight were not made");
}
