//! The listener, the services beside the map, and what a stock client may expect of them.

use std::process::Command;
use std::time::Duration;

use ombak::grpc::generated::atomix::cluster::JoinClusterRequest;
use ombak::grpc::generated::atomix::cluster::cluster_service_client::ClusterServiceClient;
use ombak::grpc::generated::atomix::partition::partition_service_client::PartitionServiceClient;
use ombak::grpc::generated::atomix::partition::{JoinPartitionGroupRequest, PartitionGroupId};
use ombak::grpc::generated::atomix::pb::map::map_service_client::MapServiceClient;
use ombak::grpc::generated::atomix::pb::map::{GetRequest, GetResponse, PutRequest};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::client::*;
use super::support::{Server, serve};

#[tokio::test]
async fn a_port_in_use_is_one_clear_line() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let address = server.grpc.unwrap().to_string();
    let output = serve(&dir.path().join("data")).args(["--grpc", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = errors.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(lines.len(), 1, "{errors}");
    assert!(lines[0].starts_with(&format!("ombak: cannot listen on {address}: Address already in use")), "{errors}");
}

#[test]
fn the_listener_can_be_off() {
    let server = Server::start_with(&[("OMBAK_GRPC_LISTEN", "off")]);
    assert_eq!(server.grpc, None);
    // Maps are there for the command line all the same.
    assert_eq!(server.printed(&["map", "put", "m", "foo", "bar"]), "{\n  \"version\": 1\n}\n");
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    {
        let server = Server::start_on(&data, &[]);
        put(&mut connect(server.grpc.unwrap()).await, "foo", "bar", 0).await.unwrap();
    }
    let output = serve(&data).env("OMBAK_MAP_PARTITIONS", "4").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("have 8 partitions and not 4; set map_partitions"), "{errors}");
}

#[tokio::test]
async fn partitions_and_members_are_told_and_told_again_when_a_term_rises() {
    let server = Server::start_with(&[("OMBAK_GRPC_ADVERTISED", "maps.example:99")]);
    let mut client = connect(server.grpc.unwrap()).await;
    let url = format!("http://{}", server.grpc.unwrap());
    let mut partitions = PartitionServiceClient::connect(url.clone()).await.unwrap();
    let group_id = Some(PartitionGroupId { name: "g".into(), namespace: "s".into() });
    let join = JoinPartitionGroupRequest { group_id, ..JoinPartitionGroupRequest::default() };
    let mut groups = partitions.join_partition_group(join).await.unwrap().into_inner();
    let group = groups.message().await.unwrap().unwrap().group.unwrap();
    assert_eq!(group.partitions.len(), 8);
    let first = &group.partitions[0];
    let id = first.id.as_ref().unwrap();
    assert_eq!((id.name.as_str(), id.namespace.as_str(), id.index, first.term), ("g-1", "s", 1, 1));
    assert_eq!((first.members.len(), first.members[0].id.as_ref()), (1, first.leader.as_ref()));
    assert_eq!((first.members[0].host.as_str(), first.members[0].port), ("maps.example", 99));

    let mut stream = Stream::open(&mut client).await;
    stream.send(request(vec![entry("foo", Some("v"), 6, 1)])).await;
    stream.expect_ok().await;
    let at = (home("foo") - 1) as usize;
    let group = tokio::time::timeout(PATIENCE, groups.message()).await.unwrap().unwrap().unwrap().group.unwrap();
    assert_eq!(group.partitions[at].term, 6);
    put(&mut client, "foo", "own", 0).await.unwrap();
    let group = tokio::time::timeout(PATIENCE, groups.message()).await.unwrap().unwrap().unwrap().group.unwrap();
    assert_eq!(group.partitions[at].term, 7);

    let join = JoinPartitionGroupRequest::default();
    let mut named = partitions.join_partition_group(join).await.unwrap().into_inner();
    assert_eq!(named.message().await.unwrap().unwrap().group.unwrap().id.unwrap().name, "default");

    let mut cluster = ClusterServiceClient::connect(url).await.unwrap();
    let mut joined = cluster.join_cluster(JoinClusterRequest::default()).await.unwrap().into_inner();
    let members = joined.message().await.unwrap().unwrap().members;
    assert_eq!((members.len(), members[0].host.as_str(), members[0].port), (1, "maps.example", 99));
}

// Of several threads, so that the connections are looked after while this one waits for the server.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_stay_open_end_when_the_server_stops() {
    let mut server = Server::start();
    let mut client = connect(server.grpc.unwrap()).await;
    let mut stream = Stream::open(&mut client).await;
    stream.send(request(vec![entry("foo", Some("v"), 1, 1)])).await;
    stream.expect_ok().await;
    let url = format!("http://{}", server.grpc.unwrap());
    let mut partitions = PartitionServiceClient::connect(url).await.unwrap();
    let join = JoinPartitionGroupRequest::default();
    let mut groups = partitions.join_partition_group(join).await.unwrap().into_inner();
    groups.message().await.unwrap().unwrap();
    server.signal("TERM");
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(groups.message().await.unwrap_err().code(), Code::Unavailable);
    drop((stream, groups, client, partitions));
    assert!(server.wait().success());
}

#[tokio::test]
async fn streams_are_counted() {
    let server = Server::start_with(&[("OMBAK_GRPC_OPEN_STREAMS_MAX", "1")]);
    let mut client = connect(server.grpc.unwrap()).await;
    let stream = Stream::open(&mut client).await;
    let (_requests, sent) = tokio::sync::mpsc::channel(1);
    let second = client.backup(tokio_stream::wrappers::ReceiverStream::new(sent)).await;
    assert_eq!(second.unwrap_err().code(), Code::ResourceExhausted);
    drop(stream);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (_requests, sent) = tokio::sync::mpsc::channel(1);
        if client.backup(tokio_stream::wrappers::ReceiverStream::new(sent)).await.is_ok() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the place is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_leave_in_the_middle_spoil_nothing() {
    let server = Server::start();
    let mut client = connect(server.grpc.unwrap()).await;
    put(&mut client, "foo", "0", 0).await.unwrap();
    for n in 1..=100_u64 {
        let mut leaving = client.clone();
        let put = tokio::spawn(async move { put(&mut leaving, "foo", "x", 0).await });
        tokio::time::sleep(Duration::from_micros(50 * (n % 40))).await;
        put.abort();
    }
    // A deadline that has passed when the request arrives.
    let mut request = Request::new(PutRequest { header: header("foo"), key: "foo".into(), value: value("late", 0) });
    request.set_timeout(Duration::from_nanos(1));
    let status = client.put(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
    let (_, version) = get(&mut client, "foo").await.unwrap().unwrap();
    let next = put(&mut client, "foo", "y", version).await;
    // One that was left may have come between.
    if let Ok(next) = next {
        assert!(next > version);
    }
}

#[tokio::test]
async fn partition_zero_stands_for_the_keys_own_where_that_is_asked_for() {
    let server = Server::start_with(&[("OMBAK_GRPC_PARTITION_AUTO", "true")]);
    let mut client = connect(server.grpc.unwrap()).await;
    let request = PutRequest { header: header_of("m", 0), key: "foo".into(), value: value("bar", 0) };
    client.put(request).await.unwrap();
    assert_eq!(get(&mut client, "foo").await.unwrap(), Some((b"bar".to_vec(), 1)));
}

#[tokio::test]
async fn protocols_may_be_listed() {
    let server = Server::start_with(&[("OMBAK_GRPC_PROTOCOLS", "default/other, default/test")]);
    let mut client = connect(server.grpc.unwrap()).await;
    put(&mut client, "foo", "bar", 0).await.unwrap();
    let request = GetRequest { header: None, key: "foo".into() };
    let status = client.get(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "map not found"));
}

/// A certificate for 127.0.0.1 by an authority of its own; none where there is no openssl.
fn certificates(dir: &std::path::Path) -> bool {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca &&
        openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=localhost &&
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' >names &&
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem";
    let output = Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    output.status.success()
}

#[tokio::test]
async fn maps_are_served_over_tls_where_a_certificate_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    assert!(certificates(dir.path()), "this test needs openssl");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (certificate, key, ca) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let env = [("OMBAK_TLS_CERTIFICATE_FILE", certificate.as_str()), ("OMBAK_TLS_KEY_FILE", key.as_str())];
    let server = Server::start_with(&env);
    let url = format!("https://localhost:{}", server.grpc.unwrap().port());
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(std::fs::read(&ca).unwrap()));
    let channel = Endpoint::from_shared(url.clone()).unwrap().tls_config(tls).unwrap().connect().await.unwrap();
    let mut client = MapServiceClient::new(channel);
    assert_eq!(put(&mut client, "foo", "bar", 0).await.unwrap(), 1);
    // Without TLS there is nothing to talk about.
    assert!(match MapServiceClient::connect(format!("http://{}", server.grpc.unwrap())).await {
        Err(_) => true,
        Ok(mut plain) => get(&mut plain, "foo").await.is_err(),
    });

    let primary = Server::start_with(&[("OMBAK_TLS_CA_FILE", ca.as_str())]);
    primary.printed(&["map", "put", "other", "k", "v"]);
    primary.printed(&["map", "backup", "--to", &url, "--once"]);
    assert!(server.printed(&["map", "get", "other", "k"]).contains("\"v\""));

    let output = serve(&dir.path().join("data"))
        .envs([("OMBAK_TLS_CERTIFICATE_FILE", &key), ("OMBAK_TLS_KEY_FILE", &key)])
        .output();
    let errors = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(
        errors.contains("ombak: tls_certificate_file and tls_key_file are no certificate with its key"),
        "{errors}"
    );
}

#[tokio::test]
async fn a_request_that_does_not_arrive_gives_its_place_back() {
    let env = [("OMBAK_GRPC_REQUESTS_IN_FLIGHT_MAX", "1"), ("OMBAK_FRAME_TIMEOUT_MS", "1000")];
    let server = Server::start_with(&env);
    let url = format!("http://{}", server.grpc.unwrap());
    let mut slow = tonic::client::Grpc::new(Endpoint::from_shared(url).unwrap().connect().await.unwrap());
    let asked = tokio::spawn(async move {
        slow.ready().await.unwrap();
        let path = "/atomix.pb.map.MapService/Get".parse().unwrap();
        let never = Request::new(tokio_stream::pending::<GetRequest>());
        slow.client_streaming::<_, GetRequest, GetResponse, _>(never, path, ProstCodec::default()).await.map(|_| ())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let found = tokio::time::timeout(PATIENCE, get(&mut connect(server.grpc.unwrap()).await, "foo")).await;
    assert_eq!(found.expect("the place is not given back").unwrap(), None);
    assert_eq!(asked.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
}
