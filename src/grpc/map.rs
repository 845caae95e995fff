//! `MapService`: one function for each rpc.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::backup::Streams;
use super::error::{read_status, status};
use super::generated::atomix::pb::headers::RequestHeader;
use super::generated::atomix::pb::map::map_service_server::{MapService, SERVICE_NAME as MAP_SERVICE};
use super::generated::atomix::pb::map::{
    BackupRequest, BackupResponse, GetRequest, GetResponse, PutRequest, PutResponse, RemoveRequest, RemoveResponse,
};
use super::{GrpcOptions, NODE_METADATA, header};
use crate::domain::map::{Condition, MapKey, Partition};
use crate::engine::StoreError;
use crate::engine::maps::{MapError, Maps};

pub(super) struct MapServer {
    pub(super) maps: Maps,
    pub(super) options: Arc<GrpcOptions>,
    pub(super) streams: Streams,
    pub(super) health: HealthReporter,
}

impl MapServer {
    /// Where a request's key is to be found.
    fn locate(&self, header: Option<RequestHeader>, key: String) -> Result<(Partition, MapKey), Status> {
        let (mut partition, map) = header::parse(header);
        let key = MapKey { map, key: key.into() };
        if partition == 0 && self.options.partition_auto {
            partition = self.maps.partitions().home_of(&key.key).number();
        }
        let partition = self.maps.locate(partition, &key).map_err(|error| status(&error))?;
        Ok((partition, key))
    }

    /// The status of a mutation that failed. Once the store takes no more writes, the health service says so.
    async fn refuse(&self, error: MapError) -> Status {
        use StoreError::{Closed, Engine, ReadOnly};
        if matches!(error, MapError::Store(Closed | Engine { .. } | ReadOnly { .. })) {
            for service in ["", MAP_SERVICE] {
                self.health.set_service_status(service, ServingStatus::NotServing).await;
            }
        }
        status(&error)
    }
}

#[tonic::async_trait]
impl MapService for MapServer {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { header, key, value } = request.into_inner();
        let (partition, key) = self.locate(header, key)?;
        // A missing value is an empty one (`atomix.md` §3).
        let value = value.unwrap_or_default();
        let condition = Condition::of_version(value.version);
        let version = match self.maps.put(partition, key, value.value, condition).await {
            Ok(version) => version,
            Err(error) => return Err(self.refuse(error).await),
        };
        Ok(Response::new(PutResponse { header: header::ok(), version }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { header, key } = request.into_inner();
        let (partition, key) = self.locate(header, key)?;
        let found = self.maps.get(partition, &key).await.map_err(|error| read_status(&error))?;
        Ok(Response::new(GetResponse { header: header::ok(), value: found.map(header::value) }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        let RemoveRequest { header, key, value } = request.into_inner();
        let (partition, key) = self.locate(header, key)?;
        let condition = Condition::of_version(value.unwrap_or_default().version);
        let removed = match self.maps.remove(partition, key, condition).await {
            Ok(removed) => removed,
            Err(error) => return Err(self.refuse(error).await),
        };
        Ok(Response::new(RemoveResponse { header: header::ok(), value: removed.map(header::value) }))
    }

    type BackupStream = ReceiverStream<Result<BackupResponse, Status>>;

    async fn backup(&self, request: Request<Streaming<BackupRequest>>) -> Result<Response<Self::BackupStream>, Status> {
        let mut response = Response::new(self.streams.serve(request.into_inner())?);
        if let Ok(node) = format!("{:016x}", self.maps.node()).parse() {
            response.metadata_mut().insert(NODE_METADATA, node);
        }
        Ok(response)
    }
}
