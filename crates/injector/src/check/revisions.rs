//! Facts about revisions: which are installed, who names them, and which sidecars they gave.

use super::injection::LABEL;
use super::{Facts, Listed, Pod};
use crate::inject::{DEFAULT_REVISION, Namespace, REVISION, revision_of};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The revisions of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revisions {
    /// The checked one.
    pub checked: String,
    /// Webhooks and policies that inject, by revision; `None` if they cannot be listed.
    pub installed: Option<BTreeMap<String, Vec<String>>>,
    /// Namespaces and pods that belong to a revision, by revision.
    pub named: BTreeMap<String, BTreeSet<String>>,
    /// Number of sidecars by revision and version.
    pub sidecars: BTreeMap<String, BTreeMap<String, usize>>,
}

/// The labels of a namespace that concern injection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Whether its pods ask for a sidecar.
    pub(super) asks: bool,
    /// The revision that it names.
    pub(super) revision: Option<String>,
    /// Whether it chooses an image for its sidecars.
    pub(super) has_image: bool,
}

/// Annotation by which a pod or a namespace chooses the image of the sidecar.
const IMAGE: &str = "config.ebb-cache.io/image";

/// What of a namespace concerns injection.
pub(super) fn labels(namespace: &Namespace) -> Labels {
    Labels {
        asks: namespace.labels.get(LABEL).is_some_and(|word| word == "enabled"),
        revision: namespace.labels.get(REVISION).map(|label| revision_of(Some(label)).to_owned()),
        has_image: namespace.annotations.contains_key(IMAGE),
    }
}

fn has_image(meta: &Value) -> bool {
    !meta["annotations"][IMAGE].is_null()
}

/// The revision of an object of an injector.
pub(super) fn of_object(object: &Value) -> &str {
    revision_of(object["metadata"]["labels"][REVISION].as_str())
}

/// The objects of a revision's injectors.
pub(super) fn of_revision(all: &Listed, revision: &str) -> Listed {
    all.clone().map(|all| all.into_iter().filter(|object| of_object(object) == revision).collect())
}

/// Sets the fields of a pod that concern revisions, from those that are set.
pub(super) fn complete(found: &mut Pod, pod: &Value, namespace: &Labels) {
    let meta = &pod["metadata"];
    let declines = meta["labels"][LABEL] == "disabled";
    let label = meta["labels"][REVISION].as_str().map(|label| revision_of(Some(label)));
    let annotation = |name: &str| meta["annotations"][name].as_str().unwrap_or_default();
    // The label of an injected pod may be one that the injector added.
    let is_added = annotation("ebb-cache.io/status").contains("\"/metadata/labels/ebb-cache.io~1rev\"");
    let named = label.filter(|_| !is_added).or(namespace.revision.as_deref());
    named.unwrap_or(DEFAULT_REVISION).clone_into(&mut found.revision);
    found.names_revision = label.is_some() && !is_added && !declines;
    let by = annotation("ebb-cache.io/injected-by");
    let is_injected = found.has_sidecar && !by.is_empty() && !by.starts_with("ebb inject");
    found.injected_as = is_injected.then(|| label.unwrap_or(DEFAULT_REVISION).to_owned());
    found.chooses_image = has_image(meta) || namespace.has_image;
}

impl Revisions {
    /// Reads what the lists tell, of all revisions.
    pub(super) fn of(
        checked: &str,
        webhooks: &Listed,
        policies: &Listed,
        namespaces: impl Iterator<Item = (String, Labels)>,
        pods: &Listed<Pod>,
    ) -> Self {
        let mut found = Self { checked: checked.to_owned(), ..Self::default() };
        // Older API servers have no policies.
        found.installed = webhooks.as_ref().ok().map(|webhooks| {
            let kinds = [("webhook", webhooks.as_slice()), ("policy", policies.as_deref().unwrap_or_default())];
            let mut installed: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (kind, object) in kinds.iter().flat_map(|(kind, all)| all.iter().map(move |object| (kind, object))) {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                installed.entry(of_object(object).to_owned()).or_default().push(format!("{kind} {name}"));
            }
            installed
        });
        let mut name = |revision: &str, who: String| {
            found.named.entry(revision.to_owned()).or_default().insert(who);
        };
        for (namespace, labels) in namespaces.filter(|(_, labels)| labels.asks || labels.revision.is_some()) {
            name(labels.revision.as_deref().unwrap_or(DEFAULT_REVISION), format!("namespace {namespace}"));
        }
        for pod in pods.iter().flatten() {
            if pod.names_revision {
                name(&pod.revision, format!("pod {}", pod.name));
            }
            if let Some(revision) = &pod.injected_as {
                let versions = found.sidecars.entry(revision.clone()).or_default();
                *versions.entry(pod.version.clone()).or_default() += 1;
            }
        }
        found
    }

    /// Whether an object is of the checked revision.
    pub(super) fn is_of(&self, object: &Value) -> bool {
        of_object(object) == self.checked
    }

    /// Whether a pod concerns the checked revision: it belongs to it, or has its sidecar.
    pub(super) fn concerns(&self, pod: &Pod) -> bool {
        let is_given = pod.injected_as.as_ref() == Some(&self.checked);
        pod.revision == self.checked || is_given
    }
}

impl Facts {
    /// Keeps what concerns the checked revision.
    pub(super) fn of_checked_revision(mut self) -> Self {
        let revisions = &self.revisions;
        let lists = [&mut self.webhooks, &mut self.policies, &mut self.templates, &mut self.injectors];
        for objects in lists.into_iter().flatten() {
            objects.retain(|object| revisions.is_of(object));
        }
        if let Ok(pods) = &mut self.pods {
            pods.retain(|pod| revisions.concerns(pod));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(metadata: Value, namespace: &Labels) -> (String, Option<String>, bool, bool) {
        let mut found = Pod { has_sidecar: true, ..Pod::default() };
        complete(&mut found, &json!({"metadata": metadata}), namespace);
        (found.revision, found.injected_as, found.names_revision, found.chooses_image)
    }

    #[test]
    fn a_label_that_the_injector_added_names_no_revision() {
        let webhook = |status: &str| json!({"ebb-cache.io/injected-by": "webhook c", "ebb-cache.io/status": status});
        let added = r#"{"added":["/metadata/labels/ebb-cache.io~1rev"]}"#;
        let canary = json!({REVISION: "canary"});
        let of = |asked: &str, given: Option<&str>, names| (asked.to_owned(), given.map(str::to_owned), names, false);
        let namespace = |revision: Option<&str>| Labels { revision: revision.map(str::to_owned), ..Labels::default() };
        let none = namespace(None);
        let found = [
            pod(json!({"annotations": webhook("{}")}), &none),
            pod(json!({"annotations": webhook("{}"), "labels": canary}), &none),
            pod(json!({"annotations": webhook(added), "labels": canary}), &none),
            pod(json!({"annotations": webhook(added), "labels": canary}), &namespace(Some("blue"))),
            pod(json!({"annotations": {"ebb-cache.io/injected-by": "ebb inject 0.1.0"}}), &namespace(Some("blue"))),
        ];
        let expected = [
            of("default", Some("default"), false),
            of("canary", Some("canary"), true),
            of("default", Some("canary"), false),
            of("blue", Some("canary"), false),
            of("blue", None, false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_image_may_be_chosen_by_the_pod_or_its_namespace() {
        let annotations = json!({IMAGE: "ebb:2"});
        let of_namespace =
            labels(&Namespace { annotations: crate::inject::texts(&annotations), ..Namespace::default() });
        assert!(pod(json!({}), &of_namespace).3 && pod(json!({"annotations": annotations}), &Labels::default()).3);
        assert!(!pod(json!({}), &Labels::default()).3);
    }
}
