//! What a run has measured, and how it is told.

use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

use super::BenchArgs;
use crate::client::Received;

/// Latencies are kept with three significant figures, up to a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What was seen of the replies.
pub(super) struct Measured {
    /// Of the replies that count.
    latencies_us: Histogram<u64>,
    /// All replies, those of the warm-up and of the end included.
    answered: u64,
    refused: u64,
    first_refusal: Option<String>,
}

impl Measured {
    pub(super) fn new() -> Self {
        let latencies_us = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are valid");
        Self { latencies_us, answered: 0, refused: 0, first_refusal: None }
    }

    /// Takes note of replies. A refusal is one also outside of the time that counts.
    pub(super) fn take(&mut self, received: Received, counts: bool) {
        self.answered += received.replies;
        if counts {
            let latency_us = u64::try_from(received.latency.as_micros()).unwrap_or(u64::MAX);
            self.latencies_us.saturating_record_n(latency_us, received.replies);
        }
        if let Some(reason) = received.refused {
            self.refused += received.replies;
            self.first_refusal.get_or_insert(reason);
        }
    }

    pub(super) fn has_refusals(&self) -> bool {
        self.refused > 0
    }

    fn per_second(&self, args: &BenchArgs) -> f64 {
        self.latencies_us.len() as f64 / f64::from(args.seconds)
    }

    pub(super) fn to_json(&self, args: &BenchArgs) -> Json {
        let at = |quantile| self.latencies_us.value_at_quantile(quantile);
        json!({
            "workload": args.workload.name(),
            "connections": args.connections,
            "pipeline": args.pipeline,
            "rate": args.rate,
            "seconds": args.seconds,
            "keys": args.keys,
            "value_bytes": args.value_bytes,
            "requests": self.latencies_us.len(),
            "requests_with_warm_up": self.answered,
            "requests_per_second": self.per_second(args),
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
            "{:.0} requests a second{} ({} in {} s, {} connections, {} in flight on each)\n\
             latency ms: p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}\n",
            self.per_second(args),
            args.rate.map_or(String::new(), |rate| format!(" of {rate}")),
            self.latencies_us.len(),
            args.seconds,
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
