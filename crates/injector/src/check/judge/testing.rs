//! A cluster without problems, and assertions on findings.

use super::{Facts, Severity, judge};
use crate::check::{MissingFact, Revisions};
use serde_json::json;
use std::collections::BTreeMap;

pub(super) fn well() -> Facts {
    Facts {
        now: 1_800_000_000,
        version: Ok(json!({"minor": "37+"})),
        revisions: Revisions {
            checked: "default".to_owned(),
            installed: Some(BTreeMap::from([("default".to_owned(), vec!["policy ebb".to_owned()])])),
            ..Revisions::default()
        },
        webhooks: Ok(Vec::new()),
        policies: Ok(vec![json!({})]),
        injectors: Ok(Vec::new()),
        certificates: Vec::new(),
        templates: Ok(Vec::new()),
        misplaced: Ok(Vec::new()),
        budgets: Ok(Vec::new()),
        pods: Ok(Vec::new()),
        config_maps: Ok(Vec::new()),
        tried: Vec::new(),
        left_out: Vec::new(),
        trial: Ok(json!({"spec": {"initContainers": [{"name": "ebb"}]}})),
        monitors: Err(refused("not found")),
        refused: Vec::new(),
    }
}

pub(super) fn refused(message: &str) -> MissingFact {
    MissingFact::Refused(message.to_owned())
}

pub(super) fn troubles(facts: &Facts) -> Vec<(&'static str, Severity, String)> {
    let found = judge(facts).into_iter().filter(|finding| finding.severity != Severity::Ok);
    found
        .map(|finding| {
            assert!(!finding.remedy.is_empty(), "{finding:?}");
            (finding.code, finding.severity, finding.evidence)
        })
        .collect()
}

/// Asserts that there is exactly one problem, with this category, severity and text.
pub(super) fn only(facts: &Facts, category: &str, severity: Severity, words: &str) {
    let found = troubles(facts);
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert!(one.0 == category && one.1 == severity && one.2.contains(words), "{one:?}");
}
