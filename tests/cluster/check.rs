//! `ebb check` before an installation: what is planted is found, and nothing else is.

use crate::apiserver::Cluster;
use crate::common::program;
use crate::helm::{Helm, NAMESPACE};
use crate::objects::list;
use crate::pods::{labelled, plain};
use crate::process::run;
use crate::rbac::rights_of;
use crate::replica::{Replica, can_be_reached};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Its exit code, and everything that is not well, by category.
fn findings(kubeconfig: &Path) -> (Option<i32>, BTreeMap<String, String>) {
    let words = ["check", "--namespace", "default", "--output", "json"];
    let ended = run(program().args(words).env("KUBECONFIG", kubeconfig));
    let found: Value = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let found = list(&found).filter(|finding| finding["severity"] != "ok");
    (ended.code, found.map(|finding| (text(finding, "category"), text(finding, "found"))).collect())
}

/// These categories, each with these words, and no others.
fn expect(found: &BTreeMap<String, String>, planted: &[(&str, &str)]) {
    let categories: Vec<&str> = planted.iter().map(|(category, _)| *category).collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), categories, "{found:?}");
    for (category, words) in planted {
        assert!(found[*category].contains(words), "{words:?} is not in {found:?}");
    }
}

#[tokio::test]
async fn ebb_check_finds_what_is_planted_and_nothing_else() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    Helm::Four.install(&cluster, "injector.mode=webhook,injector.failurePolicy=Fail,tests.check=true");
    let mut one = Replica::serving(&cluster, "one").await;
    cluster.until_injected(&plain(), "shop").await;

    // No controller runs here, so the Deployment has no replica that is ready, and the authorities live for seconds.
    let always = [("control-plane", "0 of 2 replicas"), ("webhook", "ends in 0 hours")];
    let (_, found) = findings(&cluster.kubeconfig());
    expect(&found, &always);

    let config_map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ebb-config", "namespace": "shop"},
        "data": {"ebb.yaml": "tick: 1"},
    });
    cluster.create(&config_map).await;
    let mut forgotten = labelled("disabled");
    json_patch::merge(&mut forgotten, &json!({"metadata": {"name": "forgotten", "namespace": "shop"}}));
    cluster.create(&forgotten).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let asks = Patch::Merge(json!({"metadata": {"labels": {"ebb-cache.io/inject": "enabled"}}}));
    pods.patch("forgotten", &PatchParams::default(), &asks).await.unwrap();
    let (code, found) = findings(&cluster.kubeconfig());
    let [control_plane, webhook] = always;
    let config = ("config", "the ConfigMap shop/ebb-config");
    expect(&found, &[config, control_plane, ("data-plane", "have none: shop/forgotten"), webhook]);
    assert_eq!(code, Some(1), "there is an error");
    cluster.delete(&forgotten).await;
    cluster.delete(&config_map).await;

    the_account_of_helm_test_sees_as_much(&cluster).await;

    assert_eq!(one.terminate(), Some(0), "{}", one.log());
    let (code, found) = findings(&cluster.kubeconfig());
    assert!(found.get("injection").is_some_and(|found| found.contains("webhook")), "{found:?}");
    assert_eq!(code, Some(1), "nobody can be reached");
}

/// And it has no right for which `ebb check` has no use.
async fn the_account_of_helm_test_sees_as_much(cluster: &Cluster) {
    const ACCOUNT: &str = "ebb-test-check";
    let hooks = Helm::Four.get(cluster, "hooks");
    for object in hooks.iter().filter(|object| object["kind"] != "Pod") {
        cluster.create(object).await;
    }
    let account = cluster.kubeconfig_as(NAMESPACE, ACCOUNT).await;
    assert_eq!(findings(&account), findings(&cluster.kubeconfig()));
    cluster.used_its_rights(NAMESPACE, ACCOUNT, &rights_of(&hooks, ACCOUNT));
}
