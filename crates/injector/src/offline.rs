//! Adds sidecars to manifests and removes them, document by document, without a cluster.

use crate::inject::{
    Context, Namespace, Operation, Outcome as Injection, SkipReason, TakeOut, Template, VOLUMES, Verdict, inject,
    take_out, texts, with_replaced, without_other_containers, workload_warnings,
};
use crate::shape;
use ebb_config::annotations::PREFIX;
use ebb_manifest::{Addition, Document, Edited, Editor, PodPath, Pods, Removal, Text, may_replace, pointer};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Settings of an injection into manifests.
#[derive(Clone, Debug)]
pub struct Offline<'a> {
    /// The sidecar.
    pub template: &'a Template,
    /// Annotations for pods that do not have them, by full name.
    pub annotations: BTreeMap<String, String>,
    /// Whether pods are skipped if neither they nor their namespaces have the label.
    pub needs_label: bool,
    /// Name for the annotation `injected-by`.
    pub by: &'a str,
    /// Paths of pods in kinds that are not known.
    pub pod_paths: &'a [PodPath],
    /// The namespaces that the manifests contain, by name.
    pub namespaces: BTreeMap<String, Namespace>,
}

/// A document afterwards.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    /// The document; as it was if nothing was changed.
    pub text: Text<'a>,
    /// What was done to each pod, and warnings, one line each.
    pub notes: Vec<String>,
    /// Number of pods that were changed.
    pub changed: usize,
    /// Whether the document had to be reprinted.
    pub is_reprinted: bool,
    /// Whether Kubernetes refuses an object of the document; [`problems`] tells why. Nothing was changed then.
    pub is_malformed: bool,
}

impl<'a> Outcome<'a> {
    /// The document as it was.
    fn kept(document: &Document<'a>, notes: Vec<String>) -> Self {
        Self { text: Text::kept(document.text), notes, changed: 0, is_reprinted: false, is_malformed: false }
    }

    fn malformed(document: &Document<'a>) -> Self {
        Self { is_malformed: true, ..Self::kept(document, Vec::new()) }
    }
}

/// What Kubernetes refuses in a document: the line in its text, from 1, and a sentence with the object and the field.
pub fn problems(document: &Document<'_>, pod_paths: &[PodPath]) -> Vec<(usize, String)> {
    let mut problems = Vec::new();
    for found in document.pods(pod_paths) {
        let mut add = |pointer: &str, problem: &str| {
            let field = document.field(pointer);
            let space = if field.is_empty() { "" } else { " " };
            problems.push((document.line(pointer), format!("{}: {field}{space}{problem}", found.owner)));
        };
        match &found.pods {
            Pods::Malformed(pointer, problem) => add(pointer, problem),
            Pods::At(pointers) => {
                for at in pointers {
                    let pod = pointer::get(&document.value, at).expect("it was found there");
                    shape::problems(pod).iter().for_each(|(path, problem)| add(&format!("{at}{path}"), problem));
                }
            }
            Pods::Missing(_) | Pods::Perhaps(_) | Pods::NoObject => {}
        }
    }
    problems
}

/// The namespaces that documents define.
pub fn namespaces<'a>(documents: impl IntoIterator<Item = Document<'a>>) -> BTreeMap<String, Namespace> {
    let mut found = BTreeMap::new();
    for document in documents {
        for object in
            document.objects().iter().filter(|object| object["kind"] == "Namespace" && object["apiVersion"] == "v1")
        {
            let metadata = &object["metadata"];
            let Some(name) = metadata["name"].as_str() else { continue };
            let (labels, annotations) = (texts(&metadata["labels"]), texts(&metadata["annotations"]));
            found.insert(name.to_owned(), Namespace { name: name.to_owned(), labels, annotations });
        }
    }
    found
}

impl Offline<'_> {
    /// Injects sidecars into the pods of a document.
    pub fn inject<'a>(&self, document: &Document<'a>, editor: &mut Editor) -> Outcome<'a> {
        let (mut notes, mut additions, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        let Some(found) = self.found(document, &mut notes) else { return Outcome::malformed(document) };
        for (owner, namespace, at) in found {
            let pod = pointer::get(&document.value, &at).expect("it was found there");
            let (namespace, mut warnings) = self.namespace(namespace, pod);
            let context =
                Context { namespace: &namespace, own_namespace: None, needs_label: self.needs_label, by: self.by };
            let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
            let is_lost = |(name, value): &(&String, &Value)| name.starts_with(PREFIX) && !value.is_string();
            notes.extend(annotations.filter(is_lost).map(|(name, _)| {
                format!("{owner}: warning: annotation {name} is ignored: its value must be a string; put it in quotes")
            }));
            let outcome = with_claims(pod, claim(document, &at), |pod| inject(pod, &context, self.template));
            match outcome.verdict {
                Verdict::Inject(mut operations) => {
                    if may_replace(pod, operations.iter().map(|operation| operation.path.as_str())) {
                        let replaced = document.replaced(&below(&at, operations.clone()));
                        let replaced = replaced.into_iter().map(|(path, text)| (path[at.len()..].to_owned(), text));
                        with_replaced(pod, &mut operations, &replaced.collect());
                    }
                    additions.extend(below(&at, operations));
                    notes.push(format!("{owner}: injected"));
                    warnings.extend(outcome.warnings);
                    changed.push(owner.clone());
                }
                Verdict::Skip(reason, detail) => {
                    notes.push(format!("{owner}: skipped ({}): {detail}", reason.label()));
                    warnings = outcome.warnings;
                }
            }
            notes.extend(warnings.iter().map(|warning| format!("{owner}: warning: {warning}")));
        }
        if changed.is_empty() {
            return Outcome::kept(document, notes);
        }
        finish(editor.add(document, &additions), &changed, notes)
    }

    /// Removes the sidecars from the pods of a document.
    pub fn uninject<'a>(document: &Document<'a>, editor: &mut Editor, pod_paths: &[PodPath]) -> Outcome<'a> {
        let (mut notes, mut removal, mut changed) = (Vec::new(), Removal::default(), Vec::new());
        for found in document.pods(pod_paths) {
            let pointers = match found.pods {
                Pods::At(pointers) => pointers,
                Pods::Malformed(..) => return Outcome::malformed(document),
                Pods::Missing(_) | Pods::Perhaps(_) | Pods::NoObject => continue,
            };
            for at in pointers {
                let pod = pointer::get(&document.value, &at).expect("it was found there");
                if !shape::problems(pod).is_empty() {
                    return Outcome::malformed(document);
                }
                let prefixed = |path: String| format!("{at}{path}");
                match take_out(pod) {
                    TakeOut::Remove(Removal { paths, if_empty, replaced }) => {
                        removal.paths.extend(paths.into_iter().map(prefixed));
                        removal.if_empty.extend(if_empty.into_iter().map(prefixed));
                        removal.replaced.extend(replaced.into_iter().map(|(path, text)| (prefixed(path), text)));
                        notes.push(format!("{}: sidecar removed", found.owner));
                        changed.push(found.owner.clone());
                    }
                    TakeOut::NotInjected => notes.push(format!("{}: skipped: not injected", found.owner)),
                    TakeOut::Unlisted => notes.push(format!(
                        "{}: skipped: the annotation ebb-cache.io/status does not list what was added",
                        found.owner
                    )),
                }
            }
        }
        if changed.is_empty() {
            return Outcome::kept(document, notes);
        }
        finish(editor.remove(document, &removal), &changed, notes)
    }

    /// Owner, namespace and pointer of each pod. Notes the objects without one. `None` if an object is malformed.
    fn found(&self, document: &Document<'_>, notes: &mut Vec<String>) -> Option<Vec<(String, String, String)>> {
        let mut all = Vec::new();
        for found in document.pods(self.pod_paths) {
            let object = pointer::get(&document.value, &found.object).expect("it was found there");
            match found.pods {
                Pods::At(pointers) => {
                    let pod = |at: &String| pointer::get(&document.value, at).expect("it was found there");
                    if !pointers.iter().all(|at| shape::problems(pod(at)).is_empty()) {
                        return None;
                    }
                    let warnings = workload_warnings(object);
                    notes.extend(warnings.iter().map(|warning| format!("{}: warning: {warning}", found.owner)));
                    all.extend(pointers.into_iter().map(|at| (found.owner.clone(), found.namespace.clone(), at)));
                }
                Pods::Missing(path) => notes.push(format!("{}: no pod found at {path}; not changed", found.owner)),
                Pods::Perhaps(paths) => {
                    let version = object["apiVersion"].as_str().unwrap_or_default();
                    let kind = found.owner.split('/').next().unwrap_or_default();
                    let hint = match paths.is_empty() {
                        true => String::new(),
                        false => format!("; to inject it, use --pod-at '{}'", paths.join("' --pod-at '")),
                    };
                    notes.push(format!(
                        "{}: not changed, since {kind} of apiVersion {version:?} is not a known kind{hint}",
                        found.owner
                    ));
                }
                Pods::NoObject => notes.push(format!("{}: not changed, since it is no Kubernetes object", found.owner)),
                Pods::Malformed(..) => return None,
            }
        }
        Some(all)
    }

    /// The namespace, with the annotations of the command line added that neither it nor the pod has. Also returns warnings
    /// about containers in these annotations that the pod does not have.
    fn namespace(&self, name: String, pod: &Value) -> (Namespace, Vec<String>) {
        let known = self.namespaces.get(&name).cloned();
        let mut namespace = known.unwrap_or_else(|| Namespace { name, ..Namespace::default() });
        let own = std::mem::take(&mut namespace.annotations);
        let of_pod = texts(&pod["metadata"]["annotations"]);
        let is_given = |(name, _): &(&String, &String)| !own.contains_key(*name) && !of_pod.contains_key(*name);
        let given = self.annotations.iter().filter(is_given);
        namespace.annotations = given.map(|(name, value)| (name.clone(), value.clone())).collect();
        let warnings = without_other_containers(&mut namespace.annotations, pod);
        namespace.annotations.extend(own);
        (namespace, warnings)
    }
}

/// The first of the claims of a workload, such as a StatefulSet, with the name of a volume of the sidecar. Its pods get a
/// volume of each claim.
fn claim<'a>(document: &'a Document<'_>, pod: &str) -> Option<&'a str> {
    let workload = pointer::get(&document.value, pod.strip_suffix("/spec/template")?)?;
    let claims = workload["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
    let mut names = claims.filter_map(|claim| claim["metadata"]["name"].as_str());
    names.find(|name| VOLUMES.contains(name))
}

/// Injects into the pod as the controller creates it, with a volume of the claim.
fn with_claims(pod: &Value, claim: Option<&str>, inject: impl Fn(&Value) -> Injection) -> Injection {
    let Some(claim) = claim else { return inject(pod) };
    let mut created = pod.clone();
    let mut volumes = created["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    volumes.push(json!({"name": claim}));
    created["spec"]["volumes"] = volumes.into();
    let mut outcome = inject(&created);
    if let Verdict::Skip(SkipReason::VolumeConflict, detail) = &mut outcome.verdict {
        *detail = format!("spec.volumeClaimTemplates has {claim}");
    }
    outcome
}

/// Operations on a pod as additions to the document that has the pod at `at`.
fn below(at: &str, operations: Vec<Operation>) -> Vec<Addition> {
    let addition = |operation: Operation| Addition { path: format!("{at}{}", operation.path), value: operation.value };
    operations.into_iter().map(addition).collect()
}

fn finish<'a>(edited: Edited<'a>, owners: &[String], mut notes: Vec<String>) -> Outcome<'a> {
    let changed = owners.len();
    let is_reprinted = edited.reprinted.is_some();
    if let Some(reason) = edited.reprinted {
        notes.push(format!("{}: warning: the document is reprinted without its comments: {reason}", owners.join(", ")));
    }
    Outcome { text: edited.text, notes, changed, is_reprinted, is_malformed: false }
}
