//! A server inside the test's process, on a disk that stalls as long as a test wants it to.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ombak::config::Config;
use ombak::domain::datatype::limits::UpdateLimits;
use ombak::domain::dot::ActorId;
use ombak::domain::object::ObjectLimits;
use ombak::engine::{DeleteMode, Engine, EngineOptions};
use ombak::mapreduce::MapReduceOptions;
use ombak::message::map_op::MapOpLayoutOption;
use ombak::service::{IndexQueries, Listings, Service, ServiceOptions};
use ombak::session::{Limits, Listener, ListenerOptions, SessionOptions};
use ombak::store::embedded::{Disk, EmbeddedOptions, EmbeddedStore};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::Connection;

/// A disk whose syncs take as long as it is stalled.
#[derive(Default)]
pub struct StallingDisk {
    state: Mutex<Stall>,
    changed: Condvar,
}

#[derive(Default)]
struct Stall {
    is_stalled: bool,
    /// Syncs that wait.
    waiting: usize,
}

impl StallingDisk {
    pub fn stall(&self) {
        self.state.lock().unwrap().is_stalled = true;
    }

    pub fn go_on(&self) {
        self.state.lock().unwrap().is_stalled = false;
        self.changed.notify_all();
    }

    /// Returns when a sync waits.
    pub fn wait_until_asked(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.waiting == 0).unwrap());
    }
}

impl Disk for StallingDisk {
    fn create(&self, path: &Path, _is_synced_at_once: bool) -> io::Result<File> {
        File::options().create_new(true).read(true).write(true).open(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.is_stalled).unwrap();
        state.waiting -= 1;
        drop(state);
        file.sync_data()
    }
}

/// The server. Dropping it lets the disk go on and stops it.
pub struct InProcess {
    pub address: SocketAddr,
    pub disk: Arc<StallingDisk>,
    /// Where it runs; a test's own tasks may run there too.
    pub runtime: Option<Runtime>,
    serving: Option<JoinHandle<()>>,
    stopping: CancellationToken,
    _dir: tempfile::TempDir,
}

impl InProcess {
    /// On a fresh data directory. Of the configuration the limits count that connections and writers meet.
    pub fn start(config: &Config) -> InProcess {
        Self::start_with_memory(config, 64 * 1024 * 1024)
    }

    /// The same with so many bytes for what the tables do not have yet.
    pub fn start_with_memory(config: &Config, unapplied_size_bytes_max: usize) -> InProcess {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let disk = Arc::new(StallingDisk::default());
        let options = EmbeddedOptions {
            unapplied_size_bytes_max,
            log_disk: disk.clone(),
            ..EmbeddedOptions::new(dir.path().join("data"), ActorId(7))
        };
        let store = Arc::new(EmbeddedStore::open(options).unwrap());
        let listener = async {
            let engine = Engine::start(store, engine_options(config)).await.unwrap();
            let keepalive = Duration::from_millis(config.keepalive_ms.into());
            let listener = Listener::bind("127.0.0.1:0", Some(keepalive)).await.unwrap();
            (listener, Service::new(engine, service_options(config)))
        };
        let (listener, service) = runtime.block_on(listener);
        let address = listener.address();
        let limits = Limits::new(config.connections_max, config.requests_in_flight_max, config.buffered_bytes_max);
        let stopping = CancellationToken::new();
        let serving = runtime.spawn(listener.serve(service, listener_options(config), limits, stopping.clone()));
        InProcess { address, disk, runtime: Some(runtime), serving: Some(serving), stopping, _dir: dir }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.disk.go_on();
        self.stopping.cancel();
        let Some(runtime) = self.runtime.take() else { return };
        if let Some(serving) = self.serving.take() {
            let _ = runtime.block_on(serving);
        }
    }
}

fn engine_options(config: &Config) -> EngineOptions {
    let no_limits = ObjectLimits { siblings_max: usize::MAX, object_size_bytes_max: usize::MAX };
    EngineOptions {
        context_actors_max: config.context_actors_max,
        tombstones_waiting_bytes_max: config.tombstones_waiting_bytes_max,
        delete_mode: DeleteMode::Keep,
        object_limits: no_limits,
        object_warnings: no_limits,
        key_size_bytes_max: config.key_size_bytes_max,
        update_limits: UpdateLimits {
            elements_max: config.update_elements_max,
            member_size_bytes_max: config.member_size_bytes_max,
            field_name_size_bytes_max: config.field_name_size_bytes_max,
            names_size_bytes_max: config.frame_size_bytes_max,
        },
        n_val_default: config.n_val_default,
        create_default_types: false,
        request_timeout_default: Duration::from_millis(config.request_timeout_ms_default.into()),
    }
}

fn service_options(config: &Config) -> ServiceOptions {
    ServiceOptions {
        node_name: "riak@127.0.0.1".into(),
        server_version: "3.2.0".into(),
        map_op_layout: MapOpLayoutOption::Auto,
        map_depth_max: config.map_depth_max,
        ring_size: config.ring_size,
        reply_size_bytes_max: config.frame_size_bytes_max,
        list_keys_chunk: config.list_keys_chunk,
        list_buckets_chunk: config.list_buckets_chunk,
        listings: Listings { buckets: true, buckets_stream: true, keys: true },
        index_queries: IndexQueries { whole: true, stream: true },
        map_reduce: MapReduceOptions::default(),
    }
}

fn listener_options(config: &Config) -> ListenerOptions {
    ListenerOptions {
        session: SessionOptions {
            frame_size_bytes_max: config.frame_size_bytes_max,
            connection_requests_max: config.connection_requests_max,
            idle_timeout: None,
            frame_timeout: Duration::from_millis(config.frame_timeout_ms.into()),
            write_timeout: Duration::from_millis(config.write_timeout_ms.into()),
        },
        drain_timeout: Duration::from_millis(config.drain_timeout_ms),
    }
}
