//! `ebb compact` and `ebb release`: return memory now and print the receipt.

use std::time::Duration;

use clap::Args;

use super::connect::{AdminAt, refused};
use super::{Failure, Outcome, output, stats};
use ebb_config::units::format::bytes;
use ebb_config::units::{ByteSize, Percent, Span};
use ebb_proto::compact_response::Update;
use ebb_proto::{self as proto, json};
use ebb_terminal::Output;

/// Compact now and print the receipt.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb compact
  ebb compact --dry-run                only print the plan
  ebb compact --target-occupancy 80    stop when segments are 80 % full")]
pub(crate) struct CompactArgs {
    /// Target occupancy, in percent; 0 for the highest possible.
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    target_occupancy: Percent,
    /// Print the plan without compacting.
    #[arg(long)]
    dry_run: bool,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    at: AdminAt,
}

/// Compacts, shows the progress and prints the receipt.
pub(super) async fn compact(args: CompactArgs) -> Outcome {
    let at = args.at.server().await?;
    let refuse = |s: tonic::Status| refused("compact", &at, &s);
    let request =
        proto::CompactRequest { target_occupancy_percent: args.target_occupancy.0.into(), dry_run: args.dry_run };
    let mut stream = at.connect().await?.compact(request).await.map_err(refuse)?.into_inner();
    let mut receipt = None;
    let cleared = |status| {
        output::progress("");
        refuse(status)
    };
    while let Some(answer) = stream.message().await.map_err(cleared)? {
        match answer.update {
            Some(Update::Percent(percent)) => output::progress(format_args!("compacting: {percent} %")),
            Some(Update::Receipt(last)) => receipt = Some(last),
            None => {}
        }
    }
    output::progress("");
    let receipt = receipt.ok_or("the server ended the compaction without a receipt")?;
    print(&receipt, args.output)
}

/// Compact, then evict, until memory use is at or below a target.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb release --to 64Mi                exits with 1 if the target is not reached")]
pub(crate) struct ReleaseArgs {
    /// Target memory use, such as 64Mi.
    #[arg(long, value_name = "SIZE")]
    to: ByteSize,
    /// Maximum duration.
    #[arg(long, default_value = "10s")]
    timeout: Span,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    at: AdminAt,
}

/// Releases memory down to a target.
pub(super) async fn release(args: ReleaseArgs) -> Outcome {
    let at = args.at.server().await?;
    let refuse = |s: tonic::Status| refused("release", &at, &s);
    let request = proto::ReleaseMemoryRequest { target_bytes: args.to.0, timeout_ms: args.timeout.0 };
    let mut client = at.connect_for(Duration::from_millis(args.timeout.0)).await?;
    let answer = client.release_memory(request).await.map_err(refuse)?.into_inner();
    let receipt = answer.receipt.unwrap_or_default();
    print(&receipt, args.output)?;
    if answer.reached {
        return Ok(());
    }
    let used = receipt.after.map_or(0, |memory| memory.used_bytes);
    Err(Failure::Failed(format!("memory use is {}, above the target of {}", bytes(used), bytes(args.to.0))))
}

fn print(receipt: &proto::Receipt, how: Output) -> Outcome {
    match how {
        Output::Json => output::json(&json::of(receipt)),
        Output::Text => output::line(stats::receipts(std::slice::from_ref(receipt)).to_string().trim_end()),
    }
}
