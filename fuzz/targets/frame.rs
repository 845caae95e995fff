//! A stream of bytes is cut into the same frames however it arrives, and they are its bytes.
#![no_main]

use arbitrary::Arbitrary;
use bytes::{BufMut, BytesMut};
use libfuzzer_sys::fuzz_target;
use ombak::frame::{Frame, FrameCodec, FrameError};
use ombak_fuzz::heap;
use tokio_util::codec::{Decoder, Encoder};

#[derive(Arbitrary, Debug)]
struct Stream {
    frame_size_bytes_max: u16,
    /// How much arrives at a time; after the last, all the rest.
    arrivals: Vec<u8>,
    bytes: Vec<u8>,
}

/// What the codec never reserves beyond what has arrived and its doubling.
const RESERVED_BYTES_MAX: usize = 128 * 1024;

fuzz_target!(|stream: Stream| {
    heap::bounded(stream.bytes.len() + stream.arrivals.len(), || run(&stream));
});

fn run(stream: &Stream) {
    let at_once = read(stream, &[]);
    assert_eq!(at_once, read(stream, &stream.arrivals));

    let (frames, end) = at_once;
    let mut codec = FrameCodec::new(0);
    let mut written = BytesMut::new();
    for frame in frames {
        codec.encode(frame, &mut written).expect("every payload that was received fits a frame");
    }
    let read_bytes = written.len();
    assert_eq!(written, stream.bytes[..read_bytes]);
    if end == End::Waiting {
        assert!(stream.bytes.len() - read_bytes < 4 + usize::from(stream.frame_size_bytes_max).max(1));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Waiting,
    ZeroLength,
    TooLarge(usize),
}

fn read(stream: &Stream, arrivals: &[u8]) -> (Vec<Frame>, End) {
    let mut codec = FrameCodec::new(stream.frame_size_bytes_max.into());
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut rest = &stream.bytes[..];
    let mut arrivals = arrivals.iter();
    while !rest.is_empty() {
        let count = arrivals.next().map_or(rest.len(), |count| usize::from(*count).min(rest.len()));
        let (arrived, later) = rest.split_at(count);
        buffer.put_slice(arrived);
        rest = later;
        loop {
            let peeked = codec.peek(&buffer).ok().flatten().map(|frame| (frame.code, frame.payload.to_vec()));
            let decoded = codec.decode(&mut buffer);
            let taken = decoded.as_ref().ok().and_then(Option::as_ref);
            assert_eq!(peeked, taken.map(|frame| (frame.code, frame.payload.to_vec())));
            match decoded {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(FrameError::ZeroLength) => return (frames, End::ZeroLength),
                Err(FrameError::TooLarge { length_bytes, .. }) => return (frames, End::TooLarge(length_bytes)),
                Err(FrameError::Io(error)) => panic!("there is no stream that could fail: {error}"),
            }
        }
        assert!(buffer.capacity() <= 2 * stream.bytes.len() + RESERVED_BYTES_MAX);
    }
    (frames, End::Waiting)
}
