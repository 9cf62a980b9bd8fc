//! Settings of a policy, read from its expressions: it has no arguments and no template. The chart writes each setting into a
//! variable of its own, and an administrator may have changed the policy since.

use super::Listed;
use crate::inject::names;
use ebb_config::annotations::PREFIX;
use serde_json::Value;

/// The variables of policies: name and expression.
fn variables(policies: &Listed) -> impl Iterator<Item = (&str, &str)> {
    let all = policies.iter().flatten().flat_map(|policy| policy["spec"]["variables"].as_array().into_iter().flatten());
    all.filter_map(|variable: &Value| Some((variable["name"].as_str()?, variable["expression"].as_str()?)))
}

fn variable<'a>(policies: &'a Listed, wanted: &str) -> Option<&'a str> {
    variables(policies).find(|(name, _)| *name == wanted).map(|(_, expression)| expression)
}

/// The annotations that namespaces and pods may set without a label: the variable of each reads them from `inherited` and
/// `annotations`. `None` if no policy has such variables.
pub(super) fn allowed(policies: &Listed) -> Option<(Vec<String>, Vec<String>)> {
    let read = |from: &str| {
        let is_read = |name: &&str| {
            let expression = variable(policies, &name.replace('-', "_")).unwrap_or_default();
            expression.contains(&format!("variables.{from}[?\"{PREFIX}{name}\"]"))
        };
        names().filter(is_read).map(str::to_owned).collect::<Vec<_>>()
    };
    let is_known = names().any(|name| variable(policies, &name.replace('-', "_")).is_some());
    is_known.then(|| (read("inherited"), read("annotations")))
}

/// The data port of pods whose annotations open it without choosing one: the last word of the variable.
pub(super) fn opened_port(policies: &Listed) -> Option<u64> {
    variable(policies, "port_data")?.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy that the chart renders with its defaults.
    fn rendered() -> Listed {
        let text = std::fs::read_to_string("../../manifests/policy.yaml").unwrap();
        let mut all = ebb_config::yaml::manifests(&text).unwrap();
        all.retain(|object: &Value| object["kind"] == "MutatingAdmissionPolicy");
        Ok(all)
    }

    #[test]
    fn the_charts_policy_tells_what_it_allows() {
        let (namespaces, pods) = allowed(&rendered()).unwrap();
        let by_default: Vec<_> = names().filter(|name| !crate::inject::RESERVED.contains(name)).collect();
        assert_eq!((&namespaces, &pods), (&by_default.iter().map(|name| (*name).to_owned()).collect(), &namespaces));
        assert_eq!(opened_port(&rendered()), Some(7070));
    }

    #[test]
    fn a_policy_that_allows_less_or_more_is_read_as_it_is() {
        let edit = |from: &str, to: &str| {
            let mut all = rendered();
            for variable in all.as_mut().unwrap()[0]["spec"]["variables"].as_array_mut().unwrap() {
                let expression = variable["expression"].as_str().unwrap().replace(from, to);
                variable["expression"] = expression.into();
            }
            allowed(&all).unwrap()
        };
        let (namespaces, pods) = edit(
            "variables.annotations[?\"config.ebb-cache.io/memory-limit\"]",
            "variables.trusted_annotations[?\"config.ebb-cache.io/memory-limit\"]",
        );
        let has = |names: &[String], name: &str| names.iter().any(|one| one == name);
        assert!(has(&namespaces, "memory-limit") && !has(&pods, "memory-limit") && has(&pods, "memory-request"));
        let (namespaces, pods) = edit("variables.trusted_inherited[?", "variables.inherited[?");
        assert!(has(&namespaces, "image") && !has(&pods, "image"));
        assert_eq!((allowed(&Ok(Vec::new())), opened_port(&Ok(Vec::new()))), (None, None));
    }
}
