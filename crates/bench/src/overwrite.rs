//! `ebb-bench overwrite`: random overwrites of items that fit, and evictions that were unnecessary.
//!
//! ```text
//!   fill to 84 % of the budget ──overwrite at random, 8 s a rate──► read every key
//! ```
//! Each rate starts with a new store. "Live" in percent of the budget includes headers and the index: compaction cannot
//! lower it, and the governor compares it with its watermarks. "RSS ÷ live" counts keys and values only, as in all
//! benchmarks here.

use anyhow::anyhow;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::engine::{self, Governed, Pace, ValueBytes, Writer, size_within};
use super::process::{cpu_of_thread, pause, rss_bytes};
use super::watch::Watch;
use ebb_config::units::ByteSize;
use ebb_config::units::format::{bytes, count};
use ebb_engine::clock::Clock;
use ebb_engine::store::Stats;
use ebb_terminal::{Failure, Outcome, Output, Table, output};

/// Overwrite items that fit, and count evictions.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb-bench overwrite
  ebb-bench overwrite --rate 10,20 --seconds 30
  ebb-bench overwrite --budget 120Mi --live-percent 70 --output json
  ebb-bench overwrite --budget 4Gi --started-at 64Mi --rate unlimited

Columns: `lost` are keys that cannot be read at the end; an item that is evicted and then
overwritten is not lost. RSS is that of this process less what it was before the fill: on
average over the second half of the writing, and its peak. Keys have 16 bytes.")]
pub(crate) struct OverwriteArgs {
    /// Budget of the engine.
    #[arg(long, value_name = "SIZE", default_value = "58Mi", value_parser = size_within(16 << 20, 4 << 30))]
    budget: ByteSize,
    /// Create the store with this budget and raise it before anything is stored, as when a container's limit is raised
    /// in place.
    #[arg(long, value_name = "SIZE", value_parser = size_within(16 << 20, 4 << 30))]
    started_at: Option<ByteSize>,
    /// Live items with their headers and the index, in percent of the budget.
    #[arg(long, value_name = "PERCENT", default_value_t = 84, value_parser = clap::value_parser!(u64).range(10..=95))]
    live_percent: u64,
    /// Rates of keys and values to write, in MiB per second, or `unlimited`; measured one after another.
    #[arg(long, value_name = "MIB", value_delimiter = ',', default_value = "30,50,unlimited")]
    rate: Vec<Rate>,
    /// Minimum and maximum size of a value, in bytes; every write draws a new size.
    #[arg(long, value_name = "MIN-MAX", default_value = "100-500")]
    value_bytes: ValueBytes,
    /// Duration of writing at each rate.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Seed of keys and sizes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// A rate in MiB per second; `None` for unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate(Option<u64>);

impl FromStr for Rate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match (text, text.parse()) {
            ("unlimited", _) => Ok(Self(None)),
            (_, Ok(mib @ 1..=10_000)) => Ok(Self(Some(mib))),
            _ => Err(anyhow!("rate is out of range (1 to 10000 MiB per second, or unlimited)")),
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(mib) => write!(f, "{mib} MiB/s"),
            None => f.write_str("unlimited"),
        }
    }
}

/// Time for the allocator to return freed memory and for the cleaner to finish.
const REST: Duration = Duration::from_millis(1500);
/// Writes between two readings of the clock.
const BURST: u64 = 16;

/// The initial content of the store.
#[derive(Clone, Copy, Debug, Default)]
struct Filled {
    items: u64,
    /// Keys and values.
    live_bytes: u64,
    /// Keys and values with headers and the index.
    held_bytes: u64,
}

/// Result of one rate.
#[derive(Clone, Debug, Default)]
struct Row {
    rate: String,
    written_bytes: u64,
    took: Duration,
    evicted: u64,
    items: u64,
    lost: u64,
    refused: u64,
    /// Mean over the second half of the writing.
    rss_bytes: f64,
    rss_peak_bytes: u64,
    live_bytes: u64,
    appended_bytes: u64,
    copied_bytes: u64,
    cleaner_cpu: Duration,
}

impl Row {
    fn mib_per_second(&self) -> f64 {
        self.written_bytes as f64 / (1 << 20) as f64 / self.took.as_secs_f64()
    }

    fn evicted_percent(&self) -> f64 {
        self.evicted as f64 * 100.0 / self.items.max(1) as f64
    }

    fn to_live(&self, rss_bytes: f64) -> f64 {
        rss_bytes / self.live_bytes.max(1) as f64
    }

    fn copied_per_written(&self) -> f64 {
        self.copied_bytes as f64 / self.appended_bytes.max(1) as f64
    }

    fn cleaner_ms_per_second(&self) -> f64 {
        self.cleaner_cpu.as_secs_f64() * 1000.0 / self.took.as_secs_f64()
    }
}

pub(super) fn run(args: OverwriteArgs) -> Outcome {
    // As in a server, so that resident memory is comparable.
    let _ = ebb_engine::huge_pages::disable(); // a kernel without them has nothing to turn off
    let mut rows = Vec::new();
    let mut filled = Filled::default();
    for &rate in &args.rate {
        output::note(format_args!("overwrite: {rate} for {} s", args.seconds));
        let (now, row) = measure(&args, rate)?;
        filled = now;
        rows.push(row);
    }
    match args.output {
        Output::Json => output::json(&as_json(&args, filled, &rows)),
        Output::Text => output::line(as_text(&args, filled, &rows).trim_end()),
    }
}

fn measure(args: &OverwriteArgs, rate: Rate) -> Result<(Filled, Row), Failure> {
    pause(REST);
    let rss_before = rss_bytes(std::process::id())?;
    let (clock, store) = (Clock::monotonic(), engine::store(args.started_at.unwrap_or(args.budget).0, args.seed)?);
    store.ledger().set_capacity(args.budget.0);
    let mut writer = Writer::new(&store, &clock, args.value_bytes, args.seed);
    let items = writer.fill(args.budget.0 / 100 * args.live_percent).map_err(|error| {
        Failure::Usage(format!("--live-percent {} of --budget {}: {error:#}", args.live_percent, args.budget))
    })?;
    let before = store.stats();
    let Stats { live_bytes, item_bytes, index_bytes, .. } = before;
    let filled = Filled { items, live_bytes, held_bytes: item_bytes + index_bytes };
    let _governed = Governed::start(&store, &clock)?;
    pause(REST);

    let watch = Watch::start(std::process::id());
    let (cpu_before, bytes_before) = (cpu_of_thread("ebb-cleaner"), writer.stored_bytes);
    let pace = Pace::new(rate.0.map_or(f64::MAX, |mib| (mib << 20) as f64));
    let (started, length) = (Instant::now(), Duration::from_secs(args.seconds));
    while started.elapsed() < length {
        for _ in 0..BURST {
            let n = writer.random.u64(0..items);
            writer.set(n, 0)?;
        }
        pace.wait(writer.stored_bytes - bytes_before);
    }
    let ended = Instant::now();
    let cleaner_cpu = cpu_of_thread("ebb-cleaner").saturating_sub(cpu_before);
    let after = store.stats();
    let row = Row {
        rate: rate.to_string(),
        written_bytes: writer.stored_bytes - bytes_before,
        took: ended - started,
        evicted: after.evictions - before.evictions,
        items,
        lost: engine::lost(&store, 0..items, clock.now_ms())?,
        refused: writer.refused,
        rss_bytes: watch.mean_between(started + length / 2, ended) - rss_before as f64,
        rss_peak_bytes: watch.peak_since(started).saturating_sub(rss_before),
        live_bytes: after.live_bytes,
        appended_bytes: after.appended_bytes - before.appended_bytes,
        copied_bytes: after.copied_bytes - before.copied_bytes,
        cleaner_cpu,
    };
    Ok((filled, row))
}

fn as_text(args: &OverwriteArgs, filled: Filled, rows: &[Row]) -> String {
    let mut table = Table::new([
        "rate",
        "written MiB/s",
        "evicted",
        "% of items",
        "lost",
        "refused",
        "RSS ÷ live",
        "peak ÷ live",
        "copied/written",
        "cleaner ms/s",
    ]);
    for row in rows {
        table.row([
            row.rate.clone(),
            format!("{:.1}", row.mib_per_second()),
            count(row.evicted),
            format!("{:.2}", row.evicted_percent()),
            count(row.lost),
            count(row.refused),
            format!("{:.3}", row.to_live(row.rss_bytes)),
            format!("{:.3}", row.to_live(row.rss_peak_bytes as f64)),
            format!("{:.2}", row.copied_per_written()),
            format!("{:.0}", row.cleaner_ms_per_second()),
        ]);
    }
    format!(
        "{} items of 16 + {} B: {} of keys and values, {} ({:.1} % of {}) with headers and index; seed {}\n\n{table}",
        count(filled.items),
        args.value_bytes,
        bytes(filled.live_bytes),
        bytes(filled.held_bytes),
        filled.held_bytes as f64 * 100.0 / args.budget.0 as f64,
        args.budget,
        args.seed,
    )
}

fn as_json(args: &OverwriteArgs, filled: Filled, rows: &[Row]) -> Value {
    let one = |row: &Row| {
        json!({
            "rate": row.rate,
            "written_mib_per_second": row.mib_per_second(),
            "evicted_items": row.evicted,
            "evicted_percent": row.evicted_percent(),
            "lost_items": row.lost,
            "refused": row.refused,
            "rss_bytes": row.rss_bytes,
            "rss_to_live": row.to_live(row.rss_bytes),
            "peak_rss_to_live": row.to_live(row.rss_peak_bytes as f64),
            "live_bytes": row.live_bytes,
            "copied_per_written": row.copied_per_written(),
            "cleaner_ms_per_second": row.cleaner_ms_per_second(),
        })
    };
    json!({
        "budget_bytes": args.budget.0,
        "started_at_bytes": args.started_at.unwrap_or(args.budget).0,
        "items": filled.items,
        "filled_live_bytes": filled.live_bytes,
        "filled_bytes_with_index": filled.held_bytes,
        "seconds": args.seconds,
        "seed": args.seed,
        "rates": rows.iter().map(one).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> anyhow::Result<OverwriteArgs> {
        match crate::parsed(&[&["overwrite"], words].concat())? {
            crate::Command::Overwrite(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bad_option_is_refused_with_its_name_and_bound() {
        let rates = args(&[]).unwrap().rate;
        assert_eq!(rates, [Rate(Some(30)), Rate(Some(50)), Rate(None)]);
        let cases = [
            (["--rate", "0"], ["--rate", "1 to 10000 MiB per second"]),
            (["--budget", "1Mi"], ["--budget", "16Mi to 4Gi"]),
            (["--live-percent", "99"], ["--live-percent", "10..=95"]),
            (["--seconds", "0"], ["--seconds", "1..=600"]),
            (["--value-bytes", "9-1"], ["--value-bytes", "1 to 65536"]),
        ];
        crate::testing::assert_refused("overwrite", &cases);
    }

    #[test]
    fn figures_are_per_second_per_item_and_per_byte() {
        let row = Row {
            rate: "30 MiB/s".into(),
            written_bytes: 60 << 20,
            took: Duration::from_secs(2),
            evicted: 50,
            items: 1000,
            rss_bytes: 1.2e6,
            rss_peak_bytes: 1_500_000,
            live_bytes: 1_000_000,
            appended_bytes: 200,
            copied_bytes: 50,
            cleaner_cpu: Duration::from_millis(500),
            ..Row::default()
        };
        let text = as_text(&args(&[]).unwrap(), Filled { items: 1000, ..Filled::default() }, &[row]);
        let parts = ["30.0", "5.00", "1.200", "1.500", "0.25", "250", "1,000 items"];
        let missing: Vec<_> = parts.into_iter().filter(|part| !text.contains(part)).collect();
        assert!(missing.is_empty(), "{missing:?} is missing in\n{text}");
    }

    #[test]
    fn a_small_set_is_overwritten_and_nothing_is_lost() {
        let args =
            args(&["--budget", "16Mi", "--started-at", "32Mi", "--live-percent", "40", "--seconds", "1"]).unwrap();
        let (filled, row) = measure(&args, Rate(Some(5))).unwrap_or_else(|failure| panic!("{failure:?}"));
        assert!(filled.items > 10_000, "{filled:?}");
        assert_eq!((row.lost, row.evicted, row.refused), (0, 0, 0), "{row:?}");
        assert!((2.0..7.0).contains(&row.mib_per_second()), "{row:?}");
    }
}
