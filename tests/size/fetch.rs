//! Large sets that are shown whole.

use std::cell::RefCell;

use ombak::domain::datatype::DataType;
use ombak::domain::datatype::value::{Value, ValueBuilder};
use ombak::engine::{Update, WriteOptions};
use ombak::message::generated::DtFetchResp;
use ombak::message::{Reply, Request};

use crate::requests::*;
use crate::support::{Connection, Server};
use crate::workbench::{self, Workbench, number, object};

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

#[test]
fn an_update_does_not_wait_while_another_is_shown_a_large_set() {
    const MEMBERS: u64 = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let bench = Workbench::open(workbench::options(dir.path()));
    let name = object("sets", "k");
    bench.grow_set(&name, MEMBERS);
    let bucket = bench.engine.data_type_bucket(&name.bucket).unwrap();
    let adding = |member| {
        let operation = workbench::add([number(member)].into_iter());
        Update { operation, context: None, options: WriteOptions::default() }
    };
    let mut value = ValueBuilder::new(DataType::Set);
    let order = RefCell::new(Vec::new());
    let shown = async {
        bench.engine.update(&name, &bucket, adding(MEMBERS), Some(&mut value)).await.unwrap();
        order.borrow_mut().push("shown");
    };
    let updated = async {
        bench.engine.update(&name, &bucket, adding(MEMBERS + 1), None).await.unwrap();
        order.borrow_mut().push("updated");
    };
    bench.runtime.block_on(async { tokio::join!(shown, updated) });
    assert_eq!(*order.borrow(), ["updated", "shown"]);
    // As it was after its own update.
    let Value::Set(members) = value.finish() else { panic!("a set") };
    assert_eq!(members.len() as u64, MEMBERS + 1);
}
