//! Regular expressions over the terms of an index and over keys, matched in time linear in these (`queries.md` §1.2).
//!
//! Riak's are PCRE over bytes. What PCRE has and a linear engine cannot have (look-around, back references) is refused.

use std::fmt::Write;

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4 * 1024;
/// What a compiled pattern may take, in bytes: repeats of repeats grow far beyond their text.
const COMPILED_SIZE_BYTES_MAX: usize = 1024 * 1024;
/// What one search may keep at hand, in bytes.
const SEARCH_CACHE_SIZE_BYTES_MAX: usize = 1024 * 1024;
/// How deep groups may be nested.
const GROUP_DEPTH_MAX: u32 = 64;

/// A compiled pattern. It is found anywhere in a term unless it is anchored.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// A pattern that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// It does not compile.
    #[error("{reason}")]
    Syntax {
        /// What is wrong with it.
        reason: String,
    },
    /// It is longer than patterns may be.
    #[error("regular expression is longer than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    /// It needs more memory than patterns may.
    #[error("regular expression is too large")]
    TooLarge,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// When it is no pattern, or exceeds a bound.
    pub fn compile(pattern: &[u8]) -> Result<Self, PatternError> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let compiled = RegexBuilder::new(&translate(pattern))
            .unicode(false)
            .size_limit(COMPILED_SIZE_BYTES_MAX)
            .dfa_size_limit(SEARCH_CACHE_SIZE_BYTES_MAX)
            .nest_limit(GROUP_DEPTH_MAX)
            .build();
        compiled.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
            // The message draws the pattern first and says what is wrong at its end.
            other => {
                let text = other.to_string();
                let reason = text.rsplit("error: ").next().unwrap_or_default().trim();
                PatternError::Syntax { reason: reason.to_owned() }
            }
        })
    }

    /// Whether it is found in a term.
    pub fn is_match(&self, term: &[u8]) -> bool {
        self.0.is_match(term)
    }
}

/// A PCRE pattern in the engine's own spelling, where the two differ:
/// - the engine takes text, so a byte that is no ASCII is written as a number, which also makes it one character;
/// - in brackets it knows sets of sets, where PCRE has plain characters;
/// - a brace that begins no count is a plain character to PCRE, and so are the angles after a backslash.
fn translate(pattern: &[u8]) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut in_brackets = false;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\\' => match after.split_first() {
                Some((&angle @ (b'<' | b'>'), after)) => {
                    out.push(char::from(angle));
                    rest = after;
                }
                Some((&escaped, after)) if escaped.is_ascii() => {
                    out.extend(['\\', char::from(escaped)]);
                    rest = after;
                }
                // Before other bytes it says only that they are meant.
                Some(_) => {}
                None => out.push('\\'),
            },
            b'[' if in_brackets => out.push_str(if after.starts_with(b":") { "[" } else { "\\[" }),
            b'[' => {
                in_brackets = true;
                out.push('[');
                if let Some(after) = rest.strip_prefix(b"^") {
                    out.push('^');
                    rest = after;
                }
                // First in brackets, the closing one is a character.
                if let Some(after) = rest.strip_prefix(b"]") {
                    out.push_str("\\]");
                    rest = after;
                }
            }
            b']' if in_brackets => {
                // The end of a class of characters is not the end of the brackets.
                in_brackets = out.ends_with(':') && out.rfind("[:").is_some_and(|at| is_class(&out[at + 2..]));
                out.push(']');
            }
            b'&' | b'~' if in_brackets => out.extend(['\\', char::from(byte)]),
            b'{' if !in_brackets && !is_count(after) => out.push_str("\\{"),
            byte if byte.is_ascii() => out.push(char::from(byte)),
            byte => write!(out, "\\x{byte:02x}").expect("a string takes everything"),
        }
    }
    out
}

/// Whether this is the name of a class and its colon.
fn is_class(text: &str) -> bool {
    text.strip_suffix(':').is_some_and(|name| name.bytes().all(|byte| byte == b'^' || byte.is_ascii_lowercase()))
}

/// Whether this is what follows the brace of a count.
fn is_count(after: &[u8]) -> bool {
    let Some(end) = after.iter().position(|&byte| byte == b'}') else { return false };
    let mut parts = after[..end].splitn(2, |&byte| byte == b',');
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let (least, most) = (parts.next().unwrap_or_default(), parts.next());
    is_number(least) && most.is_none_or(|most| most.is_empty() || is_number(most))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &[u8], term: &[u8]) -> bool {
        Pattern::compile(pattern).unwrap_or_else(|error| panic!("{error}")).is_match(term)
    }

    #[test]
    fn patterns_are_found_anywhere_unless_they_are_anchored() {
        assert!(matches(b"nn", b"anna"));
        assert!(matches(b"", b""));
        assert!(matches(b"^an+a$", b"anna"));
        assert!(!matches(b"^nn", b"anna"));
        assert!(matches(b"(?i)ANNA", b"anna"));
    }

    #[test]
    fn patterns_and_terms_are_bytes() {
        assert!(matches(b"^.$", b"\xff"));
        assert!(matches(b"\xff\x00", b"a\xff\x00b"));
        // In brackets each byte of a character is one of its own, as for PCRE without Unicode.
        assert!(matches("^[\u{e9}]{2}$".as_bytes(), "\u{e9}".as_bytes()));
        assert!(matches("^\\\u{e9}$".as_bytes(), "\u{e9}".as_bytes()));
    }

    #[test]
    fn what_pcre_takes_for_plain_characters_is_plain() {
        assert!(matches(b"a{", b"a{"));
        assert!(matches(b"{x}", b"{x}"));
        assert!(matches(b"^a{2,}$", b"aaa"));
        assert!(matches(b"^[[&]&+$", b"[&"));
        assert!(matches(b"^[&&]+$", b"&"));
        assert!(matches(b"^[]a]+$", b"]a"));
        assert!(matches(b"^[^]a]+$", b"bc"));
        assert!(matches(b"^[[:digit:]x]+$", b"1x"));
        assert!(matches(b"\\<a\\>", b"<a>"));
        assert!(matches(b"^\\[\\]$", b"[]"));
    }

    #[test]
    fn refused_patterns_say_why() {
        let refused = |pattern: &[u8]| Pattern::compile(pattern).unwrap_err().to_string();
        assert_eq!(refused(b"[abc"), "unclosed character class");
        assert!(refused(b"(?=a)").contains("look-around"));
        assert!(refused(b"\\").contains("incomplete"));
        assert_eq!(Pattern::compile(b"((a{1000}){1000}){1000}").unwrap_err(), PatternError::TooLarge);
        assert_eq!(Pattern::compile(&[b'a'; PATTERN_BYTES_MAX + 1]).unwrap_err(), PatternError::TooLong);
        assert!(Pattern::compile(&[b'('; 1000]).is_err());
    }

    proptest! {
        #[test]
        fn strange_patterns_are_refused_or_work_and_nothing_panics(
            pattern in proptest::collection::vec(prop_oneof![
                any::<u8>(),
                proptest::sample::select(&b"[]^:{},\\()|*+?&~-<>az09"[..]),
            ], 0..24),
            term in proptest::collection::vec(any::<u8>(), 0..16),
        ) {
            if let Ok(pattern) = Pattern::compile(&pattern) {
                let _ = pattern.is_match(&term);
            }
        }

        #[test]
        fn an_escaped_term_finds_itself(term in proptest::collection::vec(any::<u8>(), 0..16)) {
            let escaped: Vec<u8> = term.iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).collect();
            prop_assert!(matches(&escaped, &term));
        }
    }
}
