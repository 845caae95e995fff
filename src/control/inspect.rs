//! Parts of objects, as messages and as the engine's operations.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::EngineAdmin;
use crate::domain::cell::{FieldKind, FieldName, Path};
use crate::domain::context::CausalContext;
use crate::domain::datatype::value::{Full, Part, ValueSink};
use crate::domain::dot::Dot;
use crate::domain::key::{BucketName, ObjectName};
use crate::engine::{CausalState, DurableCounts, EngineError, InspectError, Layout, MemberRange};

/// Bytes of names and values in one reply. In base64 and with what stands around them they stay below the longest line.
const REPLY_SIZE_BYTES_MAX: usize = 512 * 1024;
/// What a part takes beside its bytes.
const PART_SIZE_BYTES: usize = 64;
/// The most members of one reply. More are a matter of asking again.
pub const MEMBERS_MAX: u32 = 4096;

/// Bytes that may be no text: base64 on the way.
#[derive(Clone, PartialEq, Eq)]
pub struct WireBytes(pub Bytes);

impl fmt::Debug for WireBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for WireBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for WireBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(|bytes| Self(bytes.into())).map_err(D::Error::custom)
    }
}

/// Which part of which object is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspection {
    /// The object's bucket type.
    pub bucket_type: WireBytes,
    /// Its bucket.
    pub bucket: WireBytes,
    /// Its key.
    pub key: WireBytes,
    /// The fields from the outermost map to what is asked about; none for the object itself.
    pub path: Vec<InspectedField>,
    /// What is asked.
    pub question: Question,
}

/// A map field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedField {
    /// Its name.
    pub name: WireBytes,
    /// Its kind.
    pub kind: InspectedKind,
}

/// The kind of a map field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InspectedKind {
    /// A counter.
    Counter,
    /// A register.
    Register,
    /// A map.
    Map,
    /// A flag.
    Flag,
    /// A set.
    Set,
}

/// What is asked about an object or a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Its value.
    Value,
    /// Whether a set has this member.
    IsMember(WireBytes),
    /// How many members or fields it has.
    Count,
    /// A range of a set's members.
    Members {
        /// The first one, there or not.
        from: Option<WireBytes>,
        /// How many, at most [`MEMBERS_MAX`].
        limit: u32,
    },
    /// What is known of the whole object beside its value.
    State,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inspected {
    /// There is no such object or field.
    NotFound {
        /// Which of them, in one line.
        reason: String,
    },
    /// The value.
    Value {
        /// Whether it is a map: an empty one has no parts.
        is_map: bool,
        /// Its parts.
        parts: Vec<InspectedPart>,
    },
    /// Whether the member is there.
    IsMember(bool),
    /// How many there are.
    Count(u64),
    /// A range of members.
    Members {
        /// In order.
        members: Vec<WireBytes>,
        /// The one that follows.
        next: Option<WireBytes>,
    },
    /// The causal state.
    State(InspectedState),
}

/// A part of a value. What follows the start of a field up to its end is the field's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InspectedPart {
    /// A counter's sum.
    Counter(i64),
    /// A member of a set.
    Member(WireBytes),
    /// A register's value.
    Register(WireBytes),
    /// A flag.
    Flag(bool),
    /// A HyperLogLog's estimate.
    Hll(u64),
    /// A field begins.
    FieldStart(InspectedField),
    /// It ends.
    FieldEnd,
}

/// The causal state of an object, for support.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedState {
    /// The context as clients are handed it.
    pub context: WireBytes,
    /// What it has seen: actors, and the times of their last writes.
    pub seen: Vec<InspectedDot>,
    /// The last data type update of each actor.
    pub data_type_clock: Vec<InspectedDot>,
    /// The plain values.
    pub siblings: Vec<InspectedSibling>,
    /// Whether all cells are in one row.
    pub packed: bool,
    /// Floors that are not swept yet.
    pub floors: u32,
}

/// A write: who, and when in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedDot {
    /// The actor.
    pub actor: u64,
    /// The time.
    pub time: u64,
}

/// A plain value, without the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedSibling {
    /// The write that put it.
    pub dot: InspectedDot,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// The value's size in bytes.
    pub size_bytes: u64,
}

/// Who shows parts of objects.
pub trait Inspector: Send + Sync + 'static {
    /// Answers, or says in one line why not.
    fn inspect(&self, inspection: Inspection) -> impl Future<Output = Result<Inspected, String>> + Send;

    /// Why nothing can be written until the server is restarted, if so.
    fn failure(&self) -> Option<String>;

    /// What was made durable since the server was started.
    fn durable_counts(&self) -> DurableCounts;

    /// What the store takes and does: phrases with the number that stands before each.
    fn store_measures(&self) -> Vec<(&'static str, u64)>;
}

impl Inspector for EngineAdmin {
    async fn inspect(&self, inspection: Inspection) -> Result<Inspected, String> {
        match self.ask(inspection).await {
            Err(error @ (InspectError::NotFound | InspectError::NoSuchField)) => {
                Ok(Inspected::NotFound { reason: error.to_string() })
            }
            answer => answer.map_err(|error| error.to_string()),
        }
    }

    fn failure(&self) -> Option<String> {
        self.engine.failure().map(|failure| failure.to_string())
    }

    fn durable_counts(&self) -> DurableCounts {
        self.engine.durable_counts()
    }

    fn store_measures(&self) -> Vec<(&'static str, u64)> {
        self.engine.store_measures()
    }
}

impl EngineAdmin {
    async fn ask(&self, inspection: Inspection) -> Result<Inspected, InspectError> {
        let Inspection { bucket_type, bucket, key, path, question } = inspection;
        let bucket = BucketName { bucket_type: bucket_type.0, bucket: bucket.0 };
        let name = ObjectName { bucket, key: key.0 };
        let field = |field: InspectedField| FieldName { name: field.name.0, kind: field.kind.into() };
        let path = Path::from(path.into_iter().map(field).collect::<Vec<_>>());
        let engine = self.engine.for_client();
        let found = match question {
            Question::Value => {
                let mut parts = Parts::default();
                let kind = engine.value_at(&name, &path, &mut parts).await?;
                Inspected::Value { is_map: kind.is_map(), parts: parts.parts }
            }
            Question::IsMember(member) => Inspected::IsMember(engine.is_member(&name, &path, &member.0).await?),
            Question::Count => Inspected::Count(engine.count(&name, &path).await?),
            Question::Members { from, limit } => {
                let range = MemberRange {
                    from: from.map(|member| member.0),
                    count_max: limit.min(MEMBERS_MAX) as usize,
                    size_bytes_max: REPLY_SIZE_BYTES_MAX,
                };
                let found = engine.members(&name, &path, range).await?;
                let members = found.members.into_iter().map(WireBytes).collect();
                Inspected::Members { members, next: found.next.map(WireBytes) }
            }
            Question::State => Inspected::State(engine.causal_state(&name).await?.into()),
        };
        engine.gates().opened(engine.gate()).await.map_err(EngineError::from)?;
        Ok(found)
    }
}

/// Collects parts while the reply has room for them.
#[derive(Default)]
struct Parts {
    parts: Vec<InspectedPart>,
    size_bytes: usize,
}

impl ValueSink for Parts {
    fn take(&mut self, part: Part<'_>) -> Result<(), Full> {
        let bytes = match &part {
            Part::Member(bytes) | Part::Register(bytes) => bytes.len(),
            Part::FieldStart(field) => field.name.len(),
            _ => 0,
        };
        self.size_bytes += PART_SIZE_BYTES + bytes;
        if self.size_bytes > REPLY_SIZE_BYTES_MAX {
            return Err(Full);
        }
        self.parts.push(match part {
            Part::Counter(sum) => InspectedPart::Counter(sum),
            Part::Member(member) => InspectedPart::Member(WireBytes(member.clone())),
            Part::Register(value) => InspectedPart::Register(WireBytes(value.clone())),
            Part::Flag(enabled) => InspectedPart::Flag(enabled),
            Part::Hll(estimate) => InspectedPart::Hll(estimate),
            Part::FieldStart(field) => {
                let name = WireBytes(field.name.clone());
                InspectedPart::FieldStart(InspectedField { name, kind: field.kind.into() })
            }
            Part::FieldEnd => InspectedPart::FieldEnd,
        });
        Ok(())
    }
}

impl From<InspectedKind> for FieldKind {
    fn from(kind: InspectedKind) -> Self {
        match kind {
            InspectedKind::Counter => Self::Counter,
            InspectedKind::Register => Self::Register,
            InspectedKind::Map => Self::Map,
            InspectedKind::Flag => Self::Flag,
            InspectedKind::Set => Self::Set,
        }
    }
}

impl From<FieldKind> for InspectedKind {
    fn from(kind: FieldKind) -> Self {
        match kind {
            FieldKind::Counter => Self::Counter,
            FieldKind::Register => Self::Register,
            FieldKind::Map => Self::Map,
            FieldKind::Flag => Self::Flag,
            FieldKind::Set => Self::Set,
        }
    }
}

impl From<CausalState> for InspectedState {
    fn from(state: CausalState) -> Self {
        let dots = |context: &CausalContext| {
            let dot = |&(actor, time): &(_, _)| dot_of(Dot { actor, time });
            context.entries().iter().map(dot).collect()
        };
        let siblings = state.siblings.iter().map(|sibling| InspectedSibling {
            dot: dot_of(sibling.dot),
            deleted: sibling.deleted,
            size_bytes: sibling.size_bytes as u64,
        });
        Self {
            context: WireBytes(state.context_bytes),
            seen: dots(&state.context),
            data_type_clock: dots(&state.data_type_clock),
            siblings: siblings.collect(),
            packed: state.layout == Layout::Packed,
            floors: state.floors,
        }
    }
}

fn dot_of(dot: Dot) -> InspectedDot {
    InspectedDot { actor: dot.actor.0, time: dot.time.0 }
}
