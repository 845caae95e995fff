//! A crash at any write: the commit log is cut at position after position, as a crash would leave it, and each time the store
//! that opens on it shows every object as one moment showed it, with all that was acknowledged by then.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path as DirPath;

use ombak::domain::cell::{Cell, CellKey, Floor, LiveCells, Path, Selection};
use ombak::domain::context::CausalContext;
use ombak::domain::delta::Delta;
use ombak::domain::dot::{Dot, Time};
use ombak::domain::replica::Replica;
use ombak::store::Store;
use ombak::store::embedded::{EmbeddedOptions, RowLimits};

use super::support::*;

/// Between two cuts. Most batches are longer, so that cuts fall into them and between them.
const STRIDE_BYTES: u64 = 101;

/// One object that changes over from packed to spread, loses a field that is swept in many steps, grows while it is swept,
/// ends whole, and begins anew.
#[derive(Default)]
pub struct History {
    replica: Replica,
    time: u64,
}

impl History {
    fn write(&mut self, floors: Vec<Floor>, keys: Vec<CellKey>) -> Delta {
        self.time += 1;
        let dot = Dot { actor: ACTOR, time: Time(self.time) };
        let keys = [presence(&Path::root())].into_iter().chain(keys);
        let puts = keys.map(|key| Cell { payload: payload(&key.element, dot.time), key, dot }).collect();
        let delta = Delta { dot, puts, floors };
        self.replica.apply(&delta);
        self.replica.forget_floors();
        delta
    }

    fn seen(&self) -> CausalContext {
        self.cells().all().iter().map(|cell| cell.dot).collect()
    }

    fn cells(&self) -> LiveCells {
        self.replica.select(&Selection::whole_object())
    }

    /// Every write, and what the object is after it.
    pub fn steps(mut self) -> Vec<(Delta, LiveCells)> {
        let mut steps = Vec::new();
        let (a, b) = (set("a"), set("b"));
        let removed = |history: &History, path: &Path| vec![subtree(path, &history.seen())];
        let mut take = |history: &mut History, floors, keys| {
            let delta = history.write(floors, keys);
            steps.push((delta, history.cells()));
        };
        take(&mut self, vec![], members(&a, 0..2));
        take(&mut self, vec![], members(&a, 1..4));
        // The change-over.
        take(&mut self, vec![], members(&a, 3..40));
        take(&mut self, vec![], members(&b, 0..30));
        // Floors, and the sweep beside the next writes.
        let floors = removed(&self, &a);
        take(&mut self, floors, members(&a, 7..8));
        take(&mut self, vec![], members(&a, 8..12));
        let floors = removed(&self, &b);
        take(&mut self, floors, vec![]);
        take(&mut self, vec![], members(&b, 29..31));
        // The whole content ends, and the next one is packed again.
        let floors = removed(&self, &Path::root());
        take(&mut self, floors, members(&b, 0..1));
        take(&mut self, vec![], members(&b, 1..20));
        steps
    }
}

pub fn options_at(dir: &DirPath) -> EmbeddedOptions {
    let rows = RowLimits {
        packed_cells_max: 8,
        rows_ended_at_once_max: 4,
        rows_swept_per_step_max: 3,
        ..RowLimits::default()
    };
    EmbeddedOptions { rows, log_disk: small_blocks(), ..options(dir) }
}

#[tokio::test]
async fn a_crash_at_any_write_leaves_every_object_whole() {
    let dir = tempfile::tempdir().unwrap();
    let name = object("k");
    let steps = History::default().steps();
    let store = open_with(options_at(dir.path()));
    let log = dir.path().join("data/log/000000.log");
    // Where the log ended when so many steps had been acknowledged.
    let mut ends = vec![end_of(&log)];
    for (delta, after) in &steps {
        durable(&store, store.commit(name.clone(), delta.clone())).await.unwrap();
        assert_eq!(&read_all(&store, &name).await, after);
        ends.push(end_of(&log));
    }
    sweep_to_at_most(&store, rows_of(&steps.last().unwrap().1)).await.unwrap();
    // Each of the two fields and the content that ended.
    assert!(store.counts().deleted > 60, "nothing was swept");

    let last = end_of(&log);
    let mut cuts: Vec<u64> = (ends[0]..=last).step_by(STRIDE_BYTES as usize).collect();
    cuts.extend(ends.iter().flat_map(|&end| [end, end + 1]));
    cuts.push(last);
    let nothing = LiveCells::default();
    for cut in cuts {
        let acknowledged = ends.iter().rposition(|&end| end <= cut).unwrap();
        let copy = tempfile::tempdir().unwrap();
        copy_cut(dir.path(), copy.path(), &log, cut);
        let store = open_with(options_at(copy.path()));
        let found = read_all(&store, &name).await;
        let state = |count: usize| if count == 0 { &nothing } else { &steps[count - 1].1 };
        let is_next = acknowledged < steps.len() && found == *state(acknowledged + 1);
        assert!(is_next || found == *state(acknowledged), "cut at {cut}, {acknowledged} acknowledged: {found:?}");
        // The sweep goes on where it was, and leaves nothing behind.
        sweep_to_at_most(&store, rows_of(&found)).await.unwrap();
        assert_eq!(read_all(&store, &name).await, found, "swept after a cut at {cut}");
        // And what follows is written on top of it.
        if let Some((delta, after)) = steps.get(acknowledged + usize::from(is_next)) {
            durable(&store, store.commit(name.clone(), delta.clone())).await.unwrap();
            assert_eq!(&read_all(&store, &name).await, after, "written after a cut at {cut}");
        }
    }
}

/// The actor's row, the header with the root's presence, and each other cell at most.
fn rows_of(cells: &LiveCells) -> u64 {
    1 + cells.all().len() as u64
}

/// The end of what was written: the file is longer from the beginning.
fn end_of(log: &DirPath) -> u64 {
    let mut bytes = Vec::new();
    // Histories here are far shorter.
    File::open(log).unwrap().take(1024 * 1024).read_to_end(&mut bytes).unwrap();
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1)
}

/// Copies a directory, with nothing in the log behind a position.
fn copy_cut(from: &DirPath, to: &DirPath, log: &DirPath, cut: u64) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_cut(&source, &target, log, cut);
        } else if source == log {
            let mut written = Vec::new();
            File::open(&source).unwrap().take(cut).read_to_end(&mut written).unwrap();
            let mut file = File::create(&target).unwrap();
            file.write_all(&written).unwrap();
            // As long as it was, and without blocks.
            let length = File::open(&source).unwrap().seek(SeekFrom::End(0)).unwrap();
            file.set_len(length).unwrap();
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}
