//! The convergent data types: operations on them, the cells an operation must see, and the values clients are shown.
//!
//! [`Operation::plan`] says what to read, [`update::resolve`] turns what was read into a delta or an error, and
//! [`value::fold`] turns live cells into a value. The rules are those of `datatypes.md` §16.1.

pub mod hll;
pub mod limits;
pub mod update;
pub mod value;

use bytes::Bytes;

use super::cell::{CellKey, Element, FieldKind, FieldName, Path, Selection};
pub use update::UpdateError;
pub use value::{FieldValue, Value};

/// A bucket type's data type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    /// A counter.
    Counter,
    /// A set with removes.
    Set,
    /// A map of counters, sets, registers, flags and maps.
    Map,
    /// A HyperLogLog estimate of distinct elements.
    Hll,
    /// A set without removes.
    GSet,
}

impl DataType {
    /// Every data type.
    pub const ALL: [Self; 5] = [Self::Counter, Self::Set, Self::Map, Self::Hll, Self::GSet];

    /// The name in bucket properties and error texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Set => "set",
            Self::Map => "map",
            Self::Hll => "hll",
            Self::GSet => "gset",
        }
    }

    /// The data type of a name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|data_type| data_type.name().as_bytes() == name)
    }

    /// Whether clients are handed a context with its value.
    pub fn has_context(self) -> bool {
        matches!(self, Self::Set | Self::Map)
    }
}

/// An update of a whole data type, as one request carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Adds the amount.
    Counter(i64),
    /// Changes a set.
    Set(SetOperation),
    /// Adds members to a grow-only set.
    GSet(Vec<Bytes>),
    /// Adds elements to a HyperLogLog.
    Hll(Vec<Bytes>),
    /// Changes a map.
    Map(MapOperation),
}

/// All adds in order, then all removes in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetOperation {
    /// Members to add.
    pub adds: Vec<Bytes>,
    /// Members to remove.
    pub removes: Vec<Bytes>,
}

/// All adds, then all removes, then all updates, each in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapOperation {
    /// Fields to make present (the preview layout of the protocol only).
    pub adds: Vec<FieldName>,
    /// Fields to remove.
    pub removes: Vec<FieldName>,
    /// Fields to update.
    pub updates: Vec<FieldUpdate>,
}

/// An update of one field of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldUpdate {
    /// The field's name; its kind follows from the operation.
    pub name: Bytes,
    /// What to do.
    pub operation: FieldOperation,
}

/// What to do to one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldOperation {
    /// Adds the amount.
    Counter(i64),
    /// Changes a set.
    Set(SetOperation),
    /// Assigns the value.
    Register(Bytes),
    /// Enables or disables.
    Flag(bool),
    /// Changes a nested map.
    Map(MapOperation),
}

impl FieldUpdate {
    /// The field that is updated.
    pub fn field(&self) -> FieldName {
        let kind = match self.operation {
            FieldOperation::Counter(_) => FieldKind::Counter,
            FieldOperation::Set(_) => FieldKind::Set,
            FieldOperation::Register(_) => FieldKind::Register,
            FieldOperation::Flag(_) => FieldKind::Flag,
            FieldOperation::Map(_) => FieldKind::Map,
        };
        FieldName { name: self.name.clone(), kind }
    }
}

impl Operation {
    /// The data type that the operation is for.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Counter(_) => DataType::Counter,
            Self::Set(_) => DataType::Set,
            Self::GSet(_) => DataType::GSet,
            Self::Hll(_) => DataType::Hll,
            Self::Map(_) => DataType::Map,
        }
    }

    /// What the operation brings, nearly: names, members and values with what becomes of each, in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Counter(_) => ELEMENT_BYTES,
            Self::Set(operation) => operation.size_bytes(),
            Self::GSet(members) | Self::Hll(members) => members_bytes(members),
            Self::Map(operation) => operation.size_bytes(),
        }
    }

    /// The cells that [`update::resolve`] must see. Adds, enables and removes with a context are blind: they ask for
    /// nothing. The siblings are asked for because an update replaces a tombstone beside it.
    pub fn plan(&self, with_context: bool) -> Vec<Selection> {
        let mut selections = Vec::with_capacity(2);
        selections.push(Selection::Siblings);
        let mut plan = Plan { with_context, selections };
        let root = Path::root();
        match self {
            Self::Counter(_) => plan.see(&root, Element::Counter),
            Self::Set(operation) => plan.set(&root, operation),
            Self::GSet(_) => {}
            Self::Hll(_) => plan.see(&root, Element::Hll),
            Self::Map(operation) => plan.map(&root, operation),
        }
        plan.selections.sort();
        plan.selections.dedup();
        plan.selections
    }
}

/// What an element takes beside its name and value, nearly, in bytes.
const ELEMENT_BYTES: usize = 64;

fn members_bytes(members: &[Bytes]) -> usize {
    members.iter().map(|member| ELEMENT_BYTES + member.len()).sum()
}

impl SetOperation {
    fn size_bytes(&self) -> usize {
        members_bytes(&self.adds) + members_bytes(&self.removes)
    }
}

impl MapOperation {
    fn size_bytes(&self) -> usize {
        let fields = self.adds.iter().chain(&self.removes).map(|field| ELEMENT_BYTES + field.name.len());
        let updates = self.updates.iter().map(|update| {
            let inside = match &update.operation {
                FieldOperation::Counter(_) | FieldOperation::Flag(_) => 0,
                FieldOperation::Set(operation) => operation.size_bytes(),
                FieldOperation::Register(value) => value.len(),
                FieldOperation::Map(operation) => operation.size_bytes(),
            };
            ELEMENT_BYTES + update.name.len() + inside
        });
        fields.chain(updates).sum()
    }
}

struct Plan {
    with_context: bool,
    selections: Vec<Selection>,
}

impl Plan {
    fn see(&mut self, path: &Path, element: Element) {
        self.selections.push(Selection::Key(CellKey { path: path.clone(), element }));
    }

    fn set(&mut self, path: &Path, operation: &SetOperation) {
        if !self.with_context {
            self.selections.reserve(operation.removes.len());
            operation.removes.iter().for_each(|member| self.see(path, Element::Member(member.clone())));
        }
    }

    fn map(&mut self, path: &Path, operation: &MapOperation) {
        if !self.with_context {
            operation.removes.iter().for_each(|field| self.see(&path.child(field.clone()), Element::Presence));
        }
        // An added counter keeps its total under a new dot.
        for field in operation.adds.iter().filter(|field| field.kind == FieldKind::Counter) {
            self.see(&path.child(field.clone()), Element::Counter);
        }
        for update in &operation.updates {
            let path = path.child(update.field());
            match &update.operation {
                FieldOperation::Counter(_) => self.see(&path, Element::Counter),
                FieldOperation::Set(operation) => self.set(&path, operation),
                FieldOperation::Register(_) => self.see(&path, Element::Register),
                FieldOperation::Flag(false) if !self.with_context => self.see(&path, Element::Flag),
                FieldOperation::Flag(_) => {}
                FieldOperation::Map(operation) => self.map(&path, operation),
            }
        }
    }
}
