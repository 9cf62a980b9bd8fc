//! `ebb check`: whether an installation in a cluster is well.

use super::{Failure, Outcome, output};
use clap::Args;
use ebb_injector::check::{Severity, gather, judge};

/// Check an installation in a cluster and suggest fixes.
#[derive(Args, Debug)]
#[command(after_help = "\
It finds the cluster as kubectl does. Nothing is changed: the pod that is tried is never created.
The Secret that the webhook's certificate is in is read if the account may; of it, only the certificate is kept.

Exit codes: 0 all is well, or nothing worse than a warning; 1 there is an error.

Examples:
  ebb check
  ebb check --namespace shop --output json")]
pub(crate) struct CheckArgs {
    /// Namespace for the dry run of a pod.
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    output: How,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum How {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Checks.
pub(crate) async fn run(args: CheckArgs) -> Outcome {
    let client = kube::Client::try_default().await.map_err(|error| format!("cannot reach the API server: {error}"))?;
    let findings = judge(&gather(&client, &args.namespace).await);
    match args.output {
        How::Json => output::json(&serde_json::to_value(&findings)?)?,
        How::Text => {
            let mut category = "";
            for finding in &findings {
                if finding.code != category {
                    category = finding.code;
                    output::line(category)?;
                }
                let mark = match finding.severity {
                    Severity::Ok => "√",
                    Severity::Info => "i",
                    Severity::Warning => "‼",
                    Severity::Error => "×",
                };
                output::line(&format!("  {mark} {}", finding.evidence))?;
                if !finding.remedy.is_empty() {
                    output::line(&format!("      {}", finding.remedy))?;
                }
            }
        }
    }
    match findings.iter().any(|finding| finding.severity == Severity::Error) {
        true => Err(Failure::Said),
        false => Ok(()),
    }
}
