//! Job: the Atomix map over gRPC.
//! Knows: the map's operations, and tonic.
//! Must not know: Riak's protocol, stores, connections.

pub mod generated;
