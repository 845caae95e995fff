//! Names, cells and deltas in few words.

use std::fs::File;
use std::io;
use std::path::Path as DirPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ombak::domain::cell::{
    Cell, CellKey, CounterShare, Element, FieldKind, FieldName, Floor, FloorTarget, LiveCells, Path, Payload,
    RegisterValue, Selection,
};
use ombak::domain::context::CausalContext;
use ombak::domain::datatype::hll::{Registers, Sketch};
use ombak::domain::delta::Delta;
use ombak::domain::dot::{ActorId, Dot, Time};
use ombak::domain::index::{self, IndexRange, Posting};
use ombak::domain::key::{BucketName, ObjectName};
use ombak::domain::object::{Content, Link};
use ombak::store::embedded::{Disk, EmbeddedOptions, EmbeddedStore, OpenError, RowLimits, SystemDisk};
use ombak::store::{Horizon, Position, Store, StoreError};

pub const ACTOR: ActorId = ActorId(7);

/// Options of a store that tests open often: no more memory than they need.
/// Options for a test: every object is spread, so that rows can be counted.
pub fn options(dir: &DirPath) -> EmbeddedOptions {
    let rows = RowLimits { packed_cells_max: 0, ..RowLimits::default() };
    EmbeddedOptions { cache_size_bytes: 1024 * 1024, rows, ..EmbeddedOptions::new(dir.join("data"), ACTOR) }
}

/// A disk whose blocks are small, whatever those of this machine are: many frames then lie in a small file.
pub struct SmallBlocks;

pub const BLOCK_BYTES: usize = 512;

impl Disk for SmallBlocks {
    fn create(&self, path: &DirPath, is_synced_at_once: bool) -> io::Result<File> {
        SystemDisk.create(path, is_synced_at_once)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        SystemDisk.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        SystemDisk.sync(file)
    }

    fn block_bytes(&self, _dir: &DirPath) -> Option<usize> {
        Some(BLOCK_BYTES)
    }
}

pub fn small_blocks() -> Arc<dyn Disk> {
    Arc::new(SmallBlocks)
}

/// Opens a store, maybe one that has just been closed: where another test starts a program at that moment, this has what we had
/// open, and the lock with it, until it is under way.
pub fn open_with(options: EmbeddedOptions) -> EmbeddedStore {
    for _ in 0..200 {
        match EmbeddedStore::open(options.clone()) {
            Err(OpenError::Locked { .. }) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays locked", options.dir.display());
}

pub fn open(dir: &DirPath) -> EmbeddedStore {
    open_with(options(dir))
}

/// A store that packs what is small, as it does by default.
pub fn open_packed(dir: &DirPath) -> EmbeddedStore {
    open_with(EmbeddedOptions { rows: RowLimits::default(), ..options(dir) })
}

pub fn bytes(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

pub fn bucket(name: impl AsRef<[u8]>) -> BucketName {
    BucketName::new(None, bytes(name))
}

/// An object in the bucket `b`.
pub fn object(key: impl AsRef<[u8]>) -> ObjectName {
    ObjectName { bucket: bucket("b"), key: bytes(key) }
}

pub fn field(path: &Path, name: impl AsRef<[u8]>, kind: FieldKind) -> Path {
    path.child(FieldName { name: bytes(name), kind })
}

/// The path of a set in the root map.
pub fn set(name: impl AsRef<[u8]>) -> Path {
    field(&Path::root(), name, FieldKind::Set)
}

pub fn presence(path: &Path) -> CellKey {
    CellKey { path: path.clone(), element: Element::Presence }
}

pub fn member(path: &Path, member: impl AsRef<[u8]>) -> CellKey {
    CellKey { path: path.clone(), element: Element::Member(bytes(member)) }
}

/// A set field with members numbered from a first one on, as one update writes it.
pub fn members(path: &Path, numbers: std::ops::Range<u32>) -> Vec<CellKey> {
    let members = numbers.map(|number| member(path, format!("{number:06}")));
    std::iter::once(presence(path)).chain(members).collect()
}

pub fn value(text: &str) -> Payload {
    Payload::Content(Box::new(Content { value: bytes(text), ..Content::default() }))
}

/// A plain value with index entries.
pub fn indexed(text: &str, entries: &[(&str, &str)]) -> Payload {
    let pairs = entries.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
    Payload::Content(Box::new(Content {
        value: bytes(text),
        indexes: index::normalize(pairs).unwrap(),
        ..Content::default()
    }))
}

pub fn between(index: &str, min: impl AsRef<[u8]>, max: impl AsRef<[u8]>) -> IndexRange {
    IndexRange::between(index.as_bytes(), bytes(min), bytes(max)).unwrap()
}

pub fn tombstone() -> Payload {
    Payload::Content(Box::new(Content::tombstone(Duration::from_secs(5))))
}

/// A plain value with everything that one can have.
pub fn full_value() -> Payload {
    Payload::Content(Box::new(Content {
        value: bytes([0, 255, 1]),
        content_type: Some(bytes("text/plain")),
        charset: Some(bytes("")),
        content_encoding: Some(bytes("gzip")),
        links: vec![Link { bucket: Some(bytes("b")), key: None, tag: Some(bytes("")) }, Link::default()],
        user_metadata: vec![(bytes("a"), bytes("1")), (bytes("a"), bytes("1")), (bytes(""), bytes(""))],
        indexes: vec![(bytes("x_int"), bytes("5"))],
        indexes_unchecked: false,
        modified: Duration::from_micros(1_700_000_000_123_456),
        deleted: false,
    }))
}

/// What an element carries in tests: told by its time, so that an older one is not taken for a newer.
pub fn payload(element: &Element, time: Time) -> Payload {
    match element {
        Element::Presence | Element::Flag | Element::Member(_) => Payload::Mark,
        Element::Counter => Payload::Counter(CounterShare { incremented: u128::from(time.0), decremented: u128::MAX }),
        Element::Register => Payload::Register(RegisterValue { assigned: time, value: bytes(time.0.to_string()) }),
        Element::Hll => Payload::Hll(registers(&time.0.to_string())),
        Element::Sibling(_) => value(&time.0.to_string()),
    }
}

fn registers(element: &str) -> Registers {
    let mut sketch = Sketch::new(14);
    sketch.add(element.as_bytes());
    sketch.pack()
}

pub fn subtree(path: &Path, context: &CausalContext) -> Floor {
    Floor { target: FloorTarget::Subtree(path.clone()), context: context.clone() }
}

pub fn element(key: CellKey, context: &CausalContext) -> Floor {
    Floor { target: FloorTarget::Element(key), context: context.clone() }
}

pub fn siblings(context: &CausalContext) -> Floor {
    Floor { target: FloorTarget::Siblings, context: context.clone() }
}

pub fn context(dots: &[Dot]) -> CausalContext {
    dots.iter().copied().collect()
}

/// What a store says of a write.
pub type Written = Result<Position, StoreError>;

/// Waits until a write is durable.
pub async fn durable(store: &dyn Store, written: Written) -> Result<(), StoreError> {
    store.durable(written?).await
}

/// Writes to a store under dots whose times rise.
pub struct Writer<'a> {
    pub store: &'a dyn Store,
    pub actor: ActorId,
    time: u64,
}

impl<'a> Writer<'a> {
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store, actor: store.actor(), time: 0 }
    }

    /// Writes floors and cells of data type content. The root's presence is put with the cells.
    pub fn send(&mut self, name: &ObjectName, floors: Vec<Floor>, keys: Vec<CellKey>) -> (Dot, Written) {
        let dot = self.next();
        let root = (!keys.is_empty()).then(|| presence(&Path::root()));
        let cell = |key: CellKey| Cell { payload: payload(&key.element, dot.time), key, dot };
        let puts = root.into_iter().chain(keys).map(cell).collect();
        (dot, self.store.commit(name.clone(), Delta { dot, puts, floors }))
    }

    pub async fn update(&mut self, name: &ObjectName, floors: Vec<Floor>, keys: Vec<CellKey>) -> Dot {
        let (dot, written) = self.send(name, floors, keys);
        durable(self.store, written).await.unwrap();
        dot
    }

    /// Puts a plain value.
    pub async fn put(&mut self, name: &ObjectName, floors: Vec<Floor>, payload: Payload) -> Dot {
        let dot = self.next();
        let key = CellKey { path: Path::root(), element: Element::Sibling(dot.time) };
        let delta = Delta { dot, puts: vec![Cell { key, dot, payload }], floors };
        durable(self.store, self.store.commit(name.clone(), delta)).await.unwrap();
        dot
    }

    fn next(&mut self) -> Dot {
        self.time += 1;
        Dot { actor: self.actor, time: Time(self.time) }
    }
}

pub async fn read(store: &dyn Store, name: &ObjectName, selections: &[Selection]) -> LiveCells {
    store.read(name, selections, &Horizon::default()).await.unwrap()
}

pub async fn read_all(store: &dyn Store, name: &ObjectName) -> LiveCells {
    read(store, name, &Selection::whole_object()).await
}

/// The keys of an object's live cells.
pub async fn live(store: &dyn Store, name: &ObjectName) -> Vec<CellKey> {
    read_all(store, name).await.all().iter().map(|cell| cell.key.clone()).collect()
}

/// All keys of a bucket, sorted, by pages of a size. No page is longer, and none but the last is shorter.
pub async fn keys(store: &dyn Store, bucket: &BucketName, page: usize) -> Vec<Bytes> {
    let mut all: Vec<Bytes> = Vec::new();
    loop {
        let after = all.last().cloned();
        let keys = store.keys(bucket, after.as_ref(), page, &Horizon::default()).await.unwrap();
        assert!(keys.len() <= page);
        let done = keys.len() < page;
        all.extend(keys);
        if done {
            return sorted(all);
        }
    }
}

/// All postings of a range, by pages of a size. No page is longer, and none but the last is shorter.
pub async fn postings(store: &dyn Store, bucket: &BucketName, range: &IndexRange, page: usize) -> Vec<Posting> {
    let mut all: Vec<Posting> = Vec::new();
    loop {
        let found = store.postings(bucket, range, all.last(), page, &Horizon::default()).await.unwrap();
        assert!(found.len() <= page);
        let done = found.len() < page;
        all.extend(found);
        if done {
            assert!(all.is_sorted_by(|a, b| a < b), "out of order, or twice");
            return all;
        }
    }
}

/// The same as terms and keys in text, a key without a term alone.
pub async fn found(store: &dyn Store, range: &IndexRange) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let posting = |posting: Posting| match posting.term {
        Some(term) => format!("{}:{}", text(term.as_bytes()), text(&posting.key)),
        None => text(&posting.key),
    };
    let all = postings(store, &bucket("b"), range, 100).await;
    for page in [1, 2, 3] {
        assert_eq!(postings(store, &bucket("b"), range, page).await, all, "by {page}");
    }
    all.into_iter().map(posting).collect()
}

/// All buckets of the default type, sorted, by pages of a size.
pub async fn buckets(store: &dyn Store, page: usize) -> Vec<Bytes> {
    let mut all: Vec<Bytes> = Vec::new();
    loop {
        let after = all.last().cloned();
        let buckets = store.buckets(&bytes("default"), after.as_ref(), page, &Horizon::default()).await.unwrap();
        assert!(buckets.len() <= page);
        let done = buckets.len() < page;
        all.extend(buckets);
        if done {
            return sorted(all);
        }
    }
}

/// Sorts what was listed, which must hold nothing twice.
fn sorted(mut names: Vec<Bytes>) -> Vec<Bytes> {
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "listed twice");
    names
}

/// Lets the sweep work until the directory holds `rows` rows. It does a step after each write at least, so that many
/// writes are many steps.
pub async fn sweep_to(store: &EmbeddedStore, rows: u64) -> Result<(), StoreError> {
    sweep_until(store, rows, |found| found == rows).await
}

/// Lets the sweep work until the directory holds at most `rows` rows, as it does where some objects are packed.
pub async fn sweep_to_at_most(store: &EmbeddedStore, rows: u64) -> Result<(), StoreError> {
    sweep_until(store, rows, |found| found <= rows).await
}

async fn sweep_until(store: &EmbeddedStore, rows: u64, done: impl Fn(u64) -> bool) -> Result<(), StoreError> {
    let mut found = 0;
    for _ in 0..5_000 {
        found = store.row_count()?;
        if done(found) {
            return Ok(());
        }
        durable(store, store.put_record(bytes("nothing"), None)).await?;
    }
    panic!("the sweep leaves {found} rows and not {rows}");
}

/// Makes a test of each function for each store.
macro_rules! suite {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::MemoryStore::new(super::ACTOR)).await;
            })*
        }

        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(&super::open(dir.path())).await;
            })*
        }

        // The usual limits, by which small objects are one row.
        mod embedded_packed {
            $(#[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(&super::open_packed(dir.path())).await;
            })*
        }
    };
}
pub(crate) use suite;
