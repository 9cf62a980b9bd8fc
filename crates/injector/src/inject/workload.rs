//! Annotations and labels that have no effect where they stand.

use super::revision::REVISION;
use ebb_config::annotations::PREFIX;
use serde_json::Value;
use strsim::osa_distance;

/// The label that requests or declines a sidecar.
pub(super) const LABEL: &str = "ebb-cache.io/inject";

/// The warning about the label as an annotation, if the object has it so and does not have the label.
pub(super) fn label_as_annotation(metadata: &Value) -> Option<String> {
    let is_misplaced = !metadata["annotations"][LABEL].is_null() && metadata["labels"][LABEL].is_null();
    is_misplaced.then(|| format!("annotation {LABEL} is ignored: it is a label; set it in metadata.labels"))
}

/// Warnings about annotations and labels of a workload, such as a Deployment, that belong on its pod template. Pods and
/// objects without a pod template have none.
pub fn workload_warnings(workload: &Value) -> Vec<String> {
    let (path, template) = match workload["kind"].as_str() {
        Some("CronJob") => ("spec.jobTemplate.spec.template", &workload["spec"]["jobTemplate"]["spec"]["template"]),
        _ => ("spec.template", &workload["spec"]["template"]),
    };
    if !template["spec"].is_object() {
        return Vec::new();
    }
    let own = &workload["metadata"];
    let kind = workload["kind"].as_str().unwrap_or("object");
    let mut warnings = Vec::new();
    for name in own["annotations"].as_object().into_iter().flat_map(|all| all.keys()) {
        if name.starts_with(PREFIX) && template["metadata"]["annotations"][name].is_null() {
            warnings.push(format!(
                "annotation {name} of the {kind} is ignored: set it on the pod template ({path}.metadata.annotations)"
            ));
        }
    }
    for label in [LABEL, REVISION] {
        let is_requested = !template["metadata"]["labels"][label].is_null();
        for part in ["labels", "annotations"] {
            if !own[part][label].is_null() && !is_requested {
                let what = part.trim_end_matches('s');
                warnings.push(format!(
                    "{what} {label} of the {kind} is ignored: set it as a label of the pod template \
                     ({path}.metadata.labels)"
                ));
            }
        }
    }
    warnings
}

/// The known name that the text probably means: at most a third of its characters differ.
pub(super) fn guess<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = known.map(|name| (osa_distance(name, text), name)).min()?;
    (nearest.0 <= text.chars().count().div_ceil(3)).then_some(nearest.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_of_a_workload_is_not_that_of_its_pods() {
        let annotations = json!({"config.ebb-cache.io/memory-limit": "64Mi", "team": "a"});
        let of = |metadata: Value| json!({"metadata": metadata, "spec": {"containers": []}});
        let deployment = json!({
            "kind": "Deployment", "metadata": {"annotations": annotations, "labels": {LABEL: "enabled", REVISION: "canary"}},
            "spec": {"template": of(json!({}))},
        });
        assert_eq!(
            workload_warnings(&deployment),
            [
                "annotation config.ebb-cache.io/memory-limit of the Deployment is ignored: set it on the pod template \
                 (spec.template.metadata.annotations)",
                "label ebb-cache.io/inject of the Deployment is ignored: set it as a label of the pod template \
                 (spec.template.metadata.labels)",
                "label ebb-cache.io/rev of the Deployment is ignored: set it as a label of the pod template \
                 (spec.template.metadata.labels)",
            ]
        );
        let mut both = deployment.clone();
        both["spec"]["template"] = of(deployment["metadata"].clone());
        assert_eq!(workload_warnings(&both), [""; 0]);
        let cron = json!({
            "kind": "CronJob", "metadata": {"annotations": {LABEL: "enabled"}},
            "spec": {"jobTemplate": {"spec": {"template": of(json!({}))}}},
        });
        assert!(workload_warnings(&cron)[0].contains("(spec.jobTemplate.spec.template.metadata.labels)"));
        let mut pod = of(deployment["metadata"].clone());
        pod["kind"] = json!("Pod");
        assert_eq!(workload_warnings(&pod), [""; 0]);
        let config_map = json!({"kind": "ConfigMap", "metadata": deployment["metadata"]});
        assert_eq!(workload_warnings(&config_map), [""; 0]);
    }

    #[test]
    fn guesses_only_names_that_are_near() {
        let known = ["web", "worker"];
        let found = ["wbe", "wrker", "worker-1", "db", ""].map(|text| guess(text, known.into_iter()));
        assert_eq!(found, [Some("web"), Some("worker"), Some("worker"), None, None]);
    }
}
