//! What a run has measured, and how it is told.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

use super::series::{Series, SeriesFile};
use super::{BenchArgs, Span};
use crate::cli::CliError;
use crate::client::Received;

/// Latencies are kept with three significant figures, up to a minute.
const LATENCY_US_MAX: u64 = 60_000_000;
/// How long nothing may come once there has been time enough.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was seen of the replies.
pub(super) struct Measured {
    span: Span,
    /// Of the replies that count.
    latencies_us: Histogram<u64>,
    /// When the last reply came that counts, and when the last of all.
    last_counted: Instant,
    last: Instant,
    series: Option<Series>,
    /// All replies, those of the warm-up and of the end included.
    answered: u64,
    refused: u64,
    first_refusal: Option<String>,
}

impl Measured {
    /// Measures in a span; each of its seconds for itself where that is asked for.
    pub(super) fn new(args: &BenchArgs, span: Span) -> Self {
        let latencies_us = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are valid");
        Self {
            span,
            series: args.series.as_ref().map(|_| Series::new(latencies_us.clone())),
            latencies_us,
            last_counted: span.begin,
            last: span.begin,
            answered: 0,
            refused: 0,
            first_refusal: None,
        }
    }

    /// Whether no more requests are to be made.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.span.is_over(now, self.latencies_us.len())
    }

    /// Whether replies stay away for so long that none will come.
    pub(super) fn is_abandoned(&self, now: Instant) -> bool {
        now > self.last.max(self.span.until) + PATIENCE
    }

    /// How far the run has come, from 0 to 1.
    pub(super) fn progress(&self, now: Instant) -> f64 {
        self.span.progress(now, self.latencies_us.len())
    }

    /// Takes note of replies that have come now. A refusal is one also outside of the time that counts.
    pub(super) fn take(&mut self, received: Received, now: Instant) {
        self.answered += received.replies;
        self.last = now;
        if now >= self.span.begin && !self.is_over(now) {
            let latency_us = u64::try_from(received.latency.as_micros()).unwrap_or(u64::MAX);
            self.latencies_us.saturating_record_n(latency_us, received.replies);
            self.last_counted = now;
            if let Some(series) = &mut self.series {
                series.take((now - self.span.begin).as_secs(), latency_us, received.replies);
            }
        }
        if let Some(reason) = received.refused {
            self.refused += received.replies;
            self.first_refusal.get_or_insert(reason);
        }
    }

    pub(super) fn has_refusals(&self) -> bool {
        self.refused > 0
    }

    /// What the server said to the first request that it refused.
    pub(super) fn first_refusal(&self) -> Option<&str> {
        self.first_refusal.as_deref()
    }

    /// How long replies counted.
    fn elapsed(&self) -> Duration {
        self.last_counted.max(self.span.until) - self.span.begin
    }

    fn per_second(&self) -> f64 {
        self.latencies_us.len() as f64 / self.elapsed().as_secs_f64().max(1e-6)
    }

    /// Writes what each whole second saw. The last is no whole one where the number of requests ended the run.
    pub(super) fn write_series(&mut self, file: SeriesFile) -> Result<(), CliError> {
        let seconds = self.elapsed().as_secs();
        let Some(series) = &mut self.series else { return Ok(()) };
        series.end_before(seconds);
        file.write(series, self.span.begin_unix_ms)
    }

    pub(super) fn to_json(&self, args: &BenchArgs) -> Json {
        let at = |quantile| self.latencies_us.value_at_quantile(quantile);
        json!({
            "workload": args.workload.name(),
            "connections": args.connections,
            "pipeline": args.pipeline,
            "rate": args.rate,
            "seconds": self.elapsed().as_secs_f64(),
            "keys": args.keys,
            "each_once": args.each_once,
            "elements": args.elements,
            "value_bytes": args.value_bytes,
            "value_random_percent": args.value_random_percent,
            "requests": self.latencies_us.len(),
            "requests_with_warm_up": self.answered,
            "requests_per_second": self.per_second(),
            "refused": self.refused,
            "first_refusal": self.first_refusal,
            "latency_us": {
                "mean": self.latencies_us.mean(),
                "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
                "max": self.latencies_us.max(),
            },
        })
    }

    pub(super) fn to_text(&self, args: &BenchArgs) -> String {
        let ms = |quantile| self.latencies_us.value_at_quantile(quantile) as f64 / 1000.0;
        let mut text = format!(
            "{:.0} requests a second{} ({} in {:.1} s, {} connections, {} in flight on each)\n\
             latency ms: p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}\n",
            self.per_second(),
            args.rate.map_or(String::new(), |rate| format!(" of {rate}")),
            self.latencies_us.len(),
            self.elapsed().as_secs_f64(),
            args.connections,
            args.pipeline,
            ms(0.5),
            ms(0.9),
            ms(0.99),
            ms(0.999),
            self.latencies_us.max() as f64 / 1000.0,
        );
        if let Some(reason) = &self.first_refusal {
            text.push_str(&format!("{} refused, the first with: {reason}\n", self.refused));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::args;
    use super::*;

    fn reply(latency_ms: u64) -> Received {
        Received { latency: Duration::from_millis(latency_ms), replies: 1, refused: None }
    }

    #[test]
    fn replies_count_until_there_are_enough_and_the_time_is_over() {
        let args = args("ping --seconds 1 --requests-min 4");
        let span = Span::from_now(&args);
        let mut measured = Measured::new(&args, span);
        let at = |ms| span.begin + Duration::from_millis(ms);
        measured.take(reply(1), span.begin - Duration::from_millis(1));
        for ms in [0, 999, 1500, 1999] {
            assert!(!measured.is_over(at(ms)));
            measured.take(reply(1), at(ms));
        }
        assert!(measured.is_over(at(2000)));
        measured.take(reply(1), at(2000));
        let json = measured.to_json(&args);
        let figures = ["requests", "requests_with_warm_up"].map(|name| json[name].as_u64().unwrap());
        assert_eq!((figures, json["seconds"].as_f64()), ([4, 6], Some(1.999)));
    }

    #[test]
    fn a_server_that_answers_late_is_awaited_and_a_silent_one_given_up() {
        let args = args("ping --seconds 1");
        let span = Span::from_now(&args);
        let mut measured = Measured::new(&args, span);
        assert!(!measured.is_abandoned(span.until + PATIENCE));
        assert!(measured.is_abandoned(span.until + PATIENCE + Duration::from_millis(1)));
        measured.take(reply(1), span.until + PATIENCE);
        assert!(!measured.is_abandoned(span.until + PATIENCE + Duration::from_millis(1)));
    }
}
