//! The rules: severity, code, condition with its evidence, and remedy.

use super::facts::{EARLIER_MS, Facts, Recent};
use crate::sources::SocketFiles;
use ebb_config::Compaction;
use ebb_config::units::one_or_many;
use ebb_engine::decide::Regime;
use ebb_terminal::Severity;
use std::fmt;

pub(super) const MIB: u64 = 1 << 20;
/// Minimum budget of the engine in a container that is large enough for a cache, in bytes.
const LEAST_BUDGET: u64 = 8 * MIB;
/// Minimum number of reads for a meaningful ratio.
const ENOUGH_READS: u64 = 1_000;

pub(super) type Rule = fn(&Facts<'_>) -> Option<String>;

/// All rules: severity, code, condition with its evidence, and remedy.
pub(crate) const RULES: &[(Severity, &str, Rule, &str)] = &[
    (
        Severity::Error,
        "oom_killed",
        |f| {
            // A kill before this process started may be the reason for its start.
            let kills = some(f.memory.container.events.oom_kills)?;
            let since = |n, when: &str| {
                let killed = processes(n);
                format!("the kernel killed {killed} {when} ({kills} since the container started)")
            };
            match (lately_killed(f), is_young(f)) {
                (0, true) => {
                    Some(format!("the kernel killed {} in this container before Ebb started", processes(kills)))
                }
                (0, false) => None,
                (n, true) => Some(since(n, "since Ebb started")),
                (n, false) => Some(since(n, &stretch(f))),
            }
        },
        "raise the limit, or find what else uses memory in the container",
    ),
    (
        Severity::Error,
        "config_rejected",
        |f| f.config.problem.clone(),
        "correct the configuration; the last good one stays active",
    ),
    (
        Severity::Error,
        "socket_lost",
        |f| f.sockets.lost.clone().map(|why| format!("the file of the Unix socket is missing: {why}")),
        "remove the file at the path, or make its directory writable; until then applications cannot connect through the \
         socket",
    ),
    (
        Severity::Error,
        "limit_too_small",
        |f| {
            (f.memory.budget_bytes < LEAST_BUDGET).then(|| {
                let (left, limit) = (mib(f.memory.budget_bytes), mib(f.memory.limit_bytes));
                format!("{left} of the limit of {limit} remain for the cache")
            })
        },
        "give the container at least 32 MiB",
    ),
    (
        Severity::Warning,
        "oom_killed",
        |f| {
            let kills = some(f.memory.container.events.oom_kills)?;
            let is_old = lately_killed(f) == 0 && !is_young(f);
            is_old.then(|| format!("the kernel killed {} since the container started", processes(kills)))
        },
        "raise the limit, or find what else uses memory in the container",
    ),
    (
        Severity::Warning,
        "no_memory_limit",
        |f| {
            f.memory
                .is_default_limit()
                .then(|| format!("no limit was found; the default of {} applies", mib(f.memory.limit_bytes)))
        },
        "set a memory limit on the container, or --max-memory",
    ),
    (
        Severity::Warning,
        "limit_beyond_machine",
        |f| {
            let (limit, source) = f.memory.beyond_machine?;
            let (limit, machine) = (mib(limit), mib(f.memory.limit_bytes));
            Some(format!("the limit ({}) is {limit}, but the machine has {machine}", source.name()))
        },
        "lower the limit below the machine's memory to leave room for other processes",
    ),
    (
        Severity::Warning,
        "memory_short",
        |f| {
            let refused = f.stats.refusals - f.earlier.refusals;
            (f.memory.regime == Regime::Critical || refused > 0).then(|| {
                let writes = one_or_many(refused, "write was", "writes were");
                let (regime, when) = (f.memory.regime.name(), lately(f, f.stats.refusals));
                format!("the regime is {regime}; {refused} {writes} refused for lack of memory {when}")
            })
        },
        "raise the limit, or store fewer or smaller values",
    ),
    (
        Severity::Warning,
        "socket_removed",
        |f| {
            let SocketFiles { made_again, last_ms, .. } = f.sockets;
            let is_recent = made_again > 0 && f.uptime_ms < last_ms + EARLIER_MS;
            is_recent.then(|| {
                let times = one_or_many(made_again, "time", "times");
                format!("the file of the Unix socket was removed and recreated {made_again} {times} since the start")
            })
        },
        "find what removes it: a second container with the same volume, or a job that deletes temporary files",
    ),
    (
        Severity::Warning,
        "eviction_storm",
        |f| {
            let Recent { seconds, evictions, .. } = f.recent;
            (evictions > ENOUGH_READS && evictions > f.stats.entries / 2)
                .then(|| format!("{evictions} entries were evicted in {seconds} s; {} are stored", f.stats.entries))
        },
        "raise the limit, or set a time to live so that unneeded entries expire",
    ),
    (
        Severity::Warning,
        "values_too_large",
        |f| {
            some(f.too_large - f.earlier.too_large).map(|n| {
                let values = one_or_many(n, "value was", "values were");
                format!("{n} {values} refused for exceeding {} {}", mib(f.max_value_bytes), lately(f, f.too_large))
            })
        },
        "raise maxValue, or split the values",
    ),
    (
        Severity::Warning,
        "values_fill_segments",
        |f| {
            let average = f.stats.live_bytes.checked_div(f.stats.entries)?;
            (average > f.segment_bytes / 8).then(|| {
                format!(
                    "the average entry has {} KiB and a segment {} KiB: much of each segment stays empty",
                    average >> 10,
                    f.segment_bytes >> 10
                )
            })
        },
        "restart with a higher limit: it sets the size of segments at the start",
    ),
    (
        Severity::Warning,
        "memory_held_by_connections",
        |f| {
            // These connections may use a sixteenth of the limit. If they use half of it for long, a reader is stalled.
            (f.stats.in_flight_bytes > f.memory.limit_bytes / 32).then(|| {
                let (held, n) = (mib(f.stats.in_flight_bytes), f.open_connections);
                let connections = one_or_many(n, "connection", "connections");
                format!("{held} of requests and responses are in flight on {n} {connections}")
            })
        },
        "find clients that do not read their responses; lower inFlight, inFlightPerConnection or connections",
    ),
    (
        Severity::Warning,
        "http_connections_closed",
        |f| {
            let closed = f.http.closed();
            some(closed - f.earlier.http_closed).map(|n| {
                let connections = one_or_many(n, "connection was", "connections were");
                let when = lately(f, closed);
                format!("{n} HTTP {connections} closed as stalled or displaced {when}; {} are open", f.http.open)
            })
        },
        "find clients of the HTTP port that do not read or do not close; admit only the kubelet and scrapers by a NetworkPolicy",
    ),
    (
        Severity::Warning,
        "connection_cap_reached",
        |f| {
            let closed = f.at_cap;
            some(closed - f.earlier.at_cap).map(|n| {
                let connections = one_or_many(n, "connection was", "connections were");
                format!("{n} idle {connections} closed to accept new ones {}", lately(f, closed))
            })
        },
        "find clients that open connections and do not use them; share one connection per process, or raise connections",
    ),
    (
        Severity::Warning,
        "memory_unaccounted",
        |f| {
            let engine = f.stats.segment_bytes + f.stats.index_bytes + f.stats.in_flight_bytes;
            let overhead = f.memory.used_bytes.saturating_sub(engine);
            (overhead > 32 * MIB && overhead > f.memory.limit_bytes / 4).then(|| {
                format!(
                    "{} are used; the cache does not account for {} of them",
                    mib(f.memory.used_bytes),
                    mib(overhead)
                )
            })
        },
        "find what else uses memory in the container; the cache shrinks to make room for it",
    ),
    (
        Severity::Warning,
        "copy_ratio_high",
        |f| {
            let (copied, appended) =
                (f.stats.copied_bytes - f.earlier.copied_bytes, f.stats.appended_bytes - f.earlier.appended_bytes);
            (appended >= 64 * MIB && copied > 3 * appended).then(|| {
                let total = format!("{} for {}", mib(f.stats.copied_bytes), mib(f.stats.appended_bytes));
                format!("the cleaner copied {} for {} written {}", mib(copied), mib(appended), lately(f, total))
            })
        },
        "lower drift.busyOccupancy, or raise the limit",
    ),
    (
        Severity::Warning,
        "swap_in_use",
        |f| {
            in_container(f)
                .and(some(f.memory.container.swap_bytes))
                .map(|bytes| format!("{} of the container are in swap", mib(bytes)))
        },
        "disable swap for the pod: a cache in swap is slower than no cache",
    ),
    (
        Severity::Warning,
        "memory_pressure",
        |f| {
            let percent = f.memory.container.pressure.percent;
            (percent >= 10.0).then(|| {
                format!("tasks in the container stalled on memory {percent:.0} % of the time in the last 10 s")
            })
        },
        "raise the limit, or memory.high",
    ),
    (
        Severity::Warning,
        "compaction_off",
        |f| {
            (f.config.compaction == Compaction::Off && f.stats.dead_bytes > f.stats.item_bytes / 4)
                .then(|| format!("compaction is off; {} of dead data are not reclaimed", mib(f.stats.dead_bytes)))
        },
        "set compaction to auto, or run `ebb compact`",
    ),
    (
        Severity::Info,
        "huge_pages_on",
        |f| {
            let huge = f.memory.container.huge_bytes;
            (in_container(f).is_some() && huge > f.memory.used_bytes / 4)
                .then(|| format!("{} of {} used are in huge pages", mib(huge), mib(f.memory.used_bytes)))
        },
        "no action for the cache, which disables huge pages for its process; find what else runs in the container",
    ),
    (
        Severity::Info,
        "request_below_limit",
        |f| {
            let request = f.memory.request_bytes.filter(|request| *request < f.memory.limit_bytes)?;
            Some(format!("the request is {}, the limit {}", mib(request), mib(f.memory.limit_bytes)))
        },
        "set the request to the limit, or enable evictionAware: on a node short of memory, pods above their request are evicted first",
    ),
    (
        Severity::Info,
        "shrink_pending",
        |f| {
            f.memory
                .shrink_pending
                .then(|| format!("the limit file has {}, less than the cgroup enforces", mib(f.memory.limit_bytes)))
        },
        "no action: Ebb is freeing memory so that the resize can complete",
    ),
    (
        Severity::Info,
        "more_memory_would_help",
        |f| {
            let Recent { seconds, reads, misses, missed_evicted, .. } = f.recent;
            let average = f.stats.item_bytes.checked_div(f.stats.entries)?;
            (reads >= ENOUGH_READS && missed_evicted > reads / 20).then(|| {
                let more = mib((missed_evicted * average).min(f.stats.capacity_bytes).next_multiple_of(MIB));
                format!(
                    "{missed_evicted} of {misses} misses in {seconds} s were for keys evicted recently; +{more} would have made \
                     about as many hits (an estimate from the average entry, capped at the current budget: the eviction \
                     history reaches no further)"
                )
            })
        },
        "raise the limit if the hits are worth the memory",
    ),
    (
        Severity::Info,
        "clock_jumped",
        |f| {
            (f.clock_jump_ms > 60_000)
                .then(|| format!("the wall clock jumped by {} s since the start", f.clock_jump_ms / 1000))
        },
        "no action: times to live are unaffected; only the times of receipts follow the wall clock",
    ),
];

/// Whether counts are compared with the start.
fn is_young(facts: &Facts<'_>) -> bool {
    facts.earlier.uptime_ms == 0
}

/// The compared period of a process that is older than it.
fn stretch(facts: &Facts<'_>) -> String {
    format!("in the last {} minutes", (facts.uptime_ms - facts.earlier.uptime_ms) / 60_000)
}

/// The period that was compared, with the total since the start.
fn lately(facts: &Facts<'_>, total: impl fmt::Display) -> String {
    match is_young(facts) {
        true => "since the start".to_owned(),
        false => format!("{} ({total} since the start)", stretch(facts)),
    }
}

/// OOM kills in the compared period; 0 while the kernel's count cannot be read.
fn lately_killed(facts: &Facts<'_>) -> u64 {
    facts.memory.container.events.oom_kills.saturating_sub(facts.earlier.oom_kills)
}

fn processes(n: u64) -> String {
    format!("{n} {}", one_or_many(n, "process", "processes"))
}

fn some(count: u64) -> Option<u64> {
    Some(count).filter(|count| *count > 0)
}

/// `None` outside a container: the values of the cgroup are then those of the whole machine.
fn in_container(facts: &Facts<'_>) -> Option<()> {
    facts.memory.container.limit.map(|_| ())
}

fn mib(bytes: u64) -> String {
    match bytes {
        0..MIB => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes / MIB),
    }
}
