//! `ombak bench`: load on any server that speaks the protocol, a real Riak included, and what it takes of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use fastrand::Rng;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use super::target::address;
use super::{CliError, Outcome};
use crate::client::{
    Client, ClientError, DtUpdateReq, Field, FieldKind, FieldOperation, MapOperation, Operation, Pipeline, Request,
    RpbContent, RpbGetReq, RpbPutReq, SetOperation, update_request,
};
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

Examples:
  ombak bench put --value-bytes 1024
  ombak bench counter --connections 256 --pipeline 16 --seconds 30
  ombak bench mixed --host riak.example:8087 --json")]
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
    /// How long to measure, after a second that is not counted
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Different keys, or for bigset members
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a value or register
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(..=16_777_216))]
    value_bytes: u32,
    /// Bucket to use: each run may have its own
    #[arg(long, default_value = "bench")]
    bucket: String,
    /// Seed of the choice of keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
}

/// Not counted: connections are made and caches filled.
const WARM_UP: Duration = Duration::from_secs(1);
/// Latencies are kept with three significant figures, up to a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

pub(super) async fn run(args: &BenchArgs, config: &Config) -> Result<Outcome, CliError> {
    let address = address(args.host.as_deref(), config);
    if matches!(args.workload, Workload::Get | Workload::Mixed) {
        fill(&address, args).await?;
    }
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(args.seconds.into());
    let mut connections = JoinSet::new();
    for number in 0..args.connections {
        let pipeline = Pipeline::new(Client::connect(&address).await?);
        let load = Load::new(args, args.seed.wrapping_mul(1_000_003).wrapping_add(number.into()));
        connections.spawn(connection(pipeline, load, args.pipeline as usize, begin, end));
    }
    let progress = if args.json { ProgressBar::hidden() } else { progress_bar(args) };
    let mut total = Measured::new();
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                None => break,
                Some(Ok(measured)) => total.add(measured?),
                Some(Err(panicked)) => return Err(CliError::Failed { reason: panicked.to_string() }),
            },
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                progress.set_position(begin.elapsed().as_millis() as u64);
            }
        }
    }
    progress.finish_and_clear();
    Ok(if args.json { Outcome::json(&total.to_json(args)) } else { Outcome::done(total.to_text(args)) })
}

fn progress_bar(args: &BenchArgs) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {percent}%").unwrap_or_else(|_| ProgressStyle::default_bar());
    let name = args.workload.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    ProgressBar::new(u64::from(args.seconds) * 1000).with_style(style).with_message(name)
}

/// Stores every object that gets will ask for.
async fn fill(address: &str, args: &BenchArgs) -> Result<(), CliError> {
    let mut pipeline = Pipeline::new(Client::connect(address).await?);
    let mut load = Load::new(args, args.seed);
    let mut next = 0;
    while next < args.keys || pipeline.in_flight() > 0 {
        while next < args.keys && pipeline.in_flight() < 256 {
            let request = load.put(next);
            pipeline.queue(&request)?;
            next += 1;
        }
        pipeline.flush().await?;
        pipeline.wait().await?;
        while let Some(received) = pipeline.take_received()? {
            if let Some(reason) = received.refused {
                return Err(ClientError::Refused { reason }.into());
            }
        }
    }
    Ok(())
}

/// Keeps one connection busy until the end, and then waits for what is in flight.
async fn connection(
    mut pipeline: Pipeline,
    mut load: Load,
    depth: usize,
    begin: Instant,
    end: Instant,
) -> Result<Measured, ClientError> {
    let mut measured = Measured::new();
    loop {
        let now = Instant::now();
        while now < end && pipeline.in_flight() < depth {
            let request = load.next();
            pipeline.queue(&request)?;
        }
        if pipeline.in_flight() == 0 {
            return Ok(measured);
        }
        pipeline.flush().await?;
        pipeline.wait().await?;
        let counts = (begin..end).contains(&Instant::now());
        while let Some(received) = pipeline.take_received()? {
            if counts {
                measured.take(received.latency, received.refused);
            }
        }
    }
}

/// Makes requests.
struct Load {
    workload: Workload,
    bucket: Bytes,
    keys: u64,
    value: Bytes,
    random: Rng,
}

impl Load {
    fn new(args: &BenchArgs, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        // Half random, so that compression neither wins nor loses everything.
        let byte = |at: u32| if at.is_multiple_of(2) { random.u8(..) } else { b'x' };
        let value: Vec<u8> = (0..args.value_bytes).map(byte).collect();
        Self {
            workload: args.workload,
            bucket: Bytes::from(args.bucket.clone()),
            keys: args.keys,
            value: value.into(),
            random,
        }
    }

    fn next(&mut self) -> Request {
        let number = self.random.u64(..self.keys);
        match self.workload {
            Workload::Ping => Request::Ping,
            Workload::Get => self.get(number),
            Workload::Put => self.put(number),
            Workload::Counter => self.counter(number),
            Workload::Set => self.set(number),
            Workload::Map => self.map(number),
            Workload::Bigset => self.update("sets", Bytes::from_static(b"bigset"), add(number)),
            Workload::Mixed => match self.random.u32(..10) {
                0..5 => self.get(number),
                5..7 => self.put(number),
                7 => self.counter(number),
                8 => self.set(number),
                _ => self.map(number),
            },
        }
    }

    fn get(&self, number: u64) -> Request {
        Request::Get(RpbGetReq { bucket: Some(self.bucket.clone()), key: Some(key(number)), ..RpbGetReq::default() })
    }

    fn put(&mut self, number: u64) -> Request {
        let content = RpbContent { value: self.value.clone(), ..RpbContent::default() };
        let bucket = Some(self.bucket.clone());
        Request::Put(RpbPutReq { bucket, key: Some(key(number)), content: Some(content), ..RpbPutReq::default() })
    }

    fn counter(&self, number: u64) -> Request {
        self.update("counters", key(number), Operation::Counter(1))
    }

    fn set(&mut self, number: u64) -> Request {
        let member = self.random.u64(..100);
        self.update("sets", key(number), add(member))
    }

    fn map(&mut self, number: u64) -> Request {
        let field = |name: &str, kind| Field { name: name.into(), kind };
        let Operation::Set(member) = add(self.random.u64(..10)) else { unreachable!("add makes set operations") };
        let updates = vec![
            (field("visits", FieldKind::Counter), FieldOperation::Counter(1)),
            (
                field("name", FieldKind::Register),
                FieldOperation::Register(self.value[..self.value.len().min(64)].into()),
            ),
            (field("active", FieldKind::Flag), FieldOperation::Flag(true)),
            (field("tags", FieldKind::Set), FieldOperation::Set(member)),
        ];
        self.update("maps", key(number), Operation::Map(MapOperation { removes: Vec::new(), updates }))
    }

    fn update(&self, bucket_type: &'static str, key: Bytes, operation: Operation) -> Request {
        let request = DtUpdateReq {
            bucket: Some(self.bucket.clone()),
            key: Some(key),
            r#type: Some(Bytes::from_static(bucket_type.as_bytes())),
            ..DtUpdateReq::default()
        };
        update_request(request, &operation)
    }
}

fn key(number: u64) -> Bytes {
    format!("key-{number:012}").into()
}

fn add(member: u64) -> Operation {
    Operation::Set(SetOperation { adds: vec![format!("member-{member:012}").into()], removes: Vec::new() })
}

/// What was seen of the replies.
struct Measured {
    latencies_us: Histogram<u64>,
    refused: u64,
    first_refusal: Option<String>,
}

impl Measured {
    fn new() -> Self {
        let latencies_us = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are valid");
        Self { latencies_us, refused: 0, first_refusal: None }
    }

    fn take(&mut self, latency: Duration, refused: Option<String>) {
        self.latencies_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        if let Some(reason) = refused {
            self.refused += 1;
            self.first_refusal.get_or_insert(reason);
        }
    }

    fn add(&mut self, other: Measured) {
        self.latencies_us += other.latencies_us;
        self.refused += other.refused;
        self.first_refusal = self.first_refusal.take().or(other.first_refusal);
    }

    fn per_second(&self, args: &BenchArgs) -> f64 {
        self.latencies_us.len() as f64 / f64::from(args.seconds)
    }

    fn to_json(&self, args: &BenchArgs) -> Json {
        let at = |quantile| self.latencies_us.value_at_quantile(quantile);
        json!({
            "workload": args.workload.to_possible_value().map(|value| value.get_name().to_owned()),
            "connections": args.connections,
            "pipeline": args.pipeline,
            "seconds": args.seconds,
            "keys": args.keys,
            "value_bytes": args.value_bytes,
            "requests": self.latencies_us.len(),
            "requests_per_second": self.per_second(args),
            "refused": self.refused,
            "first_refusal": self.first_refusal,
            "latency_us": {
                "mean": self.latencies_us.mean(),
                "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
                "max": self.latencies_us.max(),
            },
        })
    }

    fn to_text(&self, args: &BenchArgs) -> String {
        let ms = |quantile| self.latencies_us.value_at_quantile(quantile) as f64 / 1000.0;
        let mut text = format!(
            "{:.0} requests a second ({} in {} s, {} connections, {} in flight on each)\n\
             latency ms: p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}\n",
            self.per_second(args),
            self.latencies_us.len(),
            args.seconds,
            args.connections,
            args.pipeline,
            ms(0.5),
            ms(0.9),
            ms(0.99),
            ms(0.999),
            self.latencies_us.max() as f64 / 1000.0,
        );
        if let Some(reason) = &self.first_refusal {
            text.push_str(&format!("{} refused, the first with: {reason}\n", self.refused));
        }
        text
    }
}
