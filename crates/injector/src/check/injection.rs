//! What the injectors of a cluster do with a pod: the webhook's own decision, with the settings found in the cluster.

use super::selection::{Labels, Selection};
use super::{Fact, Listed, policy, revisions};
use crate::inject::{
    Allowed, Context, Namespace, Operation, REVISION, SkipReason, Template, Verdict, inject, revision_of, skip_reason,
    texts,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The label that requests or declines a sidecar.
pub(super) const LABEL: &str = "ebb-cache.io/inject";
/// The reason of a pod that no selector shows to an injector.
const UNSELECTED: &str = "not-selected";

/// Why a pod has no sidecar on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// Stable name, as in metrics and Events.
    pub reason: &'static str,
    /// What the reason means.
    pub meaning: &'static str,
    /// The details of this pod.
    pub detail: String,
}

/// What happens to a pod that is created now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It gets a sidecar.
    Injected,
    /// It asks for one, and gets none.
    LeftAlone(LeftAlone),
    /// Neither it nor its namespace asks.
    NotAsked,
}

/// The settings that decide which pods are skipped.
#[derive(Debug)]
pub(super) struct Injection {
    revision: String,
    template: Template,
    own_namespace: Option<String>,
    selection: Selection,
    /// All namespaces, by name.
    namespaces: BTreeMap<String, Namespace>,
}

impl Injection {
    /// Reads the settings of a revision from its objects, with the chart's defaults for missing ones. A policy has no
    /// template; what a pod got shows it, and its expressions have the allowed annotations.
    pub(super) fn of(
        revision: &str,
        injectors: &Listed,
        templates: &Listed,
        policies: &Listed,
        trial: &Fact,
        selection: Selection,
        namespaces: Vec<Namespace>,
    ) -> Self {
        let texts = templates.iter().flatten().filter_map(|map| map["data"].as_object()).flat_map(|data| data.values());
        let template = texts.filter_map(|text| Template::parse(text.as_str()?).ok()).next();
        let template = template.or_else(|| {
            let template = Template::of_injected(trial.as_ref().ok()?)?;
            Some(template.opening(policy::opened_port(policies)))
        });
        let template = template.unwrap_or_else(Template::built_in).of_revision(revision);
        let own_namespace = injectors.iter().flatten().find_map(|injector| injector["metadata"]["namespace"].as_str());
        Self {
            revision: revision.to_owned(),
            template: template.unwrap_or_else(|_| Template::built_in()).changed_by(allowed(injectors, policies)),
            own_namespace: own_namespace.map(str::to_owned),
            selection,
            namespaces: namespaces.into_iter().map(|namespace| (namespace.name.clone(), namespace)).collect(),
        }
    }

    /// The namespaces with the label, except those in which no selector shows a pod to an injector.
    pub(super) fn labelled(&self) -> impl Iterator<Item = &Namespace> {
        self.all_labelled().filter(|namespace| self.is_covered(namespace))
    }

    /// The namespaces with the label whose pods get no sidecar, however they look.
    pub(super) fn left_out(&self) -> impl Iterator<Item = &Namespace> {
        self.all_labelled().filter(|namespace| !self.is_covered(namespace))
    }

    /// The namespaces with the label that belong to the revision.
    fn all_labelled(&self) -> impl Iterator<Item = &Namespace> {
        let is_of =
            |namespace: &Namespace| revision_of(namespace.labels.get(REVISION).map(String::as_str)) == self.revision;
        let all = self.namespaces.values().filter(move |namespace| is_of(namespace));
        all.filter(|namespace| namespace.labels.get(LABEL).is_some_and(|word| word == "enabled"))
    }

    /// All namespaces, with what of them concerns injection.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (String, revisions::Labels)> {
        self.namespaces.iter().map(|(name, namespace)| (name.clone(), revisions::labels(namespace)))
    }

    fn is_covered(&self, namespace: &Namespace) -> bool {
        let pod = serde_json::json!({"spec": {"containers": [{"name": "any"}]}});
        skip_reason(&pod, &self.context(namespace), &self.template).is_none()
            && self.selection.covers_namespace(&namespace.labels)
    }

    fn context<'a>(&'a self, namespace: &'a Namespace) -> Context<'a> {
        let own_namespace = self.own_namespace.as_deref();
        Context { namespace, own_namespace, needs_label: true, by: "ebb check" }
    }

    /// The namespace of a pod.
    pub(super) fn namespace_of(&self, pod: &Value) -> Namespace {
        let name = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        // If namespaces cannot be listed, pods with their own label are still judged.
        let unknown = || Namespace { name: name.to_owned(), ..Namespace::default() };
        self.namespaces.get(name).cloned().unwrap_or_else(unknown)
    }

    /// What the injector does with such a pod.
    pub(super) fn treatment(&self, pod: &Value) -> Treatment {
        let namespace = self.namespace_of(pod);
        let labels = texts(&pod["metadata"]["labels"]);
        let asks = |labels: &Labels| labels.get(LABEL).is_some_and(|word| word == "enabled");
        if !asks(&labels) && !asks(&namespace.labels) {
            return Treatment::NotAsked;
        }
        let left = |reason, meaning, detail| Treatment::LeftAlone(LeftAlone { reason, meaning, detail });
        match skip_reason(pod, &self.context(&namespace), &self.template) {
            Some((SkipReason::AlreadyInjected, _)) => Treatment::Injected,
            Some((SkipReason::NotLabelled, _)) => Treatment::NotAsked,
            Some((reason, detail)) => left(reason.label(), reason.meaning(), detail),
            None if self.selection.covers(&namespace.labels, &labels) => Treatment::Injected,
            None => left(
                UNSELECTED,
                "No webhook or policy of Ebb selects the pod: injector.excludedNamespaces, namespaceSelector or \
                 objectSelector leaves it out.",
                "it matches no selector".to_owned(),
            ),
        }
    }

    /// The resources that the sidecar of such a pod gets, if it gets one.
    pub(super) fn resources(&self, pod: &Value) -> Option<Value> {
        let namespace = self.namespace_of(pod);
        let Verdict::Inject(operations) = inject(pod, &self.context(&namespace), &self.template).verdict else {
            return None;
        };
        let is_sidecar = |operation: &&Operation| operation.value["name"] == "ebb";
        operations.iter().find(is_sidecar).map(|operation| operation.value["resources"].clone())
    }
}

/// The annotations that an injector allows by its arguments, or a policy by its expressions; the default if there are none.
fn allowed(injectors: &Listed, policies: &Listed) -> Allowed {
    let containers = injectors
        .iter()
        .flatten()
        .flat_map(|injector| injector["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten());
    let words: Vec<&str> =
        containers.flat_map(|one| one["args"].as_array().into_iter().flatten()).filter_map(Value::as_str).collect();
    let of = |key: &str| {
        let names = words.iter().find_map(|word| word.strip_prefix(key))?;
        Some(names.split(',').map(str::to_owned).collect())
    };
    let by_policy = policy::allowed(policies).filter(|_| words.is_empty());
    let (namespaces, pods) = by_policy.map_or_else(
        || (of("--namespace-annotations="), of("--pod-annotations=")),
        |(namespaces, pods)| (Some(namespaces), Some(pods)),
    );
    let given = Allowed::new(namespaces, pods);
    given.unwrap_or_else(|_| Allowed::new(None, None).expect("the default has known names"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::MissingFact;
    use serde_json::json;

    fn namespace(name: &str, labels: Value, annotations: Value) -> Namespace {
        Namespace { name: name.to_owned(), labels: texts(&labels), annotations: texts(&annotations) }
    }

    fn injection(trial: &Fact, webhooks: Vec<Value>) -> Injection {
        let asks = json!({LABEL: "enabled"});
        let moved = json!({"config.ebb-cache.io/http-port": "9072"});
        let namespaces = vec![
            namespace("shop", asks.clone(), json!({})),
            namespace("moved", asks.clone(), moved),
            namespace("kube-system", asks.clone(), json!({})),
            namespace("plain", json!({}), json!({})),
            namespace("off", json!({LABEL: "disabled"}), json!({})),
        ];
        let none = Ok(Vec::new());
        Injection::of("default", &none, &none, &none, trial, Selection::of(&Ok(webhooks), &Ok(Vec::new())), namespaces)
    }

    fn nothing() -> Fact {
        Err(MissingFact::NotPermitted)
    }

    fn pod(namespace: &str, change: &Value) -> Value {
        let mut pod =
            json!({"metadata": {"namespace": namespace, "name": "p"}, "spec": {"containers": [{"name": "app"}]}});
        json_patch::merge(&mut pod, change);
        pod
    }

    fn reason(injection: &Injection, pod: &Value) -> Option<&'static str> {
        match injection.treatment(pod) {
            Treatment::Injected => None,
            Treatment::LeftAlone(why) => Some(why.reason),
            Treatment::NotAsked => Some("not asked"),
        }
    }

    #[test]
    fn pods_are_left_alone_for_the_reasons_of_the_injector() {
        let injection = injection(&nothing(), Vec::new());
        let port = json!({"spec": {"containers": [{"name": "app", "ports": [{"containerPort": 7072}]}]}});
        let label = |word: &str| json!({"metadata": {"labels": {LABEL: word}}});
        let cases = [
            ("shop", json!({}), None),
            ("shop", label("disabled"), Some("disabled")),
            ("shop", json!({"spec": {"hostNetwork": true}}), Some("host-network")),
            ("shop", json!({"spec": {"os": {"name": "windows"}}}), Some("windows")),
            ("shop", json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}), Some("mirror-pod")),
            ("shop", port.clone(), Some("port-conflict")),
            // The annotation of the namespace moves the sidecar's port.
            ("moved", port, None),
            ("kube-system", json!({}), Some("system-namespace")),
            ("plain", json!({}), Some("not asked")),
            ("plain", label("enabled"), None),
            ("off", json!({}), Some("not asked")),
            ("off", label("enabled"), None),
            ("unknown", label("enabled"), None),
        ];
        let found: Vec<_> = cases.iter().map(|(name, change, _)| reason(&injection, &pod(name, change))).collect();
        assert_eq!(found, cases.each_ref().map(|(.., expected)| *expected), "{cases:?}");
        let names = |namespaces: &mut dyn Iterator<Item = &Namespace>| {
            namespaces.map(|namespace| namespace.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&mut injection.labelled()), ["moved", "shop"]);
        assert_eq!(names(&mut injection.left_out()), ["kube-system"]);
    }

    #[test]
    fn what_no_selector_selects_is_left_alone() {
        let selector = json!({"matchExpressions": [{"key": "batch", "operator": "DoesNotExist"}]});
        let injection = injection(&nothing(), vec![json!({"webhooks": [{"objectSelector": selector}]})]);
        assert_eq!(reason(&injection, &pod("shop", &json!({}))), None);
        let batch = pod("shop", &json!({"metadata": {"labels": {"batch": "yes"}}}));
        assert_eq!(reason(&injection, &batch), Some("not-selected"));
    }

    #[test]
    fn without_a_template_an_injected_pod_shows_the_ports() {
        let sidecar = json!({
            "name": "ebb", "image": "e", "resources": {"limits": {"memory": "96Mi"}, "requests": {"memory": "96Mi"}},
            "env": [{"name": "EBB_LISTEN", "value": "127.0.0.1:9999"}],
        });
        let injected = Ok(pod("default", &json!({"spec": {"initContainers": [sidecar]}})));
        let injection = injection(&injected, Vec::new());
        let using = |port: u16| json!({"spec": {"containers": [{"name": "app", "ports": [{"containerPort": port}]}]}});
        let found = [7070, 9999].map(|port| reason(&injection, &pod("shop", &using(port))));
        assert_eq!(found, [None, Some("port-conflict")]);
        let resources = injection.resources(&pod("shop", &json!({}))).unwrap();
        assert_eq!(resources["limits"], json!({"memory": "96Mi"}));
    }
}
