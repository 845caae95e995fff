//! When a connection's requests are due.

use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::lock;
use super::measured::Measured;

/// Requests at even intervals, however long replies take: what was due while the connection waited for a reply counts from
/// then on. Otherwise a server that stalls would be asked less, and its stall be seen by one request alone.
pub(super) struct Pace {
    next: Instant,
    interval: Duration,
    /// When the connection last woke. That it wakes late is not the server's doing.
    awake_since: Instant,
    bell: Arc<Notify>,
}

/// The paces of all connections, which take turns from now on until the run is over; none where replies alone say when there
/// is to be more.
pub(super) fn paces(rate: Option<u32>, connections: u32, run: &Arc<Mutex<Measured>>) -> Option<Vec<Pace>> {
    let turn = Duration::from_secs(1) / rate?;
    let now = Instant::now();
    let turns = std::iter::successors(Some(now), move |due| Some(*due + turn));
    let pace = |next| Pace { next, interval: turn * connections, awake_since: now, bell: Arc::default() };
    let paces: Vec<Pace> = turns.take(connections as usize).map(pace).collect();
    let bells: Vec<_> = paces.iter().map(|pace| pace.bell.clone()).collect();
    let run = Arc::downgrade(run);
    // The runtime's own timers know only milliseconds, in which what is due would come in bursts.
    thread::spawn(move || ring(&bells, now, turn, &run));
    Some(paces)
}

/// Rings each bell in turn, and in the end all of them: nobody is to sleep longer than the run.
fn ring(bells: &[Arc<Notify>], mut due: Instant, turn: Duration, run: &Weak<Mutex<Measured>>) {
    for bell in bells.iter().cycle() {
        if run.upgrade().is_none_or(|run| lock(&run).is_over(due)) {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        bell.notify_one();
        due += turn;
    }
    bells.iter().for_each(|bell| bell.notify_one());
}

impl Pace {
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

    /// Resolves when the next request is due, or earlier.
    pub(super) async fn due(&self) {
        self.bell.notified().await;
    }

    /// Whoever could have sent more did not, since it slept until now.
    pub(super) fn wake(&mut self, now: Instant) {
        self.awake_since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::super::tests::args;
    use super::*;

    /// A run without an end of its own.
    fn ended() -> Arc<Mutex<Measured>> {
        Arc::new(Mutex::new(Measured::new(&args("ping"), Span::of_requests(0))))
    }

    #[test]
    fn connections_take_turns() {
        let ms = Duration::from_millis;
        let paces = paces(Some(1000), 4, &ended()).unwrap();
        let now = paces[0].next();
        for (number, mut pace) in (0..).zip(paces) {
            let due: Vec<_> = (0..9).filter_map(|at| pace.take_due(now + ms(at))).map(|due| due - now).collect();
            let expected: Vec<_> = (0..9).filter(|at| at % 4 == number).map(ms).collect();
            assert_eq!(due, expected, "connection {number}");
        }
    }

    #[test]
    fn what_was_due_while_a_reply_was_awaited_counts_from_then() {
        let ms = Duration::from_millis;
        let mut paces = paces(Some(1000), 1, &ended()).unwrap();
        let pace = &mut paces[0];
        let now = pace.next();
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
        assert!(paces(None, 1, &ended()).is_none());
    }
}
