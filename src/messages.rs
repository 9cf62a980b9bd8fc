//! Converts the server's state to messages of the contract, for the admin service and the live page.

use crate::doctor;
use crate::history::History;
use crate::sources::Sources;
use crate::wall_clock;
use ebb_engine::cleaner::{Account, Reason, Report};
use ebb_proto as proto;
use ebb_terminal::Finding;

/// Counters, regime and memory account, without receipts.
pub(crate) fn stats(sources: &Sources, history: &History) -> proto::GetStatsResponse {
    let (stats, memory, now) = (sources.store.stats(), sources.memory.get(), history.now());
    proto::GetStatsResponse {
        memory: Some(memory_account(sources, &sources.cleaner.account())),
        entries: stats.entries,
        hits: stats.hits,
        misses: stats.misses,
        sets: stats.sets,
        deletes: stats.deletes,
        evictions: stats.evictions,
        expirations: stats.expirations,
        refusals: stats.refusals,
        regime: memory.regime.name().to_owned(),
        uptime_ms: sources.clock.now_ms(),
        receipts: Vec::new(),
        appended_bytes: stats.appended_bytes,
        copied_bytes: stats.copied_bytes,
        requests: now.requests,
        p50_us: now.p50_micros,
        p99_us: now.p99_micros,
        open_connections: sources.traffic.totals().open_connections,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at_ms: wall_clock::unix_ms() as i64,
    }
}

/// A memory account of the engine.
pub(crate) fn memory_account(sources: &Sources, account: &Account) -> proto::MemoryAccount {
    proto::MemoryAccount {
        limit_bytes: account.process.limit_bytes,
        limit_source: sources.memory.get().limit_source.name().to_owned(),
        used_bytes: account.process.used_bytes,
        rss_bytes: account.process.rss_bytes,
        live_bytes: account.live_bytes,
        dead_bytes: account.dead_bytes,
        expired_bytes: account.expired_bytes,
        segment_bytes: account.segment_bytes,
        index_bytes: account.index_bytes,
        in_flight_bytes: account.in_flight_bytes,
        budget_bytes: account.budget_bytes,
    }
}

/// The receipt of a run of the cleaner.
pub(crate) fn receipt(sources: &Sources, report: &Report) -> proto::Receipt {
    proto::Receipt {
        id: report.id,
        reason: report.reason.name().to_owned(),
        started_at_ms: (sources.zero_unix_ms() + report.started_ms) as i64,
        duration_us: report.cost.duration_us,
        cpu_us: report.cost.cpu_us,
        longest_step_us: report.cost.longest_step_us,
        longest_wait_us: report.cost.longest_wait_us,
        steps: report.cost.steps,
        step_p999_us: report.cost.step_p999_us,
        moved_bytes: report.done.moved_bytes,
        moved_items: report.done.moved_items,
        evicted_items: report.done.evicted_items,
        expired_items: report.done.expired_items,
        freed_segments: report.done.freed_segments,
        migrated_shards: report.done.migrated_shards,
        before: Some(memory_account(sources, &report.before)),
        after: Some(memory_account(sources, &report.after)),
    }
}

/// The expected receipt of a compaction, which frees the dead bytes in whole segments.
pub(crate) fn dry_run(sources: &Sources) -> proto::Receipt {
    let before = sources.cleaner.account();
    let freed = before.dead_bytes;
    let after = Account { dead_bytes: 0, segment_bytes: before.segment_bytes.saturating_sub(freed), ..before };
    proto::Receipt {
        reason: Reason::Requested.name().to_owned(),
        freed_segments: freed / sources.store.segment_bytes() as u64,
        before: Some(memory_account(sources, &before)),
        after: Some(memory_account(sources, &after)),
        ..proto::Receipt::default()
    }
}

/// The findings of the doctor, worst first.
pub(crate) fn findings(sources: &Sources, history: &History) -> proto::DiagnoseResponse {
    let finding = |Finding { code, severity, evidence, remedy }| proto::diagnose_response::Finding {
        code: code.to_owned(),
        severity: severity.name().to_owned(),
        evidence,
        remedy,
        link: doctor::link(code),
    };
    proto::DiagnoseResponse { findings: doctor::examine(sources, history).into_iter().map(finding).collect() }
}

/// The active configuration.
pub(crate) fn config(sources: &Sources) -> proto::GetConfigResponse {
    let config = sources.config.load();
    let settings = config.rows.iter().map(|row| proto::get_config_response::Setting {
        key: row.key.clone(),
        value: row.value.clone(),
        source: row.source.clone(),
    });
    proto::GetConfigResponse {
        settings: settings.collect(),
        problem: config.problem.clone().unwrap_or_default(),
        generation: config.generation,
        applied_at_ms: config.applied_at_ms as i64,
    }
}
