//! `ebb-bench reclaim`: fills a server, deletes 90 %, and measures its resident memory.
//!
//! ```text
//!   idle ──fill──► loaded ──90 % deleted──► after ──verified──► the rest deleted ──► empty
//!                    └ Gets of survivors, one connection: idle ┘└ and while memory falls
//! ```
//! Resident memory is read from /proc every 5 ms, and latencies are measured at the client. Only the longest step and
//! the CPU of the cleaner come from the server's receipts. "Live" means keys and values only.

mod loads;
mod phases;
mod receipts;
mod report;

use clap::{Args, ValueEnum};

use super::process::{self, Against, Server, Start};
use super::program::Program;
use super::workload::{Entries, Pattern, Sizes};
use crate::wait;
use ebb_config::units::Span;
use ebb_proto::client::Address;
use ebb_terminal::{Failure, Outcome, Output, output};

/// Fill, delete, and measure how memory shrinks.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb-bench reclaim                               starts its own server
  ebb-bench reclaim --against redis --against memcached
  ebb-bench reclaim --workload w2 --pattern even --output json
  ebb-bench reclaim --addr 127.0.0.1:7070 --admin-addr 127.0.0.1:7071 --pid 4242
  ebb-bench reclaim --against redis=127.0.0.1:6379@991

Workloads (key + value bytes): w0 300,000 x (16 + 128); w1 1,000,000 x (16 + 128);
w2 1,250,000 x (16 + log-uniform 32..4096); shift 2,000,000 x (16 + 100), 90 % deleted,
refilled with (16 + 140) to the same live bytes; churn w2 and 3,000,000 overwrites.
Peers run with defaults, without persistence, with one thread. `map` is a HashMap of boxed
keys and values behind a mutex, with this program's allocator, jemalloc.")]
pub(crate) struct ReclaimArgs {
    /// Workload.
    #[arg(long, value_enum, default_value_t)]
    workload: Workload,
    /// Which 10 % of the keys survive.
    #[arg(long, value_enum, default_value_t)]
    pattern: Pattern,
    /// Share of the workload to store, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    scale: u64,
    /// Address of a running server on this machine; this run deletes all its entries.
    #[arg(long, requires = "pid")]
    addr: Option<Address>,
    /// Admin address of the running server, for receipts.
    #[arg(long, requires = "addr")]
    admin_addr: Option<Address>,
    /// Process ID of the running server.
    #[arg(long, requires = "addr")]
    pid: Option<u32>,
    /// Memory limit of started servers, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    memory_mib: u64,
    /// Peer to compare with: redis, valkey, memcached or map, or a running one as NAME=HOST:PORT@PID; repeatable.
    #[arg(long, value_name = "PEER")]
    against: Vec<Against>,
    /// Measure only the peers.
    #[arg(long, requires = "against")]
    peers_only: bool,
    #[command(flatten)]
    program: Program,
    /// Minimum time to watch memory.
    #[arg(long, default_value = "5s")]
    watch: Span,
    /// Maximum time to wait for memory to settle.
    #[arg(long, default_value = "30s")]
    settle: Span,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// The workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// 43 MB of 16 + 128 bytes: a sidecar.
    W0,
    /// 144 MB of 16 + 128 bytes.
    #[default]
    W1,
    /// 1,065 MB of 16 + log-uniform 32..4096 bytes.
    W2,
    /// Values of another size, with the same live bytes.
    Shift,
    /// Repeated overwrites of all keys with new sizes.
    Churn,
}

impl Workload {
    fn entries(self, scale: u64) -> Entries {
        let (count, sizes) = match self {
            Self::W0 => (300_000, Sizes::Fixed(128)),
            Self::W1 => (1_000_000, Sizes::Fixed(128)),
            Self::W2 | Self::Churn => (1_250_000, Sizes::LogUniform),
            Self::Shift => (2_000_000, Sizes::Fixed(100)),
        };
        Entries { count: count * scale / 100, sizes }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

pub(super) fn run(args: ReclaimArgs) -> Outcome {
    let start = Start { memory_mib: args.memory_mib, pinned: false };
    let mut results = Vec::new();
    if !args.peers_only {
        let server = match (args.addr.clone(), args.pid) {
            (Some(addr), Some(pid)) => Server::running(addr, args.admin_addr.clone(), pid),
            _ => process::start_ebb(&args.program.path()?, start)?,
        };
        results.push(measure(&args, &server)?);
    }
    for against in &args.against {
        let server = process::peer(against, start)?;
        results.push(measure(&args, &server)?);
    }
    match args.output {
        Output::Json => output::json(&report::as_json(&args.workload.name(), args.pattern, &results)),
        Output::Text => {
            output::line(report::as_text(&args.workload.name(), args.pattern, &results).trim_end())?;
            for against in &args.against {
                output::line(&against.describe(args.memory_mib))?;
            }
            Ok(())
        }
    }
    .and_then(|()| match results.iter().map(|result| result.wrong + result.missing).sum::<u64>() {
        0 => Ok(()),
        wrong => Err(Failure::Failed(format!("{wrong} values were missing or wrong"))),
    })
}

fn measure(args: &ReclaimArgs, server: &Server) -> Result<report::Measured, Failure> {
    let entries = args.workload.entries(args.scale);
    wait(async {
        let run = phases::Run::begin(server, args.watch, args.settle).await?;
        Ok(match args.workload {
            Workload::Shift => run.shift(entries, args.pattern).await?,
            Workload::Churn => run.churn(entries, 3_000_000 * args.scale / 100).await?,
            Workload::W0 | Workload::W1 | Workload::W2 => run.reclaim(entries, args.pattern).await?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Peer, start_peer};

    /// A small run against the installed peers finds no wrong values, and its figures are consistent.
    #[test]
    fn a_peer_goes_through_every_phase() {
        let run = |peer, workload| {
            let Ok(server) = start_peer(peer, Start { memory_mib: 512, pinned: false }) else { return };
            let words = ["reclaim", "--scale", "3", "--watch", "300ms", "--settle", "2s", "--workload"];
            let parsed = crate::parsed(&[&words[..], &[workload]].concat()).unwrap();
            let crate::Command::Reclaim(args) = parsed else { panic!("{parsed:?}") };
            let measured = measure(&args, &server).unwrap_or_else(|failure| panic!("{failure:?}"));
            assert_eq!((measured.wrong, measured.missing, measured.refused), (0, 0, 0), "{peer:?} {workload}");
            assert!(measured.loaded.rss_bytes > measured.idle_rss_bytes);
            assert!(report::as_text("w0", args.pattern, &[measured]).contains("RSS ÷ live"));
        };
        std::thread::scope(|scope| {
            for (peer, workload) in [(Peer::Redis, "w0"), (Peer::Memcached, "shift"), (Peer::Redis, "churn")] {
                scope.spawn(move || run(peer, workload));
            }
        });
    }
}
