//! Ombak: a server that existing Riak clients connect to unchanged.

#![warn(missing_docs, unreachable_pub)]
#![forbid(unsafe_code)]

pub mod frame;
pub mod message;
