//! Reading a log that an earlier process left.
//!
//! A crash leaves a log whose last frames may be torn: those were acknowledged to nobody, and the log ends before them. But a
//! frame tells what was on disk when it was written, so where one that was is missing, the log is damaged: that is told and
//! nothing guessed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::frame::{BLOCK_BYTES, Frame};
use super::{FILE_MAGIC, FILE_VERSION, files};
use crate::store::{Position, StoreError};

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// The system says so.
    #[error("cannot read the commit log: {0}")]
    Io(#[from] io::Error),
    /// A file is of a later release, or none of ours.
    #[error("{} is no file of a commit log that this release knows", path.display())]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// Writes that were acknowledged cannot be read.
    #[error(
        "the commit log in {} is damaged: writes from number {} on cannot be read, and up to {} they were acknowledged",
        dir.display(), missing.0, synced.0
    )]
    Missing {
        /// The log's directory.
        dir: PathBuf,
        /// The first one.
        missing: Position,
        /// The last one that is known of.
        synced: Position,
    },
    /// An entry cannot be read, or not be made again.
    #[error("the commit log cannot be replayed: {0}")]
    Replay(#[from] StoreError),
}

/// The frames that are to be replayed, in order.
#[derive(Debug)]
pub(in crate::store::embedded) struct Recovered {
    frames: std::vec::IntoIter<Place>,
    /// The last position that the tables hold, or that was replayed.
    behind: Position,
}

/// Where a frame lies.
#[derive(Debug)]
struct Place {
    file: std::sync::Arc<File>,
    log: u64,
    offset: u64,
    size_bytes: usize,
    first: Position,
    last: Position,
    synced: Position,
}

/// Finds what of the log in a directory stands behind a position, up to which the tables hold everything.
pub(in crate::store::embedded) fn recover(dir: &Path, held: Position) -> Result<Recovered, LogError> {
    let mut places = Vec::new();
    for path in files(dir)? {
        find_frames(&path, &mut places)?;
    }
    places.sort_by_key(|place| place.first);
    let mut wanted = Vec::new();
    let mut behind = held;
    let mut synced = held;
    for place in places {
        synced = synced.max(place.synced);
        if place.first.0 <= behind.0 + 1 && place.last > behind {
            behind = place.last;
            wanted.push(place);
        }
    }
    if synced > behind {
        return Err(LogError::Missing { dir: dir.to_owned(), missing: Position(behind.0 + 1), synced });
    }
    Ok(Recovered { frames: wanted.into_iter(), behind: held })
}

/// Looks for frames at every block of a file. Files are small, and what stands where is not to be believed of a damaged one.
fn find_frames(path: &Path, places: &mut Vec<Place>) -> Result<(), LogError> {
    let unknown = || LogError::Version { path: path.to_owned() };
    let file = std::sync::Arc::new(File::open(path)?);
    let mut contents = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut contents, 0)?;
    let contents = Bytes::from(contents);
    let mut header = contents.slice(..contents.len().min(BLOCK_BYTES));
    if header.iter().all(|byte| *byte == 0) {
        // Made a moment before a crash.
        return Ok(());
    }
    let magic: [u8; 8] = header.split_to(header.len().min(8)).as_ref().try_into().map_err(|_| unknown())?;
    let version = header.try_get_u32().map_err(|_| unknown())?;
    let log = header.try_get_u64().map_err(|_| unknown())?;
    if magic != *FILE_MAGIC || version != FILE_VERSION {
        return Err(unknown());
    }
    let mut block = 1;
    while block * BLOCK_BYTES < contents.len() {
        let offset = block * BLOCK_BYTES;
        let Some(frame) = Frame::decode(&contents.slice(offset..), log) else {
            block += 1;
            continue;
        };
        let size_bytes = frame.blocks() * BLOCK_BYTES;
        let (first, last, synced) = (frame.first, frame.last(), frame.synced);
        places.push(Place { file: file.clone(), log, offset: offset as u64, size_bytes, first, last, synced });
        block += frame.blocks();
    }
    Ok(())
}

impl Recovered {
    /// The next frame's entries that the tables lack, each with its position; none at the end.
    pub(in crate::store::embedded) fn next(&mut self) -> Result<Vec<(Position, Bytes)>, LogError> {
        let Some(place) = self.frames.next() else { return Ok(Vec::new()) };
        let mut bytes = vec![0; place.size_bytes];
        place.file.read_exact_at(&mut bytes, place.offset)?;
        let damaged = StoreError::Damaged { what: "log frame" };
        let frame = Frame::decode(&bytes.into(), place.log).ok_or(damaged)?;
        let mut entries = frame.entries()?;
        entries.retain(|(position, _)| *position > self.behind);
        self.behind = frame.last();
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{FrameBuilder, Log, LogFiles, SystemDisk};
    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        log: Log,
        next: u64,
    }

    const FILE_BYTES: u64 = 4 * BLOCK_BYTES as u64;

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let files = LogFiles {
                dir: dir.path().join("log"),
                name: 5,
                size_bytes: FILE_BYTES,
                is_synced_at_once: true,
                disk: Arc::new(SystemDisk),
                made: 0,
            };
            let log = Log::create(files, Position(0)).unwrap();
            Self { dir, log, next: 1 }
        }

        /// Appends a frame of so many entries and has it synced.
        fn write(&mut self, entries: u64) {
            let mut frame = FrameBuilder::default();
            for entry in self.next..self.next + entries {
                frame.add(|out| out.extend_from_slice(format!("entry {entry}").as_bytes()));
            }
            self.log.append(&mut frame, Position(self.next)).unwrap();
            self.log.sync().unwrap();
            self.next += entries;
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("log")
        }

        fn recover(&self, held: u64) -> Result<Vec<u64>, LogError> {
            let mut recovered = recover(&self.path(), Position(held))?;
            let mut found = Vec::new();
            loop {
                let entries = recovered.next()?;
                if entries.is_empty() {
                    return Ok(found);
                }
                for (position, entry) in entries {
                    assert_eq!(entry, format!("entry {}", position.0));
                    found.push(position.0);
                }
            }
        }

        fn overwrite(&self, file: usize, block: u64) {
            let file = File::options().write(true).open(&files(&self.path()).unwrap()[file]).unwrap();
            file.write_all_at(&[0xff; BLOCK_BYTES], block * BLOCK_BYTES as u64).unwrap();
        }
    }

    #[test]
    fn what_the_tables_lack_is_found_across_files() {
        let mut bench = Bench::new();
        (0..8).for_each(|_| bench.write(2));
        assert_eq!(bench.recover(0).unwrap(), (1..=16).collect::<Vec<_>>());
        assert_eq!(bench.recover(5).unwrap(), (6..=16).collect::<Vec<_>>());
        assert_eq!(bench.recover(16).unwrap(), [0; 0]);
        // The tables may hold more than the log has left.
        assert_eq!(bench.recover(100).unwrap(), [0; 0]);
    }

    #[test]
    fn released_files_are_written_again() {
        let mut bench = Bench::new();
        for round in 0..20 {
            bench.write(3);
            bench.log.release(Position(round * 3)).unwrap();
        }
        assert_eq!(files(&bench.path()).unwrap().len(), 2);
        assert_eq!(bench.recover(57).unwrap(), [58, 59, 60]);
    }

    #[test]
    fn a_frame_larger_than_a_file_is_kept() {
        let mut bench = Bench::new();
        bench.write(1);
        bench.write(1000);
        bench.write(1);
        assert_eq!(bench.recover(0).unwrap().len(), 1002);
        bench.log.release(Position(1001)).unwrap();
        bench.write(1);
        assert_eq!(bench.recover(1001).unwrap(), [1002, 1003]);
    }

    #[test]
    fn a_torn_tail_is_cut() {
        let mut bench = Bench::new();
        (0..2).for_each(|_| bench.write(2));
        bench.overwrite(0, 2);
        assert_eq!(bench.recover(0).unwrap(), [1, 2]);
    }

    #[test]
    fn a_damaged_middle_is_told() {
        let mut bench = Bench::new();
        (0..3).for_each(|_| bench.write(2));
        bench.overwrite(0, 2);
        let error = bench.recover(0).unwrap_err();
        assert!(matches!(error, LogError::Missing { missing: Position(3), synced: Position(4), .. }), "{error}");
        // The tables have it.
        assert_eq!(bench.recover(4).unwrap(), [5, 6]);
    }

    #[test]
    fn a_file_of_something_else_is_told() {
        let bench = Bench::new();
        bench.overwrite(0, 0);
        assert!(matches!(bench.recover(0), Err(LogError::Version { .. })));
    }

    #[test]
    fn a_file_that_a_crash_left_empty_holds_nothing() {
        let mut bench = Bench::new();
        bench.write(1);
        std::fs::write(bench.path().join("000009.log"), [0; BLOCK_BYTES]).unwrap();
        std::fs::write(bench.path().join("000010.log"), []).unwrap();
        assert_eq!(bench.recover(0).unwrap(), [1]);
    }
}
