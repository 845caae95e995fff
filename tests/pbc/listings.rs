//! Keys and buckets, in one reply or as a stream (`kv.md` §1.7).

use std::collections::BTreeSet;

use bytes::Bytes;
use ombak::message::generated::{RpbListBucketsReq, RpbListKeysReq};
use ombak::message::{Reply, Request};

use crate::requests::put;
use crate::support::{Connection, Server, text};

/// All parts of a stream: how many names each has, and the names.
fn parts(connection: &mut Connection, request: &Request) -> (Vec<usize>, Vec<String>) {
    connection.send_frame(request.code().number(), &request.encode());
    let (mut sizes, mut names) = (Vec::new(), Vec::new());
    loop {
        let (code, payload) = connection.receive();
        assert!(!payload.is_empty(), "some clients stumble over a part without a body");
        let (part, done) = match Reply::decode(code, Bytes::from(payload)).unwrap() {
            Reply::ListKeys(part) => (part.keys.clone(), part.done()),
            Reply::ListBuckets(part) => (part.buckets.clone(), part.done()),
            reply => panic!("{reply:?}"),
        };
        sizes.push(part.len());
        names.extend(part.iter().map(|name| text(name)));
        if done {
            return (sizes, names);
        }
    }
}

fn list_keys(bucket: &'static str, bucket_type: &'static str) -> Request {
    let (bucket, r#type) = (Some(bucket.into()), Some(bucket_type.into()));
    Request::ListKeys(RpbListKeysReq { bucket, r#type, ..RpbListKeysReq::default() })
}

fn list_buckets(bucket_type: &'static str, stream: bool) -> Request {
    let (r#type, stream) = (Some(bucket_type.into()), Some(stream));
    Request::ListBuckets(RpbListBucketsReq { r#type, stream, ..RpbListBucketsReq::default() })
}

#[test]
fn keys_come_in_parts() {
    let server = Server::start();
    let mut connection = server.connect();
    let keys: BTreeSet<_> = (0..250).map(|n| format!("key-{n:03}")).collect();
    for key in &keys {
        assert!(matches!(connection.ask(&put("default", "b", key, "v")), Reply::Put(_)));
    }
    assert!(matches!(connection.ask(&put("default", "b2", "other", "v")), Reply::Put(_)));
    let (sizes, listed) = parts(&mut connection, &list_keys("b", "default"));
    assert_eq!(listed.len(), 250);
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), keys);
    assert!(sizes.len() >= 3 && sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    let (sizes, listed) = parts(&mut connection, &list_keys("nothing", "default"));
    assert_eq!((sizes, listed), (vec![0], vec![]));
    assert_eq!(connection.refused(&list_keys("b", "no_such_type")), "No bucket-type named 'no_such_type'");
    connection.expect_alive();
}

#[test]
fn buckets_of_each_type() {
    let server = Server::start();
    server.create_type("plain", "{}");
    let mut connection = server.connect();
    for (bucket_type, bucket) in [("default", "a"), ("default", "b"), ("plain", "c"), ("plain", "a")] {
        assert!(matches!(connection.ask(&put(bucket_type, bucket, "k", "v")), Reply::Put(_)));
    }
    for (bucket_type, expected) in [("default", ["a", "b"]), ("plain", ["a", "c"])] {
        let Reply::ListBuckets(reply) = connection.ask(&list_buckets(bucket_type, false)) else { panic!("a list") };
        let listed: BTreeSet<_> = reply.buckets.iter().map(|bucket| text(bucket)).collect();
        assert_eq!(listed, BTreeSet::from(expected.map(str::to_owned)));
        let (_, streamed) = parts(&mut connection, &list_buckets(bucket_type, true));
        assert_eq!(streamed.into_iter().collect::<BTreeSet<_>>(), listed);
    }
}

#[test]
fn who_leaves_in_the_middle_of_a_listing_disturbs_nobody() {
    let server = Server::start_with(&[("OMBAK_LIST_KEYS_CHUNK", "1")]);
    let mut connection = server.connect();
    for n in 0..500 {
        assert!(matches!(connection.ask(&put("default", "b", &format!("{n}"), "v")), Reply::Put(_)));
    }
    for _ in 0..4 {
        let mut leaving = server.connect();
        let request = list_keys("b", "default");
        leaving.send_frame(request.code().number(), &request.encode());
        leaving.receive();
    }
    let (sizes, listed) = parts(&mut connection, &list_keys("b", "default"));
    assert_eq!(listed.len(), 500);
    assert!(sizes.len() >= 500);
}

/// What a server reads ahead for a client that does not take it is bounded, whatever the bucket holds: here keys of 20 MB.
#[test]
fn a_listing_waits_for_its_reader_with_little_memory() {
    let server = Server::start();
    let mut connection = server.connect();
    let padding = "k".repeat(10_000);
    let keys = 2_000;
    // All are sent before the first reply is read: replies are short.
    for chunk in 0..keys / 100 {
        for number in 0..100 {
            let put = put("default", "b", &format!("{:05}{padding}", chunk * 100 + number), "v");
            connection.send_frame(put.code().number(), &put.encode());
        }
        for _ in 0..100 {
            assert_eq!(connection.receive().0, 12);
        }
    }
    // Where the system tells: elsewhere the keys are only counted.
    let before = server.memory("VmHWM:");
    let listings = 8;
    let readers: Vec<_> = (0..listings)
        .map(|_| {
            let mut reader = server.connect();
            let request = list_keys("b", "default");
            reader.send_frame(request.code().number(), &request.encode());
            reader.receive();
            reader
        })
        .collect();
    if let (Some(before), Some(after)) = (before, server.memory("VmHWM:")) {
        let growth = after.saturating_sub(before);
        assert!(growth < 64 * 1024 * 1024, "{listings} listings of 20 MB each took {growth} bytes");
    }
    for mut reader in readers {
        let mut count = 100;
        while let (18, payload) = reader.receive() {
            match Reply::decode(18, payload.into()).unwrap() {
                Reply::ListKeys(part) if part.done() => break,
                Reply::ListKeys(part) => count += part.keys.len(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(count, keys);
    }
}
