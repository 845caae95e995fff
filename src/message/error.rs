//! What can be wrong with a frame's code and payload.

use thiserror::Error;

/// Why a code and payload are no message that can be answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Nobody serves this code. Answered with an error; the connection stays open.
    #[error("unknown message code: {code}")]
    UnknownCode {
        /// The frame's code.
        code: u8,
    },
    /// The code of a reply, sent as a request. Answered with an error; the connection is closed.
    #[error("message code {code} is a reply, not a request")]
    NotARequest {
        /// The frame's code.
        code: u8,
    },
    /// The payload is not the message that its code names. Answered with an error; the connection is closed.
    #[error("malformed payload of message code {code}: {reason}")]
    Malformed {
        /// The frame's code.
        code: u8,
        /// What is wrong with the payload.
        reason: MalformedReason,
    },
}

/// What is wrong with a payload.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MalformedReason {
    /// A message with required fields came without any field.
    #[error("it is empty")]
    Empty,
    /// The bytes are no protocol buffers message with these fields.
    #[error(transparent)]
    Undecodable(#[from] prost::DecodeError),
}
