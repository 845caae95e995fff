//! Data type values as messages.

use bytes::Bytes;
use prost::Message;

use crate::domain::cell::{FieldKind, FieldName};
use crate::domain::datatype::{DataType, FieldValue, Value};
use crate::message::generated::dt_fetch_resp::DataType as TypeNumber;
use crate::message::generated::map_field::MapFieldType;
use crate::message::generated::{DtFetchResp, DtValue, MapEntry, MapField};

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

pub(in crate::service) fn value(value: Value) -> DtValue {
    let empty = DtValue::default();
    match value {
        Value::Counter(counter) => DtValue { counter_value: Some(counter), ..empty },
        Value::Set(members) => DtValue { set_value: members, ..empty },
        Value::GSet(members) => DtValue { gset_value: members, ..empty },
        Value::Hll(estimate) => DtValue { hll_value: Some(estimate), ..empty },
        Value::Map(fields) => DtValue { map_value: entries(fields), ..empty },
    }
}

fn entries(fields: Vec<(FieldName, FieldValue)>) -> Vec<MapEntry> {
    fields.into_iter().map(|(name, value)| entry(name, value)).collect()
}

fn entry(name: FieldName, value: FieldValue) -> MapEntry {
    let kind = match name.kind {
        FieldKind::Counter => MapFieldType::Counter,
        FieldKind::Set => MapFieldType::Set,
        FieldKind::Register => MapFieldType::Register,
        FieldKind::Flag => MapFieldType::Flag,
        FieldKind::Map => MapFieldType::Map,
    };
    let field = MapField { name: Some(name.name), r#type: Some(kind.into()) };
    let empty = MapEntry { field, ..MapEntry::default() };
    match value {
        FieldValue::Counter(counter) => MapEntry { counter_value: Some(counter), ..empty },
        FieldValue::Set(members) => MapEntry { set_value: members, ..empty },
        FieldValue::Register(register) => MapEntry { register_value: Some(register), ..empty },
        FieldValue::Flag(flag) => MapEntry { flag_value: Some(flag), ..empty },
        FieldValue::Map(fields) => MapEntry { map_value: entries(fields), ..empty },
    }
}

/// What a plain get shows as the value of a data type: bytes that no client interprets in Riak (`datatypes.md` §8, K-1).
/// Here they are a DtFetchResp without context, so that whoever wants to can.
pub(in crate::service) fn opaque_value(data_type: DataType, shown: &Value) -> Bytes {
    let value = Some(value(shown.clone()));
    DtFetchResp { context: None, r#type: type_number(data_type), value }.encode_to_vec().into()
}
