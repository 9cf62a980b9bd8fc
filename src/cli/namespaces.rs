//! `ebb namespaces`: what each namespace uses.

use clap::Args;
use ebb_config::units::format::{bytes, count, counted};
use ebb_proto as proto;
use ebb_proto::json;
use ebb_terminal::{Outcome, Output, Table, output};

use super::connect::{AdminAt, refused};

/// List the namespaces and what each of them uses, largest first.
#[derive(Args, Debug)]
#[command(after_help = "\
Reads and writes are counted one by one for the first 32 namespaces; the others have a dash.

Examples:
  ebb namespaces
  ebb namespaces pod/shop-0 --limit 5
  ebb namespaces -o json")]
pub(crate) struct NamespacesArgs {
    /// Maximum number of namespaces [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    limit: Option<u32>,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    at: AdminAt,
}

/// Prints the namespaces.
pub(super) async fn run(args: NamespacesArgs) -> Outcome {
    let at = args.at.server().await?;
    let request = proto::ListNamespacesRequest { limit: args.limit.unwrap_or_default() };
    let answer = at.connect().await?.list_namespaces(request).await.map_err(|s| refused("namespaces", &at, &s))?;
    let answer = answer.into_inner();
    match args.output {
        Output::Json => output::json(&json::of(&answer)),
        Output::Text => output::line(&as_text(&answer)),
    }
}

fn as_text(answer: &proto::ListNamespacesResponse) -> String {
    let mut table = Table::new(["namespace", "entries", "keys and values", "hits", "misses", "sets", "evictions"]);
    let perhaps = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), count);
    for info in &answer.namespaces {
        let [entries, evictions] = [info.entries, info.evictions].map(count);
        let [hits, misses, sets] = [info.hits, info.misses, info.sets].map(perhaps);
        table.row([info.name.clone(), entries, bytes(info.live_bytes), hits, misses, sets, evictions]);
    }
    match u64::from(answer.total) - answer.namespaces.len() as u64 {
        0 => table.to_string(),
        more => format!("{table}\nand {}", counted(more, "other namespace", "other namespaces")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uncounted_reads_are_a_dash_and_a_limit_is_said() {
        let info = proto::NamespaceInfo { name: "shop".to_owned(), entries: 3, hits: Some(5), ..Default::default() };
        let text = as_text(&proto::ListNamespacesResponse { namespaces: vec![info], total: 3 });
        assert!(text.contains("shop") && text.contains('-') && text.ends_with("and 2 other namespaces"), "{text}");
    }
}
