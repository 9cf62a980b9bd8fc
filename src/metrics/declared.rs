//! Every metric, in reading order.

use super::reading::Reading;
use super::{Series, Value};
use crate::service;
use crate::service::{Counts, LeaseResult, NamespaceUsage};
use crate::traffic::{CODES, Method, Outcome, Rejection};
use ebb_engine::cleaner::{Reason, Total};
use ebb_engine::decide::Regime;
use ebb_engine::store::Miss;
use ebb_injector::events::Fate;
use ebb_listener::Closed;
use strum::VariantArray as _;
use tonic::Code;

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    #[cfg(test)]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Unit of a metric that is not a plain count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Bytes,
    Seconds,
}

/// A metric.
#[derive(Clone, Copy)]
pub(super) struct Metric {
    /// The name without prefix and unit.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Option<Measure>,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) read: fn(&Reading) -> Series,
}

impl Metric {
    /// The full name.
    #[cfg(test)]
    pub(super) fn full_name(&self) -> String {
        let unit = match self.unit {
            Some(Measure::Bytes) => "_bytes",
            Some(Measure::Seconds) => "_seconds",
            None => "",
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("ebb_{}{unit}{total}", self.name)
    }
}

/// The heading above this metric on the reference page, if it starts a section.
#[cfg(test)]
pub(super) fn group(name: &str) -> Option<&'static str> {
    Some(match name {
        "memory_limit" => "Memory",
        "entries" => "The cache",
        "cleaner_runs" => "The cleaner",
        "requests" => "Requests",
        "config_good" => "The process",
        _ => return None,
    })
}

const fn gauge(name: &'static str, unit: Option<Measure>, help: &'static str, read: fn(&Reading) -> Series) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, help, labels: &[], read }
}

const fn counter(
    name: &'static str,
    unit: Option<Measure>,
    help: &'static str,
    read: fn(&Reading) -> Series,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit, help, labels: &[], read }
}

const fn by(labels: &'static [&'static str], metric: Metric) -> Metric {
    Metric { labels, ..metric }
}

fn one(value: u64) -> Series {
    vec![(vec![], Value::Whole(value))]
}

fn real(value: f64) -> Series {
    vec![(vec![], Value::Real(value))]
}

fn namespaces(reading: &Reading, of: fn(&NamespaceUsage) -> u64) -> Series {
    let named = |usage: &NamespaceUsage| {
        let name = if usage.name.is_empty() { "<others>".into() } else { usage.name.clone().into() };
        (vec![name], Value::Whole(of(usage)))
    };
    reading.namespaces.iter().map(named).collect()
}

fn counts(usage: &NamespaceUsage) -> Counts {
    usage.counts.unwrap_or_default()
}

fn seconds_of_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn runs(reading: &Reading, of: impl Fn(&Total) -> Value) -> Series {
    Reason::VARIANTS.iter().zip(&reading.runs).map(|(reason, total)| (vec![reason.name().into()], of(total))).collect()
}

const BYTES: Option<Measure> = Some(Measure::Bytes);
const SECONDS: Option<Measure> = Some(Measure::Seconds);

/// Every metric.
pub(super) static METRICS: &[Metric] = &[
    gauge("memory_limit", BYTES, "Effective memory limit, in bytes", |r| one(r.memory.limit_bytes)),
    by(
        &["source"],
        gauge("memory_limit_source", None, "Source of the memory limit (always 1)", |r| {
            vec![(vec![r.memory.limit_source.name().into()], Value::Whole(1))]
        }),
    ),
    gauge("memory_reserve", BYTES, "Memory kept free under the limit, in bytes", |r| one(r.memory.reserve_bytes)),
    gauge("memory_request", BYTES, "Memory request of the container, in bytes (0 if unknown)", |r| {
        one(r.memory.request_bytes.unwrap_or(0))
    }),
    gauge("memory_used", BYTES, "Memory charged against the limit, in bytes", |r| one(r.memory.used_bytes)),
    gauge("memory_rss", BYTES, "Resident set size of the process, in bytes", |r| one(r.memory.rss_bytes)),
    gauge(
        "memory_overhead",
        BYTES,
        "Memory charged to the container that the cache does not account for, in bytes",
        |r| one(r.memory.used_bytes.saturating_sub(r.engine_bytes())),
    ),
    gauge("memory_swapped", BYTES, "Memory of the container in swap, in bytes", |r| one(r.memory.container.swap_bytes)),
    gauge("memory_huge_page", BYTES, "Anonymous memory of the container in huge pages, in bytes", |r| {
        one(r.memory.container.huge_bytes)
    }),
    gauge(
        "memory_shrink_pending",
        None,
        "Pending decrease of the memory limit (1 while usage is above the new limit, else 0)",
        |r| one(r.memory.shrink_pending.into()),
    ),
    gauge(
        "memory_pressure_ratio",
        None,
        "Share of the last 10 s in which tasks in the container stalled on memory (PSI some), 0 to 1",
        |r| real(r.memory.container.pressure.percent / 100.0),
    ),
    counter(
        "memory_stalled",
        SECONDS,
        "Time for which tasks in the container stalled on memory (PSI some), in seconds",
        |r| real(r.memory.container.pressure.total_micros as f64 / 1e6),
    ),
    by(
        &["event"],
        counter("cgroup_events", None, "Memory events of the container (memory.events), by event", |r| {
            let events = r.memory.container.events;
            let named = [
                ("low", events.low),
                ("high", events.high),
                ("max", events.max),
                ("oom", events.oom),
                ("oom_kill", events.oom_kills),
            ];
            named.map(|(name, count)| (vec![name.into()], Value::Whole(count))).into()
        }),
    ),
    by(
        &["regime"],
        gauge("regime", None, "Current memory regime (1 for the active one, else 0)", |r| {
            let is = |regime: Regime| Value::Whole((regime == r.memory.regime).into());
            Regime::VARIANTS.iter().map(|regime| (vec![regime.name().into()], is(*regime))).collect()
        }),
    ),
    by(
        &["regime"],
        counter("regime", SECONDS, "Time spent in each memory regime, in seconds", |r| {
            let held = |regime: Regime| Value::Real(seconds_of_ms(r.memory.in_regime_ms[regime as usize]));
            Regime::VARIANTS.iter().map(|regime| (vec![regime.name().into()], held(*regime))).collect()
        }),
    ),
    gauge("budget", BYTES, "Memory budget for segments, index and in-flight data, in bytes", |r| {
        one(r.stats.capacity_bytes)
    }),
    gauge("live", BYTES, "Keys and values of live items, in bytes", |r| one(r.stats.live_bytes)),
    gauge("item", BYTES, "Live items with their headers, in bytes", |r| one(r.stats.item_bytes)),
    gauge("expired", BYTES, "Expired items that are not yet removed, in bytes (estimate)", |r| {
        one(r.stats.expired_bytes)
    }),
    gauge("dead", BYTES, "Dead bytes in segments", |r| one(r.stats.dead_bytes)),
    gauge("segment", BYTES, "Resident memory of segments, in bytes", |r| one(r.stats.segment_bytes)),
    gauge("index", BYTES, "Memory of the index of all shards, in bytes", |r| one(r.stats.index_bytes)),
    gauge("in_flight", BYTES, "Requests and responses in flight, in bytes", |r| one(r.stats.in_flight_bytes)),
    gauge("entries", None, "Entries stored, expired ones included until they are removed", |r| one(r.stats.entries)),
    counter("hits", None, "Reads that found a value", |r| one(r.stats.hits)),
    by(
        &["reason"],
        counter("misses", None, "Reads that found no value, by reason", |r| {
            let of = |miss: Miss| (vec![miss.name().into()], Value::Whole(r.stats.misses_by[miss as usize]));
            Miss::VARIANTS.iter().copied().map(of).collect()
        }),
    ),
    counter("sets", None, "Values stored", |r| one(r.stats.sets)),
    counter("deletes", None, "Keys deleted by callers", |r| one(r.stats.deletes)),
    counter("evictions", None, "Entries evicted to make room", |r| one(r.stats.evictions)),
    counter("expirations", None, "Entries removed because their time to live passed", |r| one(r.stats.expirations)),
    counter("invalidated", None, "Entries removed by the invalidation of a namespace or prefix", |r| {
        one(r.stats.invalidated)
    }),
    by(
        &["cache_namespace"],
        counter(
            "namespace_hits",
            None,
            "Reads that found a value, by namespace (`<others>` after the first 32)",
            |r| namespaces(r, |usage| counts(usage).hits),
        ),
    ),
    by(
        &["cache_namespace"],
        counter("namespace_misses", None, "Reads that found no value, by namespace", |r| {
            namespaces(r, |usage| counts(usage).misses)
        }),
    ),
    by(
        &["cache_namespace"],
        counter("namespace_sets", None, "Values stored, by namespace", |r| namespaces(r, |usage| counts(usage).sets)),
    ),
    by(
        &["cache_namespace"],
        counter("namespace_evictions", None, "Entries evicted to make room, by namespace", |r| {
            namespaces(r, |usage| usage.evictions)
        }),
    ),
    by(
        &["cache_namespace"],
        gauge("namespace_entries", None, "Entries in the index, by namespace", |r| {
            namespaces(r, |usage| usage.entries)
        }),
    ),
    by(
        &["cache_namespace"],
        gauge("namespace_live", BYTES, "Keys and values of these entries, by namespace", |r| {
            namespaces(r, |usage| usage.live_bytes)
        }),
    ),
    gauge("leases", None, "Leases and hold-offs that have not ended", |r| one(r.leases.leases)),
    gauge(
        "lease_waiters",
        None,
        "Callers that wait until another caller has filled a key, counted for each key",
        |r| one(r.leases.waiters),
    ),
    by(
        &["result"],
        counter("lease_requests", None, "Answered requests for leases, by result", |r| {
            let of = |result: LeaseResult| {
                let name: &str = result.into();
                (vec![name.into()], Value::Whole(r.lease_figures.requests[result as usize]))
            };
            LeaseResult::VARIANTS.iter().copied().map(of).collect()
        }),
    ),
    counter("lease_fills", None, "Values stored under a lease", |r| one(r.lease_figures.fills)),
    counter("lease_fills_lost", None, "Values refused because their lease had ended", |r| one(r.lease_figures.lost)),
    counter("appended", BYTES, "Items written by callers, in bytes", |r| one(r.stats.appended_bytes)),
    counter(
        "copied",
        BYTES,
        "Items copied by the cleaner, in bytes (divide by ebb_appended_bytes_total for the copy ratio)",
        |r| one(r.stats.copied_bytes),
    ),
    by(
        &["reason"],
        counter("cleaner_runs", None, "Cleaner runs that moved, freed or removed anything, by reason", |r| {
            runs(r, |total| Value::Whole(total.runs))
        }),
    ),
    by(
        &["reason"],
        counter("cleaner_moved", BYTES, "Items copied by cleaner runs, in bytes", |r| {
            runs(r, |total| Value::Whole(total.done.moved_bytes))
        }),
    ),
    by(
        &["reason"],
        counter("cleaner_freed_segments", None, "Segments freed by cleaner runs", |r| {
            runs(r, |total| Value::Whole(total.done.freed_segments))
        }),
    ),
    by(
        &["reason"],
        counter("cleaner_freed", BYTES, "Segments freed by cleaner runs, in bytes", |r| {
            runs(r, |total| Value::Whole(total.done.freed_segments * r.one_segment_bytes))
        }),
    ),
    by(
        &["reason"],
        counter("cleaner_cpu", SECONDS, "CPU time of cleaner runs, in seconds", |r| {
            runs(r, |total| Value::Real(total.cost.cpu_us as f64 / 1e6))
        }),
    ),
    by(
        &["reason"],
        gauge(
            "cleaner_longest_step",
            SECONDS,
            "Longest step of a cleaner run since the start, in seconds of CPU time",
            |r| runs(r, |total| Value::Real(total.cost.longest_step_us as f64 / 1e6)),
        ),
    ),
    by(
        &["reason"],
        gauge(
            "cleaner_longest_wait",
            SECONDS,
            "Longest time that a caller waited for a lock during a cleaner run, in seconds",
            |r| runs(r, |total| Value::Real(total.cost.longest_wait_us as f64 / 1e6)),
        ),
    ),
    by(
        &["method", "code"],
        counter("requests", None, "Completed calls and pipe operations, by method and status code", |r| {
            let rows = Method::VARIANTS.iter().zip(&r.traffic.ended);
            let codes = rows.flat_map(|(method, counts)| (0..CODES).map(move |code| (method, code, counts[code])));
            let seen = codes.filter(|(_, code, count)| *code == 0 || *count > 0);
            seen.map(|(method, code, count)| (vec![method.name().into(), code_name(code).into()], Value::Whole(count)))
                .collect()
        }),
    ),
    by(
        &["method", "outcome"],
        Metric {
            kind: Kind::Histogram,
            ..counter(
                "request_duration",
                SECONDS,
                "Duration of a call from its headers to its response, and of one pipe operation in 32, in seconds; \
                 outcome `refused`: the status was not `ok`",
                |r| {
                    let timed =
                        Method::VARIANTS.iter().zip(&r.traffic.durations).filter(|(method, _)| !method.is_open_ended());
                    let rows = timed.flat_map(|(method, both)| {
                        Outcome::VARIANTS
                            .iter()
                            .zip(both)
                            .map(move |(outcome, durations)| (method, *outcome, durations))
                    });
                    let seen = rows.filter(|(_, outcome, durations)| *outcome == Outcome::Ok || durations.count() > 0);
                    seen.map(|(method, outcome, durations)| {
                        (vec![method.name().into(), outcome.name().into()], Value::Durations(*durations))
                    })
                    .collect()
                },
            )
        },
    ),
    by(
        &["reason"],
        counter("refusals", None, "Refused calls, pipe operations and batch items, by reason", |r| {
            let of = |(reason, count): (&service::Reason, &u64)| (vec![reason.name().into()], Value::Whole(*count));
            service::Reason::VARIANTS.iter().zip(&r.traffic.refusals).map(of).collect()
        }),
    ),
    by(
        &["kind"],
        counter("transport_rejections", None, "Connections and requests rejected by the transport, by kind", |r| {
            let of = |(kind, count): (Rejection, &u64)| (vec![kind.name().into()], Value::Whole(*count));
            Rejection::VARIANTS.iter().copied().zip(&r.traffic.rejections).map(of).collect()
        }),
    ),
    gauge("open_calls", None, "Calls that are open now", |r| one(r.traffic.open_calls)),
    gauge("open_connections", None, "Client connections that are open now", |r| one(r.traffic.open_connections)),
    counter("accepted_connections", None, "Client connections accepted", |r| one(r.traffic.accepted_connections)),
    counter("socket_files_recreated", None, "Unix socket files recreated after their removal", |r| {
        one(r.sockets.made_again)
    }),
    counter("log_lines_dropped", None, "Log lines dropped because standard error was not read in time", |r| {
        one(r.dropped_log_lines)
    }),
    gauge("http_connections", None, "Open connections of the HTTP listener", |r| one(r.http.open)),
    gauge("http_in_flight", BYTES, "Memory charged to connections of the HTTP listener, in bytes", |r| {
        one(r.http.bytes)
    }),
    by(
        &["reason"],
        counter(
            "http_closed_connections",
            None,
            "Connections of the HTTP listener closed by the server, by reason",
            |r| {
                let of = |reason: Closed| (vec![reason.name().into()], Value::Whole(r.http.closed[reason as usize]));
                Closed::VARIANTS.iter().copied().map(of).collect()
            },
        ),
    ),
    counter("spans_sent", None, "Spans accepted by the trace collector", |r| one(r.spans.sent)),
    counter("spans_dropped", None, "Spans dropped because the trace collector was slow or unreachable", |r| {
        one(r.spans.dropped)
    }),
    by(
        &["outcome"],
        counter("pod_events", None, "Kubernetes Events on the pod, by outcome (setting `pod.events`)", |r| {
            Fate::VARIANTS
                .iter()
                .map(|fate| (vec![fate.name().into()], Value::Whole(r.pod_events[*fate as usize])))
                .collect()
        }),
    ),
    gauge("config_good", None, "State of the configuration on disk (1 active, 0 rejected)", |r| {
        one(r.config.problem.is_none().into())
    }),
    gauge("config_generation", None, "Number of the active configuration, counted from 1 at the start", |r| {
        one(r.config.generation)
    }),
    gauge(
        "config_applied_timestamp",
        SECONDS,
        "Time at which the active configuration was applied, in seconds since 1970",
        |r| real(seconds_of_ms(r.config.applied_at_ms)),
    ),
    gauge("uptime", SECONDS, "Time since the process started, in seconds", |r| real(seconds_of_ms(r.uptime_ms))),
    by(
        &["version"],
        gauge("build_info", None, "Version of Ebb (always 1)", |_| {
            vec![(vec![env!("CARGO_PKG_VERSION").into()], Value::Whole(1))]
        }),
    ),
];

/// The label value of a status code.
fn code_name(code: usize) -> &'static str {
    match Code::from_i32(code as i32) {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
