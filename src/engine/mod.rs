//! Job: run operations. Takes the object's stripe, draws a dot, reads what the operation asks for, resolves, commits.
//! Knows: the domain, the store's trait, bucket types and properties, deadlines.
//! Must not know: messages, connections, any front end, any particular store.

pub mod buckets;
mod clock;
mod datatypes;
mod indexes;
mod inspect;
mod large;
mod listing;
pub mod maps;
mod objects;
mod reaper;
mod stripes;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::MutexGuard;

use self::buckets::Buckets;
use self::clock::HybridClock;
use self::large::LargeWrites;
use self::reaper::Reaper;
use self::stripes::Stripes;
use crate::domain::base62;
use crate::domain::cell::{LiveCells, Selection};
use crate::domain::context::ContextError;
use crate::domain::datatype::limits::{LimitError, UpdateLimits};
use crate::domain::datatype::{DataType, UpdateError};
use crate::domain::delta::Delta;
use crate::domain::index::IndexError;
use crate::domain::key::ObjectName;
use crate::domain::object::{ObjectError, ObjectLimits};
use crate::domain::props::{Hook, PropsError};
use crate::domain::quorum::{Quorum, QuorumError};
use crate::store::room::Reservation;
use crate::store::{Horizon, Position, Store};

pub use crate::store::{Durable, DurableCounts, Layout, StoreError};

pub use self::buckets::{BucketType, CreateError, TypeError};
pub use self::datatypes::{DataTypeBucket, Fetched, Update};
pub use self::indexes::{IndexQuery, Postings};
pub use self::inspect::{CausalState, InspectError, MemberRange, Members, SiblingState};
pub use self::listing::Listing;
pub use self::objects::{DeleteRequest, ObjectView, PutRequest, TypedContent};

/// How long a tombstone stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteMode {
    /// For ever.
    Keep,
    /// This long, if nothing else happens to the object.
    After(Duration),
}

/// What an engine is told once.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How long tombstones stay.
    pub delete_mode: DeleteMode,
    /// Memory for tombstones that wait to be removed, in bytes. One that does not fit waits from the next read of its key on.
    pub tombstones_waiting_bytes_max: usize,
    /// Bounds on plain objects.
    pub object_limits: ObjectLimits,
    /// The longest key, and the longest name of a bucket, that a write may use, in bytes.
    pub key_size_bytes_max: usize,
    /// The most actors that a context may name. Each is looked for at every write that brings the context along.
    pub context_actors_max: usize,
    /// Bounds on one update of a data type.
    pub update_limits: UpdateLimits,
    /// Plain objects with more values or bytes than these are logged.
    pub object_warnings: ObjectLimits,
    /// Replicas in the properties of the default type and of new types.
    pub n_val_default: u32,
    /// Whether a new store begins with active types `counters`, `sets`, `gsets`, `hlls` and `maps`.
    pub create_default_types: bool,
    /// How long an operation waits where the request does not say.
    pub request_timeout_default: Duration,
}

/// What a read asks of the replicas. Checked as Riak would; the one store there is then meets all of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Replies wanted.
    pub r: Option<Quorum>,
    /// Primaries among them.
    pub pr: Option<Quorum>,
    /// Replicas to work with.
    pub n_val: Option<u32>,
    /// Distinct nodes wanted.
    pub node_confirms: Option<u32>,
    /// Whether "not found" counts as a reply.
    pub notfound_ok: Option<bool>,
}

/// What a write asks of the replicas.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// Acknowledgements wanted.
    pub w: Option<Quorum>,
    /// Stored copies wanted.
    pub dw: Option<Quorum>,
    /// Primaries wanted.
    pub pw: Option<Quorum>,
    /// Replicas to work with.
    pub n_val: Option<u32>,
    /// Distinct nodes wanted.
    pub node_confirms: Option<Quorum>,
    /// How long to wait for the object. Once the write is under way it is waited for to its end.
    pub timeout: Option<Duration>,
}

/// Why an operation failed. Nothing of it was applied, but where the store failed while it was writing.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The bucket type does not exist or is not active.
    #[error("there is no such bucket type")]
    NoSuchType,
    /// A quorum cannot be met.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// A put or delete was refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A data type update was refused.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// An update holds more than one may.
    #[error(transparent)]
    UpdateLimit(#[from] LimitError),
    /// The bytes sent as a context are none.
    #[error("the context does not decode: {0}")]
    Context(#[from] ContextError),
    /// The context names too many actors.
    #[error("the context names {0} actors")]
    TooManyActors(usize),
    /// An index entry was refused.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The key is longer than the limit.
    #[error("the key is longer than {bytes_max} bytes")]
    KeyTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The bucket's name is longer than the limit.
    #[error("the name of a bucket may have {bytes_max} bytes")]
    BucketTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// A precommit hook that this server cannot run.
    #[error("a precommit hook cannot be run")]
    Precommit(Hook),
    /// A strongly consistent bucket: there is no consensus group.
    #[error("strongly consistent buckets are not available")]
    ConsistentUnavailable,
    /// Data types need a bucket that keeps siblings.
    #[error("the bucket must be allow_mult=true")]
    MustAllowMult,
    /// The bucket's type has no data type.
    #[error("the bucket type has no data type")]
    NoDataType,
    /// The operation is for another data type.
    #[error("the operation is for {operation:?}, the bucket type for {bucket:?}")]
    DataTypeMismatch {
        /// What the operation is for.
        operation: DataType,
        /// What the bucket holds.
        bucket: DataType,
    },
    /// The value does not fit into a reply. A write that was to show it was applied.
    #[error("the value is larger than a reply may be")]
    ValueTooLarge,
    /// The new properties were refused.
    #[error(transparent)]
    Props(#[from] PropsError),
    /// The deadline passed before the operation began to write, or before a listing ended.
    #[error("timeout")]
    Timeout,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no random numbers to give.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Runs operations on one store. Cloning gives another handle to the same engine, for the same client.
///
/// An operation is done when it returns, and everybody sees it; but it may not be durable yet, nor what it has shown. Whatever
/// comes of it is told to nobody before the handle's [`gate`](Engine::gate) has opened.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    reaper: Reaper,
    /// What was written and seen through this handle and its clones.
    horizon: Arc<Horizon>,
}

/// What a reply waits behind. Asking whether it is open, or for it to open, is done through [`Gates`].
#[derive(Clone, Copy, Debug)]
pub struct Gate(Position);

/// The gates of an engine.
#[derive(Clone)]
pub struct Gates(Arc<dyn Store>);

impl Gates {
    /// Whether a gate is open. Once it is, it stays so.
    pub fn is_open(&self, gate: Gate) -> bool {
        self.0.is_durable(gate.0)
    }

    /// Waits until a gate opens.
    ///
    /// # Errors
    /// When it never will: a write failed, and a restart may find that it was not made.
    pub fn opened(&self, gate: Gate) -> Durable {
        if self.is_open(gate) { Durable::reached() } else { self.0.durable(gate.0) }
    }
}

struct Inner {
    store: Arc<dyn Store>,
    clock: HybridClock,
    stripes: Stripes,
    large_writes: LargeWrites,
    buckets: Buckets,
    options: EngineOptions,
}

impl Engine {
    /// An engine on the store. Must be called inside a tokio runtime, since tombstones are removed in the background.
    ///
    /// # Errors
    /// When the store's records cannot be read, or the first bucket types not written.
    pub async fn start(store: Arc<dyn Store>, options: EngineOptions) -> Result<Self, EngineError> {
        let clock = HybridClock::new(store.clone());
        clock.begin().await?;
        let buckets = Buckets::load(store.clone(), options.n_val_default, options.key_size_bytes_max).await?;
        if options.create_default_types {
            buckets.create_default_types().await?;
        }
        let inner = Arc::new(Inner {
            store,
            clock,
            stripes: Stripes::new(),
            large_writes: LargeWrites::new(),
            buckets,
            options,
        });
        let reaper = Reaper::start(inner.clone());
        Ok(Self { inner, reaper, horizon: Arc::default() })
    }

    /// A handle for another client, who has seen nothing yet.
    pub fn for_client(&self) -> Self {
        Self { inner: self.inner.clone(), reaper: self.reaper.clone(), horizon: Arc::default() }
    }

    /// Why nothing can be written until the server is restarted, if so.
    pub fn failure(&self) -> Option<StoreError> {
        self.inner.store.failure()
    }

    /// What was made durable since the store was opened.
    pub fn durable_counts(&self) -> DurableCounts {
        self.inner.store.durable_counts()
    }

    /// What the store takes and does, for people to read: phrases with the number that stands before each.
    pub fn store_measures(&self) -> Vec<(&'static str, u64)> {
        self.inner.store.measures()
    }

    /// Opens when all is durable that was written and seen through this handle by now.
    pub fn gate(&self) -> Gate {
        Gate(self.horizon.position())
    }

    /// The gates of this engine.
    pub fn gates(&self) -> Gates {
        Gates(self.inner.store.clone())
    }

    /// Reads what is selected of an object, and writes what comes of it, if anything does. For one who holds the object's stripe.
    /// Whether something was written.
    async fn write(
        &self,
        name: &ObjectName,
        selections: Vec<Selection>,
        resolve: impl FnOnce(LiveCells) -> Result<Option<Delta>, EngineError> + Send,
    ) -> Result<bool, EngineError> {
        let mut resolve = Some(resolve);
        let mut outcome = Ok(false);
        let mut resolve = |seen: LiveCells| match resolve.take()?(seen) {
            Ok(delta) => {
                outcome = Ok(delta.is_some());
                delta
            }
            Err(refusal) => {
                outcome = Err(refusal);
                None
            }
        };
        self.inner.store.update(name, selections, &self.horizon, &mut resolve).await?;
        outcome
    }

    /// Bucket types and properties.
    pub fn buckets(&self) -> &Buckets {
        &self.inner.buckets
    }
}

/// What a write holds from the read of its object until it is made.
struct Turn<'a> {
    _stripe: MutexGuard<'a, ()>,
    _room: Option<Reservation>,
}

/// What a write takes in memory beside what it brings, in bytes.
const WRITE_BYTES: usize = 4096;

impl Inner {
    /// Waits for room in the store for a write that brings so many bytes, and then for the object's stripe.
    async fn lock(&self, name: &ObjectName, brought_bytes: usize, patience: Duration) -> Result<Turn<'_>, EngineError> {
        // What it takes in memory: it replaces a row that holds what was there before too, where that is small.
        let bytes = brought_bytes.saturating_mul(2).saturating_add(WRITE_BYTES);
        let room = match self.store.room() {
            Some(room) => Some(room.reserve_within(bytes, patience).await.map_err(|_| EngineError::Timeout)?),
            None => None,
        };
        Ok(Turn { _stripe: self.stripes.lock(name, patience).await?, _room: room })
    }

    /// Checks the name of an object that is to be written.
    fn check_name(&self, name: &ObjectName) -> Result<(), EngineError> {
        let bytes_max = self.options.key_size_bytes_max;
        if name.key.len() > bytes_max {
            return Err(EngineError::KeyTooLarge { bytes_max });
        }
        if name.bucket.bucket.len() > bytes_max {
            return Err(EngineError::BucketTooLarge { bytes_max });
        }
        Ok(())
    }
}

/// The wall clock, as the time since 1970.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A key that nobody has: 160 random bits in base 62 (`kv.md` §7.1).
///
/// # Errors
/// When the system gives no random numbers.
pub fn generate_key() -> Result<String, EngineError> {
    let mut number = [0; 20];
    getrandom::fill(&mut number).map_err(EngineError::Random)?;
    Ok(base62::encode(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_are_short_texts_that_differ() {
        let (a, b) = (generate_key().unwrap(), generate_key().unwrap());
        assert_ne!(a, b);
        for key in [a, b] {
            assert!((20..=27).contains(&key.len()), "{key}");
            assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{key}");
        }
    }
}
