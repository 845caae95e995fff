//! What is there after a restart, a crash, a full disk, and in a directory that is not ours.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path as DirPath, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ombak::domain::cell::{Path, Selection};
use ombak::domain::dot::{ActorId, Time};
use ombak::store::embedded::{Disk, EmbeddedOptions, EmbeddedStore, LogError, OpenError, SystemDisk};
use ombak::store::{Store, StoreError};

use super::fixtures;
use super::support::*;

fn open_error(options: EmbeddedOptions) -> OpenError {
    match EmbeddedStore::open(options) {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error,
    }
}

/// Copies a directory while it is in use, as a crash would leave it: what the system was given is there.
fn copy(from: &DirPath, to: &DirPath) {
    // Tables may be written and merged meanwhile, which no crash would show in parts.
    for _ in 0..100 {
        let before = tables(from);
        let copied = try_copy(from, to);
        if tables(from) == before {
            return copied.unwrap();
        }
        fs::remove_dir_all(to).unwrap();
    }
    panic!("the tables never rest");
}

fn try_copy(from: &DirPath, to: &DirPath) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            try_copy(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// The names of the tables' files in a data directory, and what says which of them count.
fn tables(data: &DirPath) -> (Vec<PathBuf>, Option<Vec<u8>>) {
    let names = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let rows = data.join("rows");
    let mut files: Vec<_> = names(rows.clone()).chain(names(rows.join("tables"))).collect();
    files.sort();
    (files, fs::read(rows.join("current")).ok())
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!((store.actor(), store.clock_bound()), (ACTOR, Time(0)));
    let mut writer = Writer::new(&store);
    writer.update(&object("k"), vec![], members(&set("s"), 0..3)).await;
    durable(&store, store.put_record(bytes("r"), Some(bytes("v")))).await.unwrap();
    durable(&store, store.raise_clock_bound(Time(77))).await.unwrap();
    let before = read_all(&store, &object("k")).await;
    // Never waited for: a close makes it durable.
    writer.send(&object("queued"), vec![], members(&Path::root(), 0..1)).1.unwrap();
    drop(store);

    let store = open_with(EmbeddedOptions { new_actor: ActorId(99), ..options(dir.path()) });
    assert_eq!((store.actor(), store.clock_bound()), (ACTOR, Time(77)));
    assert_eq!(read_all(&store, &object("k")).await, before);
    assert_eq!(store.records().await.unwrap(), [(bytes("r"), bytes("v"))]);
    assert_eq!(keys(&store, &bucket("b"), 10).await, ["k", "queued"]);
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut writer = Writer::new(&store);
    let (name, path) = (object("k"), set("s"));
    let mut crashes = Vec::new();
    for round in 0..3_u32 {
        let dot = writer.update(&name, vec![], members(&path, 0..500)).await;
        writer.update(&name, vec![subtree(&path, &context(&[dot]))], members(&path, round..round + 2)).await;
        durable(&store, store.raise_clock_bound(Time(u64::from(round) + 10))).await.unwrap();
        durable(&store, store.put_record(bytes(round.to_string()), Some(bytes("v")))).await.unwrap();
        let crash = dir.path().join(format!("crash{round}"));
        copy(&dir.path().join("data"), &crash.join("data"));
        let records = store.records().await.unwrap();
        crashes.push((crash, read_all(&store, &name).await, Time(u64::from(round) + 10), records));
    }
    for (crash, cells, bound, records) in crashes {
        let store = open_with(EmbeddedOptions { new_actor: ActorId(99), ..options(&crash) });
        assert_eq!((store.actor(), store.clock_bound()), (ACTOR, bound));
        assert_eq!(read_all(&store, &name).await, cells);
        assert_eq!(store.records().await.unwrap(), records);
        // The actor, the clock, the records, the header with the root's presence, and the other cells: the sweep is done
        // here too.
        let rows = 2 + records.len() + cells.all().len();
        sweep_to(&store, rows as u64).await.unwrap();
        assert_eq!(read_all(&store, &name).await, cells);
    }
}

#[tokio::test]
async fn an_object_that_is_written_over_and_over_does_not_let_the_log_grow() {
    let dir = tempfile::tempdir().unwrap();
    let options_at = |dir| EmbeddedOptions { log_disk: small_blocks(), ..options(dir) };
    let store = open_with(EmbeddedOptions { log_file_size_bytes: 8 * 1024, ..options_at(dir.path()) });
    let mut writer = Writer::new(&store);
    for round in 0..2_000 {
        writer.update(&object("k"), vec![], members(&set("s"), round % 3..round % 3 + 1)).await;
    }
    let files = fs::read_dir(dir.path().join("data/log")).unwrap().count();
    // 2,000 blocks of 512 bytes would fill 125.
    assert!(files <= 40, "{files} files");
    let before = read_all(&store, &object("k")).await;
    drop(store);
    assert_eq!(read_all(&open(dir.path()), &object("k")).await, before);
}

#[tokio::test]
async fn a_sweep_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut unswept = options(dir.path());
    unswept.rows.rows_swept_per_step_max = 0;
    let store = open_with(unswept);
    let mut writer = Writer::new(&store);
    let (name, path) = (object("k"), set("s"));
    let dot = writer.update(&name, vec![], members(&path, 0..2_000)).await;
    writer.update(&name, vec![subtree(&path, &context(&[dot]))], members(&path, 0..2)).await;
    let dot = writer.update(&object("whole"), vec![], members(&path, 0..2_000)).await;
    writer.update(&object("whole"), vec![subtree(&Path::root(), &context(&[dot]))], vec![]).await;
    assert!(store.row_count().unwrap() > 4_000);
    let cells = read_all(&store, &name).await;
    drop(store);
    let store = open(dir.path());
    // The actor, the header with the root's presence, and the other cells.
    sweep_to(&store, 1 + cells.all().len() as u64).await.unwrap();
    assert_eq!(read_all(&store, &name).await, cells);
}

#[tokio::test]
async fn what_is_deleted_leaves_no_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut writer = Writer::new(&store);
    for size in [3, 1_000] {
        let value_dot = writer.put(&object("k"), vec![], value("v")).await;
        let dot = writer.update(&object("k"), vec![], members(&set("s"), 0..size)).await;
        let seen = context(&[value_dot, dot]);
        writer.update(&object("k"), vec![subtree(&Path::root(), &seen), siblings(&seen)], vec![]).await;
        sweep_to(&store, 1).await.unwrap();
    }
}

#[tokio::test]
async fn a_value_that_replaces_another_is_written_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut writer = Writer::new(&store);
    let mut dot = writer.put(&object("k"), vec![], value("v")).await;
    for _ in 0..20 {
        dot = writer.put(&object("k"), vec![siblings(&context(&[dot]))], value("v")).await;
        // The actor, the header and the value.
        assert_eq!(store.row_count(), Ok(3));
    }
}

#[tokio::test]
async fn a_small_object_is_one_row_until_it_grows_and_again_when_it_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_packed(dir.path());
    let mut writer = Writer::new(&store);
    let name = object("k");
    let value_dot = writer.put(&name, vec![], value("v")).await;
    writer.update(&name, vec![], members(&set("s"), 0..10)).await;
    // The actor and the header, which holds the cells.
    assert_eq!(store.row_count(), Ok(2));
    let dot = writer.update(&name, vec![], members(&set("s"), 5..200)).await;
    // The value, the field's presence and its members.
    assert_eq!(store.row_count(), Ok(2 + 1 + 201));
    let cells = read_all(&store, &name).await;
    assert_eq!(cells.all().len(), 203);
    assert_eq!(cells.at(&member(&set("s"), "000005"))[0].dot, dot);
    let seen = context(&[value_dot, dot]);
    writer.update(&name, vec![subtree(&Path::root(), &seen), siblings(&seen)], members(&set("s"), 0..2)).await;
    sweep_to(&store, 2).await.unwrap();
    assert_eq!(read_all(&store, &name).await.all().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_beside_a_write_see_all_of_it_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The tables take up what was written again and again meanwhile.
    let store = EmbeddedStore::open(EmbeddedOptions { unapplied_size_bytes_max: 400_000, ..options(dir.path()) });
    let store = std::sync::Arc::new(store.unwrap());
    let (name, path) = (object("k"), set("s"));
    let dot = Writer::new(store.as_ref()).update(&name, vec![], members(&path, 0..300)).await;
    let reader = tokio::spawn({
        let (store, name, path) = (store.clone(), name.clone(), path.clone());
        async move {
            let mut seen = dot;
            for _ in 0..400 {
                let cells = read(store.as_ref(), &name, &[Selection::Subtree(path.clone())]).await;
                assert_eq!(cells.all().len(), 301);
                assert!(cells.all().iter().all(|cell| cell.dot == cells.all()[0].dot));
                assert!(cells.all()[0].dot.time >= seen.time, "a write that was seen is not there");
                seen = cells.all()[0].dot;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut writer = Writer::new(store.as_ref());
    let mut dot = writer.update(&name, vec![], members(&path, 0..300)).await;
    while !reader.is_finished() {
        let floors = vec![subtree(&path, &context(&[dot]))];
        let (next, written) = writer.send(&name, floors, members(&path, 0..300));
        written.unwrap();
        dot = next;
        if let Some(room) = store.room() {
            drop(room.reserve(20_000).await);
        }
        tokio::task::yield_now().await;
    }
    reader.await.unwrap();
}

/// The last step of a sweep deletes the floor too, which comes before the rows that it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_beside_a_sweep_sees_no_dead_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.rows.rows_swept_per_step_max = 10_000;
    let store = open_with(options);
    let mut writer = Writer::new(&store);
    let (name, path) = (object("k"), set("s"));
    for _ in 0..20 {
        let dot = writer.update(&name, vec![], members(&path, 0..1_000)).await;
        writer.send(&name, vec![subtree(&path, &context(&[dot]))], members(&path, 7..9)).1.unwrap();
        for _ in 0..20 {
            let cells = read(&store, &name, &[Selection::Subtree(path.clone())]).await;
            assert_eq!(cells.all().len(), 3);
        }
    }
}

/// Writes so many records, each acknowledged, and copies the directory as a crash would leave it then.
async fn crash_after_records(dir: &DirPath, count: usize) -> PathBuf {
    let store = open(dir);
    write_records(&store, count).await;
    crash(dir)
}

async fn write_records(store: &EmbeddedStore, count: usize) {
    for number in 0..count {
        durable(store, store.put_record(bytes(number.to_string()), Some(bytes("v")))).await.unwrap();
    }
}

fn crash(dir: &DirPath) -> PathBuf {
    let crash = dir.join("crash");
    copy(&dir.join("data"), &crash.join("data"));
    crash
}

async fn record_count(dir: &DirPath) -> usize {
    open(dir).records().await.unwrap().len()
}

#[tokio::test]
async fn a_missing_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let crash = crash_after_records(dir.path(), 5).await;
    let (log, away) = (crash.join("data/log"), crash.join("away"));
    fs::rename(&log, &away).unwrap();
    for _ in 0..2 {
        let error = open_error(options(&crash));
        assert!(matches!(&error, OpenError::Log { error: LogError::Gone { path }, .. } if *path == log), "{error}");
        assert!(error.to_string().contains("put it back"), "{error}");
    }
    // An empty one is none, and that of another directory is none of its own.
    fs::create_dir(&log).unwrap();
    assert!(matches!(open_error(options(&crash)), OpenError::Log { error: LogError::Gone { .. }, .. }));
    fs::remove_dir(&log).unwrap();
    let other = tempfile::tempdir().unwrap();
    copy(&crash_after_records(other.path(), 1).await.join("data/log"), &log);
    assert!(matches!(open_error(options(&crash)), OpenError::Log { error: LogError::Foreign { .. }, .. }));
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&away, &log).unwrap();
    assert_eq!(record_count(&crash).await, 5);
}

#[tokio::test]
async fn a_log_whose_only_file_is_missing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let crash = crash_after_records(dir.path(), 5).await;
    let file = crash.join("data/log/000000.log");
    fs::remove_file(&file).unwrap();
    let error = open_error(options(&crash));
    assert!(matches!(&error, OpenError::Log { error: LogError::Gone { path }, .. } if *path == file), "{error}");
}

#[tokio::test]
async fn after_a_close_no_log_is_missed_and_one_left_behind_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    // As a close leaves it that is killed before the log is removed.
    let kept = crash_after_records(dir.path(), 5).await.join("data/log");
    let log = dir.path().join("data/log");
    copy(&kept, &log);
    assert_eq!(record_count(dir.path()).await, 5);
    fs::remove_dir_all(&log).unwrap();
    assert_eq!(record_count(dir.path()).await, 5);
}

/// Waits for more syncs than there were writes, those of seals, and until there are no more.
async fn sealed(store: &EmbeddedStore) {
    for _ in 0..100 {
        let before = store.durable_counts();
        tokio::time::sleep(Duration::from_millis(500)).await;
        if before.syncs > before.writes && store.durable_counts() == before {
            return;
        }
    }
    panic!("the last frame is never sealed, or again and again");
}

#[tokio::test]
async fn damage_to_the_last_acknowledged_frame_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options_at = |dir| EmbeddedOptions { log_disk: small_blocks(), ..options(dir) };
    let store = open_with(options_at(dir.path()));
    write_records(&store, 5).await;
    sealed(&store).await;
    let crash = crash(dir.path());
    drop(store);
    let log = crash.join("data/log/000000.log");
    let kept = fs::read(&log).unwrap();
    let file = File::options().write(true).open(&log).unwrap();
    let last = kept.chunks(BLOCK_BYTES).rposition(|block| block.iter().any(|&byte| byte != 0)).unwrap();
    // Before the seal.
    file.write_all_at(&[0xff; 40], ((last - 1) * BLOCK_BYTES) as u64).unwrap();
    let error = open_error(options_at(&crash));
    let is_told = matches!(error, OpenError::Log { error: LogError::Missing { .. }, .. });
    assert!(is_told, "{error}");
    file.write_all_at(&kept[..(last + 1) * BLOCK_BYTES], 0).unwrap();
    assert_eq!(record_count(&crash).await, 5);
}

/// A disk that has the directory copied before each of its operations, as a crash there would leave it.
struct Snapshots {
    data: PathBuf,
    to: PathBuf,
    is_on: AtomicBool,
    taken: AtomicUsize,
}

impl Snapshots {
    fn take(&self) {
        if self.is_on.load(Ordering::SeqCst) {
            let number = self.taken.fetch_add(1, Ordering::SeqCst);
            copy(&self.data, &self.to.join(number.to_string()).join("data"));
        }
    }
}

impl Disk for Snapshots {
    fn create(&self, path: &DirPath, is_synced_at_once: bool) -> io::Result<File> {
        self.take();
        SystemDisk.create(path, is_synced_at_once)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.take();
        SystemDisk.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.take();
        SystemDisk.sync(file)
    }

    fn sync_dir(&self, dir: &DirPath) -> io::Result<()> {
        self.take();
        SystemDisk.sync_dir(dir)
    }

    fn block_bytes(&self, _dir: &DirPath) -> Option<usize> {
        Some(BLOCK_BYTES)
    }
}

#[tokio::test]
async fn a_crash_at_any_point_of_a_start_leaves_a_directory_that_starts() {
    let dir = tempfile::tempdir().unwrap();
    let crash = crash_after_records(dir.path(), 5).await;
    for (start, records) in [("first", 0), ("replay", 5), ("clean", 5)] {
        let data = match start {
            "first" => dir.path().join("new/data"),
            _ => crash.join("data"),
        };
        let to = dir.path().join(start);
        let disk = Snapshots { data, to: to.clone(), is_on: AtomicBool::new(true), taken: AtomicUsize::new(0) };
        fs::create_dir_all(&disk.data).unwrap();
        let disk = Arc::new(disk);
        let options = EmbeddedOptions {
            dir: disk.data.clone(),
            log_disk: disk.clone(),
            log_file_size_bytes: 8 * 1024,
            ..options(dir.path())
        };
        let store = open_with(options);
        // The first write, and what makes it durable.
        durable(&store, store.put_record(bytes("0"), Some(bytes("v")))).await.unwrap();
        disk.is_on.store(false, Ordering::SeqCst);
        drop(store);
        let taken = disk.taken.load(Ordering::SeqCst);
        assert!(taken > 8, "{start}: {taken} operations");
        for number in 0..taken {
            let found = record_count(&to.join(number.to_string())).await;
            assert!(found == records || found == records.max(1), "{start} at {number}: {found} of {records}");
        }
    }
}

/// Tables of earlier formats name no log: until those of ours do, a crash must not let them be taken for tables that have none.
#[tokio::test]
async fn a_crash_at_any_point_of_a_take_over_leaves_a_directory_that_starts() {
    for archive in ["v1.tar.gz", "v2.tar.gz"] {
        let dir = tempfile::tempdir().unwrap();
        fixtures::unpack(archive, dir.path());
        let (data, to) = (dir.path().join("data"), dir.path().join("crashes"));
        let disk = Snapshots { data, to: to.clone(), is_on: AtomicBool::new(true), taken: AtomicUsize::new(0) };
        let disk = Arc::new(disk);
        let options = EmbeddedOptions { log_disk: disk.clone(), log_file_size_bytes: 8 * 1024, ..options(dir.path()) };
        let store = open_with(options);
        disk.is_on.store(false, Ordering::SeqCst);
        fixtures::check(&store).await;
        assert!(!dir.path().join("data/engine").exists());
        drop(store);
        let is_named_late = |number: usize| {
            let data = to.join(number.to_string()).join("data");
            fs::read_to_string(data.join("FORMAT")).unwrap() == "ombak 3\n" && data.join("engine").exists()
        };
        let taken = disk.taken.load(Ordering::SeqCst);
        assert!((0..taken).filter(|&number| is_named_late(number)).count() > 4, "{archive}: {taken} operations");
        for number in 0..taken {
            for _ in 0..2 {
                fixtures::check(&open(&to.join(number.to_string()))).await;
            }
        }
    }
}

#[test]
fn a_new_directory_is_known_to_the_disk_with_all_that_lead_to_it() {
    #[derive(Default)]
    struct Recorder(Mutex<Vec<PathBuf>>);

    impl Disk for Recorder {
        fn create(&self, path: &DirPath, is_synced_at_once: bool) -> io::Result<File> {
            SystemDisk.create(path, is_synced_at_once)
        }

        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            SystemDisk.write_at(file, bytes, offset)
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            SystemDisk.sync(file)
        }

        fn sync_dir(&self, dir: &DirPath) -> io::Result<()> {
            self.0.lock().unwrap().push(dir.to_owned());
            SystemDisk.sync_dir(dir)
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let synced = |data: PathBuf| {
        let disk = Arc::new(Recorder::default());
        drop(open_with(EmbeddedOptions { dir: data, log_disk: disk.clone(), ..options(dir.path()) }));
        disk.0.lock().unwrap().clone()
    };
    let root = dir.path().to_owned();
    let found = synced(root.join("a/b/data"));
    for expected in [root.clone(), root.join("a"), root.join("a/b"), root.join("a/b/data"), root.join("a/b/data/log")] {
        assert!(found.contains(&expected), "{} is not in {found:?}", expected.display());
    }
    // A start that was killed may have made it.
    fs::create_dir(root.join("made")).unwrap();
    assert!(synced(root.join("made")).contains(&root));
    assert!(!synced(root.join("made")).contains(&root), "nothing was made");
}

/// The directory that the process with little memory starts on. Set in that process only.
const SMALL_MEMORY_DIR: &str = "OMBAK_TEST_SMALL_MEMORY_DIR";

/// A file of the log may be as large as one frame. A limit holds for a whole process, so this test runs once more in one of its
/// own, whose addresses are fewer than the file's bytes.
#[tokio::test]
async fn a_start_reads_a_log_file_that_is_larger_than_memory() {
    if let Some(dir) = std::env::var_os(SMALL_MEMORY_DIR) {
        assert_eq!(record_count(DirPath::new(&dir)).await, 5);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let crash = crash_after_records(dir.path(), 5).await;
    let log = File::options().write(true).open(crash.join("data/log/000000.log")).unwrap();
    log.set_len(4 * 1024 * 1024 * 1024).unwrap();
    // In units of 1,024 bytes.
    let status = Command::new("sh")
        .args([
            "-c",
            "ulimit -v 3145728; exec \"$0\" --exact durability::a_start_reads_a_log_file_that_is_larger_than_memory",
        ])
        .arg(std::env::current_exe().unwrap())
        .env(SMALL_MEMORY_DIR, &crash)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_directory_belongs_to_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(open_error(options(dir.path())), OpenError::Locked { .. }));
    // A closed store still serves reads.
    store.close();
    assert!(matches!(open_error(options(dir.path())), OpenError::Locked { .. }));
    drop(store);
    drop(open(dir.path()));
}

#[test]
fn an_unknown_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let format = dir.path().join("data/FORMAT");
    for (written, reported) in [("ombak 99\n", "ombak 99\n"), ("", "")] {
        fs::write(&format, written).unwrap();
        assert!(matches!(open_error(options(dir.path())), OpenError::Format { found, .. } if found == reported));
    }
    fs::write(&format, "x".repeat(10_000)).unwrap();
    assert!(matches!(open_error(options(dir.path())), OpenError::Format { found, .. } if found.len() == 64));
    fs::remove_file(&format).unwrap();
    assert!(matches!(open_error(options(dir.path())), OpenError::NotOurs { .. }));
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("notes.txt"), "mine").unwrap();
    assert!(matches!(open_error(options(dir.path())), OpenError::NotOurs { .. }));
    let left: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"]);
}

#[test]
fn a_directory_that_a_crash_left_without_a_format_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir_all(data.join("lost+found")).unwrap();
    fs::write(data.join("LOCK"), "").unwrap();
    fs::write(data.join("FORMAT.new"), "omb").unwrap();
    drop(open(dir.path()));
    drop(open(dir.path()));
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("data")] {
        let options = EmbeddedOptions { dir: path.clone(), ..options(dir.path()) };
        assert!(matches!(open_error(options), OpenError::Io { dir, .. } if dir == path));
    }
    // A directory where a file of ours should be.
    let data = dir.path().join("data");
    fs::create_dir_all(data.join("FORMAT")).unwrap();
    assert!(matches!(open_error(options(dir.path())), OpenError::Io { .. }));
}

/// The directory that the process with the small disk works in. Set in that process only.
const SMALL_DISK_DIR: &str = "OMBAK_TEST_SMALL_DISK_DIR";

/// The system refuses a file of more than 64 MiB, which the engine's journal grows to: so the tables cannot take up what the log
/// has. A limit holds for a whole process, so this test runs once more in one of its own.
#[tokio::test]
async fn a_store_whose_write_failed_is_read_only() {
    if let Some(dir) = std::env::var_os(SMALL_DISK_DIR) {
        return fill_the_disk(DirPath::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    // In units of 512 bytes; without the signal the write reports an error.
    let status = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 131072; exec \"$0\" --exact durability::a_store_whose_write_failed_is_read_only",
        ])
        .arg(std::env::current_exe().unwrap())
        .env(SMALL_DISK_DIR, dir.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    // On a disk with room all is well again, and everything acknowledged is there.
    let acknowledged: usize = fs::read_to_string(dir.path().join("acknowledged")).unwrap().parse().unwrap();
    assert!(acknowledged > 10);
    let store = open(dir.path());
    let kept = keys(&store, &bucket("b"), 1_000).await;
    for number in 0..acknowledged {
        assert!(kept.contains(&bytes(number.to_string())), "{number} of {acknowledged}");
    }
    durable(&store, store.put_record(bytes("more"), Some(bytes("v")))).await.unwrap();
}

async fn fill_the_disk(dir: &DirPath) {
    let store = open(dir);
    // Nothing that compresses.
    let mut random = vec![0; 1024 * 1024];
    fill_without_pattern(&mut random);
    let record = |number: usize| {
        let mut value = random.clone();
        value[..8].copy_from_slice(&number.to_be_bytes());
        value
    };
    let mut writer = Writer::new(&store);
    let mut acknowledged = 0;
    let error = loop {
        let written = store.put_record(bytes(acknowledged.to_string()), Some(record(acknowledged).into()));
        if let Err(error) = durable(&store, written).await {
            break error;
        }
        let (_, written) = writer.send(&object(acknowledged.to_string()), vec![], members(&Path::root(), 0..1));
        if let Err(error) = durable(&store, written).await {
            break error;
        }
        acknowledged += 1;
        assert!(acknowledged < 200, "no write failed");
    };
    assert!(matches!(error, StoreError::Engine { .. } | StoreError::ReadOnly { .. }), "{error}");
    fs::write(dir.join("acknowledged"), acknowledged.to_string()).unwrap();
    for written in [writer.send(&object("k"), vec![], members(&Path::root(), 0..1)).1, store.raise_clock_bound(Time(5))]
    {
        assert!(matches!(durable(&store, written).await, Err(StoreError::ReadOnly { .. })));
    }
    assert!(keys(&store, &bucket("b"), 1_000).await.len() >= acknowledged);
    store.close();
    assert_eq!(durable(&store, store.put_record(bytes("r"), None)).await, Err(StoreError::Closed));
}

/// Fills with bytes that have no pattern a compressor would find (xorshift).
fn fill_without_pattern(bytes: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
    }
}
