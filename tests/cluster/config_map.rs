//! `ebb serve --config-map`: a cache that is not a sidecar follows a ConfigMap.

use crate::apiserver::Cluster;
use crate::common::{Ebb, SERVE, program};
use crate::process::run;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::path::Path;
use std::process::Command;

fn serve(kubeconfig: &Path) -> Command {
    let mut command = program();
    command.args(SERVE).arg("--config-map=plain/tuning").env("KUBECONFIG", kubeconfig);
    command
}

#[tokio::test]
async fn a_cache_follows_its_config_map_and_keeps_the_last_good_one() {
    let Some(cluster) = Cluster::start().await else { return };
    let operator = cluster.kubeconfig();
    let absent = run(&mut serve(&operator));
    assert_eq!(absent.code, Some(64), "{absent:?}");
    assert!(absent.said.contains("ConfigMap plain/tuning: ") && absent.said.contains("not found"), "{absent:?}");

    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "plain");
    let put = async |text: &str| {
        let config_map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tuning"}, "data": {"ebb.yaml": text},
        });
        config_maps.patch("tuning", &PatchParams::apply("a-scenario"), &Patch::Apply(config_map)).await.unwrap();
    };
    put("maxMemory: 100Mi\n").await;
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "stranger", "namespace": "plain"},
    });
    cluster.create(&account).await;
    let stranger = run(&mut serve(&cluster.kubeconfig_as("plain", "stranger").await));
    assert_eq!(stranger.code, Some(64), "{stranger:?}");
    assert!(stranger.said.contains("it needs get, list and watch"), "{stranger:?}");

    let ebb = Ebb::spawn(serve(&operator));
    let limit_is = |mib: u64| ebb.metric("ebb_memory_limit_bytes ") == mib << 20;
    cluster.until("the ConfigMap is active", async || limit_is(100)).await;
    put("maxMemory: 50Mi\n").await;
    cluster.until("it is followed", async || limit_is(50)).await;
    put("maxMemory: fifty\n").await;
    cluster.until("a bad one is a problem", async || ebb.metric("ebb_config_good ") == 0).await;
    assert!(limit_is(50), "the last good stays");
    put("maxMemory: 60Mi\n").await;
    cluster.until("the next is good", async || limit_is(60) && ebb.metric("ebb_config_good ") == 1).await;
    config_maps.delete("tuning", &DeleteParams::default()).await.unwrap();
    cluster.until("its end is a problem", async || ebb.metric("ebb_config_good ") == 0).await;
    assert!(limit_is(60), "the last good stays without any");
    put("maxMemory: 40Mi\n").await;
    cluster.until("it is back", async || limit_is(40)).await;
}
