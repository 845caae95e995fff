//! `ombak bench`: load on any server that speaks the protocol, a real Riak included, and what it takes of it.
//!
//! The server's processor may be this one, so a request costs little here: it is encoded once and then only its digits
//! change, what is pipelined is written at once, and the clock is read once for all that one read brings.

mod floor;
mod load;
mod measured;
mod pace;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::{JoinError, JoinSet};

use self::load::{Load, Templates};
use self::measured::Measured;
use self::pace::{Pace, paces};
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
  bigset   adds a member to the one set of all connections
  mixed    half gets, the rest puts, counters, sets and maps
  fsync    no server: appends --value-bytes to a file in --dir and waits until the disk has them, one after the other

Each connection waits for replies before it sends more, so a slow server is asked less. With --rate requests are due at even
intervals whatever the server does, and count from when they were due.

The bucket types are there in Ombak from its first start; another server must be given them. The exit status is 1 when a
request was refused.

Examples:
  ombak bench put --value-bytes 1024
  ombak bench counter --connections 256 --pipeline 16 --seconds 30
  ombak bench counter --rate 10000
  ombak bench mixed --host riak.example:8087 --json
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
    /// How long to measure, after a second that is not counted
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Different keys, or for bigset members
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=load::NUMBERS))]
    keys: u64,
    /// Bytes of a value or register (a map's has 64 at most)
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(..=16_777_216))]
    value_bytes: u32,
    /// Bucket to use: each run may have its own
    #[arg(long, default_value = "bench")]
    bucket: String,
    /// Seed of the choice of keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory on the disk that fsync is about
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Print the result as JSON, and no progress bar
    #[arg(long)]
    json: bool,
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

/// Not counted: caches are filled.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long after the end the last replies may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Open files that are no connections.
const FILES_BESIDE_CONNECTIONS: u64 = 50;
/// Connections that store objects before a run, and requests in flight on each: enough to share fsyncs.
const FILL_CONNECTIONS: u32 = 64;
const FILL_PIPELINE: usize = 16;

/// When replies count.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: Instant,
    end: Instant,
}

impl Span {
    fn from_now(args: &BenchArgs) -> Self {
        let begin = Instant::now() + WARM_UP;
        Self { begin, end: begin + Duration::from_secs(args.seconds.into()) }
    }

    fn contains(&self, moment: Instant) -> bool {
        (self.begin..self.end).contains(&moment)
    }
}

pub(super) async fn run(args: &BenchArgs, config: &Config) -> Result<Outcome, CliError> {
    let progress = if args.json { ProgressBar::hidden() } else { progress_bar(args) };
    let measured = match args.workload {
        Workload::Fsync if args.rate.is_some() => {
            return Err(CliError::Argument { argument: "--rate", reason: "fsync waits for each write".to_owned() });
        }
        Workload::Fsync => {
            let (dir, bytes, span) = (args.dir.clone(), args.value_bytes, Span::from_now(args));
            let appending = tokio::task::spawn_blocking(move || floor::append(&dir, bytes, span));
            while_shown(&progress, span, appending).await.map_err(ended)??
        }
        _ => load_server(args, &address(args.host.as_deref(), config), &progress).await?,
    };
    progress.finish_and_clear();
    let text = if args.json { format!("{:#}\n", measured.to_json(args)) } else { measured.to_text(args) };
    Ok(Outcome { text, failed: measured.has_refusals() })
}

fn progress_bar(args: &BenchArgs) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {percent}%").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::from(args.seconds) * 1000).with_style(style).with_message(args.workload.name())
}

/// Waits for the work, and shows meanwhile how far the time has come.
async fn while_shown<T>(progress: &ProgressBar, span: Span, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                progress.set_position(u64::try_from(span.begin.elapsed().as_millis()).unwrap_or(u64::MAX));
            }
        }
    }
}

async fn load_server(args: &BenchArgs, address: &str, progress: &ProgressBar) -> Result<Measured, CliError> {
    raise_file_limit(args.connections)?;
    let templates = Arc::new(Templates::new(args)?);
    if matches!(args.workload, Workload::Get | Workload::Mixed) {
        fill(address, args, &templates).await?;
    }
    // All of them before the first request, or the first ones would have the server for themselves.
    let mut pipelines = Vec::new();
    for _ in 0..args.connections {
        pipelines.push(Pipeline::new(Client::connect(address).await?));
    }
    let span = Span::from_now(args);
    let measured = Arc::new(Mutex::new(Measured::new()));
    let mut connections = JoinSet::new();
    let mut paces = paces(args, span).map(Vec::into_iter);
    for (number, pipeline) in (0..).zip(pipelines) {
        let load = Load::new(templates.clone(), args.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let pace = paces.as_mut().and_then(Iterator::next);
        connections.spawn(connection(pipeline, load, pace, args.pipeline as usize, span, measured.clone()));
    }
    let all = tokio::time::timeout_at((span.end + PATIENCE).into(), all(connections));
    let answered = while_shown(progress, span, all).await;
    answered.map_err(|_| CliError::Failed { reason: "the server leaves requests without a reply".to_owned() })??;
    Ok(std::mem::replace(&mut *measured.lock().unwrap_or_else(PoisonError::into_inner), Measured::new()))
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

/// Stores every object that gets will ask for.
async fn fill(address: &str, args: &BenchArgs, templates: &Arc<Templates>) -> Result<(), CliError> {
    let mut connections = JoinSet::new();
    let step = FILL_CONNECTIONS.min(args.connections);
    for first in 0..step {
        let keys = (first.into()..args.keys).step_by(step as usize);
        let pipeline = Pipeline::new(Client::connect(address).await?);
        connections.spawn(store(pipeline, templates.clone(), keys));
    }
    all(connections).await
}

async fn store(
    mut pipeline: Pipeline,
    templates: Arc<Templates>,
    mut keys: impl Iterator<Item = u64>,
) -> Result<(), ClientError> {
    let now = Instant::now();
    loop {
        while pipeline.in_flight() < FILL_PIPELINE
            && let Some(key) = keys.next()
        {
            pipeline.queue(now, |unsent| templates.put(key, unsent));
        }
        if pipeline.in_flight() == 0 {
            return Ok(());
        }
        pipeline.flush().await?;
        pipeline.wait().await?;
        while let Some(received) = pipeline.take_received(now)? {
            if let Some(reason) = received.refused {
                return Err(ClientError::Refused { reason });
            }
        }
    }
}

/// Keeps one connection busy until the end, or at its pace, and then waits for what is in flight.
async fn connection(
    mut pipeline: Pipeline,
    mut load: Load,
    mut pace: Option<Pace>,
    depth: usize,
    span: Span,
    measured: Arc<Mutex<Measured>>,
) -> Result<(), ClientError> {
    let mut now = Instant::now();
    loop {
        while now < span.end && pipeline.in_flight() < depth {
            let since = match &mut pace {
                None => now,
                Some(pace) => match pace.take_due(now) {
                    Some(due) => due,
                    None => break,
                },
            };
            pipeline.queue(since, |unsent| load.write_next(unsent));
        }
        // Where there is room for more, more is sent when it is due.
        let has_room = now < span.end && pipeline.in_flight() < depth;
        let resting = pace.as_ref().filter(|pace| has_room && pace.next() < span.end);
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
            // All connections run on one thread: nobody waits here.
            measured.lock().unwrap_or_else(PoisonError::into_inner).take(received, span.contains(now));
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
        let load = Load::new(Arc::new(Templates::new(&args).unwrap()), 1);
        let now = Instant::now();
        let span = Span { begin: now, end: now + Duration::from_millis(100) };
        let measured = Arc::new(Mutex::new(Measured::new()));
        let pace = paces(&args, span).and_then(|mut paces| paces.pop());
        connection(pipeline, load, pace, args.pipeline as usize, span, measured.clone()).await.unwrap();
        measured.lock().unwrap().to_json(&args)["requests_with_warm_up"].as_u64().unwrap()
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
    async fn the_disk_alone_has_no_rate() {
        let refused = run(&args("fsync --rate 10"), &Config::default()).await.unwrap_err();
        assert_eq!((refused.to_string(), refused.exit_code()), ("--rate: fsync waits for each write".to_owned(), 2));
    }
}
