//! How fast writes may come while the merging of tables is behind.
//!
//! Tables of new rows lie over each other until they are merged. Where they become too many the tables take nothing up, and once
//! memory is full everybody waits until a merge is done, which is seconds. So before that writes are slowed down, as far as the
//! number of such tables tells: it rises while more comes than is merged.

/// Up to so many tables of new rows writes come as they like.
const FREE_RUNS: usize = 10;
/// Where so many lie over each other, no more are made before some are merged: a look-up asks each of them.
pub(super) const RUNS_MAX: usize = 20;

/// Slows writes down by this where there are more such tables than at the last look, and speeds them up where there are fewer.
const SLOWER: f64 = 0.9;
const FASTER: f64 = 1.15;
/// Near to where nothing more is taken up.
const MUCH_SLOWER: f64 = 0.5;
/// However far behind: this much may come in a second, in bytes.
const RATE_MIN: f64 = 1024.0 * 1024.0;

/// The pace of writes.
#[derive(Default)]
pub(super) struct Pace {
    rate: Option<f64>,
    runs: usize,
}

impl Pace {
    /// Looks at how many tables of new rows lie over each other, and at how much has come in each second since the last look.
    /// How many bytes may come in each from now on, if that is bounded.
    pub(super) fn look(&mut self, runs: usize, came_per_second: f64) -> Option<u64> {
        let before = std::mem::replace(&mut self.runs, runs);
        if runs <= FREE_RUNS {
            self.rate = None;
            return None;
        }
        let rate = self.rate.unwrap_or(came_per_second);
        let change = match runs {
            _ if runs + 1 >= RUNS_MAX => MUCH_SLOWER,
            _ if runs > before => SLOWER,
            _ if runs < before => FASTER,
            _ => 1.0,
        };
        // What did not come although it might is no measure of what can be merged.
        let rate = (rate.min(came_per_second.max(RATE_MIN) * FASTER) * change).max(RATE_MIN);
        self.rate = Some(rate);
        Some(rate as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_tables_slow_nobody_down() {
        let mut pace = Pace::default();
        assert_eq!((0..=FREE_RUNS).find_map(|runs| pace.look(runs, 1e9)), None);
    }

    #[test]
    fn writes_slow_down_while_tables_grow_in_number_and_recover() {
        let mut pace = Pace::default();
        // All comes that may.
        let mut came = 1e8;
        let mut rates = Vec::new();
        for runs in [11, 12, 13, 14, 13, 12, 11] {
            let rate = pace.look(runs, came).unwrap();
            came = rate as f64;
            rates.push(rate);
        }
        assert!(rates.windows(2).take(3).all(|pair| pair[1] < pair[0]), "{rates:?}");
        assert!(rates.windows(2).skip(3).all(|pair| pair[1] > pair[0]), "{rates:?}");
        assert_eq!(pace.look(FREE_RUNS, came), None);
    }

    #[test]
    fn something_may_always_come() {
        let mut pace = Pace::default();
        let least = (0..100).map(|_| pace.look(RUNS_MAX, 0.0).unwrap()).min();
        assert_eq!(least, Some(RATE_MIN as u64));
    }
}
