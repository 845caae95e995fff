//! The data types said once more, without cells, floors and clocks: a list of everything that was ever requested. A thing
//! is there when some request put it there that no remove has seen. It costs what the history is long, and nothing is
//! compressed, so it shows what the cells must amount to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ombak::domain::cell::{CellKey, Element, FieldKind, FieldName, Path};
use ombak::domain::datatype::hll::Sketch;
use ombak::domain::datatype::{
    DataType, FieldOperation, FieldValue, MapOperation, Operation, SetOperation, UpdateError, Value,
};
use ombak::domain::dot::{ActorId, Dot, Time};

use crate::history::{Attempt, Reading};

/// Every request of every replica. A replica is the set of requests it has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    /// In the order of time.
    puts: Vec<Put>,
    removes: Vec<Remove>,
}

#[derive(Clone, Debug)]
struct Put {
    dot: Dot,
    key: CellKey,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Mark,
    /// The actor's own total after the request.
    Total(i128),
    Assigned(Time, Bytes),
    Elements(u8, Vec<Bytes>),
}

#[derive(Clone, Debug)]
struct Remove {
    dot: Dot,
    path: Path,
    /// What of the path; all of it when absent.
    element: Option<Element>,
    saw: BTreeSet<Dot>,
}

impl Remove {
    fn reaches(&self, key: &CellKey) -> bool {
        match &self.element {
            Some(element) => key.path == self.path && key.element == *element,
            None => key.path.fields().starts_with(self.path.fields()),
        }
    }
}

impl Reference {
    /// Takes in a request that comes to a replica that has seen `seen`.
    pub(crate) fn update(&mut self, attempt: &Attempt, seen: &BTreeSet<Dot>) -> Result<(), UpdateError> {
        let mut request = Applied { reference: self.clone(), attempt, seen };
        let root = Path::root();
        request.put(&root, Element::Presence, What::Mark);
        match &attempt.operation {
            Operation::Counter(amount) => request.increment(&root, *amount)?,
            Operation::Set(operation) => request.set(&root, operation)?,
            Operation::GSet(adds) => {
                request.set(&root, &SetOperation { adds: adds.clone(), removes: Vec::new() })?;
            }
            Operation::Hll(elements) => {
                request.put(&root, Element::Hll, What::Elements(attempt.hll_precision, elements.clone()));
            }
            Operation::Map(operation) => request.map(&root, operation)?,
        }
        *self = request.reference;
        Ok(())
    }

    /// The value at a replica that has seen these requests.
    pub(crate) fn value(&self, data_type: DataType, seen: &BTreeSet<Dot>) -> Value {
        let root = Path::root();
        match data_type {
            DataType::Counter => Value::Counter(self.counter(&root, seen)),
            DataType::Set => Value::Set(self.members(&root, seen)),
            DataType::GSet => Value::GSet(self.members(&root, seen)),
            DataType::Hll => Value::Hll(self.estimate(seen)),
            DataType::Map => Value::Map(self.fields(&root, seen)),
        }
    }

    fn live<'a>(&'a self, path: &'a Path, seen: &'a BTreeSet<Dot>) -> impl Iterator<Item = &'a Put> {
        let is_gone = |put: &Put| {
            let mut known = self.removes.iter().filter(|remove| seen.contains(&remove.dot));
            known.any(|remove| remove.reaches(&put.key) && remove.saw.contains(&put.dot))
        };
        self.puts.iter().filter(move |put| put.key.path == *path && seen.contains(&put.dot) && !is_gone(put))
    }

    /// Each actor's total: that of its last request here.
    fn totals(&self, path: &Path, seen: &BTreeSet<Dot>) -> BTreeMap<ActorId, i128> {
        let total = |put: &Put| match put.what {
            What::Total(total) => Some((put.dot.actor, total)),
            _ => None,
        };
        self.live(path, seen).filter_map(total).collect()
    }

    fn counter(&self, path: &Path, seen: &BTreeSet<Dot>) -> i64 {
        let sum: i128 = self.totals(path, seen).values().sum();
        sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    fn members(&self, path: &Path, seen: &BTreeSet<Dot>) -> Vec<Bytes> {
        let member = |put: &Put| match &put.key.element {
            Element::Member(member) => Some(member.clone()),
            _ => None,
        };
        self.live(path, seen).filter_map(member).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn register(&self, path: &Path, seen: &BTreeSet<Dot>) -> Bytes {
        let assigned = |put: &Put| match &put.what {
            What::Assigned(time, value) => Some((*time, value.clone())),
            _ => None,
        };
        self.live(path, seen).filter_map(assigned).max().map(|(_, value)| value).unwrap_or_default()
    }

    fn estimate(&self, seen: &BTreeSet<Dot>) -> u64 {
        let root = Path::root();
        let added = || {
            self.live(&root, seen).filter_map(|put| match &put.what {
                What::Elements(precision, elements) => Some((*precision, elements)),
                _ => None,
            })
        };
        let Some(precision) = added().map(|(precision, _)| precision).min() else { return 0 };
        let mut sketch = Sketch::new(precision);
        added().flat_map(|(_, elements)| elements).for_each(|element| sketch.add(element));
        sketch.estimate()
    }

    fn fields(&self, path: &Path, seen: &BTreeSet<Dot>) -> Vec<(FieldName, FieldValue)> {
        let depth = path.fields().len();
        let inside = |put: &&Put| put.key.path.fields().starts_with(path.fields());
        let names: BTreeSet<FieldName> =
            self.puts.iter().filter(inside).filter_map(|put| put.key.path.fields().get(depth).cloned()).collect();
        let value = |name: FieldName| {
            let path = path.child(name.clone());
            self.live(&path, seen).find(|put| put.key.element == Element::Presence)?;
            let value = match name.kind {
                FieldKind::Counter => FieldValue::Counter(self.counter(&path, seen)),
                FieldKind::Set => FieldValue::Set(self.members(&path, seen)),
                FieldKind::Register => FieldValue::Register(self.register(&path, seen)),
                FieldKind::Flag => FieldValue::Flag(self.live(&path, seen).any(|p| p.key.element == Element::Flag)),
                FieldKind::Map => FieldValue::Map(self.fields(&path, seen)),
            };
            Some((name, value))
        };
        names.into_iter().filter_map(value).collect()
    }
}

/// A request while its operations are taken in one after the other.
struct Applied<'a> {
    reference: Reference,
    attempt: &'a Attempt,
    /// What the replica had seen before it.
    seen: &'a BTreeSet<Dot>,
}

impl Applied<'_> {
    fn map(&mut self, path: &Path, operation: &MapOperation) -> Result<(), UpdateError> {
        for field in &operation.adds {
            let path = path.child(field.clone());
            self.put(&path, Element::Presence, What::Mark);
            if field.kind == FieldKind::Counter {
                self.increment(&path, 0)?;
            }
        }
        for field in &operation.removes {
            let path = path.child(field.clone());
            if !self.remove(&path, None) {
                return Err(UpdateError::FieldNotPresent(field.clone()));
            }
        }
        for update in &operation.updates {
            let path = path.child(update.field());
            self.put(&path, Element::Presence, What::Mark);
            match &update.operation {
                FieldOperation::Counter(amount) => self.increment(&path, *amount)?,
                FieldOperation::Set(operation) => self.set(&path, operation)?,
                FieldOperation::Register(value) => {
                    self.put(&path, Element::Register, What::Assigned(self.attempt.assigned, value.clone()));
                }
                FieldOperation::Flag(true) => self.put(&path, Element::Flag, What::Mark),
                FieldOperation::Flag(false) => {
                    self.remove(&path, Some(Element::Flag));
                }
                FieldOperation::Map(operation) => self.map(&path, operation)?,
            }
        }
        Ok(())
    }

    fn set(&mut self, path: &Path, operation: &SetOperation) -> Result<(), UpdateError> {
        for member in &operation.adds {
            self.put(path, Element::Member(member.clone()), What::Mark);
        }
        for member in &operation.removes {
            if !self.remove(path, Some(Element::Member(member.clone()))) {
                return Err(UpdateError::MemberNotPresent(member.clone()));
            }
        }
        Ok(())
    }

    fn increment(&mut self, path: &Path, amount: i64) -> Result<(), UpdateError> {
        let totals = self.reference.totals(path, &self.seen_so_far());
        let own = totals.get(&self.attempt.dot.actor).copied().unwrap_or(0) + i128::from(amount);
        let before: i128 = totals.values().sum();
        let after = before + i128::from(amount);
        if i64::try_from(after).is_err() && after.abs() > before.abs() {
            return Err(UpdateError::CounterOverflow);
        }
        self.put(path, Element::Counter, What::Total(own));
        Ok(())
    }

    /// Whether the remove is allowed: with a context always, else when the thing is there.
    fn remove(&mut self, path: &Path, element: Option<Element>) -> bool {
        let dot = self.attempt.dot;
        if let Some(Reading { saw, .. }) = &self.attempt.reading {
            self.reference.removes.push(Remove { dot, path: path.clone(), element, saw: saw.clone() });
            return true;
        }
        let shown_by = element.clone().unwrap_or(Element::Presence);
        let is_there = self.reference.live(path, &self.seen_so_far()).any(|put| put.key.element == shown_by);
        let remove = Remove { dot, path: path.clone(), element, saw: self.seen.clone() };
        self.reference.puts.retain(|put| put.dot != dot || !remove.reaches(&put.key));
        self.reference.removes.push(remove);
        is_there
    }

    fn put(&mut self, path: &Path, element: Element, what: What) {
        let (dot, key) = (self.attempt.dot, CellKey { path: path.clone(), element });
        // The later of two in one request replaces the earlier.
        self.reference.puts.retain(|put| put.dot != dot || put.key != key);
        self.reference.puts.push(Put { dot, key, what });
    }

    fn seen_so_far(&self) -> BTreeSet<Dot> {
        let mut seen = self.seen.clone();
        seen.insert(self.attempt.dot);
        seen
    }
}
