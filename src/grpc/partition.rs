//! `PartitionService` of a single node: it leads every partition, and the term of one rises when it was a backup.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::backup::Streams;
use super::generated::atomix::partition::partition_service_server::PartitionService;
use super::generated::atomix::partition::{
    JoinPartitionGroupRequest, JoinPartitionGroupResponse, Member as WireMember, MemberId, Partition, PartitionGroup,
    PartitionGroupId, PartitionId,
};
use super::{GrpcOptions, Member};
use crate::engine::maps::Maps;

pub(super) struct PartitionServer {
    pub(super) maps: Maps,
    pub(super) member: Member,
    pub(super) options: Arc<GrpcOptions>,
    pub(super) streams: Streams,
}

#[tonic::async_trait]
impl PartitionService for PartitionServer {
    type JoinPartitionGroupStream = ReceiverStream<Result<JoinPartitionGroupResponse, Status>>;

    /// Whoever joins looks on: there is one member, and it is this server.
    async fn join_partition_group(
        &self,
        request: Request<JoinPartitionGroupRequest>,
    ) -> Result<Response<Self::JoinPartitionGroupStream>, Status> {
        let mut id = request.into_inner().group_id.unwrap_or_default();
        if id.name.is_empty() {
            id.name.clone_from(&self.options.group_name);
        }
        // Groups are what protocols are called.
        if !self.maps.knows_protocol(id.namespace.as_bytes(), id.name.as_bytes()) {
            return Err(Status::not_found("partition group not found"));
        }
        let place = self.streams.take_place()?;
        let stopping = self.streams.stopping().clone();
        let mut terms = self.maps.terms();
        let member = self.member.clone();
        let (groups, sent) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let group = group(&id, &member, &terms.borrow_and_update());
                if groups.send(Ok(JoinPartitionGroupResponse { group: Some(group) })).await.is_err() {
                    break;
                }
                tokio::select! {
                    () = stopping.cancelled() => {
                        let _ = groups.send(Err(Status::unavailable("the server is stopping"))).await;
                        break;
                    }
                    () = groups.closed() => break,
                    changed = terms.changed() => if changed.is_err() { break },
                }
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(sent)))
    }
}

fn group(id: &PartitionGroupId, member: &Member, terms: &[u64]) -> PartitionGroup {
    let member_id = MemberId { name: member.name.clone(), namespace: member.namespace.clone() };
    let members = vec![WireMember { id: Some(member_id.clone()), host: member.host.clone(), port: member.port }];
    let partition = |(index, &term): (u32, &u64)| Partition {
        id: Some(PartitionId { name: format!("{}-{index}", id.name), namespace: id.namespace.clone(), index }),
        term,
        leader: Some(member_id.clone()),
        members: members.clone(),
    };
    PartitionGroup { id: Some(id.clone()), partitions: (1..).zip(terms).map(partition).collect() }
}
