//! Latencies of calls: percentiles, and a timeline for selecting a period.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Percentiles of latency, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Percentiles {
    pub(super) samples: u64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// A histogram of durations.
#[derive(Clone, Debug)]
pub(super) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        // Three significant digits, up to a minute; longer durations count as a minute.
        Self(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds"))
    }
}

impl Latency {
    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(took.as_nanos() as u64);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        Percentiles {
            samples: self.0.len(),
            p50: self.micros_at(0.5),
            p99: self.micros_at(0.99),
            p999: self.micros_at(0.999),
            max: self.0.max() as f64 / 1000.0,
        }
    }

    /// The quantile for a share of the calls, in microseconds.
    pub(super) fn micros_at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// The median; for an even number of figures the upper of the middle two, 0 for none.
pub(super) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

impl Percentiles {
    pub(super) fn json(&self) -> Value {
        let Self { samples, p50, p99, p999, max } = self;
        json!({ "samples": samples, "p50_us": p50, "p99_us": p99, "p99_9_us": p999, "max_us": max })
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} / {:.0} / {:.0}", self.p50, self.p99, self.p999)
    }
}

/// Calls with the time of each reply, so that a period can be selected afterwards.
#[derive(Debug, Default)]
pub(super) struct Timeline(pub(super) Vec<(Instant, Duration)>);

impl Timeline {
    /// Latencies of the calls in flight between two times.
    pub(super) fn between(&self, from: Instant, to: Instant) -> Percentiles {
        let mut latency = Latency::default();
        let inside = self.0.iter().filter(|(at, took)| *at >= from && *at - *took <= to);
        inside.for_each(|(_, took)| latency.record(*took));
        latency.percentiles()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|micros| latency.record(Duration::from_micros(micros)));
        let percentiles = latency.percentiles();
        assert!((percentiles.p50 - 500.0).abs() < 2.0 && (percentiles.p99 - 990.0).abs() < 2.0, "{percentiles}");
        assert_eq!((percentiles.samples, percentiles.max.round()), (1000, 1000.0));
        assert_eq!(Latency::default().percentiles().p999, 0.0);
    }

    #[test]
    fn a_median_is_the_middle_figure() {
        assert_eq!((median([3.0, 1.0, 2.0]), median([1.0, 2.0]), median([])), (2.0, 2.0, 0.0));
    }

    #[test]
    fn a_call_counts_in_every_stretch_it_was_under_way_in() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let timeline = Timeline(vec![(at(5), Duration::from_millis(1)), (at(20), Duration::from_millis(12))]);
        assert_eq!(timeline.between(at(0), at(7)).samples, 1);
        assert_eq!(timeline.between(at(7), at(9)).samples, 1, "the long call had begun");
        assert_eq!(timeline.between(at(21), at(30)).samples, 0);
    }
}
