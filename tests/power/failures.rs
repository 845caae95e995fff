//! What a disk may hold after a failure, by small examples: every outcome that is allowed is met, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::disk::Disk;
use crate::journal::{Bytes, Journal, Record, Target};
use crate::scratch;

/// Enough for each outcome of an example to be drawn.
const FAILURES: u64 = 300;

/// Calls under the directory `/r`; the files' bytes stand in a journal of their own.
#[derive(Default)]
struct Calls {
    records: Vec<Record>,
    bytes: Vec<u8>,
}

fn path(name: &str) -> PathBuf {
    Path::new("/r").join(name)
}

impl Calls {
    fn open(mut self, fd: i32, name: &str, flags: i32) -> Self {
        self.records.push(Record::Open { path: path(name), fd, flags });
        self
    }

    fn create(self, fd: i32, name: &str) -> Self {
        self.open(fd, name, libc::O_CREAT | libc::O_WRONLY)
    }

    /// Fills so many bytes with a letter.
    fn write(mut self, fd: i32, offset: u64, letter: char, count: usize) -> Self {
        let start = self.bytes.len();
        self.bytes.resize(start + count, letter as u8);
        self.records.push(Record::Write { fd, offset, bytes: Bytes::At(start..start + count) });
        self
    }

    fn truncate(mut self, fd: i32, length: u64) -> Self {
        self.records.push(Record::Truncate { target: Target::Fd(fd), length });
        self
    }

    fn begin_sync(mut self, fd: i32) -> Self {
        self.records.push(Record::SyncBegin { fd, call: i64::from(fd) });
        self
    }

    fn end_sync(mut self, fd: i32) -> Self {
        self.records.push(Record::SyncEnd { call: i64::from(fd) });
        self
    }

    fn sync(self, fd: i32) -> Self {
        self.begin_sync(fd).end_sync(fd)
    }

    /// Of the directory itself, or of one in it.
    fn sync_dir(self, name: &str) -> Self {
        self.open(99, name, libc::O_RDONLY).sync(99)
    }

    fn call(mut self, record: Record) -> Self {
        self.records.push(record);
        self
    }

    fn rename(self, from: &str, to: &str) -> Self {
        self.call(Record::Rename { from: path(from), to: path(to) })
    }

    /// All that failures have left: names and contents, runs of one letter as the letter and its count.
    fn outcomes(self) -> BTreeSet<String> {
        let journal = Journal::of(self.bytes, self.records);
        let mut disk = Disk::new(Path::new("/r"));
        journal.records().iter().for_each(|record| disk.apply(record, &journal));
        let mut outcomes = BTreeSet::new();
        for seed in 0..FAILURES {
            let dir = scratch();
            disk.fail(&journal, &mut Rng::with_seed(seed), dir.path());
            outcomes.insert(show(dir.path()));
        }
        outcomes
    }

    #[track_caller]
    fn may_leave(self, expected: &[&str]) {
        let expected: BTreeSet<_> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(self.outcomes(), expected);
    }
}

fn show(dir: &Path) -> String {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let entries = names.iter().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            format!("{name}/({})", show(path))
        } else {
            format!("{name}:{}", runs(&fs::read(path).unwrap()))
        }
    });
    entries.collect::<Vec<_>>().join(" ")
}

fn runs(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|a, b| a == b);
    runs.map(|run| format!("{}{}", if run[0] == 0 { '0' } else { char::from(run[0]) }, run.len())).collect()
}

#[test]
fn what_was_synced_with_its_directory_stays() {
    Calls::default().create(3, "a").write(3, 0, 'x', 700).sync(3).sync_dir("").may_leave(&["a:x700"]);
}

#[test]
fn a_synced_file_without_its_directory_may_be_missing() {
    Calls::default().create(3, "a").write(3, 0, 'x', 700).sync(3).may_leave(&["", "a:x700"]);
}

#[test]
fn a_sync_that_runs_has_done_nothing_for_sure() {
    let calls = Calls::default().create(3, "a").sync_dir("").write(3, 0, 'x', 10).sync(3).write(3, 0, 'y', 10);
    calls.begin_sync(3).may_leave(&["a:x10", "a:y10"]);
}

#[test]
fn a_sync_takes_what_was_written_before_it_began() {
    let calls = Calls::default().create(3, "a").sync_dir("").write(3, 0, 'x', 10).begin_sync(3).write(3, 0, 'y', 10);
    calls.end_sync(3).may_leave(&["a:x10", "a:y10"]);
}

#[test]
fn each_block_has_any_of_its_versions() {
    let calls = Calls::default().create(3, "a").write(3, 0, 'x', 1024).sync(3).sync_dir("");
    let calls = calls.write(3, 0, 'y', 1024).write(3, 512, 'z', 512);
    let expected = ["a:x1024", "a:y1024", "a:y512z512", "a:x512z512", "a:y512x512", "a:x512y512"];
    calls.may_leave(&expected);
}

#[test]
fn a_block_holds_all_that_was_written_to_it_up_to_its_version() {
    let calls = Calls::default().create(3, "a").write(3, 0, 'x', 30).sync(3).sync_dir("");
    calls.write(3, 0, 'y', 10).write(3, 20, 'z', 10).may_leave(&["a:x30", "a:y10x20", "a:y10x10z10"]);
}

#[test]
fn a_file_may_have_grown_without_its_bytes() {
    let outcomes = Calls::default().create(3, "a").sync_dir("").write(3, 0, 'x', 512).outcomes();
    for expected in ["a:", "a:x512", "a:0512"] {
        assert!(outcomes.contains(expected), "{expected}: {outcomes:?}");
    }
    // And any length in between.
    assert!(outcomes.iter().any(|outcome| outcome.starts_with("a:0") && outcome != "a:0512"), "{outcomes:?}");
}

#[test]
fn what_was_cut_off_does_not_show_up_behind_what_was_written_after_it() {
    let calls = Calls::default().create(3, "a").write(3, 0, 'x', 10).sync(3).sync_dir("");
    let outcomes = calls.truncate(3, 0).write(3, 0, 'y', 10).outcomes();
    for expected in ["a:x10", "a:", "a:y10", "a:010"] {
        assert!(outcomes.contains(expected), "{expected}: {outcomes:?}");
    }
    assert!(!outcomes.iter().any(|outcome| outcome.contains('x') && outcome != "a:x10"), "{outcomes:?}");
}

#[test]
fn a_rename_is_one_change() {
    let calls =
        Calls::default().create(3, "old").write(3, 0, 'x', 9).sync(3).create(4, "new").write(4, 0, 'y', 9).sync(4);
    calls.sync_dir("").rename("new", "old").may_leave(&["new:y9 old:x9", "old:y9"]);
}

#[test]
fn a_renamed_file_has_what_was_synced_of_it() {
    let calls = Calls::default().create(3, "old").write(3, 0, 'x', 9).sync(3).create(4, "new").write(4, 0, 'y', 9);
    let outcomes = calls.sync_dir("").rename("new", "old").sync_dir("").outcomes();
    assert!(outcomes.contains("old:") && outcomes.contains("old:y9") && outcomes.contains("old:09"), "{outcomes:?}");
}

#[test]
fn an_unlinked_file_may_come_back() {
    let calls = Calls::default().create(3, "a").write(3, 0, 'x', 9).sync(3).sync_dir("");
    calls.call(Record::Unlink { path: path("a") }).may_leave(&["", "a:x9"]);
}

#[test]
fn names_change_independently_and_each_in_order() {
    let calls = Calls::default().create(3, "a").sync(3).create(4, "b").sync(4);
    let calls = calls.call(Record::Unlink { path: path("a") });
    calls.may_leave(&["", "a:", "b:", "a: b:"]);
    let calls = Calls::default().create(3, "a").rename("a", "b").rename("b", "c");
    calls.may_leave(&["", "a:", "b:", "c:"]);
}

#[test]
fn a_directory_that_was_not_synced_takes_all_in_it_along() {
    let calls = || {
        let calls =
            Calls::default().call(Record::MakeDir { path: path("d") }).create(3, "d/a").write(3, 0, 'x', 9).sync(3);
        calls.sync_dir("d")
    };
    calls().may_leave(&["", "d/(a:x9)"]);
    calls().sync_dir("").may_leave(&["d/(a:x9)"]);
}

#[test]
fn a_new_process_has_nothing_open() {
    let calls = Calls::default().create(3, "a").sync_dir("").write(3, 0, 'x', 9).begin_sync(3).call(Record::Start);
    // The number is another file's, and the sync of the process that is gone has told nobody.
    let calls = calls.create(3, "b").write(3, 0, 'y', 9).sync(3).sync_dir("");
    let outcomes = calls.outcomes();
    assert!(outcomes.contains("a: b:y9") && outcomes.contains("a:x9 b:y9"), "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| outcome.ends_with("b:y9")), "{outcomes:?}");
}
