//! Golden bytes of data types, keys of every length, and what replies carry (`datatypes.md` §1, §3, §4, §9).

use bytes::Bytes;
use ombak::message::generated::*;
use ombak::message::{Reply, Request};

use crate::requests::*;
use crate::support::{Server, text, unhex};

#[test]
fn golden_bytes_of_the_types() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut check = |request: &str, reply: &str| assert_eq!(connection.call_hex(request), reply.replace(' ', ""));
    // Not found.
    check("50 0a0162 12016b 1a08636f756e74657273", "51 1001");
    check("50 0a0162 12016b 1a0473657473", "51 1002");
    check("50 0a0162 12016b 1a046d617073", "51 1003");
    check("50 0a0162 12016b 1a04686c6c73", "51 1004");
    check("50 0a0162 12016b 1a056773657473", "51 1005");
    // Counter -5, then +1 by an absent increment.
    check("52 0a0162 12016b 1a08636f756e74657273 2a04 0a02 0809", "53");
    check("52 0a0162 12016b 1a08636f756e74657273 2a02 0a00 4801", "53 1807");
    check("52 0a0162 12017a 1a08636f756e74657273 2a04 0a02 0800", "53");
    check("50 0a0162 12017a 1a08636f756e74657273", "51 1001 1a02 0800");
    // Set +x -y fails whole; +x +y is told without context; emptied it has an empty value.
    check("52 0a0162 12016b 1a0473657473 2a08 1206 0a0178 0a0179 4801 6800", "53 220178 220179");
    check("50 0a0162 12016b 1a0473657473 5800", "51 1002 1a06 120178 120179");
    check("52 0a0162 12016b 1a0473657473 2a08 1206 120178 120179", "53");
    check("50 0a0162 12016b 1a0473657473 5800", "51 1002 1a00");
    // A gset tells its value, where Riak breaks.
    check("52 0a0162 12016b 1a056773657473 2a08 2a06 0a0162 0a0161 4801", "53 3a0161 3a0162");
    check("50 0a0162 12016b 1a056773657473", "51 1005 1a06 2a0161 2a0162");
    check("52 0a0162 12016b 1a04686c6c73 2a08 2206 0a0178 0a0179", "53");
    check("50 0a0162 12016b 1a04686c6c73", "51 1004 1a02 2002");
    // Five fields of one name, in the order of their kinds.
    let updates = [
        in_set("f", &["z", "a"], &[]),
        in_flag("f", true),
        in_map("f", &[], &[in_register("in", "w")]),
        in_register("f", "v"),
        in_counter("f", 1),
    ];
    let request = DtUpdateReq {
        return_body: Some(true),
        include_context: Some(false),
        ..update_req("maps", "k", map(&[], &updates))
    };
    let (code, reply) = connection.call(82, &Request::DtUpdate(Box::new(request)).encode());
    let expected = "2a09 0a05 0a0166 1001 1002  2a0a 0a05 0a0166 1003 220176
                    2a14 0a05 0a0166 1005 320b 0a06 0a02 696e 1003 220177
                    2a09 0a05 0a0166 1004 2801  2a0d 0a05 0a0166 1002 1a0161 1a017a";
    assert_eq!((code, reply), (83, unhex(expected)));
}

#[test]
fn old_counters() {
    let server = Server::start();
    let mut connection = server.connect();
    assert_eq!(connection.call_hex("34 0a0162 12016b"), "35", "not found has no value");
    assert_eq!(connection.ask(&allow_siblings("b")), Reply::SetBucket);
    assert_eq!(connection.call_hex("32 0a0162 12016b 1803"), "33");
    assert_eq!(connection.call_hex("34 0a0162 12016b"), "350803", "-2");
    assert_eq!(connection.call_hex("32 0a0162 12016b 180e 3801"), "33080a", "5");
    // The same counter through the newer messages, whose value Riak leaves out.
    let request = DtUpdateReq { return_body: Some(true), ..update_req("default", "k", counter(2)) };
    let Reply::DtUpdate(reply) = connection.ask(&Request::DtUpdate(Box::new(request))) else { panic!("an update") };
    assert_eq!((reply.counter_value, reply.context, reply.key), (Some(7), None, None));
    let Reply::DtFetch(reply) = connection.ask(&fetch("default", "k")) else { panic!("a fetch") };
    assert_eq!((reply.r#type, reply.value.unwrap().counter_value, reply.context), (1, Some(7), None));
}

#[test]
fn a_generated_key_is_told_once_and_leads_to_the_object() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut keys = std::collections::HashSet::new();
    for return_body in [None, Some(true)] {
        let request = DtUpdateReq { key: None, return_body, ..update_req("sets", "", set(&["x"], &[])) };
        let Reply::DtUpdate(reply) = connection.ask(&Request::DtUpdate(Box::new(request))) else { panic!("an update") };
        let key = text(&reply.key.expect("a key"));
        assert!((26..=27).contains(&key.len()) && key.chars().all(|c| c.is_ascii_alphanumeric()), "{key}");
        assert_eq!(reply.set_value.len(), usize::from(return_body.is_some()));
        let Reply::DtFetch(found) = connection.ask(&fetch("sets", &key)) else { panic!("a fetch") };
        assert_eq!(found.value.unwrap().set_value, ["x"]);
        keys.insert(key);
    }
    assert_eq!(keys.len(), 2);
}

#[test]
fn keys_as_long_as_riak_takes_them() {
    let server = Server::start();
    server.create_type("plain", "{}");
    let mut connection = server.connect();
    let longest = "k".repeat(65_536);
    // Its neighbour differs at the very end.
    let neighbour = format!("{}l", &longest[1..]);
    for (key, value) in [(&longest, "one"), (&neighbour, "two")] {
        assert!(matches!(connection.ask(&put("plain", "b", key, value)), Reply::Put(_)));
        assert!(matches!(connection.ask(&update("sets", key, set(&[value], &[]))), Reply::DtUpdate(_)));
    }
    for (key, value) in [(&longest, "one"), (&neighbour, "two")] {
        let Reply::Get(found) = connection.ask(&get("plain", "b", key)) else { panic!("a get") };
        assert_eq!(found.content.len(), 1);
        assert_eq!(found.content[0].value, value);
        let Reply::DtFetch(found) = connection.ask(&fetch("sets", key)) else { panic!("a fetch") };
        assert_eq!(found.value.unwrap().set_value, [value]);
    }
    connection.send_frame(17, &unhex("0a0162 1a05 706c61696e"));
    let mut listed = Vec::new();
    loop {
        let (code, payload) = connection.receive();
        let Reply::ListKeys(part) = Reply::decode(code, Bytes::from(payload)).unwrap() else { panic!("code {code}") };
        listed.extend(part.keys.iter().map(|key| key.len()));
        if part.done() {
            break;
        }
    }
    assert_eq!(listed, [65_536, 65_536]);

    let too_long = "k".repeat(65_537);
    for request in [put("plain", "b", &too_long, "v"), update("sets", &too_long, set(&["x"], &[]))] {
        let mut connection = server.connect();
        let refused = connection.refused(&request);
        assert_eq!(refused, "Error processing incoming message: {error,key_too_large}");
    }
    let Reply::Get(found) = server.connect().ask(&get("plain", "b", &too_long)) else { panic!("a get") };
    assert!(found.content.is_empty());
}

#[test]
fn an_object_too_large_is_named() {
    let server =
        Server::start_with(&[("OMBAK_OBJECT_SIZE_BYTES_MAX", "100000"), ("OMBAK_OBJECT_SIZE_BYTES_WARN", "100000")]);
    let mut connection = server.connect();
    let refused = connection.refused(&put("default", "b", "k", &"v".repeat(100_001)));
    assert!(refused.starts_with("{too_large,"), "{refused}");
    assert!(matches!(connection.ask(&put("default", "b", "k", "v")), Reply::Put(_)));
}

#[test]
fn siblings_are_kept_and_resolved() {
    let server = Server::start();
    server.create_type("plain", "{}");
    let mut connection = server.connect();
    for value in ["a", "b", "c"] {
        assert!(matches!(connection.ask(&put("plain", "b", "k", value)), Reply::Put(_)));
    }
    let Reply::Get(found) = connection.ask(&get("plain", "b", "k")) else { panic!("a get") };
    assert_eq!(found.content.len(), 3);
    let Request::Put(mut resolved) = put("plain", "b", "k", "abc") else { unreachable!() };
    resolved.vclock = found.vclock;
    assert!(matches!(connection.ask(&Request::Put(resolved)), Reply::Put(_)));
    let Reply::Get(found) = connection.ask(&get("plain", "b", "k")) else { panic!("a get") };
    assert_eq!(found.content.iter().map(|content| text(&content.value)).collect::<Vec<_>>(), ["abc"]);
}

#[test]
fn of_two_faults_in_a_conditional_put_the_condition_is_named() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut refused = |key: &str, change: &dyn Fn(&mut RpbPutReq)| {
        let Request::Put(mut request) = put("default", "b", key, "v") else { unreachable!() };
        change(&mut request);
        connection.refused(&Request::Put(request))
    };
    let long = "k".repeat(65_537);
    // Each is a fault that an unconditional put is refused for.
    type Fault<'a> = (&'a str, &'a str, fn(&mut RpbPutReq));
    let faults: [Fault; 4] = [
        ("k", "{n_val_violation,3}", |put| put.w = Some(4)),
        ("k", "{precommit_fail,[{unknown_field_type,<<\"x\">>}]}", |put| {
            let entry = RpbPair { key: Some("x".into()), value: Some("1".into()) };
            put.content.as_mut().unwrap().indexes.push(entry);
        }),
        ("k", "invalid_context", |put| put.vclock = Some("none".into())),
        (&long, "Error processing incoming message: {error,key_too_large}", |_| {}),
    ];
    // The same fault under each condition.
    let absent = |change: fn(&mut RpbPutReq)| {
        move |put: &mut RpbPutReq| {
            change(put);
            put.if_none_match = Some(true);
        }
    };
    let unmodified = |change: fn(&mut RpbPutReq)| {
        move |put: &mut RpbPutReq| {
            change(put);
            put.if_not_modified = Some(true);
        }
    };
    for (key, fault, change) in faults {
        assert_eq!(refused(key, &change), fault);
        // Nothing is there: the one condition holds, the other does not.
        assert_eq!(refused(key, &absent(change)), fault);
        assert_eq!(refused(key, &unmodified(change)), "notfound", "{fault}");
    }
    assert!(matches!(server.connect().ask(&put("default", "b", "k", "v")), Reply::Put(_)));
    for &(key, fault, change) in &faults[..3] {
        assert_eq!(refused(key, &absent(change)), "match_found", "{fault}");
        // A context that cannot be read cannot be compared.
        let expected = if fault == "invalid_context" { fault } else { "modified" };
        assert_eq!(refused(key, &unmodified(change)), expected, "{fault}");
    }
    // The read that a condition takes has quorums too.
    let n_val: fn(&mut RpbPutReq) = |put| put.n_val = Some(4);
    assert_eq!(refused("k", &unmodified(n_val)), "{n_val_violation,4}");
    assert_eq!(refused("k", &absent(n_val)), "{n_val_violation,4}");
}
