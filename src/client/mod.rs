//! A small client of the protocol that the server speaks: one connection, one request after the other.
//! Knows frames and messages from the other side, and says data types in words of its own.
//! Must not know anything behind the wire.

mod datatype;
mod operation;
mod pipeline;
#[cfg(test)]
pub(crate) mod test_server;

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder};

use crate::frame::{Frame, FrameCodec, FrameError};
use crate::message::{MessageError, Reply};

pub use crate::message::Request;
pub use crate::message::generated::{
    DtFetchReq, DtUpdateReq, RpbContent, RpbDelReq, RpbGetReq, RpbGetResp, RpbLink, RpbPair, RpbPutReq, RpbPutResp,
};
pub use datatype::{Fetched, Updated, update_request};
pub use operation::{
    Datatype, Field, FieldKind, FieldOperation, FieldValue, MapOperation, Operation, SetOperation, Value,
};
pub use pipeline::{Pipeline, Received};

/// The greatest length that the protocol knows. Memory follows what has arrived, not what was announced.
const FRAME_SIZE_BYTES_MAX: usize = 0x7FFF_FFFB;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    address: String,
    stream: TcpStream,
    codec: FrameCodec,
    received: BytesMut,
}

/// Why a request has no reply of its own kind.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("connection to {address} refused: no server listens there (`ombak serve` starts one)")]
    ConnectionRefused {
        /// Where.
        address: String,
    },
    /// The address does not exist or does not answer.
    #[error("cannot connect to {address}: {cause}")]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The connection broke.
    #[error("connection to {address} failed: {cause}")]
    Connection {
        /// Where.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The server closed the connection, which it does without a reply after some faults.
    #[error("the server at {address} closed the connection instead of replying")]
    Closed {
        /// Where.
        address: String,
    },
    /// The server's bytes are no frame.
    #[error("the server's reply is broken: {0}")]
    Frame(FrameError),
    /// The server's frame is no reply.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The reply has a number that stands for nothing.
    #[error("the server's reply is broken: unknown {what} {number}")]
    UnknownNumber {
        /// What it should stand for.
        what: &'static str,
        /// The number.
        number: i32,
    },
    /// The reply is for another kind of request.
    #[error("the server's reply {} does not fit the request", reply.code().name())]
    UnexpectedReply {
        /// The reply.
        reply: Box<Reply>,
    },
    /// The server refused the request, in its own words.
    #[error("{reason}")]
    Refused {
        /// The words.
        reason: String,
    },
}

impl Client {
    /// Connects to HOST:PORT.
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = match connected.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(ClientError::ConnectionRefused { address: address.to_owned() });
            }
            Err(cause) => return Err(ClientError::Connect { address: address.to_owned(), cause }),
        };
        let client = Self {
            address: address.to_owned(),
            stream,
            codec: FrameCodec::new(FRAME_SIZE_BYTES_MAX),
            received: BytesMut::new(),
        };
        // A request is written whole: waiting for more of it would only delay the reply.
        client.stream.set_nodelay(true).map_err(|cause| client.broken(cause))?;
        Ok(client)
    }

    /// Sends a request and waits for its one reply. An error reply becomes [`ClientError::Refused`].
    pub async fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.send(request).await?;
        self.receive().await
    }

    /// Sends a request that is answered in parts, and hands over the parts up to the one that says it is the last.
    /// Replies keep their order, so the connection is only good for the next request once all parts were taken.
    pub async fn call_stream(&mut self, request: &Request) -> Result<ReplyStream<'_>, ClientError> {
        self.send(request).await?;
        Ok(ReplyStream { client: self, ended: false })
    }

    /// Reads an object. One that does not exist has neither content nor vclock.
    pub async fn get(&mut self, request: RpbGetReq) -> Result<RpbGetResp, ClientError> {
        match self.call(&Request::Get(request)).await? {
            Reply::Get(reply) => Ok(reply),
            reply => Err(unexpected(reply)),
        }
    }

    /// Stores an object.
    pub async fn put(&mut self, request: RpbPutReq) -> Result<RpbPutResp, ClientError> {
        match self.call(&Request::Put(Box::new(request))).await? {
            Reply::Put(reply) => Ok(reply),
            reply => Err(unexpected(reply)),
        }
    }

    /// Deletes an object; one that does not exist is no error.
    pub async fn delete(&mut self, request: RpbDelReq) -> Result<(), ClientError> {
        match self.call(&Request::Delete(request)).await? {
            Reply::Delete => Ok(()),
            reply => Err(unexpected(reply)),
        }
    }

    async fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let bytes = encode_request(request)?;
        self.stream.write_all(&bytes).await.map_err(|cause| self.broken(cause))
    }

    /// Cancellation safe: what has arrived of a reply stays in the buffer.
    async fn receive(&mut self) -> Result<Reply, ClientError> {
        loop {
            let decoded = self.codec.decode(&mut self.received);
            if let Some(frame) = decoded.map_err(|error| self.frame_error(error))? {
                return match Reply::decode(frame.code, frame.payload)? {
                    Reply::Error(error) => {
                        Err(ClientError::Refused { reason: String::from_utf8_lossy(&error.errmsg).into_owned() })
                    }
                    reply => Ok(reply),
                };
            }
            let read = self.stream.read_buf(&mut self.received).await;
            if read.map_err(|cause| self.broken(cause))? == 0 {
                return Err(ClientError::Closed { address: self.address.clone() });
            }
        }
    }

    fn frame_error(&self, error: FrameError) -> ClientError {
        match error {
            FrameError::Io(cause) => self.broken(cause),
            error => ClientError::Frame(error),
        }
    }

    fn broken(&self, cause: io::Error) -> ClientError {
        ClientError::Connection { address: self.address.clone(), cause }
    }
}

/// The bytes of a request as they travel.
///
/// # Errors
/// When the request is longer than the protocol can say.
pub fn encode_request(request: &Request) -> Result<BytesMut, ClientError> {
    let frame = Frame { code: request.code().number(), payload: request.encode() };
    let mut bytes = BytesMut::new();
    FrameCodec::new(FRAME_SIZE_BYTES_MAX).encode(frame, &mut bytes).map_err(ClientError::Frame)?;
    Ok(bytes)
}

/// The parts of a reply.
#[derive(Debug)]
pub struct ReplyStream<'a> {
    client: &'a mut Client,
    ended: bool,
}

impl ReplyStream<'_> {
    /// The next part, or none after the last. An error ends the stream too.
    pub async fn next(&mut self) -> Result<Option<Reply>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let reply = self.client.receive().await;
        self.ended = match &reply {
            Ok(reply) => is_last(reply),
            Err(_) => true,
        };
        reply.map(Some)
    }
}

/// Replies that never come in parts are their own last part.
fn is_last(reply: &Reply) -> bool {
    match reply {
        Reply::ListBuckets(part) => part.done(),
        Reply::ListKeys(part) => part.done(),
        Reply::MapReduce(part) => part.done(),
        Reply::Index(part) => part.done(),
        Reply::CsBucket(part) => part.done(),
        Reply::IndexBody(part) => part.done(),
        _ => true,
    }
}

fn unexpected(reply: Reply) -> ClientError {
    ClientError::UnexpectedReply { reply: Box::new(reply) }
}

#[cfg(test)]
mod tests {
    use super::test_server::{frames, serve};
    use super::*;
    use crate::message::generated::{RpbErrorResp, RpbListKeysReq, RpbListKeysResp};
    use tokio::net::TcpListener;

    async fn call(answer: Vec<u8>) -> Result<Reply, ClientError> {
        let (address, served) = serve(vec![answer]).await;
        let mut client = Client::connect(&address).await.unwrap();
        let reply = client.call(&Request::Ping).await;
        assert_eq!(served.await.unwrap(), [Request::Ping]);
        reply.map_err(|error| match error {
            ClientError::Closed { .. } => ClientError::Closed { address: String::new() },
            error => error,
        })
    }

    #[tokio::test]
    async fn a_call_has_one_reply() {
        assert_eq!(call(frames(&[Reply::Ping])).await.unwrap(), Reply::Ping);
        let error = Reply::Error(RpbErrorResp { errmsg: b"no \xff".to_vec().into(), errcode: 0 });
        assert_eq!(call(frames(&[error])).await.unwrap_err().to_string(), "no \u{fffd}");
    }

    #[tokio::test]
    async fn broken_replies_are_told_apart() {
        assert!(matches!(call(vec![]).await, Err(ClientError::Closed { .. })));
        assert!(matches!(call(vec![0, 0, 0, 9, 2]).await, Err(ClientError::Closed { .. })));
        assert!(matches!(call(vec![0, 0, 0, 0]).await, Err(ClientError::Frame(_))));
        assert!(matches!(call(vec![0xff; 9]).await, Err(ClientError::Frame(_))));
        assert!(matches!(call(vec![0, 0, 0, 1, 99]).await, Err(ClientError::Message(_))));
        assert!(matches!(call(vec![0, 0, 0, 2, 10, 0xff]).await, Err(ClientError::Message(_))));
    }

    #[tokio::test]
    async fn a_refused_connection_names_address_and_remedy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let line = Client::connect(&address).await.unwrap_err().to_string();
        assert!(line.contains(&address) && line.contains("`ombak serve`"), "{line}");
        let error = Client::connect("nowhere").await.unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_last_part() {
        let part = |keys: &[&'static str], done| {
            let keys = keys.iter().map(|key| key.as_bytes().into()).collect();
            Reply::ListKeys(RpbListKeysResp { keys, done })
        };
        let parts = [part(&["a", "b"], None), part(&["c"], None), part(&[], Some(true)), Reply::Ping];
        let (address, _served) = serve(vec![frames(&parts)]).await;
        let mut client = Client::connect(&address).await.unwrap();
        let request = Request::ListKeys(RpbListKeysReq { bucket: Some("b".into()), ..Default::default() });
        let mut stream = client.call_stream(&request).await.unwrap();
        let mut taken = Vec::new();
        while let Some(reply) = stream.next().await.unwrap() {
            taken.push(reply);
        }
        assert_eq!(taken, parts[..3]);
        assert_eq!(stream.next().await.unwrap(), None);
    }
}
