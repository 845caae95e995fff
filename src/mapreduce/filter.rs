//! Key filters: a pipeline of steps that each turn a value into another, the first of them the key. A key passes where the
//! last value is exactly `true`.

use bytes::Bytes;
use thiserror::Error;

use crate::domain::pattern::Pattern;
use crate::erlang::{Term, print};

/// The longest text that `similar_to` compares with: the comparison takes time in proportion to both lengths.
const SIMILAR_TEXT_BYTES_MAX: usize = 1024;
/// How much of a key or argument an error shows.
const SHOWN_BYTES_MAX: usize = 500;

/// Why a filter cannot be used, or failed on a key.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FilterError {
    /// There is no filter of that name, or the step is no list that begins with one.
    #[error("there is no filter {0:?}")]
    Unknown(Term),
    /// The name is known and nothing is behind it, in Riak as here.
    #[error("the filter {0} does nothing")]
    Undefined(&'static str),
    /// The arguments are not those that the filter takes.
    #[error("the filter {0} does not take these arguments")]
    Arguments(&'static str),
    /// The value that came into a step is none that it can work on.
    #[error("the filter {name} failed on {value:?}")]
    Value {
        /// The filter.
        name: &'static str,
        /// What it was given.
        value: Term,
    },
}

/// A pipeline that has been checked.
#[derive(Clone, Debug)]
pub(super) struct Pipeline(Vec<(&'static str, Step)>);

#[derive(Clone, Debug)]
enum Step {
    IntegerToString,
    StringToInteger,
    FloatToString,
    StringToFloat,
    ToUpper,
    ToLower,
    Tokenize { separators: Vec<u8>, index: usize },
    UrlDecode,
    Compare(fn(std::cmp::Ordering) -> bool, Term),
    Between { low: Term, high: Term, inclusive: bool },
    Matches(Pattern),
    Equal(Term),
    NotEqual(Term),
    SetMember(Vec<Vec<u8>>),
    SimilarTo { text: Vec<u8>, distance_max: usize },
    StartsWith(Vec<u8>),
    EndsWith(Vec<u8>),
    And(Vec<Pipeline>),
    Or(Vec<Pipeline>),
    Not(Pipeline),
}

impl Pipeline {
    /// Checks a list of steps, each a list of a name and its arguments.
    pub(super) fn compile(steps: &[Term]) -> Result<Self, FilterError> {
        steps.iter().map(compile_step).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a key passes.
    ///
    /// # Errors
    /// When a step cannot work on what comes into it.
    pub(super) fn passes(&self, key: &Bytes) -> Result<bool, FilterError> {
        Ok(self.apply(Term::Binary(key.clone()))?.is_atom("true"))
    }

    fn apply(&self, value: Term) -> Result<Term, FilterError> {
        if self.0.is_empty() {
            return Ok(boolean(true));
        }
        self.0
            .iter()
            .try_fold(value, |value, (name, step)| step.apply(&value)?.ok_or(FilterError::Value { name, value }))
    }

    /// The pipeline's verdict; `None` where it is neither true nor false.
    fn decide(&self, value: &Term) -> Result<Option<bool>, FilterError> {
        let verdict = self.apply(value.clone())?;
        Ok(if verdict.is_atom("true") {
            Some(true)
        } else if verdict.is_atom("false") {
            Some(false)
        } else {
            None
        })
    }
}

fn compile_step(step: &Term) -> Result<(&'static str, Step), FilterError> {
    let Term::List(parts) = step else { return Err(FilterError::Unknown(step.clone())) };
    let Some((name, arguments)) = parts.split_first() else { return Err(FilterError::Unknown(step.clone())) };
    let (name, compile) = match name.as_binary().and_then(|name| find(name)) {
        Some((name, Some(compile))) => (name, compile),
        Some((name, None)) => return Err(FilterError::Undefined(name)),
        None => return Err(FilterError::Unknown(name.clone())),
    };
    match compile(arguments)? {
        Some(step) => Ok((name, step)),
        None => Err(FilterError::Arguments(name)),
    }
}

/// Makes a step of its arguments; `None` where they do not fit.
type Compile = fn(&[Term]) -> Result<Option<Step>, FilterError>;

/// All names. One of them has nothing behind it.
const FILTERS: [(&str, Option<Compile>); 24] = [
    ("int_to_string", Some(|_| Ok(Some(Step::IntegerToString)))),
    ("string_to_int", Some(|_| Ok(Some(Step::StringToInteger)))),
    ("float_to_string", Some(|_| Ok(Some(Step::FloatToString)))),
    ("string_to_float", Some(|_| Ok(Some(Step::StringToFloat)))),
    ("to_upper", Some(|_| Ok(Some(Step::ToUpper)))),
    ("to_lower", Some(|_| Ok(Some(Step::ToLower)))),
    ("tokenize", Some(|arguments| Ok(tokenize(arguments)))),
    ("urldecode", Some(|_| Ok(Some(Step::UrlDecode)))),
    ("greater_than", Some(|arguments| Ok(compare(arguments, std::cmp::Ordering::is_gt)))),
    ("less_than", Some(|arguments| Ok(compare(arguments, std::cmp::Ordering::is_lt)))),
    ("greater_than_eq", Some(|arguments| Ok(compare(arguments, std::cmp::Ordering::is_ge)))),
    ("less_than_eq", Some(|arguments| Ok(compare(arguments, std::cmp::Ordering::is_le)))),
    ("between", Some(|arguments| Ok(between(arguments)))),
    ("matches", Some(|arguments| Ok(matches(arguments)))),
    ("eq", Some(|arguments| Ok(arguments.first().cloned().map(Step::Equal)))),
    ("neq", Some(|arguments| Ok(arguments.first().cloned().map(Step::NotEqual)))),
    ("set_member", Some(|arguments| Ok(Some(Step::SetMember(arguments.iter().map(text).collect()))))),
    ("similar_to", Some(|arguments| Ok(similar_to(arguments)))),
    ("sounds_like", None),
    ("starts_with", Some(|arguments| Ok(arguments.first().map(text).map(Step::StartsWith)))),
    ("ends_with", Some(|arguments| Ok(arguments.first().map(text).map(Step::EndsWith)))),
    ("and", Some(|arguments| Ok(pipelines(arguments)?.map(Step::And)))),
    ("or", Some(|arguments| Ok(pipelines(arguments)?.map(Step::Or)))),
    (
        "not",
        Some(|arguments| {
            Ok(pipelines(arguments.get(..1).unwrap_or_default())?.and_then(|mut p| p.pop()).map(Step::Not))
        }),
    ),
];

fn find(name: &[u8]) -> Option<(&'static str, Option<Compile>)> {
    FILTERS.iter().find(|(known, _)| known.as_bytes() == name).copied()
}

fn tokenize(arguments: &[Term]) -> Option<Step> {
    let [separators, Term::Integer(index), ..] = arguments else { return None };
    let index = usize::try_from(*index).ok().filter(|&index| index > 0)?;
    Some(Step::Tokenize { separators: text(separators), index })
}

fn compare(arguments: &[Term], accepts: fn(std::cmp::Ordering) -> bool) -> Option<Step> {
    arguments.first().map(|bound| Step::Compare(accepts, bound.clone()))
}

fn between(arguments: &[Term]) -> Option<Step> {
    let (low, high, rest) = match arguments {
        [low, high, rest @ ..] => (low.clone(), high.clone(), rest),
        _ => return None,
    };
    let inclusive = match rest {
        [flag] if flag.is_atom("false") => false,
        [flag] if !flag.is_atom("true") => return None,
        _ => true,
    };
    Some(Step::Between { low, high, inclusive })
}

fn matches(arguments: &[Term]) -> Option<Step> {
    Pattern::compile(&text(arguments.first()?)).ok().map(Step::Matches)
}

fn similar_to(arguments: &[Term]) -> Option<Step> {
    let [similar, Term::Integer(distance), ..] = arguments else { return None };
    let text = text(similar);
    // A negative distance is one that no key has; `not` of it is asked for by nobody.
    let distance_max = usize::try_from(*distance).ok()?;
    (text.len() <= SIMILAR_TEXT_BYTES_MAX).then_some(Step::SimilarTo { text, distance_max })
}

fn pipelines(arguments: &[Term]) -> Result<Option<Vec<Pipeline>>, FilterError> {
    let mut pipelines = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let Term::List(steps) = argument else { return Ok(None) };
        pipelines.push(Pipeline::compile(steps)?);
    }
    Ok(Some(pipelines))
}

impl Step {
    /// The value that the step makes; `None` where it cannot work on this one.
    fn apply(&self, value: &Term) -> Result<Option<Term>, FilterError> {
        Ok(match self {
            Self::IntegerToString => match value {
                Term::Integer(integer) => Some(Term::binary(integer.to_string().as_bytes())),
                _ => None,
            },
            Self::StringToInteger => parse_integer(&text(value)).map(Term::Integer),
            Self::FloatToString => match value {
                Term::Float(float) => Some(Term::binary(float_text(*float).as_bytes())),
                _ => None,
            },
            Self::StringToFloat => parse_float(&text(value)).map(Term::Float),
            Self::ToUpper => Some(Term::characters(&text(value).iter().map(upper).collect::<Vec<_>>())),
            Self::ToLower => Some(Term::characters(&text(value).iter().map(lower).collect::<Vec<_>>())),
            Self::Tokenize { separators, index } => {
                let text = text(value);
                let mut tokens = text.split(|byte| separators.contains(byte)).filter(|token| !token.is_empty());
                tokens.nth(index - 1).map(Term::binary)
            }
            Self::UrlDecode => Some(Term::characters(&url_decoded(&text(value)))),
            Self::Compare(accepts, bound) => Some(boolean(accepts(value.compare(bound)))),
            Self::Between { low, high, inclusive } => {
                let (above, below) = (value.compare(low), value.compare(high));
                Some(boolean(if *inclusive { above.is_ge() && below.is_le() } else { above.is_gt() && below.is_lt() }))
            }
            Self::Matches(pattern) => match value {
                Term::Binary(bytes) => Some(boolean(pattern.is_match(bytes))),
                _ => value.as_characters().map(|characters| boolean(pattern.is_match(&characters))),
            },
            Self::Equal(other) => Some(boolean(value == other)),
            Self::NotEqual(other) => Some(boolean(value != other)),
            Self::SetMember(members) => Some(boolean(members.contains(&text(value)))),
            Self::SimilarTo { text: other, distance_max } => {
                Some(boolean(is_within_distance(&text(value), other, *distance_max)))
            }
            Self::StartsWith(prefix) => Some(boolean(text(value).starts_with(prefix))),
            Self::EndsWith(suffix) => Some(boolean(text(value).ends_with(suffix))),
            Self::And(pipelines) => all_until(pipelines, value, false)?,
            Self::Or(pipelines) => all_until(pipelines, value, true)?,
            Self::Not(pipeline) => pipeline.decide(value)?.map(|verdict| boolean(!verdict)),
        })
    }
}

/// The verdict that the pipelines reach together: `ending` as soon as one gives it, else its opposite.
fn all_until(pipelines: &[Pipeline], value: &Term, ending: bool) -> Result<Option<Term>, FilterError> {
    for pipeline in pipelines {
        match pipeline.decide(value)? {
            None => return Ok(None),
            Some(verdict) if verdict == ending => return Ok(Some(boolean(ending))),
            Some(_) => {}
        }
    }
    Ok(Some(boolean(!ending)))
}

fn boolean(value: bool) -> Term {
    Term::atom(if value { "true" } else { "false" })
}

/// A value as text: the steps that work on text take numbers and lists of characters for it as well.
fn text(value: &Term) -> Vec<u8> {
    match value {
        Term::Binary(bytes) => bytes.to_vec(),
        Term::Integer(integer) => integer.to_string().into_bytes(),
        Term::Float(float) => float_text(*float).into_bytes(),
        _ => match value.as_characters() {
            Some(characters) => characters,
            None => print::term(value, SHOWN_BYTES_MAX).into_bytes(),
        },
    }
}

/// A float with 20 decimals and an exponent of two digits or more.
fn float_text(float: f64) -> String {
    let text = format!("{float:.20e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{mantissa}e-{exponent:0>2}"),
            None => format!("{mantissa}e+{exponent:0>2}"),
        },
        None => text,
    }
}

pub(super) fn parse_integer(text: &[u8]) -> Option<i128> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Erlang's floats have digits on both sides of a point.
fn parse_float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, rest) = text.split_once('.')?;
    let ends_in_digit = |text: &str| text.bytes().next_back().is_some_and(|byte| byte.is_ascii_digit());
    let begins_with_digit = rest.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    let float: f64 = text.parse().ok()?;
    (ends_in_digit(whole) && begins_with_digit && float.is_finite()).then_some(float)
}

/// Upper case of Latin-1. ÷ has none, and ÿ's is outside.
fn upper(byte: &u8) -> u8 {
    match byte {
        b'a'..=b'z' | 0xe0..=0xf6 | 0xf8..=0xfe => byte - 32,
        _ => *byte,
    }
}

fn lower(byte: &u8) -> u8 {
    match byte {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => byte + 32,
        _ => *byte,
    }
}

/// The text as the value of a query string's first parameter.
fn url_decoded(text: &[u8]) -> Vec<u8> {
    let value = text.split(|byte| matches!(byte, b'&' | b';')).next().unwrap_or_default();
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let code = after.get(..2).and_then(|code| match code {
            [high, low] => Some(16 * hex(*high)? + hex(*low)?),
            _ => None,
        });
        match (byte, code) {
            (b'%', Some(code)) => {
                decoded.push(code);
                rest = &after[2..];
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Whether `a` becomes `b` by at most `distance_max` insertions, removals and replacements of a byte. Only the part of the
/// table that can stay within the distance is worked out.
fn is_within_distance(a: &[u8], b: &[u8], distance_max: usize) -> bool {
    if a.len().abs_diff(b.len()) > distance_max {
        return false;
    }
    if a.len().max(b.len()) <= distance_max {
        return true;
    }
    let beyond = distance_max + 1;
    let mut previous: Vec<usize> = (0..=b.len()).map(|distance| distance.min(beyond)).collect();
    for (i, from) in a.iter().enumerate() {
        let (first, last) = ((i + 1).saturating_sub(distance_max), (i + 1 + distance_max).min(b.len()));
        let mut row = vec![beyond; b.len() + 1];
        if first == 0 {
            row[0] = i + 1;
        }
        for j in first.max(1)..=last {
            let replaced = previous[j - 1] + usize::from(*from != b[j - 1]);
            row[j] = replaced.min(previous[j] + 1).min(row[j - 1] + 1).min(beyond);
        }
        previous = row;
    }
    previous[b.len()] <= distance_max
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapreduce::json;
    use proptest::prelude::*;

    fn compile(steps: &str) -> Result<Pipeline, FilterError> {
        match json::parse(steps.as_bytes(), 1000).unwrap() {
            Term::List(steps) => Pipeline::compile(&steps),
            other => panic!("{other:?}"),
        }
    }

    fn passes(steps: &str, key: &'static [u8]) -> Result<bool, FilterError> {
        compile(steps)?.passes(&Bytes::from_static(key))
    }

    fn check(steps: &str, passing: &[&'static [u8]], failing: &[&'static [u8]]) {
        for key in passing {
            assert_eq!(passes(steps, key), Ok(true), "{steps} {key:?}");
        }
        for key in failing {
            assert_eq!(passes(steps, key), Ok(false), "{steps} {key:?}");
        }
    }

    #[test]
    fn each_filter_decides() {
        check(r#"[["eq","a"]]"#, &[b"a"], &[b"b", b""]);
        check(r#"[["neq","a"]]"#, &[b"b"], &[b"a"]);
        check(r#"[["greater_than","b"]]"#, &[b"c", b"ba"], &[b"b", b"a"]);
        check(r#"[["greater_than_eq","b"]]"#, &[b"b"], &[b"a"]);
        check(r#"[["less_than","b"]]"#, &[b"a"], &[b"b"]);
        check(r#"[["less_than_eq","b"]]"#, &[b"b"], &[b"c"]);
        check(r#"[["between","b","d"]]"#, &[b"b", b"c", b"d"], &[b"a", b"e"]);
        check(r#"[["between","b","d",true]]"#, &[b"b"], &[b"a"]);
        check(r#"[["between","b","d",false]]"#, &[b"c"], &[b"b", b"d"]);
        check(r#"[["matches","^k.y[0-9]+$"]]"#, &[b"key12", b"k\xffy1"], &[b"key", b"xkey1"]);
        check(r#"[["set_member","a","2"]]"#, &[b"a", b"2"], &[b"b"]);
        check(r#"[["similar_to","basho",1]]"#, &[b"baysho", b"basho", b"bash"], &[b"baysho!", b"b"]);
        check(r#"[["starts_with","ke"]]"#, &[b"key", b"ke"], &[b"k", b"xke"]);
        check(r#"[["ends_with","ey"]]"#, &[b"key"], &[b"y", b"eyx"]);
        check("[]", &[b"anything"], &[]);
    }

    #[test]
    fn each_transformation_feeds_the_next_step() {
        check(r#"[["tokenize","-/",2],["eq","b"]]"#, &[b"a-b/c", b"--a//b"], &[b"a-c"]);
        check(r#"[["string_to_int"],["less_than",10]]"#, &[b"9", b"-10", b"+9"], &[b"10"]);
        check(r#"[["string_to_int"],["int_to_string"],["eq","7"]]"#, &[b"007"], &[b"8"]);
        check(r#"[["string_to_float"],["between",1,2]]"#, &[b"1.5", b"1.0e0"], &[b"2.5"]);
        let text = r#"[["string_to_float"],["float_to_string"],["eq","1.50000000000000000000e+00"]]"#;
        check(text, &[b"1.5"], &[b"2.5"]);
        check(r#"[["string_to_float"],["float_to_string"],["starts_with","1.0"],["eq",true]]"#, &[], &[b"2.0"]);
        check(r#"[["to_upper"],["starts_with","AB\u00c9"]]"#, &[], &[b"ab\xe9"]);
        check(r#"[["to_upper"],["set_member","AB"]]"#, &[b"ab", b"aB"], &[b"x"]);
        check(r#"[["to_lower"],["ends_with","b"]]"#, &[b"AB"], &[b"A"]);
        check(r#"[["urldecode"],["set_member","a b+c%zz"]]"#, &[b"a+b%2Bc%zz", b"a%20b%2bc%zz&x"], &[b"a"]);
        check(r#"[["to_upper"],["matches","^A"]]"#, &[b"abc"], &[b"b"]);
    }

    #[test]
    fn lists_of_characters_never_equal_strings() {
        check(r#"[["to_upper"],["eq","KEY"]]"#, &[], &[b"key"]);
        check(r#"[["to_upper"],["neq","KEY"]]"#, &[b"key"], &[]);
        check(r#"[["urldecode"],["eq","key"]]"#, &[], &[b"key"]);
    }

    #[test]
    fn any_number_is_below_any_string() {
        check(r#"[["greater_than",99]]"#, &[b"1"], &[]);
        check(r#"[["string_to_int"],["less_than","0"]]"#, &[b"99"], &[]);
        check(r#"[["string_to_int"],["eq",1.0]]"#, &[], &[b"1"]);
        check(r#"[["string_to_int"],["between",1.0,1.0]]"#, &[b"1"], &[b"2"]);
    }

    #[test]
    fn pipelines_combine() {
        check(r#"[["and",[["starts_with","a"]],[["ends_with","z"]]]]"#, &[b"abz"], &[b"ab", b"bz"]);
        check(r#"[["or",[["starts_with","a"]],[["ends_with","z"]]]]"#, &[b"ab", b"bz"], &[b"b"]);
        check(r#"[["not",[["starts_with","a"]],[["nope"]]]]"#, &[b"b"], &[b"a"]);
        check(r#"[["not",[["or",[["eq","a"]],[["and"]]]]]]"#, &[], &[b"a", b"b"]);
        check(r#"[["or"]]"#, &[], &[b"a"]);
        assert_eq!(
            passes(r#"[["and",[["to_upper"]]]]"#, b"a"),
            Err(FilterError::Value { name: "and", value: Term::binary(b"a") })
        );
    }

    #[test]
    fn a_last_value_that_is_not_true_does_not_pass() {
        check(r#"[["to_upper"]]"#, &[], &[b"a"]);
    }

    #[test]
    fn unknown_filters_and_bad_arguments_are_refused() {
        let unknown = |term: Term| Err(FilterError::Unknown(term));
        assert_eq!(passes(r#"[["nope"]]"#, b"a"), unknown(Term::binary(b"nope")));
        assert_eq!(passes(r#"[["and",[["nope"]]]]"#, b"a"), unknown(Term::binary(b"nope")));
        assert_eq!(passes("[1]", b"a"), unknown(Term::Integer(1)));
        assert_eq!(passes("[[]]", b"a"), unknown(Term::List(vec![])));
        assert_eq!(passes("[[1]]", b"a"), unknown(Term::Integer(1)));
        assert_eq!(passes(r#"[["sounds_like","x"]]"#, b"a"), Err(FilterError::Undefined("sounds_like")));
        for (steps, name) in [
            (r#"[["eq"]]"#, "eq"),
            (r#"[["neq"]]"#, "neq"),
            (r#"[["less_than"]]"#, "less_than"),
            (r#"[["between","a"]]"#, "between"),
            (r#"[["between","a","b",1]]"#, "between"),
            (r#"[["tokenize","a"]]"#, "tokenize"),
            (r#"[["tokenize","a",0]]"#, "tokenize"),
            (r#"[["tokenize","a","1"]]"#, "tokenize"),
            (r#"[["matches","[abc"]]"#, "matches"),
            (r#"[["matches","(a{1000}){1000}"]]"#, "matches"),
            (r#"[["matches"]]"#, "matches"),
            (r#"[["similar_to","a"]]"#, "similar_to"),
            (r#"[["similar_to","a",-1]]"#, "similar_to"),
            (r#"[["starts_with"]]"#, "starts_with"),
            (r#"[["ends_with"]]"#, "ends_with"),
            (r#"[["and",1]]"#, "and"),
            (r#"[["not"]]"#, "not"),
        ] {
            assert_eq!(passes(steps, b"a"), Err(FilterError::Arguments(name)), "{steps}");
        }
        let long = format!(r#"[["similar_to","{}",1]]"#, "a".repeat(SIMILAR_TEXT_BYTES_MAX + 1));
        assert_eq!(compile(&long).unwrap_err(), FilterError::Arguments("similar_to"));
    }

    #[test]
    fn a_step_that_cannot_work_on_its_value_fails() {
        for (steps, name) in [
            (r#"[["string_to_int"]]"#, "string_to_int"),
            (r#"[["int_to_string"]]"#, "int_to_string"),
            (r#"[["string_to_float"]]"#, "string_to_float"),
            (r#"[["float_to_string"]]"#, "float_to_string"),
            (r#"[["tokenize","-",2]]"#, "tokenize"),
        ] {
            for key in [&b"x"[..], b"1.", b".1", b"1e5", b" 1", b"1_0", b""] {
                let failed = Err(FilterError::Value { name, value: Term::binary(key) });
                assert_eq!(passes(steps, key), failed, "{steps} {key:?}");
            }
        }
        let failed = Err(FilterError::Value { name: "matches", value: Term::Integer(1) });
        assert_eq!(passes(r#"[["string_to_int"],["matches","1"]]"#, b"1"), failed);
    }

    #[test]
    fn names_are_unique() {
        for (index, (name, _)) in FILTERS.iter().enumerate() {
            assert!(FILTERS[index + 1..].iter().all(|(other, _)| other != name), "{name}");
        }
    }

    /// The textbook's table, without a bound.
    fn distance(a: &[u8], b: &[u8]) -> usize {
        let mut previous: Vec<usize> = (0..=b.len()).collect();
        for (i, from) in a.iter().enumerate() {
            let mut row = vec![i + 1];
            for (j, to) in b.iter().enumerate() {
                row.push((previous[j] + usize::from(from != to)).min(previous[j + 1] + 1).min(row[j] + 1));
            }
            previous = row;
        }
        previous[b.len()]
    }

    proptest! {
        #[test]
        fn the_bounded_distance_is_the_distance(a in "[abc]{0,9}", b in "[abc]{0,9}", distance_max in 0usize..10) {
            let within = distance(a.as_bytes(), b.as_bytes()) <= distance_max;
            prop_assert_eq!(is_within_distance(a.as_bytes(), b.as_bytes(), distance_max), within);
        }

        #[test]
        fn no_key_panics(key in prop::collection::vec(any::<u8>(), 0..20)) {
            let key = Bytes::from(key);
            for step in ["urldecode", "to_upper", "to_lower", "string_to_int", "string_to_float"] {
                let _ = compile(&format!(r#"[["{step}"],["matches","x"]]"#)).unwrap().passes(&key);
            }
        }
    }
}
