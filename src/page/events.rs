//! What the stream says, as JSON.

use crate::doctor;
use crate::history::{History, POINT_SECONDS, Point};
use crate::sources::Sources;
use ebb_engine::cleaner::Receipt;
use serde_json::{Value, json};

/// The last hour, and what changes rarely. A point is a row of numbers, amounts in KiB; all but
/// its latencies are changes since the row before, so that an hour stays small.
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
        "receipts": history.receipts_after(0).iter().map(|receipt| row(receipt, zero_unix_ms)).collect::<Vec<_>>(),
    })
}

/// This second, with the receipts after the one with this number, and the number of the last of them.
pub(super) fn now(sources: &Sources, history: &History, after: u64) -> (Value, u64) {
    let (stats, memory, point) = (sources.store.stats(), sources.memory.get(), history.now());
    let config = sources.config.load();
    let (receipts, zero_unix_ms) = (history.receipts_after(after), sources.zero_unix_ms());
    let last = receipts.last().map_or(after, |receipt| receipt.id);
    let findings = doctor::examine(sources, history);
    let now = json!({
        "at_ms": point.at_ms,
        "uptime_ms": sources.clock.now_ms(),
        "regime": memory.regime.name(),
        "limit_bytes": memory.limit_bytes,
        "limit_source": memory.limit_source.name(),
        "used_bytes": memory.used_bytes,
        "rss_bytes": memory.rss_bytes,
        "budget_bytes": stats.capacity_bytes,
        "live_bytes": stats.live_bytes,
        "item_bytes": stats.item_bytes,
        "dead_bytes": stats.dead_bytes,
        "segment_bytes": stats.segment_bytes,
        "index_bytes": stats.index_bytes,
        "in_flight_bytes": stats.in_flight_bytes,
        "entries": stats.entries,
        "hits": stats.hits,
        "misses": stats.misses,
        "evictions": stats.evictions,
        "expirations": stats.expirations,
        "refusals": stats.refusals,
        "appended_bytes": stats.appended_bytes,
        "copied_bytes": stats.copied_bytes,
        "requests": point.requests,
        "p50_micros": point.p50_micros,
        "p99_micros": point.p99_micros,
        "open_connections": sources.traffic.totals().open_connections,
        "occupancy": sources.store.occupancy(),
        "one_segment_bytes": sources.store.new_segment_bytes(),
        "receipts": receipts.iter().map(|receipt| row(receipt, zero_unix_ms)).collect::<Vec<_>>(),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "config": {
            "generation": config.generation,
            "applied_at_ms": config.applied_at_ms,
            "problem": config.problem,
            "rows": config.rows.iter().map(|row| json!([row.key, row.value, row.source])).collect::<Vec<_>>(),
        },
    });
    (now, last)
}

/// A receipt as a row, in the order in which the page takes it apart. `zero_unix_ms` is the Unix time at which
/// the clock was zero.
fn row(receipt: &Receipt, zero_unix_ms: u64) -> Value {
    json!([
        receipt.id,
        receipt.reason.name(),
        zero_unix_ms + receipt.started_ms,
        receipt.duration_us,
        receipt.cpu_us,
        receipt.longest_step_us,
        receipt.moved_bytes,
        receipt.evicted_items,
        receipt.freed_segments,
        receipt.before.outside.rss_bytes,
        receipt.after.outside.rss_bytes,
    ])
}

fn finding(finding: &doctor::Finding) -> Value {
    json!({
        "severity": finding.severity.name(),
        "code": finding.code,
        "evidence": finding.evidence,
        "remedy": finding.remedy,
        "link": finding.link(),
    })
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
