//! A connection: its buffers, and the loop over its requests.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::Decoder;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::budget::{Budget, SMALL_BYTES_MAX, Share};
use super::peer::Peer;
use super::pipeline::{Pipeline, ReplyFrame};
use crate::frame::{Frame, FrameCodec, FrameError};
use crate::message::{MessageError, Reply, Request};
use crate::service::{Answer, ClientState, Service, frame_too_large};

/// What is read at once at most.
const READ_BYTES: usize = 16 * 1024;
/// An idle connection keeps buffers up to this size.
const IDLE_BYTES_MAX: usize = 2 * 1024;

thread_local! {
    /// What has just arrived.
    static ARRIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Resolves when the server is stopping.
type Cancelled<'a, 'b> = Pin<&'a mut WaitForCancellationFuture<'b>>;

/// How long a peer may take to notice that nothing more is read from it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection is told once.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// The largest frame that is read, in bytes, its code included.
    pub frame_size_bytes_max: usize,
    /// Requests of one connection whose replies wait to be durable. Further ones are not begun meanwhile.
    pub connection_requests_max: usize,
    /// How long a connection may rest between two requests; for ever where there is none.
    pub idle_timeout: Option<Duration>,
    /// How long a frame may take from its first byte to its last.
    pub frame_timeout: Duration,
    /// How long a peer may take nothing of the replies that wait for it.
    pub write_timeout: Duration,
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The peer has sent its last byte.
    Closed,
    /// The server is stopping.
    Stopped,
    /// What the peer sent leaves no way to go on.
    Refused,
    /// The peer was too slow.
    TimedOut,
}

pub(super) struct Connection {
    peer: Peer,
    codec: FrameCodec,
    input: BytesMut,
    /// The most bytes that were in the input at once: what its buffer holds at least.
    input_bytes_most: usize,
    budget: Budget,
    options: SessionOptions,
    /// When the frame must be there that has begun to arrive.
    frame_deadline: Option<Instant>,
    /// That frame's part of the budget, if it is large.
    frame_bytes: Share,
    state: ClientState,
    service: Service,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, service: Service, budget: Budget, options: SessionOptions) -> Self {
        Self {
            peer: Peer::new(stream, Pipeline::new(service.gates()), options.write_timeout),
            codec: FrameCodec::new(options.frame_size_bytes_max),
            input: BytesMut::new(),
            input_bytes_most: 0,
            budget,
            options,
            frame_deadline: None,
            frame_bytes: Share::default(),
            state: ClientState::default(),
            service,
        }
    }

    /// Answers requests one after the other until the connection ends. When `stopping` is cancelled those that were begun
    /// are answered, and no further one is begun.
    pub(super) async fn run(mut self, stopping: CancellationToken) -> io::Result<()> {
        let cancelled = pin!(stopping.cancelled());
        let end = self.answer_requests(&stopping, cancelled).await?;
        self.peer.write_all().await?;
        match end {
            End::Closed | End::TimedOut => Ok(()),
            End::Stopped if !self.has_unread() => Ok(()),
            End::Stopped | End::Refused => self.linger().await,
        }
    }

    fn has_unread(&mut self) -> bool {
        !self.input.is_empty() || self.peer.stream.try_read_buf(&mut self.input).is_ok_and(|read| read > 0)
    }

    /// Ends a connection whose peer may still be sending. To close it over bytes that nobody reads would reset it, and a
    /// reset discards the replies that the peer has not taken yet: so what comes is read and dropped, for a while.
    async fn linger(mut self) -> io::Result<()> {
        self.peer.stream.shutdown().await?;
        let dropped = timeout(LINGER_TIMEOUT, async {
            loop {
                self.input.clear();
                self.input.reserve(READ_BYTES);
                if self.peer.stream.read_buf(&mut self.input).await? == 0 {
                    return Ok(());
                }
            }
        });
        dropped.await.unwrap_or(Ok(()))
    }

    async fn answer_requests(
        &mut self,
        stopping: &CancellationToken,
        mut cancelled: Cancelled<'_, '_>,
    ) -> io::Result<End> {
        // Whether a request was answered since the last wait.
        let mut has_answered = false;
        loop {
            // Whoever has nothing in flight is told so by `wait`.
            if !self.input.is_empty() && (has_answered || !self.peer.pipeline.is_empty()) && stopping.is_cancelled() {
                return Ok(End::Stopped);
            }
            if self.peer.pipeline.held_count() >= self.options.connection_requests_max {
                self.peer.write_next().await?;
                continue;
            }
            self.input_bytes_most = self.input.len().max(self.input_bytes_most);
            match self.codec.decode(&mut self.input) {
                Ok(Some(frame)) => {
                    self.frame_deadline = None;
                    let goes_on = self.answer(frame).await?;
                    self.frame_bytes = Share::default();
                    has_answered = true;
                    if !goes_on {
                        return Ok(End::Refused);
                    }
                }
                Ok(None) => {
                    self.peer.write().await?;
                    match self.wait(cancelled.as_mut()).await? {
                        Waited::GoOn => has_answered = false,
                        Waited::Closed => return Ok(End::Closed),
                        Waited::Stopped => return Ok(End::Stopped),
                        Waited::TimedOut => return Ok(End::TimedOut),
                    }
                }
                Err(FrameError::ZeroLength) => return Ok(End::Refused),
                Err(FrameError::TooLarge { .. }) => {
                    self.push(&frame_too_large())?;
                    return Ok(End::Refused);
                }
                Err(FrameError::Io(error)) => return Err(error),
            }
        }
    }

    /// Answers one request. Its reply may wait while others follow. Whether the connection goes on.
    async fn answer(&mut self, frame: Frame) -> io::Result<bool> {
        let mut share = self.peer.attend(self.budget.request()).await?;
        let request = Request::decode(frame.code, frame.payload.clone());
        let is_read = request.as_ref().is_ok_and(Request::is_read);
        let (reply, goes_on) = match self.ask(request).await? {
            Answer::Reply(reply) => (reply, true),
            Answer::LastReply(reply) => (reply, false),
            Answer::Stream(replies) => {
                // It lasts as long as its reader likes, and nobody else waits for that.
                drop(share);
                self.stream(replies).await?;
                return Ok(true);
            }
        };
        let mut reply = ReplyFrame::new(&reply)?;
        if reply.size_bytes() > SMALL_BYTES_MAX {
            reply = match self.budget.try_bytes(reply.size_bytes()) {
                Some(bytes) => reply.with(bytes),
                None => {
                    drop(std::mem::take(&mut share));
                    let again = is_read.then_some(frame);
                    let (reply, its_share) = self.afford(reply, again).await?;
                    share = its_share;
                    reply
                }
            };
        }
        self.peer.pipeline.push(reply, self.service.gate(), share);
        if self.peer.pipeline.is_worth_writing() {
            self.peer.write().await?;
        }
        Ok(goes_on)
    }

    /// Has the service answer.
    async fn ask(&mut self, request: Result<Request, MessageError>) -> io::Result<Answer> {
        let answered = pin!(self.service.answer(&mut self.state, request));
        self.peer.attend(answered).await
    }

    /// Sends replies as they come.
    async fn stream(&mut self, mut replies: mpsc::Receiver<Reply>) -> io::Result<()> {
        while let Some(reply) = self.peer.attend(replies.recv()).await? {
            self.push(&reply)?;
            self.peer.write_all().await?;
        }
        Ok(())
    }

    /// Takes in a reply that is not counted as a request's.
    fn push(&mut self, reply: &Reply) -> io::Result<()> {
        self.peer.pipeline.push(ReplyFrame::new(reply)?, self.service.gate(), Share::default());
        Ok(())
    }

    /// Waits for a large reply's part of the budget, and for a request's. Neither is held while the other's turn has not come
    /// but in this order, which is that of large frames too. A read has let go of what it found, and reads again.
    async fn afford(&mut self, reply: ReplyFrame, again: Option<Frame>) -> io::Result<(ReplyFrame, Share)> {
        let size_bytes = reply.size_bytes();
        // Whatever it holds itself must not keep it waiting.
        self.frame_bytes = Share::default();
        let kept = again.is_none().then_some(reply);
        let bytes = self.peer.attend(self.budget.bytes(size_bytes)).await?;
        let share = self.peer.attend(self.budget.request()).await?;
        let reply = match (kept, again) {
            (Some(reply), _) => reply,
            (None, Some(frame)) => match self.ask(Request::decode(frame.code, frame.payload)).await? {
                Answer::Reply(reply) | Answer::LastReply(reply) => ReplyFrame::new(&reply)?,
                Answer::Stream(_) => return Err(io::Error::other("a request that had one answer has many")),
            },
            (None, None) => return Err(io::Error::other("a reply was neither kept nor made again")),
        };
        Ok((reply.with(bytes), share))
    }

    /// Waits for bytes, or until a reply may be written.
    async fn wait(&mut self, cancelled: Cancelled<'_, '_>) -> io::Result<Waited> {
        if FrameCodec::announced_bytes(&self.input).is_some_and(|announced| announced > SMALL_BYTES_MAX) {
            return self.wait_for_large_frame(cancelled).await;
        }
        let Self { peer: Peer { stream, pipeline, .. }, input, input_bytes_most, options, .. } = self;
        let deadline = if !input.is_empty() {
            Some(*self.frame_deadline.get_or_insert_with(|| Instant::now() + options.frame_timeout))
        } else if pipeline.is_empty() {
            // Thousands of connections wait for their next request: none of them keeps much meanwhile.
            if *input_bytes_most > IDLE_BYTES_MAX {
                *input = BytesMut::new();
                *input_bytes_most = 0;
            }
            pipeline.shrink(IDLE_BYTES_MAX);
            options.idle_timeout.map(|idle| Instant::now() + idle)
        } else {
            None
        };
        // Replies that are held will not be held for ever, so whoever waits for them need not be told that the server is
        // stopping. The others are, before what they have sent is read.
        tokio::select! {
            biased;
            opened = pipeline.opened() => opened.map(|()| Waited::GoOn),
            () = cancelled, if pipeline.is_empty() => Ok(Waited::Stopped),
            read = read_some(stream, input) => Ok(if read? > 0 { Waited::GoOn } else { Waited::Closed }),
            () = sleep_until_if(deadline) => Ok(Waited::TimedOut),
        }
    }

    /// Gets the frame that has begun to arrive its part of the budget before more of it is read, and reads on.
    async fn wait_for_large_frame(&mut self, mut cancelled: Cancelled<'_, '_>) -> io::Result<Waited> {
        self.peer.write_all().await?;
        let announced_bytes = FrameCodec::announced_bytes(&self.input).unwrap_or_default();
        if self.frame_bytes.is_none() {
            tokio::select! {
                () = &mut cancelled => return Ok(Waited::Stopped),
                bytes = self.peer.attend(self.budget.bytes(announced_bytes)) => self.frame_bytes = bytes?,
            }
            // The wait was not the peer's.
            self.frame_deadline = None;
        }
        let deadline = *self.frame_deadline.get_or_insert_with(|| Instant::now() + self.options.frame_timeout);
        tokio::select! {
            () = cancelled => Ok(Waited::Stopped),
            () = sleep_until(deadline) => Ok(Waited::TimedOut),
            read = self.peer.stream.read_buf(&mut self.input) => Ok(if read? > 0 { Waited::GoOn } else { Waited::Closed }),
        }
    }
}

/// What waiting came to.
enum Waited {
    /// There is something to do.
    GoOn,
    /// There will be no more bytes: the peer has finished.
    Closed,
    /// The server is stopping.
    Stopped,
    /// The peer was too slow.
    TimedOut,
}

/// Reads what there is, up to [`READ_BYTES`]. Nothing is lost when this is dropped in the middle.
async fn read_some(stream: &mut TcpStream, input: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        // Not into a buffer of the connection's own, which would need all that room for a request of some bytes.
        ARRIVED.with_borrow_mut(|arrived| {
            let mut arrived = ReadBuf::new(arrived);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut arrived))?;
            input.extend_from_slice(arrived.filled());
            Poll::Ready(Ok(arrived.filled().len()))
        })
    })
    .await
}

async fn sleep_until_if(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
