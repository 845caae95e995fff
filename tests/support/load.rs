//! A load of everything whose traces can be read back. Each connection numbers its requests of each kind, from 1 on, and what
//! the server shows of a kind tells how many of them it has: each whole, and none without those before it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use ombak::message::generated::{
    MapEntry, RpbBucketProps, RpbContent, RpbGetBucketReq, RpbIndexReq, RpbPair, RpbPutReq, RpbSetBucketReq,
};
use ombak::message::{Reply, Request};

use crate::requests::*;
use crate::support::{Connection, frame, text};

/// What a connection does: numbered objects with index entries, a counter, a set, a map, large objects, objects that come and
/// go, and the properties of a bucket.
pub const KINDS: usize = 7;
/// Objects that a connection puts in turn.
const OBJECTS: u64 = 20;
/// Members that its sets hold: the last ones.
const MEMBERS: u64 = 5;
/// Large objects that it puts in turn: enough for tables to be written of what a few connections put.
const LARGE_OBJECTS: u64 = 24;
const LARGE_BYTES: usize = 32_768;
/// Objects that come and go.
const PASSING_OBJECTS: u64 = 4;
/// No property has this by default.
const PROPERTY_BASE: u64 = 1000;
/// Batches that a connection sends before it reads the answers of the first.
const BATCHES_AHEAD: usize = 4;

/// How far a kind has come: as acknowledged, and as sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub acknowledged: u64,
    pub sent: u64,
}

/// Of each kind.
pub type Progresses = [Progress; KINDS];

/// What is told of a load while it runs.
pub trait Witness: Sync {
    /// A connection is about to send the next request of each kind.
    fn sends(&self, connection: u64);
    /// It has the answer of the next request of a kind.
    fn answered(&self, connection: u64, kind: usize);
}

/// Nobody is told.
pub struct NoWitness;

impl Witness for NoWitness {
    fn sends(&self, _connection: u64) {}
    fn answered(&self, _connection: u64, _kind: usize) {}
}

fn object_key(own: u64, number: u64) -> String {
    format!("{own}-{}", number % OBJECTS)
}

/// A put of the number as value and as entry of two indexes.
fn put_number(own: u64, number: u64) -> Request {
    let pair = |name: &str, value: String| RpbPair { key: Some(name.to_owned().into()), value: Some(value.into()) };
    Request::Put(Box::new(RpbPutReq {
        bucket: Some("mixed".into()),
        key: Some(object_key(own, number).into()),
        content: Some(RpbContent {
            value: number.to_string().into(),
            indexes: vec![pair("number_int", number.to_string()), pair("text_bin", format!("t{number}"))],
            ..RpbContent::default()
        }),
        ..RpbPutReq::default()
    }))
}

/// Text of which no two parts are alike, after its number.
fn large_value(own: u64, number: u64) -> String {
    let mut random = fastrand::Rng::with_seed(own << 32 | number);
    let mut value = format!("{number} ");
    while value.len() < LARGE_BYTES {
        // Writing to a text cannot fail.
        let _ = write!(value, "{:032x}", random.u128(..));
    }
    value
}

fn large_key(own: u64, number: u64) -> String {
    format!("large-{own}-{}", number % LARGE_OBJECTS)
}

/// An object is put by an odd number, and deleted by the next one.
fn passing_key(own: u64, number: u64) -> String {
    format!("passing-{own}-{}", number.div_ceil(2) % PASSING_OBJECTS)
}

fn set_property(own: u64, number: u64) -> Request {
    let small_vclock = u32::try_from(PROPERTY_BASE + number).unwrap();
    let props = RpbBucketProps { small_vclock: Some(small_vclock), ..RpbBucketProps::default() };
    let (bucket, props) = (Some(format!("props-{own}").into()), Some(props));
    Request::SetBucket(Box::new(RpbSetBucketReq { bucket, props, ..RpbSetBucketReq::default() }))
}

/// The `number`th request of a kind.
pub fn request(own: u64, kind: usize, number: u64) -> Request {
    let key = format!("mixed-{own}");
    // Of what a set has, the oldest goes.
    let gone = (number > MEMBERS).then(|| (number - MEMBERS).to_string());
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    match kind {
        0 => put_number(own, number),
        1 => update("counters", &key, counter(1)),
        2 => update("sets", &key, set(&[&number.to_string()], &gone)),
        3 => {
            let inner = in_map("inner", &[], &[in_counter("count", 1), in_set("seen", &[&number.to_string()], &gone)]);
            update("maps", &key, map(&[], &[in_counter("count", 1), in_register("last", &number.to_string()), inner]))
        }
        4 => put("default", "large", &large_key(own, number), &large_value(own, number)),
        5 if number % 2 == 1 => put("default", "b", &passing_key(own, number), &number.to_string()),
        5 => delete("default", &passing_key(own, number)),
        _ => set_property(own, number),
    }
}

/// Sends batches of one request of each kind, several ahead of the answers, until so many were sent or the server is gone.
pub fn work(
    address: SocketAddr,
    own: u64,
    mut progresses: Progresses,
    batches_max: usize,
    witness: &dyn Witness,
) -> Progresses {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut unanswered = 0;
    let mut batches = 0;
    loop {
        if batches < batches_max {
            witness.sends(own);
            let mut batch = Vec::new();
            for (kind, progress) in progresses.iter_mut().enumerate() {
                progress.sent += 1;
                let request = request(own, kind, progress.sent);
                batch.extend(frame(request.code().number(), &request.encode()));
            }
            batches += 1;
            if stream.write_all(&batch).is_err() {
                return progresses;
            }
            unanswered += 1;
            if unanswered < BATCHES_AHEAD {
                continue;
            }
        }
        if unanswered == 0 {
            return progresses;
        }
        for (kind, progress) in progresses.iter_mut().enumerate() {
            match receive(&mut stream) {
                Some((code, payload)) => {
                    assert_ne!(code, 0, "{}", text(&payload));
                    progress.acknowledged += 1;
                    witness.answered(own, kind);
                }
                None => return progresses,
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

/// The one value of an object, if it is there.
fn value(connection: &mut Connection, bucket: &str, key: &str) -> Option<Bytes> {
    match connection.ask(&get("default", bucket, key)) {
        Reply::Get(mut reply) => {
            assert!(reply.content.len() <= 1, "{key} has siblings");
            reply.content.pop().map(|content| content.value)
        }
        reply => panic!("{reply:?}"),
    }
}

/// The objects of all connections, by key, and the number that each holds.
fn objects(connection: &mut Connection, connections: u64) -> BTreeMap<String, u64> {
    let keys = (0..connections).flat_map(|own| (0..OBJECTS).map(move |number| object_key(own, number)));
    keys.filter_map(|key| value(connection, "mixed", &key).map(|value| (key, number(&value)))).collect()
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

fn last_put(objects: &BTreeMap<String, u64>, own: u64) -> u64 {
    let mine = || objects.iter().filter(|(key, _)| key.split_once('-').is_some_and(|(of, _)| of == own.to_string()));
    let last = mine().map(|(_, number)| *number).max().unwrap_or_default();
    for number in last.saturating_sub(OBJECTS - 1).max(1)..=last {
        let key = object_key(own, number);
        assert_eq!(objects.get(&key), Some(&number), "{key}, where {last} is the last");
    }
    assert_eq!(mine().count() as u64, last.min(OBJECTS), "objects of connection {own}");
    last
}

fn last_increment(connection: &mut Connection, own: u64) -> u64 {
    match connection.ask(&fetch("counters", &format!("mixed-{own}"))) {
        Reply::DtFetch(reply) => {
            u64::try_from(reply.value.map_or(0, |value| value.counter_value.unwrap())).expect("no negative counter")
        }
        reply => panic!("{reply:?}"),
    }
}

fn last_member(connection: &mut Connection, own: u64) -> u64 {
    match connection.ask(&fetch("sets", &format!("mixed-{own}"))) {
        Reply::DtFetch(reply) => last_of(&reply.value.map_or(vec![], |value| value.set_value), own),
        reply => panic!("{reply:?}"),
    }
}

fn last_map_update(connection: &mut Connection, own: u64) -> u64 {
    // The fields come by their names: count, inner, last.
    match &map_entries(connection, &format!("mixed-{own}"))[..] {
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
    }
}

fn last_large_put(connection: &mut Connection, own: u64) -> u64 {
    let mut numbers = Vec::new();
    for key in 0..LARGE_OBJECTS {
        if let Some(value) = value(connection, "large", &large_key(own, key)) {
            let value = text(&value);
            let of: u64 = value.split_once(' ').unwrap().0.parse().unwrap();
            assert!(value == large_value(own, of), "large object {of} of connection {own} is not what was put");
            numbers.push(of);
        }
    }
    numbers.sort_unstable();
    let last = numbers.last().copied().unwrap_or_default();
    let expected: Vec<u64> = (last.saturating_sub(LARGE_OBJECTS) + 1..=last).collect();
    assert_eq!(numbers, expected, "large objects of connection {own}");
    last
}

/// Where no object is there the last request was a delete: the last one that was sent, for all that can be seen.
fn last_passing(connection: &mut Connection, own: u64, sent: u64) -> u64 {
    let keys: Vec<_> = (0..PASSING_OBJECTS).map(|key| passing_key(own, 2 * key)).collect();
    let there: Vec<_> = keys.iter().filter_map(|key| value(connection, "b", key).map(|value| number(&value))).collect();
    match there[..] {
        [] => sent - sent % 2,
        [one] => one,
        _ => panic!("connection {own}: {there:?} are there, of which each is put when the one before it is gone"),
    }
}

fn last_property(connection: &mut Connection, own: u64) -> u64 {
    let bucket = Some(format!("props-{own}").into());
    match connection.ask(&Request::GetBucket(RpbGetBucketReq { bucket, ..RpbGetBucketReq::default() })) {
        Reply::Bucket(reply) => {
            let found = u64::from(reply.props.small_vclock.unwrap());
            found.saturating_sub(PROPERTY_BASE)
        }
        reply => panic!("{reply:?}"),
    }
}

/// Checks that the server shows each connection's requests of each kind one after the other, none of them half, those that
/// were acknowledged and no more than were sent; and that the indexes say what the objects say. How far each has come.
pub fn check(connection: &mut Connection, progresses: &[Progresses]) -> Vec<[u64; KINDS]> {
    let connections = progresses.len() as u64;
    let objects = objects(connection, connections);
    let mut all = Vec::new();
    for (own, progresses) in (0..).zip(progresses) {
        let shown = [
            last_put(&objects, own),
            last_increment(connection, own),
            last_member(connection, own),
            last_map_update(connection, own),
            last_large_put(connection, own),
            last_passing(connection, own, progresses[5].sent),
            last_property(connection, own),
        ];
        for (kind, progress) in progresses.iter().enumerate() {
            let Progress { acknowledged, sent } = *progress;
            let shown = shown[kind];
            assert!(
                (acknowledged..=sent).contains(&shown),
                "connection {own}, kind {kind}: {shown} is there, {acknowledged} of {sent} acknowledged"
            );
        }
        all.push(shown);
    }
    let numbers = objects.iter().map(|(key, number)| (key.clone(), number.to_string())).collect();
    assert_eq!(entries(connection, "number_int", "0", "999999999"), numbers);
    let texts = objects.iter().map(|(key, number)| (key.clone(), format!("t{number}"))).collect();
    assert_eq!(entries(connection, "text_bin", "t", "u"), texts);
    all
}
