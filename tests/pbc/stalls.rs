//! A disk that stalls, and limits that are used up: everybody waits, and goes on when it goes on.

use std::io::{Read, Write};
use std::time::Duration;

use ombak::config::Config;
use ombak::message::Reply;
use ombak::message::generated::{RpbBucketProps, RpbGetBucketReq, RpbSetBucketReq};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::in_process::InProcess;
use crate::leave;
use crate::requests::{get, put};
use crate::support::{Server, frame};

/// Long enough for a request to come to where it waits. Where it does not, a test shows less and fails no less.
const A_MOMENT: Duration = Duration::from_millis(300);
/// Several of the system's questions whether a peer is there.
const SEVERAL_PROBES: Duration = Duration::from_secs(4);

fn put_frame(key: &str) -> Vec<u8> {
    let request = put("default", "b", key, &"v".repeat(16));
    frame(request.code().number(), &request.encode())
}

/// Sends so many puts at once, and reads their replies.
async fn pipeline_puts(mut stream: TcpStream, connection: usize, count: usize) {
    let requests: Vec<u8> = (0..count).flat_map(|number| put_frame(&format!("{connection}/{number}"))).collect();
    let (mut reading, mut writing) = stream.split();
    let reading = async {
        // An empty reply is its length and its code.
        let mut replies = vec![0; 5 * count];
        reading.read_exact(&mut replies).await.unwrap();
        assert!(replies.chunks(5).all(|reply| reply == [0, 0, 0, 1, 12]));
    };
    tokio::join!(async { writing.write_all(&requests).await.unwrap() }, reading);
}

#[test]
fn those_who_wait_for_a_permit_let_their_replies_leave() {
    const CONNECTIONS: usize = 8;
    const PUTS: usize = 2_000;
    let mut server = Server::start_with(&[("OMBAK_REQUESTS_IN_FLIGHT_MAX", "64")]);
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        let requests: Vec<_> = (0..PUTS).flat_map(|key| put_frame(&format!("{number}/{key}"))).collect();
        connection.send(&requests);
    }
    for connection in &mut connections {
        (0..PUTS).for_each(|_| assert_eq!(connection.receive(), (12, vec![])));
    }
    server.connect().expect_alive();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    connections.iter_mut().for_each(|connection| connection.expect_end());
}

#[test]
fn a_stall_of_the_disk_under_pipelined_puts_ends_with_it() {
    const CONNECTIONS: usize = 400;
    /// Together nearly twice as many as may be in flight.
    const PUTS: usize = 300;
    // Both ends of each are here.
    let _ = rlimit::increase_nofile_limit(4096);
    let server = InProcess::start(&Config::default());
    server.disk.stall();
    let runtime = server.runtime.as_ref().unwrap();
    // One after the other: more than a few at once do not fit the listener's backlog.
    let connect = || {
        let mut connection = server.connect();
        connection.expect_alive();
        connection.stream.set_nonblocking(true).unwrap();
        let _inside = runtime.enter();
        TcpStream::from_std(connection.stream).unwrap()
    };
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
    let puts = streams.into_iter().enumerate();
    let puts: Vec<_> = puts.map(|(number, stream)| runtime.spawn(pipeline_puts(stream, number, PUTS))).collect();
    // Until nobody else is answered: as many requests are in flight as may be.
    let is_answered = || {
        let mut other = server.connect();
        other.stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        other.send_frame(1, b"");
        other.stream.read_exact(&mut [0; 5]).is_ok()
    };
    while is_answered() {
        std::thread::sleep(A_MOMENT);
    }
    server.disk.go_on();
    let patience = tokio::time::Duration::from_secs(300);
    runtime.block_on(async {
        for put in puts {
            tokio::time::timeout(patience, put).await.expect("the server has stopped for good").unwrap();
        }
    });
    server.connect().expect_alive();
}

#[test]
fn requests_that_wait_for_bytes_hold_up_no_others() {
    let env = [
        ("OMBAK_BUFFERED_BYTES_MAX", "1048576"),
        ("OMBAK_REQUESTS_IN_FLIGHT_MAX", "4"),
        ("OMBAK_WRITE_TIMEOUT_MS", "600000"),
    ];
    let server = Server::start_with(&env);
    server.connect().ask(&put("default", "b", "large", &"x".repeat(900_000)));
    let request = get("default", "b", "large");
    let requests = frame(request.code().number(), &request.encode()).repeat(40);
    // One of them has all the bytes and takes nothing, and the others wait for them.
    let mut readers: Vec<_> = (0..8).map(|_| server.connect()).collect();
    readers.iter_mut().for_each(|reader| reader.send(&requests));
    std::thread::sleep(A_MOMENT * 3);
    server.connect().expect_alive();
}

#[test]
fn a_peer_that_left_while_its_large_frame_waited_for_bytes_is_gone() {
    let env = [("OMBAK_BUFFERED_BYTES_MAX", "1048576"), ("OMBAK_CONNECTIONS_MAX", "2")];
    let server = Server::start_with(&env);
    let request = put("default", "b", "k", &"x".repeat(900_000));
    let large = frame(request.code().number(), &request.encode());
    let (mut first, mut second) = (server.connect(), server.connect());
    first.send(&large[..100_000]);
    std::thread::sleep(A_MOMENT);
    second.send(&large[..100_000]);
    std::thread::sleep(A_MOMENT);
    leave::by_reset(second);
    // Its place is free.
    server.connect().expect_alive();
    first.send(&large[100_000..]);
    assert_eq!(first.receive(), (12, vec![]));
}

/// Memory in which every write finds no room while the disk stalls, but for the first one.
const NO_MEMORY_BYTES: usize = 256;

fn patient() -> Config {
    Config { request_timeout_ms_default: 600_000, keepalive_ms: 1_000, ..Config::default() }
}

#[test]
fn a_writer_that_left_while_it_waited_for_room_gives_its_place_back() {
    let server = InProcess::start_with_memory(&Config { requests_in_flight_max: 2, ..patient() }, NO_MEMORY_BYTES);
    server.disk.stall();
    let (mut first, mut second) = (server.connect(), server.connect());
    first.send(&put_frame("first"));
    server.disk.wait_until_asked();
    second.send(&put_frame("second"));
    std::thread::sleep(A_MOMENT);
    leave::by_reset(second);
    server.connect().expect_alive();
    server.disk.go_on();
    assert_eq!(first.receive(), (12, vec![]));
}

#[test]
fn a_client_that_closed_its_side_is_answered_however_long_that_takes() {
    let server = InProcess::start_with_memory(&patient(), NO_MEMORY_BYTES);
    server.disk.stall();
    let (mut first, mut second) = (server.connect(), server.connect());
    first.send(&put_frame("first"));
    server.disk.wait_until_asked();
    second.send(&[put_frame("second"), put_frame("third")].concat());
    second.half_close();
    std::thread::sleep(SEVERAL_PROBES);
    server.disk.go_on();
    assert_eq!((second.receive(), second.receive()), ((12, vec![]), (12, vec![])));
    second.expect_end();
}

#[test]
fn what_is_sent_ahead_is_neither_lost_nor_read_without_bound() {
    /// What the system buffers between two sockets is some MiB.
    const BUFFERED_BYTES_MAX: usize = 24 * 1024 * 1024;
    let server = InProcess::start_with_memory(&patient(), NO_MEMORY_BYTES);
    server.disk.stall();
    let (mut first, mut second) = (server.connect(), server.connect());
    first.send(&put_frame("first"));
    server.disk.wait_until_asked();
    second.send(&put_frame("second"));
    // Nobody has such a key, so replies are small.
    let request = get("default", "b", &"k".repeat(4096));
    let ahead = frame(request.code().number(), &request.encode());
    second.stream.set_write_timeout(Some(A_MOMENT * 3)).unwrap();
    let mut sent = 0;
    while sent < BUFFERED_BYTES_MAX {
        match second.stream.write(&ahead[sent % ahead.len()..]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < BUFFERED_BYTES_MAX, "{sent} bytes were read ahead");
    server.disk.go_on();
    second.stream.set_write_timeout(None).unwrap();
    second.send(&ahead[sent % ahead.len()..]);
    second.half_close();
    assert_eq!(second.receive(), (12, vec![]));
    for _ in 0..=sent / ahead.len() {
        assert_eq!(second.receive(), (10, vec![]));
    }
    second.expect_end();
}

#[test]
fn properties_whose_setter_left_take_effect_all_the_same() {
    let server = InProcess::start_with_memory(&patient(), NO_MEMORY_BYTES);
    server.disk.stall();
    let mut setter = server.connect();
    let props = Some(RpbBucketProps { allow_mult: Some(true), ..RpbBucketProps::default() });
    let set = RpbSetBucketReq { bucket: Some("b".into()), props, ..RpbSetBucketReq::default() };
    let set = ombak::message::Request::SetBucket(Box::new(set));
    setter.send_frame(set.code().number(), &set.encode());
    server.disk.wait_until_asked();
    leave::by_reset(setter);
    std::thread::sleep(A_MOMENT);
    server.disk.go_on();
    let mut other = server.connect();
    // Its record is durable before this is answered.
    other.send(&put_frame("k"));
    assert_eq!(other.receive(), (12, vec![]));
    let request = RpbGetBucketReq { bucket: Some("b".into()), ..RpbGetBucketReq::default() };
    let request = ombak::message::Request::GetBucket(request);
    let holds = (0..100).any(|_| {
        std::thread::sleep(A_MOMENT / 10);
        match other.ask(&request) {
            Reply::Bucket(reply) => reply.props.allow_mult == Some(true),
            reply => panic!("{reply:?}"),
        }
    });
    assert!(holds, "what is stored does not hold");
}
