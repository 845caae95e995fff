//! Secondary indexes: the entries that objects carry, the form in which they are kept, and the ranges that queries ask for
//! (`kv.md` §5.2, K24 and K25, `queries.md` §1).

use std::cmp::Ordering;
use std::fmt;
use std::ops::Bound;

use bytes::Bytes;
use thiserror::Error;

/// The longest integer that is indexed, in decimal digits. Riak's have no bound but memory; each digit beyond the size of
/// a register costs time in the square of their number where a client's token holds them in binary.
pub const INTEGER_DIGITS_MAX: usize = 1024;

/// The index of a bucket's keys, which every object is in.
const KEY_INDEX: &[u8] = b"$key";
/// The index of a bucket, which every object is in. What is asked of it does not matter.
const BUCKET_INDEX: &[u8] = b"$bucket";

/// An entry that cannot be indexed, or a value that cannot be asked for.
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

/// One entry of an object: the index that it is in, and the term under which. The derived order is that of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The index's name, in lower case.
    pub index: Bytes,
    /// The term.
    pub term: Term,
}

/// A value in an index. The derived order is that of the index, whose terms are all of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Term {
    /// In an `_int` index.
    Integer(Integer),
    /// In a `_bin` index: any bytes, possibly none.
    Binary(Bytes),
}

impl Term {
    /// The bytes that clients read: an integer's decimal text, or the value itself.
    pub fn as_bytes(&self) -> &Bytes {
        match self {
            Self::Integer(integer) => &integer.0,
            Self::Binary(value) => value,
        }
    }
}

/// What the terms of an index are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermKind {
    /// Integers.
    Integer,
    /// Bytes.
    Binary,
}

impl TermKind {
    /// The kind that the name of an index says, at least one byte and then a suffix.
    pub fn of(index: &[u8]) -> Option<Self> {
        match index.split_last_chunk()? {
            ([], _) => None,
            (_, b"_int") => Some(Self::Integer),
            (_, b"_bin") => Some(Self::Binary),
            _ => None,
        }
    }
}

/// A whole number: decimal text without leading zeros, and with a sign only where it is negative.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Integer(Bytes);

impl Integer {
    /// Reads an optional sign and at least one digit, and nothing else. Leading zeros are dropped.
    pub fn parse(text: &Bytes) -> Option<Self> {
        let (negative, digits) = match text.split_first()? {
            (b'-', digits) => (true, digits),
            (b'+', digits) => (false, digits),
            _ => (false, &text[..]),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
        let digits = text.slice_ref(&digits[zeros..]);
        if digits.len() > INTEGER_DIGITS_MAX {
            return None;
        }
        Some(Self(match (negative, digits.is_empty()) {
            (_, true) => Bytes::from_static(b"0"),
            (false, false) => digits,
            (true, false) => [b"-", &digits[..]].concat().into(),
        }))
    }

    /// The decimal text.
    pub fn text(&self) -> &Bytes {
        &self.0
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.0.starts_with(b"-")
    }

    /// The decimal digits, without the sign. None of them is a leading zero but that of zero itself.
    pub fn digits(&self) -> &[u8] {
        &self.0[usize::from(self.is_negative())..]
    }
}

impl Ord for Integer {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude = |a: &Self, b: &Self| (a.digits().len(), a.digits()).cmp(&(b.digits().len(), b.digits()));
        match (self.is_negative(), other.is_negative()) {
            (false, false) => magnitude(self, other),
            (true, true) => magnitude(other, self),
            (negative, _) => {
                if negative {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
        }
    }
}

impl PartialOrd for Integer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Entry {
    /// The entry that a name in lower case and a value stand for.
    fn parse(index: Bytes, value: Bytes) -> Result<Self, IndexFailure> {
        let term = match TermKind::of(&index) {
            Some(TermKind::Binary) => Term::Binary(value),
            Some(TermKind::Integer) => match Integer::parse(&value) {
                Some(integer) => Term::Integer(integer),
                None => return Err(IndexFailure::Parsing { name: index, value }),
            },
            // The two indexes that every object is in may be written down as well; queries of them do not look here.
            None if is_built_in(&index) => Term::Binary(value),
            None => return Err(IndexFailure::UnknownType { name: index }),
        };
        Ok(Self { index, term })
    }
}

fn is_built_in(index: &[u8]) -> bool {
    index == KEY_INDEX || index == BUCKET_INDEX
}

/// Riak's lower case of a name, which takes its bytes for Latin-1.
fn lower_case(name: &[u8]) -> Bytes {
    let lower = |&byte: &u8| match byte {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => byte + 0x20,
        other => other,
    };
    name.iter().map(lower).collect()
}

/// The entries as they are kept: names in lower case, integers in decimal text, sorted by name and value, none twice.
///
/// # Errors
/// When one of them cannot be indexed; then all that cannot are told.
pub fn normalize(entries: Vec<(Bytes, Bytes)>) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    let mut failures = Vec::new();
    for (name, value) in entries {
        match Entry::parse(lower_case(&name), value) {
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
    Ok(kept.into_iter().map(|entry| (entry.index, entry.term.as_bytes().clone())).collect())
}

/// The entries by which queries find what carries these pairs, as [`normalize`] left them.
pub fn entries(pairs: &[(Bytes, Bytes)]) -> impl Iterator<Item = Entry> {
    let queried = pairs.iter().filter(|(name, _)| !is_built_in(name));
    queried.filter_map(|(name, value)| Entry::parse(name.clone(), value.clone()).ok())
}

/// A key as an index holds it. The derived order is that of the index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Posting {
    /// The term under which the key stands; `None` in the index of the keys themselves.
    pub term: Option<Term>,
    /// The object's key.
    pub key: Bytes,
}

/// What a query asks for: a piece of one index, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexRange {
    /// The keys of the bucket between two bounds.
    Keys {
        /// The lower bound.
        from: Bound<Bytes>,
        /// The upper bound.
        to: Bound<Bytes>,
    },
    /// The entries of an index between two terms, both included.
    Terms {
        /// The index's name, in lower case.
        index: Bytes,
        /// The lowest term.
        from: Term,
        /// The highest term.
        to: Term,
    },
}

impl IndexRange {
    /// All keys of the bucket.
    pub const BUCKET: Self = Self::Keys { from: Bound::Unbounded, to: Bound::Unbounded };

    /// The range from `min` to `max`, both included, of an index whose name may be in any case. Bounds in the wrong order
    /// are a range of nothing.
    ///
    /// # Errors
    /// When there can be no such index, or a bound of an `_int` index is no integer.
    pub fn between(index: &[u8], min: Bytes, max: Bytes) -> Result<Self, IndexFailure> {
        let index = lower_case(index);
        if index == KEY_INDEX {
            return Ok(Self::Keys { from: Bound::Included(min), to: Bound::Included(max) });
        }
        if index == BUCKET_INDEX {
            return Ok(Self::BUCKET);
        }
        let from = Entry::parse(index.clone(), min)?.term;
        let to = Entry::parse(index.clone(), max)?.term;
        Ok(Self::Terms { index, from, to })
    }

    /// Exactly one value of an index whose name may be in any case.
    ///
    /// # Errors
    /// When there can be no such index, or the value of an `_int` index is no integer.
    pub fn exact(index: &[u8], value: Bytes) -> Result<Self, IndexFailure> {
        Self::between(index, value.clone(), value)
    }

    /// Whether a posting of the index is asked for.
    pub fn contains(&self, posting: &Posting) -> bool {
        match self {
            Self::Keys { from, to } => {
                let above = match from {
                    Bound::Unbounded => true,
                    Bound::Included(from) => posting.key >= *from,
                    Bound::Excluded(from) => posting.key > *from,
                };
                let below = match to {
                    Bound::Unbounded => true,
                    Bound::Included(to) => posting.key <= *to,
                    Bound::Excluded(to) => posting.key < *to,
                };
                above && below
            }
            Self::Terms { from, to, .. } => posting.term.as_ref().is_some_and(|term| term >= from && term <= to),
        }
    }

    /// What the terms of the index are; `None` for keys.
    pub fn term_kind(&self) -> Option<TermKind> {
        match self {
            Self::Keys { .. } => None,
            Self::Terms { from: Term::Integer(_), .. } => Some(TermKind::Integer),
            Self::Terms { from: Term::Binary(_), .. } => Some(TermKind::Binary),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(name: &'static str, value: &'static str) -> (Bytes, Bytes) {
        (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))
    }

    fn integer(text: &str) -> Option<Integer> {
        Integer::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn entries_are_lower_cased_sorted_and_unique() {
        let given = vec![pair("B_int", "10"), pair("b_INT", "9"), pair("a_bin", "x"), pair("b_int", "010")];
        assert_eq!(normalize(given).unwrap(), vec![pair("a_bin", "x"), pair("b_int", "9"), pair("b_int", "10")]);
        assert_eq!(&lower_case(b"A\xc3\xd7\xdf_BIN")[..], b"a\xe3\xd7\xdf_bin");
    }

    #[test]
    fn all_failures_are_reported_once_in_one_sorted_list() {
        let given =
            vec![pair("age", "1"), pair("age_int", "abc"), pair("age", "2"), pair("_bin", ""), pair("_int", "1")];
        let failures = normalize(given).unwrap_err().0;
        let parsing = IndexFailure::Parsing { name: "age_int".into(), value: "abc".into() };
        let unknown = |name: &'static str| IndexFailure::UnknownType { name: name.into() };
        assert_eq!(failures, vec![parsing, unknown("_bin"), unknown("_int"), unknown("age")]);
    }

    #[test]
    fn integers_are_signs_and_digits_and_nothing_else() {
        for (text, canonical) in [("0", "0"), ("-0", "0"), ("+7", "7"), ("-007", "-7"), ("000", "0")] {
            assert_eq!(integer(text).unwrap().text(), canonical, "{text}");
        }
        for text in ["", "-", "+", "+-1", "1.0", " 1", "1 ", "0x1", "\u{661}"] {
            assert_eq!(integer(text), None, "{text}");
        }
        assert!(integer(&"9".repeat(INTEGER_DIGITS_MAX)).is_some());
        assert!(integer(&"9".repeat(INTEGER_DIGITS_MAX + 1)).is_none());
        assert!(integer(&("0".repeat(INTEGER_DIGITS_MAX) + "9")).is_some());
    }

    #[test]
    fn the_built_in_indexes_are_ranges_of_keys() {
        let value = Bytes::from_static(b"k");
        let key = Bound::Included(value.clone());
        let exact = IndexRange::exact(b"$KEY", value.clone()).unwrap();
        assert_eq!(exact, IndexRange::Keys { from: key.clone(), to: key });
        assert_eq!(IndexRange::exact(b"$bucket", value).unwrap(), IndexRange::BUCKET);
    }

    #[test]
    fn a_range_needs_an_index_and_its_kind_of_bounds() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let between = |index: &str| IndexRange::between(index.as_bytes(), bytes("1"), bytes("x"));
        assert_eq!(between("foo").unwrap_err(), IndexFailure::UnknownType { name: bytes("foo") });
        let parsing = IndexFailure::Parsing { name: bytes("x_int"), value: bytes("x") };
        assert_eq!(between("X_int").unwrap_err(), parsing);
        assert_eq!(between("x_bin").unwrap().term_kind(), Some(TermKind::Binary));
    }

    #[test]
    fn what_is_written_down_of_built_in_indexes_is_in_no_index() {
        let pairs = [pair("$key", "fake"), pair("a_bin", "x")];
        let found: Vec<_> = entries(&pairs).collect();
        assert_eq!(found, [Entry { index: "a_bin".into(), term: Term::Binary("x".into()) }]);
    }

    proptest! {
        #[test]
        fn integers_sort_as_numbers(a in any::<i128>(), b in any::<i128>(), small in -20_i128..20) {
            for (a, b) in [(a, b), (a, small), (small, -small), (a, -a.saturating_add(1))] {
                let (x, y) = (integer(&a.to_string()).unwrap(), integer(&b.to_string()).unwrap());
                prop_assert_eq!(x.cmp(&y), a.cmp(&b), "{} {}", a, b);
            }
        }
    }
}
