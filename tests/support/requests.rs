//! Requests of the messages' own types, with the fields that tests care about.
#![allow(dead_code, reason = "each test binary uses its part")]

use bytes::Bytes;
use ombak::message::Request;
use ombak::message::generated::map_field::MapFieldType;
use ombak::message::generated::map_update::FlagOp;
use ombak::message::generated::*;
use ombak::message::map_op::MapOp;

fn some(text: &(impl AsRef<[u8]> + ?Sized)) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_ref()))
}

pub fn fetch_req(bucket_type: &str, key: &str) -> DtFetchReq {
    DtFetchReq { bucket: some("b"), key: some(key), r#type: some(bucket_type), ..DtFetchReq::default() }
}

pub fn fetch(bucket_type: &str, key: &str) -> Request {
    Request::DtFetch(fetch_req(bucket_type, key))
}

pub fn update_req(bucket_type: &str, key: &str, op: DtOp) -> DtUpdateReq {
    DtUpdateReq { bucket: some("b"), key: some(key), r#type: some(bucket_type), op: Some(op), ..DtUpdateReq::default() }
}

pub fn update(bucket_type: &str, key: &str, op: DtOp) -> Request {
    Request::DtUpdate(Box::new(update_req(bucket_type, key, op)))
}

pub fn update_with(bucket_type: &str, key: &str, op: DtOp, context: &[u8]) -> Request {
    Request::DtUpdate(Box::new(DtUpdateReq { context: some(context), ..update_req(bucket_type, key, op) }))
}

pub fn counter(increment: i64) -> DtOp {
    DtOp { counter_op: Some(CounterOp { increment: Some(increment) }), ..DtOp::default() }
}

pub fn set_op(adds: &[&str], removes: &[&str]) -> SetOp {
    SetOp { adds: bytes(adds), removes: bytes(removes) }
}

pub fn set(adds: &[&str], removes: &[&str]) -> DtOp {
    DtOp { set_op: Some(set_op(adds, removes)), ..DtOp::default() }
}

pub fn gset(adds: &[&str]) -> DtOp {
    DtOp { gset_op: Some(GSetOp { adds: bytes(adds) }), ..DtOp::default() }
}

pub fn hll(adds: &[&str]) -> DtOp {
    DtOp { hll_op: Some(HllOp { adds: bytes(adds) }), ..DtOp::default() }
}

pub fn map(removes: &[MapField], updates: &[MapUpdate]) -> DtOp {
    DtOp { map_op: Some(MapOp::released(removes, updates)), ..DtOp::default() }
}

pub fn field(name: &str, kind: MapFieldType) -> MapField {
    MapField { name: some(name), r#type: Some(kind.into()) }
}

fn update_of(name: &str, kind: MapFieldType) -> MapUpdate {
    MapUpdate { field: Some(field(name, kind)), ..MapUpdate::default() }
}

pub fn in_counter(name: &str, increment: i64) -> MapUpdate {
    MapUpdate { counter_op: Some(CounterOp { increment: Some(increment) }), ..update_of(name, MapFieldType::Counter) }
}

pub fn in_set(name: &str, adds: &[&str], removes: &[&str]) -> MapUpdate {
    MapUpdate { set_op: Some(set_op(adds, removes)), ..update_of(name, MapFieldType::Set) }
}

pub fn in_register(name: &str, value: &str) -> MapUpdate {
    MapUpdate { register_op: some(value), ..update_of(name, MapFieldType::Register) }
}

pub fn in_flag(name: &str, enable: bool) -> MapUpdate {
    let op = if enable { FlagOp::Enable } else { FlagOp::Disable };
    MapUpdate { flag_op: Some(op.into()), ..update_of(name, MapFieldType::Flag) }
}

pub fn in_map(name: &str, removes: &[MapField], updates: &[MapUpdate]) -> MapUpdate {
    MapUpdate { map_op: Some(MapOp::released(removes, updates)), ..update_of(name, MapFieldType::Map) }
}

pub fn put(bucket_type: &str, bucket: &str, key: &str, value: &str) -> Request {
    let content = RpbContent { value: Bytes::copy_from_slice(value.as_bytes()), ..RpbContent::default() };
    Request::Put(Box::new(RpbPutReq {
        bucket: some(bucket),
        key: some(key),
        r#type: some(bucket_type),
        content: Some(content),
        ..RpbPutReq::default()
    }))
}

pub fn get(bucket_type: &str, bucket: &str, key: &str) -> Request {
    Request::Get(RpbGetReq { bucket: some(bucket), key: some(key), r#type: some(bucket_type), ..RpbGetReq::default() })
}

pub fn delete(bucket_type: &str, key: &str) -> Request {
    Request::Delete(RpbDelReq { bucket: some("b"), key: some(key), r#type: some(bucket_type), ..RpbDelReq::default() })
}

/// Allows siblings in a bucket of the default type.
pub fn allow_siblings(bucket: &str) -> Request {
    let props = RpbBucketProps { allow_mult: Some(true), ..RpbBucketProps::default() };
    Request::SetBucket(Box::new(RpbSetBucketReq {
        bucket: some(bucket),
        props: Some(props),
        ..RpbSetBucketReq::default()
    }))
}

fn bytes(members: &[&str]) -> Vec<Bytes> {
    members.iter().map(|member| Bytes::copy_from_slice(member.as_bytes())).collect()
}
