//! The pods of tests/inject in an API server: webhook and policy give the same result as `ebb inject`.

use crate::apiserver::Cluster;
use crate::helm::NAMESPACE;
use ebb_injector::inject::{Allowed, Context, Namespace, TRUSTED, Template, Verdict, inject, texts};
use serde_json::{Value, json};
use std::fs;

/// A namespace that may not set every annotation.
pub const CROWD: &str = "crowd";

/// The injecting component.
#[derive(Clone, Copy, PartialEq)]
pub enum By {
    Policy,
    Webhook,
}

/// The namespace that a pod of the corpus is in, if that matters.
fn namespace_of(text: &str) -> Option<Namespace> {
    let stated = text.lines().find_map(|line| line.strip_prefix("# namespace: "))?;
    let stated: Value = serde_json::from_str(stated).unwrap();
    let name = stated["name"].as_str().unwrap().to_owned();
    Some(Namespace { name, labels: texts(&stated["labels"]), annotations: texts(&stated["annotations"]) })
}

/// Whether a pod can be compared: its namespace can be created, and the API server accepts the pod.
fn is_comparable(expected: &str, namespace: Option<&Namespace>, by: By) -> bool {
    let is_possible = match namespace {
        None => true,
        // Annotations of a namespace reach the webhook with a delay, so only the policy is compared with them.
        Some(stated) => stated.name == "shop" && (by == By::Policy || stated.annotations.is_empty()),
    };
    is_possible && !expected.ends_with("malformed")
}

/// The pod with its sidecar from a template; `None` if it is skipped.
fn injected(pod: &Value, namespace: Option<Namespace>, template: &Template) -> Option<Value> {
    let needs_label = namespace.is_some();
    let namespace = namespace.unwrap_or_default();
    let context = Context { namespace: &namespace, own_namespace: Some(NAMESPACE), needs_label, by: "a test" };
    let Verdict::Inject(operations) = inject(pod, &context, template).verdict else { return None };
    let operations: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &operations).unwrap();
    Some(pod)
}

/// Compares all pods, in namespaces that may set every annotation and in one that may not; `least` is the minimum number
/// of compared ones.
pub async fn compare(cluster: &Cluster, template: &Template, by: By, least: usize) {
    cluster.namespace(CROWD, json!({"ebb-cache.io/inject": "enabled"})).await;
    let by_default = template.clone().changed_by(Allowed::new(None, None).unwrap());
    let (mut compared, mut wrong) = (0, Vec::new());
    let mut paths: Vec<_> = fs::read_dir("tests/inject/pods").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let stated = namespace_of(&text);
        if !is_comparable(text.lines().next().unwrap(), stated.as_ref(), by) {
            continue;
        }
        compared += 1;
        let namespace = match &stated {
            Some(stated) => {
                let mut labels = stated.labels.clone();
                labels.insert(TRUSTED.to_owned(), "true".to_owned());
                cluster.namespace(name, json!(labels)).await;
                cluster.annotate(name, json!(stated.annotations)).await;
                name
            }
            None => "shop",
        };
        let mut given: Value = ebb_config::yaml::manifests(&text).unwrap().remove(0);
        if name.starts_with("declares-") {
            // The API server fills in defaults of a declared container before anybody else sees it.
            given["spec"] = admitted(cluster, given.clone(), "plain").await.unwrap()["spec"].clone();
        }
        let in_the_crowd = stated.is_none().then_some((CROWD, &by_default));
        for (namespace, template) in [(namespace, template)].into_iter().chain(in_the_crowd) {
            let got = admitted(cluster, given.clone(), namespace).await;
            match injected(&given, stated.clone(), template) {
                Some(ours) => {
                    let ours = admitted(cluster, ours, namespace).await;
                    // The policy does not list the fields that it adds to a declared container.
                    let ours = ours.map(|pod| if by == By::Policy { without_fields_of_declared(pod) } else { pod });
                    if got.is_err() || got != ours {
                        wrong.push(format!("{name} in {namespace}: {got:?} instead of {ours:?}"));
                    }
                }
                None if got.as_ref().is_ok_and(|pod| pod["metadata"]["labels"]["ebb-cache.io/injected"].is_null()) => {}
                None => wrong.push(format!("{name} in {namespace}: {got:?} instead of what was given")),
            }
        }
    }
    assert!(wrong.is_empty() && compared >= least, "{compared} compared: {}", wrong.join("\n"));
    println!("{compared} pods of tests/inject get what ebb inject gives them");
}

/// The pod with a status annotation that lists no field of a declared container.
fn without_fields_of_declared(mut pod: Value) -> Value {
    let annotation = &mut pod["metadata"]["annotations"]["ebb-cache.io/status"];
    let mut status: Value = annotation.as_str().unwrap().parse().unwrap();
    let added = status["added"].as_array_mut().unwrap();
    added.retain(|address| !address.as_str().unwrap().starts_with("/spec/initContainers/ebb/"));
    *annotation = json!(status.to_string());
    pod
}

/// The pod as stored, without fields that differ each time.
async fn admitted(cluster: &Cluster, mut pod: Value, namespace: &str) -> Result<Value, String> {
    pod["metadata"]["name"] = json!("p");
    let mut got = cluster.admit(&pod, namespace).await?;
    let metadata = got["metadata"].as_object_mut().unwrap();
    for field in ["uid", "creationTimestamp", "managedFields"] {
        metadata.remove(field);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("ebb-cache.io/injected-by");
    }
    Ok(got)
}
