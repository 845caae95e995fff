//! How the memory that a store may take is shared out.

/// Memory of a store, in bytes, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// Rows that the tables do not have yet. The larger this is, the less is written by merging; but a start replays them.
    pub unapplied_bytes: u64,
    /// Blocks of tables that were read.
    pub cache_bytes: u64,
    /// The rest: entries that wait for the log, buffers of tables that are written, the upper parts of filters and indexes.
    pub rest_bytes: u64,
}

/// A start replays this much within seconds.
const UNAPPLIED_BYTES_MAX: u64 = 256 * 1024 * 1024;
const REST_BYTES_MAX: u64 = 256 * 1024 * 1024;

impl MemoryShares {
    /// The least that a store can work with, in bytes.
    pub const MEMORY_BYTES_MIN: u64 = 32 * 1024 * 1024;

    /// Shares out so much memory. Where the cache is not told its part, it gets what is left.
    pub fn of(memory_bytes_max: u64, cache_bytes: Option<u64>) -> Self {
        let unapplied_bytes = (memory_bytes_max / 4).min(UNAPPLIED_BYTES_MAX);
        let rest_bytes = (memory_bytes_max / 8).min(REST_BYTES_MAX);
        let left_bytes = memory_bytes_max - unapplied_bytes - rest_bytes;
        Self { unapplied_bytes, cache_bytes: cache_bytes.map_or(left_bytes, |bytes| bytes.min(left_bytes)), rest_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn shares_add_up_to_what_there_is() {
        for memory_bytes in [MemoryShares::MEMORY_BYTES_MIN, 512 * MIB, 6 * 1024 * MIB, 1 << 50] {
            let shares = MemoryShares::of(memory_bytes, None);
            assert_eq!(shares.unapplied_bytes + shares.cache_bytes + shares.rest_bytes, memory_bytes);
            assert!(shares.cache_bytes >= memory_bytes / 2, "{shares:?}");
        }
    }

    #[test]
    fn a_cache_takes_what_it_is_told_but_no_more_than_there_is() {
        assert_eq!(MemoryShares::of(512 * MIB, Some(64 * MIB)).cache_bytes, 64 * MIB);
        assert_eq!(MemoryShares::of(512 * MIB, Some(600 * MIB)), MemoryShares::of(512 * MIB, None));
    }
}
