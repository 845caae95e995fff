//! Histories of data types, those of the laws with one writer: every store and every layout against the model, after each
//! step. The model never forgets a floor; the stores do.

use std::time::Duration;

use ombak::domain::cell::{Path, Selection};
use ombak::domain::context::CausalContext;
use ombak::domain::datatype::DataType;
use ombak::domain::datatype::value::{Folder, Value, ValueBuilder, fold};
use ombak::domain::delta::Delta;
use ombak::domain::object::{self, Delete, ObjectLimits};
use ombak::domain::props::BucketProps;
use ombak::store::embedded::{Durability, EmbeddedOptions, RowLimits};
use ombak::store::memory::MemoryStore;
use ombak::store::{Horizon, Layout, Store};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::history::{Claim, Play, Step, data_type, history_of_one, whole};
use super::support::*;

/// What befalls the object between two updates.
#[derive(Clone, Debug)]
enum Event {
    Nothing,
    /// A client deletes it, which leaves a tombstone, and with a stale context more.
    Delete(Claim),
    /// The server removes the tombstone.
    Reap,
    /// The server is started anew.
    Reopen,
}

fn event() -> impl Strategy<Value = Event> {
    let claim = prop_oneof![
        2 => Just(Claim::Absent),
        3 => Just(Claim::Current),
        2 => any::<Index>().prop_map(Claim::Earlier),
        1 => Just(Claim::Foreign),
    ];
    prop_oneof![
        24 => Just(Event::Nothing),
        6 => claim.prop_map(Event::Delete),
        4 => Just(Event::Reap),
        1 => Just(Event::Reopen),
    ]
}

/// A store that must show what the model shows.
struct Subject {
    what: &'static str,
    store: Box<dyn Store>,
    /// Where it lies, and how it is opened again.
    kept: Option<(TempDir, EmbeddedOptions)>,
}

impl Subject {
    fn embedded(what: &'static str, rows: RowLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // What a power failure takes is asked elsewhere, and many more histories are played without fsync.
        // With so little memory the tables take up rows between most steps.
        let unapplied_size_bytes_max = 10_000;
        let durability = Durability::NoneForBenches;
        let options = EmbeddedOptions { rows, durability, unapplied_size_bytes_max, ..options(dir.path()) };
        let store = Box::new(open_with(options.clone()));
        Self { what, store, kept: Some((dir, options)) }
    }

    fn reopen(&mut self) {
        if let Some((_, options)) = &self.kept {
            self.store.close();
            // The directory is free once its store is gone.
            self.store = Box::new(MemoryStore::new(ACTOR));
            self.store = Box::new(open_with(options.clone()));
        }
    }

    fn commit(&self, delta: Delta) {
        self.store.commit(object("k"), delta).unwrap();
    }

    /// What a fetch shows: the value and the context.
    async fn shown(&self, data_type: DataType) -> (Value, CausalContext) {
        let mut content = self.store.open_content(&object("k"), Path::root(), None, &Horizon::default()).await.unwrap();
        let mut value = ValueBuilder::new(data_type);
        let mut folder = Folder::new(data_type, &mut value);
        loop {
            let page = content.pages.next().await.unwrap();
            if page.is_empty() {
                break;
            }
            page.iter().try_for_each(|cell| folder.push(cell)).unwrap();
        }
        folder.finish().unwrap();
        (value.finish(), object::context_of(&content.values))
    }
}

/// The model and the stores, one object in each.
struct World {
    play: Play,
    data_type: DataType,
    subjects: Vec<Subject>,
}

const PACKED: &str = "packed";
const SPREAD: &str = "spread";

impl World {
    fn new(data_type: DataType) -> Self {
        let packed =
            RowLimits { packed_cells_max: usize::MAX, packed_size_bytes_max: usize::MAX, ..RowLimits::default() };
        // Every field's floor outlives its remove, and is swept row by row or not at all.
        let spread = RowLimits {
            packed_cells_max: 0,
            rows_ended_at_once_max: 0,
            rows_swept_per_step_max: 1,
            ..RowLimits::default()
        };
        let subjects = vec![
            Subject { what: "memory", store: Box::new(MemoryStore::new(ACTOR)), kept: None },
            Subject::embedded(PACKED, packed),
            Subject::embedded(SPREAD, spread),
            Subject::embedded("spread, not swept", RowLimits { rows_swept_per_step_max: 0, ..spread }),
            Subject::embedded("spread as it grows", RowLimits { packed_cells_max: 4, ..spread }),
        ];
        Self { play: Play::default(), data_type, subjects }
    }

    /// One update: each store resolves it from what it reads itself.
    async fn update(&mut self, step: &Step) {
        let Some(attempt) = self.play.step(step) else { return };
        let plan = attempt.operation.plan(attempt.reading.is_some());
        for subject in &self.subjects {
            let seen = read(&*subject.store, &object("k"), &plan).await;
            let result = attempt.resolve(&seen);
            assert_eq!(result, attempt.result, "{}", subject.what);
            result.into_iter().for_each(|delta| subject.commit(delta));
        }
        self.check().await;
    }

    async fn befall(&mut self, event: Event) {
        match event {
            Event::Nothing => return,
            Event::Delete(claim) => {
                let context = self.play.reading(0, &claim).map(|reading| reading.context);
                let dot = self.play.next_dot(0);
                let seen = self.play.replicas[0].select(&Selection::values());
                let props = BucketProps { allow_mult: true, ..BucketProps::of_default_type(3) };
                let limits = ObjectLimits { siblings_max: usize::MAX, object_size_bytes_max: usize::MAX };
                let delete = Delete { context, deleted_at: Duration::from_micros(dot.time.0) };
                let written = delete.resolve(&seen, dot, &props, limits).unwrap();
                self.write(written.map(|written| written.delta));
            }
            Event::Reap => {
                let seen = self.play.replicas[0].select(&Selection::values());
                self.write(object::reap(&seen, self.play.next_dot(0)));
            }
            Event::Reopen => self.subjects.iter_mut().for_each(Subject::reopen),
        }
        self.check().await;
    }

    fn write(&mut self, delta: Option<Delta>) {
        let Some(delta) = delta else { return };
        self.play.replicas[0].apply(&delta);
        self.play.readings.push(self.play.current(0));
        self.subjects.iter().for_each(|subject| subject.commit(delta.clone()));
    }

    /// Compares every cell, and what a fetch shows.
    async fn check(&self) {
        let cells = self.play.replicas[0].select(&Selection::whole_object());
        let shown = (fold(self.data_type, &cells), object::context_of(&cells));
        for subject in &self.subjects {
            assert_eq!(read_all(&*subject.store, &object("k")).await, cells, "{}", subject.what);
            assert_eq!(subject.shown(self.data_type).await, shown, "{}", subject.what);
            // Otherwise this test would not test what it says. The root's presence is in the header.
            let layout = subject.store.inspect(&object("k"), &Horizon::default()).await.unwrap().layout;
            let has_rows = whole(&self.play.replicas[0]).all().len() > 1;
            match subject.what {
                PACKED => assert_eq!(layout, Layout::Packed),
                SPREAD if has_rows => assert_eq!(layout, Layout::Spread),
                _ => {}
            }
        }
    }
}

fn play(history: &[Step], events: Vec<Event>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(data_type(history));
        for (step, event) in history.iter().zip(events) {
            world.befall(event).await;
            world.update(step).await;
        }
    });
}

proptest! {
    // A failure prints its seed, and keeps it in `tests/proptest-regressions`.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn histories_of_data_types_in_every_layout(history in history_of_one(), events in vec(event(), 20)) {
        play(&history, events);
    }
}
