//! `ebb doctor --explain`: the runbooks of `docs/operations.md`, embedded in the program.
//!
//! A runbook is the section under a third-level heading with the name of a finding or alert. Runbooks that it links to
//! are appended.

use clap::builder::PossibleValuesParser;

const PAGE: &str = include_str!("../../docs/operations.md");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Runbook {
    /// The heading above it: `Findings` or `Alerts`.
    kind: &'static str,
    name: &'static str,
    text: &'static str,
}

impl Runbook {
    /// The link by which another runbook refers to it.
    fn link(&self) -> String {
        format!("[{}](#{})", self.name, self.name.to_lowercase())
    }
}

fn runbooks() -> impl Iterator<Item = Runbook> {
    PAGE.split("\n## ").skip(1).flat_map(|part| {
        let (kind, rest) = part.split_once('\n').unwrap_or_default();
        let runbooks = rest.split("\n### ").skip(1).filter_map(|runbook| runbook.split_once('\n'));
        runbooks.map(move |(name, text)| Runbook { kind, name, text: text.trim() })
    })
}

/// Parser for the name of a runbook, ignoring case. Unknown names are rejected with the list of valid ones.
pub(super) fn parser() -> PossibleValuesParser {
    PossibleValuesParser::new(runbooks().map(|runbook| runbook.name))
}

/// The runbook of this name, ignoring case, and the runbooks it links to.
pub(super) fn explain(name: &str) -> String {
    let mut told: Vec<Runbook> = runbooks().filter(|runbook| runbook.name.eq_ignore_ascii_case(name)).collect();
    let mut texts = Vec::new();
    while let Some(runbook) = told.get(texts.len()) {
        let mut text = format!("{}\n{}\n", runbook.name, runbook.text);
        for other in runbooks() {
            if text.contains(&other.link()) {
                text = text.replace(&other.link(), other.name);
                told.extend(Some(other).filter(|other| !told.contains(other)));
            }
        }
        texts.push(text);
    }
    texts.join("\n")
}

/// All names, under their headings.
pub(super) fn list() -> String {
    let mut lines = vec![];
    for Runbook { kind, name, .. } in runbooks() {
        if !lines.contains(&kind.to_owned()) {
            lines.push(kind.to_owned());
        }
        lines.push(format!("  {name}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_and_every_alert_has_a_runbook() {
        let alerts = include_str!("../../charts/ebb/files/rules.yaml");
        let alerts: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        let named = |kind: &str| runbooks().filter(|r| r.kind == kind).map(|r| r.name).collect::<Vec<_>>();
        // Rules of one alert with different severities share a heading.
        let mut findings: Vec<&str> = Vec::new();
        for (_, code, ..) in crate::doctor::RULES {
            if !findings.contains(code) {
                findings.push(code);
            }
        }
        assert_eq!(named("Findings"), findings);
        assert_eq!(named("Alerts"), alerts);
        for Runbook { name, text, .. } in runbooks() {
            assert!(text.len() > 20 && !text.contains("\n#"), "{name}: {text}");
            assert!(!explain(name).contains("](#"), "{name} links to a missing runbook");
        }
    }

    #[test]
    fn a_runbook_is_told_with_those_it_leads_to() {
        let told = explain("ebbmemorynearlimit");
        assert!(told.starts_with("EbbMemoryNearLimit\nEbb keeps `reserve` free"), "{told}");
        assert!(
            told.contains("(memory_unaccounted), or the cleaner") && told.contains("\nmemory_unaccounted\nA quarter")
        );
        assert!(list().starts_with("Findings\n  oom_killed\n") && list().contains("\nAlerts\n  EbbOutOfMemoryKill\n"));
    }
}
