//! Two servers as a warm standby: `ombak map backup`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ombak::grpc::generated::atomix::pb::map::map_service_client::MapServiceClient;
use ombak::grpc::generated::atomix::pb::map::{Digest, GetRequest, PutRequest};
use ombak::grpc::generated::ombak::standby::ListDigestsRequest;
use ombak::grpc::generated::ombak::standby::standby_service_client::StandbyServiceClient;
use tokio::time::{Instant, sleep};

use super::client::*;
use super::support::{Server, ombak};

/// A key's digest, and its bytes and version unless it was removed.
pub type State = (Digest, Option<(Vec<u8>, u64)>);
/// By partition, map and key.
pub type Everything = BTreeMap<(u32, String, String), State>;

/// All that a server holds, removed keys included.
pub async fn everything(address: SocketAddr) -> Everything {
    let url = format!("http://{address}");
    let mut standby = StandbyServiceClient::connect(url.clone()).await.unwrap();
    let mut client = MapServiceClient::connect(url).await.unwrap();
    let mut all = Everything::new();
    for partition in 1..=PARTITIONS {
        let mut after = bytes::Bytes::new();
        loop {
            let page = standby.list_digests(ListDigestsRequest { partition, after }).await.unwrap().into_inner();
            for found in page.keys {
                let map = &page.maps[found.map as usize].primitive_name;
                let header = header_of(map, partition);
                let value = client.get(GetRequest { header, key: found.key.clone() }).await.unwrap().into_inner().value;
                let value = value.map(|value| (value.value.to_vec(), value.version));
                assert_eq!(found.removed, value.is_none(), "{}", found.key);
                let before = all.insert((partition, map.clone(), found.key), (found.digest.unwrap(), value));
                assert!(before.is_none(), "a key is listed twice");
            }
            after = page.next;
            if after.is_empty() {
                break;
            }
        }
    }
    all
}

/// Waits until the standby holds what the primary does.
async fn expect_same(primary: SocketAddr, standby: SocketAddr) -> Everything {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (here, there) = (everything(primary).await, everything(standby).await);
        if here == there {
            return here;
        }
        assert!(Instant::now() < deadline, "the standby does not follow:\n{here:?}\n{there:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// `ombak map backup` while this lives.
pub struct Follower(Child);

impl Follower {
    pub fn start(primary: &Server, to: SocketAddr) -> Self {
        let mut command: Command = ombak();
        command.arg("--data-dir").arg(&primary.data_dir).args(["map", "backup", "--to", &to.to_string()]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn fill(client: &mut Client, keys: std::ops::Range<u32>) {
    for n in keys {
        let key = format!("key-{n}");
        let map = ["m", "n"][n as usize % 2];
        let request = PutRequest { header: header_of(map, home(&key)), key, value: value(format!("value {n}"), 0) };
        client.put(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_standby_gets_everything_and_follows() {
    let (primary, standby) = (Server::start(), Server::start());
    let (here, there) = (primary.grpc.unwrap(), standby.grpc.unwrap());
    let mut client = connect(here).await;
    fill(&mut client, 0..300).await;
    put(&mut client, "", "", 0).await.unwrap();
    put(&mut client, "gone", "x", 0).await.unwrap();
    remove(&mut client, "gone", 0).await.unwrap();
    let _follower = Follower::start(&primary, there);
    assert_eq!(expect_same(here, there).await.len(), 302);
    // Now it follows.
    fill(&mut client, 200..400).await;
    remove(&mut client, "", 0).await.unwrap();
    let all = expect_same(here, there).await;
    assert_eq!(all.len(), 402);
    assert!(all.values().any(|(_, value)| value.is_none()));
}

#[tokio::test]
async fn a_feed_goes_on_where_it_was() {
    let (primary, standby) = (Server::start(), Server::start());
    let (here, there) = (primary.grpc.unwrap(), standby.grpc.unwrap());
    let mut client = connect(here).await;
    fill(&mut client, 0..100).await;
    let to = there.to_string();
    let backup = ["map", "backup", "--to", &to, "--once"];
    assert_eq!(primary.printed(&backup), format!("{to} has everything: 100 entries were sent\n"));
    expect_same(here, there).await;
    fill(&mut client, 90..110).await;
    assert_eq!(primary.printed(&backup), format!("{to} has everything: 20 entries were sent\n"));
    expect_same(here, there).await;
    assert_eq!(primary.printed(&backup), format!("{to} has everything: 0 entries were sent\n"));
    let all = ["map", "backup", "--to", &to, "--once", "--compare-all"];
    assert_eq!(primary.printed(&all), format!("{to} has everything: 0 entries were sent\n"));
}

#[tokio::test]
async fn a_standby_that_was_emptied_is_filled_again_and_one_that_comes_back_goes_on() {
    let primary = Server::start();
    let here = primary.grpc.unwrap();
    let mut client = connect(here).await;
    fill(&mut client, 0..50).await;
    let dir = tempfile::tempdir().unwrap();
    let mut standby = Server::start_on(&dir.path().join("one"), &[]);
    let address = standby.grpc.unwrap();
    let at = address.to_string();
    let _follower = Follower::start(&primary, address);
    expect_same(here, address).await;

    standby.kill();
    fill(&mut client, 40..60).await;
    let mut standby = Server::start_on(&dir.path().join("one"), &[("OMBAK_GRPC_LISTEN", &at)]);
    expect_same(here, address).await;

    standby.kill();
    let _standby = Server::start_on(&dir.path().join("another"), &[("OMBAK_GRPC_LISTEN", &at)]);
    assert_eq!(expect_same(here, address).await.len(), 60);
}

#[tokio::test]
async fn after_a_gap_longer_than_the_retention_all_keys_are_compared() {
    let primary = Server::start_with(&[("OMBAK_MAP_TOMBSTONE_RETENTION_MS", "300")]);
    let standby = Server::start();
    let (here, there) = (primary.grpc.unwrap(), standby.grpc.unwrap());
    let mut client = connect(here).await;
    fill(&mut client, 0..20).await;
    put(&mut client, "gone", "x", 0).await.unwrap();
    let to = there.to_string();
    primary.printed(&["map", "backup", "--to", &to, "--once"]);
    assert_eq!(expect_same(here, there).await.len(), 21);

    remove(&mut client, "gone", 0).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while everything(here).await.len() == 21 {
        assert!(Instant::now() < deadline, "the removal is not forgotten");
        sleep(Duration::from_millis(20)).await;
    }
    put(&mut client, "key-7", "new", 0).await.unwrap();
    primary.printed(&["map", "backup", "--to", &to, "--once"]);
    let mut there = connect(there).await;
    assert_eq!(get(&mut there, "gone").await.unwrap(), None);
    assert_eq!(get(&mut there, "key-7").await.unwrap().unwrap().0, b"new");
}

#[tokio::test]
async fn a_standby_that_was_written_to_refuses() {
    let (primary, standby) = (Server::start(), Server::start());
    let mut here = connect(primary.grpc.unwrap()).await;
    let mut there = connect(standby.grpc.unwrap()).await;
    put(&mut here, "foo", "1", 0).await.unwrap();
    let to = standby.grpc.unwrap().to_string();
    primary.printed(&["map", "backup", "--to", &to, "--once"]);
    put(&mut there, "foo", "taken over", 0).await.unwrap();
    put(&mut here, "foo", "2", 0).await.unwrap();
    let output = primary.ombak(&["map", "backup", "--to", &to, "--once"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors, "ombak: the standby refuses: stale term (FailedPrecondition)\n");
    assert_eq!(get(&mut there, "foo").await.unwrap().unwrap().0, b"taken over");

    let itself = primary.grpc.unwrap().to_string();
    let output = primary.ombak(&["map", "backup", "--to", &itself, "--once"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "ombak: the standby is this server itself\n");
    let output = primary.ombak(&["map", "backup", "--to", "no address", "--once"]);
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("ombak: no address is no address"));
}

#[tokio::test]
async fn maps_are_read_and_changed_on_the_command_line() {
    let server = Server::start();
    let mut client = connect(server.grpc.unwrap()).await;
    assert_eq!(
        server.printed(&["map", "put", "app/m", "foo", "bar", "--protocol", "default/test"]),
        "{\n  \"version\": 1\n}\n"
    );
    assert_eq!(get(&mut client, "foo").await.unwrap(), Some((b"bar".to_vec(), 1)));
    put(&mut client, "foo", [0xff], 1).await.unwrap();
    let get = ["map", "get", "app/m", "foo", "--protocol", "default/test"];
    assert_eq!(server.printed(&get), "{\n  \"value\": {\n    \"base64\": \"/w==\"\n  },\n  \"version\": 2\n}\n");
    let output = server.ombak(&["map", "remove", "app/m", "foo", "--protocol", "default/test", "--version", "1"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "ombak: optimistic lock failure\n");
    server.printed(&["map", "remove", "app/m", "foo", "--protocol", "default/test", "--version", "2"]);
    let output = server.ombak(&get);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "ombak: not found\n");
}
