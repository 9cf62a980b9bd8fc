//! Pods, and what an injector makes of them. They are only tried: the API server says what it would store.

use crate::apiserver::Cluster;
use crate::objects::{create, list};
use kube::api::PostParams;
use serde_json::{Value, json};

/// A pod with one container, and what is different about it (RFC 7396).
pub fn pod(different: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {}, "annotations": {}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    json_patch::merge(&mut pod, different);
    pod
}

/// Nothing is said about it.
pub fn plain() -> Value {
    pod(&json!({}))
}

/// Its label says so.
pub fn labelled(inject: &str) -> Value {
    pod(&json!({"metadata": {"labels": {"ebb-cache.io/inject": inject}}}))
}

/// With annotations of the kind `config.ebb-cache.io/…`.
pub fn annotated(annotations: &[(&str, &str)]) -> Value {
    let annotations = annotations.iter().map(|(name, value)| (format!("config.ebb-cache.io/{name}"), json!(value)));
    pod(&json!({"metadata": {"annotations": annotations.collect::<serde_json::Map<_, _>>()}}))
}

/// With these containers.
pub fn with_containers(containers: &Value) -> Value {
    pod(&json!({"spec": {"containers": containers}}))
}

impl Cluster {
    /// The pod as the API server would store it, or why it would not.
    pub async fn admit(&self, pod: &Value, namespace: &str) -> Result<Value, String> {
        let mut pod = pod.clone();
        pod["metadata"]["namespace"] = json!(namespace);
        create(&self.client, &pod, &PostParams { dry_run: true, ..PostParams::default() }).await
    }

    /// The pod with its sidecar.
    pub async fn injected(&self, what: &str, pod: &Value, namespace: &str) -> Value {
        let got = self.admit(pod, namespace).await.unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(lacks(&got), None, "{what}: {got}");
        got
    }

    /// The pod gets no sidecar, and is admitted.
    pub async fn is_left_alone(&self, what: &str, pod: &Value, namespace: &str) {
        let got = self.admit(pod, namespace).await.unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(sidecar(&got), None, "{what}");
    }

    /// Waits until such a pod is injected.
    pub async fn until_injected(&self, pod: &Value, namespace: &str) {
        let is_injected = async || self.admit(pod, namespace).await.is_ok_and(|got| lacks(&got).is_none());
        self.until("a pod is injected", is_injected).await;
    }
}

pub fn sidecar(pod: &Value) -> Option<&Value> {
    list(&pod["spec"]["initContainers"]).find(|container| container["name"] == "ebb")
}

/// The sidecar's requests and limits.
pub fn resources(pod: &Value) -> &Value {
    &sidecar(pod).expect("it has a sidecar")["resources"]
}

/// What is missing in a pod that should have its sidecar.
pub fn lacks(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    let volumes: Vec<&Value> = list(&spec["volumes"]).map(|volume| &volume["name"]).collect();
    match () {
        () if spec["initContainers"][0]["name"] != "ebb" => Some("ebb is not the first init container"),
        () if pod["metadata"]["labels"]["ebb-cache.io/injected"] != "true" => Some("the label is missing"),
        () if !volumes.ends_with(&[&json!("ebb-config"), &json!("ebb-socket")]) => Some("the volumes are missing"),
        () if !list(&spec["securityContext"]["supplementalGroups"]).any(|group| *group == 65532) => {
            Some("the socket's group is missing")
        }
        () => None,
    }
}

/// The containers that were told about the cache: each has one variable and one mount, and all others have neither.
pub fn told(pod: &Value) -> Vec<&str> {
    let is_told = |container: &&Value| {
        let variables = list(&container["env"]).filter(|variable| variable["name"] == "EBB_ADDR").count();
        let mounts = list(&container["volumeMounts"]).filter(|mount| mount["mountPath"] == "/run/ebb").count();
        assert!(variables == mounts && mounts < 2, "{variables} EBB_ADDR and {mounts} mounts in {container}");
        mounts == 1
    };
    let containers = list(&pod["spec"]["containers"]).filter(is_told);
    containers.map(|container| container["name"].as_str().unwrap()).collect()
}
