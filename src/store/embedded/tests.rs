//! Writes and sweeps step by step, without threads: what happens between two steps of a sweep, and beside damaged rows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path as DirPath;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::apply::Applier;
use super::batch::Batch;
use super::change::cut_contexts;
use super::commit::{Commits, Committer, Task};
use super::entry::LogEntry;
use super::log::{self, ExpectedLog, FrameBuilder, FrameLimits, Log, LogOptions};
use super::replay::{Replayed, replay};
use super::rows::{Rows, StoredObject};
use super::run::Run;
use super::sweep::Applied;
use super::tables::Tables;
use super::view::{Range, RowsView, View};
use super::{Durability, NO_LOG, RowLimits, SystemDisk, expected_log, layout};
use crate::domain::cell::{Cell, CellKey, Element, FieldKind, FieldName, Floor, FloorTarget, Path, Payload, Selection};
use crate::domain::context::CausalContext;
use crate::domain::delta::Delta;
use crate::domain::dot::{ActorId, Dot, Time};
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::map::{Digest, Entry, MapKey, MapName, Numbers, Partition, Partitions};
use crate::store::maps::MapDelta;
use crate::store::{Horizon, Position, StoreError};

const ACTOR: ActorId = ActorId(1);
/// Every object is spread, a remove of more than four rows lays a floor, and the sweep looks at three rows a step.
const LIMITS: RowLimits =
    RowLimits { packed_size_bytes_max: 0, packed_cells_max: 0, rows_ended_at_once_max: 4, rows_swept_per_step_max: 3 };

struct Bench {
    rows: Rows,
    commits: Commits,
    time: u64,
    position: Position,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(&dir.path().join("rows"), 1024 * 1024).unwrap();
        let lock = std::fs::File::create(dir.path().join("LOCK")).unwrap();
        let rows = Rows::new(tables, lock);
        let commits = Commits::new(rows.clone(), LIMITS, usize::MAX, u64::MAX, Position(0)).unwrap();
        Self { rows, commits, time: 0, position: Position(0), _dir: dir }
    }

    fn write(&mut self, name: &ObjectName, delta: Delta) -> Result<(), StoreError> {
        self.position = self.commits.write(LogEntry::Delta(name.clone(), delta))?;
        Ok(())
    }

    /// Puts bytes where a row is.
    fn damage(&self, row: Bytes, value: &'static [u8]) {
        let changed = BTreeMap::from([(row, Some(Bytes::from_static(value)))]);
        self.rows.write(&self.rows.active(), changed, self.position);
    }

    /// Has the tables take up everything.
    fn apply(&self) {
        self.commits.apply().unwrap();
    }

    /// Raises a floor and adds members to the set at a path, with the presence that every update writes.
    fn update(
        &mut self,
        name: &ObjectName,
        floor: Option<Floor>,
        path: &Path,
        members: &[u8],
    ) -> Result<Dot, StoreError> {
        let (dot, entry) = self.entry(name, floor, path, members);
        self.position = self.commits.write(entry)?;
        Ok(dot)
    }

    /// The same as an entry that is not written yet.
    fn entry(&mut self, name: &ObjectName, floor: Option<Floor>, path: &Path, members: &[u8]) -> (Dot, LogEntry) {
        self.time += 1;
        let dot = Dot { actor: ACTOR, time: Time(self.time) };
        let member = |&number: &u8| CellKey { path: path.clone(), element: Element::Member(vec![number].into()) };
        let root = CellKey { path: Path::root(), element: Element::Presence };
        let keys = [root].into_iter().chain(members.iter().map(member));
        let puts = keys.map(|key| Cell { key, dot, payload: Payload::Mark }).collect();
        let delta = Delta { dot, puts, floors: floor.into_iter().collect() };
        (dot, LogEntry::Delta(name.clone(), delta))
    }

    fn floors(&self, name: &ObjectName) -> u32 {
        self.rows.inspect(name, &Horizon::default()).unwrap().floors
    }

    /// The last update that the object's header knows of.
    fn last_update(&self, name: &ObjectName) -> Option<Time> {
        let values = self.rows.read(name, &Selection::values(), &Horizon::default()).unwrap();
        values.data_type_clock().time_of(ACTOR)
    }

    fn members(&self, name: &ObjectName, path: &Path) -> Vec<u8> {
        let cells = self.rows.read(name, &[Selection::Subtree(path.clone())], &Horizon::default()).unwrap();
        let member = |cell: &Cell| match &cell.key.element {
            Element::Member(member) => Some(member[0]),
            _ => None,
        };
        cells.all().iter().filter_map(member).collect()
    }

    /// Does a step of the sweep, if there is anything to do.
    fn sweep(&self) -> Option<Applied> {
        self.commits.sweep_around(|| {})
    }

    fn sweep_all(&mut self) {
        for _ in 0..1_000 {
            self.sweep();
        }
    }
}

fn object(key: &'static str) -> ObjectName {
    ObjectName { bucket: BucketName::new(None, Bytes::from_static(b"b")), key: Bytes::from_static(key.as_bytes()) }
}

fn set(name: &'static str) -> Path {
    Path::root().child(FieldName { name: Bytes::from_static(name.as_bytes()), kind: FieldKind::Set })
}

fn floor(path: &Path, dot: Dot) -> Option<Floor> {
    Some(Floor { target: FloorTarget::Subtree(path.clone()), context: CausalContext::from_iter([dot]) })
}

#[test]
fn a_floor_that_rises_begins_its_sweep_again() {
    let mut bench = Bench::new();
    let (name, path) = (object("k"), set("s"));
    let all: Vec<u8> = (0..20).collect();
    let first = bench.update(&name, None, &path, &all).unwrap();
    bench.update(&name, floor(&path, first), &path, &[]).unwrap();
    bench.sweep();
    // Behind the sweep, and then ended too.
    let second = bench.update(&name, None, &path, &[0, 1]).unwrap();
    bench.sweep();
    bench.update(&name, floor(&path, second), &path, &[1, 19]).unwrap();
    assert_eq!(bench.members(&name, &path), [1, 19]);
    bench.sweep_all();
    assert_eq!(bench.members(&name, &path), [1, 19]);
    // The header and two members.
    assert_eq!(bench.rows.count().unwrap(), 3);
}

/// An object with a set of twenty members that a floor has ended.
fn with_floor(bench: &mut Bench) -> (ObjectName, Path) {
    let (name, path) = (object("k"), set("s"));
    let all: Vec<u8> = (0..20).collect();
    let dot = bench.update(&name, None, &path, &all).unwrap();
    bench.update(&name, floor(&path, dot), &path, &[]).unwrap();
    assert_eq!(bench.floors(&name), 1);
    (name, path)
}

#[test]
fn a_write_that_a_sweep_overtook_counts_no_floor_that_is_gone() {
    for apply_between in [false, true] {
        let mut bench = Bench::new();
        let (name, path) = with_floor(&mut bench);
        let (dot, entry) = bench.entry(&name, None, &path, &[5]);
        let sweep_all = || {
            while bench.sweep().is_some() {}
            if apply_between {
                bench.apply();
            }
        };
        bench.commits.write_around(entry, sweep_all).unwrap();
        assert_eq!((bench.floors(&name), bench.members(&name, &path)), (0, vec![5]));
        assert_eq!(bench.last_update(&name), Some(dot.time));
    }
}

#[test]
fn a_member_that_comes_back_while_a_step_of_the_sweep_is_prepared_stays() {
    let mut bench = Bench::new();
    let (name, path) = with_floor(&mut bench);
    let (_, entry) = bench.entry(&name, None, &path, &[1, 19]);
    let applied = bench.commits.sweep_around(|| drop(bench.commits.write(entry)));
    assert_eq!(applied, Some(Applied::GoesOn));
    bench.sweep_all();
    assert_eq!((bench.floors(&name), bench.members(&name, &path)), (0, vec![1, 19]));
}

#[test]
fn the_end_of_a_sweep_that_a_write_overtook_takes_nothing_of_it_back() {
    let mut bench = Bench::new();
    let (name, path) = with_floor(&mut bench);
    // A floor and twenty members by threes: the eighth step is the last.
    (0..7).for_each(|_| assert_eq!(bench.sweep(), Some(Applied::GoesOn)));
    let (dot, entry) = bench.entry(&name, None, &path, &[5]);
    let applied = bench.commits.sweep_around(|| drop(bench.commits.write(entry)));
    assert_eq!((applied, bench.last_update(&name)), (Some(Applied::PutOff), Some(dot.time)));
    // The floor rises, and what it ends lies before where the sweep has come to.
    let (_, entry) = bench.entry(&name, floor(&path, dot), &path, &[]);
    let applied = bench.commits.sweep_around(|| drop(bench.commits.write(entry)));
    assert_eq!(applied, Some(Applied::PutOff));
    bench.sweep_all();
    assert_eq!((bench.floors(&name), bench.members(&name, &path)), (0, vec![]));
    assert_eq!(bench.rows.count().unwrap(), 1, "the header");
}

#[test]
fn no_sweep_ends_before_a_writer_that_one_has_overtaken() {
    let mut bench = Bench::new();
    let (name, _) = with_floor(&mut bench);
    let insisting = bench.commits.insist();
    for _ in 0..20 {
        bench.sweep();
    }
    assert_eq!((bench.sweep(), bench.floors(&name)), (Some(Applied::PutOff), 1));
    drop(insisting);
    assert_eq!((bench.sweep(), bench.floors(&name)), (Some(Applied::Finished), 0));
}

#[test]
fn a_sweep_that_is_put_off_lets_another_go_first() {
    let mut bench = Bench::new();
    let (name, path) = with_floor(&mut bench);
    let other = object("other");
    let dot = bench.update(&other, None, &path, &(0..20).collect::<Vec<u8>>()).unwrap();
    bench.update(&other, floor(&path, dot), &path, &[]).unwrap();
    for _ in 0..100 {
        // Somebody writes the first object whenever a sweep looks at it.
        let (_, entry) = bench.entry(&name, None, &path, &[5]);
        bench.commits.sweep_around(|| drop(bench.commits.write(entry)));
    }
    assert_eq!((bench.floors(&name), bench.floors(&other)), (1, 0));
    bench.sweep_all();
    assert_eq!((bench.floors(&name), bench.members(&name, &path)), (0, vec![5]));
}

#[test]
fn very_many_rows_are_linked_in_as_one_and_seen_as_of_their_moments() {
    let mut bench = Bench::new();
    let (name, path) = (object("k"), set("s"));
    let first = bench.update(&name, None, &path, &[7]).unwrap();
    let member =
        |number: u32| CellKey { path: path.clone(), element: Element::Member(number.to_be_bytes().to_vec().into()) };
    let keys = || (0..5000).map(member);
    let dot = Dot { actor: ACTOR, time: Time(2) };
    let root = CellKey { path: Path::root(), element: Element::Presence };
    let puts = keys().chain([root]).map(|key| Cell { key, dot, payload: Payload::Mark }).collect();
    let context = CausalContext::from_iter([dot]);
    let floors = keys().map(|key| Floor { target: FloorTarget::Element(key), context: context.clone() }).collect();
    let add = Delta { dot, puts, floors: vec![] };
    let remove = Delta { dot: Dot { time: Time(3), ..dot }, puts: vec![], floors };
    let count = |view: &RowsView| {
        let mut count = 0;
        let cells = layout::subtree(layout::RowId::of(first), &path);
        view.scan(Range::prefix(&cells), &mut |_, _| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        count
    };
    let mut views = vec![(bench.rows.view(), 1)];
    for (delta, expected) in [(add, 5001), (remove, 1)] {
        let mut batch = Batch::new(bench.rows.view());
        batch.add(&LogEntry::Delta(name.clone(), delta.clone()), None, LIMITS).unwrap();
        let changes = batch.into_prepared().changes;
        assert!(changes.rows.len() <= 1, "one by one: {}", changes.rows.len());
        assert_eq!(changes.runs.iter().map(Run::len).collect::<Vec<_>>(), [5000]);
        bench.write(&name, delta).unwrap();
        views.push((bench.rows.view(), expected));
    }
    assert_eq!(bench.rows.in_memory(&bench.rows.active()).active_runs, 2);
    let check = || views.iter().for_each(|(view, expected)| assert_eq!(count(view), *expected));
    check();
    bench.apply();
    check();
    assert_eq!((count(&bench.rows.view()), bench.members(&name, &path)), (1, vec![7]));
    // The header and the member.
    assert_eq!(bench.rows.count().unwrap(), 2);
}

#[test]
fn what_a_context_names_beyond_the_writers_of_the_object_is_left_out() {
    let mut bench = Bench::new();
    let (name, path) = (object("k"), set("s"));
    let dot = bench.update(&name, None, &path, &[1, 2]).unwrap();
    let strangers = (10..20).map(|actor| Dot { actor: ActorId(actor), time: Time(5) });
    let context: CausalContext = strangers.chain([dot]).collect();
    let member = |number| CellKey { path: path.clone(), element: Element::Member(vec![number].into()) };
    let floors = [1, 9].map(|number| Floor { target: FloorTarget::Element(member(number)), context: context.clone() });
    let mut delta = Delta { dot: Dot { time: Time(9), ..dot }, puts: vec![], floors: floors.to_vec() };
    bench.write(&name, delta.clone()).unwrap();
    assert_eq!(bench.members(&name, &path), [2]);
    let found = StoredObject::find(&bench.rows.view(), &name).unwrap();
    let mut of_nothing = delta.clone();
    cut_contexts(&mut delta, found.header.as_ref());
    assert!(delta.floors.iter().all(|floor| floor.context == CausalContext::from_iter([dot])));
    cut_contexts(&mut of_nothing, None);
    assert!(of_nothing.is_empty());
}

#[test]
fn a_content_that_ends_while_it_is_swept_leaves_nothing() {
    let mut bench = Bench::new();
    let name = object("k");
    let all: Vec<u8> = (0..20).collect();
    let first = bench.update(&name, None, &Path::root(), &all).unwrap();
    // Another actor's presence keeps the content, so that the root itself gets a floor.
    let root = CellKey { path: Path::root(), element: Element::Presence };
    let other = Dot { actor: ActorId(2), time: Time(1) };
    let put = Cell { key: root, dot: other, payload: Payload::Mark };
    bench.write(&name, Delta { dot: other, puts: vec![put], floors: vec![] }).unwrap();
    let at = floor(&Path::root(), first).into_iter().collect();
    bench.time += 1;
    let dot = Dot { actor: ACTOR, time: Time(bench.time) };
    bench.write(&name, Delta { dot, puts: vec![], floors: at }).unwrap();
    let second = bench.update(&name, None, &Path::root(), &[0, 1]).unwrap();
    bench.sweep();
    bench.sweep();
    let seen = CausalContext::from_iter([other, second]);
    let floors = vec![Floor { target: FloorTarget::Subtree(Path::root()), context: seen }];
    let dot = Dot { actor: ACTOR, time: Time(bench.time + 1) };
    bench.write(&name, Delta { dot, puts: vec![], floors }).unwrap();
    bench.sweep_all();
    assert_eq!(bench.rows.count().unwrap(), 0);
}

#[test]
fn a_sweep_that_is_done_leaves_the_floors_of_others() {
    let mut bench = Bench::new();
    let (name, a, b) = (object("k"), set("a"), set("b"));
    let few: Vec<u8> = (0..6).collect();
    let many: Vec<u8> = (0..60).collect();
    bench.update(&name, None, &a, &few).unwrap();
    let dot = bench.update(&name, None, &b, &many).unwrap();
    bench.update(&name, floor(&a, dot), &a, &[1]).unwrap();
    bench.update(&name, floor(&b, dot), &b, &[2]).unwrap();
    for _ in 0..60 {
        assert_eq!((bench.members(&name, &a), bench.members(&name, &b)), (vec![1], vec![2]));
        let member = CellKey { path: b.clone(), element: Element::Member(vec![59].into()) };
        assert_eq!(bench.rows.read(&name, &[Selection::Key(member)], &Horizon::default()).unwrap().all(), []);
        bench.sweep();
    }
    assert_eq!(bench.rows.count().unwrap(), 3);
}

#[test]
fn a_sweep_goes_on_where_an_earlier_run_queued_it() {
    let mut bench = Bench::new();
    let (name, path) = (object("k"), set("s"));
    let dot = bench.update(&name, None, &path, &(0..20).collect::<Vec<u8>>()).unwrap();
    bench.update(&name, floor(&path, dot), &path, &[3]).unwrap();
    bench.sweep();
    bench.apply();
    bench.commits = Commits::new(bench.rows.clone(), LIMITS, usize::MAX, u64::MAX, bench.position).unwrap();
    bench.sweep_all();
    assert_eq!(bench.rows.count().unwrap(), 2);
    assert_eq!(bench.members(&name, &path), [3]);
}

#[test]
fn a_damaged_row_harms_its_own_object_only() {
    let mut bench = Bench::new();
    let (damaged, sound) = (object("damaged"), object("sound"));
    let path = set("s");
    let first = bench.update(&damaged, None, &path, &[1]).unwrap();
    let row = layout::name(&damaged).row;
    bench.damage(row, b"\x07");

    let whole = Selection::whole_object();
    assert!(matches!(bench.rows.read(&damaged, &whole, &Horizon::default()), Err(StoreError::Damaged { .. })));
    assert!(matches!(bench.update(&damaged, None, &path, &[2]), Err(StoreError::Damaged { .. })));
    assert!(bench.update(&sound, None, &path, &[3]).is_ok());
    assert!(matches!(bench.update(&damaged, floor(&path, first), &path, &[2]), Err(StoreError::Damaged { .. })));
    assert_eq!(bench.members(&sound, &path), [3]);
}

#[test]
fn a_write_that_fails_half_way_leaves_nothing_in_its_batch() {
    let mut bench = Bench::new();
    let name = object("k");
    let (sound, broken) = (set("a"), set("b"));
    let first = bench.update(&name, None, &sound, &[1, 2]).unwrap();
    bench.update(&name, None, &broken, &[1]).unwrap();
    let content = crate::store::embedded::layout::RowId::of(first);
    let member = CellKey { path: broken.clone(), element: Element::Member(vec![1].into()) };
    bench.damage(layout::cell(content, &member, ACTOR).row, b"\x01short");
    // The first floor is turned into deletes before the second one meets the damage.
    let floors = [&sound, &broken].map(|path| floor(path, Dot { actor: ACTOR, time: Time(2) }).unwrap());
    let dot = Dot { actor: ACTOR, time: Time(9) };
    let delta = Delta { dot, puts: vec![], floors: floors.to_vec() };
    assert!(matches!(bench.write(&name, delta), Err(StoreError::Damaged { .. })));
    assert_eq!(bench.members(&name, &sound), [1, 2]);
}

#[test]
fn a_damaged_row_stops_its_own_sweep_only() {
    let mut bench = Bench::new();
    let (damaged, sound) = (object("damaged"), object("sound"));
    let path = set("s");
    let all: Vec<u8> = (0..20).collect();
    let dots = [&damaged, &sound].map(|name| bench.update(name, None, &path, &all).unwrap());
    for (name, dot) in [&damaged, &sound].into_iter().zip(dots) {
        bench.update(name, floor(&path, dot), &path, &[5]).unwrap();
    }
    let member = CellKey { path: path.clone(), element: Element::Member(vec![7].into()) };
    let row = layout::cell(layout::RowId::of(dots[0]), &member, ACTOR).row;
    bench.damage(row, b"\x01");
    bench.sweep_all();
    assert!(bench.update(&sound, None, &path, &[6]).is_ok());
    assert_eq!(bench.members(&sound, &path), [5, 6]);
    let key = CellKey { path: path.clone(), element: Element::Member(vec![5].into()) };
    assert_eq!(bench.rows.read(&damaged, &[Selection::Key(key)], &Horizon::default()).unwrap().all().len(), 1);
}

#[test]
fn who_looks_at_a_moment_goes_on_seeing_it_and_holds_up_no_memory_after() {
    let mut bench = Bench::new();
    let (name, path) = (object("k"), set("s"));
    let row = layout::name(&name).row;
    bench.update(&name, None, &path, &[1]).unwrap();
    let view = bench.rows.view();
    let seen = view.get(&row).unwrap();
    let write_many = |bench: &mut Bench| {
        (0..500).for_each(|_| {
            bench.update(&name, None, &path, &[1]).unwrap();
        })
    };
    write_many(&mut bench);
    assert_eq!(view.get(&row).unwrap(), seen);
    assert_ne!(bench.rows.view().get(&row).unwrap(), seen);
    let held_bytes = bench.rows.in_memory(&bench.rows.active()).size_bytes();
    drop(view);
    write_many(&mut bench);
    let kept_bytes = bench.rows.in_memory(&bench.rows.active()).size_bytes();
    assert!(kept_bytes * 2 < held_bytes, "{kept_bytes} of {held_bytes}");
    // A frozen layer is looked at no less.
    let view = bench.rows.view();
    let seen = view.get(&row).unwrap();
    bench.apply();
    write_many(&mut bench);
    assert_eq!(view.get(&row).unwrap(), seen);
}

#[test]
fn a_bucket_listing_reads_one_key_of_each_bucket() {
    let mut bench = Bench::new();
    let in_bucket = |bucket: &'static str, key: &str| ObjectName {
        bucket: BucketName::new(None, bucket.into()),
        key: Bytes::copy_from_slice(key.as_bytes()),
    };
    for bucket in ["a", "b", "c"] {
        for number in 0..100 {
            bench.update(&in_bucket(bucket, &format!("{number:03}")), None, &set("s"), &[]).unwrap();
        }
    }
    // Whoever reads one of these rows fails.
    for number in 1..100 {
        let row = layout::name(&in_bucket("b", &format!("{number:03}"))).row;
        bench.damage(row, b"\x07");
    }
    let default = Bytes::from_static(b"default");
    assert_eq!(bench.rows.buckets(&default, None, 10, &Horizon::default()).unwrap(), ["a", "b", "c"]);
    assert_eq!(bench.rows.buckets(&default, Some("a".into()), 10, &Horizon::default()).unwrap(), ["b", "c"]);
    let listed = bench.rows.keys(&in_bucket("b", "").bucket, None, 10, &Horizon::default());
    assert!(matches!(listed, Err(StoreError::Damaged { .. })), "{listed:?}");
}

#[test]
fn who_waits_for_room_is_told_when_none_will_be_made() {
    let mut bench = Bench::new();
    bench.update(&object("k"), None, &set("s"), &[1]).unwrap();
    let full = Commits::new(bench.rows.clone(), LIMITS, 1, u64::MAX, bench.position).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert!(full.room.try_reserve(1).is_none());
        let mut waits = std::pin::pin!(full.room.reserve(1));
        tokio::select! {
            biased;
            _ = &mut waits => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        full.fail(&StoreError::Engine { reason: "the disk is gone".into() });
        drop(waits.await);
    });
    let delta = Delta { dot: Dot { actor: ACTOR, time: Time(9) }, puts: vec![], floors: vec![] };
    let refused = full.write(LogEntry::Delta(object("k"), delta));
    assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
}

#[test]
fn log_files_come_free_whenever_the_log_has_grown() {
    let bench = Bench::new();
    let commits = Commits::new(bench.rows.clone(), LIMITS, usize::MAX, 100, Position(0)).unwrap();
    let applier = Applier::new(&commits);
    for round in 1..5 {
        let position = commits.write(LogEntry::ClockBound(Time(round))).unwrap();
        commits.durable.reach(position);
        commits.logged_bytes.store(round * 100, Ordering::Relaxed);
        let Task::Apply(frozen) = commits.next_task() else { panic!("there is something to apply") };
        // Others write while this one is applied.
        commits.logged_bytes.fetch_add(60, Ordering::Relaxed);
        applier.apply(&frozen).unwrap();
        assert_eq!(commits.released.load(Ordering::Relaxed), position.0, "round {round}");
    }
}

fn log_at(dir: &DirPath) -> Log {
    let options = LogOptions {
        dir: dir.to_owned(),
        name: 5,
        size_bytes: 64 * 1024,
        is_synced_at_once: false,
        disk: Arc::new(SystemDisk),
    };
    Log::create(options, Position(0)).unwrap()
}

/// More than the tests of the log's growth write.
const UNAPPLIED_BYTES: usize = 1024 * 1024 * 1024;

#[test]
fn writers_wait_where_the_log_has_grown_while_the_tables_stall() {
    const KEPT_BYTES: u64 = 256 * 1024;
    let bench = Bench::new();
    let commits = Commits::new(bench.rows.clone(), LIMITS, UNAPPLIED_BYTES, KEPT_BYTES, Position(0)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = log_at(dir.path());
    std::thread::scope(|scope| {
        scope.spawn(|| Committer::new(&commits, log, Durability::NoneForBenches, None).run());
        // One row again and again, which takes no more memory, and nobody carries it to the tables.
        let mut written = 0;
        while commits.room.try_reserve(1).is_some() {
            written += 1;
            assert!(written < 10_000, "the log grows without bound");
            let position = commits.write(LogEntry::ClockBound(Time(written))).unwrap();
            commits.durable.wait(position).blocking_recv().unwrap().unwrap();
        }
        assert!(commits.logged_bytes.load(Ordering::Relaxed) >= 2 * KEPT_BYTES);
        let Task::Apply(frozen) = commits.next_task() else { panic!("there is something to apply") };
        Applier::new(&commits).apply(&frozen).unwrap();
        assert!(commits.room.try_reserve(1).is_some(), "the tables hold everything");
        commits.close();
    });
}

/// All who write may wait for room then, so that none of them wakes the applier.
#[test]
fn the_tables_take_up_what_has_filled_the_log_though_nobody_writes_more() {
    const KEPT_BYTES: u64 = 64 * 1024;
    let bench = Bench::new();
    let commits = Commits::new(bench.rows.clone(), LIMITS, UNAPPLIED_BYTES, KEPT_BYTES, Position(0)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = log_at(dir.path());
    std::thread::scope(|scope| {
        scope.spawn(|| Applier::new(&commits).run());
        scope.spawn(|| Committer::new(&commits, log, Durability::NoneForBenches, None).run());
        let value = Bytes::from(vec![1; 8 * KEPT_BYTES as usize]);
        let position = commits.write(LogEntry::Record("r".into(), Some(value))).unwrap();
        let is_released = (0..1_000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            commits.released.load(Ordering::Relaxed) == position.0
        });
        commits.close();
        assert!(is_released, "the applier sleeps");
    });
}

#[test]
fn tables_that_name_no_log_hold_nothing_or_are_those_of_an_earlier_format() {
    let expected = |name, held, is_taken_over| expected_log(name, Position(held), is_taken_over);
    for held in [0, 5] {
        assert_eq!(expected(None, held, true), Ok(ExpectedLog::Any));
        for is_taken_over in [false, true] {
            assert_eq!(expected(Some(7), held, is_taken_over), Ok(ExpectedLog::Named(7)));
            assert_eq!(expected(Some(NO_LOG), held, is_taken_over), Ok(ExpectedLog::None));
        }
    }
    assert_eq!(expected(None, 0, false), Ok(ExpectedLog::None));
    assert!(matches!(expected(None, 5, false), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_write_that_the_log_does_not_take_changes_nothing() {
    let mut bench = Bench::new();
    bench.commits.limit_frames(FrameLimits { entry_size_bytes_max: 1_000, size_bytes_max: 3_000 });
    let put =
        |name: &'static str, length| bench.commits.write(LogEntry::Record(name.into(), Some(vec![1; length].into())));
    assert_eq!(put("large", 1_001), Err(StoreError::TooLarge { size_bytes_max: 1_000 }));
    for position in 1..4 {
        assert_eq!(put("small", 900), Ok(Position(position)));
    }
    // Nobody takes them.
    assert_eq!(put("other", 900), Err(StoreError::Crowded { size_bytes_max: 3_000 }));
    let records = bench.rows.records().unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(bench.commits.failure(), None);
}

impl Bench {
    /// Replays entries, as a start does that finds them in the log of an earlier process.
    fn replay(&mut self, entries: &[LogEntry]) -> Result<Replayed, super::LogError> {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log_at(dir.path());
        let mut frame = FrameBuilder::default();
        for entry in entries {
            let mut encoded = Vec::new();
            entry.encode(&mut encoded).unwrap();
            frame.add(&encoded).unwrap();
        }
        let held = self.position;
        log.append(&mut frame, Position(held.0 + 1)).unwrap();
        let recovered = log::recover(dir.path(), held, ExpectedLog::Named(5)).unwrap();
        replay(&self.rows, recovered, held, LIMITS, usize::MAX).inspect(|replayed| self.position = replayed.last)
    }
}

#[test]
fn a_damaged_row_does_not_stop_a_replay_and_its_object_tells_of_it() {
    let mut bench = Bench::new();
    let (damaged, sound) = (object("damaged"), object("sound"));
    let path = set("s");
    let first = bench.update(&damaged, None, &path, &[1]).unwrap();
    bench.update(&sound, None, &path, &[2]).unwrap();
    let member = |number| CellKey { path: path.clone(), element: Element::Member(vec![number].into()) };
    bench.damage(layout::cell(layout::RowId::of(first), &member(1), ACTOR).row, b"\x01short");
    bench.apply();

    let put = |name: &ObjectName, time, number, floors| {
        let dot = Dot { actor: ACTOR, time: Time(time) };
        let root = CellKey { path: Path::root(), element: Element::Presence };
        let puts = [root, member(number)].map(|key| Cell { key, dot, payload: Payload::Mark });
        LogEntry::Delta(name.clone(), Delta { dot, puts: puts.into(), floors })
    };
    let floors: Vec<_> = floor(&path, first).into_iter().collect();
    let entries = [put(&damaged, 10, 3, floors), put(&sound, 11, 4, vec![]), put(&damaged, 12, 5, vec![])];
    let last = Position(bench.position.0 + 3);
    for _ in 0..2 {
        assert_eq!(bench.replay(&entries).unwrap().left_out, 2);
        assert_eq!(bench.members(&sound, &path), [2, 4]);
        // Also a member of which nothing is wrong: that it lacks a write is all that is known.
        for selection in [Selection::Key(member(9)), Selection::Subtree(Path::root())] {
            let read = bench.rows.read(&damaged, &[selection], &Horizon::default());
            assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
        }
        assert!(matches!(bench.update(&damaged, None, &path, &[7]), Err(StoreError::Damaged { .. })));
    }
    assert!(bench.position > last);
    // What its row held is still there, once.
    let row = bench.rows.view().get(&layout::name(&damaged).row).unwrap().unwrap();
    assert_eq!(row.iter().take_while(|&&byte| byte == 3).count(), 1);
    assert!(super::record::Header::of_row(&layout::name(&damaged), row.slice(1..)).is_ok());
}

#[test]
fn a_damaged_key_of_a_map_stops_no_replay_and_no_other_key() {
    let mut bench = Bench::new();
    let partition = Partition::of_number(1).unwrap();
    let key = |key: &'static str| {
        let part = Bytes::from_static(b"p");
        let [a, b, c, d] = [(); 4].map(|()| part.clone());
        let map = MapName { protocol_namespace: a, protocol_name: b, primitive_namespace: c, primitive_name: d };
        MapKey { map, key: key.into() }
    };
    let mut numbers = Numbers::default();
    let mut delta = |keys: &[&'static str]| {
        let entry = |key_name: &&'static str| {
            let digest = numbers.draw().unwrap();
            (key(key_name), Entry { digest, value: Some("v".into()) })
        };
        let entries: Vec<(MapKey, Entry)> = keys.iter().map(entry).collect();
        let partitions = Partitions::new(1.try_into().unwrap());
        let forgotten = vec![(key("damaged"), Digest { term: 0, timestamp: 0 })];
        LogEntry::Map(MapDelta { partition, partitions, numbers, written_ms: 0, entries, forgotten })
    };
    bench.position = bench.commits.write(delta(&["damaged", "sound"])).unwrap();
    bench.damage(layout::map_entry(partition, &key("damaged")).row, b"\x01short");
    bench.apply();
    let entries = [delta(&["damaged", "sound", "new"])];
    // Once as it is written, once as it is forgotten.
    assert_eq!(bench.replay(&entries).unwrap().left_out, 2);
    let read = |name| bench.rows.map_entry(partition, &key(name), &Horizon::default());
    assert!(matches!(read("damaged"), Err(StoreError::Damaged { .. })));
    for name in ["sound", "new"] {
        assert!(read(name).unwrap().unwrap().digest.timestamp > 2, "{name}");
    }
}
