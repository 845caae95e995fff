//! Which partition a key lives in.

use std::num::NonZeroU32;

/// A partition's number: from 1, as requests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(NonZeroU32);

impl Partition {
    /// The partition of this number, whatever partitions there are; `None` for zero.
    pub fn of_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number, from 1.
    pub fn number(self) -> u32 {
        self.0.get()
    }

    /// The place in a list of all partitions, from 0.
    pub fn index(self) -> usize {
        (self.0.get() - 1) as usize
    }
}

/// How many partitions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(NonZeroU32);

impl Partitions {
    /// That many.
    pub fn new(count: NonZeroU32) -> Self {
        Self(count)
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.0.get()
    }

    /// The partition of this number; `None` where there is none.
    pub fn get(self, number: u32) -> Option<Partition> {
        NonZeroU32::new(number).filter(|number| *number <= self.0).map(Partition)
    }

    /// All partitions, in order.
    pub fn all(self) -> impl Iterator<Item = Partition> {
        (1..=self.count()).filter_map(NonZeroU32::new).map(Partition)
    }

    /// The partition in which every client looks for a key (`atomix.md` §4).
    pub fn home_of(self, key: &[u8]) -> Partition {
        // The remainder is below the count, so one more is at most the count and no overflow.
        let number = fnv1a_32(key) % self.0 + 1;
        Partition(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
    }
}

/// The hash by which Fowler, Noll and Vo combine bytes, of 32 bits, in its variant 1a.
pub fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(count: u32) -> Partitions {
        Partitions::new(NonZeroU32::new(count).unwrap())
    }

    #[test]
    fn hashes_are_those_of_the_specification() {
        for (key, hash) in [("foo", 0xa9f3_7ed7), ("bar", 0x76b7_7d1a), ("a", 0xe40c_292c), ("", 0x811c_9dc5)] {
            assert_eq!(fnv1a_32(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn keys_have_the_homes_of_the_specification() {
        for (key, number) in [("foo", 1), ("bar", 3), ("a", 2)] {
            assert_eq!(partitions(3).home_of(key.as_bytes()).number(), number, "{key}");
        }
        assert_eq!(partitions(1).home_of(b"anything").number(), 1);
    }

    #[test]
    fn numbers_begin_with_one() {
        let three = partitions(3);
        assert_eq!([0, 1, 3, 4].map(|number| three.get(number).map(Partition::index)), [None, Some(0), Some(2), None]);
        assert_eq!(three.all().map(Partition::number).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
