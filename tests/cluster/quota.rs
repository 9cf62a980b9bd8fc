//! Namespaces with a ResourceQuota or a LimitRange: a pod that is admitted without a sidecar is admitted with one, or an
//! annotation helps. One rule can refuse a pod that becomes Burstable, whatever the sidecar has.

use crate::apiserver::Cluster;
use crate::pods::{plain, pod, resources, with_containers};
use ebb_injector::inject::TRUSTED;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// A namespace with rules, and a pod that is admitted there.
struct Case {
    name: &'static str,
    rules: Value,
    pod: Value,
    /// A pod that the rules refuse or change.
    affected: Value,
    /// CPU and memory limits of the sidecar.
    limits: Value,
    /// Part of the refusal, and the annotation that helps, if there is one.
    help: Option<(&'static str, Option<(&'static str, &'static str)>)>,
}

fn app(limits: Value, requests: Value) -> Value {
    with_containers(&json!([{"name": "app", "image": "app", "resources": {"limits": limits, "requests": requests}}]))
}

/// A LimitRange for containers.
fn range(limits: Value) -> Value {
    let mut limits = limits;
    limits["type"] = limits["type"].as_str().unwrap_or("Container").into();
    json!({"kind": "LimitRange", "spec": {"limits": [limits]}})
}

fn quota(hard: Value) -> Value {
    json!({"kind": "ResourceQuota", "spec": {"hard": hard}})
}

fn cases() -> Vec<Case> {
    let case = |name, rules, pod, limits| Case { name, rules, pod, affected: plain(), limits, help: None };
    let refused = |name, rule, pod, limits, help| Case { help: Some(help), ..case(name, json!([rule]), pod, limits) };
    let both = |cpu: &str, memory: &str| {
        let amounts = json!({"cpu": cpu, "memory": memory});
        app(amounts.clone(), amounts)
    };
    let cpu = |limit: &str| app(json!({"cpu": limit}), json!({"cpu": "10m"}));
    let limits = |cpu: &str| json!({"cpu": cpu, "memory": "256Mi"});
    let less = json!({"cpu": "200m", "memory": "1Gi", "ephemeral-storage": "1Gi"});
    let everything = json!({"cpu": "300m", "memory": "1Gi", "ephemeral-storage": "1Gi"});
    let all =
        ["requests.cpu", "limits.cpu", "requests.memory", "limits.memory"].map(|name| (name.to_owned(), json!("8Gi")));
    let storage =
        ["requests.ephemeral-storage", "limits.ephemeral-storage"].map(|name| (name.to_owned(), json!("8Gi")));
    let all: Value = all.into_iter().chain(storage).collect::<serde_json::Map<_, _>>().into();
    let defaults =
        json!({"default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m", "memory": "128Mi"}});
    let mut not_best_effort = quota(json!({"limits.cpu": "8"}));
    not_best_effort["spec"]["scopes"] = json!(["NotBestEffort"]);
    vec![
        case("quota-of-cpu", json!([quota(json!({"limits.cpu": "8"}))]), cpu("250m"), limits("250m")),
        case("quota-of-a-core", json!([quota(json!({"limits.cpu": "8"}))]), cpu("2"), limits("1")),
        case("quota-of-all", json!([quota(all)]), app(everything, less), limits("300m")),
        case("quota-guaranteed", json!([quota(json!({"limits.cpu": "8"}))]), both("1", "1Gi"), limits("50m")),
        case(
            "quota-and-pod-level",
            json!([quota(json!({"limits.cpu": "8", "requests.cpu": "8"}))]),
            pod(&json!({"spec": {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}})),
            json!({"memory": "256Mi"}),
        ),
        case(
            "range-of-defaults",
            json!([range(defaults), quota(json!({"limits.cpu": "8", "limits.memory": "8Gi"}))]),
            plain(),
            limits("500m"),
        ),
        case("range-of-small-defaults", json!([range(json!({"default": {"cpu": "20m"}}))]), plain(), limits("50m")),
        case("range-with-a-maximum", json!([range(json!({"max": {"cpu": "300m"}}))]), cpu("200m"), limits("200m")),
        case(
            "range-of-storage",
            json!([range(json!({"default": {"ephemeral-storage": "1Gi"}, "max": {"ephemeral-storage": "2Gi"}}))]),
            plain(),
            json!({"memory": "256Mi", "ephemeral-storage": "1Gi"}),
        ),
        case(
            "range-of-pods",
            json!([range(json!({"type": "Pod", "max": {"cpu": "1", "memory": "1Gi"}}))]),
            both("500m", "512Mi"),
            limits("50m"),
        ),
        case(
            "range-with-pod-level",
            json!([range(json!({"max": {"cpu": "800m"}}))]),
            pod(&json!({"spec": {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}})),
            limits("800m"),
        ),
        refused(
            "range-with-a-small-maximum",
            range(json!({"max": {"memory": "128Mi"}})),
            app(json!({"memory": "128Mi"}), json!({})),
            json!({"memory": "64Mi"}),
            ("maximum memory usage per Container is 128Mi, but limit is 256Mi", Some(("memory-share", "50%"))),
        ),
        refused(
            "range-with-a-minimum",
            range(json!({"min": {"cpu": "100m"}})),
            app(json!({"cpu": "500m"}), json!({"cpu": "100m"})),
            limits("500m"),
            ("minimum cpu usage per Container is 100m, but request is 50m", Some(("cpu-request", "100m"))),
        ),
        refused(
            "range-with-a-ratio",
            range(json!({"maxLimitRequestRatio": {"cpu": "4"}})),
            app(json!({"cpu": "400m"}), json!({"cpu": "100m"})),
            limits("400m"),
            (
                "cpu max limit to request ratio per Container is 4, but provided ratio is 8.000000",
                Some(("cpu-request", "100m")),
            ),
        ),
        Case {
            affected: with_containers(&json!([
                {"name": "app", "image": "app", "resources": {"requests": {"cpu": "1"}}},
            ])),
            ..refused(
                "quota-of-pods-with-requests",
                not_best_effort,
                plain(),
                json!({}),
                ("must specify limits.cpu for: app,ebb", None),
            )
        },
    ]
}

/// Checks every case in a namespace of its own.
pub async fn namespaces_with_rules(cluster: &Cluster) {
    let mut wrong = Vec::new();
    for Case { name, rules, pod, affected, limits, help } in cases() {
        cluster.namespace(name, json!({"ebb-cache.io/inject": "enabled", TRUSTED: "true"})).await;
        for rule in rules.as_array().unwrap() {
            set_rule(cluster, name, rule).await;
        }
        let with = |pod: &Value, part: &str, name: &str, value: &str| {
            let mut pod = pod.clone();
            pod["metadata"][part][name] = json!(value);
            pod
        };
        let alone = |pod: &Value| with(pod, "labels", "ebb-cache.io/inject", "disabled");
        let is_active = async || match cluster.admit(&alone(&affected), name).await {
            Ok(got) => {
                let [given, got] = [&affected, &got].map(|pod| pod["spec"]["containers"][0]["resources"].clone());
                got != if given.is_null() { json!({}) } else { given }
            }
            Err(_) => true,
        };
        cluster.until("the rules are active", is_active).await;
        if let Err(why) = cluster.admit(&alone(&pod), name).await {
            wrong.push(format!("{name}: refused without a sidecar, too: {why}"));
        }
        let mut pod = pod;
        if let Some((problem, cure)) = help {
            match cluster.admit(&pod, name).await {
                Err(why) if why.contains(problem) => {}
                other => wrong.push(format!("{name}: {other:?} instead of {problem:?}")),
            }
            let Some((annotation, value)) = cure else { continue };
            pod = with(&pod, "annotations", &format!("config.ebb-cache.io/{annotation}"), value);
        }
        match cluster.admit(&pod, name).await {
            Ok(got) if resources(&got)["limits"] == limits => {}
            Ok(got) => wrong.push(format!("{name}: {} instead of {limits}", resources(&got))),
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Creates a rule. No controller counts what a quota's pods use, so nothing is used.
async fn set_rule(cluster: &Cluster, namespace: &str, rule: &Value) {
    let mut object = rule.clone();
    object["apiVersion"] = json!("v1");
    let name = rule["kind"].as_str().unwrap().to_lowercase();
    object["metadata"] = json!({"name": name, "namespace": namespace});
    cluster.create(&object).await;
    let Some(hard) = rule["spec"]["hard"].as_object() else { return };
    let used: serde_json::Map<_, _> = hard.keys().map(|name| (name.clone(), json!("0"))).collect();
    let status = json!({"status": {"hard": hard, "used": used}});
    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), namespace);
    quotas.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}
