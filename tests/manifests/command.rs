//! `ebb inject` and `ebb uninject`, as commands.

use crate::common::program;
use ebb_config::yaml;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::process::Stdio;

/// Runs `ebb WORDS` with `input`; exit code, standard output, standard error.
pub(crate) fn run(words: &[&str], input: &str) -> (i32, String, String) {
    let mut command = program();
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const WORKLOADS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: untouched}
data: {b: '1', a: '0x10'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: 'app:1'}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: night}
spec:
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: app, image: 'app:1'}]}
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Pod, metadata: {generateName: x-}, spec: {hostNetwork: true, containers: [{name: app}]}}
  - {apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {template: {spec: {containers: [{name: app}]}}}}
";

#[test]
fn injects_workloads_of_every_kind_and_keeps_other_objects() {
    let (code, printed, said) = run(&["inject", "-f", "-"], WORKLOADS);
    assert_eq!(code, 0, "{said}");
    let lines = [
        "Deployment/web: injected",
        "CronJob/night: injected",
        "Pod/x-*: skipped (host-network): spec.hostNetwork is true",
        "StatefulSet/db: injected",
    ];
    let missing: Vec<_> = lines.into_iter().filter(|line| !said.contains(line)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in {said}");
    assert_eq!(printed.matches("\"restartPolicy\": \"Always\"").count(), 3, "pods in flow style stay in flow style");
    assert!(
        printed.starts_with(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: untouched}\ndata: {b: '1', a: '0x10'}\n---\n"
        )
    );
    let (_, again, said) = run(&["inject", "-f", "-"], &printed);
    assert_eq!(again, printed, "a second round adds nothing: {said}");
    let (code, back, said) = run(&["uninject", "-f", "-"], &printed);
    assert_eq!((code, said.matches("sidecar removed").count()), (0, 3), "{said}");
    assert_eq!(back, WORKLOADS);
}

#[test]
fn annotations_can_be_given_and_json_can_be_printed() {
    let pod =
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}}"#;
    let words = ["inject", "-f", "-", "--output", "json", "--set", "memory-limit=64Mi", "--set", "app-containers=zzz"];
    let (code, printed, said) = run(&words, pod);
    let injected: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &injected["spec"]["initContainers"][0]["resources"]["limits"]["memory"]), (0, &json!("64Mi")));
    let warning =
        "Pod/a: warning: annotation config.ebb-cache.io/app-containers (\"zzz\") is ignored: it must be names of";
    assert!(said.contains(warning), "{said}");
    assert!(injected["spec"]["containers"][0]["env"].is_array(), "as the annotation of a pod would be");
    let wrong = pod.replace(r#""name": "a""#, r#""name": "a", "annotations": {"config.ebb-cache.io/uid": "root"}"#);
    let (code, _, said) = run(&["inject", "-f", "-"], &wrong);
    let warning = "annotation config.ebb-cache.io/uid (\"root\") is ignored: it must be 1 to 2147483647";
    assert!(code == 0 && said.contains(warning), "{said}");
    let (_, printed, said) = run(&["inject", "-f", "-", "--labelled"], pod);
    assert!(!printed.contains("initContainers") && said.contains("skipped (not-labelled)"), "{said}");
}

#[test]
fn reports_unreadable_input_and_prints_nothing() {
    let mut wrong = Vec::new();
    for (words, input, sentence) in [
        (&["inject", "-f", "/nowhere.yaml"][..], "", "cannot read /nowhere.yaml"),
        (&["inject", "-f", "/dev/zero"], "", "/dev/zero: the text is too large (at most 64 MiB)"),
        (&["inject", "-f", "-"], "a: b\n---\na: [", "standard input: document 2, line 3: not YAML"),
        (&["inject", "-f", "-"], "a: {{ .Values.a }}\n", "standard input: document 1, line 1: an unrendered template"),
        (&["uninject", "-f", "-"], "a: 1\n? {b: c}\n: d\n", "standard input: document 1, line"),
        (&["inject", "-f", "-", "--template", "Cargo.toml"], "", "Cargo.toml: the template"),
        (&["inject", "-f", "-"], "a: 1\n...\nb: 1\n", "document 2, line 3: not YAML: kubectl ignores what follows"),
        (&["inject", "-f", "-"], "{\"a\": 1, \"a\": 2}", "document 1, line 1: not JSON: duplicate key `a`"),
        (&["inject", "-f", "src"], "", "src contains no .yaml, .yml or .json"),
    ] {
        let (code, printed, said) = run(words, input);
        if (code, printed.as_str()) != (1, "") || !said.contains(sentence) {
            wrong.push(format!("{words:?}, which needs {sentence:?}: code {code}, {printed:?}, {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut wrong = Vec::new();
    for (words, sentence) in [
        (&["--set", "uid"][..], "--set: \"uid\" is not NAME=VALUE"),
        (&["--set", "memory-limt=1Gi"], "--set: \"memory-limt\" is not an annotation; did you mean memory-limit?"),
        (&["--set", "uid=1", "--set", "uid=2"], "--set: uid is given twice"),
        (&["--set", "image=a/b:1", "--image", "a/b:2"], "--image and --set image both name the sidecar's image"),
        (&["--set", "nothing-like-it=1"], "--set: \"nothing-like-it\" is not an annotation"),
        (&["--image", "a b"], "--image: \"a b\" is not an image"),
        (&["--set", "memory-limit=abc"], "--set: memory-limit (\"abc\"): it must be a quantity of at least 16Mi"),
        (&["--set", "grpc-port=70", "--set", "uid=root"], "--set: grpc-port (\"70\"): it must be 1024 to 65535"),
        (&["--set", "grpc-port=70", "--set", "uid=root"], "--set: uid (\"root\"): it must be 1 to 2147483647"),
        (&["--set", "memory-high=101%"], "--set: memory-high (\"101%\"): it must be"),
        (&["-f", "-"], "-f -, -f -: standard input can be read once only; name it once"),
        (&["-f", "/dev/stdin"], "-f -, -f /dev/stdin: standard input can be read once only"),
        (&["--template", "-"], "-f -, --template -: standard input can be read once only"),
        (&["--pod-at", "spec..x"], "it must be keys separated by dots"),
    ] {
        let words: Vec<&str> = ["inject", "-f", "-"].iter().chain(words).copied().collect();
        let (code, printed, said) = run(&words, "");
        if (code, printed.as_str()) != (2, "") || !said.contains(sentence) {
            wrong.push(format!("{words:?}, which needs {sentence:?}: code {code}, {printed:?}, {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(run(&["inject"], "").0, 2, "nothing to inject into");
}

#[test]
fn reads_directories_at_any_depth_and_joins_files_as_documents() {
    let folder = tempfile::tempdir().unwrap();
    let pod = |name: &str| {
        format!("kind: Pod\napiVersion: v1\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: app")
    };
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("a/circle")).unwrap();
    for (path, text) in [
        ("a/b/deep.yaml", pod("deep")),
        ("a/first.yml", format!("---\n{}\n", pod("first"))),
        ("last.json", "{\"kind\": \"Pod\", \"apiVersion\": \"v1\", \"metadata\": {\"name\": \"last\"}}".to_owned()),
        ("notes.txt", "[".to_owned()),
        ("of-1.2.yaml", format!("# about\n%YAML 1.2\n---\n{}\n", pod("directed"))),
    ] {
        fs::write(folder.path().join(path), text).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    let (code, printed, said) = run(&["inject", "-f", path, "--image", "example/ebb:1"], "");
    let owners: Vec<&str> = said.lines().filter_map(|line| line.split_once(':')).map(|(owner, _)| owner).collect();
    assert_eq!((code, owners), (0, vec!["Pod/deep", "Pod/first", "Pod/last", "Pod/directed"]), "{said}");
    let names: Vec<Value> =
        yaml::manifests::<Value>(&printed).unwrap().iter().map(|pod| pod["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["deep", "first", "last", "directed"]);
    assert_eq!(printed.matches("image: \"example/ebb:1\"").count(), 3);
    let (code, again, said) = run(&["inject", "-f", "-"], &printed);
    assert_eq!((code, again), (0, printed), "the result is read again: {said}");
}

#[test]
fn an_item_that_cannot_be_edited_is_reprinted_alone() {
    let pod = |name: &str, labels: &str| {
        format!(
            "- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: {name} # kept\n    labels: {labels}\n  spec:\n    containers:\n    - name: app\n      image: app:1\n"
        )
    };
    let shared = pod("b", "&x {app: b}") + "    nodeSelector: *x\n";
    let (head, tail) = ("apiVersion: v1\nkind: List\nitems: # all\n", "metadata: {} # end\n");
    let text = format!("{head}{}{shared}{}{tail}", pod("a", "{app: a}"), pod("c", "{app: c}"));
    let (code, printed, said) = run(&["inject", "-f", "-"], &text);
    assert_eq!((code, said.matches(": injected").count(), said.matches("is reprinted").count()), (0, 3, 1), "{said}");
    assert!(said.contains("Pod/b: warning: the document is reprinted without its comments"), "{said}");
    assert!(printed.starts_with(head) && printed.ends_with(tail), "{printed}");
    assert_eq!(printed.matches("# kept").count(), 2, "{printed}");
    let (_, again, _) = run(&["inject", "-f", "-"], &printed);
    assert_eq!(again, printed);
    let (_, back, said) = run(&["uninject", "-f", "-"], &printed);
    let (first, second) = (text.split("- apiVersion").nth(1).unwrap(), text.split("- apiVersion").nth(3).unwrap());
    assert!(back.contains(first) && back.contains(second), "{back}\n{said}");
    let values = |text: &str| yaml::manifests::<Value>(text).unwrap();
    assert_eq!(values(&back), values(&text));
    // Across items, the whole List is reprinted.
    let across = format!("{head}{}{}    nodeSelector: *x\n{tail}", pod("a", "&x {app: a}"), pod("b", "{app: b}"));
    let (code, printed, said) = run(&["inject", "-f", "-"], &across);
    assert_eq!((code, said.matches(": injected").count()), (0, 2), "{said}");
    assert_eq!(values(&printed)[0]["items"][1]["spec"]["nodeSelector"], json!({"app": "a"}), "{printed}");
}

#[test]
fn items_of_json_lists_are_changed_where_they_stand() {
    let pod = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "app"}]}});
    let list = json!({"apiVersion": "v1", "items": [pod("a"), {"kind": "Namespace"}, pod("b")], "kind": "List"});
    let texts = [
        serde_json::to_string_pretty(&list).unwrap(),
        serde_json::to_string(&list).unwrap() + "\n",
        format!("{}\n{}", serde_json::to_string_pretty(&list).unwrap(), pod("c")),
    ];
    for text in texts {
        let (code, printed, said) = run(&["inject", "-f", "-"], &text);
        let pods = text.matches("\"app\"").count();
        assert_eq!((code, said.matches(": injected").count()), (0, pods), "{said}");
        assert_eq!(run(&["inject", "-f", "-"], &printed).1, printed);
        assert_eq!(run(&["uninject", "-f", "-"], &printed).1, text);
    }
    let typed = json!({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}, "spec": {"containers": []}}]});
    let (_, _, said) = run(&["inject", "-f", "-"], &typed.to_string());
    assert!(said.contains("Pod/a: "), "{said}");
}

#[test]
fn an_annotation_that_is_no_string_is_told() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  annotations: {config.ebb-cache.io/memory-share: 50}\n\
                spec: {containers: [{name: app}]}\n";
    let (code, _, said) = run(&["inject", "-f", "-"], text);
    assert_eq!(code, 0, "{said}");
    let sentence = "Pod/p: warning: annotation config.ebb-cache.io/memory-share is ignored: its value must be a string; \
                    put it in quotes";
    assert!(said.lines().any(|line| line == sentence), "{said}");
}

#[test]
fn a_namespace_among_the_manifests_counts() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {ebb-cache.io/inject: enabled}\n  \
                     annotations: {config.ebb-cache.io/memory-limit: 48Mi}\n---\n";
    let pod = |name: &str, namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{containers: [{{name: app}}]}}\n---\n"
        )
    };
    let text = pod("a", "shop") + &pod("b", "other") + namespace;
    let (code, printed, said) = run(&["inject", "-f", "-", "--labelled", "--set", "memory-limit=64Mi"], &text);
    assert!(said.contains("Pod/a: injected") && said.contains("Pod/b: skipped (not-labelled)"), "{said}");
    assert_eq!((code, printed.matches("48Mi").count()), (0, 3), "limit, request and the annotation: {printed}");
}

#[test]
fn an_image_that_no_cluster_can_pull_is_warned_about() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: app}]}\n";
    let warns = |words: &[&str], input: &str| run(words, input).2.contains("names no registry");
    assert!(warns(&["inject", "-f", "-"], pod));
    assert!(!warns(&["inject", "-f", "-", "--image", "example/ebb:1"], pod));
    assert!(!warns(&["inject", "-f", "-"], "kind: ConfigMap\napiVersion: v1\n"), "nothing was injected");
}

#[test]
fn kinds_without_a_known_pod_pass_through_with_a_line() {
    let rows = [
        (
            "batch.volcano.sh/v1alpha1",
            "Job",
            "{tasks: [{template: {spec: {containers: [{name: a}]}}}]}",
            "--pod-at 'spec.tasks[*].template'",
        ),
        ("argoproj.io/v1alpha1", "Rollout", "{workloadRef: {name: a}}", "Rollout/x: no pod found at spec.template"),
        ("apps/v1", "Deployment", "{replicas: 5}", "Deployment/x: no pod found at spec.template"),
    ];
    let mut wrong = Vec::new();
    for (version, kind, spec, sentence) in rows {
        let text = format!("apiVersion: {version}\nkind: {kind} # kept\nmetadata: {{name: x}}\nspec: {spec}\n");
        let (code, printed, said) = run(&["inject", "-f", "-"], &text);
        if (code, printed.as_str()) != (0, text.as_str()) || !said.contains(sentence) {
            wrong.push(format!("{kind}: {said}\n{printed}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let volcano = "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nmetadata: {name: x}\nspec:\n  tasks:\n  - template:\n      spec:\n        containers:\n        - name: a\n";
    let words = ["inject", "-f", "-", "--pod-at", "spec.tasks[*].template"];
    let (_, printed, said) = run(&words, volcano);
    assert!(
        said.contains("Job/x: injected") && printed.contains("        initContainers:\n        - name: ebb\n"),
        "{said}{printed}"
    );
    let (_, back, _) = run(&["uninject", "-f", "-", "--pod-at", "spec.tasks[*].template"], &printed);
    assert_eq!(back, volcano);
}

#[test]
fn a_merge_key_overrides_what_stands_before_it_as_in_kubectl() {
    let pod = |entries: &str| {
        format!(
            "x: &x {{image: base, env: [{{name: A}}]}}\napiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers:\n  - {entries}\n"
        )
    };
    for (entries, image) in [("{name: app, image: own, <<: *x}", "base"), ("{<<: *x, name: app, image: own}", "own")] {
        let (code, printed, said) = run(&["inject", "-f", "-", "--output", "json"], &pod(entries));
        assert!(code == 0 && said.contains("Pod/a: injected"), "{said}");
        let pod: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(pod["spec"]["containers"][0]["image"], image);
    }
}

#[test]
fn texts_that_are_not_in_utf_8_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let wide = |mark: [u8; 2], of: fn(u16) -> [u8; 2]| {
        mark.into_iter().chain("kind: Pod\n".encode_utf16().flat_map(of)).collect::<Vec<u8>>()
    };
    let rows = [
        (wide([0xff, 0xfe], u16::to_le_bytes), "the text is in UTF-16; save it in UTF-8"),
        (wide([0xfe, 0xff], u16::to_be_bytes), "the text is in UTF-16; save it in UTF-8"),
        (b"a: 1\nb: \xe4\n".to_vec(), "line 2: the text is not in UTF-8"),
    ];
    for (bytes, sentence) in rows {
        let path = folder.path().join("a.yaml");
        fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap();
        let (code, printed, said) = run(&["inject", "-f", path], "");
        assert_eq!((code, printed.as_str()), (1, ""));
        assert!(said.contains(&format!("{path}: {sentence}")), "{said}");
    }
}

#[test]
fn carriage_returns_stay() {
    let pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: app\nmetadata:\n  name: a\r";
    for text in [pod.to_owned(), pod.replace('\n', "\r\n")] {
        let (code, printed, said) = run(&["inject", "-f", "-", "--image", "example/ebb:1"], &text);
        assert_eq!((code, said.as_str()), (0, "Pod/a: injected\n"));
        assert_eq!(run(&["uninject", "-f", "-"], &printed).1, text);
    }
    let bare = pod.replace('\n', "\r");
    let (_, printed, said) = run(&["inject", "-f", "-"], &bare);
    assert!(said.contains("reprinted without its comments: its spans are unknown: a line ends with"), "{said}");
    assert!(printed.contains("name: \"app\"") || printed.contains("name: app"), "{printed}");
}

#[test]
fn values_that_an_injection_overwrites_come_back() {
    let text = "\
apiVersion: v1
kind: Pod
metadata:
  name: own
  labels:
    ebb-cache.io/injected: \"no\" # mine
    ebb-cache.io/version: v1
  annotations: {ebb-cache.io/injected-by: me, ebb-cache.io/merged: 'x', kubectl.kubernetes.io/default-container: ~}
spec:
  containers:
  - name: app
---
{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"json\", \"annotations\": {
  \"ebb-cache.io/status\":\"s\", \"ebb-cache.io/version\": \"a\"}}, \"spec\": {\"containers\": [{\"name\": \"app\"}]}}
---
apiVersion: v1
kind: Pod
metadata:
  name: declares
  annotations:
    ebb-cache.io/version: |
      a
    ebb-cache.io/status:
      - b # kept
spec:
  initContainers:
  - name: ebb
    image: ~
    resources:
  containers:
  - name: app
";
    let (code, printed, said) = run(&["inject", "-f", "-", "--image", "example/ebb:1"], text);
    assert_eq!((code, said.lines().count()), (0, 3), "nothing is reprinted: {said}");
    assert!(printed.contains("ebb-cache.io/injected: \"true\" # mine"), "{printed}");
    let (code, back, said) = run(&["uninject", "-f", "-"], &printed);
    assert_eq!((code, back), (0, text.to_owned()), "{said}");
    // Where a document is reprinted, the values come back all the same.
    let anchored = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {ebb-cache.io/version: &a v1, x: *a}\nspec: \
                    {containers: [{name: app}]}\n";
    let (_, printed, said) = run(&["inject", "-f", "-"], anchored);
    assert!(said.contains("reprinted"), "{said}");
    let (_, back, _) = run(&["uninject", "-f", "-", "--output", "json"], &printed);
    let pod: Value = serde_json::from_str(&back).unwrap();
    assert_eq!(pod["metadata"]["labels"], json!({"ebb-cache.io/version": "v1", "x": "v1"}));
}

#[test]
fn stateful_sets_whose_claims_take_a_volume_of_the_sidecar_are_skipped() {
    let set = |label: &str, claim: &str| {
        format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec:\n  template:\n    metadata: {{labels: \
             {{ebb-cache.io/inject: {label}}}}}\n    spec: {{containers: [{{name: app}}]}}\n  volumeClaimTemplates:\n  - \
             metadata: {{name: data}}\n  - metadata: {{name: {claim}}}\n"
        )
    };
    let cases = [
        ("enabled", "ebb-socket", "skipped (volume-conflict): spec.volumeClaimTemplates has ebb-socket"),
        ("enabled", "ebb-config", "skipped (volume-conflict): spec.volumeClaimTemplates has ebb-config"),
        ("disabled", "ebb-socket", "skipped (disabled)"),
        ("enabled", "ebb", "injected"),
    ];
    for (label, claim, expected) in cases {
        let given = set(label, claim);
        let (code, printed, said) = run(&["inject", "-f", "-", "--image", "example/ebb:1"], &given);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(&format!("StatefulSet/db: {expected}")), "{claim}: {said}");
        assert_eq!(printed == given, expected != "injected", "{printed}");
    }
}
