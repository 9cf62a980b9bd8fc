//! Finds the pods in a document.

use crate::pointer::{self, escaped};
use crate::shape;
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// Kinds with pods: API versions, kind, and paths to the pods.
const KINDS: &[(&[&str], &str, &[&str])] = &[
    (&["v1"], "Pod", &[""]),
    (&["v1"], "PodTemplate", &["template"]),
    (&["v1"], "ReplicationController", &["spec.template"]),
    (&["apps/v1", "apps/v1beta2", "apps/v1beta1", "extensions/v1beta1"], "Deployment", &["spec.template"]),
    (
        &["apps/v1", "apps/v1beta2", "apps/v1beta1", "apps.kruise.io/v1beta1", "apps.kruise.io/v1alpha1"],
        "StatefulSet",
        &["spec.template"],
    ),
    (
        &["apps/v1", "apps/v1beta2", "extensions/v1beta1", "apps.kruise.io/v1beta1", "apps.kruise.io/v1alpha1"],
        "DaemonSet",
        &["spec.template"],
    ),
    (&["apps/v1", "apps/v1beta2", "extensions/v1beta1"], "ReplicaSet", &["spec.template"]),
    (&["batch/v1"], "Job", &["spec.template"]),
    (&["batch/v1", "batch/v1beta1", "batch/v2alpha1"], "CronJob", &["spec.jobTemplate.spec.template"]),
    // Custom resources that are in wide use.
    (&["apps.kruise.io/v1beta1", "apps.kruise.io/v1alpha1"], "CloneSet", &["spec.template"]),
    (&["apps.openshift.io/v1"], "DeploymentConfig", &["spec.template"]),
    (&["argoproj.io/v1alpha1"], "Rollout", &["spec.template"]),
    (
        &["jobset.x-k8s.io/v1alpha2", "jobset.x-k8s.io/v1alpha1"],
        "JobSet",
        &["spec.replicatedJobs[*].template.spec.template"],
    ),
    (
        &["kubeflow.org/v1", "kubeflow.org/v2beta1", "kubeflow.org/v1alpha2"],
        "MPIJob",
        &["spec.mpiReplicaSpecs[*].template"],
    ),
    (&["kubeflow.org/v1"], "PyTorchJob", &["spec.pytorchReplicaSpecs[*].template"]),
    (
        &["leaderworkerset.x-k8s.io/v1"],
        "LeaderWorkerSet",
        &["spec.leaderWorkerTemplate.leaderTemplate", "spec.leaderWorkerTemplate.workerTemplate"],
    ),
    (
        &["ray.io/v1", "ray.io/v1alpha1"],
        "RayCluster",
        &["spec.headGroupSpec.template", "spec.workerGroupSpecs[*].template"],
    ),
    (
        &["ray.io/v1", "ray.io/v1alpha1"],
        "RayJob",
        &["spec.rayClusterSpec.headGroupSpec.template", "spec.rayClusterSpec.workerGroupSpecs[*].template"],
    ),
    (
        &["ray.io/v1", "ray.io/v1alpha1"],
        "RayService",
        &["spec.rayClusterConfig.headGroupSpec.template", "spec.rayClusterConfig.workerGroupSpecs[*].template"],
    ),
    (
        &["serving.knative.dev/v1", "serving.knative.dev/v1beta1", "serving.knative.dev/v1alpha1"],
        "Service",
        &["spec.template"],
    ),
];

/// Path of a pod template in an object: keys separated by dots, `[*]` for each element of a list or of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Each,
}

/// Why a text is not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be keys separated by dots, such as spec.template or spec.tasks[*].template")]
pub struct PodPathError;

impl FromStr for PodPath {
    type Err = PodPathError;

    fn from_str(text: &str) -> Result<Self, PodPathError> {
        let mut steps = Vec::new();
        for part in text.strip_prefix('.').unwrap_or(text).split('.') {
            let (key, lists) = part.split_at(part.find('[').unwrap_or(part.len()));
            let is_key =
                !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
            if !is_key || !lists.is_empty() && lists != "[*]" {
                return Err(PodPathError);
            }
            steps.push(Step::Key(key.to_owned()));
            if !lists.is_empty() {
                steps.push(Step::Each);
            }
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for PodPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Each => f.write_str("[*]")?,
            }
        }
        Ok(())
    }
}

impl PodPath {
    /// Pointers of the values that exist at the path below `at`.
    fn find(&self, object: &Value, at: &str) -> Vec<String> {
        let mut found = vec![(at.to_owned(), object)];
        for step in &self.0 {
            found = found
                .into_iter()
                .flat_map(|(pointer, value)| match (step, value) {
                    (Step::Key(key), Value::Object(fields)) => {
                        let value = fields.get(key).filter(|value| !value.is_null());
                        value.map(|value| (format!("{pointer}/{}", escaped(key)), value)).into_iter().collect()
                    }
                    (Step::Each, Value::Array(items)) => {
                        items.iter().enumerate().map(|(at, value)| (format!("{pointer}/{at}"), value)).collect()
                    }
                    (Step::Each, Value::Object(fields)) => {
                        fields.iter().map(|(key, value)| (format!("{pointer}/{}", escaped(key)), value)).collect()
                    }
                    _ => Vec::new(),
                })
                .collect();
        }
        found.into_iter().map(|(pointer, _)| pointer).collect()
    }

    /// The pointer of a value on the path that has no fields, and what it must be.
    fn blocked(&self, object: &Value, at: &str) -> Option<(String, String)> {
        let all = (0..self.0.len()).map(|length| (Self(self.0[..length].to_vec()), &self.0[length]));
        all.flat_map(|(before, step)| before.find(object, at).into_iter().map(move |pointer| (pointer, step))).find_map(
            |(pointer, step)| {
                let value = pointer::get(object, &pointer[at.len()..])?;
                let (fits, must) = match step {
                    Step::Key(_) => (value.is_object(), "an object"),
                    Step::Each => (value.is_object() || value.is_array(), "a list"),
                };
                (!fits && !value.is_null()).then(|| (pointer, shape::must_be(must, value)))
            },
        )
    }
}

/// An object with pods, or one that should have some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Kind and name, such as `Deployment/web`.
    pub owner: String,
    /// Namespace; empty if the object names none.
    pub namespace: String,
    /// JSON pointer of the object in the document.
    pub object: String,
    /// Its pods.
    pub pods: Pods,
}

/// The pods of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pods {
    /// JSON pointers in the document.
    At(Vec<String>),
    /// None where the kind has them; a patch, or an object that refers to another. Holds the path.
    Missing(String),
    /// The kind is not known in this API version, but these paths look like pods; none if the object itself does, or if
    /// the kind has pods in another version.
    Perhaps(Vec<String>),
    /// The document is no object, such as a patch that is a list of operations.
    NoObject,
    /// Kubernetes refuses the object: the JSON pointer of a field in the document, and what it must be.
    Malformed(String, String),
}

/// Finds the objects with pods in a document, including the items of lists. `kind_of_list` is the kind of the items of a
/// typed list, which do not name theirs.
pub(crate) fn search(
    object: &Value,
    at: &str,
    kind_of_list: Option<(&str, &str)>,
    more: &[PodPath],
    found: &mut Vec<Found>,
) {
    if at.is_empty() && !object.is_object() {
        let owner = if object.is_array() { "a list" } else { "a text" }.to_owned();
        let it = Found { owner, namespace: String::new(), object: String::new(), pods: Pods::NoObject };
        return found.extend((!object.is_null()).then_some(it));
    }
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (mut version, mut kind) = (text("/apiVersion"), text("/kind"));
    if let Some((path, problem)) = shape::problem(object, kind_of_list.is_some()) {
        let owner = if kind.is_empty() { "an object".to_owned() } else { owner(object, kind) };
        let pods = Pods::Malformed(format!("{at}{path}"), problem);
        return found.push(Found { owner, namespace: String::new(), object: at.to_owned(), pods });
    }
    if let Some((of_list, kind_of_item)) = kind_of_list.filter(|_| kind.is_empty()) {
        (version, kind) = (of_list, kind_of_item);
    }
    if let Some((items, kind)) = object["items"].as_array().zip(kind.strip_suffix("List")) {
        let of_items = Some((version, kind)).filter(|(_, kind)| !kind.is_empty());
        for (index, item) in items.iter().enumerate() {
            search(item, &format!("{at}/items/{index}"), of_items, more, found);
        }
        return;
    }
    if kind.is_empty() {
        return;
    }
    let mut add = |pods| {
        let (owner, namespace) = (owner(object, kind), text("/metadata/namespace").to_owned());
        found.push(Found { owner, namespace, object: at.to_owned(), pods });
    };
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let of_kind = || KINDS.iter().filter(|(_, name, _)| *name == kind);
    let known = of_kind().find(|(versions, ..)| versions.contains(&version));
    let is_patch = object.get("$patch").is_some();
    match known {
        Some((_, _, [""])) if is_patch => add(Pods::Missing("spec".to_owned())),
        Some((_, _, [""])) => add(Pods::At(vec![at.to_owned()])),
        Some((_, _, paths)) => {
            let parsed: Vec<PodPath> = paths.iter().map(|path| path.parse().expect("a test parses it")).collect();
            let pointers: Vec<_> = parsed.iter().flat_map(|path| path.find(object, at)).collect();
            let is_one = pointers.len() == 1 && paths.len() == 1 && !paths[0].contains('[');
            let blocked = || parsed.iter().find_map(|path| path.blocked(object, at));
            if let Some((pointer, problem)) = (!is_one).then(blocked).flatten() {
                return add(Pods::Malformed(pointer, problem));
            }
            match pointers.is_empty() || is_patch {
                true => add(Pods::Missing(paths.join(" or "))),
                false => add(Pods::At(pointers)),
            }
        }
        None => {
            let mut pointers: Vec<String> = Vec::new();
            for pointer in more.iter().flat_map(|path| path.find(object, at)) {
                if !pointers.contains(&pointer) {
                    pointers.push(pointer);
                }
            }
            if !pointers.is_empty() {
                return add(Pods::At(pointers));
            }
            let mut paths = Vec::new();
            templates(object, &mut Vec::new(), &mut paths);
            let in_group = |of: &&str| of.rsplit_once('/').map_or("", |(group, _)| group) == group;
            let is_of_other_version = of_kind().any(|(versions, ..)| versions.iter().any(in_group));
            match (paths.is_empty() && !is_of_other_version && !looks_like_pod(object), more) {
                (false, _) => add(Pods::Perhaps(paths)),
                (true, [_, ..]) if is_custom(group) => {
                    let paths: Vec<_> = more.iter().map(PodPath::to_string).collect();
                    add(Pods::Missing(paths.join(" or ")));
                }
                _ => {}
            }
        }
    }
}

/// Kind and name of an object.
fn owner(object: &Value, kind: &str) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    match text("/metadata/name") {
        "" => format!("{kind}/{}*", text("/metadata/generateName")),
        name => format!("{kind}/{name}"),
    }
}

/// Whether an object has containers as a pod does.
pub(crate) fn looks_like_pod(value: &Value) -> bool {
    let containers = value["spec"]["containers"].as_array();
    containers.is_some_and(|containers| containers.iter().any(|container| container["name"].is_string()))
}

/// Whether a kind has pods in some API version.
pub(crate) fn is_known(kind: &str) -> bool {
    KINDS.iter().any(|(_, known, _)| *known == kind)
}

/// Whether an API group is not one of Kubernetes' own.
fn is_custom(group: &str) -> bool {
    group.contains('.') && !group.ends_with(".k8s.io")
}

/// Paths of objects that look like pod templates, with `[*]` for elements of lists.
fn templates(value: &Value, path: &mut Vec<String>, found: &mut Vec<String>) {
    if !path.is_empty() && looks_like_pod(value) {
        let path = path.join(".").replace(".[*]", "[*]");
        if !found.contains(&path) {
            found.push(path);
        }
        return;
    }
    let mut below = |key: String, value: &Value| {
        path.push(key);
        templates(value, path, found);
        path.pop();
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| below(key.clone(), value)),
        Value::Array(items) => items.iter().for_each(|value| below("[*]".to_owned(), value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(document: &Value, more: &[&str]) -> Vec<(String, Pods)> {
        let more: Vec<PodPath> = more.iter().map(|path| path.parse().unwrap()).collect();
        let mut found = Vec::new();
        search(document, "", None, &more, &mut found);
        found.into_iter().map(|found| (found.owner, found.pods)).collect()
    }

    #[test]
    fn every_known_path_parses() {
        let wrong: Vec<_> = KINDS
            .iter()
            .flat_map(|(_, _, paths)| *paths)
            .filter(|path| {
                !path.is_empty() && path.parse::<PodPath>().map(|parsed| parsed.to_string()) != Ok((**path).to_owned())
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let refused =
            ["", ".", "..a", "a..b", "a[0]", "a[*", "a b", "[*].a", "a[*][*]"].map(|path| path.parse::<PodPath>());
        assert!(refused.iter().all(|path| path == &Err(PodPathError)), "{refused:?}");
    }

    #[test]
    fn version_and_kind_decide_together() {
        let pod = json!({"spec": {"containers": [{"name": "a"}]}});
        let object = |version: &str, kind: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        let template = json!({"template": pod});
        let rows = [
            (object("apps/v1", "Deployment", template.clone()), Pods::At(vec!["/spec/template".to_owned()])),
            (object("extensions/v1beta1", "Deployment", template.clone()), Pods::At(vec!["/spec/template".to_owned()])),
            (object("v1", "Pod", pod["spec"].clone()), Pods::At(vec![String::new()])),
            (
                object("serving.knative.dev/v1", "Service", template.clone()),
                Pods::At(vec!["/spec/template".to_owned()]),
            ),
            (
                object("batch.volcano.sh/v1alpha1", "Job", json!({"tasks": [{"template": pod}, {"template": pod}]})),
                Pods::Perhaps(vec!["spec.tasks[*].template".to_owned()]),
            ),
            (object("example.com/v1", "Deployment", template.clone()), Pods::Perhaps(vec!["spec.template".to_owned()])),
            (object("apps/v1", "Deployment", json!({"replicas": 3})), Pods::Missing("spec.template".to_owned())),
            (
                object(
                    "jobset.x-k8s.io/v1alpha2",
                    "JobSet",
                    json!({"replicatedJobs": [{"template": {"spec": template}}]}),
                ),
                Pods::At(vec!["/spec/replicatedJobs/0/template/spec/template".to_owned()]),
            ),
            (
                object("kubeflow.org/v1", "PyTorchJob", json!({"pytorchReplicaSpecs": {"Master": template}})),
                Pods::At(vec!["/spec/pytorchReplicaSpecs/Master/template".to_owned()]),
            ),
        ];
        let mut wrong = Vec::new();
        for (document, expected) in rows {
            let found = at(&document, &[]);
            let kind = document["kind"].as_str().unwrap();
            if found != [(format!("{kind}/x"), expected.clone())] {
                wrong.push((found, expected));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
        let service = object("v1", "Service", json!({"ports": []}));
        assert_eq!(at(&service, &[]), []);
        let mut patch = object("apps/v1", "Deployment", template);
        patch["$patch"] = json!("delete");
        assert_eq!(at(&patch, &[])[0].1, Pods::Missing("spec.template".to_owned()));
    }

    #[test]
    fn lists_and_given_paths_are_searched() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a"}]}});
        let list = json!({"apiVersion": "v1", "kind": "PodList", "items": [pod, pod]});
        let found = at(&list, &[]);
        assert_eq!(found[1], ("Pod/a".to_owned(), Pods::At(vec!["/items/1".to_owned()])));
        let own =
            json!({"apiVersion": "example.com/v1", "kind": "App", "metadata": {"name": "b"}, "spec": {"pod": pod}});
        assert_eq!(
            at(&own, &["spec.pod", ".spec.pod"]),
            [("App/b".to_owned(), Pods::At(vec!["/spec/pod".to_owned()]))]
        );
        let without = json!({"apiVersion": "example.com/v1", "kind": "App", "metadata": {"name": "b"}});
        assert_eq!(at(&without, &["spec.pod"]), [("App/b".to_owned(), Pods::Missing("spec.pod".to_owned()))]);
    }
}
