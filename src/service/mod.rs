//! Job: what Riak's messages mean. Turns a request into an operation of the engine, and its outcome into replies.
//! Knows: messages, the engine, the domain, and Riak's own words for what goes wrong.
//! Must not know: frames, connections, stores.

mod admin;
mod bucket;
mod datatype;
mod dispatch;
mod error;
mod index;
mod kv;
mod map_reduce_error;
mod options;
mod stream;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::engine::{self, Engine, EngineError};
use crate::mapreduce::MapReduceOptions;
use crate::message::map_op::{MapOpLayout, MapOpLayoutOption};
use crate::message::{MessageError, Reply, Request};

use self::error::Refusal;

/// What the service is told once.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// The node name that clients are told.
    pub node_name: Bytes,
    /// The Riak version that clients are told.
    pub server_version: Bytes,
    /// Which layouts of map operations are accepted.
    pub map_op_layout: MapOpLayoutOption,
    /// How many map operations may be inside each other, the outermost counted.
    pub map_depth_max: usize,
    /// Partitions of the ring that preflists are computed with.
    pub ring_size: u32,
    /// The most bytes of a data type's value in a reply, and of what an index query finds where it is no stream.
    pub reply_size_bytes_max: usize,
    /// Keys in one frame of a key listing.
    pub list_keys_chunk: usize,
    /// Buckets in one frame of a bucket listing.
    pub list_buckets_chunk: usize,
    /// Which listings are allowed.
    pub listings: Listings,
    /// Which index queries are allowed.
    pub index_queries: IndexQueries,
    /// Bounds on MapReduce jobs.
    pub map_reduce: MapReduceOptions,
}

/// Which listings are allowed.
#[derive(Clone, Copy, Debug)]
pub struct Listings {
    /// Buckets in one reply.
    pub buckets: bool,
    /// Buckets as a stream.
    pub buckets_stream: bool,
    /// The keys of a bucket.
    pub keys: bool,
}

/// Which index queries are allowed.
#[derive(Clone, Copy, Debug)]
pub struct IndexQueries {
    /// Those that are answered in one reply.
    pub whole: bool,
    /// Those that are answered as a stream.
    pub stream: bool,
}

/// What the service remembers of a connection.
#[derive(Debug)]
pub struct ClientState {
    /// The client id: set and told, and without any meaning (`kv.md` §4.3).
    client_id: Bytes,
    /// The layout that the connection's map operations have shown.
    map_op_layout: Option<MapOpLayout>,
}

impl Default for ClientState {
    fn default() -> Self {
        Self { client_id: Bytes::from_static(&[0; 4]), map_op_layout: None }
    }
}

/// What a connection sends for one request.
#[derive(Debug)]
pub enum Answer {
    /// One reply.
    Reply(Reply),
    /// One reply, after which the connection is closed.
    LastReply(Reply),
    /// Replies one by one until the channel ends. To drop it is to abandon the request.
    Stream(mpsc::Receiver<Reply>),
}

/// What an answer waits behind: it may be sent when all that it tells of is durable.
#[derive(Clone, Copy, Debug)]
pub struct Gate(engine::Gate);

/// The gates of a service.
#[derive(Clone)]
pub struct Gates(engine::Gates);

impl Gates {
    /// Whether a gate is open. Once it is, it stays so.
    pub fn is_open(&self, gate: Gate) -> bool {
        self.0.is_open(gate.0)
    }

    /// Waits until a gate opens.
    pub fn opened(&self, gate: Gate) -> Opening {
        Opening(self.0.opened(gate.0))
    }
}

/// Resolves when a gate opens, or never will: then with the reply that is to be sent in the answer's place.
#[must_use]
#[derive(Debug)]
pub struct Opening(engine::Durable);

impl Future for Opening {
    type Output = Result<(), Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let refusal = |error| Refusal::from(EngineError::from(error)).into_reply();
        Pin::new(&mut self.0).poll(context).map_err(refusal)
    }
}

/// Answers requests. Cloning gives another handle to the same service, for the same client.
#[derive(Clone)]
pub struct Service {
    engine: Engine,
    options: ServiceOptions,
}

impl Service {
    /// A service on the engine.
    pub fn new(engine: Engine, options: ServiceOptions) -> Self {
        Self { engine, options }
    }

    /// The service for another client.
    pub fn for_client(&self) -> Self {
        Self { engine: self.engine.for_client(), options: self.options.clone() }
    }

    /// Opens when everything that the client was answered by now may be sent.
    pub fn gate(&self) -> Gate {
        Gate(self.engine.gate())
    }

    /// The gates of this service.
    pub fn gates(&self) -> Gates {
        Gates(self.engine.gates())
    }

    /// Answers one request, or tells what is wrong with the bytes that were none.
    pub async fn answer(&self, state: &mut ClientState, request: Result<Request, MessageError>) -> Answer {
        let answered = match request {
            Ok(request) => dispatch::dispatch(self, state, request).await,
            Err(error) => Err(Refusal::from(error)),
        };
        answered.unwrap_or_else(Refusal::into_answer)
    }
}

/// The answer to a frame that is too large to be read. The connection cannot go on: the rest of the frame is not read.
pub fn frame_too_large() -> Reply {
    Refusal::open("Invalid message packet, reason: invalid").into_reply()
}
