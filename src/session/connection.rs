//! A connection: its buffers, and the loop over its requests.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;

use crate::frame::{self, Frame, FrameCodec, FrameError};
use crate::message::{Reply, Request};
use crate::service::{Answer, ClientState, Service, frame_too_large};

/// Replies are gathered up to this many bytes before they are written, while more requests wait (`kv.md` §1.7).
const GATHERED_BYTES_MAX: usize = 16 * 1024;
/// Room that is made for what arrives next.
const READ_BYTES: usize = 8 * 1024;
/// A buffer that has grown beyond this is given back once it is empty.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// How long a peer may take to notice that nothing more is read from it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection is told once.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// The largest frame that is read, in bytes, its code included.
    pub frame_size_bytes_max: usize,
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
    output: BytesMut,
    state: ClientState,
    service: Service,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, service: Service, options: SessionOptions) -> Self {
        Self {
            stream,
            codec: FrameCodec::new(options.frame_size_bytes_max),
            input: BytesMut::new(),
            output: BytesMut::new(),
            state: ClientState::default(),
            service,
        }
    }

    /// Answers requests one after the other until the connection ends. When `stopping` is cancelled the request in work is
    /// answered, and no further one begun.
    pub(super) async fn run(mut self, stopping: &CancellationToken) -> io::Result<()> {
        let end = self.answer_requests(stopping).await?;
        self.flush().await?;
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
            match self.codec.decode(&mut self.input) {
                Ok(Some(frame)) => {
                    if !self.answer(frame).await? {
                        return Ok(End::Refused);
                    }
                }
                Ok(None) => {
                    self.flush().await?;
                    if !self.read(stopping).await? && !stopping.is_cancelled() {
                        return Ok(End::Closed);
                    }
                }
                Err(FrameError::ZeroLength) => return Ok(End::Refused),
                Err(FrameError::TooLarge { .. }) => {
                    self.send(&frame_too_large()).await?;
                    return Ok(End::Refused);
                }
                Err(FrameError::Io(error)) => return Err(error),
            }
        }
    }

    /// Answers one request. Whether the connection goes on.
    async fn answer(&mut self, frame: Frame) -> io::Result<bool> {
        let request = Request::decode(frame.code, frame.payload);
        match self.service.answer(&mut self.state, request).await {
            Answer::Reply(reply) => {
                self.send(&reply).await?;
                Ok(true)
            }
            Answer::LastReply(reply) => {
                self.send(&reply).await?;
                Ok(false)
            }
            Answer::Stream(mut replies) => {
                while let Some(reply) = replies.recv().await {
                    self.send(&reply).await?;
                    self.flush().await?;
                }
                Ok(true)
            }
        }
    }

    async fn send(&mut self, reply: &Reply) -> io::Result<()> {
        let parts = reply.encode_parts();
        let header = frame::header(reply.code().number(), parts.iter().map(Bytes::len).sum());
        self.output.extend_from_slice(&header.map_err(io::Error::other)?);
        for part in parts {
            if part.len() <= GATHERED_BYTES_MAX {
                self.output.extend_from_slice(&part);
            } else {
                // Written from where it is: a copy of a large value would cost more than a call.
                self.flush().await?;
                self.stream.write_all(&part).await?;
            }
        }
        if self.output.len() >= GATHERED_BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        if self.output.capacity() > KEPT_BYTES_MAX {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Waits for bytes. False when there will be none: the peer has finished, or the server is stopping.
    async fn read(&mut self, stopping: &CancellationToken) -> io::Result<bool> {
        if self.input.is_empty() {
            // Thousands of connections wait for their next request: none of them keeps a buffer meanwhile.
            self.input = BytesMut::new();
            self.output = BytesMut::new();
            tokio::select! {
                () = stopping.cancelled() => return Ok(false),
                readable = self.stream.readable() => readable?,
            }
        }
        self.input.reserve(READ_BYTES);
        tokio::select! {
            () = stopping.cancelled() => Ok(false),
            read = self.stream.read_buf(&mut self.input) => Ok(read? > 0),
        }
    }
}
