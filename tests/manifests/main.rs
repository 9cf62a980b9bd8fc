//! Manifests as text: a sidecar is added and removed, and every other byte stays as it is.
//!
//! `corpus/` has small manifests, each of a kind of its own. `generated` makes thousands of others.

#[path = "../common/mod.rs"]
mod common;

mod command;
mod corpus;
mod generated;
mod reader;

use ebb_injector::inject::{Context, Namespace, Operation, Template, Verdict, inject};
use ebb_injector::offline::{self, Offline};
use ebb_manifest::{Document, Editor, Pods, documents, pods, pruned};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A text after an injection, and after the removal.
pub(crate) struct RoundTrip {
    pub(crate) injected: String,
    pub(crate) notes: Vec<String>,
    pub(crate) changed: usize,
    pub(crate) documents: usize,
    pub(crate) reprinted: usize,
}

/// The documents of a text.
pub(crate) fn read(text: &str) -> Result<Vec<Value>, String> {
    let value = |document: Result<Document<'_>, _>| document.map(|document| document.value);
    documents(text).map(|document| value(document).map_err(|error| error.to_string())).collect()
}

/// A change of a document.
type Change<'a> = &'a dyn for<'d> Fn(&Document<'d>, &mut Editor) -> offline::Outcome<'d>;

/// Changes every document of a text.
fn each<'a>(text: &'a str, change: Change<'_>) -> Result<Vec<offline::Outcome<'a>>, String> {
    let mut editor = Editor::default();
    let changed = documents(text).map(|document| document.map(|document| change(&document, &mut editor)));
    changed.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Injects into a text, and checks every promise. The error says which is broken.
pub(crate) fn round_trip(text: &str) -> Result<RoundTrip, String> {
    static TEMPLATE: LazyLock<Template> = LazyLock::new(Template::built_in);
    let originals = read(text)?;
    let offline = Offline {
        template: &TEMPLATE,
        annotations: Default::default(),
        needs_label: false,
        by: "a test",
        pod_paths: &[],
        namespaces: offline::namespaces(&originals),
    };
    let inject: Change<'_> = &|document, editor| offline.inject(document, editor);
    let outcomes = each(text, inject)?;
    let injected: String = outcomes.iter().map(|outcome| outcome.text.to_string()).collect();

    // The meaning: the original with the operations of the injection.
    let values = read(&injected).map_err(|error| format!("the result cannot be read: {error}\n{injected}"))?;
    let expected: Vec<Value> = originals.iter().map(|value| with_sidecars(value, &offline)).collect();
    if !values.iter().map(without_status).eq(expected.iter().map(without_status)) {
        return Err(format!("the meaning is different:\n{injected}"));
    }

    // A second injection changes nothing.
    let again = each(&injected, inject)?;
    let again: String = again.iter().map(|outcome| outcome.text.to_string()).collect();
    if again != injected {
        return Err(format!("a second injection changes the text:\n{injected}\n======\n{again}"));
    }

    // The removal gives back the bytes, or the meaning if a document was reprinted.
    let back = each(&injected, &|document, editor| Offline::uninject(document, editor, &[]))?;
    for ((document, outcome), back) in documents(text).zip(&outcomes).zip(&back) {
        let original = document.expect("it was read before");
        let is_same = match outcome.is_reprinted || back.is_reprinted {
            false => back.text.to_string() == original.text,
            true => read(&back.text.to_string())?.iter().map(pruned).eq([pruned(&original.value)]),
        };
        if !is_same {
            return Err(format!("the removal leaves:\n{}\n====== instead of\n{}", back.text, original.text));
        }
    }
    let reprinted = outcomes.iter().zip(&back).filter(|(there, back)| there.is_reprinted || back.is_reprinted).count();
    Ok(RoundTrip {
        notes: outcomes.iter().flat_map(|outcome| outcome.notes.clone()).collect(),
        changed: outcomes.iter().map(|outcome| outcome.changed).sum(),
        documents: outcomes.iter().filter(|outcome| outcome.changed > 0).count(),
        reprinted,
        injected,
    })
}

/// A document with sidecars, by the pure injection and a library's patch.
fn with_sidecars(document: &Value, offline: &Offline<'_>) -> Value {
    let mut after = document.clone();
    for found in pods(document, offline.pod_paths) {
        let Pods::At(pointers) = found.pods else { continue };
        let fallback = Namespace { name: found.namespace.clone(), ..Namespace::default() };
        let namespace = offline.namespaces.get(&found.namespace).unwrap_or(&fallback);
        for at in pointers {
            let pod = document.pointer(&at).unwrap();
            let context = Context { namespace, own_namespace: None, needs_label: false, by: offline.by };
            if let Verdict::Inject(operations) = inject(pod, &context, offline.template).verdict {
                patch(after.pointer_mut(&at).unwrap(), &operations);
            }
        }
    }
    after
}

fn patch(pod: &mut Value, operations: &[Operation]) {
    let operations: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
    json_patch::patch(pod, &operations).unwrap();
}

/// A value without the status annotations, which record replaced texts of a file.
pub(crate) fn without_status(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(key, _)| *key != "ebb-cache.io/status");
            kept.map(|(key, value)| (key.clone(), without_status(value))).collect()
        }
        Value::Array(values) => values.iter().map(without_status).collect(),
        value => value.clone(),
    }
}
