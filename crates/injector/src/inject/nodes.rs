//! Whether a pod asks for nodes that run no sidecar, by `nodeSelector` or by node affinity. A toleration alone does not
//! choose a node, so it does not count.

use super::pod::list;
use serde_json::Value;

/// A label that only such nodes have.
struct Label {
    key: &'static str,
    /// Its value there; `None` if any value counts.
    value: Option<&'static str>,
    /// Its value on all other nodes.
    other: Option<&'static str>,
}

/// Nodes without sidecars. The chart's policy has the same table (`ebb.nodes`).
pub(super) struct Nodes(&'static [Label]);

/// Nodes that run Windows.
pub(super) const WINDOWS: Nodes = Nodes(&[
    Label { key: "kubernetes.io/os", value: Some("windows"), other: Some("linux") },
    Label { key: "beta.kubernetes.io/os", value: Some("windows"), other: Some("linux") },
    Label { key: "node.kubernetes.io/windows-build", value: None, other: None },
]);
/// Nodes of a virtual kubelet.
pub(super) const VIRTUAL: Nodes = Nodes(&[Label { key: "type", value: Some("virtual-kubelet"), other: None }]);

impl Nodes {
    /// The field by which the pod asks for such nodes only.
    pub(super) fn asked_by(&self, spec: &Value) -> Option<&'static str> {
        let is_value = |label: &Label, value: &Value| label.value.is_none_or(|known| value == known);
        let is_selected = |label: &Label| {
            let value = &spec["nodeSelector"][label.key];
            !value.is_null() && is_value(label, value)
        };
        let needs = |label: &Label, requirement: &Value| {
            let mut values = list(&requirement["values"]);
            requirement["key"] == label.key
                && match requirement["operator"].as_str() {
                    Some("In") => values.all(|value| is_value(label, value)),
                    Some("NotIn") => label.other.is_some_and(|other| values.any(|value| value == other)),
                    Some("Exists") => label.value.is_none(),
                    _ => false,
                }
        };
        if self.0.iter().any(is_selected) {
            return Some("spec.nodeSelector");
        }
        let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        // A node fits one of the terms, and all requirements of that term.
        let fits_others = |term: &Value| {
            !list(&term["matchExpressions"]).any(|requirement| self.0.iter().any(|label| needs(label, requirement)))
        };
        let mut terms = list(&required["nodeSelectorTerms"]).peekable();
        (terms.peek().is_some() && !terms.any(fits_others)).then_some("spec.affinity.nodeAffinity")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_term_must_exclude_other_nodes() {
        let term = |key: &str, operator: &str, values: &[&str]| {
            json!({"matchExpressions": [
                {"key": "zone", "operator": "Exists"}, {"key": key, "operator": operator, "values": values},
            ]})
        };
        let (os, beta) = ("kubernetes.io/os", "beta.kubernetes.io/os");
        let windows = term(os, "In", &["windows"]);
        let found = |nodes: &Nodes, terms: &[&Value]| {
            let required = json!({"nodeSelectorTerms": terms});
            let spec = json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": required,
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": windows}],
            }}});
            nodes.asked_by(&spec).is_some()
        };
        let asked = [
            vec![&windows],
            vec![&windows, &windows],
            vec![&term(beta, "In", &["windows"])],
            vec![&term(os, "NotIn", &["linux", "darwin"]), &windows],
            vec![&term("node.kubernetes.io/windows-build", "In", &["10.0.20348", "10.0.17763"])],
            vec![&term("node.kubernetes.io/windows-build", "Exists", &[])],
        ]
        .map(|terms| found(&WINDOWS, &terms));
        assert_eq!(asked, [true; 6]);
        let not = [
            vec![],
            vec![&term(os, "In", &["linux"])],
            vec![&term(os, "In", &["windows", "linux"])],
            vec![&windows, &term("zone", "In", &["a"])],
            vec![&term(os, "NotIn", &["windows"])],
            vec![&term(os, "Exists", &[])],
            vec![&term("node.kubernetes.io/windows-build", "DoesNotExist", &[])],
        ]
        .map(|terms| found(&WINDOWS, &terms));
        assert_eq!(not, [false; 7]);
        let kubelet = term("type", "In", &["virtual-kubelet"]);
        assert!(found(&VIRTUAL, &[&kubelet]) && !found(&WINDOWS, &[&kubelet]));
        assert!(!found(&VIRTUAL, &[&kubelet, &windows]));
    }
}
