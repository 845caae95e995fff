//! Cuts a byte stream into frames and back: a length of 4 bytes (big-endian), a code of one byte, a payload.
//! Knows the limit on a frame's length, and that the length counts the code but not itself.
//! Must not know messages, sockets, or what any code means.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use tokio_util::codec::{Decoder, Encoder};

const LENGTH_BYTES: usize = 4;
const CODE_BYTES: usize = 1;
/// What stands before a payload: the length and the code.
pub const HEADER_BYTES: usize = LENGTH_BYTES + CODE_BYTES;

/// How far ahead of the bytes received the buffer is grown.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// One message as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Names the message.
    pub code: u8,
    /// The encoded message; empty when it has no fields. When received, a slice of the read buffer: a payload that
    /// is kept for long keeps that buffer's memory.
    pub payload: Bytes,
}

/// The bytes in front of a payload: a large one is then written from where it is, and not copied behind them.
///
/// # Errors
/// [`FrameError::TooLarge`] when the payload's length does not fit the 4 bytes that announce it.
pub fn header(code: u8, payload_bytes: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    let length = CODE_BYTES + payload_bytes;
    let announced = u32::try_from(length)
        .map_err(|_| FrameError::TooLarge { length_bytes: length, max_bytes: u32::MAX as usize })?;
    let [a, b, c, d] = announced.to_be_bytes();
    Ok([a, b, c, d, code])
}

/// Why a byte stream is no sequence of frames, or could not be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// A frame without a code. Riak closes the connection without an answer.
    #[error("a frame of length 0 has no code")]
    ZeroLength,
    /// A frame longer than accepted. Nothing of it was buffered beyond what had arrived with its length.
    #[error("a frame of {length_bytes} bytes is longer than the {max_bytes} accepted")]
    TooLarge {
        /// The length announced, code included.
        length_bytes: usize,
        /// The greatest length accepted, code included.
        max_bytes: usize,
    },
    /// The stream under the frames failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Decodes and encodes frames. After an error the stream has no frame boundaries any more: close it.
#[derive(Clone, Debug)]
pub struct FrameCodec {
    frame_size_bytes_max: usize,
}

impl FrameCodec {
    /// A codec that accepts frames up to this length: code and payload, without the 4 bytes of the length itself.
    /// What is sent is limited by the format only.
    pub fn new(frame_size_bytes_max: usize) -> Self {
        Self { frame_size_bytes_max }
    }

    /// The length that the frame at the buffer's beginning announces, if that much of it is there.
    pub fn announced_bytes(buffer: &[u8]) -> Option<usize> {
        buffer.first_chunk::<LENGTH_BYTES>().map(|announced| u32::from_be_bytes(*announced) as usize)
    }
}

/// A frame where it lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeekedFrame<'a> {
    /// Names the message.
    pub code: u8,
    /// The encoded message.
    pub payload: &'a [u8],
}

impl PeekedFrame<'_> {
    /// What the frame takes of the buffer.
    pub fn size_bytes(&self) -> usize {
        LENGTH_BYTES + CODE_BYTES + self.payload.len()
    }
}

impl FrameCodec {
    /// The frame that the buffer begins with, for who only looks at it: nothing is consumed, and no handle on the buffer
    /// made. None when it has not arrived whole.
    ///
    /// # Errors
    /// As decoding it.
    pub fn peek<'a>(&self, buffer: &'a [u8]) -> Result<Option<PeekedFrame<'a>>, FrameError> {
        let Some(length_bytes) = self.announced(buffer)? else {
            return Ok(None);
        };
        let frame = buffer[LENGTH_BYTES..].get(..length_bytes);
        Ok(frame.and_then(<[u8]>::split_first).map(|(&code, payload)| PeekedFrame { code, payload }))
    }

    /// The same where it may be accepted.
    fn announced(&self, buffer: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(length_bytes) = Self::announced_bytes(buffer) else {
            return Ok(None);
        };
        if length_bytes == 0 {
            return Err(FrameError::ZeroLength);
        }
        if length_bytes > self.frame_size_bytes_max {
            return Err(FrameError::TooLarge { length_bytes, max_bytes: self.frame_size_bytes_max });
        }
        Ok(Some(length_bytes))
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length_bytes) = self.announced(buffer)? else {
            return Ok(None);
        };
        let received_bytes = buffer.len() - LENGTH_BYTES;
        let missing_bytes = length_bytes.saturating_sub(received_bytes);
        if missing_bytes > 0 {
            // A header alone must not cost the whole frame's memory, so the buffer follows what has really arrived.
            // It grows by doubling, which keeps the copying linear in the frame's length.
            buffer.reserve(missing_bytes.min(READ_AHEAD_BYTES));
            return Ok(None);
        }
        buffer.advance(LENGTH_BYTES);
        let mut payload = buffer.split_to(length_bytes).freeze();
        let code = payload.get_u8();
        Ok(Some(Frame { code, payload }))
    }

    /// A peer that leaves in the middle of a frame is no error: what it sent of the frame is discarded, as Riak does.
    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let frame = self.decode(buffer)?;
        if frame.is_none() {
            buffer.clear();
        }
        Ok(frame)
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    /// Copies the payload once, into a buffer that grows at most once.
    fn encode(&mut self, frame: Frame, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let header = header(frame.code, frame.payload.len())?;
        buffer.reserve(header.len() + frame.payload.len());
        buffer.put_slice(&header);
        buffer.put_slice(&frame.payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1024;

    /// Peeks at each frame as well.
    fn decode_all(bytes: &[u8]) -> Vec<Frame> {
        let mut codec = FrameCodec::new(MAX);
        let mut buffer = BytesMut::from(bytes);
        let mut frames = Vec::new();
        loop {
            let before = buffer.len();
            let peeked = codec.peek(&buffer).expect("well formed");
            let peeked = peeked.map(|peeked| (peeked.code, peeked.payload.to_vec(), peeked.size_bytes()));
            let decoded = codec.decode(&mut buffer).expect("well formed");
            let taken = before - buffer.len();
            assert_eq!(peeked, decoded.as_ref().map(|frame| (frame.code, frame.payload.to_vec(), taken)));
            let Some(frame) = decoded else { break };
            frames.push(frame);
        }
        assert!(buffer.is_empty(), "every byte belongs to a frame");
        frames
    }

    fn encode(frame: Frame) -> BytesMut {
        let mut buffer = BytesMut::new();
        FrameCodec::new(MAX).encode(frame, &mut buffer).expect("encodes");
        buffer
    }

    fn frame(code: u8, payload: &'static [u8]) -> Frame {
        Frame { code, payload: Bytes::from_static(payload) }
    }

    #[test]
    fn length_counts_the_code() {
        assert_eq!(encode(frame(1, b"")).as_ref(), [0, 0, 0, 1, 1]);
        assert_eq!(encode(frame(9, b"abc")).as_ref(), [0, 0, 0, 4, 9, b'a', b'b', b'c']);
    }

    #[test]
    fn frames_in_one_read_come_out_one_by_one() {
        let bytes = [0, 0, 0, 1, 1, 0, 0, 0, 3, 5, b'x', b'y', 0, 0, 0, 1, 7];
        assert_eq!(decode_all(&bytes), [frame(1, b""), frame(5, b"xy"), frame(7, b"")]);
    }

    #[test]
    fn a_cut_frame_waits_and_is_discarded_at_the_end() {
        let whole = encode(frame(11, b"payload"));
        for cut in 0..whole.len() {
            let mut codec = FrameCodec::new(MAX);
            let mut buffer = BytesMut::from(&whole[..cut]);
            assert!(matches!(codec.peek(&buffer), Ok(None)), "cut at {cut}");
            assert!(matches!(codec.decode(&mut buffer), Ok(None)), "cut at {cut}");
            assert_eq!(buffer.as_ref(), &whole[..cut], "nothing is consumed early");

            let mut ended = buffer.clone();
            assert!(matches!(codec.decode_eof(&mut ended), Ok(None)));
            assert!(ended.is_empty());

            buffer.extend_from_slice(&whole[cut..]);
            assert_eq!(codec.decode(&mut buffer).expect("whole now"), Some(frame(11, b"payload")));
        }
    }

    #[test]
    fn whole_frames_before_a_cut_one_survive_the_end() {
        let mut codec = FrameCodec::new(MAX);
        let mut buffer = BytesMut::from(&[0, 0, 0, 1, 1, 0, 0][..]);
        assert!(matches!(codec.decode_eof(&mut buffer), Ok(Some(_))));
        assert!(matches!(codec.decode_eof(&mut buffer), Ok(None)));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_byte_at_a_time() {
        let mut codec = FrameCodec::new(MAX);
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in [0, 0, 0, 2, 1, 9, 0, 0, 0, 1, 3] {
            buffer.put_u8(byte);
            frames.extend(codec.decode(&mut buffer).expect("well formed"));
        }
        assert_eq!(frames, [frame(1, &[9]), frame(3, b"")]);
    }

    #[test]
    fn length_zero_is_an_error() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 0][..]);
        let result = FrameCodec::new(MAX).decode(&mut buffer);
        assert!(matches!(result, Err(FrameError::ZeroLength)));
    }

    #[test]
    fn lengths_around_the_limit() {
        for (length, accepted) in
            [(MAX as u32, true), (MAX as u32 + 1, false), (0x7fff_fffc, false), (0x8000_0000, false), (u32::MAX, false)]
        {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            let capacity_before = buffer.capacity();
            match FrameCodec::new(MAX).decode(&mut buffer) {
                Ok(None) => assert!(accepted, "length {length}"),
                Err(FrameError::TooLarge { length_bytes, max_bytes }) => {
                    assert!(!accepted, "length {length}");
                    assert_eq!((length_bytes, max_bytes), (length as usize, MAX));
                    assert_eq!(buffer.capacity(), capacity_before, "nothing is allocated");
                }
                other => panic!("length {length}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_header_alone_reserves_little() {
        let mut codec = FrameCodec::new(u32::MAX as usize);
        let mut buffer = BytesMut::from(&0x7000_0000_u32.to_be_bytes()[..]);
        assert!(matches!(codec.decode(&mut buffer), Ok(None)));
        assert!(buffer.capacity() <= 2 * READ_AHEAD_BYTES);
    }

    #[test]
    fn a_payload_is_a_slice_of_the_buffer() {
        let mut buffer = encode(frame(9, b"abc"));
        let address = buffer[LENGTH_BYTES + CODE_BYTES..].as_ptr();
        let decoded = FrameCodec::new(MAX).decode(&mut buffer).expect("whole");
        assert_eq!(decoded.expect("a frame").payload.as_ptr(), address);
    }
}
