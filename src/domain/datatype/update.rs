//! Turns an update and the cells it must see into a delta.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use super::hll::Sketch;
use super::{FieldOperation, MapOperation, Operation, SetOperation};
use crate::domain::cell::{
    Cell, CellKey, CounterShare, Element, FieldKind, FieldName, Floor, FloorTarget, LiveCells, Path, Payload,
    RegisterValue,
};
use crate::domain::context::CausalContext;
use crate::domain::delta::Delta;
use crate::domain::dot::{Dot, Time};

/// Why an update was refused. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UpdateError {
    /// A remove without context of a member that is not in the set.
    #[error("the set has no such member")]
    MemberNotPresent(Bytes),
    /// A remove without context of a field that is not in the map.
    #[error("the map has no such field")]
    FieldNotPresent(FieldName),
    /// The counter would leave the range of a 64-bit signed integer.
    #[error("the counter would overflow")]
    CounterOverflow,
}

/// What an update is resolved with, beside the operation itself.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The request's dot.
    pub dot: Dot,
    /// The time that register assignments carry: the dot's, except where recorded histories are played.
    pub assigned: Time,
    /// What the client has seen; `None` when it sent no context.
    pub context: Option<&'a CausalContext>,
    /// The bucket's precision for HyperLogLogs. A lower one that the object has is kept.
    pub hll_precision: u8,
}

/// The delta of an update, given the live cells that [`Operation::plan`] asks for.
pub fn resolve(operation: &Operation, request: Request<'_>, seen: &LiveCells) -> Result<Delta, UpdateError> {
    let mut update = Update { request, seen, puts: BTreeMap::new(), floors: BTreeMap::new() };
    let root = Path::root();
    update.put(&root, Element::Presence, Payload::Mark);
    match operation {
        Operation::Counter(amount) => update.increment(&root, *amount)?,
        Operation::Set(operation) => update.set(&root, operation)?,
        Operation::GSet(adds) => update.add(&root, adds),
        Operation::Hll(elements) => update.add_to_estimate(elements),
        Operation::Map(operation) => update.map(&root, operation)?,
    }
    update.replace_tombstones();
    Ok(update.into_delta())
}

/// The effect of the request so far. Later operations of the request see the earlier ones through it.
struct Update<'a> {
    request: Request<'a>,
    seen: &'a LiveCells,
    puts: BTreeMap<CellKey, Payload>,
    floors: BTreeMap<FloorTarget, CausalContext>,
}

impl Update<'_> {
    fn map(&mut self, path: &Path, operation: &MapOperation) -> Result<(), UpdateError> {
        for field in &operation.adds {
            self.add_field(&path.child(field.clone()), field.kind)?;
        }
        for field in &operation.removes {
            self.remove_field(path, field)?;
        }
        for update in &operation.updates {
            let path = path.child(update.field());
            self.put(&path, Element::Presence, Payload::Mark);
            match &update.operation {
                FieldOperation::Counter(amount) => self.increment(&path, *amount)?,
                FieldOperation::Set(operation) => self.set(&path, operation)?,
                FieldOperation::Register(value) => self.assign(&path, value),
                FieldOperation::Flag(true) => self.put(&path, Element::Flag, Payload::Mark),
                FieldOperation::Flag(false) => self.disable(&path),
                FieldOperation::Map(operation) => self.map(&path, operation)?,
            }
        }
        Ok(())
    }

    fn set(&mut self, path: &Path, operation: &SetOperation) -> Result<(), UpdateError> {
        self.add(path, &operation.adds);
        for member in &operation.removes {
            let key = CellKey { path: path.clone(), element: Element::Member(member.clone()) };
            if !self.remove_element(key) {
                return Err(UpdateError::MemberNotPresent(member.clone()));
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, members: &[Bytes]) {
        for member in members {
            self.put(path, Element::Member(member.clone()), Payload::Mark);
        }
    }

    /// Raises the own registers; the other actors' stay where they are.
    fn add_to_estimate(&mut self, elements: &[Bytes]) {
        let key = CellKey { path: Path::root(), element: Element::Hll };
        let mut sketch = Sketch::new(self.request.hll_precision);
        for cell in self.live(&key).filter(|cell| cell.dot.actor == self.request.dot.actor) {
            if let Payload::Hll(registers) = &cell.payload {
                sketch.take_in(registers);
            }
        }
        elements.iter().for_each(|element| sketch.add(element));
        self.puts.insert(key, Payload::Hll(sketch.pack()));
    }

    /// Makes a field present without changing its value (`datatypes.md` §2, the preview layout's adds).
    fn add_field(&mut self, path: &Path, kind: FieldKind) -> Result<(), UpdateError> {
        self.put(path, Element::Presence, Payload::Mark);
        if kind == FieldKind::Counter { self.increment(path, 0) } else { Ok(()) }
    }

    fn increment(&mut self, path: &Path, amount: i64) -> Result<(), UpdateError> {
        let key = CellKey { path: path.clone(), element: Element::Counter };
        let pending = match self.puts.get(&key) {
            Some(Payload::Counter(share)) => Some(*share),
            _ => None,
        };
        let mut others = CounterTotal::default();
        let mut own = CounterShare::default();
        for cell in self.live(&key) {
            if let Payload::Counter(share) = cell.payload {
                if cell.dot.actor == self.request.dot.actor { own = share } else { others.add(share) }
            }
        }
        let before = pending.unwrap_or(own);
        let after = before.plus(amount);
        let total = |share| {
            let mut total = others;
            total.add(share);
            total.value()
        };
        let leaves_range = |total: i128| i64::try_from(total).is_err();
        // A value that merging took outside may be brought back, step by step.
        if leaves_range(total(after)) && total(after).abs() >= total(before).abs() {
            return Err(UpdateError::CounterOverflow);
        }
        self.puts.insert(key, Payload::Counter(after));
        Ok(())
    }

    /// The later of two assignments in one request wins. A clock that is behind what is stored does not assign: the
    /// winning value is written again, under the new dot (`datatypes.md` §16.1, tag `clock-skew`).
    fn assign(&mut self, path: &Path, value: &Bytes) {
        let key = CellKey { path: path.clone(), element: Element::Register };
        let winner = self.live(&key).filter_map(|cell| match &cell.payload {
            Payload::Register(register) => Some(register),
            _ => None,
        });
        let assigned = self.request.assigned;
        let register = match winner.max() {
            Some(winner) if winner.assigned >= assigned => winner.clone(),
            _ => RegisterValue { assigned, value: value.clone() },
        };
        self.puts.insert(key, Payload::Register(register));
    }

    /// Never an error: a flag that is not enabled is disabled already.
    fn disable(&mut self, path: &Path) {
        self.remove_element(CellKey { path: path.clone(), element: Element::Flag });
    }

    /// Removes one element: what the context covers, or without one what is there. Whether there was something to
    /// remove; with a context that is not asked.
    fn remove_element(&mut self, key: CellKey) -> bool {
        if let Some(context) = self.request.context {
            self.raise(FloorTarget::Element(key), context.clone());
            return true;
        }
        let there: CausalContext = self.live(&key).map(|cell| cell.dot).collect();
        let pending = self.puts.remove(&key).is_some();
        let found = pending || !there.is_empty();
        self.raise(FloorTarget::Element(key), there);
        found
    }

    fn remove_field(&mut self, parent: &Path, field: &FieldName) -> Result<(), UpdateError> {
        let path = parent.child(field.clone());
        if let Some(context) = self.request.context {
            self.raise(FloorTarget::Subtree(path), context.clone());
            return Ok(());
        }
        let presence = CellKey { path: path.clone(), element: Element::Presence };
        let there: CausalContext = self.live(&presence).map(|cell| cell.dot).collect();
        if there.is_empty() && !self.puts.contains_key(&presence) {
            return Err(UpdateError::FieldNotPresent(field.clone()));
        }
        // The floor ends what was there before the request; what the request itself wrote is dropped here, because a
        // floor at its own dot would also end what its later operations write.
        self.puts.retain(|key, _| !key.path.is_within(&path));
        self.raise(FloorTarget::Subtree(path), there);
        Ok(())
    }

    /// A tombstone beside a data type would stay for ever, so every update replaces it (`datatypes.md` §8).
    fn replace_tombstones(&mut self) {
        for (dot, _) in self.seen.siblings().filter(|(_, content)| content.deleted) {
            let key = CellKey { path: Path::root(), element: Element::Sibling(dot.time) };
            self.floors.entry(FloorTarget::Element(key)).or_default().see(dot);
        }
    }

    /// The cells at a key that were there before the request and that it has not removed.
    fn live(&self, key: &CellKey) -> impl Iterator<Item = &Cell> {
        let ending: Vec<&CausalContext> =
            self.floors.iter().filter(|(target, _)| target.reaches(key)).map(|(_, context)| context).collect();
        self.seen.at(key).iter().filter(move |cell| !ending.iter().any(|context| context.covers(cell.dot)))
    }

    fn put(&mut self, path: &Path, element: Element, payload: Payload) {
        self.puts.insert(CellKey { path: path.clone(), element }, payload);
    }

    fn raise(&mut self, target: FloorTarget, context: CausalContext) {
        if !context.is_empty() {
            self.floors.entry(target).or_default().join(&context);
        }
    }

    fn into_delta(self) -> Delta {
        let dot = self.request.dot;
        let puts = self.puts.into_iter().map(|(key, payload)| Cell { key, dot, payload }).collect();
        let floors = self.floors.into_iter().map(|(target, context)| Floor { target, context }).collect();
        Delta { dot, puts, floors }
    }
}

/// A counter's total over the actors' shares.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CounterTotal(CounterShare);

impl CounterTotal {
    pub(super) fn add(&mut self, share: CounterShare) {
        self.0.incremented = self.0.incremented.saturating_add(share.incremented);
        self.0.decremented = self.0.decremented.saturating_add(share.decremented);
    }

    pub(super) fn value(self) -> i128 {
        let CounterShare { incremented, decremented } = self.0;
        if incremented >= decremented {
            i128::try_from(incremented - decremented).unwrap_or(i128::MAX)
        } else {
            i128::try_from(decremented - incremented).map_or(i128::MIN, |n| -n)
        }
    }
}

/// The value of a counter whose live shares these are, clamped to what the protocol can carry.
pub(super) fn counter_value(cells: &[Cell]) -> i64 {
    let mut total = CounterTotal::default();
    for cell in cells {
        if let Payload::Counter(share) = cell.payload {
            total.add(share);
        }
    }
    let value = total.value();
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}
