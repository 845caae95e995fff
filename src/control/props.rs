//! The text `{"props":{…}}` that bucket types are made and changed with.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::PropsProblem;

/// The properties in the order in which they were written, one that was written twice included: Riak applies them
/// one after the other.
pub fn parse_props(json: &str) -> Result<Vec<(String, Value)>, PropsProblem> {
    let value: Value = serde_json::from_str(json).map_err(|_| PropsProblem::InvalidJson)?;
    // Without this, serde would take a list of one object for the struct.
    if !value.is_object() {
        return Err(PropsProblem::NoPropsField);
    }
    match serde_json::from_str::<PropsText>(json) {
        Ok(text) => Ok(text.props.0),
        Err(_) => Err(PropsProblem::NoPropsField),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PropsText {
    props: Pairs,
}

struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of properties")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn properties_keep_their_order_and_repetitions() {
        let props = parse_props(r#" {"props": {"w": "quorum", "allow_mult": true, "w": 2}} "#);
        let expected = [("w", json!("quorum")), ("allow_mult", json!(true)), ("w", json!(2))];
        assert_eq!(props, Ok(expected.map(|(name, value)| (name.to_owned(), value)).to_vec()));
        assert_eq!(parse_props(r#"{"props":{}}"#), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_json_and_what_has_no_props_differ() {
        for text in ["", "props", "{", r#"{"props":{}"#, r#"{"props":{}} x"#, r#"{'props':{}}"#] {
            assert_eq!(parse_props(text), Err(PropsProblem::InvalidJson), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(parse_props(&deep), Err(PropsProblem::InvalidJson));
        for text in [
            "null",
            "1",
            "[]",
            "{}",
            r#"[{"n_val":1}]"#,
            r#"{"props":[]}"#,
            r#"{"props":null}"#,
            r#"{"n_val":1}"#,
            r#"{"props":{},"more":1}"#,
            r#"{"props":{},"props":{}}"#,
        ] {
            assert_eq!(parse_props(text), Err(PropsProblem::NoPropsField), "{text}");
        }
    }
}
