//! `ebb-bench trace`: the engine's misses on recorded traces, compared with FIFO and LRU at the same capacity.
//!
//! Every request is a get, a miss inserts, and the warm-up counts. Capacities are shares of a trace's footprint: its
//! number of objects, or with `--by bytes` the sum of their sizes. `engine` describes how the engine gets exactly that
//! capacity.

mod engine;
mod format;
mod policies;
mod through;

use anyhow::Context as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use self::engine::Capacity;
use self::format::Trace;
use self::policies::{Policy, misses};
use ebb_proto::client::Address;
use ebb_terminal::{Failure, Outcome, Output, Table, output};

const SHARES: [u64; 4] = [1, 5, 10, 25];

/// Replay recorded traces and compare misses with FIFO and LRU.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb-bench trace traces/*.ebt.zst
  ebb-bench trace --by bytes traces/nasa-web.ebt.zst
  ebb-bench trace --share 10 --output json traces/*.ebt.zst
  ebb-bench trace --through 127.0.0.1:7070 --value-bytes 128 traces/web07.ebt.zst")]
pub(crate) struct TraceArgs {
    /// EBT1 traces, or directories of them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Unit of capacities; `bytes` skips traces without real sizes.
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// Capacities, in percent of the footprint.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_values_t = SHARES)]
    share: Vec<u64>,
    /// Number of shards of the engine.
    #[arg(long, value_name = "N", default_value_t = 1)]
    shards: usize,
    /// Address of a server to replay through instead, with its own memory limit.
    #[arg(long, value_name = "HOST:PORT")]
    through: Option<Address>,
    /// Size of every value, with --through and a trace without real sizes.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    value_bytes: u32,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Units of capacities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum By {
    /// The number of objects, all of one size.
    #[default]
    Objects,
    /// The sum of their sizes.
    Bytes,
}

/// The misses of one trace at one capacity.
#[derive(Clone, Debug)]
struct Row {
    trace: String,
    share: u64,
    requests: u64,
    fifo: u64,
    lru: u64,
    ebb: u64,
    copied_per_written: f64,
    refused: u64,
}

impl Row {
    fn ratio(&self, misses: u64) -> f64 {
        misses as f64 / self.requests as f64
    }

    /// Reduction of misses compared with FIFO, in percent.
    fn gain(&self) -> f64 {
        (1.0 - self.ebb as f64 / self.fifo.max(1) as f64) * 100.0
    }
}

pub(super) fn run(args: TraceArgs) -> Outcome {
    let files = find(&args.files)?;
    if args.share.iter().any(|share| !(1..=100).contains(share)) {
        return Err(Failure::Usage("--share: out of range (1 to 100 percent)".into()));
    }
    if let Some(at) = &args.through {
        return through::run(&files, at, args.value_bytes, args.output);
    }
    let header = engine::header_bytes();
    let mut rows = Vec::new();
    for path in &files {
        let trace = open(path)?;
        if args.by == By::Bytes && !trace.sizes_are_real {
            output::note(format_args!("{}: skipped, sizes are unknown", name(path)));
            continue;
        }
        for &share in &args.share {
            output::progress(format_args!("{} at {share} %", name(path)));
            rows.push(row(&trace, name(path), share, args.by, header, args.shards)?);
        }
        output::progress("");
    }
    match args.output {
        Output::Json => output::json(&as_json(&rows)),
        Output::Text => output::line(as_text(&rows).trim_end()),
    }
}

fn row(trace: &Trace, name: String, share: u64, by: By, header: u64, shards: usize) -> Result<Row, Failure> {
    // Like the reference: rounded down, at least one.
    let part = |whole: u64| (whole * share / 100).max(1);
    let (capacity, room) = match by {
        By::Objects => (Capacity::Objects(part(trace.objects as u64)), part(trace.objects as u64)),
        By::Bytes => (Capacity::Bytes(part(trace.footprint_bytes())), part(trace.footprint_bytes())),
    };
    let count = |policy| {
        misses(policy, &trace.requests, trace.objects, room, |request| match by {
            By::Objects => 1,
            By::Bytes => request.size.into(),
        })
    };
    let replay = engine::replay(trace, capacity, header, shards).with_context(|| name.clone())?;
    Ok(Row {
        trace: name,
        share,
        requests: trace.requests.len() as u64,
        fifo: count(Policy::Fifo),
        lru: count(Policy::Lru),
        ebb: replay.misses,
        copied_per_written: replay.copied_per_written,
        refused: replay.refused,
    })
}

fn find(given: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in given {
        if path.is_dir() {
            let inside = std::fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path()));
            files.extend(inside.filter(|path| path.to_string_lossy().ends_with(".ebt.zst")));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    if files.is_empty() { Err(Failure::Usage("no traces (*.ebt.zst) found".into())) } else { Ok(files) }
}

fn open(path: &Path) -> Result<Trace, Failure> {
    Trace::open(path).map_err(|bad| Failure::Failed(format!("{} {bad}", path.display())))
}

fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.trim_end_matches(".zst").trim_end_matches(".ebt").to_owned()
}

/// The mean reduction compared with FIFO, and the row with the lowest one.
fn summary(rows: &[Row]) -> Option<(f64, &Row)> {
    let worst = rows.iter().min_by(|a, b| a.gain().total_cmp(&b.gain()))?;
    Some((rows.iter().map(Row::gain).sum::<f64>() / rows.len() as f64, worst))
}

fn as_text(rows: &[Row]) -> String {
    let mut table =
        Table::new(["trace", "capacity", "FIFO", "LRU", "Ebb", "fewer than FIFO", "copied/written", "refused"]);
    for row in rows {
        table.row([
            row.trace.clone(),
            format!("{} %", row.share),
            format!("{:.4}", row.ratio(row.fifo)),
            format!("{:.4}", row.ratio(row.lru)),
            format!("{:.4}", row.ratio(row.ebb)),
            format!("{:+.2} %", row.gain()),
            format!("{:.2}", row.copied_per_written),
            row.refused.to_string(),
        ]);
    }
    let Some((mean, worst)) = summary(rows) else { return String::from("nothing to replay") };
    format!(
        "{table}\nOn average {mean:.2} % fewer misses than FIFO; worst: {} at {} %, {:+.2} %.",
        worst.trace,
        worst.share,
        worst.gain()
    )
}

fn as_json(rows: &[Row]) -> serde_json::Value {
    let one = |row: &Row| {
        json!({
            "trace": row.trace,
            "share_percent": row.share,
            "requests": row.requests,
            "fifo_miss_ratio": row.ratio(row.fifo),
            "lru_miss_ratio": row.ratio(row.lru),
            "ebb_miss_ratio": row.ratio(row.ebb),
            "fewer_than_fifo_percent": row.gain(),
            "copied_per_written": row.copied_per_written,
            "refused": row.refused,
        })
    };
    let (mean, worst) = summary(rows).map_or((0.0, 0.0), |(mean, worst)| (mean, worst.gain()));
    json!({
        "rows": rows.iter().map(one).collect::<Vec<_>>(),
        "mean_fewer_than_fifo_percent": mean,
        "worst_fewer_than_fifo_percent": worst,
    })
}

#[cfg(test)]
mod tests {
    use super::format::tests::encode;
    use super::*;

    #[test]
    fn a_row_sets_the_engine_beside_the_reference_policies() {
        // Twenty objects in a cycle, of which a quarter fit: FIFO and LRU never hit.
        let ids: Vec<u32> = (0..200).map(|at| at % 20).collect();
        let trace = Trace::parse(&encode(&ids, 100)).unwrap();
        let row = row(&trace, "cycle".into(), 25, By::Objects, engine::header_bytes(), 1).unwrap();
        assert_eq!((row.fifo, row.lru), (200, 200));
        let text = as_text(&[row]);
        assert!(text.contains("1.0000") && text.contains("worst: cycle at 25 %"), "{text}");
    }

    #[test]
    fn the_mean_is_over_rows_and_the_worst_is_named() {
        let row = |trace: &str, ebb| Row {
            trace: trace.into(),
            share: 10,
            requests: 100,
            fifo: 50,
            lru: 45,
            ebb,
            copied_per_written: 0.1,
            refused: 0,
        };
        let rows = [row("a", 40), row("b", 51)];
        let (mean, worst) = summary(&rows).unwrap();
        assert!((mean - 9.0).abs() < 1e-9 && worst.trace == "b");
    }
}
