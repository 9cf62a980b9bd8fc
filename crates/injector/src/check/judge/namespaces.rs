//! Checks that labelled namespaces admit pods with a sidecar.
//!
//! Namespaces with the same problem and remedy share a finding, since hundreds may have the same quota.

use super::{Facts, Finding, Misfit, Severity, Trial, bad, named, ok};
use crate::inject::{environment_problems, sidecar_of};
use std::collections::BTreeMap;

const CATEGORY: &str = "namespaces";

pub(super) fn namespaces(facts: &Facts, all: &mut Vec<Finding>) {
    // Severity, evidence with a gap for the namespaces, and remedy.
    let mut troubles: BTreeMap<(Severity, String, String), Vec<&str>> = BTreeMap::new();
    let mut admitted = 0;
    let sidecar = facts.trial.as_ref().ok().and_then(sidecar_of);
    let is_working = sidecar.is_some();
    // Problems of every sidecar are findings about the policy, or about the template.
    let everywhere = sidecar.map_or_else(Vec::new, environment_problems);
    for tried in &facts.tried {
        let (severity, found, remedy) = match &tried.outcome {
            Trial::Injected(problems) if problems.iter().all(|problem| everywhere.contains(problem)) => {
                admitted += 1;
                continue;
            }
            Trial::Injected(problems) => (
                Severity::Error,
                format!("a new pod of {GAP} gets a sidecar that refuses its environment: {}", problems.join("; ")),
                "Correct the annotation additional-env or the chart's values; `ebb config check --env` in the sidecar shows \
                 the same."
                    .to_owned(),
            ),
            // If no pod gets a sidecar in any namespace, the check of injection reports it.
            Trial::Bare if !is_working => continue,
            Trial::Bare => (
                Severity::Error,
                format!("a new pod of {GAP} gets no sidecar (dry run)"),
                "Compare its labels with the selectors of the webhook or of the policy's bindings, and read the log of the \
                 injector."
                    .to_owned(),
            ),
            Trial::Refused { why, misfit, is_cured } => (
                Severity::Error,
                format!("a new pod of {GAP} is refused because of its sidecar (dry run): {why}"),
                cure(why, misfit, *is_cured),
            ),
            Trial::RefusedAnyway(why) => (
                Severity::Info,
                format!("a new pod of {GAP} is refused without a sidecar, too, so Ebb is not the reason: {why}"),
                "Whether the sidecar fits is not known. Read the namespace's quotas and policies.".to_owned(),
            ),
            Trial::Unselected => (
                Severity::Info,
                format!("no pod was tried in {GAP}: the selectors of the injectors fit no pod of it"),
                "See injector.namespaceSelector and injector.objectSelector of the chart.".to_owned(),
            ),
            Trial::NotPermitted(Some(misfit)) => (
                Severity::Warning,
                format!("a new pod of {GAP} may be refused because of its sidecar: {}", misfit.conflicts.join("; ")),
                cure("", misfit, false),
            ),
            Trial::NotPermitted(None) => (
                Severity::Info,
                format!("no pod was tried in {GAP}: this account may not create pods there"),
                "Use an account that may create pods in them; a dry run creates none.".to_owned(),
            ),
            Trial::NotInTime => (
                Severity::Info,
                format!("no pod was tried in {GAP}: the API server did not answer in time"),
                "Run the check again when the API server and its webhooks answer faster.".to_owned(),
            ),
        };
        troubles.entry((severity, found, remedy)).or_default().push(&tried.namespace);
    }
    for ((severity, found, remedy), namespaces) in troubles {
        bad(all, CATEGORY, severity, found.replace(GAP, &named(&namespaces)), &remedy);
    }
    if !facts.left_out.is_empty() {
        let names: Vec<&str> = facts.left_out.iter().map(String::as_str).collect();
        let found = format!("labelled namespaces that the injector leaves out: {}", named(&names));
        let remedy =
            "They are system namespaces, the injector's own, or excluded by the chart's values. Remove the label.";
        bad(all, CATEGORY, Severity::Info, found, remedy);
    }
    if admitted > 0 {
        ok(all, CATEGORY, format!("labelled namespaces that admit a pod with a sidecar (dry run): {admitted}"));
    }
}

/// Stands for the names of the namespaces.
const GAP: &str = "{namespaces}";

/// What resolves a refusal.
fn cure(why: &str, misfit: &Misfit, is_cured: bool) -> String {
    const PAGE: &str = "See \"ResourceQuota and LimitRange\" in docs/platforms.md.";
    let annotations: Vec<String> = misfit.annotations.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut sentences = Vec::new();
    if !annotations.is_empty() {
        let proof = if is_cured { " (tried: the pod is admitted)" } else { "" };
        sentences.push(format!(
            "Annotate the namespace, or the pod templates in it, with {}{proof}.",
            annotations.join(" and ")
        ));
    }
    if !misfit.values.is_empty() {
        let or = if annotations.is_empty() { "" } else { "Or: " };
        sentences.push(format!("{or}{}.", capitalized(&misfit.values.join("; "), or.is_empty())));
    }
    match sentences.is_empty() {
        true if why.contains("failed calling webhook") => {
            "The API server cannot call the injector. See the findings about it.".to_owned()
        }
        true => "No annotation of Ebb is known to help. Change the rule that the message names, or set the label \
                 ebb-cache.io/inject: disabled on the pods."
            .to_owned(),
        false => format!("{} {PAGE}", sentences.join(" ")),
    }
}

fn capitalized(text: &str, is_first: bool) -> String {
    let mut letters = text.chars();
    match letters.next().filter(|_| is_first) {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge;
    use super::super::testing::{only, troubles, well};
    use super::*;
    use crate::check::Tried;
    use serde_json::json;

    fn with(outcomes: &[(&str, Trial)]) -> Facts {
        let tried = |(name, outcome): &(&str, Trial)| Tried { namespace: (*name).to_owned(), outcome: outcome.clone() };
        Facts { tried: outcomes.iter().map(tried).collect(), ..well() }
    }

    fn remedies(facts: &Facts) -> Vec<String> {
        judge(facts).into_iter().map(|finding| finding.remedy).filter(|remedy| !remedy.is_empty()).collect()
    }

    fn misfit() -> Misfit {
        Misfit {
            conflicts: vec!["the sidecar's memory 256Mi is above the LimitRange's max 64Mi of a container".to_owned()],
            annotations: [("config.ebb-cache.io/memory-limit".to_owned(), "64Mi".to_owned())].into(),
            values: Vec::new(),
        }
    }

    #[test]
    fn namespaces_with_one_problem_share_a_finding() {
        let refused = Trial::Refused { why: "too much".to_owned(), misfit: misfit(), is_cured: true };
        let names: Vec<String> = (0..500).map(|n| format!("team-{n:03}")).collect();
        let outcomes: Vec<_> = names.iter().map(|name| (name.as_str(), refused.clone())).collect();
        let facts = with(&outcomes);
        only(
            &facts,
            "namespaces",
            Severity::Error,
            "a new pod of team-000, team-001, team-002, team-003, team-004 and 495 more is refused because of its sidecar",
        );
        let remedy = "Annotate the namespace, or the pod templates in it, with config.ebb-cache.io/memory-limit: 64Mi (tried: \
                      the pod is admitted).";
        assert!(remedies(&facts)[0].starts_with(remedy), "{:?}", remedies(&facts));
    }

    #[test]
    fn each_outcome_is_told_with_its_severity() {
        let text = |text: &str| text.to_owned();
        let refused = |misfit, is_cured| Trial::Refused { why: text("w"), misfit, is_cured };
        let values = Misfit { values: vec![text("raise it")], ..Misfit::default() };
        let cases = [
            (Trial::Injected(vec![text("tick: 5")]), Severity::Error, "refuses its environment: tick: 5", "Correct"),
            (Trial::Bare, Severity::Error, "a new pod of shop gets no sidecar", "Compare its labels"),
            (
                refused(misfit(), false),
                Severity::Error,
                "is refused because of its sidecar (dry run): w",
                "memory-limit: 64Mi.",
            ),
            (refused(values, false), Severity::Error, "refused because", "Raise it. See"),
            (refused(Misfit::default(), false), Severity::Error, "refused because", "No annotation of Ebb"),
            (Trial::RefusedAnyway(text("w")), Severity::Info, "so Ebb is not the reason: w", "not known"),
            (Trial::Unselected, Severity::Info, "selectors", "namespaceSelector"),
            (Trial::NotPermitted(Some(misfit())), Severity::Warning, "may be refused", "memory-limit: 64Mi."),
            (Trial::NotPermitted(None), Severity::Info, "this account may not create pods there", "Use an account"),
            (Trial::NotInTime, Severity::Info, "did not answer in time", "again"),
        ];
        for (outcome, severity, found, remedy) in cases {
            let facts = with(&[("shop", outcome)]);
            only(&facts, "namespaces", severity, found);
            assert!(remedies(&facts)[0].contains(remedy), "{:?}", remedies(&facts));
        }
        assert_eq!(troubles(&with(&[("shop", Trial::Injected(Vec::new()))])), []);
        let nowhere = Facts { trial: Ok(json!({"spec": {}})), ..with(&[("shop", Trial::Bare)]) };
        only(&nowhere, "injection", Severity::Error, "does not get one");
        // A problem of every sidecar is reported once.
        let sidecar = json!({"name": "ebb", "env": [{"name": "EBB_CORES", "value": "0"}]});
        let everywhere = Facts {
            trial: Ok(json!({"spec": {"initContainers": [sidecar]}})),
            ..with(&[("shop", Trial::Injected(vec![text("cores: 0 is out of range (1 to 64)")]))])
        };
        only(&everywhere, "policy", Severity::Error, "cores: 0 is out of range");
        let left_out = Facts { left_out: vec![text("kube-system")], ..well() };
        only(&left_out, "namespaces", Severity::Info, "leaves out: kube-system");
    }
}
