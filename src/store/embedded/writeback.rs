//! Has the disk take tables while they are written, and not all at once when they are done.
//!
//! A table of 64 MiB that is synced in one go keeps the disk busy for a fifth of a second, and the commit log waits behind it with
//! all who write. In small pieces the log waits for one piece.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The disk is given this much at a time, in bytes.
const PIECE_BYTES: usize = 2 * 1024 * 1024;
/// Files that may be written at a time: by the applier and by the merger.
const WRITTEN_AT_ONCE: usize = 2;

/// Counts what one thread writes to tables.
pub(super) struct Writeback {
    dir: PathBuf,
    written_bytes: usize,
}

impl Writeback {
    /// For tables in a directory, which are numbered as they are made.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), written_bytes: 0 }
    }

    /// Counts bytes, and has the disk take what was written where it is enough.
    pub(super) fn note(&mut self, bytes: usize) {
        self.written_bytes += bytes;
        if self.written_bytes >= PIECE_BYTES {
            self.written_bytes = 0;
            self.push();
        }
    }

    fn push(&self) {
        // Nothing depends on it: whoever writes a table syncs it, and the system tells an error to every handle of the file.
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let number = |name: std::ffi::OsString| name.to_str()?.parse::<u64>().ok();
        let mut numbers: Vec<_> = entries.filter_map(|entry| number(entry.ok()?.file_name())).collect();
        numbers.sort_unstable();
        for number in numbers.into_iter().rev().take(WRITTEN_AT_ONCE) {
            let _ = File::open(self.dir.join(number.to_string())).and_then(|table| table.sync_data());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_tables_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("7"), b"table").unwrap();
        fs::write(dir.path().join("notes"), b"none").unwrap();
        let mut writeback = Writeback::new(dir.path());
        writeback.note(PIECE_BYTES - 1);
        assert_eq!(writeback.written_bytes, PIECE_BYTES - 1);
        writeback.note(1);
        assert_eq!(writeback.written_bytes, 0);
        Writeback::new(&dir.path().join("gone")).note(PIECE_BYTES);
    }
}
