//! A request that changes or reads k cells reads and writes O(k) rows, whatever the object's size.

use std::fmt::Debug;

use ombak::domain::cell::{FieldKind, Path};
use ombak::domain::datatype::DataType;
use ombak::domain::datatype::value::{Value, ValueBuilder};
use ombak::domain::datatype::{FieldOperation, SetOperation};
use ombak::store::embedded::RowCounts;

use crate::workbench::*;

/// Past the change-over from one row. The bench goes to a million.
const SIZES: [u64; 3] = [1_000, 10_000, 100_000];

/// What an operation costs at each size, which must be the same.
#[track_caller]
fn same_at_every_size<T: PartialEq + Debug>(mut at: impl FnMut(u64) -> T) -> T {
    let [first, rest @ ..] = SIZES.map(|size| (size, at(size)));
    for (size, found) in rest {
        assert_eq!(found, first.1, "{size} against {}", first.0);
    }
    first.1
}

fn cells(counts: RowCounts) -> [u64; 4] {
    [counts.read, counts.scanned, counts.put, counts.deleted]
}

#[test]
fn one_member_of_a_set_costs_the_same_at_every_size() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Workbench::open(options(dir.path()));
    let name = |size: u64| object("sets", format!("{size:010}"));
    SIZES.iter().for_each(|&size| bench.grow_set(&name(size), size));

    let added =
        same_at_every_size(|size| bench.cost(|run| bench.update(&name(size), add([number(size + run)].into_iter()))));
    // The header; the header and the member.
    assert_eq!(cells(added), [1, 0, 2, 0]);
    let removed =
        same_at_every_size(|size| bench.cost(|run| bench.update(&name(size), remove([number(run)].into_iter()))));
    // The member is looked for to see whether it is there, and to end it; only the header is put.
    assert_eq!(cells(removed), [3, 0, 1, 1]);
    let member_of = |size: u64, number| {
        bench.runtime.block_on(bench.engine.is_member(&name(size), &Path::root(), &number)).unwrap()
    };
    let asked = same_at_every_size(|size| bench.cost(|_| assert!(member_of(size, number(size / 2)))));
    assert_eq!(cells(asked), [2, 0, 0, 0]);
    let asked = same_at_every_size(|size| bench.cost(|_| assert!(!member_of(size, number(0)))));
    assert_eq!(cells(asked), [2, 0, 0, 0]);

    // k members cost k times as much, and once the header.
    let many = same_at_every_size(|size| {
        bench.cost(|run| bench.update(&name(size), add((0..50).map(|n| number(2 * size + 50 * run + n)))))
    });
    assert_eq!(cells(many), [1, 0, 51, 0]);

    // A small set is one row: it costs less.
    bench.grow_set(&name(10), 10);
    let packed = bench.cost(|run| bench.update(&name(10), add([number(10 + run)].into_iter())));
    assert_eq!(cells(packed), [1, 0, 1, 0]);
}

#[test]
fn one_counter_of_a_map_costs_the_same_at_every_size() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Workbench::open(options(dir.path()));
    let name = |size: u64| object("maps", format!("{size:010}"));
    SIZES.iter().for_each(|&size| bench.grow_map(&name(size), size));

    let middle = |size: u64| number(size / 2);
    let incremented =
        same_at_every_size(|size| bench.cost(|_| bench.update(&name(size), increment([middle(size)].into_iter()))));
    // The header and the counter; the header, the counter and the field's presence.
    assert_eq!(cells(incremented), [2, 0, 3, 0]);

    let read = same_at_every_size(|size| {
        bench.cost(|_| {
            let mut value = ValueBuilder::new(DataType::Counter);
            let path = field(middle(size), FieldKind::Counter);
            bench.runtime.block_on(bench.engine.value_at(&name(size), &path, &mut value)).unwrap();
            assert_eq!(value.finish(), Value::Counter(4));
        })
    });
    // Whether the field is there, and its rows.
    assert_eq!(cells(read), [3, 2, 0, 0]);

    let removed = same_at_every_size(|size| {
        bench.cost(|run| bench.update(&name(size), remove_field(number(run), FieldKind::Counter)))
    });
    // The field's presence is looked for; its two rows are found and ended.
    assert_eq!(cells(removed), [2, 2, 1, 2]);
}

#[test]
fn a_field_of_any_size_is_removed_at_the_same_cost() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Workbench::open(options(dir.path()));
    let name = |size: u64, run: u64| object("maps", format!("{size:010}/{run}"));
    let cost = |size: u64, count: u64| {
        (0..2).for_each(|run| bench.grow_field(&name(size, run), size));
        let mut least: Option<RowCounts> = None;
        for run in 0..2 {
            let before = bench.store.counts();
            bench.update(&name(size, run), remove_field("tags".into(), FieldKind::Set));
            let found = bench.store.counts().since(before);
            least = Some(least.map_or(found, |least| if found.put < least.put { found } else { least }));
            assert_eq!(bench.fetch(&name(size, run), DataType::Map), Value::Map(vec![]));
            // What is added afterwards stays.
            let adds = (0..count).map(number).collect();
            bench.update(
                &name(size, run),
                update_field("tags", FieldOperation::Set(SetOperation { adds, removes: vec![] })),
            );
            let path = field("tags", FieldKind::Set);
            assert_eq!(bench.runtime.block_on(bench.engine.count(&name(size, run), &path)).unwrap(), count);
        }
        least.unwrap()
    };
    let removed = same_at_every_size(|size| cost(size, 3));
    // The header, the floor and the sweep's work, once it is clear that the field is larger than what is deleted at once.
    assert_eq!((removed.read, removed.put, removed.deleted), (3, 3, 0));
    assert!(removed.scanned <= 130, "{removed:?}");
}
