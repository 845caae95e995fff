//! The Backup stream as any gRPC client sees it, on one node.

use std::time::Duration;

use ombak::grpc::generated::atomix::pb::headers::ResponseStatus;
use ombak::grpc::generated::atomix::pb::map::BackupRequest;
use tonic::Code;
use tonic::transport::Endpoint;

use super::client::*;
use super::support::Server;

async fn server() -> (Server, Client) {
    let server = Server::start();
    let client = connect(server.grpc.unwrap()).await;
    (server, client)
}

#[tokio::test]
async fn answers_come_once_each_in_order_when_entries_can_be_read() {
    let (_server, mut client) = server().await;
    let mut stream = Stream::open(&mut client).await;
    for n in 1..=200 {
        stream.send(request(vec![entry("foo", Some(&format!("v{n}")), 2, n)])).await;
        // Some are answered one by one, some while others are on their way.
        if n % 3 == 0 {
            for _ in 0..3 {
                stream.expect_ok().await;
            }
            assert_eq!(get(&mut client, "foo").await.unwrap(), Some((format!("v{n}").into_bytes(), n)));
        }
    }
    stream.expect_ok().await;
    stream.expect_ok().await;
    drop(stream.requests);
    assert!(stream.answers.message().await.unwrap().is_none(), "an answer too many");
}

#[tokio::test]
async fn an_empty_request_is_a_barrier() {
    let (_server, mut client) = server().await;
    let mut stream = Stream::open(&mut client).await;
    stream.send(BackupRequest::default()).await;
    stream.expect_ok().await;
    for n in 1..=50 {
        stream.send(request(vec![entry("foo", Some("x"), 1, n)])).await;
    }
    stream.send(BackupRequest { header: header("foo"), entries: vec![] }).await;
    for _ in 0..51 {
        stream.expect_ok().await;
    }
    assert_eq!(get(&mut client, "foo").await.unwrap().unwrap().1, 50);
    stream.send(BackupRequest { header: header_of("m", PARTITIONS + 1), entries: vec![] }).await;
    let status = stream.expect_error().await;
    assert_eq!((status.code(), status.message()), (Code::NotFound, "map not found"));
}

#[tokio::test]
async fn duplicates_and_older_entries_are_answered_and_change_nothing() {
    let (_server, mut client) = server().await;
    let mut stream = Stream::open(&mut client).await;
    for (text, term, timestamp) in [("new", 3, 7), ("dup", 3, 7), ("older", 3, 6), ("old term", 2, 99)] {
        stream.send(request(vec![entry("foo", Some(text), term, timestamp)])).await;
        stream.expect_ok().await;
        assert_eq!(get(&mut client, "foo").await.unwrap(), Some((b"new".to_vec(), 7)));
    }
    // In one request too the greater digest wins, whatever the order.
    let entries = vec![entry("foo", Some("b"), 3, 9), entry("foo", Some("a"), 3, 8), entry("foo", Some("c"), 3, 9)];
    stream.send(request(entries)).await;
    stream.expect_ok().await;
    assert_eq!(get(&mut client, "foo").await.unwrap(), Some((b"b".to_vec(), 9)));
}

#[tokio::test]
async fn an_older_put_does_not_bring_a_removed_key_back_not_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start_on(&data, &[]);
    let mut client = connect(server.grpc.unwrap()).await;
    let mut stream = Stream::open(&mut client).await;
    stream.send(request(vec![entry("foo", Some("v"), 3, 7)])).await;
    stream.send(request(vec![entry("foo", None, 3, 9)])).await;
    stream.send(request(vec![entry("foo", Some("late"), 3, 8)])).await;
    for _ in 0..3 {
        stream.expect_ok().await;
    }
    assert_eq!(get(&mut client, "foo").await.unwrap(), None);
    server.kill();

    let server = Server::start_on(&data, &[]);
    let mut client = connect(server.grpc.unwrap()).await;
    let mut stream = Stream::open(&mut client).await;
    stream.send(request(vec![entry("foo", Some("late"), 3, 8)])).await;
    stream.expect_ok().await;
    assert_eq!(get(&mut client, "foo").await.unwrap(), None);
    // Versions go on above all that was seen, and a local mutation shuts the old primary out.
    assert_eq!(put(&mut client, "foo", "own", 0).await.unwrap(), 10);
    stream.send(request(vec![entry("foo", Some("stale"), 3, 50)])).await;
    let status = stream.expect_error().await;
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "stale term"));
    assert_eq!(get(&mut client, "foo").await.unwrap(), Some((b"own".to_vec(), 10)));
    let mut stream = Stream::open(&mut client).await;
    stream.send(request(vec![entry("foo", Some("next"), 5, 11)])).await;
    stream.expect_ok().await;
}

#[tokio::test]
async fn a_stream_goes_on_after_a_restart_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start_on(&data, &[]);
    let mut client = connect(server.grpc.unwrap()).await;
    let mut stream = Stream::open(&mut client).await;
    for n in 1..=300 {
        stream.send(request(vec![entry("foo", Some(&n.to_string()), 1, n)])).await;
        if n <= 100 {
            stream.expect_ok().await;
        }
        if n == 130 {
            break;
        }
    }
    server.kill();
    let mut acknowledged = 100;
    while let Ok(Some(_)) = stream.next().await {
        acknowledged += 1;
    }
    let server = Server::start_on(&data, &[]);
    let mut client = connect(server.grpc.unwrap()).await;
    let (_, version) = get(&mut client, "foo").await.unwrap().unwrap();
    assert!((acknowledged..=130).contains(&version), "{acknowledged} acknowledged, {version} kept");
    let mut stream = Stream::open(&mut client).await;
    for n in acknowledged + 1..=140 {
        stream.send(request(vec![entry("foo", Some(&n.to_string()), 1, n)])).await;
        stream.expect_ok().await;
    }
    assert_eq!(get(&mut client, "foo").await.unwrap(), Some((b"140".to_vec(), 140)));
}

#[tokio::test]
async fn each_requests_header_names_its_map_and_partition() {
    let (_server, mut client) = server().await;
    let mut stream = Stream::open(&mut client).await;
    for (map, key) in [("m", "foo"), ("n", "foo"), ("m", "bar"), ("n", "a"), ("m", "foo")] {
        let entries = vec![entry(key, Some(map), 1, if key == "foo" { 1 } else { 2 })];
        stream.send(BackupRequest { header: header_of(map, home(key)), entries }).await;
    }
    for _ in 0..5 {
        stream.expect_ok().await;
    }
    assert_eq!(get(&mut client, "foo").await.unwrap(), Some((b"m".to_vec(), 1)));
    assert_eq!(get(&mut client, "bar").await.unwrap(), Some((b"m".to_vec(), 2)));
    assert_eq!(get(&mut client, "a").await.unwrap(), None, "it is in the other map");
}

#[tokio::test]
async fn a_malformed_request_is_kept_not_even_in_part() {
    let (_server, mut client) = server().await;
    let good = || entry("foo", Some("good"), 1, 5);
    let mut wrong_version = entry("foo", Some("x"), 1, 6);
    wrong_version.value.as_mut().unwrap().version = 7;
    let mut no_digest = entry("foo", Some("x"), 1, 0);
    no_digest.digest = None;
    for (bad, code) in [
        (wrong_version, Code::InvalidArgument),
        (no_digest, Code::InvalidArgument),
        (entry("foo", None, 1, u64::MAX), Code::InvalidArgument),
        (entry("bar", Some("elsewhere"), 1, 6), Code::InvalidArgument),
        (entry(&"k".repeat(70_000), None, 1, 6), Code::InvalidArgument),
    ] {
        let mut stream = Stream::open(&mut client).await;
        stream.send(BackupRequest::default()).await;
        stream.expect_ok().await;
        stream.send(request(vec![good(), bad])).await;
        assert_eq!(stream.expect_error().await.code(), code);
        assert_eq!(get(&mut client, "foo").await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_costs_its_own_stream_only() {
    let (_server, mut client) = server().await;
    let large = "x".repeat(5 * 1024 * 1024);
    let stream = Stream::open(&mut client).await;
    stream.send(request(vec![entry("foo", Some(&large), 1, 1)])).await;
    assert_eq!(stream.expect_error().await.code(), Code::ResourceExhausted);

    let stream = Stream::open(&mut client).await;
    stream.send(request((1..=1025).map(|n| entry("foo", Some("x"), 1, n)).collect())).await;
    assert_eq!(stream.expect_error().await.code(), Code::ResourceExhausted);

    let value_too_large = "x".repeat(3 * 1024 * 1024 + 1);
    let stream = Stream::open(&mut client).await;
    stream.send(request(vec![entry("foo", Some(&value_too_large), 1, 1)])).await;
    assert_eq!(stream.expect_error().await.code(), Code::InvalidArgument);

    let status = put(&mut client, "foo", &large, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(get(&mut client, "foo").await.unwrap(), None);
    assert_eq!(put(&mut client, "foo", "x".repeat(3 * 1024 * 1024), 0).await.unwrap(), 1);
}

#[tokio::test]
async fn a_sender_that_reads_no_answers_is_slowed_down_and_does_not_fill_the_server() {
    let server = Server::start_with(&[("OMBAK_GRPC_BACKUP_REQUESTS_IN_FLIGHT_MAX", "4")]);
    // Room for some hundred answers that nobody has read.
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc.unwrap())).unwrap();
    let channel = endpoint.initial_stream_window_size(1024).connect().await.unwrap();
    let mut stream = Stream::open(&mut Client::new(channel)).await;
    let payload = "x".repeat(64 * 1024);
    let before = server.memory("VmRSS:");
    let mut sent = 0;
    loop {
        let request = request(vec![entry("foo", Some(&payload), 1, sent + 1)]);
        if tokio::time::timeout(Duration::from_secs(2), stream.requests.send(request)).await.is_err() {
            break;
        }
        sent += 1;
        assert!(sent < 2000, "nothing slows the sender down");
    }
    if let (Some(before), Some(after)) = (before, server.memory("VmRSS:")) {
        assert!(after.saturating_sub(before) < 256 << 20, "{sent} requests took {} bytes", after - before);
    }
    // Another stream is served meanwhile.
    let mut client = connect(server.grpc.unwrap()).await;
    put(&mut client, "bar", "v", 0).await.unwrap();
    // Whatever went out is answered once its sender reads.
    for _ in 0..sent {
        assert_eq!(stream.next().await.unwrap(), Some(ResponseStatus::Ok));
    }
    assert_eq!(get(&mut client, "foo").await.unwrap().unwrap().1, sent);
}
