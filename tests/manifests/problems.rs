//! What `ebb inject` and `ebb uninject` report, and what a merge key gives back.

use crate::command::run;
use serde_json::Value;
use std::fs;

#[test]
fn malformed_objects_are_all_reported_with_their_place() {
    let pod = |name: &str, rest: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n{rest}");
    let good = pod("good", "spec: {containers: [{name: app}]}\n");
    let rows = [
        (pod("a", "spec:\n  containers: app\n"), 5, "Pod/a: spec.containers must be a list, but is a string"),
        (
            pod("b", "spec:\n  containers:\n  - name: app\n  - image: x\n"),
            7,
            "Pod/b: spec.containers[1].name must be a string, but is missing",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: c\n  annotations: [x]\nspec: {containers: [{name: a}]}\n"
                .to_owned(),
            5,
            "Pod/c: metadata.annotations must be an object, but is a list",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  template: []\n".to_owned(),
            5,
            "Deployment/d: spec.template must be an object, but is an empty list",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: e}\nspec: x\n".to_owned(),
            4,
            "Deployment/e: spec must be an object, but is a string",
        ),
        ("apiVersion: v1\nkind: [Pod]\n".to_owned(), 2, "an object: kind must be a string, but is a list"),
        ("kind: Pod\n".to_owned(), 1, "Pod/*: apiVersion must be a version such as v1 or apps/v1, but is missing"),
        (
            "apiVersion: v1\nspec: {containers: [{name: a}]}\n".to_owned(),
            1,
            "an object: kind must be a kind such as Pod, but is missing",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- 1\n".to_owned(),
            4,
            "an object: items[0] must be an object with apiVersion and kind, but is a number",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- a: 1\n- apiVersion: v1\n  kind: Pod\n  spec: {containers: 5}\n"
                .to_owned(),
            7,
            "Pod/*: items[1].spec.containers must be a list, but is a number",
        ),
        ("apiVersion: v1\nkind: List\nitems: {}\n".to_owned(), 3, "List/*: items must be a list, but is an object"),
        (
            pod("f", "spec: {containers: [{name: a}, {name: a}]}\n"),
            4,
            "Pod/f: spec.containers[1].name must be unique, but",
        ),
    ];
    let mut wrong = Vec::new();
    for command in ["inject", "uninject"] {
        for (text, line, sentence) in &rows {
            let line = line + 5;
            let expected = format!("ebb: standard input: document 2, line {line}: {sentence}");
            let (code, printed, said) = run(&[command, "-f", "-"], &format!("{good}---\n{text}"));
            if (code, printed.as_str()) != (1, "") || !said.contains(&expected) || said.lines().count() != 1 {
                wrong.push(format!("{command} needs {expected}: code {code}, {printed:?}, {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Unreadable files and documents do not hide others.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    fs::write(&path, format!("{}---\na: [\n---\n{}---\n{good}---\nb: {{\n", rows[0].0, rows[1].0)).unwrap();
    let (code, printed, said) = run(&["inject", "-f", "/nowhere.yaml", "-f", path.to_str().unwrap()], "");
    let places =
        ["/nowhere.yaml", "document 1, line 5: ", "document 2, line ", "document 3, line 15: ", "document 5, line "];
    let missing: Vec<_> = places.iter().zip(said.lines()).filter(|(place, line)| !line.contains(*place)).collect();
    assert_eq!((code, printed.as_str(), said.lines().count()), (1, "", places.len()), "{said}");
    assert!(missing.is_empty(), "{missing:?} in {said}");
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n \"spec\": {\"containers\": 1}}\n".repeat(2);
    let (_, _, said) = run(&["inject", "-f", "-"], &json);
    assert!(said.contains("document 1, line 2: ") && said.contains("document 2, line 4: "), "{said}");
}

/// Such as the values of a chart, and patches that are lists of operations.
#[test]
fn documents_that_are_no_objects_pass_through_with_a_line() {
    let patch = "- op: add\n  path: /spec/replicas\n  value: 2\n---\napiVersion: v1\nkind: Pod\nspec: {containers: [{name: a}]}\n";
    let (code, printed, said) = run(&["inject", "-f", "-", "--image", "example/ebb:1"], patch);
    assert_eq!(said, "a list: not changed, since it is no Kubernetes object\nPod/*: injected\n");
    assert_eq!((code, run(&["uninject", "-f", "-"], &printed).1.as_str()), (0, patch));
    let (code, printed, said) = run(&["inject", "-f", "-"], "just words\n");
    assert_eq!((code, printed.as_str()), (0, "just words\n"));
    assert_eq!(said, "a text: not changed, since it is no Kubernetes object\n");
    let values = "replicas: 2\ncontainers: app\nspec: 1\n";
    assert_eq!(run(&["inject", "-f", "-"], values), (0, values.to_owned(), String::new()));
}

#[test]
fn versions_that_are_not_known_pass_through_with_a_line() {
    let template = "template: {spec: {containers: [{name: a}]}}";
    let rows = [
        (
            "v2",
            "Pod",
            "containers: [{name: a}]",
            "Pod/x: not changed, since Pod of apiVersion \"v2\" is not a known kind",
        ),
        ("apps/v9", "Deployment", template, "is not a known kind; to inject it, use --pod-at 'spec.template'"),
        (
            "apps/v9",
            "Deployment",
            "replicas: 1",
            "Deployment/x: not changed, since Deployment of apiVersion \"apps/v9\"",
        ),
        ("batch/v2", "Job", template, "use --pod-at 'spec.template'"),
        ("ray.io/v9", "RayCluster", "headGroupSpec: {rayStartParams: {}}", "RayCluster/x: not changed"),
        ("example.com/v1", "Sandbox", "containers: [{name: a}]", "Sandbox/x: not changed"),
    ];
    let mut wrong = Vec::new();
    for (version, kind, spec, sentence) in rows {
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{{spec}}}\n");
        let (code, printed, said) = run(&["inject", "-f", "-"], &text);
        if (code, printed.as_str()) != (0, text.as_str()) || !said.contains(sentence) {
            wrong.push(format!("{version} {kind}: {code} {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn labels_and_annotations_of_a_merge_key_come_back() {
    let rows = [
        "labels: &l {ebb-cache.io/version: v1, app: a}\n",
        "labels: &l {ebb-cache.io/injected: \"no\", ebb-cache.io/version: v1}\n",
        "labels: &l {ebb-cache.io/rev: default}\n",
    ];
    let forms = ["    labels: {<<: *l}\n", "    labels:\n      <<: *l\n", "    labels:\n      <<: *l\n      own: b\n"];
    let annotations = "    annotations: {<<: *l, kubectl.kubernetes.io/default-container: app}\n";
    let mut wrong = Vec::new();
    for shared in rows {
        for form in forms.into_iter().chain([annotations]) {
            let text = format!(
                "x-{shared}apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec:\n  template:\n   metadata:\n{form}   \
                 spec:\n      containers:\n      - name: app\n"
            );
            let (code, printed, said) = run(&["inject", "-f", "-", "--image", "example/ebb:1"], &text);
            let (back_code, back, said_back) = run(&["uninject", "-f", "-"], &printed);
            if (code, back_code, back.as_str()) != (0, 0, text.as_str()) {
                wrong.push(format!("{text}{said}{printed}{said_back}{back}"));
            }
            // The API server has the values without the merge key.
            let (_, json, _) = run(&["inject", "-f", "-", "--output", "json", "--image", "example/ebb:1"], &text);
            let read =
                |text: &str| serde_json::from_str::<Value>(text).unwrap()["spec"]["template"]["metadata"].clone();
            let (_, plain, _) = run(&["uninject", "-f", "-", "--output", "json"], &json);
            let (_, expected, _) = run(&["uninject", "-f", "-", "--output", "json"], &text);
            if read(&plain) != read(&expected) {
                wrong.push(format!("{text}{plain}instead of {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
