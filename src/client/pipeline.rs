//! Many requests on one connection without waiting for each: replies come in the order of the requests.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder};

use super::{Client, ClientError};
use crate::frame::Frame;
use crate::message::code::Code;
use crate::message::{Reply, Request};

/// A connection with requests in flight. Only such as have one reply each.
#[derive(Debug)]
pub struct Pipeline {
    client: Client,
    unsent: BytesMut,
    /// When the requests were queued whose replies are awaited.
    queued: VecDeque<Instant>,
}

/// What is told of a reply.
#[derive(Debug)]
pub struct Received {
    /// Since its request was queued.
    pub latency: Duration,
    /// The server's words, if it refused.
    pub refused: Option<String>,
}

impl Pipeline {
    /// Takes over a connection.
    pub fn new(client: Client) -> Self {
        Self { client, unsent: BytesMut::new(), queued: VecDeque::new() }
    }

    /// Requests whose replies are awaited.
    pub fn in_flight(&self) -> usize {
        self.queued.len()
    }

    /// Puts a request behind those that are queued. It is sent by the next [`flush`](Self::flush).
    pub fn queue(&mut self, request: &Request) -> Result<(), ClientError> {
        let frame = Frame { code: request.code().number(), payload: request.encode() };
        self.client.codec.encode(frame, &mut self.unsent).map_err(|error| self.client.frame_error(error))?;
        self.queued.push_back(Instant::now());
        Ok(())
    }

    /// Sends what is queued.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        let sent = self.client.stream.write_all(&self.unsent).await;
        self.unsent.clear();
        sent.map_err(|cause| self.client.broken(cause))
    }

    /// The next reply that has arrived, without waiting.
    pub fn take_received(&mut self) -> Result<Option<Received>, ClientError> {
        let decoded = self.client.codec.decode(&mut self.client.received);
        let Some(frame) = decoded.map_err(|error| self.client.frame_error(error))? else { return Ok(None) };
        let latency = self.queued.pop_front().map(|queued| queued.elapsed()).unwrap_or_default();
        let refused = match Code::from_number(frame.code) {
            Some(Code::RpbErrorResp) => match Reply::decode(frame.code, frame.payload)? {
                Reply::Error(error) => Some(String::from_utf8_lossy(&error.errmsg).into_owned()),
                _ => None,
            },
            _ => None,
        };
        Ok(Some(Received { latency, refused }))
    }

    /// Waits for more bytes.
    pub async fn wait(&mut self) -> Result<(), ClientError> {
        let read = self.client.stream.read_buf(&mut self.client.received).await;
        if read.map_err(|cause| self.client.broken(cause))? == 0 {
            return Err(ClientError::Closed { address: self.client.address.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_server::serve;
    use super::*;

    #[tokio::test]
    async fn replies_are_taken_in_order_and_refusals_told() {
        let ping = vec![0, 0, 0, 1, 2];
        let error = vec![0, 0, 0, 6, 0, 0x0a, 1, b'x', 0x10, 0];
        let (address, served) = serve(vec![ping, error]).await;
        let mut pipeline = Pipeline::new(Client::connect(&address).await.unwrap());
        pipeline.queue(&Request::Ping).unwrap();
        pipeline.queue(&Request::Ping).unwrap();
        assert_eq!(pipeline.in_flight(), 2);
        pipeline.flush().await.unwrap();
        let mut received = Vec::new();
        while received.len() < 2 {
            match pipeline.take_received().unwrap() {
                Some(reply) => received.push(reply.refused),
                None => pipeline.wait().await.unwrap(),
            }
        }
        assert_eq!(received, [None, Some("x".to_owned())]);
        assert_eq!(pipeline.in_flight(), 0);
        assert_eq!(served.await.unwrap().len(), 2);
    }
}
