//! `ebb stats`: memory use and counters.

use clap::Args;

use super::connect::{AdminAt, At, print_each, refused};
use ebb_config::units::Span;
use ebb_config::units::format::{bytes, count, counted, duration};
use ebb_proto as proto;
use ebb_proto::json;
use ebb_terminal::{Failure, Outcome, Output, Table, output};

/// Show memory use, counters and recent receipts.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb stats
  ebb stats pod/shop-0 -n shop         the sidecar of a pod
  ebb stats deploy/shop                of every pod of a workload
  ebb stats --watch                    refresh every second until interrupted
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

/// Prints the statistics, once or periodically.
pub(super) async fn run(args: StatsArgs) -> Outcome {
    if !args.watch {
        let ask = async |at: &At| {
            let refuse = |s: tonic::Status| refused("stats", at, &s);
            Ok(at.connect().await?.get_stats(proto::GetStatsRequest {}).await.map_err(refuse)?.into_inner())
        };
        return print_each(&args.at, args.output, ask, as_text, json::of).await.map(drop);
    }
    if args.every.0 < 100 {
        return Err(Failure::Usage("--every must be at least 100ms".into()));
    }
    let at = args.at.server().await?;
    let refuse = |s: tonic::Status| refused("stats", &at, &s);
    let mut client = at.connect().await?;
    let request = proto::WatchStatsRequest { interval_ms: args.every.0 };
    let mut stream = client.watch_stats(request).await.map_err(refuse)?.into_inner();
    while let Some(update) = stream.message().await.map_err(refuse)? {
        let stats = update.stats.unwrap_or_default();
        match args.output {
            Output::Json => output::line(&json::of(&stats).to_string())?,
            Output::Text if output::is_screen() => output::screen(as_text(&stats).trim_end())?,
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

/// The receipts as a table.
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
        let parts = ["64.0 MiB  cgroup memory.max", "25.0 %", "75.00 %", "#7", " 1 segment "];
        let missing: Vec<_> = parts.into_iter().filter(|part| !text.contains(part)).collect();
        assert!(missing.is_empty(), "{missing:?} is missing in\n{text}");
        assert_eq!(json::of(&stats)["memory"]["limit_bytes"], (64 << 20).to_string());
    }
}
