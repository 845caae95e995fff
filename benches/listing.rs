//! Listings and index queries where a bucket is large: `cargo bench --bench listing [KEYS...]`, by default with 100,000 and
//! 1,000,000 keys. Prints two rows for each size: of the server that has just stored the keys, and of a server that was
//! started on them. What should not grow with the keys: the server's memory while it lists them, but for the store's cache,
//! which whatever reads fills up to `cache_size_bytes`; the time of a bucket listing; and the time of a query that finds
//! 10,000 of them.
//!
//! With the default cache of 32 MiB, 1,000,000 keys: 47 MiB more than 254 MiB right after they were stored, 46 MiB more than
//! 73 MiB in a new process. With 256 MiB it was some 200 MiB more.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use ombak::message::generated::*;
use ombak::message::{Reply, Request};
use support::{Connection, Server};

/// Clients that store at a time: their writes share fsyncs.
const CLIENTS: u32 = 64;
/// What the index query finds.
const FOUND: u32 = 10_000;

fn bytes(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn put(connection: &mut Connection, bucket: &str, number: u32) {
    let index = RpbPair { key: bytes("n_int"), value: bytes(&number.to_string()) };
    let content = RpbContent { value: "x".repeat(100).into(), indexes: vec![index], ..RpbContent::default() };
    let (bucket, key) = (bytes(bucket), bytes(&format!("key-{number:08}")));
    let put = Request::Put(Box::new(RpbPutReq { bucket, key, content: Some(content), ..RpbPutReq::default() }));
    assert!(matches!(connection.ask(&put), Reply::Put(_)));
}

/// The number of names in all parts of an answer, and the time that it took.
fn listed(connection: &mut Connection, request: &Request) -> (usize, Duration) {
    let started = Instant::now();
    connection.send_frame(request.code().number(), &request.encode());
    let mut count = 0;
    loop {
        let (code, payload) = connection.receive();
        let (names, ends) = match Reply::decode(code, payload.into()).unwrap() {
            Reply::ListKeys(part) => (part.keys.len(), part.done == Some(true)),
            Reply::ListBuckets(part) => (part.buckets.len(), true),
            Reply::Index(part) => (part.keys.len(), part.done == Some(true)),
            other => panic!("{other:?}"),
        };
        count += names;
        if ends {
            return (count, started.elapsed());
        }
    }
}

fn measure(keys: u32) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start_on(&data, &[]);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut connection = server.connect();
            scope
                .spawn(move || (client..keys).step_by(CLIENTS as usize).for_each(|n| put(&mut connection, "large", n)));
        }
    });
    let mut connection = server.connect();
    // A bucket before it and one behind it.
    put(&mut connection, "before", 0);
    put(&mut connection, "with one key", 0);
    ask(&server, keys, "as they were stored");
    drop(server);
    ask(&Server::start_on(&data, &[]), keys, "a new process");
}

/// Prints what a server does that holds these keys.
fn ask(server: &Server, keys: u32, which: &str) {
    let mut connection = server.connect();
    let resident = server.memory("VmRSS:").unwrap_or_default();
    // From here on the peak is that of what follows.
    let _ = std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5");
    let list = RpbListKeysReq { bucket: bytes("large"), timeout: Some(600_000), ..RpbListKeysReq::default() };
    let (count, key_time) = listed(&mut connection, &Request::ListKeys(list));
    assert_eq!(count, keys as usize);
    let growth = server.memory("VmHWM:").unwrap_or_default().saturating_sub(resident);

    let (count, bucket_time) = listed(&mut connection, &Request::ListBuckets(RpbListBucketsReq::default()));
    assert_eq!(count, 3);
    let first = keys / 2;
    let query = Request::Index(Box::new(RpbIndexReq {
        bucket: bytes("large"),
        index: bytes("n_int"),
        qtype: Some(1),
        range_min: bytes(&first.to_string()),
        range_max: bytes(&(first + FOUND - 1).to_string()),
        stream: Some(true),
        ..RpbIndexReq::default()
    }));
    let (count, query_time) = listed(&mut connection, &query);
    assert_eq!(count, FOUND as usize);
    println!(
        "{keys:>9} keys, {which:<19} | list keys {:>6.2} s, {:>5.1} MiB more than {:>3.0} MiB | list buckets {:>7.3} ms | {FOUND} by index {:>6.1} ms",
        key_time.as_secs_f64(),
        growth as f64 / 1024.0 / 1024.0,
        resident as f64 / 1024.0 / 1024.0,
        bucket_time.as_secs_f64() * 1e3,
        query_time.as_secs_f64() * 1e3,
    );
}

fn main() {
    let sizes: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![100_000, 1_000_000] } else { sizes };
    sizes.into_iter().for_each(measure);
}
