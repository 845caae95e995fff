//! Data type values as messages.

use bytes::Bytes;

use crate::domain::cell::FieldKind;
use crate::domain::datatype::DataType;
use crate::domain::datatype::value::{Full, Part, ValueSink};
use crate::message::generated::DtFetchResp;
use crate::message::generated::dt_fetch_resp::DataType as TypeNumber;
use crate::message::generated::map_field::MapFieldType;
use crate::message::value::{EncodedReply, EncodedValue, ValueEncoder, ValueReply, ValueTooLarge};

/// The number that replies carry for a data type.
pub(in crate::service) fn type_number(data_type: DataType) -> i32 {
    let number = match data_type {
        DataType::Counter => TypeNumber::Counter,
        DataType::Set => TypeNumber::Set,
        DataType::Map => TypeNumber::Map,
        DataType::Hll => TypeNumber::Hll,
        DataType::GSet => TypeNumber::Gset,
    };
    number.into()
}

/// Writes a value into a reply as it is read.
pub(in crate::service) struct ReplyValue {
    data_type: DataType,
    encoder: ValueEncoder,
}

impl ReplyValue {
    pub(in crate::service) fn new(data_type: DataType, reply: ValueReply, size_bytes_max: usize) -> Self {
        Self { data_type, encoder: ValueEncoder::new(reply, size_bytes_max) }
    }

    pub(in crate::service) fn finish(self) -> EncodedValue {
        self.encoder.finish()
    }

    /// What a plain get shows as the value of a data type: bytes that no client interprets in Riak (`datatypes.md` §8,
    /// K-1). Here they are a DtFetchResp without context, so that whoever wants to can.
    pub(in crate::service) fn finish_opaque(self) -> Bytes {
        let head = DtFetchResp { context: None, r#type: type_number(self.data_type), value: None };
        EncodedReply::fetch(&head, self.encoder.finish()).parts().concat().into()
    }
}

impl ValueSink for ReplyValue {
    fn take(&mut self, part: Part<'_>) -> Result<(), Full> {
        let encoder = &mut self.encoder;
        let taken = match part {
            Part::Counter(sum) => encoder.counter(sum),
            Part::Member(member) if self.data_type == DataType::GSet => encoder.gset_member(member),
            Part::Member(member) => encoder.set_member(member),
            Part::Register(value) => encoder.register(value),
            Part::Flag(enabled) => encoder.flag(enabled),
            Part::Hll(estimate) => encoder.hll(estimate),
            Part::FieldStart(field) => encoder.begin_field(&field.name, kind_number(field.kind)),
            Part::FieldEnd => encoder.end_field(),
        };
        taken.map_err(|ValueTooLarge| Full)
    }
}

fn kind_number(kind: FieldKind) -> MapFieldType {
    match kind {
        FieldKind::Counter => MapFieldType::Counter,
        FieldKind::Set => MapFieldType::Set,
        FieldKind::Register => MapFieldType::Register,
        FieldKind::Flag => MapFieldType::Flag,
        FieldKind::Map => MapFieldType::Map,
    }
}
