//! Adds a sidecar to a pod: a pure function of the pod's raw JSON, its namespace and the template.
//!
//! ```text
//!  pod ──► wish (annotations) ──► skip? ──► resources ──► patch: operations that only add
//! ```
//! J1. Injection only adds: no field of the pod is replaced or removed, except null values.
//! J2. Injection is idempotent: an injected pod is not changed again.
//! J3. A Guaranteed pod stays Guaranteed, and a Burstable one Burstable. A BestEffort pod becomes Burstable, since a cache
//!     needs a memory limit.
//! J4. An invalid annotation produces a warning and never rejects a pod.
//!
//! The chart's MutatingAdmissionPolicy implements the same in the API server; tests with an API server compare both.

mod allowed;
mod annotations;
mod document;
mod given;
mod nodes;
mod patch;
mod pod;
mod ports;
mod resources;
mod revision;
mod settings;
mod skip;
mod take_out;
mod template;
mod values;
mod wish;
mod workload;

pub use allowed::{Allowed, RESERVED, TRUSTED, names};
pub use annotations::{UnknownName, chart_file, check_name};
pub use document::reference;
pub use given::{without_other_containers, wrong_settings};
pub use patch::Operation;
pub use revision::{DEFAULT_REVISION, REVISION, is_revision, revision_of};
pub use skip::{SYSTEM_NAMESPACES, SkipReason};
pub use take_out::{TakeOut, take_out, with_replaced};
pub use template::{Template, TemplateError, environment_problems, sidecar_of};
pub use workload::workload_warnings;

pub(crate) use skip::VOLUMES;
pub(crate) use values::is_name as is_object_name;

use ebb_manifest::pointer::{self, escaped};
use patch::Patch;
use pod::list;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use wish::Wishes;

/// The annotation that lists the additions.
const STATUS: &str = "/metadata/annotations/ebb-cache.io~1status";

/// The namespace of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels; only `ebb-cache.io/inject`, [`REVISION`] and [`TRUSTED`] matter.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, which its pods inherit.
    pub annotations: BTreeMap<String, String>,
}

/// Context of an injection.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The pod's namespace.
    pub namespace: &'a Namespace,
    /// The injector's own namespace, whose pods are skipped.
    pub own_namespace: Option<&'a str>,
    /// Whether pods are skipped if neither they nor their namespaces have the label.
    pub needs_label: bool,
    /// The injector's name, for the annotation `injected-by`.
    pub by: &'a str,
}

/// Result of an injection.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The patch, or the reason for skipping the pod.
    pub verdict: Verdict,
    /// Warnings about ignored annotations.
    pub warnings: Vec<String>,
}

/// The patch, or the reason for skipping the pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Patch operations, in order.
    Inject(Vec<Operation>),
    /// The reason, with details.
    Skip(SkipReason, String),
}

/// Injects the sidecar into a pod, given as JSON with `metadata` and `spec`.
pub fn inject(pod: &Value, context: &Context<'_>, template: &Template) -> Outcome {
    let mut wishes = Wishes::read(pod, context, template);
    let warnings = std::mem::take(&mut wishes.warnings);
    if let Some((reason, detail)) = skip::skip(pod, context, &wishes, template) {
        // Warnings about annotations are irrelevant for a skipped pod, except about one that should be the label.
        let warnings = match reason {
            SkipReason::NotLabelled => workload::label_as_annotation(&pod["metadata"]).into_iter().collect(),
            _ => Vec::new(),
        };
        return Outcome { verdict: Verdict::Skip(reason, detail), warnings };
    }
    let mut patch = Patch::new(pod);
    let version = revision::version(pod, &wishes.container, template);
    mark(&mut patch, context, &wishes, template, &version);
    // Before the sidecar, which changes the indexes of init containers.
    let start = wishes.start(pod);
    add_to_callers(&mut patch, &wishes, "initContainers", |at, container| at >= start && wishes.wants_init(container));
    add_sidecar(&mut patch, pod, &mut wishes);
    add_volumes(&mut patch, &wishes);
    add_pull_secrets(&mut patch, template);
    add_to_callers(&mut patch, &wishes, "containers", |_, container| wishes.wants(container));
    add_status(&mut patch, &version);
    Outcome { verdict: Verdict::Inject(patch.finish()), warnings }
}

/// The reason for skipping a pod, if [`inject`] would skip it, with details.
pub fn skip_reason(pod: &Value, context: &Context<'_>, template: &Template) -> Option<(SkipReason, String)> {
    skip::skip(pod, context, &Wishes::read(pod, context, template), template)
}

/// Adds the labels and annotations that mark an injected pod.
fn mark(patch: &mut Patch, context: &Context<'_>, wishes: &Wishes, template: &Template, version: &str) {
    patch.object_at("/metadata");
    patch.object_at("/metadata/labels");
    patch.object_at("/metadata/annotations");
    if patch.object()["metadata"]["labels"]["ebb-cache.io/injected"] != "true" {
        patch.add("/metadata/labels/ebb-cache.io~1injected", json!("true"));
    }
    if template.revision() != DEFAULT_REVISION {
        patch.unless("/metadata/labels/ebb-cache.io~1rev", json!(template.revision()));
    }
    patch.add("/metadata/labels/ebb-cache.io~1version", json!(revision::label_text(version)));
    if !wishes.is_scraped {
        patch.unless("/metadata/labels/ebb-cache.io~1metrics", json!("disabled"));
    }
    patch.add("/metadata/annotations/ebb-cache.io~1injected-by", json!(context.by));
    patch.add("/metadata/annotations/ebb-cache.io~1version", json!(version));
    // Makes `kubectl logs` show the application's logs.
    let first = patch.object()["spec"]["containers"][0]["name"].clone();
    if first.is_string() {
        patch.unless("/metadata/annotations/kubectl.kubernetes.io~1default-container", first);
    }
}

/// Lists the additions, so that they can be removed again. The annotations of Ebb's own are not listed.
fn add_status(patch: &mut Patch, version: &str) {
    let is_own = |address: &str| address.starts_with("/metadata/annotations/ebb-cache.io~1");
    let added: Vec<&String> = patch.added().iter().filter(|address| !is_own(address)).collect();
    // The policy writes the same text: keys are sorted, and additions are in the order of the operations.
    let status = json!({"added": added, "version": version}).to_string();
    patch.add(STATUS, status.into());
}

fn add_sidecar(patch: &mut Patch, pod: &Value, wishes: &mut Wishes) {
    let resources = resources::resources(pod, wishes);
    let mut container = std::mem::take(&mut wishes.container);
    container["resources"] = resources;
    patch.array_at("/spec/initContainers");
    let declared = list(&pod["spec"]["initContainers"]).position(|container| container["name"] == "ebb");
    match (declared, wishes.is_last) {
        (Some(at), _) => {
            patch.add("/metadata/annotations/ebb-cache.io~1merged", json!("true"));
            complete(patch, &format!("/spec/initContainers/{at}"), &container);
        }
        (None, true) => patch.add("/spec/initContainers/-", container),
        (None, false) => patch.add("/spec/initContainers/0", container),
    }
}

/// Completes a declared container: adds missing fields, missing fields of objects, and missing entries of lists with
/// names.
fn complete(patch: &mut Patch, at: &str, with: &Value) {
    for (key, value) in with.as_object().into_iter().flatten() {
        let path = format!("{at}/{}", escaped(key));
        match (pointer::get(patch.object(), &path).cloned(), value) {
            (None | Some(Value::Null), _) => patch.add(&path, value.clone()),
            (Some(Value::Object(_)), Value::Object(_)) if !is_one_of_a_kind(key) => complete(patch, &path, value),
            (Some(Value::Array(there)), Value::Array(wanted)) => {
                let identity = match key.as_str() {
                    "env" | "ports" => "name",
                    "volumeMounts" => "mountPath",
                    _ => continue,
                };
                for entry in wanted.iter().filter(|entry| !there.iter().any(|own| own[identity] == entry[identity])) {
                    patch.add(&format!("{path}/-"), entry.clone());
                }
            }
            _ => {}
        }
    }
}

/// Whether a field is kept as a whole. A probe must have exactly one handler, so a declared probe is not completed.
fn is_one_of_a_kind(key: &str) -> bool {
    key.ends_with("Probe")
}

fn add_volumes(patch: &mut Patch, wishes: &Wishes) {
    patch.array_at("/spec/volumes");
    for volume in &wishes.volumes {
        patch.add("/spec/volumes/-", volume.clone());
    }
    if wishes.groups.is_empty() {
        return;
    }
    patch.object_at("/spec/securityContext");
    patch.array_at("/spec/securityContext/supplementalGroups");
    for group in &wishes.groups {
        let groups = &patch.object()["spec"]["securityContext"]["supplementalGroups"];
        if !list(groups).any(|there| there == group) {
            patch.add("/spec/securityContext/supplementalGroups/-", group.clone());
        }
    }
}

/// Adds the pull secrets that the pod lacks. A pod of a cluster already has those of its ServiceAccount.
fn add_pull_secrets(patch: &mut Patch, template: &Template) {
    let secrets: Vec<Value> = lacking(patch.object(), template).cloned().collect();
    for secret in secrets {
        patch.array_at("/spec/imagePullSecrets");
        patch.add("/spec/imagePullSecrets/-", secret);
    }
}

/// The template's pull secrets that a pod lacks.
fn lacking<'a>(pod: &'a Value, template: &'a Template) -> impl Iterator<Item = &'a Value> {
    let is_there =
        move |secret: &Value| list(&pod["spec"]["imagePullSecrets"]).any(|own| own["name"] == secret["name"]);
    template.pull_secrets.iter().filter(move |secret| !is_there(secret))
}

/// Adds the environment variables and mounts to the containers of a list that call the cache. Existing ones are kept.
fn add_to_callers(patch: &mut Patch, wishes: &Wishes, of: &str, is_caller: impl Fn(usize, &Value) -> bool) {
    let path = |mount: &Value| mount["mountPath"].as_str().map(|path| path.trim_end_matches('/').to_owned());
    // What each caller lacks: its number, the mounts, and the variables.
    let lacks = |(at, container): (usize, &Value)| {
        let is_mounted = |mount: &&Value| list(&container["volumeMounts"]).any(|there| path(there) == path(mount));
        let is_set = |variable: &&Value| list(&container["env"]).any(|there| there["name"] == variable["name"]);
        let mounts: Vec<_> = wishes.mounts.iter().filter(|mount| !is_mounted(mount)).collect();
        let variables: Vec<_> = wishes.env.iter().filter(|variable| !is_set(variable)).collect();
        (at, mounts, variables)
    };
    let containers = list(&patch.object()["spec"][of]).enumerate();
    let callers: Vec<_> = containers.filter(|(at, container)| is_caller(*at, container)).map(lacks).collect();
    for (at, mounts, _) in &callers {
        for mount in mounts {
            patch.array_at(&format!("/spec/{of}/{at}/volumeMounts"));
            patch.add(&format!("/spec/{of}/{at}/volumeMounts/-"), (*mount).clone());
        }
    }
    // Each variable is inserted at the front, in reverse. This keeps their order, and the container's own variables can
    // refer to them.
    for variable in wishes.env.iter().rev() {
        let is_lacking = |variables: &[&Value]| variables.iter().any(|lacking| std::ptr::eq(*lacking, variable));
        for (at, ..) in callers.iter().filter(|(_, _, variables)| is_lacking(variables)) {
            patch.array_at(&format!("/spec/{of}/{at}/env"));
            patch.add(&format!("/spec/{of}/{at}/env/0"), variable.clone());
        }
    }
}

/// The labels or annotations of an object.
pub fn texts(value: &Value) -> BTreeMap<String, String> {
    let empty = Map::new();
    let entries = value.as_object().unwrap_or(&empty).iter();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
