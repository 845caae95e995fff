//! Ombak: a server that existing Riak clients connect to unchanged, over a durable store of convergent data types.
//!
//! The rooms, in reading order:
//! - [`frame`]: length, code, payload.
//! - [`message`]: code and payload to typed message and back.
//! - [`client`]: frame and message from the other side.
//! - [`control`]: the server's unix socket: bucket types, status.
//! - [`config`]: one struct; file, then environment, then flags.
#![warn(missing_docs, unreachable_pub)]
#![forbid(unsafe_code)]

pub mod client;
pub mod config;
pub mod control;
pub mod frame;
pub mod message;
