//! What a connection costs that waits for its next request.

use crate::requests::{get, put};
use crate::support::{Connection, Server};

const CONNECTIONS_WANTED: usize = 1_000;
const BYTES_EACH_MAX: u64 = 32 * 1024;

/// Files that this process and the server may open, but for those that other tests need.
fn connections_possible() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    Some(line.split_whitespace().nth(3)?.parse::<usize>().ok()?.saturating_sub(500))
}

/// 4 KiB one way and 4 KiB the other, without anything that the store would have to keep.
fn use_it(connection: &mut Connection) {
    let large_key = "k".repeat(4096);
    connection.ask(&get("default", "b", &large_key));
    connection.ask(&get("default", "b", "k"));
}

#[test]
fn idle_connections_are_cheap() {
    let Some(possible) = connections_possible() else {
        println!("skipped: there is no /proc/self/limits here");
        return;
    };
    let count = CONNECTIONS_WANTED.min(possible);
    let server = Server::start();
    let mut first = server.connect();
    first.ask(&put("default", "b", "k", &"v".repeat(4096)));
    // What the server needs once, whoever comes: caches, stacks, the allocator's arenas.
    (0..1_000).for_each(|_| use_it(&mut first));

    let before = server.memory("VmRSS").expect("it has a /proc");
    let mut connections: Vec<_> = (0..count).map(|_| server.connect()).collect();
    connections.iter_mut().for_each(use_it);
    let each = server.memory("VmRSS").unwrap().saturating_sub(before) / count as u64;
    println!("{count} idle connections cost {each} bytes of RSS each");
    assert!(each < BYTES_EACH_MAX, "{each} bytes each");
    connections.iter_mut().for_each(|connection| connection.expect_alive());
}
