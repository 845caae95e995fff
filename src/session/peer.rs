//! The peer of a connection: its socket, and the replies that wait to leave through it.
//!
//! Whoever holds something that others want must not wait for anything else, or all may wait for each other. Replies that are
//! held own parts of the budget. So while a connection waits for its part, for room, or for an answer, it does so in
//! [`Peer::attend`], which lets replies leave meanwhile.
//!
//! # When a peer has left
//!
//! What is done for a peer ends when the system says that the connection is broken: the peer has reset it, or does not answer
//! the system's probes (`keepalive_ms`). That the peer sends no more says nothing, since it may be one that has closed its
//! sending side behind its last request and waits for the answers. On the wire it cannot be told from one that has closed
//! the connection, until something is sent to it: the one takes it, the other resets the connection. That something is a
//! reply, or a probe where there is none; a system answers probes for a socket that was closed as long as it remembers it,
//! which is a minute on Linux.
//!
//! Nothing is read for it: what the peer has sent ahead stays in the system's buffers, bounded, until its turn comes.

use std::io;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::pipeline::Pipeline;

pub(super) struct Peer {
    pub(super) stream: TcpStream,
    pub(super) pipeline: Pipeline,
    /// How long it may take nothing of what waits for it.
    patience: Duration,
}

impl Peer {
    pub(super) fn new(stream: TcpStream, pipeline: Pipeline, patience: Duration) -> Self {
        Self { stream, pipeline, patience }
    }

    /// Runs work. While it has to wait, replies leave as they may; and when the peer has left it is dropped. Work that is done
    /// at once costs nothing more.
    ///
    /// # Errors
    /// When the peer has left, or takes nothing for too long.
    pub(super) async fn attend<T>(&mut self, work: impl Future<Output = T>) -> io::Result<T> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            ended = self.serve() => Err(ended),
        }
    }

    /// Writes replies as they may leave, until there is nobody to take them.
    async fn serve(&mut self) -> io::Error {
        let Self { stream, pipeline, patience } = self;
        let writing = async {
            loop {
                let written = match pipeline.write(stream, *patience).await {
                    Ok(()) => pipeline.opened().await,
                    failed => failed,
                };
                if let Err(error) = written {
                    return error;
                }
            }
        };
        tokio::select! {
            biased;
            error = departure(stream) => error,
            error = writing => error,
        }
    }

    /// Writes what may be written.
    ///
    /// # Errors
    /// When the peer has left, or takes nothing for too long.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        self.pipeline.write(&self.stream, self.patience).await
    }

    /// Waits until a reply that is held may be written, and writes it. For when one is held.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(super) async fn write_next(&mut self) -> io::Result<()> {
        tokio::select! {
            biased;
            opened = self.pipeline.opened() => opened?,
            error = departure(&self.stream) => return Err(error),
        }
        self.write().await
    }

    /// Waits for all gates and writes everything.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(super) async fn write_all(&mut self) -> io::Result<()> {
        self.write().await?;
        while self.pipeline.held_count() > 0 {
            self.write_next().await?;
        }
        Ok(())
    }
}

/// Resolves when the connection is broken. Reads nothing, and asks the system nothing before.
async fn departure(stream: &TcpStream) -> io::Error {
    match stream.ready(Interest::ERROR).await.and_then(|_| stream.take_error()) {
        Ok(None) => io::ErrorKind::ConnectionReset.into(),
        Ok(Some(error)) | Err(error) => error,
    }
}
