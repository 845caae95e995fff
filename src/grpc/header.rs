//! Headers, and the domain's words for what the messages carry.

use bytes::Bytes;

use super::generated::atomix::pb::headers::{RequestHeader, ResponseHeader, ResponseStatus};
use super::generated::atomix::pb::map;
use super::generated::atomix::primitive::PrimitiveId;
use super::generated::atomix::protocol::ProtocolId;
use crate::domain::map::{Digest, Entry, MapKey, MapName, Partition, Versioned};

/// The partition's number and the map that a header names. A header that is missing, whole or in part, counts as empty.
pub(super) fn parse(header: Option<RequestHeader>) -> (u32, MapName) {
    let RequestHeader { protocol, primitive, partition } = header.unwrap_or_default();
    let ProtocolId { namespace, name } = protocol.unwrap_or_default();
    let (protocol_namespace, protocol_name) = (namespace.into(), name.into());
    let PrimitiveId { name, namespace } = primitive.unwrap_or_default();
    let (primitive_namespace, primitive_name) = (namespace.into(), name.into());
    (partition, MapName { protocol_namespace, protocol_name, primitive_namespace, primitive_name })
}

/// The header of a request about a map. All of it is sent, as its other writers do.
pub(super) fn request(partition: Partition, map: &MapName) -> RequestHeader {
    RequestHeader {
        protocol: Some(ProtocolId { namespace: text(&map.protocol_namespace), name: text(&map.protocol_name) }),
        primitive: Some(PrimitiveId { name: text(&map.primitive_name), namespace: text(&map.primitive_namespace) }),
        partition: partition.number(),
    }
}

/// The header of an answer. It is sent although it is empty, as its other writers do.
pub(super) fn ok() -> Option<ResponseHeader> {
    Some(ResponseHeader::default())
}

/// The header that tells that a request of a stream was not kept.
pub(super) fn error() -> Option<ResponseHeader> {
    Some(ResponseHeader { status: ResponseStatus::Error.into(), ..ResponseHeader::default() })
}

pub(super) fn value(versioned: Versioned) -> map::Value {
    map::Value { value: versioned.value, version: versioned.version }
}

pub(super) fn digest(digest: Digest) -> map::Digest {
    map::Digest { term: digest.term, timestamp: digest.timestamp }
}

pub(super) fn parse_digest(digest: Option<map::Digest>) -> Digest {
    let map::Digest { term, timestamp } = digest.unwrap_or_default();
    Digest { term, timestamp }
}

/// An entry as a stream carries it.
pub(super) fn entry(key: &MapKey, entry: Entry) -> map::Entry {
    let value = entry.clone().versioned().map(value);
    map::Entry { key: text(&key.key), value, digest: Some(digest(entry.digest)) }
}

/// Names and keys came in as text.
pub(super) fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
