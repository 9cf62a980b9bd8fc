//! The token of the application's account: the API server adds it to every container, but not to the sidecar.

use crate::apiserver::Cluster;
use crate::helm::Helm;
use crate::objects::list;
use crate::pods::{plain, sidecar};
use crate::replica::{Replica, can_be_reached};
use serde_json::Value;

/// The directory of the token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The volume that a container has at the directory of the token.
fn there(container: &Value) -> Option<&str> {
    list(&container["volumeMounts"]).find(|mount| mount["mountPath"] == TOKEN)?["name"].as_str()
}

/// Whether the application and the sidecar of a new pod have a token.
async fn have_a_token(cluster: &Cluster) -> (bool, bool) {
    let got = cluster.admit(&plain(), "shop").await.unwrap();
    let is_token = |container: &Value| there(container).is_some_and(|name| name.starts_with("kube-api-access-"));
    (is_token(&got["spec"]["containers"][0]), sidecar(&got).is_some_and(is_token))
}

/// The values with and without Events of sidecars, which need the token.
async fn only_events_need_it(cluster: &Cluster, mode: &str, follow: impl AsyncFn()) {
    cluster.until_injected(&plain(), "shop").await;
    assert_eq!(have_a_token(cluster).await, (true, false), "{mode}");
    Helm::Four.upgrade(cluster, mode, &["--set", "sidecar.events=true"]);
    follow().await;
    cluster.until("a sidecar has the token for its Events", async || have_a_token(cluster).await == (true, true)).await;
}

#[tokio::test]
async fn sidecars_of_the_policy_have_no_token() {
    let Some(mut cluster) = Cluster::start().await else { return };
    cluster.add_tokens(&["shop"]).await;
    Helm::Four.install(&cluster, "injector.mode=policy");
    only_events_need_it(&cluster, "injector.mode=policy", async || ()).await;
}

#[tokio::test]
async fn sidecars_of_the_webhook_have_no_token() {
    let Some(mut cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    cluster.add_tokens(&["shop"]).await;
    Helm::Four.install(&cluster, "injector.mode=webhook");
    let _one = Replica::serving(&cluster, "one").await;
    only_events_need_it(&cluster, "injector.mode=webhook", async || drop(crate::replica::mount(&cluster).await)).await;
}
