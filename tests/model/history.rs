//! Generated histories: updates of one object at a few replicas that merge now and then. The laws are checked on them, and
//! the stores (`tests/store`).

use std::collections::BTreeSet;

use bytes::Bytes;
use ombak::domain::cell::{FieldKind, FieldName, LiveCells, Path, Selection};
use ombak::domain::context::CausalContext;
use ombak::domain::datatype::update::{self, Request, UpdateError};
use ombak::domain::datatype::{DataType, FieldOperation, FieldUpdate, MapOperation, Operation, SetOperation};
use ombak::domain::delta::Delta;
use ombak::domain::dot::{ActorId, Dot, Time};
use ombak::domain::object;
use ombak::domain::replica::Replica;
use proptest::prelude::*;
use proptest::sample::Index;

pub(crate) const REPLICAS: usize = 3;
const STEPS_MAX: usize = 20;

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) replica: usize,
    pub(crate) action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Takes in another replica's state.
    Merge(usize),
    Update {
        operation: Operation,
        claim: Claim,
        /// The time of assignments.
        assigned: Time,
        hll_precision: u8,
    },
}

/// The context that a client sends.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    Absent,
    /// What the replica would hand out now.
    Current,
    /// What the step's replica handed out after an earlier step: stale, or another replica's.
    Earlier(Index),
    /// Of another object, which counts as empty.
    Foreign,
}

/// Histories of each type. Assignments carry clocks that run backwards between replicas and inside one.
pub(crate) fn history() -> impl Strategy<Value = Vec<Step>> {
    history_of(REPLICAS)
}

/// Histories of one replica.
pub(crate) fn history_of_one() -> impl Strategy<Value = Vec<Step>> {
    history_of(1)
}

/// The data type that a history is of.
pub(crate) fn data_type(history: &[Step]) -> DataType {
    let of = |step: &Step| match &step.action {
        Action::Update { operation, .. } => Some(operation.data_type()),
        Action::Merge(_) => None,
    };
    history.iter().find_map(of).unwrap_or(DataType::Set)
}

fn history_of(replicas: usize) -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        1 => steps(replicas, amount().prop_map(Operation::Counter)),
        2 => steps(replicas, set_operation().prop_map(Operation::Set)),
        1 => steps(replicas, members(3).prop_map(Operation::GSet)),
        1 => steps(replicas, members(3).prop_map(Operation::Hll)),
        5 => steps(replicas, map_operation(2).prop_map(Operation::Map)),
    ]
}

fn steps(replicas: usize, operation: impl Strategy<Value = Operation>) -> impl Strategy<Value = Vec<Step>> {
    let claim = prop_oneof![
        2 => Just(Claim::Absent),
        3 => Just(Claim::Current),
        3 => any::<Index>().prop_map(Claim::Earlier),
        1 => Just(Claim::Foreign),
    ];
    let update = (operation, claim, 0..STEPS_MAX as u64, prop_oneof![Just(5), Just(8)]).prop_map(
        |(operation, claim, assigned, hll_precision)| Action::Update {
            operation,
            claim,
            assigned: Time(assigned),
            hll_precision,
        },
    );
    let action = prop_oneof![2 => update, 1 => (0..replicas).prop_map(Action::Merge)];
    let step = (0..replicas, action).prop_map(|(replica, action)| Step { replica, action });
    proptest::collection::vec(step, 1..=STEPS_MAX)
}

/// Few names, so that operations meet.
fn name() -> impl Strategy<Value = Bytes> {
    prop_oneof![3 => Just("a"), 1 => Just("")].prop_map(|name| Bytes::from_static(name.as_bytes()))
}

fn members(count_max: usize) -> impl Strategy<Value = Vec<Bytes>> {
    proptest::collection::vec(name(), 0..=count_max)
}

fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![20 => -9..=9_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)]
}

fn set_operation() -> impl Strategy<Value = SetOperation> {
    (members(2), members(1)).prop_map(|(adds, removes)| SetOperation { adds, removes })
}

fn field() -> impl Strategy<Value = FieldName> {
    let kinds = [FieldKind::Counter, FieldKind::Set, FieldKind::Register, FieldKind::Flag, FieldKind::Map];
    (name(), proptest::sample::select(kinds.to_vec())).prop_map(|(name, kind)| FieldName { name, kind })
}

fn map_operation(depth: usize) -> BoxedStrategy<MapOperation> {
    let leaf = prop_oneof![
        amount().prop_map(FieldOperation::Counter),
        set_operation().prop_map(FieldOperation::Set),
        name().prop_map(FieldOperation::Register),
        any::<bool>().prop_map(FieldOperation::Flag),
    ];
    let operation = if depth == 0 {
        leaf.boxed()
    } else {
        prop_oneof![2 => leaf, 1 => map_operation(depth - 1).prop_map(FieldOperation::Map)].boxed()
    };
    let update = (name(), operation).prop_map(|(name, operation)| FieldUpdate { name, operation });
    let adds = prop_oneof![6 => Just(Vec::new()), 1 => field().prop_map(|field| vec![field])];
    let removes = prop_oneof![2 => Just(Vec::new()), 1 => field().prop_map(|field| vec![field])];
    (adds, removes, proptest::collection::vec(update, 0..=3))
        .prop_map(|(adds, removes, updates)| MapOperation { adds, removes, updates })
        .boxed()
}

/// What a client holds: the context, and the requests that the replica it comes from had seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) context: CausalContext,
    pub(crate) saw: BTreeSet<Dot>,
}

/// The replicas while a history is played.
#[derive(Clone, Debug, Default)]
pub(crate) struct Play {
    pub(crate) replicas: [Replica; REPLICAS],
    /// The requests that each replica has seen.
    pub(crate) seen: [BTreeSet<Dot>; REPLICAS],
    pub(crate) deltas: Vec<Delta>,
    /// What the step's replica handed out after each step.
    pub(crate) readings: Vec<Reading>,
    /// Whether assignments carry the time of their request, whatever the history says.
    pub(crate) clocks_in_order: bool,
}

/// One update that was tried.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) operation: Operation,
    pub(crate) dot: Dot,
    pub(crate) assigned: Time,
    pub(crate) hll_precision: u8,
    /// What the client sent, if anything.
    pub(crate) reading: Option<Reading>,
    /// The replica before it.
    pub(crate) before: Replica,
    pub(crate) result: Result<Delta, UpdateError>,
}

impl Attempt {
    /// Resolves the operation once more, from other cells.
    pub(crate) fn resolve(&self, cells: &LiveCells) -> Result<Delta, UpdateError> {
        let context = self.reading.as_ref().map(|reading| &reading.context);
        let request = Request { dot: self.dot, assigned: self.assigned, context, hll_precision: self.hll_precision };
        update::resolve(&self.operation, request, cells)
    }
}

impl Play {
    /// Plays a whole history, and gives the state after it.
    pub(crate) fn of(history: &[Step]) -> Self {
        let mut play = Self::default();
        history.iter().for_each(|step| {
            play.step(step);
        });
        play
    }

    /// Plays one step; what was tried, if it is an update.
    pub(crate) fn step(&mut self, step: &Step) -> Option<Attempt> {
        let at = step.replica;
        let attempt = match &step.action {
            Action::Merge(from) => {
                let (other, seen) = (self.replicas[*from].clone(), self.seen[*from].clone());
                self.replicas[at].merge(&other);
                self.seen[at].extend(seen);
                None
            }
            Action::Update { operation, claim, assigned, hll_precision } => {
                let reading = self.reading(at, claim);
                let (context, before) = (reading.as_ref().map(|r| &r.context), self.replicas[at].clone());
                let dot = self.next_dot(at);
                let assigned = if self.clocks_in_order { dot.time } else { *assigned };
                let request = Request { dot, assigned, context, hll_precision: *hll_precision };
                let planned = before.select(&operation.plan(context.is_some()));
                let result = update::resolve(operation, request, &planned);
                if let Ok(delta) = &result {
                    self.replicas[at].apply(delta);
                    self.seen[at].insert(dot);
                    self.deltas.push(delta.clone());
                }
                let (operation, hll_precision) = (operation.clone(), *hll_precision);
                Some(Attempt { operation, dot, assigned, hll_precision, reading, before, result })
            }
        };
        self.readings.push(self.current(at));
        attempt
    }

    /// Lets a step's turn pass.
    pub(crate) fn pass(&mut self, step: &Step) {
        self.readings.push(self.current(step.replica));
    }

    /// The dot of the step whose turn it is: later than every step before it.
    pub(crate) fn next_dot(&self, at: usize) -> Dot {
        Dot { actor: ActorId(at as u64 + 1), time: Time(self.readings.len() as u64 + 1) }
    }

    pub(crate) fn current(&self, at: usize) -> Reading {
        let context = object::context_of(&self.replicas[at].select(&Selection::values()));
        Reading { context, saw: self.seen[at].clone() }
    }

    pub(crate) fn reading(&self, at: usize, claim: &Claim) -> Option<Reading> {
        match claim {
            Claim::Absent => None,
            Claim::Current => Some(self.current(at)),
            Claim::Earlier(_) if self.readings.is_empty() => Some(Reading::default()),
            Claim::Earlier(index) => Some(index.get(&self.readings).clone()),
            Claim::Foreign => Some(Reading::default()),
        }
    }
}

/// The live data type content.
pub(crate) fn whole(replica: &Replica) -> LiveCells {
    replica.select(&[Selection::Subtree(Path::root())])
}
