//! Front ends and feeds inside the test: stores that fail, and backups that are no Ombak.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ombak::domain::dot::ActorId;
use ombak::domain::map::{Condition, MapKey, MapName, Partitions};
use ombak::engine::maps::{MapOptions, Maps};
use ombak::grpc::generated::atomix::pb::headers::ResponseHeader;
use ombak::grpc::generated::atomix::pb::map::map_service_server::{MapService, MapServiceServer};
use ombak::grpc::generated::atomix::pb::map::*;
use ombak::grpc::{FeedOptions, FeedPhase, FeedProgress, GrpcListener, GrpcOptions, GrpcServer, feed};
use ombak::store::Store;
use ombak::store::memory::MemoryStore;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::client::*;

async fn maps() -> (Arc<MemoryStore>, Maps) {
    let store = Arc::new(MemoryStore::new(ActorId(1)));
    let options = MapOptions {
        partitions: Partitions::new(NonZeroU32::new(PARTITIONS).unwrap()),
        protocols: vec![],
        key_size_bytes_max: 1024,
        value_size_bytes_max: 1024,
        name_size_bytes_max: 1024,
        tombstone_retention: Duration::from_secs(60),
        request_timeout: Duration::from_secs(5),
    };
    (store.clone(), Maps::start(store, options).await.unwrap())
}

fn options() -> GrpcOptions {
    GrpcOptions {
        group_name: "g".into(),
        namespace: String::new(),
        member_name: "m".into(),
        advertised: None,
        partition_auto: false,
        message_size_bytes_max: 1 << 20,
        requests_in_flight_max: 8,
        streams_per_connection_max: 8,
        connections_max: 8,
        open_streams_max: 8,
        entries_per_request_max: 256,
        backup_requests_in_flight_max: 8,
        request_timeout: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(5),
        tls: None,
    }
}

#[tokio::test]
async fn the_health_service_says_when_no_writes_are_taken_any_more() {
    let (store, maps) = maps().await;
    let listener = GrpcListener::bind("127.0.0.1:0").await.unwrap();
    let server = GrpcServer::new(listener, maps, options()).unwrap();
    let address = server.address();
    let stopping = CancellationToken::new();
    let served = tokio::spawn(server.serve(stopping.clone()));
    let mut client = connect(address).await;
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    let ask = || HealthCheckRequest { service: "atomix.pb.map.MapService".into() };
    put(&mut client, "foo", "bar", 0).await.unwrap();
    assert_eq!(health.check(ask()).await.unwrap().into_inner().status, 1, "serving");
    let mut watched = health.watch(ask()).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    store.close();
    let status = put(&mut client, "foo", "baz", 0).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "outcome unknown"));
    assert_eq!(watched.message().await.unwrap().unwrap().status, 2, "not serving");
    // Reads go on.
    assert_eq!(get(&mut client, "foo").await.unwrap(), Some((b"bar".to_vec(), 1)));
    stopping.cancel();
    assert!(matches!(watched.message().await, Ok(None) | Err(_)), "a watch does not keep the server from stopping");
    drop((client, health, watched));
    tokio::time::timeout(Duration::from_secs(4), served).await.expect("it stops before its patience ends").unwrap();
}

/// A backup by somebody else: it keeps what it is sent and answers, and does nothing else.
#[derive(Clone, Default)]
struct Foreign {
    kept: Arc<Mutex<Vec<Entry>>>,
}

#[tonic::async_trait]
impl MapService for Foreign {
    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Err(Status::unavailable("not the primary"))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Err(Status::unavailable("not the primary"))
    }

    async fn remove(&self, _: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        Err(Status::unavailable("not the primary"))
    }

    type BackupStream = ReceiverStream<Result<BackupResponse, Status>>;

    async fn backup(&self, request: Request<Streaming<BackupRequest>>) -> Result<Response<Self::BackupStream>, Status> {
        let (answers, answered) = mpsc::channel(8);
        let (mut requests, kept) = (request.into_inner(), self.kept.clone());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                kept.lock().unwrap().extend(request.entries);
                let answer = BackupResponse { header: Some(ResponseHeader::default()) };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answered)))
    }
}

async fn foreign() -> (Foreign, SocketAddr) {
    let backup = Foreign::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(MapServiceServer::new(backup.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (backup, address)
}

#[tokio::test]
async fn a_backup_that_is_no_ombak_is_sent_everything() {
    let (_store, maps) = maps().await;
    let map = MapName { primitive_name: "m".into(), ..MapName::default() };
    for n in 0..600 {
        let key = MapKey { map: map.clone(), key: format!("key-{n}").into() };
        let partition = maps.partitions().home_of(&key.key);
        maps.put(partition, key, n.to_string().into(), Condition::None).await.unwrap();
    }
    let (backup, address) = foreign().await;
    let to = FeedOptions { to: address.to_string(), compare_all: false, ca_certificates: None };
    let (progress, mut told) = watch::channel(FeedProgress::default());
    let feeding = tokio::spawn(feed(maps.clone(), to, progress));
    let everything = told.wait_for(|now| now.phase == FeedPhase::Following && now.behind == 0);
    let now = tokio::time::timeout(PATIENCE, everything).await.unwrap().unwrap().clone();
    assert_eq!((now.acknowledged, now.problem), (600, None));
    let mut keys: Vec<_> = backup.kept.lock().unwrap().iter().map(|entry| entry.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 600);

    let key = MapKey { map, key: "key-7".into() };
    maps.remove(maps.partitions().home_of(&key.key), key, Condition::None).await.unwrap();
    tokio::time::timeout(PATIENCE, told.wait_for(|now| now.acknowledged == 601)).await.unwrap().unwrap();
    let last = backup.kept.lock().unwrap().last().cloned().unwrap();
    assert_eq!((last.key.as_str(), last.value), ("key-7", None));
    feeding.abort();
}

#[tokio::test]
async fn a_backup_that_is_not_there_is_a_problem_that_passes() {
    let (_store, maps) = maps().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let to = FeedOptions { to: free.to_string(), compare_all: false, ca_certificates: None };
    let (progress, mut told) = watch::channel(FeedProgress::default());
    let feeding = tokio::spawn(feed(maps, to, progress));
    let lost = told.wait_for(|now| now.problem.is_some());
    let problem = tokio::time::timeout(PATIENCE, lost).await.unwrap().unwrap().problem.clone().unwrap();
    assert!(problem.contains("onnection refused"), "{problem}");
    assert!(!feeding.is_finished());
    feeding.abort();
}
