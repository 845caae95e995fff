//! Contexts that are stale, foreign, broken, or older than a delete (`datatypes.md` §6, §8).

use ombak::message::generated::map_field::MapFieldType;
use ombak::message::generated::{DtFetchResp, DtOp, DtUpdateReq, DtValue};
use ombak::message::{Reply, Request};

use crate::requests::*;
use crate::support::{Connection, Server, text};

#[track_caller]
fn fetched(connection: &mut Connection, bucket_type: &str, key: &str) -> DtFetchResp {
    match connection.ask(&fetch(bucket_type, key)) {
        Reply::DtFetch(reply) => reply,
        reply => panic!("{reply:?}"),
    }
}

#[track_caller]
fn context(connection: &mut Connection, bucket_type: &str, key: &str) -> Vec<u8> {
    fetched(connection, bucket_type, key).context.expect("a context").to_vec()
}

#[track_caller]
fn applied(connection: &mut Connection, request: &Request) {
    match connection.ask(request) {
        Reply::DtUpdate(_) => {}
        reply => panic!("{request:?} was answered by {reply:?}"),
    }
}

#[track_caller]
fn expect_members(connection: &mut Connection, key: &str, expected: &[&str]) {
    let value = fetched(connection, "sets", key).value.expect("a value");
    let members: Vec<_> = value.set_value.iter().map(|member| text(member)).collect();
    assert_eq!(members, expected);
}

#[test]
fn a_stale_context_removes_only_what_it_saw() {
    let server = Server::start();
    let mut connection = server.connect();
    applied(&mut connection, &update("sets", "k", set(&["x"], &[])));
    let stale = context(&mut connection, "sets", "k");
    applied(&mut connection, &update("sets", "k", set(&["y"], &[])));
    applied(&mut connection, &update_with("sets", "k", set(&[], &["x", "y"]), &stale));
    expect_members(&mut connection, "k", &["y"]);
    // Added again since: it stays (S11).
    applied(&mut connection, &update("sets", "k", set(&["x"], &[])));
    applied(&mut connection, &update_with("sets", "k", set(&[], &["x"]), &stale));
    expect_members(&mut connection, "k", &["x", "y"]);
    // A zero-length context is none: what is not there cannot be removed.
    let refused = connection.refused(&update_with("sets", "k", set(&[], &["z"]), b""));
    assert_eq!(refused, r#"{precondition,{not_present,<<"z">>}}"#);
}

#[test]
fn a_context_of_another_key_removes_nothing() {
    let server = Server::start();
    let mut connection = server.connect();
    applied(&mut connection, &update("sets", "k", set(&["x"], &[])));
    // Written later: by its times alone it would cover x.
    applied(&mut connection, &update("sets", "other", set(&["o"], &[])));
    let foreign = context(&mut connection, "sets", "other");
    applied(&mut connection, &update_with("sets", "k", set(&["y"], &["x"]), &foreign));
    expect_members(&mut connection, "k", &["x", "y"]);
    // Nothing is kept of it either.
    applied(&mut connection, &update("sets", "k", set(&["x"], &[])));
    expect_members(&mut connection, "k", &["x", "y"]);
    // That of another server neither.
    let elsewhere = Server::start();
    let mut there = elsewhere.connect();
    applied(&mut there, &update("sets", "k", set(&["x"], &[])));
    let elsewhere = context(&mut there, "sets", "k");
    applied(&mut connection, &update_with("sets", "k", set(&[], &["x"]), &elsewhere));
    expect_members(&mut connection, "k", &["x", "y"]);
}

#[test]
fn a_broken_context_is_refused_at_once_and_changes_nothing() {
    let server = Server::start();
    let mut connection = server.connect();
    applied(&mut connection, &update("sets", "k", set(&["x"], &[])));
    applied(&mut connection, &update("maps", "k", map(&[], &[in_set("f", &["x"], &[])])));
    let good = context(&mut connection, "sets", "k");
    let mut broken: Vec<Vec<u8>> = (1..good.len()).map(|end| good[..end].to_vec()).collect();
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        broken.push(flipped);
    }
    broken.push([good.as_slice(), b"\0"].concat());
    broken.push(b"garbage".to_vec());
    // What Riak itself hands out means nothing here.
    broken.push(b"\x83l\0\0\0\x01h\x02m\0\0\0\x0cAAAAAAAAAAAAa\x02j".to_vec());
    for context in &broken {
        let refused = connection.refused(&update_with("sets", "k", set(&["y"], &["x"]), context));
        assert_eq!(refused, "invalid_context", "{context:?}");
        let refused = connection.refused(&update_with("maps", "k", map(&[], &[in_counter("c", 1)]), context));
        assert_eq!(refused, "invalid_context", "{context:?}");
    }
    expect_members(&mut connection, "k", &["x"]);
    assert_eq!(context(&mut connection, "sets", "k"), good, "the object is untouched");
}

#[test]
fn types_without_contexts_ignore_them() {
    let server = Server::start();
    let mut connection = server.connect();
    applied(&mut connection, &update_with("counters", "k", counter(3), b"garbage"));
    applied(&mut connection, &update_with("gsets", "k", gset(&["x"]), b"garbage"));
    assert_eq!(fetched(&mut connection, "counters", "k").context, None);
    applied(&mut connection, &update_with("hlls", "k", hll(&["x"]), b"garbage"));
    assert_eq!(fetched(&mut connection, "gsets", "k").context, None);
    assert_eq!(fetched(&mut connection, "hlls", "k").context, None);
    assert_eq!(connection.ask(&allow_siblings("b")), Reply::SetBucket);
    applied(&mut connection, &update_with("default", "k", counter(3), b"garbage"));
}

#[test]
fn a_context_from_before_a_delete_covers_nothing_after_it() {
    let server = Server::start_with(&[("OMBAK_DELETE_MODE", "keep")]);
    let immediate = Server::start_with(&[("OMBAK_DELETE_MODE", "immediate")]);
    for server in [server, immediate] {
        let mut connection = server.connect();
        applied(&mut connection, &update("sets", "k", set(&["x", "y"], &[])));
        let before = context(&mut connection, "sets", "k");
        assert_eq!(connection.ask(&delete("sets", "k")), Reply::Delete);
        let gone = fetched(&mut connection, "sets", "k");
        assert_eq!((gone.value, gone.context), (None, None), "D1");
        let refused = connection.refused(&update("sets", "k", set(&[], &["x"])));
        assert_eq!(refused, r#"{precondition,{not_present,<<"x">>}}"#, "D2");
        // D4, where Riak loses the second x.
        applied(&mut connection, &update("sets", "k", set(&["x"], &[])));
        expect_members(&mut connection, "k", &["x"]);
        applied(&mut connection, &update_with("sets", "k", set(&[], &["x"]), &before));
        expect_members(&mut connection, "k", &["x"]);
        applied(&mut connection, &update("sets", "k", set(&["x"], &[])));
        applied(&mut connection, &update("sets", "k", set(&["y"], &[])));
        expect_members(&mut connection, "k", &["x", "y"]);
    }
}

#[test]
fn a_counter_starts_anew_after_a_delete() {
    let server = Server::start();
    let mut connection = server.connect();
    applied(&mut connection, &update("counters", "k", counter(10)));
    assert_eq!(connection.ask(&delete("counters", "k")), Reply::Delete);
    applied(&mut connection, &update("counters", "k", counter(3)));
    let value = fetched(&mut connection, "counters", "k").value;
    assert_eq!(value, Some(DtValue { counter_value: Some(3), ..DtValue::default() }), "D3");
}

#[test]
fn one_bad_remove_voids_the_whole_request() {
    let server = Server::start();
    let mut connection = server.connect();
    applied(&mut connection, &update("maps", "k", map(&[], &[in_map("m", &[], &[in_set("f", &["x"], &[])])])));
    let before = fetched(&mut connection, "maps", "k");
    let absent = field("g", MapFieldType::Set);
    for (op, error) in [
        (
            map(&[], &[in_register("f", "v"), in_map("m", &[absent], &[])]),
            r#"{precondition,{not_present,{<<"g">>,riak_dt_orswot}}}"#,
        ),
        (map(&[], &[in_counter("c", 100), in_set("s", &["a"], &["y"])]), r#"{precondition,{not_present,<<"y">>}}"#),
    ] {
        assert_eq!(connection.refused(&update("maps", "k", op)), error);
        assert_eq!(fetched(&mut connection, "maps", "k"), before, "value and context are unchanged");
    }
    assert_eq!(
        connection.refused(&update("sets", "new", set(&["a"], &["y"]))),
        r#"{precondition,{not_present,<<"y">>}}"#
    );
    assert_eq!(fetched(&mut connection, "sets", "new").value, None, "not even the key is left");
}

#[test]
fn whether_a_context_is_told() {
    let server = Server::start();
    let mut connection = server.connect();
    let ask = |connection: &mut Connection, op: DtOp, return_body, include_context| {
        let request = DtUpdateReq { return_body, include_context, ..update_req("sets", "k", op) };
        match connection.ask(&Request::DtUpdate(Box::new(request))) {
            Reply::DtUpdate(reply) => (reply.set_value.len(), reply.context.is_some(), reply.key.is_some()),
            reply => panic!("{reply:?}"),
        }
    };
    assert_eq!(ask(&mut connection, set(&["a"], &[]), None, None), (0, false, false));
    assert_eq!(ask(&mut connection, set(&["b"], &[]), None, Some(true)), (0, false, false));
    assert_eq!(ask(&mut connection, set(&["c"], &[]), Some(true), None), (3, true, false));
    assert_eq!(ask(&mut connection, set(&["d"], &[]), Some(true), Some(false)), (4, false, false));
}
