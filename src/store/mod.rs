//! Job: keep cells. Reads those that an operation asks for, commits deltas, and pages through names.
//! Knows: the domain's cells, floors and deltas, and how they lie in rows.
//! Must not know: operations, requests, the engine above it, any protocol.
//!
//! # The contract, for every store
//!
//! - A delta is applied whole or not at all. It is *visible* to reads when `commit` returns, and *durable* once
//!   [`durable`](Store::durable) says so for its [`Position`]. Writes become durable in their order: a crash leaves all up
//!   to one of them. Where a store calls writes durable before the disk has them, a power failure may leave fewer: all up to
//!   one that was [`synced`](Store::synced) or a later one.
//! - Whoever reads hands in a [`Horizon`], which is raised to the latest write that was seen. What was read may be told to
//!   others once everything up to there is durable.
//! - The caller serializes the updates of one object: it holds the object's stripe from the read until `commit` returns.
//!   Reads may run at any time and see each delta whole or not at all.
//! - No two deltas have the same dot, whatever their objects, and the times of one actor's dots rise at each object: a
//!   put replaces what the actor has at its key.
//! - Every delta that puts content of a data type writes the presence cell of the root too, and only a floor of the
//!   root's subtree ends that cell: it says whether there is such content.
//! - Reads hand out live cells only: those above every floor on their way. A floor is forgotten when what it ended is
//!   gone: all that its context covers has been here.
//! - After a failed or uncertain write the store takes no further writes: each answers [`StoreError::ReadOnly`].
//! - An object is in an index under the terms of all its values together, from the moment that its delta is visible.
//! - Names are listed while the object has a value that is no tombstone, or data type content.

pub mod embedded;
pub mod maps;
pub mod memory;
pub mod room;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::domain::cell::{Cell, CellKey, LiveCells, Path, Selection};
use crate::domain::delta::Delta;
use crate::domain::dot::{ActorId, Time};
use crate::domain::index::{IndexRange, Posting};
use crate::domain::key::{BucketName, ObjectName};
use crate::store::room::Room;

/// What a store's asynchronous methods return.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Writes that were made durable, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurableCounts {
    /// Writes: requests that changed something, and a few of the store's own.
    pub writes: u64,
    /// Times that the disk was told to keep what it had been given. One keeps all the writes before it.
    pub syncs: u64,
}

/// A number that a store tells of itself, and what it counts: a phrase that follows the number, its unit first.
pub type Measure = (&'static str, u64);

/// Makes a request's effect of the cells that were read. It is called once.
pub type Resolve<'a> = &'a mut (dyn FnMut(LiveCells) -> Option<Delta> + Send);

/// Resolves when writes are durable. See [`Store::durable`].
#[must_use]
#[derive(Debug)]
pub struct Durable(Option<oneshot::Receiver<Result<(), StoreError>>>);

impl Durable {
    /// The writes are durable already.
    pub fn reached() -> Self {
        Self(None)
    }

    /// Whoever holds the other end tells; where it is dropped, the store was closed.
    pub fn told_by(teller: oneshot::Receiver<Result<(), StoreError>>) -> Self {
        Self(Some(teller))
    }
}

impl Future for Durable {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(Ok(())),
            Some(teller) => Pin::new(teller).poll(context).map(|told| told.unwrap_or(Err(StoreError::Closed))),
        }
    }
}

/// Where cells are kept. See the module's contract.
pub trait Store: Send + Sync + 'static {
    /// The identity under which this store's server writes.
    fn actor(&self) -> ActorId;

    /// The durable bound of the clock when the store was opened: every time that was ever issued lies at or below it.
    fn clock_bound(&self) -> Time;

    /// Raises the bound of the clock. It is durable no later than any write that follows.
    fn raise_clock_bound(&self, bound: Time) -> Result<Position, StoreError>;

    /// The live cells of an object that are asked for.
    fn read<'a>(
        &'a self,
        name: &'a ObjectName,
        selections: &'a [Selection],
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, LiveCells>;

    /// An object's content at or under a path, to be read page by page; without what lies before `from`.
    fn open_content<'a>(
        &'a self,
        name: &'a ObjectName,
        path: Path,
        from: Option<CellKey>,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Content>;

    /// How an object is kept.
    fn inspect<'a>(&'a self, name: &'a ObjectName, horizon: &'a Horizon) -> StoreFuture<'a, ObjectState>;

    /// The room for writes, where there is a bound on it: whoever writes an object or a map reserves what that may take. A store
    /// holds writes in memory until its tables have them; writers who do not ask make it hold more than it was told to.
    fn room(&self) -> Option<&Room>;

    /// Writes one request's effect.
    ///
    /// # Errors
    /// When it was not written.
    fn commit(&self, name: ObjectName, delta: Delta) -> Result<Position, StoreError>;

    /// Reads, has `resolve` make a request's effect of what was read, and writes it, if it makes one: `read` and `commit` of the
    /// same object, for which a store need not look for it twice. The horizon is raised to what was seen and written.
    fn update<'a>(
        &'a self,
        name: &'a ObjectName,
        selections: Vec<Selection>,
        horizon: &'a Horizon,
        resolve: Resolve<'a>,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let seen = self.read(name, &selections, horizon).await?;
            if let Some(delta) = resolve(seen) {
                horizon.raise(self.commit(name.clone(), delta)?);
            }
            Ok(())
        })
    }

    /// Whether every write up to a position is durable.
    fn is_durable(&self, position: Position) -> bool;

    /// Resolves when every write up to a position is durable.
    ///
    /// # Errors
    /// When one of them failed, so that it is unknown whether a restart finds it.
    fn durable(&self, position: Position) -> Durable;

    /// Whether writes are called durable before the disk has them, so that a power failure may take them until they are
    /// *synced*. Where not, whatever is durable is synced.
    fn answers_before_sync(&self) -> bool {
        false
    }

    /// Whether no power failure can take a write up to a position.
    fn is_synced(&self, position: Position) -> bool {
        self.is_durable(position)
    }

    /// Resolves when no power failure can take a write up to a position any more, which nothing but [`Store::hasten_sync`]
    /// hastens.
    ///
    /// # Errors
    /// When one of them failed.
    fn synced(&self, position: Position) -> Durable {
        self.durable(position)
    }

    /// Has what was written by now be synced at once, and not when it is due.
    fn hasten_sync(&self) {}

    /// Why the store takes no more writes until it is restarted, if so.
    fn failure(&self) -> Option<StoreError>;

    /// What was made durable since the store was opened.
    fn durable_counts(&self) -> DurableCounts;

    /// What the store takes and does, for people to read.
    fn measures(&self) -> Vec<Measure>;

    /// Up to `limit` keys of a bucket that follow `after`, in the store's own order. Fewer than `limit` means the end.
    fn keys<'a>(
        &'a self,
        bucket: &'a BucketName,
        after: Option<&'a Bytes>,
        limit: usize,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Bytes>>;

    /// Up to `limit` buckets of a type that hold a listed key and follow `after`. Fewer than `limit` means the end.
    fn buckets<'a>(
        &'a self,
        bucket_type: &'a Bytes,
        after: Option<&'a Bytes>,
        limit: usize,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Bytes>>;

    /// Up to `limit` postings of a range that follow `after`, in the order of the index; `after` may be any posting, also one
    /// that is not there. Fewer than `limit` means the end. The cost follows the postings that are returned.
    fn postings<'a>(
        &'a self,
        bucket: &'a BucketName,
        range: &'a IndexRange,
        after: Option<&'a Posting>,
        limit: usize,
        horizon: &'a Horizon,
    ) -> StoreFuture<'a, Vec<Posting>>;

    /// All records: small named values beside the objects, such as bucket types and properties.
    fn records(&self) -> StoreFuture<'_, Vec<(Bytes, Bytes)>>;

    /// Writes a record, or removes it.
    fn put_record(&self, key: Bytes, value: Option<Bytes>) -> Result<Position, StoreError>;

    /// Makes everything queued durable and stops. Later writes fail.
    fn close(&self);
}

/// Content that is being read, as one moment shows it however long the reading takes.
pub struct Content {
    /// The object's plain values and the presence of its data type, as [`Selection::values`] selects them.
    pub values: LiveCells,
    /// The content's live cells.
    pub pages: Box<dyn CellPages>,
}

/// How a store keeps an object: for whoever looks after it. No operation goes by it.
pub struct ObjectState {
    /// The object's plain values and the presence of its data type, as [`Selection::values`] selects them.
    pub values: LiveCells,
    /// Where its cells are.
    pub layout: Layout,
    /// Floors that are kept until what they end is deleted.
    pub floors: u32,
}

/// Where an object's cells are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All together.
    Packed,
    /// Each in a row of its own.
    Spread,
}

/// Cells that are handed out page by page.
pub trait CellPages: Send {
    /// The next cells, in key order and then by actor; none at the end.
    fn next(&mut self) -> StoreFuture<'_, Vec<Cell>>;
}

/// Why a store could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// An earlier write failed, so no more are taken until the server is restarted.
    #[error("the store is read-only since a write failed: {reason}")]
    ReadOnly {
        /// What failed.
        reason: String,
    },
    /// The store was closed before the write was durable.
    #[error("the store is closing")]
    Closed,
    /// The engine reported an error. A write that is told so may be durable or not; a later one is told `ReadOnly`.
    #[error("the storage engine failed: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
    /// The write is larger than a store takes. Nothing of it was done.
    #[error("a write is larger than {size_bytes_max} bytes in the commit log")]
    TooLarge {
        /// The largest one, as the log spells it, in bytes.
        size_bytes_max: usize,
    },
    /// More waits for the disk than a store takes. Nothing of the write was done; it may be tried again.
    #[error("more than {size_bytes_max} bytes wait for the disk")]
    Crowded {
        /// What may wait, in bytes.
        size_bytes_max: usize,
    },
    /// A stored row does not decode. Nothing is guessed from it.
    #[error("a stored row is damaged: {what}")]
    Damaged {
        /// Which part of which row.
        what: &'static str,
    },
}

impl StoreError {
    /// Whether the disk was full. Engines report it as text, in which the system's number of the error stands.
    pub fn is_disk_full(&self) -> bool {
        let (Self::ReadOnly { reason } | Self::Engine { reason }) = self else { return false };
        reason.contains("os error 28)")
    }
}

/// Where a write stands in the order of a store's writes. The default is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// The latest write that somebody has made or seen. It only rises.
#[derive(Debug, Default)]
pub struct Horizon(AtomicU64);

impl Horizon {
    /// Takes in a write.
    pub fn raise(&self, position: Position) {
        // Nothing else is read on the strength of it, so it orders nothing.
        self.0.fetch_max(position.0, Ordering::Relaxed);
    }

    /// Up to where something was made or seen.
    pub fn position(&self) -> Position {
        Position(self.0.load(Ordering::Relaxed))
    }
}
