//! How a map's delta is spelled in the commit log.

use bytes::{Buf, BufMut, Bytes};

use super::maps::{put_digest, put_entry, put_numbers, take_digest, take_entry, take_numbers, take_partitions};
use crate::domain::map::{MapKey, MapName, Partition};
use crate::store::StoreError;
use crate::store::maps::MapDelta;

/// A delta as one run of bytes: lengths of four bytes stand before what has one, and what is longer is refused.
pub(super) fn encode_delta(delta: &MapDelta, out: &mut impl BufMut) -> Result<(), StoreError> {
    out.put_u32(delta.partition.number());
    out.put_u32(delta.partitions.count());
    put_numbers(out, &delta.numbers);
    out.put_u64(delta.written_ms);
    put_length(out, delta.entries.len())?;
    for (key, entry) in &delta.entries {
        put_key(out, key)?;
        // Mark and digest.
        put_length(out, 17 + entry.value.as_ref().map_or(0, Bytes::len))?;
        put_entry(out, entry);
    }
    put_length(out, delta.forgotten.len())?;
    for (key, digest) in &delta.forgotten {
        put_key(out, key)?;
        put_digest(out, *digest);
    }
    Ok(())
}

/// Reads what [`encode_delta`] wrote, to the last byte.
pub(super) fn decode_delta(bytes: Bytes) -> Result<MapDelta, StoreError> {
    try_decode_delta(bytes).ok_or(StoreError::Damaged { what: "map delta" })
}

fn try_decode_delta(mut bytes: Bytes) -> Option<MapDelta> {
    let partition = Partition::of_number(bytes.try_get_u32().ok()?)?;
    let partitions = take_partitions(&mut bytes)?;
    let numbers = take_numbers(&mut bytes)?;
    let written_ms = bytes.try_get_u64().ok()?;
    let (mut entries, mut forgotten) = (Vec::new(), Vec::new());
    // A damaged count takes no memory: the vectors grow with what is there.
    for _ in 0..bytes.try_get_u32().ok()? {
        let key = take_key(&mut bytes)?;
        entries.push((key, take_entry(take_bytes(&mut bytes)?)?));
    }
    for _ in 0..bytes.try_get_u32().ok()? {
        let key = take_key(&mut bytes)?;
        forgotten.push((key, take_digest(&mut bytes)?));
    }
    bytes.is_empty().then_some(MapDelta { partition, partitions, numbers, written_ms, entries, forgotten })
}

fn put_key(out: &mut impl BufMut, key: &MapKey) -> Result<(), StoreError> {
    for part in key.map.parts().into_iter().chain([&key.key]) {
        put_length(out, part.len())?;
        out.put_slice(part);
    }
    Ok(())
}

fn take_key(bytes: &mut Bytes) -> Option<MapKey> {
    let map = MapName {
        protocol_namespace: take_bytes(bytes)?,
        protocol_name: take_bytes(bytes)?,
        primitive_namespace: take_bytes(bytes)?,
        primitive_name: take_bytes(bytes)?,
    };
    Some(MapKey { map, key: take_bytes(bytes)? })
}

fn put_length(out: &mut impl BufMut, length: usize) -> Result<(), StoreError> {
    let too_large = StoreError::TooLarge { size_bytes_max: u32::MAX as usize };
    out.put_u32(u32::try_from(length).map_err(|_| too_large)?);
    Ok(())
}

fn take_bytes(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32().ok()? as usize;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::maps::tests::{digest, entry, key, numbers};
    use bytes::BytesMut;

    use super::*;
    use crate::domain::map::Partitions;

    fn delta() -> impl Strategy<Value = MapDelta> {
        let entries = proptest::collection::vec((key(), entry()), 0..4);
        let forgotten = proptest::collection::vec((key(), digest()), 0..4);
        (1_u32.., 1_u32.., numbers(), any::<u64>(), entries, forgotten).prop_map(
            |(partition, partitions, numbers, written_ms, entries, forgotten)| MapDelta {
                partition: Partition::of_number(partition).unwrap(),
                partitions: Partitions::new(partitions.try_into().unwrap()),
                numbers,
                written_ms,
                entries,
                forgotten,
            },
        )
    }

    proptest! {
        #[test]
        fn deltas_come_back_and_cut_short_they_are_damage(delta in delta()) {
            let mut out = BytesMut::new();
            encode_delta(&delta, &mut out).unwrap();
            let bytes = out.freeze();
            prop_assert!((0..bytes.len()).all(|end| decode_delta(bytes.slice(..end)).is_err()));
            prop_assert_eq!(decode_delta(bytes).unwrap(), delta);
        }

        #[test]
        fn garbage_is_no_delta(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_delta(garbage.into());
        }
    }

    #[test]
    fn a_length_that_cannot_be_spelled_is_refused() {
        let mut out = BytesMut::new();
        put_length(&mut out, u32::MAX as usize).unwrap();
        let too_large = StoreError::TooLarge { size_bytes_max: u32::MAX as usize };
        assert_eq!(put_length(&mut out, u32::MAX as usize + 1), Err(too_large));
        assert_eq!(out.len(), 4);
    }
}
