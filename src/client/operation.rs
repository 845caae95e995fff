//! What a data type can be told, and what it says, in words that are not the wire's.

/// The data type of a bucket type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    /// A number.
    Counter,
    /// Members that come and go.
    Set,
    /// Members that stay.
    Gset,
    /// An estimate of how many different members were added.
    Hll,
    /// Fields, each with a data type of its own.
    Map,
}

/// A change to a data type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Adds to a counter; a negative amount subtracts.
    Counter(i64),
    /// Changes a set.
    Set(SetOperation),
    /// Adds members to a gset.
    Gset(Vec<Vec<u8>>),
    /// Adds members to an hll.
    Hll(Vec<Vec<u8>>),
    /// Changes a map.
    Map(MapOperation),
}

/// A change to a set: it adds, then removes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetOperation {
    /// Members to add.
    pub adds: Vec<Vec<u8>>,
    /// Members to remove.
    pub removes: Vec<Vec<u8>>,
}

/// A change to a map: it removes, then updates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MapOperation {
    /// Fields to remove.
    pub removes: Vec<Field>,
    /// Fields to change; those that are missing come into being.
    pub updates: Vec<(Field, FieldOperation)>,
}

/// A change to a field of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldOperation {
    /// Adds to a counter.
    Counter(i64),
    /// Changes a set.
    Set(SetOperation),
    /// Sets a register.
    Register(Vec<u8>),
    /// Enables or disables a flag.
    Flag(bool),
    /// Changes a map.
    Map(MapOperation),
}

/// Fields of one name and different kinds are different fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Any bytes.
    pub name: Vec<u8>,
    /// The data type of the field.
    pub kind: FieldKind,
}

/// The data type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// A number.
    Counter,
    /// Members.
    Set,
    /// A value, the last one written.
    Register,
    /// True or false.
    Flag,
    /// Fields.
    Map,
}

/// The value of a data type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The number.
    Counter(i64),
    /// The members.
    Set(Vec<Vec<u8>>),
    /// The members.
    Gset(Vec<Vec<u8>>),
    /// The estimate.
    Hll(u64),
    /// The fields.
    Map(Vec<(Field, FieldValue)>),
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// The number.
    Counter(i64),
    /// The members.
    Set(Vec<Vec<u8>>),
    /// The value.
    Register(Vec<u8>),
    /// The state.
    Flag(bool),
    /// The fields.
    Map(Vec<(Field, FieldValue)>),
}
