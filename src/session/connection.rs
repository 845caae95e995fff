//! A connection: its buffers, and the loop over its requests.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;

use super::pipeline::Pipeline;
use crate::frame::{Frame, FrameCodec, FrameError};
use crate::message::Request;
use crate::service::{Answer, ClientState, Service, frame_too_large};

/// Room that is made for what arrives next.
const READ_BYTES: usize = 8 * 1024;

/// How long a peer may take to notice that nothing more is read from it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection is told once.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// The largest frame that is read, in bytes, its code included.
    pub frame_size_bytes_max: usize,
    /// Requests of one connection whose replies wait to be durable. Further ones are not begun meanwhile.
    pub requests_in_flight_max: usize,
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
}

pub(super) struct Connection {
    stream: TcpStream,
    codec: FrameCodec,
    input: BytesMut,
    pipeline: Pipeline,
    options: SessionOptions,
    state: ClientState,
    service: Service,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, service: Service, options: SessionOptions) -> Self {
        Self {
            stream,
            codec: FrameCodec::new(options.frame_size_bytes_max),
            input: BytesMut::new(),
            pipeline: Pipeline::default(),
            options,
            state: ClientState::default(),
            service,
        }
    }

    /// Answers requests one after the other until the connection ends. When `stopping` is cancelled those that were begun
    /// are answered, and no further one is begun.
    pub(super) async fn run(mut self, stopping: &CancellationToken) -> io::Result<()> {
        let end = self.answer_requests(stopping).await?;
        self.pipeline.write_all(&mut self.stream).await?;
        match end {
            End::Closed => Ok(()),
            End::Stopped if !self.has_unread() => Ok(()),
            End::Stopped | End::Refused => self.linger().await,
        }
    }

    fn has_unread(&mut self) -> bool {
        !self.input.is_empty() || self.stream.try_read_buf(&mut self.input).is_ok_and(|read| read > 0)
    }

    /// Ends a connection whose peer may still be sending. To close it over bytes that nobody reads would reset it, and a
    /// reset discards the replies that the peer has not taken yet: so what comes is read and dropped, for a while.
    async fn linger(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let dropped = timeout(LINGER_TIMEOUT, async {
            loop {
                self.input.clear();
                self.input.reserve(READ_BYTES);
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return Ok(());
                }
            }
        });
        dropped.await.unwrap_or(Ok(()))
    }

    async fn answer_requests(&mut self, stopping: &CancellationToken) -> io::Result<End> {
        loop {
            if stopping.is_cancelled() {
                return Ok(End::Stopped);
            }
            if self.pipeline.held_count() >= self.options.requests_in_flight_max {
                self.pipeline.opened().await?;
                self.pipeline.write(&mut self.stream).await?;
                continue;
            }
            match self.codec.decode(&mut self.input) {
                Ok(Some(frame)) => {
                    if !self.answer(frame).await? {
                        return Ok(End::Refused);
                    }
                }
                Ok(None) => {
                    self.pipeline.write(&mut self.stream).await?;
                    if !self.wait(stopping).await? && !stopping.is_cancelled() {
                        return Ok(End::Closed);
                    }
                }
                Err(FrameError::ZeroLength) => return Ok(End::Refused),
                Err(FrameError::TooLarge { .. }) => {
                    self.pipeline.push(frame_too_large(), self.service.gate())?;
                    return Ok(End::Refused);
                }
                Err(FrameError::Io(error)) => return Err(error),
            }
        }
    }

    /// Answers one request. Its reply may wait while others follow. Whether the connection goes on.
    async fn answer(&mut self, frame: Frame) -> io::Result<bool> {
        let request = Request::decode(frame.code, frame.payload);
        let (reply, goes_on) = match self.service.answer(&mut self.state, request).await {
            Answer::Reply(reply) => (reply, true),
            Answer::LastReply(reply) => (reply, false),
            Answer::Stream(mut replies) => {
                while let Some(reply) = replies.recv().await {
                    self.pipeline.push(reply, self.service.gate())?;
                    self.pipeline.write_all(&mut self.stream).await?;
                }
                return Ok(true);
            }
        };
        self.pipeline.push(reply, self.service.gate())?;
        if self.pipeline.is_worth_writing() {
            self.pipeline.write(&mut self.stream).await?;
        }
        Ok(goes_on)
    }

    /// Waits for bytes, or until a reply may be written. False when there will be no more bytes: the peer has finished, or
    /// the server is stopping.
    async fn wait(&mut self, stopping: &CancellationToken) -> io::Result<bool> {
        let Self { stream, input, pipeline, .. } = self;
        if pipeline.is_empty() && input.is_empty() {
            // Thousands of connections wait for their next request: none of them keeps a buffer meanwhile.
            *input = BytesMut::new();
            pipeline.shrink();
            tokio::select! {
                () = stopping.cancelled() => return Ok(false),
                readable = stream.readable() => readable?,
            }
        }
        input.reserve(READ_BYTES);
        tokio::select! {
            () = stopping.cancelled() => Ok(false),
            opened = pipeline.opened() => opened.map(|()| true),
            read = stream.read_buf(input) => Ok(read? > 0),
        }
    }
}
