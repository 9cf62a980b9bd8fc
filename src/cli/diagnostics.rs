//! `ebb diagnostics`: writes a support bundle, for later analysis or for others.

use clap::Args;
use ebb_proto::json;
use serde_json::{Value, json};
use tonic::{Response, Status};

use super::connect::AdminAt;
use super::{Outcome, keys, output};
use ebb_proto as proto;

/// Number of hot keys and of large entries.
const KEYS: u32 = 64;
/// Number of namespaces.
const NAMESPACES: u32 = 32;
/// Entries sampled for the largest ones.
const SAMPLE: u64 = 100_000;

/// Write a support bundle as JSON.
#[derive(Args, Debug)]
#[command(after_help = "\
The bundle contains memory use and recent receipts, findings, the configuration with sources, the
occupancy of segments, the largest namespaces by name, and the hashes of hot keys and large
entries. It contains no keys and no values. Fields that the server does not report contain the reason instead.

Examples:
  ebb diagnostics > ebb.json
  ebb diagnostics pod/shop-0 > ebb.json")]
pub(crate) struct DiagnosticsArgs {
    #[command(flatten)]
    at: AdminAt,
}

/// Prints the bundle.
pub(super) async fn run(args: DiagnosticsArgs) -> Outcome {
    let at = args.at.server().await?;
    let mut client = at.connect().await?;
    let hot = proto::ListHotKeysRequest { limit: KEYS, clear: false };
    let big = proto::ListBigKeysRequest { limit: KEYS, clear: false, sample: SAMPLE };
    output::json(&json!({
        "taken_by": env!("CARGO_PKG_VERSION"),
        "address": at.to_string(),
        "stats": answer_or_refusal(client.get_stats(proto::GetStatsRequest {}).await, |answer| json::of(&answer)),
        "findings": answer_or_refusal(
            client.diagnose(proto::DiagnoseRequest {}).await,
            |answer| json::of(&answer.findings),
        ),
        "config": answer_or_refusal(client.get_config(proto::GetConfigRequest {}).await, |answer| json::of(&answer)),
        "memory_map": answer_or_refusal(
            client.get_memory_map(proto::GetMemoryMapRequest {}).await,
            |answer| json::of(&answer),
        ),
        "namespaces": answer_or_refusal(
            client.list_namespaces(proto::ListNamespacesRequest { limit: NAMESPACES }).await,
            |answer| json::of(&answer),
        ),
        "hot_keys": answer_or_refusal(
            client.list_hot_keys(hot).await,
            |answer| keys::as_json(&answer.keys, answer.sampled_reads, false),
        ),
        "big_keys": answer_or_refusal(
            client.list_big_keys(big).await,
            |answer| keys::as_json(&answer.keys, answer.sampled_entries, false),
        ),
    }))
}

/// The answer, or the reason if the call failed: an older server does not know every call.
fn answer_or_refusal<T>(answer: Result<Response<T>, Status>, show: impl Fn(T) -> Value) -> Value {
    match answer {
        Ok(answer) => show(answer.into_inner()),
        Err(status) => json!({"refused": format!("{:?}: {}", status.code(), status.message())}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_call_is_replaced_by_its_refusal() {
        let old: Result<Response<proto::GetConfigResponse>, _> = Err(Status::unimplemented("there is no GetConfig"));
        let config = |answer| json::of(&answer);
        assert_eq!(answer_or_refusal(old, config), json!({"refused": "Unimplemented: there is no GetConfig"}));
        let answer = answer_or_refusal(
            Ok(Response::new(proto::GetConfigResponse { generation: 3, ..Default::default() })),
            config,
        );
        assert_eq!(answer, json!({"settings": [], "problem": "", "generation": "3", "applied_at_ms": "0"}));
    }
}
