//! What one small change of a data type costs as the object grows: rows and bytes, which are the same at every size, the
//! time without fsync, and the memory of a server whose set grows to a million members.
//!
//! `cargo bench --bench data_types` prints the table, has criterion measure what is read, compares the time of writes to small
//! and large objects, and then grows a server. `… -- compare` does the comparison alone, and `… -- churn` shows what a million
//! adds and removes leave behind.

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path as DirPath;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion};
use ombak::domain::cell::{FieldKind, Path};
use ombak::domain::datatype::value::{Value, ValueBuilder};
use ombak::domain::datatype::{DataType, Operation};
use ombak::domain::key::ObjectName;
use ombak::message::Reply;
use ombak::store::embedded::{Durability, EmbeddedOptions};

use requests::{fetch, set, update};
use support::{Connection, Server, frame};
use workbench::*;

#[path = "../tests/support/requests.rs"]
mod requests;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/workbench.rs"]
mod workbench;

const SIZES: [u64; 5] = [10, 1_000, 10_000, 100_000, 1_000_000];

fn main() {
    if std::env::args().any(|argument| argument == "churn") {
        return churn();
    }
    if std::env::args().any(|argument| argument == "compare") {
        return compare();
    }
    let dir = tempfile::tempdir().unwrap();
    let bench = Workbench::open(without_fsync(dir.path()));
    for size in SIZES {
        bench.grow_set(&set_of(size), size);
        bench.grow_map(&map_of(size), size);
    }
    print_counts(&bench);
    measure(&bench);
    drop(bench);
    compare();
    grow_a_server();
}

/// The usual sizes of cache and memtable, those of a server.
fn without_fsync(dir: &DirPath) -> EmbeddedOptions {
    EmbeddedOptions { durability: Durability::NoneForBenches, ..options(dir) }
}

fn set_of(size: u64) -> ObjectName {
    object("sets", format!("{size:010}"))
}

fn map_of(size: u64) -> ObjectName {
    object("maps", format!("{size:010}"))
}

/// Numbers that are spread over all up to `size`, the same in each run.
fn scattered(size: u64) -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % size
    }
}

fn print_counts(bench: &Workbench) {
    println!("{:<42} {:>9} {:>5} {:>8} {:>5} {:>6} {:>8}", "", "size", "read", "scanned", "put", "bytes", "deleted");
    let print = |what: &str, size: u64, operation: &mut dyn FnMut(u64)| {
        let cost = bench.cost(operation);
        let (read, scanned, put, bytes) = (cost.read, cost.scanned, cost.put, cost.put_bytes);
        println!("{what:<42} {size:>9} {read:>5} {scanned:>8} {put:>5} {bytes:>6} {:>8}", cost.deleted);
    };
    for size in SIZES {
        print("add to a set", size, &mut |run| bench.update(&set_of(size), add([number(size + run)].into_iter())));
    }
    for size in SIZES {
        print("increment a counter of a map", size, &mut |_| {
            bench.update(&map_of(size), increment([number(size / 2)].into_iter()));
        });
    }
    for size in SIZES {
        print("is-member of a set", size, &mut |_| {
            is_member(bench, size, size / 2);
        });
    }
    for size in SIZES {
        print("read a counter of a map", size, &mut |_| read_counter(bench, size, size / 2));
    }
}

fn is_member(bench: &Workbench, size: u64, member: u64) -> bool {
    bench.runtime.block_on(bench.engine.is_member(&set_of(size), &Path::root(), &number(member))).unwrap()
}

fn read_counter(bench: &Workbench, size: u64, name: u64) {
    let mut value = ValueBuilder::new(DataType::Counter);
    let path = field(number(name), FieldKind::Counter);
    bench.runtime.block_on(bench.engine.value_at(&map_of(size), &path, &mut value)).unwrap();
    black_box(value.finish());
}

fn measure(bench: &Workbench) {
    let mut criterion = Criterion::default().configure_from_args().measurement_time(Duration::from_secs(3));
    let mut group = criterion.benchmark_group("is-member of a set");
    for size in SIZES {
        let mut next = scattered(size);
        group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| is_member(bench, size, next())));
    }
    group.finish();
    let mut group = criterion.benchmark_group("read a counter of a map");
    for size in SIZES {
        let mut next = scattered(size);
        group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| read_counter(bench, size, next())));
    }
    group.finish();
}

/// Objects that are written side by side. A write that is waited for alone takes the time of two threads that wake each
/// other, which swings more than what is compared; these share it.
const SIDE_BY_SIDE: u64 = 4;
/// Many and short: what else the machine does falls on few of them, and not on the median.
const ROUNDS: usize = 24;
/// Writes to each object in a round.
const WRITES: u64 = 500;
const SMALL: u64 = 1_000;
const LARGE: u64 = 1_000_000;

/// The time of a write to a large object against one to a small object in the same store, in rounds that take turns.
fn compare() {
    println!("\none write without fsync, {SIDE_BY_SIDE} at a time, {ROUNDS} rounds: min / median / max");
    compare_writes("add to a set", "sets", Workbench::grow_set, |number| add([number].into_iter()));
    compare_writes("increment a counter of a map", "maps", Workbench::grow_map, |name| increment([name].into_iter()));
}

fn compare_writes(
    what: &str,
    bucket_type: &'static str,
    grow: fn(&Workbench, &ObjectName, u64),
    operation: fn(Bytes) -> Operation,
) {
    let dir = tempfile::tempdir().unwrap();
    let bench = Workbench::open(without_fsync(dir.path()));
    let names = |size: u64| (0..SIDE_BY_SIDE).map(move |n| object(bucket_type, format!("{size:010}-{n}")));
    for size in [LARGE, SMALL] {
        names(size).for_each(|name| grow(&bench, &name, size));
    }
    let mut numbers = scattered(u64::MAX);
    let mut microseconds = |size: u64| {
        // Half of them new, all over the object.
        let mut operations = || (0..WRITES).map(|_| operation(number(numbers() % (2 * size)))).collect();
        let updates = names(size).map(|name| (name, operations())).collect();
        let started = Instant::now();
        bench.update_side_by_side(updates);
        started.elapsed().as_secs_f64() * 1e6 / (SIDE_BY_SIDE * WRITES) as f64
    };
    // The first of each reads its objects' blocks into the cache.
    for size in [SMALL, LARGE] {
        microseconds(size);
    }
    let rounds: Vec<_> = (0..ROUNDS).map(|_| [SMALL, LARGE].map(&mut microseconds)).collect();
    let spread = |of: &dyn Fn(&[f64; 2]) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        format!("{:>6.2} / {:>6.2} / {:>6.2}", all[0], (all[(ROUNDS - 1) / 2] + all[ROUNDS / 2]) / 2.0, all[ROUNDS - 1])
    };
    println!("{what}");
    println!("  at {SMALL:>9}: {} µs", spread(&|[small, _]| *small));
    println!("  at {LARGE:>9}: {} µs", spread(&|[_, large]| *large));
    println!("  ratio       : {}", spread(&|[small, large]| large / small));
}

const CONNECTIONS: u64 = 64;
const MEMBERS: u64 = 1_000_000;

/// Single adds by many connections, with fsync as always, until the set has a million members; then a whole fetch.
fn grow_a_server() {
    let server = Server::start();
    let mib = |bytes: Option<u64>| bytes.map_or("?".into(), |bytes| format!("{:.0} MiB", bytes as f64 / 1_048_576.0));
    println!("\na server's memory while one set grows (cache 32 MiB, memtable 64 MiB)");
    println!("  at start: {}", mib(server.memory("VmRSS")));
    let started = Instant::now();
    for tenth in 0..10 {
        let address = server.address;
        std::thread::scope(|scope| {
            for connection in 0..CONNECTIONS {
                scope.spawn(move || add_singly(address, tenth, connection));
            }
        });
        let members = (tenth + 1) * MEMBERS / 10;
        let seconds = started.elapsed().as_secs_f64();
        println!("  {members:>9} members after {seconds:>4.0} s: {}", mib(server.memory("VmRSS")));
    }
    println!("  peak: {}", mib(server.memory("VmHWM")));
    // The first fetch also fills the cache with what it reads; the others show what a reply takes.
    for _ in 0..3 {
        let before = server.memory("VmRSS");
        // Lets the system forget the peak.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5");
        let (code, reply) = server.connect().call(80, &fetch("sets", "grown").encode());
        let size_bytes = Some(reply.len() as u64);
        let Reply::DtFetch(reply) = Reply::decode(code, reply.into()).unwrap() else { panic!("no value") };
        assert_eq!(reply.value.unwrap().set_value.len() as u64, MEMBERS);
        let peak = server.memory("VmHWM");
        println!("  a whole fetch of {}: {} before, peak {}", mib(size_bytes), mib(before), mib(peak));
    }
}

/// Adds one connection's share of a tenth, member by member. It sends a few before it waits for the first reply: such a
/// client gets its replies in order.
fn add_singly(address: SocketAddr, tenth: u64, connection: u64) {
    const AHEAD: usize = 16;
    let range = MEMBERS / 10;
    let mut socket = Connection::open(address);
    let members: Vec<_> = (tenth * range..(tenth + 1) * range).filter(|n| n % CONNECTIONS == connection).collect();
    for few in members.chunks(AHEAD) {
        for member in few {
            let member = format!("{member:010}");
            let request = update("sets", "grown", set(&[&member], &[]));
            socket.send(&frame(request.code().number(), &request.encode()));
        }
        for _ in few {
            assert_eq!(socket.receive().0, 83);
        }
    }
}

/// A million adds and removes of a thousand members, without fsync: whether the set still reads well, and what is on disk.
fn churn() {
    const PAIRS: u64 = 1_000_000;
    const DISTINCT: u64 = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let mut options = without_fsync(dir.path());
    options.rows.rows_swept_per_step_max = 512;
    let bench = Workbench::open(options);
    let name = object("sets", "churned");
    bench.grow_set(&name, DISTINCT);
    let reading = |bench: &Workbench| {
        let best = (0..5).map(|_| {
            let started = Instant::now();
            black_box(bench.fetch(&name, DataType::Set));
            started.elapsed()
        });
        best.min().unwrap()
    };
    println!("fresh: read in {:?}, {} KiB on disk", reading(&bench), disk(dir.path()) / 1024);
    let started = Instant::now();
    let mut worst = Duration::ZERO;
    for pair in 0..PAIRS {
        let member = number(pair % DISTINCT);
        bench.update(&name, remove([member.clone()].into_iter()));
        bench.update(&name, add([member].into_iter()));
        if pair % 10_000 == 9_999 {
            worst = worst.max(reading(&bench));
        }
        if pair % 100_000 == 99_999 {
            let (pairs, seconds) = (pair + 1, started.elapsed().as_secs());
            println!(
                "{pairs} pairs after {seconds} s: read in {:?}, {} KiB on disk",
                reading(&bench),
                disk(dir.path()) / 1024
            );
        }
    }
    println!("slowest read on the way: {worst:?}");
    for pair in 0..DISTINCT {
        bench.update(&name, remove([number(pair)].into_iter()));
    }
    println!("all removed: read in {:?}, {} KiB on disk", reading(&bench), disk(dir.path()) / 1024);

    // A large set that shrinks to almost nothing, by single removes of its own members and not by a field's.
    let name = object("sets", "shrunk");
    bench.grow_set(&name, PAIRS);
    for first in (10..PAIRS).step_by(1_000) {
        bench.update(&name, remove((first..PAIRS.min(first + 1_000)).map(number)));
    }
    let started = Instant::now();
    let members = bench.fetch(&name, DataType::Set);
    let first = started.elapsed();
    let kib = disk(dir.path()) / 1024;
    println!("a million members but {}: read in {first:?}, {kib} KiB on disk", size_of(&members));
    let best = (0..5).map(|_| {
        let started = Instant::now();
        black_box(bench.fetch(&name, DataType::Set));
        started.elapsed()
    });
    println!("  and again in {:?}", best.min().unwrap());
}

fn size_of(value: &Value) -> usize {
    match value {
        Value::Set(members) => members.len(),
        _ => 0,
    }
}

/// What a directory takes on disk, in bytes: files that are made larger than what is written to them take less.
fn disk(dir: &DirPath) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
