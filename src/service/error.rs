//! Every failure with the text that a Riak client reads: one table.

use bytes::Bytes;

use super::Answer;
use crate::domain::cell::FieldKind;
use crate::domain::datatype::UpdateError;
use crate::domain::index::IndexFailure;
use crate::domain::object::ObjectError;
use crate::domain::props::Hook;
use crate::engine::{EngineError, StoreError};
use crate::erlang::print::{atom, binary};
use crate::message::generated::RpbErrorResp;
use crate::message::map_op::MapOpError;
use crate::message::{MessageError, Reply};

/// A request that gets an error instead of its reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    text: String,
    closes: bool,
}

impl Refusal {
    /// An error after which the connection goes on.
    pub(super) fn open(text: impl Into<String>) -> Self {
        Self { text: text.into(), closes: false }
    }

    /// A request that is no request (row T3): the connection is closed, as Riak does after its handler has crashed.
    pub(super) fn malformed(reason: impl std::fmt::Display) -> Self {
        Self { text: format!("Error processing incoming message: error:{reason}"), closes: true }
    }

    pub(super) fn into_reply(self) -> Reply {
        // The code is 0 for every error; clients take another for a different shape of error.
        Reply::Error(RpbErrorResp { errmsg: Bytes::from(self.text), errcode: 0 })
    }

    pub(super) fn into_answer(self) -> Answer {
        if self.closes { Answer::LastReply(self.into_reply()) } else { Answer::Reply(self.into_reply()) }
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::UnknownCode { code } => Self::open(format!("Unknown message code: {code}")),
            MessageError::NotARequest { .. } | MessageError::Malformed { .. } => Self::malformed(error),
        }
    }
}

impl From<MapOpError> for Refusal {
    fn from(error: MapOpError) -> Self {
        match error {
            MapOpError::Malformed(defect) => Self::malformed(defect),
            MapOpError::LayoutRefused { .. } | MapOpError::TooDeep { .. } => Self::open(error.to_string()),
        }
    }
}

/// The text of a value that an index cannot be asked for. Riak closes the connection after it, which helps nobody.
impl From<IndexFailure> for Refusal {
    fn from(failure: IndexFailure) -> Self {
        Self::open(index_failure(&failure))
    }
}

/// The text of a failed operation. A bucket type that is missing reads differently in every family of requests: this is
/// the text of get, put and delete.
impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let text = match error {
            EngineError::NoSuchType => "no_type".into(),
            EngineError::Quorum(error) => error.to_string(),
            EngineError::Object(error) => object(&error),
            EngineError::Update(error) => update(&error),
            EngineError::UpdateLimit(error) => error.to_string(),
            EngineError::BucketTooLarge { .. } => error.to_string(),
            EngineError::Context(_) => "invalid_context".into(),
            EngineError::TooManyActors(count) => format!("{{too_many_actors,{count}}}"),
            EngineError::Index(error) => {
                let failures: Vec<_> = error.0.iter().map(index_failure).collect();
                format!("{{precommit_fail,[{}]}}", failures.join(","))
            }
            EngineError::KeyTooLarge { .. } => "Error processing incoming message: {error,key_too_large}".into(),
            EngineError::Precommit(hook) => precommit(&hook),
            EngineError::ConsistentUnavailable => "unavailable".into(),
            EngineError::MustAllowMult => "\"Bucket must be allow_mult=true\"".into(),
            EngineError::NoDataType => "`undefined` is not a supported type".into(),
            EngineError::DataTypeMismatch { operation, bucket } => {
                // Two blanks: they are Riak's.
                let (operation, bucket) = (operation.name(), bucket.name());
                format!("Operation type is `{operation}` but  bucket type is `{bucket}`.")
            }
            EngineError::ValueTooLarge => error.to_string(),
            EngineError::Props(error) => format!("Invalid bucket properties: {error}"),
            EngineError::Timeout => "timeout".into(),
            EngineError::Store(error) => return store(&error),
            EngineError::Random(_) => {
                tracing::error!(%error, "a request failed");
                error.to_string()
            }
        };
        Self::open(text)
    }
}

fn object(error: &ObjectError) -> String {
    match error {
        ObjectError::MatchFound => "match_found".into(),
        ObjectError::Modified => "modified".into(),
        ObjectError::NotFound => "notfound".into(),
        ObjectError::TooManySiblings(count) => format!("{{too_many_siblings,{count}}}"),
        ObjectError::TooLarge(bytes) => format!("{{too_large,{bytes}}}"),
    }
}

fn update(error: &UpdateError) -> String {
    match error {
        UpdateError::MemberNotPresent(member) => format!("{{precondition,{{not_present,{}}}}}", binary(member)),
        UpdateError::FieldNotPresent(field) => {
            let module = match field.kind {
                FieldKind::Counter => "riak_dt_emcntr",
                FieldKind::Set => "riak_dt_orswot",
                FieldKind::Register => "riak_dt_lwwreg",
                FieldKind::Flag => "riak_dt_od_flag",
                FieldKind::Map => "riak_dt_map",
            };
            format!("{{precondition,{{not_present,{{{},{module}}}}}}}", binary(&field.name))
        }
        UpdateError::CounterOverflow => "counter_overflow".into(),
    }
}

pub(super) fn index_failure(failure: &IndexFailure) -> String {
    match failure {
        IndexFailure::UnknownType { name } => format!("{{unknown_field_type,{}}}", binary(name)),
        IndexFailure::Parsing { name, value } => {
            format!("{{field_parsing_failed,{{{},{}}}}}", binary(name), binary(value))
        }
    }
}

fn precommit(hook: &Hook) -> String {
    match hook {
        Hook::ModFun(hook) => {
            let (module, function) = (atom(&hook.module), atom(&hook.function));
            format!("{{precommit_fail,{{hook_crashed,{{{module},{function},error,undef}}}}}}")
        }
        Hook::Name(name) => {
            format!("{{precommit_fail,{{invalid_hook_def,{{struct,[{{<<\"name\">>,{}}}]}}}}}}", binary(name))
        }
    }
}

fn store(error: &StoreError) -> Refusal {
    match error {
        // Said once at ERROR where it happened; every write that follows fails the same way.
        StoreError::ReadOnly { .. } | StoreError::Closed => tracing::debug!(%error, "a request failed"),
        StoreError::TooLarge { .. } | StoreError::Crowded { .. } => tracing::warn!(%error, "a request was refused"),
        StoreError::Engine { .. } | StoreError::Damaged { .. } => tracing::error!(%error, "a request failed"),
    }
    Refusal::open(error.to_string())
}
