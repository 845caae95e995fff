//! Reading a log that an earlier process left.
//!
//! A crash leaves a log whose last frames may be torn: those were acknowledged to nobody, and the log ends before them. But a
//! frame tells what was on disk when it was written, so where one that was is missing, the log is damaged: that is told and
//! nothing guessed. So is a log that the tables name and that is not there whole.
//!
//! Files and frames may be large. They are read through a buffer of one size, an entry at a time.

use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::frame::{EntriesCheck, FrameHeader, HEADER_BYTES};
use super::list::FileList;
use super::{FILE_HEADER_BYTES, FileHeader, file_path, files};
use crate::store::{Position, StoreError};

/// What a file is read through, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

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
    /// The log, or a part of it, was taken away.
    #[error(
        "{} is missing or unreadable, and the commit log that it belongs to may hold acknowledged writes that are nowhere \
         else: put it back as it was, or restore the whole data directory from one copy",
        path.display()
    )]
    Gone {
        /// The log's directory, or the file in it.
        path: PathBuf,
    },
    /// The log belongs to other tables.
    #[error(
        "the commit log in {} is another one than the tables beside it name, which may hold acknowledged writes that are \
         nowhere else: put that one back, or restore the whole data directory from one copy",
        dir.display()
    )]
    Foreign {
        /// The log's directory.
        dir: PathBuf,
    },
    /// Writes that were acknowledged cannot be read.
    #[error(
        "the commit log in {} is damaged: writes from number {} on cannot be read, and up to {} they were acknowledged; \
         restore the whole data directory from one copy",
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

/// What the tables say of the log beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::embedded) enum ExpectedLog {
    /// They are of a release whose tables said nothing of it: whatever is there counts.
    Any,
    /// They hold everything, and whatever is there is left of a log that was being removed or begun.
    None,
    /// There is one of this name, which may hold more than they do.
    Named(u64),
}

/// What is to be replayed, in order.
#[derive(Debug)]
pub(in crate::store::embedded) struct Recovered {
    runs: vec::IntoIter<Run>,
    /// The run that is being read.
    reading: Option<RunReader>,
    /// The last position that the tables hold, or that was replayed.
    behind: Position,
}

/// Where frames lie whose entries follow one another.
#[derive(Debug)]
struct Run {
    path: Arc<Path>,
    header: FileHeader,
    start: u64,
    end: u64,
    first: Position,
    last: Position,
}

/// Finds what of the log in a directory stands behind a position, up to which the tables hold everything.
pub(in crate::store::embedded) fn recover(
    dir: &Path,
    held: Position,
    expected: ExpectedLog,
) -> Result<Recovered, LogError> {
    let paths = match expected {
        ExpectedLog::None => Vec::new(),
        ExpectedLog::Any => files(dir)?,
        // Nothing was written to any other.
        ExpectedLog::Named(log) => listed_files(dir, log)?,
    };
    let mut found = Found::default();
    for path in paths {
        let path: Arc<Path> = path.into();
        match (read_file_header(&path)?, expected) {
            (Some(header), ExpectedLog::Named(log)) if header.log != log => {
                return Err(LogError::Foreign { dir: dir.to_owned() });
            }
            (Some(header), _) => found.look_through(path, header)?,
            (None, ExpectedLog::Named(_)) => return Err(LogError::Gone { path: path.to_path_buf() }),
            // Made a moment before a crash.
            (None, _) => {}
        }
    }
    let Found { mut runs, mut synced } = found;
    runs.sort_by_key(|run| run.first);
    let mut behind = held;
    synced = synced.max(held);
    runs.retain(|run| {
        let is_next = run.first.0 <= behind.0.saturating_add(1) && run.last > behind;
        if is_next {
            behind = run.last;
        }
        is_next
    });
    if synced > behind {
        return Err(LogError::Missing { dir: dir.to_owned(), missing: Position(behind.0 + 1), synced });
    }
    Ok(Recovered { runs: runs.into_iter(), reading: None, behind: held })
}

/// The files that must be there.
fn listed_files(dir: &Path, log: u64) -> Result<Vec<PathBuf>, LogError> {
    let gone = |path: &Path| LogError::Gone { path: path.to_owned() };
    let list = FileList::read(dir)?.ok_or_else(|| gone(dir))?;
    if list.log != log {
        return Err(LogError::Foreign { dir: dir.to_owned() });
    }
    let listed: Vec<_> = list.numbers.into_iter().map(|number| file_path(dir, number)).collect();
    match listed.iter().find(|path| !path.is_file()) {
        Some(path) => Err(gone(path)),
        None => Ok(listed),
    }
}

/// What a file begins with; `None` where it was not written to yet.
fn read_file_header(path: &Path) -> Result<Option<FileHeader>, LogError> {
    let mut window = Window::open(path)?;
    let begin = window.at(0, FILE_HEADER_BYTES)?;
    if begin.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let unknown = || LogError::Version { path: path.to_owned() };
    FileHeader::decode(begin).map(Some).ok_or_else(unknown)
}

/// What was found in the files so far.
#[derive(Default)]
struct Found {
    runs: Vec<Run>,
    /// The greatest position that a frame says was on disk.
    synced: Position,
}

impl Found {
    /// Looks for frames at every unit of a file. What stands where is not to be believed of a damaged one.
    fn look_through(&mut self, path: Arc<Path>, header: FileHeader) -> Result<(), LogError> {
        let mut window = Window::open(&path)?;
        let unit_bytes = header.unit_bytes as u64;
        let mut run: Option<Run> = None;
        let mut offset = unit_bytes;
        while offset < window.size_bytes {
            let Some(frame) = frame_at(&mut window, offset, header)? else {
                offset += unit_bytes;
                continue;
            };
            let start = offset;
            offset += frame.size_bytes().next_multiple_of(unit_bytes);
            self.synced = self.synced.max(frame.synced);
            match &mut run {
                Some(run) if run.end == start && frame.first.0 == run.last.0.saturating_add(1) => {
                    run.end = offset;
                    run.last = frame.last();
                }
                // A seal that begins a run has nothing for it.
                _ if frame.count == 0 => {}
                run => {
                    let (first, last) = (frame.first, frame.last());
                    let next = Run { path: path.clone(), header, start, end: offset, first, last };
                    self.runs.extend(run.replace(next));
                }
            }
        }
        self.runs.extend(run);
        Ok(())
    }
}

/// The header of a whole frame, if there is one.
fn frame_at(window: &mut Window, offset: u64, file: FileHeader) -> io::Result<Option<FrameHeader>> {
    let Some(frame) = FrameHeader::decode(window.at(offset, HEADER_BYTES)?, file.log, file.spelling) else {
        return Ok(None);
    };
    let end = offset.saturating_add(frame.size_bytes());
    if end > window.size_bytes {
        return Ok(None);
    }
    let mut check = frame.check();
    let mut at = offset + frame.header_bytes as u64;
    while at < end {
        let piece = window.at(at, piece_bytes(end - at))?;
        check.update(piece);
        at += piece.len() as u64;
    }
    Ok(check.holds().then_some(frame))
}

/// As much of what is left as is read at a time.
fn piece_bytes(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER_BYTES)
}

impl Recovered {
    /// The next entry that the tables lack, with its position; `None` at the end.
    pub(in crate::store::embedded) fn next(&mut self) -> Result<Option<(Position, Bytes)>, LogError> {
        loop {
            if let Some(run) = &mut self.reading {
                while let Some((position, entry)) = run.next()? {
                    if position > self.behind {
                        self.behind = position;
                        return Ok(Some((position, entry)));
                    }
                }
            }
            let Some(run) = self.runs.next() else { return Ok(None) };
            self.reading = Some(RunReader::open(run)?);
        }
    }

    #[cfg(test)]
    pub(super) fn count(mut self) -> usize {
        std::iter::from_fn(|| self.next().unwrap()).count()
    }
}

/// A run while its entries are read.
#[derive(Debug)]
struct RunReader {
    window: Window,
    header: FileHeader,
    /// Where the next frame begins.
    next_frame: u64,
    end: u64,
    frame: FrameEntries,
}

/// What is left of a frame.
#[derive(Debug, Default)]
struct FrameEntries {
    /// Where the next entry begins.
    at: u64,
    end: u64,
    /// The position of the next entry.
    position: u64,
    left: u32,
    check: Option<EntriesCheck>,
}

impl RunReader {
    fn open(run: Run) -> io::Result<Self> {
        let window = Window::open(&run.path)?;
        Ok(Self { window, header: run.header, next_frame: run.start, end: run.end, frame: FrameEntries::default() })
    }

    fn next(&mut self) -> Result<Option<(Position, Bytes)>, LogError> {
        let damaged = StoreError::Damaged { what: "log frame" };
        while self.frame.left == 0 {
            let is_whole = self.frame.at == self.frame.end;
            // It was sound a moment ago.
            if !is_whole || self.frame.check.take().is_some_and(|check| !check.holds()) {
                return Err(damaged.into());
            }
            if self.next_frame >= self.end {
                return Ok(None);
            }
            self.begin_frame()?;
        }
        let length = self.take(4)?.get_u32();
        let entry = self.take(length.into())?;
        let position = Position(self.frame.position);
        self.frame.position += 1;
        self.frame.left -= 1;
        Ok(Some((position, entry)))
    }

    fn begin_frame(&mut self) -> Result<(), LogError> {
        let begin = self.window.at(self.next_frame, HEADER_BYTES)?;
        let frame = FrameHeader::decode(begin, self.header.log, self.header.spelling);
        let frame = frame.ok_or(StoreError::Damaged { what: "log frame" })?;
        let at = self.next_frame + frame.header_bytes as u64;
        let end = self.next_frame + frame.size_bytes();
        self.next_frame = end.next_multiple_of(self.header.unit_bytes as u64);
        let (position, left, check) = (frame.first.0, frame.count, Some(frame.check()));
        self.frame = FrameEntries { at, end, position, left, check };
        Ok(())
    }

    /// The next bytes of the frame.
    fn take(&mut self, length: u64) -> Result<Bytes, LogError> {
        let FrameEntries { at, end, check, .. } = &mut self.frame;
        if length > *end - *at {
            return Err(StoreError::Damaged { what: "log frame" }.into());
        }
        // The frame is whole, so this is there.
        let mut taken = Vec::with_capacity(length as usize);
        while (taken.len() as u64) < length {
            let piece = self.window.at(*at, piece_bytes(length - taken.len() as u64))?;
            if piece.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            taken.extend_from_slice(piece);
            *at += piece.len() as u64;
        }
        if let Some(check) = check {
            check.update(&taken);
        }
        Ok(taken.into())
    }
}

/// A file that is read through a buffer.
#[derive(Debug)]
struct Window {
    file: File,
    size_bytes: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
}

impl Window {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self { file, size_bytes, buffer: Vec::new(), start: 0 })
    }

    /// So many bytes at an offset, no more than the buffer takes; fewer at the end of the file.
    fn at(&mut self, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(piece_bytes(self.size_bytes.saturating_sub(offset)));
        let is_there = offset >= self.start && offset + wanted as u64 <= self.start + self.buffer.len() as u64;
        if !is_there {
            let mut buffer = mem::take(&mut self.buffer);
            buffer.resize(piece_bytes(self.size_bytes.saturating_sub(offset)), 0);
            self.file.read_exact_at(&mut buffer, offset)?;
            (self.buffer, self.start) = (buffer, offset);
        }
        let from = (offset - self.start) as usize;
        Ok(&self.buffer[from..from + wanted])
    }
}
#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::BufMut;

    use super::super::frame::tests::frame_of_the_first_version;
    use super::super::frame::{Spelling, UNIT_BYTES_MIN};
    use super::super::{Disk, FILE_MAGIC, FILE_VERSION_1, FrameBuilder, Log, LogOptions, SystemDisk};
    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        log: Log,
        next: u64,
    }

    const LOG: u64 = 5;
    const FILE_BYTES: u64 = 4 * UNIT_BYTES_MIN as u64;

    /// A disk of small blocks.
    struct SmallBlocks;

    impl Disk for SmallBlocks {
        fn create(&self, path: &Path, is_synced_at_once: bool) -> io::Result<File> {
            SystemDisk.create(path, is_synced_at_once)
        }

        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            SystemDisk.write_at(file, bytes, offset)
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            SystemDisk.sync(file)
        }

        fn block_bytes(&self, _dir: &Path) -> Option<usize> {
            Some(UNIT_BYTES_MIN)
        }
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = LogOptions {
                dir: dir.path().join("log"),
                name: LOG,
                size_bytes: FILE_BYTES,
                is_synced_at_once: false,
                disk: Arc::new(SmallBlocks),
            };
            let log = Log::create(options, Position(0)).unwrap();
            Self { dir, log, next: 1 }
        }

        /// Appends a frame of so many entries and has it synced.
        fn write(&mut self, entries: u64) {
            let mut frame = FrameBuilder::default();
            for entry in self.next..self.next + entries {
                frame.add(format!("entry {entry}").as_bytes()).unwrap();
            }
            self.log.append(&mut frame, Position(self.next)).unwrap();
            self.log.sync().unwrap();
            self.next += entries;
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("log")
        }

        fn recover(&self, held: u64) -> Result<Vec<u64>, LogError> {
            self.recover_expected(held, ExpectedLog::Named(LOG))
        }

        fn recover_expected(&self, held: u64, expected: ExpectedLog) -> Result<Vec<u64>, LogError> {
            let mut recovered = recover(&self.path(), Position(held), expected)?;
            let mut found = Vec::new();
            while let Some((position, entry)) = recovered.next()? {
                assert_eq!(entry, format!("entry {}", position.0));
                found.push(position.0);
            }
            Ok(found)
        }

        fn overwrite(&self, file: usize, unit: u64) {
            let file = File::options().write(true).open(&files(&self.path()).unwrap()[file]).unwrap();
            file.write_all_at(&[0xff; UNIT_BYTES_MIN], unit * UNIT_BYTES_MIN as u64).unwrap();
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
    fn a_damaged_end_is_told_once_it_is_sealed() {
        let mut bench = Bench::new();
        bench.write(2);
        bench.log.seal().unwrap();
        bench.write(2);
        bench.log.seal().unwrap();
        assert_eq!(bench.recover(0).unwrap(), [1, 2, 3, 4]);
        // The first file's last frame.
        bench.overwrite(0, 3);
        let error = bench.recover(0).unwrap_err();
        assert!(matches!(error, LogError::Missing { missing: Position(3), synced: Position(4), .. }), "{error}");
        // The seal alone: nothing is missing.
        let mut bench = Bench::new();
        bench.write(2);
        bench.log.seal().unwrap();
        bench.overwrite(0, 2);
        assert_eq!(bench.recover(0).unwrap(), [1, 2]);
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
        fs::write(bench.path().join("000009.log"), [0; UNIT_BYTES_MIN]).unwrap();
        fs::write(bench.path().join("000010.log"), []).unwrap();
        for expected in [ExpectedLog::Named(LOG), ExpectedLog::Any] {
            assert_eq!(bench.recover_expected(0, expected).unwrap(), [1]);
        }
        // Nor does one with what lay on the disk before.
        fs::write(bench.path().join("000011.log"), [7; UNIT_BYTES_MIN]).unwrap();
        assert_eq!(bench.recover(0).unwrap(), [1]);
    }

    #[test]
    fn any_file_that_was_taken_away_is_told() {
        let mut bench = Bench::new();
        (0..8).for_each(|_| bench.write(2));
        bench.log.finish_ahead();
        for path in files(&bench.path()).unwrap().into_iter().chain([bench.path().join("FILES")]) {
            let kept = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            // Also where the tables hold all that can be read.
            for held in [0, 16] {
                let error = bench.recover(held).unwrap_err();
                assert!(matches!(error, LogError::Gone { .. }), "{}: {error}", path.display());
            }
            // Emptied, it is gone no less.
            fs::write(&path, []).unwrap();
            let error = bench.recover(0).unwrap_err();
            assert!(matches!(error, LogError::Gone { .. }), "{}: {error}", path.display());
            fs::write(&path, kept).unwrap();
        }
        assert_eq!(bench.recover(0).unwrap().len(), 16);
        fs::remove_dir_all(bench.path()).unwrap();
        let error = bench.recover(0).unwrap_err();
        assert!(matches!(error, LogError::Gone { .. }), "{error}");
        assert!(error.to_string().contains("put it back"), "{error}");
    }

    #[test]
    fn a_log_of_other_tables_is_told() {
        let mut bench = Bench::new();
        bench.write(1);
        let error = bench.recover_expected(0, ExpectedLog::Named(LOG + 1)).unwrap_err();
        assert!(matches!(error, LogError::Foreign { .. }), "{error}");
        // A file of another one in place of its own.
        let mut header = [0; FILE_HEADER_BYTES];
        FileHeader { log: LOG + 1, unit_bytes: 512, spelling: Spelling::Current }.encode(&mut header);
        fs::write(bench.path().join("000000.log"), header).unwrap();
        let error = bench.recover(0).unwrap_err();
        assert!(matches!(error, LogError::Foreign { .. }), "{error}");
    }

    #[test]
    fn tables_that_need_no_log_take_none() {
        let mut bench = Bench::new();
        bench.write(1);
        assert_eq!(bench.recover_expected(0, ExpectedLog::None).unwrap(), [0; 0]);
        fs::remove_dir_all(bench.path()).unwrap();
        assert_eq!(bench.recover_expected(0, ExpectedLog::None).unwrap(), [0; 0]);
        assert_eq!(bench.recover_expected(0, ExpectedLog::Any).unwrap(), [0; 0]);
    }

    #[test]
    fn a_log_of_the_first_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Vec::new();
        file.put_slice(FILE_MAGIC);
        file.put_u32(FILE_VERSION_1);
        file.put_u64(9);
        file.resize(UNIT_BYTES_MIN, 0);
        for first in [1, 3] {
            file.extend(frame_of_the_first_version(9, Position(first), Position(first - 1), &[b"a", &[1; 600]]));
        }
        file.resize(64 * UNIT_BYTES_MIN, 0);
        fs::write(dir.path().join("000000.log"), &file).unwrap();
        let found = |held| recover(dir.path(), Position(held), ExpectedLog::Any).unwrap().count();
        assert_eq!((found(0), found(3)), (4, 1));
    }

    /// A value that somebody stored may look like frames, and must not pass for them.
    #[test]
    fn what_looks_like_frames_inside_a_torn_one_is_none() {
        let mut bench = Bench::new();
        let mut inner = FrameBuilder::default();
        inner.add(b"entry 1").unwrap();
        let inner = inner.finish(LOG + 1, Position(1), Position(900), UNIT_BYTES_MIN).to_vec();
        let mut frame = FrameBuilder::default();
        frame.add(&inner.repeat(20)[HEADER_BYTES + 4..]).unwrap();
        bench.log.append(&mut frame, Position(1)).unwrap();
        bench.log.sync().unwrap();
        bench.overwrite(0, 1);
        assert_eq!(bench.recover(0).unwrap(), [0; 0]);
    }

    #[test]
    fn entries_larger_than_the_buffer_come_back() {
        let mut bench = Bench::new();
        let mut frame = FrameBuilder::default();
        let entries: Vec<Vec<u8>> =
            [3 * BUFFER_BYTES, 0, 1, BUFFER_BYTES].into_iter().map(|length| vec![length as u8 + 1; length]).collect();
        entries.iter().for_each(|entry| frame.add(entry).unwrap());
        bench.log.append(&mut frame, Position(1)).unwrap();
        bench.log.sync().unwrap();
        let mut recovered = recover(&bench.path(), Position(0), ExpectedLog::Named(LOG)).unwrap();
        for entry in entries {
            assert_eq!(recovered.next().unwrap().unwrap().1, entry);
            let buffer = &recovered.reading.as_ref().unwrap().window.buffer;
            assert!(buffer.capacity() <= BUFFER_BYTES, "{} bytes of a file at once", buffer.capacity());
        }
        assert!(recovered.next().unwrap().is_none());
    }
}
