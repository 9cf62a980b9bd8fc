//! `ebb keys`: hot keys and large entries.

use clap::Args;
use serde_json::json;

use super::connect::{AdminAt, refused};
use ebb_config::units::format::{bytes, count, counted};
use ebb_proto as proto;
use ebb_proto::json::{number, put_bytes};
use ebb_terminal::escape::escaped_bytes;
use ebb_terminal::{Outcome, Output, Table, output};

/// List hot keys or the largest entries, from a sample.
#[derive(Args, Debug)]
#[command(after_help = "\
Keys may contain personal data, so they are printed as hashes, which are stable until the server restarts. With --clear,
keys are printed as they are. With --hot, shares are lower bounds.

Examples:
  ebb keys --hot
  ebb keys --big --limit 20 --clear
  ebb keys --big --sample 10000000     sample all entries")]
pub(crate) struct KeysArgs {
    #[command(flatten)]
    which: Which,
    /// Maximum number of keys, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=64))]
    limit: u32,
    /// Print keys instead of their hashes.
    #[arg(long)]
    clear: bool,
    /// Entries to sample with --big.
    #[arg(long, value_name = "N", default_value_t = 100_000, conflicts_with = "hot")]
    sample: u64,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    at: AdminAt,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// List hot keys, from a sample of one read in 256; only keys read significantly more often than others.
    #[arg(long)]
    hot: bool,
    /// List the largest entries.
    #[arg(long)]
    big: bool,
}

/// Prints the keys.
pub(super) async fn run(args: KeysArgs) -> Outcome {
    let at = args.at.server().await?;
    let refuse = |s: tonic::Status| refused("keys", &at, &s);
    let mut client = at.connect().await?;
    let (limit, clear) = (args.limit, args.clear);
    let (keys, sampled, [one, many]) = if args.which.hot {
        let answer =
            client.list_hot_keys(proto::ListHotKeysRequest { limit, clear }).await.map_err(refuse)?.into_inner();
        (answer.keys, answer.sampled_reads, ["read", "reads"])
    } else {
        let request = proto::ListBigKeysRequest { limit, clear, sample: args.sample };
        let answer = client.list_big_keys(request).await.map_err(refuse)?.into_inner();
        (answer.keys, answer.sampled_entries, ["entry", "entries"])
    };
    match args.output {
        Output::Json => output::json(&as_json(&keys, sampled, clear)),
        Output::Text if keys.is_empty() => {
            let sample = counted(sampled, one, many);
            output::line(&match args.which.hot && sampled > 0 {
                true => {
                    format!("no hot keys: no key was read significantly more often than others in a sample of {sample}")
                }
                false => format!("no keys yet, from a sample of {sample}"),
            })
        }
        Output::Text if args.which.hot => {
            let mut table = Table::new(["namespace", "key", "share of reads", "sampled reads", "maximum error"]);
            for info in &keys {
                let share = format!("{:.1} %", f64::from(info.read_share_millipercent) / 1000.0);
                let [certain, error] = [info.sampled_reads, info.sampled_reads_error].map(count);
                table.row([info.namespace.clone(), name(info, clear), share, certain, error]);
            }
            output::line(&format!("{table}\nlower bounds, from a sample of {}", counted(sampled, one, many)))
        }
        Output::Text => {
            let mut table = Table::new(["namespace", "key", "value"]);
            for info in &keys {
                table.row([info.namespace.clone(), name(info, clear), bytes(info.value_bytes)]);
            }
            output::line(&format!("{table}\nfrom a sample of {}", counted(sampled, one, many)))
        }
    }
}

fn name(info: &proto::KeyInfo, clear: bool) -> String {
    match clear {
        true => escaped_bytes(&info.key),
        false => format!("#{:016x}", info.key_hash),
    }
}

/// The keys as JSON, with the field names of the contract.
pub(super) fn as_json(keys: &[proto::KeyInfo], sampled: u64, clear: bool) -> serde_json::Value {
    json!({ "sampled": number(sampled), "keys": keys.iter().map(|info| one(info, clear)).collect::<Vec<_>>() })
}

fn one(info: &proto::KeyInfo, clear: bool) -> serde_json::Value {
    let mut object = json!({
        "namespace": info.namespace,
        "key_hash": format!("{:016x}", info.key_hash),
        "value_bytes": number(info.value_bytes),
        "read_share_percent": f64::from(info.read_share_millipercent) / 1000.0,
        "sampled_reads": number(info.sampled_reads),
        "sampled_reads_error": number(info.sampled_reads_error),
    });
    if clear {
        put_bytes(&mut object, "key", &info.key);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_hash_unless_it_is_asked_for() {
        let info = proto::KeyInfo { key: b"caf\xc3\xa9".as_slice().into(), key_hash: 0xab, ..Default::default() };
        assert_eq!(name(&info, false), "#00000000000000ab");
        assert_eq!(name(&info, true), "caf\u{e9}");
        assert_eq!(one(&info, false)["key"], serde_json::Value::Null);
        assert_eq!(one(&info, true)["key"], "caf\u{e9}");
        let bytes = proto::KeyInfo { key: b"\xff".as_slice().into(), ..Default::default() };
        assert_eq!((&one(&bytes, true)["key_base64"], one(&bytes, true).get("key")), (&"/w==".into(), None));
    }
}
