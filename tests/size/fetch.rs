//! A whole fetch of a large set over the wire.

use ombak::message::generated::DtFetchResp;
use ombak::message::{Reply, Request};

use crate::requests::*;
use crate::support::{Connection, Server};

const MEMBERS: u64 = 200_000;

fn grow(connection: &mut Connection, members: u64) {
    for first in (0..members).step_by(10_000) {
        let members: Vec<_> = (first..members.min(first + 10_000)).map(|number| format!("{number:08}")).collect();
        let members: Vec<_> = members.iter().map(String::as_str).collect();
        assert!(matches!(connection.ask(&update("sets", "k", set(&members, &[]))), Reply::DtUpdate(_)));
    }
}

fn fetched(connection: &mut Connection, request: &Request) -> DtFetchResp {
    match connection.ask(request) {
        Reply::DtFetch(reply) => reply,
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn a_large_set_is_fetched_whole_and_in_order() {
    let server = Server::start();
    let mut connection = server.connect();
    grow(&mut connection, MEMBERS);
    let reply = fetched(&mut connection, &fetch("sets", "k"));
    let members = reply.value.unwrap().set_value;
    assert_eq!(members.len() as u64, MEMBERS);
    assert!(members.iter().zip(0..).all(|(member, number)| *member == format!("{number:08}")));
    // The context came with it.
    let removed = update_with("sets", "k", set(&[], &["00000000", "00199999"]), &reply.context.unwrap());
    assert!(matches!(connection.ask(&removed), Reply::DtUpdate(_)));
    let members = fetched(&mut connection, &fetch("sets", "k")).value.unwrap().set_value;
    assert_eq!((members.len() as u64, &members[0][..]), (MEMBERS - 2, &b"00000001"[..]));
}

#[test]
fn a_set_beyond_the_frame_limit_is_an_error_and_the_connection_goes_on() {
    let server = Server::start_with(&[
        ("OMBAK_FRAME_SIZE_BYTES_MAX", "200000"),
        ("OMBAK_OBJECT_SIZE_BYTES_MAX", "100000"),
        ("OMBAK_OBJECT_SIZE_BYTES_WARN", "100000"),
    ]);
    let mut connection = server.connect();
    grow(&mut connection, 19_000);
    // Ten bytes each.
    assert_eq!(fetched(&mut connection, &fetch("sets", "k")).value.unwrap().set_value.len(), 19_000);
    grow(&mut connection, 21_000);
    assert_eq!(connection.refused(&fetch("sets", "k")), "the value is larger than a reply may be");
    connection.expect_alive();
    // Its parts are still there to be read, and it can still be changed.
    assert!(matches!(connection.ask(&update("sets", "k", set(&["more"], &["00000000"]))), Reply::DtUpdate(_)));
    assert_eq!(server.printed(&["inspect", "sets/b", "k", "count"]), "{\n  \"count\": 21000\n}\n");
}
