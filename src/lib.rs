//! Ombak: a server that existing Riak clients connect to unchanged, over a durable store of convergent data types.
//!
//! The rooms, first those that a request passes through, in its order:
//!
//! - [`frame`]: bytes of a connection to length-prefixed frames and back
//! - [`message`]: a frame's code and payload to a protocol message and back
//! - [`session`]: one task per connection: read, answer, write
//! - [`service`]: what Riak's messages mean: request to operation, outcome to reply
//! - [`grpc`]: the Atomix map over gRPC: for clients, for backups, towards a standby
//! - [`mapreduce`]: parses MapReduce jobs and runs them on the engine
//! - [`erlang`]: the terms of Erlang that Riak's protocol lets show
//! - [`domain`]: what requests mean, as pure functions over cells
//! - [`engine`]: runs operations: stripe, dot, plan, read, resolve, commit
//! - [`store`]: cells on disk or in memory
//!
//! Then those that start it, steer it and talk to it:
//!
//! - [`server`]: builds the rooms and stops them
//! - [`control`]: the server's unix socket: bucket types, status
//! - [`client`]: frame and message from the other side
//! - [`cli`]: one file per command
//! - [`config`]: one struct; file, then environment, then flags
#![warn(missing_docs, unreachable_pub)]
// They panic where nobody reads what they write.
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod domain;
pub mod engine;
pub mod erlang;
pub mod frame;
pub mod grpc;
pub mod mapreduce;
pub mod message;
pub mod server;
pub mod service;
pub mod session;
pub mod store;
