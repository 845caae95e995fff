//! Data types: fetch and update.

use std::sync::Arc;

use bytes::Bytes;

use super::objects::{check_hooks, check_read, check_write, data_type_of, nonzero};
use super::{Engine, EngineError, ReadOptions, WriteOptions};
use crate::domain::cell::Selection;
use crate::domain::context::CausalContext;
use crate::domain::datatype::update::{self, Request};
use crate::domain::datatype::{DataType, Operation, Value, value};
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::object;
use crate::domain::props::BucketProps;

/// A bucket that data type requests name.
#[derive(Clone, Debug)]
pub struct DataTypeBucket {
    props: Arc<BucketProps>,
    data_type: Option<DataType>,
}

impl DataTypeBucket {
    /// Checks that the bucket keeps siblings, without which updates would be lost.
    pub fn check_siblings(&self) -> Result<(), EngineError> {
        if self.props.allow_mult { Ok(()) } else { Err(EngineError::MustAllowMult) }
    }

    /// The bucket's data type.
    pub fn data_type(&self) -> Result<DataType, EngineError> {
        self.data_type.ok_or(EngineError::NoDataType)
    }
}

/// What a fetch found.
#[derive(Clone, Debug, PartialEq)]
pub enum Fetched {
    /// Nothing, or a tombstone.
    NotFound,
    /// Content of another kind only: the value of the bucket's data type is the empty one, and there is no context.
    OtherContent(Value),
    /// The value and what the client has now seen.
    Found(Value, CausalContext),
}

/// An update, as a front end asks for it.
#[derive(Debug)]
pub struct Update {
    /// What to do.
    pub operation: Operation,
    /// The context's bytes, where the client sent any. Zero bytes are none.
    pub context: Option<Bytes>,
    /// Quorums and deadline.
    pub options: WriteOptions,
    /// Whether the value is to be shown afterwards.
    pub return_value: bool,
}

/// What an update has to show.
#[derive(Clone, Debug, PartialEq)]
pub struct Updated {
    /// The value and what the client has now seen, where the request asks for it.
    pub value: Option<(Value, CausalContext)>,
}

impl Engine {
    /// Finds the bucket of a data type request. The other checks are made one by one, because the order in which they
    /// fail shows (`datatypes.md` §4.3).
    pub fn data_type_bucket(&self, bucket: &BucketName) -> Result<DataTypeBucket, EngineError> {
        let props = self.inner.buckets.props(bucket).ok_or(EngineError::NoSuchType)?;
        let data_type = if bucket.is_default_type() { Some(DataType::Counter) } else { props.data_type() };
        Ok(DataTypeBucket { props, data_type })
    }

    /// The data type's value.
    pub async fn fetch(
        &self,
        name: &ObjectName,
        bucket: &DataTypeBucket,
        options: ReadOptions,
    ) -> Result<Fetched, EngineError> {
        let data_type = bucket.data_type()?;
        check_read(&bucket.props, &options)?;
        let seen = self.inner.store.read(name, &Selection::whole_object()).await?;
        if !object::exists(&seen) {
            return Ok(Fetched::NotFound);
        }
        let value = value::fold(data_type, &seen);
        if seen.data_type_clock().is_empty() {
            return Ok(Fetched::OtherContent(value));
        }
        Ok(Fetched::Found(value, object::context_of(&seen)))
    }

    /// Applies an update, whole or not at all.
    pub async fn update(
        &self,
        name: &ObjectName,
        bucket: &DataTypeBucket,
        update: Update,
    ) -> Result<Updated, EngineError> {
        let inner = &self.inner;
        let Update { operation, context, options, return_value } = update;
        let (data_type, given) = (bucket.data_type()?, operation.data_type());
        if given != data_type {
            return Err(EngineError::DataTypeMismatch { operation: given, bucket: data_type });
        }
        debug_assert_eq!(data_type, data_type_of(name, &bucket.props));
        check_write(&bucket.props, &options)?;
        check_hooks(&bucket.props)?;
        if name.key.len() > inner.options.key_size_bytes_max {
            return Err(EngineError::KeyTooLarge { bytes_max: inner.options.key_size_bytes_max });
        }
        // Data types without removes have no use for a context, and clients send none that matters.
        let context = match context.filter(|bytes| data_type.has_context() && !bytes.is_empty()) {
            Some(bytes) => Some(self.context(name, &bytes)?),
            None => None,
        };
        let patience = nonzero(options.timeout).unwrap_or(inner.options.request_timeout_default);

        let _stripe = inner.stripes.lock(name, patience).await?;
        let seen = inner.store.read(name, &operation.plan(context.is_some())).await?;
        let dot = inner.clock.draw().await?;
        let request =
            Request { dot, assigned: dot.time, context: context.as_ref(), hll_precision: bucket.props.hll_precision() };
        let delta = update::resolve(&operation, request, &seen)?;
        inner.store.commit(name.clone(), delta).durable().await?;
        if !return_value {
            return Ok(Updated { value: None });
        }
        let seen = inner.store.read(name, &Selection::whole_object()).await?;
        let value = value::fold(data_type, &seen);
        Ok(Updated { value: Some((value, object::context_of(&seen))) })
    }
}
