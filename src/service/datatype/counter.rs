//! RpbCounterUpdateReq and RpbCounterGetReq: the counters of the default type, older than data types (`datatypes.md` §9).

use crate::domain::datatype::Operation;
use crate::domain::datatype::value::{Full, Part, ValueSink};
use crate::domain::key::{BucketName, ObjectName};
use crate::engine::{EngineError, Fetched, ReadOptions, Update, WriteOptions};
use crate::message::Reply;
use crate::message::generated::{RpbCounterGetReq, RpbCounterGetResp, RpbCounterUpdateReq, RpbCounterUpdateResp};
use crate::service::Service;
use crate::service::error::Refusal;
use crate::service::options::{quorum, required};

pub(in crate::service) async fn update(service: &Service, request: RpbCounterUpdateReq) -> Result<Reply, Refusal> {
    let Some(amount) = request.amount else { return Err(Refusal::malformed("a counter update without amount")) };
    let bucket = BucketName::new(None, required(request.bucket));
    let name = ObjectName { bucket, key: required(request.key) };
    let options = WriteOptions {
        w: quorum(request.w),
        dw: quorum(request.dw),
        pw: quorum(request.pw),
        node_confirms: quorum(request.node_confirms),
        ..WriteOptions::default()
    };
    let value = increment(service, &name, amount, options, request.returnvalue == Some(true)).await?;
    Ok(Reply::CounterUpdate(RpbCounterUpdateResp { value }))
}

pub(in crate::service) async fn get(service: &Service, request: RpbCounterGetReq) -> Result<Reply, Refusal> {
    let bucket = BucketName::new(None, required(request.bucket));
    let name = ObjectName { bucket, key: required(request.key) };
    let options = ReadOptions {
        r: quorum(request.r),
        pr: quorum(request.pr),
        node_confirms: request.node_confirms,
        notfound_ok: request.notfound_ok,
        ..ReadOptions::default()
    };
    let bucket = service.engine.data_type_bucket(&name.bucket)?;
    let mut sum = Sum::default();
    let value = match service.engine.fetch(&name, &bucket, options, &mut sum).await? {
        Fetched::Found(_) | Fetched::OtherContent => Some(sum.0),
        Fetched::NotFound => None,
    };
    Ok(Reply::CounterGet(RpbCounterGetResp { value }))
}

/// Adds to a counter of the default type. Its value, where that is asked for.
pub(super) async fn increment(
    service: &Service,
    name: &ObjectName,
    amount: i64,
    options: WriteOptions,
    return_value: bool,
) -> Result<Option<i64>, Refusal> {
    let bucket = service.engine.data_type_bucket(&name.bucket)?;
    bucket.check_siblings().map_err(|error| match error {
        EngineError::MustAllowMult => Refusal::open("\"Counters require bucket property 'allow_mult=true'\""),
        other => other.into(),
    })?;
    let update = Update { operation: Operation::Counter(amount), context: None, options };
    let mut sum = Sum::default();
    service.engine.update(name, &bucket, update, return_value.then_some(&mut sum as _)).await?;
    Ok(return_value.then_some(sum.0))
}

/// A counter's value, which has one part.
#[derive(Default)]
struct Sum(i64);

impl ValueSink for Sum {
    fn take(&mut self, part: Part<'_>) -> Result<(), Full> {
        if let Part::Counter(sum) = part {
            self.0 = sum;
        }
        Ok(())
    }
}
