//! Job: run MapReduce jobs. Parses a job, finds its functions, pulls its inputs as they are needed, sends its results.
//! Knows: the engine, the domain, Erlang's terms, JSON, JavaScript.
//! Must not know: messages, connections, any front end; the words in which an error is told.

mod budget;
mod builtin;
mod error;
mod filter;
mod javascript;
mod job;
pub mod json;
mod parse_json;
mod parse_term;
mod plan;
mod run;
mod source;

use std::time::Duration;

pub use self::error::{
    Caller, Failure, Fault, FaultClass, InputsError, JobError, PhaseName, PhaseRefusal, QueryError, SendingError,
};
pub use self::filter::FilterError;
pub use self::javascript::{JavaScript, JavaScriptLimits};
pub use self::job::{Encoding, Function, IndexInput, Inputs, Job, LinkMatch, Phase, PhaseKind, Script};
pub use self::run::{PhaseResults, start};
use crate::erlang::external::TermLimits;

/// Bounds on each job. `Default` gives the values that are documented here.
#[derive(Clone, Debug)]
pub struct MapReduceOptions {
    /// Whether jobs are taken at all: yes.
    pub enabled: bool,
    /// The longest that a job may take, whatever it asks for: 24 hours. A job that asks for nothing has 60 seconds.
    pub timeout_max: Duration,
    /// The most inputs that a job may have, listed ones counted as they come: 10,000,000.
    pub inputs_max: usize,
    /// The most bytes that lie between phases at a time: results on their way to the next phase, and what reduce phases
    /// have gathered: 256 MiB.
    pub intermediate_bytes_max: usize,
    /// The most values that a job's text may consist of, those inside others counted: 2,000,000.
    pub terms_max: usize,
    /// The most phases, and the most lists and tuples inside each other in an external term: 64. JSON has a bound of its
    /// own on nesting.
    pub depth_max: usize,
    /// How many objects of one job are read and mapped at a time: 8.
    pub map_tasks_max: usize,
    /// What runs JavaScript phases: nothing, which is to refuse them as Riak 3 does.
    pub javascript: Option<JavaScript>,
}

impl Default for MapReduceOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            timeout_max: Duration::from_secs(24 * 60 * 60),
            inputs_max: 10_000_000,
            intermediate_bytes_max: 256 * 1024 * 1024,
            terms_max: 2_000_000,
            depth_max: 64,
            map_tasks_max: 8,
            javascript: None,
        }
    }
}

impl MapReduceOptions {
    /// The bounds on a job's text.
    pub fn term_limits(&self) -> TermLimits {
        TermLimits { depth_max: self.depth_max, terms_max: self.terms_max }
    }
}
