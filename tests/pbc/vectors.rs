//! Plays the recorded histories of one replica over the wire: values, error texts and contexts are those that clients see.

use std::collections::BTreeMap;

use bytes::Bytes;
use ombak::message::generated::map_field::MapFieldType;
use ombak::message::generated::*;
use ombak::message::map_op::MapOp;
use ombak::message::{Reply, Request};
use serde_json::{Value as Json, json};

use crate::requests::*;
use crate::support::{Connection, Server, text};

/// Needs a wall clock of its own: the server's never goes back.
const NOT_OVER_THE_WIRE: &str = "S33 ";
const HISTORIES: usize = 122;

#[test]
fn recorded_histories_of_one_replica() {
    let server = Server::start();
    let mut connection = server.connect();
    let histories = std::fs::read_to_string("tests/vectors/datatypes.jsonl").unwrap();
    let mut played = 0;
    let mut failures = Vec::new();
    for line in histories.lines() {
        let history: Json = serde_json::from_str(line).unwrap();
        let is_of_one = history["replicas"].as_array().unwrap().len() == 1;
        let is_left_out = history["name"].as_str().unwrap().starts_with(NOT_OVER_THE_WIRE);
        if !is_of_one || is_left_out {
            continue;
        }
        played += 1;
        if let Err(failure) = play(&server, &mut connection, &history) {
            failures.push(format!("{}: {failure}", history["name"]));
        }
    }
    assert_eq!(played, HISTORIES, "histories played");
    assert!(failures.is_empty(), "{} of {played} histories differ:\n{}", failures.len(), failures.join("\n"));
}

fn play(server: &Server, connection: &mut Connection, history: &Json) -> Result<(), String> {
    let key = history["name"].as_str().unwrap();
    let bucket_type = bucket_type(server, history);
    let mut contexts: BTreeMap<u64, Option<Bytes>> = BTreeMap::new();
    for step in history["steps"].as_array().unwrap() {
        let n = step["n"].as_u64().unwrap();
        let context = match step["ctx"].as_str().unwrap() {
            "none" => None,
            "foreign" => Some(foreign_context(connection, &bucket_type)),
            of_step => contexts[&of_step["step:".len()..].parse().unwrap()].clone(),
        };
        let op = operation(history["type"].as_str().unwrap(), &step["op"]);
        let request = DtUpdateReq { context, ..update_req(&bucket_type, key, op) };
        let result = match connection.ask(&Request::DtUpdate(Box::new(request))) {
            Reply::Error(error) => text(&error.errmsg),
            Reply::DtUpdate(_) => "ok".to_owned(),
            reply => return Err(format!("step {n}: {reply:?}")),
        };
        let wanted = step["error"].as_str().unwrap_or("ok");
        if result != wanted {
            return Err(format!("step {n}: got {result}, wanted {wanted}"));
        }
        let (value, context) = fetched(connection, &bucket_type, key);
        contexts.insert(n, context);
        if value != step["value"] {
            return Err(format!("step {n}: got {value}, wanted {}", step["value"]));
        }
    }
    Ok(())
}

/// Precisions other than that of the type `hlls` need types of their own.
fn bucket_type(server: &Server, history: &Json) -> String {
    let name = history["type"].as_str().unwrap();
    match history["precision"].as_u64() {
        None | Some(14) => format!("{name}s"),
        Some(precision) => {
            let bucket_type = format!("hlls_{precision}");
            if !server.printed(&["bucket-type", "list"]).contains(&format!("{bucket_type} (active)")) {
                server.create_type(&bucket_type, &format!(r#"{{"datatype":"hll","hll_precision":{precision}}}"#));
            }
            bucket_type
        }
    }
}

/// Of an object that is written just now.
fn foreign_context(connection: &mut Connection, bucket_type: &str) -> Bytes {
    let op = if bucket_type == "maps" { map(&[], &[in_counter("c", 1)]) } else { set(&["x"], &[]) };
    connection.ask(&update(bucket_type, "foreign", op));
    fetched(connection, bucket_type, "foreign").1.expect("a context")
}

fn fetched(connection: &mut Connection, bucket_type: &str, key: &str) -> (Json, Option<Bytes>) {
    let Reply::DtFetch(reply) = connection.ask(&fetch(bucket_type, key)) else { panic!("a fetch of {key}") };
    let Some(value) = reply.value else { return (Json::Null, None) };
    let shown = match reply.r#type {
        1 => json!(value.counter_value.expect("a counter has a value")),
        2 => texts(&value.set_value),
        3 => entries(&value.map_value),
        4 => json!(value.hll_value.expect("an hll has a value")),
        5 => texts(&value.gset_value),
        other => panic!("type {other}"),
    };
    (shown, reply.context)
}

fn entries(entries: &[MapEntry]) -> Json {
    entries.iter().map(entry).collect()
}

fn entry(entry: &MapEntry) -> Json {
    let (kind, value) = match entry.field.r#type() {
        MapFieldType::Counter => ("counter", json!(entry.counter_value.unwrap())),
        MapFieldType::Set => ("set", texts(&entry.set_value)),
        MapFieldType::Register => ("register", json!(text(entry.register_value.as_ref().unwrap()))),
        MapFieldType::Flag => ("flag", json!(entry.flag_value.unwrap())),
        MapFieldType::Map => ("map", entries(&entry.map_value)),
    };
    json!([[text(entry.field.name()), kind], value])
}

fn texts(members: &[Bytes]) -> Json {
    members.iter().map(|member| json!(text(member))).collect()
}

fn operation(data_type: &str, op: &Json) -> DtOp {
    match data_type {
        "counter" => DtOp { counter_op: Some(counter_operation(op)), ..DtOp::default() },
        "set" => DtOp { set_op: Some(set_operation(op)), ..DtOp::default() },
        "gset" => DtOp { gset_op: Some(GSetOp { adds: members(op, "adds") }), ..DtOp::default() },
        "hll" => DtOp { hll_op: Some(HllOp { adds: hll_members(op) }), ..DtOp::default() },
        "map" => DtOp { map_op: Some(map_operation(op)), ..DtOp::default() },
        other => panic!("type {other}"),
    }
}

fn hll_members(op: &Json) -> Vec<Bytes> {
    let Some(range) = op["adds_range"].as_array() else { return members(op, "adds") };
    let prefix = range[0].as_str().unwrap();
    (range[1].as_u64().unwrap()..range[2].as_u64().unwrap()).map(|n| Bytes::from(format!("{prefix}{n}"))).collect()
}

fn counter_operation(op: &Json) -> CounterOp {
    CounterOp { increment: op["increment"].as_i64() }
}

fn set_operation(op: &Json) -> SetOp {
    SetOp { adds: members(op, "adds"), removes: members(op, "removes") }
}

fn members(op: &Json, key: &str) -> Vec<Bytes> {
    op[key].as_array().into_iter().flatten().map(bytes).collect()
}

fn map_operation(op: &Json) -> MapOp {
    let items = |key: &str| op[key].as_array().cloned().unwrap_or_default();
    let removes: Vec<_> = items("removes").iter().map(field_of).collect();
    let updates: Vec<_> = items("updates").iter().map(field_update).collect();
    MapOp::released(&removes, &updates)
}

fn field_update(update: &Json) -> MapUpdate {
    let op = &update["op"];
    let field = field_of(&update["field"]);
    let kind = field.r#type();
    let bare = MapUpdate { field: Some(field), ..MapUpdate::default() };
    match kind {
        MapFieldType::Counter => MapUpdate { counter_op: Some(counter_operation(op)), ..bare },
        MapFieldType::Set => MapUpdate { set_op: Some(set_operation(op)), ..bare },
        MapFieldType::Register => MapUpdate { register_op: Some(bytes(&op["assign"])), ..bare },
        MapFieldType::Flag => MapUpdate { flag_op: Some(if op["flag"] == "enable" { 1 } else { 2 }), ..bare },
        MapFieldType::Map => MapUpdate { map_op: Some(map_operation(op)), ..bare },
    }
}

fn field_of(json: &Json) -> MapField {
    let kind = match json[1].as_str().unwrap() {
        "counter" => MapFieldType::Counter,
        "set" => MapFieldType::Set,
        "register" => MapFieldType::Register,
        "flag" => MapFieldType::Flag,
        "map" => MapFieldType::Map,
        other => panic!("field type {other}"),
    };
    field(json[0].as_str().unwrap(), kind)
}

fn bytes(json: &Json) -> Bytes {
    Bytes::from(json.as_str().expect("a string").to_owned())
}
