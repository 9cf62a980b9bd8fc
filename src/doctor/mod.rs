//! The doctor: findings about a server, worst first, as a pure function of facts.
//!
//! Every finding has evidence with numbers and a remedy; `docs/operations.md` has a heading for each code, in the same
//! order. Rules on counters compare the last ten minutes: older events are over, and people run the doctor minutes after
//! a problem. The evidence also contains the total.

mod facts;
mod rules;

pub(crate) use rules::RULES;

use crate::history::{History, Point};
use crate::sources::Sources;
use crate::wall_clock;
use ebb_terminal::{Finding, Severity};
use facts::{EARLIER_MS, Facts, Recent};
use rules::Rule;

/// Length of the recent period, in milliseconds.
const RECENT_MS: u64 = 60_000;

/// The link to the explanation of a finding.
pub(crate) fn link(code: &str) -> String {
    format!("docs/operations.md#{code}")
}

/// The findings about a server, worst first.
pub(crate) fn examine(sources: &Sources, history: &History) -> Vec<Finding> {
    let (before, earlier) = (history.before(RECENT_MS), history.before(EARLIER_MS));
    // Read the current counts after the earlier ones, so that no difference is negative.
    let now = history.now();
    let before = before.unwrap_or(now);
    let (memory, config, totals) = (sources.memory.get(), sources.config.load(), sources.traffic.totals());
    let wall_ms = wall_clock::unix_ms().saturating_sub(sources.started_at_ms);
    diagnose(&Facts {
        memory: &memory,
        stats: &sources.store.stats(),
        config: &config,
        recent: Recent {
            seconds: (now.uptime_ms - before.uptime_ms) / 1000,
            reads: now.hits + now.misses - before.hits - before.misses,
            misses: now.misses - before.misses,
            missed_evicted: now.missed_evicted - before.missed_evicted,
            evictions: now.evictions - before.evictions,
        },
        uptime_ms: now.uptime_ms,
        earlier: compared(now.uptime_ms, earlier, memory.container.events.oom_kills),
        too_large: totals.too_large(),
        max_value_bytes: sources.store.max_value_bytes() as u64,
        segment_bytes: sources.store.segment_bytes() as u64,
        open_connections: totals.open_connections,
        sockets: sources.sockets.get(),
        http: sources.http.counts(),
        at_cap: now.at_cap,
        clock_jump_ms: wall_ms.abs_diff(sources.clock.now_ms()),
    })
}

/// The findings for these facts, worst first.
pub(crate) fn diagnose(facts: &Facts<'_>) -> Vec<Finding> {
    let finding = |(severity, code, rule, remedy): &(Severity, &'static str, Rule, &'static str)| {
        rule(facts).map(|evidence| Finding { severity: *severity, code, evidence, remedy: (*remedy).to_owned() })
    };
    RULES.iter().filter_map(finding).collect()
}

/// The counts to compare with. `earlier` is the newest point that is old enough, or else the oldest point.
fn compared(uptime_ms: u64, earlier: Option<Point>, oom_kills: u64) -> Point {
    match earlier {
        Some(point) if point.uptime_ms + EARLIER_MS <= uptime_ms => point,
        first => Point { oom_kills: first.map_or(oom_kills, |first| first.oom_kills), ..Point::default() },
    }
}

#[cfg(test)]
mod tests;
