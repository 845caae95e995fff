//! The same read-change-write of the same rows in Ombak's embedded store and in RocksDB, without a network: `run.sh` has both take
//! turns and compares. One process does one thing to one directory and prints a line of figures.

mod ours;
mod theirs;
mod values;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use fastrand::Rng;
use hdrhistogram::Histogram;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex, MutexGuard};

use self::ours::Ombak;
use self::theirs::{Commit, RocksDb};
use self::values::{EachOnce, Values};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Latencies are kept with three significant figures, up to a minute.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Locks for the objects. So many that two writers, of which one waits for the disk with its lock held, seldom meet.
const STRIPES: u64 = 1 << 16;
/// Before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
struct Args {
    /// What is measured
    #[arg(long, value_enum)]
    engine: EngineKind,
    /// What to do
    #[arg(long, value_enum)]
    action: Action,
    /// The engine's directory
    #[arg(long)]
    dir: PathBuf,
    /// Objects
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    objects: u64,
    /// Bytes of a value: few enough for Ombak to keep it in the object's one row
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=3072))]
    value_bytes: u64,
    /// Percentage of a value that is random bytes, which do not compress; the rest is text that repeats
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(..=100))]
    value_random_percent: u8,
    /// Those who read and write at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    writers: u64,
    /// How long to measure, after a second that is not counted; a load takes as long as it takes
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Memory that the engine may use, in bytes
    #[arg(long, default_value_t = 512 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(64 * 1024 * 1024..))]
    memory: u64,
    /// Seed of the choice of keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EngineKind {
    /// The embedded store
    Ombak,
    /// RocksDB, each writer a thread that asks for a synced write: RocksDB makes groups of those who wait
    Rocksdb,
    /// RocksDB, whose log is synced by a thread for all who have written meanwhile, as Ombak's is
    RocksdbGathered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Store each object once, in an order that jumps about
    Load,
    /// Read an object, any of them, and replace its value durably
    Put,
    /// Read an object, any of them
    Get,
}

/// Who keeps the objects.
trait Engine: Send + Sync + 'static {
    /// Reads the object and replaces its value. The object's lock is held until others may see what was written; then the
    /// write is awaited, for it to be on disk.
    fn put(&self, key: u64, value: Bytes, lock: MutexGuard<'_, ()>) -> impl Future<Output = ()> + Send;

    /// Reads the object: the number of bytes of its value, none where it is absent.
    fn get(&self, key: u64) -> impl Future<Output = usize> + Send;

    /// What was asked of it since it was opened.
    fn rows(&self) -> Rows;

    /// Ends its work. What is left for the next process to do counts for neither.
    fn close(&self);
}

/// Rows read and put, and the bytes of the latter, keys included: the same for both engines, or they are not compared.
struct Rows {
    read: u64,
    put: u64,
    put_bytes: u64,
}

/// What all writers share.
struct Work<E> {
    engine: E,
    args: Args,
    values: Values,
    each_once: EachOnce,
    stripes: Box<[Mutex<()>]>,
    begin: Instant,
    end: Instant,
    /// All that was done, the warm-up included.
    done: AtomicU64,
}

impl<E: Engine> Work<E> {
    fn new(engine: E, args: Args) -> Self {
        let begin = Instant::now() + if args.action == Action::Load { Duration::ZERO } else { WARM_UP };
        Self {
            engine,
            values: Values::new(args.value_bytes as usize, args.value_random_percent),
            each_once: EachOnce::new(args.objects),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            begin,
            end: begin + Duration::from_secs(args.seconds),
            done: AtomicU64::new(0),
            args,
        }
    }

    /// One writer's part: its latencies in microseconds.
    async fn work(&self, writer: u64) -> Histogram<u64> {
        let mut latencies = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are valid");
        let mut random = Rng::with_seed(self.args.seed.wrapping_mul(1_000_003).wrapping_add(writer));
        loop {
            let key = match self.args.action {
                Action::Load => match self.each_once.next() {
                    Some(key) => key,
                    None => return latencies,
                },
                _ if Instant::now() >= self.end => return latencies,
                _ => random.u64(..self.args.objects),
            };
            let before = match self.args.action {
                Action::Get => {
                    let before = Instant::now();
                    let size = self.engine.get(key).await;
                    assert_eq!(size as u64, self.args.value_bytes, "object {key} is not what was stored");
                    before
                }
                _ => {
                    let value = self.values.next(&mut random);
                    let before = Instant::now();
                    let lock = self.stripes[(key % STRIPES) as usize].lock().await;
                    self.engine.put(key, value, lock).await;
                    before
                }
            };
            let now = Instant::now();
            self.done.fetch_add(1, Ordering::Relaxed);
            if now >= self.begin && (now < self.end || self.args.action == Action::Load) {
                latencies.saturating_record((now - before).as_micros() as u64);
            }
            if self.args.action == Action::Get {
                // It never waits by itself, and others are to have their turns.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Lets all writers work, as tasks, or each on a thread of its own where they block it.
    fn run(self: Arc<Self>, runtime: &Runtime, on_threads: bool) {
        let began = Instant::now();
        let mut all = Histogram::<u64>::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are valid");
        let mut add = |latencies| all.add(latencies).expect("they have the same bounds");
        if on_threads {
            let writer = |number| {
                let (work, handle) = (self.clone(), runtime.handle().clone());
                std::thread::spawn(move || handle.block_on(work.work(number)))
            };
            let writers: Vec<_> = (0..self.args.writers).map(writer).collect();
            writers.into_iter().for_each(|writer| add(writer.join().expect("a writer panicked")));
        } else {
            let writer = |number| {
                let work = self.clone();
                runtime.spawn(async move { work.work(number).await })
            };
            let writers: Vec<_> = (0..self.args.writers).map(writer).collect();
            for writer in writers {
                add(runtime.block_on(writer).expect("a writer panicked"));
            }
        }
        let seconds = match self.args.action {
            Action::Load => began.elapsed().as_secs_f64(),
            _ => self.args.seconds as f64,
        };
        self.report(&all, seconds);
        self.engine.close();
    }

    /// Prints a line of figures; those of rows, bytes and time are for each operation.
    fn report(&self, latencies: &Histogram<u64>, seconds: f64) {
        let done = self.done.load(Ordering::Relaxed).max(1) as f64;
        let rows = self.engine.rows();
        let at = |quantile| latencies.value_at_quantile(quantile);
        let (read_bytes, written_bytes) = disk_bytes();
        println!(
            "per_second={:.1} p50_us={} p99_us={} p999_us={} max_us={} rows_read={:.2} rows_put={:.2} row_bytes={:.1} read_bytes={:.1} \
             written_bytes={:.1} memory_bytes={}",
            latencies.len() as f64 / seconds,
            at(0.5),
            at(0.99),
            at(0.999),
            latencies.max(),
            rows.read as f64 / done,
            rows.put as f64 / done,
            rows.put_bytes as f64 / rows.put.max(1) as f64,
            read_bytes as f64 / done,
            written_bytes as f64 / done,
            memory_bytes(),
        );
    }
}

/// Bytes that this process has read from the disk and written to it: 0 where there is no /proc.
fn disk_bytes() -> (u64, u64) {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let counter = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    (counter("read_bytes"), counter("write_bytes"))
}

/// The most memory that this process has had: 0 where there is no /proc.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn main() {
    let args = Args::parse();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    match args.engine {
        EngineKind::Ombak => {
            let idleness = Arc::new(ombak::server::Idleness::new(threads));
            let (resting, rising) = (idleness.clone(), idleness.clone());
            let runtime = Builder::new_multi_thread()
                .worker_threads(threads)
                .on_thread_park(move || resting.rest())
                .on_thread_unpark(move || rising.rise())
                .enable_all()
                .build()
                .expect("cannot start the worker threads");
            let engine = Ombak::open(&args.dir, args.memory, idleness);
            Arc::new(Work::new(engine, args)).run(&runtime, false);
        }
        EngineKind::Rocksdb | EngineKind::RocksdbGathered => {
            let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
            let runtime = runtime.expect("cannot start the worker threads");
            // Loading is not what is compared.
            let is_own = args.engine == EngineKind::Rocksdb && args.action == Action::Put;
            let commit = if is_own { Commit::Own } else { Commit::Gathered };
            let engine = RocksDb::open(&args.dir, args.memory, threads, commit);
            Arc::new(Work::new(engine, args)).run(&runtime, is_own);
        }
    }
}
