//! Erlang terms as Riak prints them in error texts (`kv.md` §2, `datatypes.md` §13): always on one line.

use std::fmt::Write;

/// A binary: as text where Riak would print text, else as a list of its bytes. Bytes above 126 are printed raw only where
/// the result is UTF-8, because clients decode error texts as that.
pub(super) fn binary(bytes: &[u8]) -> String {
    let is_printable = |&byte: &u8| matches!(byte, 32..=126 | 160..=255 | 8..=13 | 27);
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
pub(super) fn atom(name: &[u8]) -> String {
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
    fn atoms_are_quoted_where_they_must_be() {
        assert_eq!(atom(b"riak_kv@1"), "riak_kv@1");
        assert_eq!(atom(b"No Such"), "'No Such'");
        assert_eq!(atom(b"it's"), r"'it\'s'");
        assert_eq!(atom(b""), "''");
    }
}
