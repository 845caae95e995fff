//! What the store's cache gives: random gets of objects that take more room than it has. `cargo bench --bench cache
//! [KEYS]`, by default with 1,000,000 keys; prints a row for each size of the cache. The system keeps the store's files in
//! its own memory as far as it has any left, so a block that the cache lacks costs a read and a check, not a disk's time.
//!
//! The default was chosen by it, on two cores that others used too, files in memory, min / median / max of 5 rounds:
//!
//! | cache | one get | server |
//! |---|---|---|
//! | 8 MiB | 10.9 / 13.3 / 19.4 µs | 80 MiB |
//! | 32 MiB | 12.1 / 12.9 / 15.5 µs | 114 MiB |
//! | 64 MiB | 12.2 / 16.7 / 19.0 µs | 153 MiB |
//! | 256 MiB | 10.7 / 12.4 / 17.0 µs | 354 MiB |

#[path = "../tests/support/requests.rs"]
mod requests;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use ombak::message::{Reply, Request};
use requests::{get, put};
use support::{Connection, Server, frame};

/// Clients that store at a time: their writes share fsyncs.
const WRITERS: u32 = 64;
/// Clients that read at a time, and the gets that each sends before it waits: the store's work outweighs the way there.
const READERS: u64 = 4;
const AHEAD: u64 = 32;
/// Gets that fill the cache, and gets that are timed.
const WARM_UP: u64 = 150_000;
const TIMED: u64 = 200_000;
const ROUNDS: usize = 5;
const MIB: u64 = 1024 * 1024;
const CACHE_SIZES_MIB: [u64; 4] = [8, 32, 64, 256];
/// With its key and what is stored beside it, some 300 bytes each; it does not compress well.
const VALUE_BYTES: u64 = 256;

fn key(number: u64) -> String {
    format!("key-{number:08}")
}

fn value(number: u64) -> String {
    let mut random = fastrand::Rng::with_seed(number);
    (0..VALUE_BYTES).map(|_| random.alphanumeric()).collect()
}

fn load(server: &Server, keys: u64) {
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let mut connection = server.connect();
            scope.spawn(move || {
                for number in (u64::from(writer)..keys).step_by(WRITERS as usize) {
                    assert!(matches!(
                        connection.ask(&put("default", "b", &key(number), &value(number))),
                        Reply::Put(_)
                    ));
                }
            });
        }
    });
}

/// The microseconds that one get takes, all clients together.
fn read(server: &Server, keys: u64, gets: u64, seed: u64) -> f64 {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let mut connection = server.connect();
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed + reader);
                (0..gets / READERS / AHEAD).for_each(|_| read_some(&mut connection, &mut random, keys));
            });
        }
    });
    started.elapsed().as_secs_f64() * 1e6 / gets as f64
}

fn read_some(connection: &mut Connection, random: &mut fastrand::Rng, keys: u64) {
    let get = |number| {
        let get: Request = get("default", "b", &key(number));
        frame(get.code().number(), &get.encode())
    };
    let requests: Vec<u8> = (0..AHEAD).flat_map(|_| get(random.u64(..keys))).collect();
    connection.send(&requests);
    for _ in 0..AHEAD {
        let (code, found) = connection.receive();
        assert!(code == 10 && found.len() as u64 > VALUE_BYTES);
    }
}

fn main() {
    let keys = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    load(&Server::start_on(&data, &[]), keys);

    // Rounds of all sizes in turn: what else the machine does befalls each of them.
    let mut times = CACHE_SIZES_MIB.map(|_| Vec::new());
    let mut memory = CACHE_SIZES_MIB.map(|_| 0);
    for round in 0..ROUNDS {
        for (place, size_mib) in CACHE_SIZES_MIB.into_iter().enumerate() {
            let size = (size_mib * MIB).to_string();
            let server = Server::start_on(&data, &[("OMBAK_CACHE_SIZE_BYTES", &size)]);
            read(&server, keys, WARM_UP, 1_000 * round as u64);
            times[place].push(read(&server, keys, TIMED, 1_000 * round as u64 + 500));
            memory[place] = memory[place].max(server.memory("VmRSS:").unwrap_or_default());
        }
    }
    for ((size_mib, mut times), memory) in CACHE_SIZES_MIB.into_iter().zip(times).zip(memory) {
        times.sort_by(f64::total_cmp);
        let (least, median, most) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
        println!(
            "cache of {size_mib:>3} MiB | one get {least:>5.1} / {median:>5.1} / {most:>5.1} µs (min / median / max of {ROUNDS}) | server of {} MiB",
            memory / MIB
        );
    }
}
