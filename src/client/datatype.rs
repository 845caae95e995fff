//! Data types over the wire: operations become messages, replies become values.

use bytes::Bytes;

use super::{
    Client, ClientError, Datatype, Field, FieldKind, FieldOperation, FieldValue, MapOperation, Operation, SetOperation,
    Value, unexpected,
};
use crate::message::generated::dt_fetch_resp::DataType;
use crate::message::generated::map_field::MapFieldType;
use crate::message::generated::map_update::FlagOp;
use crate::message::generated::{
    CounterOp, DtFetchReq, DtOp, DtUpdateReq, DtUpdateResp, DtValue, GSetOp, HllOp, MapEntry, MapField, MapUpdate,
    SetOp,
};
use crate::message::map_op::MapOp;
use crate::message::{Reply, Request};

/// What a fetch found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The data type of the bucket type, told even when nothing was found.
    pub datatype: Datatype,
    /// The value, if there is one.
    pub value: Option<Value>,
    /// The context to send back with removes.
    pub context: Option<Bytes>,
}

/// What an update led to. The value and the context are told when they were asked for, the key when the server drew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated {
    /// The key that the server drew.
    pub key: Option<Bytes>,
    /// The value after the update.
    pub value: Option<Value>,
    /// The context after the update.
    pub context: Option<Bytes>,
}

impl Client {
    /// Reads a data type.
    pub async fn fetch(&mut self, request: DtFetchReq) -> Result<Fetched, ClientError> {
        let reply = match self.call(&Request::DtFetch(request)).await? {
            Reply::DtFetch(reply) => reply,
            reply => return Err(unexpected(reply)),
        };
        let datatype = match DataType::try_from(reply.r#type) {
            Ok(DataType::Counter) => Datatype::Counter,
            Ok(DataType::Set) => Datatype::Set,
            Ok(DataType::Map) => Datatype::Map,
            Ok(DataType::Hll) => Datatype::Hll,
            Ok(DataType::Gset) => Datatype::Gset,
            Err(_) => return Err(ClientError::UnknownNumber { what: "data type", number: reply.r#type }),
        };
        let value = reply.value.map(|value| value_of(datatype, value)).transpose()?;
        Ok(Fetched { datatype, value, context: reply.context })
    }

    /// Changes a data type. The request's own operation is replaced.
    pub async fn update(&mut self, request: DtUpdateReq, operation: &Operation) -> Result<Updated, ClientError> {
        let return_body = request.return_body();
        let reply = match self.call(&update_request(request, operation)).await? {
            Reply::DtUpdate(reply) => reply,
            reply => return Err(unexpected(reply)),
        };
        let DtUpdateResp { key, context, counter_value, set_value, map_value, hll_value, gset_value } = reply;
        let value = DtValue { counter_value, set_value, map_value, hll_value, gset_value };
        let value = if return_body { Some(value_of(datatype_of(operation), value)?) } else { None };
        Ok(Updated { key, value, context })
    }
}

/// The request of an update, for those who send it themselves. The request's own operation is replaced.
pub fn update_request(request: DtUpdateReq, operation: &Operation) -> Request {
    Request::DtUpdate(Box::new(DtUpdateReq { op: Some(op_of(operation)), ..request }))
}

fn datatype_of(operation: &Operation) -> Datatype {
    match operation {
        Operation::Counter(_) => Datatype::Counter,
        Operation::Set(_) => Datatype::Set,
        Operation::Gset(_) => Datatype::Gset,
        Operation::Hll(_) => Datatype::Hll,
        Operation::Map(_) => Datatype::Map,
    }
}

fn op_of(operation: &Operation) -> DtOp {
    let mut op = DtOp::default();
    match operation {
        Operation::Counter(amount) => op.counter_op = Some(CounterOp { increment: Some(*amount) }),
        Operation::Set(set) => op.set_op = Some(set_op(set)),
        Operation::Gset(adds) => op.gset_op = Some(GSetOp { adds: all_bytes(adds) }),
        Operation::Hll(adds) => op.hll_op = Some(HllOp { adds: all_bytes(adds) }),
        Operation::Map(map) => op.map_op = Some(map_op(map)),
    }
    op
}

fn set_op(set: &SetOperation) -> SetOp {
    SetOp { adds: all_bytes(&set.adds), removes: all_bytes(&set.removes) }
}

fn map_op(map: &MapOperation) -> MapOp {
    let removes: Vec<_> = map.removes.iter().map(map_field).collect();
    let updates: Vec<_> = map.updates.iter().map(map_update).collect();
    MapOp::released(&removes, &updates)
}

fn map_update((field, operation): &(Field, FieldOperation)) -> MapUpdate {
    let mut update = MapUpdate { field: Some(map_field(field)), ..MapUpdate::default() };
    match operation {
        FieldOperation::Counter(amount) => update.counter_op = Some(CounterOp { increment: Some(*amount) }),
        FieldOperation::Set(set) => update.set_op = Some(set_op(set)),
        FieldOperation::Register(value) => update.register_op = Some(Bytes::copy_from_slice(value)),
        FieldOperation::Flag(true) => update.flag_op = Some(FlagOp::Enable.into()),
        FieldOperation::Flag(false) => update.flag_op = Some(FlagOp::Disable.into()),
        FieldOperation::Map(map) => update.map_op = Some(map_op(map)),
    }
    update
}

fn map_field(field: &Field) -> MapField {
    let kind = match field.kind {
        FieldKind::Counter => MapFieldType::Counter,
        FieldKind::Set => MapFieldType::Set,
        FieldKind::Register => MapFieldType::Register,
        FieldKind::Flag => MapFieldType::Flag,
        FieldKind::Map => MapFieldType::Map,
    };
    MapField { name: Some(Bytes::copy_from_slice(&field.name)), r#type: Some(kind.into()) }
}

fn all_bytes(members: &[Vec<u8>]) -> Vec<Bytes> {
    members.iter().map(|member| Bytes::copy_from_slice(member)).collect()
}

/// Only the member that fits the data type is read.
fn value_of(datatype: Datatype, value: DtValue) -> Result<Value, ClientError> {
    Ok(match datatype {
        Datatype::Counter => Value::Counter(value.counter_value()),
        Datatype::Set => Value::Set(all_vecs(&value.set_value)),
        Datatype::Gset => Value::Gset(all_vecs(&value.gset_value)),
        Datatype::Hll => Value::Hll(value.hll_value()),
        Datatype::Map => Value::Map(fields_of(value.map_value)?),
    })
}

/// Recurses as deep as the maps are nested, which the decoder has bounded.
fn fields_of(entries: Vec<MapEntry>) -> Result<Vec<(Field, FieldValue)>, ClientError> {
    entries.into_iter().map(field_of).collect()
}

fn field_of(entry: MapEntry) -> Result<(Field, FieldValue), ClientError> {
    let number = entry.field.r#type.unwrap_or_default();
    let (kind, value) = match MapFieldType::try_from(number) {
        Ok(MapFieldType::Counter) => (FieldKind::Counter, FieldValue::Counter(entry.counter_value())),
        Ok(MapFieldType::Set) => (FieldKind::Set, FieldValue::Set(all_vecs(&entry.set_value))),
        Ok(MapFieldType::Register) => (FieldKind::Register, FieldValue::Register(entry.register_value().to_vec())),
        Ok(MapFieldType::Flag) => (FieldKind::Flag, FieldValue::Flag(entry.flag_value())),
        Ok(MapFieldType::Map) => (FieldKind::Map, FieldValue::Map(fields_of(entry.map_value)?)),
        Err(_) => return Err(ClientError::UnknownNumber { what: "field type", number }),
    };
    Ok((Field { name: entry.field.name().to_vec(), kind }, value))
}

fn all_vecs(members: &[Bytes]) -> Vec<Vec<u8>> {
    members.iter().map(|member| member.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn field(name: &str, kind: FieldKind) -> Field {
        Field { name: name.into(), kind }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// Recorded bytes of real clients, the operation's field of the request alone.
    #[test]
    fn operations_have_the_bytes_of_released_clients() {
        let set = SetOperation { adds: vec![b"x".to_vec()], removes: vec![b"y".to_vec()] };
        let map = MapOperation {
            removes: vec![field("f", FieldKind::Set)],
            updates: vec![(field("f", FieldKind::Flag), FieldOperation::Flag(true))],
        };
        for (operation, bytes) in [
            (Operation::Counter(-5), "0a02 0809"),
            (Operation::Set(set), "1206 0a0178 120179"),
            (Operation::Gset(vec![b"x".to_vec()]), "2a03 0a0178"),
            (Operation::Hll(vec![b"x".to_vec()]), "2203 0a0178"),
            (Operation::Map(map), "1a12 0a05 0a0166 1002 1209 0a05 0a0166 1004 2801"),
        ] {
            assert_eq!(op_of(&operation).encode_to_vec(), hex(bytes), "{operation:?}");
        }
    }

    #[test]
    fn every_field_kind_fills_its_own_member() {
        let inner = MapOperation {
            updates: vec![(field("r", FieldKind::Register), FieldOperation::Register(b"v".to_vec()))],
            ..MapOperation::default()
        };
        let set = SetOperation { adds: vec![b"a".to_vec()], removes: vec![] };
        let update = |kind, operation| map_update(&(field("f", kind), operation));
        assert_eq!(update(FieldKind::Counter, FieldOperation::Counter(2)).counter_op.unwrap().increment, Some(2));
        assert_eq!(update(FieldKind::Set, FieldOperation::Set(set)).set_op.unwrap().adds, ["a"]);
        assert_eq!(update(FieldKind::Register, FieldOperation::Register(vec![])).register_op, Some(Bytes::new()));
        assert_eq!(update(FieldKind::Flag, FieldOperation::Flag(false)).flag_op, Some(2));
        assert_eq!(update(FieldKind::Map, FieldOperation::Map(inner.clone())).map_op, Some(map_op(&inner)));
    }

    /// Recorded entries of a real server.
    #[test]
    fn map_values_are_read() {
        let bytes = "1a09 0a05 0a0166 1001 1002  1a0a 0a05 0a0166 1003 220176
                     1a14 0a05 0a0166 1005 320b 0a06 0a02 696e 1003 220177
                     1a09 0a05 0a0166 1004 2801  1a0d 0a05 0a0166 1002 1a0161 1a017a";
        let value = DtValue::decode(hex(bytes).as_slice()).unwrap();
        let inner = vec![(field("in", FieldKind::Register), FieldValue::Register(b"w".to_vec()))];
        let members = vec![b"a".to_vec(), b"z".to_vec()];
        assert_eq!(
            value_of(Datatype::Map, value).unwrap(),
            Value::Map(vec![
                (field("f", FieldKind::Counter), FieldValue::Counter(1)),
                (field("f", FieldKind::Register), FieldValue::Register(b"v".to_vec())),
                (field("f", FieldKind::Map), FieldValue::Map(inner)),
                (field("f", FieldKind::Flag), FieldValue::Flag(true)),
                (field("f", FieldKind::Set), FieldValue::Set(members)),
            ])
        );
        let unknown = MapEntry { field: MapField { name: None, r#type: None }, ..MapEntry::default() };
        let error = fields_of(vec![unknown]).unwrap_err();
        assert!(matches!(error, ClientError::UnknownNumber { number: 0, .. }), "{error}");
    }
}
