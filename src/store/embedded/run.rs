//! Very many rows that are written together: in one piece of memory, in the order of their keys.
//!
//! A run is made by whoever writes it, and then linked into the overlay in no time. It takes less memory than rows of their own, and
//! what long keys have in common it holds once: a row may begin as a *base* does, an earlier row that is held whole.

use std::cmp::Ordering;
use std::mem;
use std::ops::Bound;

use bytes::Bytes;

use super::layout;

/// What has less than this in common with a base is held whole, and handed out without a copy.
const SHARED_BYTES_MIN: usize = 64;
/// Rows that take less than this, in bytes, need no base.
const WHOLE_BYTES_MIN: usize = 96;
/// A value that shares anything does so behind its version and the length of its row's whole key.
const VALUE_HEAD_BYTES: usize = 5;
/// In place of a value's length: the row is deleted.
const DELETED: u32 = u32::MAX;

/// Rows in the order of their keys, each there once.
pub(super) struct Run {
    rows: Rows,
    bytes: Bytes,
    /// The first key and the last: most of what is asked for is not between them.
    ends: Option<(Bytes, Bytes)>,
    pub(super) counts: Counts,
}

/// What is in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Rows put.
    pub(super) put: usize,
    /// Keys and values of the rows put, in bytes.
    pub(super) put_bytes: usize,
    /// Rows deleted.
    pub(super) deleted: usize,
    /// Their keys, in bytes.
    pub(super) deleted_bytes: usize,
    /// Those among them that scans step over.
    pub(super) dead: usize,
}

/// Gathers the rows of a run in any order; of several with one key the last counts.
#[derive(Default)]
pub(super) struct RunBuilder {
    rows: Rows,
    bytes: Vec<u8>,
    /// What rows have taken since the last base.
    since_base_bytes: usize,
    is_unsorted: bool,
}

#[derive(Default)]
struct Rows {
    slots: Vec<Slot>,
    bases: Vec<Base>,
}

/// A row: what it shares with its base, and where its own bytes lie, first those of the key.
#[derive(Clone, Copy)]
struct Slot {
    at: usize,
    base: u32,
    key_shared: u32,
    key_own: u32,
    value_shared: u32,
    value_own: u32,
}

/// A row that is held whole, and that others begin like.
#[derive(Clone, Copy)]
struct Base {
    at: usize,
    key_bytes: usize,
    value_bytes: usize,
}

impl Base {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.at..][..self.key_bytes]
    }

    fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.at + self.key_bytes..][..self.value_bytes]
    }
}

impl Rows {
    /// A row's key in two parts.
    fn key<'a>(&self, slot: &Slot, bytes: &'a [u8]) -> [&'a [u8]; 2] {
        let own = &bytes[slot.at..][..slot.key_own as usize];
        match slot.key_shared as usize {
            0 => [&[], own],
            shared => [&self.bases[slot.base as usize].key(bytes)[..shared], own],
        }
    }

    fn compare(&self, a: &Slot, b: &Slot, bytes: &[u8]) -> Ordering {
        // Much of what they share with one base they share with each other.
        let common = if a.base == b.base { a.key_shared.min(b.key_shared) as usize } else { 0 };
        let rest = |slot| {
            let [shared, own] = self.key(slot, bytes);
            [&shared[common..], own]
        };
        compare(rest(a), rest(b))
    }
}

/// Compares keys in two parts.
fn compare(a: [&[u8]; 2], b: [&[u8]; 2]) -> Ordering {
    let ([mut a, mut a_rest], [mut b, mut b_rest]) = (a, b);
    loop {
        if a.is_empty() {
            (a, a_rest) = (a_rest, &[]);
        }
        if b.is_empty() {
            (b, b_rest) = (b_rest, &[]);
        }
        let count = a.len().min(b.len());
        if count == 0 {
            return a.len().cmp(&b.len());
        }
        match a[..count].cmp(&b[..count]) {
            Ordering::Equal => (a, b) = (&a[count..], &b[count..]),
            different => return different,
        }
    }
}

fn common_bytes(a: &[u8], b: &[u8]) -> usize {
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    if common < SHARED_BYTES_MIN { 0 } else { common }
}

impl RunBuilder {
    /// Puts or deletes a row.
    pub(super) fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let whole_bytes = key.len() + value.map_or(0, <[u8]>::len);
        let base = self.rows.bases.last().copied().filter(|_| whole_bytes >= WHOLE_BYTES_MIN);
        let head_bytes = value.map_or(0, |value| value.len().min(VALUE_HEAD_BYTES));
        let (mut key_shared, mut value_shared) = (0, 0);
        if let Some(base) = base
            && self.since_base_bytes < base.key_bytes + base.value_bytes
        {
            key_shared = common_bytes(base.key(&self.bytes), key);
            if let (Some(value), Some(like)) = (value, base.value(&self.bytes).get(VALUE_HEAD_BYTES..)) {
                value_shared = common_bytes(like, &value[head_bytes..]);
            }
        } else if whole_bytes >= WHOLE_BYTES_MIN {
            // A base is worth its memory: what has come since the last one takes as much.
            self.rows.bases.push(Base {
                at: self.bytes.len(),
                key_bytes: key.len(),
                value_bytes: whole_bytes - key.len(),
            });
            self.since_base_bytes = 0;
        }
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&key[key_shared..]);
        if let Some(value) = value {
            self.bytes.extend_from_slice(&value[..head_bytes]);
            self.bytes.extend_from_slice(&value[head_bytes + value_shared..]);
        }
        if self.rows.bases.last().is_none_or(|base| base.at != at) {
            self.since_base_bytes += self.bytes.len() - at;
        }
        // Keys are cut at some thousands of bytes, and a request has less than two gigabytes.
        let slot = Slot {
            at,
            base: self.rows.bases.len().saturating_sub(1) as u32,
            key_shared: key_shared as u32,
            key_own: (key.len() - key_shared) as u32,
            value_shared: value_shared as u32,
            value_own: value.map_or(DELETED, |value| (value.len() - value_shared) as u32),
        };
        if let Some(before) = self.rows.slots.last() {
            self.is_unsorted |= self.rows.compare(before, &slot, &self.bytes).is_ge();
        }
        self.rows.slots.push(slot);
    }

    pub(super) fn finish(self) -> Run {
        let Self { mut rows, mut bytes, is_unsorted, .. } = self;
        if is_unsorted {
            let mut slots = mem::take(&mut rows.slots);
            slots.sort_by(|a, b| rows.compare(a, b, &bytes));
            // Of equal ones the last comes last, and is the first from behind.
            slots.reverse();
            slots.dedup_by(|a, b| rows.compare(a, b, &bytes).is_eq());
            slots.reverse();
            rows.slots = slots;
        }
        rows.slots.shrink_to_fit();
        bytes.shrink_to_fit();
        let mut run = Run { rows, bytes: bytes.into(), ends: None, counts: Counts::default() };
        run.ends = run.key(0).zip(run.key(run.len().saturating_sub(1)));
        for slot in &run.rows.slots {
            let [shared, own] = run.rows.key(slot, &run.bytes);
            match slot.value_own {
                DELETED => {
                    run.counts.deleted += 1;
                    run.counts.deleted_bytes += shared.len() + own.len();
                    run.counts.dead += usize::from(layout::is_scanned(if shared.is_empty() { own } else { shared }));
                }
                value_own => {
                    run.counts.put += 1;
                    run.counts.put_bytes += shared.len() + own.len() + (value_own + slot.value_shared) as usize;
                }
            }
        }
        run
    }
}

impl Run {
    pub(super) fn len(&self) -> usize {
        self.rows.slots.len()
    }

    /// What it takes in memory, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.bytes.len()
            + self.rows.slots.capacity() * size_of::<Slot>()
            + self.rows.bases.capacity() * size_of::<Base>()
    }

    /// Whether none of the rows is in a range.
    pub(super) fn is_apart(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
        let Some((first, last)) = &self.ends else { return true };
        let ends_before = match start {
            Bound::Unbounded => false,
            Bound::Included(start) => last[..] < *start,
            Bound::Excluded(start) => last[..] <= *start,
        };
        let begins_behind = match end {
            Bound::Unbounded => false,
            Bound::Included(end) => first[..] > *end,
            Bound::Excluded(end) => first[..] >= *end,
        };
        ends_before || begins_behind
    }

    /// The value of a row, where it is put or deleted here.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        if self.is_apart(Bound::Included(key), Bound::Included(key)) {
            return None;
        }
        let compare = |slot: &Slot| compare(self.rows.key(slot, &self.bytes), [key, &[]]);
        self.rows.slots.binary_search_by(compare).ok().map(|at| self.value(at))
    }

    /// Where the first row stands that a range may begin with.
    pub(super) fn position(&self, start: Bound<&[u8]>) -> usize {
        self.rows.slots.partition_point(|slot| {
            let compare = |start| compare(self.rows.key(slot, &self.bytes), [start, &[]]);
            match start {
                Bound::Unbounded => false,
                Bound::Included(start) => compare(start).is_lt(),
                Bound::Excluded(start) => compare(start).is_le(),
            }
        })
    }

    /// The key of a row.
    pub(super) fn key(&self, at: usize) -> Option<Bytes> {
        let slot = self.rows.slots.get(at)?;
        Some(match self.rows.key(slot, &self.bytes) {
            [[], own] => self.bytes.slice_ref(own),
            parts => parts.concat().into(),
        })
    }

    /// The value of a row, if it is not deleted.
    pub(super) fn value(&self, at: usize) -> Option<Bytes> {
        let slot = self.rows.slots.get(at).filter(|slot| slot.value_own != DELETED)?;
        let own = &self.bytes[slot.at + slot.key_own as usize..][..slot.value_own as usize];
        Some(match slot.value_shared as usize {
            0 => self.bytes.slice_ref(own),
            shared => {
                let (head, rest) = own.split_at(VALUE_HEAD_BYTES);
                let like = self.rows.bases[slot.base as usize].value(&self.bytes);
                [head, &like[VALUE_HEAD_BYTES..][..shared], rest].concat().into()
            }
        })
    }

    /// All rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        (0..self.len()).filter_map(|at| Some((self.key(at)?, self.value(at))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::RangeBounds;

    use proptest::prelude::*;

    use super::*;

    /// Keys and values that begin alike, or not, and some that are there twice.
    fn rows() -> impl Strategy<Value = Vec<(Vec<u8>, Option<Vec<u8>>)>> {
        let bytes = |lengths: std::ops::Range<usize>| {
            let tail = proptest::collection::vec(0..3_u8, 0..4);
            (lengths, 0..3_u8, tail).prop_map(|(length, fill, tail)| [vec![fill; length], tail].concat())
        };
        let key = prop_oneof![bytes(0..4), bytes(60..70), bytes(200..203)];
        let value = proptest::option::of(prop_oneof![bytes(0..8), bytes(66..72), bytes(200..203)]);
        proptest::collection::vec((key, value), 0..60)
    }

    fn run(rows: &[(Vec<u8>, Option<Vec<u8>>)]) -> Run {
        let mut builder = RunBuilder::default();
        rows.iter().for_each(|(key, value)| builder.push(key, value.as_deref()));
        builder.finish()
    }

    proptest! {
        #[test]
        fn rows_come_back_in_order_and_the_last_of_each_key(rows in rows(), asked in rows()) {
            let run = run(&rows);
            let expected: BTreeMap<_, _> = rows.into_iter().collect();
            let whole = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| {
                (Bytes::from(key.clone()), value.clone().map(Bytes::from))
            };
            prop_assert!(run.iter().eq(expected.iter().map(whole)));
            for (key, _) in asked.iter().map(|(key, value)| (key, value)).chain(&expected) {
                let value = expected.get(key).map(|value| value.clone().map(Bytes::from));
                prop_assert_eq!(run.get(key), value);
                let first = |start: Bound<&[u8]>| run.key(run.position(start));
                let expected_first = |start: Bound<&[u8]>| {
                    expected.range::<[u8], _>((start, Bound::Unbounded)).next().map(|(key, _)| Bytes::from(key.clone()))
                };
                for end in [Bound::Included(&key[..]), Bound::Excluded(&key[..]), Bound::Unbounded] {
                    for start in [Bound::Included(&[][..]), Bound::Excluded(&[1, 1][..]), Bound::Unbounded] {
                        let is_inside = |key: &Bytes| RangeBounds::<[u8]>::contains(&(start, end), &key[..]);
                        prop_assert!(!(run.is_apart(start, end) && run.iter().any(|(key, _)| is_inside(&key))));
                    }
                }
                for start in [Bound::Included(&key[..]), Bound::Excluded(&key[..]), Bound::Unbounded] {
                    prop_assert_eq!(first(start), expected_first(start));
                }
            }
            let put = expected.iter().filter_map(|(key, value)| Some(key.len() + value.as_ref()?.len()));
            prop_assert_eq!(run.counts.put, put.clone().count());
            prop_assert_eq!(run.counts.put_bytes, put.sum::<usize>());
            prop_assert_eq!(run.counts.deleted, expected.len() - run.counts.put);
        }
    }

    #[test]
    fn what_long_rows_have_in_common_is_held_once() {
        let rows = (0..1000_u32).map(|number| {
            let key = [&[b'c'; 8000][..], &number.to_be_bytes()].concat();
            let value = [&[2][..], &number.to_be_bytes(), &[b'n'; 60_000], &number.to_be_bytes()].concat();
            (key, Some(value))
        });
        let run = run(&rows.collect::<Vec<(Vec<u8>, _)>>());
        assert!(run.size_bytes() < 68_000 + 1000 * 100, "{}", run.size_bytes());
        assert_eq!(run.counts.put_bytes, 1000 * 68_013);
    }
}
