//! When a run counts, and when it is over.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::BenchArgs;

/// From when on replies count, and what has to be reached before they no longer do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) begin: Instant,
    /// The beginning by the system's clock, in milliseconds since 1970.
    pub(super) begin_unix_ms: u64,
    /// A run goes on until this moment,
    pub(super) until: Instant,
    /// and until so many replies have counted.
    pub(super) requests_min: u64,
}

impl Span {
    /// Begins after the warm-up; where seconds are to be compared with those of other runs, with a second of the clock.
    pub(super) fn from_now(args: &BenchArgs) -> Self {
        let warm_up = Duration::from_millis(args.warm_up_ms.into());
        let mut begin_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + warm_up;
        let mut begin = Instant::now() + warm_up;
        if args.series.is_some() {
            let wait = Duration::from_secs(1) - Duration::from_nanos(begin_unix.subsec_nanos().into());
            begin_unix += wait;
            begin += wait;
        }
        let until = begin + Duration::from_secs(args.seconds.into());
        Self { begin, begin_unix_ms: milliseconds(begin_unix), until, requests_min: args.requests_min }
    }

    /// Begins now, and ends with the last of so many replies.
    pub(super) fn of_requests(requests: u64) -> Self {
        let begin_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begin = Instant::now();
        Self { begin, begin_unix_ms: milliseconds(begin_unix), until: begin, requests_min: requests }
    }

    /// Whether replies count no longer, once so many have.
    pub(super) fn is_over(&self, now: Instant, counted: u64) -> bool {
        now >= self.until && counted >= self.requests_min
    }

    /// How far a run has come that has counted so many replies: from 0 to 1.
    pub(super) fn progress(&self, now: Instant, counted: u64) -> f64 {
        let part = |done: f64, whole: f64| if whole > 0.0 { (done / whole).min(1.0) } else { 1.0 };
        let seconds = |end: Instant| end.saturating_duration_since(self.begin).as_secs_f64();
        part(seconds(now), seconds(self.until)).min(part(counted as f64, self.requests_min as f64))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::args;
    use super::*;

    #[test]
    fn a_span_ends_with_its_time_and_its_requests() {
        let span = Span::from_now(&args("ping --seconds 10 --requests-min 5 --warm-up-ms 0"));
        let at = |seconds| span.begin + Duration::from_secs(seconds);
        let over = [(9, 4), (9, 5), (10, 4), (10, 5)].map(|(seconds, counted)| span.is_over(at(seconds), counted));
        assert_eq!(over, [false, false, false, true]);
        let progress = [(0, 5), (5, 5), (10, 1), (20, 5)].map(|(seconds, counted)| span.progress(at(seconds), counted));
        assert_eq!(progress, [0.0, 0.5, 0.2, 1.0]);
    }

    #[test]
    fn a_series_begins_with_a_second_of_the_clock() {
        let plain = Span::from_now(&args("ping --warm-up-ms 250"));
        let series = Span::from_now(&args("ping --warm-up-ms 250 --series x"));
        assert_eq!(series.begin_unix_ms % 1000, 0);
        assert!(series.begin_unix_ms > plain.begin_unix_ms);
        assert_eq!(series.until - series.begin, Duration::from_secs(10));
    }
}
