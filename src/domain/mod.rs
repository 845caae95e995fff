//! Job: objects, data types, bucket properties and causality as pure functions of what they are given.
//! Knows: actors, dots, contexts, cells, floors, and Riak's rules for what a client sees.
//! Must not know: I/O, clocks, randomness, async, generated types, stores.

pub mod base62;
pub mod cell;
pub mod context;
pub mod datatype;
pub mod delta;
pub mod dot;
pub mod index;
pub mod key;
pub mod map;
pub mod object;
pub mod pattern;
pub mod props;
pub mod quorum;
pub mod replica;
pub mod ring;
