//! How entries lie in the commit log: together as one frame what was written together, with checksums over all of it.
//!
//! A frame begins at a multiple of its file's *unit*, so that it can be looked for where nothing says that it is there: magic,
//! checksum of the header, checksum of the entries, position of the first entry, position that was known to be on disk, number
//! of entries, their size, and the entries, each after its length. Zeros fill the last unit. Numbers are big-endian.
//!
//! A frame without entries is a *seal*: all that it says is what was on disk when it was written. Frames of the first version
//! have one checksum over all, and are no seals.

use bytes::{Buf, BufMut};
use crc32fast::Hasher;

use crate::store::{Position, StoreError};

/// The smallest unit, and that of the files of the first version.
pub(super) const UNIT_BYTES_MIN: usize = 512;

/// What a frame's header takes, at most.
pub(super) const HEADER_BYTES: usize = 4 + 4 + 4 + 8 + 8 + 4 + 4;
/// Where the part begins that the header's checksum is over.
const CHECKED_FROM: usize = 8;
const MAGIC: u32 = 0x4f6d_4c67;

const HEADER_BYTES_1: usize = 4 + 4 + 8 + 8 + 4 + 4;
const MAGIC_1: u32 = 0x4f6d_4c66;

/// How frames in a file are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As the first release with a log did it.
    First,
    Current,
}

/// What a frame may hold: sizes are spelled in four bytes, and a start has to read an entry whole.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::embedded) struct FrameLimits {
    /// The largest entry, in bytes.
    pub(in crate::store::embedded) entry_size_bytes_max: usize,
    /// All entries of one frame, in bytes.
    pub(in crate::store::embedded) size_bytes_max: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { entry_size_bytes_max: 1024 * 1024 * 1024, size_bytes_max: 2 * 1024 * 1024 * 1024 }
    }
}

impl FrameLimits {
    /// Refuses an entry that no frame takes.
    pub(in crate::store::embedded) fn check_entry(&self, size_bytes: usize) -> Result<(), StoreError> {
        let size_bytes_max = self.entry_size_bytes_max;
        if size_bytes > size_bytes_max { Err(StoreError::TooLarge { size_bytes_max }) } else { Ok(()) }
    }
}

/// Entries on their way into a frame.
#[derive(Debug)]
pub(in crate::store::embedded) struct FrameBuilder {
    bytes: Vec<u8>,
    count: u32,
    limits: FrameLimits,
    /// Large entries, each before what follows it at a place in the bytes.
    whole: Vec<(usize, Vec<u8>)>,
    whole_bytes: usize,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        Self::new(FrameLimits::default())
    }
}

impl FrameBuilder {
    /// An empty frame, which takes no more than the limits say.
    pub(in crate::store::embedded) fn new(limits: FrameLimits) -> Self {
        Self { bytes: vec![0; HEADER_BYTES], count: 0, limits, whole: Vec::new(), whole_bytes: 0 }
    }

    /// Takes in an entry, or refuses it and stays as it was.
    pub(in crate::store::embedded) fn add(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        self.begin_entry(entry.len())?;
        self.bytes.extend_from_slice(entry);
        Ok(())
    }

    /// The same for a large entry, which is not copied before the frame is finished.
    pub(in crate::store::embedded) fn add_whole(&mut self, entry: Vec<u8>) -> Result<(), StoreError> {
        self.begin_entry(entry.len())?;
        self.whole_bytes += entry.len();
        self.whole.push((self.bytes.len(), entry));
        Ok(())
    }

    /// Puts what stands before an entry, or refuses the entry.
    fn begin_entry(&mut self, entry_bytes: usize) -> Result<(), StoreError> {
        self.limits.check_entry(entry_bytes)?;
        let size_bytes_max = self.limits.size_bytes_max;
        let is_full = self.size_bytes() - HEADER_BYTES + 4 + entry_bytes > size_bytes_max;
        let length = u32::try_from(entry_bytes).ok().filter(|_| !is_full);
        let Some(length) = length else { return Err(StoreError::Crowded { size_bytes_max }) };
        self.bytes.put_u32(length);
        self.count += 1;
        Ok(())
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
            self.bytes = vec![0; HEADER_BYTES];
        }
        self.bytes.truncate(HEADER_BYTES);
        self.count = 0;
        self.whole.clear();
        self.whole_bytes = 0;
    }

    fn put_whole_in_place(&mut self, unit_bytes: usize) {
        if self.whole.is_empty() {
            return;
        }
        let mut bytes = Vec::with_capacity(self.size_bytes().next_multiple_of(unit_bytes));
        let mut done = 0;
        for (place, entry) in self.whole.drain(..) {
            bytes.extend_from_slice(&self.bytes[done..place]);
            bytes.extend_from_slice(&entry);
            done = place;
        }
        bytes.extend_from_slice(&self.bytes[done..]);
        (self.bytes, self.whole_bytes) = (bytes, 0);
    }

    /// The frame of a log: whole units.
    pub(super) fn finish(&mut self, log: u64, first: Position, synced: Position, unit_bytes: usize) -> &[u8] {
        self.put_whole_in_place(unit_bytes);
        let end = self.bytes.len();
        // No frame grows beyond `size_bytes_max`, which is less.
        let size = (end - HEADER_BYTES) as u32;
        let mut entries = hasher(log);
        entries.update(&self.bytes[HEADER_BYTES..]);
        self.bytes.resize(end.next_multiple_of(unit_bytes), 0);
        let mut header = &mut self.bytes[..HEADER_BYTES];
        header.put_u32(MAGIC);
        header.put_u32(0);
        header.put_u32(entries.finalize());
        header.put_u64(first.0);
        header.put_u64(synced.0);
        header.put_u32(self.count);
        header.put_u32(size);
        let mut checked = hasher(log);
        checked.update(&self.bytes[CHECKED_FROM..HEADER_BYTES]);
        self.bytes[4..CHECKED_FROM].copy_from_slice(&checked.finalize().to_be_bytes());
        &self.bytes
    }
}

/// The log's own name is part of every checksum, so that what another log left in the same place counts for nothing.
fn hasher(log: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&log.to_be_bytes());
    hasher
}

/// What stands before a frame's entries.
#[derive(Clone, Debug)]
pub(super) struct FrameHeader {
    /// The position of the first entry.
    pub(super) first: Position,
    /// What was on disk when the frame was written.
    pub(super) synced: Position,
    /// The number of entries; none in a seal.
    pub(super) count: u32,
    /// What the header takes, in bytes.
    pub(super) header_bytes: usize,
    /// What the entries take, in bytes.
    pub(super) entries_bytes: u32,
    /// The checksum of the entries, and how it begins.
    checksum: u32,
    hasher: Hasher,
}

impl FrameHeader {
    /// The header at the beginning of the bytes, if there is one. Of the first version it may not be sound: only the checksum
    /// of the entries says so.
    pub(super) fn decode(bytes: &[u8], log: u64, spelling: Spelling) -> Option<Self> {
        let header_bytes = match spelling {
            Spelling::First => HEADER_BYTES_1,
            Spelling::Current => HEADER_BYTES,
        };
        let mut header = bytes.get(..header_bytes)?;
        let checked = &header[CHECKED_FROM..];
        let magic = header.get_u32();
        let mut checksum = header.get_u32();
        let mut entries = hasher(log);
        match spelling {
            Spelling::First if magic == MAGIC_1 => entries.update(checked),
            Spelling::Current if magic == MAGIC => {
                let mut hasher = hasher(log);
                hasher.update(checked);
                if hasher.finalize() != checksum {
                    return None;
                }
                checksum = header.get_u32();
            }
            _ => return None,
        }
        let (first, synced) = (Position(header.get_u64()), Position(header.get_u64()));
        let (count, entries_bytes) = (header.get_u32(), header.get_u32());
        // Each entry takes four bytes at least, and there was no seal in the first version.
        if u64::from(count) * 4 > entries_bytes.into() || count == 0 && spelling == Spelling::First {
            return None;
        }
        Some(Self { first, synced, count, header_bytes, entries_bytes, checksum, hasher: entries })
    }

    /// What the frame takes without the zeros behind it, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.header_bytes as u64 + u64::from(self.entries_bytes)
    }

    /// The position of the last entry; in a seal, of the last entry before it.
    pub(super) fn last(&self) -> Position {
        Position(self.first.0.saturating_add(self.count.into()).saturating_sub(1))
    }

    /// What takes in the entries, piece by piece.
    pub(super) fn check(&self) -> EntriesCheck {
        EntriesCheck { hasher: self.hasher.clone(), expected: self.checksum }
    }
}

/// The checksum of a frame's entries, while they are read.
#[derive(Debug)]
pub(super) struct EntriesCheck {
    hasher: Hasher,
    expected: u32,
}

impl EntriesCheck {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Whether they are as they were written.
    pub(super) fn holds(self) -> bool {
        self.hasher.finalize() == self.expected
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn frame(entries: &[&[u8]]) -> Vec<u8> {
        let mut builder = FrameBuilder::default();
        entries.iter().for_each(|entry| builder.add(entry).unwrap());
        builder.finish(7, Position(10), Position(9), UNIT_BYTES_MIN).to_vec()
    }

    /// A frame as the first version spelled it.
    pub(in super::super) fn frame_of_the_first_version(
        log: u64,
        first: Position,
        synced: Position,
        entries: &[&[u8]],
    ) -> Vec<u8> {
        let mut checked = Vec::new();
        checked.put_u64(first.0);
        checked.put_u64(synced.0);
        checked.put_u32(entries.len() as u32);
        checked.put_u32(entries.iter().map(|entry| 4 + entry.len() as u32).sum());
        for entry in entries {
            checked.put_u32(entry.len() as u32);
            checked.extend_from_slice(entry);
        }
        let mut hasher = hasher(log);
        hasher.update(&checked);
        let mut frame = Vec::new();
        frame.put_u32(MAGIC_1);
        frame.put_u32(hasher.finalize());
        frame.extend_from_slice(&checked);
        frame.resize(frame.len().next_multiple_of(UNIT_BYTES_MIN), 0);
        frame
    }

    /// The header of a whole frame.
    fn decode(bytes: &[u8], log: u64, spelling: Spelling) -> Option<FrameHeader> {
        let header = FrameHeader::decode(bytes, log, spelling)?;
        let mut check = header.check();
        check.update(bytes.get(header.header_bytes..header.size_bytes() as usize)?);
        check.holds().then_some(header)
    }

    #[test]
    fn a_frame_comes_back() {
        let long = [5; 600];
        let entries: [&[u8]; 3] = [b"a", b"", &long];
        let first_version = frame_of_the_first_version(7, Position(10), Position(9), &entries);
        for (bytes, spelling) in [(frame(&entries), Spelling::Current), (first_version, Spelling::First)] {
            assert_eq!(bytes.len(), 2 * UNIT_BYTES_MIN);
            let found = decode(&bytes, 7, spelling).unwrap();
            assert_eq!((found.first, found.last(), found.synced), (Position(10), Position(12), Position(9)));
            assert_eq!(found.entries_bytes, 3 * 4 + 601);
        }
    }

    #[test]
    fn entries_that_are_handed_over_stand_in_their_order() {
        let large = vec![7; 2000];
        let copied = frame(&[b"a", &large, b"b", &large, &large]);
        let mut builder = FrameBuilder::default();
        for entry in [&b"a"[..], &large, b"b", &large, &large] {
            match entry.len() {
                ..=1 => builder.add(entry).unwrap(),
                _ => builder.add_whole(entry.to_vec()).unwrap(),
            }
        }
        assert_eq!(builder.size_bytes(), HEADER_BYTES + 5 * 4 + 2 + 3 * large.len());
        assert_eq!(builder.finish(7, Position(10), Position(9), UNIT_BYTES_MIN), copied);
        builder.clear(1 << 20);
        assert_eq!((builder.count(), builder.size_bytes()), (0, HEADER_BYTES));
    }

    #[test]
    fn a_frame_that_is_not_whole_is_none() {
        let entries: [&[u8]; 2] = [b"abc", b"def"];
        let first_version = frame_of_the_first_version(7, Position(10), Position(9), &entries);
        for (bytes, spelling, header_bytes) in
            [(frame(&entries), Spelling::Current, HEADER_BYTES), (first_version, Spelling::First, HEADER_BYTES_1)]
        {
            let size = header_bytes + 4 + 3 + 4 + 3;
            for end in 0..size {
                assert!(decode(&bytes[..end], 7, spelling).is_none(), "cut at {end}");
            }
            for at in 0..size {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(decode(&changed, 7, spelling).is_none(), "changed at {at}");
            }
            assert!(decode(&bytes, 8, spelling).is_none(), "of another log");
            assert!(decode(&[0; UNIT_BYTES_MIN], 7, spelling).is_none());
        }
    }

    #[test]
    fn a_seal_has_no_entries() {
        let seal = decode(&frame(&[]), 7, Spelling::Current).unwrap();
        assert_eq!((seal.count, seal.last(), seal.synced), (0, Position(9), Position(9)));
    }

    #[test]
    fn a_frame_fills_units_of_its_file() {
        for (unit_bytes, payload_bytes, expected) in
            [(512, 1, 512), (4096, 1, 4096), (4096, 4096 - HEADER_BYTES - 4, 4096), (4096, 4096, 8192)]
        {
            let mut builder = FrameBuilder::default();
            builder.add(&vec![1; payload_bytes]).unwrap();
            assert_eq!(builder.finish(1, Position(1), Position(0), unit_bytes).len(), expected);
        }
    }

    #[test]
    fn a_builder_begins_anew() {
        let mut builder = FrameBuilder::default();
        builder.add(b"first").unwrap();
        builder.finish(1, Position(1), Position(0), UNIT_BYTES_MIN);
        builder.clear(4096);
        assert_eq!(builder.count(), 0);
        builder.add(b"second").unwrap();
        let bytes = builder.finish(1, Position(2), Position(1), UNIT_BYTES_MIN);
        let found = decode(bytes, 1, Spelling::Current).unwrap();
        assert_eq!((found.first, found.count), (Position(2), 1));
        assert_eq!(&bytes[HEADER_BYTES..][4..10], b"second");
    }

    #[test]
    fn what_is_too_large_is_refused_and_changes_nothing() {
        let limits = FrameLimits { entry_size_bytes_max: 10, size_bytes_max: 30 };
        let mut builder = FrameBuilder::new(limits);
        assert_eq!(builder.add(&[0; 11]), Err(StoreError::TooLarge { size_bytes_max: 10 }));
        builder.add(&[1; 10]).unwrap();
        builder.add(&[2; 10]).unwrap();
        let before = (builder.count(), builder.size_bytes());
        assert_eq!(builder.add(&[3; 1]), Err(StoreError::Crowded { size_bytes_max: 30 }));
        assert_eq!(builder.add_whole(vec![3; 1]), Err(StoreError::Crowded { size_bytes_max: 30 }));
        assert_eq!((builder.count(), builder.size_bytes()), before);
        for add in [FrameBuilder::add_whole, |builder: &mut FrameBuilder, entry: Vec<u8>| builder.add(&entry)] {
            builder.clear(4096);
            assert_eq!(add(&mut builder, vec![0; 11]), Err(StoreError::TooLarge { size_bytes_max: 10 }));
            add(&mut builder, vec![1; 10]).unwrap();
            builder.add_whole(vec![2; 10]).unwrap();
            assert_eq!(add(&mut builder, vec![3; 1]), Err(StoreError::Crowded { size_bytes_max: 30 }));
            assert_eq!((builder.count(), builder.size_bytes()), before);
        }
        assert!(FrameLimits::default().size_bytes_max <= u32::MAX as usize);
    }
}
