//! JSON texts as terms, and terms as JSON, both in the way of Riak's own library: an object is `{struct,[{Name,Value}]}`,
//! a string a binary, and a list that begins with a pair is written as an object, whose names may repeat.

use std::cell::Cell;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use crate::erlang::{Term, print};

/// Why a term cannot be written as JSON.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RenderError {
    /// A term of a kind, or in a place, that JSON has no form for.
    #[error("a result has no JSON form")]
    NoForm(Term),
    /// A text that is not UTF-8.
    #[error("a result is not UTF-8")]
    NotUtf8(Bytes),
}

/// Reads a JSON text of at most `terms_max` terms. Nesting is bounded by the JSON library.
pub fn parse(text: &[u8], terms_max: usize) -> Result<Term, serde_json::Error> {
    let terms_left = Cell::new(terms_max);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let term = JsonTerm { terms_left: &terms_left }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(term)
}

/// Reads one JSON value as a term, and counts it.
#[derive(Clone, Copy)]
struct JsonTerm<'a> {
    terms_left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for JsonTerm<'_> {
    type Value = Term;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Term, D::Error> {
        let left = self.terms_left.get().checked_sub(1);
        self.terms_left.set(left.ok_or_else(|| D::Error::custom("too many values"))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonTerm<'_> {
    type Value = Term;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Term, E> {
        Ok(Term::atom("null"))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Term, E> {
        Ok(Term::atom(if value { "true" } else { "false" }))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Term, E> {
        Ok(Term::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Term, E> {
        Ok(Term::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Term, E> {
        // Integers beyond 64 bits arrive here as well. The JSON library gives no infinite numbers.
        Ok(Term::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Term, E> {
        Ok(Term::binary(value.as_bytes()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Term, A::Error> {
        let mut terms = Vec::new();
        while let Some(term) = seq.next_element_seed(self)? {
            terms.push(term);
        }
        Ok(Term::List(terms))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Term, A::Error> {
        let mut pairs = Vec::new();
        while let Some(name) = map.next_key_seed(self)? {
            pairs.push(Term::Tuple(vec![name, map.next_value_seed(self)?]));
        }
        Ok(Term::Tuple(vec![Term::atom("struct"), Term::List(pairs)]))
    }
}

/// The members of an object that was read from JSON. Names may repeat: the first one counts.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a>(&'a [Term]);

impl<'a> Object<'a> {
    /// The term's members, where it is an object.
    pub fn of(term: &'a Term) -> Option<Self> {
        match term {
            Term::Tuple(parts) => match &parts[..] {
                [kind, Term::List(pairs)] if kind.is_atom("struct") => Some(Self(pairs)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value under a name.
    pub fn get(self, name: &str) -> Option<&'a Term> {
        self.members().find(|(member, _)| *member == name.as_bytes()).map(|(_, value)| value)
    }

    /// The only member, where there is one and no other.
    pub fn only(self) -> Option<(&'a [u8], &'a Term)> {
        if self.0.len() == 1 { self.members().next() } else { None }
    }

    fn members(self) -> impl Iterator<Item = (&'a [u8], &'a Term)> {
        self.0.iter().filter_map(|pair| match pair {
            Term::Tuple(pair) => match &pair[..] {
                [Term::Binary(name), value] => Some((&name[..], value)),
                _ => None,
            },
            _ => None,
        })
    }
}

/// The JSON text of a term, in ASCII.
pub fn render(term: &Term) -> Result<String, RenderError> {
    let mut out = String::new();
    write(term, &mut out)?;
    Ok(out)
}

/// The JSON text of a list with these terms, in ASCII.
pub fn render_list(terms: &[Term]) -> Result<String, RenderError> {
    let mut out = String::new();
    write_list(terms, &mut out)?;
    Ok(out)
}

fn write(term: &Term, out: &mut String) -> Result<(), RenderError> {
    match term {
        Term::Integer(integer) => out.push_str(&integer.to_string()),
        Term::Float(float) => out.push_str(&print::float(*float)),
        Term::Atom(name) => match &name[..] {
            b"true" | b"false" | b"null" => out.push_str(&String::from_utf8_lossy(name)),
            _ => write_string(name, out)?,
        },
        Term::Binary(bytes) => write_string(bytes, out)?,
        Term::List(terms) => write_list(terms, out)?,
        Term::Tuple(parts) => match &parts[..] {
            [kind, Term::List(pairs)] if kind.is_atom("struct") => write_object(pairs, out)?,
            [kind, Term::List(terms)] if kind.is_atom("array") => write_array(terms, out)?,
            _ => return Err(RenderError::NoForm(term.clone())),
        },
        Term::Record(_) => return Err(RenderError::NoForm(term.clone())),
    }
    Ok(())
}

fn write_list(terms: &[Term], out: &mut String) -> Result<(), RenderError> {
    let begins_with_pair = terms.first().is_some_and(|first| match first {
        Term::Tuple(pair) => pair.len() == 2 && !["struct", "array", "json"].iter().any(|kind| pair[0].is_atom(kind)),
        _ => false,
    });
    if begins_with_pair { write_object(terms, out) } else { write_array(terms, out) }
}

fn write_array(terms: &[Term], out: &mut String) -> Result<(), RenderError> {
    out.push('[');
    for (index, term) in terms.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(term, out)?;
    }
    out.push(']');
    Ok(())
}

fn write_object(pairs: &[Term], out: &mut String) -> Result<(), RenderError> {
    out.push('{');
    for (index, pair) in pairs.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let no_form = || RenderError::NoForm(pair.clone());
        let Term::Tuple(parts) = pair else { return Err(no_form()) };
        let [name, value] = &parts[..] else { return Err(no_form()) };
        match name {
            Term::Atom(name) | Term::Binary(name) => write_string(name, out)?,
            Term::Integer(integer) => {
                out.push('"');
                out.push_str(&integer.to_string());
                out.push('"');
            }
            _ => return Err(no_form()),
        }
        out.push(':');
        write(value, out)?;
    }
    out.push('}');
    Ok(())
}

fn write_string(bytes: &Bytes, out: &mut String) -> Result<(), RenderError> {
    let text = std::str::from_utf8(bytes).map_err(|_| RenderError::NotUtf8(bytes.clone()))?;
    out.reserve(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Term {
        parse(text.as_bytes(), 1000).unwrap()
    }

    #[test]
    fn texts_come_back_with_their_order_and_repeated_names() {
        for text in [
            r#"{"b":1,"a":[],"b":2.5}"#,
            r#"[1,-2,true,false,null,"x",{"a":{}},18446744073709551615]"#,
            r#""\u00e9\ud83d\ude00\"\\\n\u0001\u007f""#,
            "1.0e300",
        ] {
            assert_eq!(render(&read(text)).unwrap(), text);
        }
    }

    #[test]
    fn long_integers_are_the_nearest_floats() {
        let digits = "66666666666666666666666666666666666626666";
        let term = read(digits);
        assert_eq!(term, Term::Float(digits.parse().unwrap()));
        assert_eq!(read(&render(&term).unwrap()), term);
    }

    #[test]
    fn the_first_of_repeated_names_counts() {
        let term = read(r#"{"a":1,"a":2}"#);
        assert_eq!(Object::of(&term).unwrap().get("a"), Some(&Term::Integer(1)));
        assert!(Object::of(&term).unwrap().only().is_none());
        assert!(Object::of(&read("[1]")).is_none());
    }

    #[test]
    fn a_list_that_begins_with_a_pair_is_an_object() {
        let pair = |a: &str, b: &str| Term::Tuple(vec![Term::binary(a.as_bytes()), Term::binary(b.as_bytes())]);
        assert_eq!(render_list(&[pair("b", "k0"), pair("b", "k1")]).unwrap(), r#"{"b":"k0","b":"k1"}"#);
        let mixed = render_list(&[pair("b", "k0"), Term::Integer(1)]);
        assert_eq!(mixed, Err(RenderError::NoForm(Term::Integer(1))));
        let plain = render_list(&[Term::Integer(1), pair("b", "k0")]);
        assert_eq!(plain, Err(RenderError::NoForm(pair("b", "k0"))));
    }

    #[test]
    fn what_json_cannot_say_is_an_error() {
        let record = Term::Record(vec![Term::atom("r_object")]);
        assert_eq!(render(&record), Err(RenderError::NoForm(record.clone())));
        let bytes = Bytes::from_static(&[0xff]);
        assert_eq!(render(&Term::Binary(bytes.clone())), Err(RenderError::NotUtf8(bytes)));
        assert_eq!(render(&Term::atom("undefined")).unwrap(), r#""undefined""#);
    }

    #[test]
    fn hostile_texts_are_errors() {
        for text in ["", "x", "[1", "[1]]", "1e999", "\"\\ud800\"", "{\"a\"}", "\u{1}"] {
            assert!(parse(text.as_bytes(), 1000).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"", 1000).is_err());
        assert!(parse("[".repeat(100_000).as_bytes(), 1_000_000).is_err());
        assert!(parse(b"[1,2,3]", 3).is_err());
        assert!(parse(b"[1,2,3]", 4).is_ok());
        // Beyond 64 bits an integer is read as a float.
        assert_eq!(read("18446744073709551616"), Term::Float(18446744073709551616.0));
    }
}
