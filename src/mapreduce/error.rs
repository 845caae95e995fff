//! Why a job is refused or fails.

use bytes::Bytes;
use thiserror::Error;

use super::filter::FilterError;
use super::json::RenderError;
use crate::domain::index::IndexError;
use crate::engine::EngineError;
use crate::erlang::Term;
use crate::erlang::external::{DecodeError, EncodeError};

/// Why a job is refused or fails.
#[derive(Debug, Error)]
pub enum JobError {
    /// A job is neither JSON nor an external term.
    #[error("jobs of type {0:?} are not known")]
    UnknownContentType(Bytes),
    /// The JSON does not parse.
    #[error("the job is no JSON: {0}")]
    InvalidJson(#[from] serde_json::Error),
    /// The JSON is no object.
    #[error("the job is no JSON object")]
    NotAnObject,
    /// Inputs or query are missing.
    #[error("the job has no inputs or no query")]
    MissingField,
    /// The bytes are no external term.
    #[error(transparent)]
    InvalidTerm(#[from] DecodeError),
    /// The external term is no property list.
    #[error("the job is no property list")]
    NotAPropertyList,
    /// The inputs are malformed.
    #[error("the inputs are malformed")]
    Inputs(#[from] InputsError),
    /// The query is malformed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A phase that cannot be run.
    #[error("phase {phase} cannot be run: {reason}")]
    Phase {
        /// Which one.
        phase: PhaseName,
        /// Why.
        reason: PhaseRefusal,
    },
    /// A phase is Erlang source, which is not run.
    #[error("Erlang source is not run")]
    ErlangSource,
    /// The inputs cannot be had.
    #[error("the inputs cannot be had: {0}")]
    Sending(#[from] SendingError),
    /// A function failed.
    #[error("phase {} failed", .0.phase)]
    Failed(Box<Failure>),
    /// A result cannot be written as JSON.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A result cannot be written as an external term.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The job took longer than it may.
    #[error("timeout")]
    Timeout,
    /// The job has more inputs than it may.
    #[error("the job has more than {max} inputs")]
    TooManyInputs {
        /// The limit.
        max: usize,
    },
    /// What lies between the job's phases takes more memory than it may.
    #[error("the job needs more than {max} bytes between its phases")]
    TooMuchMemory {
        /// The limit, in bytes.
        max: usize,
    },
    /// A part of the server stopped that should not have.
    #[error("the job was interrupted")]
    Interrupted,
}

/// What is wrong with a job's inputs.
#[derive(Debug, PartialEq, Error)]
pub enum InputsError {
    /// An empty list.
    #[error("there are none")]
    None,
    /// A value that is none of the forms.
    #[error("{0:?} is none of the forms")]
    Unrecognized(Term),
    /// An index query that cannot be.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// What is wrong with a job's query.
#[derive(Debug, PartialEq, Error)]
pub enum QueryError {
    /// It is no list.
    #[error("it is no list")]
    NotAList(Term),
    /// A phase that is no phase.
    #[error("{0:?} is no phase")]
    UnrecognizedPhase(Term),
    /// `keep` is neither true nor false.
    #[error("keep is no boolean")]
    Keep(Term),
    /// A link phase whose bucket or tag is no string.
    #[error("a link phase's bucket and tag must be strings")]
    Link(Term),
    /// A phase without a language.
    #[error("a phase has no language")]
    NoLanguage(Term),
    /// A language that is not known.
    #[error("a phase's language is not known")]
    UnknownLanguage(Term),
    /// A phase whose function is not named in one of the ways.
    #[error("a phase has no {language} function")]
    NoFunction {
        /// The phase's language.
        language: &'static str,
        /// The phase.
        phase: Term,
    },
    /// There are too many phases.
    #[error("there are more than {max} phases")]
    TooManyPhases {
        /// The limit.
        max: usize,
    },
}

/// A phase, as Riak names it where one cannot be run: the last by its number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseName {
    /// The phase, counted from 0.
    pub index: usize,
    /// What calls its function.
    pub caller: Caller,
    /// Whether it is the last one.
    pub is_last: bool,
}

impl std::fmt::Display for PhaseName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let index = self.index;
        match (self.is_last, self.caller) {
            (true, _) => write!(f, "{index}"),
            (false, Caller::Map) => write!(f, "{{xform_map,{index}}}"),
            (false, Caller::Reduce) => write!(f, "{{reduce,{index}}}"),
        }
    }
}

/// What calls a phase's function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A map phase.
    Map,
    /// A reduce phase.
    Reduce,
}

/// Why a phase's function cannot be called.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PhaseRefusal {
    /// There is no such module.
    #[error("there is no module {module:?}")]
    NoModule {
        /// Its name.
        module: Bytes,
    },
    /// The module has no such function for this kind of phase.
    #[error("{module:?} has no function {function:?} here")]
    NotExported {
        /// The module.
        module: Bytes,
        /// The function.
        function: Bytes,
    },
    /// The function is in a language that is not run, or not named in one of the ways.
    #[error("the function is not one that can be called")]
    NotCallable,
}

/// Why a job's inputs cannot be had.
#[derive(Debug, Error)]
pub enum SendingError {
    /// A key filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The bucket type does not exist.
    #[error("there is no bucket type {0:?}")]
    NoSuchType(Bytes),
    /// The listing failed.
    #[error(transparent)]
    Engine(EngineError),
    /// A search.
    #[error("search not enabled")]
    SearchUnavailable,
    /// A function that cannot be run.
    #[error("there is no function {module:?}:{function:?}")]
    Function {
        /// Its module.
        module: Bytes,
        /// Its name.
        function: Bytes,
        /// What it was to be called with.
        arg: Term,
    },
}

/// A phase that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The phase, counted from 0.
    pub phase: u32,
    /// How.
    pub fault: Fault,
    /// What the function was given.
    pub input: Term,
}

/// How a function failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The reason, as Erlang would tell it.
    pub reason: Term,
    /// Whether the function threw the reason, or it was an error.
    pub class: FaultClass,
    /// Where: a function's name and arity.
    pub place: (&'static str, u8),
}

/// Whether a function threw its reason, or it was an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// An error.
    Error,
    /// Thrown.
    Throw,
}
