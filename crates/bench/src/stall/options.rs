//! The options of `ebb-bench stall`.

use clap::{Args, ValueEnum};

use super::super::engine::size_within;
use ebb_config::units::ByteSize;
use ebb_terminal::Output;

/// Measure the cost of preempted readers and of a running cleaner for writers.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb-bench stall
  ebb-bench stall --part waits --seconds 10 --rounds 9
  ebb-bench stall --part readers --readers 12 --large 256Ki --output json

Parts: readers (items evicted per set of a full store), roomy (keys lost where there is
room for all), waits (wall time of a Set with and without a cleaner), run (a requested
compaction beside a writer; given up after 30 s), target (a target that demands eviction to two thirds
during such a run; given up after 10 s). Small items have 16 + 128 bytes, overwritten
ones 16 + 100-500.")]
pub(crate) struct StallArgs {
    /// Only these parts.
    #[arg(long = "part", value_enum, value_name = "PART")]
    pub(super) parts: Vec<Part>,
    /// Number of threads that read the large value.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(super) readers: u64,
    /// Size of the large value.
    #[arg(long, value_name = "SIZE", default_value = "1Mi", value_parser = size_within(4 << 10, 1 << 20))]
    pub(super) large: ByteSize,
    /// Capacity of the store in `readers` and `waits`.
    #[arg(long, value_name = "SIZE", default_value = "64Mi", value_parser = size_within(32 << 20, 4 << 30))]
    pub(super) store: ByteSize,
    /// Capacity of the store in `run` and `target`.
    #[arg(long, value_name = "SIZE", default_value = "256Mi", value_parser = size_within(32 << 20, 4 << 30))]
    pub(super) run_store: ByteSize,
    /// Capacity of the store in `roomy`.
    #[arg(long, value_name = "SIZE", default_value = "1Gi", value_parser = size_within(64 << 20, 16 << 30))]
    pub(super) roomy: ByteSize,
    /// Number of keys in `roomy`; at most a thousandth of the bytes of the store.
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1_000..=16_000_000))]
    pub(super) keys: u64,
    /// Duration of the writes in each measurement of `readers` and `waits`.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
    /// Sets per second in `waits`.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    pub(super) rate: u64,
    /// Number of rounds of `waits`, each with and without a cleaner.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=101))]
    pub(super) rounds: u32,
    /// Seed of keys and sizes.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    pub(super) output: Output,
}

/// The parts of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Items evicted per Set of a full store, without and with readers.
    Readers,
    /// Keys lost from a store with room for all.
    Roomy,
    /// Wall time of a Set with and without a cleaner.
    Waits,
    /// A requested compaction during writes.
    Run,
    /// A target that demands eviction, set during such a run.
    Target,
}

/// Sizes of overwritten values, in bytes.
pub(super) const CHURNED: &str = "100-500";
