//! Runs the commands of documents as they are written.

use crate::apiserver::Cluster;
use crate::common::program;
use crate::helm::{Helm, NAMESPACE};
use crate::pods::{labelled, plain, sidecar};
use crate::process::run;
use crate::replica::{CONFIGURATION, Replica, can_be_reached};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;
use serde_json::json;
use std::process::Command;

/// Runs the shell blocks under a heading of a page, line by line.
fn run_blocks_under(cluster: &Cluster, page: &str, heading: &str) {
    let text = std::fs::read_to_string(page).unwrap();
    type_lines(cluster, &commands(&text, heading));
}

/// Runs commands, line by line.
fn type_lines(cluster: &Cluster, lines: &[&str]) {
    let ebb = std::path::Path::new(env!("CARGO_BIN_EXE_ebb")).parent().unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", cluster.tools.join("helm4").display(), ebb.display());
    for line in lines {
        let mut shell = Command::new("sh");
        let shell = cluster.environment(&mut shell).env("PATH", &path).env("REGISTRY", "registry.example.com/team");
        let ended = run(shell.args(["-c", line]));
        assert_eq!(ended.code, Some(0), "{line}: {}", ended.said);
    }
}

/// The lines of the shell blocks under a heading.
fn commands<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let section = page.split_once(&format!("\n## {heading}\n")).expect("the heading is there").1;
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines: Vec<_> = blocks.flat_map(str::lines).filter(|line| !line.is_empty()).collect();
    assert!(!lines.is_empty(), "there are commands under {heading}");
    lines
}

/// Starts a replica in place of the Deployment, if the webhook is installed.
async fn as_the_deployment(cluster: &Cluster) -> Option<Replica> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let is_there = configurations.get_opt(CONFIGURATION).await.unwrap().is_some();
    if is_there { Some(Replica::serving(cluster, "one").await) } else { None }
}

#[tokio::test]
async fn commands_of_the_readme_install_the_injector() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    // A namespace without the label for injection.
    cluster.namespace("shop", json!({})).await;
    let page = std::fs::read_to_string("README.md").unwrap();
    let commands = commands(&page, "Install in Kubernetes");
    // tests/container.sh builds and pushes the image. This cluster runs no pods that helm could wait for.
    let [registry, image, helm, label, list, check] = commands[..] else { panic!("{commands:?}") };
    assert!(registry.starts_with("REGISTRY=") && image.starts_with("tests/image.sh"), "{commands:?}");
    let install = helm.replace(" --wait", "");
    type_lines(&cluster, &[install.as_str(), label]);
    let _replica = as_the_deployment(&cluster).await;
    cluster.until_injected(&plain(), "shop").await;
    type_lines(&cluster, &[list]);
    let check: Vec<_> = check.strip_prefix("cargo run --release -- ").unwrap().split(' ').collect();
    let checked = || run(program().args(&check).env("KUBECONFIG", cluster.kubeconfig())).out;
    // The certificate lives for 12 s here. The message about its age follows the checks that it is trusted.
    let words = "the certificate in the Secret ebb-system/ebb-injector-tls expires in 0 hours";
    cluster
        .until("ebb check finds what is served, and nothing worse than its age", async || checked().contains(words))
        .await;
    cluster.is_left_alone("a namespace that does not ask", &plain(), "plain").await;
}

#[tokio::test]
async fn commands_of_the_chart_page_work() {
    const PAGE: &str = "charts/ebb/README.md";
    let Some(cluster) = Cluster::start().await else { return };
    run_blocks_under(&cluster, PAGE, "Dynamic settings");
    let config =
        cluster.kubectl(&["get", "configmap", "ebb-config", "-n", "shop", "-o", "jsonpath={.data.ebb\\.yaml}"]);
    let file = cluster.folder.path().join("ebb.yaml");
    std::fs::write(&file, &config.out).unwrap();
    let checked = run(program().args(["config", "check"]).arg(&file));
    assert!(checked.code == Some(0) && config.out.contains("watermarks"), "{config:?} {checked:?}");

    let may = |what| {
        let [user, group] = ["--as=system:serviceaccount:shop:web", "--as-group=system:serviceaccounts:shop"];
        cluster.kubectl(&["auth", "can-i", what, "events.events.k8s.io", "-n", "shop", user, group]).code == Some(0)
    };
    assert!(!may("create") && !may("patch"));
    run_blocks_under(&cluster, PAGE, "Events");
    assert!(may("create") && may("patch") && !may("list"));
}

#[tokio::test]
async fn commands_of_the_platforms_page_upgrade_by_revisions() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    Helm::Four.install(&cluster, "injector.mode=webhook");
    let _one = Replica::serving(&cluster, "one").await;
    let page = std::fs::read_to_string("docs/platforms.md").unwrap();
    let commands = commands(&page, "Upgrade by revisions");
    let labels = json!({"app": "web"});
    let spec = json!({
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "app"}]}},
    });
    let metadata = json!({"name": "web", "namespace": "shop"});
    cluster.create(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})).await;
    let mut canary = None;
    for command in commands {
        // No controller runs here, so helm would wait for ever, and no replica of a Deployment is ready.
        if command.starts_with("ebb check") {
            continue;
        }
        if let Some(restart) = command.strip_prefix("kubectl ").filter(|words| words.contains("rollout restart")) {
            // kubectl refuses a second restart within a second.
            let words: Vec<&str> = restart.split(' ').collect();
            cluster.until("the workload is restarted", async || cluster.kubectl(&words).code == Some(0)).await;
            continue;
        }
        type_lines(&cluster, &[command.replace(" --wait", "").as_str()]);
        let version = match command {
            words if words.starts_with("helm install") => {
                canary = Some(Replica::serving_of(&cluster, "ebb-canary-injector-canary", "canary").await);
                env!("CARGO_PKG_VERSION")
            }
            "kubectl label namespace shop ebb-cache.io/rev=canary" => "0.2.0",
            "kubectl label namespace shop ebb-cache.io/rev-" => env!("CARGO_PKG_VERSION"),
            _ => continue,
        };
        let is_given = async || {
            let got = cluster.admit(&plain(), "shop").await.unwrap();
            got["metadata"]["labels"]["ebb-cache.io/version"] == version
        };
        cluster.until(&format!("pods get {version} after {command}"), is_given).await;
    }
    assert!(canary.is_some());
    // The scenario made the EndpointSlice.
    let is_left = |object: &String| object.contains("canary") && !object.contains("/endpointslices ");
    let left: Vec<_> = cluster.left_behind().await.into_iter().filter(is_left).collect();
    assert_eq!(left, Vec::<String>::new(), "the canary leaves nothing");
}

#[tokio::test]
async fn the_manifests_install_without_helm() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    let kubectl = |words: &[&str]| {
        let ended = cluster.kubectl(words);
        assert_eq!(ended.code, Some(0), "kubectl {words:?}: {}", ended.said);
    };
    let (asks, policy) = (labelled("enabled"), "manifests/policy.yaml");
    kubectl(&["apply", "--filename", policy, "--filename", "manifests/standalone.yaml"]);
    cluster.until_injected(&asks, "plain").await;
    kubectl(&["delete", "--filename", policy]);
    let is_gone = async || cluster.admit(&asks, "plain").await.is_ok_and(|got| sidecar(&got).is_none());
    cluster.until("the policy is gone", is_gone).await;

    kubectl(&["apply", "--filename", "manifests/webhook.yaml", "--filename", "manifests/sidecar.yaml"]);
    let replica = as_the_deployment(&cluster).await;
    assert!(replica.is_some(), "the manifests make a webhook in {NAMESPACE}");
    cluster.until_injected(&asks, "plain").await;
}
