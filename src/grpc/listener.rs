//! Accepts connections and counts them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// After a failed accept: the usual reason is that descriptors have run out, and that does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound address, not yet served.
#[derive(Debug)]
pub struct GrpcListener {
    socket: TcpListener,
    address: SocketAddr,
}

impl GrpcListener {
    /// Binds `HOST:PORT`. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the name does not resolve, or none of its addresses can be bound.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address that was bound.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stopping`. Each connection holds a permit; while there is none, further ones wait to be accepted.
    pub(super) fn accept(
        self,
        permits: Arc<Semaphore>,
        stopping: CancellationToken,
    ) -> mpsc::Receiver<io::Result<Connection>> {
        let (connections, accepted) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(connection) = stopping.run_until_cancelled(self.accept_one(&permits)).await {
                match connection {
                    Ok(connection) => {
                        if connections.send(Ok(connection)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, address = %self.address, "cannot accept a gRPC connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        accepted
    }

    async fn accept_one(&self, permits: &Arc<Semaphore>) -> io::Result<Connection> {
        let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = self.socket.accept().await?;
        // Replies are small and waited for.
        stream.set_nodelay(true)?;
        Ok(Connection { stream, _permit: permit })
    }
}

/// A stream that gives its permit back when it is closed.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, ctx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(ctx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(ctx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(ctx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(ctx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(ctx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
