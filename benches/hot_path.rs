//! What a request costs between its frame and its reply, without socket and disk: allocations, and time with the system's
//! allocator. `cargo bench --bench hot_path [WORKLOAD]`. The time takes in what other threads hold up; the allocations are those of
//! the request alone, here with the bytes that they asked for:
//!
//! | request | allocations | bytes |
//! |---|---|---|
//! | ping | 0 | 0 |
//! | get of 1 KiB | 25 | 3,100 |
//! | put of 1 KiB | 25 | 7,900 |
//! | counter | 21 | 4,100 |
//! | set of 100, one added | 19 | 18,200 |
//! | map of four fields | 67 | 8,400 |

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use ombak::mapreduce::MapReduceOptions;
use ombak::message::map_op::MapOpLayoutOption;
use ombak::message::{Reply, Request};
use ombak::service::{Answer, ClientState, IndexQueries, Listings, Service, ServiceOptions};
use ombak::store::embedded::{Durability, EmbeddedOptions};

use requests::{counter, get, in_counter, in_flag, in_register, in_set, map, put, set, update};
use workbench::{Workbench, options};

#[path = "../tests/support/requests.rs"]
mod requests;
#[path = "../tests/support/workbench.rs"]
mod workbench;

const KEYS: u64 = 10_000;
/// Requests that are timed together; the best of the rounds counts, since all else that the machine does only adds to it.
const REQUESTS: u64 = 100_000;
const ROUNDS: usize = 5;

type Make = fn(u64) -> Request;

const WORKLOADS: [(&str, Make); 6] = [
    ("ping", |_| Request::Ping),
    ("get of 1 KiB", |n| get("default", "b", &key(n))),
    ("put of 1 KiB", |n| put("default", "b", &key(n), &"v".repeat(1024))),
    ("counter", |n| update("counters", &key(n), counter(1))),
    ("set of 100, one added", |n| update("sets", &key(n % 100), set(&[&key(n / 100)], &[]))),
    ("map of four fields", |n| {
        let fields = [
            in_counter("visits", 1),
            in_register("name", "somebody"),
            in_flag("active", true),
            in_set("tags", &[&key(n % 10)], &[]),
        ];
        update("maps", &key(n), map(&[], &fields))
    }),
];

fn key(number: u64) -> String {
    format!("key-{number:012}")
}

struct Bench {
    workbench: Workbench,
    service: Service,
    state: ClientState,
}

impl Bench {
    fn open(dir: &std::path::Path) -> Self {
        let workbench = Workbench::open(EmbeddedOptions { durability: Durability::NoneForBenches, ..options(dir) });
        let service = Service::new(workbench.engine.clone(), service_options());
        Self { workbench, service, state: ClientState::default() }
    }

    fn answer(&mut self, code: u8, payload: Bytes) {
        let request = Request::decode(code, payload);
        let answer = self.workbench.runtime.block_on(self.service.answer(&mut self.state, request));
        let Answer::Reply(reply) = answer else { panic!("one reply was expected") };
        assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
        black_box(reply.encode_parts());
        black_box(self.service.gate());
    }
}

fn service_options() -> ServiceOptions {
    ServiceOptions {
        node_name: "riak@127.0.0.1".into(),
        server_version: "3.2.0".into(),
        map_op_layout: MapOpLayoutOption::Auto,
        map_depth_max: 8,
        ring_size: 64,
        reply_size_bytes_max: 1 << 20,
        list_keys_chunk: 100,
        list_buckets_chunk: 100,
        listings: Listings { buckets: true, buckets_stream: true, keys: true },
        index_queries: IndexQueries { whole: true, stream: true },
        map_reduce: MapReduceOptions::default(),
    }
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(dir.path());
    let encoded = |request: Request| (request.code().number(), request.encode());
    for number in 0..KEYS {
        let (code, payload) = encoded(put("default", "b", &key(number), &"v".repeat(1024)));
        bench.answer(code, payload);
    }
    println!("{:<24} {:>12} {:>12} {:>9}", "", "allocations", "bytes", "ns");
    for (name, make) in WORKLOADS.iter().filter(|(name, _)| name.contains(&wanted)) {
        let mut random = fastrand::Rng::with_seed(1);
        let mut requests = || (0..REQUESTS).map(|_| encoded(make(random.u64(..KEYS)))).collect::<Vec<_>>();
        // Every object is there.
        (0..KEYS).for_each(|number| {
            let (code, payload) = encoded(make(number));
            bench.answer(code, payload);
        });
        let sample = requests();
        let count = sample.len() as u64;
        let counted = allocation_counter::measure(|| {
            sample.into_iter().for_each(|(code, payload)| bench.answer(code, payload));
        });
        let nanoseconds = (0..ROUNDS).map(|_| {
            let sample = requests();
            let started = Instant::now();
            sample.into_iter().for_each(|(code, payload)| bench.answer(code, payload));
            started.elapsed().as_nanos() as u64 / count
        });
        let best = nanoseconds.min().unwrap_or_default();
        println!(
            "{name:<24} {:>12.1} {:>12} {best:>9}",
            counted.count_total as f64 / count as f64,
            counted.bytes_total / count
        );
    }
}
