//! The Atomix map over gRPC, against a real server: bytes, streams, standbys, crashes.

mod client;
mod crash;
mod inside;
mod process;
mod standby;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod wire;
