//! Data types as JSON: operations that are typed, values that are printed. The form is that of Riak's HTTP API, with
//! `{"base64": "…"}` for bytes that are no text.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json, json};

use crate::client::{
    Datatype, Field, FieldKind, FieldOperation, FieldValue, MapOperation, Operation, SetOperation, Value,
};

/// Marks a field name that is no text, and one that would be taken for such a mark.
const BASE64_NAME: &str = "base64:";

const FIELD_SUFFIXES: [(&str, FieldKind); 5] = [
    ("_counter", FieldKind::Counter),
    ("_set", FieldKind::Set),
    ("_register", FieldKind::Register),
    ("_flag", FieldKind::Flag),
    ("_map", FieldKind::Map),
];

/// Why a typed operation is none. The place is the way from the outermost object, in names and positions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("operation{}: {reason}", place_text(place))]
pub struct OperationError {
    place: Vec<String>,
    reason: String,
}

fn place_text(place: &[String]) -> String {
    if place.is_empty() { String::new() } else { format!(" at {}", place.join(".")) }
}

impl OperationError {
    fn new(reason: impl Into<String>) -> Self {
        Self { place: Vec::new(), reason: reason.into() }
    }

    fn within(mut self, name: impl Into<String>) -> Self {
        self.place.insert(0, name.into());
        self
    }
}

type Result<T> = std::result::Result<T, OperationError>;

/// Reads an operation for a data type.
pub(super) fn parse_operation(text: &str, datatype: Datatype) -> Result<Operation> {
    let not_json = |error| OperationError::new(format!("is not JSON: {error}"));
    let json: Json = serde_json::from_str(text).map_err(not_json)?;
    serde_json::from_str::<UniqueNames>(text).map_err(not_json)?;
    Ok(match datatype {
        Datatype::Counter => Operation::Counter(increment(&json)?),
        Datatype::Set => Operation::Set(set_operation(&json)?),
        Datatype::Gset => Operation::Gset(adds_only(&json, "gset")?),
        Datatype::Hll => Operation::Hll(adds_only(&json, "hll")?),
        Datatype::Map => Operation::Map(map_operation(&json)?),
    })
}

fn increment(json: &Json) -> Result<i64> {
    const FORMS: &str = "a counter takes an integer of 64 bits, {\"increment\": N} or {\"decrement\": N}";
    let amount = |json: &Json| json.as_i64().ok_or_else(|| OperationError::new(FORMS));
    match json {
        Json::Number(_) => amount(json),
        Json::String(word) if word == "increment" => Ok(1),
        Json::String(word) if word == "decrement" => Ok(-1),
        Json::Object(members) if members.len() == 1 => {
            if let Some(json) = members.get("increment") {
                amount(json).map_err(|error| error.within("increment"))
            } else if let Some(json) = members.get("decrement") {
                amount(json)
                    .and_then(|n| n.checked_neg().ok_or_else(|| OperationError::new(FORMS)))
                    .map_err(|error| error.within("decrement"))
            } else {
                Err(OperationError::new(FORMS))
            }
        }
        _ => Err(OperationError::new(FORMS)),
    }
}

fn set_operation(json: &Json) -> Result<SetOperation> {
    let mut operation = SetOperation::default();
    for (name, json) in object(json, "a set takes {\"add\": [...], \"remove\": [...]}")? {
        let members = match name.as_str() {
            "add" | "adds" | "add_all" => &mut operation.adds,
            "remove" | "removes" | "remove_all" => &mut operation.removes,
            _ => return Err(OperationError::new(format!("a set has no `{name}`, only `add` and `remove`"))),
        };
        members.extend(members_of(json).map_err(|error| error.within(name))?);
    }
    Ok(operation)
}

fn adds_only(json: &Json, datatype: &str) -> Result<Vec<Vec<u8>>> {
    let mut adds = Vec::new();
    for (name, json) in object(json, &format!("a {datatype} takes {{\"add\": [...]}}"))? {
        match name.as_str() {
            "add" | "adds" | "add_all" => adds.extend(members_of(json).map_err(|error| error.within(name))?),
            _ => return Err(OperationError::new(format!("a {datatype} has no `{name}`, only `add`"))),
        }
    }
    Ok(adds)
}

fn map_operation(json: &Json) -> Result<MapOperation> {
    let mut operation = MapOperation::default();
    for (name, json) in object(json, "a map takes {\"update\": {...}, \"remove\": [...]}")? {
        match name.as_str() {
            "update" => operation.updates = map_updates(json).map_err(|error| error.within(name))?,
            "remove" => operation.removes = map_removes(json).map_err(|error| error.within(name))?,
            _ => return Err(OperationError::new(format!("a map has no `{name}`, only `update` and `remove`"))),
        }
    }
    Ok(operation)
}

fn map_updates(json: &Json) -> Result<Vec<(Field, FieldOperation)>> {
    object(json, "must be an object of fields")?
        .iter()
        .map(|(name, json)| field_update(name, json).map_err(|error| error.within(name)))
        .collect()
}

fn field_update(name: &str, json: &Json) -> Result<(Field, FieldOperation)> {
    let field = parse_field(name)?;
    let operation = match field.kind {
        FieldKind::Counter => FieldOperation::Counter(increment(json)?),
        FieldKind::Set => FieldOperation::Set(set_operation(json)?),
        FieldKind::Register => FieldOperation::Register(register_value(json)?),
        FieldKind::Flag => FieldOperation::Flag(flag_value(json)?),
        FieldKind::Map => FieldOperation::Map(map_operation(json)?),
    };
    Ok((field, operation))
}

fn register_value(json: &Json) -> Result<Vec<u8>> {
    let assigned = json.as_object().filter(|members| members.len() == 1).and_then(|members| members.get("assign"));
    match assigned {
        Some(json) => parse_bytes(json).map_err(|error| error.within("assign")),
        None => parse_bytes(json),
    }
}

fn flag_value(json: &Json) -> Result<bool> {
    match json {
        Json::Bool(value) => Ok(*value),
        Json::String(word) if word == "enable" => Ok(true),
        Json::String(word) if word == "disable" => Ok(false),
        _ => Err(OperationError::new("a flag takes true or false")),
    }
}

fn map_removes(json: &Json) -> Result<Vec<Field>> {
    let name = |json: &Json| match json {
        Json::String(name) => parse_field(name),
        _ => Err(OperationError::new("must be the name of a field")),
    };
    match json {
        Json::Array(names) => indexed(names, name),
        _ => Ok(vec![name(json)?]),
    }
}

fn members_of(json: &Json) -> Result<Vec<Vec<u8>>> {
    match json {
        Json::Array(members) => indexed(members, parse_bytes),
        _ => Ok(vec![parse_bytes(json)?]),
    }
}

fn indexed<T>(list: &[Json], parse: impl Fn(&Json) -> Result<T>) -> Result<Vec<T>> {
    list.iter().enumerate().map(|(at, json)| parse(json).map_err(|error| error.within(at.to_string()))).collect()
}

fn object<'a>(json: &'a Json, form: &str) -> Result<&'a Map<String, Json>> {
    json.as_object().ok_or_else(|| OperationError::new(form))
}

/// JSON in which no object has a name twice. Such an object would lose the first of the two without a word, and with
/// it a part of the operation.
struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueNamesVisitor)
    }
}

struct UniqueNamesVisitor;

impl<'de> Visitor<'de> for UniqueNamesVisitor {
    type Value = UniqueNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON in which no object has a name twice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<UniqueNames, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, UniqueNames)) = map.next_entry::<String, _>()? {
            if let Some(name) = names.replace(name) {
                return Err(de::Error::custom(format!("`{name}` is there twice")));
            }
        }
        Ok(UniqueNames)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<UniqueNames, A::Error> {
        while let Some(UniqueNames) = seq.next_element()? {}
        Ok(UniqueNames)
    }

    fn visit_unit<E>(self) -> std::result::Result<UniqueNames, E> {
        Ok(UniqueNames)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<UniqueNames, E> {
        Ok(UniqueNames)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<UniqueNames, E> {
        Ok(UniqueNames)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<UniqueNames, E> {
        Ok(UniqueNames)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<UniqueNames, E> {
        Ok(UniqueNames)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<UniqueNames, E> {
        Ok(UniqueNames)
    }
}

/// `NAME_KIND`: the last suffix decides, so a register may be called `my_set`.
pub(super) fn parse_field(text: &str) -> Result<Field> {
    let found = FIELD_SUFFIXES.iter().find_map(|(suffix, kind)| Some((text.strip_suffix(suffix)?, *kind)));
    let Some((name, kind)) = found else {
        let reason = format!("`{text}` does not end in _counter, _set, _register, _flag or _map");
        return Err(OperationError::new(reason));
    };
    let name = match name.strip_prefix(BASE64_NAME) {
        None => name.as_bytes().to_owned(),
        Some(encoded) => decode_base64(encoded)?,
    };
    Ok(Field { name, kind })
}

fn parse_bytes(json: &Json) -> Result<Vec<u8>> {
    match json {
        Json::String(text) => Ok(text.as_bytes().to_owned()),
        Json::Object(members) if members.len() == 1 => match members.get("base64") {
            Some(Json::String(encoded)) => decode_base64(encoded),
            _ => Err(OperationError::new(BYTES_FORMS)),
        },
        _ => Err(OperationError::new(BYTES_FORMS)),
    }
}

const BYTES_FORMS: &str = "must be a text or {\"base64\": \"...\"}";

fn decode_base64(encoded: &str) -> Result<Vec<u8>> {
    STANDARD.decode(encoded).map_err(|error| OperationError::new(format!("`{encoded}` is not base64: {error}")))
}

/// Text as text, other bytes as `{"base64": "…"}`.
pub(super) fn bytes(value: &[u8]) -> Json {
    match std::str::from_utf8(value) {
        Ok(text) => Json::String(text.to_owned()),
        Err(_) => json!({ "base64": base64(value) }),
    }
}

/// For contexts, which nobody reads.
pub(super) fn base64(value: &[u8]) -> String {
    STANDARD.encode(value)
}

/// The value of a data type.
pub(super) fn value(value: &Value) -> Json {
    match value {
        Value::Counter(number) => json!(number),
        Value::Hll(estimate) => json!(estimate),
        Value::Set(members) | Value::Gset(members) => member_list(members),
        Value::Map(fields) => map_value(fields),
    }
}

pub(super) fn map_value(fields: &[(Field, FieldValue)]) -> Json {
    Json::Object(fields.iter().map(|(field, value)| (field_name(field), field_value(value))).collect())
}

/// The value of a map's field.
pub(super) fn field_value(value: &FieldValue) -> Json {
    match value {
        FieldValue::Counter(number) => json!(number),
        FieldValue::Set(members) => member_list(members),
        FieldValue::Register(value) => bytes(value),
        FieldValue::Flag(value) => json!(value),
        FieldValue::Map(fields) => map_value(fields),
    }
}

fn member_list(members: &[Vec<u8>]) -> Json {
    Json::Array(members.iter().map(|member| bytes(member)).collect())
}

fn field_name(field: &Field) -> String {
    let suffix = match field.kind {
        FieldKind::Counter => "_counter",
        FieldKind::Set => "_set",
        FieldKind::Register => "_register",
        FieldKind::Flag => "_flag",
        FieldKind::Map => "_map",
    };
    match std::str::from_utf8(&field.name) {
        Ok(name) if !name.starts_with(BASE64_NAME) => format!("{name}{suffix}"),
        _ => format!("{BASE64_NAME}{}{suffix}", base64(&field.name)),
    }
}

/// The name of a data type, as in a bucket type's `datatype` property.
pub(super) fn datatype_name(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Counter => "counter",
        Datatype::Set => "set",
        Datatype::Gset => "gset",
        Datatype::Hll => "hll",
        Datatype::Map => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, datatype: Datatype) -> String {
        match parse_operation(text, datatype) {
            Err(error) => error.to_string(),
            Ok(operation) => panic!("{text} was taken for {operation:?}"),
        }
    }

    fn field(name: &str, kind: FieldKind) -> Field {
        Field { name: name.into(), kind }
    }

    #[test]
    fn counters_take_amounts() {
        let parse = |text| parse_operation(text, Datatype::Counter);
        for (text, amount) in [
            ("5", 5),
            ("-3", -3),
            ("0", 0),
            ("\"increment\"", 1),
            ("\"decrement\"", -1),
            ("{\"increment\": 7}", 7),
            ("{\"decrement\": 7}", -7),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(parse(text), Ok(Operation::Counter(amount)), "{text}");
        }
        for text in [
            "1.5",
            "9223372036854775808",
            "\"5\"",
            "null",
            "[]",
            "{}",
            "{\"add\": 1}",
            "{\"increment\": 1, \"decrement\": 1}",
            "{\"increment\": \"1\"}",
            "{\"decrement\": -9223372036854775808}",
        ] {
            assert!(refused(text, Datatype::Counter).contains("a counter takes"), "{text}");
        }
        assert!(refused("{", Datatype::Counter).starts_with("operation: is not JSON: "));
    }

    #[test]
    fn sets_take_members() {
        let parse = |text| parse_operation(text, Datatype::Set);
        let expected = SetOperation { adds: vec![b"a".to_vec(), vec![0xff, 0x00]], removes: vec![b"b".to_vec()] };
        assert_eq!(parse(r#"{"add": ["a", {"base64": "/wA="}], "remove": "b"}"#), Ok(Operation::Set(expected.clone())));
        assert_eq!(parse(r#"{"adds": ["a", {"base64": "/wA="}], "removes": ["b"]}"#), Ok(Operation::Set(expected)));
        assert_eq!(parse("{}"), Ok(Operation::Set(SetOperation::default())));
        assert_eq!(refused(r#"{"put": []}"#, Datatype::Set), "operation: a set has no `put`, only `add` and `remove`");
        assert_eq!(
            refused(r#"{"add": ["a", 1]}"#, Datatype::Set),
            "operation at add.1: must be a text or {\"base64\": \"...\"}"
        );
        assert!(refused(r#"{"add": {"base64": "?"}}"#, Datatype::Set).contains("is not base64"));
        assert!(refused(r#"{"add": {"base64": "", "x": 1}}"#, Datatype::Set).contains("must be a text"));
        assert!(refused("5", Datatype::Set).contains("a set takes"));
    }

    #[test]
    fn gsets_and_hlls_only_grow() {
        let adds = vec![b"a".to_vec(), b"b".to_vec()];
        let text = r#"{"add": ["a", "b"]}"#;
        assert_eq!(parse_operation(text, Datatype::Gset), Ok(Operation::Gset(adds.clone())));
        assert_eq!(parse_operation(text, Datatype::Hll), Ok(Operation::Hll(adds)));
        assert!(refused(r#"{"remove": ["a"]}"#, Datatype::Gset).contains("a gset has no `remove`"));
        assert!(refused(r#"["a"]"#, Datatype::Hll).contains("a hll takes"));
    }

    #[test]
    fn maps_take_fields_by_suffix() {
        let text = r#"{"update": {
            "name_register": "x", "n_counter": 5, "f_flag": true, "s_set": {"add": ["a"]},
            "my_set_register": {"assign": "y"}, "g_flag": "disable", "base64:/w==_register": {"base64": "AA=="},
            "assign_register": {"assign": {"base64": "AA=="}},
            "m_map": {"update": {"_counter": "increment"}, "remove": "old_map"}
        }, "remove": ["name_register"]}"#;
        let Ok(Operation::Map(operation)) = parse_operation(text, Datatype::Map) else {
            panic!("the operation was not understood");
        };
        assert_eq!(operation.removes, [field("name", FieldKind::Register)]);
        let update = |wanted: Field| {
            let found = operation.updates.iter().find(|(field, _)| *field == wanted);
            found.map(|(_, operation)| operation.clone())
        };
        assert_eq!(operation.updates.len(), 9);
        let register = |value: &[u8]| Some(FieldOperation::Register(value.to_vec()));
        assert_eq!(update(field("name", FieldKind::Register)), register(b"x"));
        assert_eq!(update(field("my_set", FieldKind::Register)), register(b"y"));
        assert_eq!(update(field("assign", FieldKind::Register)), register(b"\0"));
        assert_eq!(update(Field { name: vec![0xff], kind: FieldKind::Register }), register(b"\0"));
        assert_eq!(update(field("n", FieldKind::Counter)), Some(FieldOperation::Counter(5)));
        assert_eq!(update(field("f", FieldKind::Flag)), Some(FieldOperation::Flag(true)));
        assert_eq!(update(field("g", FieldKind::Flag)), Some(FieldOperation::Flag(false)));
        let adds = SetOperation { adds: vec![b"a".to_vec()], removes: vec![] };
        assert_eq!(update(field("s", FieldKind::Set)), Some(FieldOperation::Set(adds)));
        let inner = MapOperation {
            removes: vec![field("old", FieldKind::Map)],
            updates: vec![(field("", FieldKind::Counter), FieldOperation::Counter(1))],
        };
        assert_eq!(update(field("m", FieldKind::Map)), Some(FieldOperation::Map(inner)));
    }

    #[test]
    fn what_is_no_map_operation_names_the_place() {
        for (text, line) in [
            ("5", "operation: a map takes {\"update\": {...}, \"remove\": [...]}"),
            (r#"{"n_counter": 1}"#, "operation: a map has no `n_counter`, only `update` and `remove`"),
            (r#"{"update": ["n_counter"]}"#, "operation at update: must be an object of fields"),
            (
                r#"{"update": {"name": "x"}}"#,
                "operation at update.name: `name` does not end in _counter, _set, _register, _flag or _map",
            ),
            (
                r#"{"remove": ["a_map", "b_gset"]}"#,
                "operation at remove.1: `b_gset` does not end in _counter, _set, _register, _flag or _map",
            ),
            (r#"{"remove": {"a_map": 1}}"#, "operation at remove: must be the name of a field"),
            (r#"{"update": {"f_flag": 1}}"#, "operation at update.f_flag: a flag takes true or false"),
            (
                r#"{"update": {"m_map": {"update": {"r_register": 1}}}}"#,
                "operation at update.m_map.update.r_register: must be a text or {\"base64\": \"...\"}",
            ),
            (
                r#"{"update": {"r_register": {"assign": "a", "more": 1}}}"#,
                "operation at update.r_register: must be a text or {\"base64\": \"...\"}",
            ),
        ] {
            assert_eq!(refused(text, Datatype::Map), line);
        }
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        let line = refused(r#"{"update": {"m_map": {"update": {"n_counter": 1, "n_counter": 2}}}}"#, Datatype::Map);
        assert!(line.contains("`n_counter` is there twice"), "{line}");
        let all_kinds = r#"{"add": [{"base64": "AA=="}, {"base64": "AQ=="}, "a"]}"#;
        assert!(parse_operation(all_kinds, Datatype::Set).is_ok());
        let line = refused(r#"{"x": [null, true, 1, -1, 1.5, "a"]}"#, Datatype::Map);
        assert_eq!(line, "operation: a map has no `x`, only `update` and `remove`");
    }

    #[test]
    fn values_print_and_names_read_back() {
        let fields = vec![
            (field("n", FieldKind::Counter), FieldValue::Counter(-5)),
            (field("s", FieldKind::Set), FieldValue::Set(vec![b"a".to_vec(), vec![0xff]])),
            (field("base64:x", FieldKind::Flag), FieldValue::Flag(true)),
            (Field { name: vec![0xff], kind: FieldKind::Register }, FieldValue::Register(b"v".to_vec())),
            (field("m", FieldKind::Map), FieldValue::Map(vec![])),
        ];
        for (field, _) in &fields {
            assert_eq!(parse_field(&field_name(field)).as_ref(), Ok(field));
        }
        assert_eq!(
            value(&Value::Map(fields)),
            json!({
                "n_counter": -5, "s_set": ["a", {"base64": "/w=="}], "base64:YmFzZTY0Ong=_flag": true,
                "base64:/w==_register": "v", "m_map": {}
            })
        );
        assert_eq!(value(&Value::Counter(3)), json!(3));
        assert_eq!(value(&Value::Hll(u64::MAX)), json!(u64::MAX));
        assert_eq!(value(&Value::Gset(vec![])), json!([]));
    }
}
