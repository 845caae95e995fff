//! The server's unix-domain socket in its data directory: bucket types, status and parts of objects, one JSON line each
//! way.
//! Knows what an administrator can ask, and that somebody answers ([`BucketTypeAdmin`], [`Inspector`], [`MapAdmin`]).
//! Must not know the wire protocol of clients, sessions or stores.

mod bucket_types;
mod client;
mod inspect;
mod maps;
mod message;
mod props;
mod server;
mod socket;

use std::path::PathBuf;

pub use bucket_types::EngineAdmin;
pub use client::{Replies, request, request_stream};
pub use inspect::{
    Inspected, InspectedDot, InspectedField, InspectedKind, InspectedPart, InspectedSibling, InspectedState,
    Inspection, Inspector, MEMBERS_MAX, Question, WireBytes,
};
pub use maps::{MapAdmin, MapChange, MapPlace, MapValue, StandbyFeeder, StandbyPhase, StandbyProgress, StandbyRequest};
pub use message::{BucketTypeEntry, BucketTypeState, ControlReply, ControlRequest, PropsProblem};
pub use props::parse_props;
pub use server::{ActivateRefusal, BucketTypeAdmin, BucketTypeStatus, ChangeRefusal, ControlServer};

/// The socket's file name in the data directory.
pub const SOCKET_NAME: &str = "control.sock";

/// Longest line in either direction. Property lists are small; a peer that sends more is not ours.
pub const LINE_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// Why the control socket cannot be served, or a request to it has no reply.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody serves this directory.
    #[error(
        "No Ombak server is running on data directory {} (no control socket)",
        data_dir.display()
    )]
    NoServer {
        /// The directory that was asked about.
        data_dir: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot make the control socket in {}: {cause}", data_dir.display())]
    Bind {
        /// The directory.
        data_dir: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Something that is no socket has its name.
    #[error("{} is in the way of the control socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The conversation broke.
    #[error("cannot talk to the server on data directory {}: {cause}", data_dir.display())]
    Io {
        /// The directory.
        data_dir: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A line is over [`LINE_SIZE_BYTES_MAX`].
    #[error("a control message is longer than {LINE_SIZE_BYTES_MAX} bytes")]
    LineTooLong,
    /// The server's line is no reply that this program knows, which a server of another release may send.
    #[error("the server sent a reply that this `ombak` does not understand: {reason}")]
    BadReply {
        /// What the parser said.
        reason: String,
    },
}
