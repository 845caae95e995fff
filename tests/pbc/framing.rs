//! Frames, good and bad (`kv.md` §1–§3).

use ombak::message::Reply;

use crate::requests::{get, put};
use crate::support::{Connection, RawFrame, Server, error_frame, frame, text, unhex};

const PING: &[u8] = &[0, 0, 0, 1, 1];
const PONG: RawFrame = (2, vec![]);

/// Row T3: the error is told, the connection closed, and the next one works.
#[track_caller]
fn expect_malformed(server: &Server, code: u8, payload: &[u8]) {
    let mut connection = server.connect();
    let (reply, error) = connection.call(code, payload);
    assert_eq!(reply, 0, "code {code} with {payload:?}");
    let error = String::from_utf8_lossy(&error).into_owned();
    assert!(error.contains("Error processing incoming message: "), "code {code}: {error}");
    connection.expect_end();
    server.connect().expect_alive();
}

#[test]
fn golden_bytes() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(PING);
    assert_eq!(connection.receive(), PONG);
    // An object that is not there.
    assert_eq!(connection.call_hex("09 0a0162 12016b"), "0a");
    connection.send(&unhex("00000001 63"));
    let mut raw = [0; 4 + 0x1d];
    std::io::Read::read_exact(&mut connection.stream, &mut raw).unwrap();
    let expected = [unhex("0000001d 00 0a18"), b"Unknown message code: 99".to_vec(), unhex("1000")].concat();
    assert_eq!(raw[..], expected);
}

#[test]
fn a_code_that_nobody_serves_costs_only_its_request() {
    let server = Server::start();
    let mut connection = server.connect();
    for code in [0, 27, 35, 54, 60, 70, 90, 104, 128, 200, 253] {
        // The payload of an unknown code is not looked at.
        let refused = error_frame(&format!("Unknown message code: {code}"));
        assert_eq!(connection.call(code, b"\xff\xff"), refused);
    }
    assert_eq!(connection.call(255, b""), error_frame("Security not enabled; STARTTLS not allowed."));
    connection.expect_alive();
}

#[test]
fn what_is_no_request_closes_its_connection_only() {
    let server = Server::start();
    for reply_code in [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 30, 34] {
        expect_malformed(&server, reply_code, b"");
    }
    for needs_fields in [5, 9, 11, 13, 17, 19, 21, 29, 31, 32, 33, 50, 52, 80, 82] {
        expect_malformed(&server, needs_fields, b"");
    }
    // A field cut short, and a varint without end.
    for undecodable in [&b"\x0a\x05b"[..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
        expect_malformed(&server, 9, undecodable);
        expect_malformed(&server, 82, undecodable);
    }
}

#[test]
fn a_zero_length_frame_ends_the_connection_after_what_was_owed() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(&[PING, &[0, 0, 0, 0], PING].concat());
    assert_eq!(connection.receive(), PONG);
    connection.expect_end();
    server.connect().expect_alive();
}

#[test]
fn an_oversized_frame_is_named_and_ends_the_connection() {
    let server = Server::start();
    // One more than the default limit of 128 MiB, Riak's own limit, and the greatest length.
    for length in [128 * 1024 * 1024 + 1, 0x7fff_fffc, u32::MAX] {
        let mut connection = server.connect();
        connection.send(&[&length.to_be_bytes()[..], &[11]].concat());
        assert_eq!(connection.receive(), error_frame("Invalid message packet, reason: invalid"));
        connection.expect_end();
    }
    server.connect().expect_alive();
}

/// The transcript `framing.frame.length-max` sends such a frame and reads nothing, so what follows it is shown here only.
#[test]
fn a_frame_of_the_greatest_length_is_refused_at_once_behind_the_replies_that_were_owed() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(&[PING, PING, &u32::MAX.to_be_bytes(), &[1]].concat());
    for expected in [PONG, PONG, error_frame("Invalid message packet, reason: invalid")] {
        assert_eq!(connection.receive(), expected);
    }
    connection.expect_end();
}

#[test]
fn a_length_alone_costs_no_memory() {
    let server = Server::start();
    let Some(before) = server.memory("VmSize") else {
        println!("skipped: there is no /proc/PID/status here");
        return;
    };
    let mut connections: Vec<_> = (0..64).map(|_| server.connect()).collect();
    for connection in &mut connections {
        // 100 MiB are announced, of which a few bytes come.
        connection.send(&[&(100_u32 * 1024 * 1024).to_be_bytes()[..], &[11, 0x0a]].concat());
    }
    // By now a server that trusts lengths has 6,400 MiB; each later connection is answered after those before it were read.
    for _ in 0..64 {
        server.connect().expect_alive();
    }
    let grown = server.memory("VmSize").unwrap().saturating_sub(before);
    assert!(grown < 1024 * 1024 * 1024, "grown by {grown} bytes");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut connection = server.connect();
    let amounts: Vec<_> = (1..=200_u8).collect();
    let mut requests = Vec::new();
    for amount in &amounts {
        // Each is answered by what it came to, and so by its place; every third is followed by an error, by a ping.
        let update = format!("0a0162 12016b 1a08636f756e74657273 2a04 0a02 08{:02x} 4801", 2 * (amount % 60));
        requests.extend(frame(82, &unhex(&update)));
        if amount % 3 == 0 {
            requests.extend(frame(99, b""));
            requests.extend(PING);
        }
    }
    connection.send(&requests);
    let mut total: u32 = 0;
    for amount in amounts {
        total += u32::from(amount % 60);
        let mut varint = 2 * total;
        let mut expected = vec![0x18];
        while varint >= 128 {
            expected.push(varint as u8 | 0x80);
            varint >>= 7;
        }
        expected.push(varint as u8);
        assert_eq!(connection.receive(), (83, expected));
        if amount % 3 == 0 {
            assert_eq!(connection.receive(), error_frame("Unknown message code: 99"));
            assert_eq!(connection.receive(), PONG);
        }
    }
}

#[test]
fn requests_behind_a_listing_wait_for_its_end() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(&[frame(17, &unhex("0a0162")), PING.to_vec()].concat());
    let (code, done) = connection.receive();
    assert_eq!((code, done), (18, unhex("1001")));
    assert_eq!(connection.receive(), PONG);
}

#[test]
fn who_has_sent_all_still_gets_the_replies() {
    let server = Server::start();
    let mut connection = server.connect();
    // The last frame is cut and discarded silently.
    connection.send(&[PING, PING, &[0, 0, 0, 9, 9]].concat());
    connection.half_close();
    assert_eq!(connection.receive(), PONG);
    assert_eq!(connection.receive(), PONG);
    connection.expect_end();
}

#[test]
fn a_slow_writer_is_waited_for() {
    let server = Server::start();
    let mut slow = server.connect();
    let mut other = server.connect();
    let put = frame(11, &unhex("0a0162 12016b 2205 0a03616263"));
    for byte in put {
        slow.send(&[byte]);
        // Others are served meanwhile, and their reply shows that the byte has had its time.
        other.expect_alive();
    }
    assert_eq!(slow.receive(), (12, vec![]));
    let (code, found) = slow.call(9, &unhex("0a0162 12016b"));
    assert_eq!(code, 10);
    assert!(found.windows(3).any(|window| window == b"abc"));
}

#[test]
fn a_peer_that_reads_late_gets_everything() {
    let server = Server::start();
    let mut connection = server.connect();
    let value = vec![b'v'; 1024 * 1024];
    let content = [&unhex("0a 808040")[..], &value].concat();
    let put = [&unhex("0a0162 12016b 22 848040")[..], &content].concat();
    assert_eq!(connection.call(11, &put), (12, vec![]));
    // More than the buffers between us hold: the server must stop to read while we do not.
    for _ in 0..32 {
        connection.send_frame(9, &unhex("0a0162 12016b"));
    }
    for _ in 0..32 {
        let (code, reply) = connection.receive();
        assert_eq!(code, 10);
        assert!(reply.len() > value.len());
    }
    connection.expect_alive();
}

/// A connection that is closed while bytes wait unread is reset, and a reset discards what the peer has not yet taken.
#[test]
fn what_was_answered_before_the_end_arrives_whole() {
    let server = Server::start();
    let mut other = server.connect();
    let value = "v".repeat(64 * 1024);
    assert!(matches!(other.ask(&put("default", "b", "k", &value)), Reply::Put(_)));
    let get = get("default", "b", "k");
    let gets = frame(get.code().number(), &get.encode()).repeat(32);
    for (end, told) in [(frame(2, b""), true), (vec![0, 0, 0, 0], false)] {
        let mut connection = server.connect();
        connection.send(&[gets.clone(), end, PING.repeat(20_000)].concat());
        // Reads late: by then the server has come to the end, as far as its buffers let it.
        (0..500).for_each(|_| other.expect_alive());
        for _ in 0..32 {
            let (code, reply) = connection.receive();
            assert!(code == 10 && reply.len() > value.len());
        }
        if told {
            assert_eq!(connection.receive().0, 0);
        }
        connection.expect_end();
    }
}

#[test]
fn who_the_server_is() {
    let server = Server::start();
    let mut connection = server.connect();
    let (code, info) = connection.call(7, b"");
    assert_eq!(code, 8);
    assert!(text(&info).contains("riak@127.0.0.1") && text(&info).ends_with("3.2.0"));
    let named = Server::start_with(&[("OMBAK_NODE_NAME", "dev1@127.0.0.1"), ("OMBAK_SERVER_VERSION", "2.9.10")]);
    let (_, info) = Connection::open(named.address).call(7, b"");
    assert!(text(&info).contains("dev1@127.0.0.1") && text(&info).ends_with("2.9.10"));
}
