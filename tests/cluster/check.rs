//! `ebb check` reports the planted problems of an installation, and no others.

use crate::apiserver::Cluster;
use crate::common::program;
use crate::given_certificate::{renew, trust};
use crate::helm::{Helm, NAMESPACE};
use crate::objects::list;
use crate::pods::{annotated, labelled, plain};
use crate::process::run;
use crate::rbac::rights_of;
use crate::replica::{GIVEN, INJECTOR, Replica, can_be_reached};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rcgen::CertificateParams;
use serde_json::{Value, json};
use std::path::Path;
use time::{Duration, OffsetDateTime};

/// Category and message.
type Found = Vec<(String, String)>;

/// The exit code, and all findings.
fn findings(kubeconfig: &Path) -> (Option<i32>, Found) {
    let (code, found) = troubles(kubeconfig);
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    (code, found.iter().map(|finding| (text(finding, "code"), text(finding, "evidence"))).collect())
}

/// The exit code, and all findings that are not "ok", with severity and remedy.
pub fn troubles(kubeconfig: &Path) -> (Option<i32>, Vec<Value>) {
    let (code, found) = judged(kubeconfig, "default");
    (code, found.into_iter().filter(|finding| finding["severity"] != "ok").collect())
}

/// The exit code and all results for a revision: severity, category and message.
pub fn checked(kubeconfig: &Path, revision: &str) -> (Option<i32>, Vec<(String, String, String)>) {
    let (code, found) = judged(kubeconfig, revision);
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let parts = |finding: &Value| (text(finding, "severity"), text(finding, "code"), text(finding, "evidence"));
    (code, found.iter().map(parts).collect())
}

fn judged(kubeconfig: &Path, revision: &str) -> (Option<i32>, Vec<Value>) {
    let words = ["check", "--namespace", "default", "--rev", revision, "--output", "json"];
    let ended = run(program().args(words).env("KUBECONFIG", kubeconfig));
    let found: Value = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended.code, list(&found).cloned().collect())
}

/// Checks that the findings are exactly these, by category and text.
fn expect(found: &Found, planted: &[(&str, &str)]) {
    let is =
        |(category, words): &(&str, &str), found: &(String, String)| found.0 == *category && found.1.contains(words);
    let missing: Vec<_> = planted.iter().filter(|one| !found.iter().any(|found| is(one, found))).collect();
    assert!(missing.is_empty(), "{missing:?} are not in {found:?}");
    let others: Vec<_> = found.iter().filter(|one| !planted.iter().any(|planted| is(planted, one))).collect();
    assert!(others.is_empty(), "{others:?} were not planted");
}

/// A CA with a lifetime of a year that expires in three weeks.
fn late() -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (now - Duration::days(344), now + Duration::days(21));
    params
}

/// Enough labelled namespaces that those of the scenario are not on the first page.
async fn crowd(cluster: &Cluster) {
    let names = (0..500).map(|n| format!("crowd-{n}"));
    let asks = json!({"ebb-cache.io/inject": "enabled"});
    let made = futures::stream::iter(names).map(async |name| cluster.namespace(&name, asks.clone()).await);
    made.buffer_unordered(16).collect::<Vec<()>>().await;
}

/// A pod whose sidecar follows this ConfigMap.
async fn following(cluster: &Cluster, config_map: &str) -> Value {
    let mut pod = annotated(&[("config-map", config_map)]);
    pod["metadata"]["namespace"] = json!("shop");
    cluster.create(&pod).await;
    pod
}

/// A pod that was created before its namespace got the label.
async fn forgotten(cluster: &Cluster) -> Value {
    let mut forgotten = labelled("disabled");
    json_patch::merge(&mut forgotten, &json!({"metadata": {"name": "forgotten", "namespace": "shop"}}));
    cluster.create(&forgotten).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let asks = Patch::Merge(json!({"metadata": {"labels": {"ebb-cache.io/inject": null}}}));
    pods.patch("forgotten", &PatchParams::default(), &asks).await.unwrap();
    forgotten
}

/// A Deployment with an annotation that belongs on its pods.
fn misplaced() -> Value {
    let labels = json!({"app": "misplaced"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "misplaced", "namespace": "shop",
            "annotations": {"config.ebb-cache.io/memory-limit": "64Mi"},
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "app"}]}},
        },
    })
}

/// Changes the injector like `kubectl set image`.
async fn set_image(cluster: &Cluster, image: &str) {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "injector", "image": image}]}}}});
    deployments.patch(INJECTOR, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

#[tokio::test]
async fn ebb_check_finds_what_is_planted_and_nothing_else() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    cluster.namespace(NAMESPACE, json!({})).await;
    let ca = renew(&cluster, late()).await;
    let values = format!(
        "injector.mode=webhook,injector.failurePolicy=Fail,tests.check=true,injector.tls.source=secret,\
         injector.tls.existingSecret={GIVEN}"
    );
    Helm::Four.install(&cluster, &values);
    trust(&cluster, &ca).await;
    let mut one = Replica::serving(&cluster, "one").await;
    cluster.until_injected(&plain(), "shop").await;

    // No controller runs here, so the Deployment has no ready replica.
    let down = ("control-plane", "0 of 2 replicas");
    expect(&findings(&cluster.kubeconfig()).1, &[down, ("webhook", "expires in 2")]);
    // The next CA is added to the bundle before any replica serves a certificate of it.
    let next = renew(&cluster, CertificateParams::default()).await;
    trust(&cluster, &(ca.clone() + &next)).await;
    expect(&findings(&cluster.kubeconfig()).1, &[down]);
    // The certificate is replaced by one of a CA that is not in the bundle. Replicas have not loaded it yet.
    let foreign = renew(&cluster, CertificateParams::default()).await;
    expect(&findings(&cluster.kubeconfig()).1, &[down, ("webhook", "is not signed by a CA that")]);
    trust(&cluster, &(ca + &foreign)).await;
    expect(&findings(&cluster.kubeconfig()).1, &[down]);

    let config_map = |name: &str, text: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"},
            "data": {"ebb.yaml": text},
        })
    };
    let planted = [
        config_map("ebb-config", "tick: 1"),
        config_map("tuned", "tick: 2"),
        misplaced(),
        following(&cluster, "tuned").await,
        forgotten(&cluster).await,
    ];
    for object in &planted[..3] {
        cluster.create(object).await;
    }
    cluster.create(&config_map("unfollowed", "tick: 3")).await;
    crowd(&cluster).await;
    let manifest = Helm::Four.get(&cluster, "manifest");
    cluster.delete(manifest.iter().find(|object| object["kind"] == "PodDisruptionBudget").unwrap()).await;
    set_image(&cluster, "another").await;
    let (code, found) = findings(&cluster.kubeconfig());
    let shown = run(program().args(["check"]).env("KUBECONFIG", cluster.kubeconfig()));
    assert!(shown.said.contains("labelled namespaces checked: 500 of 501"), "{}", shown.said);
    let all = [
        down,
        ("control-plane", "no PodDisruptionBudget selects the pods"),
        ("control-plane", "runs the image another but injects"),
        ("config", "the ConfigMap shop/ebb-config"),
        ("config", "the ConfigMap shop/tuned"),
        ("workloads", "shop/misplaced: annotation config.ebb-cache.io/memory-limit of the Deployment is ignored"),
        ("data-plane", "have none: shop/forgotten"),
    ];
    expect(&found, &all);
    assert_eq!(code, Some(1), "there is an error");
    for object in &planted {
        cluster.delete(object).await;
    }
    let (_, found) = findings(&cluster.kubeconfig());
    expect(&found, &all[..3]);

    the_account_of_helm_test_sees_as_much(&cluster).await;

    assert_eq!(one.terminate(), Some(0), "{}", one.log());
    let (code, found) = findings(&cluster.kubeconfig());
    assert!(found.iter().any(|(category, found)| category == "injection" && found.contains("webhook")), "{found:?}");
    assert_eq!(code, Some(1), "the API server cannot be reached");
}

/// The account has no right that `ebb check` does not use.
async fn the_account_of_helm_test_sees_as_much(cluster: &Cluster) {
    const ACCOUNT: &str = "ebb-test-check";
    let hooks = Helm::Four.get(cluster, "hooks");
    for object in hooks.iter().filter(|object| object["kind"] != "Pod") {
        cluster.create(object).await;
    }
    let account = cluster.kubeconfig_as(NAMESPACE, ACCOUNT).await;
    let (code, mut found) = findings(&account);
    let untried = |found: &(String, String)| found.1.contains("and 496 more: this account may not create pods there");
    assert!(found.iter().any(untried), "{found:?}");
    found.retain(|found| !untried(found));
    assert_eq!((code, found), findings(&cluster.kubeconfig()));
    let ended = run(program().args(["check"]).env("KUBECONFIG", &account));
    assert!(ended.out.contains("; the dry run of a pod tests the certificate"), "it reads no Secret: {ended:?}");
    cluster.used_its_rights(NAMESPACE, ACCOUNT, &rights_of(&hooks, ACCOUNT));
}
