//! What a disk holds when the power fails: all that was synced, and of the rest any part.
//!
//! Of a **file** any subset of the blocks written since its last sync is there, each in any version that it had, and it is as
//! long as at any time since. Of a **directory** any of its changes since its last sync is there, but none before an earlier
//! one of the same name; a rename is one change. So a file that was synced may be missing where its directory was not
//! synced, and one that was unlinked may be there again. A sync that runs has done nothing yet for sure.
//!
//! Not modelled is a disk that loses what was synced, and damage to blocks that were not being written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::journal::{Bytes, Journal, Record, Target};

/// A disk cannot write less than this, and so not half of it.
const SECTOR_BYTES: usize = 512;
/// The system writes its cache in these.
const PAGE_BYTES: usize = 4096;

type NodeId = usize;
/// A name in a directory.
type Place = (NodeId, OsString);

/// The root directory.
const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
enum Node {
    File(FileState),
    Dir(DirState),
    Socket,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    synced: Vec<u8>,
    /// What was done since, each with its number.
    unsynced: Vec<(u64, FileChange)>,
}

#[derive(Clone, Debug)]
enum FileChange {
    Write { offset: u64, bytes: Bytes },
    Truncate { length: u64 },
    Allocate { length: u64 },
}

#[derive(Clone, Debug, Default)]
struct DirState {
    synced: BTreeMap<OsString, NodeId>,
    /// As the running system shows it.
    now: BTreeMap<OsString, NodeId>,
}

/// A change of names: all of it or nothing.
#[derive(Clone, Debug)]
struct NameChange {
    number: u64,
    places: Vec<(Place, Option<NodeId>)>,
}

/// A disk beneath a running system.
pub struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    /// Those since the last sync of one of their directories.
    unsynced_names: Vec<NameChange>,
    open: HashMap<i32, NodeId>,
    /// Syncs that run: of what, and the number that changes had reached when they began.
    syncs: HashMap<i64, (NodeId, u64)>,
    /// Of the next change.
    number: u64,
}

impl Disk {
    /// An empty directory, on disk with its name.
    pub fn new(root: &Path) -> Disk {
        Disk {
            root: root.to_owned(),
            nodes: vec![Node::Dir(DirState::default())],
            unsynced_names: Vec::new(),
            open: HashMap::new(),
            syncs: HashMap::new(),
            number: 0,
        }
    }

    /// A directory as it is found, all of it on disk.
    pub fn found(root: &Path) -> Disk {
        let mut disk = Disk::new(root);
        disk.find(root, ROOT);
        disk
    }

    fn find(&mut self, path: &Path, dir: NodeId) {
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            let node = if kind.is_dir() {
                Node::Dir(DirState::default())
            } else if kind.is_socket() {
                Node::Socket
            } else {
                Node::File(FileState { synced: fs::read(entry.path()).unwrap(), unsynced: Vec::new() })
            };
            let id = self.add(node);
            let names = self.dir_mut(dir);
            names.synced.insert(entry.file_name(), id);
            names.now.insert(entry.file_name(), id);
            if kind.is_dir() {
                self.find(&entry.path(), id);
            }
        }
    }

    /// Makes a call that the journal holds.
    pub fn apply(&mut self, record: &Record, journal: &Journal) {
        match record {
            // What an earlier process had open is closed, and what it was syncing will not be told.
            Record::Start => {
                self.open.clear();
                self.syncs.clear();
            }
            Record::Open { path, fd, flags } => {
                let id = self.opened(path, *flags);
                self.open.insert(*fd, id);
            }
            Record::Close { fd } => drop(self.open.remove(fd)),
            Record::Dup { fd, other } => drop(self.open.insert(*other, self.open[fd])),
            Record::Write { fd, offset, bytes } => {
                self.change(self.open[fd], FileChange::Write { offset: *offset, bytes: bytes.clone() });
            }
            Record::Truncate { target, length } => {
                let id = match target {
                    Target::Fd(fd) => self.open[fd],
                    Target::Path(path) => self.node(path).unwrap(),
                };
                self.change(id, FileChange::Truncate { length: *length });
            }
            Record::Allocate { fd, length } => self.change(self.open[fd], FileChange::Allocate { length: *length }),
            Record::SyncBegin { fd, call } => drop(self.syncs.insert(*call, (self.open[fd], self.number))),
            Record::SyncEnd { call } => {
                let (id, number) = self.syncs.remove(call).expect("a sync that has begun");
                self.synced(id, number, journal);
            }
            Record::Rename { from, to } => {
                let node = self.node(from);
                assert!(node.is_some(), "{} is renamed, and was never made", from.display());
                self.rename(vec![(self.place(from), None), (self.place(to), node)]);
            }
            Record::Link { from, to } => self.rename(vec![(self.place(to), self.node(from))]),
            Record::Unlink { path } => self.rename(vec![(self.place(path), None)]),
            Record::MakeDir { path } => self.make(path, Node::Dir(DirState::default())),
            Record::Socket { path } => self.make(path, Node::Socket),
            Record::Mark(_) => {}
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn dir(&self, id: NodeId) -> &DirState {
        match &self.nodes[id] {
            Node::Dir(dir) => dir,
            node => panic!("{node:?} is no directory"),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> &mut DirState {
        match &mut self.nodes[id] {
            Node::Dir(dir) => dir,
            node => panic!("{node:?} is no directory"),
        }
    }

    /// What a path leads to in the running system.
    fn node(&self, path: &Path) -> Option<NodeId> {
        let relative = path.strip_prefix(&self.root).unwrap();
        let mut id = ROOT;
        for name in relative {
            id = *self.dir(id).now.get(name)?;
        }
        Some(id)
    }

    fn place(&self, path: &Path) -> Place {
        let dir = self.node(path.parent().unwrap());
        let dir = dir.unwrap_or_else(|| panic!("{}: its directory was never made", path.display()));
        (dir, path.file_name().unwrap().to_owned())
    }

    fn opened(&mut self, path: &Path, flags: i32) -> NodeId {
        let Some(id) = self.node(path) else {
            assert_ne!(flags & libc::O_CREAT, 0, "{} was opened, and never made", path.display());
            self.make(path, Node::File(FileState::default()));
            return self.node(path).unwrap();
        };
        if flags & libc::O_TRUNC != 0 {
            self.change(id, FileChange::Truncate { length: 0 });
        }
        id
    }

    fn make(&mut self, path: &Path, node: Node) {
        let id = self.add(node);
        self.rename(vec![(self.place(path), Some(id))]);
    }

    fn rename(&mut self, places: Vec<(Place, Option<NodeId>)>) {
        for ((dir, name), node) in &places {
            set(&mut self.dir_mut(*dir).now, name, *node);
        }
        self.unsynced_names.push(NameChange { number: self.number, places });
        self.number += 1;
    }

    fn change(&mut self, id: NodeId, change: FileChange) {
        let number = self.number;
        self.number += 1;
        match &mut self.nodes[id] {
            Node::File(file) => file.unsynced.push((number, change)),
            node => panic!("{change:?} of {node:?}"),
        }
    }

    /// All changes below a number are on disk.
    fn synced(&mut self, id: NodeId, number: u64, journal: &Journal) {
        match &mut self.nodes[id] {
            Node::File(file) => {
                let count = file.unsynced.partition_point(|(change, _)| *change < number);
                for (_, change) in file.unsynced.drain(..count) {
                    change.apply(&mut file.synced, journal);
                }
            }
            Node::Dir(_) => self.synced_names(id, number),
            Node::Socket => {}
        }
    }

    fn synced_names(&mut self, dir: NodeId, number: u64) {
        // With a change goes what it builds on: the earlier ones of the same names.
        let mut places: BTreeSet<Place> = BTreeSet::new();
        let mut kept = Vec::new();
        let mut synced = Vec::new();
        for change in std::mem::take(&mut self.unsynced_names).into_iter().rev() {
            let is_here = change.number < number && change.places.iter().any(|((of, _), _)| *of == dir);
            if is_here || change.places.iter().any(|(place, _)| places.contains(place)) {
                places.extend(change.places.iter().map(|(place, _)| place.clone()));
                synced.push(change);
            } else {
                kept.push(change);
            }
        }
        self.unsynced_names = kept.into_iter().rev().collect();
        for ((dir, name), node) in synced.into_iter().rev().flat_map(|change| change.places) {
            set(&mut self.dir_mut(dir).synced, &name, node);
        }
    }

    /// Fails the power: makes, in a directory that is empty, what may be found when it comes back. What was chosen.
    pub fn fail(&self, journal: &Journal, random: &mut Rng, into: &Path) -> String {
        let names = Choice::draw(random, self.unsynced_names.len());
        let mut places: BTreeSet<&Place> = BTreeSet::new();
        let mut dirs: HashMap<NodeId, BTreeMap<OsString, NodeId>> = HashMap::new();
        let mut lost = Vec::new();
        for (at, change) in self.unsynced_names.iter().enumerate() {
            // Nothing comes without what it builds on.
            if !names.keeps(at, random) || change.places.iter().any(|(place, _)| places.contains(place)) {
                places.extend(change.places.iter().map(|(place, _)| place));
                lost.extend(change.places.iter().map(|((_, name), _)| name.to_string_lossy()));
                continue;
            }
            for ((dir, name), node) in &change.places {
                set(dirs.entry(*dir).or_insert_with(|| self.dir(*dir).synced.clone()), name, *node);
            }
        }
        let mut failure = Failure { disk: self, journal, dirs, made: HashMap::new(), told: Vec::new() };
        failure.make_dir(ROOT, random, into);
        let unsynced = self.unsynced_names.len();
        format!("of {unsynced} changes of names are lost those of [{}]; {}", lost.join(" "), failure.told.join("; "))
    }
}

fn set(names: &mut BTreeMap<OsString, NodeId>, name: &OsString, node: Option<NodeId>) {
    match node {
        Some(node) => drop(names.insert(name.clone(), node)),
        None => drop(names.remove(name)),
    }
}

impl FileChange {
    /// How long the file is after it.
    fn length(&self, before: u64) -> u64 {
        match self {
            Self::Write { offset, bytes } => before.max(offset + bytes.len() as u64),
            Self::Truncate { length } => *length,
            Self::Allocate { length } => before.max(*length),
        }
    }

    /// The blocks of a size that a write touches: the number of each in the file, and its part of the bytes.
    fn blocks(&self, unit: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (start, length) = match self {
            Self::Write { offset, bytes } => (usize::try_from(*offset).unwrap(), bytes.len()),
            _ => (0, 0),
        };
        let numbers = start / unit..(start + length).div_ceil(unit);
        numbers.filter(move |_| length > 0).map(move |block| {
            let from = (block * unit).max(start);
            let to = ((block + 1) * unit).min(start + length);
            (block, from - start..to - start)
        })
    }

    fn apply(&self, content: &mut Vec<u8>, journal: &Journal) {
        content.resize(usize::try_from(self.length(content.len() as u64)).unwrap(), 0);
        if let Self::Write { offset, bytes } = self {
            let start = usize::try_from(*offset).unwrap();
            journal.copy(bytes, 0, &mut content[start..start + bytes.len()]);
        }
    }
}

/// Which of several unsynced changes are on disk.
enum Choice {
    All,
    None,
    /// Each with this probability.
    Each(f64),
    /// Those before one of them.
    Before(usize),
    /// Those from one of them on: the disk takes them in any order.
    From(usize),
    AllBut(usize),
}

impl Choice {
    fn draw(random: &mut Rng, count: usize) -> Choice {
        let one = if count == 0 { 0 } else { random.usize(..count) };
        match random.u8(..8) {
            0 => Self::All,
            1 | 2 => Self::None,
            3 => Self::Each(random.f64()),
            4 => Self::Each(0.5),
            5 => Self::Before(one),
            6 => Self::From(one),
            _ => Self::AllBut(one),
        }
    }

    fn keeps(&self, at: usize, random: &mut Rng) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Each(probability) => random.f64() < *probability,
            Self::Before(one) => at < *one,
            Self::From(one) => at >= *one,
            Self::AllBut(one) => at != *one,
        }
    }
}

/// A directory tree in the making.
struct Failure<'a> {
    disk: &'a Disk,
    journal: &'a Journal,
    /// Directories with names that are not synced.
    dirs: HashMap<NodeId, BTreeMap<OsString, NodeId>>,
    /// Where a file was first made: its other names are links.
    made: HashMap<NodeId, PathBuf>,
    told: Vec<String>,
}

impl Failure<'_> {
    fn make_dir(&mut self, id: NodeId, random: &mut Rng, path: &Path) {
        let disk = self.disk;
        let names = self.dirs.get(&id).unwrap_or(&disk.dir(id).synced).clone();
        for (name, id) in names {
            let path = path.join(name);
            match &disk.nodes[id] {
                Node::Dir(_) => {
                    fs::create_dir(&path).unwrap();
                    self.make_dir(id, random, &path);
                }
                Node::Socket => drop(UnixListener::bind(&path).unwrap()),
                Node::File(file) => match self.made.get(&id) {
                    Some(first) => fs::hard_link(first, &path).unwrap(),
                    None => {
                        write(&path, &self.content(file, random, &path));
                        self.made.insert(id, path);
                    }
                },
            }
        }
    }

    /// What is found of a file.
    fn content(&mut self, file: &FileState, random: &mut Rng, path: &Path) -> Vec<u8> {
        let mut content = file.synced.clone();
        if file.unsynced.is_empty() {
            return content;
        }
        let changes: Vec<_> = file.unsynced.iter().map(|(_, change)| change).collect();
        // A length that shrank is known to the disk together with those before it; only behind the last that is known may
        // the length be any.
        let shrinks: Vec<_> =
            (0..changes.len()).filter(|&at| matches!(changes[at], FileChange::Truncate { .. })).collect();
        let known = if random.bool() { shrinks.len() } else { random.usize(..=shrinks.len()) };
        let end = shrinks.get(known).copied().unwrap_or(changes.len());
        let mut shortest = content.len() as u64;
        let mut longest = shortest;

        let unit = if random.bool() { SECTOR_BYTES } else { PAGE_BYTES };
        // The last change that each block has taken; with it go the earlier ones of the block.
        let writes: Vec<_> =
            (0..end).flat_map(|at| changes[at].blocks(unit).map(move |(block, _)| (at, block))).collect();
        let choice = Choice::draw(random, writes.len());
        let mut kept = HashMap::new();
        for (place, &(at, block)) in writes.iter().enumerate() {
            if choice.keeps(place, random) {
                kept.insert(block, at);
            }
        }
        for (at, change) in changes[..end].iter().enumerate() {
            match change {
                FileChange::Truncate { length } => {
                    content.resize(usize::try_from(*length).unwrap(), 0);
                    (shortest, longest) = (*length, *length);
                }
                FileChange::Allocate { .. } => longest = change.length(longest),
                FileChange::Write { offset, bytes } => {
                    longest = change.length(longest);
                    for (_, piece) in change.blocks(unit).filter(|(block, _)| kept.get(block) >= Some(&at)) {
                        let start = usize::try_from(*offset).unwrap() + piece.start;
                        content.resize(content.len().max(start + piece.len()), 0);
                        self.journal.copy(bytes, piece.start, &mut content[start..start + piece.len()]);
                    }
                }
            }
        }
        let length = match random.u8(..4) {
            0 => shortest,
            1 if longest > shortest => random.u64(shortest..=longest),
            _ => longest,
        };
        content.resize(usize::try_from(length).unwrap(), 0);
        self.told.push(format!(
            "{}: {} blocks of {unit} from {} writes of such, {length} of {shortest} to {longest} bytes",
            path.file_name().unwrap().to_string_lossy(),
            kept.len(),
            writes.len()
        ));
        content
    }
}

/// Writes a file without the blocks that are zeros.
fn write(path: &Path, content: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(content.len() as u64).unwrap();
    for (piece, offset) in content.chunks(64 * 1024).zip((0..).step_by(64 * 1024)) {
        if piece.iter().any(|&byte| byte != 0) {
            file.write_all_at(piece, offset).unwrap();
        }
    }
}
