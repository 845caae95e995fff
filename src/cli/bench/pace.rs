//! When a connection's requests are due.

use std::time::{Duration, Instant};

use super::BenchArgs;

/// Requests at even intervals, however long replies take: what was due while the connection waited for a reply counts from
/// then on. Otherwise a server that stalls would be asked less, and its stall be seen by one request alone.
pub(super) struct Pace {
    next: Instant,
    interval: Duration,
    /// When the connection last woke. Timers are late by up to a millisecond, which is not the server's doing.
    awake_since: Instant,
}

impl Pace {
    /// The pace of one of the connections, which take turns; none where replies alone say when there is to be more.
    pub(super) fn new(args: &BenchArgs, number: u64, now: Instant) -> Option<Self> {
        let turn = Duration::from_secs(1) / args.rate?;
        let turns = |count: u64| Duration::from_nanos(u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX) * count);
        Some(Self { next: now + turns(number), interval: turns(args.connections.into()), awake_since: now })
    }

    /// When the next request is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// If a request is due, takes it: the moment from which it counts.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next;
        (due <= now).then(|| {
            self.next += self.interval;
            due.max(self.awake_since)
        })
    }

    /// Whoever could have sent more did not, since it slept until now.
    pub(super) fn wake(&mut self, now: Instant) {
        self.awake_since = now;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn args(line: &str) -> BenchArgs {
        Cli::parse_from(["test", "ping"].into_iter().chain(line.split_whitespace())).bench
    }

    #[test]
    fn connections_take_turns() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let args = args("--rate 1000 --connections 4");
        for number in 0..4 {
            let mut pace = Pace::new(&args, number, now).unwrap();
            let due: Vec<_> = (0..9).filter_map(|at| pace.take_due(now + ms(at))).map(|due| due - now).collect();
            let expected: Vec<_> = (0..9).filter(|at| at % 4 == number).map(ms).collect();
            assert_eq!(due, expected, "connection {number}");
        }
    }

    #[test]
    fn what_was_due_while_a_reply_was_awaited_counts_from_then() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let mut pace = Pace::new(&args("--rate 1000 --connections 1"), 0, now).unwrap();
        assert_eq!(pace.take_due(now), Some(now));
        let late = now + ms(3);
        let since: Vec<_> = std::iter::from_fn(|| pace.take_due(late)).collect();
        assert_eq!(since, [1, 2, 3].map(|at| now + ms(at)));
        assert_eq!(pace.next(), now + ms(4));
        // A timer that is late is not the server's doing.
        pace.wake(now + ms(5));
        assert_eq!(pace.take_due(now + ms(5)), Some(now + ms(5)));
    }

    #[test]
    fn without_a_rate_there_is_no_pace() {
        assert!(Pace::new(&args(""), 0, Instant::now()).is_none());
    }
}
