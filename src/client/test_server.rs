//! A server for tests that says what it was told to say.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::codec::Encoder;

use crate::frame::{Frame, FrameCodec};

pub(crate) use crate::message::generated::*;
pub(crate) use crate::message::{Reply, Request};

/// Answers each request of one connection with the next of these bytes, then closes. Ends with the requests.
pub(crate) async fn serve(answers: Vec<Vec<u8>>) -> (String, JoinHandle<Vec<Request>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for answer in answers {
            let length = stream.read_u32().await.unwrap() as usize;
            let mut request = vec![0; length];
            stream.read_exact(&mut request).await.unwrap();
            requests.push(Request::decode(request[0], Bytes::from(request).slice(1..)).unwrap());
            stream.write_all(&answer).await.unwrap();
        }
        requests
    });
    (address, served)
}

/// The bytes of replies.
pub(crate) fn frames(replies: &[Reply]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for reply in replies {
        let frame = Frame { code: reply.code().number(), payload: reply.encode() };
        FrameCodec::new(usize::MAX).encode(frame, &mut bytes).unwrap();
    }
    bytes.to_vec()
}
