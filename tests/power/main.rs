//! Power failures over all files: what the server does to its files is journalled while it runs, and it is started on what a disk
//! may hold where the power fails at any point of that. It opens, shows what was acknowledged by then, nothing half, and
//! takes further writes.
#![cfg(target_os = "linux")]

#[path = "../grpc/client.rs"]
#[allow(dead_code, reason = "this test uses its part")]
mod client;
mod disk;
mod failures;
mod journal;
#[path = "../support/load.rs"]
mod load;
mod maps;
mod points;
#[path = "../support/requests.rs"]
mod requests;
mod run;
mod strace;
#[path = "../support/mod.rs"]
mod support;

use tempfile::TempDir;

/// What the surroundings say, so that the same test runs for long by hand: `tests/long.sh`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A directory for what is made and thrown away again: in memory where it can be, since no sync there has to last.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
