//! Many requests on one connection without waiting for each: replies come in the order of the requests.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Client, ClientError};
use crate::message::Reply;
use crate::message::code::Code;

/// Room that is made for what arrives next.
const READ_BYTES: usize = 16 * 1024;

/// A connection with requests in flight. Only such as have one reply each.
#[derive(Debug)]
pub struct Pipeline {
    client: Client,
    unsent: Vec<u8>,
    queued: VecDeque<Queued>,
    in_flight: usize,
}

/// Requests that count since one moment and whose replies are awaited.
#[derive(Debug)]
struct Queued {
    since: Instant,
    count: u64,
}

/// Replies to requests that count since one moment.
#[derive(Debug)]
pub struct Received {
    /// Since the moment that their requests count from.
    pub latency: Duration,
    /// How many there are.
    pub replies: u64,
    /// The server's words, if it refused. Such a reply comes alone.
    pub refused: Option<String>,
}

impl Pipeline {
    /// Takes over a connection.
    pub fn new(client: Client) -> Self {
        Self { client, unsent: Vec::new(), queued: VecDeque::new(), in_flight: 0 }
    }

    /// Requests whose replies are awaited.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Puts a request behind those that are queued: `write` appends its bytes, which [`encode_request`] tells. It is sent by
    /// the next [`flush`](Self::flush). Its latency counts since a moment.
    ///
    /// [`encode_request`]: super::encode_request
    pub fn queue(&mut self, since: Instant, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.unsent);
        self.in_flight += 1;
        match self.queued.back_mut() {
            Some(last) if last.since == since => last.count += 1,
            _ => self.queued.push_back(Queued { since, count: 1 }),
        }
    }

    /// Sends what is queued.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        let sent = self.client.stream.write_all(&self.unsent).await;
        self.unsent.clear();
        sent.map_err(|cause| self.client.broken(cause))
    }

    /// The next replies that have arrived, without waiting.
    pub fn take_received(&mut self, now: Instant) -> Result<Option<Received>, ClientError> {
        let Some(queued) = self.queued.front_mut() else { return Ok(None) };
        let latency = now - queued.since;
        let mut replies = 0;
        let mut refused = None;
        while replies < queued.count && refused.is_none() {
            let peeked = self.client.codec.peek(&self.client.received);
            let Some(frame) = peeked.map_err(ClientError::Frame)? else { break };
            if frame.code == Code::RpbErrorResp.number() {
                if replies > 0 {
                    break;
                }
                refused = match Reply::decode(frame.code, Bytes::copy_from_slice(frame.payload))? {
                    Reply::Error(error) => Some(String::from_utf8_lossy(&error.errmsg).into_owned()),
                    _ => None,
                };
            }
            let size_bytes = frame.size_bytes();
            self.client.received.advance(size_bytes);
            replies += 1;
        }
        queued.count -= replies;
        if queued.count == 0 {
            self.queued.pop_front();
        }
        // At most as many as were queued.
        self.in_flight -= replies as usize;
        Ok((replies > 0).then_some(Received { latency, replies, refused }))
    }

    /// Waits for more bytes.
    pub async fn wait(&mut self) -> Result<(), ClientError> {
        self.client.received.reserve(READ_BYTES);
        let read = self.client.stream.read_buf(&mut self.client.received).await;
        if read.map_err(|cause| self.client.broken(cause))? == 0 {
            return Err(ClientError::Closed { address: self.client.address.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode_request;
    use super::super::test_server::{Request, serve};
    use super::*;

    #[tokio::test]
    async fn replies_are_taken_in_order_and_refusals_told() {
        let ping = vec![0, 0, 0, 1, 2];
        let error = vec![0, 0, 0, 6, 0, 0x0a, 1, b'x', 0x10, 0];
        let (address, served) = serve(vec![ping.clone(), error, [ping.clone(), ping].concat()]).await;
        let mut pipeline = Pipeline::new(Client::connect(&address).await.unwrap());
        let request = encode_request(&Request::Ping).unwrap();
        let start = Instant::now();
        let moments = [0, 0, 0, 5].map(|ms| start + Duration::from_millis(ms));
        for moment in moments {
            pipeline.queue(moment, |unsent| unsent.extend_from_slice(&request));
        }
        assert_eq!(pipeline.in_flight(), 4);
        pipeline.flush().await.unwrap();
        // The server stops after three requests, the last of which it answers twice.
        while pipeline.client.received.len() < 25 {
            pipeline.wait().await.unwrap();
        }
        let mut received = Vec::new();
        while let Some(Received { latency, replies, refused }) = pipeline.take_received(moments[3]).unwrap() {
            received.push((latency.as_millis(), replies, refused));
        }
        assert_eq!(received, [(5, 1, None), (5, 1, Some("x".to_owned())), (5, 1, None), (0, 1, None)]);
        assert_eq!(pipeline.in_flight(), 0);
        assert_eq!(served.await.unwrap().len(), 3);
    }
}
