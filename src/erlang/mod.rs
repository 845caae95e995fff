//! Job: Erlang terms, which Riak's protocol lets show: as values with Erlang's order, as external terms, and in print.
//! Knows: nothing but terms.
//! Must not know: what any term means to a request.

pub mod external;
pub mod print;

use std::cmp::Ordering;

use bytes::Bytes;

/// An Erlang value, of the kinds that can come in a request or be made from one. Integers beyond 128 bits, maps, bit
/// strings, functions and process identifiers are not among them.
#[derive(Clone, Debug)]
pub enum Term {
    /// A whole number.
    Integer(i128),
    /// A finite number.
    Float(f64),
    /// A name, in UTF-8.
    Atom(Bytes),
    /// A fixed number of terms.
    Tuple(Vec<Term>),
    /// A record that has a meaning inside the server only: it is ordered and printed as a tuple, and has no other form.
    Record(Vec<Term>),
    /// Any number of terms. A list of bytes is what Erlang calls a string.
    List(Vec<Term>),
    /// Bytes.
    Binary(Bytes),
}

/// Whether numbers that are equal count as equal when one is an integer and the other a float.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    ByValue,
    ByValueThenKind,
}

impl Term {
    /// The atom of a name.
    pub fn atom(name: &'static str) -> Self {
        Self::Atom(Bytes::from_static(name.as_bytes()))
    }

    /// A copy of the bytes as a binary.
    pub fn binary(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }

    /// A list of characters: what Erlang calls a string.
    pub fn characters(bytes: &[u8]) -> Self {
        Self::List(bytes.iter().map(|&byte| Self::Integer(byte.into())).collect())
    }

    /// Whether this is the atom of that name.
    pub fn is_atom(&self, name: &str) -> bool {
        matches!(self, Self::Atom(atom) if atom == name.as_bytes())
    }

    /// The bytes of a binary.
    pub fn as_binary(&self) -> Option<&Bytes> {
        match self {
            Self::Binary(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The bytes of a list of characters, where none is above 255.
    pub fn as_characters(&self) -> Option<Vec<u8>> {
        let Self::List(terms) = self else { return None };
        let character = |term: &Term| match term {
            Self::Integer(integer) => u8::try_from(*integer).ok(),
            _ => None,
        };
        terms.iter().map(character).collect()
    }

    /// About how much memory the term takes.
    pub fn size_bytes(&self) -> usize {
        let inside = match self {
            Self::Integer(_) | Self::Float(_) => 0,
            Self::Atom(bytes) | Self::Binary(bytes) => bytes.len(),
            Self::Tuple(terms) | Self::Record(terms) | Self::List(terms) => terms.iter().map(Self::size_bytes).sum(),
        };
        size_of::<Self>() + inside
    }

    /// Erlang's order of terms (`<`, `==`), in which 1 and 1.0 are equal.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.compare_with(other, Numbers::ByValue)
    }

    /// The same order with 1 before 1.0, so that equal is what Erlang calls exactly equal (`=:=`).
    pub fn compare_exactly(&self, other: &Self) -> Ordering {
        self.compare_with(other, Numbers::ByValueThenKind)
    }

    fn compare_with(&self, other: &Self, numbers: Numbers) -> Ordering {
        let kinds = match numbers {
            Numbers::ByValue => Ordering::Equal,
            Numbers::ByValueThenKind => Ordering::Less,
        };
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            // Floats are finite.
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Integer(a), Self::Float(b)) => compare_integer(*a, *b).then(kinds),
            (Self::Float(a), Self::Integer(b)) => compare_integer(*b, *a).then(kinds).reverse(),
            (Self::Atom(a), Self::Atom(b)) | (Self::Binary(a), Self::Binary(b)) => a.cmp(b),
            (Self::Tuple(a) | Self::Record(a), Self::Tuple(b) | Self::Record(b)) => {
                a.len().cmp(&b.len()).then_with(|| compare_each(a, b, numbers))
            }
            (Self::List(a), Self::List(b)) => compare_each(a, b, numbers),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Integer(_) | Self::Float(_) => 0,
            Self::Atom(_) => 1,
            Self::Tuple(_) | Self::Record(_) => 2,
            Self::List(_) => 3,
            Self::Binary(_) => 4,
        }
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.compare_exactly(other).is_eq()
    }
}

fn compare_each(a: &[Term], b: &[Term], numbers: Numbers) -> Ordering {
    let differs = a.iter().zip(b).map(|(a, b)| a.compare_with(b, numbers)).find(|order| order.is_ne());
    differs.unwrap_or_else(|| a.len().cmp(&b.len()))
}

fn compare_integer(integer: i128, float: f64) -> Ordering {
    // Converting saturates, so floats beyond the integers are told apart first. Both bounds are powers of two.
    if float >= i128::MAX as f64 {
        return Ordering::Less;
    }
    if float < i128::MIN as f64 {
        return Ordering::Greater;
    }
    let fraction = float.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal);
    integer.cmp(&(float.trunc() as i128)).then(fraction.reverse())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Terms that have an external form.
    pub(crate) fn terms() -> impl Strategy<Value = Term> {
        let leaf = prop_oneof![
            any::<i128>().prop_map(Term::Integer),
            any::<i16>().prop_map(|integer| Term::Integer(integer.into())),
            any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Term::Float),
            "[a-zA-Z_éあ]{0,8}".prop_map(|name| Term::Atom(name.into())),
            vec(any::<u8>(), 0..12).prop_map(|bytes| Term::Binary(bytes.into())),
            vec(any::<u8>(), 0..12).prop_map(|bytes| Term::characters(&bytes)),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![vec(inner.clone(), 0..6).prop_map(Term::List), vec(inner, 0..6).prop_map(Term::Tuple)]
        })
    }

    #[test]
    fn kinds_come_in_erlangs_order() {
        let order = [
            Term::Integer(-1),
            Term::Float(0.5),
            Term::Integer(1),
            Term::Integer(i128::MAX),
            Term::Float(1e300),
            Term::atom("a"),
            Term::atom("b"),
            Term::Tuple(vec![Term::Integer(9)]),
            Term::Tuple(vec![Term::Integer(1), Term::Integer(1)]),
            Term::List(vec![]),
            Term::List(vec![Term::Integer(1)]),
            Term::List(vec![Term::Integer(1), Term::Integer(0)]),
            Term::List(vec![Term::Integer(2)]),
            Term::binary(b""),
            Term::binary(b"a"),
        ];
        for (i, a) in order.iter().enumerate() {
            for (j, b) in order.iter().enumerate() {
                assert_eq!(a.compare(b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn one_equals_one_point_zero_but_not_exactly() {
        let (integer, float) = (Term::Integer(1), Term::Float(1.0));
        assert_eq!(integer.compare(&float), Ordering::Equal);
        assert_eq!(integer.compare_exactly(&float), Ordering::Less);
        assert_eq!(float.compare_exactly(&integer), Ordering::Greater);
        assert_ne!(integer, float);
        assert_eq!(Term::Integer(i128::MAX).compare(&Term::Float(i128::MAX as f64)), Ordering::Less);
        assert_eq!(Term::Integer(i128::MIN).compare(&Term::Float(-1e300)), Ordering::Greater);
        assert_eq!(Term::Integer(-2).compare(&Term::Float(-1.5)), Ordering::Less);
        assert_eq!(Term::Integer(-1).compare(&Term::Float(-1.5)), Ordering::Greater);
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in terms(), b in terms(), c in terms()) {
            prop_assert_eq!(a.compare_exactly(&b), b.compare_exactly(&a).reverse());
            prop_assert_eq!(a.compare(&b), b.compare(&a).reverse());
            if a.compare_exactly(&b).is_le() && b.compare_exactly(&c).is_le() {
                prop_assert!(a.compare_exactly(&c).is_le());
            }
        }
    }
}
