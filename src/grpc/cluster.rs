//! `ClusterService` of a single node: whoever joins looks on.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Member;
use super::backup::Streams;
use super::generated::atomix::cluster::cluster_service_server::ClusterService;
use super::generated::atomix::cluster::{JoinClusterRequest, JoinClusterResponse, Member as WireMember, MemberId};

pub(super) struct ClusterServer {
    pub(super) member: Member,
    pub(super) streams: Streams,
}

#[tonic::async_trait]
impl ClusterService for ClusterServer {
    type JoinClusterStream = ReceiverStream<Result<JoinClusterResponse, Status>>;

    async fn join_cluster(
        &self,
        request: Request<JoinClusterRequest>,
    ) -> Result<Response<Self::JoinClusterStream>, Status> {
        let Member { name, namespace, host, port } = self.member.clone();
        let member = WireMember { id: Some(MemberId { name, namespace }), host, port };
        let cluster_id = Some(request.into_inner().cluster_id.unwrap_or_default());
        let place = self.streams.take_place()?;
        let stopping = self.streams.stopping().clone();
        let (members, sent) = mpsc::channel(1);
        tokio::spawn(async move {
            let now = JoinClusterResponse { cluster_id, members: vec![member] };
            // Nothing changes after that: the stream stays open until one side ends it.
            if members.send(Ok(now)).await.is_ok() {
                tokio::select! {
                    () = stopping.cancelled() => {
                        let _ = members.send(Err(Status::unavailable("the server is stopping"))).await;
                    }
                    () = members.closed() => {}
                }
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(sent)))
    }
}
