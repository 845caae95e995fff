//! Data types: fetch and update.

use std::sync::Arc;

use bytes::Bytes;

use super::large::LARGE_ELEMENTS_MIN;
use super::objects::{check_hooks, check_read, check_write, data_type_of, nonzero};
use super::{Engine, EngineError, ReadOptions, WriteOptions};
use crate::domain::cell::{LiveCells, Path};
use crate::domain::context::CausalContext;
use crate::domain::datatype::update::{self, Request};
use crate::domain::datatype::value::{Folder, Full, ValueSink};
use crate::domain::datatype::{DataType, Operation};
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::object;
use crate::domain::props::BucketProps;
use crate::store::CellPages;

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

/// What a fetch found. The value itself went to the sink, part by part.
#[derive(Clone, Debug, PartialEq)]
pub enum Fetched {
    /// Nothing, or a tombstone. The sink got nothing.
    NotFound,
    /// Content of another kind only: the value of the bucket's data type is the empty one, and there is no context.
    OtherContent,
    /// The value, and what the client has now seen.
    Found(CausalContext),
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
}

impl Engine {
    /// Finds the bucket of a data type request. The other checks are made one by one, because the order in which they
    /// fail shows (`datatypes.md` §4.3).
    pub fn data_type_bucket(&self, bucket: &BucketName) -> Result<DataTypeBucket, EngineError> {
        let props = self.inner.buckets.props(bucket).ok_or(EngineError::NoSuchType)?;
        let data_type = if bucket.is_default_type() { Some(DataType::Counter) } else { props.data_type() };
        Ok(DataTypeBucket { props, data_type })
    }

    /// Hands the data type's value to the sink.
    ///
    /// # Errors
    /// [`EngineError::ValueTooLarge`] when the sink takes no more.
    pub async fn fetch(
        &self,
        name: &ObjectName,
        bucket: &DataTypeBucket,
        options: ReadOptions,
        sink: &mut (dyn ValueSink + Send),
    ) -> Result<Fetched, EngineError> {
        let data_type = bucket.data_type()?;
        check_read(&bucket.props, &options)?;
        let content = self.inner.store.open_content(name, Path::root(), None, &self.horizon).await?;
        if !object::exists(&content.values) {
            return Ok(Fetched::NotFound);
        }
        let context = object::context_of(&content.values);
        let is_found = !content.values.data_type_clock().is_empty();
        show(data_type, content.pages, sink).await?;
        Ok(if is_found { Fetched::Found(context) } else { Fetched::OtherContent })
    }

    /// Applies an update, whole or not at all. Where a sink is given, it gets the value afterwards, and what the client has
    /// then seen is returned.
    ///
    /// # Errors
    /// [`EngineError::ValueTooLarge`] when the sink takes no more: the update was applied all the same.
    pub async fn update(
        &self,
        name: &ObjectName,
        bucket: &DataTypeBucket,
        update: Update,
        sink: Option<&mut (dyn ValueSink + Send)>,
    ) -> Result<Option<CausalContext>, EngineError> {
        let inner = &self.inner;
        let Update { operation, context, options } = update;
        let (data_type, given) = (bucket.data_type()?, operation.data_type());
        if given != data_type {
            return Err(EngineError::DataTypeMismatch { operation: given, bucket: data_type });
        }
        debug_assert_eq!(data_type, data_type_of(name, &bucket.props));
        check_write(&bucket.props, &options)?;
        check_hooks(&bucket.props)?;
        inner.check_name(name)?;
        let elements = inner.options.update_limits.check(&operation)?;
        // Data types without removes have no use for a context, and clients send none that matters.
        let context = match context.filter(|bytes| data_type.has_context() && !bytes.is_empty()) {
            Some(bytes) => Some(self.context(name, &bytes)?),
            None => None,
        };
        let patience = nonzero(options.timeout).unwrap_or(inner.options.request_timeout_default);

        let large = inner.large_writes.begin(elements > LARGE_ELEMENTS_MIN, patience).await?;
        let turn = inner.lock(name, operation.size_bytes(), patience).await?;
        let written = async {
            let selections = operation.plan(context.is_some());
            let context = context.as_ref();
            // With the operation and the cells, which nobody needs any more when they are resolved.
            let resolve = move |seen: LiveCells| {
                let dot = inner.clock.draw()?;
                let hll_precision = bucket.props.hll_precision();
                let request = Request { dot, assigned: dot.time, context, hll_precision };
                Ok(Some(update::resolve(operation, request, seen)?))
            };
            self.write(name, selections, resolve).await
        };
        large.run(written).await?;
        let Some(sink) = sink else { return Ok(None) };
        let content = inner.store.open_content(name, Path::root(), None, &self.horizon).await?;
        // The content stays as it is now however long it is read: the next update need not wait for that.
        drop(turn);
        let context = object::context_of(&content.values);
        show(data_type, content.pages, sink).await?;
        Ok(Some(context))
    }
}

/// Folds content into a value as it is read. Other requests get their turn between two pages.
pub(super) async fn show(
    data_type: DataType,
    mut pages: Box<dyn CellPages>,
    sink: &mut (dyn ValueSink + Send),
) -> Result<(), EngineError> {
    let mut folder = Folder::new(data_type, sink);
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            return folder.finish().map_err(|Full| EngineError::ValueTooLarge);
        }
        page.iter().try_for_each(|cell| folder.push(cell)).map_err(|Full| EngineError::ValueTooLarge)?;
        tokio::task::yield_now().await;
    }
}
