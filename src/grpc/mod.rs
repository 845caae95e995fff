//! Job: the Atomix map over gRPC, for clients, for backups, and towards a standby.
//! Knows: the maps' operations, and tonic. A file is a service; `map.rs` has one function for each rpc.
//! Must not know: Riak's protocol, stores, the control socket.

mod backup;
mod cluster;
mod deadline;
mod error;
mod feed;
pub mod generated;
mod header;
mod listener;
mod map;
mod partition;
mod standby;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::{HeaderValue, Response};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::util::MapResponseLayer;

use self::backup::Streams;
use self::cluster::ClusterServer;
use self::deadline::DeadlineLayer;
use self::generated::FILE_DESCRIPTORS;
use self::generated::atomix::cluster::cluster_service_server::{ClusterServiceServer, SERVICE_NAME as CLUSTER_SERVICE};
use self::generated::atomix::partition::partition_service_server::{
    PartitionServiceServer, SERVICE_NAME as PARTITION_SERVICE,
};
use self::generated::atomix::pb::map::map_service_server::{MapServiceServer, SERVICE_NAME as MAP_SERVICE};
use self::generated::ombak::standby::standby_service_server::StandbyServiceServer;
use self::map::MapServer;
use self::partition::PartitionServer;
use self::standby::StandbyServer;
use crate::engine::maps::Maps;

pub use self::feed::{FeedError, FeedOptions, FeedPhase, FeedProgress, feed};
pub use self::listener::GrpcListener;

/// The metadata in which a server names its data directory.
const NODE_METADATA: &str = "ombak-node";

/// A peer that has not finished its TLS handshake by then is dropped.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections on which nothing moves for this long are asked whether anybody is there, and dropped if not.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What can be asked of the health service. The empty name is the whole server.
const HEALTH_SERVICES: [&str; 4] = ["", MAP_SERVICE, PARTITION_SERVICE, CLUSTER_SERVICE];

/// What the gRPC front end is told once.
#[derive(Clone, Debug)]
pub struct GrpcOptions {
    /// The name of the group of partitions where a request names none.
    pub group_name: String,
    /// The namespace of this server's member id.
    pub namespace: String,
    /// This server's name among the members.
    pub member_name: String,
    /// Host and port that clients are told; the listener's own where absent.
    pub advertised: Option<(String, u16)>,
    /// Whether partition 0 in a request stands for the one that the key belongs to.
    pub partition_auto: bool,
    /// The largest message, in bytes.
    pub message_size_bytes_max: usize,
    /// Requests in work at a time, over all connections; further ones wait.
    pub requests_in_flight_max: usize,
    /// Streams at a time on one connection.
    pub streams_per_connection_max: u32,
    /// Connections at a time; further ones wait.
    pub connections_max: usize,
    /// Streams that stay open, at a time, over all connections; further ones are refused.
    pub open_streams_max: usize,
    /// Entries of one request of a Backup stream.
    pub entries_per_request_max: usize,
    /// Requests of a Backup stream that are in work at a time.
    pub backup_requests_in_flight_max: usize,
    /// How long a request may take, from its first byte until it is answered or, of a stream, begun.
    pub request_timeout: Duration,
    /// How long requests in work may take when the server stops.
    pub drain_timeout: Duration,
    /// Certificate and key, both in PEM, where the listener speaks TLS.
    pub tls: Option<TlsFiles>,
}

/// A certificate chain and its key.
#[derive(Clone)]
pub struct TlsFiles {
    /// The chain, in PEM.
    pub certificates: Vec<u8>,
    /// The key, in PEM.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's business.
        f.debug_struct("TlsFiles").finish_non_exhaustive()
    }
}

/// Where this server is found, and under which name.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    namespace: String,
    host: String,
    port: i32,
}

/// The front end, ready to be served.
pub struct GrpcServer {
    listener: GrpcListener,
    server: Server,
    maps: Maps,
    options: Arc<GrpcOptions>,
}

impl GrpcServer {
    /// A server on a bound address.
    ///
    /// # Errors
    /// When the certificate and the key are none.
    pub fn new(listener: GrpcListener, maps: Maps, options: GrpcOptions) -> Result<Self, tonic::transport::Error> {
        let mut server = Server::builder()
            .max_concurrent_streams(options.streams_per_connection_max)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
        if let Some(tls) = &options.tls {
            let identity = Identity::from_pem(&tls.certificates, &tls.key);
            server = server.tls_config(ServerTlsConfig::new().identity(identity).timeout(TLS_HANDSHAKE_TIMEOUT))?;
        }
        Ok(Self { listener, server, maps, options: Arc::new(options) })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `stopping` is cancelled, then lets what is in work finish for as long as the drain timeout allows.
    pub async fn serve(self, stopping: CancellationToken) {
        let Self { listener, server, maps, options } = self;
        let address = listener.address();
        let member = member(&options, address);
        let (health, health_service) = tonic_health::server::health_reporter();
        let streams = Streams::new(maps.clone(), options.clone(), stopping.clone());
        let size_max = options.message_size_bytes_max;
        let map = MapServer {
            maps: maps.clone(),
            options: options.clone(),
            streams: streams.clone(),
            health: health.clone(),
        };
        let map = MapServiceServer::new(map).max_decoding_message_size(size_max);
        let partition = PartitionServer {
            maps: maps.clone(),
            member: member.clone(),
            options: options.clone(),
            streams: streams.clone(),
        };
        let partition = PartitionServiceServer::new(partition).max_decoding_message_size(size_max);
        let cluster = ClusterServer { member, streams };
        let cluster = ClusterServiceServer::new(cluster).max_decoding_message_size(size_max);
        let standby = StandbyServiceServer::new(StandbyServer { maps }).max_decoding_message_size(size_max);
        let (Ok(reflection), Ok(reflection_alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) else {
            // They are built in; a test reads them.
            tracing::error!("the descriptors of the gRPC services cannot be read");
            return;
        };
        for service in HEALTH_SERVICES {
            health.set_service_status(service, ServingStatus::Serving).await;
        }

        let router = server
            .layer(MapResponseLayer::new(with_usual_status))
            .layer(DeadlineLayer { time_max: options.request_timeout })
            .layer(GlobalConcurrencyLimitLayer::new(options.requests_in_flight_max))
            .add_service(map)
            .add_service(partition)
            .add_service(cluster)
            .add_service(standby)
            .add_service(health_service)
            .add_service(reflection)
            .add_service(reflection_alpha);
        let permits = Arc::new(Semaphore::new(options.connections_max));
        let incoming = ReceiverStream::new(listener.accept(permits, stopping.clone()));
        let served = router.serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
        let drained = async {
            stopping.cancelled().await;
            // Who watches is told, and has no reason to stay.
            let mut health = health;
            for service in HEALTH_SERVICES {
                health.clear_service_status(service).await;
            }
            tokio::time::sleep(options.drain_timeout).await;
        };
        tokio::select! {
            result = served => {
                if let Err(error) = result {
                    tracing::error!(%error, "the gRPC listener ended");
                }
            }
            () = drained => tracing::warn!("gRPC connections did not end in time and are cut"),
        }
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn member(options: &GrpcOptions, address: SocketAddr) -> Member {
    let (host, port) = match &options.advertised {
        Some((host, port)) => (host.clone(), *port),
        None => (address.ip().to_string(), address.port()),
    };
    Member { name: options.member_name.clone(), namespace: options.namespace.clone(), host, port: port.into() }
}

/// Tells a message that is too large by the status that gRPC has for it. Tonic says OUT_OF_RANGE, which no service here uses.
fn with_usual_status<B>(mut response: Response<B>) -> Response<B> {
    if let Some(status) = response.headers_mut().get_mut("grpc-status")
        && *status == HeaderValue::from(Code::OutOfRange as i32)
    {
        *status = HeaderValue::from(Code::ResourceExhausted as i32);
    }
    response
}

/// What [`with_usual_status`] does, for a stream that has begun.
fn usual(status: Status) -> Status {
    if status.code() == Code::OutOfRange { Status::resource_exhausted(status.message()) } else { status }
}
