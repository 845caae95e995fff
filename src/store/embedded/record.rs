//! How the values of rows are spelled. Each begins with a version byte, so that a later release reads what this one wrote.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use std::time::Duration;

use super::layout::{RowId, RowKey};
use crate::domain::cell::{Cell, CounterShare, Element, Payload, RegisterValue};
use crate::domain::dot::{ActorId, Dot, Time};
use crate::domain::object::{Content, Link};
use crate::store::StoreError;

/// A value whose row key says everything.
const VERSION: u8 = 1;
/// A value behind the whole key, for rows whose key was cut.
const VERSION_WITH_KEY: u8 = 2;

/// Puts the version, and the whole key where the row's was cut, before a value.
fn begin(key: Option<&RowKey>, reserve: usize) -> BytesMut {
    let whole = key.and_then(|key| key.whole.as_ref());
    let mut out = BytesMut::with_capacity(1 + reserve + whole.map_or(0, |whole| 4 + whole.len()));
    match whole {
        None => out.put_u8(VERSION),
        Some(whole) => {
            out.put_u8(VERSION_WITH_KEY);
            out.put_u32(u32::try_from(whole.len()).expect("keys are bounded by the frame size"));
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
        _ => Err(damaged),
    }
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
    /// The actors that ever wrote to the content, so that a cell is found by point reads.
    pub(super) actors: Vec<ActorId>,
    /// The plain values, so that they too are found by point reads: a scan would step over every older version of them.
    pub(super) siblings: Vec<SiblingEntry>,
}

/// One plain value as the header lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SiblingEntry {
    pub(super) dot: Dot,
    /// The number of its row. Numbers are used again, so that a value which replaces another is written over it.
    pub(super) slot: u32,
    /// Whether it is a tombstone.
    pub(super) deleted: bool,
}

impl Header {
    pub(super) fn new(id: RowId) -> Self {
        Self { id, content: None, floors: 0, actors: Vec::new(), siblings: Vec::new() }
    }

    /// Whether the object is listed.
    pub(super) fn is_listed(&self) -> bool {
        self.content.is_some() || self.siblings.iter().any(|sibling| !sibling.deleted)
    }

    /// Whether nothing at all is left of the object.
    pub(super) fn is_empty(&self) -> bool {
        self.content.is_none() && self.siblings.is_empty()
    }

    pub(super) fn encode(&self, key: &RowKey) -> Bytes {
        let count = |items: usize| u32::try_from(items).expect("a header was built in memory");
        let mut out = begin(Some(key), 41 + self.actors.len() * 8 + self.siblings.len() * 21);
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
        for actor in &self.actors {
            out.put_u64(actor.0);
        }
        for sibling in &self.siblings {
            out.put_u64(sibling.dot.time.0);
            out.put_u64(sibling.dot.actor.0);
            out.put_u32(sibling.slot);
            out.put_u8(u8::from(sibling.deleted));
        }
        out.freeze()
    }

    /// Reads what follows the version.
    pub(super) fn decode(value: Bytes) -> Result<Self, StoreError> {
        Self::try_decode(value).ok_or(StoreError::Damaged { what: "object header" })
    }

    fn try_decode(mut value: Bytes) -> Option<Self> {
        let id = take_id(&mut value)?;
        let content = if take_bool(&mut value)? { Some(take_id(&mut value)?) } else { None };
        let floors = value.try_get_u32().ok()?;
        let actors = value.try_get_u32().ok()? as usize;
        if value.len() / 8 < actors {
            return None;
        }
        let actors = value.split_to(actors * 8).chunks_exact(8).map(|mut actor| ActorId(actor.get_u64())).collect();
        let mut siblings = Vec::with_capacity(value.len() / 21);
        while !value.is_empty() {
            siblings.push(take_sibling(&mut value)?);
        }
        Some(Self { id, content, floors, actors, siblings })
    }
}

fn take_sibling(value: &mut Bytes) -> Option<SiblingEntry> {
    let time = Time(value.try_get_u64().ok()?);
    let actor = ActorId(value.try_get_u64().ok()?);
    let slot = value.try_get_u32().ok()?;
    Some(SiblingEntry { dot: Dot { actor, time }, slot, deleted: take_bool(value)? })
}

fn take_bool(value: &mut Bytes) -> Option<bool> {
    match value.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_id(value: &mut Bytes) -> Option<RowId> {
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

/// A cell's value: its time, then its payload.
pub(super) fn encode_cell(key: Option<&RowKey>, cell: &Cell) -> Bytes {
    match &cell.payload {
        Payload::Mark => {
            let mut out = begin(key, 8);
            out.put_u64(cell.dot.time.0);
            out.freeze()
        }
        Payload::Counter(share) => {
            let mut out = begin(key, 40);
            out.put_u64(cell.dot.time.0);
            out.put_u128(share.incremented);
            out.put_u128(share.decremented);
            out.freeze()
        }
        Payload::Register(register) => {
            let mut out = begin(key, 16 + register.value.len());
            out.put_u64(cell.dot.time.0);
            out.put_u64(register.assigned.0);
            out.put_slice(&register.value);
            out.freeze()
        }
        Payload::Content(content) => {
            let record = ContentRecord::from(content);
            let mut out = begin(key, 9 + record.encoded_len());
            out.put_u64(cell.dot.time.0);
            out.put_u8(u8::from(content.deleted));
            record.encode(&mut out).expect("a growable buffer takes every record");
            out.freeze()
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
        Element::Sibling(_) => {
            let deleted = take_bool(&mut value)?;
            let record = ContentRecord::decode(value).ok()?;
            Payload::Content(record.into_content(deleted))
        }
    })
}

/// A plain value as it is stored. Fields may be added, never renumbered.
#[derive(Clone, PartialEq, prost::Message)]
struct ContentRecord {
    #[prost(bytes = "bytes", tag = "1")]
    value: Bytes,
    #[prost(bytes = "bytes", optional, tag = "2")]
    content_type: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    charset: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    content_encoding: Option<Bytes>,
    #[prost(message, repeated, tag = "5")]
    links: Vec<LinkRecord>,
    #[prost(message, repeated, tag = "6")]
    user_metadata: Vec<PairRecord>,
    #[prost(message, repeated, tag = "7")]
    indexes: Vec<PairRecord>,
    #[prost(uint64, tag = "8")]
    modified_us: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinkRecord {
    #[prost(bytes = "bytes", optional, tag = "1")]
    bucket: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    tag: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PairRecord {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

impl From<&Content> for ContentRecord {
    fn from(content: &Content) -> Self {
        let pairs = |pairs: &[(Bytes, Bytes)]| {
            pairs.iter().map(|(name, value)| PairRecord { name: name.clone(), value: value.clone() }).collect()
        };
        let link =
            |link: &Link| LinkRecord { bucket: link.bucket.clone(), key: link.key.clone(), tag: link.tag.clone() };
        Self {
            value: content.value.clone(),
            content_type: content.content_type.clone(),
            charset: content.charset.clone(),
            content_encoding: content.content_encoding.clone(),
            links: content.links.iter().map(link).collect(),
            user_metadata: pairs(&content.user_metadata),
            indexes: pairs(&content.indexes),
            modified_us: u64::try_from(content.modified.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

impl ContentRecord {
    fn into_content(self, deleted: bool) -> Content {
        let pairs = |pairs: Vec<PairRecord>| pairs.into_iter().map(|pair| (pair.name, pair.value)).collect();
        let link = |link: LinkRecord| Link { bucket: link.bucket, key: link.key, tag: link.tag };
        Content {
            value: self.value,
            content_type: self.content_type,
            charset: self.charset,
            content_encoding: self.content_encoding,
            links: self.links.into_iter().map(link).collect(),
            user_metadata: pairs(self.user_metadata),
            indexes: pairs(self.indexes),
            modified: Duration::from_micros(self.modified_us),
            deleted,
        }
    }
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
