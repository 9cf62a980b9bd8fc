//! `ebb-bench serve`: throughput, latency and server CPU per call.
//!
//! ```text
//!   core 0   all servers, idle except for the measured one
//!   core 1   this client, one thread
//!   rounds   A B C … C B A A B C …     a few tenths of a second per cell; medians of the rounds are printed
//! ```
//! S1. CPU per operation is that of all server threads, by `schedstat`, over the window of the cell. A batch counts as
//!     one operation per key.
//! S2. The empty call is GetCapabilities on the same path; for Redis it is PING, for memcached `mn`.
//! S3. Only figures of one run are comparable: each is a ratio to the first peer's cell in the same rounds.

mod burst;
mod cell;
mod report;

use std::time::Duration;

use clap::Args;

use self::cell::{Cell, Via};
use super::process::{self, Against, Server, Start};
use super::program::Program;
use super::wire::{Kind, Shape, System};
use crate::wait;
use ebb_config::units::Span;
use ebb_proto::client::Address;
use ebb_terminal::{Failure, Outcome, Output, output};

/// Measure throughput, latency and server CPU of calls.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb-bench serve                                 starts its own server
  ebb-bench serve --against redis --against memcached
  ebb-bench serve --addr 127.0.0.1:7070 --pid 4242 --rounds 3
  ebb-bench serve --only pipe --output json
  ebb-bench serve --against ebb=/tmp/ebb-before   another build of this program, in the same run

Shapes: \"50 x 1\" is 50 connections with one call in flight each. `pipe` is one Pipe per
connection; peers are pipelined to the same depth. `batch` is 64 keys per call (MGET, multi-get).")]
pub(crate) struct ServeArgs {
    /// Address of a running server on this machine.
    #[arg(long, requires = "pid")]
    addr: Option<Address>,
    /// Unix socket of the running server.
    #[arg(long, requires = "addr", value_name = "PATH")]
    socket: Option<String>,
    /// Process ID of the running server.
    #[arg(long, requires = "addr")]
    pid: Option<u32>,
    /// Peer to compare with: redis, valkey or memcached, a running one as NAME=HOST:PORT@PID, or another build of Ebb
    /// as ebb=PROGRAM; repeatable.
    #[arg(long, value_name = "PEER")]
    against: Vec<Against>,
    /// Number of stored keys of 16 + 128 bytes.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: u64,
    /// Number of rounds; medians are printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    #[command(flatten)]
    program: Program,
    /// Duration of a cell in one round.
    #[arg(long, default_value = "400ms")]
    window: Span,
    /// Measure only cells whose name contains this text, such as `pipe`, `batch`, `unix` or `4 x 64`.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Skip the burst of 10,000 calls in flight.
    #[arg(long)]
    no_burst: bool,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// All cells.
fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for via in [Via::Tcp, Via::Unix] {
        for (connections, in_flight) in [(1, 1), (50, 1), (4, 64)] {
            for kind in [Kind::Empty, Kind::Get, Kind::Set] {
                cells.push(Cell { shape: Shape::Unary, kind, batch: false, via, connections, in_flight });
            }
        }
        for (connections, in_flight) in [(1, 1), (1, 64), (4, 64)] {
            for kind in [Kind::Get, Kind::Set] {
                cells.push(Cell { shape: Shape::Pipe, kind, batch: false, via, connections, in_flight });
            }
        }
        for (connections, in_flight) in [(1, 1), (50, 1)] {
            cells.push(Cell { shape: Shape::Unary, kind: Kind::Get, batch: true, via, connections, in_flight });
        }
    }
    cells
}

pub(super) fn run(args: ServeArgs) -> Outcome {
    let wanted = |cell: &Cell| args.only.as_ref().is_none_or(|only| cell.to_string().contains(only.as_str()));
    let cells: Vec<Cell> = cells().into_iter().filter(wanted).collect();
    if cells.is_empty() {
        return Err(Failure::Usage("--only: no cell contains this text".into()));
    }
    let start = Start { memory_mib: 1024, pinned: true };
    let ebb = match (args.addr.clone(), args.pid) {
        (Some(addr), Some(pid)) => {
            let mut server = Server::running(addr, None, pid);
            server.socket = args.socket.clone().map(Address::Unix);
            server
        }
        _ => process::start_ebb(&args.program.path()?, start)?,
    };
    let mut servers = vec![ebb];
    for against in &args.against {
        servers.push(process::peer(against, start)?);
    }
    let pinned = process::pin_client();
    let table = wait(async {
        for server in &servers {
            output::note(format_args!("{}: storing {} keys", server.name, args.keys));
            cell::store(server, args.keys).await?;
        }
        let mut table = report::Rows::new(&servers, pinned);
        let window = Duration::from_millis(args.window.0);
        for round in 0..args.rounds {
            for (at, cell) in cells.iter().enumerate() {
                output::progress(format_args!("round {} of {}: {cell}", round + 1, args.rounds));
                let mut order: Vec<usize> = (0..servers.len()).collect();
                if (round as usize + at) % 2 == 1 {
                    order.reverse();
                }
                for which in order {
                    if let Some(figures) = cell::measure(&servers[which], *cell, args.keys, window).await? {
                        table.add(*cell, which, figures);
                    }
                }
            }
        }
        output::progress("");
        if !args.no_burst {
            table.burst = Some(burst::measure(&servers[0]).await?);
        }
        Ok::<_, Failure>(table)
    })?;
    match args.output {
        Output::Json => output::json(&table.as_json()),
        Output::Text => {
            output::line(table.as_text().trim_end())?;
            args.against.iter().try_for_each(|against| output::line(&against.describe(start.memory_mib)))
        }
    }
}

/// The protocol of a cell on a server. Peers pipeline to the depth of a Pipe.
fn system(server: &Server, shape: Shape) -> System {
    match server.system {
        System::Ebb(_) => System::Ebb(shape),
        peer => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Peer, start_peer};
    use crate::testing;

    #[test]
    fn every_cell_has_a_name_of_its_own() {
        let names: std::collections::HashSet<String> = cells().iter().map(Cell::to_string).collect();
        assert_eq!(names.len(), cells().len());
    }

    #[tokio::test]
    async fn a_cell_counts_what_was_answered_and_nothing_is_refused() {
        let window = Duration::from_millis(100);
        let server = testing::Server::start();
        let mut servers = vec![Server::running(server.address.clone(), None, std::process::id())];
        servers.extend(start_peer(Peer::Redis, Start { memory_mib: 64, pinned: false }));
        servers.extend(start_peer(Peer::Memcached, Start { memory_mib: 64, pinned: false }));
        for server in &servers {
            cell::store(server, 1000).await.unwrap();
            for cell in cells().into_iter().filter(|cell| cell.connections < 50) {
                match cell::measure(server, cell, 1000, window).await.unwrap() {
                    Some(figures) => {
                        let answered = figures.latency.samples > 0 && figures.per_second > 0.0;
                        assert!(answered && figures.refused == 0, "{} {cell}: {figures:?}", server.name);
                    }
                    None => assert!(cell.via == Via::Unix && server.socket.is_none()),
                }
            }
        }
    }
}
