//! Secondary index entries: their names, and the form in which they are kept (`kv.md` §5.2, K24 and K25).

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

/// An entry that cannot be indexed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexFailure {
    /// The value of an `_int` index is no integer.
    Parsing {
        /// The index.
        name: Bytes,
        /// The value.
        value: Bytes,
    },
    /// The name ends neither in `_bin` nor in `_int`.
    UnknownType {
        /// The name.
        name: Bytes,
    },
}

/// All failures of one object, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} index entries cannot be indexed", .0.len())]
pub struct IndexError(pub Vec<IndexFailure>);

impl fmt::Display for IndexFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parsing { name, value } => write!(f, "{name:?} does not parse: {value:?}"),
            Self::UnknownType { name } => write!(f, "{name:?} is neither _bin nor _int"),
        }
    }
}

/// The entries as they are kept: names in lower case, integers in decimal text, sorted by name and value, none twice.
pub fn normalize(entries: Vec<(Bytes, Bytes)>) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    let mut failures = Vec::new();
    for (name, value) in entries {
        let name = Bytes::from(name.to_ascii_lowercase());
        match Entry::parse(name, value) {
            Ok(entry) => kept.push(entry),
            Err(failure) => failures.push(failure),
        }
    }
    if !failures.is_empty() {
        failures.sort();
        failures.dedup();
        return Err(IndexError(failures));
    }
    kept.sort();
    kept.dedup();
    Ok(kept.into_iter().map(Entry::into_pair).collect())
}

/// An entry; the derived order sorts integers by value.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: Bytes,
    value: Value,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Integer(i128),
    Binary(Bytes),
}

impl Entry {
    fn parse(name: Bytes, value: Bytes) -> Result<Self, IndexFailure> {
        // The two indexes that every object is in may be written down as well; queries of them do not look here.
        if name.ends_with(b"_bin") || name == "$key" || name == "$bucket" {
            return Ok(Self { name, value: Value::Binary(value) });
        }
        if name.ends_with(b"_int") {
            return match std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()) {
                Some(integer) => Ok(Self { name, value: Value::Integer(integer) }),
                None => Err(IndexFailure::Parsing { name, value }),
            };
        }
        Err(IndexFailure::UnknownType { name })
    }

    fn into_pair(self) -> (Bytes, Bytes) {
        let value = match self.value {
            Value::Integer(integer) => Bytes::from(integer.to_string()),
            Value::Binary(value) => value,
        };
        (self.name, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &'static str, value: &'static str) -> (Bytes, Bytes) {
        (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))
    }

    #[test]
    fn entries_are_lower_cased_sorted_and_unique() {
        let given = vec![pair("B_int", "10"), pair("b_INT", "9"), pair("a_bin", "x"), pair("b_int", "010")];
        assert_eq!(normalize(given).unwrap(), vec![pair("a_bin", "x"), pair("b_int", "9"), pair("b_int", "10")]);
    }

    #[test]
    fn all_failures_are_reported_in_one_sorted_list() {
        let failures = normalize(vec![pair("age", "1"), pair("age_int", "abc")]).unwrap_err().0;
        let parsing = IndexFailure::Parsing { name: "age_int".into(), value: "abc".into() };
        assert_eq!(failures, vec![parsing, IndexFailure::UnknownType { name: "age".into() }]);
    }
}
