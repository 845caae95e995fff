//! Folds live cells into the value that a client sees, as they come: a value of any size needs no more memory than whoever
//! takes its parts.

use bytes::Bytes;

use super::DataType;
use super::hll::Sketch;
use crate::domain::cell::{Cell, CounterShare, Element, FieldKind, FieldName, LiveCells, Payload, RegisterValue};

/// A part of a value. Members and fields come in the order of their keys: by bytes, then by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A counter's sum, clamped to what the protocol can carry.
    Counter(i64),
    /// A member of a set or grow-only set.
    Member(&'a Bytes),
    /// A register's value: empty when it was never assigned.
    Register(&'a Bytes),
    /// Whether a flag is enabled.
    Flag(bool),
    /// A HyperLogLog's estimate of how many distinct elements were added.
    Hll(u64),
    /// A field of a map begins. What follows up to its end is its value.
    FieldStart(&'a FieldName),
    /// The field that began last ends.
    FieldEnd,
}

/// The one who takes a value's parts has no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Takes the parts of a value.
pub trait ValueSink {
    /// Takes the next part.
    fn take(&mut self, part: Part<'_>) -> Result<(), Full>;
}

/// Turns live cells, given in key order, into the parts of a data type's value.
pub struct Folder<'a, S: ?Sized> {
    sink: &'a mut S,
    /// The fields that the last cell lay in.
    open: Vec<FieldName>,
    /// What the innermost of them, or the root, has shown so far.
    shown: Shown,
    /// A field without live presence, whose cells show nothing.
    absent: Option<Vec<FieldName>>,
}

/// The value, so far, of something that is no map.
enum Shown {
    Counter(CounterShare),
    Register(Option<RegisterValue>),
    Flag(bool),
    Set { last: Option<Bytes> },
    Hll(Option<Sketch>),
    Map,
}

impl Shown {
    fn of_field(kind: FieldKind) -> Self {
        match kind {
            FieldKind::Counter => Self::Counter(CounterShare::default()),
            FieldKind::Register => Self::Register(None),
            FieldKind::Flag => Self::Flag(false),
            FieldKind::Set => Self::Set { last: None },
            FieldKind::Map => Self::Map,
        }
    }

    fn of_root(data_type: DataType) -> Self {
        match data_type {
            DataType::Counter => Self::Counter(CounterShare::default()),
            DataType::Set | DataType::GSet => Self::Set { last: None },
            DataType::Hll => Self::Hll(None),
            DataType::Map => Self::Map,
        }
    }
}

impl<'a, S: ValueSink + ?Sized> Folder<'a, S> {
    /// A folder that hands the value's parts to `sink`.
    pub fn new(data_type: DataType, sink: &'a mut S) -> Self {
        Self { sink, open: Vec::new(), shown: Shown::of_root(data_type), absent: None }
    }

    /// Takes the next cell.
    pub fn push(&mut self, cell: &Cell) -> Result<(), Full> {
        let path = cell.key.path.fields();
        if self.absent.as_ref().is_some_and(|absent| path.starts_with(absent)) {
            return Ok(());
        }
        let common = path.iter().zip(&self.open).take_while(|(a, b)| a == b).count();
        self.close_to(common)?;
        for depth in common..path.len() {
            // A field exists while its presence is live, whatever its value; and its presence comes first.
            if depth + 1 < path.len() || cell.key.element != Element::Presence {
                self.absent = Some(path[..=depth].to_vec());
                return Ok(());
            }
            self.sink.take(Part::FieldStart(&path[depth]))?;
            self.open.push(path[depth].clone());
            self.shown = Shown::of_field(path[depth].kind);
        }
        self.show(cell)
    }

    /// Ends the value after its last cell.
    pub fn finish(mut self) -> Result<(), Full> {
        self.close_to(0)?;
        self.end()
    }

    fn show(&mut self, cell: &Cell) -> Result<(), Full> {
        match (&mut self.shown, &cell.key.element, &cell.payload) {
            (Shown::Counter(sum), _, Payload::Counter(share)) => *sum = sum.and(*share),
            (Shown::Register(winner), _, Payload::Register(value))
                if winner.as_ref().is_none_or(|winner| winner < value) =>
            {
                *winner = Some(value.clone());
            }
            (Shown::Flag(enabled), Element::Flag, _) => *enabled = true,
            // Several actors may have added a member.
            (Shown::Set { last }, Element::Member(member), _) if last.as_ref() != Some(member) => {
                self.sink.take(Part::Member(member))?;
                *last = Some(member.clone());
            }
            (Shown::Hll(union), _, Payload::Hll(registers)) => {
                union.get_or_insert_with(|| Sketch::new(registers.precision())).take_in(registers);
            }
            _ => {}
        }
        Ok(())
    }

    fn close_to(&mut self, depth: usize) -> Result<(), Full> {
        while self.open.len() > depth {
            self.end()?;
            self.sink.take(Part::FieldEnd)?;
            self.open.pop();
            // What is around a field is a map.
            self.shown = Shown::Map;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Full> {
        match &self.shown {
            Shown::Counter(sum) => {
                let sum = sum.value().clamp(i64::MIN.into(), i64::MAX.into());
                self.sink.take(Part::Counter(sum as i64))
            }
            Shown::Register(winner) => {
                let value = winner.as_ref().map(|winner| winner.value.clone()).unwrap_or_default();
                self.sink.take(Part::Register(&value))
            }
            Shown::Flag(enabled) => self.sink.take(Part::Flag(*enabled)),
            Shown::Hll(union) => self.sink.take(Part::Hll(union.as_ref().map_or(0, Sketch::estimate))),
            Shown::Set { .. } | Shown::Map => Ok(()),
        }
    }
}

/// A data type's value, whole.
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

/// The value of the data type content among an object's live cells.
pub fn fold(data_type: DataType, cells: &LiveCells) -> Value {
    let mut builder = ValueBuilder::new(data_type);
    let mut folder = Folder::new(data_type, &mut builder);
    // The builder takes everything.
    let _ = cells.all().iter().try_for_each(|cell| folder.push(cell)).and_then(|()| folder.finish());
    builder.finish()
}

/// Builds a whole value of its parts.
#[derive(Debug)]
pub struct ValueBuilder {
    data_type: DataType,
    scalar: Option<FieldValue>,
    members: Vec<Bytes>,
    fields: Vec<(FieldName, FieldValue)>,
    /// The fields that have begun, with those of the map around each.
    open: Vec<(FieldName, Vec<(FieldName, FieldValue)>)>,
    estimate: u64,
}

impl ValueBuilder {
    /// Builds the value of a data type.
    pub fn new(data_type: DataType) -> Self {
        let (members, fields, open) = (Vec::new(), Vec::new(), Vec::new());
        Self { data_type, scalar: None, members, fields, open, estimate: 0 }
    }

    /// The value, once its last part was taken.
    pub fn finish(self) -> Value {
        match self.data_type {
            DataType::Counter => match self.scalar {
                Some(FieldValue::Counter(sum)) => Value::Counter(sum),
                _ => Value::Counter(0),
            },
            DataType::Set => Value::Set(self.members),
            DataType::GSet => Value::GSet(self.members),
            DataType::Hll => Value::Hll(self.estimate),
            DataType::Map => Value::Map(self.fields),
        }
    }
}

impl ValueSink for ValueBuilder {
    fn take(&mut self, part: Part<'_>) -> Result<(), Full> {
        match part {
            Part::Counter(sum) => self.scalar = Some(FieldValue::Counter(sum)),
            Part::Register(value) => self.scalar = Some(FieldValue::Register(value.clone())),
            Part::Flag(enabled) => self.scalar = Some(FieldValue::Flag(enabled)),
            Part::Hll(estimate) => self.estimate = estimate,
            Part::Member(member) => self.members.push(member.clone()),
            Part::FieldStart(name) => self.open.push((name.clone(), std::mem::take(&mut self.fields))),
            Part::FieldEnd => {
                if let Some((name, around)) = self.open.pop() {
                    let inside = std::mem::replace(&mut self.fields, around);
                    let value = match name.kind {
                        FieldKind::Set => FieldValue::Set(std::mem::take(&mut self.members)),
                        FieldKind::Map => FieldValue::Map(inside),
                        FieldKind::Counter => self.scalar.take().unwrap_or(FieldValue::Counter(0)),
                        FieldKind::Register => self.scalar.take().unwrap_or(FieldValue::Register(Bytes::new())),
                        FieldKind::Flag => self.scalar.take().unwrap_or(FieldValue::Flag(false)),
                    };
                    self.fields.push((name, value));
                }
            }
        }
        Ok(())
    }
}
