//! The two layouts of `MapOp` on the wire, byte for byte (`datatypes.md` §1, §2).

use crate::support::{Connection, Server, error_frame, text, unhex};

/// remove f(set), enable f(flag), as released clients send it: `datatypes.md` §1 without the operation's outer lengths.
const RELEASED: &str = "0a05 0a0166 1002 1209 0a05 0a0166 1004 2801";
/// The same meaning as published pages show it: removes at 2, updates at 3.
const PREVIEW: &str = "1205 0a0166 1002 1a09 0a05 0a0166 1004 2801";
/// Add of f(set) in the preview layout, with an empty update that shows the layout; in the released one a field 1 is a remove.
const PREVIEW_ADD: &str = "0a05 0a0166 1002 1a09 0a05 0a0167 1002 1a00";
/// A field 1 alone: remove of f(set), or its add.
const NO_EVIDENCE: &str = "0a05 0a0166 1002";
/// A MapUpdate at 2 and another at 3.
const MIXED: &str = "1209 0a05 0a0166 1004 2801 1a09 0a05 0a0166 1004 2801";

/// What a fetch answers when f(flag) is true and nothing else is there, without its context.
const FLAG_ONLY: &str = "51 1003 1a0b 1a09 0a05 0a0166 1004 2801";
/// f(set) with member x.
const SET_ONLY: &str = "51 1003 1a0c 1a0a 0a05 0a0166 1002 1a0178";
const EMPTY: &str = "51 1003 1a00";

/// An update of maps/b/KEY, in hex.
fn update(key: &str, map_op: &str) -> String {
    let op = unhex(map_op);
    let body = format!("1a{:02x}{}", op.len(), map_op);
    format!("52 0a0162 1201{key} 1a046d617073 2a{:02x}{body}", op.len() + 2)
}

#[track_caller]
fn apply(connection: &mut Connection, key: &str, map_op: &str) {
    assert_eq!(connection.call_hex(&update(key, map_op)), "53", "{map_op}");
}

/// f(set) = {x}: what the operations work on.
#[track_caller]
fn with_set(connection: &mut Connection, key: &str, update_tag: &str) {
    apply(connection, key, &format!("{update_tag}0c 0a05 0a0166 1002 1a03 0a0178"));
}

#[track_caller]
fn expect_value(connection: &mut Connection, key: &str, expected: &str) {
    // Without the context, which is the server's own.
    let value = connection.call_hex(&format!("50 0a0162 1201{key} 1a046d617073 5800"));
    assert_eq!(value, expected.replace(' ', ""));
}

#[track_caller]
fn expect_refused(server: &Server, map_op: &str, found: &str, accepted: &str) {
    let mut connection = server.connect();
    let request = unhex(&update("72", map_op));
    let refusal = format!("map operation in the {found} layout, only {accepted} is accepted here");
    assert_eq!(connection.call(request[0], &request[1..]), error_frame(&refusal));
    assert_eq!(connection.call_hex("50 0a0162 120172 1a046d617073"), "511003", "nothing is applied");
}

#[test]
fn the_released_golden_bytes_whole() {
    let server = Server::start();
    let mut connection = server.connect();
    with_set(&mut connection, "6b", "12");
    let golden = "52 0a0162 12016b 1a046d617073 2a14 1a12 0a05 0a0166 1002 1209 0a05 0a0166 1004 2801 4801 6800";
    let reply = connection.call_hex(golden);
    assert_eq!(reply, "53 2a09 0a05 0a0166 1004 2801".replace(' ', ""));
}

#[test]
fn both_layouts_come_to_the_same() {
    let server = Server::start();
    for (layout, update_tag) in [(RELEASED, "12"), (PREVIEW, "1a")] {
        let key = if layout == RELEASED { "61" } else { "62" };
        let mut connection = server.connect();
        with_set(&mut connection, key, update_tag);
        expect_value(&mut connection, key, SET_ONLY);
        apply(&mut connection, key, layout);
        expect_value(&mut connection, key, FLAG_ONLY);
    }
}

#[test]
fn each_request_may_show_another_layout() {
    let server = Server::start();
    let mut connection = server.connect();
    for layout in [RELEASED, PREVIEW, RELEASED, PREVIEW] {
        let update_tag = if layout == RELEASED { "12" } else { "1a" };
        with_set(&mut connection, "6b", update_tag);
        apply(&mut connection, "6b", layout);
        expect_value(&mut connection, "6b", FLAG_ONLY);
        apply(&mut connection, "6b", &format!("{update_tag}09 0a05 0a0166 1004 2802"));
    }
}

#[test]
fn without_evidence_the_connection_remembers() {
    let server = Server::start();
    // A fresh connection takes a field 1 for what released clients mean by it.
    let mut fresh = server.connect();
    with_set(&mut fresh, "61", "12");
    apply(&mut server.connect(), "61", NO_EVIDENCE);
    expect_value(&mut fresh, "61", EMPTY);

    // After the preview was shown it is an add, which leaves a present field as it is and makes an absent one.
    let mut preview = server.connect();
    with_set(&mut preview, "62", "1a");
    apply(&mut preview, "62", NO_EVIDENCE);
    expect_value(&mut preview, "62", SET_ONLY);
    apply(&mut preview, "63", NO_EVIDENCE);
    expect_value(&mut preview, "63", "51 1003 1a09 1a07 0a05 0a0166 1002");

    // Another connection remembers nothing of it.
    apply(&mut server.connect(), "62", NO_EVIDENCE);
    expect_value(&mut preview, "62", EMPTY);

    // What is shown later is remembered instead.
    apply(&mut preview, "62", "1209 0a05 0a0167 1004 2801");
    with_set(&mut preview, "64", "12");
    apply(&mut preview, "64", NO_EVIDENCE);
    expect_value(&mut preview, "64", EMPTY);
}

#[test]
fn preview_adds_make_empty_fields() {
    let server = Server::start();
    let mut connection = server.connect();
    apply(&mut connection, "6b", PREVIEW_ADD);
    expect_value(&mut connection, "6b", "51 1003 1a12 1a07 0a05 0a0166 1002 1a07 0a05 0a0167 1002");
}

#[test]
fn a_remove_alone_fails_for_what_is_not_there() {
    let server = Server::start();
    let request = unhex(&update("6b", NO_EVIDENCE));
    let refusal = error_frame(r#"{precondition,{not_present,{<<"f">>,riak_dt_orswot}}}"#);
    assert_eq!(server.connect().call(request[0], &request[1..]), refusal);
}

#[test]
fn a_mixture_is_no_request() {
    for layout in ["auto", "released", "preview"] {
        let server = Server::start_with(&[("OMBAK_MAP_OP_LAYOUT", layout)]);
        let mut connection = server.connect();
        let request = unhex(&update("6b", MIXED));
        let (code, error) = connection.call(request[0], &request[1..]);
        assert_eq!(code, 0, "{layout}");
        assert!(text(&error).contains("Error processing incoming message: "), "{layout}: {}", text(&error));
        connection.expect_end();
        assert_eq!(server.connect().call_hex("50 0a0162 12016b 1a046d617073"), "511003", "nothing is applied");
    }
}

#[test]
fn released_only() {
    let server = Server::start_with(&[("OMBAK_MAP_OP_LAYOUT", "released")]);
    let mut connection = server.connect();
    with_set(&mut connection, "6b", "12");
    apply(&mut connection, "6b", RELEASED);
    expect_value(&mut connection, "6b", FLAG_ONLY);
    expect_refused(&server, PREVIEW, "Preview", "Released");
    expect_refused(&server, PREVIEW_ADD, "Preview", "Released");
    with_set(&mut connection, "6c", "12");
    apply(&mut connection, "6c", NO_EVIDENCE);
    expect_value(&mut connection, "6c", EMPTY);
}

#[test]
fn preview_only() {
    let server = Server::start_with(&[("OMBAK_MAP_OP_LAYOUT", "preview")]);
    let mut connection = server.connect();
    with_set(&mut connection, "6b", "1a");
    apply(&mut connection, "6b", PREVIEW);
    expect_value(&mut connection, "6b", FLAG_ONLY);
    expect_refused(&server, RELEASED, "Released", "Preview");
    // Here an add needs no evidence.
    apply(&mut connection, "6c", NO_EVIDENCE);
    expect_value(&mut connection, "6c", "51 1003 1a09 1a07 0a05 0a0166 1002");
}
