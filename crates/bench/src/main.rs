//! `ebb-bench`: the instrument Ebb's figures are measured on.
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

/// Measure memory given back, calls per second, and misses on recorded traces.
#[derive(Debug, Parser)]
#[command(
    name = "ebb-bench",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  ebb-bench reclaim                      fill a server, empty it, and watch memory come back
  ebb-bench serve --against redis        compare what calls cost
  ebb-bench overwrite --seconds 10       overwrite items that fit; nothing is evicted

Exit codes: 0 done, 1 the run failed or found wrong values, 2 bad command line."
)]
struct Cli {
    /// What to measure.
    #[command(subcommand)]
    command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Command {
    /// Fill, delete, and watch memory come back.
    Reclaim(reclaim::ReclaimArgs),
    /// Load a server and print what calls cost.
    Serve(serve::ServeArgs),
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

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // What cannot be printed is dropped: the exit code tells how it went.
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

/// Drives a client's future: one thread, so that a client never waits for another core.
fn wait<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// The arguments of one command, as the command line gives them.
#[cfg(test)]
fn parsed(words: &[&str]) -> Result<Command, String> {
    let cli = Cli::try_parse_from(std::iter::once(&"ebb-bench").chain(words));
    cli.map(|cli| cli.command).map_err(|error| error.to_string())
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
