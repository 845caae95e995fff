//! A service on a store in memory, and clients that talk to it and check the form of every answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ombak::domain::datatype::limits::UpdateLimits;
use ombak::domain::dot::ActorId;
use ombak::domain::object::ObjectLimits;
use ombak::domain::props::{Property, PropsChange};
use ombak::engine::{DeleteMode, Engine, EngineOptions};
use ombak::mapreduce::MapReduceOptions;
use ombak::message::map_op::MapOpLayoutOption;
use ombak::message::{Reply, Request};
use ombak::service::{Answer, ClientState, IndexQueries, Listings, Service, ServiceOptions};
use ombak::store::memory::MemoryStore;
use tokio::runtime::Runtime;

/// Frames of one answer, far more than short inputs can ask for.
const FRAMES_MAX: usize = 100_000;
/// How long the longest request may wait for itself, in time that does not pass by itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// Runs a conversation with a service of its own, and ends all that is left of it.
pub fn converse<C: AsyncFnOnce(Clients)>(conversation: C) {
    let runtime = runtime();
    runtime.block_on(async {
        let clients = Clients::start().await;
        conversation(clients).await;
    });
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O")
}

/// Connections to one service.
pub struct Clients {
    service: Service,
    states: [ClientState; 2],
    seen: Vec<Bytes>,
}

impl Clients {
    async fn start() -> Self {
        let engine = Engine::start(Arc::new(MemoryStore::new(ActorId(1))), engine_options()).await;
        let engine = engine.expect("a store in memory has nothing to fail on");
        let single = [Property::AllowMult(false), Property::LastWriteWins(true), Property::DvvEnabled(false)];
        let types: [(&'static str, &[Property]); 3] =
            [("plain", &[]), ("lww", &single), ("wo", &[Property::WriteOnce(true)])];
        for (name, properties) in types {
            let change = PropsChange { properties: properties.to_vec() };
            engine.buckets().create_type(name.into(), change).await.expect("the type is new");
            engine.buckets().activate_type(name.into()).await.expect("the type is there");
        }
        let service = Service::new(engine, service_options());
        Self { service, states: Default::default(), seen: Vec::new() }
    }

    /// Contexts, continuations and generated keys that replies have brought, in order.
    pub fn seen(&self) -> &[Bytes] {
        &self.seen
    }

    /// Sends a frame on one of the connections and takes all of its answer.
    ///
    /// # Panics
    /// When the answer is none to this request, or does not end.
    pub async fn ask(&mut self, connection: usize, code: u8, payload: Bytes) {
        let connection = connection % self.states.len();
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, self.answer(connection, code, payload));
        answered.await.expect("every request is answered");
    }

    async fn answer(&mut self, connection: usize, code: u8, payload: Bytes) {
        let request = Request::decode(code, payload);
        match self.service.answer(&mut self.states[connection], request).await {
            Answer::Reply(reply) => {
                self.take(code, &reply);
            }
            Answer::LastReply(reply) => {
                self.take(code, &reply);
                self.states[connection] = ClientState::default();
            }
            Answer::Stream(mut replies) => {
                let mut frames = 0;
                let mut ended = false;
                while let Some(reply) = replies.recv().await {
                    assert!(!ended, "a frame follows the last one: {reply:?}");
                    ended = self.take(code, &reply);
                    frames += 1;
                    assert!(frames <= FRAMES_MAX, "code {code} is answered without an end");
                }
                assert!(ended, "code {code}: the stream has no last frame");
            }
        }
    }

    /// Looks at a reply as a client would. Whether it is the last of a stream.
    fn take(&mut self, code: u8, reply: &Reply) -> bool {
        let encoded = reply.encode();
        assert_eq!(reply.encode_parts().concat(), encoded);
        let number = reply.code().number();
        assert!(number == 0 || reply_codes(code).contains(&number), "code {code} is answered by {number}");
        let decoded = Reply::decode(number, encoded).expect("a client can read every reply");
        let (done, opaque) = match decoded {
            Reply::Error(error) => {
                assert!(!error.errmsg.is_empty());
                (true, [None, None])
            }
            Reply::Get(reply) => (false, [reply.vclock, None]),
            Reply::Put(reply) => (false, [reply.vclock, reply.key]),
            Reply::DtFetch(reply) => (false, [reply.context, None]),
            Reply::DtUpdate(reply) => (false, [reply.context, reply.key]),
            Reply::Index(reply) => (reply.done(), [reply.continuation, None]),
            Reply::IndexBody(reply) => (reply.done(), [reply.continuation, None]),
            Reply::CsBucket(reply) => (reply.done(), [reply.continuation, None]),
            Reply::ListBuckets(reply) => (reply.done(), [None, None]),
            Reply::ListKeys(reply) => (reply.done(), [None, None]),
            Reply::MapReduce(reply) => (reply.done(), [None, None]),
            _ => (false, [None, None]),
        };
        self.seen.extend(opaque.into_iter().flatten());
        done
    }
}

/// The codes of replies to a request besides that of an error.
fn reply_codes(code: u8) -> &'static [u8] {
    match code {
        1 => &[2],
        3 => &[4],
        5 => &[6],
        7 => &[8],
        9 => &[10],
        11 => &[12],
        13 => &[14],
        15 => &[16],
        17 => &[18],
        19 | 31 => &[20],
        21 | 32 => &[22],
        23 => &[24],
        25 => &[26, 42],
        29 => &[30],
        33 => &[34],
        40 => &[41],
        50 => &[51],
        52 => &[53],
        80 => &[81],
        82 => &[83],
        _ => &[],
    }
}

/// Bounds that short inputs reach.
fn engine_options() -> EngineOptions {
    let limits = ObjectLimits { siblings_max: 4, object_size_bytes_max: 512 };
    EngineOptions {
        delete_mode: DeleteMode::After(Duration::from_secs(3)),
        tombstones_waiting_bytes_max: 1 << 20,
        object_limits: limits,
        object_warnings: limits,
        key_size_bytes_max: 32,
        context_actors_max: 100,
        update_limits: UpdateLimits {
            elements_max: 64,
            member_size_bytes_max: 32,
            field_name_size_bytes_max: 32,
            names_size_bytes_max: 1000,
        },
        n_val_default: 3,
        create_default_types: true,
        request_timeout_default: Duration::from_secs(60),
    }
}

fn service_options() -> ServiceOptions {
    ServiceOptions {
        node_name: "riak@127.0.0.1".into(),
        server_version: "3.2.0".into(),
        map_op_layout: MapOpLayoutOption::Auto,
        map_depth_max: 8,
        ring_size: 64,
        reply_size_bytes_max: 1024,
        list_keys_chunk: 2,
        list_buckets_chunk: 2,
        listings: Listings { buckets: true, buckets_stream: true, keys: true },
        index_queries: IndexQueries { whole: true, stream: true },
        map_reduce: MapReduceOptions {
            inputs_max: 100,
            intermediate_bytes_max: 4096,
            terms_max: 500,
            depth_max: 16,
            ..MapReduceOptions::default()
        },
    }
}
