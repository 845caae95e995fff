//! Requests in few words.

use std::net::SocketAddr;
use std::time::Duration;

use ombak::domain::map::fnv1a_32;
use ombak::grpc::generated::atomix::pb::headers::{RequestHeader, ResponseStatus};
use ombak::grpc::generated::atomix::pb::map::map_service_client::MapServiceClient;
use ombak::grpc::generated::atomix::pb::map::{
    BackupRequest, BackupResponse, Digest, Entry, GetRequest, PutRequest, RemoveRequest, Value,
};
use ombak::grpc::generated::atomix::primitive::PrimitiveId;
use ombak::grpc::generated::atomix::protocol::ProtocolId;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// What does not come by then does not come.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// As many as a server has by default.
pub const PARTITIONS: u32 = 8;

pub type Client = MapServiceClient<Channel>;

pub async fn connect(address: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true);
    MapServiceClient::new(endpoint.connect().await.unwrap())
}

pub fn home(key: &str) -> u32 {
    fnv1a_32(key.as_bytes()) % PARTITIONS + 1
}

pub fn header_of(map: &str, partition: u32) -> Option<RequestHeader> {
    Some(RequestHeader {
        protocol: Some(ProtocolId { namespace: "default".into(), name: "test".into() }),
        primitive: Some(PrimitiveId { name: map.into(), namespace: "app".into() }),
        partition,
    })
}

/// The header of a request about a key of the map `m`.
pub fn header(key: &str) -> Option<RequestHeader> {
    header_of("m", home(key))
}

pub fn value(value: impl AsRef<[u8]>, version: u64) -> Option<Value> {
    Some(Value { value: value.as_ref().to_vec().into(), version })
}

pub async fn put(client: &mut Client, key: &str, bytes: impl AsRef<[u8]>, version: u64) -> Result<u64, Status> {
    let request = PutRequest { header: header(key), key: key.into(), value: value(bytes, version) };
    Ok(client.put(request).await?.into_inner().version)
}

pub async fn get(client: &mut Client, key: &str) -> Result<Option<(Vec<u8>, u64)>, Status> {
    let found = client.get(GetRequest { header: header(key), key: key.into() }).await?.into_inner();
    Ok(found.value.map(|value| (value.value.to_vec(), value.version)))
}

pub async fn remove(client: &mut Client, key: &str, version: u64) -> Result<Option<(Vec<u8>, u64)>, Status> {
    let request = RemoveRequest { header: header(key), key: key.into(), value: value("", version) };
    let removed = client.remove(request).await?.into_inner();
    Ok(removed.value.map(|value| (value.value.to_vec(), value.version)))
}

pub fn entry(key: &str, bytes: Option<&str>, term: u64, timestamp: u64) -> Entry {
    let value = bytes.and_then(|bytes| value(bytes, timestamp));
    Entry { key: key.into(), value, digest: Some(Digest { term, timestamp }) }
}

/// A request with entries of one partition of the map `m`.
pub fn request(entries: Vec<Entry>) -> BackupRequest {
    BackupRequest { header: header(&entries[0].key), entries }
}

/// A Backup stream as a primary has it.
pub struct Stream {
    pub requests: mpsc::Sender<BackupRequest>,
    pub answers: Streaming<BackupResponse>,
}

impl Stream {
    pub async fn open(client: &mut Client) -> Self {
        let (requests, sent) = mpsc::channel(1);
        let answers = client.backup(ReceiverStream::new(sent)).await.unwrap().into_inner();
        Self { requests, answers }
    }

    pub async fn send(&self, request: BackupRequest) {
        timeout(PATIENCE, self.requests.send(request)).await.unwrap().unwrap();
    }

    /// The next answer's status, or the stream's end: `Ok(None)` where it is none of an error.
    pub async fn next(&mut self) -> Result<Option<ResponseStatus>, Status> {
        let answer = timeout(PATIENCE, self.answers.message()).await.expect("an answer in time")?;
        Ok(answer.map(|answer| answer.header.unwrap().status()))
    }

    #[track_caller]
    pub fn expect_ok(&mut self) -> impl Future<Output = ()> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            let next = self.next().await;
            assert!(matches!(next, Ok(Some(ResponseStatus::Ok))), "{next:?} at {caller}");
        }
    }

    /// An answer that says that nothing was kept, and the end of the stream with its reason.
    pub async fn expect_error(mut self) -> Status {
        let next = self.next().await;
        assert!(matches!(next, Ok(Some(ResponseStatus::Error))), "{next:?}");
        self.next().await.expect_err("the stream ends with a reason")
    }
}
