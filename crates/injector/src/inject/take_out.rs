//! Reverses `inject`: finds what it added to a pod.

use super::STATUS;
use super::patch::{Operation, address, resolve};
use ebb_manifest::Removal;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What to remove from a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeOut {
    /// The additions, by JSON pointer in the pod.
    Remove(Removal),
    /// The pod was not injected.
    NotInjected,
    /// The status annotation does not list the additions, so they cannot be distinguished from the pod's own fields.
    Unlisted,
}

/// Finds the additions that the status annotation lists.
pub fn take_out(pod: &Value) -> TakeOut {
    let annotations = &pod["metadata"]["annotations"];
    if annotations["ebb-cache.io/injected-by"].is_null() {
        return TakeOut::NotInjected;
    }
    let status: Value = annotations["ebb-cache.io/status"].as_str().unwrap_or_default().parse().unwrap_or_default();
    let Some(added) = status["added"].as_array() else { return TakeOut::Unlisted };
    let is_of_declared = |address: &str| address.starts_with("/spec/initContainers/ebb/");
    let mut removal = Removal::default();
    let mut is_listed = annotations["ebb-cache.io/merged"].is_null();
    for address in added.iter().filter_map(Value::as_str) {
        is_listed |= is_of_declared(address);
        let (list, address) = match address.strip_suffix('/') {
            Some(collection) => (&mut removal.if_empty, collection),
            None => (&mut removal.paths, address),
        };
        list.extend(resolve(pod, address));
    }
    if !is_listed {
        return TakeOut::Unlisted;
    }
    for name in ["injected-by", "merged", "status", "version"] {
        removal.paths.extend(resolve(pod, &format!("/metadata/annotations/ebb-cache.io~1{name}")));
    }
    let replaced = status["replaced"].as_object().into_iter().flatten();
    removal.replaced = replaced.filter_map(|(at, text)| Some((resolve(pod, at)?, text.as_str()?.to_owned()))).collect();
    TakeOut::Remove(removal)
}

/// Records in the status annotation what additions replace in the text of a pod: by JSON pointer in the pod, the text.
pub fn with_replaced(pod: &Value, operations: &mut [Operation], replaced: &BTreeMap<String, String>) {
    if replaced.is_empty() {
        return;
    }
    for operation in operations.iter_mut().filter(|operation| operation.path == STATUS) {
        let status = operation.value.as_str().unwrap_or_default();
        let mut status: Value = status.parse().expect("it was written as JSON");
        let replaced: serde_json::Map<String, Value> =
            replaced.iter().map(|(at, text)| (address(pod, at), json!(text))).collect();
        status["replaced"] = replaced.into();
        status.sort_all_objects();
        operation.value = status.to_string().into();
    }
}
