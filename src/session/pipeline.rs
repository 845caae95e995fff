//! The replies of a connection: in the order of their requests, each held until its gate opens, and written together.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::frame;
use crate::message::Reply;
use crate::service::Gate;

/// Parts of replies up to this size are copied together; a larger one is written from where it is, since to copy it would cost
/// more than a call.
const GATHERED_BYTES_MAX: usize = 16 * 1024;
/// A buffer that has grown beyond this is given back once it is empty.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Replies that wait, and those that may be written.
#[derive(Default)]
pub(super) struct Pipeline {
    /// Replies behind gates that are not open, in order.
    held: VecDeque<Held>,
    /// What waits to open: the gate of the first of them.
    opening: Option<Pin<Box<dyn Future<Output = Result<(), Reply>> + Send>>>,
    /// What may be written: large parts, and what is gathered behind them.
    ready: VecDeque<Bytes>,
    gathered: BytesMut,
    ready_bytes: usize,
    held_bytes: usize,
}

struct Held {
    gate: Gate,
    frame: ReplyFrame,
}

/// A reply as it goes onto the wire.
struct ReplyFrame {
    header: [u8; frame::HEADER_BYTES],
    parts: [Bytes; 2],
}

impl ReplyFrame {
    fn new(reply: &Reply) -> io::Result<Self> {
        let parts = reply.encode_parts();
        let header = frame::header(reply.code().number(), parts.iter().map(Bytes::len).sum());
        Ok(Self { header: header.map_err(io::Error::other)?, parts })
    }

    fn size_bytes(&self) -> usize {
        self.header.len() + self.parts.iter().map(Bytes::len).sum::<usize>()
    }
}

impl Pipeline {
    /// Takes in the reply to the next request.
    pub(super) fn push(&mut self, reply: Reply, gate: Gate) -> io::Result<()> {
        let frame = ReplyFrame::new(&reply)?;
        if self.held.is_empty() && gate.is_open() {
            self.make_ready(frame);
        } else {
            self.held_bytes += frame.size_bytes();
            self.held.push_back(Held { gate, frame });
        }
        Ok(())
    }

    /// Whether nothing waits, neither for a gate nor to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.ready_bytes == 0
    }

    /// Replies that wait for their gates.
    pub(super) fn held_count(&self) -> usize {
        self.held.len()
    }

    /// What the replies that are not written take, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        self.held_bytes + self.ready_bytes
    }

    /// Whether enough may be written to be worth a call.
    pub(super) fn is_worth_writing(&self) -> bool {
        self.ready_bytes >= GATHERED_BYTES_MAX
    }

    /// Lets replies through whose gates have opened meanwhile.
    fn release(&mut self) {
        while let Some(held) = self.held.pop_front_if(|held| held.gate.is_open()) {
            self.opening = None;
            self.held_bytes -= held.frame.size_bytes();
            self.make_ready(held.frame);
        }
    }

    /// Waits until the first reply that is held may be written; for ever where none is. Nothing is lost when this is
    /// dropped in the middle.
    pub(super) async fn opened(&mut self) -> io::Result<()> {
        let Some(first) = self.held.front() else { return std::future::pending().await };
        let opening = self.opening.get_or_insert_with(|| Box::pin(first.gate.clone().opened()));
        let opened = opening.await;
        self.opening = None;
        match opened {
            Ok(()) => self.release(),
            // None of those behind it will open either: each gives way to the error.
            Err(refusal) => {
                self.held_bytes = 0;
                for _ in 0..std::mem::take(&mut self.held).len() {
                    self.make_ready(ReplyFrame::new(&refusal)?);
                }
            }
        }
        Ok(())
    }

    fn make_ready(&mut self, frame: ReplyFrame) {
        self.ready_bytes += frame.size_bytes();
        self.gathered.extend_from_slice(&frame.header);
        for part in frame.parts {
            if part.len() <= GATHERED_BYTES_MAX {
                self.gathered.extend_from_slice(&part);
            } else {
                self.ready.extend([self.gathered.split().freeze(), part]);
            }
        }
    }

    /// Writes what may be written.
    pub(super) async fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.release();
        while let Some(part) = self.ready.pop_front() {
            stream.write_all(&part).await?;
            self.ready_bytes -= part.len();
        }
        if !self.gathered.is_empty() {
            stream.write_all(&self.gathered).await?;
            self.gathered.clear();
            if self.gathered.capacity() > KEPT_BYTES_MAX {
                self.gathered = BytesMut::new();
            }
        }
        self.ready_bytes = 0;
        Ok(())
    }

    /// Waits for all gates and writes everything.
    pub(super) async fn write_all(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.write(stream).await?;
        while !self.held.is_empty() {
            self.opened().await?;
            self.write(stream).await?;
        }
        Ok(())
    }

    /// Gives back what an idle connection need not keep.
    pub(super) fn shrink(&mut self) {
        if self.gathered.is_empty() {
            self.gathered = BytesMut::new();
        }
    }
}
