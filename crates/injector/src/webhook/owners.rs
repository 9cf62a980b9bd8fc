//! Owners of pods, read from the API server. What a review says about an owner, or a pod about itself, proves nothing:
//! everybody who may create or label pods chooses it.

use super::namespaces::{LABELS, annotations};
use super::review::Owner;
use crate::inject::is_object_name;
use http::Request;
use kube::Client;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};

/// The kinds of owners that are read: version, kind, and the name of the resource. The chart's role has the same ones.
const KINDS: [(&str, &str, &str); 5] = [
    ("apps/v1", "DaemonSet", "daemonsets"),
    ("apps/v1", "ReplicaSet", "replicasets"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("batch/v1", "Job", "jobs"),
    ("v1", "ReplicationController", "replicationcontrollers"),
];
/// The API server sends the metadata only.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The metadata that an owner gives its pods, as far as injection and the selectors of the webhook read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Asked {
    #[serde(default, deserialize_with = "labels")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "annotations")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    template: Template,
}

#[derive(Default, Deserialize)]
struct Template {
    #[serde(default)]
    metadata: Asked,
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The path of an owner; `None` for other kinds, and for names that no object has.
pub(super) fn path(owner: &Owner, namespace: &str) -> Option<String> {
    let (version, _, resource) =
        KINDS.iter().find(|(version, kind, _)| (*version, *kind) == (&owner.api_version, &owner.kind))?;
    let root = if version.contains('/') { "apis" } else { "api" };
    let is_named = is_object_name(&owner.name) && is_object_name(namespace);
    is_named.then(|| format!("/{root}/{version}/namespaces/{namespace}/{resource}/{}", owner.name))
}

/// Whether the object at this path is the owner: it has its uid.
///
/// # Errors
/// The error of the API server, unless there is no such object.
pub(super) async fn is_there(client: &Client, path: &str, uid: &str) -> Result<bool, kube::Error> {
    Ok(get(client, path, METADATA).await?.is_some_and(|object| object.metadata.uid == uid))
}

/// What the template of the owner at this path asks for its pods, with the labels of injection and those of `keys`; `None` if
/// there is no owner with this uid.
///
/// # Errors
/// The error of the API server, unless there is no such object.
pub(super) async fn asked(
    client: &Client,
    path: &str,
    uid: &str,
    keys: &BTreeSet<String>,
) -> Result<Option<Asked>, kube::Error> {
    let object = get(client, path, "application/json").await?.filter(|object| object.metadata.uid == uid);
    Ok(object.map(|object| object.spec.template.metadata.reduced(keys)))
}

impl Asked {
    fn reduced(mut self, keys: &BTreeSet<String>) -> Self {
        self.labels.retain(|key, _| LABELS.contains(&key.as_str()) || keys.contains(key));
        self
    }
}

async fn get(client: &Client, path: &str, accept: &str) -> Result<Option<Object>, kube::Error> {
    let request = Request::get(path).header("accept", accept).body(Vec::new());
    match client.request(request.expect("names are checked")).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(api_version: &str, kind: &str, name: &str) -> Owner {
        let [api_version, kind, name] = [api_version, kind, name].map(str::to_owned);
        Owner { api_version, kind, name, uid: "1".to_owned() }
    }

    #[test]
    fn only_known_kinds_and_names_of_objects_have_a_path() {
        let of = |version, kind, name| path(&owner(version, kind, name), "shop");
        assert_eq!(of("apps/v1", "ReplicaSet", "web-1").unwrap(), "/apis/apps/v1/namespaces/shop/replicasets/web-1");
        let controller = of("v1", "ReplicationController", "web").unwrap();
        assert_eq!(controller, "/api/v1/namespaces/shop/replicationcontrollers/web");
        let others = [
            ("v1", "Secret", "web"),
            ("example.test/v1", "ReplicaSet", "web"),
            ("apps/v1", "ReplicaSet", "../../kube-system/secrets/x"),
            ("apps/v1", "ReplicaSet", "web?watch=true"),
            ("apps/v1", "ReplicaSet", "..%2F.."),
            ("apps/v1", "ReplicaSet", ""),
        ];
        let found: Vec<_> = others.into_iter().filter_map(|(version, kind, name)| of(version, kind, name)).collect();
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(path(&owner("batch/v1", "Job", "once"), "../x"), None);
    }

    #[test]
    fn of_a_template_only_what_injection_reads_is_kept() {
        let metadata = json!({
            "creationTimestamp": null, "labels": {"app": "web", "ebb-cache.io/inject": "enabled", "tier": "b"},
            "annotations": {"config.ebb-cache.io/uid": "7", "other": "x"},
        });
        let read = |spec| serde_json::from_value::<Object>(json!({"metadata": {"uid": "1"}, "spec": spec})).unwrap();
        let asked = read(json!({"replicas": 2, "template": {"metadata": metadata, "spec": {}}})).spec.template.metadata;
        let of_selectors = asked.clone().reduced(&BTreeSet::from(["tier".to_owned()]));
        assert_eq!(of_selectors.labels.keys().collect::<Vec<_>>(), ["ebb-cache.io/inject", "tier"]);
        let asked = asked.reduced(&BTreeSet::new());
        let entry = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(asked.labels, entry("ebb-cache.io/inject", "enabled"));
        assert_eq!(asked.annotations, entry("config.ebb-cache.io/uid", "7"));
        assert_eq!(read(json!({})).spec.template.metadata, Asked::default());
        assert_eq!(read(json!({"template": {"metadata": {"labels": null}}})).spec.template.metadata, Asked::default());
        assert_eq!(read(json!({"template": {}})).spec.template.metadata, Asked::default());
    }
}
