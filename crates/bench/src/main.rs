//! `ebb-bench`: the benchmarks of Ebb.
//!
//! ```text
//!   reclaim   resident memory after deletions                    process, watch, latency, workload, wire
//!   serve     calls per second and server CPU per call           process, latency, workload, wire
//!   trace     misses on recorded traces, against FIFO and LRU    trace
//!   storm     overload                                           storm
//!   overwrite random overwrites of items that fit                engine, overwrite
//!   expire    time that expired items stay in memory             engine, expire
//!   stall     write latency with preempted readers, cleaning     engine, latency, stall
//!   get       CPU of a Get in process                            engine, get
//!   map       a hash map in its own process, as a peer           map
//! ```
//!
//! B1. Systems are compared in the same run, with the same client, over the same kind of connection.
//! B2. A benchmark ends each server that it started, by its handle, even if the run fails.
//! B3. Every run has a time limit and prints its progress to standard error.

#[path = "../../../src/allocator.rs"]
mod allocator;
mod connection;
mod engine;
mod expire;
mod get;
mod latency;
mod map;
mod overwrite;
mod process;
mod program;
mod reclaim;
mod serve;
mod stall;
mod storm;
#[cfg(test)]
mod testing;
mod trace;
mod watch;
mod wire;
mod workload;

use clap::{Parser, Subcommand};
use ebb_terminal::{Failure, Outcome};
use std::process::ExitCode;

/// Benchmark Ebb: memory returned, calls per second, and misses on recorded traces.
#[derive(Debug, Parser)]
#[command(
    name = "ebb-bench",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  ebb-bench reclaim                      fill a server, delete most entries, and watch memory shrink
  ebb-bench serve --against redis        compare throughput and CPU per call
  ebb-bench overwrite --seconds 10       overwrite items that fit, and count evictions

Exit codes: 0 success, 1 failed run or wrong values, 2 invalid command line."
)]
struct Cli {
    /// The benchmark.
    #[command(subcommand)]
    command: Command,
}

/// The benchmarks.
#[derive(Debug, Subcommand)]
enum Command {
    /// Fill, delete, and measure how memory shrinks.
    Reclaim(reclaim::ReclaimArgs),
    /// Measure throughput, latency and server CPU of calls.
    Serve(serve::ServeArgs),
    /// Replay recorded traces and compare misses with FIFO and LRU.
    Trace(trace::TraceArgs),
    /// Overload a server with writes, stalled readers and bursts of calls.
    Storm(storm::StormArgs),
    /// Overwrite items that fit, and count evictions.
    Overwrite(overwrite::OverwriteArgs),
    /// Measure how long expired items stay in memory.
    Expire(expire::ExpireArgs),
    /// Measure the cost of preempted readers and of a running cleaner for writers.
    Stall(stall::StallArgs),
    /// Measure the CPU of a Get in process, with one thread and several.
    Get(get::GetArgs),
    /// Serve a hash map, as a peer of the other benchmarks.
    #[command(hide = true)]
    Map(map::MapArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // A failure to print is ignored; the exit code shows the result.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    ebb_terminal::exit_code("ebb-bench", run(cli.command))
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Reclaim(args) => reclaim::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Storm(args) => storm::run(args),
        Command::Overwrite(args) => overwrite::run(args),
        Command::Expire(args) => expire::run(args),
        Command::Stall(args) => stall::run(args),
        Command::Get(args) => get::run(args),
        Command::Map(args) => map::run(args),
    }
}

/// Runs a client's future on one thread, so that the client never waits for another core.
fn wait<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Parses a command line, for tests.
#[cfg(test)]
fn parsed(words: &[&str]) -> anyhow::Result<Command> {
    let cli = Cli::try_parse_from(std::iter::once(&"ebb-bench").chain(words));
    Ok(cli?.command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_consistent_and_has_a_description() {
        let mut command = <Cli as clap::CommandFactory>::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands_mut() {
            assert!(sub.get_about().is_some(), "{} has no description", sub.get_name());
        }
    }
}
