//! Ombak: a server that existing Riak clients connect to unchanged.
//!
//! The rooms, in the order in which a request passes through them:
//!
//! - [`frame`]: bytes of a connection to length-prefixed frames and back
//! - [`message`]: a frame's code and payload to a protocol message and back
//! - [`domain`]: what requests mean, as pure functions over cells
//! - [`engine`]: runs operations: stripe, dot, plan, read, resolve, commit
//! - [`store`]: cells on disk or in memory
#![warn(missing_docs, unreachable_pub)]
#![forbid(unsafe_code)]

pub mod domain;
pub mod engine;
pub mod frame;
pub mod message;
pub mod store;
