//! Ombak: a server that existing Riak clients connect to unchanged, over a durable store of convergent data types.
//!
//! The rooms, in reading order:
//! - [`frame`]: length, code, payload.
//! - [`message`]: code and payload to typed message and back.
//! - [`server`]: builds the rooms and stops them.
//! - [`client`]: frame and message from the other side.
//! - [`control`]: the server's unix socket: bucket types, status.
//! - [`cli`]: one file per command.
//! - [`config`]: one struct; file, then environment, then flags.
#![warn(missing_docs, unreachable_pub)]
#![forbid(unsafe_code)]

pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod frame;
pub mod message;
pub mod server;
