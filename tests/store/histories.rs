//! Random histories: the embedded store against the model, whose every floor is forgotten at once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ombak::domain::cell::{Cell, CellKey, Element, FieldKind, Floor, FloorTarget, Path, Selection};
use ombak::domain::context::CausalContext;
use ombak::domain::delta::Delta;
use ombak::domain::dot::{ActorId, Dot, Time};
use ombak::domain::index::{Entry, IndexRange, Posting};
use ombak::domain::key::ObjectName;
use ombak::domain::object;
use ombak::domain::replica::Replica;
use ombak::store::Store;
use ombak::store::embedded::{EmbeddedOptions, EmbeddedStore, RowLimits};
use ombak::store::memory::MemoryStore;
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::*;

/// What one step of a history does. Numbers choose from small universes.
#[derive(Clone, Debug)]
enum Step {
    Write {
        object: usize,
        actor: usize,
        floors: Vec<(Target, Seen)>,
        puts: Vec<Put>,
        wait: bool,
    },
    Read {
        object: usize,
        selections: Vec<Target>,
    },
    /// Starts the store anew, with or without a sweep.
    Reopen {
        sweeps: bool,
    },
}

/// What a floor ends or a selection takes.
#[derive(Clone, Debug)]
enum Target {
    Subtree(usize),
    Element(usize, usize),
    Siblings,
    /// One of the siblings that there were, by the order of the history.
    Sibling(usize),
}

/// The context of a floor.
#[derive(Clone, Debug)]
enum Seen {
    Now,
    /// What was seen after some earlier step.
    Before(usize),
    /// What is seen now, and more of an actor that never wrote here.
    AndAStranger,
    Nothing,
}

#[derive(Clone, Debug)]
enum Put {
    Presence,
    Element(usize, usize),
    Members {
        path: usize,
        first: u32,
        count: u32,
    },
    /// A value with index entries, by their numbers.
    Value(Vec<usize>),
    Tombstone,
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        4 => (0..PATHS).prop_map(Target::Subtree),
        2 => Just(Target::Subtree(ROOT)),
        2 => (0..PATHS, 0..9_usize).prop_map(|(path, element)| Target::Element(path, element)),
        1 => Just(Target::Siblings),
        1 => any::<usize>().prop_map(Target::Sibling),
    ]
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        5 => Just(Seen::Now),
        3 => any::<usize>().prop_map(Seen::Before),
        1 => Just(Seen::AndAStranger),
        1 => Just(Seen::Nothing),
    ]
}

fn put(members_max: u32) -> impl Strategy<Value = Put> {
    let members = (0..PATHS, 0..members_max, 1..=members_max);
    prop_oneof![
        1 => Just(Put::Presence),
        4 => (0..PATHS, 0..9_usize).prop_map(|(path, element)| Put::Element(path, element)),
        4 => members.prop_map(|(path, first, count)| Put::Members { path, first, count }),
        3 => vec(0..ENTRIES.len(), 0..4).prop_map(Put::Value),
        1 => Just(Put::Tombstone),
    ]
}

fn history(actors: usize, members_max: u32, steps: usize) -> impl Strategy<Value = Vec<Step>> {
    let write = (0..3_usize, 0..actors, vec((target(), seen()), 0..3), vec(put(members_max), 0..3), any::<bool>());
    let step = prop_oneof![
        12 => write.prop_map(|(object, actor, floors, puts, wait)| Step::Write { object, actor, floors, puts, wait }),
        3 => (0..3_usize, vec(target(), 0..4)).prop_map(|(object, selections)| Step::Read { object, selections }),
        1 => any::<bool>().prop_map(|sweeps| Step::Reopen { sweeps }),
    ];
    vec(step, 1..steps)
}

fn names() -> [ObjectName; 3] {
    let elsewhere = ObjectName { bucket: bucket("b2"), key: bytes("") };
    [object("short"), object("long".repeat(3_000)), elsewhere]
}

const PATHS: usize = 8;
/// The number of the root's path.
const ROOT: usize = 0;

/// Fields beside and inside each other, two of them with keys that are cut at the same place.
fn paths() -> [Path; PATHS] {
    let root = Path::root();
    let map = field(&root, "m", FieldKind::Map);
    let inner = field(&map, "m", FieldKind::Map);
    let long = |last: &str| set("x".repeat(9_000) + last);
    [
        root,
        set("a"),
        field(&map, "s", FieldKind::Set),
        field(&inner, "s", FieldKind::Set),
        long("1"),
        long("2"),
        inner,
        map,
    ]
}

/// Entries of two kinds of indexes.
const ENTRIES: [(&str, &str); 9] = [
    ("n_int", "-10"),
    ("n_int", "-9"),
    ("n_int", "9"),
    ("n_int", "10"),
    ("t_bin", ""),
    ("t_bin", "a\0"),
    ("t_bin", LONG),
    ("t_bin", "LONG and more"),
    ("u_bin", "a"),
];

/// Stands for a term whose row is cut.
const LONG: &str = "LONG";

fn entry(number: usize) -> (&'static str, String) {
    let (index, term) = ENTRIES[number];
    (index, term.replace(LONG, &"x".repeat(9_000)))
}

/// What is asked of the indexes.
fn ranges() -> [IndexRange; 6] {
    [
        IndexRange::BUCKET,
        between("$key", "l", "m"),
        between("n_int", "-9", "10"),
        between("t_bin", "", "z"),
        between("t_bin", entry(7).1, "z"),
        between("u_bin", "a", "a"),
    ]
}

fn path(number: usize) -> Path {
    paths()[number].clone()
}

fn element_at(path_number: usize, number: usize) -> CellKey {
    let element = match number % 6 {
        0 => Element::Counter,
        1 => Element::Register,
        2 => Element::Flag,
        number => Element::Member(bytes(format!("{number:06}"))),
    };
    CellKey { path: path(path_number), element }
}

/// What is known of one object.
#[derive(Default)]
struct Known {
    replica: Replica,
    /// What could be seen after each write.
    contexts: Vec<CausalContext>,
    siblings: Vec<Dot>,
}

struct World {
    options: EmbeddedOptions,
    store: Option<EmbeddedStore>,
    /// Told the same, and asked the same of its indexes.
    memory: MemoryStore,
    objects: BTreeMap<ObjectName, Known>,
    time: u64,
    pending: Vec<Written>,
}

impl World {
    fn new(options: EmbeddedOptions) -> Self {
        let store = open_with(options.clone());
        let objects = names().into_iter().map(|name| (name, Known::default())).collect();
        let memory = MemoryStore::new(ACTOR);
        Self { options, store: Some(store), memory, objects, time: 0, pending: Vec::new() }
    }

    fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Write { object, actor, floors, puts, wait } => {
                let name = names()[object].clone();
                let delta = self.delta(&name, actor, floors, puts);
                let known = self.objects.get_mut(&name).unwrap();
                known.replica.apply(&delta);
                known.replica.forget_floors();
                let cells = known.replica.select(&Selection::whole_object());
                known.contexts.push(cells.all().iter().map(|cell| cell.dot).collect());
                self.memory.commit(name.clone(), delta.clone()).unwrap();
                self.pending.push(self.store().commit(name, delta));
                if wait {
                    self.check().await;
                }
            }
            Step::Read { object, selections } => {
                self.settle().await;
                let name = names()[object].clone();
                let selections: Vec<_> = selections.iter().map(|target| self.selection(&name, target)).collect();
                let expected = self.objects[&name].replica.select(&selections);
                assert_eq!(read(self.store(), &name, &selections).await, expected, "{selections:?}");
            }
            Step::Reopen { sweeps } => self.reopen(sweeps).await,
        }
    }

    fn delta(&mut self, name: &ObjectName, actor: usize, floors: Vec<(Target, Seen)>, puts: Vec<Put>) -> Delta {
        self.time += 1;
        let dot = Dot { actor: ActorId(actor as u64), time: Time(self.time) };
        let floors = floors.iter().map(|(target, seen)| self.floor(name, target, seen)).collect();
        let mut keys = Vec::new();
        let mut cells = Vec::new();
        for put in puts {
            match put {
                Put::Presence => keys.push(presence(&Path::root())),
                Put::Element(path, number) => keys.push(element_at(path, number)),
                Put::Members { path: number, first, count } => {
                    keys.extend(members(&path(number), first..first + count));
                }
                // A request writes one plain value at most.
                Put::Value(numbers) => {
                    let entries: Vec<_> = numbers.into_iter().map(entry).collect();
                    let entries: Vec<_> = entries.iter().map(|(index, term)| (*index, &term[..])).collect();
                    cells = vec![indexed(&self.time.to_string(), &entries)];
                }
                Put::Tombstone => cells = vec![tombstone()],
            }
        }
        if !keys.is_empty() {
            keys.push(presence(&Path::root()));
        }
        let sibling = CellKey { path: Path::root(), element: Element::Sibling(dot.time) };
        if !cells.is_empty() {
            self.objects.get_mut(name).unwrap().siblings.push(dot);
        }
        let plain = cells.into_iter().map(|payload| Cell { key: sibling.clone(), dot, payload });
        let content = keys.into_iter().map(|key| Cell { payload: payload(&key.element, dot.time), key, dot });
        Delta { dot, puts: plain.chain(content).collect(), floors }
    }

    fn floor(&self, name: &ObjectName, target: &Target, seen: &Seen) -> Floor {
        let known = &self.objects[name];
        let mut context = match seen {
            Seen::Nothing => CausalContext::new(),
            Seen::Before(number) if !known.contexts.is_empty() => known.contexts[number % known.contexts.len()].clone(),
            _ => known.contexts.last().cloned().unwrap_or_default(),
        };
        if let Seen::AndAStranger = seen {
            context.see(Dot { actor: ActorId(99), time: Time(u64::MAX) });
        }
        let target = match self.selection(name, target) {
            Selection::Subtree(path) => FloorTarget::Subtree(path),
            Selection::Key(key) => FloorTarget::Element(key),
            Selection::Siblings => FloorTarget::Siblings,
        };
        Floor { target, context }
    }

    fn selection(&self, name: &ObjectName, target: &Target) -> Selection {
        match *target {
            Target::Subtree(number) => Selection::Subtree(path(number)),
            Target::Element(path, number) => Selection::Key(element_at(path, number)),
            Target::Siblings => Selection::Siblings,
            Target::Sibling(number) => {
                let siblings = &self.objects[name].siblings;
                let time = if siblings.is_empty() { Time(0) } else { siblings[number % siblings.len()].time };
                Selection::Key(CellKey { path: Path::root(), element: Element::Sibling(time) })
            }
        }
    }

    async fn settle(&mut self) {
        for written in std::mem::take(&mut self.pending) {
            durable(self.store(), written).await.unwrap();
        }
    }

    /// Compares every object and every listing.
    async fn check(&mut self) {
        self.settle().await;
        let mut listed: BTreeMap<Bytes, Vec<Bytes>> = BTreeMap::new();
        for (name, known) in &self.objects {
            let expected = known.replica.select(&Selection::whole_object());
            assert_eq!(read_all(self.store(), name).await, expected, "{:?}", name.bucket);
            if object::exists(&expected) {
                listed.entry(name.bucket.bucket.clone()).or_default().push(name.key.clone());
            }
        }
        for name in names() {
            let expected = listed.get(&name.bucket.bucket).cloned().unwrap_or_default();
            assert_eq!(keys(self.store(), &name.bucket, 1).await, expected);
        }
        assert_eq!(buckets(self.store(), 1).await, listed.into_keys().collect::<Vec<_>>());
        self.check_indexes().await;
    }

    /// Compares the ranges with what a look at every value finds.
    async fn check_indexes(&self) {
        for bucket in names().map(|name| name.bucket) {
            for range in ranges() {
                let of_bucket = self.objects.iter().filter(|(name, _)| name.bucket == bucket);
                let all = of_bucket.flat_map(|(name, known)| match &range {
                    IndexRange::Keys { .. } => {
                        let listed = object::exists(&known.replica.select(&Selection::values()));
                        Vec::from_iter(listed.then(|| Posting { term: None, key: name.key.clone() }))
                    }
                    IndexRange::Terms { index, .. } => {
                        let terms = entries_of(known).into_iter().filter(|entry| entry.index == *index);
                        terms.map(|entry| Posting { term: Some(entry.term), key: name.key.clone() }).collect()
                    }
                });
                let expected: BTreeSet<Posting> = all.filter(|posting| range.contains(posting)).collect();
                let expected: Vec<Posting> = expected.into_iter().collect();
                assert_eq!(postings(self.store(), &bucket, &range, 2).await, expected);
                assert_eq!(postings(&self.memory, &bucket, &range, 3).await, expected);
            }
        }
    }

    async fn reopen(&mut self, sweeps: bool) {
        self.settle().await;
        drop(self.store.take());
        let mut options = self.options.clone();
        let rows_max = &mut options.rows.rows_swept_per_step_max;
        *rows_max = if sweeps { (*rows_max).max(1) } else { 0 };
        self.store = Some(open_with(options));
        self.check().await;
    }

    /// Compares once more after a restart, and then the number of rows: one for the actor, one for the header of each object
    /// with the presence of its root, one for each index entry, and one for each other cell where nothing is packed. The sweep
    /// leaves nothing else.
    async fn finish(mut self) {
        self.reopen(true).await;
        let mut rows = 1;
        for known in self.objects.values().filter(|known| !known.replica.is_empty()) {
            let presence = known.replica.select(&[Selection::Key(presence(&Path::root()))]);
            rows += 1 + known.replica.cell_count() - presence.all().len() + entries_of(known).len();
        }
        if self.options.rows.packed_cells_max == 0 {
            sweep_to(self.store(), rows as u64).await.unwrap();
        } else {
            sweep_to_at_most(self.store(), rows as u64).await.unwrap();
        }
        self.check().await;
    }
}

/// The index entries of an object's values together.
fn entries_of(known: &Known) -> BTreeSet<Entry> {
    let cells = known.replica.select(&[Selection::Siblings]);
    cells.siblings().flat_map(|(_, content)| content.index_entries().collect::<Vec<_>>()).collect()
}

fn play(history: Vec<Step>, rows: RowLimits) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(EmbeddedOptions { rows, ..options(dir.path()) });
        for step in history {
            world.take(step).await;
        }
        world.finish().await;
    });
}

fn config(cases: u32) -> ProptestConfig {
    // A found case is printed, and becomes a test of its own.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Limits that a short history crosses, with every object spread.
fn small(rows_swept_per_step_max: usize) -> RowLimits {
    RowLimits { packed_cells_max: 0, rows_ended_at_once_max: 3, rows_swept_per_step_max, ..RowLimits::default() }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn histories_that_change_over_from_packed_to_spread(history in history(1, 8, 60)) {
        play(history, RowLimits { packed_cells_max: 5, ..small(2) });
    }

    #[test]
    fn histories_that_outgrow_a_row_in_bytes(history in history(3, 8, 60)) {
        play(history, RowLimits { packed_cells_max: 1000, packed_size_bytes_max: 100, ..small(2) });
    }

    #[test]
    fn histories_that_lay_floors_for_little(history in history(1, 8, 60)) {
        play(history, small(2));
    }

    #[test]
    fn histories_of_three_actors(history in history(3, 8, 60)) {
        play(history, small(2));
    }

    #[test]
    fn histories_that_are_not_swept(history in history(3, 8, 60)) {
        play(history, small(0));
    }
}

proptest! {
    #![proptest_config(config(12))]

    // A sweep of row after row is not done before more is written.
    #[test]
    fn histories_that_are_written_while_they_are_swept(history in history(2, 200, 40)) {
        play(history, small(1));
    }

    #[test]
    fn histories_with_the_usual_limits(history in history(2, 400, 25)) {
        play(history, RowLimits::default());
    }
}
