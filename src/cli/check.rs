//! `ebb check`: checks an installation in a cluster.

use super::{Failure, Outcome, output};
use clap::Args;
use ebb_injector::check::{Severity, gather, judge};
use ebb_injector::inject::{DEFAULT_REVISION, is_revision};

/// Check an installation in a cluster and suggest fixes.
#[derive(Args, Debug)]
#[command(after_help = "\
It uses the same cluster as kubectl and changes nothing. It creates pods as dry runs: one in
--namespace, and one in each labelled namespace in which this account may create pods, to see
whether quotas and policies admit a sidecar there. It reads the Secret of the webhook's
certificate if permitted, and keeps only the certificate.

Exit codes: 0 no errors, 1 at least one error.

Examples:
  ebb check
  ebb check --rev canary
  ebb check --namespace shop --output json")]
pub(crate) struct CheckArgs {
    /// Namespace for the dry run of a pod.
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Revision of the injector.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_REVISION)]
    rev: String,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    output: How,
}

/// Output formats of findings.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum How {
    /// Text for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// Number of labelled namespaces from which on progress is shown, and between two lines where it cannot be replaced.
const MANY: usize = 50;

/// Shows on standard error how many labelled namespaces are done.
fn progress(done: usize, all: usize) {
    if all < MANY {
        return;
    }
    let text = format!("labelled namespaces checked: {done} of {all}");
    match output::shows_progress() {
        true => output::progress(text),
        false if done.is_multiple_of(MANY) => output::note(text),
        false => {}
    }
}

/// Checks the installation and prints the findings.
pub(crate) async fn run(args: CheckArgs) -> Outcome {
    if !is_revision(&args.rev) {
        let problem = "is not a revision; it must be a DNS label: small letters, digits and -, at most 63 characters";
        return Err(Failure::Usage(format!("--rev: {:?} {problem}", args.rev)));
    }
    let client = kube::Client::try_default().await.map_err(|error| format!("cannot reach the API server: {error}"))?;
    let findings = judge(&gather(&client, &args.namespace, &args.rev, &progress).await);
    output::progress("");
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
        true => Err(Failure::Printed),
        false => Ok(()),
    }
}
