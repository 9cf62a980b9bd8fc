//! Which pods the API server shows to the webhook, by the selectors of its configuration. An administrator may have changed
//! them since the chart was installed, so they are read for each search.

use super::pages::{self, Of};
use crate::selector::{Labels, selects};
use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Client;
use kube::core::Selector;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The pods that the webhook sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage(Vec<Part>);

/// The pods of one selector, in the namespaces of the selectors that belong to it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Selects pods.
    selector: Value,
    namespaces: BTreeSet<String>,
}

impl Coverage {
    /// Reads the selectors of a MutatingWebhookConfiguration, and finds the namespaces that they select.
    ///
    /// # Errors
    /// The error of the API server.
    pub(super) async fn read(client: &Client, name: &str) -> Result<Self, kube::Error> {
        let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}");
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        let found: Value = client.request(request).await?;
        let mut parts: Vec<Part> = Vec::new();
        let mut namespaces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for webhook in found["webhooks"].as_array().into_iter().flatten() {
            let query = query(&webhook["namespaceSelector"])?;
            if !namespaces.contains_key(&query) {
                let mut names = BTreeSet::new();
                let path = format!("/api/v1/namespaces?labelSelector={query}");
                pages::each(client, &path, Of::Metadata, |read| {
                    names.extend(read.value["metadata"]["name"].as_str().map(str::to_owned));
                })
                .await?;
                namespaces.insert(query.clone(), names);
            }
            let names = namespaces[&query].clone();
            let selector = &webhook["objectSelector"];
            match parts.iter_mut().find(|part| part.selector == *selector) {
                Some(part) => part.namespaces.extend(names),
                None => parts.push(Part { selector: selector.clone(), namespaces: names }),
            }
        }
        Ok(Self(parts))
    }

    /// The parts; a pod is in at most one of them, unless selectors overlap.
    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether a pod with these labels is shown to the webhook.
    pub(super) fn covers(&self, namespace: &str, labels: &Labels) -> bool {
        self.0.iter().any(|part| part.covers_namespace(namespace) && selects(&part.selector, labels))
    }

    /// The labels of pods that the selectors name.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        let of = |part: &Part| {
            let exact = part.selector["matchLabels"].as_object().into_iter().flatten().map(|(key, _)| key.clone());
            let rules = part.selector["matchExpressions"].as_array().into_iter().flatten();
            exact.chain(rules.filter_map(|rule| rule["key"].as_str().map(str::to_owned))).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }
}

impl Part {
    /// Whether it has pods in this namespace.
    pub(super) fn covers_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// The selector of its pods as part of a query; empty for all pods.
    pub(super) fn query(&self) -> Result<String, kube::Error> {
        query(&self.selector)
    }
}

/// A selector as the API server reads it in a query; empty for one that selects everything.
fn query(selector: &Value) -> Result<String, kube::Error> {
    let invalid = |why: String| kube::Error::Service(format!("a selector of the webhook: {why}").into());
    let read: Option<LabelSelector> =
        serde_json::from_value(selector.clone()).map_err(|error| invalid(error.to_string()))?;
    let selector = Selector::try_from(read.unwrap_or_default()).map_err(|error| invalid(error.to_string()))?;
    let mut encoded = String::new();
    for byte in selector.to_string().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => encoded.push(byte.into()),
            other => write!(encoded, "%{other:02X}").expect("a string grows"),
        }
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_is_a_query_of_the_api_server() {
        let rule =
            |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let selector = json!({
            "matchLabels": {"ebb-cache.io/inject": "enabled"},
            "matchExpressions": [rule("team", "NotIn", &["a", "b"]), rule("rev", "In", &["", "default"])],
        });
        let text = query(&selector).unwrap();
        assert!(
            text.contains("ebb-cache.io%2Finject%3Denabled") && text.contains("team%20notin%20%28a%2Cb%29"),
            "{text}"
        );
        assert!(text.contains("rev%20in%20%28%2Cdefault%29"), "{text}");
        let exist = json!({"matchExpressions": [rule("x", "Exists", &[]), rule("y", "DoesNotExist", &[])]});
        assert_eq!(query(&exist).unwrap(), "x%2C%21y");
        assert_eq!([query(&json!({})).unwrap(), query(&Value::Null).unwrap()], ["", ""]);
        assert!(query(&json!({"matchExpressions": [rule("x", "Above", &[])]})).is_err());
    }

    #[test]
    fn a_pod_is_covered_by_both_selectors_of_one_webhook() {
        let part = |selector: Value, namespaces: &[&str]| Part {
            selector,
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        };
        let coverage = Coverage(vec![
            part(json!({"matchExpressions": [{"key": "batch", "operator": "DoesNotExist"}]}), &["shop"]),
            part(json!({"matchLabels": {"inject": "yes"}}), &["shop", "plain"]),
        ]);
        let labels = |key: &str| Labels::from([(key.to_owned(), "yes".to_owned())]);
        let found =
            ["none", "batch", "inject"].map(|key| ["shop", "plain"].map(|name| coverage.covers(name, &labels(key))));
        assert_eq!(found, [[true, false], [false, false], [true, true]]);
        assert_eq!(coverage.keys(), BTreeSet::from(["batch", "inject"].map(str::to_owned)));
        assert!(!Coverage::default().covers("shop", &Labels::new()), "without a webhook nobody is injected");
    }
}
