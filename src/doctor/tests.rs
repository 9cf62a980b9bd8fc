//! Tests of each rule, and of the findings over an hour.

use super::rules::MIB;
use super::*;
use crate::governor::{Events, LimitSource, Pressure, Reading, Snapshot};
use crate::sources::SocketFiles;
use ebb_config::{ActiveConfig, Compaction};
use ebb_engine::store::Stats;

fn healthy() -> (Snapshot, Stats, ActiveConfig) {
    let memory = Snapshot {
        limit_bytes: 256 * MIB,
        budget_bytes: 200 * MIB,
        limit_source: LimitSource::MemoryMax,
        container: Reading { limit: Some((256 * MIB, LimitSource::MemoryMax)), ..Reading::default() },
        ..Snapshot::default()
    };
    let stats = Stats {
        entries: 1_000_000,
        live_bytes: 100 * MIB,
        item_bytes: 110 * MIB,
        capacity_bytes: 200 * MIB,
        ..Stats::default()
    };
    (memory, stats, ActiveConfig::default())
}

fn facts<'a>((memory, stats, config): &'a (Snapshot, Stats, ActiveConfig)) -> Facts<'a> {
    Facts {
        memory,
        stats,
        config,
        recent: Recent::default(),
        uptime_ms: 1,
        earlier: Point::default(),
        too_large: 0,
        max_value_bytes: MIB,
        segment_bytes: 256 << 10,
        open_connections: 3,
        sockets: SocketFiles::default(),
        http: ebb_listener::Counts::default(),
        at_cap: 0,
        clock_jump_ms: 0,
    }
}

#[test]
fn a_socket_file_that_was_removed_is_a_finding_for_a_while() {
    let healthy = healthy();
    let removed = SocketFiles { made_again: 1, last_ms: 1_000, lost: None };
    let at = |uptime_ms| Facts { uptime_ms, sockets: removed.clone(), ..facts(&healthy) };
    assert_eq!(codes(&at(2_000)), ["socket_removed"]);
    assert_eq!(codes(&at(700_000)), [""; 0]);
    let lost = SocketFiles { lost: Some("another server listens there".to_owned()), ..SocketFiles::default() };
    assert_eq!(codes(&Facts { sockets: lost, ..facts(&healthy) }), ["socket_lost"]);
}

fn codes(facts: &Facts<'_>) -> Vec<&'static str> {
    diagnose(facts).into_iter().map(|finding| finding.code).collect()
}

#[test]
fn a_healthy_server_has_no_findings() {
    let healthy = healthy();
    assert_eq!(diagnose(&facts(&healthy)), []);
}

#[test]
fn each_trouble_is_named() {
    type Plant = fn(&mut (Snapshot, Stats, ActiveConfig));
    let planted: &[(&str, Plant)] = &[
        ("oom_killed", |s| s.0.container.events = Events { oom_kills: 2, ..Events::default() }),
        ("config_rejected", |s| s.2.problem = Some("tick: 1 is out of range (10 to 2000 ms)".to_owned())),
        ("limit_too_small", |s| s.0.budget_bytes = 7 * MIB),
        ("no_memory_limit", |s| s.0.limit_source = LimitSource::Default),
        ("limit_beyond_machine", |s| s.0.beyond_machine = Some((1 << 40, LimitSource::MaxMemory))),
        ("memory_short", |s| s.1.refusals = 1),
        ("values_fill_segments", |s| s.1.entries = 1_000),
        ("memory_held_by_connections", |s| s.1.in_flight_bytes = 9 * MIB),
        ("memory_unaccounted", |s| s.0.used_bytes = 70 * MIB),
        ("copy_ratio_high", |s| (s.1.appended_bytes, s.1.copied_bytes) = (100 * MIB, 301 * MIB)),
        ("swap_in_use", |s| s.0.container.swap_bytes = 4096),
        ("memory_pressure", |s| s.0.container.pressure = Pressure { percent: 12.0, total_micros: 1 }),
        ("compaction_off", |s| {
            (s.2.compaction, s.1.dead_bytes) = (Compaction::Off, 50 * MIB);
        }),
        ("huge_pages_on", |s| s.0.container.huge_bytes = MIB),
        ("request_below_limit", |s| s.0.request_bytes = Some(64 * MIB)),
        ("shrink_pending", |s| s.0.shrink_pending = true),
    ];
    let found = planted.iter().map(|(code, plant)| {
        let mut sick = healthy();
        plant(&mut sick);
        (*code, codes(&facts(&sick)))
    });
    let expected = planted.iter().map(|(code, _)| (*code, vec![*code]));
    assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let healthy = healthy();
    let recent = Recent { seconds: 60, reads: 100_000, misses: 20_000, missed_evicted: 0, evictions: 600_000 };
    assert_eq!(codes(&Facts { recent, ..facts(&healthy) }), ["eviction_storm"]);
    assert_eq!(codes(&Facts { too_large: 1, ..facts(&healthy) }), ["values_too_large"]);
    let http = ebb_listener::Counts { closed: [1, 1], ..ebb_listener::Counts::default() };
    assert_eq!(codes(&Facts { http, ..facts(&healthy) }), ["http_connections_closed"]);
    assert_eq!(codes(&Facts { at_cap: 3, ..facts(&healthy) }), ["connection_cap_reached"]);
    assert_eq!(codes(&Facts { clock_jump_ms: 70_000, ..facts(&healthy) }), ["clock_jumped"]);
}

/// Severity and evidence of the finding one second after the given minutes, with the given counts per minute.
fn told(code: &str, minutes: u64, counted_by: impl Fn(u64) -> Point) -> Option<(Severity, String)> {
    let moment = |minute| Point { uptime_ms: minute * 60_000 + 1_000, ..counted_by(minute) };
    let history = History::of((0..=minutes).map(moment));
    let (earlier, now) = (history.before(EARLIER_MS), history.now());
    let (mut memory, mut stats, config) = healthy();
    memory.container.events.oom_kills = now.oom_kills;
    stats.refusals = now.refusals;
    (stats.appended_bytes, stats.copied_bytes) = (now.appended_bytes, now.copied_bytes);
    let server = (memory, stats, config);
    let (uptime_ms, earlier) = (now.uptime_ms, compared(now.uptime_ms, earlier, now.oom_kills));
    let findings = diagnose(&Facts { uptime_ms, earlier, too_large: now.too_large, ..facts(&server) });
    let mut named = findings.into_iter().filter(|finding| finding.code == code);
    let first = named.next().map(|finding| (finding.severity, finding.evidence));
    assert_eq!(named.next(), None, "it is told once");
    first
}

fn warning(words: &str) -> Option<(Severity, String)> {
    Some((Severity::Warning, words.to_owned()))
}

fn error(words: &str) -> Option<(Severity, String)> {
    Some((Severity::Error, words.to_owned()))
}

#[test]
fn reports_recent_refusals_and_forgets_them_after_ten_minutes() {
    let refused_at = |at: u64| {
        told("memory_short", 60, move |minute| Point {
            refusals: if minute < at { 328 } else { 340 },
            ..Point::default()
        })
    };
    let found =
        "the regime is calm; 12 writes were refused for lack of memory in the last 10 minutes (340 since the start)";
    assert_eq!((refused_at(59), refused_at(51)), (warning(found), warning(found)));
    assert_eq!((refused_at(49), refused_at(1)), (None, None));
}

#[test]
fn a_young_process_is_asked_about_its_whole_life() {
    let refused = |minutes| told("memory_short", minutes, |_| Point { refusals: 1, ..Point::default() });
    let found = warning("the regime is calm; 1 write was refused for lack of memory since the start");
    assert_eq!((refused(0), refused(9)), (found.clone(), found), "also what came before the first look");
    assert_eq!(refused(10), None);
    let nobody_looked = compared(0, None, 3);
    assert_eq!(nobody_looked, Point { oom_kills: 3, ..Point::default() });
}

#[test]
fn values_too_large_are_those_of_the_last_ten_minutes() {
    let refused_at = |at: u64| {
        told("values_too_large", 60, move |minute| Point {
            too_large: if minute < at { 8 } else { 9 },
            ..Point::default()
        })
    };
    let found = warning("1 value was refused for exceeding 1 MiB in the last 10 minutes (9 since the start)");
    assert_eq!((refused_at(59), refused_at(49)), (found, None));
}

#[test]
fn compares_copied_with_written_bytes_of_ten_minutes() {
    // An hour with ten MiB written and copied per minute, and different last minutes.
    let after = |minutes: u64, appended: u64, copied: u64| {
        told("copy_ratio_high", 60, move |minute| {
            let late = minute.saturating_sub(60 - minutes);
            let bytes = |each: u64| ((minute - late) * 10 + late * each) * MIB;
            Point { appended_bytes: bytes(appended), copied_bytes: bytes(copied), ..Point::default() }
        })
    };
    let found =
        "the cleaner copied 280 MiB for 70 MiB written in the last 10 minutes (780 MiB for 570 MiB since the start)";
    assert_eq!(after(10, 7, 28), warning(found), "however calm the hour was");
    assert_eq!(after(10, 6, 28), None, "too little was written for a ratio");
    let over = told("copy_ratio_high", 60, |minute| Point {
        appended_bytes: minute * 10 * MIB,
        copied_bytes: minute.min(40) * 100 * MIB,
        ..Point::default()
    });
    assert_eq!(over, None, "it is over");
}

#[test]
fn an_oom_kill_is_an_error_for_ten_minutes() {
    let killed_at = |at: u64, minutes: u64| {
        told("oom_killed", minutes, move |minute| Point {
            oom_kills: if minute < at { 1 } else { 3 },
            ..Point::default()
        })
    };
    let container = "since the container started";
    assert_eq!(
        killed_at(59, 60),
        error(&format!("the kernel killed 2 processes in the last 10 minutes (3 {container})"))
    );
    assert_eq!(killed_at(49, 60), warning(&format!("the kernel killed 3 processes {container}")));
    assert_eq!(
        killed_at(99, 4),
        error("the kernel killed 1 process in this container before Ebb started"),
        "that may be why it did"
    );
    assert_eq!(killed_at(99, 10), warning(&format!("the kernel killed 1 process {container}")));
    assert_eq!(killed_at(3, 4), error(&format!("the kernel killed 2 processes since Ebb started (3 {container})")));
}

#[test]
fn how_much_memory_would_help_is_an_estimate_with_its_basis() {
    let healthy = healthy();
    let recent = Recent { seconds: 60, reads: 100_000, misses: 20_000, missed_evicted: 10_000, evictions: 10_000 };
    let findings = diagnose(&Facts { recent, ..facts(&healthy) });
    assert_eq!(findings[0].code, "more_memory_would_help");
    assert!(findings[0].evidence.starts_with("10000 of 20000 misses in 60 s"), "{}", findings[0].evidence);
    assert!(findings[0].evidence.contains("+2 MiB would"), "{}", findings[0].evidence);
    let rarely = Recent { missed_evicted: 4_000, ..recent };
    assert_eq!(codes(&Facts { recent: rarely, ..facts(&healthy) }), [""; 0]);
}

#[test]
fn findings_come_worst_first() {
    assert!(RULES.is_sorted_by_key(|(severity, ..)| *severity));
    assert!(RULES.iter().all(|(.., remedy)| !remedy.ends_with('.')));
}
