//! Plain objects: get, put, delete.

use std::time::Duration;

use bytes::Bytes;

use super::datatypes::show;
use super::large::{LARGE_BYTES_MIN, LARGE_ELEMENTS_MIN};
use super::{Engine, EngineError, ReadOptions, WriteOptions, wall_clock};
use crate::domain::cell::{LiveCells, Path, Selection};
use crate::domain::context::{CausalContext, ObjectIdentity};
use crate::domain::datatype::DataType;
use crate::domain::datatype::value::ValueSink;
use crate::domain::dot::Dot;
use crate::domain::index;
use crate::domain::key::ObjectName;
use crate::domain::object::{self, Content, Delete, ObjectError, Put, PutCondition, Written};
use crate::domain::props::{BucketProps, Hook};
use crate::domain::quorum::{self, Quorum, QuorumError};

/// A plain object as a client sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectView {
    /// The values side by side, in a stable order. None: there is no object.
    pub siblings: Vec<(Dot, Content)>,
    /// Data type content, which stands beside the values.
    pub typed: Option<TypedContent>,
    /// What the client is told that it has seen.
    pub context: CausalContext,
}

/// Data type content as plain requests see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypedContent {
    /// Its last update.
    pub dot: Dot,
    /// The data type.
    pub data_type: DataType,
}

impl ObjectView {
    /// Whether there is nothing, or nothing but tombstones.
    pub fn is_deleted(&self) -> bool {
        self.typed.is_none() && self.siblings.iter().all(|(_, content)| content.deleted)
    }
}

/// A put, as a front end asks for it.
#[derive(Debug)]
pub struct PutRequest {
    /// What to store. The modification time is set here, the indexes are checked here.
    pub content: Content,
    /// The context's bytes, where the client sent any.
    pub context: Option<Bytes>,
    /// What must hold.
    pub condition: PutCondition,
    /// Quorums and deadline.
    pub options: WriteOptions,
    /// Whether the object is to be shown afterwards.
    pub return_view: bool,
}

/// A delete, as a front end asks for it.
#[derive(Debug)]
pub struct DeleteRequest {
    /// The context's bytes. Present but empty means: concurrent with everything.
    pub context: Option<Bytes>,
    /// The quorum that stands in for the read's and the write's where those are not given.
    pub rw: Option<Quorum>,
    /// The quorums of the read that comes first when there is no context.
    pub read: ReadOptions,
    /// The quorums of the write.
    pub write: WriteOptions,
}

impl Engine {
    /// The object's values. Where a sink is given, it gets the value of data type content.
    ///
    /// # Errors
    /// [`EngineError::ValueTooLarge`] when the sink takes no more.
    pub async fn get(
        &self,
        name: &ObjectName,
        options: ReadOptions,
        sink: Option<&mut (dyn ValueSink + Send)>,
    ) -> Result<ObjectView, EngineError> {
        let inner = &self.inner;
        let props = inner.buckets.props(&name.bucket).ok_or(EngineError::NoSuchType)?;
        check_consistent(&props)?;
        check_read(&props, &options)?;
        let seen = inner.store.read(name, &Selection::values(), &self.horizon).await?;
        if seen.all().is_empty() && options.notfound_ok == Some(false) && options.node_confirms.is_some_and(|n| n > 0) {
            return Err(QuorumError::InsufficientNodes { have: 0, want: 1 }.into());
        }
        self.notice_tombstones(name, &seen);
        self.view(name, &props, seen, sink).await
    }

    /// Stores a value. The object afterwards, where the request asks for it; and the sink gets the value of data type
    /// content, as in a get.
    pub async fn put(
        &self,
        name: &ObjectName,
        request: PutRequest,
        sink: Option<&mut (dyn ValueSink + Send)>,
    ) -> Result<Option<ObjectView>, EngineError> {
        let inner = &self.inner;
        let PutRequest { mut content, context, condition, options, return_view } = request;
        let props = inner.buckets.props(&name.bucket).ok_or(EngineError::NoSuchType)?;
        check_consistent(&props)?;
        // Riak looks at a condition in a read of its own, before it looks at the put: of two faults it names that of the
        // condition (`kv.md` §7.1). That this read cannot be made is a fault too, but where absence is asked for.
        let read = check_read(&props, &ReadOptions { n_val: options.n_val, ..ReadOptions::default() });
        if condition.if_not_modified && !condition.if_none_match {
            read?;
        }
        let context = context.unwrap_or_default();
        let context = match self.check_put(name, &props, &mut content, &context, options) {
            Ok(context) => context,
            Err(refusal) => {
                if read.is_ok() {
                    // Nothing will be written, so this needs no stripe.
                    self.check_condition(name, &props, &context, condition).await?;
                }
                return Err(refusal);
            }
        };
        let patience = options.timeout.unwrap_or(inner.options.request_timeout_default);
        let is_large = content.value.len() > LARGE_BYTES_MIN || content.indexes.len() > LARGE_ELEMENTS_MIN;

        let large = inner.large_writes.begin(is_large, patience).await?;
        let turn = inner.lock(name, content.size_bytes(), patience).await?;
        let deleted = content.deleted;
        let resolve = |seen: LiveCells| {
            let dot = inner.clock.draw()?;
            content.modified = wall_clock();
            let put = Put { content, context, condition };
            let written = put.resolve(&seen, dot, &props, inner.options.object_limits)?;
            self.warn_of_size(name, &written);
            Ok(Some(written.delta))
        };
        large.run(self.write(name, Selection::values(), resolve)).await?;
        if !return_view && !deleted {
            return Ok(None);
        }
        let seen = inner.store.read(name, &Selection::values(), &self.horizon).await?;
        drop(turn);
        self.notice_tombstones(name, &seen);
        if return_view && !props.is_write_once() {
            self.view(name, &props, seen, sink).await.map(Some)
        } else {
            Ok(None)
        }
    }

    /// What can be said of a put without a look at the object. Indexes are put in order; the context is returned.
    fn check_put(
        &self,
        name: &ObjectName,
        props: &BucketProps,
        content: &mut Content,
        context: &[u8],
        options: WriteOptions,
    ) -> Result<CausalContext, EngineError> {
        self.inner.check_name(name)?;
        // Write-once buckets have no use for the option (`kv.md` §9).
        let n_val = options.n_val.filter(|_| !props.is_write_once());
        check_write(props, &WriteOptions { n_val, ..options })?;
        check_hooks(props)?;
        content.indexes_unchecked = props.is_write_once();
        if !content.indexes_unchecked {
            content.indexes = index::normalize(std::mem::take(&mut content.indexes))?;
        }
        self.context(name, context)
    }

    /// Whether a put's condition holds now. A context that does not decode matters only where it has to be compared.
    async fn check_condition(
        &self,
        name: &ObjectName,
        props: &BucketProps,
        context: &[u8],
        condition: PutCondition,
    ) -> Result<(), EngineError> {
        let seen = self.inner.store.read(name, &Selection::values(), &self.horizon).await?;
        match self.context(name, context) {
            Ok(context) => Ok(condition.check(&context, &seen, props)?),
            Err(undecodable) => match condition.check(&CausalContext::new(), &seen, props) {
                Err(ObjectError::Modified) => Err(undecodable),
                checked => Ok(checked?),
            },
        }
    }

    /// Removes an object. A missing one is removed already.
    pub async fn delete(&self, name: &ObjectName, request: DeleteRequest) -> Result<(), EngineError> {
        let inner = &self.inner;
        let DeleteRequest { context, rw, mut read, mut write } = request;
        let props = inner.buckets.props(&name.bucket).ok_or(EngineError::NoSuchType)?;
        check_consistent(&props)?;
        let rw = rw.filter(|rw| *rw != Quorum::DEFAULT).unwrap_or(Quorum(props.rw));
        if read.r.is_none() && write.w.is_none() {
            // Once r or w is given, rw no longer counts for reading.
            read.r = Some(rw);
        }
        write.w = write.w.or(Some(rw));
        if context.is_none() {
            check_read(&props, &read)?;
        }
        check_write(&props, &write)?;
        let context = match context {
            Some(bytes) => Some(self.context(name, &bytes)?),
            None => None,
        };
        if name.key.is_empty() {
            return Ok(());
        }
        if name.key.len() > inner.options.key_size_bytes_max {
            // No such key can exist. With a context Riak tries to store a tombstone and never answers.
            let bytes_max = inner.options.key_size_bytes_max;
            return if context.is_some() { Err(EngineError::KeyTooLarge { bytes_max }) } else { Ok(()) };
        }
        let patience = write.timeout.unwrap_or(inner.options.request_timeout_default);

        let _turn = inner.lock(name, 0, patience).await?;
        let resolve = |seen: LiveCells| {
            let dot = inner.clock.draw()?;
            let delete = Delete { context, deleted_at: wall_clock() };
            let written = delete.resolve(&seen, dot, &props, inner.options.object_limits)?;
            if written.is_some() {
                check_hooks(&props)?;
            }
            Ok(written.map(|written| written.delta))
        };
        if !self.write(name, Selection::values(), resolve).await? {
            return Ok(());
        }
        let seen = inner.store.read(name, &Selection::values(), &self.horizon).await?;
        self.notice_tombstones(name, &seen);
        Ok(())
    }

    /// Reads the context that a client sent. It never covers what is not issued yet.
    pub(super) fn context(&self, name: &ObjectName, bytes: &[u8]) -> Result<CausalContext, EngineError> {
        let actors = CausalContext::actors_in(bytes);
        if actors > self.inner.options.context_actors_max {
            return Err(EngineError::TooManyActors(actors));
        }
        let mut context = CausalContext::decode(bytes, || ObjectIdentity::of(name))?;
        context.clamp_to_issued(self.inner.store.actor(), self.inner.clock.issued());
        Ok(context)
    }

    fn warn_of_size(&self, name: &ObjectName, written: &Written) {
        let Written { siblings, size_bytes, .. } = *written;
        let warnings = self.inner.options.object_warnings;
        if siblings > warnings.siblings_max || size_bytes > warnings.object_size_bytes_max {
            let key = String::from_utf8_lossy(&name.key);
            let bucket = String::from_utf8_lossy(&name.bucket.bucket);
            tracing::warn!(%bucket, %key, siblings, size_bytes, "an object grows beyond what reads well");
        }
    }

    async fn view(
        &self,
        name: &ObjectName,
        props: &BucketProps,
        seen: LiveCells,
        sink: Option<&mut (dyn ValueSink + Send)>,
    ) -> Result<ObjectView, EngineError> {
        let context = object::context_of(&seen);
        let clock = seen.data_type_clock();
        let last_update = clock.entries().iter().map(|&(actor, time)| Dot { actor, time }).max_by_key(|dot| dot.time);
        let typed = last_update.map(|dot| TypedContent { dot, data_type: data_type_of(name, props) });
        if let (Some(typed), Some(sink)) = (&typed, sink) {
            // Read after the context: it may be newer than that, but never older, so the context covers nothing unseen.
            let content = self.inner.store.open_content(name, Path::root(), None, &self.horizon).await?;
            show(typed.data_type, content.pages, sink).await?;
        }
        let siblings = object::shown(&seen, props).into_iter().map(|(dot, content)| (dot, content.clone())).collect();
        Ok(ObjectView { siblings, typed, context })
    }

    fn notice_tombstones(&self, name: &ObjectName, seen: &LiveCells) {
        if object::is_tombstone(seen) {
            self.reaper.notice(name, object::context_of(seen));
        }
    }
}

impl Engine {
    /// The data type that content in a bucket has, for those who show it beside plain values.
    pub fn content_data_type(&self, name: &ObjectName) -> Result<DataType, EngineError> {
        let props = self.inner.buckets.props(&name.bucket).ok_or(EngineError::NoSuchType)?;
        Ok(data_type_of(name, &props))
    }
}

/// The data type of an object's content. In the default type there are only the counters of messages 50 to 53.
pub(super) fn data_type_of(name: &ObjectName, props: &BucketProps) -> DataType {
    let data_type = if name.bucket.is_default_type() { None } else { props.data_type() };
    data_type.unwrap_or(DataType::Counter)
}

/// Strong consistency needs a consensus group, which one stock node is not (`kv.md` §9).
fn check_consistent(props: &BucketProps) -> Result<(), EngineError> {
    if props.consistent == Some(true) { Err(EngineError::ConsistentUnavailable) } else { Ok(()) }
}

pub(super) fn check_read(props: &BucketProps, options: &ReadOptions) -> Result<(), QuorumError> {
    let n_val = quorum::effective_n_val(props.n_val, options.n_val)?;
    quorum::check(n_val, options.r, Quorum(props.r))?;
    quorum::check(n_val, options.pr, Quorum(props.pr))?;
    quorum::check_read_confirms(options.node_confirms)
}

pub(super) fn check_write(props: &BucketProps, options: &WriteOptions) -> Result<(), QuorumError> {
    let n_val = quorum::effective_n_val(props.n_val, options.n_val)?;
    quorum::check(n_val, options.w, Quorum(props.w))?;
    quorum::check(n_val, options.dw, Quorum(props.dw))?;
    quorum::check(n_val, options.pw, Quorum(props.pw))?;
    quorum::check_write_confirms(n_val, options.node_confirms)
}

/// Hooks of Riak's own that have nothing left to do here.
const HOOKS_WITHOUT_EFFECT: [(&[u8], &[u8]); 1] = [(b"riak_search_kv_hook", b"precommit")];

/// A hook that cannot be run fails the write, as in Riak when its code is missing: to skip a validator would lose the
/// guarantee that it gives.
pub(super) fn check_hooks(props: &BucketProps) -> Result<(), EngineError> {
    let runs = |hook: &&Hook| match hook {
        Hook::ModFun(hook) => !HOOKS_WITHOUT_EFFECT.contains(&(&hook.module[..], &hook.function[..])),
        Hook::Name(_) => true,
    };
    match props.precommit.iter().find(runs) {
        Some(hook) if !props.is_write_once() => Err(EngineError::Precommit(hook.clone())),
        _ => Ok(()),
    }
}

/// The default of requests that name no deadline applies to a deadline of zero in data type requests as well.
pub(super) fn nonzero(timeout: Option<Duration>) -> Option<Duration> {
    timeout.filter(|timeout| !timeout.is_zero())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::datatype::limits::UpdateLimits;
    use crate::domain::dot::{ActorId, Time};
    use crate::domain::key::BucketName;
    use crate::domain::object::ObjectLimits;
    use crate::domain::props::{Property, PropsChange};
    use crate::engine::{DeleteMode, EngineOptions};
    use crate::store::memory::MemoryStore;

    async fn engine() -> Engine {
        let limits = ObjectLimits { siblings_max: 100, object_size_bytes_max: 1000 };
        let options = EngineOptions {
            delete_mode: DeleteMode::Keep,
            object_limits: limits,
            key_size_bytes_max: 100,
            object_warnings: limits,
            n_val_default: 3,
            create_default_types: false,
            tombstones_waiting_bytes_max: 1024 * 1024,
            request_timeout_default: Duration::from_secs(60),
            context_actors_max: 100,
            update_limits: UpdateLimits {
                elements_max: 1,
                member_size_bytes_max: 1,
                field_name_size_bytes_max: 1,
                names_size_bytes_max: 1000,
            },
        };
        let engine = Engine::start(Arc::new(MemoryStore::new(ActorId(1))), options).await.unwrap();
        for (name, property) in [("plain", Property::AllowMult(true)), ("once", Property::WriteOnce(true))] {
            let change = PropsChange { properties: vec![property] };
            engine.buckets().create_type(name.into(), change).await.unwrap();
            engine.buckets().activate_type(name.into()).await.unwrap();
        }
        engine
    }

    fn name(bucket_type: &'static str) -> ObjectName {
        ObjectName { bucket: BucketName::new(Some(bucket_type.into()), "b".into()), key: "k".into() }
    }

    async fn set(engine: &Engine, name: &ObjectName, property: Property) {
        let change = PropsChange { properties: vec![property] };
        engine.buckets().set_props(name.bucket.clone(), change).await.unwrap();
    }

    fn put(value: &'static str) -> PutRequest {
        PutRequest {
            content: Content { value: value.into(), ..Content::default() },
            context: None,
            condition: PutCondition::default(),
            options: WriteOptions::default(),
            return_view: false,
        }
    }

    fn delete(context: Option<Bytes>) -> DeleteRequest {
        DeleteRequest { context, rw: None, read: ReadOptions::default(), write: WriteOptions::default() }
    }

    #[tokio::test]
    async fn deletes_go_by_the_buckets_rw_where_they_name_no_quorum() {
        let (engine, name) = (engine().await, name("plain"));
        set(&engine, &name, Property::Rw(Quorum(5))).await;
        let refused = engine.delete(&name, delete(None)).await;
        assert!(matches!(refused, Err(EngineError::Quorum(QuorumError::NVal(3)))), "{refused:?}");
        let one = DeleteRequest { rw: Some(Quorum::ONE), ..delete(None) };
        assert!(engine.delete(&name, one).await.is_ok());
        let write = WriteOptions { w: Some(Quorum(1)), ..WriteOptions::default() };
        assert!(engine.delete(&name, DeleteRequest { write, ..delete(None) }).await.is_ok());
        // The bucket's w and r are for puts and gets.
        set(&engine, &name, Property::Rw(Quorum::QUORUM)).await;
        set(&engine, &name, Property::W(Quorum(5))).await;
        assert!(engine.delete(&name, delete(None)).await.is_ok());
    }

    #[tokio::test]
    async fn puts_into_write_once_buckets_look_at_no_n_val() {
        let engine = engine().await;
        let options = WriteOptions { n_val: Some(9), ..WriteOptions::default() };
        assert!(engine.put(&name("once"), PutRequest { options, ..put("v") }, None).await.is_ok());
        let refused = engine.put(&name("plain"), PutRequest { options, ..put("v") }, None).await;
        assert!(matches!(refused, Err(EngineError::Quorum(QuorumError::NVal(9)))), "{refused:?}");
    }

    #[tokio::test]
    async fn a_context_of_too_many_actors_is_refused() {
        let (engine, name) = (engine().await, name("plain"));
        let context = |actors| {
            let dots = (0..actors).map(|actor| Dot { actor: ActorId(actor), time: Time(1) });
            Some(dots.collect::<CausalContext>().encode(ObjectIdentity::of(&name)))
        };
        assert!(engine.put(&name, PutRequest { context: context(100), ..put("v") }, None).await.is_ok());
        let refused = engine.put(&name, PutRequest { context: context(101), ..put("v") }, None).await;
        assert!(matches!(refused, Err(EngineError::TooManyActors(101))), "{refused:?}");
        let refused = engine.delete(&name, delete(context(101))).await;
        assert!(matches!(refused, Err(EngineError::TooManyActors(101))), "{refused:?}");
    }

    #[tokio::test]
    async fn a_value_that_nobody_is_shown_is_no_match() {
        let (engine, name) = (engine().await, name("plain"));
        engine.put(&name, put("old"), None).await.unwrap();
        engine.delete(&name, delete(Some(Bytes::new()))).await.unwrap();
        let condition = PutCondition { if_none_match: true, if_not_modified: false };
        let first = || PutRequest { condition, ..put("new") };
        let refused = engine.put(&name, first(), None).await;
        assert!(matches!(refused, Err(EngineError::Object(ObjectError::MatchFound))), "{refused:?}");
        // Now readers are shown the newest value, which is the tombstone.
        set(&engine, &name, Property::AllowMult(false)).await;
        assert!(engine.get(&name, ReadOptions::default(), None).await.unwrap().is_deleted());
        engine.put(&name, first(), None).await.unwrap();
        assert_eq!(engine.get(&name, ReadOptions::default(), None).await.unwrap().siblings[0].1.value, "new");
    }
}
