//! Continuations: where a page ended, in the bytes that Riak writes (`queries.md` §1.7). Clients keep them as they are, and
//! both of Riak's doors take those of the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use crate::domain::index::{INTEGER_DIGITS_MAX, Integer, Posting, Term};

// Tags of Erlang's external term format.
const VERSION: u8 = 131;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const SMALL_TUPLE: u8 = 104;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;
const LARGE_BIG: u8 = 111;

/// The token of a page that ended with this posting: a term and a key, or without a term the key alone.
pub(super) fn encode(last: &Posting) -> Bytes {
    let mut out = vec![VERSION];
    match &last.term {
        None => put_binary(&mut out, &last.key),
        Some(term) => {
            out.extend([SMALL_TUPLE, 2]);
            match term {
                Term::Binary(value) => put_binary(&mut out, value),
                Term::Integer(integer) => put_integer(&mut out, integer),
            }
            put_binary(&mut out, &last.key);
        }
    }
    BASE64.encode(out).into()
}

/// Reads a token; `None` where it is none.
pub(super) fn decode(token: &[u8]) -> Option<Posting> {
    let bytes = Bytes::from(BASE64.decode(token).ok()?);
    let rest = bytes.strip_prefix(&[VERSION])?;
    let (term, rest) = match rest.strip_prefix(&[SMALL_TUPLE, 2]) {
        None => (None, rest),
        Some(rest) => {
            let (term, rest) = match rest.first()? {
                &BINARY => take_binary(rest).map(|(value, rest)| (Term::Binary(value), rest))?,
                _ => take_integer(rest).map(|(integer, rest)| (Term::Integer(integer), rest))?,
            };
            (Some(term), rest)
        }
    };
    let (key, rest) = take_binary(rest)?;
    rest.is_empty().then_some(Posting { term, key })
}

fn put_binary(out: &mut Vec<u8>, binary: &[u8]) {
    out.push(BINARY);
    out.extend(u32::try_from(binary.len()).expect("names and terms fit a frame").to_be_bytes());
    out.extend_from_slice(binary);
}

fn take_binary(bytes: &[u8]) -> Option<(Bytes, &[u8])> {
    let (&length, rest) = bytes.strip_prefix(&[BINARY])?.split_first_chunk()?;
    let (binary, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(length)).ok()?)?;
    Some((Bytes::copy_from_slice(binary), rest))
}

fn put_integer(out: &mut Vec<u8>, integer: &Integer) {
    let text = std::str::from_utf8(integer.text()).unwrap_or_default();
    if let Ok(small) = text.parse::<u8>() {
        out.extend([SMALL_INTEGER, small]);
    } else if let Ok(number) = text.parse::<i32>() {
        out.push(INTEGER);
        out.extend(number.to_be_bytes());
    } else {
        let magnitude = binary_magnitude(integer.digits());
        match u8::try_from(magnitude.len()) {
            Ok(length) => out.extend([SMALL_BIG, length]),
            Err(_) => {
                out.push(LARGE_BIG);
                out.extend(u32::try_from(magnitude.len()).expect("integers have few digits").to_be_bytes());
            }
        }
        out.push(u8::from(integer.is_negative()));
        out.extend(magnitude);
    }
}

fn take_integer(bytes: &[u8]) -> Option<(Integer, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (length, rest) = match tag {
        SMALL_INTEGER => {
            let (number, rest) = rest.split_first()?;
            return Some((Integer::parse(&number.to_string().into())?, rest));
        }
        INTEGER => {
            let (&number, rest) = rest.split_first_chunk()?;
            return Some((Integer::parse(&i32::from_be_bytes(number).to_string().into())?, rest));
        }
        SMALL_BIG => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
        LARGE_BIG => {
            let (&length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_be_bytes(length)).ok()?, rest)
        }
        _ => return None,
    };
    let (sign, rest) = rest.split_first()?;
    let (magnitude, rest) = rest.split_at_checked(length)?;
    // No digit takes more than half a byte.
    if magnitude.len() > INTEGER_DIGITS_MAX / 2 {
        return None;
    }
    let mut text = decimal_digits(magnitude);
    if *sign != 0 {
        text.insert(0, b'-');
    }
    Some((Integer::parse(&text.into())?, rest))
}

/// The number that decimal digits write, in bytes, the least first and the greatest not zero.
fn binary_magnitude(digits: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for digit in digits {
        let mut carry = u32::from(digit - b'0');
        for byte in &mut bytes {
            carry += u32::from(*byte) * 10;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        if carry > 0 {
            // Below 10.
            bytes.push(carry as u8);
        }
    }
    bytes
}

/// The decimal digits of a number in bytes, the least first. It may begin with zeros.
fn decimal_digits(magnitude: &[u8]) -> Vec<u8> {
    let mut bytes = magnitude.to_vec();
    let mut digits = Vec::new();
    loop {
        let mut remainder = 0;
        for byte in bytes.iter_mut().rev() {
            let dividend = remainder << 8 | u32::from(*byte);
            // The quotient is below 256, because the remainder before it was below 10.
            *byte = (dividend / 10) as u8;
            remainder = dividend % 10;
        }
        digits.push(b'0' + remainder as u8);
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        if bytes.is_empty() {
            digits.reverse();
            return digits;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn integer(text: &str) -> Term {
        Term::Integer(Integer::parse(&Bytes::copy_from_slice(text.as_bytes())).unwrap())
    }

    #[test]
    fn tokens_are_those_of_riak() {
        let binary = |text: &'static str| Term::Binary(text.into());
        for (term, key, token) in [
            (None, "obj49", "g20AAAAFb2JqNDk="),
            (Some(binary("val1")), "obj01", "g2gCbQAAAAR2YWwxbQAAAAVvYmowMQ=="),
            (Some(integer("42")), "obj42", "g2gCYSptAAAABW9iajQy"),
            (Some(integer("-1")), "k", "g2gCYv////9tAAAAAWs="),
            (Some(integer("1362400142028")), "k", "g2gCbgYAzGJgNT0BbQAAAAFr"),
        ] {
            let posting = Posting { term, key: key.into() };
            assert_eq!(encode(&posting), token);
            assert_eq!(decode(token.as_bytes()), Some(posting));
        }
    }

    #[test]
    fn the_longest_integers_come_back() {
        for text in ["9".repeat(INTEGER_DIGITS_MAX), format!("-1{}", "0".repeat(INTEGER_DIGITS_MAX - 1))] {
            let posting = Posting { term: Some(integer(&text)), key: Bytes::new() };
            assert_eq!(decode(&encode(&posting)), Some(posting));
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        let large = [&[VERSION, SMALL_TUPLE, 2, LARGE_BIG, 0, 0, 16, 0, 0], &[0xff; 4096][..], &[BINARY, 0, 0, 0, 0]];
        for bytes in [
            &b""[..],
            &[VERSION],
            &[VERSION, SMALL_INTEGER, 7],
            &[VERSION, SMALL_TUPLE, 3],
            &[VERSION, BINARY, 0xff, 0xff, 0xff, 0xff, 1],
            &[VERSION, BINARY, 0, 0, 0, 0, 1],
            &large.concat(),
        ] {
            assert_eq!(decode(BASE64.encode(bytes).as_bytes()), None, "{bytes:?}");
        }
        assert_eq!(decode(b"###"), None);
    }

    proptest! {
        #[test]
        fn tokens_come_back(
            term in prop_oneof![
                Just(None),
                proptest::collection::vec(any::<u8>(), 0..9).prop_map(|value| Some(Term::Binary(value.into()))),
                any::<i128>().prop_map(|number| Some(integer(&number.to_string()))),
                any::<i16>().prop_map(|number| Some(integer(&number.to_string()))),
                "-?[0-9]{1,700}".prop_map(|text| Some(integer(&text))),
            ],
            key in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let posting = Posting { term, key: key.into() };
            prop_assert_eq!(decode(&encode(&posting)), Some(posting));
        }

        #[test]
        fn strange_tokens_are_none_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let _ = decode(&bytes);
            let _ = decode(BASE64.encode([&[VERSION, SMALL_TUPLE, 2], &bytes[..]].concat()).as_bytes());
        }
    }
}
