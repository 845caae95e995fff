//! The external term format: the bytes in which Erlang clients send terms and get them.
//!
//! What is read comes from outside: nesting and the number of terms are bounded before anything is allocated, and what
//! the server has no use for (compressed terms, functions, processes, maps) is refused by its tag.

use bytes::Bytes;
use thiserror::Error;

use super::Term;

/// The first byte of every external term.
const VERSION: u8 = 131;

const NEW_FLOAT: u8 = 70;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const FLOAT: u8 = 99;
const ATOM: u8 = 100;
const SMALL_TUPLE: u8 = 104;
const LARGE_TUPLE: u8 = 105;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;
const LARGE_BIG: u8 = 111;
const SMALL_ATOM: u8 = 115;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;

/// A float in its old form: text, padded with zeros.
const FLOAT_TEXT_BYTES: usize = 31;
/// The longest name of an atom, in characters.
const ATOM_CHARACTERS_MAX: usize = 255;

/// Bounds on a term that comes from outside.
#[derive(Clone, Copy, Debug)]
pub struct TermLimits {
    /// How many lists and tuples may be inside each other.
    pub depth_max: usize,
    /// How many terms there may be, those inside others counted.
    pub terms_max: usize,
}

/// Why bytes are no term that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes do not begin as an external term does.
    #[error("not an external term")]
    NotATerm,
    /// The bytes end inside the term.
    #[error("the external term is cut off at byte {offset}")]
    Truncated {
        /// Where more was needed.
        offset: usize,
    },
    /// There are bytes behind the term.
    #[error("the external term has bytes behind it from byte {offset}")]
    Trailing {
        /// Where they begin.
        offset: usize,
    },
    /// A kind of term that is not taken.
    #[error("terms with tag {tag} are not supported (byte {offset})")]
    Unsupported {
        /// The kind's tag.
        tag: u8,
        /// Where it stands.
        offset: usize,
    },
    /// A part that says something impossible.
    #[error("the external term is malformed at byte {offset}")]
    Malformed {
        /// Where.
        offset: usize,
    },
    /// The term is too deep or has too many parts.
    #[error("the external term is too deep or too large (byte {offset})")]
    TooLarge {
        /// Where the limit was reached.
        offset: usize,
    },
}

/// Why a term has no external form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// It holds a record that means something inside the server only.
    #[error("a record of the server has no external form")]
    Record,
    /// A part is longer than the format can say.
    #[error("a part of the term is too long for the external format")]
    TooLong,
}

/// Reads a term that takes all of the bytes. Binaries stay slices of them.
pub fn decode(bytes: &Bytes, limits: TermLimits) -> Result<Term, DecodeError> {
    let mut reader = Reader { bytes, offset: 0, terms_left: limits.terms_max };
    if reader.byte() != Ok(VERSION) {
        return Err(DecodeError::NotATerm);
    }
    reader.count(1)?;
    let term = reader.term(limits.depth_max)?;
    if reader.offset < bytes.len() {
        return Err(DecodeError::Trailing { offset: reader.offset });
    }
    Ok(term)
}

struct Reader<'a> {
    bytes: &'a Bytes,
    offset: usize,
    terms_left: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<Bytes, DecodeError> {
        if count > self.bytes.len() - self.offset {
            return Err(DecodeError::Truncated { offset: self.bytes.len() });
        }
        let start = self.offset;
        self.offset += count;
        Ok(self.bytes.slice(start..self.offset))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn length_u8(&mut self) -> Result<usize, DecodeError> {
        Ok(self.byte()?.into())
    }

    fn length_u16(&mut self) -> Result<usize, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn length_u32(&mut self) -> Result<usize, DecodeError> {
        let offset = self.offset;
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| DecodeError::TooLarge { offset })
    }

    /// Counts terms when they are announced, before they are made.
    fn count(&mut self, terms: usize) -> Result<(), DecodeError> {
        let left = self.terms_left.checked_sub(terms);
        self.terms_left = left.ok_or(DecodeError::TooLarge { offset: self.offset })?;
        Ok(())
    }

    /// Reads a term that has been counted.
    fn term(&mut self, depth_left: usize) -> Result<Term, DecodeError> {
        let offset = self.offset;
        let tag = self.byte()?;
        match tag {
            SMALL_INTEGER => Ok(Term::Integer(self.byte()?.into())),
            INTEGER => Ok(Term::Integer(i32::from_be_bytes(self.array()?).into())),
            SMALL_BIG => {
                let length = self.length_u8()?;
                self.big(length)
            }
            LARGE_BIG => {
                let length = self.length_u32()?;
                self.big(length)
            }
            NEW_FLOAT => finite(f64::from_be_bytes(self.array()?), offset),
            FLOAT => {
                let text = self.take(FLOAT_TEXT_BYTES)?;
                let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
                let float = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
                finite(float.unwrap_or(f64::NAN), offset)
            }
            ATOM | SMALL_ATOM => {
                let length = if tag == ATOM { self.length_u16()? } else { self.length_u8()? };
                // One byte is one character, as in Latin-1.
                let name: String = self.take(length)?.iter().map(|&byte| char::from(byte)).collect();
                atom(name.into(), offset)
            }
            ATOM_UTF8 | SMALL_ATOM_UTF8 => {
                let length = if tag == ATOM_UTF8 { self.length_u16()? } else { self.length_u8()? };
                atom(self.take(length)?, offset)
            }
            SMALL_TUPLE => {
                let length = self.length_u8()?;
                Ok(Term::Tuple(self.terms(length, depth_left)?))
            }
            LARGE_TUPLE => {
                let length = self.length_u32()?;
                Ok(Term::Tuple(self.terms(length, depth_left)?))
            }
            NIL => Ok(Term::List(Vec::new())),
            STRING => {
                let length = self.length_u16()?;
                self.count(length)?;
                Ok(Term::characters(&self.take(length)?))
            }
            LIST => {
                let length = self.length_u32()?;
                let terms = self.terms(length, depth_left)?;
                let offset = self.offset;
                if self.byte()? == NIL { Ok(Term::List(terms)) } else { Err(DecodeError::Malformed { offset }) }
            }
            BINARY => {
                let length = self.length_u32()?;
                Ok(Term::Binary(self.take(length)?))
            }
            _ => Err(DecodeError::Unsupported { tag, offset }),
        }
    }

    fn terms(&mut self, length: usize, depth_left: usize) -> Result<Vec<Term>, DecodeError> {
        let offset = self.offset;
        let depth_left = depth_left.checked_sub(1).ok_or(DecodeError::TooLarge { offset })?;
        // Every term takes a byte or more, so a length beyond the bytes is not believed.
        if length > self.bytes.len() - offset {
            return Err(DecodeError::Truncated { offset: self.bytes.len() });
        }
        // All of them, lest each list inside another announce the same bytes again, and room be made for them each time.
        self.count(length)?;
        let mut terms = Vec::with_capacity(length);
        for _ in 0..length {
            terms.push(self.term(depth_left)?);
        }
        Ok(terms)
    }

    fn big(&mut self, length: usize) -> Result<Term, DecodeError> {
        let offset = self.offset;
        let is_negative = match self.byte()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Malformed { offset }),
        };
        let digits = self.take(length)?;
        let mut magnitude: u128 = 0;
        for &digit in digits.iter().rev() {
            let shifted = magnitude.checked_mul(256).ok_or(DecodeError::TooLarge { offset })?;
            magnitude = shifted | u128::from(digit);
        }
        let integer = match is_negative {
            false => i128::try_from(magnitude).ok(),
            true => 0i128.checked_sub_unsigned(magnitude),
        };
        integer.map(Term::Integer).ok_or(DecodeError::TooLarge { offset })
    }
}

fn finite(float: f64, offset: usize) -> Result<Term, DecodeError> {
    if float.is_finite() { Ok(Term::Float(float)) } else { Err(DecodeError::Malformed { offset }) }
}

fn atom(name: Bytes, offset: usize) -> Result<Term, DecodeError> {
    match std::str::from_utf8(&name) {
        Ok(text) if text.chars().count() <= ATOM_CHARACTERS_MAX => Ok(Term::Atom(name)),
        _ => Err(DecodeError::Malformed { offset }),
    }
}

/// The bytes of a list with these terms, as Riak's Erlang writes them.
pub fn encode_list(terms: &[Term]) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![VERSION];
    write_list(terms, &mut out)?;
    Ok(out)
}

fn write(term: &Term, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match term {
        Term::Integer(integer) => write_integer(*integer, out),
        Term::Float(float) => {
            out.push(NEW_FLOAT);
            out.extend(float.to_be_bytes());
        }
        Term::Atom(name) => write_atom(name, out)?,
        Term::Tuple(terms) => {
            match u8::try_from(terms.len()) {
                Ok(length) => out.extend([SMALL_TUPLE, length]),
                Err(_) => {
                    out.push(LARGE_TUPLE);
                    out.extend(length(terms.len())?);
                }
            }
            terms.iter().try_for_each(|term| write(term, out))?;
        }
        Term::List(terms) => write_list(terms, out)?,
        Term::Binary(bytes) => {
            out.push(BINARY);
            out.extend(length(bytes.len())?);
            out.extend_from_slice(bytes);
        }
        Term::Record(_) => return Err(EncodeError::Record),
    }
    Ok(())
}

fn write_list(terms: &[Term], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if terms.is_empty() {
        out.push(NIL);
        return Ok(());
    }
    if let Ok(length) = u16::try_from(terms.len()) {
        let byte = |term: &Term| match term {
            Term::Integer(integer) => u8::try_from(*integer).ok(),
            _ => None,
        };
        if let Some(bytes) = terms.iter().map(byte).collect::<Option<Vec<u8>>>() {
            out.push(STRING);
            out.extend(length.to_be_bytes());
            out.extend(bytes);
            return Ok(());
        }
    }
    out.push(LIST);
    out.extend(length(terms.len())?);
    terms.iter().try_for_each(|term| write(term, out))?;
    out.push(NIL);
    Ok(())
}

fn write_integer(integer: i128, out: &mut Vec<u8>) {
    if let Ok(byte) = u8::try_from(integer) {
        out.extend([SMALL_INTEGER, byte]);
    } else if let Ok(small) = i32::try_from(integer) {
        out.push(INTEGER);
        out.extend(small.to_be_bytes());
    } else {
        let digits = integer.unsigned_abs().to_le_bytes();
        let length = digits.iter().rposition(|&digit| digit != 0).map_or(1, |last| last + 1);
        // At most 16 digits.
        out.extend([SMALL_BIG, length as u8, u8::from(integer < 0)]);
        out.extend_from_slice(&digits[..length]);
    }
}

fn write_atom(name: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    // Names that Latin-1 has are sent in it: clients older than UTF-8 atoms read no other form.
    let latin1: Option<Vec<u8>> =
        std::str::from_utf8(name).ok().and_then(|text| text.chars().map(|c| u8::try_from(c).ok()).collect());
    let (tag, bytes) = match latin1 {
        Some(bytes) => (ATOM, bytes),
        None => (ATOM_UTF8, name.to_vec()),
    };
    let length = u16::try_from(bytes.len()).map_err(|_| EncodeError::TooLong)?;
    out.push(tag);
    out.extend(length.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

fn length(length: usize) -> Result<[u8; 4], EncodeError> {
    u32::try_from(length).map(u32::to_be_bytes).map_err(|_| EncodeError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erlang::tests::terms;
    use proptest::prelude::*;

    const LIMITS: TermLimits = TermLimits { depth_max: 32, terms_max: 10_000 };

    fn read(bytes: &[u8]) -> Result<Term, DecodeError> {
        decode(&Bytes::copy_from_slice(bytes), LIMITS)
    }

    #[test]
    fn the_forms_of_old_clients_are_read() {
        let cases: [(&[u8], Term); 8] = [
            (&[131, 100, 0, 2, b'o', b'k'], Term::atom("ok")),
            (&[131, 115, 2, b'o', 0xe9], Term::Atom("oé".into())),
            (&[131, 119, 3, b'o', 0xc3, 0xa9], Term::Atom("oé".into())),
            (&[131, 107, 0, 1, 3], Term::List(vec![Term::Integer(3)])),
            (&[131, 98, 255, 255, 255, 255], Term::Integer(-1)),
            (&[131, 110, 2, 1, 0, 1], Term::Integer(-256)),
            (&[131, 111, 0, 0, 0, 1, 0, 7], Term::Integer(7)),
            (b"\x83c1.50000000000000000000e+00\0\0\0\0\0", Term::Float(1.5)),
        ];
        for (bytes, term) in cases {
            assert_eq!(read(bytes), Ok(term), "{bytes:?}");
        }
    }

    #[test]
    fn what_riak_writes_is_written() {
        assert_eq!(encode_list(&[Term::Integer(3)]).unwrap(), [131, 107, 0, 1, 3]);
        assert_eq!(encode_list(&[Term::binary(b"0")]).unwrap(), [131, 108, 0, 0, 0, 1, 109, 0, 0, 0, 1, b'0', 106]);
        assert_eq!(encode_list(&[]).unwrap(), [131, 106]);
        assert_eq!(encode_list(&[Term::Record(vec![])]), Err(EncodeError::Record));
    }

    #[test]
    fn what_is_not_taken_is_refused() {
        assert_eq!(read(b""), Err(DecodeError::NotATerm));
        assert_eq!(read(b"no term"), Err(DecodeError::NotATerm));
        assert_eq!(read(&[131, 106, 0]), Err(DecodeError::Trailing { offset: 2 }));
        assert_eq!(read(&[131, 80, 0]), Err(DecodeError::Unsupported { tag: 80, offset: 1 }));
        assert_eq!(read(&[131, 108, 0, 0, 0, 1, 106, 97, 1]), Err(DecodeError::Malformed { offset: 7 }));
        assert_eq!(read(&[131, 70, 127, 240, 0, 0, 0, 0, 0, 0]), Err(DecodeError::Malformed { offset: 1 }));
        let big = [&[131, 110, 17, 0][..], &[1; 17]].concat();
        assert_eq!(read(&big), Err(DecodeError::TooLarge { offset: 3 }));
    }

    #[test]
    fn depth_and_size_are_bounded_before_memory_is_taken() {
        let nested = |depth: usize| [&[131][..], &[104, 1].repeat(depth), &[106]].concat();
        assert!(read(&nested(LIMITS.depth_max)).is_ok());
        assert!(matches!(read(&nested(LIMITS.depth_max + 1)), Err(DecodeError::TooLarge { .. })));
        assert!(matches!(read(&nested(1_000_000)), Err(DecodeError::TooLarge { .. })));
        assert!(matches!(read(&[131, 108, 255, 255, 255, 255, 106]), Err(DecodeError::Truncated { .. })));
        let wide = [&[131, 105, 0, 0, 0x27, 0x10][..], &[106; 10_000]].concat();
        assert!(matches!(read(&wide), Err(DecodeError::TooLarge { .. })));
        let string = [&[131, 107, 0x27, 0x10][..], &[1; 10_000]].concat();
        assert!(matches!(read(&string), Err(DecodeError::TooLarge { .. })));
    }

    #[test]
    fn lists_inside_each_other_do_not_announce_the_same_terms_again() {
        let list_of_4000 = [108, 0, 0, 0x0f, 0xa0];
        let bytes = [&[131][..], &list_of_4000.repeat(30), &[106; 10_000]].concat();
        assert_eq!(read(&bytes), Err(DecodeError::TooLarge { offset: 16 }));
    }

    proptest! {
        #[test]
        fn terms_come_back(terms in prop::collection::vec(terms(), 0..6)) {
            let bytes = Bytes::from(encode_list(&terms).unwrap());
            prop_assert_eq!(decode(&bytes, LIMITS), Ok(Term::List(terms)));
        }

        #[test]
        fn a_term_cut_off_anywhere_is_an_error(terms in prop::collection::vec(terms(), 0..4)) {
            let bytes = Bytes::from(encode_list(&terms).unwrap());
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes.slice(..end), LIMITS).is_err());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&[&[131][..], &bytes].concat());
        }
    }
}
