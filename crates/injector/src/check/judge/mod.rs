//! Judges the facts by category, in the order of output.

mod control_plane;
mod data_plane;
mod environment;
mod namespaces;
mod revisions;
#[cfg(test)]
mod testing;
mod webhook;

use super::{Certificate, Facts, Finding, LeftAlone, Listed, Misfit, Pod, Severity, Trial};
use control_plane::control_plane;
use data_plane::data_plane;
use environment::environment;
use namespaces::namespaces;
use revisions::revisions;
use serde_json::Value;
use webhook::webhook;

/// The oldest supported minor version of Kubernetes, and the first with the policy.
const OLDEST: u64 = 31;
const POLICY: u64 = 36;

/// The findings, ordered by category. If the version cannot be read, nothing else is checked.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    version(facts, &mut all);
    if facts.version.is_err() {
        return all;
    }
    revisions(facts, &mut all);
    control_plane(facts, &mut all);
    webhook(facts, &mut all);
    policy(facts, &mut all);
    environment(facts, &mut all);
    trial(facts, &mut all);
    namespaces(facts, &mut all);
    rbac(facts, &mut all);
    config(facts, &mut all);
    misplaced(facts, &mut all);
    data_plane(facts, &mut all);
    monitoring(facts, &mut all);
    all
}

fn ok(all: &mut Vec<Finding>, category: &'static str, found: impl Into<String>) {
    all.push(Finding { code: category, severity: Severity::Ok, evidence: found.into(), remedy: String::new() });
}

fn bad(all: &mut Vec<Finding>, category: &'static str, severity: Severity, found: impl Into<String>, remedy: &str) {
    all.push(Finding { code: category, severity, evidence: found.into(), remedy: remedy.to_owned() });
}

/// The items of a list, or a warning that it cannot be read.
fn items<'a>(listed: &'a Listed, what: &str, category: &'static str, all: &mut Vec<Finding>) -> &'a [Value] {
    match listed {
        Ok(items) => items,
        Err(why) => {
            let found = format!("cannot list {what}: {why}");
            bad(all, category, Severity::Warning, found, "Use an account that may list them.");
            &[]
        }
    }
}

fn minor(facts: &Facts) -> Option<u64> {
    let minor = facts.version.as_ref().ok()?["minor"].as_str()?;
    minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}

fn version(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "kubernetes-version";
    match minor(facts) {
        Some(minor) if minor >= OLDEST => ok(all, CATEGORY, format!("the API server runs Kubernetes 1.{minor}")),
        Some(minor) => {
            let found = format!("the API server runs Kubernetes 1.{minor}; the injector needs 1.{OLDEST} or newer");
            bad(all, CATEGORY, Severity::Error, found, "Upgrade the cluster.");
        }
        None => {
            let why = facts.version.as_ref().err().map_or_else(|| "it reports none".to_owned(), ToString::to_string);
            bad(
                all,
                CATEGORY,
                Severity::Error,
                format!("cannot read the version of the API server: {why}"),
                "Check KUBECONFIG and the network. Nothing else was checked.",
            );
        }
    }
}

fn policy(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "policy";
    if minor(facts).is_some_and(|minor| minor < POLICY) {
        return;
    }
    let policies = items(&facts.policies, "policies", CATEGORY, all).len();
    let webhooks = facts.webhooks.as_ref().map_or(0, Vec::len);
    match (policies, webhooks) {
        (0, _) => {}
        (1, 0) => ok(all, CATEGORY, "one MutatingAdmissionPolicy injects sidecars"),
        _ => {
            let found = format!(
                "{policies} policies and {webhooks} webhooks of one revision inject sidecars and compete for each pod"
            );
            bad(
                all,
                CATEGORY,
                Severity::Error,
                found,
                "Keep one release of the revision. Set injector.mode=none in the others, or give them another injector.revision.",
            );
        }
    }
}

fn trial(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "injection";
    match &facts.trial {
        Ok(pod) => {
            let first = &pod["spec"]["initContainers"][0]["name"];
            match first == "ebb" {
                true => ok(all, CATEGORY, "a pod that asks for a cache gets one (dry run)"),
                false => bad(
                    all,
                    CATEGORY,
                    Severity::Error,
                    "a pod that asks for a cache does not get one (dry run)",
                    "Check that an injector is installed, ready, and reachable from the API server. See the findings above.",
                ),
            }
        }
        Err(why) => bad(
            all,
            CATEGORY,
            Severity::Error,
            format!("a pod that asks for a cache is refused: {why}"),
            "If the message names the webhook, the API server cannot reach or trust it. Check its Service and caBundle.",
        ),
    }
}

fn rbac(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "rbac";
    match facts.refused.is_empty() {
        true => ok(all, CATEGORY, "this account has the permissions that the check needs"),
        false => {
            let found = format!("this account lacks the permissions: {}", facts.refused.join(", "));
            bad(
                all,
                CATEGORY,
                Severity::Warning,
                found,
                "Use an account with these permissions. The check skipped these objects.",
            );
        }
    }
}

fn config(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "config";
    let mut good = 0;
    for found in items(&facts.config_maps, "ConfigMaps", CATEGORY, all) {
        let name = format!("{}/{}", plain(&found["metadata"]["namespace"]), plain(&found["metadata"]["name"]));
        let Some(text) = found["data"]["ebb.yaml"].as_str() else {
            let found = format!("the ConfigMap {name} has no key ebb.yaml");
            bad(all, CATEGORY, Severity::Warning, found, "Sidecars read only that key. Add it.");
            continue;
        };
        match ebb_config::check_text(text) {
            Ok(()) => good += 1,
            Err(problems) => {
                let found = format!("the ConfigMap {name}: {problems}");
                bad(
                    all,
                    CATEGORY,
                    Severity::Error,
                    found,
                    "Correct it, and test it with `ebb config check`. The last good values stay active.",
                );
            }
        }
    }
    if good > 0 {
        ok(all, CATEGORY, format!("valid ConfigMaps: {good}"));
    }
}

/// Maximum number of objects of one problem in the evidence.
const MOST_SHOWN: usize = 5;

/// Some of the names, and the number of the others.
fn named(names: &[&str]) -> String {
    let shown = names.iter().take(MOST_SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Maximum number of workloads in the evidence.
const MOST_NAMED: usize = 10;

fn misplaced(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "workloads";
    match &facts.misplaced {
        Ok(found) if found.is_empty() => {}
        Ok(found) => {
            let named = found.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
            let more = found.len().saturating_sub(MOST_NAMED);
            let more = if more == 0 { String::new() } else { format!("; and {more} more") };
            let remedy = "Move them to the pod template: injection reads pods, not the workloads that create them.";
            bad(all, CATEGORY, Severity::Warning, format!("{named}{more}"), remedy);
        }
        Err(why) => {
            let found = format!("cannot list workloads: {why}");
            bad(all, CATEGORY, Severity::Warning, found, "Use an account that may list them.");
        }
    }
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn monitoring(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "monitoring";
    match facts.monitors {
        Ok(_) => {
            ok(all, CATEGORY, "the cluster supports PodMonitor; set monitoring.sidecars.enabled to scrape sidecars")
        }
        Err(_) => {
            ok(all, CATEGORY, "the cluster does not support PodMonitor; each sidecar serves metrics on port ebb-http")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{only, refused, troubles, well};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_that_is_well_has_no_trouble() {
        assert_eq!(troubles(&well()), []);
    }

    #[test]
    fn each_trouble_is_found_and_no_other() {
        use Severity::{Error, Warning};
        let with = |change: &dyn Fn(&mut Facts)| {
            let mut facts = well();
            change(&mut facts);
            facts
        };
        let list = |items: Value| Ok(items.as_array().unwrap().clone());
        let facts = with(&|facts| facts.version = Ok(json!({"minor": "30"})));
        only(&facts, "kubernetes-version", Error, "the injector needs 1.31 or newer");
        let away = with(&|facts| facts.version = Err(refused("connection refused")));
        only(&away, "kubernetes-version", Error, "connection refused");
        let everywhere = json!([{"spec": {"selector": {}}}]);
        let half = json!([{"metadata": {"name": "i"}, "spec": {"replicas": 2}, "status": {"readyReplicas": 1}}]);
        let facts = with(&|facts| (facts.injectors, facts.budgets) = (list(half.clone()), list(everywhere.clone())));
        only(&facts, "control-plane", Warning, "1 of 2 replicas");
        let none = json!([{"metadata": {"name": "i"}, "spec": {"replicas": 2}, "status": {}}]);
        let facts = with(&|facts| (facts.injectors, facts.budgets) = (list(none.clone()), list(everywhere.clone())));
        only(&facts, "control-plane", Error, "0 of 2 replicas");
        let bare = json!([{"webhooks": [{"name": "w", "clientConfig": {"caBundle": "bm9uZQ=="}}]}]);
        let facts = with(&|facts| (facts.webhooks, facts.policies) = (list(bare.clone()), list(json!([]))));
        only(&facts, "webhook", Error, "no readable CA");
        only(&with(&|facts| facts.policies = list(json!([{}, {}]))), "policy", Error, "2 policies and 0 webhooks");
        only(&with(&|facts| facts.trial = Ok(json!({"spec": {}}))), "injection", Error, "does not get one");
        only(&with(&|facts| facts.trial = Err(refused("no route"))), "injection", Error, "refused: no route");
        only(
            &with(&|facts| facts.refused = vec!["list pods".to_owned()]),
            "rbac",
            Warning,
            "lacks the permissions: list pods",
        );
        let map = |text: &str| json!([{"metadata": {"namespace": "shop", "name": "c"}, "data": {"ebb.yaml": text}}]);
        let facts = with(&|facts| facts.config_maps = list(map("watermark: 1")));
        only(&facts, "config", Error, "the ConfigMap shop/c: ");
        let empty = json!([{"metadata": {"namespace": "shop", "name": "c"}}]);
        only(&with(&|facts| facts.config_maps = list(empty.clone())), "config", Warning, "no key ebb.yaml");
        let injected = Pod {
            name: "shop/p".to_owned(),
            has_sidecar: true,
            has_limit: true,
            revision: "default".to_owned(),
            injected_as: Some("default".to_owned()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Pod::default()
        };
        let pod = |change: &dyn Fn(&mut Pod)| {
            let mut pod = injected.clone();
            change(&mut pod);
            with(&|facts| facts.pods = Ok(vec![pod.clone(), injected.clone()]))
        };
        let plane = |facts: &Facts, severity, words| only(facts, "data-plane", severity, words);
        plane(
            &pod(&|pod| (pod.asks, pod.has_sidecar) = (true, false)),
            Error,
            "pods that ask for a cache and have none: shop/p",
        );
        plane(&pod(&|pod| (pod.restarts, pod.was_oom_killed) = (1, true)), Error, "OOM-killed");
        plane(&pod(&|pod| pod.restarts = 1), Warning, "restarted");
        plane(&pod(&|pod| pod.has_limit = false), Error, "without a memory limit");
        plane(&pod(&|pod| pod.is_demoted = true), Warning, "Guaranteed");
        plane(&pod(&|pod| pod.pending_resize = Some(String::new())), Warning, "wait for a resize");
        plane(&pod(&|pod| "0.0.1".clone_into(&mut pod.version)), Warning, "another version");
        let elsewhere = pod(&|pod| {
            "0.0.1".clone_into(&mut pod.version);
            pod.injected_as = Some("canary".to_owned());
        });
        plane(&elsewhere, Warning, "have a sidecar of another revision than their labels choose: shop/p");
        let chosen = pod(&|pod| {
            "0.0.1".clone_into(&mut pod.version);
            pod.chooses_image = true;
        });
        assert_eq!(troubles(&chosen), [], "an annotation chooses the version");
        only(&with(&|facts| facts.pods = Err(refused("forbidden"))), "data-plane", Warning, "forbidden");
    }
}
