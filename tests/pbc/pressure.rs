//! Many requests at once, and peers that are slow: replies stay in order, memory stays bounded, and nobody waits for others.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ombak::message::generated::DtUpdateReq;
use ombak::message::{Reply, Request};

use crate::requests::{counter, fetch, get, put, update, update_req};
use crate::support::{Connection, Server, frame};

const MIB: usize = 1024 * 1024;

fn bytes_of(requests: &[Request]) -> Vec<u8> {
    requests.iter().flat_map(|request| frame(request.code().number(), &request.encode())).collect()
}

fn next(connection: &mut Connection) -> Reply {
    let (code, payload) = connection.receive();
    Reply::decode(code, payload.into()).unwrap()
}

fn value_of(reply: Reply) -> String {
    match reply {
        Reply::Get(reply) => String::from_utf8(reply.content[0].value.to_vec()).unwrap(),
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start_with(&[("OMBAK_CONNECTION_REQUESTS_MAX", "7")]);
    let mut connection = server.connect();
    let count_and_show = |number: u32| {
        let request = update_req("counters", "k", counter(1));
        let counting = Request::DtUpdate(Box::new(DtUpdateReq { return_body: Some(true), ..request }));
        [put("default", "b", "k", &number.to_string()), get("default", "b", "k"), Request::Ping, counting]
    };
    let requests: Vec<Request> = (1..=200).flat_map(count_and_show).collect();
    connection.send(&bytes_of(&requests));
    for number in 1..=200 {
        assert!(matches!(next(&mut connection), Reply::Put(_)));
        assert_eq!(value_of(next(&mut connection)), number.to_string(), "a get sees the put before it");
        assert!(matches!(next(&mut connection), Reply::Ping));
        match next(&mut connection) {
            Reply::DtUpdate(reply) => assert_eq!(reply.counter_value, Some(number)),
            reply => panic!("{reply:?}"),
        }
    }
}

#[test]
fn requests_that_were_sent_before_the_client_closed_its_side_are_answered() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(&bytes_of(&[update("counters", "k", counter(3)), fetch("counters", "k")]));
    connection.half_close();
    assert!(matches!(next(&mut connection), Reply::DtUpdate(_)));
    match next(&mut connection) {
        Reply::DtFetch(reply) => assert_eq!(reply.value.unwrap().counter_value, Some(3)),
        reply => panic!("{reply:?}"),
    }
    connection.expect_end();
}

#[test]
fn slow_readers_share_a_bounded_memory_and_stall_nobody_else() {
    const READERS: usize = 100;
    let env = [("OMBAK_BUFFERED_BYTES_MAX", "8388608"), ("OMBAK_WRITE_TIMEOUT_MS", "60000")];
    let server = Server::start_with(&env);
    let mut connection = server.connect();
    connection.ask(&put("default", "b", "large", &"x".repeat(MIB)));
    connection.ask(&put("default", "b", "small", "y"));
    // Once, so that what a read costs anyhow is there before.
    connection.ask(&get("default", "b", "large"));
    let before = server.memory("VmRSS").unwrap_or_default();

    let request = bytes_of(&[get("default", "b", "large")]);
    let mut readers: Vec<TcpStream> = (0..READERS).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    // Each asks for ten values, and takes none.
    readers.iter_mut().for_each(|reader| reader.write_all(&request.repeat(10)).unwrap());
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..20 {
        assert_eq!(value_of(connection.ask(&get("default", "b", "small"))), "y");
        assert!(matches!(connection.ask(&put("default", "b", "other", "z")), Reply::Put(_)));
    }
    let grown = server.memory("VmRSS").unwrap_or_default().saturating_sub(before);
    println!("{READERS} slow readers of 1 MiB values cost {grown} bytes");
    // The limit, and beside it what the allocator keeps and what each connection costs.
    assert!(grown < 32 * MIB as u64, "{grown} bytes");

    // One that reads after all gets everything, once the others have gone.
    let mut last = readers.pop().unwrap();
    drop(readers);
    let mut received = vec![0; MIB];
    let mut left = 10 * MIB;
    while left > 0 {
        let read = last.read(&mut received[..MIB.min(left)]).unwrap();
        assert!(read > 0, "{left} bytes are missing");
        left -= read;
    }
}

#[test]
fn a_slow_writer_stalls_nobody_and_is_cut() {
    let server = Server::start_with(&[("OMBAK_FRAME_TIMEOUT_MS", "700")]);
    let large = bytes_of(&[put("default", "b", "k", &"x".repeat(MIB))]);
    let mut slow = Vec::new();
    for (sent, is_large) in [(1, false), (3, false), (5, true), (200_000, true)] {
        let mut connection = server.connect();
        let small = bytes_of(&[get("default", "b", "k")]);
        connection.send(if is_large { &large[..sent] } else { &small[..sent] });
        slow.push(connection);
    }
    server.connect().expect_alive();
    // Whoever takes longer than that for a request is cut without an answer.
    slow.iter_mut().for_each(Connection::expect_end);
    server.connect().expect_alive();
}

#[test]
fn an_idle_connection_is_closed_where_that_is_wanted() {
    let server = Server::start_with(&[("OMBAK_IDLE_TIMEOUT_MS", "300")]);
    let mut connection = server.connect();
    connection.expect_alive();
    connection.expect_end();
}

#[test]
fn a_reader_that_takes_nothing_is_cut() {
    let env = [("OMBAK_WRITE_TIMEOUT_MS", "300"), ("OMBAK_OBJECT_SIZE_BYTES_WARN", "50000000")];
    let server = Server::start_with(&env);
    server.connect().ask(&put("default", "b", "k", &"x".repeat(16 * MIB)));
    let mut connection = TcpStream::connect(server.address).unwrap();
    connection.write_all(&bytes_of(&[get("default", "b", "k")])).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let mut received = Vec::new();
    match connection.read_to_end(&mut received) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert!(received.len() < 16 * MIB, "everything was sent");
}

#[test]
fn a_large_frame_waits_for_its_share_and_small_ones_pass() {
    let env = [("OMBAK_BUFFERED_BYTES_MAX", "1048576")];
    let server = Server::start_with(&env);
    let large = bytes_of(&[put("default", "b", "k", &"x".repeat(900_000))]);
    let mut first = server.connect();
    first.send(&large[..100_000]);
    // Now there is no room for another.
    let mut second = server.connect();
    second.send(&large[..100_000]);
    let mut third = server.connect();
    third.ask(&put("default", "b", "small", "y"));
    assert_eq!(value_of(third.ask(&get("default", "b", "small"))), "y");
    first.send(&large[100_000..]);
    assert!(matches!(next(&mut first), Reply::Put(_)));
    second.send(&large[100_000..]);
    assert!(matches!(next(&mut second), Reply::Put(_)));
    assert_eq!(value_of(third.ask(&get("default", "b", "k"))).len(), 900_000);
}
