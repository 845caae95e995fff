//! Turns an update and the cells it must see into a delta.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use super::hll::Sketch;
use super::{FieldOperation, MapOperation, Operation, SetOperation};
use crate::domain::cell::{
    Cell, CellKey, CounterShare, Element, FieldKind, FieldName, FloorTarget, Floors, LiveCells, Path, Payload,
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

/// The delta of an update, given the live cells that [`Operation::plan`] asks for. What is handed over is gone
/// before the delta is made, since all three may be large.
pub fn resolve(
    operation: impl Borrow<Operation>,
    request: Request<'_>,
    seen: impl Borrow<LiveCells>,
) -> Result<Delta, UpdateError> {
    let mut update = Update { request, seen: seen.borrow(), puts: BTreeMap::new(), floors: Floors::default() };
    let root = Path::root();
    update.put(&root, Element::Presence, Payload::Mark);
    match operation.borrow() {
        Operation::Counter(amount) => update.increment(&root, *amount)?,
        Operation::Set(operation) => update.set(&root, operation)?,
        Operation::GSet(adds) => update.add(&root, adds),
        Operation::Hll(elements) => update.add_to_estimate(elements),
        Operation::Map(operation) => update.map(&root, operation)?,
    }
    update.replace_tombstones();
    let Update { puts, floors, .. } = update;
    drop((operation, seen));
    let dot = request.dot;
    let puts = puts.into_iter().map(|(key, payload)| Cell { key, dot, payload }).collect();
    Ok(Delta { dot, puts, floors: floors.into_list() })
}

/// So many members are added together.
const MANY_MEMBERS_MIN: usize = 1024;

/// The effect of the request so far. Later operations of the request see the earlier ones through it.
struct Update<'a> {
    request: Request<'a>,
    seen: &'a LiveCells,
    puts: BTreeMap<CellKey, Payload>,
    floors: Floors,
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
        let cell =
            |member: &Bytes| (CellKey { path: path.clone(), element: Element::Member(member.clone()) }, Payload::Mark);
        if members.len() < MANY_MEMBERS_MIN {
            return self.puts.extend(members.iter().map(cell));
        }
        // A map that is built at once takes two thirds of the memory of one that members are added to in their order.
        let mut many: BTreeMap<_, _> = members.iter().map(cell).collect();
        self.puts.append(&mut many);
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
        let mut own = CounterShare::default();
        let mut others = CounterShare::default();
        for cell in self.live(&key) {
            if let Payload::Counter(share) = cell.payload {
                if cell.dot.actor == self.request.dot.actor { own = share } else { others = others.and(share) }
            }
        }
        if let Some(Payload::Counter(share)) = self.puts.get(&key) {
            own = *share;
        }
        let after = own.plus(amount);
        let (total_before, total_after) = (others.and(own).value(), others.and(after).value());
        // A value that merging alone took outside may stay there, or be brought back step by step.
        if i64::try_from(total_after).is_err() && total_after.abs() > total_before.abs() {
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
            self.floors.raise(FloorTarget::Element(key), context);
            return true;
        }
        let there: CausalContext = self.live(&key).map(|cell| cell.dot).collect();
        let pending = self.puts.remove(&key).is_some();
        let found = pending || !there.is_empty();
        self.floors.raise(FloorTarget::Element(key), &there);
        found
    }

    fn remove_field(&mut self, parent: &Path, field: &FieldName) -> Result<(), UpdateError> {
        let path = parent.child(field.clone());
        if let Some(context) = self.request.context {
            self.floors.raise(FloorTarget::Subtree(path), context);
            return Ok(());
        }
        let presence = CellKey { path: path.clone(), element: Element::Presence };
        let there: CausalContext = self.live(&presence).map(|cell| cell.dot).collect();
        if there.is_empty() && !self.puts.contains_key(&presence) {
            return Err(UpdateError::FieldNotPresent(field.clone()));
        }
        // The floor ends what was there before the request; what the request itself wrote is dropped here, because a
        // floor at its own dot would also end what its later operations write. Keys within a path stand together, the
        // path's own presence first.
        let within = self.puts.range(presence..).map(|(key, _)| key).take_while(|key| key.path.is_within(&path));
        for key in within.cloned().collect::<Vec<_>>() {
            self.puts.remove(&key);
        }
        self.floors.raise(FloorTarget::Subtree(path), &there);
        Ok(())
    }

    /// A tombstone beside a data type would stay for ever, so every update replaces it (`datatypes.md` §8).
    fn replace_tombstones(&mut self) {
        for (dot, _) in self.seen.siblings().filter(|(_, content)| content.deleted) {
            let key = CellKey { path: Path::root(), element: Element::Sibling(dot.time) };
            self.floors.raise(FloorTarget::Element(key), &CausalContext::from_iter([dot]));
        }
    }

    /// The cells at a key that were there before the request and that it has not removed.
    fn live(&self, key: &CellKey) -> impl Iterator<Item = &Cell> {
        self.seen.at(key).iter().filter(|cell| !self.floors.end(&cell.key, cell.dot))
    }

    fn put(&mut self, path: &Path, element: Element, payload: Payload) {
        self.puts.insert(CellKey { path: path.clone(), element }, payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::datatype::DataType;
    use crate::domain::datatype::value::{Value, fold};
    use crate::domain::dot::ActorId;

    #[test]
    fn a_counter_that_merging_took_out_of_range_takes_what_brings_it_no_further() {
        let share = |actor, time, incremented: u64| Cell {
            key: CellKey { path: Path::root(), element: Element::Counter },
            dot: Dot { actor: ActorId(actor), time: Time(time) },
            payload: Payload::Counter(CounterShare { incremented: incremented.into(), decremented: 0 }),
        };
        let largest = i64::MAX as u64;
        let seen = LiveCells::new(vec![share(1, 1, largest), share(2, 2, largest)]);
        assert_eq!(fold(DataType::Counter, &seen), Value::Counter(i64::MAX));
        let after = |amount| {
            let dot = Dot { actor: ActorId(1), time: Time(3) };
            let request = Request { dot, assigned: dot.time, context: None, hll_precision: 14 };
            resolve(Operation::Counter(amount), request, &seen)
        };
        assert_eq!(after(1), Err(UpdateError::CounterOverflow));
        assert!(after(0).is_ok() && after(-1).is_ok() && after(i64::MIN).is_ok());
    }
}
