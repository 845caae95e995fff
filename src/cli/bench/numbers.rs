//! Numbers of keys and members: each once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Hands out turns, each of which stands for some of the numbers below a count; all turns together stand for each number.
///
/// The order jumps about, as that of a store's clients does: what a tree takes up in the order of its keys it need not merge.
pub(super) struct EachOnce {
    count: u64,
    per_turn: u64,
    /// From a number to the one that follows it, around the circle.
    step: u64,
    turns_taken: AtomicU64,
}

impl EachOnce {
    /// `per_turn` of them at a time, and more than none; the last turn may begin anew.
    pub(super) fn new(count: u64, per_turn: u64) -> Self {
        // The golden section leaves no large gaps at any time. Without a divisor in common with the count it meets each number.
        let mut step = ((count as f64 * 0.618_033_988_75) as u64).max(1);
        while greatest_common_divisor(count, step) != 1 {
            step -= 1;
        }
        Self { count, per_turn, step, turns_taken: AtomicU64::new(0) }
    }

    pub(super) fn turns(&self) -> u64 {
        self.count.div_ceil(self.per_turn)
    }

    /// The next turn, if there is another.
    pub(super) fn take_turn(&self) -> Option<u64> {
        let turn = self.turns_taken.fetch_add(1, Ordering::Relaxed);
        (turn < self.turns()).then_some(turn)
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.turns_taken.load(Ordering::Relaxed) >= self.turns()
    }

    /// The numbers of a turn: as many as one has.
    pub(super) fn numbers(&self, turn: u64) -> impl Iterator<Item = u64> {
        let first = turn * self.per_turn;
        (first..first + self.per_turn).map(|at| {
            let number = u128::from(at) * u128::from(self.step) % u128::from(self.count);
            // A remainder of what fits.
            number as u64
        })
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_turns_together_stand_for_each_number() {
        for count in [1, 2, 3, 6, 10, 97, 100, 1000, 4096] {
            for per_turn in [1, 3, 100, 5000] {
                let each = EachOnce::new(count, per_turn);
                let turns: Vec<_> = std::iter::from_fn(|| each.take_turn()).collect();
                assert!(each.is_exhausted());
                assert_eq!(turns.len() as u64, count.div_ceil(per_turn));
                let mut seen: Vec<_> = turns.iter().flat_map(|turn| each.numbers(*turn)).collect();
                assert_eq!(seen.len() as u64, turns.len() as u64 * per_turn);
                seen.sort_unstable();
                seen.dedup();
                assert!(seen.into_iter().eq(0..count), "{count} by {per_turn}");
            }
        }
    }

    #[test]
    fn the_order_jumps_about() {
        let each = EachOnce::new(1_000_000, 1);
        let numbers: Vec<_> = (0..10).flat_map(|turn| each.numbers(turn)).collect();
        assert!(numbers.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 100_000), "{numbers:?}");
    }

    #[test]
    fn numbers_of_the_largest_count_do_not_overflow() {
        let each = EachOnce::new(super::super::load::NUMBERS, 1_000_000);
        assert!(each.numbers(each.turns() - 1).all(|number| number < super::super::load::NUMBERS));
    }
}
