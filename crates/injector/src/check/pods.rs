//! The pods that ask for a sidecar or have one, with the checked fields only, and one application of each namespace.

use super::gather::paged;
use super::injection::{Injection, Treatment};
use super::{Listed, Pod, revisions};
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Name of the pods of dry runs. A fixed one makes equal refusals of namespaces equal.
pub(super) const TRIED: &str = "ebb-check";

/// The pods, and for each labelled namespace one pod that gets a sidecar, as its owner would create it without.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pods: Listed<Pod>,
    pub(super) applications: BTreeMap<String, Value>,
}

/// Lists all pods.
pub(super) async fn pods(client: &Client, injection: &Injection) -> Found {
    let wanted: Vec<&str> = injection.labelled().map(|namespace| namespace.name.as_str()).collect();
    let mut applications = BTreeMap::new();
    let is_looked_at = |pod: &Pod| pod.asks || pod.has_sidecar || pod.left_alone.is_some() || pod.names_revision;
    let keep = |pod: &Value| {
        let found = Some(reduced(pod, injection)).filter(|found| !has_ended(pod) && is_looked_at(found))?;
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        if (found.asks || found.has_sidecar) && wanted.contains(&namespace) && !applications.contains_key(namespace) {
            applications.insert(namespace.to_owned(), application(pod));
        }
        Some(found)
    };
    let pods = paged(client, "/api/v1/pods", "", keep).await;
    Found { pods, applications }
}

/// The pod as its owner would create it: without its sidecar, and without what the API server and the scheduler add.
fn application(pod: &Value) -> Value {
    let is_added = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        ["ebb-config", "ebb-socket"].contains(&name) || name.starts_with("kube-api-access-")
    };
    let without = |list: &mut Value, is_added: &dyn Fn(&Value) -> bool| {
        if let Some(list) = list.as_array_mut() {
            list.retain(|entry| !is_added(&entry["name"]));
        }
    };
    let mut spec = pod["spec"].clone();
    // A sidecar is the only container of this name.
    without(&mut spec["initContainers"], &|name| name == "ebb");
    without(&mut spec["volumes"], &is_added);
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            without(&mut container["volumeMounts"], &is_added);
        }
    }
    for set in ["nodeName", "ephemeralContainers", "priority", "preemptionPolicy", "overhead", "hostname", "subdomain"]
    {
        spec.as_object_mut().map(|spec| spec.remove(set));
    }
    let of_pod = |part: &str, is_added: fn(&str) -> bool| {
        let all = pod["metadata"][part].as_object().into_iter().flatten();
        let own = all.filter(|(name, _)| !is_added(name)).map(|(name, value)| (name.clone(), value.clone()));
        Value::Object(own.collect())
    };
    let labels = of_pod("labels", |name| name.starts_with("ebb-cache.io/") && name != "ebb-cache.io/inject");
    let annotations = of_pod("annotations", |name| name.starts_with("ebb-cache.io/"));
    json!({
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {
            "name": TRIED, "namespace": pod["metadata"]["namespace"], "labels": labels, "annotations": annotations,
        },
    })
}

/// Whether the pod has succeeded or failed.
fn has_ended(pod: &Value) -> bool {
    ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase)
        || !pod["metadata"]["deletionTimestamp"].is_null()
}

fn reduced(pod: &Value, injection: &Injection) -> Pod {
    let (meta, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let named = |values: &Value| list(values).into_iter().find(|value| value["name"] == "ebb");
    let (sidecar, state) =
        (named(&spec["initContainers"]), named(&status["initContainerStatuses"]).unwrap_or_default());
    let resize = list(&status["conditions"]).into_iter().find(|condition| {
        let kind = condition["type"].as_str().unwrap_or_default();
        condition["status"] == "True"
            && (kind == "PodResizePending" || kind == "PodResizeInProgress" && condition["reason"] == "Error")
    });
    let applications = list(&spec["containers"]);
    let is_bound = |container: &Value| {
        let of = |part: &str, what: &str| container["resources"][part][what].clone();
        ["cpu", "memory"].iter().all(|what| !of("limits", what).is_null() && of("limits", what) == of("requests", what))
    };
    let volume = list(&spec["volumes"]).into_iter().find(|volume| volume["name"] == "ebb-config");
    let sources = volume.filter(|_| sidecar.is_some()).map(|volume| list(&volume["projected"]["sources"]));
    let follow = |source: &Value| Some((text(&meta["namespace"]), source["configMap"]["name"].as_str()?.to_owned()));
    let treatment = injection.treatment(pod);
    let mut found = Pod {
        name: format!("{}/{}", text(&meta["namespace"]), text(&meta["name"])),
        asks: sidecar.is_none() && treatment == Treatment::Injected,
        left_alone: match treatment {
            Treatment::LeftAlone(why) if sidecar.is_none() => Some(why),
            _ => None,
        },
        has_sidecar: sidecar.is_some(),
        follows: sources.iter().flatten().filter_map(follow).collect(),
        version: text(&meta["annotations"]["ebb-cache.io/version"]),
        restarts: state["restartCount"].as_u64().unwrap_or(0),
        was_oom_killed: ["lastState", "state"].iter().any(|which| state[*which]["terminated"]["reason"] == "OOMKilled"),
        has_limit: sidecar.as_ref().is_some_and(|sidecar| !sidecar["resources"]["limits"]["memory"].is_null()),
        pending_resize: resize.map(|condition| text(&condition["message"])),
        is_demoted: sidecar.is_some()
            && spec["resources"].is_null()
            && applications.iter().all(is_bound)
            && status["qosClass"] == "Burstable",
        ..Pod::default()
    };
    revisions::complete(&mut found, pod, &revisions::labels(&injection.namespace_of(pod)));
    found
}

#[cfg(test)]
mod tests {
    use super::super::fake::{injection_of, server};
    use super::*;

    /// Injector, policy and check use the same reasons for skipping a pod.
    #[tokio::test]
    async fn skipped_pods_of_the_corpus_are_not_reported() {
        let (mut left_alone, mut asking, mut wrong) = (0, 0, Vec::new());
        for entry in std::fs::read_dir("../../tests/inject/pods").unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let expected = text.lines().next().unwrap();
            let mut pod: Value = ebb_config::yaml::manifests(&text).unwrap().remove(0);
            if expected.ends_with("malformed") || text.contains("# namespace: ") {
                continue;
            }
            pod["metadata"]["namespace"] = json!("shop");
            json_patch::merge(&mut pod, &json!({"metadata": {"labels": {"ebb-cache.io/inject": "enabled"}}}));
            let found = super::pods(&server(json!({"/api/v1/pods": [pod]})), &injection_of(&[])).await.pods.unwrap();
            let is_reported = found.iter().any(|pod| pod.asks);
            let has_one = pod["spec"]["initContainers"].to_string().contains(r#""name":"ebb""#);
            // A pod that declines by its label asks here, since its label was replaced.
            let is_left_alone = expected.starts_with("# skipped") && !expected.ends_with("disabled");
            if is_reported != (!is_left_alone && !has_one) {
                wrong.push(format!("reported: {is_reported}, has a sidecar: {has_one}\n{text}"));
            }
            left_alone += usize::from(is_left_alone);
            asking += usize::from(is_reported);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(left_alone > 8 && asking > 20, "{left_alone} left alone, {asking} ask");
    }

    #[tokio::test]
    async fn pods_that_have_ended_or_are_about_to_are_nobodys_trouble() {
        let pod = |name: &str, change: Value| {
            let mut pod = json!({
                "metadata": {"namespace": "shop", "name": name, "labels": {"ebb-cache.io/inject": "enabled"}},
                "spec": {"containers": [{"name": "app"}]}, "status": {"phase": "Running"},
            });
            json_patch::merge(&mut pod, &change);
            pod
        };
        let pods = [
            pod("runs", json!({})),
            pod("done", json!({"status": {"phase": "Succeeded"}})),
            pod("failed", json!({"status": {"phase": "Failed"}})),
            pod("goes", json!({"metadata": {"deletionTimestamp": "2026-11-25T00:00:00Z"}})),
        ];
        let client = server(json!({"/api/v1/pods": pods}));
        let found = super::pods(&client, &injection_of(&[])).await.pods.unwrap();
        let names: Vec<_> = found.into_iter().map(|pod| pod.name).collect();
        assert_eq!(names, ["shop/runs"]);
    }

    #[tokio::test]
    async fn finds_pods_of_labelled_namespaces_on_any_page() {
        let pod = |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"containers": [{"name": "app"}]}});
        let pods = [pod("plain", "p"), pod("shop", "p"), pod("till", "p"), pod("till", "q")];
        let server = server(json!({"/api/v1/pods": pods}));
        let found =
            super::pods(&server, &injection_of(&[("plain", "disabled"), ("shop", "enabled"), ("till", "enabled")]))
                .await;
        let names: Vec<String> = found.pods.unwrap().into_iter().map(|pod| pod.name).collect();
        assert_eq!(names, ["shop/p", "till/p", "till/q"]);
        assert_eq!(found.applications.keys().collect::<Vec<_>>(), ["shop", "till"]);
    }

    #[tokio::test]
    async fn pods_left_alone_have_a_reason_and_are_not_forgotten() {
        let pod = |name: &str, change: &Value| {
            let mut pod =
                json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"containers": [{"name": "app"}]}});
            json_patch::merge(&mut pod, change);
            pod
        };
        let pods = [
            pod("net", &json!({"spec": {"hostNetwork": true}})),
            pod("off", &json!({"metadata": {"labels": {"ebb-cache.io/inject": "disabled"}}})),
            pod("asks", &json!({})),
        ];
        let found = super::pods(&server(json!({"/api/v1/pods": pods})), &injection_of(&[("shop", "enabled")])).await;
        let reasons: Vec<_> =
            found.pods.unwrap().into_iter().map(|pod| (pod.asks, pod.left_alone.map(|why| why.reason))).collect();
        assert_eq!(reasons, [(false, Some("host-network")), (false, Some("disabled")), (true, None)]);
        assert_eq!(found.applications["shop"]["spec"]["containers"][0]["name"], "app");
    }

    #[test]
    fn an_application_is_the_pod_that_its_owner_creates() {
        let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
        let live = json!({
            "metadata": {
                "namespace": "shop", "name": "web-1", "uid": "1", "ownerReferences": [{}],
                "labels": {"app": "web", "ebb-cache.io/injected": "true", "ebb-cache.io/inject": "enabled"},
                "annotations": {"config.ebb-cache.io/memory-limit": "64Mi", "ebb-cache.io/status": "{}"},
            },
            "spec": {
                "nodeName": "n", "priority": 0, "serviceAccountName": "web",
                "initContainers": [{"name": "ebb"}, {"name": "wait", "volumeMounts": [mount("ebb-socket")]}],
                "containers": [{"name": "app", "volumeMounts": [mount("data"), mount("kube-api-access-x")]}],
                "volumes": [{"name": "data"}, {"name": "ebb-socket"}, {"name": "ebb-config"}, {"name": "kube-api-access-x"}],
            },
            "status": {"phase": "Running"},
        });
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "shop", "name": "ebb-check",
                "labels": {"app": "web", "ebb-cache.io/inject": "enabled"},
                "annotations": {"config.ebb-cache.io/memory-limit": "64Mi"},
            },
            "spec": {
                "serviceAccountName": "web",
                "initContainers": [{"name": "wait", "volumeMounts": []}],
                "containers": [{"name": "app", "volumeMounts": [mount("data")]}],
                "volumes": [{"name": "data"}],
            },
        });
        assert_eq!(application(&live), expected);
    }
}
