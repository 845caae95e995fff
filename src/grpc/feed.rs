//! The primary's side of Backup: brings a standby up to what is here, and keeps it there.
//!
//! There is a stream for each partition. Changes are sent in the order of their positions, once no power failure can take them
//! back, and an answer says that all up to its request are as safe there. How far a standby has come is remembered in the
//! store, so that the next feed goes on from there. A standby that is new, was emptied, or has missed removals that are
//! forgotten here, is compared key by key first: what it lacks is sent, and what it has and nobody here remembers is removed. A
//! backup that is no server of ours cannot be compared with; it is sent everything instead.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status, Streaming};

use super::generated::atomix::pb::headers::ResponseStatus;
use super::generated::atomix::pb::map::map_service_client::MapServiceClient;
use super::generated::atomix::pb::map::{BackupRequest, BackupResponse};
use super::generated::ombak::standby::standby_service_client::StandbyServiceClient;
use super::generated::ombak::standby::{FindMissingRequest, ListDigestsRequest};
use super::standby::{KEY_PAGE, from_wire, to_wire};
use super::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, NODE_METADATA, header};
use crate::domain::map::Partition;
use crate::engine::maps::{Change, MapError, Maps, PageLimits, StandbyMark};

/// What one request carries at most (`atomix.md` §8.3).
const REQUEST: PageLimits = PageLimits { entries_max: 256, size_bytes_max: 1024 * 1024 };
/// Requests that wait for their answers on one stream (`atomix.md` §8.3).
const REQUESTS_IN_FLIGHT_MAX: usize = 64;
/// How often the mark is stored, at most.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// A stream on which nothing was sent for this long gets a barrier: its answer tells that the standby is there.
const BARRIER_INTERVAL: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one page of the comparison.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Between attempts to reach a standby.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is told how far the feed is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Whom to feed, and how.
#[derive(Clone, Debug)]
pub struct FeedOptions {
    /// HOST:PORT, or a URL that begins with `http://` or `https://`.
    pub to: String,
    /// Whether all keys are compared, whatever is remembered of the standby.
    pub compare_all: bool,
    /// Certificates, in PEM, that a standby's own must be signed by where it speaks TLS.
    pub ca_certificates: Option<Vec<u8>>,
}

/// What a feed is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedPhase {
    /// It tries to reach the standby.
    #[default]
    Connecting,
    /// It compares keys and sends what the standby lacks.
    Comparing,
    /// It sends what changes.
    Following,
}

/// How far a feed is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedProgress {
    /// What it is doing.
    pub phase: FeedPhase,
    /// Keys compared so far.
    pub compared: u64,
    /// Keys there are to compare.
    pub keys: u64,
    /// Entries that the standby has acknowledged since the feed began.
    pub acknowledged: u64,
    /// Changes here that the standby has not acknowledged. Some of them may be of the same key: an upper bound.
    pub behind: u64,
    /// Why the standby was lost, while it is.
    pub problem: Option<String>,
}

/// Why a feed ended. Nothing that passes by itself ends one.
#[derive(Debug, Error)]
pub enum FeedError {
    /// The address is none.
    #[error("{to} is no address: {cause}")]
    Address {
        /// The address.
        to: String,
        /// What is wrong with it.
        cause: tonic::transport::Error,
    },
    /// The standby refuses what it is sent.
    #[error("the standby refuses: {} ({:?})", status.message(), status.code())]
    Refused {
        /// Its own words.
        status: Box<Status>,
    },
    /// The maps here cannot be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The standby is this server.
    #[error("the standby is this server itself")]
    Itself,
}

/// Why an attempt ended.
enum Lost {
    /// Another one may do better.
    ForNow(String),
    ForGood(FeedError),
}

impl From<MapError> for Lost {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Busy => Self::ForNow(error.to_string()),
            error => Self::ForGood(error.into()),
        }
    }
}

impl From<Status> for Lost {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::DataLoss => Self::ForGood(FeedError::Refused { status: Box::new(status) }),
            _ => Self::ForNow(status.message().to_owned()),
        }
    }
}

/// Feeds a standby for as long as this is polled, and tells how far it is. It begins again where the standby was lost.
///
/// # Errors
/// What no further attempt would change.
pub async fn feed(
    maps: Maps,
    options: FeedOptions,
    progress: watch::Sender<FeedProgress>,
) -> Result<Infallible, FeedError> {
    let endpoint = endpoint(&options)?;
    let mut compare_all = options.compare_all;
    let mut pause = PAUSE_MIN;
    loop {
        let began = Instant::now();
        match attempt(&maps, &options.to, &endpoint, &mut compare_all, &progress).await {
            Err(Lost::ForGood(error)) => return Err(error),
            Err(Lost::ForNow(problem)) => {
                tracing::info!(to = %options.to, %problem, "a standby is lost");
                progress.send_modify(|progress| {
                    progress.phase = FeedPhase::Connecting;
                    progress.problem = Some(problem);
                });
            }
            Ok(never) => match never {},
        }
        if began.elapsed() > PAUSE_MAX {
            pause = PAUSE_MIN;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn endpoint(options: &FeedOptions) -> Result<Endpoint, FeedError> {
    let to = &options.to;
    let url = if to.contains("://") { to.clone() } else { format!("http://{to}") };
    let error = |cause| FeedError::Address { to: to.clone(), cause };
    let is_tls = url.starts_with("https://");
    let endpoint = Endpoint::from_shared(url).map_err(error)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    if !is_tls {
        return Ok(endpoint);
    }
    let mut tls = ClientTlsConfig::new();
    if let Some(certificates) = &options.ca_certificates {
        tls = tls.ca_certificate(Certificate::from_pem(certificates));
    }
    endpoint.tls_config(tls).map_err(error)
}

/// One connection to the standby, from its beginning to its loss.
async fn attempt(
    maps: &Maps,
    to: &str,
    endpoint: &Endpoint,
    compare_all: &mut bool,
    progress: &watch::Sender<FeedProgress>,
) -> Result<Infallible, Lost> {
    // Whoever asks for a feed wants what was answered by now.
    maps.settle().await?;
    let channel = endpoint.connect().await.map_err(|error| Lost::ForNow(in_one_line(&error)))?;
    let mut streams = Vec::new();
    for partition in maps.partitions().all() {
        streams.push(BackupStream::open(channel.clone(), partition).await?);
    }
    // All are from one server.
    let node = streams.first().map_or(0, |stream| stream.node);
    if node == maps.node() {
        return Err(Lost::ForGood(FeedError::Itself));
    }
    // What was forgotten by now is told by the comparison, and to a backup that cannot be compared with by nothing.
    let forgotten: Vec<u64> = maps.partitions().all().map(|partition| maps.forgotten_to(partition)).collect();
    let mark = maps.standby_mark(to).await?.filter(|mark| mark.node == node && !*compare_all);
    let counted = Arc::new(AtomicU64::new(progress.borrow().acknowledged));
    let positions = match mark {
        Some(mark) => mark.positions,
        None => {
            progress.send_modify(|progress| {
                let acknowledged = progress.acknowledged;
                *progress = FeedProgress { phase: FeedPhase::Comparing, acknowledged, ..FeedProgress::default() };
            });
            let keys = maps.key_count().await?;
            progress.send_modify(|progress| progress.keys = keys);
            let mut positions = Vec::new();
            for stream in &mut streams {
                positions.push(compare(maps, channel.clone(), stream, &counted, progress).await?);
            }
            positions
        }
    };
    *compare_all = false;

    let acknowledged: Arc<[AtomicU64]> = positions.iter().map(|&position| AtomicU64::new(position)).collect();
    let mut followers = JoinSet::new();
    for ((stream, position), forgotten_to) in streams.into_iter().zip(positions).zip(forgotten) {
        let (acknowledged, counted) = (acknowledged.clone(), counted.clone());
        let follower = Follower { maps: maps.clone(), acknowledged, counted, forgotten_to };
        followers.spawn(follower.run(stream, position));
    }
    let mut stored: Option<StandbyMark> = None;
    let mut store_at = Instant::now();
    loop {
        let positions: Vec<u64> = acknowledged.iter().map(|position| position.load(Ordering::Acquire)).collect();
        let synced = maps.partitions().all().map(|partition| *maps.synced_position(partition).borrow());
        let behind: u64 = synced.zip(&positions).map(|(synced, &position)| synced.saturating_sub(position)).sum();
        let mark = StandbyMark { node, positions };
        // Before it is told that the standby has everything, since who waits for that may then end the feed.
        let has_come = behind == 0 && stored.as_ref().is_none_or(|stored| stored.positions != mark.positions);
        if has_come || (store_at <= Instant::now() && stored.as_ref() != Some(&mark)) {
            maps.put_standby_mark(to, &mark).await?;
            stored = Some(mark);
            store_at = Instant::now() + MARK_INTERVAL;
        }
        progress.send_modify(|progress| {
            progress.phase = FeedPhase::Following;
            progress.acknowledged = counted.load(Ordering::Acquire);
            progress.behind = behind;
            progress.problem = None;
        });
        tokio::select! {
            ended = followers.join_next() => return Err(match ended {
                Some(Ok(Err(lost))) => lost,
                _ => Lost::ForNow("a stream ended".to_owned()),
            }),
            () = sleep(PROGRESS_INTERVAL) => {}
        }
    }
}

/// An error with its causes: transports say "transport error" and no more.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// One partition's stream.
struct BackupStream {
    partition: Partition,
    node: u64,
    requests: mpsc::Sender<BackupRequest>,
    answers: Streaming<BackupResponse>,
}

impl BackupStream {
    async fn open(channel: Channel, partition: Partition) -> Result<Self, Status> {
        let (requests, sent) = mpsc::channel(1);
        let mut client = MapServiceClient::new(channel);
        let opened = timeout(CONNECT_TIMEOUT, client.backup(ReceiverStream::new(sent)));
        let response = opened.await.map_err(|_| Status::unavailable("no stream is opened in time"))??;
        let node = response.metadata().get(NODE_METADATA).and_then(|node| node.to_str().ok());
        let node = node.and_then(|node| u64::from_str_radix(node, 16).ok()).unwrap_or(0);
        Ok(Self { partition, node, requests, answers: response.into_inner() })
    }

    async fn send(&self, request: BackupRequest) -> Result<(), Lost> {
        // Why it ended is told by the answers.
        self.requests.send(request).await.map_err(|_| Lost::ForNow("a stream ended".to_owned()))
    }

    async fn receive(&mut self) -> Result<(), Lost> {
        match self.answers.message().await? {
            None => Err(Lost::ForNow("a stream ended".to_owned())),
            Some(answer) => {
                if answer.header.unwrap_or_default().status == ResponseStatus::Error as i32 {
                    // The reason follows as the stream's status.
                    return match self.answers.message().await {
                        Err(status) => Err(status.into()),
                        Ok(_) => Err(Lost::ForNow("the standby did not keep a request".to_owned())),
                    };
                }
                Ok(())
            }
        }
    }

    /// The requests that carry changes, in their order: of one map each.
    fn requests_of(&self, changes: Vec<Change>) -> Vec<(BackupRequest, u64, u64)> {
        let mut requests: Vec<(BackupRequest, u64, u64)> = Vec::new();
        let mut current = None;
        for Change { position, key, entry } in changes {
            let wire = header::entry(&key, entry);
            match requests.last_mut() {
                Some((request, last, count)) if current.as_ref() == Some(&key.map) => {
                    request.entries.push(wire);
                    (*last, *count) = (position, *count + 1);
                }
                _ => {
                    let header = Some(header::request(self.partition, &key.map));
                    requests.push((BackupRequest { header, entries: vec![wire] }, position, 1));
                    current = Some(key.map);
                }
            }
        }
        requests
    }
}

/// Compares a partition's keys here and there, and sends what the standby lacks. The position from which on changes are still to
/// be sent.
async fn compare(
    maps: &Maps,
    channel: Channel,
    stream: &mut BackupStream,
    counted: &AtomicU64,
    progress: &watch::Sender<FeedProgress>,
) -> Result<u64, Lost> {
    let partition = stream.partition;
    let position = *maps.synced_position(partition).borrow();
    let mut standby = StandbyServiceClient::new(channel);
    // The other way round would let a key that is put meanwhile look like one that nobody remembers.
    let mut after = Bytes::new();
    loop {
        let page = standby.list_digests(ListDigestsRequest { partition: partition.number(), after });
        let page = timeout(CALL_TIMEOUT, page).await.map_err(|_| Lost::ForNow("no answer in time".to_owned()))?;
        let page = match page {
            // It is no server of ours: it can be sent everything, and cannot be asked what it has too much.
            Err(status) if status.code() == Code::Unimplemented => return Ok(0),
            page => page?.into_inner(),
        };
        let removed: Vec<bool> = page.keys.iter().map(|key| key.removed).collect();
        let mut removals = Vec::new();
        for ((key, digest), removed) in from_wire(page.maps, page.keys)?.into_iter().zip(removed) {
            match maps.entry(partition, &key).await? {
                None if !removed => maps.bury(partition, key).await?,
                // Sent now: it may be forgotten before the keys here come to it.
                Some(entry) if entry.value.is_none() && entry.digest > digest => {
                    removals.push(Change { position, key, entry });
                }
                _ => {}
            }
        }
        for removals in removals.chunks(REQUEST.entries_max) {
            send_and_wait(stream, removals.to_vec(), counted).await?;
        }
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    let mut after = Bytes::new();
    loop {
        let page = maps.keys(partition, after, KEY_PAGE).await?;
        let count = page.keys.len() as u64;
        let (wire_maps, keys) = to_wire(&page.keys);
        let request = FindMissingRequest { partition: partition.number(), maps: wire_maps, keys };
        let missing = timeout(CALL_TIMEOUT, standby.find_missing(request)).await;
        let missing = missing.map_err(|_| Lost::ForNow("no answer in time".to_owned()))??.into_inner().missing;
        let mut batch = Vec::new();
        let mut size_bytes = 0;
        for at in missing {
            let Some(state) = page.keys.get(at as usize) else { continue };
            let Some(entry) = maps.entry(partition, &state.key).await? else { continue };
            size_bytes += state.key.key.len() + entry.value.as_ref().map_or(0, Bytes::len);
            batch.push(Change { position, key: state.key.clone(), entry });
            if batch.len() >= REQUEST.entries_max || size_bytes >= REQUEST.size_bytes_max {
                send_and_wait(stream, std::mem::take(&mut batch), counted).await?;
                size_bytes = 0;
            }
        }
        send_and_wait(stream, batch, counted).await?;
        progress.send_modify(|progress| {
            progress.compared += count;
            progress.acknowledged = counted.load(Ordering::Acquire);
        });
        after = page.next;
        if after.is_empty() {
            return Ok(position);
        }
    }
}

async fn send_and_wait(stream: &mut BackupStream, batch: Vec<Change>, counted: &AtomicU64) -> Result<(), Lost> {
    for (request, _, count) in stream.requests_of(batch) {
        stream.send(request).await?;
        stream.receive().await?;
        counted.fetch_add(count, Ordering::AcqRel);
    }
    Ok(())
}

/// Sends a partition's changes as they come.
struct Follower {
    maps: Maps,
    /// By the partition's index.
    acknowledged: Arc<[AtomicU64]>,
    counted: Arc<AtomicU64>,
    /// What was forgotten when this began.
    forgotten_to: u64,
}

/// A request that waits for its answer.
struct InFlight {
    position: u64,
    entries: u64,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    async fn run(self, mut stream: BackupStream, position: u64) -> Result<Infallible, Lost> {
        let mut synced = self.maps.synced_position(stream.partition);
        let places = Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX));
        let mut in_flight: VecDeque<InFlight> = VecDeque::new();
        let mut sent = position;
        let mut barrier_at = Instant::now() + BARRIER_INTERVAL;
        loop {
            let now = *synced.borrow_and_update();
            if now > sent && places.available_permits() > 0 {
                let changes = self.maps.changes(stream.partition, sent, REQUEST).await?;
                if self.maps.forgotten_to(stream.partition) > sent.max(self.forgotten_to) {
                    return Err(Lost::ForNow("it is so far behind that removals were forgotten".to_owned()));
                }
                if changes.is_empty() {
                    // What was there has been forgotten meanwhile.
                    sent = now;
                    self.note_idle(&stream, &in_flight, sent);
                }
                for (request, position, entries) in stream.requests_of(changes) {
                    let permit = loop {
                        match places.clone().try_acquire_owned() {
                            Ok(permit) => break permit,
                            Err(_) => {
                                stream.receive().await?;
                                self.take_answer(&stream, &mut in_flight, sent)?;
                            }
                        }
                    };
                    stream.send(request).await?;
                    in_flight.push_back(InFlight { position, entries, _permit: permit });
                    sent = position;
                }
                barrier_at = Instant::now() + BARRIER_INTERVAL;
                continue;
            }
            tokio::select! {
                answered = stream.receive() => {
                    answered?;
                    self.take_answer(&stream, &mut in_flight, sent)?;
                }
                changed = synced.changed(), if now <= sent => {
                    changed.map_err(|_| Lost::ForNow("the maps are closed".to_owned()))?;
                }
                () = tokio::time::sleep_until(barrier_at) => {
                    if let Ok(permit) = places.clone().try_acquire_owned() {
                        stream.send(BackupRequest::default()).await?;
                        in_flight.push_back(InFlight { position: sent, entries: 0, _permit: permit });
                    }
                    barrier_at = Instant::now() + BARRIER_INTERVAL;
                }
            }
        }
    }

    /// Takes note of an answer: it is to the oldest request.
    fn take_answer(&self, stream: &BackupStream, in_flight: &mut VecDeque<InFlight>, sent: u64) -> Result<(), Lost> {
        let unasked = || Lost::ForNow("the standby answered what it was not asked".to_owned());
        let answered = in_flight.pop_front().ok_or_else(unasked)?;
        self.acknowledged[stream.partition.index()].store(answered.position, Ordering::Release);
        self.counted.fetch_add(answered.entries, Ordering::AcqRel);
        self.note_idle(stream, in_flight, sent);
        Ok(())
    }

    /// With nothing in flight the standby has all that was sent, and there was nothing else to send.
    fn note_idle(&self, stream: &BackupStream, in_flight: &VecDeque<InFlight>, sent: u64) {
        if in_flight.is_empty() {
            self.acknowledged[stream.partition.index()].store(sent, Ordering::Release);
        }
    }
}
