//! Log lines about memory and configuration.

use crate::governor;
use crate::receipts::Line;
use crate::regimes::Change;
use ebb_config::{DynamicSettings, Live, Reload};

/// Logs that the regime changed.
pub(super) fn announce_regime(change: Option<Change>, memory: &governor::Snapshot) {
    let Some(Change { from, to, changes, held_ms }) = change else { return };
    let [calm_ms, drift_ms, high_ms, critical_ms] = held_ms;
    tracing::info!(
        from = from.name(),
        to = to.name(),
        changes,
        reason = memory.reason.name(),
        calm_ms,
        drift_ms,
        high_ms,
        critical_ms,
        limit_bytes = memory.limit_bytes,
        used_bytes = memory.used_bytes,
        rss_bytes = memory.rss_bytes,
        budget_bytes = memory.budget_bytes,
        "memory regime changed"
    );
}

/// Logs runs of the cleaner.
pub(super) fn announce_receipts(lines: &[Line]) {
    for Line { runs, sum, missed } in lines {
        tracing::info!(
            id = sum.id,
            runs,
            reason = sum.reason.name(),
            moved_bytes = sum.done.moved_bytes,
            evicted_items = sum.done.evicted_items,
            expired_items = sum.done.expired_items,
            freed_segments = sum.done.freed_segments,
            rss_before_bytes = sum.before.process.rss_bytes,
            rss_after_bytes = sum.after.process.rss_bytes,
            cpu_us = sum.cost.cpu_us,
            longest_step_us = sum.cost.longest_step_us,
            missed = Some(missed).filter(|missed| **missed > 0),
            "cleaner run finished",
        );
    }
}

/// Logs the result of a poll; returns the dynamic settings if they were applied.
pub(super) fn follow(found: Reload, live: &Live) -> Option<DynamicSettings> {
    match found {
        Reload::Unchanged => None,
        Reload::Rejected(why) => {
            tracing::error!(why, "configuration rejected; the last good one stays active");
            None
        }
        Reload::Applied { changes, warnings } => {
            changes.iter().for_each(|change| tracing::info!(change, "configuration changed"));
            warnings.iter().for_each(|warning| tracing::warn!(warning, "configuration warning"));
            crate::logging::set_level(live.dynamic().log_level);
            Some(live.dynamic().clone())
        }
    }
}
