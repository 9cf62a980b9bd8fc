//! Results of a run, as a table with a column per system, and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::latency::Percentiles;
use super::super::workload::Pattern;
use ebb_terminal::Table;

/// Memory at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) rss_bytes: u64,
    pub(super) live_bytes: u64,
}

impl Moment {
    fn ratio(&self) -> f64 {
        self.rss_bytes as f64 / self.live_bytes.max(1) as f64
    }
}

/// Result of one system.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) entries: u64,
    pub(super) idle_rss_bytes: u64,
    pub(super) loaded: Moment,
    pub(super) after: Moment,
    pub(super) empty_rss_bytes: u64,
    /// Time from the last reply to a deletion (or write) until memory settled.
    pub(super) settle: Option<Duration>,
    pub(super) still: bool,
    pub(super) empty_settle: Duration,
    /// Peak memory after the first deletion, minus the memory before it.
    pub(super) extra_bytes: Option<i64>,
    pub(super) peak_to_loaded: Option<f64>,
    /// Mean over the second half of the writing.
    pub(super) writing_to_live: Option<f64>,
    pub(super) peak_to_live: Option<f64>,
    pub(super) copied_per_written: Option<f64>,
    /// p99.9 and maximum of the steps.
    pub(super) step_us: Option<(u64, u64)>,
    pub(super) reclaimed_per_cpu_second: Option<f64>,
    pub(super) runs: u64,
    pub(super) at_rest: Percentiles,
    pub(super) compacting: Percentiles,
    pub(super) stored_bytes_per_second: f64,
    pub(super) wrong: u64,
    pub(super) missing: u64,
    pub(super) refused: u64,
}

impl Measured {
    /// Overhead per entry on the loaded server, in bytes.
    fn overhead(&self) -> f64 {
        let net = self.loaded.rss_bytes as f64 - self.idle_rss_bytes as f64;
        (net - self.loaded.live_bytes as f64) / self.entries.max(1) as f64
    }

    fn net_ratio(&self) -> f64 {
        (self.after.rss_bytes as f64 - self.idle_rss_bytes as f64) / self.after.live_bytes.max(1) as f64
    }

    fn tail_ratio(&self) -> f64 {
        self.compacting.p999 / self.at_rest.p999
    }
}

/// The results as a table.
pub(super) fn as_text(workload: &str, pattern: Pattern, results: &[Measured]) -> String {
    let title = format!("{workload}, {pattern:?}").to_lowercase();
    let mut table = Table::new(std::iter::once(title.as_str()).chain(results.iter().map(|result| result.name)));
    let mut row = |name: &str, cell: &dyn Fn(&Measured) -> Option<String>| {
        let cells: Vec<_> = results.iter().map(cell).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".into()));
            table.row(std::iter::once(name.to_owned()).chain(cells));
        }
    };
    let reads = |result: &Measured| result.at_rest.samples > 0;
    row("RSS idle", &|r| Some(megabytes(r.idle_rss_bytes)));
    row("RSS loaded", &|r| Some(megabytes(r.loaded.rss_bytes)));
    row("live, loaded", &|r| Some(megabytes(r.loaded.live_bytes)));
    row("RSS ÷ live, loaded", &|r| Some(format!("{:.3}", r.loaded.ratio())));
    row("overhead per entry", &|r| Some(format!("{:.1} B", r.overhead())));
    row("RSS after", &|r| Some(megabytes(r.after.rss_bytes)));
    row("live, after", &|r| Some(megabytes(r.after.live_bytes)));
    row("RSS ÷ live, after", &|r| Some(format!("{:.3}", r.after.ratio())));
    row("(RSS - idle) ÷ live, after", &|r| Some(format!("{:.3}", r.net_ratio())));
    row("RSS - idle, after", &|r| Some(difference(r.after.rss_bytes, r.idle_rss_bytes)));
    row("time to settle", &|r| {
        r.settle.map(|settle| format!("{:.2} s{}", settle.as_secs_f64(), if r.still { "" } else { ", still moving" }))
    });
    row("RSS - idle, empty", &|r| Some(difference(r.empty_rss_bytes, r.idle_rss_bytes)));
    row("time to settle, empty", &|r| Some(format!("{:.2} s", r.empty_settle.as_secs_f64())));
    row("extra memory after deletion", &|r| r.extra_bytes.map(|extra| format!("{:+.1} MB", extra as f64 / 1e6)));
    row("peak ÷ loaded RSS", &|r| r.peak_to_loaded.map(|ratio| format!("{ratio:.3}")));
    row("RSS ÷ live, writing", &|r| r.writing_to_live.map(|ratio| format!("{ratio:.3}")));
    row("peak RSS ÷ live", &|r| r.peak_to_live.map(|ratio| format!("{ratio:.3}")));
    row("copied per byte, writing", &|r| r.copied_per_written.map(|ratio| format!("{ratio:.2}")));
    row("step, p99.9 / longest", &|r| r.step_us.map(|(tail, longest)| format!("{tail} / {longest} µs")));
    row("reclaimed per CPU second", &|r| r.reclaimed_per_cpu_second.map(|rate| format!("{:.0} MB", rate / 1e6)));
    row("runs of the cleaner", &|r| r.step_us.map(|_| r.runs.to_string()));
    row("Get at rest, p50/p99/p99.9 µs", &|r| reads(r).then(|| r.at_rest.to_string()));
    row("Get after deletion", &|r| reads(r).then(|| r.compacting.to_string()));
    row("p99.9 after deletion ÷ at rest", &|r| reads(r).then(|| format!("{:.2}", r.tail_ratio())));
    row("wrong / missing / refused", &|r| Some(format!("{} / {} / {}", r.wrong, r.missing, r.refused)));
    table.to_string()
}

/// The results as JSON, with unrounded figures.
pub(super) fn as_json(workload: &str, pattern: Pattern, results: &[Measured]) -> Value {
    let one = |r: &Measured| {
        json!({
            "system": r.name,
            "entries": r.entries,
            "idle_rss_bytes": r.idle_rss_bytes,
            "loaded_rss_bytes": r.loaded.rss_bytes,
            "loaded_live_bytes": r.loaded.live_bytes,
            "loaded_rss_to_live": r.loaded.ratio(),
            "overhead_per_entry_bytes": r.overhead(),
            "after_rss_bytes": r.after.rss_bytes,
            "after_live_bytes": r.after.live_bytes,
            "after_rss_to_live": r.after.ratio(),
            "after_net_rss_to_live": r.net_ratio(),
            "settle_ms": r.settle.map(|settle| settle.as_millis() as u64),
            "still": r.still,
            "empty_rss_bytes": r.empty_rss_bytes,
            "empty_settle_ms": r.empty_settle.as_millis() as u64,
            "extra_bytes": r.extra_bytes,
            "peak_to_loaded_rss": r.peak_to_loaded,
            "writing_rss_to_live": r.writing_to_live,
            "peak_rss_to_live": r.peak_to_live,
            "copied_per_written": r.copied_per_written,
            "step_p999_us": r.step_us.map(|(tail, _)| tail),
            "longest_step_us": r.step_us.map(|(_, longest)| longest),
            "reclaimed_bytes_per_cpu_second": r.reclaimed_per_cpu_second,
            "cleaner_runs": r.runs,
            "get_at_rest": r.at_rest.json(),
            "get_meanwhile": r.compacting.json(),
            "stored_bytes_per_second": r.stored_bytes_per_second,
            "wrong": r.wrong,
            "missing": r.missing,
            "refused": r.refused,
        })
    };
    let pattern = format!("{pattern:?}").to_lowercase();
    json!({ "workload": workload, "pattern": pattern, "systems": results.iter().map(one).collect::<Vec<_>>() })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn difference(bytes: u64, from: u64) -> String {
    format!("{:+.1} MB", (bytes as f64 - from as f64) / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_what_the_table_says() {
        let measured = Measured {
            name: "ebb",
            entries: 1_000_000,
            idle_rss_bytes: 6_000_000,
            loaded: Moment { rss_bytes: 170_000_000, live_bytes: 144_000_000 },
            after: Moment { rss_bytes: 24_000_000, live_bytes: 14_400_000 },
            empty_rss_bytes: 7_000_000,
            settle: Some(Duration::from_millis(430)),
            still: true,
            ..Measured::default()
        };
        let text = as_text("w1", Pattern::Even, std::slice::from_ref(&measured));
        let parts = ["w1, even", "20.0 B", "1.667", "1.250", "0.43 s", "+1.0 MB", "0 / 0 / 0"];
        let missing: Vec<_> = parts.into_iter().filter(|part| !text.contains(part)).collect();
        assert!(missing.is_empty(), "{missing:?} is missing in\n{text}");
        assert!(!text.contains("peak"), "a row without figures is omitted");
        assert_eq!(as_json("w1", Pattern::Even, &[measured])["systems"][0]["overhead_per_entry_bytes"], 20.0);
    }
}
