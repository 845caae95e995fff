//! `ombak inspect`: parts of objects.

use serde_json::{Value as Json, json};

use crate::requests::*;
use crate::support::{Server, text};

fn inspect(server: &Server, object: &[&str], question: &[&str]) -> Json {
    let arguments = [&["inspect"], object, question].concat();
    serde_json::from_str(&server.printed(&arguments)).unwrap()
}

/// The line on standard error, and the exit code.
#[track_caller]
fn failed(server: &Server, arguments: &[&str]) -> (String, Option<i32>) {
    let output = server.ombak(&[&["inspect"], arguments].concat());
    assert!(output.stdout.is_empty(), "{output:?}");
    (text(&output.stderr), output.status.code())
}

#[test]
fn parts_of_sets() {
    let server = Server::start();
    let mut connection = server.connect();
    let members: Vec<_> = (0..1_000).map(|number| format!("{number:04}")).collect();
    let members: Vec<_> = members.iter().map(String::as_str).collect();
    for (bucket_type, op) in [("sets", set(&members, &[])), ("gsets", gset(&members))] {
        connection.ask(&update(bucket_type, "k", op));
        let bucket = format!("{bucket_type}/b");
        let ask = |question: &[&str]| inspect(&server, &[&bucket, "k"], question);
        assert_eq!(ask(&["count"]), json!({"count": 1_000}));
        assert_eq!(ask(&["is-member", "0500"]), json!({"is_member": true}));
        assert_eq!(ask(&["is-member", "05000"]), json!({"is_member": false}));
        assert_eq!(
            ask(&["members", "--from", "0500x", "--limit", "2"]),
            json!({"members": ["0501", "0502"], "next": "0503"})
        );
        assert_eq!(ask(&["members", "--from", "0998"]), json!({"members": ["0998", "0999"], "next": null}));
        assert_eq!(ask(&["members", "--limit", "1"]), json!({"members": ["0000"], "next": "0001"}));
        assert_eq!(ask(&["value"]), json!(members));
    }
    // Bytes that are no text, and a set that is empty.
    server.printed(&["update", "sets/b", "odd", r#"{"add": [{"base64": "/w=="}, ""]}"#]);
    let ask = |question: &[&str]| inspect(&server, &["sets/b", "odd"], question);
    assert_eq!(ask(&["members"]), json!({"members": ["", {"base64": "/w=="}], "next": null}));
    assert_eq!(ask(&["is-member", ""]), json!({"is_member": true}));
    server.printed(&["update", "sets/b", "odd", r#"{"remove": [{"base64": "/w=="}, ""]}"#]);
    assert_eq!((ask(&["count"]), ask(&["value"])), (json!({"count": 0}), json!([])));
}

#[test]
fn parts_of_maps() {
    let server = Server::start();
    let operation = r#"{"update": {"a_counter": 3, "a_set": {"add": ["x", "y"]}, "on_flag": "enable", "base64:/w==_register": "v",
        "in_map": {"update": {"deep_map": {"update": {"city_register": "Paris", "tags_set": {"add": ["t"]}}}}}}}"#;
    server.printed(&["update", "maps/b", "k", operation]);
    let ask = |question: &[&str]| inspect(&server, &["maps/b", "k"], question);
    assert_eq!(ask(&["value", "--field", "a_counter"]), json!(3));
    assert_eq!(ask(&["value", "--field", "a_set"]), json!(["x", "y"]));
    assert_eq!(ask(&["value", "--field", "on_flag"]), json!(true));
    assert_eq!(ask(&["value", "--field", "base64:/w==_register"]), json!("v"));
    let deep = ["--field", "in_map", "--field", "deep_map"];
    assert_eq!(ask(&[&["value"], &deep[..]].concat()), json!({"city_register": "Paris", "tags_set": ["t"]}));
    assert_eq!(ask(&[&["count"], &deep[..]].concat()), json!({"count": 2}));
    let tags = [&deep[..], &["--field", "tags_set"]].concat();
    assert_eq!(ask(&[&["is-member", "t"], &tags[..]].concat()), json!({"is_member": true}));
    assert_eq!(ask(&[&["members"], &tags[..]].concat()), json!({"members": ["t"], "next": null}));
    assert_eq!(ask(&["count"]), json!({"count": 5}));
    let fetched: Json = serde_json::from_str(&server.printed(&["fetch", "maps/b", "k"])).unwrap();
    assert_eq!(ask(&["value"]), fetched["value"]);
}

#[test]
fn the_causal_state() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.ask(&update("sets", "k", set(&["a"], &[])));
    let ask = |object: &[&str]| inspect(&server, object, &["state"]);
    let small = ask(&["sets/b", "k"]);
    assert_eq!((&small["layout"], &small["floors"], &small["siblings"]), (&json!("packed"), &json!(0), &json!([])));
    assert_eq!(small["seen"], small["data_type_updates"]);
    assert_eq!(small["seen"].as_array().unwrap().len(), 1);
    let fetched: Json = serde_json::from_str(&server.printed(&["fetch", "sets/b", "k"])).unwrap();
    assert_eq!(small["context"], fetched["context"]);

    let members: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
    let members: Vec<_> = members.iter().map(String::as_str).collect();
    connection.ask(&update("sets", "k", set(&members, &[])));
    assert_eq!(ask(&["sets/b", "k"])["layout"], "spread");

    connection.ask(&put("default", "b", "plain", "four"));
    let plain = ask(&["b", "plain"]);
    assert_eq!((&plain["siblings"][0]["size_bytes"], &plain["siblings"][0]["deleted"]), (&json!(4), &json!(false)));
    assert_eq!(plain["data_type_updates"], json!([]));
}

#[test]
fn questions_that_have_no_answer() {
    let server = Server::start();
    server.printed(&["update", "maps/b", "k", r#"{"update": {"a_counter": 3, "s_set": {"add": ["x"]}}}"#]);
    for (arguments, reason) in [
        (&["sets/b", "none", "count"][..], "not found"),
        (&["sets/b", "none", "state"], "not found"),
        (&["nope/b", "k", "count"], "there is no such bucket type"),
        (&["maps/b", "k", "value", "--field", "b_counter"], "the map has no such field"),
        (&["maps/b", "k", "members"], "only a set has members"),
        (&["maps/b", "k", "is-member", "x"], "only a set has members"),
        (&["maps/b", "k", "count", "--field", "a_counter"], "only a set or a map can be counted"),
        (&["maps/b", "k", "value", "--field", "s_set", "--field", "a_counter"], "only a map has fields"),
        (&["sets/b", "k", "value", "--field", "a_counter"], "only a map has fields"),
    ] {
        assert_eq!(failed(&server, arguments), (format!("ombak: {reason}\n"), Some(1)), "{arguments:?}");
    }
    for arguments in [
        &["sets/b", "k", "count", "x"][..],
        &["sets/b", "k", "count", "--from", "x"],
        &["maps/b", "k", "state", "--field", "a_counter"],
        &["maps/b", "k", "value", "--field", "nothing"],
    ] {
        assert_eq!(failed(&server, arguments).1, Some(2), "{arguments:?}");
    }
    // Too much for one line of the control socket, which says so and goes on.
    let long = "x".repeat(300_000);
    let mut connection = server.connect();
    connection.ask(&update("sets", "long", set(&[&format!("{long}1"), &format!("{long}2"), &format!("{long}3")], &[])));
    let (line, code) = failed(&server, &["sets/b", "long", "value"]);
    assert_eq!((line.as_str(), code), ("ombak: the value is larger than a reply may be\n", Some(1)));
    let range = inspect(&server, &["sets/b", "long"], &["members"]);
    assert_eq!(range["members"].as_array().unwrap().len(), 1);
    assert_eq!(range["next"], format!("{long}2"));
}
