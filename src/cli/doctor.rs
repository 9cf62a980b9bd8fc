//! `ebb doctor`: prints findings with evidence and remedy, or a runbook.

use clap::Args;

use super::connect::{AdminAt, At, print_each, refused};
use super::{Failure, Outcome, explain, output};
use ebb_proto::diagnose_response::Finding;
use ebb_proto::{self as proto, json};
use ebb_terminal::Output;
use ebb_terminal::escape::escaped;

/// List problems of a server with evidence and a remedy, worst first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb doctor                           exits with 1 if any finding is an error
  ebb doctor --output json
  ebb doctor pod/shop-0 -n shop
  ebb doctor deploy/shop               every pod of the workload
  ebb doctor --explain                 list all runbooks; needs no server
  ebb doctor --explain oom_killed      also for alerts, such as EbbSlowReads")]
pub(crate) struct DoctorArgs {
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Print the runbook of a finding or alert, or list them all; connects to no server.
    #[arg(long, value_name = "CODE", value_parser = explain::parser(), ignore_case = true, hide_possible_values = true)]
    #[arg(conflicts_with = "output")]
    explain: Option<Option<String>>,
    #[command(flatten)]
    at: AdminAt,
}

/// Prints the findings, worst first, or a runbook.
pub(super) async fn run(args: DoctorArgs) -> Outcome {
    if let Some(asked) = &args.explain {
        let text = asked.as_ref().map_or_else(explain::list, |code| explain::explain(code));
        return output::line(text.trim_end());
    }
    let ask = async |at: &At| {
        let refuse = |s: tonic::Status| refused("doctor", at, &s);
        let answer = at.connect().await?.diagnose(proto::DiagnoseRequest {}).await.map_err(refuse)?;
        Ok(proto::DiagnoseResponse { findings: worst_first(answer.into_inner().findings) })
    };
    let answers = print_each(&args.at, args.output, ask, |answer| as_text(&answer.findings), json::of).await?;
    let is_error = |finding: &Finding| finding.severity == "error";
    match answers.iter().flat_map(|answer| &answer.findings).any(is_error) {
        true => Err(Failure::Printed),
        false => Ok(()),
    }
}

fn worst_first(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| match finding.severity.as_str() {
        "error" => 0,
        "warning" => 1,
        _ => 2,
    });
    findings
}

fn as_text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "all is well".into();
    }
    let one = |finding: &Finding| {
        let Finding { code, severity, evidence, remedy, link: _ } = finding;
        let [code, severity, evidence, remedy] = [code, severity, evidence, remedy].map(|text| escaped(text));
        let more = format!("ebb doctor --explain {code}");
        format!("{severity}: {code}\n  seen    {evidence}\n  remedy  {remedy}\n  more    {more}\n")
    };
    findings.iter().map(one).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_stands_first() {
        let finding = |severity: &str| Finding {
            code: format!("a_{severity}"),
            severity: severity.into(),
            evidence: "no limit was found".into(),
            remedy: "set one".into(),
            link: "docs/operations.md#a".into(),
        };
        let findings = worst_first(vec![finding("info"), finding("error"), finding("warning")]);
        assert!(as_text(&findings).starts_with("error: a_error\n  seen    no limit was found\n  remedy  set one\n"));
        assert_eq!(findings[2].severity, "info");
        assert_eq!(as_text(&[]), "all is well");
    }
}
