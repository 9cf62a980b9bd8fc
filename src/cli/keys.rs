//! `ebb keys`: keys that stand out, and `ebb memory-map`: how full the segments are.

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::connect::{AdminAt, Output, refused};
use super::output::{self, Table};
use super::units::{bytes, count};
use crate::proto;

/// List the keys that are read most, or the largest entries, from a sample.
#[derive(Args, Debug)]
#[command(after_help = "\
Keys may say something about people: what is printed is a hash that stands for the key while the server runs. With --clear
it is the key.

Examples:
  ebb keys --hot
  ebb keys --big --limit 20 --clear
  ebb keys --big --sample 10000000     look at everything")]
pub(crate) struct KeysArgs {
    #[command(flatten)]
    which: Which,
    /// At most so many, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=64))]
    limit: u32,
    /// Print the keys themselves.
    #[arg(long)]
    clear: bool,
    /// With --big: look at about so many entries.
    #[arg(long, value_name = "N", default_value_t = 100_000, conflicts_with = "hot")]
    sample: u64,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    at: AdminAt,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// The keys that are read most: one read in 256 is looked at.
    #[arg(long)]
    hot: bool,
    /// The largest entries.
    #[arg(long)]
    big: bool,
}

/// Prints the keys.
pub(super) async fn run(args: KeysArgs) -> Outcome {
    let refuse = |s: tonic::Status| refused("keys", &args.at.admin_addr, &s);
    let mut client = args.at.connect().await?;
    let (limit, clear) = (args.limit, args.clear);
    let (keys, sampled, what) = if args.which.hot {
        let answer =
            client.list_hot_keys(proto::ListHotKeysRequest { limit, clear }).await.map_err(refuse)?.into_inner();
        (answer.keys, answer.sampled_reads, "reads")
    } else {
        let request = proto::ListBigKeysRequest { limit, clear, sample: args.sample };
        let answer = client.list_big_keys(request).await.map_err(refuse)?.into_inner();
        (answer.keys, answer.sampled_entries, "entries")
    };
    match args.output {
        Output::Json => output::json(&json!({
            "sampled": sampled,
            "keys": keys.iter().map(|info| as_json(info, clear)).collect::<Vec<_>>(),
        })),
        Output::Text if keys.is_empty() => output::line(&format!("nothing yet: {sampled} {what} were sampled")),
        Output::Text => {
            let figure = if args.which.hot { "of the reads" } else { "value" };
            let mut table = Table::new(["namespace", "key", figure]);
            for info in &keys {
                let figure = match args.which.hot {
                    true => format!("{:.1} %", f64::from(info.read_share_millipercent) / 1000.0),
                    false => bytes(info.value_bytes),
                };
                table.row([info.namespace.clone(), name(info, clear), figure]);
            }
            output::line(&format!("{table}\nfrom a sample of {} {what}", count(sampled)))
        }
    }
}

fn name(info: &proto::KeyInfo, clear: bool) -> String {
    match clear {
        true => info.key.escape_ascii().to_string(),
        false => format!("#{:016x}", info.key_hash),
    }
}

fn as_json(info: &proto::KeyInfo, clear: bool) -> serde_json::Value {
    json!({
        "namespace": info.namespace,
        "key": clear.then(|| info.key.escape_ascii().to_string()),
        "key_hash": format!("{:016x}", info.key_hash),
        "value_bytes": info.value_bytes,
        "read_share_percent": f64::from(info.read_share_millipercent) / 1000.0,
    })
}

/// Show how full the segments are.
#[derive(Args, Debug)]
#[command(after_help = "\
Segments that are nearly full of live bytes are memory well used; those on the left are what compaction frees.

Example:
  ebb memory-map --output json")]
pub(crate) struct MemoryMapArgs {
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    at: AdminAt,
}

/// Prints the histogram.
pub(super) async fn memory_map(args: MemoryMapArgs) -> Outcome {
    let refuse = |s: tonic::Status| refused("memory-map", &args.at.admin_addr, &s);
    let answer = args.at.connect().await?.get_memory_map(proto::GetMemoryMapRequest {}).await.map_err(refuse)?;
    let map = answer.into_inner();
    match args.output {
        Output::Json => output::json(&json!({ "segment_bytes": map.segment_bytes, "occupancy": map.occupancy })),
        Output::Text => output::line(&histogram(&map)),
    }
}

fn histogram(map: &proto::GetMemoryMapResponse) -> String {
    const WIDTH: u64 = 40;
    let most = map.occupancy.iter().copied().max().unwrap_or(0).max(1);
    let mut table = Table::new(["live", "segments", ""]);
    for (tenth, count) in map.occupancy.iter().enumerate() {
        let bar = "█".repeat((count * WIDTH).div_ceil(most) as usize);
        table.row([
            format!("{:>3}-{} %", tenth * 10, tenth * 10 + 10),
            super::units::count(*count),
            format!("{bar:<40}"),
        ]);
    }
    let segments: u64 = map.occupancy.iter().sum();
    format!("{table}\n{} segments of {}", count(segments), bytes(map.segment_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_hash_unless_it_is_asked_for() {
        let info = proto::KeyInfo { key: b"caf\xc3\xa9".as_slice().into(), key_hash: 0xab, ..Default::default() };
        assert_eq!(name(&info, false), "#00000000000000ab");
        assert_eq!(name(&info, true), "caf\\xc3\\xa9");
        assert_eq!(as_json(&info, false)["key"], serde_json::Value::Null);
    }

    #[test]
    fn the_longest_bar_is_the_most_frequent_tenth() {
        let map = proto::GetMemoryMapResponse { segment_bytes: 65536, occupancy: vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 80] };
        let text = histogram(&map);
        let bars: Vec<usize> = text.lines().map(|line| line.matches('█').count()).collect();
        assert_eq!((bars[2], bars[3], bars[11]), (1, 0, 40), "{text}");
        assert!(text.ends_with("81 segments of 64.0 KiB"), "{text}");
    }
}
