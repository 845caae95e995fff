//! Bytes and numbers of the wire, as the specification of the map has them (`atomix.md` §2).

use std::collections::BTreeMap;
use std::fmt::Debug;

use ombak::grpc::generated::FILE_DESCRIPTORS;
use ombak::grpc::generated::atomix::pb::headers::{RequestHeader, ResponseHeader, ResponseStatus};
use ombak::grpc::generated::atomix::pb::map::{
    BackupResponse, Digest, Entry, GetResponse, PutRequest, PutResponse, Value,
};
use ombak::grpc::generated::atomix::primitive::PrimitiveId;
use ombak::grpc::generated::atomix::protocol::ProtocolId;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use super::support::{hex, unhex};

const HEADER: &str = "0a0f0a0764656661756c7412047465737412080a016d12036170701801";

#[track_caller]
fn golden<M: Message + Default + PartialEq + Debug>(bytes: &str, message: &M) {
    assert_eq!(hex(&message.encode_to_vec()), bytes, "{message:?}");
    assert_eq!(M::decode(&unhex(bytes)[..]).unwrap(), *message);
}

fn request_header() -> RequestHeader {
    RequestHeader {
        protocol: Some(ProtocolId { namespace: "default".into(), name: "test".into() }),
        primitive: Some(PrimitiveId { name: "m".into(), namespace: "app".into() }),
        partition: 1,
    }
}

#[test]
fn golden_bytes() {
    golden(HEADER, &request_header());
    let value = |version| Some(Value { value: "bar".into(), version });
    let put = PutRequest { header: Some(request_header()), key: "foo".into(), value: value(0) };
    golden(&format!("0a1d{HEADER}1203666f6f1a050a03626172"), &put);
    let ok = || Some(ResponseHeader::default());
    golden("0a001007", &PutResponse { header: ok(), version: 7 });
    golden("0a00", &GetResponse { header: ok(), value: None });
    let digest = |timestamp| Some(Digest { term: 3, timestamp });
    golden(
        "0a03666f6f12070a0362617210071a0408031007",
        &Entry { key: "foo".into(), value: value(7), digest: digest(7) },
    );
    golden("0a03666f6f1a0408031008", &Entry { key: "foo".into(), value: None, digest: digest(8) });
    golden("0a00", &BackupResponse { header: ok() });
    let error = ResponseHeader { status: ResponseStatus::Error.into(), ..ResponseHeader::default() };
    golden("0a021001", &BackupResponse { header: Some(error) });
}

/// Package, message, and its fields as `number name type`; types of other packages are whole, `*` is repeated.
const MESSAGES: &[(&str, &str, &str)] = &[
    ("atomix.pb.map", "PutRequest", "1 header atomix.pb.headers.RequestHeader, 2 key string, 3 value Value"),
    ("atomix.pb.map", "PutResponse", "1 header atomix.pb.headers.ResponseHeader, 2 version uint64"),
    ("atomix.pb.map", "GetRequest", "1 header atomix.pb.headers.RequestHeader, 2 key string"),
    ("atomix.pb.map", "GetResponse", "1 header atomix.pb.headers.ResponseHeader, 2 value Value"),
    ("atomix.pb.map", "RemoveRequest", "1 header atomix.pb.headers.RequestHeader, 2 key string, 3 value Value"),
    ("atomix.pb.map", "RemoveResponse", "1 header atomix.pb.headers.ResponseHeader, 2 value Value"),
    ("atomix.pb.map", "BackupRequest", "1 header atomix.pb.headers.RequestHeader, 2 entries *Entry"),
    ("atomix.pb.map", "BackupResponse", "1 header atomix.pb.headers.ResponseHeader"),
    ("atomix.pb.map", "Entry", "1 key string, 2 value Value, 3 digest Digest"),
    ("atomix.pb.map", "Value", "1 value bytes, 2 version uint64"),
    ("atomix.pb.map", "Digest", "1 term uint64, 2 timestamp uint64"),
    (
        "atomix.pb.headers",
        "RequestHeader",
        "1 protocol atomix.protocol.ProtocolId, 2 primitive atomix.primitive.PrimitiveId, 3 partition uint32",
    ),
    ("atomix.pb.headers", "ResponseHeader", "1 type ResponseType, 2 status ResponseStatus"),
    ("atomix.protocol", "ProtocolId", "1 namespace string, 2 name string"),
    ("atomix.primitive", "PrimitiveId", "1 name string, 2 namespace string"),
    (
        "atomix.partition",
        "JoinPartitionGroupRequest",
        "1 replica_id MemberId, 2 group_id PartitionGroupId, 3 partitions uint32, 4 replication_factor uint32",
    ),
    ("atomix.partition", "JoinPartitionGroupResponse", "1 group PartitionGroup"),
    ("atomix.partition", "PartitionGroup", "1 id PartitionGroupId, 2 partitions *Partition"),
    ("atomix.partition", "Partition", "1 id PartitionId, 2 term uint64, 3 leader MemberId, 4 members *Member"),
    ("atomix.partition", "PartitionId", "1 name string, 2 namespace string, 3 index uint32"),
    ("atomix.partition", "PartitionGroupId", "1 name string, 2 namespace string"),
    ("atomix.partition", "MemberId", "1 name string, 2 namespace string"),
    ("atomix.partition", "Member", "1 id MemberId, 2 host string, 3 port int32"),
    ("atomix.cluster", "JoinClusterRequest", "1 member Member, 2 cluster_id ClusterId"),
    ("atomix.cluster", "JoinClusterResponse", "1 cluster_id ClusterId, 2 members *Member"),
    ("atomix.cluster", "ClusterId", "1 name string, 2 namespace string"),
    ("atomix.cluster", "MemberId", "1 name string, 2 namespace string"),
    ("atomix.cluster", "Member", "1 id MemberId, 2 host string, 3 port int32"),
];

const ENUMS: &[(&str, &str, &str)] = &[
    ("atomix.pb.headers", "ResponseType", "RESPONSE=0"),
    ("atomix.pb.headers", "ResponseStatus", "OK=0 ERROR=1"),
    ("atomix.protocol", "ProtocolType", "UNKNOWN=0 DATABASE=1 GOSSIP=2 PRIMARY_BACKUP=3"),
    (
        "atomix.primitive",
        "PrimitiveType",
        "UNKNOWN=0 COUNTER=1 ELECTION=2 INDEXED_MAP=3 LEADER_LATCH=4 LIST=5 LOCK=6 LOG=7 MAP=8 SET=9 VALUE=10",
    ),
];

const RPCS: &[&str] = &[
    "/atomix.cluster.ClusterService/JoinCluster JoinClusterRequest -> stream JoinClusterResponse",
    "/atomix.partition.PartitionService/JoinPartitionGroup JoinPartitionGroupRequest -> stream JoinPartitionGroupResponse",
    "/atomix.pb.map.MapService/Backup stream BackupRequest -> stream BackupResponse",
    "/atomix.pb.map.MapService/Get GetRequest -> GetResponse",
    "/atomix.pb.map.MapService/Put PutRequest -> PutResponse",
    "/atomix.pb.map.MapService/Remove RemoveRequest -> RemoveResponse",
];

const FILES: &[(&str, &str)] = &[
    ("atomix.cluster", "atomix/cluster/cluster.proto"),
    ("atomix.partition", "atomix/partition/partition.proto"),
    ("atomix.pb.headers", "atomix/pb/headers/headers.proto"),
    ("atomix.pb.map", "atomix/pb/map/map.proto"),
    ("atomix.primitive", "atomix/primitive/primitive.proto"),
    ("atomix.protocol", "atomix/protocol/protocol.proto"),
];

/// The files of Atomix among our descriptors.
fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTORS).unwrap();
    set.file.into_iter().filter(|file| file.package().starts_with("atomix.")).collect()
}

/// A type as the tables write it.
fn short(package: &str, name: &str) -> String {
    let name = name.trim_start_matches('.');
    name.strip_prefix(&format!("{package}.")).unwrap_or(name).to_owned()
}

#[test]
fn messages_are_those_of_the_specification() {
    let mut found = BTreeMap::new();
    for file in files() {
        assert_eq!(file.syntax(), "proto3");
        for message in &file.message_type {
            let field = |field: &prost_types::FieldDescriptorProto| {
                let kind = match field.r#type() {
                    Type::String => "string".to_owned(),
                    Type::Bytes => "bytes".to_owned(),
                    Type::Uint32 => "uint32".to_owned(),
                    Type::Uint64 => "uint64".to_owned(),
                    Type::Int32 => "int32".to_owned(),
                    Type::Message | Type::Enum => short(file.package(), field.type_name()),
                    other => panic!("{other:?}"),
                };
                let star = if field.label() == Label::Repeated { "*" } else { "" };
                format!("{} {} {star}{kind}", field.number(), field.name())
            };
            let fields: Vec<_> = message.field.iter().map(field).collect();
            found.insert((file.package().to_owned(), message.name().to_owned()), fields.join(", "));
        }
    }
    let expected = MESSAGES
        .iter()
        .map(|(package, name, fields)| (((*package).to_owned(), (*name).to_owned()), (*fields).to_owned()));
    assert_eq!(found, expected.collect());
}

#[test]
fn enums_are_those_of_the_specification() {
    let mut found = BTreeMap::new();
    for file in files() {
        for listed in &file.enum_type {
            let values: Vec<_> = listed.value.iter().map(|v| format!("{}={}", v.name(), v.number())).collect();
            found.insert((file.package().to_owned(), listed.name().to_owned()), values.join(" "));
        }
    }
    let expected =
        ENUMS.iter().map(|(package, name, values)| (((*package).into(), (*name).into()), (*values).to_owned()));
    assert_eq!(found, expected.collect());
}

#[test]
fn rpcs_and_files_are_those_of_the_specification() {
    let mut rpcs = Vec::new();
    for file in files() {
        for service in &file.service {
            for method in &service.method {
                let kind =
                    |streams, name| format!("{}{}", if streams { "stream " } else { "" }, short(file.package(), name));
                rpcs.push(format!(
                    "/{}.{}/{} {} -> {}",
                    file.package(),
                    service.name(),
                    method.name(),
                    kind(method.client_streaming(), method.input_type()),
                    kind(method.server_streaming(), method.output_type()),
                ));
            }
        }
    }
    rpcs.sort();
    assert_eq!(rpcs, RPCS);
    let mut files: Vec<_> = files().iter().map(|file| (file.package().to_owned(), file.name().to_owned())).collect();
    files.sort();
    let expected: Vec<_> = FILES.iter().map(|(package, name)| ((*package).to_owned(), (*name).to_owned())).collect();
    assert_eq!(files, expected);
}
