//! What the pages say, typed as it stands there.

use crate::apiserver::Cluster;
use crate::helm::NAMESPACE;
use crate::pods::{labelled, plain, sidecar};
use crate::process::run;
use crate::replica::{CONFIGURATION, Replica, can_be_reached};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;
use serde_json::json;
use std::process::Command;

/// The lines of the shell blocks under a heading.
fn commands<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let section = page.split_once(&format!("\n## {heading}\n")).expect("the heading is there").1;
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter(|line| !line.is_empty()).collect()
}

/// Starts what a Deployment would, if the webhook is what was installed.
async fn as_the_deployment(cluster: &Cluster) -> Option<Replica> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let is_there = configurations.get_opt(CONFIGURATION).await.unwrap().is_some();
    if is_there { Some(Replica::serving(cluster, "one").await) } else { None }
}

#[tokio::test]
async fn the_readme_installs_what_injects() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    // As it is before anybody asked for caches.
    cluster.namespace("shop", json!({})).await;
    let page = std::fs::read_to_string("README.md").unwrap();
    let commands = commands(&page, "Install in Kubernetes");
    assert!(commands.len() >= 2, "{commands:?}");
    let ebb = std::path::Path::new(env!("CARGO_BIN_EXE_ebb")).parent().unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", cluster.tools.join("helm4").display(), ebb.display());
    for line in commands {
        let mut shell = Command::new("sh");
        let ended = run(cluster.environment(&mut shell).env("PATH", &path).args(["-c", line]));
        assert_eq!(ended.code, Some(0), "{line}: {}", ended.said);
    }
    let _replica = as_the_deployment(&cluster).await;
    cluster.until_injected(&plain(), "shop").await;
    cluster.is_left_alone("a namespace that does not ask", &plain(), "plain").await;
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
