//! A disk that fails: at every write and every sync of the commit log, in several ways. Whatever was acknowledged by then is
//! there after a restart, what was not is there whole or not at all, and the store went read-only at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path as DirPath;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ombak::domain::cell::LiveCells;
use ombak::domain::delta::Delta;
use ombak::store::embedded::{Disk, EmbeddedOptions, EmbeddedStore, SystemDisk};
use ombak::store::{Store, StoreError};

use super::crash_points::{History, options_at};
use super::support::*;

/// What happens at the operation that fails. Those that follow fail too, but for the last kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing is done.
    Refused,
    /// Half of a write is done.
    Torn,
    /// Of everything that was not synced, every other block is lost, as when the power fails.
    Lost,
    /// The same, and all goes well from then on: the system has told of what it could not write, and forgotten it.
    LostOnce,
}

struct FaultyDisk {
    fault: Fault,
    /// Operations until the fault.
    left: AtomicU64,
    has_failed: AtomicBool,
    /// What lay where something was written that is not synced.
    unsynced: Mutex<Vec<Before>>,
}

struct Before {
    file: File,
    /// The file's.
    number: u64,
    offset: u64,
    bytes: Vec<u8>,
}

impl FaultyDisk {
    fn new(fault: Fault, operations: u64) -> Self {
        Self { fault, left: AtomicU64::new(operations), has_failed: AtomicBool::new(false), unsynced: Mutex::default() }
    }

    fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }

    /// Whether the operation may be done.
    fn allows(&self) -> bool {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.is_ok() || self.has_failed.swap(true, Ordering::SeqCst) && self.fault == Fault::LostOnce
    }

    fn fail(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock().unwrap();
        match self.fault {
            Fault::Refused => {}
            Fault::Torn => file.write_all_at(&bytes[..bytes.len() / 2], offset)?,
            Fault::Lost | Fault::LostOnce => {
                // Where the disk goes on, what was written to other files is not lost.
                let is_lost = |before: &mut Before| self.fault == Fault::Lost || before.number == number_of(file);
                for (number, before) in unsynced.extract_if(.., is_lost).enumerate() {
                    for (block, bytes) in before.bytes.chunks(BLOCK_BYTES).enumerate() {
                        if (block + number) % 2 == 0 {
                            before.file.write_all_at(bytes, before.offset + (block * BLOCK_BYTES) as u64)?;
                        }
                    }
                }
            }
        }
        Err(io::Error::other("the disk fails, as the test wants it"))
    }
}

fn number_of(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

impl Disk for FaultyDisk {
    fn create(&self, path: &DirPath, _is_synced_at_once: bool) -> io::Result<File> {
        File::options().create_new(true).read(true).write(true).open(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.allows() {
            return self.fail(file, bytes, offset);
        }
        let mut before = vec![0; bytes.len()];
        // What lies behind the end of the file is as good as zeros.
        let _ = file.read_at(&mut before, offset)?;
        let before = Before { file: file.try_clone()?, number: number_of(file), offset, bytes: before };
        self.unsynced.lock().unwrap().push(before);
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if !self.allows() {
            return self.fail(file, &[], 0);
        }
        self.unsynced.lock().unwrap().retain(|before| before.number != number_of(file));
        file.sync_data()
    }

    fn block_bytes(&self, _dir: &DirPath) -> Option<usize> {
        Some(BLOCK_BYTES)
    }
}

/// Files so small that the history needs many of them, and so little memory that the tables take it up in between.
fn options_with(dir: &DirPath, disk: Arc<dyn Disk>) -> EmbeddedOptions {
    EmbeddedOptions {
        log_file_size_bytes: 4 * BLOCK_BYTES as u64,
        unapplied_size_bytes_max: 40_000,
        log_disk: disk,
        ..options_at(dir)
    }
}

/// Plays a history until the disk fails. How many of its steps were acknowledged.
async fn play(dir: &DirPath, disk: Arc<FaultyDisk>, steps: &[(Delta, LiveCells)]) -> usize {
    let name = object("k");
    let Ok(store) = EmbeddedStore::open(options_with(dir, disk.clone())) else {
        assert!(disk.has_failed());
        return 0;
    };
    for (number, (delta, _)) in steps.iter().enumerate() {
        if durable(&store, store.commit(name.clone(), delta.clone())).await.is_ok() {
            continue;
        }
        assert!(disk.has_failed());
        let refused = store.put_record(bytes("r"), None);
        assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
        return number;
    }
    steps.len()
}

async fn fail_everywhere(fault: Fault) {
    let steps = History::default().steps();
    let nothing = LiveCells::default();
    let after = |count: usize| if count == 0 { &nothing } else { &steps[count - 1].1 };
    let name = object("k");
    let mut failures = 0;
    for operations in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FaultyDisk::new(fault, operations));
        let acknowledged = play(dir.path(), disk.clone(), &steps).await;
        if !disk.has_failed() {
            break;
        }
        failures += 1;
        let store = open_with(options_at(dir.path()));
        let found = read_all(&store, &name).await;
        let is_next = acknowledged < steps.len() && found == *after(acknowledged + 1);
        assert!(
            is_next || found == *after(acknowledged),
            "{fault:?} after {operations}, {acknowledged} acknowledged: {found:?}"
        );
        for (delta, cells) in &steps[acknowledged + usize::from(is_next)..] {
            durable(&store, store.commit(name.clone(), delta.clone())).await.unwrap();
            assert_eq!(&read_all(&store, &name).await, cells, "{fault:?} after {operations}");
        }
    }
    assert!(failures > 2 * steps.len(), "the disk was asked {failures} times only");
}

#[tokio::test]
async fn a_disk_that_refuses_at_any_operation_loses_nothing_acknowledged() {
    fail_everywhere(Fault::Refused).await;
}

#[tokio::test]
async fn a_disk_that_tears_any_write_loses_nothing_acknowledged() {
    fail_everywhere(Fault::Torn).await;
}

#[tokio::test]
async fn after_a_disk_that_fails_once_nothing_more_is_written_and_the_log_is_kept() {
    fail_everywhere(Fault::LostOnce).await;
}

#[tokio::test]
async fn a_power_failure_at_any_operation_loses_nothing_acknowledged() {
    fail_everywhere(Fault::Lost).await;
}

/// A disk whose code breaks down.
struct PanickingDisk {
    panics: AtomicBool,
}

impl Disk for PanickingDisk {
    fn create(&self, path: &DirPath, is_synced_at_once: bool) -> io::Result<File> {
        SystemDisk.create(path, is_synced_at_once)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        SystemDisk.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        assert!(!self.panics.load(Ordering::SeqCst), "the test wants it");
        SystemDisk.sync(file)
    }
}

#[tokio::test]
async fn a_committer_that_panics_makes_the_store_read_only_and_close_returns() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(PanickingDisk { panics: AtomicBool::new(false) });
    let store = open_with(EmbeddedOptions { log_disk: disk.clone(), ..options(dir.path()) });
    let record = |value: &str| store.put_record(bytes("r"), Some(bytes(value)));
    durable(&store, record("before")).await.unwrap();
    disk.panics.store(true, Ordering::SeqCst);
    let told = durable(&store, record("lost")).await.unwrap_err();
    assert!(matches!(told, StoreError::Engine { .. }), "{told}");
    let refused = record("refused").unwrap_err();
    let reason = "the storage engine failed: the thread committer panicked: the test wants it";
    assert_eq!(refused, StoreError::ReadOnly { reason: reason.into() });
    assert_eq!(store.failure(), Some(refused));
    store.close();
    drop(store);
    let records = open(dir.path()).records().await.unwrap();
    assert!(records == [(bytes("r"), bytes("before"))] || records == [(bytes("r"), bytes("lost"))], "{records:?}");
}
