//! The replies of a connection: in the order of their requests, each held until its gate opens, and written together.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::budget::Share;
use crate::frame;
use crate::message::Reply;
use crate::service::{Gate, Gates, Opening};

/// Parts of replies up to this size are copied together; a larger one is written from where it is, since to copy it would cost
/// more than a call.
const GATHERED_BYTES_MAX: usize = 16 * 1024;
/// A buffer that has grown beyond this is given back once it is empty.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Replies that wait, and those that may be written.
pub(super) struct Pipeline {
    gates: Gates,
    /// Replies behind gates that are not open, in order.
    held: VecDeque<Held>,
    /// What waits to open: the gate of the first of them.
    opening: Option<Opening>,
    /// What may be written: large parts, and what is gathered behind them.
    ready: VecDeque<(Bytes, Share)>,
    gathered: BytesMut,
    ready_bytes: usize,
}

struct Held {
    gate: Gate,
    frame: ReplyFrame,
    /// Its part of the budget for requests, which ends when the gate opens.
    _request: Share,
}

/// A reply as it goes onto the wire.
pub(super) struct ReplyFrame {
    header: [u8; frame::HEADER_BYTES],
    parts: [Bytes; 2],
    /// Its part of the budget for bytes, if it is large: until it is written.
    bytes: Share,
}

impl ReplyFrame {
    pub(super) fn new(reply: &Reply) -> io::Result<Self> {
        let parts = reply.encode_parts();
        let header = frame::header(reply.code().number(), parts.iter().map(Bytes::len).sum());
        Ok(Self { header: header.map_err(io::Error::other)?, parts, bytes: Share::default() })
    }

    /// The frame with its part of the budget.
    pub(super) fn with(self, bytes: Share) -> Self {
        Self { bytes, ..self }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.header.len() + self.parts.iter().map(Bytes::len).sum::<usize>()
    }
}

impl Pipeline {
    pub(super) fn new(gates: Gates) -> Self {
        Self {
            gates,
            held: VecDeque::new(),
            opening: None,
            ready: VecDeque::new(),
            gathered: BytesMut::new(),
            ready_bytes: 0,
        }
    }

    /// Takes in the reply to the next request.
    pub(super) fn push(&mut self, frame: ReplyFrame, gate: Gate, request: Share) {
        if self.held.is_empty() && self.gates.is_open(gate) {
            self.make_ready(frame);
        } else {
            self.held.push_back(Held { gate, frame, _request: request });
        }
    }

    /// Whether nothing waits, neither for a gate nor to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.ready_bytes == 0
    }

    /// Replies that wait for their gates.
    pub(super) fn held_count(&self) -> usize {
        self.held.len()
    }

    /// Whether enough may be written to be worth a call.
    pub(super) fn is_worth_writing(&self) -> bool {
        self.ready_bytes >= GATHERED_BYTES_MAX
    }

    /// Lets replies through whose gates have opened meanwhile.
    fn release(&mut self) {
        while let Some(held) = self.held.pop_front_if(|held| self.gates.is_open(held.gate)) {
            self.opening = None;
            self.make_ready(held.frame);
        }
    }

    /// Waits until the first reply that is held may be written; for ever where none is. Nothing is lost when this is
    /// dropped in the middle.
    pub(super) async fn opened(&mut self) -> io::Result<()> {
        let Some(first) = self.held.front() else { return std::future::pending().await };
        let opening = self.opening.get_or_insert_with(|| self.gates.opened(first.gate));
        let opened = opening.await;
        self.opening = None;
        match opened {
            Ok(()) => self.release(),
            // None of those behind it will open either: each gives way to the error.
            Err(refusal) => {
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
        let mut bytes = frame.bytes;
        for part in frame.parts {
            if part.len() <= GATHERED_BYTES_MAX {
                self.gathered.extend_from_slice(&part);
                continue;
            }
            if !self.gathered.is_empty() {
                self.ready.push_back((self.gathered.split().freeze(), Share::default()));
            }
            // The last of the parts is the value, and holds the frame's part of the budget.
            self.ready.push_back((part, std::mem::take(&mut bytes)));
        }
    }

    /// Writes what may be written. Nothing is lost when this is dropped in the middle.
    ///
    /// # Errors
    /// When the peer takes nothing for as long as `patience`.
    pub(super) async fn write(&mut self, stream: &TcpStream, patience: Duration) -> io::Result<()> {
        self.release();
        while self.ready_bytes > 0 {
            let next = self.ready.front().map_or(&self.gathered[..], |(part, _)| part);
            match stream.try_write(next) {
                Ok(count) => self.take_out(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable(stream, patience).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes out what was written.
    fn take_out(&mut self, count: usize) {
        self.ready_bytes -= count;
        if let Some((part, _)) = self.ready.front_mut() {
            part.advance(count);
            self.ready.pop_front_if(|(part, _)| part.is_empty());
        } else if count < self.gathered.len() {
            self.gathered.advance(count);
        } else {
            self.gathered.clear();
            if self.gathered.capacity() > KEPT_BYTES_MAX {
                self.gathered = BytesMut::new();
            }
        }
    }

    /// Waits for a peer that takes nothing. Replies whose gates open meanwhile give their part of the budget back.
    async fn writable(&mut self, stream: &TcpStream, patience: Duration) -> io::Result<()> {
        let mut writable = pin!(timeout(patience, stream.writable()));
        loop {
            tokio::select! {
                biased;
                writable = &mut writable => return writable.map_err(|_| io::ErrorKind::TimedOut)?,
                opened = self.opened() => opened?,
            }
        }
    }

    /// Gives back buffers that are larger. For when nothing waits.
    pub(super) fn shrink(&mut self, kept_bytes_max: usize) {
        self.ready = VecDeque::new();
        if self.held.capacity() * size_of::<Held>() > kept_bytes_max {
            self.held = VecDeque::new();
        }
        if self.gathered.capacity() > kept_bytes_max {
            self.gathered = BytesMut::new();
        }
    }
}
