//! Plays the histories of `tests/vectors/datatypes.jsonl`, and of the files named in `OMBAK_VECTORS` (separated by colons),
//! against the core: the value at every step is the one that Riak computes.

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use ombak::domain::cell::{CellKey, Element, FieldKind, FieldName, LiveCells, Path, Selection};
use ombak::domain::context::CausalContext;
use ombak::domain::datatype::update::{self, Request};
use ombak::domain::datatype::value::fold;
use ombak::domain::datatype::{
    DataType, FieldOperation, FieldUpdate, FieldValue, MapOperation, Operation, SetOperation, Value,
};
use ombak::domain::dot::{ActorId, Dot, Time};
use ombak::domain::replica::Replica;
use serde_json::{Value as Json, json};

/// Riak forgets a pending remove when its field is removed; the cells do not. These are our values for the two histories.
const PENDING_REMOVES_KEPT: [(&str, &str); 2] = [
    ("S60 deferred inner remove is lost when its field is removed (known defect)", r#"[[["f","set"],["y"]]]"#),
    ("gen-map-multi-0050", r#"[[["f","set"],["a"]]]"#),
];

#[test]
fn every_recorded_history_gives_riaks_values() {
    let mut files = vec!["tests/vectors/datatypes.jsonl".to_owned()];
    files.extend(
        std::env::var("OMBAK_VECTORS").unwrap_or_default().split(':').filter(|f| !f.is_empty()).map(Into::into),
    );
    let mut played = 0;
    let mut failures = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let history: Json = serde_json::from_str(line).expect("a vector is a JSON object");
            played += 1;
            if let Err(failure) = play(&history) {
                failures.push(format!("{}: {failure}", history["name"]));
            }
        }
    }
    assert!(played >= 374, "only {played} histories were played");
    assert!(failures.is_empty(), "{} of {played} histories differ:\n{}", failures.len(), failures.join("\n"));
}

/// The replicas of one history, and what a client read after each step.
struct Play {
    data_type: DataType,
    hll_precision: u8,
    replicas: BTreeMap<String, Replica>,
    contexts: BTreeMap<u64, CausalContext>,
}

fn play(history: &Json) -> Result<(), String> {
    let name = history["name"].as_str().unwrap();
    let pending_remove_kept = PENDING_REMOVES_KEPT.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let is_tagged = history["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == "lost-pending-remove"));
    let data_type = DataType::from_name(history["type"].as_str().unwrap().as_bytes()).unwrap();
    let hll_precision = history["precision"].as_u64().map_or(14, |precision| precision.try_into().unwrap());
    let mut play = Play { data_type, hll_precision, replicas: BTreeMap::new(), contexts: BTreeMap::new() };
    for step in history["steps"].as_array().unwrap() {
        let value = play.step(step)?;
        // In a tagged history Riak's value is the wrong one from some step on.
        if value != step["value"] && !is_tagged {
            return Err(format!("step {}: got {value}, wanted {}", step["n"], step["value"]));
        }
    }
    let order = history["merge_order"].as_array().unwrap();
    let merged = |order: &mut dyn Iterator<Item = &Json>| {
        let mut all = Replica::default();
        order.filter_map(|actor| play.replicas.get(actor.as_str().unwrap())).for_each(|replica| all.merge(replica));
        shown(data_type, &all)
    };
    let (forth, back) = (merged(&mut order.iter()), merged(&mut order.iter().rev()));
    if forth != back {
        return Err(format!("merging depends on the order: {forth} and {back}"));
    }
    let expected = match pending_remove_kept {
        Some(ours) => serde_json::from_str(ours).unwrap(),
        None if is_tagged => return Ok(()),
        None => history["expected"].clone(),
    };
    if forth != expected { Err(format!("merged: got {forth}, wanted {expected}")) } else { Ok(()) }
}

impl Play {
    fn step(&mut self, step: &Json) -> Result<Json, String> {
        let n = step["n"].as_u64().unwrap();
        let actor = step["actor"].as_str().unwrap().to_owned();
        let op = &step["op"];
        if let Some(from) = op.get("merge") {
            if let Some(other) = self.replicas.get(from.as_str().unwrap()).cloned() {
                self.replicas.entry(actor.clone()).or_default().merge(&other);
            }
        } else {
            self.update(step, n, &actor)?;
        }
        let Some(replica) = self.replicas.get(&actor) else { return Ok(Json::Null) };
        self.contexts.insert(n, select(replica).data_type_clock());
        Ok(shown(self.data_type, replica))
    }

    fn update(&mut self, step: &Json, n: u64, actor: &str) -> Result<(), String> {
        let context = match step["ctx"].as_str().unwrap() {
            "none" => None,
            "foreign" => Some(CausalContext::new()),
            of_step => Some(self.contexts.get(&of_step["step:".len()..].parse().unwrap()).cloned().unwrap_or_default()),
        };
        let operation = operation(self.data_type, &step["op"]);
        // Each step is later than all before it, whoever makes it: any clock that rises with its actor's own requests
        // would do. The time of assignments is a clock of its own in these histories.
        let dot = Dot { actor: ActorId(u64::from(actor.as_bytes()[0])), time: Time(n) };
        let assigned = Time(step["ts"].as_u64().unwrap_or(n));
        let replica = self.replicas.entry(actor.to_owned()).or_default();
        let seen = replica.select(&operation.plan(context.is_some()));
        let request = Request { dot, assigned, context: context.as_ref(), hll_precision: self.hll_precision };
        let resolved = update::resolve(&operation, request, &seen);
        match (resolved, step["result"] == "error") {
            (Ok(delta), false) => {
                replica.apply(&delta);
                Ok(())
            }
            (Err(_), true) => {
                if replica.is_empty() {
                    self.replicas.remove(actor);
                }
                Ok(())
            }
            (resolved, _) => Err(format!("step {n}: got {resolved:?}, wanted {}", step["result"])),
        }
    }
}

fn select(replica: &Replica) -> LiveCells {
    replica.select(&[Selection::Subtree(Path::root())])
}

fn shown(data_type: DataType, replica: &Replica) -> Json {
    let cells = select(replica);
    if cells.at(&CellKey { path: Path::root(), element: Element::Presence }).is_empty() {
        return Json::Null;
    }
    match fold(data_type, &cells) {
        Value::Counter(n) => json!(n),
        Value::Hll(n) => json!(n),
        Value::Set(members) | Value::GSet(members) => texts(&members),
        Value::Map(fields) => map(&fields),
    }
}

fn map(fields: &[(FieldName, FieldValue)]) -> Json {
    let value = |value: &FieldValue| match value {
        FieldValue::Counter(n) => json!(n),
        FieldValue::Set(members) => texts(members),
        FieldValue::Register(value) => text(value),
        FieldValue::Flag(on) => json!(on),
        FieldValue::Map(fields) => map(fields),
    };
    fields.iter().map(|(field, v)| json!([[text(&field.name), kind_name(field.kind)], value(v)])).collect()
}

fn texts(members: &[Bytes]) -> Json {
    members.iter().map(text).collect()
}

fn text(bytes: &Bytes) -> Json {
    String::from_utf8(bytes.to_vec()).unwrap().into()
}

const KINDS: [(&str, FieldKind); 5] = [
    ("counter", FieldKind::Counter),
    ("set", FieldKind::Set),
    ("register", FieldKind::Register),
    ("flag", FieldKind::Flag),
    ("map", FieldKind::Map),
];

fn kind_name(kind: FieldKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).unwrap().0
}

fn operation(data_type: DataType, op: &Json) -> Operation {
    match data_type {
        DataType::Counter => Operation::Counter(increment(op)),
        DataType::Set => Operation::Set(set(op)),
        DataType::GSet => Operation::GSet(set(op).adds),
        DataType::Map => Operation::Map(map_operation(op)),
        DataType::Hll => Operation::Hll(elements(op)),
    }
}

fn increment(op: &Json) -> i64 {
    op["increment"].as_i64().unwrap_or(1)
}

fn set(op: &Json) -> SetOperation {
    let members = |key: &str| op[key].as_array().into_iter().flatten().map(bytes).collect();
    SetOperation { adds: members("adds"), removes: members("removes") }
}

/// `adds_range` is a prefix, and the numbers behind it from one to before another.
fn elements(op: &Json) -> Vec<Bytes> {
    let Some(range) = op.get("adds_range") else { return set(op).adds };
    let number = |i: usize| range[i].as_u64().unwrap();
    let prefix = range[0].as_str().unwrap();
    (number(1)..number(2)).map(|n| format!("{prefix}{n}").into()).collect()
}

fn map_operation(op: &Json) -> MapOperation {
    let items = |key: &str| op[key].as_array().cloned().unwrap_or_default();
    let update = |update: &Json| {
        let field = field(&update["field"]);
        let op = &update["op"];
        let operation = match field.kind {
            FieldKind::Counter => FieldOperation::Counter(increment(op)),
            FieldKind::Set => FieldOperation::Set(set(op)),
            FieldKind::Register => FieldOperation::Register(bytes(&op["assign"])),
            FieldKind::Flag => FieldOperation::Flag(op["flag"] == "enable"),
            FieldKind::Map => FieldOperation::Map(map_operation(op)),
        };
        FieldUpdate { name: field.name, operation }
    };
    MapOperation {
        adds: Vec::new(),
        removes: items("removes").iter().map(field).collect(),
        updates: items("updates").iter().map(update).collect(),
    }
}

fn field(json: &Json) -> FieldName {
    let kind = KINDS.iter().find(|(name, _)| json[1] == *name).expect("a field kind").1;
    FieldName { name: bytes(&json[0]), kind }
}

fn bytes(json: &Json) -> Bytes {
    Bytes::from(json.as_str().expect("a string").to_owned())
}
