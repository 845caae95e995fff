//! `ombak bench`: load on any server that speaks the protocol, a real Riak included, and what it takes of it.
//!
//! The server's processor may be this one, so a request costs little here: it is encoded once and then only its digits
//! and its value change, what is pipelined is written at once, and the clock is read once for all that one read brings.

mod floor;
mod load;
mod measured;
mod numbers;
mod pace;
mod series;
mod span;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::{JoinError, JoinSet};

use self::load::{Load, Templates};
use self::measured::Measured;
use self::numbers::EachOnce;
use self::pace::{Pace, paces};
use self::series::SeriesFile;
use self::span::Span;
use super::target::address;
use super::{CliError, Outcome};
use crate::client::{Client, ClientError, Pipeline};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(after_help = "\
Workloads:
  ping     nothing but the way there and back
  get      plain objects, which are stored first
  put      plain objects, each put replacing what is there
  counter  adds one to a counter of type `counters`
  set      adds one of 100 members to a set of type `sets`
  map      counter, register, flag and set member of a map of type `maps`, in one update
  bigset   adds members to the one set of all connections
  mixed    half gets, the rest puts, counters, sets and maps
  fsync    no server: appends --value-bytes to a file in --dir and waits until the disk has them, one after the other

Each connection waits for replies before it sends more, so a slow server is asked less. With --rate requests are due at even
intervals whatever the server does, and count from when they were due.

--each-once loads data: it asks for each key (of a bigset: adds each member) once, in an order that jumps about, and ends with
the last. What is in then is measured with --filled, which keeps get and mixed from storing their objects first.

--series writes a line for each whole second: when it began (milliseconds since 1970), how many requests were answered in it,
and the latencies of those. The first begins with a second of the clock, so the lines of runs side by side can be compared.

The bucket types are there in Ombak from its first start; another server must be given them. The exit status is 1 when a
request was refused.

Examples:
  ombak bench put --value-bytes 1024
  ombak bench counter --connections 256 --pipeline 16 --seconds 30
  ombak bench counter --rate 10000
  ombak bench mixed --host riak.example:8087 --json
  ombak bench put --keys 4000000 --pipeline 16 --each-once
  ombak bench get --keys 4000000 --filled --seconds 600 --series gets.csv
  ombak bench fsync --value-bytes 128 --dir /var/lib/ombak")]
pub struct BenchArgs {
    /// What to do all the time
    #[arg(value_enum)]
    workload: Workload,
    /// Server to talk to [default: the first address of pbc_listen]
    #[arg(long, value_name = "HOST:PORT")]
    host: Option<String>,
    /// Connections at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pipeline: u32,
    /// Requests a second, of all connections together [default: as many as replies allow]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    rate: Option<u32>,
    /// How long to measure, after a warm-up that is not counted
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Go on after --seconds until so many requests are answered
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    requests_min: u64,
    /// Milliseconds before anything counts; with --series up to a second more
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=3_600_000))]
    warm_up_ms: u32,
    /// Ask for each key once and then end; all of it counts
    #[arg(long, conflicts_with_all = ["seconds", "requests_min", "warm_up_ms"])]
    each_once: bool,
    /// Objects of all keys are there: do not store them before get or mixed
    #[arg(long)]
    filled: bool,
    /// Different keys, or for bigset members
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=load::NUMBERS))]
    keys: u64,
    /// Members that one update of set or bigset adds; several may be the same
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    elements: u32,
    /// Bytes of a value or register (a map's has 64 at most)
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(..=16_777_216))]
    value_bytes: u32,
    /// Percentage of a value that is random bytes, other ones each time, which do not compress; the rest is text that repeats,
    /// and takes next to nothing
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(..=100))]
    value_random_percent: u32,
    /// Bucket to use: each run may have its own
    #[arg(long, default_value = "bench")]
    bucket: String,
    /// Seed of the choice of keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory on the disk that fsync is about
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// File for what each second saw: CSV
    #[arg(long, value_name = "FILE")]
    series: Option<PathBuf>,
    /// Print the result as JSON, and no progress bar
    #[arg(long)]
    json: bool,
}

impl BenchArgs {
    /// Turns that go through all keys: members, where there is one key.
    fn each_once(&self) -> EachOnce {
        let per_turn = if self.workload == Workload::Bigset { self.elements } else { 1 };
        EachOnce::new(self.keys, per_turn.into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    Ping,
    Get,
    Put,
    Counter,
    Set,
    Map,
    Bigset,
    Mixed,
    Fsync,
}

impl Workload {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Into how many the progress bar is divided.
const PROGRESS_STEPS: u64 = 1000;
/// Open files that are no connections.
const FILES_BESIDE_CONNECTIONS: u64 = 50;
/// Requests in flight on each connection while objects are stored before a run: enough to share fsyncs.
const FILL_PIPELINE: u32 = 16;

pub(super) async fn run(args: &BenchArgs, config: &Config) -> Result<Outcome, CliError> {
    check(args)?;
    let series = args.series.clone().map(SeriesFile::create).transpose()?;
    let progress = if args.json { ProgressBar::hidden() } else { progress_bar() };
    let mut measured = match args.workload {
        Workload::Fsync => {
            let (dir, bytes) = (args.dir.clone(), args.value_bytes);
            let measured = Arc::new(Mutex::new(Measured::new(args, Span::from_now(args))));
            let shared = measured.clone();
            let appending = tokio::task::spawn_blocking(move || floor::append(&dir, bytes, &shared));
            while_shown(&progress, &measured, appending).await?.map_err(ended)??;
            taken(args, &measured)
        }
        _ => load_server(args, &address(args.host.as_deref(), config), &progress).await?,
    };
    progress.finish_and_clear();
    if let Some(series) = series {
        measured.write_series(series)?;
    }
    let text = if args.json { format!("{:#}\n", measured.to_json(args)) } else { measured.to_text(args) };
    Ok(Outcome { text, exit_code: measured.has_refusals().into() })
}

/// Refuses what does not go together.
fn check(args: &BenchArgs) -> Result<(), CliError> {
    let refuse = |argument, reason: &str| Err(CliError::Argument { argument, reason: reason.to_owned() });
    match args.workload {
        Workload::Fsync if args.rate.is_some() => refuse("--rate", "fsync waits for each write"),
        Workload::Fsync | Workload::Ping | Workload::Mixed if args.each_once => {
            refuse("--each-once", "this workload goes through no keys")
        }
        Workload::Set | Workload::Bigset => Ok(()),
        _ if args.elements > 1 => refuse("--elements", "this workload adds no members, or only one"),
        _ => Ok(()),
    }
}

fn progress_bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {percent}%").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(PROGRESS_STEPS).with_style(style)
}

/// Waits for the work, shows meanwhile how far the run has come, and gives up a server that is silent.
async fn while_shown<T>(
    progress: &ProgressBar,
    run: &Mutex<Measured>,
    work: impl Future<Output = T>,
) -> Result<T, CliError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                let run = lock(run);
                let now = Instant::now();
                if run.is_abandoned(now) {
                    return Err(CliError::Failed { reason: "requests are left without a reply".to_owned() });
                }
                progress.set_position((run.progress(now) * PROGRESS_STEPS as f64) as u64);
            }
        }
    }
}

/// All connections run on one thread: nobody waits here for long.
fn lock(run: &Mutex<Measured>) -> MutexGuard<'_, Measured> {
    run.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a run that has ended has measured.
fn taken(args: &BenchArgs, run: &Mutex<Measured>) -> Measured {
    std::mem::replace(&mut *lock(run), Measured::new(args, Span::of_requests(0)))
}

async fn load_server(args: &BenchArgs, address: &str, progress: &ProgressBar) -> Result<Measured, CliError> {
    raise_file_limit(args.connections)?;
    if matches!(args.workload, Workload::Get | Workload::Mixed) && !args.filled && !args.each_once {
        progress.set_message("storing objects");
        fill(args, address, progress).await?;
    }
    progress.set_message(args.workload.name());
    let each_once = args.each_once.then(|| args.each_once());
    let part = Part { workload: args.workload, each_once, rate: args.rate, depth: args.pipeline };
    load_with(args, part, address, progress).await
}

/// What connections do together.
struct Part {
    workload: Workload,
    each_once: Option<EachOnce>,
    rate: Option<u32>,
    /// Requests in flight on each connection.
    depth: u32,
}

/// Stores every object that gets will ask for.
async fn fill(args: &BenchArgs, address: &str, progress: &ProgressBar) -> Result<(), CliError> {
    let each_once = Some(EachOnce::new(args.keys, 1));
    let part = Part { workload: Workload::Put, each_once, rate: None, depth: FILL_PIPELINE };
    let filled = load_with(args, part, address, progress).await?;
    match filled.first_refusal() {
        Some(reason) => Err(ClientError::Refused { reason: reason.to_owned() }.into()),
        None => Ok(()),
    }
}

/// Does it for the span that is asked for, or until all turns are taken.
async fn load_with(args: &BenchArgs, part: Part, address: &str, progress: &ProgressBar) -> Result<Measured, CliError> {
    let templates = Arc::new(Templates::new(args, part.workload)?);
    // All of them before the first request, or the first ones would have the server for themselves.
    let mut pipelines = Vec::new();
    for _ in 0..args.connections {
        pipelines.push(Pipeline::new(Client::connect(address).await?));
    }
    let span = match &part.each_once {
        Some(each_once) => Span::of_requests(each_once.turns()),
        None => Span::from_now(args),
    };
    let each_once = part.each_once.map(Arc::new);
    let run = Arc::new(Mutex::new(Measured::new(args, span)));
    let mut connections = JoinSet::new();
    let mut paces = paces(part.rate, args.connections, &run).map(Vec::into_iter);
    for (number, pipeline) in (0..).zip(pipelines) {
        let seed = args.seed.wrapping_mul(1_000_003).wrapping_add(number);
        let load = Load::new(templates.clone(), seed, each_once.clone());
        let pace = paces.as_mut().and_then(Iterator::next);
        connections.spawn(connection(pipeline, load, pace, part.depth as usize, run.clone()));
    }
    while_shown(progress, &run, all(connections)).await??;
    Ok(taken(args, &run))
}

/// Makes room for the connections, which a plain shell has not always.
fn raise_file_limit(connections: u32) -> Result<(), CliError> {
    let wanted = u64::from(connections) + FILES_BESIDE_CONNECTIONS;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit < wanted => {
            let reason = format!("{connections} connections need {wanted} open files, and the system allows {limit}");
            Err(CliError::Argument { argument: "--connections", reason })
        }
        // A limit that cannot be told may still be high enough.
        _ => Ok(()),
    }
}

/// Waits until every connection has ended, or one has failed.
async fn all(mut connections: JoinSet<Result<(), ClientError>>) -> Result<(), CliError> {
    while let Some(done) = connections.join_next().await {
        done.map_err(ended)??;
    }
    Ok(())
}

fn ended(error: JoinError) -> CliError {
    CliError::Failed { reason: error.to_string() }
}

/// Keeps one connection busy until the run is over, or at its pace, and then waits for what is in flight.
async fn connection(
    mut pipeline: Pipeline,
    mut load: Load,
    mut pace: Option<Pace>,
    depth: usize,
    run: Arc<Mutex<Measured>>,
) -> Result<(), ClientError> {
    let mut now = Instant::now();
    loop {
        let goes_on = !load.is_exhausted() && !lock(&run).is_over(now);
        while goes_on && pipeline.in_flight() < depth {
            let since = match &mut pace {
                None => now,
                Some(pace) => match pace.take_due(now) {
                    Some(due) => due,
                    None => break,
                },
            };
            let Some(drawn) = load.draw() else { break };
            pipeline.queue(since, |unsent| load.write(&drawn, unsent));
        }
        // Where there is room for more, more is sent when it is due.
        let has_room = goes_on && !load.is_exhausted() && pipeline.in_flight() < depth;
        let resting = pace.as_ref().filter(|pace| has_room && !lock(&run).is_over(pace.next()));
        if pipeline.in_flight() == 0 && resting.is_none() {
            return Ok(());
        }
        pipeline.flush().await?;
        tokio::select! {
            biased;
            waited = pipeline.wait(), if pipeline.in_flight() > 0 => waited?,
            () = due(resting) => {}
        }
        now = Instant::now();
        if has_room && let Some(pace) = &mut pace {
            pace.wake(now);
        }
        while let Some(received) = pipeline.take_received(now)? {
            lock(&run).take(received, now);
        }
    }
}

/// Resolves when a connection that rests may have something to send; never for one that does not rest.
async fn due(resting: Option<&Pace>) {
    match resting {
        Some(pace) => pace.due().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    pub(super) fn args(line: &str) -> BenchArgs {
        Cli::parse_from(["test"].into_iter().chain(line.split_whitespace())).bench
    }

    /// Answers pings for ever.
    async fn ping_server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut ping = [0; 5];
            while stream.read_exact(&mut ping).await.is_ok() {
                stream.write_all(&[0, 0, 0, 1, 2]).await.unwrap();
            }
        });
        address
    }

    async fn answered(line: &str) -> u64 {
        let args = args(line);
        let pipeline = Pipeline::new(Client::connect(&ping_server().await).await.unwrap());
        let each_once = args.each_once.then(|| Arc::new(args.each_once()));
        let span = match &each_once {
            Some(each_once) => Span::of_requests(each_once.turns()),
            None => {
                let now = Instant::now();
                Span { begin: now, until: now + Duration::from_millis(100), ..Span::from_now(&args) }
            }
        };
        // The server knows pings alone, each of which is a turn here.
        let load = Load::new(Arc::new(Templates::new(&args, Workload::Ping).unwrap()), 1, each_once);
        let run = Arc::new(Mutex::new(Measured::new(&args, span)));
        let pace = paces(args.rate, args.connections, &run).and_then(|mut paces| paces.pop());
        connection(pipeline, load, pace, args.pipeline as usize, run.clone()).await.unwrap();
        lock(&run).to_json(&args)["requests_with_warm_up"].as_u64().unwrap()
    }

    #[tokio::test]
    async fn a_paced_connection_ends_with_its_last_reply() {
        for rate in [1_u64, 50, 1000, 1_000_000] {
            for pipeline in [1, 16] {
                let line = format!("ping --connections 1 --rate {rate} --pipeline {pipeline}");
                let most = rate / 10 + 1;
                let answered = answered(&line).await;
                assert!((1..=most).contains(&answered), "{line}: {answered}");
            }
        }
        assert!(answered("ping --connections 1 --pipeline 4").await >= 4);
    }

    #[tokio::test]
    async fn a_run_goes_on_until_enough_are_answered() {
        // In a tenth of a second come 10 of these, and without a pace fewer than a million.
        for line in ["ping --rate 100 --requests-min 30", "ping --pipeline 16 --requests-min 100000"] {
            let wanted = args(line).requests_min;
            let answered = answered(&format!("{line} --connections 1")).await;
            assert!((wanted..wanted + 1000).contains(&answered), "{line}: {answered}");
        }
    }

    #[tokio::test]
    async fn a_run_through_all_keys_ends_with_the_last() {
        for line in ["put --pipeline 7", "put --rate 10000", "bigset --elements 1"] {
            assert_eq!(answered(&format!("{line} --connections 1 --keys 50 --each-once")).await, 50, "{line}");
        }
        assert_eq!(answered("bigset --elements 10 --connections 1 --keys 45 --each-once").await, 5);
    }

    #[tokio::test]
    async fn what_does_not_go_together_is_refused() {
        for (line, reason) in [
            ("fsync --rate 10", "--rate: fsync waits for each write"),
            ("fsync --each-once", "--each-once: this workload goes through no keys"),
            ("mixed --each-once", "--each-once: this workload goes through no keys"),
            ("put --elements 2", "--elements: this workload adds no members, or only one"),
        ] {
            let refused = run(&args(line), &Config::default()).await.unwrap_err();
            assert_eq!((refused.to_string(), refused.exit_code()), (reason.to_owned(), 2), "{line}");
        }
        assert!(Cli::try_parse_from(["test", "put", "--each-once", "--seconds", "3"]).is_err());
    }
}
