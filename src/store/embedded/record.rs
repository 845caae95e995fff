//! How the values of rows are spelled. Each begins with a version byte, so that a later release reads what this one wrote.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::content_record;
use super::layout::{self, RowId, RowKey};
use super::packed::PackedRows;
use super::view::View;
use crate::domain::cell::{Cell, CounterShare, Element, Payload, RegisterValue};
use crate::domain::datatype::hll::{Form, Registers};
use crate::domain::dot::{ActorId, Dot, Time};
use crate::store::StoreError;

/// A value whose row key says everything.
const VERSION: u8 = 1;
/// A value behind the whole key, for rows whose key was cut.
const VERSION_WITH_KEY: u8 = 2;

/// What the row of an object held, which lacks an acknowledged write since then.
const VERSION_LACKING: u8 = 3;

/// Puts the version, and the whole key where the row's was cut, before a value.
pub(super) fn begin(key: Option<&RowKey>, reserve: usize) -> BytesMut {
    let whole = key.and_then(|key| key.whole.as_ref());
    let mut out = BytesMut::with_capacity(1 + reserve + whole.map_or(0, |whole| 4 + whole.len()));
    match whole {
        None => out.put_u8(VERSION),
        Some(whole) => {
            out.put_u8(VERSION_WITH_KEY);
            out.put_u32(u32::try_from(whole.len()).expect("the log takes no entry whose keys are longer"));
            out.put_slice(whole);
        }
    }
    out
}

/// A row's whole key and what follows the version.
pub(super) fn open(row: &Bytes, mut value: Bytes) -> Result<(Bytes, Bytes), StoreError> {
    let damaged = StoreError::Damaged { what: "row version" };
    match value.try_get_u8() {
        Ok(VERSION) => Ok((row.clone(), value)),
        Ok(VERSION_WITH_KEY) => {
            let length = value.try_get_u32().map_err(|_| damaged.clone())? as usize;
            if value.len() < length {
                return Err(damaged);
            }
            Ok((value.split_to(length), value))
        }
        Ok(VERSION_LACKING) => Err(StoreError::Damaged { what: LACKING }),
        _ => Err(damaged),
    }
}

const LACKING: &str = "an acknowledged write could not be made again";

/// The row of an object that lacks an acknowledged write: whoever reads it is told so. What it held stays behind the mark.
pub(super) fn encode_lacking(before: Option<&Bytes>) -> Bytes {
    let before = before.map(|row| &row[..]).unwrap_or_default();
    if before.first() == Some(&VERSION_LACKING) {
        return Bytes::copy_from_slice(before);
    }
    [&[VERSION_LACKING], before].concat().into()
}

/// What the store knows of an object without looking at its cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Names the rows of its siblings.
    pub(super) id: RowId,
    /// Names the rows of its data type content, where it has any: there is one exactly while a presence cell of the root is
    /// live. A new content after a delete has a new name, so that the old rows need not be gone before it begins.
    pub(super) content: Option<RowId>,
    /// Floor rows among the content's rows.
    pub(super) floors: u32,
    /// The actors that ever wrote to the content, so that a cell is found by point reads; each with the time of its presence
    /// cell at the root, while that is live. Every update writes that cell, and in the header it is on nobody's way.
    pub(super) actors: Vec<(ActorId, Option<Time>)>,
    /// The plain values, so that they too are found by point reads: a scan would step over every older version of them.
    pub(super) siblings: Vec<SiblingEntry>,
    /// The rows themselves while the object is small.
    pub(super) packed: Option<PackedRows>,
}

/// One plain value as the header lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SiblingEntry {
    pub(super) dot: Dot,
    /// The number of its row. Numbers are used again, so that a value which replaces another is written over it.
    pub(super) slot: u32,
    /// Whether it is a tombstone.
    pub(super) deleted: bool,
    /// Whether it has entries in indexes, so that it must be read when it goes.
    pub(super) indexed: bool,
}

impl Header {
    pub(super) fn new(id: RowId) -> Self {
        let packed = Some(PackedRows::default());
        Self { id, content: None, floors: 0, actors: Vec::new(), siblings: Vec::new(), packed }
    }

    /// Where the object's rows are: in the header, or in the store.
    pub(super) fn rows<'a>(&'a self, store: &'a dyn View) -> &'a dyn View {
        match &self.packed {
            Some(packed) => packed,
            None => store,
        }
    }

    /// Whether nothing at all is left of the object.
    pub(super) fn is_empty(&self) -> bool {
        self.content.is_none() && self.siblings.is_empty()
    }

    /// Takes in a presence cell of the root.
    pub(super) fn see(&mut self, dot: Dot) {
        match self.actors.iter_mut().find(|(actor, _)| *actor == dot.actor) {
            Some((_, presence)) => *presence = Some(dot.time),
            None => self.actors.push((dot.actor, Some(dot.time))),
        }
    }

    /// Everybody whose cells there may be.
    pub(super) fn all_actors(&self) -> BTreeSet<ActorId> {
        let of_siblings = self.siblings.iter().map(|sibling| sibling.dot.actor);
        self.actors.iter().map(|(actor, _)| *actor).chain(of_siblings).collect()
    }

    /// The dots of the root's live presence cells.
    pub(super) fn presence(&self) -> impl Iterator<Item = Dot> {
        self.actors.iter().filter_map(|&(actor, time)| Some(Dot { actor, time: time? }))
    }

    pub(super) fn encode(&self, key: &RowKey) -> Bytes {
        let count = |items: usize| u32::try_from(items).expect("a header was built in memory");
        let listed_bytes = self.actors.len() * ACTOR_BYTES + self.siblings.len() * SIBLING_BYTES;
        let packed_bytes = self.packed.as_ref().map_or(0, PackedRows::size_bytes);
        let mut out = begin(Some(key), FIXED_BYTES + listed_bytes + packed_bytes);
        out.put_slice(&self.id.0);
        match self.content {
            None => out.put_u8(0),
            Some(content) => {
                out.put_u8(1);
                out.put_slice(&content.0);
            }
        }
        out.put_u32(self.floors);
        out.put_u32(count(self.actors.len()));
        for (actor, presence) in &self.actors {
            out.put_u64(actor.0);
            out.put_u8(u8::from(presence.is_some()));
            out.put_u64(presence.unwrap_or_default().0);
        }
        out.put_u32(count(self.siblings.len()));
        for sibling in &self.siblings {
            out.put_u64(sibling.dot.time.0);
            out.put_u64(sibling.dot.actor.0);
            out.put_u32(sibling.slot);
            out.put_u8(u8::from(sibling.deleted) * SIBLING_DELETED + u8::from(sibling.indexed) * SIBLING_INDEXED);
        }
        out.put_u8(u8::from(self.packed.is_some()));
        if let Some(packed) = &self.packed {
            out.put_u32(count(packed_bytes));
            packed.encode(&mut out);
        }
        out.freeze()
    }

    /// Reads the value of a row.
    pub(super) fn of_row(name: &RowKey, value: Bytes) -> Result<Self, StoreError> {
        Self::decode(open(&name.row, value)?.1)
    }

    /// Reads what follows the version.
    pub(super) fn decode(value: Bytes) -> Result<Self, StoreError> {
        let damaged = StoreError::Damaged { what: "object header" };
        let (mut header, packed) = Self::try_decode(value).ok_or(damaged)?;
        if let Some(packed) = packed {
            header.packed = Some(PackedRows::decode(packed, |table| match table {
                layout::SIBLINGS => Some(header.id),
                _ => header.content,
            })?);
        }
        Ok(header)
    }

    /// Whether an object is listed: whether it has content, or a value that is no tombstone. It takes what follows the version
    /// of the header's row; listings look at many, so nothing else is read of it.
    pub(super) fn is_listed_in(value: &[u8]) -> Result<bool, StoreError> {
        Self::try_is_listed(value).ok_or(StoreError::Damaged { what: "object header" })
    }

    fn try_is_listed(mut value: &[u8]) -> Option<bool> {
        take_id(&mut value)?;
        if take_bool(&mut value)? {
            return Some(true);
        }
        value.try_get_u32().ok()?;
        let actors = value.try_get_u32().ok()? as usize;
        value = value.get(actors.checked_mul(ACTOR_BYTES)?..)?;
        let siblings = value.try_get_u32().ok()?;
        for _ in 0..siblings {
            if !take_sibling(&mut value)?.deleted {
                return Some(true);
            }
        }
        Some(false)
    }

    /// The header but for its packed rows, and these.
    fn try_decode(whole: Bytes) -> Option<(Self, Option<Bytes>)> {
        // A plain slice is read faster.
        let mut value = &whole[..];
        let id = take_id(&mut value)?;
        let content = if take_bool(&mut value)? { Some(take_id(&mut value)?) } else { None };
        let floors = value.try_get_u32().ok()?;
        let count = value.try_get_u32().ok()? as usize;
        // A damaged count takes no memory.
        if value.len() / ACTOR_BYTES < count {
            return None;
        }
        let mut actors = Vec::with_capacity(count);
        for _ in 0..count {
            let actor = ActorId(value.try_get_u64().ok()?);
            let present = take_bool(&mut value)?;
            let time = Time(value.try_get_u64().ok()?);
            actors.push((actor, present.then_some(time)));
        }
        let count = value.try_get_u32().ok()? as usize;
        if value.len() / SIBLING_BYTES < count {
            return None;
        }
        let mut siblings = Vec::with_capacity(count);
        for _ in 0..count {
            siblings.push(take_sibling(&mut value)?);
        }
        let is_packed = take_bool(&mut value)?;
        let packed_bytes = if is_packed { value.try_get_u32().ok()? as usize } else { 0 };
        if value.len() != packed_bytes {
            return None;
        }
        let packed = is_packed.then(|| whole.slice_ref(value));
        Some((Self { id, content, floors, actors, siblings, packed: None }, packed))
    }
}

/// Id, mark and content, floors, numbers of actors and siblings, mark and size of the packed rows.
const FIXED_BYTES: usize = 16 + 17 + 4 + 4 + 4 + 5;
/// Actor, mark, time.
const ACTOR_BYTES: usize = 8 + 1 + 8;
/// Dot, slot, marks.
const SIBLING_BYTES: usize = 16 + 4 + 1;
const SIBLING_DELETED: u8 = 1;
const SIBLING_INDEXED: u8 = 2;

fn take_sibling(value: &mut &[u8]) -> Option<SiblingEntry> {
    let time = Time(value.try_get_u64().ok()?);
    let actor = ActorId(value.try_get_u64().ok()?);
    let slot = value.try_get_u32().ok()?;
    let marks = value.try_get_u8().ok().filter(|marks| marks & !(SIBLING_DELETED | SIBLING_INDEXED) == 0)?;
    let (deleted, indexed) = (marks & SIBLING_DELETED != 0, marks & SIBLING_INDEXED != 0);
    Some(SiblingEntry { dot: Dot { actor, time }, slot, deleted, indexed })
}

fn take_bool(value: &mut impl Buf) -> Option<bool> {
    match value.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_id(value: &mut &[u8]) -> Option<RowId> {
    let mut id = [0; 16];
    value.try_copy_to_slice(&mut id).ok()?;
    Some(RowId(id))
}

/// The value of a row that holds a time alone: a floor's, the clock's bound.
pub(super) fn encode_time(key: &RowKey, time: Time) -> Bytes {
    let mut out = begin(Some(key), 8);
    out.put_u64(time.0);
    out.freeze()
}

/// The time that every cell and floor begins with.
pub(super) fn take_time(value: &mut Bytes) -> Result<Time, StoreError> {
    value.try_get_u64().map(Time).map_err(|_| StoreError::Damaged { what: "row time" })
}

// How a HyperLogLog's registers are packed.
const HLL_SPARSE: u8 = 1;
const HLL_DENSE: u8 = 2;

/// A cell's value: its time, then its payload.
pub(super) fn encode_cell(key: Option<&RowKey>, cell: &Cell) -> Bytes {
    let mut out = begin(key, 8 + payload_bytes(&cell.payload));
    out.put_u64(cell.dot.time.0);
    encode_payload(&cell.payload, &mut out);
    out.freeze()
}

/// How many bytes a payload takes.
pub(super) fn payload_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Mark => 0,
        Payload::Counter(_) => 32,
        Payload::Register(register) => 8 + register.value.len(),
        Payload::Hll(registers) => 2 + registers.packed().len(),
        Payload::Content(content) => 1 + content_record::size_bytes(content),
    }
}

pub(super) fn encode_payload(payload: &Payload, out: &mut impl BufMut) {
    match payload {
        Payload::Mark => {}
        Payload::Counter(share) => {
            out.put_u128(share.incremented);
            out.put_u128(share.decremented);
        }
        Payload::Register(register) => {
            out.put_u64(register.assigned.0);
            out.put_slice(&register.value);
        }
        Payload::Hll(registers) => {
            out.put_u8(match registers.form() {
                Form::Sparse => HLL_SPARSE,
                Form::Dense => HLL_DENSE,
            });
            out.put_u8(registers.precision());
            out.put_slice(registers.packed());
        }
        Payload::Content(content) => {
            out.put_u8(u8::from(content.deleted));
            content_record::encode(content, out);
        }
    }
}

/// A payload, read after the time.
pub(super) fn decode_payload(element: &Element, value: Bytes) -> Result<Payload, StoreError> {
    try_decode_payload(element, value).ok_or(StoreError::Damaged { what: "cell payload" })
}

fn try_decode_payload(element: &Element, mut value: Bytes) -> Option<Payload> {
    Some(match element {
        Element::Presence | Element::Flag | Element::Member(_) => value.is_empty().then_some(Payload::Mark)?,
        Element::Counter => {
            let incremented = value.try_get_u128().ok()?;
            let decremented = value.try_get_u128().ok()?;
            if !value.is_empty() {
                return None;
            }
            Payload::Counter(CounterShare { incremented, decremented })
        }
        Element::Register => {
            let assigned = Time(value.try_get_u64().ok()?);
            Payload::Register(RegisterValue { assigned, value })
        }
        Element::Hll => {
            let form = match value.try_get_u8().ok()? {
                HLL_SPARSE => Form::Sparse,
                HLL_DENSE => Form::Dense,
                _ => return None,
            };
            let precision = value.try_get_u8().ok()?;
            Payload::Hll(Registers::from_packed(precision, form, value)?)
        }
        Element::Sibling(_) => {
            let deleted = take_bool(&mut value)?;
            Payload::Content(Box::new(content_record::decode(value, deleted)?))
        }
    })
}

/// An index row's value: nothing beyond the key.
pub(super) fn encode_posting(key: &RowKey) -> Bytes {
    begin(Some(key), 0).freeze()
}

/// A record's value.
pub(super) fn encode_record(key: &RowKey, value: &[u8]) -> Bytes {
    let mut out = begin(Some(key), value.len());
    out.put_slice(value);
    out.freeze()
}

/// A queue row's value: the key of the object's header, which counts the floors.
pub(super) fn encode_queue(key: &RowKey, name: &RowKey) -> Bytes {
    let mut out = begin(Some(key), name.row.len());
    out.put_u32(u32::try_from(name.row.len()).expect("row keys are cut"));
    out.put_slice(&name.row);
    out.put_slice(name.whole.as_deref().unwrap_or_default());
    out.freeze()
}

/// Reads what [`encode_queue`] wrote after the version.
pub(super) fn decode_queue(mut value: Bytes) -> Result<RowKey, StoreError> {
    let damaged = StoreError::Damaged { what: "queue row" };
    let length = value.try_get_u32().map_err(|_| damaged.clone())? as usize;
    if value.len() < length {
        return Err(damaged);
    }
    let row = value.split_to(length);
    Ok(RowKey { row, whole: (!value.is_empty()).then_some(value) })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::super::content_record::tests::{bytes, content};
    use super::super::layout;
    use super::*;
    use crate::domain::cell::{CellKey, Path};
    use crate::domain::datatype::hll::Sketch;
    use crate::domain::key::{BucketName, ObjectName};

    fn dot() -> impl Strategy<Value = Dot> {
        (any::<u64>(), any::<u64>()).prop_map(|(actor, time)| Dot { actor: ActorId(actor), time: Time(time) })
    }

    fn header() -> impl Strategy<Value = Header> {
        let id = || any::<[u8; 16]>().prop_map(RowId);
        let sibling = (dot(), any::<u32>(), any::<(bool, bool)>());
        let sibling = sibling.prop_map(|(dot, slot, (deleted, indexed))| SiblingEntry { dot, slot, deleted, indexed });
        let actors = vec((any::<u64>().prop_map(ActorId), option::of(any::<u64>().prop_map(Time))), 0..4);
        let parts = (
            id(),
            option::of(id()),
            any::<u32>(),
            actors,
            vec(sibling, 0..4),
            option::of(vec((bytes(), bytes()), 0..4)),
        );
        parts.prop_map(|(id, content, floors, actors, siblings, rows)| {
            let mut header = Header { id, content, floors, actors, siblings, packed: None };
            if let Some(rows) = rows {
                let packed = header.packed.insert(PackedRows::default());
                for (suffix, value) in rows {
                    packed.put([&[layout::SIBLINGS], &id.0[..], &suffix].concat().into(), value);
                }
            }
            header
        })
    }

    fn payload() -> impl Strategy<Value = (Element, Payload)> {
        let share = (any::<u128>(), any::<u128>());
        let share = share.prop_map(|(incremented, decremented)| CounterShare { incremented, decremented });
        let register = (any::<u64>(), bytes());
        let register = register.prop_map(|(assigned, value)| RegisterValue { assigned: Time(assigned), value });
        prop_oneof![
            Just((Element::Presence, Payload::Mark)),
            Just((Element::Flag, Payload::Mark)),
            bytes().prop_map(|member| (Element::Member(member), Payload::Mark)),
            share.prop_map(|share| (Element::Counter, Payload::Counter(share))),
            register.prop_map(|register| (Element::Register, Payload::Register(register))),
            content().prop_map(|content| (Element::Sibling(Time(1)), Payload::Content(Box::new(content)))),
        ]
    }

    /// A row key, whole or cut.
    fn name() -> impl Strategy<Value = RowKey> {
        let key = prop_oneof![bytes(), vec(any::<u8>(), 9_000..9_010).prop_map(Bytes::from)];
        let bucket = BucketName::new(None, Bytes::from_static(b"b"));
        key.prop_map(move |key| layout::name(&ObjectName { bucket: bucket.clone(), key }))
    }

    fn open_cell(row: &Bytes, element: &Element, value: Bytes) -> Result<(Bytes, Time, Payload), StoreError> {
        let (key, mut value) = open(row, value)?;
        let time = take_time(&mut value)?;
        Ok((key, time, decode_payload(element, value)?))
    }

    proptest! {
        #[test]
        fn headers_come_back(header in header(), name in name()) {
            let value = header.encode(&name);
            let (key, value) = open(&name.row, value).unwrap();
            prop_assert_eq!(&key, name.whole.as_ref().unwrap_or(&name.row));
            prop_assert_eq!(&Header::decode(value.clone()).unwrap(), &header);
            let is_listed = header.content.is_some() || header.siblings.iter().any(|sibling| !sibling.deleted);
            prop_assert_eq!(Header::is_listed_in(&value), Ok(is_listed));
            for end in 0..value.len() {
                let cut = Header::decode(value.slice(..end));
                prop_assert_eq!(cut, Err(StoreError::Damaged { what: "object header" }));
            }
        }

        #[test]
        fn cells_come_back((element, payload) in payload(), dot in dot(), name in name()) {
            let key = CellKey { path: Path::root(), element: element.clone() };
            let cell = Cell { key, dot, payload: payload.clone() };
            let value = encode_cell(Some(&name), &cell);
            let whole = name.whole.clone().unwrap_or(name.row.clone());
            prop_assert_eq!(open_cell(&name.row, &element, value.clone()).unwrap(), (whole, dot.time, payload.clone()));
            for end in 0..value.len() {
                match open_cell(&name.row, &element, value.slice(..end)) {
                    Err(error) => assert!(matches!(error, StoreError::Damaged { .. })),
                    // Values without a length of their own end where the row does.
                    Ok((_, _, cut)) => prop_assert_ne!(cut, payload.clone()),
                }
            }
        }

        #[test]
        fn queue_rows_come_back(row in name(), name in name()) {
            let value = encode_queue(&row, &name);
            let (key, value) = open(&row.row, value).unwrap();
            prop_assert_eq!(&key, row.whole.as_ref().unwrap_or(&row.row));
            prop_assert_eq!(decode_queue(value.clone()).unwrap(), name.clone());
            for end in 0..4 + name.row.len() {
                prop_assert!(decode_queue(value.slice(..end)).is_err());
            }
        }

        #[test]
        fn strange_values_are_damage_and_no_panic(value in vec(any::<u8>(), 0..60), (element, _) in payload()) {
            let value = Bytes::from(value);
            let _ = Header::decode(value.clone());
            let _ = Header::is_listed_in(&value);
            let _ = decode_queue(value.clone());
            let _ = decode_payload(&element, value.clone());
            let _ = open_cell(&Bytes::from_static(b"row"), &element, value);
        }
    }

    #[test]
    fn a_flag_byte_is_zero_or_one() {
        let mut value = Header::new(RowId([0; 16])).encode(&layout::record(b"k")).to_vec();
        value[17] = 2;
        assert!(Header::decode(Bytes::from(value).slice(1..)).is_err());
    }

    #[test]
    fn registers_come_back_in_both_forms_and_damage_is_told() {
        let mut sketch = Sketch::new(4);
        for elements in [0_u8..2, 0..64] {
            elements.for_each(|n| sketch.add(&[n]));
            let cell = Cell {
                key: CellKey { path: Path::root(), element: Element::Hll },
                dot: Dot { actor: ActorId(1), time: Time(2) },
                payload: Payload::Hll(sketch.pack()),
            };
            let (_, mut value) = open(&Bytes::new(), encode_cell(None, &cell)).unwrap();
            assert_eq!(take_time(&mut value), Ok(cell.dot.time));
            assert_eq!(decode_payload(&Element::Hll, value.clone()), Ok(cell.payload));
            // Two bytes of form and precision; a sparse list cut between entries is a shorter list.
            for end in (0..value.len()).filter(|&end| end < 2 || (end - 2) % 3 != 0) {
                let damaged = Err(StoreError::Damaged { what: "cell payload" });
                assert_eq!(decode_payload(&Element::Hll, value.slice(..end)), damaged, "cut at {end}");
            }
        }
    }
}
