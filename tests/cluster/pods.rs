//! Pods, and their injection. All are dry runs: the API server returns the pod that it would store.

use crate::apiserver::Cluster;
use crate::objects::{create, list};
use kube::api::PostParams;
use serde_json::{Value, json};

/// A pod with one container, changed by a merge patch (RFC 7396).
pub fn pod(different: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {}, "annotations": {}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    json_patch::merge(&mut pod, different);
    pod
}

/// A pod without label and annotations.
pub fn plain() -> Value {
    pod(&json!({}))
}

/// A pod with the label.
pub fn labelled(inject: &str) -> Value {
    pod(&json!({"metadata": {"labels": {"ebb-cache.io/inject": inject}}}))
}

/// A pod with annotations `config.ebb-cache.io/…`.
pub fn annotated(annotations: &[(&str, &str)]) -> Value {
    let annotations = annotations.iter().map(|(name, value)| (format!("config.ebb-cache.io/{name}"), json!(value)));
    pod(&json!({"metadata": {"annotations": annotations.collect::<serde_json::Map<_, _>>()}}))
}

/// A pod with these containers.
pub fn with_containers(containers: &Value) -> Value {
    pod(&json!({"spec": {"containers": containers}}))
}

impl Cluster {
    /// Creates an owner of pods with these labels in its template; returns the reference to it.
    pub async fn owner(&self, kind: &str, name: &str, namespace: &str, labels: &Value) -> Value {
        let api_version = match kind {
            "Job" => "batch/v1",
            "ReplicationController" => "v1",
            _ => "apps/v1",
        };
        let mut template = json!({
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        json_patch::merge(&mut template["metadata"]["labels"], labels);
        let mut spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template});
        match kind {
            "Job" => {
                spec["template"]["spec"]["restartPolicy"] = json!("Never");
                spec.as_object_mut().unwrap().remove("selector");
            }
            "ReplicationController" => spec["selector"] = json!({"app": name}),
            "StatefulSet" => spec["serviceName"] = json!(name),
            _ => {}
        }
        let metadata = json!({"name": name, "namespace": namespace});
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec});
        let created = create(&self.client, &object, &PostParams::default()).await.unwrap();
        let uid = &created["metadata"]["uid"];
        json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true})
    }

    /// The pod as the API server would store it, or the reason for a refusal.
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

    /// Checks that the pod is admitted without a sidecar.
    pub async fn is_left_alone(&self, what: &str, pod: &Value, namespace: &str) {
        self.are_left_alone(&[(what, pod.clone(), namespace)]).await;
    }

    /// Checks that every pod of a list of names, pods and namespaces is admitted without a sidecar.
    pub async fn are_left_alone(&self, pods: &[(&str, Value, &str)]) {
        let mut wrong = Vec::new();
        for (what, pod, namespace) in pods {
            match self.admit(pod, namespace).await {
                Ok(got) if sidecar(&got).is_none() => {}
                Ok(got) => wrong.push(format!("{what}: a sidecar in {got}")),
                Err(why) => wrong.push(format!("{what}: {why}")),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

/// The missing parts of a pod that should have its sidecar.
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

/// The containers with the variable and the mount; all others must have neither.
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
