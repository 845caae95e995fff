//! Requests about data types.

pub(super) mod counter;
pub(super) mod fetch;
pub(super) mod update;
pub(super) mod value;

use crate::engine::EngineError;
use crate::erlang::print::binary;
use crate::service::error::Refusal;

/// The error of a data type request whose bucket type is not there, or another one in its usual words.
fn refusal(error: EngineError, bucket_type: &[u8]) -> Refusal {
    match error {
        EngineError::NoSuchType => Refusal::open(format!("Error no bucket type `{}`", binary(bucket_type))),
        other => other.into(),
    }
}
