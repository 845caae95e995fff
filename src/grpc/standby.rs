//! `StandbyService`: what a primary asks of a standby whose keys it compares with its own.

use std::collections::HashMap;

use tonic::{Request, Response, Status};

use super::error::read_status;
use super::generated::ombak::standby::standby_service_server::StandbyService;
use super::generated::ombak::standby::{
    FindMissingRequest, FindMissingResponse, KeyDigest, ListDigestsRequest, ListDigestsResponse, MapName as WireName,
};
use super::header;
use crate::domain::map::{Digest, MapKey, MapName, Partition};
use crate::engine::maps::{KeyState, Maps, PageLimits};

/// Keys of one page, which is smaller than a message may be.
pub(super) const KEY_PAGE: PageLimits = PageLimits { entries_max: 1000, size_bytes_max: 1024 * 1024 };

pub(super) struct StandbyServer {
    pub(super) maps: Maps,
}

impl StandbyServer {
    fn partition(&self, number: u32) -> Result<Partition, Status> {
        self.maps.partitions().get(number).ok_or_else(|| Status::not_found("there is no such partition"))
    }
}

#[tonic::async_trait]
impl StandbyService for StandbyServer {
    async fn list_digests(
        &self,
        request: Request<ListDigestsRequest>,
    ) -> Result<Response<ListDigestsResponse>, Status> {
        let ListDigestsRequest { partition, after } = request.into_inner();
        let partition = self.partition(partition)?;
        let page = self.maps.keys(partition, after, KEY_PAGE).await.map_err(|error| read_status(&error))?;
        let (maps, keys) = to_wire(&page.keys);
        Ok(Response::new(ListDigestsResponse { maps, keys, next: page.next }))
    }

    async fn find_missing(
        &self,
        request: Request<FindMissingRequest>,
    ) -> Result<Response<FindMissingResponse>, Status> {
        let FindMissingRequest { partition, maps, keys } = request.into_inner();
        let partition = self.partition(partition)?;
        let keys = from_wire(maps, keys)?;
        let missing = self.maps.find_missing(partition, &keys).await.map_err(|error| read_status(&error))?;
        let missing = missing.into_iter().filter_map(|at| u32::try_from(at).ok()).collect();
        Ok(Response::new(FindMissingResponse { missing }))
    }
}

/// Keys as a message carries them: each map's name once.
pub(super) fn to_wire(keys: &[KeyState]) -> (Vec<WireName>, Vec<KeyDigest>) {
    let mut maps = Vec::new();
    let mut places: HashMap<&MapName, u32> = HashMap::new();
    let mut digests = Vec::with_capacity(keys.len());
    for KeyState { key, digest, removed } in keys {
        let next = u32::try_from(maps.len()).unwrap_or(u32::MAX);
        let map = *places.entry(&key.map).or_insert_with(|| {
            let [protocol_namespace, protocol_name, primitive_namespace, primitive_name] =
                key.map.parts().map(header::text);
            maps.push(WireName { protocol_namespace, protocol_name, primitive_namespace, primitive_name });
            next
        });
        let digest = Some(header::digest(*digest));
        digests.push(KeyDigest { map, key: header::text(&key.key), digest, removed: *removed });
    }
    (maps, digests)
}

/// The keys that a message carries.
pub(super) fn from_wire(maps: Vec<WireName>, keys: Vec<KeyDigest>) -> Result<Vec<(MapKey, Digest)>, Status> {
    let name = |map: WireName| MapName {
        protocol_namespace: map.protocol_namespace.into(),
        protocol_name: map.protocol_name.into(),
        primitive_namespace: map.primitive_namespace.into(),
        primitive_name: map.primitive_name.into(),
    };
    let maps: Vec<MapName> = maps.into_iter().map(name).collect();
    let key = |KeyDigest { map, key, digest, .. }: KeyDigest| {
        let map = maps.get(map as usize).ok_or_else(|| Status::invalid_argument("a key names no map"))?;
        Ok((MapKey { map: map.clone(), key: key.into() }, header::parse_digest(digest)))
    };
    keys.into_iter().map(key).collect()
}
