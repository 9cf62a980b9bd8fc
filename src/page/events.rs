//! The events of the stream, as JSON.

use crate::history::{History, POINT_SECONDS, Point};
use crate::messages;
use crate::sources::Sources;
use ebb_engine::cleaner::Report;
use ebb_proto::json;
use serde_json::{Value, json};

/// The last hour, and values that rarely change. A point is a row of numbers, with amounts in KiB. All numbers except
/// latencies are differences from the previous row, which keeps an hour small.
pub(super) fn history(history: &History, zero_unix_ms: u64) -> Value {
    let mut before = [0; 8];
    let point_row = |point: Point| {
        let kib = |bytes: u64| bytes >> 10;
        let Point { uptime_ms, limit_bytes, used_bytes, rss_bytes, live_bytes, hits, misses, requests, .. } = point;
        let [limit, used, rss, live] = [limit_bytes, used_bytes, rss_bytes, live_bytes].map(kib);
        let now = [(zero_unix_ms + uptime_ms) / 1000, limit, used, rss, live, hits, misses, requests];
        let changes =
            now.iter().zip(std::mem::replace(&mut before, now)).map(|(now, before)| *now as i64 - before as i64);
        let latency = [point.p50_micros, point.p99_micros].map(i64::from);
        changes.chain(latency).collect::<Vec<_>>()
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "point_seconds": POINT_SECONDS,
        "points": history.points().into_iter().map(point_row).collect::<Vec<_>>(),
        "receipt_columns": RECEIPT_COLUMNS,
        "receipts": history.receipts_after(0).iter().map(|report| row(report, zero_unix_ms)).collect::<Vec<_>>(),
    })
}

/// The current second with new receipts, after the given number; also returns the number of the last one.
pub(super) fn now(sources: &Sources, history: &History, after: u64) -> (Value, u64) {
    let (reports, zero_unix_ms) = (history.receipts_after(after), sources.zero_unix_ms());
    let last = reports.last().map_or(after, |report| report.id);
    let now = json!({
        "stats": json::of(&messages::stats(sources, history)),
        "item_bytes": sources.store.stats().item_bytes,
        "occupancy": sources.store.occupancy(),
        "one_segment_bytes": sources.store.new_segment_bytes(),
        "receipts": reports.iter().map(|report| row(report, zero_unix_ms)).collect::<Vec<_>>(),
        "findings": json::of(&messages::findings(sources, history).findings),
        "config": json::of(&messages::config(sources)),
    });
    (now, last)
}

/// The fields of a receipt that the page draws, as a row: an hour of complete receipts would be too large.
const RECEIPT_COLUMNS: [&str; 11] = [
    "id",
    "reason",
    "started_at_ms",
    "duration_us",
    "cpu_us",
    "longest_step_us",
    "moved_bytes",
    "evicted_items",
    "freed_segments",
    "rss_before_bytes",
    "rss_after_bytes",
];

fn row(report: &Report, zero_unix_ms: u64) -> Value {
    let Report { id, reason, started_ms, cost, done, before, after } = report;
    json!([
        id,
        reason.name(),
        zero_unix_ms + started_ms,
        cost.duration_us,
        cost.cpu_us,
        cost.longest_step_us,
        done.moved_bytes,
        done.evicted_items,
        done.freed_segments,
        before.process.rss_bytes,
        after.process.rss_bytes,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_and_a_full_hour_of_history_are_loaded_in_100_kb() {
        let whole = super::super::MARKUP.len() + super::super::STYLE.len() + super::super::SCRIPT.len();
        let hour = history(&History::of_a_busy_hour(), 1_795_000_000_000).to_string().len();
        assert!(hour > 20_000, "it is a full one: {hour} bytes");
        assert!(whole + hour <= 100_000, "{whole} bytes of page and {hour} of history");
    }
}
