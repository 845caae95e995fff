//! Ombak: a server that Riak clients connect to unchanged, over a durable store of convergent data types.
//!
//! The rooms that a person meets from outside:
//! - [`config`]: one struct; file, then environment, then flags.
//! - [`control`]: the server's unix socket: bucket types, status.
#![warn(missing_docs, unreachable_pub)]
#![forbid(unsafe_code)]

pub mod config;
pub mod control;
