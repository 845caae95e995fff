//! Accepts connections and starts their tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::connection::{Connection, SessionOptions};
use crate::service::Service;

/// Connections that the system holds for us before we take them (`kv.md` §1.1).
const BACKLOG: u32 = 128;
/// Pauses after a failed accept: the usual reason is that descriptors have run out, and that does not pass at once.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a listener is told once.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// What each connection is told.
    pub session: SessionOptions,
    /// How long connections may take to end when the server stops.
    pub drain_timeout: Duration,
}

/// What all listeners share. Cloning gives another handle to the same limits.
#[derive(Clone)]
pub struct Limits {
    /// Each connection holds one.
    connections: Arc<Semaphore>,
    budget: Budget,
}

impl Limits {
    /// Limits on connections, on requests whose replies are not durable, and on the bytes of frames and replies that are too
    /// large to be counted by the request.
    pub fn new(connections_max: usize, requests_in_flight_max: usize, buffered_bytes_max: usize) -> Self {
        let connections = Arc::new(Semaphore::new(connections_max));
        Self { connections, budget: Budget::new(requests_in_flight_max, buffered_bytes_max) }
    }
}

/// A bound address, not yet served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `HOST:PORT`. Port 0 takes a free one. Peers that are silent for as long as `keepalive` are asked by the system
    /// whether they are still there; at least a second.
    ///
    /// # Errors
    /// When the name does not resolve, or none of its addresses can be bound.
    pub async fn bind(address: &str, keepalive: Option<Duration>) -> io::Result<Self> {
        let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host(address).await? {
            match Self::bind_one(address, keepalive) {
                Ok(listener) => return Ok(listener),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    fn bind_one(address: SocketAddr, keepalive: Option<Duration>) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted server takes its port back at once.
        socket.set_reuseaddr(true)?;
        if let Some(keepalive) = keepalive {
            // Connections have it from the socket that accepts them.
            let keepalive = TcpKeepalive::new().with_time(keepalive).with_interval(keepalive);
            SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        }
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves connections until `stopping` is cancelled, then waits for those that are open. While as many are open as may
    /// be, the next one waits, and those behind it wait to be accepted.
    pub async fn serve(self, service: Service, options: ListenerOptions, limits: Limits, stopping: CancellationToken) {
        let mut connections = JoinSet::new();
        let mut pause = ACCEPT_PAUSE_MIN;
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    pause = ACCEPT_PAUSE_MIN;
                    // Not before: a listener to which nobody comes would hold what another one waits for.
                    let permit = limits.connections.clone().acquire_owned();
                    let Some(Ok(permit)) = stopping.run_until_cancelled(permit).await else { break };
                    let connection =
                        Connection::new(stream, service.for_client(), limits.budget.clone(), options.session);
                    // One of its own, so that connections do not meet at the lock of one.
                    let stopping = stopping.child_token();
                    connections.spawn(async move {
                        if let Err(error) = connection.run(stopping).await {
                            // Peers hang up as they please.
                            tracing::debug!(%error, "a connection ended");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, address = %self.address, "cannot accept a connection");
                    sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
        drop(self.socket);
        let drained = timeout(options.drain_timeout, async { while connections.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(connections = connections.len(), "connections did not end in time and are cut");
        }
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.socket.accept().await?;
        // Replies are small and waited for.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
