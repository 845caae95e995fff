//! Ways to a server that is held to the rules: the service in this process over either store, and the program over a socket.

use std::sync::Arc;
use std::time::Duration;

use ombak::domain::datatype::limits::UpdateLimits;
use ombak::domain::dot::ActorId;
use ombak::domain::object::ObjectLimits;
use ombak::domain::props::{Property, PropsChange};
use ombak::engine::{DeleteMode, Engine, EngineOptions};
use ombak::mapreduce::MapReduceOptions;
use ombak::message::map_op::MapOpLayoutOption;
use ombak::message::{Reply, Request};
use ombak::service::{Answer, ClientState, IndexQueries, Listings, Service, ServiceOptions};
use ombak::store::Store;
use ombak::store::embedded::{EmbeddedOptions, EmbeddedStore};
use ombak::store::memory::MemoryStore;
use tempfile::TempDir;

use crate::rules::{KEY_SIZE_BYTES_MAX, OBJECT_SIZE_BYTES_MAX, SIBLINGS_MAX};
use crate::support::{Connection, Server};

/// What becomes of tombstones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaping {
    Never,
    /// As soon as they stand alone.
    AtOnce,
    /// When the history says that their time has come. The clock stands still between.
    WhenTold,
}

pub trait Door {
    /// All replies to a request.
    async fn ask(&mut self, request: &Request) -> Vec<Reply>;

    /// Stops the server and starts it on the same data, where that is possible.
    async fn restart(&mut self);
}

fn limits() -> ObjectLimits {
    ObjectLimits { siblings_max: SIBLINGS_MAX, object_size_bytes_max: OBJECT_SIZE_BYTES_MAX }
}

/// The service in this process.
pub struct Inside {
    service: Service,
    engine: Engine,
    state: ClientState,
}

impl Inside {
    async fn start(store: Arc<dyn Store>, reaping: Reaping) -> Self {
        let options = EngineOptions {
            delete_mode: match reaping {
                Reaping::Never => DeleteMode::Keep,
                Reaping::AtOnce => DeleteMode::After(Duration::ZERO),
                Reaping::WhenTold => DeleteMode::After(REAPED_AFTER),
            },
            object_limits: limits(),
            object_warnings: limits(),
            key_size_bytes_max: KEY_SIZE_BYTES_MAX,
            n_val_default: 3,
            create_default_types: false,
            tombstones_waiting_bytes_max: 1024 * 1024,
            request_timeout_default: Duration::from_secs(60),
            context_actors_max: 100,
            update_limits: UpdateLimits {
                elements_max: 1,
                member_size_bytes_max: 1,
                field_name_size_bytes_max: 1,
                names_size_bytes_max: 1000,
            },
        };
        let engine = Engine::start(store, options).await.unwrap();
        let service = ServiceOptions {
            node_name: "riak@127.0.0.1".into(),
            server_version: "3.2.0".into(),
            map_op_layout: MapOpLayoutOption::Auto,
            map_depth_max: 32,
            ring_size: 64,
            reply_size_bytes_max: 1 << 20,
            // Small, so that listings have many frames.
            list_keys_chunk: 2,
            list_buckets_chunk: 2,
            index_queries: IndexQueries { whole: true, stream: true },
            listings: Listings { buckets: true, buckets_stream: true, keys: true },
            map_reduce: MapReduceOptions::default(),
        };
        Self { service: Service::new(engine.clone(), service), engine, state: ClientState::default() }
    }

    async fn create_types(&self) {
        let types: [(&'static str, &[Property]); 3] =
            [("plain", &[]), ("single", &[Property::AllowMult(false)]), ("once", &[Property::WriteOnce(true)])];
        for (name, properties) in types {
            let change = PropsChange { properties: properties.to_vec() };
            self.engine.buckets().create_type(name.into(), change).await.unwrap();
            self.engine.buckets().activate_type(name.into()).await.unwrap();
        }
    }

    async fn ask(&mut self, request: &Request) -> Vec<Reply> {
        match self.service.answer(&mut self.state, Ok(request.clone())).await {
            Answer::Reply(reply) => vec![reply],
            Answer::LastReply(reply) => panic!("{request:?} would close the connection: {reply:?}"),
            Answer::Stream(mut stream) => {
                let mut replies = Vec::new();
                while let Some(reply) = stream.recv().await {
                    replies.push(reply);
                }
                replies
            }
        }
    }
}

const REAPED_AFTER: Duration = Duration::from_secs(3);

/// Over the memory store, which cannot be restarted.
pub struct Memory(Inside);

impl Memory {
    pub async fn start(reaping: Reaping) -> Self {
        let inside = Inside::start(Arc::new(MemoryStore::new(ActorId(1))), reaping).await;
        inside.create_types().await;
        Self(inside)
    }
}

impl Door for Memory {
    async fn ask(&mut self, request: &Request) -> Vec<Reply> {
        self.0.ask(request).await
    }

    async fn restart(&mut self) {}
}

/// Over the embedded store.
pub struct Embedded {
    open: Option<(Arc<EmbeddedStore>, Inside)>,
    reaping: Reaping,
    dir: TempDir,
}

impl Embedded {
    pub async fn start(reaping: Reaping) -> Self {
        let mut embedded = Self { dir: tempfile::tempdir().unwrap(), reaping, open: None };
        embedded.restart().await;
        embedded.inside().create_types().await;
        embedded
    }

    fn inside(&mut self) -> &mut Inside {
        &mut self.open.as_mut().expect("open but for a restart").1
    }
}

impl Door for Embedded {
    async fn ask(&mut self, request: &Request) -> Vec<Reply> {
        self.inside().ask(request).await
    }

    async fn restart(&mut self) {
        if let Some((store, inside)) = self.open.take() {
            drop(inside);
            store.close();
            // The removal of tombstones ends with its engine, when it next gets its turn.
            while Arc::strong_count(&store) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let options = EmbeddedOptions {
            cache_size_bytes: 1024 * 1024,
            ..EmbeddedOptions::new(self.dir.path().join("data"), ActorId(1))
        };
        let store = Arc::new(EmbeddedStore::open(options).unwrap());
        self.open = Some((store.clone(), Inside::start(store, self.reaping).await));
    }
}

/// The program, over its socket; each restart is a crash.
pub struct Wire {
    // Closed before the directory is removed.
    open: Option<(Server, Connection)>,
    reaping: Reaping,
    dir: TempDir,
}

impl Wire {
    pub async fn start(reaping: Reaping) -> Self {
        let mut wire = Self { dir: tempfile::tempdir().unwrap(), reaping, open: None };
        wire.restart().await;
        let (server, _) = wire.open.as_ref().expect("started");
        server.create_type("plain", "{}");
        server.create_type("single", r#"{"allow_mult":false}"#);
        server.create_type("once", r#"{"write_once":true}"#);
        wire
    }
}

impl Door for Wire {
    async fn ask(&mut self, request: &Request) -> Vec<Reply> {
        let (_, connection) = self.open.as_mut().expect("open but for a restart");
        connection.send_frame(request.code().number(), &request.encode());
        let mut replies = Vec::new();
        loop {
            let (code, payload) = connection.receive();
            let reply = Reply::decode(code, payload.into()).unwrap();
            let goes_on = match &reply {
                Reply::ListKeys(part) => part.done != Some(true),
                Reply::ListBuckets(part) => {
                    let streams = matches!(request, Request::ListBuckets(list) if list.stream == Some(true));
                    streams && part.done != Some(true)
                }
                Reply::Index(part) => {
                    let streams = matches!(request, Request::Index(query) if query.stream == Some(true));
                    streams && part.done != Some(true)
                }
                _ => false,
            };
            replies.push(reply);
            if !goes_on {
                return replies;
            }
        }
    }

    async fn restart(&mut self) {
        if let Some((mut server, _)) = self.open.take() {
            server.kill();
        }
        let (siblings, size) = (SIBLINGS_MAX.to_string(), OBJECT_SIZE_BYTES_MAX.to_string());
        let key = KEY_SIZE_BYTES_MAX.to_string();
        let env = [
            ("OMBAK_DELETE_MODE", if self.reaping == Reaping::Never { "keep" } else { "immediate" }),
            ("OMBAK_SIBLINGS_MAX", &siblings),
            ("OMBAK_SIBLINGS_WARN", &siblings),
            ("OMBAK_OBJECT_SIZE_BYTES_MAX", &size),
            ("OMBAK_OBJECT_SIZE_BYTES_WARN", &size),
            ("OMBAK_KEY_SIZE_BYTES_MAX", &key),
            ("OMBAK_LIST_KEYS_CHUNK", "2"),
            ("OMBAK_LIST_BUCKETS_CHUNK", "2"),
        ];
        let server = Server::start_on(&self.dir.path().join("data"), &env);
        let connection = server.connect();
        self.open = Some((server, connection));
    }
}
