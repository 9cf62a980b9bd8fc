//! The watchdog: pods without their sidecar are replaced.

use crate::apiserver::Cluster;
use crate::check::troubles;
use crate::helm::{Helm, NAMESPACE};
use crate::pods::{lacks, pod};
use crate::rbac::rights_of;
use crate::replica::{INJECTOR, Replica, can_be_reached};
use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

const WATCHING: &str = "injector.mode=webhook,injector.watchdog.enabled=true,injector.watchdog.interval=1s,\
                        injector.watchdog.maxPerMinute=600";

/// A pod with this owner.
fn made_by(owner: &Value, name: &str) -> Value {
    pod(&json!({"metadata": {
        "name": name, "namespace": "shop", "labels": {"app": owner["name"]}, "ownerReferences": [owner],
    }}))
}

async fn names(cluster: &Cluster) -> BTreeSet<String> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let pods = pods.list(&ListParams::default()).await.unwrap();
    pods.items.into_iter().map(|pod| pod.metadata.name.unwrap()).collect()
}

#[tokio::test]
async fn watchdog_evicts_one_missed_pod_first_then_the_others() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    Helm::Four.install(&cluster, WATCHING);
    let web_set = cluster.owner("ReplicaSet", "web", "shop", &json!({})).await;
    for name in ["web-1", "web-2", "web-3"] {
        cluster.create(&made_by(&web_set, name)).await;
    }
    let job = cluster.owner("Job", "once", "shop", &json!({})).await;
    cluster.create(&made_by(&job, "once-1")).await;
    cluster.create(&pod(&json!({"metadata": {"name": "alone", "namespace": "shop"}}))).await;
    // A budget that allows no disruption; it covers only running pods.
    let kept = cluster.owner("StatefulSet", "kept", "shop", &json!({})).await;
    cluster.create(&made_by(&kept, "kept-1")).await;
    let quiet = pods_that_only_their_labels_ask_for(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let runs = Patch::Merge(json!({"status": {"phase": "Running"}}));
    pods.patch_status("kept-1", &PatchParams::default(), &runs).await.unwrap();
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "kept", "namespace": "shop"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "kept"}}},
    });
    cluster.create(&budget).await;

    // The API server may call a replica that is not the leader, as with two replicas behind a Service.
    let one = Replica::ready(&cluster, "leader", "1s").await;
    let _asked = Replica::serving(&cluster, "follower").await;
    assert!(one.leads());
    cluster.create(&made_by(&job, "once-2")).await;
    let web = async || names(&cluster).await.into_iter().filter(|name| name.starts_with("web-")).collect::<Vec<_>>();
    cluster.until("one pod of the owner is evicted", async || web().await.len() == 2).await;
    assert_eq!(one.metric("ebb_injector_evictions_total{outcome=\"held-back\"}"), 1, "the budget holds");
    let looks = || one.log().matches("pods without the sidecar they ask for").count();
    let so_far = looks();
    cluster.until("it looks again, and again", async || looks() >= so_far + 3).await;
    assert_eq!(web().await.len(), 2, "until it has come again, the others stay");

    cluster.create(&made_by(&web_set, "web-4")).await;
    let again = serde_json::to_value(pods.get("web-4").await.unwrap()).unwrap();
    assert_eq!(lacks(&again), None, "it came again with its sidecar");
    cluster.until("the others follow", async || web().await == ["web-4"]).await;
    let left =
        BTreeSet::from(["alone", "declines-1", "forged-1", "kept-1", "once-1", "once-2", "web-4"].map(str::to_owned));
    assert_eq!(names(&cluster).await, left, "whoever is not created again, or counts it as a failure, stays");
    cluster.until("one is left that may not go", async || one.metric("ebb_injector_missed_pods") == 1).await;
    assert_eq!(one.metric("ebb_injector_evictions_total{outcome=\"evicted\"}"), 3);
    let elsewhere: Api<Pod> = Api::namespaced(cluster.client.clone(), "plain");
    for name in quiet {
        assert!(elsewhere.get(&name).await.is_ok(), "{name} is evicted by a label that anybody may set");
    }

    let rights = rights_of(&Helm::Four.get(&cluster, "manifest"), INJECTOR);
    cluster.used_its_rights(NAMESPACE, INJECTOR, &rights);
}

/// Pods with the label, whose owners do not ask: whoever may label pods must not be able to evict them. Returns the names
/// of those in `plain`; in `shop` are `declines-1` and `forged-1`.
async fn pods_that_only_their_labels_ask_for(cluster: &Cluster) -> Vec<String> {
    let label = json!({"ebb-cache.io/inject": "enabled"});
    let mut names = Vec::new();
    for kind in ["DaemonSet", "ReplicaSet", "ReplicationController", "StatefulSet"] {
        let name = format!("quiet-{}", kind.to_lowercase());
        let owner = cluster.owner(kind, &name, "plain", &json!({})).await;
        let mut quiet = made_by(&owner, &format!("{name}-1"));
        quiet["metadata"]["namespace"] = json!("plain");
        json_patch::merge(&mut quiet["metadata"]["labels"], &label);
        cluster.create(&quiet).await;
        names.push(format!("{name}-1"));
    }
    // In a namespace that asks: the owner declines, and its pod has lost the label.
    let owner = cluster.owner("ReplicaSet", "declines", "shop", &json!({"ebb-cache.io/inject": "disabled"})).await;
    cluster.create(&made_by(&owner, "declines-1")).await;
    // An owner that does not exist.
    let mut forged = owner;
    forged["uid"] = json!("forged");
    forged["name"] = json!("web");
    cluster.create(&made_by(&forged, "forged-1")).await;
    names
}

/// A memory cgroup with the chart's limit, removed at the end; `None` if it cannot be created.
struct Confined(PathBuf);

impl Confined {
    fn new() -> Option<Self> {
        let [v1, v2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(PathBuf::from);
        let is_v1 = v1.join("memory.limit_in_bytes").exists();
        let (parent, file) = if is_v1 { (v1, "memory.limit_in_bytes") } else { (v2, "memory.max") };
        let path = parent.join(format!("ebb-watchdog-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        fs::write(path.join(file), (64 << 20).to_string()).ok()?;
        Some(Self(path))
    }

    fn oom_kills(&self) -> String {
        let events = ["memory.oom_control", "memory.events"].map(|name| fs::read_to_string(self.0.join(name)));
        let events = events.into_iter().find_map(Result::ok).unwrap();
        events.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().to_owned()
    }

    fn peak_mib(&self) -> f64 {
        let peak = ["memory.max_usage_in_bytes", "memory.peak"].map(|name| fs::read_to_string(self.0.join(name)));
        peak.into_iter().find_map(Result::ok).map_or(f64::NAN, |text| text.trim().parse::<f64>().unwrap() / 1048576.0)
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn pods_and_namespaces_of_any_size_fit_the_charts_limit() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    let Some(group) = Confined::new() else {
        eprintln!("skipped: no memory cgroup can be made here (not root, or no controller)");
        return;
    };
    Helm::Four.install(&cluster, WATCHING);
    let web = cluster.owner("ReplicaSet", "web", "shop", &json!({})).await;
    let once = cluster.owner("Job", "once", "shop", &json!({})).await;
    let variables: Vec<_> = (0..10_000).map(|n| json!({"name": format!("V{n}"), "value": "some value"})).collect();
    for number in 0..24 {
        let mut large = made_by(&web, &format!("web-{number}"));
        large["spec"]["containers"][0]["env"] = json!(variables);
        // Half of the pods disable injection.
        if number % 2 == 0 {
            large["metadata"]["labels"]["ebb-cache.io/inject"] = json!("disabled");
        }
        large["metadata"]["annotations"] = json!({"a": "x".repeat(200 << 10)});
        cluster.create(&large).await;
    }
    let labels: BTreeMap<_, _> = (0..5_000).map(|n| (format!("k{n}"), "v")).collect();
    for number in 0..24 {
        let metadata = json!({"name": format!("large-{number}"), "labels": labels, "annotations": labels});
        cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})).await;
    }
    // Every second pod is in a namespace without injection: a search lists all pods.
    let small = (0..5_000).map(|number| {
        let mut pod = made_by(&once, &format!("once-{number}"));
        if number % 2 == 0 {
            pod["metadata"]["namespace"] = json!("plain");
        }
        pod
    });
    let created = futures::stream::iter(small.map(async |pod| cluster.create(&pod).await));
    created.buffer_unordered(32).collect::<Vec<_>>().await;

    let one = Replica::ready_in(&cluster, "leader", "1s", Some(&group.0)).await;
    cluster.until("all that were missed are counted", async || one.metric("ebb_injector_missed_pods") >= 11).await;
    let looks = || one.log().matches("pods without the sidecar they ask for").count();
    cluster.until("it looks again, and again", async || looks() >= 3).await;
    assert_eq!(group.oom_kills(), "0");
    println!("24 pods of 700 KB, 24 namespaces of 180 KB, 5,000 small pods: peak {:.1} MiB", group.peak_mib());
    drop(one);
}

/// The selectors are those of the webhook's configuration in the cluster, also after somebody has changed them there.
#[tokio::test]
async fn pods_that_no_selector_shows_to_the_webhook_are_not_missed() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let values = folder.path().join("values.yaml");
    let without = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]});
    let selectors = json!({"injector": {"namespaceSelector": without("frozen"), "objectSelector": without("batch")}});
    fs::write(&values, selectors.to_string()).unwrap();
    let frozen = json!({"ebb-cache.io/inject": "enabled", "frozen": "yes"});
    cluster.namespace("ice", frozen).await;
    Helm::Four.install(&cluster, WATCHING);
    Helm::Four.upgrade(&cluster, WATCHING, &["--values", values.to_str().unwrap()]);
    let made = async |name: &str, namespace: &str, labels: Value| {
        let owner = cluster.owner("ReplicaSet", name, namespace, &labels).await;
        let mut pod = made_by(&owner, &format!("{name}-1"));
        pod["metadata"]["namespace"] = json!(namespace);
        json_patch::merge(&mut pod["metadata"]["labels"], &labels);
        cluster.create(&pod).await;
    };
    made("web", "shop", json!({})).await;
    made("nightly", "shop", json!({"batch": "yes"})).await;
    made("still", "ice", json!({})).await;
    made("asks", "ice", json!({"ebb-cache.io/inject": "enabled"})).await;
    let (_, found) = troubles(&cluster.kubeconfig());
    let of_pods = found.iter().filter(|finding| finding["code"] == "data-plane");
    let evidence: Vec<&str> = of_pods.filter_map(|finding| finding["evidence"].as_str()).collect();
    let about = |name: &str| evidence.iter().filter(|text| text.contains(name)).copied().collect::<Vec<_>>();
    assert!(
        matches!(about("web-1").as_slice(), [one] if one.contains("ask for a cache and have none")),
        "{evidence:?}"
    );
    assert!(
        ["nightly-1", "still-1", "asks-1"]
            .iter()
            .all(|name| about(name).iter().all(|one| one.contains("not-selected")))
    );
    assert!(about("not-selected: 3").len() == 1, "{evidence:?}");
    // Whoever may label pods must not be able to evict them: its owner's template has the label.
    made("bare", "shop", json!({"batch": "yes"})).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let unlabelled = Patch::Merge(json!({"metadata": {"labels": {"batch": null}}}));
    pods.patch("bare-1", &PatchParams::default(), &unlabelled).await.unwrap();

    let one = Replica::ready(&cluster, "leader", "1s").await;
    cluster.until("the missed pod is evicted", async || !names(&cluster).await.contains("web-1")).await;
    cluster.until("nothing else is missed", async || one.metric("ebb_injector_missed_pods") == 0).await;
    assert_eq!(names(&cluster).await, BTreeSet::from(["bare-1", "nightly-1"].map(str::to_owned)));

    // Somebody widens the selectors in the cluster.
    let name = format!("ebb.{NAMESPACE}.ebb-cache.io");
    let all: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let mut changed = serde_json::to_value(all.get(&name).await.unwrap()).unwrap();
    for webhook in changed["webhooks"].as_array_mut().unwrap() {
        let rules = webhook["objectSelector"]["matchExpressions"].as_array_mut().unwrap();
        rules.retain(|rule| rule["key"] != "batch");
    }
    let replaced = serde_json::from_value(changed).unwrap();
    all.replace(&name, &PostParams::default(), &replaced).await.unwrap();
    // One owner after the other: nobody creates its pods again here.
    cluster.until("pods that are shown now are evicted", async || names(&cluster).await.len() < 2).await;
}
