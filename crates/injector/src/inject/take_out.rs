//! Reverses `inject`: removes the sidecar from a pod.

use super::pod::{SOCKET_VOLUME, list};
use serde_json::{Value, json};

/// Result of removing the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOut {
    /// The sidecar was removed.
    Done,
    /// The pod was not injected.
    NotInjected,
    /// The pod declares the container `ebb` itself, so injected fields cannot be distinguished from its own.
    Declared,
}

/// Removes the sidecar. Empty lists and objects are removed, too, since their presence before injection is unknown.
pub fn take_out(pod: &mut Value) -> TakeOut {
    let annotations = &pod["metadata"]["annotations"];
    if annotations["ebb-cache.io/injected-by"].is_null() {
        return TakeOut::NotInjected;
    }
    if !annotations["ebb-cache.io/merged"].is_null() {
        return TakeOut::Declared;
    }
    let status: Value = annotations["ebb-cache.io/status"].as_str().unwrap_or_default().parse().unwrap_or_default();
    let sidecar = list(&pod["spec"]["initContainers"]).find(|container| container["name"] == "ebb");
    let group = sidecar.map(|sidecar| sidecar["securityContext"]["runAsGroup"].clone()).unwrap_or_default();

    let first = pod["spec"]["containers"][0]["name"].clone();
    if pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == first {
        remove(pod, "/metadata/annotations", "kubectl.kubernetes.io/default-container");
    }
    remove(pod, "/metadata/labels", "ebb-cache.io/injected");
    remove(pod, "/metadata/labels", "ebb-cache.io/metrics");
    for name in ["injected-by", "status", "version"] {
        remove(pod, "/metadata/annotations", &format!("ebb-cache.io/{name}"));
    }
    retain(pod, "/spec/initContainers", |container| container["name"] != "ebb");
    retain(pod, "/spec/volumes", |volume| list(&status["volumes"]).all(|ours| *ours != volume["name"]));
    retain(pod, "/spec/securityContext/supplementalGroups", |there| *there != group);
    let containers = list(&pod["spec"]["containers"]).count();
    for at in 0..containers {
        retain(pod, &format!("/spec/containers/{at}/volumeMounts"), |mount| mount["name"] != SOCKET_VOLUME);
        retain(pod, &format!("/spec/containers/{at}/env"), |variable| {
            list(&status["env"]).all(|ours| ours != variable)
        });
    }
    for path in ["/spec/securityContext", "/metadata/labels", "/metadata/annotations", "/metadata"] {
        drop_if_empty(pod, path);
    }
    TakeOut::Done
}

fn remove(object: &mut Value, path: &str, key: &str) {
    if let Some(fields) = object.pointer_mut(path).and_then(Value::as_object_mut) {
        fields.remove(key);
    }
}

fn retain(object: &mut Value, path: &str, keep: impl Fn(&Value) -> bool) {
    if let Some(values) = object.pointer_mut(path).and_then(Value::as_array_mut) {
        values.retain(keep);
        drop_if_empty(object, path);
    }
}

fn drop_if_empty(object: &mut Value, path: &str) {
    if object.pointer(path).is_some_and(|value| *value == json!([]) || *value == json!({})) {
        let (parent, key) = path.rsplit_once('/').expect("a pointer has a slash");
        remove(object, parent, key);
    }
}
