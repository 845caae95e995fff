//! Reading a part of an object: one member, one field, a range, a count, and the causal state for whoever looks after it.
//! The cost is that of the part, and the memory that of a page, however large the object is.

use bytes::Bytes;
use thiserror::Error;

use super::{Engine, EngineError};
use crate::domain::cell::{Cell, CellKey, Element, FieldKind, LiveCells, Path, Selection};
use crate::domain::context::{CausalContext, ObjectIdentity};
use crate::domain::datatype::DataType;
use crate::domain::datatype::value::{Folder, Full, Kind, ValueSink};
use crate::domain::dot::Dot;
use crate::domain::key::ObjectName;
use crate::domain::object;
use crate::store::{CellPages, Layout, StoreError};

/// Why a part was not shown.
#[derive(Debug, Error)]
pub enum InspectError {
    /// The bucket type is unknown, the store failed, or the part does not fit into the answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The object has no data type content.
    #[error("not found")]
    NotFound,
    /// The map has no such field.
    #[error("the map has no such field")]
    NoSuchField,
    /// A path leads through something that is no map.
    #[error("only a map has fields")]
    NotAMap,
    /// Members were asked of something that has none.
    #[error("only a set has members")]
    NotASet,
    /// A count was asked of something that is one value.
    #[error("only a set or a map can be counted")]
    NotACollection,
}

impl From<StoreError> for InspectError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

/// Which members to list.
#[derive(Clone, Debug)]
pub struct MemberRange {
    /// The first one, whether it is there or not.
    pub from: Option<Bytes>,
    /// How many.
    pub count_max: usize,
    /// How many bytes of them.
    pub size_bytes_max: usize,
}

/// A range of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// The members, in order.
    pub members: Vec<Bytes>,
    /// The one that follows them.
    pub next: Option<Bytes>,
}

/// What is known of an object beside its value.
#[derive(Clone, Debug, PartialEq)]
pub struct CausalState {
    /// What a client that reads it now has seen.
    pub context: CausalContext,
    /// The same as clients are handed it.
    pub context_bytes: Bytes,
    /// For each actor the last update of the data type content; empty where there is none.
    pub data_type_clock: CausalContext,
    /// The plain values.
    pub siblings: Vec<SiblingState>,
    /// How the store keeps it.
    pub layout: Layout,
    /// Floors that are not swept yet.
    pub floors: u32,
}

/// A plain value, without the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiblingState {
    /// The write that put it.
    pub dot: Dot,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// The value's size.
    pub size_bytes: usize,
}

impl Engine {
    /// Whether the set at a path has a member.
    pub async fn is_member(&self, name: &ObjectName, path: &Path, member: &Bytes) -> Result<bool, InspectError> {
        let key = CellKey { path: path.clone(), element: Element::Member(member.clone()) };
        let (kind, seen) = self.find(name, path, Some(&key)).await?;
        if kind.is_set() { Ok(!seen.at(&key).is_empty()) } else { Err(InspectError::NotASet) }
    }

    /// The number of members of the set at a path, or of fields of the map there. Reads all of it, page by page.
    pub async fn count(&self, name: &ObjectName, path: &Path) -> Result<u64, InspectError> {
        let (kind, _) = self.find(name, path, None).await?;
        let depth = path.fields().len();
        let counts = |cell: &Cell| match &cell.key.element {
            Element::Member(_) => kind.is_set(),
            Element::Presence => kind.is_map() && cell.key.path.fields().len() == depth + 1,
            _ => false,
        };
        if !kind.is_set() && !kind.is_map() {
            return Err(InspectError::NotACollection);
        }
        let mut pages = self.inner.store.open_content(name, path.clone(), None, &self.horizon).await?.pages;
        let mut count = 0;
        let mut last: Option<CellKey> = None;
        while let Some(page) = next_page(&mut pages).await? {
            for cell in page.into_iter().filter(counts) {
                // Several actors may have written it.
                if last.as_ref() != Some(&cell.key) {
                    count += 1;
                    last = Some(cell.key);
                }
            }
        }
        Ok(count)
    }

    /// A range of the members of the set at a path.
    ///
    /// # Errors
    /// [`EngineError::ValueTooLarge`] when not even the first member has room.
    pub async fn members(&self, name: &ObjectName, path: &Path, range: MemberRange) -> Result<Members, InspectError> {
        let (kind, _) = self.find(name, path, None).await?;
        if !kind.is_set() {
            return Err(InspectError::NotASet);
        }
        let from = range.from.map(|member| CellKey { path: path.clone(), element: Element::Member(member) });
        let mut pages = self.inner.store.open_content(name, path.clone(), from, &self.horizon).await?.pages;
        let mut found = Members::default();
        let mut size_bytes = 0;
        while let Some(page) = next_page(&mut pages).await? {
            for cell in page {
                let Element::Member(member) = cell.key.element else { continue };
                if found.members.last() == Some(&member) {
                    continue;
                }
                size_bytes += member.len();
                if found.members.len() == range.count_max || size_bytes > range.size_bytes_max {
                    let progress = !found.members.is_empty() || range.count_max == 0;
                    found.next = Some(member);
                    return if progress { Ok(found) } else { Err(EngineError::ValueTooLarge.into()) };
                }
                found.members.push(member);
            }
        }
        Ok(found)
    }

    /// Hands the value of the whole, or of the field at a path, to the sink.
    ///
    /// # Errors
    /// [`EngineError::ValueTooLarge`] when the sink takes no more.
    pub async fn value_at(
        &self,
        name: &ObjectName,
        path: &Path,
        sink: &mut (dyn ValueSink + Send),
    ) -> Result<Kind, InspectError> {
        let (kind, _) = self.find(name, path, None).await?;
        let mut pages = self.inner.store.open_content(name, path.clone(), None, &self.horizon).await?.pages;
        let mut folder = Folder::at(path, kind, sink);
        let full = |Full| EngineError::ValueTooLarge;
        while let Some(page) = next_page(&mut pages).await? {
            page.iter().try_for_each(|cell| folder.push(cell)).map_err(full)?;
        }
        folder.finish().map_err(full)?;
        Ok(kind)
    }

    /// The causal state, of an object of any kind.
    pub async fn causal_state(&self, name: &ObjectName) -> Result<CausalState, InspectError> {
        self.inner.buckets.props(&name.bucket).ok_or(EngineError::NoSuchType)?;
        let state = self.inner.store.inspect(name, &self.horizon).await?;
        if state.values.all().is_empty() {
            return Err(InspectError::NotFound);
        }
        let context = object::context_of(&state.values);
        let sibling = |(dot, content): (Dot, &object::Content)| SiblingState {
            dot,
            deleted: content.deleted,
            size_bytes: content.value.len(),
        };
        Ok(CausalState {
            context_bytes: context.encode(ObjectIdentity::of(name)),
            context,
            data_type_clock: state.values.data_type_clock(),
            siblings: state.values.siblings().map(sibling).collect(),
            layout: state.layout,
            floors: state.floors,
        })
    }

    /// Checks that there is something at a path, and says what. Also shows the cells at one key, as of the same moment.
    async fn find(
        &self,
        name: &ObjectName,
        path: &Path,
        also: Option<&CellKey>,
    ) -> Result<(Kind, LiveCells), InspectError> {
        let data_type = self.content_data_type(name)?;
        let is_map = |kind: &FieldKind| *kind == FieldKind::Map;
        let kind = match path.fields().split_last() {
            None => Kind::Root(data_type),
            Some((last, around)) => {
                if data_type != DataType::Map || !around.iter().all(|field| is_map(&field.kind)) {
                    return Err(InspectError::NotAMap);
                }
                Kind::Field(last.kind)
            }
        };
        // Every update writes the presence of all fields on its way, so that of the last one speaks for those around it.
        let root = CellKey { path: Path::root(), element: Element::Presence };
        let presence = CellKey { path: path.clone(), element: Element::Presence };
        let keys = [Some(&root), Some(&presence), also].into_iter().flatten().cloned();
        let selections: Vec<_> = keys.map(Selection::Key).collect();
        let seen = self.inner.store.read(name, &selections, &self.horizon).await?;
        if seen.at(&root).is_empty() {
            return Err(InspectError::NotFound);
        }
        if seen.at(&presence).is_empty() {
            return Err(InspectError::NoSuchField);
        }
        Ok((kind, seen))
    }
}

/// The next page; none at the end. Other requests get their turn before it.
async fn next_page(pages: &mut Box<dyn CellPages>) -> Result<Option<Vec<Cell>>, StoreError> {
    tokio::task::yield_now().await;
    let page = pages.next().await?;
    Ok((!page.is_empty()).then_some(page))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::domain::cell::{FieldName, Payload};
    use crate::domain::datatype::limits::UpdateLimits;
    use crate::domain::datatype::value::{Value, ValueBuilder};
    use crate::domain::delta::Delta;
    use crate::domain::dot::{ActorId, Time};
    use crate::domain::key::BucketName;
    use crate::domain::object::ObjectLimits;
    use crate::engine::{DeleteMode, EngineOptions};
    use crate::store::Store;
    use crate::store::memory::MemoryStore;

    fn name() -> ObjectName {
        let bucket = BucketName::new(Some("maps".into()), "b".into());
        ObjectName { bucket, key: "k".into() }
    }

    fn path(name: &'static str, kind: FieldKind) -> Path {
        Path::root().child(FieldName { name: name.into(), kind })
    }

    /// A map whose set field two actors have written to, as after a merge.
    async fn engine() -> Engine {
        let store = Arc::new(MemoryStore::new(ActorId(1)));
        let limits = ObjectLimits { siblings_max: 1, object_size_bytes_max: 1 };
        let options = EngineOptions {
            delete_mode: DeleteMode::Keep,
            object_limits: limits,
            key_size_bytes_max: 100,
            context_actors_max: 100,
            update_limits: UpdateLimits {
                elements_max: 1,
                member_size_bytes_max: 1,
                field_name_size_bytes_max: 1,
                names_size_bytes_max: 1000,
            },
            object_warnings: limits,
            n_val_default: 3,
            create_default_types: true,
            tombstones_waiting_bytes_max: 1024 * 1024,
            request_timeout_default: Duration::from_secs(1),
        };
        for (actor, members) in [(1, ["a", "b"]), (2, ["b", "c"])] {
            let dot = Dot { actor: ActorId(actor), time: Time(actor) };
            let at = |path: Path, element| Cell { key: CellKey { path, element }, dot, payload: Payload::Mark };
            let set = path("s", FieldKind::Set);
            let mut puts = vec![at(Path::root(), Element::Presence), at(set.clone(), Element::Presence)];
            puts.extend(members.map(|member| at(set.clone(), Element::Member(member.into()))));
            store.commit(name(), Delta { dot, puts, floors: vec![] }).unwrap();
        }
        Engine::start(store, options).await.unwrap()
    }

    #[tokio::test]
    async fn what_several_actors_wrote_counts_once() {
        let engine = engine().await;
        let set = path("s", FieldKind::Set);
        assert_eq!(engine.count(&name(), &set).await.unwrap(), 3);
        assert_eq!(engine.count(&name(), &Path::root()).await.unwrap(), 1);
        let ask = |from: Option<&'static str>, count_max, size_bytes_max| {
            let range = MemberRange { from: from.map(Bytes::from), count_max, size_bytes_max };
            let (engine, set) = (&engine, &set);
            async move { engine.members(&name(), set, range).await }
        };
        let members = |members: &[&'static str], next: Option<&'static str>| Members {
            members: members.iter().map(|&member| member.into()).collect(),
            next: next.map(Bytes::from),
        };
        assert_eq!(ask(None, 9, 9).await.unwrap(), members(&["a", "b", "c"], None));
        assert_eq!(ask(None, 2, 9).await.unwrap(), members(&["a", "b"], Some("c")));
        assert_eq!(ask(None, 9, 1).await.unwrap(), members(&["a"], Some("b")));
        assert_eq!(ask(Some("aa"), 1, 9).await.unwrap(), members(&["b"], Some("c")));
        assert_eq!(ask(Some("d"), 9, 9).await.unwrap(), Members::default());
        assert!(matches!(ask(None, 9, 0).await, Err(InspectError::Engine(EngineError::ValueTooLarge))));
        let mut value = ValueBuilder::new(DataType::Set);
        assert_eq!(engine.value_at(&name(), &set, &mut value).await.unwrap(), Kind::Field(FieldKind::Set));
        assert_eq!(value.finish(), Value::Set(vec!["a".into(), "b".into(), "c".into()]));
        assert!(engine.is_member(&name(), &set, &"b".into()).await.unwrap());
        assert!(!engine.is_member(&name(), &set, &"d".into()).await.unwrap());
    }

    #[tokio::test]
    async fn the_state_tells_every_actor() {
        let state = engine().await.causal_state(&name()).await.unwrap();
        let dot = |actor| Dot { actor: ActorId(actor), time: Time(actor) };
        assert_eq!(state.data_type_clock, CausalContext::from_iter([dot(1), dot(2)]));
        assert_eq!((&state.context, state.siblings.len()), (&state.data_type_clock, 0));
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_from_what_cannot_be_asked() {
        let engine = engine().await;
        let other = ObjectName { key: "other".into(), ..name() };
        assert!(matches!(engine.count(&other, &Path::root()).await, Err(InspectError::NotFound)));
        let set = path("s", FieldKind::Set);
        let inside = set.child(FieldName { name: "s".into(), kind: FieldKind::Set });
        assert!(matches!(engine.count(&name(), &inside).await, Err(InspectError::NotAMap)));
        let missing = path("t", FieldKind::Set);
        assert!(matches!(engine.count(&name(), &missing).await, Err(InspectError::NoSuchField)));
        assert!(matches!(engine.is_member(&name(), &Path::root(), &"a".into()).await, Err(InspectError::NotASet)));
    }
}
