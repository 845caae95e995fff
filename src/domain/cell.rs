//! The smallest stored things: cells, the paths they lie on, and the floors that end them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;

use super::context::CausalContext;
use super::datatype::hll::Registers;
use super::dot::{Dot, Time};
use super::object::Content;

/// The kind of a map field. The order is Riak's order of fields that share a name (`datatypes.md` §11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldKind {
    /// A counter.
    Counter,
    /// A last-writer-wins register.
    Register,
    /// A map inside the map.
    Map,
    /// A flag.
    Flag,
    /// A set.
    Set,
}

/// A map field's identity: one name may exist once with each kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName {
    /// The name, any bytes, possibly none.
    pub name: Bytes,
    /// The kind.
    pub kind: FieldKind,
}

/// The way from an object's root to a field: the empty path is the root itself.
///
/// Clones share the fields: a request that writes many cells into one field names the way there once.
// The root is `None` and nothing else, so that comparing goes by the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Option<Arc<[FieldName]>>);

impl Path {
    /// The object's root.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of a field of the map at this path.
    pub fn child(&self, field: FieldName) -> Self {
        Self(Some(self.fields().iter().cloned().chain([field]).collect()))
    }

    /// The fields from the root on.
    pub fn fields(&self) -> &[FieldName] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The root, and every field on the way to this path, itself included.
    pub fn prefixes(&self) -> impl Iterator<Item = Path> {
        (0..=self.fields().len()).map(|count| match count {
            0 => Self::root(),
            whole if whole == self.fields().len() => self.clone(),
            part => Self(Some(self.fields()[..part].into())),
        })
    }

    /// Whether the thing at this path is `ancestor` or lies inside it.
    pub fn is_within(&self, ancestor: &Path) -> bool {
        self.fields().starts_with(ancestor.fields())
    }
}

impl From<Vec<FieldName>> for Path {
    fn from(fields: Vec<FieldName>) -> Self {
        Self((!fields.is_empty()).then(|| fields.into()))
    }
}

/// What a cell holds at its path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// The field, or at the root the data type, exists. Every update at or under the path writes it.
    Presence,
    /// One actor's share of a counter.
    Counter,
    /// One actor's last assignment of a register.
    Register,
    /// A flag that was enabled.
    Flag,
    /// One actor's registers of a HyperLogLog. At the root only.
    Hll,
    /// One plain value of the object, named by the time of its dot. At the root only.
    Sibling(Time),
    /// A set's member.
    Member(Bytes),
}

/// Where a cell lies. Keys sort in the order in which a fetch returns things: a field's own elements, then the fields
/// inside it by name and kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// The field that the cell belongs to.
    pub path: Path,
    /// What it holds there.
    pub element: Element,
}

impl CellKey {
    /// Whether this is where the object's data type is present: there is one exactly while a cell is live here.
    pub fn is_root_presence(&self) -> bool {
        self.element == Element::Presence && self.path.fields().is_empty()
    }
}

/// What a cell carries beside its dot.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Nothing: that the cell is there says it all.
    Mark,
    /// An actor's totals.
    Counter(CounterShare),
    /// A register's value and the time by which assignments are ordered.
    Register(RegisterValue),
    /// An actor's registers: they only rise, so the later of two holds the earlier.
    Hll(Registers),
    /// A plain value with its metadata: apart, since most cells have none and would be three times as large.
    Content(Box<Content>),
}

/// One actor's totals of a counter: they only grow, so the later of two is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterShare {
    /// Sum of all increments.
    pub incremented: u128,
    /// Sum of the amounts of all decrements.
    pub decremented: u128,
}

impl CounterShare {
    /// The share after one more increment, or decrement where the amount is negative.
    pub fn plus(self, amount: i64) -> Self {
        let magnitude = u128::from(amount.unsigned_abs());
        if amount < 0 {
            Self { decremented: self.decremented.saturating_add(magnitude), ..self }
        } else {
            Self { incremented: self.incremented.saturating_add(magnitude), ..self }
        }
    }

    /// The totals of several actors together.
    pub fn and(self, other: Self) -> Self {
        Self {
            incremented: self.incremented.saturating_add(other.incremented),
            decremented: self.decremented.saturating_add(other.decremented),
        }
    }

    /// What the totals come to.
    pub fn value(self) -> i128 {
        let difference = i128::try_from(self.incremented.abs_diff(self.decremented)).unwrap_or(i128::MAX);
        if self.incremented >= self.decremented { difference } else { -difference }
    }
}

/// A register's value: the greatest by time, then by bytes, wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegisterValue {
    /// When it was assigned, in microseconds since 1970.
    pub assigned: Time,
    /// The value.
    pub value: Bytes,
}

/// A stored cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Where it lies.
    pub key: CellKey,
    /// The request that wrote it. For one key and actor the later dot replaces the earlier.
    pub dot: Dot,
    /// What it carries.
    pub payload: Payload,
}

/// What a floor ends: everything of an actor there with a time at or below the floor's is gone, now or when it arrives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FloorTarget {
    /// The data type content at or under a path, the root's included. Never the plain siblings.
    Subtree(Path),
    /// One element: a member, a flag, one sibling.
    Element(CellKey),
    /// All siblings of the object.
    Siblings,
}

impl FloorTarget {
    /// Whether a cell at this key lies on the target.
    pub fn reaches(&self, key: &CellKey) -> bool {
        match self {
            Self::Subtree(path) => !matches!(key.element, Element::Sibling(_)) && key.path.is_within(path),
            Self::Element(element) => element == key,
            Self::Siblings => matches!(key.element, Element::Sibling(_)),
        }
    }
}

/// A floor: the target, and for each actor the time up to which it is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// What is ended.
    pub target: FloorTarget,
    /// Up to when.
    pub context: CausalContext,
}

impl Floor {
    /// Whether a cell written at the key under the dot is gone by this floor.
    pub fn ends(&self, key: &CellKey, dot: Dot) -> bool {
        self.context.covers(dot) && self.target.reaches(key)
    }
}

/// Floors, one a target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Floors(BTreeMap<FloorTarget, CausalContext>);

impl Floors {
    /// Raises the floor at a target. A context that has seen nothing ends nothing and leaves no floor.
    pub fn raise(&mut self, target: FloorTarget, context: &CausalContext) {
        if context.is_empty() {
            return;
        }
        match self.0.entry(target) {
            Entry::Vacant(entry) => {
                entry.insert(context.clone());
            }
            Entry::Occupied(mut entry) => entry.get_mut().join(context),
        }
    }

    /// Whether a cell written at the key under the dot is gone. Its cost hangs on the key's depth and not on how many
    /// floors there are, since a request may remove very many members one by one.
    pub fn end(&self, key: &CellKey, dot: Dot) -> bool {
        if self.is_empty() {
            return false;
        }
        let covers = |target: FloorTarget| self.0.get(&target).is_some_and(|context| context.covers(dot));
        let around = match key.element {
            Element::Sibling(_) => covers(FloorTarget::Siblings),
            _ => key.path.prefixes().any(|path| covers(FloorTarget::Subtree(path))),
        };
        around || covers(FloorTarget::Element(key.clone()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&FloorTarget, &CausalContext)> {
        self.0.iter()
    }

    /// The same as a list, by target.
    pub fn into_list(self) -> Vec<Floor> {
        self.0.into_iter().map(|(target, context)| Floor { target, context }).collect()
    }
}

/// Live cells in key order, then by actor: what a store hands to an operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveCells(Vec<Cell>);

impl LiveCells {
    /// Takes cells that a store has found live, in any order.
    pub fn new(mut cells: Vec<Cell>) -> Self {
        let order = |a: &Cell, b: &Cell| a.key.cmp(&b.key).then(a.dot.actor.cmp(&b.dot.actor));
        if !cells.is_sorted_by(|a, b| order(a, b).is_le()) {
            cells.sort_by(order);
        }
        cells.dedup_by(|a, b| a.key == b.key && a.dot.actor == b.dot.actor);
        Self(cells)
    }

    /// All of them.
    pub fn all(&self) -> &[Cell] {
        &self.0
    }

    /// The cells at one key, one an actor.
    pub fn at(&self, key: &CellKey) -> &[Cell] {
        let start = self.0.partition_point(|cell| cell.key < *key);
        let count = self.0[start..].partition_point(|cell| cell.key == *key);
        &self.0[start..start + count]
    }

    /// The object's plain values.
    pub fn siblings(&self) -> impl Iterator<Item = (Dot, &Content)> {
        self.0.iter().filter_map(|cell| match &cell.payload {
            Payload::Content(content) => Some((cell.dot, &**content)),
            _ => None,
        })
    }

    /// For each actor the last update of the object's data type content; empty when it has none.
    pub fn data_type_clock(&self) -> CausalContext {
        let root = CellKey { path: Path::root(), element: Element::Presence };
        self.at(&root).iter().map(|cell| cell.dot).collect()
    }
}

/// What an operation asks a store for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selection {
    /// The cells of every actor at one key.
    Key(CellKey),
    /// The whole data type content at or under a path.
    Subtree(Path),
    /// All siblings.
    Siblings,
}

impl Selection {
    /// Whether a cell at the key is asked for.
    pub fn takes(&self, key: &CellKey) -> bool {
        match self {
            Self::Key(wanted) => wanted == key,
            Self::Subtree(path) => !matches!(key.element, Element::Sibling(_)) && key.path.is_within(path),
            Self::Siblings => matches!(key.element, Element::Sibling(_)),
        }
    }

    /// What shows an object's whole state.
    pub fn whole_object() -> Vec<Self> {
        vec![Self::Siblings, Self::Subtree(Path::root())]
    }

    /// What shows which plain values an object has, and whether it has data type content.
    pub fn values() -> Vec<Self> {
        vec![Self::Siblings, Self::Key(CellKey { path: Path::root(), element: Element::Presence })]
    }
}
