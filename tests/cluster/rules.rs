//! `ebb check` in namespaces with rules: it names annotations and values with which their pods are admitted.

use crate::apiserver::Cluster;
use crate::check::troubles;
use crate::helm::Helm;
use crate::objects::list;
use crate::pods::{lacks, plain, pod};
use crate::policy::until_active;
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// A labelled namespace with a ResourceQuota. No controller runs here that fills its status.
async fn with_quota(cluster: &Cluster, name: &str, hard: Value) {
    cluster.namespace(name, json!({"ebb-cache.io/inject": "enabled"})).await;
    let metadata = json!({"name": "compute", "namespace": name});
    cluster
        .create(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}))
        .await;
    let used: serde_json::Map<_, _> = hard.as_object().unwrap().keys().map(|key| (key.clone(), json!("0"))).collect();
    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), name);
    let status = Patch::Merge(json!({"status": {"hard": hard, "used": used}}));
    quotas.patch_status("compute", &PatchParams::default(), &status).await.unwrap();
}

/// A labelled namespace with a LimitRange, of containers if the bounds name no type.
async fn with_range(cluster: &Cluster, name: &str, mut bounds: Value) {
    cluster.namespace(name, json!({"ebb-cache.io/inject": "enabled"})).await;
    if bounds["type"].is_null() {
        bounds["type"] = json!("Container");
    }
    let metadata = json!({"name": "bounds", "namespace": name});
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": [bounds]}});
    cluster.create(&range).await;
}

/// A small application that the rules of every namespace here but the closed one admit.
fn small() -> Value {
    let resources = json!({
        "requests": {"cpu": "10m", "memory": "8Mi", "ephemeral-storage": "32Mi"},
        "limits": {"cpu": "20m", "memory": "8Mi", "ephemeral-storage": "64Mi"},
    });
    pod(&json!({"spec": {"containers": [{"name": "app", "image": "app", "resources": resources}]}}))
}

/// The finding about new pods of a namespace.
fn about<'a>(found: &'a [Value], namespace: &str) -> Option<&'a Value> {
    let is_named = |finding: &&Value| {
        let evidence = finding["evidence"].as_str().unwrap();
        let named = evidence.strip_prefix("a new pod of ").and_then(|rest| rest.split_once(" is refused"));
        named.is_some_and(|(names, _)| names.split(", ").any(|name| name == namespace))
    };
    found.iter().filter(|finding| finding["code"] == "namespaces").find(is_named)
}

/// Does what a remedy says: annotations of the namespace, or values of the chart.
async fn follow(cluster: &Cluster, namespace: &str, remedy: &str) {
    let words: Vec<&str> = remedy.split([' ', ',']).collect();
    let annotations: serde_json::Map<_, _> = words
        .windows(2)
        .filter_map(|pair| {
            let name = pair[0].strip_suffix(':').filter(|name| name.starts_with("config.ebb-cache.io/"))?;
            Some((name.to_owned(), json!(pair[1].trim_end_matches('.'))))
        })
        .collect();
    if !annotations.is_empty() {
        return cluster.annotate(namespace, Value::Object(annotations)).await;
    }
    let (_, amount) = remedy.split_once(" of the chart to ").unwrap_or_else(|| panic!("{namespace}: {remedy}"));
    let amount = amount.split(['.', ' ']).next().unwrap();
    let values = words.iter().filter(|word| word.starts_with("sidecar.")).map(|word| format!("{word}={amount}"));
    Helm::Four.upgrade(cluster, &format!("injector.mode=policy,{}", values.collect::<Vec<_>>().join(",")), &[]);
}

#[tokio::test]
async fn cures_named_by_ebb_check_admit_the_pods_of_ruled_namespaces() {
    let Some(cluster) = Cluster::start().await else { return };
    Helm::Four.install(&cluster, "injector.mode=policy");
    until_active(&cluster).await;
    cluster.namespace("fine", json!({"ebb-cache.io/inject": "enabled"})).await;
    with_quota(&cluster, "quota", json!({"limits.memory": "200Mi", "requests.memory": "200Mi"})).await;
    with_quota(&cluster, "cpu-quota", json!({"limits.cpu": "4", "requests.cpu": "4"})).await;
    with_quota(&cluster, "closed", json!({"pods": "0"})).await;
    with_range(&cluster, "range", json!({"max": {"memory": "64Mi"}})).await;
    with_range(&cluster, "storage", json!({"min": {"ephemeral-storage": "32Mi"}})).await;
    with_range(&cluster, "cpu-range", json!({"max": {"cpu": "40m"}})).await;
    with_range(&cluster, "ratio", json!({"maxLimitRequestRatio": {"cpu": "2"}, "default": {"cpu": "1"}})).await;
    with_range(&cluster, "bare-ratio", json!({"maxLimitRequestRatio": {"cpu": "4"}})).await;
    with_range(&cluster, "pod-ratio", json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "2"}})).await;
    with_range(&cluster, "tiny", json!({"max": {"memory": "8Mi"}})).await;
    // The caches of the API server know the rules once they refuse a pod.
    for name in ["quota", "closed", "range", "tiny"] {
        let is_refused = async || cluster.admit(&small(), name).await.is_err();
        cluster.until("the rules are known", is_refused).await;
    }

    let (code, found) = troubles(&cluster.kubeconfig());
    assert_eq!(code, Some(1), "a namespace refuses pods because of the sidecar: {found:?}");
    assert!(["fine", "shop"].iter().all(|name| about(&found, name).is_none()), "{found:?}");
    let closed = about(&found, "closed").unwrap_or_else(|| panic!("{found:?}"));
    let evidence = closed["evidence"].as_str().unwrap();
    assert!(evidence.contains("so Ebb is not the reason: exceeded quota: compute"), "{closed}");
    assert_eq!(closed["severity"], "info");
    let tiny = about(&found, "tiny").unwrap_or_else(|| panic!("{found:?}"));
    assert!(tiny["evidence"].as_str().unwrap().contains("maximum memory usage per Container is 8Mi"), "{tiny}");
    assert!(tiny["remedy"].as_str().unwrap().starts_with("Allow a container of at least 16Mi of memory."), "{tiny}");

    let cured = ["quota", "cpu-quota", "storage", "range", "cpu-range", "ratio", "bare-ratio", "pod-ratio"];
    for name in ["quota", "range", "cpu-range", "ratio", "bare-ratio", "pod-ratio"] {
        let finding = about(&found, name).unwrap_or_else(|| panic!("{name}: {found:?}"));
        assert_eq!(finding["severity"], "error");
        assert!(finding["remedy"].as_str().unwrap().contains("(tried: the pod is admitted)"), "{finding}");
    }
    for name in cured {
        if let Some(finding) = about(&found, name) {
            println!("{name}: {finding:#}");
            follow(&cluster, name, finding["remedy"].as_str().unwrap()).await;
        }
    }
    for name in cured {
        let is_admitted = async || cluster.admit(&small(), name).await.is_ok_and(|got| lacks(&got).is_none());
        cluster.until(&format!("a pod is admitted in {name} with its sidecar"), is_admitted).await;
    }
    // An application whose limit the sidecar would have got.
    let resources = json!({"requests": {"cpu": "500m", "memory": "8Mi"}, "limits": {"cpu": "1", "memory": "8Mi"}});
    let large = pod(&json!({"spec": {"containers": [{"name": "app", "image": "app", "resources": resources}]}}));
    for name in ["ratio", "bare-ratio", "pod-ratio"] {
        let got = cluster.admit(&large, name).await;
        assert_eq!(got.as_ref().map(|got| lacks(got)), Ok(None), "{name}: {got:?}");
    }
    let (_, found) = troubles(&cluster.kubeconfig());
    let left: Vec<_> = cured.iter().filter_map(|name| about(&found, name)).collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[tokio::test]
async fn ebb_check_lists_pods_left_alone_and_a_policy_that_sidecars_refuse() {
    let Some(cluster) = Cluster::start().await else { return };
    Helm::Four.install(&cluster, "injector.mode=policy");
    until_active(&cluster).await;
    let in_shop = |name: &str, change: &Value| {
        let mut pod = pod(&json!({"metadata": {"name": name, "namespace": "shop"}}));
        json_patch::merge(&mut pod, change);
        pod
    };
    let off = json!({"metadata": {"labels": {"ebb-cache.io/inject": "disabled"}}});
    let port = json!({"spec": {"containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 7072}]}]}});
    for pod in [
        in_shop("off-1", &off),
        in_shop("off-2", &off),
        in_shop("net", &json!({"spec": {"hostNetwork": true}})),
        in_shop("windows", &json!({"spec": {"os": {"name": "windows"}}})),
        in_shop("port", &port),
        in_shop("has-one", &json!({})),
    ] {
        cluster.create(&pod).await;
    }
    cluster.namespace("kube-system", json!({"ebb-cache.io/inject": "enabled"})).await;
    let told = |found: &[Value]| -> Vec<String> {
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        found
            .iter()
            .map(|one| format!("{}: {}: {}", text(one, "code"), text(one, "severity"), text(one, "evidence")))
            .collect()
    };
    let (code, found) = troubles(&cluster.kubeconfig());
    let left = "data-plane: info: pods that ask for a cache and are left alone on purpose";
    assert_eq!(
        told(&found),
        [
            "namespaces: info: labelled namespaces that the injector leaves out: kube-system".to_owned(),
            format!("{left}, disabled: 2, such as shop/off-1 (ebb-cache.io/inject is disabled)"),
            format!("{left}, host-network: 1, such as shop/net (spec.hostNetwork is true)"),
            format!("{left}, port-conflict: 1, such as shop/port (container \"app\" has port 7072)"),
            format!("{left}, windows: 1, such as shop/windows (spec.os asks for Windows nodes)"),
        ]
    );
    assert_eq!(code, Some(0), "nothing is wrong");

    // A pod that lost its chance is not left alone on purpose.
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let asks = Patch::Merge(json!({"metadata": {"labels": {"ebb-cache.io/inject": null}}}));
    pods.patch("off-2", &PatchParams::default(), &asks).await.unwrap();
    // The values are checked by the schema; an edited policy is not.
    let policies: Api<MutatingAdmissionPolicy> = Api::all(cluster.client.clone());
    let name = "ebb.ebb-system.ebb-cache.io";
    let mut policy = serde_json::to_value(policies.get(name).await.unwrap()).unwrap();
    for mutation in policy["spec"]["mutations"].as_array_mut().unwrap() {
        let expression = mutation["jsonPatch"]["expression"].as_str().unwrap().replace("\"88%\"", "\"880%\"");
        mutation["jsonPatch"]["expression"] = json!(expression);
    }
    let spec = Patch::Merge(json!({"spec": {"mutations": policy["spec"]["mutations"]}}));
    policies.patch(name, &PatchParams::default(), &spec).await.unwrap();
    let is_changed = async || {
        let got = cluster.admit(&plain(), "shop").await.unwrap();
        list(&got["spec"]["initContainers"]).any(|one| one.to_string().contains("880%"))
    };
    cluster.until("the changed policy is active", is_changed).await;
    let (code, found) = troubles(&cluster.kubeconfig());
    let lines = told(&found);
    let has = |words: &str| lines.iter().any(|line| line.contains(words));
    let of_policy = format!("policy: error: the sidecar refuses the environment in the policy {name}: watermarks.low");
    assert!(has(&of_policy), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.contains("environment")).count(), 1, "it is told once: {lines:#?}");
    assert!(has("data-plane: error: pods that ask for a cache and have none: shop/off-2"), "{lines:#?}");
    assert!(has("disabled: 1, such as shop/off-1"), "{lines:#?}");
    assert_eq!(code, Some(1));
}

/// A policy has no arguments: what it allows is in its expressions.
#[tokio::test]
async fn ebb_check_knows_which_annotations_a_policy_allows() {
    let Some(cluster) = Cluster::start().await else { return };
    let values = "injector.mode=policy,sidecar.ports.data=17070,injector.allowedAnnotations.pods={bind-address}";
    Helm::Four.install(&cluster, values);
    until_active(&cluster).await;
    cluster.namespace("crowd", json!({"ebb-cache.io/inject": "enabled"})).await;
    let port = |number: u16| json!([{"name": "app", "image": "app", "ports": [{"containerPort": number}]}]);
    for (name, annotation, value, number) in [
        // The annotation is not allowed, so the port stays taken.
        ("not-moved", "http-port", "9072", 7072),
        // This one opens the data port of the values.
        ("opened", "bind-address", "0.0.0.0", 17070),
        ("free", "bind-address", "0.0.0.0", 7070),
    ] {
        let annotations = json!({format!("config.ebb-cache.io/{annotation}"): value});
        let metadata = json!({"name": name, "namespace": "crowd", "annotations": annotations});
        cluster.create(&pod(&json!({"metadata": metadata, "spec": {"containers": port(number)}}))).await;
    }
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "crowd");
    let free = serde_json::to_value(pods.get("free").await.unwrap()).unwrap();
    assert_eq!(lacks(&free), None);
    let (code, found) = troubles(&cluster.kubeconfig());
    let evidence: Vec<&str> = found.iter().filter_map(|finding| finding["evidence"].as_str()).collect();
    let left = "pods that ask for a cache and are left alone on purpose, port-conflict: 2, such as crowd/";
    assert!(evidence.iter().any(|text| text.starts_with(left)), "{evidence:#?}");
    assert_eq!(code, Some(0), "{evidence:#?}");
}
