//! Events that a cache writes on its own pod.

use crate::apiserver::Cluster;
use crate::audit::EVENT_TRIES;
use crate::common::{Ebb, SERVE, program};
use crate::helm::{Helm, NAMESPACE};
use crate::rbac::rights_of;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const STANDALONE: &str = "ebb-standalone";

/// A cache in a pod without a memory limit, and its configuration.
fn cache(cluster: &Cluster, namespace: &str, account: &Path) -> (Ebb, PathBuf) {
    let (root, config) = (cluster.folder.path().join("no-cgroup"), cluster.folder.path().join("ebb.yaml"));
    fs::create_dir_all(&root).unwrap();
    fs::write(&config, "").unwrap();
    let mut command = program();
    command.args(SERVE).arg("--config").arg(&config).env("KUBECONFIG", account).env("EBB_CGROUP_ROOT", root);
    command.env("EBB_POD_EVENTS", "true").env("EBB_POD_NAME", "shop-0").env("EBB_POD_UID", "7");
    command.env("EBB_POD_NAMESPACE", namespace);
    (Ebb::spawn(command), config)
}

/// Reasons of the Events on the pod, with counts.
async fn told(cluster: &Cluster, namespace: &str) -> BTreeMap<String, i32> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let ours = events.into_iter().filter(|event| event.regarding.as_ref().unwrap().uid.as_deref() == Some("7"));
    ours.map(|event| (event.reason.unwrap(), event.series.map_or(1, |series| series.count))).collect()
}

#[tokio::test]
async fn a_cache_writes_events_with_the_rights_of_the_chart() {
    let Some(cluster) = Cluster::start().await else { return };
    Helm::Four.install(&cluster, "injector.mode=none,standalone.enabled=true,standalone.events=true");
    let account = cluster.kubeconfig_as(NAMESPACE, STANDALONE).await;
    let (_ebb, config) = cache(&cluster, NAMESPACE, &account);
    let expects = async |what: &str, expected: &[(&str, i32)]| {
        let expected: BTreeMap<_, _> = expected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        cluster.until(what, async || told(&cluster, NAMESPACE).await == expected).await;
    };
    expects("that it has no limit", &[("NoMemoryLimit", 1)]).await;
    fs::write(&config, "tick: soon\n").unwrap();
    expects("that its configuration is wrong", &[("ConfigRejected", 1), ("NoMemoryLimit", 1)]).await;
    fs::write(&config, "").unwrap();
    let applied = [("ConfigApplied", 1), ("ConfigRejected", 1), ("NoMemoryLimit", 1)];
    expects("that it is right again", &applied).await;
    fs::write(&config, "tick: late\n").unwrap();
    let again = [("ConfigApplied", 1), ("ConfigRejected", 2), ("NoMemoryLimit", 1)];
    expects("that it is wrong again, counted", &again).await;
    let rights = rights_of(&Helm::Four.get(&cluster, "manifest"), STANDALONE);
    cluster.used_its_rights(NAMESPACE, STANDALONE, &rights);
}

#[tokio::test]
async fn a_cache_without_the_right_tries_one_event_and_keeps_serving() {
    let Some(cluster) = Cluster::start().await else { return };
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "shop"},
    });
    cluster.create(&account).await;
    let account = cluster.kubeconfig_as("shop", "default").await;
    let (ebb, config) = cache(&cluster, "shop", &account);
    let forbidden = || ebb.metric("ebb_pod_events_total{outcome=\"forbidden\"} ");
    cluster.until("the first is refused", async || forbidden() == 1).await;
    fs::write(&config, "tick: soon\n").unwrap();
    cluster.until("the second is not even asked for", async || forbidden() == 2).await;
    assert_eq!(cluster.times_refused("shop", "default"), EVENT_TRIES);
    cluster
        .until("the missing permission is logged once", async || {
            ebb.logged("lacks permission to write Kubernetes Events") == 1
        })
        .await;
    assert!(program().args(["set", "k", "v", "--addr", &ebb.data]).status().unwrap().success());
}
