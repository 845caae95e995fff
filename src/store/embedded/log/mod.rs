//! The commit log: what makes a write durable. Entries are appended in the order of their positions, and a frame of them is
//! on disk after one sync; the engine's tables take them up later, from memory.
//!
//! The log lies in files of one size whose blocks were written before they are needed, so that a sync writes data and
//! nothing about files. Files whose entries the tables hold durably are written again from their beginning. A log lives as long
//! as the process: the next one replays it into the tables, and begins its own.

mod frame;
mod recovery;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::BufMut;

use self::frame::BLOCK_BYTES;
pub(super) use self::frame::FrameBuilder;
pub use self::recovery::LogError;
pub(super) use self::recovery::{Recovered, recover};
use crate::store::Position;

/// What a file of the log begins with: this, the version of what follows, and the log's name.
const FILE_MAGIC: &[u8; 8] = b"ombaklog";
const FILE_VERSION: u32 = 1;

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
}

/// The system's own way.
#[derive(Debug)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create(&self, path: &Path, is_synced_at_once: bool) -> io::Result<File> {
        let file = File::options().create_new(true).read(true).write(true).open(path)?;
        // Not every file system takes such writes. Where something else is the matter, the cache will meet it too.
        let direct = is_synced_at_once.then(|| open_direct(path).ok()).flatten();
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
fn open_direct(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)?;
    // A disk may want larger blocks.
    file.write_all_at(Aligned::default().copy(&[0; BLOCK_BYTES]), 0)?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
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
    aligned: Aligned,
}

/// What the files of a log have in common.
#[derive(Clone)]
pub(super) struct LogFiles {
    pub(super) dir: PathBuf,
    /// The log's name: random, so that no other log's blocks are taken for its own.
    pub(super) name: u64,
    /// What a file takes, in bytes; a larger frame makes a file of its own larger.
    pub(super) size_bytes: u64,
    /// Whether every frame will be synced before the next.
    pub(super) is_synced_at_once: bool,
    pub(super) disk: Arc<dyn Disk>,
    /// How many there were.
    pub(super) made: u64,
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
    path: PathBuf,
    /// Where the next frame goes.
    end: u64,
    /// The last entry in it.
    last: Position,
}

impl Log {
    /// Begins a log in a directory that holds none, behind the position that the tables hold.
    pub(super) fn create(mut files: LogFiles, behind: Position) -> io::Result<Self> {
        fs::create_dir_all(&files.dir)?;
        files.size_bytes = files.size_bytes.max(2 * BLOCK_BYTES as u64).next_multiple_of(BLOCK_BYTES as u64);
        let current = files.make()?;
        // The directory too must survive with its entry.
        if let Some(parent) = files.dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        let (full, spare, aligned) = (VecDeque::new(), Vec::new(), Aligned::default());
        Ok(Self { files, current, full, spare, ahead: None, synced: behind, aligned })
    }

    /// Appends a frame whose first entry stands at `first`. It is on disk after the next sync.
    pub(super) fn append(&mut self, frame: &mut FrameBuilder, first: Position) -> io::Result<()> {
        let last = Position(first.0 + u64::from(frame.count()) - 1);
        let blocks = frame.finish(self.files.name, first, self.synced);
        // A frame larger than a file makes a file of its own larger.
        if self.current.end > BLOCK_BYTES as u64 && self.current.end + blocks.len() as u64 > self.files.size_bytes {
            // What was appended before must not depend on a file that no later sync reaches.
            if self.current.last > self.synced {
                self.files.disk.sync(&self.current.file)?;
            }
            let next = self.next_file()?;
            self.full.push_back(std::mem::replace(&mut self.current, next));
        }
        self.files.disk.write_at(&self.current.file, self.aligned.copy(blocks), self.current.end)?;
        self.current.end += blocks.len() as u64;
        self.current.last = last;
        if self.spare.is_empty() && self.ahead.is_none() && self.current.end > self.files.size_bytes / 2 {
            self.make_ahead();
        }
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
            // There may be room by now.
            Some(Err(_)) | None => self.files.make(),
        }
    }

    /// Puts everything that was appended on disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.files.disk.sync(&self.current.file)?;
        self.synced = self.current.last;
        Ok(())
    }

    /// Takes back files that hold nothing behind a position, which the tables hold durably.
    pub(super) fn release(&mut self, held: Position) -> io::Result<()> {
        while let Some(file) = self.full.pop_front_if(|file| file.last <= held) {
            if self.spare.len() < SPARE_FILES_MAX && file.end <= self.files.size_bytes {
                self.spare.push(LogFile { end: BLOCK_BYTES as u64, ..file });
            } else {
                fs::remove_file(&file.path)?;
            }
        }
        Ok(())
    }

    /// Removes the log: the tables hold all of it durably.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.finish_ahead();
        remove(&self.files.dir)
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
    /// A file whose blocks are all on disk, so that to write them again changes nothing but them.
    fn make(&mut self) -> io::Result<LogFile> {
        let path = self.dir.join(format!("{:06}.log", self.made));
        self.made += 1;
        match self.write_zeros(&path) {
            Ok(file) => Ok(LogFile { file, path, end: BLOCK_BYTES as u64, last: Position::default() }),
            Err(error) => {
                // Half a file would only take room from others.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// A file that holds its header, and zeros.
    fn write_zeros(&self, path: &Path) -> io::Result<File> {
        let file = self.disk.create(path, self.is_synced_at_once)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut header = &mut piece[..BLOCK_BYTES];
        header.put_slice(FILE_MAGIC);
        header.put_u32(FILE_VERSION);
        header.put_u64(self.name);
        let mut aligned = Aligned::default();
        let mut offset = 0;
        while offset < self.size_bytes {
            let size_bytes = (self.size_bytes - offset).min(PIECE_BYTES as u64);
            self.disk.write_at(&file, aligned.copy(&piece[..size_bytes as usize]), offset)?;
            piece[..BLOCK_BYTES].fill(0);
            offset += size_bytes;
        }
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        Ok(file)
    }
}

/// Removes the files of a log.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    for path in files(dir)? {
        fs::remove_file(path)?;
    }
    File::open(dir)?.sync_all()
}

/// The files of a log, in the order of their names; none where there is no log.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A disk that makes no files while it is full.
    #[derive(Default)]
    struct Fillable {
        is_full: AtomicBool,
    }

    impl Disk for Fillable {
        fn create(&self, path: &Path, is_synced_at_once: bool) -> io::Result<File> {
            SystemDisk.create(path, is_synced_at_once)
        }

        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            if self.is_full.load(Ordering::SeqCst) && bytes.len() > BLOCK_BYTES {
                return Err(io::ErrorKind::StorageFull.into());
            }
            SystemDisk.write_at(file, bytes, offset)
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            SystemDisk.sync(file)
        }
    }

    fn log(dir: &Path, size_bytes: u64, disk: Arc<dyn Disk>) -> Log {
        let files = LogFiles { dir: dir.to_owned(), name: 5, size_bytes, is_synced_at_once: true, disk, made: 0 };
        Log::create(files, Position(0)).unwrap()
    }

    /// Writes a frame of one block.
    fn write(log: &mut Log, position: u64) -> io::Result<()> {
        let mut frame = FrameBuilder::default();
        frame.add(|out| out.put_u8(1));
        log.append(&mut frame, Position(position))?;
        log.sync()
    }

    const FILE_BYTES: u64 = 4 * BLOCK_BYTES as u64;

    #[test]
    fn a_file_that_is_made_in_pieces_is_a_header_and_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let size_bytes = 2 * PIECE_BYTES as u64 + 3 * BLOCK_BYTES as u64;
        log(dir.path(), size_bytes, Arc::new(SystemDisk));
        let made = fs::read(dir.path().join("000000.log")).unwrap();
        assert_eq!(made.len() as u64, size_bytes);
        assert!(made.starts_with(FILE_MAGIC));
        assert!(made[BLOCK_BYTES..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn the_next_file_is_made_while_the_one_before_it_fills() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), FILE_BYTES, Arc::new(SystemDisk));
        write(&mut log, 1).unwrap();
        assert!(log.ahead.is_none(), "half of the file is free");
        write(&mut log, 2).unwrap();
        assert!(log.ahead.is_some());
        (3..9).for_each(|position| write(&mut log, position).unwrap());
        drop(log);
        let expected = [0, 1, 2, 3].map(|number| dir.path().join(format!("{number:06}.log")));
        assert_eq!(files(dir.path()).unwrap(), expected);
    }

    #[test]
    fn a_file_that_could_not_be_made_ahead_is_made_when_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Fillable::default());
        let mut log = log(dir.path(), FILE_BYTES, disk.clone());
        disk.is_full.store(true, Ordering::SeqCst);
        write(&mut log, 1).unwrap();
        write(&mut log, 2).unwrap();
        let making = log.ahead.take().unwrap().join().unwrap();
        assert!(making.is_err());
        assert_eq!(files(dir.path()).unwrap().len(), 1, "nothing is left of what was begun");
        write(&mut log, 3).unwrap();
        let refused = write(&mut log, 4).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        disk.is_full.store(false, Ordering::SeqCst);
        write(&mut log, 4).unwrap();
    }
}
