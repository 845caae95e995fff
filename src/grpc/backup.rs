//! The Backup stream as a backup serves it: each request is answered once, in order, when its entries are durable.
//!
//! Requests that have arrived while others became durable are committed together. What a sender may have in flight is bounded
//! three times: by the flow control of HTTP/2, since no more is read than is in work; by the number and size of the requests
//! that are taken together; and by the answers that wait to be read.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::error::status;
use super::generated::atomix::pb::map::{BackupRequest, BackupResponse, Entry as WireEntry, Value};
use super::{GrpcOptions, header, usual};
use crate::domain::map::{Entry, MapKey, MapName, Partition};
use crate::engine::maps::{Entries, Maps};

/// Requests that are committed together may have this many bytes, and one more request.
const TOGETHER_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// What streams that stay open have in common.
#[derive(Clone)]
pub(super) struct Streams {
    maps: Maps,
    options: Arc<GrpcOptions>,
    permits: Arc<Semaphore>,
    stopping: CancellationToken,
}

type Answers = mpsc::Sender<Result<BackupResponse, Status>>;

impl Streams {
    pub(super) fn new(maps: Maps, options: Arc<GrpcOptions>, stopping: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(options.open_streams_max));
        Self { maps, options, permits, stopping }
    }

    /// A place among the streams that stay open.
    pub(super) fn take_place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let refused = |_| Status::resource_exhausted("too many streams are open");
        self.permits.clone().try_acquire_owned().map_err(refused)
    }

    /// Cancelled when the server stops.
    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Serves a Backup stream in a task of its own.
    pub(super) fn serve(
        &self,
        requests: Streaming<BackupRequest>,
    ) -> Result<ReceiverStream<Result<BackupResponse, Status>>, Status> {
        let permit = self.take_place()?;
        let (answers, answered) = mpsc::channel(self.options.backup_requests_in_flight_max);
        let streams = self.clone();
        tokio::spawn(async move {
            let ended = streams.run(requests, &answers).await;
            if let Err(status) = ended {
                // The peer may have left.
                let _ = answers.send(Err(status)).await;
            }
            drop(permit);
        });
        Ok(ReceiverStream::new(answered))
    }

    /// Answers requests until the peer sends no more, something is wrong with one, or the server stops.
    async fn run(&self, mut requests: Streaming<BackupRequest>, answers: &Answers) -> Result<(), Status> {
        loop {
            let first = tokio::select! {
                () = self.stopping.cancelled() => return Err(Status::unavailable("the server is stopping")),
                () = answers.closed() => return Ok(()),
                first = requests.message() => first,
            };
            let first = match first {
                Ok(Some(first)) => first,
                Ok(None) => return Ok(()),
                Err(status) => return unreadable(status, answers).await,
            };
            let mut size_bytes = first.encoded_len();
            let mut arrived = vec![first];
            let mut ended = None;
            while arrived.len() < self.options.backup_requests_in_flight_max && size_bytes < TOGETHER_SIZE_BYTES_MAX {
                tokio::select! {
                    biased;
                    next = requests.message() => match next {
                        Ok(Some(next)) => {
                            size_bytes += next.encoded_len();
                            arrived.push(next);
                        }
                        Ok(None) => ended = Some(Ok(())),
                        Err(status) => ended = Some(Err(status)),
                    },
                    () = std::future::ready(()) => break,
                }
                if ended.is_some() {
                    break;
                }
            }
            self.take_in(arrived, answers).await?;
            match ended {
                None => {}
                Some(Ok(())) => return Ok(()),
                Some(Err(status)) => return unreadable(status, answers).await,
            }
        }
    }

    /// Makes requests durable and answers them. The first one that cannot be kept ends the stream, and those behind it are
    /// neither kept nor answered.
    async fn take_in(&self, arrived: Vec<BackupRequest>, answers: &Answers) -> Result<(), Status> {
        // Requests for one partition in a row are committed together.
        let mut run: Option<(Partition, Vec<Entries>)> = None;
        for request in arrived {
            match self.check(request) {
                Ok(Checked::Barrier) => {
                    self.commit(run.take(), answers).await?;
                    answer(answers, header_of(true)).await?;
                }
                Ok(Checked::Entries(partition, entries)) => match &mut run {
                    Some((of, requests)) if *of == partition => requests.push(entries),
                    _ => {
                        self.commit(run.take(), answers).await?;
                        run = Some((partition, vec![entries]));
                    }
                },
                Err(status) => {
                    self.commit(run.take(), answers).await?;
                    answer(answers, header_of(false)).await?;
                    return Err(status);
                }
            }
        }
        self.commit(run, answers).await
    }

    async fn commit(&self, run: Option<(Partition, Vec<Entries>)>, answers: &Answers) -> Result<(), Status> {
        let Some((partition, requests)) = run else { return Ok(()) };
        let count = requests.len();
        let applied = match self.maps.apply(partition, requests).await {
            Ok(applied) => applied,
            Err(error) => {
                answer(answers, header_of(false)).await?;
                let status = status(&error);
                let internal = matches!(status.code(), Code::Unknown | Code::DataLoss);
                return Err(if internal { Status::internal(error.to_string()) } else { status });
            }
        };
        for _ in 0..applied.requests {
            answer(answers, header_of(true)).await?;
        }
        if applied.requests < count {
            answer(answers, header_of(false)).await?;
            return Err(Status::failed_precondition("stale term"));
        }
        Ok(())
    }

    /// Holds a request against the limits, whole, before anything of it is kept.
    fn check(&self, request: BackupRequest) -> Result<Checked, Status> {
        let BackupRequest { header, entries } = request;
        let is_bare = header.is_none();
        let (number, map) = header::parse(header);
        if entries.is_empty() {
            // A barrier is about the stream. It may name a map, which then has to be there.
            if !is_bare {
                self.maps.find(number, &map).map_err(|error| status(&error))?;
            }
            return Ok(Checked::Barrier);
        }
        let entries_max = self.options.entries_per_request_max;
        if entries.len() > entries_max {
            return Err(Status::resource_exhausted(format!("a request may have {entries_max} entries")));
        }
        let partition = self.maps.find(number, &map).map_err(|error| status(&error))?;
        let parse = |entry| self.parse(number, &map, entry);
        Ok(Checked::Entries(partition, entries.into_iter().map(parse).collect::<Result<_, _>>()?))
    }

    fn parse(&self, number: u32, map: &MapName, entry: WireEntry) -> Result<(MapKey, Entry), Status> {
        let WireEntry { key, value, digest } = entry;
        let digest = header::parse_digest(digest);
        // The version and the digest's timestamp are the same number (`atomix.md` §3).
        if value.as_ref().is_some_and(|value| value.version != digest.timestamp) {
            return Err(Status::invalid_argument("malformed entry: the version is not the digest's timestamp"));
        }
        let key = MapKey { map: map.clone(), key: Bytes::from(key) };
        let entry = Entry { digest, value: value.map(|Value { value, .. }| value) };
        self.maps.check_entry(number, &key, &entry).map_err(|error| status(&error))?;
        Ok((key, entry))
    }
}

/// Ends a stream whose next request cannot be read. One that is too large is answered as any other that is not kept.
async fn unreadable(status: Status, answers: &Answers) -> Result<(), Status> {
    let status = usual(status);
    if status.code() == Code::ResourceExhausted {
        answer(answers, header_of(false)).await?;
    }
    Err(status)
}

/// A request that can be kept.
enum Checked {
    Barrier,
    Entries(Partition, Entries),
}

fn header_of(kept: bool) -> BackupResponse {
    BackupResponse { header: if kept { header::ok() } else { header::error() } }
}

/// Waits while the peer does not read its answers.
async fn answer(answers: &Answers, response: BackupResponse) -> Result<(), Status> {
    answers.send(Ok(response)).await.map_err(|_| Status::cancelled("the peer left"))
}
