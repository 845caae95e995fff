//! The rows of a small object, which lie together inside its header: one read shows the object, one write changes it.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint};

use super::layout::RowId;
use super::view::{Range, View, Visitor};
use crate::store::StoreError;

/// The table and the id that the keys of spread rows begin with. Packed rows leave out the id, which the header knows.
const TABLE_BYTES: usize = 1;
const PREFIX_BYTES: usize = TABLE_BYTES + 16;

/// Rows in the order of their keys, which are those that the rows have when they are spread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PackedRows(Vec<(Bytes, Bytes)>);

impl PackedRows {
    pub(super) fn put(&mut self, key: Bytes, value: Bytes) {
        match self.position(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        if let Ok(at) = self.position(key) {
            self.0.remove(at);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// What the rows take inside a header, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let row = |(key, value): &(Bytes, Bytes)| {
            let suffix = key.len().saturating_sub(PREFIX_BYTES);
            TABLE_BYTES
                + prost::length_delimiter_len(suffix)
                + suffix
                + prost::length_delimiter_len(value.len())
                + value.len()
        };
        self.0.iter().map(row).sum()
    }

    /// The rows of a range.
    pub(super) fn range(&self, range: &Range) -> Vec<(Bytes, Bytes)> {
        let before = |(key, _): &(Bytes, Bytes)| match &range.start {
            Bound::Included(start) => key[..].cmp(start) == Ordering::Less,
            Bound::Excluded(start) => key[..].cmp(start) != Ordering::Greater,
            Bound::Unbounded => false,
        };
        let inside = |(key, _): &&(Bytes, Bytes)| match &range.end {
            Bound::Included(end) => key[..].cmp(end) != Ordering::Greater,
            Bound::Excluded(end) => key[..].cmp(end) == Ordering::Less,
            Bound::Unbounded => true,
        };
        self.0[self.0.partition_point(before)..].iter().take_while(inside).cloned().collect()
    }

    pub(super) fn into_rows(self) -> Vec<(Bytes, Bytes)> {
        self.0
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        for (key, value) in &self.0 {
            let (prefix, suffix) = key.split_at(PREFIX_BYTES.min(key.len()));
            out.put_slice(&prefix[..TABLE_BYTES]);
            encode_varint(suffix.len() as u64, out);
            out.put_slice(suffix);
            encode_varint(value.len() as u64, out);
            out.put_slice(value);
        }
    }

    /// Reads what [`encode`](Self::encode) wrote. `id_of` gives the id that the keys of a table have.
    pub(super) fn decode(packed: Bytes, id_of: impl Fn(u8) -> Option<RowId>) -> Result<Self, StoreError> {
        Self::try_decode(packed, id_of).ok_or(StoreError::Damaged { what: "packed rows" })
    }

    fn try_decode(mut packed: Bytes, id_of: impl Fn(u8) -> Option<RowId>) -> Option<Self> {
        // One buffer holds all the keys: what room they need is known when all lengths are.
        let (mut count, mut keys_bytes) = (0, 0);
        let mut rest = packed.clone();
        while rest.has_remaining() {
            rest.advance(TABLE_BYTES);
            keys_bytes += PREFIX_BYTES + skip_part(&mut rest)?;
            skip_part(&mut rest)?;
            count += 1;
        }
        let mut rows = Vec::with_capacity(count);
        let mut keys = BytesMut::with_capacity(keys_bytes);
        while packed.has_remaining() {
            let table = packed.get_u8();
            keys.put_u8(table);
            keys.put_slice(&id_of(table)?.0);
            keys.put_slice(&take_part(&mut packed)?);
            rows.push((keys.split().freeze(), take_part(&mut packed)?));
        }
        rows.is_sorted_by(|(a, _), (b, _)| a < b).then_some(Self(rows))
    }

    fn position(&self, key: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other[..].cmp(key))
    }
}

/// Passes a part; how long it is.
fn skip_part(packed: &mut Bytes) -> Option<usize> {
    let length = usize::try_from(decode_varint(packed).ok()?).ok().filter(|length| *length <= packed.len())?;
    packed.advance(length);
    Some(length)
}

fn take_part(packed: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(decode_varint(packed).ok()?).ok()?;
    (packed.len() >= length).then(|| packed.split_to(length))
}

impl View for PackedRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.position(key).ok().map(|at| self.0[at].1.clone()))
    }

    fn scan(&self, range: Range, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        for (key, value) in self.range(&range) {
            if visit(key, value)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    const ID: RowId = RowId([7; 16]);

    fn key(suffix: &[u8]) -> Bytes {
        [b"c", &ID.0[..], suffix].concat().into()
    }

    fn rows() -> PackedRows {
        let mut rows = PackedRows::default();
        for (suffix, value) in [(&b"b"[..], "2"), (b"", ""), (b"a", "1"), (&[0xff; 200], "3"), (b"b", "4")] {
            rows.put(key(suffix), Bytes::from_static(value.as_bytes()));
        }
        rows
    }

    fn encoded() -> Bytes {
        let mut out = BytesMut::new();
        rows().encode(&mut out);
        assert_eq!(out.len(), rows().size_bytes());
        out.freeze()
    }

    #[test]
    fn rows_come_back_in_the_order_of_their_keys() {
        let decoded = PackedRows::decode(encoded(), |_| Some(ID)).unwrap();
        assert_eq!(decoded, rows());
        assert_eq!(decoded.get(&key(b"b")), Ok(Some("4".into())));
        assert_eq!(decoded.get(&key(b"c")), Ok(None));
        let keys: Vec<_> = decoded.into_rows().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [key(b""), key(b"a"), key(b"b"), key(&[0xff; 200])]);
    }

    #[test]
    fn a_cut_or_strange_encoding_is_damage_and_no_panic() {
        for end in 1..encoded().len() {
            let cut = encoded().slice(..end);
            if let Ok(fewer) = PackedRows::decode(cut, |_| Some(ID)) {
                // Cut between two rows: the header's length tells.
                assert!(fewer.count() < rows().count());
            }
        }
        assert!(PackedRows::decode(encoded(), |_| None).is_err());
        let twice = [&encoded()[..], &encoded()[..]].concat();
        assert!(PackedRows::decode(twice.into(), |_| Some(ID)).is_err());
    }

    #[test]
    fn scans_keep_to_their_range() {
        let scanned = |range: Range| {
            let mut seen = Vec::new();
            rows()
                .scan(range, &mut |key, _| {
                    seen.push(key);
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
            seen
        };
        assert_eq!(scanned(Range::prefix(&key(b"b"))), [key(b"b")]);
        assert_eq!(scanned(Range::prefix(&key(b"")).after(&key(b"a"))), [key(b"b"), key(&[0xff; 200])]);
    }
}
