//! Label selectors: which pods the API server shows to the webhooks and policies of Ebb.

use super::Listed;
pub(super) use crate::selector::Labels;
use crate::selector::selects;
use serde_json::Value;

/// The selectors of the webhooks, and of the bindings of policies.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// Selectors of namespaces and of pods. Without any, no injector is known and nothing is left out.
    pairs: Vec<(Value, Value)>,
}

impl Selection {
    pub(super) fn of(webhooks: &Listed, bindings: &Listed) -> Self {
        let webhooks = webhooks.iter().flatten().flat_map(|found| found["webhooks"].as_array().into_iter().flatten());
        let bindings = bindings.iter().flatten().map(|binding| &binding["spec"]["matchResources"]);
        let pair = |of: &Value| (of["namespaceSelector"].clone(), of["objectSelector"].clone());
        Self { pairs: webhooks.chain(bindings).map(pair).collect() }
    }

    /// Whether a pod with these labels is shown to an injector.
    pub(super) fn covers(&self, namespace: &Labels, pod: &Labels) -> bool {
        let covers = |(of_namespace, of_pod): &(Value, Value)| selects(of_namespace, namespace) && selects(of_pod, pod);
        self.pairs.is_empty() || self.pairs.iter().any(covers)
    }

    /// Whether any pod of a namespace with these labels may be shown to an injector.
    pub(super) fn covers_namespace(&self, namespace: &Labels) -> bool {
        self.pairs.is_empty() || self.pairs.iter().any(|(of_namespace, _)| selects(of_namespace, namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn pods_are_selected_as_the_api_server_selects_them() {
        let metadata_name = "kubernetes.io/metadata.name";
        let elsewhere = json!([{"key": metadata_name, "operator": "NotIn", "values": ["kube-system"]}]);
        let by_namespace = json!({
            "namespaceSelector": {"matchLabels": {"inject": "enabled"}, "matchExpressions": elsewhere},
            "objectSelector": {"matchExpressions": [
                {"key": "inject", "operator": "NotIn", "values": ["enabled", "disabled"]},
                {"key": "batch", "operator": "DoesNotExist"},
            ]},
        });
        let by_pod = json!({
            "namespaceSelector": {"matchExpressions": elsewhere}, "objectSelector": {"matchLabels": {"inject": "enabled"}},
        });
        let webhooks = Ok(vec![json!({"webhooks": [by_namespace, by_pod]})]);
        let bindings = [&by_namespace, &by_pod].map(|of| json!({"spec": {"matchResources": of}}));
        let shop = labels(&[("inject", "enabled"), (metadata_name, "shop")]);
        let system = labels(&[("inject", "enabled"), (metadata_name, "kube-system")]);
        let plain = labels(&[(metadata_name, "plain")]);
        for selection in
            [Selection::of(&webhooks, &Ok(Vec::new())), Selection::of(&Ok(Vec::new()), &Ok(bindings.into()))]
        {
            let found =
                [(&shop, ""), (&shop, "enabled"), (&shop, "disabled"), (&system, "enabled"), (&plain, "enabled")];
            let found = found.map(|(namespace, word)| selection.covers(namespace, &labels(&[("inject", word)])));
            assert_eq!(found, [true, true, false, false, true]);
            assert!(!selection.covers(&shop, &labels(&[("batch", "yes")])));
            assert_eq!([&shop, &system].map(|namespace| selection.covers_namespace(namespace)), [true, false]);
        }
        assert!(Selection::default().covers(&system, &Labels::new()), "no selector is known");
    }
}
