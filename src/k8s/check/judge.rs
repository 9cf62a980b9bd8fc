//! What to make of the facts.

use super::{Facts, Finding, Listed, Pod, Severity};
use base64::Engine as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

/// The oldest minor version of Kubernetes with what the sidecar needs, and the first that has the policy.
const OLDEST: u64 = 31;
const POLICY: u64 = 36;
/// The longest time before its end at which an authority should have been replaced, in seconds.
const MONTH: i64 = 30 * 86_400;
/// The key of an injector's ConfigMap with what it puts into pods.
const TEMPLATE: &str = "sidecar.yaml";

/// The findings, in the order of their categories. Where nobody says a version, nobody would say anything else.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    version(facts, &mut all);
    if facts.version.is_err() {
        return all;
    }
    control_plane(facts, &mut all);
    webhook(facts, &mut all);
    policy(facts, &mut all);
    trial(facts, &mut all);
    rbac(facts, &mut all);
    config(facts, &mut all);
    data_plane(facts, &mut all);
    monitoring(facts, &mut all);
    all
}

fn ok(all: &mut Vec<Finding>, category: &'static str, found: impl Into<String>) {
    all.push(Finding { category, severity: Severity::Ok, found: found.into(), remedy: String::new() });
}

fn bad(all: &mut Vec<Finding>, category: &'static str, severity: Severity, found: impl Into<String>, remedy: &str) {
    all.push(Finding { category, severity, found: found.into(), remedy: remedy.to_owned() });
}

/// The items of a list, or a warning that it could not be looked at.
fn items<'a>(listed: &'a Listed, what: &str, category: &'static str, all: &mut Vec<Finding>) -> &'a [Value] {
    match listed {
        Ok(items) => items,
        Err(why) => {
            let found = format!("{what} cannot be looked at: {why}");
            bad(all, category, Severity::Warning, found, "Run this with an account that may list them.");
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
        Some(minor) if minor >= OLDEST => ok(all, CATEGORY, format!("the API server is 1.{minor}")),
        Some(minor) => {
            let found = format!("the API server is 1.{minor}; native sidecars need 1.{OLDEST}");
            bad(all, CATEGORY, Severity::Error, found, "Upgrade the cluster.");
        }
        None => {
            let why = facts.version.as_ref().err().map_or("it does not say its version", String::as_str);
            bad(
                all,
                CATEGORY,
                Severity::Error,
                format!("the API server: {why}"),
                "Check KUBECONFIG and the network. Nothing else was looked at.",
            );
        }
    }
}

fn control_plane(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "control-plane";
    let injectors = items(&facts.injectors, "injectors", CATEGORY, all);
    if injectors.is_empty() {
        return;
    }
    let budgets = items(&facts.budgets, "PodDisruptionBudgets", CATEGORY, all);
    let templates = items(&facts.templates, "templates", CATEGORY, all);
    for deployment in injectors {
        let name = &deployment["metadata"]["name"];
        let (wanted, ready) = (deployment["spec"]["replicas"].as_u64(), deployment["status"]["readyReplicas"].as_u64());
        let (wanted, ready) = (wanted.unwrap_or(1), ready.unwrap_or(0));
        let found = format!("{ready} of {wanted} replicas of the Deployment {name} are ready");
        match ready {
            ready if ready >= wanted => ok(all, CATEGORY, found),
            0 => bad(all, CATEGORY, Severity::Error, found, "kubectl describe the Deployment and read its pods' logs."),
            _ => bad(all, CATEGORY, Severity::Warning, found, "kubectl describe the pods that are not ready."),
        }
        if wanted > 1 && facts.budgets.is_ok() && !budgets.iter().any(|budget| protects(budget, deployment)) {
            let found = format!("no PodDisruptionBudget selects the pods of the Deployment {name}");
            let remedy = "Set injector.pdb.enabled: those who drain nodes may evict all replicas at once.";
            bad(all, CATEGORY, Severity::Warning, found, remedy);
        }
        if let Some((own, given)) = images(deployment, templates).filter(|(own, given)| own != given) {
            let found = format!("the Deployment {name} runs the image {own} and gives pods {given}");
            let remedy = "helm upgrade sets both; kubectl set image changes one alone.";
            bad(all, CATEGORY, Severity::Warning, found, remedy);
        }
    }
}

/// Whether a PodDisruptionBudget selects the pods of a Deployment.
fn protects(budget: &Value, deployment: &Value) -> bool {
    let (selector, labels) = (&budget["spec"]["selector"], &deployment["spec"]["template"]["metadata"]["labels"]);
    let is_one_of = |wanted: &Value, label: &Value| wanted.as_array().is_some_and(|values| values.contains(label));
    let fits = |rule: &Value| {
        let label = &labels[plain(&rule["key"])];
        match plain(&rule["operator"]) {
            "In" => is_one_of(&rule["values"], label),
            "NotIn" => !is_one_of(&rule["values"], label),
            "Exists" => !label.is_null(),
            _ => label.is_null(),
        }
    };
    budget["metadata"]["namespace"] == deployment["metadata"]["namespace"]
        && selector.is_object()
        && selector["matchLabels"].as_object().into_iter().flatten().all(|(key, wanted)| labels[key] == *wanted)
        && selector["matchExpressions"].as_array().into_iter().flatten().all(fits)
}

/// The image that an injector runs, and the one that it puts into pods; `None` if its template is nowhere.
fn images(deployment: &Value, templates: &[Value]) -> Option<(String, String)> {
    let spec = &deployment["spec"]["template"]["spec"];
    let image = |containers: &Value, name: &str| {
        let container = containers.as_array()?.iter().find(|container| container["name"] == name)?;
        Some(container["image"].as_str()?.to_owned())
    };
    let volume = spec["volumes"].as_array()?.iter().find(|volume| volume["name"] == "template")?;
    let template = templates.iter().find(|template| {
        template["metadata"]["namespace"] == deployment["metadata"]["namespace"]
            && template["metadata"]["name"] == volume["configMap"]["name"]
    })?;
    let template: Value = serde_yaml_ng::from_str(template["data"][TEMPLATE].as_str()?).ok()?;
    Some((image(&spec["containers"], "injector")?, image(&template["template"]["spec"]["initContainers"], "ebb")?))
}

fn webhook(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "webhook";
    for configuration in items(&facts.webhooks, "webhooks", CATEGORY, all) {
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            let name = webhook["name"].as_str().unwrap_or_default();
            let bundle = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
            match last(bundle) {
                None => {
                    let found = format!("{name} has no authority that can be read (caBundle)");
                    let remedy = "The injector writes it: read its logs, and see that its role may patch the webhook.";
                    bad(all, CATEGORY, Severity::Error, found, remedy);
                }
                Some((_, end)) if end <= facts.now => {
                    let found = format!("the authority of {name} has ended");
                    bad(all, CATEGORY, Severity::Error, found, "Renew it, or let the injector do so: tls.source self.");
                }
                Some((from, end)) if end - facts.now < late(from, end) => {
                    let found = format!("the authority of {name} ends in {} hours", (end - facts.now) / 3600);
                    let remedy = "Renew it; if the injector or cert-manager should, read its logs.";
                    bad(all, CATEGORY, Severity::Warning, found, remedy);
                }
                Some((_, end)) => {
                    ok(all, CATEGORY, format!("the authority of {name} holds for {} days", (end - facts.now) / 86_400));
                }
            }
        }
    }
}

/// How long before its end an authority should have been replaced, in seconds. Whoever renews by itself, as the injector
/// and cert-manager do, starts when a third of its life is left: at a quarter nobody did. Those that people make last for
/// years, of which a quarter is too early and a month is time enough.
fn late(from: i64, end: i64) -> i64 {
    MONTH.min((end - from) / 4)
}

/// From when to when the authority of a bundle is valid that ends last.
fn last(bundle: &str) -> Option<(i64, i64)> {
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).ok()?;
    let authorities = CertificateDer::pem_slice_iter(&pem).filter_map(|der| {
        let der = der.ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let validity = certificate.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    });
    authorities.max_by_key(|(_, end)| *end)
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
        (1, 0) => ok(all, CATEGORY, "one MutatingAdmissionPolicy injects"),
        _ => {
            let found =
                format!("{policies} policies and {webhooks} webhooks inject, and race each other for every pod");
            bad(
                all,
                CATEGORY,
                Severity::Error,
                found,
                "Keep one release with an injector; injector.mode none elsewhere.",
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
                true => ok(all, CATEGORY, "a pod that asks for a cache gets one (tried, not created)"),
                false => bad(
                    all,
                    CATEGORY,
                    Severity::Error,
                    "a pod that asks for a cache does not get one (tried, not created)",
                    "Is an injector installed, ready, and reachable from the API server? See the findings above.",
                ),
            }
        }
        Err(why) => bad(
            all,
            CATEGORY,
            Severity::Error,
            format!("a pod that asks for a cache is refused: {why}"),
            "If it names the webhook: the API server cannot reach it or does not trust it. Look at its Service and caBundle.",
        ),
    }
}

fn rbac(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "rbac";
    match facts.refused.is_empty() {
        true => ok(all, CATEGORY, "this account may look at everything"),
        false => {
            let found = format!("this account may not: {}", facts.refused.join(", "));
            bad(all, CATEGORY, Severity::Warning, found, "What it may not look at was not checked.");
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
            bad(all, CATEGORY, Severity::Warning, found, "Sidecars look for that key alone.");
            continue;
        };
        match crate::config::check_text(text) {
            Ok(()) => good += 1,
            Err(problems) => {
                let found = format!("the ConfigMap {name}: {problems}");
                bad(all, CATEGORY, Severity::Error, found, "The last good values stay in force; `ebb config check`.");
            }
        }
    }
    if good > 0 {
        ok(all, CATEGORY, format!("{good} ConfigMaps are good"));
    }
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn data_plane(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "data-plane";
    let pods = match &facts.pods {
        Ok(pods) => pods,
        Err(why) => {
            let found = format!("pods cannot be looked at: {why}");
            return bad(all, CATEGORY, Severity::Warning, found, "Run this with an account that may list them.");
        }
    };
    let own = env!("CARGO_PKG_VERSION");
    type Rule<'a> = (&'a str, Severity, &'a str, &'a dyn Fn(&Pod) -> bool);
    let rules: &[Rule<'_>] = &[
        (
            "ask for a cache and have none",
            Severity::Error,
            "They were created while nothing injected; create them anew: kubectl rollout restart.",
            &|pod| pod.asks && !pod.declines && !pod.has_sidecar,
        ),
        (
            "have a sidecar that was killed for want of memory",
            Severity::Error,
            "Raise its limit by the annotation memory-limit, and report it: Ebb should keep below any limit.",
            &|pod| pod.was_oom_killed,
        ),
        (
            "have a sidecar that was restarted",
            Severity::Warning,
            "kubectl logs POD -c ebb --previous says why.",
            &|pod| pod.restarts > 0 && !pod.was_oom_killed,
        ),
        (
            "have a sidecar without a memory limit",
            Severity::Error,
            "A cache without a limit keeps to a default of 256Mi; set resources.limits.memory.",
            &|pod| pod.has_sidecar && !pod.has_limit,
        ),
        (
            "were Guaranteed without their sidecar",
            Severity::Warning,
            "Give the sidecar a CPU limit, or create the pods anew so that the injector does.",
            &|pod| pod.is_demoted,
        ),
        (
            "wait for a resize",
            Severity::Warning,
            "Ebb goes below a lower limit by itself; if it stays so, the node has no room: kubectl describe the pod.",
            &|pod| pod.pending_resize.is_some(),
        ),
        (
            "have another version of Ebb than this program",
            Severity::Warning,
            "New pods get the installed version: kubectl rollout restart.",
            &|pod| pod.has_sidecar && !pod.version.is_empty() && pod.version != own,
        ),
    ];
    let mut well = true;
    for (what, severity, remedy, applies) in rules {
        let names: Vec<&str> = pods.iter().filter(|pod| applies(pod)).map(|pod| pod.name.as_str()).collect();
        if !names.is_empty() {
            well = false;
            let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
            let more = if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() };
            bad(all, CATEGORY, *severity, format!("{} pods {what}: {shown}{more}", names.len()), remedy);
        }
    }
    if well {
        let sidecars = pods.iter().filter(|pod| pod.has_sidecar).count();
        ok(all, CATEGORY, format!("{sidecars} sidecars, none in trouble"));
    }
}

fn monitoring(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "monitoring";
    match facts.monitors {
        Ok(_) => ok(all, CATEGORY, "the cluster knows PodMonitor: monitoring.sidecars.enabled finds the sidecars"),
        Err(_) => ok(all, CATEGORY, "no PodMonitor here; every sidecar has its metrics on port ebb-http"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn well() -> Facts {
        Facts {
            now: 1_800_000_000,
            version: Ok(json!({"minor": "37+"})),
            webhooks: Ok(Vec::new()),
            policies: Ok(vec![json!({})]),
            injectors: Ok(Vec::new()),
            templates: Ok(Vec::new()),
            budgets: Ok(Vec::new()),
            pods: Ok(Vec::new()),
            config_maps: Ok(Vec::new()),
            trial: Ok(json!({"spec": {"initContainers": [{"name": "ebb"}]}})),
            monitors: Err("not found".to_owned()),
            refused: Vec::new(),
        }
    }

    fn troubles(facts: &Facts) -> Vec<(&'static str, Severity, String)> {
        let found = judge(facts).into_iter().filter(|finding| finding.severity > Severity::Ok);
        found
            .map(|finding| {
                assert!(!finding.remedy.is_empty(), "{finding:?}");
                (finding.category, finding.severity, finding.found)
            })
            .collect()
    }

    /// Exactly one trouble, of that category and severity, that says so.
    fn only(facts: &Facts, category: &str, severity: Severity, words: &str) {
        let found = troubles(facts);
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert!(one.0 == category && one.1 == severity && one.2.contains(words), "{one:?}");
    }

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
        only(&facts, "kubernetes-version", Error, "native sidecars need 1.31");
        let away = with(&|facts| facts.version = Err("connection refused".to_owned()));
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
        only(&facts, "webhook", Error, "no authority that can be read");
        only(&with(&|facts| facts.policies = list(json!([{}, {}]))), "policy", Error, "2 policies and 0 webhooks");
        only(&with(&|facts| facts.trial = Ok(json!({"spec": {}}))), "injection", Error, "does not get one");
        only(&with(&|facts| facts.trial = Err("no route".to_owned())), "injection", Error, "refused: no route");
        only(&with(&|facts| facts.refused = vec!["list pods".to_owned()]), "rbac", Warning, "may not: list pods");
        let map = |text: &str| json!([{"metadata": {"namespace": "shop", "name": "c"}, "data": {"ebb.yaml": text}}]);
        let facts = with(&|facts| facts.config_maps = list(map("watermark: 1")));
        only(&facts, "config", Error, "the ConfigMap shop/c: ");
        let empty = json!([{"metadata": {"namespace": "shop", "name": "c"}}]);
        only(&with(&|facts| facts.config_maps = list(empty.clone())), "config", Warning, "no key ebb.yaml");
        let injected = Pod {
            name: "shop/p".to_owned(),
            has_sidecar: true,
            has_limit: true,
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
            "1 pods ask for a cache and have none: shop/p",
        );
        plane(&pod(&|pod| (pod.restarts, pod.was_oom_killed) = (1, true)), Error, "killed for want of memory");
        plane(&pod(&|pod| pod.restarts = 1), Warning, "restarted");
        plane(&pod(&|pod| pod.has_limit = false), Error, "without a memory limit");
        plane(&pod(&|pod| pod.is_demoted = true), Warning, "Guaranteed");
        plane(&pod(&|pod| pod.pending_resize = Some(String::new())), Warning, "wait for a resize");
        plane(&pod(&|pod| "0.0.1".clone_into(&mut pod.version)), Warning, "another version");
        only(&with(&|facts| facts.pods = Err("forbidden".to_owned())), "data-plane", Warning, "forbidden");
    }

    /// An injector of two replicas that is well, with its budget and its template.
    fn injecting() -> Facts {
        let at = json!({"namespace": "ebb", "name": "i"});
        let injector = json!({
            "metadata": at, "status": {"readyReplicas": 2},
            "spec": {"replicas": 2, "template": {
                "metadata": {"labels": {"app": "ebb", "part": "injector"}},
                "spec": {
                    "containers": [{"name": "another", "image": "x"}, {"name": "injector", "image": "ebb:2"}],
                    "volumes": [{"name": "tls"}, {"name": "template", "configMap": {"name": "i"}}],
                },
            }},
        });
        let template = json!({"template": {"spec": {"initContainers": [{"name": "ebb", "image": "ebb:2"}]}}});
        Facts {
            injectors: Ok(vec![injector]),
            budgets: Ok(vec![json!({"metadata": at, "spec": {"selector": {"matchLabels": {"app": "ebb"}}}})]),
            templates: Ok(vec![json!({"metadata": at, "data": {"sidecar.yaml": template.to_string()}})]),
            ..well()
        }
    }

    #[test]
    fn replicas_without_a_budget_may_all_be_evicted_at_once() {
        assert_eq!(troubles(&injecting()), []);
        let selecting = |selector: Value| {
            let budget = json!({"metadata": {"namespace": "ebb"}, "spec": {"selector": selector}});
            Facts { budgets: Ok(vec![budget]), ..injecting() }
        };
        let rule = |operator: &str, key: &str, values: &[&str]| {
            selecting(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        let protecting = [
            selecting(json!({})),
            rule("In", "part", &["injector", "sidecar"]),
            rule("NotIn", "part", &["sidecar"]),
            rule("NotIn", "zone", &["a"]),
            rule("Exists", "part", &[]),
            rule("DoesNotExist", "zone", &[]),
        ];
        for facts in protecting {
            assert_eq!(troubles(&facts), [], "{:?}", facts.budgets);
        }
        let mut elsewhere = injecting();
        elsewhere.budgets.as_mut().unwrap()[0]["metadata"]["namespace"] = json!("shop");
        let useless = [
            Facts { budgets: Ok(Vec::new()), ..injecting() },
            elsewhere,
            selecting(Value::Null),
            selecting(json!({"matchLabels": {"app": "ebb", "part": "sidecar"}})),
            rule("In", "part", &["sidecar"]),
            rule("In", "zone", &["a"]),
            rule("NotIn", "part", &["injector"]),
            rule("Exists", "zone", &[]),
            rule("DoesNotExist", "part", &[]),
        ];
        for facts in useless {
            only(&facts, "control-plane", Severity::Warning, "no PodDisruptionBudget selects the pods of");
        }
        let mut alone = Facts { budgets: Ok(Vec::new()), ..injecting() };
        alone.injectors.as_mut().unwrap()[0]["spec"]["replicas"] = json!(1);
        assert_eq!(troubles(&alone), [], "a budget would keep a node with the only replica from being drained");
        let forbidden = Facts { budgets: Err("forbidden".to_owned()), ..injecting() };
        only(&forbidden, "control-plane", Severity::Warning, "PodDisruptionBudgets cannot be looked at: forbidden");
    }

    #[test]
    fn an_injector_gives_the_image_that_it_runs() {
        let mut other = injecting();
        other.injectors.as_mut().unwrap()[0]["spec"]["template"]["spec"]["containers"][1]["image"] = json!("ebb:3");
        only(&other, "control-plane", Severity::Warning, "runs the image ebb:3 and gives pods ebb:2");
        other.templates.as_mut().unwrap()[0]["metadata"]["namespace"] = json!("shop");
        assert_eq!(troubles(&other), [], "the template of another injector");
        let forbidden = Facts { templates: Err("forbidden".to_owned()), ..injecting() };
        only(&forbidden, "control-plane", Severity::Warning, "templates cannot be looked at: forbidden");
    }

    /// A webhook that trusts one authority, so many days old and so many before its end.
    fn trusting(old: i64, left: i64) -> Facts {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let at = |days: i64| time::OffsetDateTime::from_unix_timestamp(well().now + days * 86_400).unwrap();
        (params.not_before, params.not_after) = (at(-old), at(left));
        let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let bundle = base64::engine::general_purpose::STANDARD.encode(pem);
        let webhook = json!({"webhooks": [{"name": "w", "clientConfig": {"caBundle": bundle}}]});
        Facts { webhooks: Ok(vec![webhook]), policies: Ok(Vec::new()), ..well() }
    }

    #[test]
    fn an_authority_is_late_a_month_before_its_end_or_in_the_last_quarter_of_its_life() {
        for (old, left) in [(0, 365), (334, 31), (60, 30), (67, 23), (6, 2)] {
            assert_eq!(troubles(&trusting(old, left)), [], "{old} days old, {left} left");
        }
        for (old, left) in [(336, 29), (3600, 29), (68, 22), (7, 2)] {
            let words = format!("ends in {} hours", left * 24);
            only(&trusting(old, left), "webhook", Severity::Warning, &words);
        }
        only(&trusting(9, 0), "webhook", Severity::Error, "has ended");
    }
}
