//! Conversations as they come over the wire: a stream of frames, each with a message of any kind.
//! Mutations keep to single payloads, so that the frames behind them stay frames.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use ombak::frame::{Frame, FrameCodec};
use ombak_fuzz::conversation::converse;
use ombak_fuzz::heap;
use tokio_util::codec::{Decoder, Encoder};

const FRAME_SIZE_BYTES_MAX: usize = 64 * 1024;
/// One mutation in so many goes to the stream as a whole.
const WHOLE: u32 = 4;

fuzz_target!(|input: &[u8]| heap::bounded(input.len(), || run(input)));

fn run(input: &[u8]) {
    converse(async |mut clients| {
        for frame in frames(input) {
            clients.ask(0, frame.code, frame.payload).await;
        }
    });
}

fn frames(input: &[u8]) -> Vec<Frame> {
    let mut codec = FrameCodec::new(FRAME_SIZE_BYTES_MAX);
    let mut buffer = BytesMut::from(input);
    std::iter::from_fn(|| codec.decode(&mut buffer).ok().flatten()).collect()
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut frames = frames(&data[..size]);
    if frames.is_empty() || seed.is_multiple_of(WHOLE) {
        return fuzzer_mutate(data, size, max_size);
    }
    let chosen = seed as usize / WHOLE as usize % frames.len();
    let payload = &frames[chosen].payload;
    let room = max_size.saturating_sub(size);
    let mut changed = payload.to_vec();
    changed.resize(payload.len() + room, 0);
    let changed_bytes = fuzzer_mutate(&mut changed, payload.len(), payload.len() + room);
    changed.truncate(changed_bytes);
    frames[chosen].payload = Bytes::from(changed);

    let mut codec = FrameCodec::new(FRAME_SIZE_BYTES_MAX);
    let mut written = BytesMut::new();
    for frame in frames {
        if codec.encode(frame, &mut written).is_err() {
            break;
        }
    }
    let written_bytes = written.len().min(max_size);
    data[..written_bytes].copy_from_slice(&written[..written_bytes]);
    written_bytes
});
