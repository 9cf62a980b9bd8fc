//! The instrument Ebb's figures are measured on.
//!
//! ```text
//!   reclaim   fill, delete, watch the resident set fall          process, watch, latency, workload, wire
//!   serve     calls per second and what each costs the server    process, latency, workload, wire
//!   trace     misses on recorded requests, beside FIFO and LRU   trace
//!   storm     more writes than a server can take                 storm
//!   overwrite items that fit, overwritten at random              engine, overwrite
//!   expire    how long expired items stay in memory              engine, expire
//!   stall     readers off their core, a cleaner beside writers   engine, latency, stall
//!   get       what a Get costs in process, by several threads    engine, get
//!   map       a map in a process of its own, as a peer           map
//! ```
//!
//! B1. Whatever is compared is measured in the same run, by the same client, over the same kind of connection.
//! B2. A server that was started here is ended here, by its own handle, also when the run fails.
//! B3. Every run is bounded in time, and says what it is doing on standard error.

mod connection;
mod engine;
mod expire;
mod get;
mod latency;
mod map;
mod overwrite;
mod process;
mod reclaim;
mod serve;
mod stall;
mod storm;
mod trace;
mod watch;
mod wire;
mod workload;

use clap::Subcommand;

use ebb_terminal::Outcome;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Fill, delete, and watch memory come back.
    Reclaim(reclaim::ReclaimArgs),
    /// Load a server and print what calls cost.
    Serve(serve::BenchServeArgs),
    /// Replay recorded requests and print misses beside FIFO's and LRU's.
    Trace(trace::TraceArgs),
    /// Write as fast as a server takes it, beside clients that do not read and thousands of calls at once.
    Storm(storm::StormArgs),
    /// Overwrite items that fit, and count those that are evicted.
    Overwrite(overwrite::OverwriteArgs),
    /// Let items expire, and measure how long their memory stays.
    Expire(expire::ExpireArgs),
    /// Measure what readers off their core and a cleaner at work cost writers.
    Stall(stall::StallArgs),
    /// Measure what a Get costs in process, by one thread and by several.
    Get(get::GetArgs),
    /// Answer out of a map: a peer of the other benchmarks.
    #[command(hide = true)]
    Map(map::MapArgs),
}

pub(super) fn run(command: BenchCommand) -> Outcome {
    match command {
        BenchCommand::Reclaim(args) => reclaim::run(args),
        BenchCommand::Serve(args) => serve::run(args),
        BenchCommand::Trace(args) => trace::run(args),
        BenchCommand::Storm(args) => storm::run(args),
        BenchCommand::Overwrite(args) => overwrite::run(args),
        BenchCommand::Expire(args) => expire::run(args),
        BenchCommand::Stall(args) => stall::run(args),
        BenchCommand::Get(args) => get::run(args),
        BenchCommand::Map(args) => map::run(args),
    }
}
