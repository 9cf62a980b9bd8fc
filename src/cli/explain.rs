//! `ebb doctor --explain`: the runbooks of `docs/operations.md`, which the program carries with it.
//!
//! A runbook is what stands there under a heading of the third level, be it a finding's or an alert's. Where it leads to
//! another one, that one follows.

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
    /// How another one leads to it.
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

/// Takes the name of a runbook, in small letters or large; what is none is refused with those that there are.
pub(super) fn parser() -> PossibleValuesParser {
    PossibleValuesParser::new(runbooks().map(|runbook| runbook.name))
}

/// The runbook of this name, in small letters or large, and those it leads to.
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

/// The names of all, under their headings.
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
        // One that can be more or less bad has its rules under one heading.
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
            assert!(!explain(name).contains("](#"), "{name} leads to what is no runbook");
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
