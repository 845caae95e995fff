//! Every error text of data types that clients may compare (`datatypes.md` §13), byte for byte.

use ombak::message::generated::map_field::MapFieldType;
use ombak::message::generated::*;
use ombak::message::{Reply, Request};

use crate::requests::*;
use crate::support::{Server, text, unhex};

/// The types of the first start, and four without a data type.
fn server() -> Server {
    let server = Server::start();
    server.create_type("plain", "{}");
    server.create_type("no_siblings", r#"{"allow_mult":false}"#);
    server.printed(&["bucket-type", "create", "inactive", r#"{"props":{"datatype":"map"}}"#]);
    server
}

#[test]
fn e1_unknown_and_inactive_types() {
    let server = server();
    let mut connection = server.connect();
    for name in ["no_such_type", "inactive"] {
        let expected = format!(r#"Error no bucket type `<<"{name}">>`"#);
        assert_eq!(connection.refused(&fetch(name, "k")), expected);
        assert_eq!(connection.refused(&update(name, "k", counter(1))), expected);
    }
    connection.expect_alive();
}

#[test]
fn e2_without_siblings() {
    let server = server();
    let mut connection = server.connect();
    for request in [fetch("no_siblings", "k"), update("no_siblings", "k", counter(1))] {
        assert_eq!(connection.refused(&request), "\"Bucket must be allow_mult=true\"");
    }
}

#[test]
fn e3_and_e4_without_a_data_type() {
    let server = server();
    let mut connection = server.connect();
    assert_eq!(connection.refused(&fetch("plain", "k")), "`undefined` is not a supported type");
    for op in [counter(1), set(&["x"], &[]), gset(&["x"]), hll(&["x"]), map(&[], &[])] {
        let refused = connection.refused(&update("plain", "k", op));
        assert_eq!(refused, "Bucket datatype `undefined` is not a supported type");
    }
}

#[test]
fn e5_every_operation_on_every_other_type() {
    let server = server();
    let mut connection = server.connect();
    let ops = [
        ("counter", counter(1)),
        ("set", set(&["x"], &[])),
        ("gset", gset(&["x"])),
        ("hll", hll(&["x"])),
        ("map", map(&[], &[in_counter("c", 1)])),
    ];
    for (bucket, bucket_type) in
        [("counter", "counters"), ("set", "sets"), ("gset", "gsets"), ("hll", "hlls"), ("map", "maps")]
    {
        for (kind, op) in ops.iter().filter(|(kind, _)| *kind != bucket) {
            // The mismatch is told before the impossible quorum.
            let request = DtUpdateReq { w: Some(9), ..update_req(bucket_type, "k", op.clone()) };
            let refused = connection.refused(&Request::DtUpdate(Box::new(request)));
            assert_eq!(refused, format!("Operation type is `{kind}` but  bucket type is `{bucket}`."));
        }
    }
    for bucket_type in ["counters", "sets", "gsets", "hlls", "maps"] {
        let Reply::DtFetch(reply) = connection.ask(&fetch(bucket_type, "k")) else { panic!("{bucket_type}") };
        assert_eq!(reply.value, None, "nothing is stored");
    }
}

#[test]
fn e6_and_e7_removes_of_what_is_not_there() {
    let server = server();
    let mut connection = server.connect();
    let member = |member: &str| format!("{{precondition,{{not_present,{member}}}}}");
    assert_eq!(connection.refused(&update("sets", "k", set(&[], &["y"]))), member(r#"<<"y">>"#));
    assert_eq!(connection.refused(&update("sets", "k", set(&[], &[""]))), member("<<>>"));
    assert_eq!(connection.refused(&update("sets", "k", set(&[], &["a\"\\\n\0"]))), member("<<97,34,92,10,0>>"));
    assert_eq!(connection.refused(&update("sets", "k", set(&[], &["a\"\\\n"]))), member(r#"<<"a\"\\\n">>"#));
    // One of its names is longer than Riak's line: ours stay on one.
    let long = "n".repeat(120);
    assert_eq!(connection.refused(&update("sets", "k", set(&[], &[&long]))), member(&format!(r#"<<"{long}">>"#)));
    let in_field = map(&[], &[in_set("f", &[], &["y"])]);
    assert_eq!(connection.refused(&update("maps", "k", in_field)), member(r#"<<"y">>"#));

    for (kind, module) in [
        (MapFieldType::Counter, "riak_dt_emcntr"),
        (MapFieldType::Set, "riak_dt_orswot"),
        (MapFieldType::Register, "riak_dt_lwwreg"),
        (MapFieldType::Flag, "riak_dt_od_flag"),
        (MapFieldType::Map, "riak_dt_map"),
    ] {
        let expected = format!(r#"{{precondition,{{not_present,{{<<"f">>,{module}}}}}}}"#);
        assert_eq!(connection.refused(&update("maps", "k", map(&[field("f", kind)], &[]))), expected);
        let deep = map(&[], &[in_map("m", &[], &[in_map("n", &[field("f", kind)], &[])])]);
        assert_eq!(connection.refused(&update("maps", "k", deep)), expected);
    }
}

#[test]
fn e8_and_e9_quorums_beyond_the_replicas() {
    let server = server();
    let mut connection = server.connect();
    for n_val in [0, 4] {
        let fetch = DtFetchReq { n_val: Some(n_val), ..fetch_req("sets", "k") };
        assert_eq!(connection.refused(&Request::DtFetch(fetch)), format!("{{n_val_violation,{n_val}}}"));
        let update = DtUpdateReq { n_val: Some(n_val), ..update_req("sets", "k", set(&["x"], &[])) };
        assert_eq!(connection.refused(&Request::DtUpdate(Box::new(update))), format!("{{n_val_violation,{n_val}}}"));
    }
    let four = Some(4);
    for request in [DtFetchReq { r: four, ..fetch_req("sets", "k") }, DtFetchReq { pr: four, ..fetch_req("sets", "k") }]
    {
        assert_eq!(connection.refused(&Request::DtFetch(request)), "{n_val_violation,3}");
    }
    let op = || set(&["x"], &[]);
    for request in [
        DtUpdateReq { w: four, ..update_req("sets", "k", op()) },
        DtUpdateReq { dw: four, ..update_req("sets", "k", op()) },
        DtUpdateReq { pw: four, ..update_req("sets", "k", op()) },
        DtUpdateReq { node_confirms: four, ..update_req("sets", "k", op()) },
    ] {
        assert_eq!(connection.refused(&Request::DtUpdate(Box::new(request))), "{n_val_violation,3}");
    }
    let Reply::DtFetch(reply) = connection.ask(&fetch("sets", "k")) else { panic!("a fetch") };
    assert_eq!(reply.value, None, "nothing is stored");
}

#[test]
fn e12_the_default_type_has_counters_only() {
    let server = server();
    let mut connection = server.connect();
    assert_eq!(connection.ask(&allow_siblings("b")), Reply::SetBucket);
    for op in [set(&["x"], &[]), gset(&["x"]), hll(&["x"]), map(&[], &[])] {
        let refused = connection.refused(&update("default", "k", op));
        assert_eq!(refused, "\"non-counter operation on default bucket\"");
    }
}

#[test]
fn e13_old_counters_need_siblings() {
    let server = server();
    let mut connection = server.connect();
    let old = RpbCounterUpdateReq {
        bucket: Some("b".into()),
        key: Some("k".into()),
        amount: Some(1),
        ..RpbCounterUpdateReq::default()
    };
    for request in [Request::CounterUpdate(old.clone()), update("default", "k", counter(1))] {
        assert_eq!(connection.refused(&request), "\"Counters require bucket property 'allow_mult=true'\"");
    }
    assert_eq!(connection.ask(&allow_siblings("b")), Reply::SetBucket);
    assert!(matches!(connection.ask(&Request::CounterUpdate(old)), Reply::CounterUpdate(_)));
}

#[test]
fn operations_that_are_none() {
    let server = server();
    let kinds = ["0a0166 1001", "0a0166 1002", "0a0166 1003", "0a0166 1004", "0a0166 1005"];
    let mut ops = vec![
        // No member; an unknown kind of field; a flag without its word.
        "2a00".to_owned(),
        "2a0b 1a09 1207 0a05 0a0166 1006".to_owned(),
        "2a0d 1a0b 1209 0a05 0a0166 1004 2803".to_owned(),
    ];
    ops.extend(kinds.map(|field| format!("2a0b 1a09 1207 0a05 {field}")));
    for op in ops {
        let mut connection = server.connect();
        let (code, error) = connection.call(82, &unhex(&format!("0a0162 12016b 1a046d617073 {op}")));
        assert_eq!(code, 0, "{op}");
        assert!(text(&error).contains("Error processing incoming message: "), "{op}: {}", text(&error));
    }
    let mut connection = server.connect();
    assert_eq!(connection.call_hex("50 0a0162 12016b 1a046d617073"), "511003", "nothing is stored");
}

#[test]
fn maps_nest_to_the_configured_depth() {
    let server = Server::start_with(&[("OMBAK_MAP_DEPTH_MAX", "3")]);
    let mut connection = server.connect();
    let nested = |depth: usize| (1..depth).fold(in_counter("c", 1), |inner, _| in_map("m", &[], &[inner]));
    assert!(matches!(connection.ask(&update("maps", "k", map(&[], &[nested(3)]))), Reply::DtUpdate(_)));
    let refused = connection.refused(&update("maps", "k", map(&[], &[nested(4)])));
    assert!(refused.contains('3'), "{refused}");
    connection.expect_alive();

    let server = Server::start();
    let mut connection = server.connect();
    assert!(matches!(connection.ask(&update("maps", "k", map(&[], &[nested(32)]))), Reply::DtUpdate(_)));
    assert!(matches!(connection.ask(&fetch("maps", "k")), Reply::DtFetch(_)));
    connection.refused(&update("maps", "k", map(&[], &[nested(33)])));
}

#[test]
fn a_counter_does_not_overflow() {
    let server = server();
    let mut connection = server.connect();
    assert!(matches!(connection.ask(&update("counters", "k", counter(i64::MAX))), Reply::DtUpdate(_)));
    assert_eq!(connection.refused(&update("counters", "k", counter(1))), "counter_overflow");
    assert!(matches!(connection.ask(&update("counters", "k", counter(i64::MIN))), Reply::DtUpdate(_)));
    // -1: sint64 in zigzag.
    assert_eq!(connection.call_hex("50 0a0162 12016b 1a08636f756e74657273"), "5110011a020801");
}
