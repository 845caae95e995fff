//! Folds live cells into the value that a client sees.

use bytes::Bytes;

use super::DataType;
use super::hll::Sketch;
use crate::domain::cell::{Cell, CounterShare, Element, FieldKind, FieldName, LiveCells, Payload, RegisterValue};

/// A data type's value. Members and fields are in the order of their keys: by bytes, then by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A counter's sum.
    Counter(i64),
    /// A set's members.
    Set(Vec<Bytes>),
    /// A grow-only set's members.
    GSet(Vec<Bytes>),
    /// A HyperLogLog's estimate of how many distinct elements were added.
    Hll(u64),
    /// A map's fields.
    Map(Vec<(FieldName, FieldValue)>),
}

/// The value of a map's field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// A counter's sum.
    Counter(i64),
    /// A set's members.
    Set(Vec<Bytes>),
    /// A register's value: empty when it was never assigned.
    Register(Bytes),
    /// Whether a flag is enabled.
    Flag(bool),
    /// A nested map's fields.
    Map(Vec<(FieldName, FieldValue)>),
}

impl Value {
    /// The value of a data type that holds nothing.
    pub fn empty(data_type: DataType) -> Self {
        fold(data_type, &LiveCells::default())
    }
}

/// The value of the data type content among an object's live cells.
pub fn fold(data_type: DataType, cells: &LiveCells) -> Value {
    let own = own_elements(cells.all(), 0);
    match data_type {
        DataType::Counter => Value::Counter(counter(own)),
        DataType::Set => Value::Set(members(own)),
        DataType::GSet => Value::GSet(members(own)),
        DataType::Hll => Value::Hll(estimate(own)),
        DataType::Map => Value::Map(fields(cells.all(), 0)),
    }
}

/// The fields of the map whose cells these are, `depth` fields below the root. The cells are in key order, so each
/// field's cells stand together.
fn fields(cells: &[Cell], depth: usize) -> Vec<(FieldName, FieldValue)> {
    let inside = &cells[own_elements(cells, depth).len()..];
    let field = |cell: &Cell| cell.key.path.fields().get(depth).cloned();
    let same_field = |a: &Cell, b: &Cell| a.key.path.fields().get(depth) == b.key.path.fields().get(depth);
    let value = |cells: &[Cell]| {
        let own = own_elements(cells, depth + 1);
        let name = cells.first().and_then(field)?;
        // A field exists while its presence is live, whatever its value.
        own.iter().find(|cell| cell.key.element == Element::Presence)?;
        let value = match name.kind {
            FieldKind::Counter => FieldValue::Counter(counter(own)),
            FieldKind::Set => FieldValue::Set(members(own)),
            FieldKind::Register => FieldValue::Register(register(own)),
            FieldKind::Flag => FieldValue::Flag(own.iter().any(|cell| cell.key.element == Element::Flag)),
            FieldKind::Map => FieldValue::Map(fields(cells, depth + 1)),
        };
        Some((name, value))
    };
    inside.chunk_by(same_field).filter_map(value).collect()
}

/// The cells of a field itself, without those of the fields inside it, which follow.
fn own_elements(cells: &[Cell], depth: usize) -> &[Cell] {
    &cells[..cells.partition_point(|cell| cell.key.path.fields().len() <= depth)]
}

/// A counter's sum, clamped to what the protocol can carry.
fn counter(cells: &[Cell]) -> i64 {
    let shares = cells.iter().filter_map(|cell| match cell.payload {
        Payload::Counter(share) => Some(share),
        _ => None,
    });
    let sum = shares.fold(CounterShare::default(), CounterShare::and).value();
    sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn members(cells: &[Cell]) -> Vec<Bytes> {
    let mut members: Vec<Bytes> = Vec::new();
    for cell in cells {
        if let Element::Member(member) = &cell.key.element
            && members.last() != Some(member)
        {
            members.push(member.clone());
        }
    }
    members
}

fn estimate(cells: &[Cell]) -> u64 {
    let registers = cells.iter().filter_map(|cell| match &cell.payload {
        Payload::Hll(registers) => Some(registers),
        _ => None,
    });
    Sketch::union(registers).map_or(0, |sketch| sketch.estimate())
}

fn register(cells: &[Cell]) -> Bytes {
    let values = cells.iter().filter_map(|cell| match &cell.payload {
        Payload::Register(register) => Some(register),
        _ => None,
    });
    values.max().map(|RegisterValue { value, .. }| value.clone()).unwrap_or_default()
}
