//! The journal of a server's calls: the library that writes it (`journal.c`), and its records.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a server did, or what somebody noted beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A process begins, without open files.
    Start,
    Open {
        path: PathBuf,
        fd: i32,
        flags: i32,
    },
    Close {
        fd: i32,
    },
    Dup {
        fd: i32,
        other: i32,
    },
    Write {
        fd: i32,
        offset: u64,
        bytes: Bytes,
    },
    Truncate {
        target: Target,
        length: u64,
    },
    /// The file is at least so long.
    Allocate {
        fd: i32,
        length: u64,
    },
    SyncBegin {
        fd: i32,
        call: i64,
    },
    /// The sync has succeeded.
    SyncEnd {
        call: i64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    /// Of a file or of an empty directory.
    Unlink {
        path: PathBuf,
    },
    MakeDir {
        path: PathBuf,
    },
    Socket {
        path: PathBuf,
    },
    /// Of the one who drives the server.
    Mark(Vec<u8>),
}

/// What is truncated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Fd(i32),
    Path(PathBuf),
}

/// Bytes that were written: where they stand in the journal, or so many zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bytes {
    At(Range<usize>),
    Zeros(usize),
}

impl Bytes {
    pub fn len(&self) -> usize {
        match self {
            Self::At(range) => range.len(),
            Self::Zeros(length) => *length,
        }
    }
}

const HEADER_BYTES: usize = 32;
const MARK: u16 = 100;

/// A whole journal.
pub struct Journal {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

impl Journal {
    pub fn read(path: &Path) -> Journal {
        let bytes = fs::read(path).unwrap();
        let (mut records, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (record, size_bytes) = decode(&bytes, at);
            records.push(record);
            at += size_bytes;
        }
        Journal { bytes, records }
    }

    /// One that no process wrote.
    pub fn of(bytes: Vec<u8>, records: Vec<Record>) -> Journal {
        Journal { bytes, records }
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Bytes of a write, from a place in it on.
    pub fn copy(&self, bytes: &Bytes, from: usize, into: &mut [u8]) {
        match bytes {
            Bytes::At(range) => into.copy_from_slice(&self.bytes[range.start + from..][..into.len()]),
            Bytes::Zeros(_) => into.fill(0),
        }
    }
}

/// The record at a place, and its size.
fn decode(bytes: &[u8], at: usize) -> (Record, usize) {
    let u32_at = |offset: usize| u32::from_ne_bytes(bytes[at + offset..][..4].try_into().unwrap());
    let u16_at = |offset: usize| u16::from_ne_bytes(bytes[at + offset..][..2].try_into().unwrap());
    let i64_at = |offset: usize| i64::from_ne_bytes(bytes[at + offset..][..8].try_into().unwrap());
    let size_bytes = u32_at(0) as usize;
    let (kind, path_bytes, target_bytes) = (u16_at(4), usize::from(u16_at(6)), usize::from(u16_at(8)));
    let fd = u32_at(12).cast_signed();
    let (a, b) = (i64_at(16), i64_at(24));
    let path_at = at + HEADER_BYTES;
    let path_of = |start: usize, length: usize| PathBuf::from(std::ffi::OsStr::from_bytes(&bytes[start..][..length]));
    let path = path_of(path_at, path_bytes);
    let target = path_of(path_at + path_bytes, target_bytes);
    let rest = path_at + path_bytes + target_bytes..at + size_bytes;
    let unsigned = |number: i64| u64::try_from(number).unwrap();
    let record = match kind {
        1 => Record::Start,
        2 => Record::Open { path, fd, flags: i32::try_from(a).unwrap() },
        3 => Record::Close { fd },
        4 => Record::Dup { fd, other: i32::try_from(a).unwrap() },
        5 => {
            assert_eq!(unsigned(b), rest.len() as u64);
            Record::Write { fd, offset: unsigned(a), bytes: Bytes::At(rest) }
        }
        6 => Record::Write { fd, offset: unsigned(a), bytes: Bytes::Zeros(usize::try_from(b).unwrap()) },
        7 if fd < 0 => Record::Truncate { target: Target::Path(path), length: unsigned(b) },
        7 => Record::Truncate { target: Target::Fd(fd), length: unsigned(b) },
        8 => Record::Allocate { fd, length: unsigned(b) },
        9 => Record::SyncBegin { fd, call: a },
        10 => Record::SyncEnd { call: a },
        11 => Record::Rename { from: path, to: target },
        12 => Record::Link { from: path, to: target },
        13 => Record::Unlink { path },
        14 => Record::MakeDir { path },
        15 => Record::Socket { path },
        MARK => Record::Mark(bytes[rest].to_vec()),
        kind => panic!("a record of kind {kind} at {at}"),
    };
    (record, size_bytes)
}

/// What the one who drives a server notes between its calls: a note stands behind all calls that were made before it.
pub struct Marks(File);

impl Marks {
    pub fn of(journal: &Path) -> Marks {
        Marks(File::options().create(true).append(true).open(journal).unwrap())
    }

    pub fn note(&self, text: &[u8]) {
        let mut record = Vec::with_capacity(HEADER_BYTES + text.len());
        record.extend(u32::try_from(HEADER_BYTES + text.len()).unwrap().to_ne_bytes());
        record.extend(MARK.to_ne_bytes());
        record.resize(HEADER_BYTES, 0);
        record.extend(text);
        // In one call, so that no other record comes in between.
        assert_eq!((&self.0).write(&record).unwrap(), record.len());
    }
}

/// The library, built into a directory.
pub fn build_library(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/journal.c");
    let library = dir.join("journal.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let arguments = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"];
    let status = Command::new(compiler).args(arguments).arg(&library).arg(source).args(["-ldl", "-lpthread"]).status();
    assert!(status.expect("a C compiler").success());
    library
}

/// Has a command that was not yet run journal what it does to the files under a directory.
pub fn preload(command: &mut Command, library: &Path, journal: &Path, root: &Path) {
    command.env("LD_PRELOAD", library).env("JOURNAL_FILE", journal).env("JOURNAL_ROOT", root);
}
