//! The commands of `ombak` against a running server.

use serde_json::{Value as Json, json};

use crate::requests;
use crate::support::{Server, text};

/// What a command prints that does not do what was asked for.
#[track_caller]
fn refused(server: &Server, arguments: &[&str]) -> String {
    let output = server.ombak(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    text(&output.stdout)
}

/// The one line on standard error of a command that has nothing to print.
#[track_caller]
fn failed(server: &Server, arguments: &[&str]) -> String {
    let output = server.ombak(arguments);
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    let lines = text(&output.stderr);
    assert_eq!(lines.lines().count(), 1, "{lines}");
    lines
}

#[track_caller]
fn json_of(server: &Server, arguments: &[&str]) -> Json {
    serde_json::from_str(&server.printed(arguments)).unwrap()
}

#[test]
fn the_life_of_a_bucket_type() {
    let server = Server::start_with(&[("OMBAK_CREATE_DEFAULT_TYPES", "false")]);
    let run = |arguments: &[&str]| server.printed(&[&["bucket-type"], arguments].concat());
    let no = |arguments: &[&str]| refused(&server, &[&["bucket-type"], arguments].concat());
    assert_eq!(run(&["list"]), "default (active)\n");
    assert_eq!(no(&["status", "carts"]), "carts is not an existing bucket type\n");
    assert_eq!(no(&["activate", "carts"]), "carts is not an existing bucket type\n");
    assert_eq!(no(&["update", "carts", r#"{"props":{"n_val":1}}"#]), "Error updating bucket type carts:\nundefined\n");

    let warned = "carts created\n\nWARNING: After activating carts, nodes in this cluster\n\
                  can no longer be downgraded to a version of Riak prior to 2.0\n";
    assert_eq!(run(&["create", "carts", r#"{"props":{"n_val":1}}"#]), warned);
    // Until it is active it may be created again, from the defaults.
    assert_eq!(run(&["create", "carts", r#"{"props":{"datatype":"set"}}"#]), warned);
    assert_eq!(run(&["list"]), "default (active)\ncarts (not active)\n");
    let status = run(&["status", "carts"]);
    assert!(status.starts_with("carts has been created and may be activated\n\n"), "{status}");
    assert!(status.contains("\nn_val: 3\n") && status.contains("\nactive: false\n"), "{status}");
    assert_eq!(no(&["update", "carts", r#"{"props":{"n_val":1}}"#]), "Error updating bucket type carts:\nnot_active\n");

    let first = "carts has been activated\n\nWARNING: Nodes in this cluster can no longer be\n\
                 downgraded to a version of Riak prior to 2.0\n";
    assert_eq!(run(&["activate", "carts"]), first);
    assert_eq!(run(&["create", "plain"]), "plain created\n");
    assert_eq!(run(&["activate", "plain"]), "plain has been activated\n");
    assert_eq!(run(&["activate", "plain"]), "plain has been activated\n");
    assert_eq!(no(&["create", "carts", r#"{"props":{}}"#]), "Error creating bucket type carts:\nalready_active\n");
    assert_eq!(run(&["list"]), "default (active)\ncarts (active)\nplain (active)\n");

    assert_eq!(run(&["update", "carts", r#"{"props":{"n_val":2}}"#]), "carts updated\n");
    let status = run(&["status", "carts"]);
    assert!(status.starts_with("carts is active\n\n"), "{status}");
    for line in ["active: true", "allow_mult: true", "datatype: set", "n_val: 2", "r: quorum"] {
        assert!(status.lines().any(|printed| printed == line), "{line} in {status}");
    }
    let names: Vec<_> = status.lines().skip(2).map(|line| line.split_once(": ").unwrap().0).collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn bucket_types_that_are_refused() {
    let server = Server::start();
    server.create_type("carts", r#"{"datatype":"set"}"#);
    let creating = |props: &str| refused(&server, &["bucket-type", "create", "t", &format!(r#"{{"props":{props}}}"#)]);
    let updating =
        |props: &str| refused(&server, &["bucket-type", "update", "carts", &format!(r#"{{"props":{props}}}"#)]);
    for (printed, reason) in [
        (creating(r#"{"n_val":"x"}"#), "n_val must be an integer"),
        (creating(r#"{"allow_mult":"maybe"}"#), r#"allow_mult should be "true" or "false""#),
        (creating(r#"{"w":"some"}"#), "w must be an integer or (one|quorum|all)"),
        (creating(r#"{"datatype":"set","allow_mult":false}"#), "Data Type buckets must be allow_mult=true"),
        (updating(r#"{"allow_mult":false}"#), "Data Type buckets must be allow_mult=true"),
        (updating(r#"{"datatype":"map"}"#), "map not supported for bucket datatype property"),
        (updating(r#"{"consistent":true}"#), "cannot update consistent property"),
        (updating(r#"{"write_once":true}"#), "cannot update write_once property"),
        (updating(r#"{"active":false}"#), "Cannot modify active property"),
    ] {
        let (head, reasons) = printed.split_once('\n').unwrap();
        assert!(["Error creating bucket type t:", "Error updating bucket type carts:"].contains(&head), "{printed}");
        // Riak puts the property's name before some texts.
        assert!(reasons.lines().any(|line| line.ends_with(reason)), "{reason} in {printed}");
    }
    assert!(refused(&server, &["bucket-type", "create", "default", "{\"props\":{}}"]).contains("default_type"));
    assert!(refused(&server, &["bucket-type", "update", "default", "{\"props\":{}}"]).contains("no_default_update"));
    let any = refused(&server, &["bucket-type", "create", "any"]);
    assert!(any.contains("The name 'any' may not be used for bucket types"), "{any}");

    let create = |text: &str| refused(&server, &["bucket-type", "create", "t", text]);
    assert_eq!(create("{"), "Cannot create bucket type t: invalid json\n");
    assert_eq!(create("{}"), "Cannot create bucket type t: no props field found in json\n");
    let update = |text: &str| refused(&server, &["bucket-type", "update", "carts", text]);
    assert_eq!(update("{"), "Cannot update bucket type: carts: invalid json\n");
    assert_eq!(update("{}"), "Cannot create bucket type carts: no props field found in json\n");
}

#[test]
fn a_newcomer_needs_no_set_up() {
    let server = Server::start();
    let listed = server.printed(&["bucket-type", "list"]);
    for name in ["counters", "sets", "gsets", "hlls", "maps"] {
        assert!(listed.contains(&format!("{name} (active)\n")), "{listed}");
    }
}

#[test]
fn objects() {
    let server = Server::start();
    assert_eq!(failed(&server, &["get", "users", "alice"]), "ombak: not found\n");
    assert_eq!(server.printed(&["put", "users", "alice", "v1", "--meta", "source=import"]), "");
    let got = json_of(&server, &["get", "users", "alice"]);
    assert_eq!(got["siblings"][0]["value"], "v1");
    assert_eq!(got["siblings"][0]["meta"], json!([["source", "import"]]));
    let vclock = got["vclock"].as_str().unwrap();
    let stored = json_of(&server, &["put", "users", "alice", "v2", "--vclock", vclock, "--return-body"]);
    assert_eq!(stored["siblings"].as_array().unwrap().len(), 1);
    assert_eq!(stored["siblings"][0]["value"], "v2");
    assert!(failed(&server, &["put", "users", "alice", "v3", "--if-none-match"]).contains("match_found"));
    assert_eq!(server.printed(&["del", "users", "alice"]), "");
    assert_eq!(failed(&server, &["get", "users", "alice"]), "ombak: not found\n");
    assert!(failed(&server, &["get", "nope/users", "alice"]).contains("no_type"));
}

#[test]
fn data_types() {
    let server = Server::start();
    for (bucket, operation, value) in [
        ("counters/b", "5", json!(5)),
        ("sets/b", r#"{"add": ["b", "a"]}"#, json!(["a", "b"])),
        ("gsets/b", r#"{"add": ["b", "a"]}"#, json!(["a", "b"])),
        ("hlls/b", r#"{"add": ["b", "a", "b"]}"#, json!(2)),
        (
            "maps/b",
            r#"{"update": {"visits_counter": 1, "name_register": "Alice", "on_flag": "enable",
                "in_set": {"add": ["x"]}, "home_map": {"update": {"city_register": "Paris"}}}}"#,
            json!({"visits_counter": 1, "name_register": "Alice", "on_flag": true, "in_set": ["x"],
                "home_map": {"city_register": "Paris"}}),
        ),
    ] {
        assert_eq!(failed(&server, &["fetch", bucket, "k"]), "ombak: not found\n");
        assert_eq!(server.printed(&["update", bucket, "k", operation]), "");
        let fetched = json_of(&server, &["fetch", bucket, "k"]);
        let (bucket_type, _) = bucket.split_once("s/").unwrap();
        assert_eq!((&fetched["type"], &fetched["value"]), (&json!(bucket_type), &value));
        let has_context = matches!(bucket_type, "set" | "map");
        assert_eq!(fetched.get("context").is_some_and(Json::is_string), has_context, "{fetched}");
    }
    let fetched = json_of(&server, &["fetch", "maps/b", "k"]);
    let context = fetched["context"].as_str().unwrap();
    let removed = json_of(
        &server,
        &["update", "maps/b", "k", r#"{"remove": ["on_flag"]}"#, "--context", context, "--return-body"],
    );
    assert_eq!(removed["value"].get("on_flag"), None, "{removed}");
    assert!(failed(&server, &["update", "sets/b", "k", r#"{"remove": ["z"]}"#]).contains("not_present"));
    assert!(failed(&server, &["update", "sets/b", "k", "{"]).contains("is not JSON"));
}

/// The writes and syncs that `ombak status` tells of.
fn durable_counts(status: &str) -> (u64, u64) {
    let line = status.lines().find(|line| line.contains("made durable")).unwrap();
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

#[test]
fn status_and_configuration() {
    let server = Server::start();
    let status = server.printed(&["status"]);
    assert!(status.starts_with("Ombak ") && status.contains(&format!("as process {}", server.pid())), "{status}");
    let (writes, syncs) = durable_counts(&status);
    let mut connection = server.connect();
    // Each is answered before the next is sent.
    (0..3).for_each(|_| drop(connection.ask(&requests::update("counters", "k", requests::counter(1)))));
    let (writes_after, syncs_after) = durable_counts(&server.printed(&["status"]));
    assert!(writes_after >= writes + 3 && syncs_after >= syncs + 3, "{writes_after} and {syncs_after}");
    let shown = server.printed(&["config", "show"]);
    assert!(shown.contains("# Set by: environment variable OMBAK_PBC_LISTEN\n"), "{shown}");
    assert!(shown.contains("# Set by: command line\ndata_dir = "), "{shown}");
    shown.parse::<toml::Table>().expect("it is a configuration file itself");
}
