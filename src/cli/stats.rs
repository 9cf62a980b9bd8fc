//! `ebb stats`: where the memory is and what the cache has done.

use clap::Args;
use serde_json::{Value, json};

use super::connect::{AdminAt, refused};
use ebb_config::units::Span;
use ebb_config::units::format::{bytes, count, counted, duration};
use ebb_proto as proto;
use ebb_proto::json::number;
use ebb_terminal::{Failure, Outcome, Output, Table, output};

/// Show memory use, counters and recent receipts.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb stats
  ebb stats --watch                    again each second, until interrupted
  ebb stats --watch --every 200ms --output json")]
pub(crate) struct StatsArgs {
    /// Print periodically until interrupted.
    #[arg(long, short)]
    watch: bool,
    /// Interval between readings with --watch, at least 100ms.
    #[arg(long, value_name = "INTERVAL", default_value = "1s", requires = "watch")]
    every: Span,
    /// Output format; JSON with --watch is one object per line.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    at: AdminAt,
}

/// Prints the account, once or again and again.
pub(super) async fn run(args: StatsArgs) -> Outcome {
    let refuse = |s: tonic::Status| refused("stats", &args.at.admin_addr, &s);
    let mut client = args.at.connect().await?;
    if !args.watch {
        let stats = client.get_stats(proto::GetStatsRequest {}).await.map_err(refuse)?.into_inner();
        return match args.output {
            Output::Json => output::json(&as_json(&stats)),
            Output::Text => output::line(as_text(&stats).trim_end()),
        };
    }
    if args.every.0 < 100 {
        return Err(Failure::Usage("--every must be at least 100ms".into()));
    }
    let request = proto::WatchStatsRequest { interval_ms: args.every.0 };
    let mut stream = client.watch_stats(request).await.map_err(refuse)?.into_inner();
    while let Some(update) = stream.message().await.map_err(refuse)? {
        let stats = update.stats.unwrap_or_default();
        match args.output {
            Output::Json => output::line(&as_json(&stats).to_string())?,
            // Home, print, clear what is left of the screen before: no flicker.
            Output::Text if output::is_screen() => {
                output::line(&format!("\x1b[H\x1b[2J{}", as_text(&stats).trim_end()))?;
            }
            Output::Text => output::line(&as_text(&stats))?,
        }
    }
    Ok(())
}

fn as_text(stats: &proto::GetStatsResponse) -> String {
    let memory = stats.memory.clone().unwrap_or_default();
    let share = |part: u64| match memory.limit_bytes {
        0 => String::new(),
        limit => format!("{:.1} %", part as f64 * 100.0 / limit as f64),
    };
    let mut table = Table::new(["memory", "", "of the limit"]);
    let limit = if memory.limit_bytes == 0 { "none".into() } else { bytes(memory.limit_bytes) };
    table.row(["limit", &limit, &memory.limit_source]);
    for (name, value) in [
        ("used", memory.used_bytes),
        ("resident", memory.rss_bytes),
        ("budget", memory.budget_bytes),
        ("live", memory.live_bytes),
        ("expired", memory.expired_bytes),
        ("dead", memory.dead_bytes),
        ("segments", memory.segment_bytes),
        ("index", memory.index_bytes),
        ("in flight", memory.in_flight_bytes),
    ] {
        table.row([name, &bytes(value), &share(value)]);
    }
    let reads = stats.hits + stats.misses;
    let hit_share =
        if reads == 0 { String::new() } else { format!("{:.2} %", stats.hits as f64 * 100.0 / reads as f64) };
    let mut work = Table::new(["work", "", ""]);
    work.row(["entries", &count(stats.entries), ""]);
    work.row(["hits", &count(stats.hits), &hit_share]);
    for (name, value) in [
        ("misses", stats.misses),
        ("sets", stats.sets),
        ("deletes", stats.deletes),
        ("evictions", stats.evictions),
        ("expirations", stats.expirations),
        ("refusals", stats.refusals),
    ] {
        work.row([name, &count(value), ""]);
    }
    let mut text = format!("{} · up {}\n\n{table}\n{work}", stats.regime, duration(stats.uptime_ms));
    if !stats.receipts.is_empty() {
        text += &format!("\n{}", receipts(&stats.receipts));
    }
    text
}

/// The receipts as a table, one a row.
pub(super) fn receipts(receipts: &[proto::Receipt]) -> Table {
    let mut table = Table::new([
        "receipt",
        "reason",
        "took",
        "cpu",
        "longest step",
        "moved",
        "evicted",
        "freed",
        "rss before",
        "after",
    ]);
    for receipt in receipts {
        let rss = |account: &Option<proto::MemoryAccount>| bytes(account.as_ref().map_or(0, |memory| memory.rss_bytes));
        table.row([
            format!("#{}", receipt.id),
            receipt.reason.clone(),
            micros(receipt.duration_us),
            micros(receipt.cpu_us),
            micros(receipt.longest_step_us),
            bytes(receipt.moved_bytes),
            count(receipt.evicted_items),
            counted(receipt.freed_segments, "segment", "segments"),
            rss(&receipt.before),
            rss(&receipt.after),
        ]);
    }
    table
}

fn micros(us: u64) -> String {
    if us < 10_000 { format!("{us} µs") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}

/// The account with the names it has on the wire.
pub(super) fn as_json(stats: &proto::GetStatsResponse) -> Value {
    json!({
        "memory": memory_json(stats.memory.as_ref()),
        "entries": number(stats.entries),
        "hits": number(stats.hits),
        "misses": number(stats.misses),
        "sets": number(stats.sets),
        "deletes": number(stats.deletes),
        "evictions": number(stats.evictions),
        "expirations": number(stats.expirations),
        "refusals": number(stats.refusals),
        "regime": stats.regime,
        "uptime_ms": number(stats.uptime_ms),
        "receipts": stats.receipts.iter().map(receipt_json).collect::<Vec<_>>(),
        "appended_bytes": number(stats.appended_bytes),
        "copied_bytes": number(stats.copied_bytes),
        "requests": number(stats.requests),
        "p50_us": stats.p50_us,
        "p99_us": stats.p99_us,
        "open_connections": number(stats.open_connections),
        "version": stats.version,
        "at_ms": number(stats.at_ms),
    })
}

/// A receipt with the names it has on the wire.
pub(super) fn receipt_json(receipt: &proto::Receipt) -> Value {
    json!({
        "id": number(receipt.id),
        "reason": receipt.reason,
        "started_at_ms": number(receipt.started_at_ms),
        "duration_us": number(receipt.duration_us),
        "cpu_us": number(receipt.cpu_us),
        "longest_step_us": number(receipt.longest_step_us),
        "longest_wait_us": number(receipt.longest_wait_us),
        "steps": number(receipt.steps),
        "step_p999_us": number(receipt.step_p999_us),
        "moved_bytes": number(receipt.moved_bytes),
        "moved_items": number(receipt.moved_items),
        "evicted_items": number(receipt.evicted_items),
        "expired_items": number(receipt.expired_items),
        "freed_segments": number(receipt.freed_segments),
        "migrated_shards": number(receipt.migrated_shards),
        "before": memory_json(receipt.before.as_ref()),
        "after": memory_json(receipt.after.as_ref()),
    })
}

fn memory_json(memory: Option<&proto::MemoryAccount>) -> Value {
    let Some(memory) = memory else { return Value::Null };
    json!({
        "limit_bytes": number(memory.limit_bytes),
        "limit_source": memory.limit_source,
        "used_bytes": number(memory.used_bytes),
        "rss_bytes": number(memory.rss_bytes),
        "live_bytes": number(memory.live_bytes),
        "dead_bytes": number(memory.dead_bytes),
        "expired_bytes": number(memory.expired_bytes),
        "segment_bytes": number(memory.segment_bytes),
        "index_bytes": number(memory.index_bytes),
        "in_flight_bytes": number(memory.in_flight_bytes),
        "budget_bytes": number(memory.budget_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_reads_from_the_limit_down() {
        let memory = proto::MemoryAccount {
            limit_bytes: 64 << 20,
            limit_source: "cgroup memory.max".into(),
            rss_bytes: 16 << 20,
            ..Default::default()
        };
        let stats = proto::GetStatsResponse {
            memory: Some(memory),
            hits: 3,
            misses: 1,
            regime: "calm".into(),
            receipts: vec![proto::Receipt { id: 7, reason: "drift".into(), freed_segments: 1, ..Default::default() }],
            ..Default::default()
        };
        let text = as_text(&stats);
        assert!(text.starts_with("calm · up 0 ms"), "{text}");
        for part in ["64.0 MiB  cgroup memory.max", "25.0 %", "75.00 %", "#7", " 1 segment "] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert_eq!(as_json(&stats)["memory"]["limit_bytes"], (64 << 20).to_string());
    }
}
