//! DtUpdateReq (`datatypes.md` §4).

use bytes::Bytes;

use super::counter::increment;
use super::refusal;
use super::value::ReplyValue;
use crate::domain::cell::{FieldKind, FieldName};
use crate::domain::context::ObjectIdentity;
use crate::domain::datatype::{FieldOperation, FieldUpdate, MapOperation, Operation, SetOperation};
use crate::domain::key::{BucketName, ObjectName};
use crate::engine::{EngineError, Update, WriteOptions, generate_key};
use crate::message::Reply;
use crate::message::generated::map_field::MapFieldType;
use crate::message::generated::{CounterOp, DtOp, DtUpdateReq, DtUpdateResp, SetOp};
use crate::message::map_op::{self, MapOp, MapOpOptions};
use crate::message::value::{EncodedReply, ValueReply};
use crate::service::error::Refusal;
use crate::service::options::{quorum, timeout};
use crate::service::{ClientState, Service};

pub(in crate::service) async fn update(
    service: &Service,
    state: &mut ClientState,
    request: Box<DtUpdateReq>,
) -> Result<Reply, Refusal> {
    let (Some(bucket), Some(bucket_type), Some(op)) = (request.bucket, request.r#type, request.op) else {
        return Err(Refusal::malformed("an update without bucket, type or operation"));
    };
    let bucket_name = BucketName { bucket_type, bucket };
    let options = WriteOptions {
        w: quorum(request.w),
        dw: quorum(request.dw),
        pw: quorum(request.pw),
        n_val: request.n_val,
        node_confirms: quorum(request.node_confirms),
        timeout: timeout(request.timeout),
    };
    let return_body = request.return_body == Some(true);
    if bucket_name.is_default_type() {
        return update_default_type(service, bucket_name, request.key, op, options, return_body).await;
    }
    let refusal = |error: EngineError| match error {
        // Riak has another text for it than in a fetch.
        EngineError::NoDataType => Refusal::open("Bucket datatype `undefined` is not a supported type"),
        other => refusal(other, &bucket_name.bucket_type),
    };
    let bucket = service.engine.data_type_bucket(&bucket_name).map_err(refusal)?;
    bucket.check_siblings().map_err(refusal)?;
    let operation = operation(service, state, op)?;
    let data_type = bucket.data_type().map_err(refusal)?;

    let generated = match &request.key {
        Some(_) => None,
        None => Some(Bytes::from(generate_key()?)),
    };
    let key = request.key.or_else(|| generated.clone()).unwrap_or_default();
    let name = ObjectName { bucket: bucket_name.clone(), key };
    let update = Update { operation, context: request.context, options };
    let mut value = ReplyValue::new(data_type, ValueReply::Update, service.options.reply_size_bytes_max);
    let sink = return_body.then_some(&mut value as _);
    let context = service.engine.update(&name, &bucket, update, sink).await.map_err(refusal)?;

    let tells_context = data_type.has_context() && request.include_context != Some(false);
    let context = context.filter(|_| tells_context).map(|context| context.encode(ObjectIdentity::of(&name)));
    let reply = DtUpdateResp { key: generated, context, ..DtUpdateResp::default() };
    Ok(if return_body { Reply::Value(EncodedReply::update(&reply, value.finish())) } else { Reply::DtUpdate(reply) })
}

/// In the default type there are only the old counters (`datatypes.md` §9.4).
async fn update_default_type(
    service: &Service,
    bucket: BucketName,
    key: Option<Bytes>,
    op: DtOp,
    options: WriteOptions,
    return_body: bool,
) -> Result<Reply, Refusal> {
    let Some(CounterOp { increment: amount }) = op.counter_op else {
        return Err(Refusal::open("\"non-counter operation on default bucket\""));
    };
    let Some(key) = key else { return Err(Refusal::malformed("an update of the default type without key")) };
    let name = ObjectName { bucket, key };
    let options = WriteOptions { n_val: None, timeout: None, ..options };
    let counter_value = increment(service, &name, amount.unwrap_or(1), options, return_body).await?;
    Ok(Reply::DtUpdate(DtUpdateResp { counter_value, ..DtUpdateResp::default() }))
}

/// Of several operations the first in Riak's order counts.
fn operation(service: &Service, state: &mut ClientState, op: DtOp) -> Result<Operation, Refusal> {
    if let Some(CounterOp { increment }) = op.counter_op {
        return Ok(Operation::Counter(increment.unwrap_or(1)));
    }
    if let Some(SetOp { adds, removes }) = op.set_op {
        return Ok(Operation::Set(SetOperation { adds, removes }));
    }
    if let Some(op) = op.hll_op {
        return Ok(Operation::Hll(op.adds));
    }
    if let Some(op) = op.gset_op {
        return Ok(Operation::GSet(op.adds));
    }
    match op.map_op {
        Some(op) => interpret(service, state, &op),
        None => Err(Refusal::malformed("an update without operation")),
    }
}

fn interpret(service: &Service, state: &mut ClientState, op: &MapOp) -> Result<Operation, Refusal> {
    let options = MapOpOptions {
        layout: service.options.map_op_layout,
        remembered: state.map_op_layout,
        depth_max: service.options.map_depth_max,
    };
    let interpretation = op.interpret(options)?;
    state.map_op_layout = interpretation.remember;
    Ok(Operation::Map(map_operation(interpretation.operation)))
}

fn map_operation(operation: map_op::MapOperation) -> MapOperation {
    MapOperation {
        adds: operation.adds.into_iter().map(field_name).collect(),
        removes: operation.removes.into_iter().map(field_name).collect(),
        updates: operation.updates.into_iter().map(field_update).collect(),
    }
}

fn field_name(field: map_op::FieldName) -> FieldName {
    let kind = match field.kind {
        MapFieldType::Counter => FieldKind::Counter,
        MapFieldType::Set => FieldKind::Set,
        MapFieldType::Register => FieldKind::Register,
        MapFieldType::Flag => FieldKind::Flag,
        MapFieldType::Map => FieldKind::Map,
    };
    FieldName { name: field.name, kind }
}

fn field_update(update: map_op::FieldUpdate) -> FieldUpdate {
    let operation = match update.operation {
        map_op::FieldOperation::Counter(increment) => FieldOperation::Counter(increment.unwrap_or(1)),
        map_op::FieldOperation::Set { adds, removes } => FieldOperation::Set(SetOperation { adds, removes }),
        map_op::FieldOperation::Register(value) => FieldOperation::Register(value),
        map_op::FieldOperation::Flag(enabled) => FieldOperation::Flag(enabled),
        map_op::FieldOperation::Map(nested) => FieldOperation::Map(map_operation(nested)),
    };
    FieldUpdate { name: update.name, operation }
}
