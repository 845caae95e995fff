//! Maps as rows: how a delta becomes row changes, how rows are read, and how both are spelled.
//!
//! A key has one row, whose value says where it stands in the order of changes and, if it was removed, since when: with that
//! the rows which point at it are found again when it changes.

use std::ops::{Bound, ControlFlow};

use bytes::{Buf, BufMut, Bytes};

use super::batch::Batch;
use super::layout;
use super::record;
use super::rows::Rows;
use super::view::{Range, View};
use crate::domain::map::{Digest, Entry, MapKey, Numbers, Partition, Partitions};
use crate::store::maps::{Change, KeyPage, KeyState, MapDelta, PageLimits, PartitionState, Tombstone};
use crate::store::{Horizon, StoreError};

/// Turns a delta into row changes. What is stored already, or has been replaced, changes nothing: a delta may come again.
pub(super) fn apply(batch: &mut Batch, delta: &MapDelta) -> Result<(), StoreError> {
    apply_but(batch, delta, &mut |_, damage| Err(damage))
}

/// Turns a delta into row changes, but for keys whose rows are damaged where `leave_out` takes them.
pub(super) fn apply_but(
    batch: &mut Batch,
    delta: &MapDelta,
    leave_out: &mut dyn FnMut(&MapKey, StoreError) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let partition = delta.partition;
    let stored = state(batch, partition)?;
    let mut keys = stored.map_or(0, |state| state.keys);
    for (position, key, entry) in delta.positioned() {
        let row = layout::map_entry(partition, key);
        let before = match stored_entry(batch, &row.row) {
            Err(damage @ StoreError::Damaged { .. }) => {
                leave_out(key, damage)?;
                continue;
            }
            before => before?,
        };
        if !entry.replaces(before.as_ref().map(|before| &before.entry)) {
            continue;
        }
        match before {
            Some(before) => before.delete_pointers(batch, partition),
            None => keys += 1,
        }
        let after = StoredEntry { entry: entry.clone(), position, written_ms: delta.written_ms };
        batch.put(row.row.clone(), after.encode(&row));
        let pointer = encode_pointer(row.whole.as_ref().unwrap_or(&row.row));
        batch.put(layout::map_change(partition, position), pointer.clone());
        if entry.value.is_none() {
            batch.put(layout::map_tombstone(partition, delta.written_ms, position), pointer);
        }
    }
    for (key, digest) in &delta.forgotten {
        let row = layout::map_entry(partition, key).row;
        let before = match stored_entry(batch, &row) {
            Err(damage @ StoreError::Damaged { .. }) => {
                leave_out(key, damage)?;
                continue;
            }
            before => before?,
        };
        if let Some(before) = before
            && before.entry == (Entry { digest: *digest, value: None })
        {
            before.delete_pointers(batch, partition);
            batch.delete(row);
            keys = keys.saturating_sub(1);
        }
    }
    let numbers = match stored {
        // It comes again, after later ones.
        Some(state) if state.numbers.position > delta.numbers.position => state.numbers,
        _ => delta.numbers,
    };
    let state = PartitionState { partition, partitions: delta.partitions, numbers, keys };
    batch.put(layout::map_numbers(partition), encode_state(&state));
    Ok(())
}

impl Rows {
    pub(super) fn map_partitions(&self) -> Result<Vec<PartitionState>, StoreError> {
        let mut states = Vec::new();
        self.view().scan(Range::prefix(layout::all_map_numbers()), &mut |row, value| {
            states.push(decode_state(&row, value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(states)
    }

    pub(super) fn map_entry(
        &self,
        partition: Partition,
        key: &MapKey,
        horizon: &Horizon,
    ) -> Result<Option<Entry>, StoreError> {
        let stored = self.seen_by(horizon, |view| stored_entry(view, &layout::map_entry(partition, key).row))?;
        Ok(stored.map(|stored| stored.entry))
    }

    pub(super) fn map_changes(
        &self,
        partition: Partition,
        after: u64,
        limits: PageLimits,
        horizon: &Horizon,
    ) -> Result<Vec<Change>, StoreError> {
        let range = Range::prefix(&layout::map_order(partition)).after(&layout::map_change(partition, after));
        let (mut changes, mut size_bytes) = (Vec::new(), 0);
        let mut visit = |view: &dyn View, row: Bytes, pointer| {
            let position = layout::parse_map_change(&row)?;
            let key = decode_pointer(&row, pointer)?;
            let dangling = StoreError::Damaged { what: "map change" };
            let stored = stored_entry(view, &layout::map_entry(partition, &key).row)?.ok_or(dangling)?;
            size_bytes += key.key.len() + stored.entry.value.as_ref().map_or(0, Bytes::len);
            changes.push(Change { position, key, entry: stored.entry });
            let full = changes.len() >= limits.entries_max || size_bytes >= limits.size_bytes_max;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        self.seen_by(horizon, |view| view.scan(range, &mut |row, pointer| visit(view, row, pointer)))?;
        Ok(changes)
    }

    pub(super) fn map_keys(
        &self,
        partition: Partition,
        after: &Bytes,
        limits: PageLimits,
        horizon: &Horizon,
    ) -> Result<KeyPage, StoreError> {
        let (mut page, mut size_bytes) = (KeyPage::default(), 0);
        let prefix = layout::map_entries(partition);
        let mut range = Range::prefix(&prefix);
        // What a peer hands back is no way into other tables.
        if after.starts_with(&prefix) {
            range.start = Bound::Excluded(after.to_vec());
        }
        let mut visit = |row: Bytes, value| {
            let (key, value) = record::open(&row, value)?;
            let entry = StoredEntry::decode(value)?.entry;
            let key = layout::parse_map_entry(&key)?;
            let state = KeyState { key, digest: entry.digest, removed: entry.value.is_none() };
            size_bytes += state.size_bytes();
            page.keys.push(state);
            if page.keys.len() < limits.entries_max && size_bytes < limits.size_bytes_max {
                return Ok(ControlFlow::Continue(()));
            }
            page.next = row;
            Ok(ControlFlow::Break(()))
        };
        self.seen_by(horizon, |view| view.scan(range, &mut visit))?;
        Ok(page)
    }

    pub(super) fn map_tombstones(
        &self,
        partition: Partition,
        removed_before_ms: u64,
        limit: usize,
    ) -> Result<Vec<Tombstone>, StoreError> {
        let view = self.view();
        let mut range = Range::prefix(&layout::map_tombstones(partition));
        range.end = Bound::Excluded(layout::map_tombstone(partition, removed_before_ms, 0).to_vec());
        let mut found = Vec::new();
        view.scan(range, &mut |row, pointer| {
            let key = decode_pointer(&row, pointer)?;
            let dangling = StoreError::Damaged { what: "map tombstone" };
            let stored = stored_entry(&view, &layout::map_entry(partition, &key).row)?.ok_or(dangling)?;
            found.push(Tombstone { key, digest: stored.entry.digest, position: stored.position });
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }
}

fn stored_entry(view: &dyn View, row: &Bytes) -> Result<Option<StoredEntry>, StoreError> {
    let Some(value) = view.get(row)? else { return Ok(None) };
    StoredEntry::decode(record::open(row, value)?.1).map(Some)
}

fn state(view: &dyn View, partition: Partition) -> Result<Option<PartitionState>, StoreError> {
    let row = layout::map_numbers(partition);
    view.get(&row)?.map(|value| decode_state(&row, value)).transpose()
}

/// The value of a key's row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StoredEntry {
    entry: Entry,
    position: u64,
    written_ms: u64,
}

const REMOVED: u8 = 1;

impl StoredEntry {
    fn delete_pointers(&self, batch: &mut Batch, partition: Partition) {
        batch.delete(layout::map_change(partition, self.position));
        if self.entry.value.is_none() {
            batch.delete(layout::map_tombstone(partition, self.written_ms, self.position));
        }
    }

    fn encode(&self, key: &layout::RowKey) -> Bytes {
        let value = self.entry.value.as_ref();
        let mut out = record::begin(Some(key), 33 + value.map_or(0, Bytes::len));
        out.put_u64(self.position);
        out.put_u64(self.written_ms);
        put_entry(&mut out, &self.entry);
        out.freeze()
    }

    /// Reads what follows the version.
    fn decode(value: Bytes) -> Result<Self, StoreError> {
        Self::try_decode(value).ok_or(StoreError::Damaged { what: "map entry" })
    }

    fn try_decode(mut value: Bytes) -> Option<Self> {
        let position = value.try_get_u64().ok()?;
        let written_ms = value.try_get_u64().ok()?;
        Some(Self { entry: take_entry(value)?, position, written_ms })
    }
}

/// Mark, digest, and the value to the end.
pub(super) fn put_entry(out: &mut impl BufMut, entry: &Entry) {
    out.put_u8(if entry.value.is_none() { REMOVED } else { 0 });
    put_digest(out, entry.digest);
    out.put_slice(entry.value.as_deref().unwrap_or_default());
}

pub(super) fn take_entry(mut bytes: Bytes) -> Option<Entry> {
    let mark = bytes.try_get_u8().ok()?;
    let digest = take_digest(&mut bytes)?;
    let value = match mark {
        0 => Some(bytes),
        REMOVED if bytes.is_empty() => None,
        _ => return None,
    };
    Some(Entry { digest, value })
}

pub(super) fn put_digest(out: &mut impl BufMut, digest: Digest) {
    out.put_u64(digest.term);
    out.put_u64(digest.timestamp);
}

pub(super) fn take_digest(bytes: &mut Bytes) -> Option<Digest> {
    Some(Digest { term: bytes.try_get_u64().ok()?, timestamp: bytes.try_get_u64().ok()? })
}

/// The value of a row that points at a key: the whole key of that key's row.
fn encode_pointer(whole: &Bytes) -> Bytes {
    let mut out = record::begin(None, whole.len());
    out.put_slice(whole);
    out.freeze()
}

fn decode_pointer(row: &Bytes, value: Bytes) -> Result<MapKey, StoreError> {
    layout::parse_map_entry(&record::open(row, value)?.1)
}

fn encode_state(state: &PartitionState) -> Bytes {
    let mut out = record::begin(None, 45);
    out.put_u32(state.partitions.count());
    put_numbers(&mut out, &state.numbers);
    out.put_u64(state.keys);
    out.freeze()
}

fn decode_state(row: &Bytes, value: Bytes) -> Result<PartitionState, StoreError> {
    let partition = layout::parse_map_numbers(row)?;
    let (_, mut value) = record::open(row, value)?;
    let mut decode = || {
        let partitions = take_partitions(&mut value)?;
        let numbers = take_numbers(&mut value)?;
        let keys = value.try_get_u64().ok()?;
        value.is_empty().then_some(PartitionState { partition, partitions, numbers, keys })
    };
    decode().ok_or(StoreError::Damaged { what: "map numbers" })
}

pub(super) fn put_numbers(out: &mut impl BufMut, numbers: &Numbers) {
    let Numbers { term, timestamp, follows, fence, position } = *numbers;
    [term, timestamp, fence, position].into_iter().for_each(|number| out.put_u64(number));
    out.put_u8(u8::from(follows));
}

pub(super) fn take_numbers(bytes: &mut Bytes) -> Option<Numbers> {
    let mut number = || bytes.try_get_u64().ok();
    let (term, timestamp, fence, position) = (number()?, number()?, number()?, number()?);
    let follows = match bytes.try_get_u8().ok()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Numbers { term, timestamp, follows, fence, position })
}

pub(super) fn take_partitions(bytes: &mut Bytes) -> Option<Partitions> {
    bytes.try_get_u32().ok()?.try_into().ok().map(Partitions::new)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::map::MapName;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..5).prop_map(Bytes::from)
    }

    pub(in super::super) fn digest() -> impl Strategy<Value = Digest> {
        any::<(u64, u64)>().prop_map(|(term, timestamp)| Digest { term, timestamp })
    }

    pub(in super::super) fn key() -> impl Strategy<Value = MapKey> {
        (bytes(), bytes(), bytes(), bytes(), bytes()).prop_map(|(a, b, c, d, key)| MapKey {
            map: MapName { protocol_namespace: a, protocol_name: b, primitive_namespace: c, primitive_name: d },
            key,
        })
    }

    pub(in super::super) fn entry() -> impl Strategy<Value = Entry> {
        (digest(), proptest::option::of(bytes())).prop_map(|(digest, value)| Entry { digest, value })
    }

    pub(in super::super) fn numbers() -> impl Strategy<Value = Numbers> {
        any::<(u64, u64, bool, u64, u64)>().prop_map(|(term, timestamp, follows, fence, position)| Numbers {
            term,
            timestamp,
            follows,
            fence,
            position,
        })
    }

    proptest! {
        #[test]
        fn stored_entries_come_back(entry in entry(), key in key(), position: u64, written_ms: u64) {
            let row = layout::map_entry(Partition::of_number(1).unwrap(), &key);
            let stored = StoredEntry { entry, position, written_ms };
            let (_, value) = record::open(&row.row, stored.encode(&row)).unwrap();
            prop_assert!((0..33).all(|end| StoredEntry::decode(value.slice(..end)).is_err()));
            prop_assert_eq!(StoredEntry::decode(value).unwrap(), stored);
        }

        #[test]
        fn partition_states_come_back(numbers in numbers(), partitions in 1_u32.., keys: u64) {
            let partition = Partition::of_number(9).unwrap();
            let partitions = Partitions::new(partitions.try_into().unwrap());
            let state = PartitionState { partition, partitions, numbers, keys };
            let (row, value) = (layout::map_numbers(partition), encode_state(&state));
            prop_assert!((0..value.len()).all(|end| decode_state(&row, value.slice(..end)).is_err()));
            prop_assert_eq!(decode_state(&row, value).unwrap(), state);
        }
    }
}
