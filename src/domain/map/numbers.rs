//! The numbers of a partition: what the next mutation is called, and what has been seen of other primaries.

use super::Digest;

/// A partition's counters. They never go back: they are stored with every change, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The greatest term seen, in a digest of our own or of another primary's.
    pub term: u64,
    /// The greatest timestamp seen, in whatever term: versions rise across terms.
    pub timestamp: u64,
    /// Whether another primary's entries came after our last mutation. The next one then begins a term.
    pub follows: bool,
    /// Entries of a lower term are refused: they come from a primary that this one has replaced.
    pub fence: u64,
    /// The number of the last change, whoever made it: the order in which followers are fed. Not the timestamp, because what a
    /// stream brings need not come in the order of its digests.
    pub position: u64,
}

/// The term of a server that never was a backup (`atomix.md` §8).
const FIRST_TERM: u64 = 1;

impl Default for Numbers {
    fn default() -> Self {
        Self { term: FIRST_TERM, timestamp: 0, follows: false, fence: 0, position: 0 }
    }
}

impl Numbers {
    /// The digest of the next mutation of our own. The first one after another primary's entries has a term above all of
    /// theirs, so that the two never write the same digest, and closes the door behind it.
    ///
    /// `None` when the numbers have run out, which only a peer's absurd digest brings about.
    pub fn draw(&mut self) -> Option<Digest> {
        let term = if self.follows { self.term.checked_add(1)? } else { self.term };
        let timestamp = self.timestamp.checked_add(1)?;
        if self.follows {
            self.fence = term;
        }
        *self = Self { term, timestamp, follows: false, ..*self };
        self.position += 1;
        Some(Digest { term, timestamp })
    }

    /// Whether an entry comes from a primary that has been replaced.
    pub fn is_stale(&self, digest: Digest) -> bool {
        digest.term < self.fence
    }

    /// Takes note of an entry that another primary has sent; `stored`: whether it became a change.
    pub fn see(&mut self, digest: Digest, stored: bool) {
        self.follows = true;
        self.term = self.term.max(digest.term);
        self.timestamp = self.timestamp.max(digest.timestamp);
        self.position += u64::from(stored);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(term: u64, timestamp: u64) -> Digest {
        Digest { term, timestamp }
    }

    #[test]
    fn own_mutations_are_counted_in_one_term() {
        let mut numbers = Numbers::default();
        assert_eq!([numbers.draw(), numbers.draw()], [Some(digest(1, 1)), Some(digest(1, 2))]);
        assert!(!numbers.is_stale(digest(0, 1)), "nobody has been replaced");
    }

    #[test]
    fn the_first_mutation_after_a_stream_begins_a_term_and_shuts_older_ones_out() {
        let mut numbers = Numbers::default();
        numbers.draw();
        numbers.see(digest(3, 40), true);
        numbers.see(digest(2, 90), true);
        assert!(!numbers.is_stale(digest(1, 1)), "a primary may send old entries again");
        assert_eq!(numbers.draw(), Some(digest(4, 91)));
        assert_eq!(numbers.draw(), Some(digest(4, 92)));
        assert!(numbers.is_stale(digest(3, 200)));
        assert!(!numbers.is_stale(digest(4, 1)));
        numbers.see(digest(7, 1), false);
        assert_eq!(numbers.draw(), Some(digest(8, 93)));
    }

    #[test]
    fn numbers_that_have_run_out_are_no_overflow() {
        let mut numbers = Numbers::default();
        numbers.see(digest(u64::MAX, 1), true);
        let before = numbers;
        assert_eq!((numbers.draw(), numbers), (None, before));
        let mut numbers = Numbers::default();
        numbers.see(digest(1, u64::MAX), true);
        assert_eq!(numbers.draw(), None);
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_above_all_that_was_seen(
            steps in proptest::collection::vec(proptest::option::of((0_u64..9, 0_u64..99)), 0..40),
        ) {
            let mut numbers = Numbers::default();
            let (mut greatest, mut positions) = (digest(0, 0), 0);
            for step in steps {
                let seen = match step {
                    Some((term, timestamp)) => {
                        numbers.see(digest(term, timestamp), true);
                        digest(term, timestamp)
                    }
                    None => {
                        let drawn = numbers.draw().unwrap();
                        prop_assert!(drawn.timestamp > greatest.timestamp && drawn.term >= greatest.term);
                        drawn
                    }
                };
                greatest = digest(greatest.term.max(seen.term), greatest.timestamp.max(seen.timestamp));
                positions += 1;
                prop_assert_eq!(numbers.position, positions);
            }
        }
    }
}
