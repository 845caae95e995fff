//! The commit log: what makes a write durable. Entries are appended in the order of their positions, and a frame of them is
//! on disk after one sync; the tables take them up later, from memory.
//!
//! The log lies in files of one size whose blocks were written before they are needed, so that a sync writes data and
//! nothing about files. Files whose entries the tables hold durably are written again from their beginning. A log lives as long
//! as the process: the next one replays it into the tables, and begins its own.

mod frame;
mod list;
mod recovery;
mod unit;

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::{Buf, BufMut};

pub(super) use self::frame::{FrameBuilder, FrameLimits};
use self::frame::{Spelling, UNIT_BYTES_MIN};
use self::list::FileList;
pub use self::recovery::LogError;
pub(super) use self::recovery::{ExpectedLog, Recovered, recover};
use crate::store::Position;

/// What a file of the log begins with: this, the version of what follows, the log's name, the file's unit, and a checksum of
/// all that. The first version ends with the name.
const FILE_MAGIC: &[u8; 8] = b"ombaklog";
const FILE_VERSION_1: u32 = 1;
const FILE_VERSION: u32 = 2;
const FILE_HEADER_BYTES_1: usize = 8 + 4 + 8;
const FILE_HEADER_BYTES: usize = FILE_HEADER_BYTES_1 + 4 + 4;
/// What files of the log are called, behind their number.
const FILE_EXTENSION: &str = "log";

/// Files that wait to be written again. What is free beyond these is deleted. So many become free together: what the log
/// keeps until the tables are persisted, and what was written meanwhile.
const SPARE_FILES_MAX: usize = 20;
/// Buffers that the disk reads itself begin at multiples of this: the largest block that disks have.
const ALIGNMENT_BYTES: usize = 4096;
/// A new file is written in pieces of this size.
const PIECE_BYTES: usize = 256 * 1024;
/// A buffer of the log that has grown beyond this is given back.
pub(super) const KEPT_BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// How files are written: the system's way, or a test's, which fails or loses what it was given.
pub trait Disk: Send + Sync {
    /// Makes a file, which is not there yet. Where every write to it will be synced before the next, that is worth having
    /// the disk take writes past the system's cache.
    fn create(&self, path: &Path, is_synced_at_once: bool) -> io::Result<File>;

    /// Writes all of the bytes at an offset.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Has the disk take everything that was written to the file.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Has the disk take what a directory says: which entries it has.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    /// The smallest piece that the disk of a directory writes without reading what is beside it, in bytes, if that is known.
    fn block_bytes(&self, dir: &Path) -> Option<usize> {
        unit::physical_block_bytes(dir)
    }
}

/// The system's own way.
#[derive(Debug)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create(&self, path: &Path, is_synced_at_once: bool) -> io::Result<File> {
        let file = File::options().create_new(true).read(true).write(true).open(path)?;
        // Not every file system takes such writes. Where something else is the matter, the cache will meet it too.
        let unit_bytes = unit::of_block(path.parent().and_then(|dir| self.block_bytes(dir)));
        let direct = is_synced_at_once.then(|| open_direct(path, unit_bytes).ok()).flatten();
        Ok(direct.unwrap_or(file))
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Opens a file past the system's cache: a synced write then takes three quarters of the time, and two thirds of the processor's.
#[cfg(target_os = "linux")]
fn open_direct(path: &Path, unit_bytes: usize) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)?;
    // A disk may want larger blocks.
    file.write_all_at(Aligned::default().copy(&vec![0; unit_bytes]), 0)?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_path: &Path, _unit_bytes: usize) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How a log is to be kept.
#[derive(Clone)]
pub(super) struct LogOptions {
    pub(super) dir: PathBuf,
    /// The log's name: random, so that no other log's frames are taken for its own.
    pub(super) name: u64,
    /// What a file takes, in bytes; a larger frame makes a file of its own larger.
    pub(super) size_bytes: u64,
    /// Whether every frame will be synced before the next.
    pub(super) is_synced_at_once: bool,
    pub(super) disk: Arc<dyn Disk>,
}

/// The log's writing end.
pub(super) struct Log {
    files: LogFiles,
    current: LogFile,
    /// Files that are full, the oldest first.
    full: VecDeque<LogFile>,
    spare: Vec<LogFile>,
    /// A file in the making, for when there is no spare one: the disk takes a hundred times as long for it as for a frame.
    ahead: Option<JoinHandle<io::Result<LogFile>>>,
    /// Up to where everything is on disk.
    synced: Position,
    /// Up to where a frame on disk says that everything is.
    sealed: Position,
    /// A write or a sync has failed. What is on disk since then is not known, so nothing more is done.
    has_failed: bool,
    aligned: Aligned,
}

/// The making of a log's files.
#[derive(Clone)]
struct LogFiles {
    options: LogOptions,
    /// Frames begin at multiples of this.
    unit_bytes: usize,
    /// How many there were.
    made: u64,
    /// Those that the list beside them names, or may name.
    listed: Arc<Mutex<BTreeSet<u64>>>,
}

/// A buffer that a disk can read itself.
#[derive(Default)]
struct Aligned(Vec<u8>);

impl Aligned {
    fn copy(&mut self, bytes: &[u8]) -> &[u8] {
        if self.0.len() > KEPT_BUFFER_BYTES_MAX {
            self.0 = Vec::new();
        }
        if self.0.len() < bytes.len() + ALIGNMENT_BYTES {
            self.0 = vec![0; bytes.len() + ALIGNMENT_BYTES];
        }
        let start = self.0.as_ptr().align_offset(ALIGNMENT_BYTES);
        let aligned = &mut self.0[start..][..bytes.len()];
        aligned.copy_from_slice(bytes);
        aligned
    }
}

struct LogFile {
    file: File,
    number: u64,
    /// Where the next frame goes.
    end: u64,
    /// The last entry in it.
    last: Position,
}

impl Log {
    /// Begins a log in a directory that holds none, behind the position that the tables hold.
    pub(super) fn create(mut options: LogOptions, behind: Position) -> io::Result<Self> {
        fs::create_dir_all(&options.dir)?;
        let unit_bytes = unit::of_block(options.disk.block_bytes(&options.dir));
        options.size_bytes = options.size_bytes.max(2 * unit_bytes as u64).next_multiple_of(unit_bytes as u64);
        let mut files = LogFiles { options, unit_bytes, made: 0, listed: Arc::default() };
        let current = files.make()?;
        // The directory too must survive with its entry.
        if let Some(parent) = files.options.dir.parent() {
            files.options.disk.sync_dir(parent)?;
        }
        Ok(Self {
            files,
            current,
            full: VecDeque::new(),
            spare: Vec::new(),
            ahead: None,
            synced: behind,
            sealed: behind,
            has_failed: false,
            aligned: Aligned::default(),
        })
    }

    /// Appends a frame whose first entry stands at `first`. It is on disk after the next sync. What it takes, in bytes.
    pub(super) fn append(&mut self, frame: &mut FrameBuilder, first: Position) -> io::Result<u64> {
        self.unless_failed(|log| log.append_frame(frame, first))
    }

    /// Puts everything that was appended on disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.unless_failed(Self::sync_current)
    }

    /// Whether everything is on disk, and no frame there says it of the last one: damage to that could not be told from a
    /// crash in the middle of its writing.
    pub(super) fn wants_seal(&self) -> bool {
        self.sealed < self.synced && self.current.last <= self.synced
    }

    /// Puts a frame on disk which says that all before it was there. What it takes, in bytes.
    pub(super) fn seal(&mut self) -> io::Result<u64> {
        self.unless_failed(|log| {
            let sealed = log.synced;
            let taken_bytes = log.append_frame(&mut FrameBuilder::default(), Position(sealed.0 + 1))?;
            log.sync_current()?;
            log.sealed = sealed;
            Ok(taken_bytes)
        })
    }

    /// Takes back files that hold nothing behind a position, which the tables hold durably.
    pub(super) fn release(&mut self, held: Position) -> io::Result<()> {
        if self.full.front().is_none_or(|file| file.last > held) {
            return Ok(());
        }
        self.unless_failed(|log| log.release_files(held))
    }

    /// After an error nothing is tried again: the system may have dropped what it could not write, and then a sync that
    /// succeeds says nothing of it.
    fn unless_failed<T>(&mut self, work: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        if self.has_failed {
            return Err(io::Error::other("an earlier write to it failed"));
        }
        let done = work(self);
        self.has_failed = done.is_err();
        done
    }

    fn append_frame(&mut self, frame: &mut FrameBuilder, first: Position) -> io::Result<u64> {
        let LogFiles { options, unit_bytes, .. } = &self.files;
        let (size_bytes, unit_bytes) = (options.size_bytes, *unit_bytes);
        let last = Position(first.0 + u64::from(frame.count()) - 1);
        let units = frame.finish(options.name, first, self.synced, unit_bytes);
        let taken_bytes = units.len() as u64;
        // A frame larger than a file makes a file of its own larger.
        if self.current.end > unit_bytes as u64 && self.current.end + taken_bytes > size_bytes {
            // What was appended before must not depend on a file that no later sync reaches.
            if self.current.last > self.synced {
                options.disk.sync(&self.current.file)?;
            }
            let next = self.next_file()?;
            self.full.push_back(std::mem::replace(&mut self.current, next));
        }
        self.files.options.disk.write_at(&self.current.file, self.aligned.copy(units), self.current.end)?;
        self.current.end += taken_bytes;
        self.current.last = last;
        if self.spare.is_empty() && self.ahead.is_none() && self.current.end > size_bytes / 2 {
            self.make_ahead();
        }
        Ok(taken_bytes)
    }

    fn sync_current(&mut self) -> io::Result<()> {
        self.files.options.disk.sync(&self.current.file)?;
        self.synced = self.synced.max(self.current.last);
        Ok(())
    }

    fn make_ahead(&mut self) {
        let mut files = self.files.clone();
        self.files.made += 1;
        // Where no thread can be had, the file is made when it is needed.
        self.ahead = thread::Builder::new().name("log file".into()).spawn(move || files.make()).ok();
    }

    fn next_file(&mut self) -> io::Result<LogFile> {
        if let Some(spare) = self.spare.pop() {
            return Ok(spare);
        }
        let made = self.ahead.take().and_then(|making| making.join().ok());
        match made {
            Some(Ok(file)) => Ok(file),
            // There may be room by now. Nothing is kept of the file that failed.
            Some(Err(_)) | None => self.files.make(),
        }
    }

    fn release_files(&mut self, held: Position) -> io::Result<()> {
        let mut removed = Vec::new();
        while let Some(file) = self.full.pop_front_if(|file| file.last <= held) {
            if self.spare.len() < SPARE_FILES_MAX && file.end <= self.files.options.size_bytes {
                self.spare.push(LogFile { end: self.files.unit_bytes as u64, ..file });
            } else {
                removed.push(file.number);
            }
        }
        if removed.is_empty() { Ok(()) } else { self.files.remove(&removed) }
    }

    /// Removes the log: the tables hold all of it durably, and say that there is none.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.finish_ahead();
        remove(&self.files.options.dir)
    }

    fn finish_ahead(&mut self) {
        if let Some(making) = self.ahead.take() {
            // Nobody needs the file any more, nor an error.
            let _ = making.join();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Nothing of it is at work in the directory any more.
        self.finish_ahead();
    }
}

impl LogFiles {
    /// Makes a file, which is on disk and listed.
    fn make(&mut self) -> io::Result<LogFile> {
        let number = self.made;
        self.made += 1;
        let path = file_path(&self.options.dir, number);
        let file = self.write_zeros(&path).inspect_err(|_| {
            // Half a file would only take room from others.
            let _ = fs::remove_file(&path);
        })?;
        // From now on it may be listed, also where that fails, and stays.
        self.change_list(|numbers| {
            numbers.insert(number);
        })?;
        Ok(LogFile { file, number, end: self.unit_bytes as u64, last: Position::default() })
    }

    /// Removes files, once they are no longer listed.
    fn remove(&self, numbers: &[u64]) -> io::Result<()> {
        self.change_list(|listed| listed.retain(|number| !numbers.contains(number)))?;
        numbers.iter().try_for_each(|&number| fs::remove_file(file_path(&self.options.dir, number)))
    }

    fn change_list(&self, change: impl FnOnce(&mut BTreeSet<u64>)) -> io::Result<()> {
        // One at a time: a file may be made ahead meanwhile.
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut listed);
        let list = FileList { log: self.options.name, numbers: listed.clone() };
        list.write(&self.options.dir, &*self.options.disk)
    }

    /// A file that holds its header, and zeros.
    fn write_zeros(&self, path: &Path) -> io::Result<File> {
        let LogOptions { dir, name, size_bytes, is_synced_at_once, disk } = &self.options;
        let file = disk.create(path, *is_synced_at_once)?;
        let mut piece = vec![0; PIECE_BYTES];
        let header = FileHeader { log: *name, unit_bytes: self.unit_bytes, spelling: Spelling::Current };
        header.encode(&mut piece[..FILE_HEADER_BYTES]);
        let mut aligned = Aligned::default();
        let mut offset = 0;
        while offset < *size_bytes {
            let piece_bytes = (size_bytes - offset).min(PIECE_BYTES as u64);
            disk.write_at(&file, aligned.copy(&piece[..piece_bytes as usize]), offset)?;
            piece[..FILE_HEADER_BYTES].fill(0);
            offset += piece_bytes;
        }
        disk.sync(&file)?;
        disk.sync_dir(dir)?;
        Ok(file)
    }
}

/// What stands at the beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileHeader {
    /// The log's name.
    log: u64,
    /// Frames begin at multiples of this, the first of them at the first.
    unit_bytes: usize,
    spelling: Spelling,
}

impl FileHeader {
    /// Writes the header of the current version.
    fn encode(&self, mut out: &mut [u8]) {
        let mut header = Vec::with_capacity(FILE_HEADER_BYTES);
        header.put_slice(FILE_MAGIC);
        header.put_u32(FILE_VERSION);
        header.put_u64(self.log);
        // No more than `UNIT_BYTES_MAX`.
        header.put_u32(self.unit_bytes as u32);
        header.put_u32(crc32fast::hash(&header));
        out.put_slice(&header);
    }

    /// Reads the header of any version that is known.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut header = bytes.strip_prefix(FILE_MAGIC)?;
        match header.try_get_u32().ok()? {
            FILE_VERSION_1 => {
                let log = header.try_get_u64().ok()?;
                Some(Self { log, unit_bytes: UNIT_BYTES_MIN, spelling: Spelling::First })
            }
            FILE_VERSION => {
                let log = header.try_get_u64().ok()?;
                let unit_bytes = header.try_get_u32().ok()? as usize;
                let is_sound = header.try_get_u32().ok()? == crc32fast::hash(&bytes[..FILE_HEADER_BYTES - 4]);
                (is_sound && unit::of_block(Some(unit_bytes)) == unit_bytes).then_some(Self {
                    log,
                    unit_bytes,
                    spelling: Spelling::Current,
                })
            }
            _ => None,
        }
    }
}

fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}.{FILE_EXTENSION}"))
}

/// Whether something of a log is there.
pub(super) fn is_left(dir: &Path) -> io::Result<bool> {
    Ok(!entries(dir)?.is_empty())
}

/// Removes a log, whatever is there of it.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    for path in entries(dir)? {
        fs::remove_file(path)?;
    }
    File::open(dir)?.sync_all()
}

/// The files of a log, in the order of their names; none where there is no log.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = entries(dir)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == FILE_EXTENSION));
    files.sort();
    Ok(files)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A disk of small blocks that makes no files while it is full, and may fail a sync.
    #[derive(Default)]
    struct BadDisk {
        is_full: AtomicBool,
        has_bad_sync: AtomicBool,
    }

    impl Disk for BadDisk {
        fn create(&self, path: &Path, is_synced_at_once: bool) -> io::Result<File> {
            SystemDisk.create(path, is_synced_at_once)
        }

        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            if self.is_full.load(Ordering::SeqCst) && bytes.len() > UNIT_BYTES_MIN {
                return Err(io::ErrorKind::StorageFull.into());
            }
            SystemDisk.write_at(file, bytes, offset)
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            if self.has_bad_sync.swap(false, Ordering::SeqCst) {
                return Err(io::Error::other("the disk fails once, as the test wants it"));
            }
            SystemDisk.sync(file)
        }

        fn block_bytes(&self, _dir: &Path) -> Option<usize> {
            Some(UNIT_BYTES_MIN)
        }
    }

    fn log(dir: &Path, size_bytes: u64, disk: Arc<dyn Disk>) -> Log {
        let options = LogOptions { dir: dir.to_owned(), name: 5, size_bytes, is_synced_at_once: true, disk };
        Log::create(options, Position(0)).unwrap()
    }

    /// Writes a frame of one unit.
    fn write(log: &mut Log, position: u64) -> io::Result<()> {
        let mut frame = FrameBuilder::default();
        frame.add(&[1]).unwrap();
        log.append(&mut frame, Position(position))?;
        log.sync()
    }

    const FILE_BYTES: u64 = 4 * UNIT_BYTES_MIN as u64;

    fn small_log(dir: &Path) -> (Log, Arc<BadDisk>) {
        let disk = Arc::new(BadDisk::default());
        (log(dir, FILE_BYTES, disk.clone()), disk)
    }

    fn listed(dir: &Path) -> Vec<u64> {
        FileList::read(dir).unwrap().unwrap().numbers.into_iter().collect()
    }

    #[test]
    fn a_file_that_is_made_in_pieces_is_a_header_and_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let size_bytes = 2 * PIECE_BYTES as u64 + 3 * 4096;
        log(dir.path(), size_bytes, Arc::new(SystemDisk));
        let made = fs::read(dir.path().join("000000.log")).unwrap();
        assert_eq!(made.len() as u64, size_bytes);
        let unit_bytes = unit::of_block(SystemDisk.block_bytes(dir.path()));
        let expected = FileHeader { log: 5, unit_bytes, spelling: Spelling::Current };
        assert_eq!(FileHeader::decode(&made), Some(expected));
        assert!(made[FILE_HEADER_BYTES..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_header_that_was_changed_is_none() {
        let mut header = [0; FILE_HEADER_BYTES];
        FileHeader { log: 5, unit_bytes: 4096, spelling: Spelling::Current }.encode(&mut header);
        for at in 0..header.len() {
            let mut changed = header;
            changed[at] ^= 0x10;
            assert_eq!(FileHeader::decode(&changed), None, "changed at {at}");
            assert_eq!(FileHeader::decode(&header[..at]), None, "cut at {at}");
        }
        assert_eq!(FileHeader::decode(&[]), None);
    }

    #[test]
    fn frames_begin_at_multiples_of_the_physical_block() {
        /// A disk with blocks of its own size.
        struct Blocks(Option<usize>);

        impl Disk for Blocks {
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
                self.0
            }
        }

        for (block_bytes, unit_bytes) in [(Some(512), 512), (Some(4096), 4096), (Some(16384), 16384), (None, 4096)] {
            let dir = tempfile::tempdir().unwrap();
            let mut log = log(dir.path(), 1 << 20, Arc::new(Blocks(block_bytes)));
            (1..4).for_each(|position| write(&mut log, position).unwrap());
            let bytes = fs::read(dir.path().join("000000.log")).unwrap();
            let begins = |unit: &[u8]| unit.iter().any(|&byte| byte != 0);
            let written: Vec<_> = bytes.chunks(unit_bytes).map(begins).take(5).collect();
            assert_eq!(written, [true, true, true, true, false], "units of {unit_bytes}");
            let found = recover(dir.path(), Position(0), ExpectedLog::Named(5)).unwrap();
            assert_eq!(found.count(), 3);
        }
    }

    #[test]
    fn the_next_file_is_made_while_the_one_before_it_fills() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = small_log(dir.path());
        write(&mut log, 1).unwrap();
        assert!(log.ahead.is_none(), "half of the file is free");
        write(&mut log, 2).unwrap();
        assert!(log.ahead.is_some());
        (3..9).for_each(|position| write(&mut log, position).unwrap());
        drop(log);
        let expected = [0, 1, 2, 3].map(|number| dir.path().join(format!("{number:06}.log")));
        assert_eq!(files(dir.path()).unwrap(), expected);
        assert_eq!(listed(dir.path()), [0, 1, 2, 3]);
    }

    #[test]
    fn a_file_that_could_not_be_made_ahead_is_made_when_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, disk) = small_log(dir.path());
        disk.is_full.store(true, Ordering::SeqCst);
        write(&mut log, 1).unwrap();
        write(&mut log, 2).unwrap();
        let making = log.ahead.take().unwrap().join().unwrap();
        assert!(making.is_err());
        assert_eq!(files(dir.path()).unwrap().len(), 1, "nothing is left of what was begun");
        disk.is_full.store(false, Ordering::SeqCst);
        write(&mut log, 3).unwrap();
        write(&mut log, 4).unwrap();
        assert_eq!(listed(dir.path()), [0, 2]);
    }

    #[test]
    fn a_file_made_ahead_whose_sync_failed_is_never_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, disk) = small_log(dir.path());
        write(&mut log, 1).unwrap();
        disk.has_bad_sync.store(true, Ordering::SeqCst);
        // The one that fails is that of the file, since this frame is not synced.
        let mut frame = FrameBuilder::default();
        frame.add(&[1]).unwrap();
        log.append(&mut frame, Position(2)).unwrap();
        let making = log.ahead.take().unwrap().join().unwrap();
        assert!(making.is_err());
        log.sync().unwrap();
        (3..5).for_each(|position| write(&mut log, position).unwrap());
        assert_eq!(listed(dir.path()), [0, 2]);
        assert_eq!(recover(dir.path(), Position(0), ExpectedLog::Named(5)).unwrap().count(), 4);
    }

    #[test]
    fn after_a_sync_that_failed_nothing_is_written_or_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, disk) = small_log(dir.path());
        (1..5).for_each(|position| write(&mut log, position).unwrap());
        disk.has_bad_sync.store(true, Ordering::SeqCst);
        assert!(write(&mut log, 5).is_err());
        // The disk is well again, and what it lost is not known.
        assert!(log.sync().is_err());
        assert!(write(&mut log, 6).is_err());
        assert!(log.seal().is_err());
        assert!(log.release(Position(4)).is_err());
        assert_eq!((log.synced, log.full.len(), log.spare.len()), (Position(4), 1, 0));
    }

    #[test]
    fn a_seal_is_wanted_once_after_each_sync() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = small_log(dir.path());
        assert!(!log.wants_seal(), "nothing was written");
        for round in 0..6 {
            let mut frame = FrameBuilder::default();
            frame.add(&[1]).unwrap();
            log.append(&mut frame, Position(round + 1)).unwrap();
            assert!(!log.wants_seal(), "it is not synced");
            log.sync().unwrap();
            assert!(log.wants_seal());
            assert_eq!(log.seal().unwrap(), UNIT_BYTES_MIN as u64);
            assert!(!log.wants_seal(), "round {round}");
        }
    }

    #[test]
    fn a_file_that_is_removed_is_no_longer_listed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = small_log(dir.path());
        let mut large = FrameBuilder::default();
        large.add(&[1; 10 * FILE_BYTES as usize]).unwrap();
        log.append(&mut large, Position(1)).unwrap();
        log.sync().unwrap();
        write(&mut log, 2).unwrap();
        log.release(Position(1)).unwrap();
        log.finish_ahead();
        assert!(!dir.path().join("000000.log").exists());
        assert!(!listed(dir.path()).contains(&0));
        assert_eq!(recover(dir.path(), Position(1), ExpectedLog::Named(5)).unwrap().count(), 1);
    }
}
