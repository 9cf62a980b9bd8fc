//! Reverses `inject`: finds what it added to a pod.

use super::STATUS;
use super::patch::{Operation, address, resolve};
use ebb_manifest::Removal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

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
    let added: Vec<&str> = added.iter().filter_map(Value::as_str).collect();
    // Only a pod that declares the container gets the annotation `merged`; in another one it is the pod's own.
    let is_merged = !added.contains(&"/spec/initContainers/ebb") && !annotations["ebb-cache.io/merged"].is_null();
    let is_of_declared = |address: &&str| address.starts_with("/spec/initContainers/ebb/");
    let is_listed = !is_merged || added.iter().any(is_of_declared);
    if !is_listed {
        return TakeOut::Unlisted;
    }
    let own = ["injected-by", "status", "version"].into_iter().chain(is_merged.then_some("merged"));
    let own: Vec<_> = own.map(|name| format!("/metadata/annotations/ebb-cache.io~1{name}")).collect();
    let paths: Vec<String> =
        added.into_iter().chain(own.iter().map(String::as_str)).filter_map(|at| resolve(pod, at)).collect();
    let collections: BTreeSet<String> = paths.iter().flat_map(|path| collections(pod, path)).collect();
    let replaced = status["replaced"].as_object().into_iter().flatten();
    let replaced = replaced.filter_map(|(at, text)| Some((resolve(pod, at)?, text.as_str()?.to_owned()))).collect();
    TakeOut::Remove(Removal { paths, if_empty: collections.into_iter().collect(), replaced })
}

/// The collections around a value that may have been created for it: neither the pod's spec nor an element of a list.
fn collections(pod: &Value, path: &str) -> Vec<String> {
    let parents = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]);
    let is_element =
        |path: &str| path.rsplit_once('/').is_some_and(|(list, _)| pod.pointer(list).is_some_and(Value::is_array));
    parents.filter(|path| *path != "/spec" && !is_element(path)).map(str::to_owned).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::{Context, Namespace, Template, Verdict, inject};

    #[test]
    fn pull_secrets_and_storage_of_the_template_come_and_go() {
        let mut template = Template::built_in();
        template.pull_secrets = vec![json!({"name": "mirror"}), json!({"name": "own"})];
        template.container["resources"]["limits"]["ephemeral-storage"] = json!("1Gi");
        let namespace = Namespace::default();
        let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
        for (secrets, expected) in [
            (json!([{"name": "own"}]), json!([{"name": "own"}, {"name": "mirror"}])),
            (Value::Null, json!([{"name": "mirror"}, {"name": "own"}])),
        ] {
            let mut pod = json!({
                "metadata": {"name": "web"},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            });
            if !secrets.is_null() {
                pod["spec"]["imagePullSecrets"] = secrets.clone();
            }
            let Verdict::Inject(operations) = inject(&pod, &context, &template).verdict else { panic!("skipped") };
            let mut injected = pod.clone();
            let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
            json_patch::patch(&mut injected, &patch).unwrap();
            assert_eq!(injected["spec"]["imagePullSecrets"], expected);
            let limits = &injected["spec"]["initContainers"][0]["resources"]["limits"];
            assert_eq!(*limits, json!({"memory": "256Mi", "ephemeral-storage": "1Gi"}));
            let TakeOut::Remove(removal) = take_out(&injected) else { panic!("not injected") };
            removal.apply(&mut injected);
            assert_eq!(injected["spec"]["imagePullSecrets"], secrets, "the pod's own stay");
        }
    }
}
