//! Reads manifests, as YAML or JSON from files, directories and standard input, and finds the pods in them.
//!
//! Documents keep their content and order, except for comments, which the parser drops.

use ebb_config::yaml;
use ebb_injector::inject::Operation;
use ebb_terminal::Failure;
use serde_json::Value;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Path of the pod in an object of each kind.
const KINDS: [(&str, &[&str]); 9] = [
    ("Pod", &[]),
    ("PodTemplate", &["template"]),
    ("ReplicationController", &["spec", "template"]),
    ("Deployment", &["spec", "template"]),
    ("StatefulSet", &["spec", "template"]),
    ("DaemonSet", &["spec", "template"]),
    ("ReplicaSet", &["spec", "template"]),
    ("Job", &["spec", "template"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// Maximum size of a file or of standard input, far more than an API server accepts.
const MAX_BYTES: u64 = 64 << 20;

/// Reads every document of every path; `-` is standard input.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Value>, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        for file in files(path)? {
            let (name, text) = text(&file)?;
            documents.extend(yaml::manifests::<Value>(&text).map_err(|error| format!("{name}: {error}"))?);
        }
    }
    Ok(documents)
}

/// The file itself, or the manifests in the directory.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if file.is_file() && ["yaml", "yml", "json"].contains(&extension) {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Failure::Failed(format!("{} contains no .yaml, .yml or .json files", path.display()))),
        false => Ok(files),
    }
}

/// Reads a file, or standard input for `-`. Returns its name and its text.
pub(super) fn text(path: &Path) -> Result<(String, String), Failure> {
    let mut text = String::new();
    let (name, read) = match path.to_str() {
        Some("-") => ("standard input".to_owned(), std::io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text)),
        _ => {
            let file = File::open(path);
            let read = file.and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
            (path.display().to_string(), read)
        }
    };
    read.map_err(|error| format!("cannot read {name}: {error}"))?;
    if text.len() as u64 > MAX_BYTES {
        let too_large = format!("{name}: the text is too large (at most {} MiB)", MAX_BYTES >> 20);
        return Err(Failure::Failed(too_large));
    }
    Ok((name, text))
}

/// A pod in a document.
pub(super) struct Found<'a> {
    /// Kind and name of the containing object.
    pub(super) owner: String,
    /// Namespace of that object; empty if not set.
    pub(super) namespace: String,
    /// The pod: `metadata` and `spec`.
    pub(super) pod: &'a mut Value,
}

/// Calls `each` for every pod of a document, including pods in lists.
pub(super) fn pods(
    document: &mut Value,
    each: &mut impl FnMut(Found<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let text = |value: &Value, keys: &[&str]| {
        let found = keys.iter().try_fold(value, |at, key| at.get(key));
        found.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let kind = text(document, &["kind"]);
    if let Some(items) = document.get_mut("items").and_then(Value::as_array_mut).filter(|_| kind.ends_with("List")) {
        return items.iter_mut().try_for_each(|item| pods(item, each));
    }
    let Some((_, path)) = KINDS.iter().find(|(name, _)| *name == kind) else { return Ok(()) };
    let mut name = text(document, &["metadata", "name"]);
    if name.is_empty() {
        name = text(document, &["metadata", "generateName"]) + "*";
    }
    let (owner, namespace) = (format!("{kind}/{name}"), text(document, &["metadata", "namespace"]));
    match path.iter().try_fold(document, |at, key| at.get_mut(key)) {
        Some(pod) => each(Found { owner, namespace, pod }),
        None => Err(Failure::Failed(format!("{owner} has no {}", path.join(".")))),
    }
}

/// Applies patch operations.
pub(super) fn apply(object: &mut Value, operations: &[Operation]) {
    for Operation { path, value, .. } in operations {
        let mut parts: Vec<String> = path.split('/').skip(1).map(unescaped).collect();
        let last = parts.pop().expect("a pointer has a part");
        let parent = parts.iter().fold(&mut *object, |at, part| match at {
            Value::Array(values) => &mut values[part.parse::<usize>().expect("an index")],
            at => &mut at[part.as_str()],
        });
        match parent {
            Value::Array(values) => {
                let at = if last == "-" { values.len() } else { last.parse().expect("an index") };
                values.insert(at, value.clone());
            }
            parent => parent[last.as_str()] = value.clone(),
        }
    }
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}
