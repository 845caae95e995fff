//! Durable puts over gRPC beside durable puts over Riak's protocol, of the same size, from as many clients, against one server in
//! one run. Prints the rates and their ratio: `cargo bench --bench map_put`.
//!   OMBAK_BENCH_SECONDS   how long each of the runs takes (default: 5)
//!   OMBAK_BENCH_CLIENTS   how many clients, each with a connection of its own (default: 64)

#[path = "../tests/grpc/client.rs"]
#[allow(dead_code, reason = "the bench uses its part")]
mod client;
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::{connect, put};
use support::Server;
use tokio::runtime::Runtime;

const VALUE_BYTES: usize = 1024;
const KEYS: u64 = 10_000;
/// Each protocol has its turn this often.
const ROUNDS: usize = 3;
/// Not counted: connections are made and caches filled.
const WARM_UP: Duration = Duration::from_secs(1);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Puts a second over Riak's protocol, as `ombak bench` measures them.
fn riak_rate(server: &Server, seconds: u64, clients: u64) -> f64 {
    let printed = server.printed(&[
        "bench",
        "put",
        "--json",
        "--seconds",
        &seconds.to_string(),
        "--connections",
        &clients.to_string(),
        "--value-bytes",
        &VALUE_BYTES.to_string(),
        "--keys",
        &KEYS.to_string(),
    ]);
    let result: serde_json::Value = serde_json::from_str(&printed).unwrap();
    result["requests_per_second"].as_f64().expect("a rate")
}

/// Puts a second over gRPC.
async fn map_rate(server: &Server, seconds: u64, clients: u64) -> f64 {
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(seconds);
    let counted = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for number in 0..clients {
        let mut client = connect(server.grpc.unwrap()).await;
        let counted = counted.clone();
        tasks.push(tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(number);
            let value: Vec<u8> =
                (0..VALUE_BYTES).map(|at| if at.is_multiple_of(2) { random.u8(..) } else { b'x' }).collect();
            while Instant::now() < end {
                put(&mut client, &random.u64(..KEYS).to_string(), &value, 0).await.unwrap();
                if (begin..end).contains(&Instant::now()) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    counted.load(Ordering::Relaxed) as f64 / seconds as f64
}

fn main() {
    let seconds = setting("OMBAK_BENCH_SECONDS", 5);
    let clients = setting("OMBAK_BENCH_CLIENTS", 64);
    let server = Server::start();
    let runtime = Runtime::new().unwrap();
    let (mut riak, mut maps) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        riak.push(riak_rate(&server, seconds, clients));
        maps.push(runtime.block_on(map_rate(&server, seconds, clients)));
        println!("round {round}: {:.0} puts/s over Riak's protocol, {:.0} over gRPC", riak[round - 1], maps[round - 1]);
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let (riak, maps) = (mean(&riak), mean(&maps));
    println!("{clients} clients, {VALUE_BYTES} bytes: {riak:.0} and {maps:.0} puts/s, ratio {:.2}", maps / riak);
}
