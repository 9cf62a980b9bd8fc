//! Watches the labels and annotations of namespaces that injection reads.
//!
//! A namespace may have 1.5 MiB of labels and managed fields. Only the fields for injection are kept, and only a few
//! complete objects are in memory at a time.

use crate::inject::{Namespace, REVISION, TRUSTED};
use ebb_config::annotations::PREFIX;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Namespaces per page; the text of a page is briefly in memory.
const PAGE: u32 = 16;
/// The labels that injection reads.
pub(super) const LABELS: [&str; 3] = ["ebb-cache.io/inject", REVISION, TRUSTED];
/// Maximum length of a kept value, in bytes; `inject` ignores longer ones with a warning.
const VALUE_BYTES: usize = 5 << 10;
/// Maximum number of kept values per namespace, more than there are annotations.
const MOST_VALUES: usize = 100;

/// The known namespaces.
#[derive(Clone, Debug)]
pub(super) struct Namespaces(Store<Excerpt>);

impl Namespaces {
    /// Follows all namespaces.
    pub(super) fn follow(client: Client) -> Self {
        let (store, writer) = reflector::store();
        let config = watcher::Config { page_size: Some(PAGE), ..watcher::Config::default() };
        let events = watcher(Api::<Excerpt>::all(client), config).default_backoff();
        let mut events = Box::pin(reflector::reflector(writer, events));
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let Err(error) = event {
                    tracing::warn!(%error, "failed to watch namespaces");
                }
            }
        });
        Self(store)
    }

    /// The namespace, if it is known.
    pub(super) fn get(&self, name: &str) -> Namespace {
        let mut namespace = Namespace { name: name.to_owned(), ..Namespace::default() };
        if let Some(found) = self.0.get(&ObjectRef::new(name)) {
            namespace.labels = found.metadata.labels.clone().unwrap_or_default();
            namespace.annotations = found.metadata.annotations.clone().unwrap_or_default();
        }
        namespace
    }

    /// The namespace as the object of an Event, if it is known. The Event is written into it.
    pub(super) fn reference(&self, name: &str) -> Option<ObjectReference> {
        let found = self.0.get(&ObjectRef::new(name))?;
        Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(name.to_owned()),
            namespace: Some(name.to_owned()),
            uid: Some(found.metadata.uid.clone()?),
            ..ObjectReference::default()
        })
    }
}

/// A namespace with the fields that injection reads.
#[derive(Clone, Debug, Default, serde::Deserialize)]
struct Excerpt {
    #[serde(deserialize_with = "meta")]
    metadata: ObjectMeta,
}

impl Resource for Excerpt {
    type DynamicType = ();
    type Scope = <v1::Namespace as Resource>::Scope;

    fn kind(&(): &()) -> Cow<'_, str> {
        v1::Namespace::kind(&())
    }

    fn group(&(): &()) -> Cow<'_, str> {
        v1::Namespace::group(&())
    }

    fn version(&(): &()) -> Cow<'_, str> {
        v1::Namespace::version(&())
    }

    fn plural(&(): &()) -> Cow<'_, str> {
        v1::Namespace::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

fn meta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        name: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        #[serde(default, deserialize_with = "labels")]
        labels: BTreeMap<String, String>,
        #[serde(default, deserialize_with = "annotations")]
        annotations: BTreeMap<String, String>,
    }
    let Meta { name, uid, resource_version, labels, annotations } = serde::Deserialize::deserialize(deserializer)?;
    let (labels, annotations) = (Some(labels), Some(annotations));
    Ok(ObjectMeta { name, uid, resource_version, labels, annotations, ..ObjectMeta::default() })
}

pub(super) fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_any(Kept(|key| LABELS.contains(&key)))
}

pub(super) fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_any(Kept(|key| key.starts_with(PREFIX)))
}

/// The entries of a map with selected keys.
struct Kept(fn(&str) -> bool);

impl<'de> Visitor<'de> for Kept {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if !(self.0)(&key) || kept.len() == MOST_VALUES {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let mut value: String = map.next_value()?;
            value.truncate(value.floor_char_boundary(VALUE_BYTES));
            value.shrink_to_fit();
            kept.insert(key.into_owned(), value);
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_injection_reads_is_kept() {
        let many: BTreeMap<String, String> = (0..10_000).map(|n| (format!("k{n}"), "v".to_owned())).collect();
        let mut annotations = json!(many);
        annotations["config.ebb-cache.io/uid"] = json!("7");
        annotations["config.ebb-cache.io/image"] = json!("x".repeat(1 << 20));
        let labels = json!({"ebb-cache.io/inject": "enabled", REVISION: "canary", TRUSTED: "true", "other": "x"});
        let metadata = json!({
            "name": "shop", "uid": "9", "resourceVersion": "3", "labels": labels, "annotations": annotations, "managedFields": [many],
        });
        let text =
            json!({"kind": "Namespace", "metadata": metadata, "spec": {"finalizers": ["kubernetes"]}}).to_string();
        let read: Excerpt = serde_json::from_str(&text).unwrap();
        let ObjectMeta { name, uid, resource_version, labels, annotations, .. } = read.metadata;
        let read = [name, uid, resource_version].map(Option::unwrap);
        assert_eq!(read, ["shop", "9", "3"]);
        let kept = LABELS.map(str::to_owned).into_iter().zip(["enabled", "canary", "true"].map(str::to_owned));
        assert_eq!(labels.unwrap(), kept.collect());
        let annotations = annotations.unwrap();
        assert_eq!((annotations.len(), annotations["config.ebb-cache.io/uid"].as_str()), (2, "7"));
        assert_eq!(annotations["config.ebb-cache.io/image"].len(), VALUE_BYTES);
        let bare: Excerpt = serde_json::from_str(r#"{"metadata":{"name":"a","labels":null}}"#).unwrap();
        assert_eq!(bare.metadata.labels, Some(BTreeMap::new()));
    }
}
