//! Rows that change again and again. The engine keeps every version of a row in memory until it writes its table of new rows
//! to disk, and a scan steps over each of them: a set whose members come and go would be read in time that follows its history
//! and not its members. So the table is written early once it holds many versions that newer ones have replaced.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use bytes::Bytes;

use super::layout;

/// Replaced versions that a scan may have to step over. Some thousands take a millisecond or two, and at that distance the
/// small files that come of it are no burden.
pub(super) const REPLACED_MAX: usize = 8 * 1024;

/// Rows that are remembered. Of more rows than these, none has many versions before the table is full anyway.
const ROWS_REMEMBERED: usize = 64 * 1024;

/// Remembers which rows were written since the table was new, by a hash each: a row that pushes another one out of its place
/// only lets a replaced version go uncounted.
pub(super) struct Churn {
    written: Box<[u32]>,
    replaced: usize,
    hasher: RandomState,
}

impl Churn {
    pub(super) fn new() -> Self {
        Self { written: vec![0; ROWS_REMEMBERED].into(), replaced: 0, hasher: RandomState::new() }
    }

    /// Takes note of rows that are put or deleted.
    pub(super) fn note(&mut self, keys: impl Iterator<Item = Bytes>) {
        // Headers change with every write. They are found by their key, which costs the same however many versions there are.
        for key in keys.filter(|key| layout::is_scanned(key)) {
            let hash = self.hasher.hash_one(key);
            // The remainder is below the number of places; zero means that nothing is there.
            let place = (hash % ROWS_REMEMBERED as u64) as usize;
            let mark = (hash >> 32) as u32 | 1;
            if self.written[place] == mark {
                self.replaced += 1;
            }
            self.written[place] = mark;
        }
    }

    /// Whether the table is to be written.
    pub(super) fn is_due(&self) -> bool {
        self.replaced >= REPLACED_MAX
    }

    /// The table is new.
    pub(super) fn forget(&mut self) {
        self.written.fill(0);
        self.replaced = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(table: &'static str, count: usize) -> Vec<Bytes> {
        (0..count).map(|number| format!("{table}{number:06}").into()).collect()
    }

    #[test]
    fn rows_that_change_again_are_counted_and_new_ones_are_not() {
        let mut churn = Churn::new();
        churn.note(keys("c", 10 * ROWS_REMEMBERED).into_iter());
        assert!(!churn.is_due());
        let few = keys("c", 100);
        let rounds = 2 * REPLACED_MAX / few.len();
        for _ in 0..rounds {
            churn.note(few.iter().cloned());
        }
        assert!(churn.is_due());
        churn.forget();
        assert!(!churn.is_due());
        for _ in 0..rounds {
            churn.note(keys("n", 100).into_iter());
        }
        assert!(!churn.is_due(), "headers do not count");
    }
}
