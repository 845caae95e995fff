//! How entries lie in the commit log: together as one frame what was written together, with a checksum over all of it.
//!
//! A frame begins at a multiple of [`BLOCK_BYTES`], so that it can be looked for where nothing says that it is there: magic, checksum,
//! position of the first entry, position that was known to be on disk, number of entries, their size, and the entries, each
//! after its length. Zeros fill the last block. Numbers are big-endian.

use bytes::{Buf, BufMut, Bytes};

use crate::store::{Position, StoreError};

/// Frames begin at multiples of this: no disk writes a smaller piece, so no frame is harmed by the writing of the next.
pub(super) const BLOCK_BYTES: usize = 512;

const MAGIC: u32 = 0x4f6d_4c66;
const HEADER_BYTES: usize = 4 + 4 + 8 + 8 + 4 + 4;
/// Where the checksummed part begins.
const CHECKED_FROM: usize = 8;

/// Entries on their way into a frame.
#[derive(Debug)]
pub(in crate::store::embedded) struct FrameBuilder {
    bytes: Vec<u8>,
    count: u32,
    /// Large entries, each before what follows it at a place in the bytes.
    whole: Vec<(usize, Vec<u8>)>,
    whole_bytes: usize,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        Self { bytes: vec![0; HEADER_BYTES], count: 0, whole: Vec::new(), whole_bytes: 0 }
    }
}

impl FrameBuilder {
    /// Takes in an entry, which `encode` appends.
    pub(in crate::store::embedded) fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.put_u32(0);
        encode(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start - 4).expect("entries are bounded by the frame size");
        self.bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
        self.count += 1;
    }

    /// Takes in a large entry, which is not copied before the frame is finished.
    pub(in crate::store::embedded) fn add_whole(&mut self, entry: Vec<u8>) {
        let length = u32::try_from(entry.len()).expect("entries are bounded by the frame size");
        self.bytes.put_u32(length);
        self.whole_bytes += entry.len();
        self.whole.push((self.bytes.len(), entry));
        self.count += 1;
    }

    pub(in crate::store::embedded) fn count(&self) -> u32 {
        self.count
    }

    pub(in crate::store::embedded) fn size_bytes(&self) -> usize {
        self.bytes.len() + self.whole_bytes
    }

    /// Makes room for the next frame's entries. A buffer that has grown beyond `kept_bytes_max` is given back.
    pub(in crate::store::embedded) fn clear(&mut self, kept_bytes_max: usize) {
        if self.bytes.capacity() > kept_bytes_max {
            *self = Self::default();
        }
        self.bytes.truncate(HEADER_BYTES);
        self.count = 0;
        self.whole.clear();
        self.whole_bytes = 0;
    }

    fn put_whole_in_place(&mut self) {
        if self.whole.is_empty() {
            return;
        }
        let mut bytes = Vec::with_capacity(self.size_bytes().next_multiple_of(BLOCK_BYTES));
        let mut done = 0;
        for (place, entry) in self.whole.drain(..) {
            bytes.extend_from_slice(&self.bytes[done..place]);
            bytes.extend_from_slice(&entry);
            done = place;
        }
        bytes.extend_from_slice(&self.bytes[done..]);
        (self.bytes, self.whole_bytes) = (bytes, 0);
    }

    /// The frame of a log: whole blocks.
    pub(super) fn finish(&mut self, log: u64, first: Position, synced: Position) -> &[u8] {
        self.put_whole_in_place();
        let size = u32::try_from(self.bytes.len() - HEADER_BYTES).expect("a frame ends when it is large");
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        let mut header = &mut self.bytes[..HEADER_BYTES];
        header.put_u32(MAGIC);
        header.put_u32(0);
        header.put_u64(first.0);
        header.put_u64(synced.0);
        header.put_u32(self.count);
        header.put_u32(size);
        let checksum = checksum(log, &self.bytes[CHECKED_FROM..HEADER_BYTES + size as usize]);
        self.bytes[4..8].copy_from_slice(&checksum.to_be_bytes());
        &self.bytes
    }
}

/// The log's own name is part of it, so that what another log left in the same place counts for nothing.
fn checksum(log: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&log.to_be_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// A frame that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) first: Position,
    /// What was on disk when the frame was written.
    pub(super) synced: Position,
    pub(super) count: u32,
    pub(super) entries: Bytes,
}

impl Frame {
    /// The frame at the beginning of the bytes, if there is a whole one.
    pub(super) fn decode(bytes: &Bytes, log: u64) -> Option<Self> {
        let mut header = bytes.get(..HEADER_BYTES)?;
        if header.get_u32() != MAGIC {
            return None;
        }
        let expected = header.get_u32();
        let (first, synced) = (Position(header.get_u64()), Position(header.get_u64()));
        let (count, size) = (header.get_u32(), header.get_u32() as usize);
        let end = HEADER_BYTES.checked_add(size).filter(|end| *end <= bytes.len())?;
        if checksum(log, &bytes[CHECKED_FROM..end]) != expected || count == 0 {
            return None;
        }
        Some(Self { first, synced, count, entries: bytes.slice(HEADER_BYTES..end) })
    }

    /// The position of the last entry.
    pub(super) fn last(&self) -> Position {
        Position(self.first.0.saturating_add(u64::from(self.count) - 1))
    }

    /// Blocks that the frame takes.
    pub(super) fn blocks(&self) -> usize {
        (HEADER_BYTES + self.entries.len()).div_ceil(BLOCK_BYTES)
    }

    /// The entries with their positions.
    pub(super) fn entries(&self) -> Result<Vec<(Position, Bytes)>, StoreError> {
        let damaged = StoreError::Damaged { what: "log frame" };
        let mut rest = self.entries.clone();
        let mut entries = Vec::new();
        for position in self.first.0..=self.last().0 {
            let length = rest.try_get_u32().map_err(|_| damaged.clone())? as usize;
            if length > rest.len() {
                return Err(damaged);
            }
            entries.push((Position(position), rest.split_to(length)));
        }
        if rest.is_empty() { Ok(entries) } else { Err(damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(entries: &[&[u8]]) -> Bytes {
        let mut builder = FrameBuilder::default();
        entries.iter().for_each(|entry| builder.add(|out| out.extend_from_slice(entry)));
        Bytes::copy_from_slice(builder.finish(7, Position(10), Position(9)))
    }

    #[test]
    fn a_frame_comes_back_with_its_entries() {
        let long = [5; 600];
        let bytes = frame(&[b"a", b"", &long]);
        assert_eq!(bytes.len(), 2 * BLOCK_BYTES);
        let found = Frame::decode(&bytes, 7).unwrap();
        assert_eq!(
            (found.first, found.last(), found.synced, found.blocks()),
            (Position(10), Position(12), Position(9), 2)
        );
        let entries = found.entries().unwrap();
        let expected =
            [(10, &b"a"[..]), (11, b""), (12, &long)].map(|(at, entry)| (Position(at), Bytes::from(entry.to_vec())));
        assert_eq!(entries, expected);
    }

    #[test]
    fn entries_that_are_handed_over_stand_in_their_order() {
        let large = vec![7; 2000];
        let copied = frame(&[b"a", &large, b"b", &large, &large]);
        let mut builder = FrameBuilder::default();
        for entry in [&b"a"[..], &large, b"b", &large, &large] {
            match entry.len() {
                ..=1 => builder.add(|out| out.extend_from_slice(entry)),
                _ => builder.add_whole(entry.to_vec()),
            }
        }
        assert_eq!(builder.size_bytes(), HEADER_BYTES + 5 * 4 + 2 + 3 * large.len());
        assert_eq!(builder.finish(7, Position(10), Position(9)), copied);
        builder.clear(1 << 20);
        assert_eq!((builder.count(), builder.size_bytes()), (0, HEADER_BYTES));
    }

    #[test]
    fn a_frame_that_is_not_whole_is_none() {
        let bytes = frame(&[b"abc", b"def"]);
        let size = HEADER_BYTES + 4 + 3 + 4 + 3;
        for end in 0..size {
            assert_eq!(Frame::decode(&bytes.slice(..end), 7), None, "cut at {end}");
        }
        for at in 0..size {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert_eq!(Frame::decode(&changed.into(), 7), None, "changed at {at}");
        }
        assert_eq!(Frame::decode(&bytes, 8), None, "of another log");
        assert_eq!(Frame::decode(&vec![0; BLOCK_BYTES].into(), 7), None);
    }

    #[test]
    fn a_builder_begins_anew() {
        let mut builder = FrameBuilder::default();
        builder.add(|out| out.extend_from_slice(b"first"));
        builder.finish(1, Position(1), Position(0));
        builder.clear(4096);
        assert_eq!(builder.count(), 0);
        builder.add(|out| out.extend_from_slice(b"second"));
        let frame = Frame::decode(&Bytes::copy_from_slice(builder.finish(1, Position(2), Position(1))), 1).unwrap();
        assert_eq!(frame.entries().unwrap(), [(Position(2), Bytes::from_static(b"second"))]);
    }
}
