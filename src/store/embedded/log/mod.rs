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

use bytes::BufMut;

use self::frame::BLOCK_BYTES;
pub(super) use self::frame::FrameBuilder;
pub use self::recovery::LogError;
pub(super) use self::recovery::{Recovered, recover};
use crate::store::Position;

/// What a file of the log begins with: this, the version of what follows, and the log's name.
const FILE_MAGIC: &[u8; 8] = b"ombaklog";
const FILE_VERSION: u32 = 1;

/// Files that wait to be written again. What is free beyond these is deleted.
const SPARE_FILES_MAX: usize = 4;

/// How files are written: the system's way, or a test's, which fails or loses what it was given.
pub trait Disk: Send + Sync {
    /// Writes all of the bytes at an offset.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Has the disk take everything that was written to the file.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The system's own way.
#[derive(Debug)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// The log's writing end.
pub(super) struct Log {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// The log's name: random, so that no other log's blocks are taken for its own.
    name: u64,
    file_size_bytes: u64,
    files_made: u64,
    current: LogFile,
    /// Files that are full, the oldest first.
    full: VecDeque<LogFile>,
    spare: Vec<LogFile>,
    /// Up to where everything is on disk.
    synced: Position,
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
    pub(super) fn create(
        dir: &Path,
        name: u64,
        file_size_bytes: u64,
        behind: Position,
        disk: Arc<dyn Disk>,
    ) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let file_size_bytes = file_size_bytes.max(2 * BLOCK_BYTES as u64).next_multiple_of(BLOCK_BYTES as u64);
        let mut files_made = 0;
        let current = LogFile::create(dir, name, &mut files_made, file_size_bytes, disk.as_ref())?;
        // The directory too must survive with its entry.
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        let (full, spare) = (VecDeque::new(), Vec::new());
        let dir = dir.to_owned();
        Ok(Self { dir, disk, name, file_size_bytes, files_made, current, full, spare, synced: behind })
    }

    /// Appends a frame whose first entry stands at `first`. It is on disk after the next sync.
    pub(super) fn append(&mut self, frame: &mut FrameBuilder, first: Position) -> io::Result<()> {
        let last = Position(first.0 + u64::from(frame.count()) - 1);
        let blocks = frame.finish(self.name, first, self.synced);
        // A frame larger than a file makes a file of its own larger.
        if self.current.end > BLOCK_BYTES as u64 && self.current.end + blocks.len() as u64 > self.file_size_bytes {
            // What was appended before must not depend on a file that no later sync reaches.
            if self.current.last > self.synced {
                self.disk.sync(&self.current.file)?;
            }
            let next = match self.spare.pop() {
                Some(spare) => spare,
                None => {
                    let Self { dir, name, files_made, file_size_bytes, disk, .. } = self;
                    LogFile::create(dir, *name, files_made, *file_size_bytes, disk.as_ref())?
                }
            };
            self.full.push_back(std::mem::replace(&mut self.current, next));
        }
        self.disk.write_at(&self.current.file, blocks, self.current.end)?;
        self.current.end += blocks.len() as u64;
        self.current.last = last;
        Ok(())
    }

    /// Puts everything that was appended on disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.disk.sync(&self.current.file)?;
        self.synced = self.current.last;
        Ok(())
    }

    /// Takes back files that hold nothing behind a position, which the tables hold durably.
    pub(super) fn release(&mut self, held: Position) -> io::Result<()> {
        while let Some(file) = self.full.pop_front_if(|file| file.last <= held) {
            if self.spare.len() < SPARE_FILES_MAX && file.end <= self.file_size_bytes {
                self.spare.push(LogFile { end: BLOCK_BYTES as u64, ..file });
            } else {
                fs::remove_file(&file.path)?;
            }
        }
        Ok(())
    }

    /// Removes the log: the tables hold all of it durably.
    pub(super) fn remove(self) -> io::Result<()> {
        remove(&self.dir)
    }
}

impl LogFile {
    /// A file whose blocks are all on disk, so that to write them again changes nothing but them.
    fn create(dir: &Path, name: u64, files_made: &mut u64, size_bytes: u64, disk: &dyn Disk) -> io::Result<Self> {
        let path = dir.join(format!("{files_made:06}.log"));
        *files_made += 1;
        let file = File::options().create_new(true).read(true).write(true).open(&path)?;
        let mut blocks = vec![0; usize::try_from(size_bytes).map_err(io::Error::other)?];
        let mut header = &mut blocks[..BLOCK_BYTES];
        header.put_slice(FILE_MAGIC);
        header.put_u32(FILE_VERSION);
        header.put_u64(name);
        disk.write_at(&file, &blocks, 0)?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self { file, path, end: BLOCK_BYTES as u64, last: Position::default() })
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
