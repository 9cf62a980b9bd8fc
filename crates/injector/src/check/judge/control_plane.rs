//! Checks that injectors are ready, have a PodDisruptionBudget, and inject the image that they run.

use super::{Facts, Finding, Severity, Value, bad, items, ok, plain};
use crate::inject::{Template, texts};
use crate::selector::selects;

/// The key of the template in an injector's ConfigMap.
const TEMPLATE: &str = "sidecar.yaml";

pub(super) fn control_plane(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "control-plane";
    let injectors = items(&facts.injectors, "injectors", CATEGORY, all);
    if injectors.is_empty() {
        return;
    }
    let budgets = items(&facts.budgets, "PodDisruptionBudgets", CATEGORY, all);
    let templates = items(&facts.templates, "templates", CATEGORY, all);
    for (name, why) in templates.iter().filter_map(rejected) {
        let found = format!("the injector rejects the sidecar template in the ConfigMap {name}: {why}");
        let remedy = "Correct the chart's values and run helm upgrade. Until then the last good template is in use, and a \
                      restarted injector injects nothing.";
        bad(all, CATEGORY, Severity::Error, found, remedy);
    }
    for deployment in injectors {
        let name = &deployment["metadata"]["name"];
        let (wanted, ready) = (deployment["spec"]["replicas"].as_u64(), deployment["status"]["readyReplicas"].as_u64());
        let (wanted, ready) = (wanted.unwrap_or(1), ready.unwrap_or(0));
        let found = format!("{ready} of {wanted} replicas of the Deployment {name} are ready");
        match ready {
            ready if ready >= wanted => ok(all, CATEGORY, found),
            0 => bad(
                all,
                CATEGORY,
                Severity::Error,
                found,
                "Run kubectl describe on the Deployment, and read the logs of its pods.",
            ),
            _ => bad(all, CATEGORY, Severity::Warning, found, "Run kubectl describe on the pods that are not ready."),
        }
        if wanted > 1 && facts.budgets.is_ok() && !budgets.iter().any(|budget| protects(budget, deployment)) {
            let found = format!("no PodDisruptionBudget selects the pods of the Deployment {name}");
            let remedy = "Set injector.pdb.enabled. Without it, a drain of nodes may evict all replicas at once.";
            bad(all, CATEGORY, Severity::Warning, found, remedy);
        }
        if let Some((own, given)) = images(deployment, templates).filter(|(own, given)| own != given) {
            let found = format!("the Deployment {name} runs the image {own} but injects {given}");
            let remedy = "Run helm upgrade, which sets both images; kubectl set image changes only one.";
            bad(all, CATEGORY, Severity::Warning, found, remedy);
        }
    }
}

/// The name of a template's ConfigMap and why the template cannot be used, if it cannot.
fn rejected(config_map: &Value) -> Option<(String, String)> {
    let error = Template::parse(config_map["data"][TEMPLATE].as_str()?).err()?;
    let meta = &config_map["metadata"];
    Some((format!("{}/{}", plain(&meta["namespace"]), plain(&meta["name"])), error.to_string()))
}

/// Whether a PodDisruptionBudget selects the pods of a Deployment.
fn protects(budget: &Value, deployment: &Value) -> bool {
    let (selector, labels) = (&budget["spec"]["selector"], &deployment["spec"]["template"]["metadata"]["labels"]);
    // Of a budget, no selector selects nothing.
    budget["metadata"]["namespace"] == deployment["metadata"]["namespace"]
        && selector.is_object()
        && selects(selector, &texts(labels))
}

/// The image that an injector runs, and the one that it injects; `None` if its template is missing or the values set
/// the image of sidecars.
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
    if template["metadata"]["annotations"]["ebb-cache.io/sidecar-image"] == "chosen" {
        return None;
    }
    let template: Value = ebb_config::yaml::manifests(template["data"][TEMPLATE].as_str()?).ok()?.pop()?;
    Some((image(&spec["containers"], "injector")?, image(&template["template"]["spec"]["initContainers"], "ebb")?))
}

/// The version of Ebb in new pods; `None` if it is unknown or differs between injectors.
pub(super) fn version_of_new_pods(facts: &Facts) -> Option<&str> {
    let injecting = facts.templates.iter().chain(&facts.policies).flatten();
    let mut versions: Vec<&str> =
        injecting.filter_map(|object| object["metadata"]["annotations"]["ebb-cache.io/version"].as_str()).collect();
    versions.dedup();
    if versions.len() == 1 { versions.pop() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only, refused, troubles, well};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_version_of_new_pods_is_known_where_injectors_agree() {
        let gives = |version: &str| json!({"metadata": {"annotations": {"ebb-cache.io/version": version}}});
        let of = |templates: &[&str], policies: &[&str]| {
            let all = |versions: &[&str]| Ok(versions.iter().map(|version| gives(version)).collect());
            let facts = Facts { templates: all(templates), policies: all(policies), ..well() };
            version_of_new_pods(&facts).map(str::to_owned)
        };
        assert_eq!(of(&["2"], &[]).as_deref(), Some("2"));
        assert_eq!(of(&[], &["2"]).as_deref(), Some("2"));
        assert_eq!(of(&["2"], &["2"]).as_deref(), Some("2"));
        assert_eq!((of(&[], &[]), of(&["2"], &["3"]), version_of_new_pods(&injecting())), (None, None, None));
    }

    /// A template with one variable.
    fn template(variable: &str, value: &str) -> Value {
        let sidecar = json!({
            "name": "ebb", "image": "ebb:2", "env": [{"name": variable, "value": value}], "ports": [{}],
            "resources": {"limits": {"memory": "64Mi"}}, "securityContext": {}, "startupProbe": {},
        });
        let spec = json!({"initContainers": [sidecar], "containers": [{"name": "app"}]});
        json!({"apiVersion": "v1", "kind": "PodTemplate", "template": {"spec": spec}})
    }

    #[test]
    fn a_template_that_the_injector_rejects_is_an_error() {
        let mut facts = injecting();
        facts.templates.as_mut().unwrap()[0]["data"]["sidecar.yaml"] = json!(template("EBB_TICK", "5ms").to_string());
        let words =
            "rejects the sidecar template in the ConfigMap ebb/i: the sidecar refuses its environment: tick: 5 is";
        only(&facts, "control-plane", Severity::Error, words);
    }

    /// An injector without problems: two replicas, a PodDisruptionBudget and a template.
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
        let template = template("EBB_CORES", "2");
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
        let found = protecting.iter().map(|facts| (&facts.budgets, troubles(facts)));
        let wrong: Vec<_> = found.filter(|(_, found)| !found.is_empty()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
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
        let is_named = |found: &[(&str, Severity, String)]| {
            let [("control-plane", Severity::Warning, evidence)] = found else { return false };
            evidence.contains("no PodDisruptionBudget selects the pods of")
        };
        let found = useless.iter().map(|facts| (&facts.budgets, troubles(facts)));
        let wrong: Vec<_> = found.filter(|(_, found)| !is_named(found)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let mut alone = Facts { budgets: Ok(Vec::new()), ..injecting() };
        alone.injectors.as_mut().unwrap()[0]["spec"]["replicas"] = json!(1);
        assert_eq!(troubles(&alone), [], "a budget would keep a node with the only replica from being drained");
        let forbidden = Facts { budgets: Err(refused("forbidden")), ..injecting() };
        only(&forbidden, "control-plane", Severity::Warning, "cannot list PodDisruptionBudgets: forbidden");
    }

    #[test]
    fn an_injector_gives_the_image_that_it_runs() {
        let mut other = injecting();
        other.injectors.as_mut().unwrap()[0]["spec"]["template"]["spec"]["containers"][1]["image"] = json!("ebb:3");
        only(&other, "control-plane", Severity::Warning, "runs the image ebb:3 but injects ebb:2");
        let mut chosen = Facts { injectors: other.injectors.clone(), ..injecting() };
        chosen.templates.as_mut().unwrap()[0]["metadata"]["annotations"] =
            json!({"ebb-cache.io/sidecar-image": "chosen"});
        assert_eq!(troubles(&chosen), [], "somebody wants it so");
        other.templates.as_mut().unwrap()[0]["metadata"]["namespace"] = json!("shop");
        assert_eq!(troubles(&other), [], "the template of another injector");
        let forbidden = Facts { templates: Err(refused("forbidden")), ..injecting() };
        only(&forbidden, "control-plane", Severity::Warning, "cannot list templates: forbidden");
    }
}
