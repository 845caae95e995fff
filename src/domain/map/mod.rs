//! The partitioned map of Atomix: names, entries, version conditions, the rule by which a backup takes in entries, and the
//! numbers of a partition. It shares the store with objects and nothing else.

mod numbers;
mod partition;

use bytes::Bytes;
use thiserror::Error;

pub use numbers::Numbers;
pub use partition::{Partition, Partitions, fnv1a_32};

/// A map's name: four texts, none of which means anything here. Maps are told apart by all four, never by a joined form
/// (`atomix.md` §4).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapName {
    /// Namespace of the protocol, which names a group of partitions.
    pub protocol_namespace: Bytes,
    /// Name of the protocol.
    pub protocol_name: Bytes,
    /// Namespace of the primitive: the scope of an application.
    pub primitive_namespace: Bytes,
    /// Name of the primitive.
    pub primitive_name: Bytes,
}

impl MapName {
    /// The four parts, in the order in which maps are sorted.
    pub fn parts(&self) -> [&Bytes; 4] {
        [&self.protocol_namespace, &self.protocol_name, &self.primitive_namespace, &self.primitive_name]
    }
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapKey {
    /// The map.
    pub map: MapName,
    /// The key's bytes: text, since the wire has nothing else. It may be empty.
    pub key: Bytes,
}

/// Which mutation wrote an entry. Mutations of a partition are ordered by it: first by term, then by timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// Of the leadership under which it was written.
    pub term: u64,
    /// The mutation's number, from 1. It is the version that clients see, so the two never differ (`atomix.md` §3).
    pub timestamp: u64,
}

impl Digest {
    /// The greatest number that is taken from a peer: as many again are left for what comes after it.
    pub const NUMBER_MAX: u64 = u64::MAX >> 1;

    /// Whether a primary can have drawn it: mutations are counted from 1.
    pub fn is_sound(self) -> bool {
        (1..=Self::NUMBER_MAX).contains(&self.timestamp) && self.term <= Self::NUMBER_MAX
    }
}

/// What a key holds, or that it was removed: an older put that arrives late must find what removed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which mutation wrote it.
    pub digest: Digest,
    /// The value; absent where the key was removed. An empty one is a value.
    pub value: Option<Bytes>,
}

impl Entry {
    /// The value with its version, unless the key was removed.
    pub fn versioned(self) -> Option<Versioned> {
        Some(Versioned { value: self.value?, version: self.digest.timestamp })
    }

    /// Whether the entry replaces what a backup has stored. The same digest is a duplicate and replaces nothing.
    pub fn replaces(&self, stored: Option<&Entry>) -> bool {
        stored.is_none_or(|stored| self.digest > stored.digest)
    }
}

/// A value as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Its version, from 1.
    pub version: u64,
}

/// What must hold for a put or a remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// The key is there and has this version.
    Version(u64),
}

impl Condition {
    /// The condition that a request's version stands for: 0 is none.
    pub fn of_version(version: u64) -> Self {
        if version == 0 { Self::None } else { Self::Version(version) }
    }

    /// Holds the condition against what is there.
    ///
    /// # Errors
    /// [`OptimisticLockFailure`] where the key has another version, or none.
    pub fn check(self, stored: Option<&Entry>) -> Result<(), OptimisticLockFailure> {
        let found = stored.filter(|entry| entry.value.is_some()).map(|entry| entry.digest.timestamp);
        match self {
            Self::None => Ok(()),
            Self::Version(version) if found == Some(version) => Ok(()),
            Self::Version(_) => Err(OptimisticLockFailure),
        }
    }
}

/// A condition that did not hold, in the words that clients know (`atomix.md` §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("optimistic lock failure")]
pub struct OptimisticLockFailure;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64, timestamp: u64, value: Option<&'static str>) -> Entry {
        Entry { digest: Digest { term, timestamp }, value: value.map(Bytes::from) }
    }

    #[test]
    fn digests_are_ordered_by_term_and_then_by_timestamp() {
        let digests = [(0, 9), (1, 1), (1, 2), (2, 1)].map(|(term, timestamp)| Digest { term, timestamp });
        assert!(digests.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_greater_digest_wins_and_a_duplicate_changes_nothing() {
        let stored = entry(2, 5, Some("v"));
        assert!(entry(2, 6, None).replaces(Some(&stored)));
        assert!(entry(3, 1, Some("w")).replaces(Some(&stored)));
        assert!(!entry(2, 5, Some("w")).replaces(Some(&stored)));
        assert!(!entry(2, 4, Some("w")).replaces(Some(&stored)));
        assert!(!entry(1, 9, None).replaces(Some(&stored)));
        assert!(entry(0, 1, None).replaces(None));
        // A removal is kept, so that an older put does not bring the key back.
        assert!(!entry(2, 4, Some("old")).replaces(Some(&entry(2, 5, None))));
    }

    #[test]
    fn a_version_is_a_condition_on_what_is_there() {
        let present = entry(1, 7, Some(""));
        let removed = entry(1, 7, None);
        assert_eq!(Condition::of_version(0), Condition::None);
        for stored in [None, Some(&present), Some(&removed)] {
            assert_eq!(Condition::of_version(0).check(stored), Ok(()));
        }
        assert_eq!(Condition::of_version(7).check(Some(&present)), Ok(()));
        for (version, stored) in [(6, Some(&present)), (8, Some(&present)), (7, Some(&removed)), (7, None)] {
            assert_eq!(Condition::of_version(version).check(stored), Err(OptimisticLockFailure));
        }
    }

    #[test]
    fn an_empty_value_is_there_and_a_removed_key_is_not() {
        assert_eq!(entry(3, 7, Some("")).versioned(), Some(Versioned { value: Bytes::new(), version: 7 }));
        assert_eq!(entry(3, 7, None).versioned(), None);
    }
}
