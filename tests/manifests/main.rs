//! Manifests as text: a sidecar is added and removed, and every other byte stays as it is.
//!
//! `corpus/` has small manifests, each of a kind of its own. `generated` makes thousands of others.

#[path = "../common/mod.rs"]
mod common;

mod command;
mod corpus;
mod generated;
mod problems;
mod reader;

use ebb_injector::inject::{Context, Namespace, Operation, Template, Verdict, inject};
use ebb_injector::offline::{self, Offline};
use ebb_manifest::{Document, Editor, Pods, chunks, documents, pruned};
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

/// The documents of a text as the command reads them: Lists in parts, if that is possible.
fn in_parts(text: &str) -> Result<Vec<Document<'_>>, String> {
    let mut all = Vec::new();
    for chunk in chunks(text) {
        let parts: Option<Vec<_>> = chunk.parts().iter().map(|part| part.read()).collect();
        match parts {
            Some(parts) => all.extend(parts.into_iter().flatten()),
            None => all.extend(chunk.read().map_err(|error| error.to_string())?),
        }
    }
    Ok(all)
}

/// A change of a document.
type Change<'a> = &'a dyn for<'d> Fn(&Document<'d>, &mut Editor) -> offline::Outcome<'d>;

/// Changes every document of a text.
fn each<'a>(text: &'a str, change: Change<'_>) -> Result<Vec<offline::Outcome<'a>>, String> {
    let mut editor = Editor::default();
    Ok(in_parts(text)?.iter().map(|document| change(document, &mut editor)).collect())
}

/// Injects into a text, and checks every promise. The error says which is broken.
pub(crate) fn round_trip(text: &str) -> Result<RoundTrip, String> {
    static TEMPLATE: LazyLock<Template> = LazyLock::new(Template::built_in);
    let originals: Vec<_> = documents(text).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let offline = Offline {
        template: &TEMPLATE,
        annotations: Default::default(),
        needs_label: false,
        by: "a test",
        pod_paths: &[],
        namespaces: offline::namespaces(originals.iter().cloned()),
    };
    let inject: Change<'_> = &|document, editor| offline.inject(document, editor);
    let outcomes = each(text, inject)?;
    let injected: String = outcomes.iter().map(|outcome| outcome.text.to_string()).collect();

    // The meaning: the original with the operations of the injection.
    let values = read(&injected).map_err(|error| format!("the result cannot be read: {error}\n{injected}"))?;
    let expected: Vec<Value> = originals.iter().map(|document| with_sidecars(document, &offline)).collect();
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
    let whole: String = back.iter().map(|outcome| outcome.text.to_string()).collect();
    if outcomes.len() != back.len() {
        // A List that was reprinted whole has parts now.
        let meant = read(&whole)?;
        if !meant.iter().map(pruned).eq(originals.iter().map(|document| pruned(&document.value))) {
            return Err(format!("the removal leaves:\n{whole}\n====== instead of\n{text}"));
        }
    }
    for ((original, outcome), back) in
        in_parts(text)?.iter().zip(&outcomes).zip(&back).filter(|_| outcomes.len() == back.len())
    {
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
fn with_sidecars(document: &Document<'_>, offline: &Offline<'_>) -> Value {
    let mut after = document.value.clone();
    for found in document.pods(offline.pod_paths) {
        let Pods::At(pointers) = found.pods else { continue };
        let fallback = Namespace { name: found.namespace.clone(), ..Namespace::default() };
        let namespace = offline.namespaces.get(&found.namespace).unwrap_or(&fallback);
        for at in pointers {
            let pod = document.value.pointer(&at).unwrap();
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
