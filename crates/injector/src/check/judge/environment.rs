//! Checks the environment that policies give sidecars, with the code of the sidecar's start.
//!
//! A policy has the sidecar as CEL expressions. The variables with a constant value are read from them; a dry run shows
//! the value of the others.

use super::{Facts, Finding, Severity, bad, plain};
use crate::inject::{environment_problems, sidecar_of};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CATEGORY: &str = "policy";
/// A variable of the sidecar in a policy.
const VARIABLE: &str = "Object.spec.initContainers.env{";

pub(super) fn environment(facts: &Facts, all: &mut Vec<Finding>) {
    // A template of the webhook is checked as a whole.
    if facts.webhooks.as_ref().is_ok_and(|webhooks| !webhooks.is_empty()) {
        return;
    }
    let remedy = "Correct the chart's values and run helm upgrade. A sidecar does not start with such a variable, or does \
                  not use it.";
    let mut known = Vec::new();
    for policy in facts.policies.as_ref().map_or(&[][..], Vec::as_slice) {
        let problems = environment_problems(&container(policy));
        if !problems.is_empty() {
            let name = plain(&policy["metadata"]["name"]);
            let found = format!("the sidecar refuses the environment in the policy {name}: {}", problems.join("; "));
            bad(all, CATEGORY, Severity::Error, found, remedy);
            known.extend(problems);
        }
    }
    let mut given = facts.trial.as_ref().ok().and_then(sidecar_of).map_or_else(Vec::new, environment_problems);
    given.retain(|problem| !known.contains(problem));
    if !given.is_empty() {
        let found = format!("the sidecar of a new pod refuses its environment (dry run): {}", given.join("; "));
        bad(all, CATEGORY, Severity::Error, found, remedy);
    }
}

/// A container with the variables of a policy's sidecar that have a constant value.
fn container(policy: &Value) -> Value {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    let mutations = policy["spec"]["mutations"].as_array().into_iter().flatten();
    for expression in mutations.filter_map(|mutation| mutation["jsonPatch"]["expression"].as_str()) {
        for rest in expression.split(VARIABLE).skip(1) {
            let constant = || {
                let (name, rest) = text(rest.trim_start().strip_prefix("name:")?)?;
                let (value, rest) = text(rest.trim_start().strip_prefix(',')?.trim_start().strip_prefix("value:")?)?;
                // Not the begin of a longer expression.
                rest.trim_start().starts_with('}').then_some((name, value))
            };
            variables.extend(constant());
        }
    }
    let list: Vec<Value> = variables.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({"env": list})
}

/// The string literal at the start, and the rest. The chart writes the escapes of JSON.
fn text(expression: &str) -> Option<(String, &str)> {
    let expression = expression.trim_start();
    let mut values = serde_json::Deserializer::from_str(expression).into_iter::<String>();
    let literal = values.next()?.ok()?;
    Some((literal, &expression[values.byte_offset()..]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only, troubles, well};
    use super::*;

    /// A policy with this list of variables.
    fn policy(variables: &str) -> Facts {
        let expression = format!("[JSONPatch{{op: \"add\", value: Object.spec.initContainers{{env: [{variables}]}}}}]");
        let policy = json!({
            "metadata": {"name": "ebb.a"}, "spec": {"mutations": [{"jsonPatch": {"expression": expression}}]},
        });
        Facts { policies: Ok(vec![policy]), ..well() }
    }

    fn variable(name: &str, value: &str) -> String {
        format!("Object.spec.initContainers.env{{\n  name: \"{name}\",\n  value: {value}\n}}")
    }

    #[test]
    fn constants_of_a_policy_are_checked_with_all_problems() {
        let all = |variables: &[(&str, &str)]| {
            policy(&variables.iter().map(|(name, value)| variable(name, value)).collect::<Vec<_>>().join(",\n"))
        };
        let good =
            [("EBB_CONFIG", "\"/etc/ebb\""), ("EBB_TICK", "\"100ms\""), ("EBB_LISTEN", "variables.host + \":\"")];
        assert_eq!(troubles(&all(&good)), []);
        let bad = [("EBB_TICK", "\"5ms\""), ("EBB_CORES", "\"0\""), ("EBB_LOG_FORMAT", "x ? y : \"z\"")];
        let words = "in the policy ebb.a: cores: 0 is out of range (1 to 64); tick: 5 is out of range (10 to 2000 ms)";
        only(&all(&bad), "policy", Severity::Error, words);
        // Part of an expression is no value, and a value may contain what ends one.
        assert_eq!(troubles(&all(&[("EBB_CORES", "\"0\" + variables.more")])), []);
        only(&all(&[("EBB_TICK", r#""a\"}""#)]), "policy", Severity::Error, r#"a\"}"#);
    }

    #[test]
    fn a_dry_run_shows_the_other_variables() {
        let env = json!([{"name": "EBB_CORES", "value": "0"}, {"name": "EBB_TICK", "value": "5ms"}]);
        let trial = Ok(json!({"spec": {"initContainers": [{"name": "ebb", "env": env}]}}));
        let facts = Facts { trial, ..policy(&variable("EBB_CORES", "\"0\"")) };
        let found: Vec<String> = troubles(&facts).into_iter().map(|(_, _, found)| found).collect();
        let [of_policy, of_pod] = found.as_slice() else { panic!("{found:?}") };
        assert!(of_policy.ends_with("in the policy ebb.a: cores: 0 is out of range (1 to 64)"), "{of_policy}");
        assert!(of_pod.ends_with("(dry run): tick: 5 is out of range (10 to 2000 ms)"), "{of_pod}");
    }
}
