//! Durability `relaxed`: a power failure takes what was not synced.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path as DirPath;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ombak::store::Store;
use ombak::store::embedded::{Disk, Durability, EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;

use super::support::*;

/// A disk that remembers what lay where something was written that is not synced.
#[derive(Default)]
struct LosingDisk {
    unsynced: Mutex<Vec<(File, u64, Vec<u8>)>>,
}

impl Disk for LosingDisk {
    fn create(&self, path: &DirPath, _is_synced_at_once: bool) -> io::Result<File> {
        File::options().create_new(true).read(true).write(true).open(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut before = vec![0; bytes.len()];
        // What lies behind the end of the file is as good as zeros.
        let _ = file.read_at(&mut before, offset)?;
        self.unsynced.lock().unwrap().push((file.try_clone()?, offset, before));
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.unsynced.lock().unwrap().clear();
        file.sync_data()
    }
}

/// A store that syncs in an hour, or when it is asked to.
struct Powered {
    dir: TempDir,
    disk: Arc<LosingDisk>,
    store: Arc<EmbeddedStore>,
}

impl Powered {
    fn on() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: TempDir) -> Self {
        let disk = Arc::new(LosingDisk::default());
        let durability = Durability::Relaxed(Duration::from_secs(3600));
        let options = EmbeddedOptions { durability, log_disk: disk.clone(), ..options(dir.path()) };
        Self { store: Arc::new(open_with(options)), dir, disk }
    }

    /// What there is when the power comes back. Nothing is written meanwhile.
    fn after_power_failure(&self) -> Self {
        for (file, offset, before) in self.disk.unsynced.lock().unwrap().drain(..).rev() {
            file.write_all_at(&before, offset).unwrap();
        }
        let copied = tempfile::tempdir().unwrap();
        copy(self.dir.path(), copied.path());
        Self::at(copied)
    }
}

fn copy(from: &DirPath, to: &DirPath) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

#[tokio::test]
async fn writes_are_answered_before_they_are_synced_and_synced_when_that_is_asked_for() {
    let powered = Powered::on();
    let store = &powered.store;
    assert!(store.answers_before_sync());
    let write = |value: &str| store.put_record(bytes("r"), Some(bytes(value))).unwrap();
    let first = write("1");
    store.durable(first).await.unwrap();
    assert!(!store.is_synced(first));
    let mut waiting = Box::pin(store.synced(first));
    let second = write("2");
    assert!(is_pending(&mut waiting).await);
    store.hasten_sync();
    waiting.await.unwrap();
    store.synced(second).await.unwrap();
    let third = write("3");
    store.durable(third).await.unwrap();
    assert!(store.is_synced(second) && !store.is_synced(third), "what was asked for, once");
    let after = powered.after_power_failure();
    assert_eq!(after.store.records().await.unwrap(), [(bytes("r"), bytes("2"))]);
}

/// Whether a future is not ready, after whoever may be at work has been.
async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(50), future).await.is_err()
}
