//! Erlang terms as Riak prints them in error texts (`kv.md` §2, `datatypes.md` §13): always on one line.

use std::fmt::Write;

use super::Term;

/// A term of any kind, cut off where it gets longer than `length_max` bytes.
pub fn term(term: &Term, length_max: usize) -> String {
    let mut out = String::new();
    write(term, &mut out, length_max);
    if out.len() > length_max {
        out.truncate(out.floor_char_boundary(length_max));
        out.push_str("...");
    }
    out
}

/// Stops soon after `length_max`.
fn write(term: &Term, out: &mut String, length_max: usize) {
    if out.len() > length_max {
        return;
    }
    match term {
        Term::Integer(integer) => {
            let _ = write!(out, "{integer}");
        }
        Term::Float(float) => out.push_str(&self::float(*float)),
        Term::Atom(name) => out.push_str(&atom(name)),
        Term::Tuple(terms) | Term::Record(terms) => write_each('{', terms, '}', out, length_max),
        Term::List(terms) => match characters(terms, length_max) {
            Some(text) => {
                let _ = write!(out, "\"{}\"", escaped(&text));
            }
            None => write_each('[', terms, ']', out, length_max),
        },
        Term::Binary(bytes) => out.push_str(&binary(head(bytes, length_max))),
    }
}

fn write_each(open: char, terms: &[Term], close: char, out: &mut String, length_max: usize) {
    out.push(open);
    for (index, term) in terms.iter().enumerate() {
        if out.len() > length_max {
            return;
        }
        if index > 0 {
            out.push(',');
        }
        write(term, out, length_max);
    }
    out.push(close);
}

/// The text of a list of printable characters, or of its beginning where it is long.
fn characters(terms: &[Term], length_max: usize) -> Option<String> {
    let character = |term: &Term| match term {
        Term::Integer(integer) => u8::try_from(*integer).ok().filter(is_printable).map(char::from),
        _ => None,
    };
    let text: Option<String> = terms.iter().take(length_max.saturating_add(1)).map(character).collect();
    text.filter(|text| !text.is_empty())
}

/// The beginning of bytes of which no more is printed, not cut inside a character where they are text.
fn head(bytes: &[u8], length_max: usize) -> &[u8] {
    let Some(head) = bytes.get(..length_max.saturating_add(1)) else { return bytes };
    match std::str::from_utf8(head) {
        Err(error) if error.error_len().is_none() => &head[..error.valid_up_to()],
        _ => head,
    }
}

/// A float: always with a fraction.
pub fn float(float: f64) -> String {
    let text = format!("{float:?}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => text,
    }
}

fn is_printable(byte: &u8) -> bool {
    matches!(byte, 32..=126 | 160..=255 | 8..=13 | 27)
}

/// A binary: as text where Riak would print text, else as a list of its bytes. Bytes above 126 are printed raw only where
/// the result is UTF-8, because clients decode error texts as that.
pub fn binary(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok("") => "<<>>".into(),
        Ok(text) if bytes.iter().all(is_printable) => format!("<<\"{}\">>", escaped(text)),
        _ => {
            let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
            format!("<<{}>>", numbers.join(","))
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            '\u{1b}' => out.push_str("\\e"),
            other => out.push(other),
        }
    }
    out
}

/// An atom: bare where that can be read back, else in single quotes.
pub fn atom(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let is_bare = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '@');
    if is_bare {
        return text.into_owned();
    }
    let mut out = String::from("'");
    for character in text.chars() {
        if matches!(character, '\'' | '\\') {
            out.push('\\');
        }
        let _ = out.write_char(character);
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_print_as_riak_prints_them() {
        assert_eq!(binary(b""), "<<>>");
        assert_eq!(binary(b"abc"), r#"<<"abc">>"#);
        assert_eq!(binary(b"a\"\\\n\x1b"), r#"<<"a\"\\\n\e">>"#);
        assert_eq!(binary(&[0, 1, 2, 255]), "<<0,1,2,255>>");
        assert_eq!(binary(&[200, 201]), "<<200,201>>");
    }

    #[test]
    fn terms_print_on_one_line_and_are_cut() {
        let key = Term::Tuple(vec![Term::binary(b"b"), Term::binary(b"k")]);
        let input = Term::Tuple(vec![key, Term::atom("undefined"), Term::List(vec![Term::Integer(300)])]);
        assert_eq!(term(&input, 500), r#"{{<<"b">>,<<"k">>},undefined,[300]}"#);
        assert_eq!(term(&input, 8), r#"{{<<"b">..."#);
        assert_eq!(term(&Term::characters(b"a\"b"), 500), r#""a\"b""#);
        assert_eq!(term(&Term::List(vec![]), 500), "[]");
        assert_eq!(term(&Term::Float(1e300), 500), "1.0e300");
        assert_eq!(term(&Term::Float(1.5), 500), "1.5");
        let long = Term::binary("é".repeat(1000).as_bytes());
        assert!(term(&long, 10).starts_with("<<"));
        assert!(term(&long, 10).len() <= 13);
    }

    #[test]
    fn atoms_are_quoted_where_they_must_be() {
        assert_eq!(atom(b"riak_kv@1"), "riak_kv@1");
        assert_eq!(atom(b"No Such"), "'No Such'");
        assert_eq!(atom(b"it's"), r"'it\'s'");
        assert_eq!(atom(b""), "''");
    }
}
