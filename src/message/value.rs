//! Writes the value of a data type into a reply while it is still being read, so that a value of any size is held once.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::code::Code;
use super::generated::map_field::MapFieldType;
use super::generated::{DtFetchResp, DtUpdateResp, MapField};

/// The value has outgrown the bytes that the reply may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueTooLarge;

/// The message that the value is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueReply {
    /// DtFetchResp, which holds the value in a message of its own.
    Fetch,
    /// DtUpdateResp, whose fields the value's are.
    Update,
}

/// The field numbers of a value, which differ from message to message.
#[derive(Clone, Copy)]
struct Numbers {
    counter: u32,
    set: u32,
    map: u32,
    hll: u32,
    gset: u32,
}

const DT_VALUE: Numbers = Numbers { counter: 1, set: 2, map: 3, hll: 4, gset: 5 };
const DT_UPDATE_RESP: Numbers = Numbers { counter: 3, set: 4, map: 5, hll: 6, gset: 7 };

// MapEntry has registers and flags as well, but neither hlls nor gsets.
const ENTRY_FIELD: u32 = 1;
const ENTRY_COUNTER: u32 = 2;
const ENTRY_SET: u32 = 3;
const ENTRY_REGISTER: u32 = 4;
const ENTRY_FLAG: u32 = 5;
const ENTRY_MAP: u32 = 6;

/// Takes a value part by part and encodes it. The fields of a map are begun and ended; everything else is written where it
/// is: in the field that was begun last, or at the top.
#[derive(Debug)]
pub struct ValueEncoder {
    reply: ValueReply,
    size_bytes_max: usize,
    encoded: BytesMut,
    /// Where the entries that have begun begin, behind their tags.
    entries: Vec<usize>,
}

impl ValueEncoder {
    /// An encoder for a reply, which takes up to `size_bytes_max` bytes.
    pub fn new(reply: ValueReply, size_bytes_max: usize) -> Self {
        Self { reply, size_bytes_max, encoded: BytesMut::new(), entries: Vec::new() }
    }

    /// A counter's value.
    pub fn counter(&mut self, value: i64) -> Result<(), ValueTooLarge> {
        let number = self.number(|numbers| numbers.counter, ENTRY_COUNTER);
        prost::encoding::sint64::encode(number, &value, &mut self.encoded);
        self.check_size()
    }

    /// A set's member.
    pub fn set_member(&mut self, member: &[u8]) -> Result<(), ValueTooLarge> {
        let number = self.number(|numbers| numbers.set, ENTRY_SET);
        self.bytes(number, member)
    }

    /// A grow-only set's member. There are none inside maps.
    pub fn gset_member(&mut self, member: &[u8]) -> Result<(), ValueTooLarge> {
        let number = self.top().gset;
        self.bytes(number, member)
    }

    /// A HyperLogLog's estimate. There are none inside maps.
    pub fn hll(&mut self, estimate: u64) -> Result<(), ValueTooLarge> {
        let number = self.top().hll;
        prost::encoding::uint64::encode(number, &estimate, &mut self.encoded);
        self.check_size()
    }

    /// A register's value. There are none outside maps.
    pub fn register(&mut self, value: &[u8]) -> Result<(), ValueTooLarge> {
        self.bytes(ENTRY_REGISTER, value)
    }

    /// A flag. There are none outside maps.
    pub fn flag(&mut self, enabled: bool) -> Result<(), ValueTooLarge> {
        prost::encoding::bool::encode(ENTRY_FLAG, &enabled, &mut self.encoded);
        self.check_size()
    }

    /// Begins a field of the map that is being written.
    pub fn begin_field(&mut self, name: &Bytes, kind: MapFieldType) -> Result<(), ValueTooLarge> {
        let number = self.number(|numbers| numbers.map, ENTRY_MAP);
        encode_key(number, WireType::LengthDelimited, &mut self.encoded);
        self.entries.push(self.encoded.len());
        let field = MapField { name: Some(name.clone()), r#type: Some(kind.into()) };
        prost::encoding::message::encode(ENTRY_FIELD, &field, &mut self.encoded);
        self.check_size()
    }

    /// Ends the field that was begun last: only now is its length known, which goes before it.
    pub fn end_field(&mut self) -> Result<(), ValueTooLarge> {
        let Some(start) = self.entries.pop() else { return Ok(()) };
        let length = self.encoded.len() - start;
        let prefix = encoded_len_varint(length as u64);
        self.encoded.put_bytes(0, prefix);
        self.encoded.copy_within(start..start + length, start + prefix);
        encode_varint(length as u64, &mut &mut self.encoded[start..start + prefix]);
        self.check_size()
    }

    /// The value, once its last part was taken.
    pub fn finish(self) -> EncodedValue {
        EncodedValue { reply: self.reply, encoded: self.encoded.freeze() }
    }

    fn top(&self) -> Numbers {
        match self.reply {
            ValueReply::Fetch => DT_VALUE,
            ValueReply::Update => DT_UPDATE_RESP,
        }
    }

    fn number(&self, at_top: impl Fn(Numbers) -> u32, in_entry: u32) -> u32 {
        if self.entries.is_empty() { at_top(self.top()) } else { in_entry }
    }

    fn bytes(&mut self, number: u32, value: &[u8]) -> Result<(), ValueTooLarge> {
        encode_key(number, WireType::LengthDelimited, &mut self.encoded);
        encode_varint(value.len() as u64, &mut self.encoded);
        self.encoded.put_slice(value);
        self.check_size()
    }

    fn check_size(&self) -> Result<(), ValueTooLarge> {
        if self.encoded.len() > self.size_bytes_max { Err(ValueTooLarge) } else { Ok(()) }
    }
}

/// A value as it stands in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedValue {
    reply: ValueReply,
    encoded: Bytes,
}

/// A reply that holds an encoded value: what comes before it, and the value itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedReply {
    code: Code,
    head: Bytes,
    value: Bytes,
}

impl EncodedReply {
    /// The answer to a fetch. Its `value` must be that of [`ValueReply::Fetch`].
    pub fn fetch(reply: &DtFetchResp, value: EncodedValue) -> Self {
        debug_assert_eq!(value.reply, ValueReply::Fetch);
        let mut head = BytesMut::from(&reply.encode_to_vec()[..]);
        encode_key(3, WireType::LengthDelimited, &mut head);
        encode_varint(value.encoded.len() as u64, &mut head);
        Self { code: Code::DtFetchResp, head: head.freeze(), value: value.encoded }
    }

    /// The answer to an update. Its `value` must be that of [`ValueReply::Update`].
    pub fn update(reply: &DtUpdateResp, value: EncodedValue) -> Self {
        debug_assert_eq!(value.reply, ValueReply::Update);
        Self { code: Code::DtUpdateResp, head: reply.encode_to_vec().into(), value: value.encoded }
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// The payload in two parts.
    pub fn parts(&self) -> [Bytes; 2] {
        [self.head.clone(), self.value.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Reply;
    use crate::message::generated::{DtValue, MapEntry};

    fn write(encoder: &mut ValueEncoder) -> Result<(), ValueTooLarge> {
        let name = Bytes::from_static(b"f");
        encoder.begin_field(&name, MapFieldType::Counter)?;
        encoder.counter(-3)?;
        encoder.end_field()?;
        encoder.begin_field(&name, MapFieldType::Map)?;
        encoder.begin_field(&Bytes::new(), MapFieldType::Register)?;
        encoder.register(&[b'x'; 300])?;
        encoder.end_field()?;
        encoder.begin_field(&name, MapFieldType::Flag)?;
        encoder.flag(false)?;
        encoder.end_field()?;
        encoder.end_field()?;
        encoder.begin_field(&name, MapFieldType::Set)?;
        encoder.set_member(b"a")?;
        encoder.set_member(b"")?;
        encoder.end_field()
    }

    fn entries() -> Vec<MapEntry> {
        let entry = |name: &'static str, kind: MapFieldType| MapEntry {
            field: MapField { name: Some(name.into()), r#type: Some(kind.into()) },
            ..MapEntry::default()
        };
        let inside = vec![
            MapEntry { register_value: Some(vec![b'x'; 300].into()), ..entry("", MapFieldType::Register) },
            MapEntry { flag_value: Some(false), ..entry("f", MapFieldType::Flag) },
        ];
        vec![
            MapEntry { counter_value: Some(-3), ..entry("f", MapFieldType::Counter) },
            MapEntry { map_value: inside, ..entry("f", MapFieldType::Map) },
            MapEntry { set_value: vec!["a".into(), "".into()], ..entry("f", MapFieldType::Set) },
        ]
    }

    fn encoded(reply: ValueReply) -> EncodedValue {
        let mut encoder = ValueEncoder::new(reply, 10_000);
        write(&mut encoder).unwrap();
        encoder.finish()
    }

    #[test]
    fn a_fetch_is_what_the_whole_message_would_be() {
        let head = DtFetchResp { context: Some("c".into()), r#type: 3, value: None };
        let whole = DtFetchResp { value: Some(DtValue { map_value: entries(), ..DtValue::default() }), ..head.clone() };
        let [first, second] = EncodedReply::fetch(&head, encoded(ValueReply::Fetch)).parts();
        assert_eq!([first, second].concat(), Reply::DtFetch(whole).encode());
    }

    #[test]
    fn an_update_is_what_the_whole_message_would_be() {
        let head = DtUpdateResp { key: Some("k".into()), context: Some("c".into()), ..DtUpdateResp::default() };
        let whole = DtUpdateResp { map_value: entries(), ..head.clone() };
        let [first, second] = EncodedReply::update(&head, encoded(ValueReply::Update)).parts();
        assert_eq!([first, second].concat(), Reply::DtUpdate(whole).encode());
    }

    #[test]
    fn values_of_other_types_stand_under_their_numbers() {
        let mut encoder = ValueEncoder::new(ValueReply::Fetch, 100);
        encoder.hll(2).unwrap();
        encoder.gset_member(b"a").unwrap();
        encoder.counter(0).unwrap();
        assert_eq!(encoder.finish().encoded, Bytes::from_static(b"\x20\x02\x2a\x01a\x08\x00"));
        let mut encoder = ValueEncoder::new(ValueReply::Update, 100);
        encoder.hll(2).unwrap();
        encoder.gset_member(b"a").unwrap();
        encoder.counter(-4).unwrap();
        assert_eq!(encoder.finish().encoded, Bytes::from_static(b"\x30\x02\x3a\x01a\x18\x07"));
    }

    #[test]
    fn what_outgrows_the_limit_is_told_at_once() {
        let mut encoder = ValueEncoder::new(ValueReply::Fetch, 6);
        assert_eq!(encoder.set_member(b"1234"), Ok(()));
        assert_eq!(encoder.set_member(b""), Err(ValueTooLarge));
    }
}
