//! Revisions: two injectors side by side, in one namespace, as two releases.

use crate::apiserver::Cluster;
use crate::check::checked;
use crate::helm::{Helm, NAMESPACE};
use crate::pods::{annotated, labelled, lacks, plain, pod, sidecar};
use crate::replica::{INJECTOR, Replica, can_be_reached};
use ebb_injector::inject::{Context, Namespace, REVISION, TRUSTED, Template, Verdict, inject};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

/// The release of the revision `canary`, and its Deployment.
const RELEASE: &str = "ebb-canary";
const CANARY: &str = "ebb-canary-injector-canary";
/// Versions of the sidecars of both revisions.
const OLD: &str = env!("CARGO_PKG_VERSION");
const NEW: &str = "9.9.9";

/// Values of the revision `canary` in this mode.
fn canary(mode: &str) -> String {
    format!(
        "injector.mode={mode},injector.failurePolicy=Fail,injector.revision=canary,sidecar.image.tag={NEW},sidecar.example=true"
    )
}

/// A pod with these labels.
fn with(labels: Value) -> Value {
    pod(&json!({"metadata": {"labels": labels}}))
}

/// Namespaces that ask and name a revision.
async fn namespaces(cluster: &Cluster) {
    for (name, revision) in [("of-canary", "canary"), ("of-default", "default"), ("of-nobody", "blue")] {
        let labels = json!({"ebb-cache.io/inject": "enabled", REVISION: revision, TRUSTED: "true"});
        cluster.namespace(name, labels).await;
    }
}

/// The version of the sidecar and the label of the revision that the pod gets; `None` without a sidecar.
async fn given(cluster: &Cluster, pod: &Value, namespace: &str) -> Result<Option<(String, Option<String>)>, String> {
    let got = cluster.admit(pod, namespace).await?;
    if sidecar(&got).is_none() {
        return Ok(None);
    }
    assert_eq!(lacks(&got), None, "{got}");
    let sidecars = got["spec"]["initContainers"].as_array().unwrap().len();
    assert_eq!(sidecars, 1, "it is injected once: {got}");
    let meta = &got["metadata"];
    let version = meta["annotations"]["ebb-cache.io/version"].as_str().unwrap().to_owned();
    assert_eq!(meta["labels"]["ebb-cache.io/version"], version);
    assert_eq!(sidecar(&got).unwrap()["image"], format!("ebb:{version}"));
    Ok(Some((version, meta["labels"][REVISION].as_str().map(str::to_owned))))
}

/// Each pod gets one sidecar, from the revision of its label or of its namespace's.
async fn each_has_its_own(cluster: &Cluster) {
    let asks = |revision: &str| with(json!({"ebb-cache.io/inject": "enabled", REVISION: revision}));
    let of = |revision: &str| with(json!({REVISION: revision}));
    let (old, new) = ((OLD, None), (NEW, Some("canary")));
    let labelled_old = |label| Some((OLD, Some(label)));
    let expected = [
        ("a namespace without a revision", plain(), "shop", Some(old)),
        ("a namespace of the default revision", plain(), "of-default", Some(old)),
        ("a namespace of the canary", plain(), "of-canary", Some(new)),
        ("a namespace of nobody", plain(), "of-nobody", None),
        ("a pod of the canary", of("canary"), "shop", Some(new)),
        ("a pod of the canary in a namespace of nobody", of("canary"), "of-nobody", Some(new)),
        ("a pod of the default revision", of("default"), "of-canary", labelled_old("default")),
        ("a pod with an empty label", of(""), "of-canary", labelled_old("")),
        ("a pod of nobody", of("blue"), "of-canary", None),
        ("a pod that asks", labelled("enabled"), "plain", Some(old)),
        ("a pod that asks in a namespace of the canary", labelled("enabled"), "of-canary", Some(new)),
        ("a pod that asks for the canary", asks("canary"), "plain", Some(new)),
        ("a pod that asks for nobody", asks("blue"), "plain", None),
        ("a pod of the canary that nobody asks for", of("canary"), "plain", None),
        ("a pod that declines", labelled("disabled"), "of-canary", None),
    ];
    let mut wrong = Vec::new();
    for (what, pod, namespace, expected) in &expected {
        let found = given(cluster, pod, namespace).await;
        let expected = expected.map(|(version, label)| (version.to_owned(), label.map(str::to_owned)));
        if found.as_ref() != Ok(&expected) {
            wrong.push(format!("{what}: {found:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn until_given(cluster: &Cluster, pod: &Value, namespace: &str, version: &str) {
    let is_given = async || {
        given(cluster, pod, namespace).await.is_ok_and(|found| found.is_some_and(|(found, _)| found == version))
    };
    cluster.until(&format!("a pod in {namespace} gets {version}"), is_given).await;
}

#[tokio::test]
async fn two_webhooks_inject_side_by_side_in_one_namespace() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    Helm::Four.install(&cluster, "injector.mode=webhook,injector.failurePolicy=Fail,tests.check=true");
    Helm::Three.install_as(&cluster, RELEASE, &canary("webhook"));
    namespaces(&cluster).await;
    let _one = Replica::serving(&cluster, "one").await;
    let mut two = Replica::serving_of(&cluster, CANARY, "two").await;
    until_given(&cluster, &plain(), "shop", OLD).await;
    until_given(&cluster, &plain(), "of-canary", NEW).await;
    each_has_its_own(&cluster).await;
    one_namespace_is_upgraded_and_rolled_back(&cluster).await;

    assert_eq!(two.terminate(), Some(0), "{}", two.log());
    let refused =
        cluster.admit(&plain(), "of-canary").await.expect_err("the canary is down, and its policy is to fail");
    assert!(refused.contains("namespaces.by-namespace.canary.injector.ebb-cache.io"), "{refused}");
    assert!(given(&cluster, &plain(), "shop").await.is_ok(), "the default revision does not depend on it");

    Helm::Three.uninstall_as(&cluster, RELEASE);
    let is_nobodys = async || given(&cluster, &plain(), "of-canary").await == Ok(None);
    cluster.until("the canary is gone", is_nobodys).await;
    Helm::Four.uninstall(&cluster);
}

/// The steps of docs/platforms.md.
async fn one_namespace_is_upgraded_and_rolled_back(cluster: &Cluster) {
    let running = pod(&json!({"metadata": {"name": "running", "namespace": "shop"}}));
    cluster.create(&running).await;
    let label = |revision: &str| {
        let ended =
            cluster.kubectl(&["label", "namespace", "shop", "--overwrite", &format!("ebb-cache.io/rev{revision}")]);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
    };
    label("=canary");
    until_given(cluster, &plain(), "shop", NEW).await;
    let evidence = |revision: &str| {
        let (_, found) = checked(&cluster.kubeconfig(), revision);
        found
            .into_iter()
            .map(|(severity, category, evidence)| format!("{severity} {category} {evidence}"))
            .collect::<Vec<_>>()
    };
    let waits =
        "warning data-plane pods that have a sidecar of another revision than their labels choose: shop/running";
    let nobody =
        "warning revisions the revision blue is not installed (installed: canary, default): namespace of-nobody";
    let old = format!("ok revisions sidecars of the revision default: 1 of version {OLD}");
    let installed = "installed: canary (webhook ebb-canary.canary.ebb-system.ebb-cache.io); default (webhook ebb.ebb-system.ebb-cache.io)";
    for revision in ["default", "canary"] {
        let found = evidence(revision);
        let first = format!("ok revisions the checked revision is {revision}; {installed}");
        let missing: Vec<_> =
            [waits, nobody, &old, &first].into_iter().filter(|line| !found.iter().any(|one| one == line)).collect();
        assert!(missing.is_empty(), "{missing:?} are not in {found:#?}");
        // No controller runs here, so the Deployments have no ready replica.
        let deployment = if revision == "canary" { CANARY } else { INJECTOR };
        let mine: Vec<_> = found.iter().filter(|line| line.contains("control-plane")).collect();
        assert!(mine.len() == 1 && mine[0].contains(&format!("{deployment:?}")), "{mine:?}");
        assert!(found.iter().any(|line| line.starts_with("ok injection ")), "its trial pod has a sidecar: {found:#?}");
    }
    let (code, found) = checked(&cluster.kubeconfig(), "blue");
    let words = "no injector has the revision blue (installed: canary, default)";
    assert!(code == Some(1) && found.iter().any(|(.., evidence)| evidence == words), "{found:?}");

    // Its owner replaces the pod.
    cluster.delete(&running).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let is_gone = async || pods.get_opt("running").await.unwrap().is_none();
    cluster.until("the pod is gone", is_gone).await;
    cluster.create(&running).await;
    let found = evidence("canary");
    assert!(found.contains(&format!("ok revisions sidecars of the revision canary: 1 of version {NEW}")), "{found:#?}");
    assert!(!found.iter().any(|line| line == waits), "{found:#?}");
    let columns = cluster.kubectl(&["get", "pods", "-n", "shop", "-L", "ebb-cache.io/version,ebb-cache.io/rev"]);
    let line = columns.out.lines().find(|line| line.starts_with("running ")).unwrap_or_default().to_owned();
    assert!(line.ends_with(&format!("{NEW}     canary")), "{}", columns.out);

    label("-");
    until_given(cluster, &plain(), "shop", OLD).await;
    let found = evidence("default");
    assert!(found.iter().any(|line| line == waits), "the pod still has the canary's sidecar: {found:#?}");
}

/// The pod as `ebb inject` would create it, from the template of the canary: labels and annotations.
fn by_hand(template: &Template, pod: &Value) -> Value {
    let namespace = Namespace { name: "of-canary".to_owned(), ..Namespace::default() };
    let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
    let Verdict::Inject(operations) = inject(pod, &context, template).verdict else { panic!("{pod} is skipped") };
    let operations: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &operations).unwrap();
    marks(&pod)
}

fn marks(pod: &Value) -> Value {
    let mut meta = pod["metadata"].clone();
    meta["annotations"].as_object_mut().unwrap().remove("ebb-cache.io/injected-by");
    json!({"labels": meta["labels"], "annotations": meta["annotations"]})
}

#[tokio::test]
async fn a_policy_of_one_revision_works_beside_a_webhook_of_another() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    Helm::Three.install(&cluster, "injector.mode=webhook,injector.failurePolicy=Fail");
    Helm::Four.install_as(&cluster, RELEASE, &canary("policy"));
    namespaces(&cluster).await;
    let _one = Replica::serving(&cluster, "one").await;
    until_given(&cluster, &plain(), "shop", OLD).await;
    until_given(&cluster, &plain(), "of-canary", NEW).await;
    each_has_its_own(&cluster).await;

    let manifest = Helm::Four.run(&cluster, &["get", "manifest", RELEASE, "--namespace", NAMESPACE]).out;
    let template = Template::parse(&manifest).unwrap();
    assert_eq!(template.revision(), "canary");
    let digest = format!("registry.example.com:5000/ebb@sha256:{}", "0123456789abcdef".repeat(4));
    let images =
        ["ebb:9.9.9", "registry.example.com:5000/ebb:_7-rc_", "registry.example.com:5000/ebb", &digest, "ebb:7@x"];
    let mut wrong = Vec::new();
    for pod in
        images.iter().map(|image| annotated(&[("image", image)])).chain([plain(), with(json!({REVISION: "canary"}))])
    {
        let got = marks(&cluster.admit(&pod, "of-canary").await.unwrap());
        let expected = by_hand(&template, &pod);
        if got != expected {
            wrong.push(format!("{got} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let (_, found) = checked(&cluster.kubeconfig(), "canary");
    let wrong: Vec<_> =
        found.iter().filter(|(severity, category, _)| severity != "ok" && category != "revisions").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(found.iter().any(|(_, category, _)| category == "policy"), "{found:?}");
}

const WATCHING: &str =
    "injector.watchdog.enabled=true,injector.watchdog.interval=1s,injector.watchdog.maxPerMinute=600";

#[tokio::test]
async fn a_watchdog_counts_the_pods_of_its_revision() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    // Created before anybody injects.
    namespaces(&cluster).await;
    for (namespace, labels, number) in [
        ("shop", json!({}), 1),
        ("of-canary", json!({}), 2),
        ("of-nobody", json!({}), 1),
        // The owner's template asks for the canary.
        ("of-default", json!({REVISION: "canary"}), 1),
    ] {
        let owner = cluster.owner("ReplicaSet", "web", namespace, &labels).await;
        for n in 0..number {
            let mut labels = labels.clone();
            labels["app"] = json!("web");
            let metadata = json!({"name": format!("web-{n}"), "namespace": namespace, "labels": labels, "ownerReferences": [owner]});
            cluster.create(&pod(&json!({"metadata": metadata}))).await;
        }
    }
    Helm::Four.install(&cluster, &format!("injector.mode=webhook,{WATCHING}"));
    Helm::Four.install_as(&cluster, RELEASE, &format!("{},{WATCHING}", canary("webhook")));
    let one = Replica::serving(&cluster, "one").await;
    let two = Replica::serving_of(&cluster, CANARY, "two").await;
    let evicted = |replica: &Replica| replica.metric("ebb_injector_evictions_total{outcome=\"evicted\"}");
    cluster.until("each evicts a first pod", async || evicted(&one) == 1 && evicted(&two) >= 1).await;
    let counts = |replica: &Replica| {
        let log = replica.log();
        let mut counts: Vec<u64> = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|line| line.pointer("/fields/missed").or(line.get("missed"))?.as_u64())
            .collect();
        counts.sort_unstable();
        counts.dedup();
        counts
    };
    assert_eq!(counts(&one), [1], "{}", one.log());
    assert_eq!(counts(&two).last(), Some(&3), "{}", two.log());
    let nobody: Api<Pod> = Api::namespaced(cluster.client.clone(), "of-nobody");
    assert_eq!(nobody.list(&ListParams::default()).await.unwrap().items.len(), 1, "no watchdog has the pod of nobody");
    // A pod that moves to the other revision is no longer counted.
    let labels = Patch::Merge(json!({"metadata": {"labels": {REVISION: "blue"}}}));
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client.clone());
    namespaces.patch("of-canary", &PatchParams::default(), &labels).await.unwrap();
    cluster
        .until("the canary misses only the pod of of-default, if at all", async || {
            two.metric("ebb_injector_missed_pods") <= 1
        })
        .await;
}
