//! `ebb-bench get`: CPU of a Get in process, and whether concurrent readers slow each other down.
//!
//! ```text
//!   one       one thread, one store
//!   shared    `--threads` threads, one store
//!   private   the same threads, one store each: the cost without sharing
//! ```
//! G1. Only CPU time of the readers is measured, so other processes have little influence. Rounds alternate.

use anyhow::{anyhow, bail};
use std::sync::{Arc, Barrier};

use clap::Args;
use serde_json::{Value, json};

use super::engine::{self, ValueBytes, Writer, named};
use super::latency::median;
use super::workload::{key, mix};
use ebb_config::units::format::count;
use ebb_engine::clock::{self, Clock};
use ebb_engine::store::{Lookup, Store, Use};
use ebb_terminal::{Outcome, Output, Table, output};

/// Measure the CPU of a Get in process, with one thread and several.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb-bench get
  ebb-bench get --entries 10000000 --threads 4

Items have 16 + 128 bytes. Every key is there; keys are read at random.")]
pub(crate) struct GetArgs {
    /// Number of items in the store; repeatable.
    #[arg(long, value_name = "N", default_values_t = [3_000, 100_000], value_parser = clap::value_parser!(u64).range(100..=16_000_000))]
    entries: Vec<u64>,
    /// Number of concurrent readers.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    /// Reads per thread and round.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    reads: u64,
    /// Number of rounds; medians are printed.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    /// Seed of keys and stores.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// CPU of a Get, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Row {
    entries: u64,
    one: f64,
    shared: f64,
    private: f64,
}

/// Runs the benchmark.
pub(super) fn run(args: GetArgs) -> Outcome {
    let rows = args.entries.iter().map(|entries| measure(&args, *entries)).collect::<Result<Vec<_>, _>>()?;
    match args.output {
        Output::Json => output::json(&as_json(&args, &rows)),
        Output::Text => output::line(as_text(&args, &rows).trim_end()),
    }
}

fn measure(args: &GetArgs, entries: u64) -> anyhow::Result<Row> {
    output::note(format_args!("get: {entries} items, {} rounds", args.rounds));
    let filled = |seed| -> anyhow::Result<Arc<Store>> {
        // Twice the bytes of the items with index and headers.
        let store = engine::store((entries * 400).max(64 << 20), seed)?;
        let mut writer = Writer::new(&store, &Clock::monotonic(), ValueBytes::fixed(128), seed);
        (0..entries).try_for_each(|n| writer.set(n, 0))?;
        Ok(store)
    };
    let stores = (0..args.threads).map(|n| filled(args.seed + n)).collect::<Result<Vec<_>, _>>()?;
    let same = vec![stores[0].clone(); stores.len()];
    read_all(args, entries, &stores, args.seed)?; // caches and counters are warm
    let (mut one, mut shared, mut private) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..u64::from(args.rounds) {
        let seed = args.seed + round;
        one.push(read_all(args, entries, &stores[..1], seed)?);
        shared.push(read_all(args, entries, &same, seed)?);
        private.push(read_all(args, entries, &stores, seed)?);
    }
    Ok(Row { entries, one: median(one), shared: median(shared), private: median(private) })
}

/// Runs a thread per store; returns the mean CPU of a Get.
fn read_all(args: &GetArgs, entries: u64, stores: &[Arc<Store>], seed: u64) -> anyhow::Result<f64> {
    let start = Barrier::new(stores.len());
    let nanos: Vec<anyhow::Result<f64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = stores
            .iter()
            .zip(0..)
            .map(|(store, thread)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    read(store, entries, args.reads, mix(seed ^ thread << 32))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a reader panicked"))?).collect()
    });
    let nanos = nanos.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(nanos.iter().sum::<f64>() / nanos.len() as f64)
}

fn read(store: &Store, entries: u64, reads: u64, seed: u64) -> anyhow::Result<f64> {
    let now_ms = Clock::monotonic().now_ms();
    let before = clock::thread_cpu_micros();
    for read in 0..reads {
        let name = key(mix(seed + read) % entries);
        match store.get(named(&name), now_ms, Use::Read) {
            Ok(Lookup::Found(_)) => {}
            other => bail!("a stored key is missing: {other:?}"),
        }
    }
    Ok((clock::thread_cpu_micros() - before) as f64 * 1000.0 / reads as f64)
}

fn as_text(args: &GetArgs, rows: &[Row]) -> String {
    let threads = args.threads;
    let mut table = Table::new([
        "items".to_owned(),
        "one thread".to_owned(),
        format!("{threads}, one store"),
        format!("{threads}, one store each"),
        "private ÷ shared".to_owned(),
    ]);
    for row in rows {
        let nanos = |value: f64| format!("{value:.1} ns");
        table.row([
            count(row.entries),
            nanos(row.one),
            nanos(row.shared),
            nanos(row.private),
            format!("{:.2}", row.private / row.shared),
        ]);
    }
    format!("CPU of a Get, medians of {}; seed {}\n\n{table}", args.rounds, args.seed)
}

fn as_json(args: &GetArgs, rows: &[Row]) -> Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "entries": row.entries,
                "one_thread_ns": row.one,
                "shared_ns": row.shared,
                "private_ns": row.private,
            })
        })
        .collect();
    json!({ "threads": args.threads, "seed": args.seed, "rows": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_by_one_thread_and_by_several() {
        let args = GetArgs { entries: vec![500], threads: 3, reads: 2_000, rounds: 1, seed: 1, output: Output::Text };
        let row = measure(&args, 500).unwrap();
        assert!(row.one > 0.0 && row.shared > 0.0 && row.private > 0.0, "{row:?}");
        let text = as_text(&args, &[row]);
        assert!(text.contains("3, one store each"), "{text}");
    }
}
