//! Plain objects: their values, and what puts and deletes do to them (`kv.md` §5, dotted version vectors everywhere).

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::cell::{Cell, CellKey, Element, Floor, FloorTarget, LiveCells, Path, Payload};
use super::context::CausalContext;
use super::delta::Delta;
use super::dot::Dot;
use super::index::{self, Entry};
use super::props::BucketProps;

/// One plain value of an object, with what was stored beside it. A tombstone is a value too: empty and `deleted`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    /// The value, verbatim.
    pub value: Bytes,
    /// The media type, where the writer gave one. There is no default.
    pub content_type: Option<Bytes>,
    /// The character set, where given.
    pub charset: Option<Bytes>,
    /// The encoding, where given. The server never compresses or expands.
    pub content_encoding: Option<Bytes>,
    /// Links in the order given, duplicates kept.
    pub links: Vec<Link>,
    /// User metadata in the order given, duplicates kept.
    pub user_metadata: Vec<(Bytes, Bytes)>,
    /// Secondary index entries, checked and in order: see [`super::index`].
    pub indexes: Vec<(Bytes, Bytes)>,
    /// Whether the entries are as the writer gave them: buckets that are written once check none and find none.
    pub indexes_unchecked: bool,
    /// When the server took the write, by its wall clock.
    pub modified: Duration,
    /// Whether this is a tombstone.
    pub deleted: bool,
}

/// A link to another object. Parts that the writer left out stay absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// The bucket of the object that is linked.
    pub bucket: Option<Bytes>,
    /// Its key.
    pub key: Option<Bytes>,
    /// The link's tag.
    pub tag: Option<Bytes>,
}

impl Content {
    /// A tombstone written at `modified`.
    pub fn tombstone(modified: Duration) -> Self {
        Self { modified, deleted: true, ..Self::default() }
    }

    /// The entries by which index queries find the value. A tombstone has none.
    pub fn index_entries(&self) -> impl Iterator<Item = Entry> {
        let is_found = !self.deleted && !self.indexes_unchecked;
        index::entries(if is_found { &self.indexes } else { &[] })
    }

    /// The bytes that count against the object size limit: the value and everything stored beside it.
    pub fn size_bytes(&self) -> usize {
        let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let pairs = |pairs: &[(Bytes, Bytes)]| pairs.iter().map(|(a, b)| a.len() + b.len()).sum::<usize>();
        let links = |link: &Link| optional(&link.bucket) + optional(&link.key) + optional(&link.tag);
        self.value.len()
            + optional(&self.content_type)
            + optional(&self.charset)
            + optional(&self.content_encoding)
            + self.links.iter().map(links).sum::<usize>()
            + pairs(&self.user_metadata)
            + pairs(&self.indexes)
    }
}

/// What must hold for a put to be accepted. Both may be asked for at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutCondition {
    /// The object must not exist. A tombstone counts as absence.
    pub if_none_match: bool,
    /// The object must exist, and its context must be the one that the request carries.
    pub if_not_modified: bool,
}

impl PutCondition {
    /// Whether it holds, given the object's values (`Selection::values`) and the context that the request carries.
    pub fn check(self, context: &CausalContext, seen: &LiveCells, props: &BucketProps) -> Result<(), ObjectError> {
        let exists = || is_shown(seen, props);
        if self.if_none_match {
            // Both conditions at once: an absent object is stored (`kv.md` §7.1).
            return if exists() { Err(ObjectError::MatchFound) } else { Ok(()) };
        }
        if self.if_not_modified {
            if !exists() {
                return Err(ObjectError::NotFound);
            }
            if *context != context_of(seen) {
                return Err(ObjectError::Modified);
            }
        }
        Ok(())
    }
}

/// Bounds on one plain object.
#[derive(Clone, Copy, Debug)]
pub struct ObjectLimits {
    /// The most values that an object may hold side by side. Data type content counts as one.
    pub siblings_max: usize,
    /// The most bytes of all its plain values and their metadata.
    pub object_size_bytes_max: usize,
}

/// Why a put or delete was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ObjectError {
    /// `if_none_match`, and the object exists.
    #[error("the object exists")]
    MatchFound,
    /// `if_not_modified`, and the object's context is another.
    #[error("the object was modified")]
    Modified,
    /// `if_not_modified`, and there is no object.
    #[error("the object does not exist")]
    NotFound,
    /// The object would hold too many values.
    #[error("the object would have {0} siblings")]
    TooManySiblings(usize),
    /// The object would be too large.
    #[error("the object would have {0} bytes")]
    TooLarge(usize),
}

/// What a client is told it has seen of an object: every value's dot and the data type content's last update.
pub fn context_of(cells: &LiveCells) -> CausalContext {
    let mut context = cells.data_type_clock();
    cells.siblings().for_each(|(dot, _)| context.see(dot));
    context
}

/// Whether anything but tombstones is there.
pub fn exists(cells: &LiveCells) -> bool {
    cells.siblings().any(|(_, content)| !content.deleted) || !cells.data_type_clock().is_empty()
}

/// Whether tombstones are all that is there.
pub fn is_tombstone(cells: &LiveCells) -> bool {
    !exists(cells) && cells.siblings().next().is_some()
}

/// The values that a reader is shown, in a stable order: all, or where the bucket keeps no siblings the newest. There are
/// several then only from when it did, and a value counts before a tombstone (`kv.md` §5.4).
pub fn shown<'a>(cells: &'a LiveCells, props: &BucketProps) -> Vec<(Dot, &'a Content)> {
    let mut shown: Vec<_> = cells.siblings().collect();
    if !props.allow_mult {
        let newest = shown.into_iter().max_by_key(|(dot, content)| (content.modified, !content.deleted, *dot));
        return newest.into_iter().collect();
    }
    shown.sort_by_key(|(_, content)| *content);
    shown
}

/// Whether a reader is shown anything but tombstones.
fn is_shown(cells: &LiveCells, props: &BucketProps) -> bool {
    shown(cells, props).iter().any(|(_, content)| !content.deleted) || !cells.data_type_clock().is_empty()
}

/// What a put or delete writes, and what the object then is.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The effect.
    pub delta: Delta,
    /// Values side by side afterwards. Data type content counts as one.
    pub siblings: usize,
    /// Bytes of all plain values and their metadata afterwards.
    pub size_bytes: usize,
}

/// A write of one plain value.
#[derive(Clone, Debug)]
pub struct Put {
    /// What to store.
    pub content: Content,
    /// What the writer had seen; empty for a blind write.
    pub context: CausalContext,
    /// What must hold.
    pub condition: PutCondition,
}

impl Put {
    /// The delta of the put, given the object's values (`Selection::values`).
    ///
    /// The new value replaces those that the context covers and stands beside the others; in buckets that keep no
    /// siblings it replaces all. Data type content counts as one value whose dot is its last update
    /// (`datatypes.md` §8).
    pub fn resolve(
        self,
        seen: &LiveCells,
        dot: Dot,
        props: &BucketProps,
        limits: ObjectLimits,
    ) -> Result<Written, ObjectError> {
        self.condition.check(&self.context, seen, props)?;
        let mut covered = self.context;
        if !props.keeps_siblings() {
            covered.join(&context_of(seen));
        }
        let data_type = seen.data_type_clock();
        let replaces_data_type = !data_type.is_empty() && covered.covers_all(&data_type);
        let kept: Vec<&Content> = seen.siblings().filter(|(dot, _)| !covered.covers(*dot)).map(|(_, c)| c).collect();

        let siblings = kept.len() + 1 + usize::from(!data_type.is_empty() && !replaces_data_type);
        if siblings > limits.siblings_max && !props.is_write_once() {
            return Err(ObjectError::TooManySiblings(siblings));
        }
        let size_bytes = self.content.size_bytes() + kept.iter().map(|content| content.size_bytes()).sum::<usize>();
        if size_bytes > limits.object_size_bytes_max && !props.is_write_once() {
            return Err(ObjectError::TooLarge(size_bytes));
        }

        let mut floors = Vec::new();
        if replaces_data_type {
            floors.push(Floor { target: FloorTarget::Subtree(Path::root()), context: data_type });
        }
        if !covered.is_empty() {
            floors.push(Floor { target: FloorTarget::Siblings, context: covered });
        }
        let key = CellKey { path: Path::root(), element: Element::Sibling(dot.time) };
        let puts = vec![Cell { key, dot, payload: Payload::Content(Box::new(self.content)) }];
        Ok(Written { delta: Delta { dot, puts, floors }, siblings, size_bytes })
    }
}

/// The removal of an object.
#[derive(Clone, Debug)]
pub struct Delete {
    /// What the writer had seen. With none given, everything that is there now. A given but empty context is concurrent
    /// with everything.
    pub context: Option<CausalContext>,
    /// When, by the wall clock.
    pub deleted_at: Duration,
}

impl Delete {
    /// The delta of the delete: a tombstone in place of what the context covers, or nothing where nothing is to do.
    pub fn resolve(
        self,
        seen: &LiveCells,
        dot: Dot,
        props: &BucketProps,
        limits: ObjectLimits,
    ) -> Result<Option<Written>, ObjectError> {
        let context = match self.context {
            Some(context) => context,
            None if is_shown(seen, props) => context_of(seen),
            None => return Ok(None),
        };
        let content = Content::tombstone(self.deleted_at);
        Put { content, context, condition: PutCondition::default() }.resolve(seen, dot, props, limits).map(Some)
    }
}

/// The delta that removes an object's tombstones, where they are all it has.
pub fn reap(seen: &LiveCells, dot: Dot) -> Option<Delta> {
    let floor = Floor { target: FloorTarget::Siblings, context: context_of(seen) };
    is_tombstone(seen).then(|| Delta { dot, puts: Vec::new(), floors: vec![floor] })
}
