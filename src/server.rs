//! Builds the rooms and stops them.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sysinfo::{ProcessesToUpdate, System};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, DeleteMode, Durability, MapOpLayout};
use crate::control::{
    ControlError, ControlServer, EngineAdmin, StandbyFeeder, StandbyPhase, StandbyProgress, StandbyRequest,
};
use crate::domain::datatype::limits::UpdateLimits;
use crate::domain::dot::ActorId;
use crate::domain::map::Partitions;
use crate::domain::object::ObjectLimits;
use crate::engine::maps::{MapError, MapOptions, Maps};
use crate::engine::{self, Engine, EngineError, EngineOptions};
use crate::grpc::{FeedOptions, FeedPhase, FeedProgress, GrpcListener, GrpcOptions, GrpcServer, TlsFiles};
use crate::mapreduce::{JavaScript, JavaScriptLimits, MapReduceOptions};
use crate::message::map_op::MapOpLayoutOption;
use crate::service::{IndexQueries, Listings, Service, ServiceOptions};
use crate::session::{Limits, Listener, ListenerOptions, SessionOptions};
use crate::store::Store;
pub use crate::store::embedded::Idleness;
use crate::store::embedded::{self, EmbeddedOptions, EmbeddedStore, MemoryShares, OpenError};

/// Open files that are no connections: the engine keeps up to 900, and a few are ours.
const FILES_BESIDE_CONNECTIONS: u64 = 1000;

/// Why the server did not run.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine cannot start on it.
    #[error("cannot start on the data directory {}: {cause}", data_dir.display())]
    Engine {
        /// The directory.
        data_dir: PathBuf,
        /// What failed.
        cause: EngineError,
    },
    /// The maps cannot start on it.
    #[error("cannot start the maps of the data directory {}: {cause}", data_dir.display())]
    Maps {
        /// The directory.
        data_dir: PathBuf,
        /// What failed.
        cause: MapError,
    },
    /// A file that the configuration names cannot be read.
    #[error("cannot read {}, which {key} names: {cause}", path.display())]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The certificate and its key are none.
    #[error("tls_certificate_file and tls_key_file are no certificate with its key: {cause}")]
    Tls {
        /// What is wrong with them.
        cause: tonic::transport::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address, as it was configured.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The control socket cannot be made.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The system has no random numbers for a new data directory's identity.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// Signals cannot be received.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// Runs the server until it is told to stop: store, engine, control socket, listeners; and back in the reverse order.
///
/// `idleness` is told by the threads of the runtime that this runs in when they rest.
pub async fn run(config: Config, idleness: Arc<Idleness>) -> Result<(), ServerError> {
    let mut signals = Signals::listen()?;
    raise_file_limit(config.connections_max.saturating_add(config.grpc_connections_max));
    let store = Arc::new(open_store(&config, idleness)?);
    let engine = Engine::start(store.clone(), engine_options(&config));
    let engine = engine.await.map_err(|cause| ServerError::Engine { data_dir: config.data_dir.clone(), cause })?;
    let maps = Maps::start(store.clone(), map_options(&config));
    let maps = maps.await.map_err(|cause| ServerError::Maps { data_dir: config.data_dir.clone(), cause })?;
    let service = Service::new(engine.clone(), service_options(&config));

    let mut listeners = Vec::new();
    let keepalive = (config.keepalive_ms > 0).then(|| Duration::from_millis(config.keepalive_ms.into()));
    for address in &config.pbc_listen {
        let listener = Listener::bind(address, keepalive).await;
        listeners.push(listener.map_err(|cause| ServerError::Listen { address: address.clone(), cause })?);
    }
    let grpc = bind_grpc(&config, &maps).await?;
    let standbys = Standbys { maps: maps.clone(), ca_certificates: optional_file("tls_ca_file", &config.tls_ca_file)? };
    let control = ControlServer::bind(&config.data_dir)?;
    for listener in &listeners {
        greet(format_args!("ombak {} serves Riak clients on {}", env!("CARGO_PKG_VERSION"), listener.address()));
    }
    if let Some(grpc) = &grpc {
        greet(format_args!("ombak {} serves maps over gRPC on {}", env!("CARGO_PKG_VERSION"), grpc.address()));
    }
    greet(format_args!("data in {}", config.data_dir.display()));

    let stopping = CancellationToken::new();
    let limits = Limits::new(config.connections_max, config.requests_in_flight_max, config.buffered_bytes_max);
    let mut front_ends = JoinSet::new();
    for listener in listeners {
        let options = ListenerOptions {
            session: SessionOptions {
                frame_size_bytes_max: config.frame_size_bytes_max,
                connection_requests_max: config.connection_requests_max,
                idle_timeout: (config.idle_timeout_ms > 0)
                    .then(|| Duration::from_millis(config.idle_timeout_ms.into())),
                frame_timeout: Duration::from_millis(config.frame_timeout_ms.into()),
                write_timeout: Duration::from_millis(config.write_timeout_ms.into()),
            },
            drain_timeout: Duration::from_millis(config.drain_timeout_ms),
        };
        front_ends.spawn(listener.serve(service.clone(), options, limits.clone(), stopping.clone()));
    }
    if let Some(grpc) = grpc {
        front_ends.spawn(grpc.serve(stopping.clone()));
    }
    let admin = EngineAdmin { engine, maps: maps.clone(), standbys: Box::new(standbys) };
    front_ends.spawn(control.serve(Arc::new(admin), stopping.clone()));

    signals.next().await;
    tracing::info!("stopping: no new requests are taken; a second signal stops at once");
    stopping.cancel();
    tokio::select! {
        () = async { while front_ends.join_next().await.is_some() {} } => {}
        () = signals.next() => tracing::warn!("stopped at once"),
    }
    maps.close();
    // Blocks until what is queued is durable: nothing else is left to run.
    store.close();
    Ok(())
}

/// Writes a line to standard output, for whoever waits for the server to be there. Where nobody reads that it serves all the
/// same.
fn greet(line: fmt::Arguments) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// The gRPC front end on its address, unless it is off.
async fn bind_grpc(config: &Config, maps: &Maps) -> Result<Option<GrpcServer>, ServerError> {
    if config.grpc_listen == config::OFF {
        return Ok(None);
    }
    let certificates = optional_file("tls_certificate_file", &config.tls_certificate_file)?;
    let key = optional_file("tls_key_file", &config.tls_key_file)?;
    let tls = certificates.zip(key).map(|(certificates, key)| TlsFiles { certificates, key });
    let listener = GrpcListener::bind(&config.grpc_listen).await;
    let listener = listener.map_err(|cause| ServerError::Listen { address: config.grpc_listen.clone(), cause })?;
    let server = GrpcServer::new(listener, maps.clone(), grpc_options(config, tls));
    server.map(Some).map_err(|cause| ServerError::Tls { cause })
}

/// The content of a file that may be left unnamed.
fn optional_file(key: &'static str, path: &Path) -> Result<Option<Vec<u8>>, ServerError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let content = std::fs::read(path);
    content.map(Some).map_err(|cause| ServerError::File { key, path: path.to_owned(), cause })
}

/// Feeds standbys over gRPC for whoever asks on the control socket.
struct Standbys {
    maps: Maps,
    ca_certificates: Option<Vec<u8>>,
}

impl StandbyFeeder for Standbys {
    fn feed<'a>(
        &'a self,
        request: StandbyRequest,
        tell: Box<dyn Fn(StandbyProgress) + Send + Sync + 'a>,
    ) -> Pin<Box<dyn Future<Output = String> + Send + 'a>> {
        let StandbyRequest { to, compare_all } = request;
        let options = FeedOptions { to, compare_all, ca_certificates: self.ca_certificates.clone() };
        let (progress, mut told) = watch::channel(FeedProgress::default());
        Box::pin(async move {
            let feed = crate::grpc::feed(self.maps.clone(), options, progress);
            let telling = async {
                while told.changed().await.is_ok() {
                    tell(standby_progress(&told.borrow_and_update()));
                }
                std::future::pending::<Infallible>().await
            };
            tokio::select! {
                ended = feed => match ended {
                    Err(error) => error.to_string(),
                    Ok(never) => match never {},
                },
                never = telling => match never {},
            }
        })
    }
}

fn standby_progress(progress: &FeedProgress) -> StandbyProgress {
    StandbyProgress {
        phase: match progress.phase {
            FeedPhase::Connecting => StandbyPhase::Connecting,
            FeedPhase::Comparing => StandbyPhase::Comparing,
            FeedPhase::Following => StandbyPhase::Following,
        },
        compared: progress.compared,
        keys: progress.keys,
        acknowledged: progress.acknowledged,
        behind: progress.behind,
        problem: progress.problem.clone(),
    }
}

/// Makes room for every connection that the configuration allows.
fn raise_file_limit(connections_max: usize) {
    let wanted = (connections_max as u64).saturating_add(FILES_BESIDE_CONNECTIONS);
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => tracing::warn!(limit, wanted, "the system allows fewer open files than connections_max needs"),
        Err(error) => tracing::warn!(%error, "cannot tell how many files may be open"),
    }
}

/// What memory there is for this process, in bytes: that of the machine, or what its control group leaves of it.
fn system_memory_bytes() -> u64 {
    // A system that tells nothing is taken for a small one.
    let Ok(mut system) = System::new() else { return 0 };
    system.refresh_memory();
    let mut limits = vec![system.total_memory()];
    limits.extend(system.cgroup_limits().map(|limits| limits.total_memory));
    if let Ok(own) = sysinfo::get_current_pid() {
        system.refresh_processes(ProcessesToUpdate::Some(&[own]), false);
        limits.extend(system.process(own).and_then(|own| own.cgroup_limits()).map(|limits| limits.total_memory));
    }
    // Where nothing is told of it, it is told as zero.
    limits.into_iter().filter(|&limit| limit > 0).min().unwrap_or_default()
}

fn open_store(config: &Config, idleness: Arc<Idleness>) -> Result<EmbeddedStore, ServerError> {
    let mut actor = [0; 8];
    getrandom::fill(&mut actor).map_err(ServerError::Random)?;
    let memory_bytes_max = match config.store_memory_bytes_max {
        0 => (system_memory_bytes() / 4).max(MemoryShares::MEMORY_BYTES_MIN),
        memory_bytes_max => memory_bytes_max,
    };
    let shares = MemoryShares::of(memory_bytes_max, (config.cache_size_bytes > 0).then_some(config.cache_size_bytes));
    let options = EmbeddedOptions {
        cache_size_bytes: shares.cache_bytes,
        rest_size_bytes: shares.rest_bytes,
        durability: match config.durability {
            Durability::Fsync => embedded::Durability::Fsync,
            Durability::Relaxed { interval_ms } => {
                embedded::Durability::Relaxed(Duration::from_millis(interval_ms.into()))
            }
        },
        unapplied_size_bytes_max: usize::try_from(shares.unapplied_bytes).unwrap_or(usize::MAX),
        idleness: Some(idleness),
        ..EmbeddedOptions::new(config.data_dir.clone(), ActorId(u64::from_be_bytes(actor)))
    };
    Ok(EmbeddedStore::open(options)?)
}

fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        delete_mode: match config.delete_mode {
            DeleteMode::After { delay_ms } => engine::DeleteMode::After(Duration::from_millis(delay_ms.into())),
            DeleteMode::Immediate => engine::DeleteMode::After(Duration::ZERO),
            DeleteMode::Keep => engine::DeleteMode::Keep,
        },
        tombstones_waiting_bytes_max: config.tombstones_waiting_bytes_max,
        object_limits: ObjectLimits {
            siblings_max: config.siblings_max,
            object_size_bytes_max: config.object_size_bytes_max,
        },
        object_warnings: ObjectLimits {
            siblings_max: config.siblings_warn,
            object_size_bytes_max: config.object_size_bytes_warn,
        },
        key_size_bytes_max: config.key_size_bytes_max,
        context_actors_max: config.context_actors_max,
        update_limits: UpdateLimits {
            elements_max: config.update_elements_max,
            member_size_bytes_max: config.member_size_bytes_max,
            field_name_size_bytes_max: config.field_name_size_bytes_max,
            names_size_bytes_max: config.update_names_bytes_max,
        },
        n_val_default: config.n_val_default,
        create_default_types: config.create_default_types,
        request_timeout_default: Duration::from_millis(config.request_timeout_ms_default.into()),
    }
}

fn map_options(config: &Config) -> MapOptions {
    let protocol = |text: &String| {
        let (namespace, name) = text.split_once('/').unwrap_or((text, ""));
        (namespace.to_owned().into(), name.to_owned().into())
    };
    MapOptions {
        // Checked with the configuration.
        partitions: Partitions::new(NonZeroU32::new(config.map_partitions).unwrap_or(NonZeroU32::MIN)),
        protocols: config.grpc_protocols.iter().map(protocol).collect(),
        key_size_bytes_max: config.map_key_size_bytes_max,
        value_size_bytes_max: config.map_value_size_bytes_max,
        name_size_bytes_max: config.map_name_size_bytes_max,
        tombstone_retention: Duration::from_millis(config.map_tombstone_retention_ms),
        request_timeout: Duration::from_millis(config.request_timeout_ms_default.into()),
    }
}

fn grpc_options(config: &Config, tls: Option<TlsFiles>) -> GrpcOptions {
    let advertised = config.grpc_advertised.rsplit_once(':');
    GrpcOptions {
        group_name: config.grpc_group_name.clone(),
        namespace: String::new(),
        member_name: config.node_name.clone(),
        advertised: advertised.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?))),
        partition_auto: config.grpc_partition_auto,
        message_size_bytes_max: config.grpc_message_size_bytes_max,
        requests_in_flight_max: config.grpc_requests_in_flight_max,
        streams_per_connection_max: config.grpc_streams_per_connection_max,
        connections_max: config.grpc_connections_max,
        open_streams_max: config.grpc_open_streams_max,
        entries_per_request_max: config.grpc_backup_entries_max,
        backup_requests_in_flight_max: config.grpc_backup_requests_in_flight_max,
        request_timeout: Duration::from_millis(config.frame_timeout_ms.into()),
        drain_timeout: Duration::from_millis(config.drain_timeout_ms),
        tls,
    }
}

fn service_options(config: &Config) -> ServiceOptions {
    ServiceOptions {
        node_name: config.node_name.clone().into(),
        server_version: config.server_version.clone().into(),
        map_op_layout: match config.map_op_layout {
            MapOpLayout::Auto => MapOpLayoutOption::Auto,
            MapOpLayout::Released => MapOpLayoutOption::Released,
            MapOpLayout::Preview => MapOpLayoutOption::Preview,
        },
        map_depth_max: config.map_depth_max,
        ring_size: config.ring_size,
        reply_size_bytes_max: config.frame_size_bytes_max,
        list_keys_chunk: config.list_keys_chunk,
        list_buckets_chunk: config.list_buckets_chunk,
        listings: Listings {
            buckets: config.list_buckets_enabled,
            buckets_stream: config.stream_list_buckets_enabled,
            keys: config.stream_list_keys_enabled,
        },
        index_queries: IndexQueries {
            whole: config.secondary_index_enabled,
            stream: config.stream_secondary_index_enabled,
        },
        map_reduce: map_reduce_options(config),
    }
}

fn map_reduce_options(config: &Config) -> MapReduceOptions {
    let javascript = JavaScriptLimits {
        batch_timeout: Duration::from_millis(config.mapreduce_javascript_timeout_ms_max),
        memory_bytes_max: config.mapreduce_javascript_memory_bytes_max,
        terms_max: config.mapreduce_terms_max,
        engines_max: config.mapreduce_javascript_engines_max,
    };
    MapReduceOptions {
        enabled: config.mapreduce_enabled,
        timeout_max: Duration::from_millis(config.mapreduce_timeout_ms_max),
        inputs_max: config.mapreduce_inputs_max,
        intermediate_bytes_max: config.mapreduce_memory_bytes_max,
        terms_max: config.mapreduce_terms_max,
        depth_max: config.mapreduce_depth_max,
        map_tasks_max: config.mapreduce_map_tasks_max,
        javascript: config.mapreduce_javascript.then(|| JavaScript::new(javascript)),
    }
}

/// The signals that tell the server to stop.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, ServerError> {
        let terminate = signal(SignalKind::terminate()).map_err(ServerError::Signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(ServerError::Signals)?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
