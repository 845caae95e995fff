//! How a write is spelled in the commit log: as what was asked for, never as the rows that came of it.
//!
//! An entry begins with a byte for its kind. A kind that changes gets a new byte, so that a later release reads what this
//! one wrote. Numbers and lengths are varints; texts follow their length.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{decode_varint, encode_varint};

use super::map_delta;
use super::record;
use crate::domain::cell::{Cell, CellKey, Element, FieldKind, FieldName, Floor, FloorTarget, Path, Payload};
use crate::domain::context::CausalContext;
use crate::domain::delta::Delta;
use crate::domain::dot::{ActorId, Dot, Time};
use crate::domain::key::{BucketName, ObjectName};
use crate::store::StoreError;
use crate::store::maps::MapDelta;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LogEntry {
    /// What a request does to an object.
    Delta(ObjectName, Delta),
    /// A record put, or removed.
    Record(Bytes, Option<Bytes>),
    /// A higher bound of the clock.
    ClockBound(Time),
    /// What changes in a partition of the maps.
    Map(MapDelta),
}

/// A delta as releases wrote it that named every path and every context whole.
const DELTA_SPELLED_OUT: u8 = 1;
const RECORD: u8 = 2;
const RECORD_REMOVED: u8 = 3;
const CLOCK_BOUND: u8 = 4;
const MAP: u8 = 5;
/// A delta. Each path begins with so many fields of the one before it, and a context may be the one before it: both are spelled
/// once, however many cells and floors they are of.
const DELTA: u8 = 6;

const SUBTREE: u8 = 1;
const ELEMENT: u8 = 2;
const SIBLINGS: u8 = 3;

const PRESENCE: u8 = 1;
const COUNTER: u8 = 2;
const REGISTER: u8 = 3;
const FLAG: u8 = 4;
const HLL: u8 = 5;
const SIBLING: u8 = 6;
const MEMBER: u8 = 7;

impl LogEntry {
    /// What of the entry may be large, nearly, in bytes.
    pub(super) fn payload_bytes(&self) -> usize {
        let payload_bytes = |cell: &Cell| match &cell.payload {
            Payload::Content(content) => content.value.len(),
            Payload::Register(register) => register.value.len(),
            Payload::Hll(registers) => registers.packed().len(),
            Payload::Counter(_) | Payload::Mark => 0,
        };
        match self {
            Self::Delta(_, delta) => delta.puts.iter().map(payload_bytes).sum(),
            Self::Record(_, value) => value.as_ref().map_or(0, Bytes::len),
            Self::Map(_) | Self::ClockBound(_) => 0,
        }
    }

    /// Appends the entry.
    ///
    /// # Errors
    /// Where a part of it is longer than can be spelled.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), StoreError> {
        match self {
            Self::Delta(name, delta) => {
                out.put_u8(DELTA);
                for part in [&name.bucket.bucket_type, &name.bucket.bucket, &name.key] {
                    put_text(out, part);
                }
                put_dot(out, delta.dot);
                let mut before = Before::default();
                put_count(out, delta.floors.len());
                delta.floors.iter().for_each(|floor| put_floor(out, floor, &mut before));
                put_count(out, delta.puts.len());
                delta.puts.iter().for_each(|cell| put_cell(out, cell, delta.dot, &mut before));
            }
            Self::Record(name, Some(value)) => {
                out.put_u8(RECORD);
                put_text(out, name);
                put_text(out, value);
            }
            Self::Record(name, None) => {
                out.put_u8(RECORD_REMOVED);
                put_text(out, name);
            }
            Self::ClockBound(bound) => {
                out.put_u8(CLOCK_BOUND);
                out.put_u64(bound.0);
            }
            Self::Map(delta) => {
                out.put_u8(MAP);
                map_delta::encode_delta(delta, out)?;
            }
        }
        Ok(())
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, StoreError> {
        let damaged = StoreError::Damaged { what: "log entry" };
        let entry = Self::take(&mut bytes).ok_or(damaged.clone())?;
        if bytes.is_empty() { Ok(entry) } else { Err(damaged) }
    }

    fn take(bytes: &mut Bytes) -> Option<Self> {
        Some(match bytes.try_get_u8().ok()? {
            kind @ (DELTA | DELTA_SPELLED_OUT) => {
                let bucket = BucketName { bucket_type: take_text(bytes)?, bucket: take_text(bytes)? };
                let name = ObjectName { bucket, key: take_text(bytes)? };
                let dot = take_dot(bytes)?;
                let mut before = (kind == DELTA).then(Before::default);
                let floors = take_many(bytes, |bytes| take_floor(bytes, before.as_mut()))?;
                let puts = take_many(bytes, |bytes| take_cell(bytes, dot, before.as_mut()))?;
                Self::Delta(name, Delta { dot, puts, floors })
            }
            RECORD => Self::Record(take_text(bytes)?, Some(take_text(bytes)?)),
            RECORD_REMOVED => Self::Record(take_text(bytes)?, None),
            CLOCK_BOUND => Self::ClockBound(Time(bytes.try_get_u64().ok()?)),
            MAP => Self::Map(map_delta::decode_delta(bytes.split_off(0)).ok()?),
            _ => return None,
        })
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    encode_varint(count as u64, out);
}

fn take_count(bytes: &mut Bytes) -> Option<usize> {
    usize::try_from(decode_varint(bytes).ok()?).ok()
}

fn take_many<T>(bytes: &mut Bytes, take: impl FnMut(&mut Bytes) -> Option<T>) -> Option<Vec<T>> {
    let count = take_count(bytes)?;
    take_so_many(bytes, count, take)
}

fn take_so_many<T>(bytes: &mut Bytes, count: usize, mut take: impl FnMut(&mut Bytes) -> Option<T>) -> Option<Vec<T>> {
    // Each takes at least a byte: a damaged count takes no memory.
    if count > bytes.len() {
        return None;
    }
    (0..count).map(|_| take(bytes)).collect()
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_count(out, text.len());
    out.extend_from_slice(text);
}

fn take_text(bytes: &mut Bytes) -> Option<Bytes> {
    let length = take_count(bytes)?;
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

fn put_dot(out: &mut Vec<u8>, dot: Dot) {
    out.put_u64(dot.actor.0);
    out.put_u64(dot.time.0);
}

fn take_dot(bytes: &mut Bytes) -> Option<Dot> {
    Some(Dot { actor: ActorId(bytes.try_get_u64().ok()?), time: Time(bytes.try_get_u64().ok()?) })
}

/// The path and the context that stand last before what is spelled.
#[derive(Default)]
struct Before {
    path: Path,
    context: CausalContext,
}

fn put_floor(out: &mut Vec<u8>, floor: &Floor, before: &mut Before) {
    match &floor.target {
        FloorTarget::Subtree(path) => {
            out.put_u8(SUBTREE);
            put_path(out, path, before);
        }
        FloorTarget::Element(key) => {
            out.put_u8(ELEMENT);
            put_key(out, key, before);
        }
        FloorTarget::Siblings => out.put_u8(SIBLINGS),
    }
    if floor.context == before.context {
        return put_count(out, 0);
    }
    put_count(out, 1 + floor.context.entries().len());
    for &(actor, time) in floor.context.entries() {
        put_dot(out, Dot { actor, time });
    }
    before.context = floor.context.clone();
}

fn take_floor(bytes: &mut Bytes, mut before: Option<&mut Before>) -> Option<Floor> {
    let target = match bytes.try_get_u8().ok()? {
        SUBTREE => FloorTarget::Subtree(take_path(bytes, before.as_deref_mut())?),
        ELEMENT => FloorTarget::Element(take_key(bytes, before.as_deref_mut())?),
        SIBLINGS => FloorTarget::Siblings,
        _ => return None,
    };
    let context = match before {
        None => CausalContext::from_iter(take_many(bytes, take_dot)?),
        Some(before) => {
            if let Some(count) = take_count(bytes)?.checked_sub(1) {
                before.context = CausalContext::from_iter(take_so_many(bytes, count, take_dot)?);
            }
            before.context.clone()
        }
    };
    Some(Floor { target, context })
}

fn put_path(out: &mut Vec<u8>, path: &Path, before: &mut Before) {
    let shared = path.fields().iter().zip(before.path.fields()).take_while(|(a, b)| a == b).count();
    put_count(out, shared);
    put_count(out, path.fields().len() - shared);
    for field in &path.fields()[shared..] {
        out.put_u8(match field.kind {
            FieldKind::Counter => 1,
            FieldKind::Register => 2,
            FieldKind::Map => 3,
            FieldKind::Flag => 4,
            FieldKind::Set => 5,
        });
        put_text(out, &field.name);
    }
    before.path = path.clone();
}

fn take_path(bytes: &mut Bytes, before: Option<&mut Before>) -> Option<Path> {
    let Some(before) = before else { return take_many(bytes, take_field).map(Path::from) };
    let shared = before.path.fields().get(..take_count(bytes)?)?;
    let own = take_many(bytes, take_field)?;
    if shared.len() < before.path.fields().len() || !own.is_empty() {
        before.path = Path::from([shared, &own].concat());
    }
    Some(before.path.clone())
}

fn take_field(bytes: &mut Bytes) -> Option<FieldName> {
    let kind = match bytes.try_get_u8().ok()? {
        1 => FieldKind::Counter,
        2 => FieldKind::Register,
        3 => FieldKind::Map,
        4 => FieldKind::Flag,
        5 => FieldKind::Set,
        _ => return None,
    };
    Some(FieldName { name: take_text(bytes)?, kind })
}

fn put_key(out: &mut Vec<u8>, key: &CellKey, before: &mut Before) {
    put_path(out, &key.path, before);
    match &key.element {
        Element::Presence => out.put_u8(PRESENCE),
        Element::Counter => out.put_u8(COUNTER),
        Element::Register => out.put_u8(REGISTER),
        Element::Flag => out.put_u8(FLAG),
        Element::Hll => out.put_u8(HLL),
        Element::Sibling(time) => {
            out.put_u8(SIBLING);
            out.put_u64(time.0);
        }
        Element::Member(member) => {
            out.put_u8(MEMBER);
            put_text(out, member);
        }
    }
}

fn take_key(bytes: &mut Bytes, before: Option<&mut Before>) -> Option<CellKey> {
    let path = take_path(bytes, before)?;
    let element = match bytes.try_get_u8().ok()? {
        PRESENCE => Element::Presence,
        COUNTER => Element::Counter,
        REGISTER => Element::Register,
        FLAG => Element::Flag,
        HLL => Element::Hll,
        SIBLING => Element::Sibling(Time(bytes.try_get_u64().ok()?)),
        MEMBER => Element::Member(take_text(bytes)?),
        _ => return None,
    };
    Some(CellKey { path, element })
}

/// A cell's dot is that of its delta.
fn put_cell(out: &mut Vec<u8>, cell: &Cell, dot: Dot, before: &mut Before) {
    debug_assert_eq!(cell.dot, dot);
    put_key(out, &cell.key, before);
    put_count(out, record::payload_bytes(&cell.payload));
    record::encode_payload(&cell.payload, out);
}

fn take_cell(bytes: &mut Bytes, dot: Dot, before: Option<&mut Before>) -> Option<Cell> {
    let key = take_key(bytes, before)?;
    let payload = record::decode_payload(&key.element, take_text(bytes)?).ok()?;
    Some(Cell { key, dot, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cell::{CounterShare, Payload, RegisterValue};
    use crate::domain::datatype::hll::Sketch;
    use crate::domain::map::{Numbers, Partition, Partitions};
    use crate::domain::object::Content;

    fn text(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn entries() -> Vec<LogEntry> {
        let dot = Dot { actor: ActorId(7), time: Time(u64::MAX) };
        let kinds = [FieldKind::Counter, FieldKind::Register, FieldKind::Map, FieldKind::Flag, FieldKind::Set];
        let fields: Vec<_> = kinds.into_iter().map(|kind| FieldName { name: text("\0f"), kind }).collect();
        let path = Path::from(fields);
        let mut sketch = Sketch::new(14);
        sketch.add(b"x");
        let payloads = [
            (Element::Presence, Payload::Mark),
            (Element::Flag, Payload::Mark),
            (Element::Member(text("")), Payload::Mark),
            (Element::Counter, Payload::Counter(CounterShare { incremented: u128::MAX, decremented: 1 })),
            (Element::Register, Payload::Register(RegisterValue { assigned: Time(3), value: text("r") })),
            (Element::Hll, Payload::Hll(sketch.pack())),
            (Element::Sibling(Time(9)), Payload::Content(Box::new(Content { value: text("v"), ..Content::default() }))),
        ];
        let key = |element| CellKey { path: path.clone(), element };
        let puts = payloads.into_iter().map(|(element, payload)| Cell { key: key(element), dot, payload }).collect();
        let context = CausalContext::from_iter([dot, Dot { actor: ActorId(8), time: Time(1) }]);
        let targets = [
            FloorTarget::Subtree(Path::root()),
            FloorTarget::Subtree(path.clone()),
            FloorTarget::Element(key(Element::Member(text("m")))),
            FloorTarget::Siblings,
        ];
        let floors = targets.into_iter().map(|target| Floor { target, context: context.clone() }).collect();
        let bucket = BucketName { bucket_type: text("t"), bucket: text("") };
        let name = ObjectName { bucket, key: Bytes::from_static(b"\xff\0") };
        vec![
            LogEntry::Delta(name.clone(), Delta { dot, puts, floors }),
            LogEntry::Delta(name, Delta { dot, puts: vec![], floors: vec![] }),
            LogEntry::Record(text("r"), Some(text("v"))),
            LogEntry::Record(text("r"), None),
            LogEntry::ClockBound(Time(5)),
            LogEntry::Map(MapDelta {
                partition: Partition::of_number(3).unwrap(),
                partitions: Partitions::new(8.try_into().unwrap()),
                numbers: Numbers::default(),
                written_ms: 7,
                entries: vec![],
                forgotten: vec![],
            }),
        ]
    }

    #[test]
    fn entries_come_back_as_they_were() {
        for entry in entries() {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes).unwrap();
            assert_eq!(LogEntry::decode(bytes.into()), Ok(entry));
        }
    }

    #[test]
    fn a_delta_that_names_every_path_and_context_whole_is_read() {
        let mut bytes = vec![DELTA_SPELLED_OUT, 1, b't', 0, 1, b'k'];
        let dot = Dot { actor: ActorId(7), time: Time(9) };
        let seen = Dot { actor: ActorId(8), time: Time(1) };
        put_dot(&mut bytes, dot);
        bytes.extend([2, ELEMENT, 1, 5, 1, b's', MEMBER, 1, b'm', 1]);
        put_dot(&mut bytes, seen);
        bytes.extend([SUBTREE, 0, 1]);
        put_dot(&mut bytes, seen);
        bytes.extend([1, 1, 5, 1, b's', MEMBER, 1, b'n', 0]);
        let path = Path::from(vec![FieldName { name: text("s"), kind: FieldKind::Set }]);
        let member = |name| CellKey { path: path.clone(), element: Element::Member(text(name)) };
        let context = CausalContext::from_iter([seen]);
        let targets = [FloorTarget::Element(member("m")), FloorTarget::Subtree(Path::root())];
        let floors = targets.map(|target| Floor { target, context: context.clone() }).to_vec();
        let puts = vec![Cell { key: member("n"), dot, payload: Payload::Mark }];
        let name = ObjectName { bucket: BucketName { bucket_type: text("t"), bucket: text("") }, key: text("k") };
        assert_eq!(LogEntry::decode(bytes.into()), Ok(LogEntry::Delta(name, Delta { dot, puts, floors })));
    }

    #[test]
    fn what_many_cells_and_floors_have_in_common_is_spelled_once() {
        let dot = Dot { actor: ActorId(7), time: Time(9) };
        let context: CausalContext = (0..1000).map(|actor| Dot { actor: ActorId(actor), time: Time(1) }).collect();
        let name = |fill: u8| FieldName { name: vec![fill; 1000].into(), kind: FieldKind::Map };
        let path = Path::from(vec![name(1), name(2), name(3)]);
        let keys = || (0..1000_u32).map(|number| Element::Member(number.to_be_bytes().to_vec().into()));
        let key = |element| CellKey { path: path.clone(), element };
        let puts = keys().map(|element| Cell { key: key(element), dot, payload: Payload::Mark }).collect();
        let floor = |element| Floor { target: FloorTarget::Element(key(element)), context: context.clone() };
        let bucket = BucketName { bucket_type: text("t"), bucket: text("") };
        let delta = Delta { dot, puts, floors: keys().map(floor).collect() };
        let entry = LogEntry::Delta(ObjectName { bucket, key: text("k") }, delta);
        let mut bytes = Vec::new();
        entry.encode(&mut bytes).unwrap();
        assert!(bytes.len() < 3 * 1000 + 16 * 1000 + 2 * 1000 * 10 + 1000, "{} bytes", bytes.len());
        assert_eq!(LogEntry::decode(bytes.into()), Ok(entry));
    }

    #[test]
    fn a_cut_or_strange_entry_is_damage_and_no_panic() {
        for entry in entries() {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes).unwrap();
            for end in 0..bytes.len() {
                // A plain value may be cut to a shorter one only where its length says so, and that is before it.
                assert!(LogEntry::decode(Bytes::copy_from_slice(&bytes[..end])).is_err(), "{entry:?} cut at {end}");
            }
            bytes.push(0);
            assert!(LogEntry::decode(bytes.into()).is_err());
        }
        assert!(LogEntry::decode(Bytes::from_static(&[99])).is_err());
        assert!(LogEntry::decode(Bytes::from_static(&[RECORD, 0xff, 0xff, 0xff, 0xff, 0x0f])).is_err());
    }
}
