//! A disk that is full: nothing that was acknowledged is lost, everybody is told, and with room again all is well.

use ombak::message::Reply;

use crate::requests::{counter, get, put, update};
use crate::support::{Connection, Server, broken_pipe, text};

const MIB: usize = 1024 * 1024;

/// The storage engine makes files of this size, so no smaller disk would do.
const DISK_BYTES: u64 = 64 * MIB as u64;

/// A mebibyte without a pattern (xorshift), told by its number.
fn value(number: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ number as u64;
    let mut text = format!("{number} ");
    while text.len() < MIB {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text += &format!("{state:x}");
    }
    text
}

/// Puts values until one is refused: how many were acknowledged, and the refusal.
fn fill(connection: &mut Connection) -> (usize, String) {
    let mut acknowledged = 0;
    let refusal = loop {
        match connection.ask(&put("default", "b", &acknowledged.to_string(), &value(acknowledged))) {
            Reply::Put(_) => acknowledged += 1,
            Reply::Error(error) => break text(&error.errmsg),
            reply => panic!("{reply:?}"),
        }
        assert!(acknowledged < 300, "the disk is never full");
    };
    assert!(acknowledged > 10);
    (acknowledged, refusal)
}

/// The status of a store that failed: another than of a server that runs (0) and of none (1).
fn assert_status_of_failure(server: &Server, refusal: &str) {
    let status = server.ombak(&["status"]);
    assert_eq!(status.status.code(), Some(3), "{status:?}");
    let printed = text(&status.stdout);
    assert!(printed.contains(refusal), "{printed}");
    assert!(!printed.contains("is running"), "{printed}");
}

#[test]
fn a_full_disk_makes_the_store_read_only_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start_on_small_disk(&data, DISK_BYTES);
    let mut connection = server.connect();
    let (acknowledged, refusal) = fill(&mut connection);
    assert!(refusal.contains("failed"), "{refusal}");

    // Every write is told, on every connection, and reads go on.
    let refusal = connection.refused(&put("default", "b", "more", "x"));
    assert!(refusal.starts_with("the store is read-only since a write failed: "), "{refusal}");
    let mut other = server.connect();
    assert_eq!(other.refused(&update("counters", "c", counter(1))), refusal);
    other.expect_alive();
    for number in [0, acknowledged - 1] {
        match other.ask(&get("default", "b", &number.to_string())) {
            Reply::Get(reply) => assert_eq!(reply.content[0].value, value(number)),
            reply => panic!("{reply:?}"),
        }
    }
    assert_status_of_failure(&server, &refusal);
    server.signal("TERM");
    assert!(server.wait().success());
    drop(server);

    // What the first one warned of is no failure of the next.
    std::fs::remove_file(data.with_extension("log")).unwrap();
    let server = Server::start_on(&data, &[]);
    let mut connection = server.connect();
    for number in 0..acknowledged {
        match connection.ask(&get("default", "b", &number.to_string())) {
            Reply::Get(reply) => assert_eq!(reply.content[0].value, value(number), "{number} of {acknowledged}"),
            reply => panic!("{reply:?}"),
        }
    }
    assert!(matches!(connection.ask(&put("default", "b", "more", "x")), Reply::Put(_)));
    assert!(server.printed(&["status"]).contains("is running"));
}

/// The line that tells of the failure cannot be written: that once ended the thread that wrote it, before it had told anybody.
#[test]
fn a_store_that_fails_while_nobody_reads_its_log_answers_tells_its_status_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start_on_small_disk_logging_to(&data, DISK_BYTES, broken_pipe());
    let mut connection = server.connect();
    let (acknowledged, refusal) = fill(&mut connection);
    assert!(refusal.contains("failed"), "{refusal}");
    let refusal = server.connect().refused(&put("default", "b", "more", "x"));
    assert!(refusal.starts_with("the store is read-only since a write failed: "), "{refusal}");
    let last = acknowledged - 1;
    match connection.ask(&get("default", "b", &last.to_string())) {
        Reply::Get(reply) => assert_eq!(reply.content[0].value, value(last)),
        reply => panic!("{reply:?}"),
    }
    assert_status_of_failure(&server, &refusal);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}
