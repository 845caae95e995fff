//! What must hold of every history, whatever the type (`datatypes.md` §16.6).

use bytes::Bytes;
use ombak::domain::cell::{Cell, CellKey, Element, FieldKind, FieldName, LiveCells, Path, Payload, Selection};
use ombak::domain::datatype::update::{self, Request};
use ombak::domain::datatype::value::fold;
use ombak::domain::datatype::{FieldOperation, MapOperation, Operation, SetOperation};
use ombak::domain::dot::{ActorId, Dot, Time};
use ombak::domain::replica::Replica;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::history::{Play, data_type, history, history_of_one, whole};
use crate::reference::Reference;

fn merged<'a>(replicas: impl IntoIterator<Item = &'a Replica>) -> Replica {
    let mut all = Replica::default();
    replicas.into_iter().for_each(|replica| all.merge(replica));
    all
}

fn lives(cell: &Cell, replica: &Replica) -> bool {
    whole(replica).at(&cell.key).contains(cell)
}

/// Whether an operation changes things without asking how they are.
fn is_blind(operation: &Operation, with_context: bool) -> bool {
    fn map(operation: &MapOperation, with_context: bool) -> bool {
        (with_context || operation.removes.is_empty())
            && operation.adds.iter().all(|field| field.kind != FieldKind::Counter)
            && operation.updates.iter().all(|update| match &update.operation {
                FieldOperation::Counter(_) | FieldOperation::Register(_) => false,
                FieldOperation::Set(set) => with_context || set.removes.is_empty(),
                FieldOperation::Flag(enable) => with_context || *enable,
                FieldOperation::Map(operation) => map(operation, with_context),
            })
    }
    match operation {
        Operation::Counter(_) | Operation::Hll(_) => false,
        Operation::Set(set) => with_context || set.removes.is_empty(),
        Operation::GSet(_) => true,
        Operation::Map(operation) => map(operation, with_context),
    }
}

/// The variable `PROPTEST_CASES` sets another number of histories. A failure prints its seed, and keeps it in
/// `tests/proptest-regressions`, from where the next run begins.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 1_000, max_shrink_iters: 16_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(history in history()) {
        let [a, b, c] = Play::of(&history).replicas;
        prop_assert_eq!(merged([&a, &b]), merged([&b, &a]));
        prop_assert_eq!(merged([&merged([&a, &b]), &c]), merged([&a, &merged([&b, &c])]));
        prop_assert_eq!(merged([&a, &a]), a.clone());
        let all = merged([&a, &b, &c]);
        prop_assert_eq!(merged([&all, &b]), all);
    }

    #[test]
    fn deltas_in_any_order_and_number_give_the_merged_state(
        history in history(),
        strays in proptest::collection::vec(any::<Index>(), 0..8),
        order in proptest::collection::vec(any::<Index>(), 20),
    ) {
        let play = Play::of(&history);
        let mut deltas = play.deltas.clone();
        for (i, other) in (0..deltas.len()).zip(&order) {
            deltas.swap(i, other.index(play.deltas.len()));
        }
        let mut replica = Replica::default();
        for stray in strays.iter().filter(|_| !deltas.is_empty()) {
            replica.apply(stray.get(&deltas));
        }
        deltas.iter().for_each(|delta| replica.apply(delta));
        prop_assert_eq!(replica, merged(&play.replicas));
    }

    #[test]
    fn every_replica_shows_what_the_requests_it_has_seen_amount_to(history in history()) {
        // Observed-remove, reset-remove, and that an add stays until a remove has seen it.
        let data_type = data_type(&history);
        let mut play = Play { clocks_in_order: true, ..Play::default() };
        let mut reference = Reference::default();
        for (n, step) in history.iter().enumerate() {
            let seen = play.seen[step.replica].clone();
            if let Some(attempt) = play.step(step) {
                let result = reference.update(&attempt, &seen);
                prop_assert_eq!(attempt.result.map(|_| ()), result, "step {}", n);
            }
            let value = fold(data_type, &whole(&play.replicas[step.replica]));
            prop_assert_eq!(value, reference.value(data_type, &play.seen[step.replica]), "after step {}", n);
        }
        let everything = play.seen.iter().flatten().copied().collect();
        let value = fold(data_type, &whole(&merged(&play.replicas)));
        prop_assert_eq!(value, reference.value(data_type, &everything), "merged");
    }

    #[test]
    fn a_context_ends_nothing_that_its_reader_had_not_seen(history in history()) {
        let mut play = Play::default();
        for step in &history {
            let Some(attempt) = play.step(step) else { continue };
            let (Some(reading), Ok(delta)) = (&attempt.reading, &attempt.result) else { continue };
            // At the coordinator, and at every other replica when the delta arrives there.
            for before in play.replicas.iter().chain([&attempt.before]) {
                let mut after = before.clone();
                after.apply(delta);
                for cell in whole(before).all().iter().filter(|cell| !lives(cell, &after)) {
                    let is_replaced = delta.puts.iter().any(|put| {
                        put.key == cell.key && put.dot.actor == cell.dot.actor && put.dot.time > cell.dot.time
                    });
                    prop_assert!(reading.saw.contains(&cell.dot) || is_replaced, "{:?}", cell);
                }
            }
        }
    }

    #[test]
    fn a_refused_update_is_as_if_it_had_never_come(history in history()) {
        let (mut play, mut without) = (Play::default(), Play::default());
        for step in &history {
            match play.step(step) {
                Some(attempt) if attempt.result.is_err() => without.pass(step),
                _ => {
                    without.step(step);
                }
            }
        }
        prop_assert_eq!(play.replicas, without.replicas);
    }

    #[test]
    fn an_update_needs_only_the_cells_that_it_plans_to_read(history in history()) {
        let mut play = Play::default();
        for step in &history {
            let Some(attempt) = play.step(step) else { continue };
            let everything = attempt.before.select(&Selection::whole_object());
            prop_assert_eq!(attempt.resolve(&everything), attempt.result.clone());
            let plan = attempt.operation.plan(attempt.reading.is_some());
            let asks_for_siblings_only = plan == [Selection::Siblings];
            prop_assert_eq!(asks_for_siblings_only, is_blind(&attempt.operation, attempt.reading.is_some()));
        }
    }

    #[test]
    fn a_delta_writes_under_its_own_dot_and_ends_only_what_is_earlier(history in history()) {
        let mut play = Play::default();
        for step in &history {
            let Some(attempt) = play.step(step) else { continue };
            let Ok(delta) = attempt.result else { continue };
            prop_assert_eq!(delta.dot, attempt.dot);
            prop_assert!(delta.puts.iter().all(|put| put.dot == attempt.dot));
            prop_assert!(delta.floors.iter().all(|floor| !floor.context.covers(attempt.dot)));
            // Every field around what is written is there, the root first.
            for put in &delta.puts {
                for path in put.key.path.prefixes() {
                    let presence = CellKey { path, element: Element::Presence };
                    prop_assert!(delta.puts.iter().any(|put| put.key == presence), "{:?}", presence);
                }
            }
            let after = &play.replicas[step.replica];
            prop_assert!(delta.puts.iter().all(|put| lives(put, after)));
            let (seen_before, seen) = (whole(&attempt.before).data_type_clock(), whole(after).data_type_clock());
            prop_assert!(seen.covers(attempt.dot) && seen.covers_all(&seen_before));
        }
    }

    #[test]
    fn the_only_writer_may_forget_its_floors(history in history_of_one()) {
        let (mut keeping, mut forgetting) = (Play::default(), Play::default());
        for step in &history {
            keeping.step(step);
            forgetting.step(step);
            forgetting.replicas[0].forget_floors();
            prop_assert_eq!(whole(&keeping.replicas[0]), whole(&forgetting.replicas[0]));
        }
    }
}

#[test]
fn a_request_may_remove_very_many_members_and_fields() {
    // Each remove asks what the request has removed already; were that a scan, this would not end in time.
    let names: Vec<Bytes> = (0..30_000_u32).map(|n| n.to_be_bytes().to_vec().into()).collect();
    let (past, dot) = (Dot { actor: ActorId(1), time: Time(1) }, Dot { actor: ActorId(1), time: Time(2) });
    let seen = |key: fn(&Bytes) -> CellKey| {
        let cell = |name| Cell { key: key(name), dot: past, payload: Payload::Mark };
        LiveCells::new(names.iter().map(cell).collect())
    };
    let removed = |operation: &Operation, seen: &LiveCells| {
        let request = Request { dot, assigned: dot.time, context: None, hll_precision: 14 };
        update::resolve(operation, request, seen).unwrap().floors.len()
    };

    let members = seen(|name| CellKey { path: Path::root(), element: Element::Member(name.clone()) });
    let operation = SetOperation { removes: names.clone(), ..Default::default() };
    assert_eq!(removed(&Operation::Set(operation), &members), names.len());

    let field = |name: &Bytes| FieldName { name: name.clone(), kind: FieldKind::Set };
    let fields = seen(|name| {
        let field = FieldName { name: name.clone(), kind: FieldKind::Set };
        CellKey { path: Path::root().child(field), element: Element::Presence }
    });
    let fields_of_both = || names.iter().map(field).collect();
    let operation = MapOperation { adds: fields_of_both(), removes: fields_of_both(), updates: Vec::new() };
    assert_eq!(removed(&Operation::Map(operation), &fields), names.len());
}
