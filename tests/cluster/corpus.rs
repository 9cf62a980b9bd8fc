//! The pods of tests/inject, before an API server: what it makes of them is what `ebb inject` made of them.

use crate::apiserver::Cluster;
use crate::pods::sidecar;
use ebb::k8s::inject::texts;
use serde_json::{Value, json};
use std::fs;

/// The annotations that a policy reads.
const READ_BY_THE_POLICY: [&str; 4] = ["memory-limit", "cpu-request", "config-map", "app-containers"];

/// Who injects.
#[derive(Clone, Copy, PartialEq)]
pub enum By {
    Policy,
    Webhook,
}

/// The namespace that a pod of the corpus is in, if that matters.
fn namespace_of(text: &str) -> Option<Value> {
    let stated = text.lines().find_map(|line| line.strip_prefix("# namespace: "))?;
    Some(serde_json::from_str(stated).unwrap())
}

/// Whether a pod can be held against its result: its namespace is one that a test may make, it is no pod that an API server
/// refuses, and asks for nothing that this injector does not read.
fn is_comparable(name: &str, expected: &str, text: &str, pod: &Value, by: By) -> bool {
    let is_possible = match namespace_of(text) {
        None => true,
        // What a namespace says reaches the webhook's replicas a moment later.
        Some(stated) => stated["name"] == "shop" && (by == By::Policy || stated["annotations"].is_null()),
    };
    // The API server has filled in defaults of a declared container before anybody else sees it.
    let is_strange = name.starts_with("declares-ebb") || expected.ends_with("malformed");
    let asked = texts(&pod["metadata"]["annotations"]);
    let mut asked = asked.keys().filter_map(|key| key.strip_prefix("config.ebb-cache.io/"));
    let is_read = by == By::Webhook || asked.all(|name| READ_BY_THE_POLICY.contains(&name));
    is_possible && !is_strange && is_read
}

/// Compares them all; the least is the number of those that must be among them.
pub async fn compare(cluster: &Cluster, by: By, least: usize) {
    let (mut compared, mut wrong) = (0, Vec::new());
    let mut paths: Vec<_> = fs::read_dir("tests/inject/pods").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let expected = text.lines().next().unwrap();
        let given: Value = serde_yaml_ng::from_str(&text).unwrap();
        if !is_comparable(name, expected, &text, &given, by) {
            continue;
        }
        compared += 1;
        let namespace = match namespace_of(&text) {
            Some(stated) => {
                cluster.namespace(name, json!(texts(&stated["labels"]))).await;
                cluster.annotate(name, stated["annotations"].clone()).await;
                name
            }
            None => "shop",
        };
        let got = admitted(cluster, given, namespace).await;
        if expected.starts_with("# injected") {
            let ours = fs::read_to_string(format!("tests/inject/injected/{name}.yaml")).unwrap();
            let ours = admitted(cluster, serde_yaml_ng::from_str(&ours).unwrap(), namespace).await;
            if got.is_err() || got != ours {
                wrong.push(format!("{name}: {got:?} instead of {ours:?}"));
            }
        } else if !got.as_ref().is_ok_and(|pod| sidecar(pod).is_none()) {
            wrong.push(format!("{name}: {got:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty() && compared >= least, "{compared} compared: {}", wrong.join("\n"));
    println!("{compared} pods of tests/inject get what ebb inject gives them");
}

/// As it would be stored, without what differs each time.
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
