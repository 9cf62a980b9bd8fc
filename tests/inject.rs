//! Injection over a corpus of pods: additions, skipped pods, idempotence and reversal. The chart's tests validate the
//! results against Kubernetes' schemas and compare the policy with them.

use ebb_config::yaml;
use ebb_injector::inject::{
    Context, Namespace, Outcome, TakeOut, Template, Verdict, chart_file, inject, reference, take_out, texts,
};
use ebb_manifest::pruned;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

const PODS: &str = "tests/inject/pods";
const INJECTED: &str = "tests/inject/injected";

/// A pod of the corpus, with the expectations in its comments.
struct Case {
    name: String,
    expected: String,
    pod: Value,
    namespace: Namespace,
    needs_label: bool,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut names: Vec<String> = fs::read_dir(PODS)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert!(names.len() >= 30, "{names:?}");
        names.into_iter().map(|name| Self::read(&name)).collect()
    }

    fn read(name: &str) -> Self {
        let text = fs::read_to_string(format!("{PODS}/{name}.yaml")).unwrap();
        let mut comments = text.lines().map_while(|line| line.strip_prefix("# "));
        let expected = comments.next().expect("what is expected stands in the first line").to_owned();
        let stated = comments.find_map(|line| line.strip_prefix("namespace: ")).map(|text| {
            let value: Value = serde_json::from_str(text).unwrap();
            let name = value["name"].as_str().unwrap().to_owned();
            Namespace { name, labels: texts(&value["labels"]), annotations: texts(&value["annotations"]) }
        });
        Self {
            name: name.to_owned(),
            expected,
            pod: yaml::manifests(&text).unwrap().remove(0),
            needs_label: stated.is_some(),
            namespace: stated.unwrap_or_default(),
        }
    }

    fn inject(&self, pod: &Value) -> Outcome {
        let context = Context {
            namespace: &self.namespace,
            own_namespace: Some("ebb-system"),
            needs_label: self.needs_label,
            by: "a test",
        };
        inject(pod, &context, &Template::built_in())
    }

    /// The pod with its sidecar; `None` if it is skipped.
    fn injected(&self) -> Option<Value> {
        match self.inject(&self.pod).verdict {
            Verdict::Inject(operations) => Some(patched(&self.pod, &serde_json::to_value(operations).unwrap())),
            Verdict::Skip(..) => None,
        }
    }
}

/// Applies a patch like the API server.
fn patched(pod: &Value, operations: &Value) -> Value {
    let mut pod = pod.clone();
    let patch: json_patch::Patch = serde_json::from_value(operations.clone()).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[test]
fn injects_every_pod_of_the_corpus_as_expected() {
    let bless = std::env::var_os("EBB_BLESS").is_some();
    let mut wrong = Vec::new();
    for case in Case::all() {
        let outcome = case.inject(&case.pod);
        let found = match (&outcome.verdict, outcome.warnings.len()) {
            (Verdict::Inject(_), 0) => "injected".to_owned(),
            (Verdict::Inject(_), warnings) => format!("injected, {warnings} warnings"),
            (Verdict::Skip(reason, _), _) => format!("skipped: {}", reason.label()),
        };
        if found != case.expected {
            wrong.push(format!("{}: {found} instead of {}: {:#?}", case.name, case.expected, outcome.warnings));
        }
        let Some(injected) = case.injected() else { continue };
        let path = format!("{INJECTED}/{}.yaml", case.name);
        let mut expected = outcome.warnings.iter().map(|warning| format!("# {warning}\n")).collect::<String>();
        expected += &serde_saphyr::to_string(&injected).unwrap();
        if bless {
            fs::create_dir_all(INJECTED).unwrap();
            fs::write(&path, &expected).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != expected {
            wrong.push(format!("{path} is stale: EBB_BLESS=1 cargo test --test inject"));
        }
    }
    let known: Vec<String> = Case::all().into_iter().map(|case| format!("{}.yaml", case.name)).collect();
    for entry in fs::read_dir(INJECTED).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "{INJECTED}/{name} belongs to no pod");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_volume_is_of_one_kind() {
    let mut wrong = Vec::new();
    for case in Case::all() {
        let Some(injected) = case.injected() else { continue };
        for volume in injected["spec"]["volumes"].as_array().unwrap() {
            if volume.as_object().unwrap().len() != 2 {
                wrong.push(format!("{}: more than a name and what it is: {volume}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_second_round_adds_nothing() {
    let mut wrong = Vec::new();
    for case in Case::all() {
        let Some(injected) = case.injected() else { continue };
        match case.inject(&injected).verdict {
            Verdict::Skip(reason, _) if reason.label() == "already-injected" => {}
            Verdict::Skip(reason, _) => wrong.push(format!("{}: {}", case.name, reason.label())),
            Verdict::Inject(operations) => wrong.push(format!("{}: {operations:?}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether `after` contains everything of `before`, with lists in order.
fn contains(after: &Value, before: &Value) -> bool {
    match (after, before) {
        (_, Value::Null) => true,
        (Value::Object(after), Value::Object(before)) => {
            before.iter().all(|(key, value)| after.get(key).is_some_and(|there| contains(there, value)))
        }
        (Value::Array(after), Value::Array(before)) => {
            let mut rest = after.iter();
            before.iter().all(|value| rest.any(|there| contains(there, value)))
        }
        (after, before) => after == before,
    }
}

#[test]
fn nothing_of_a_pod_is_changed_or_lost() {
    let all = Case::all().into_iter();
    let changed = all.filter(|case| case.injected().is_some_and(|injected| !contains(&injected, &case.pod)));
    let changed: Vec<_> = changed.map(|case| case.name).collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert!(!contains(&json!({"a": [1, 3]}), &json!({"a": [3, 1]})), "this test can fail");
}

/// Removes the sidecar; the pod as it is then.
fn taken_out(injected: &Value) -> Value {
    let TakeOut::Remove(removal) = take_out(injected) else { panic!("{:?}: {injected}", take_out(injected)) };
    let mut pod = injected.clone();
    removal.apply(&mut pod);
    pod
}

#[test]
fn removal_gives_back_the_pod() {
    let mut wrong = Vec::new();
    for case in Case::all() {
        let Some(injected) = case.injected() else { continue };
        let back = taken_out(&injected);
        // Nulls became collections when something was added to them.
        if pruned(&back) != pruned(&case.pod) {
            wrong.push(format!("{}: {back} instead of {}", case.name, case.pod));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(take_out(&Case::read("plain").pod), TakeOut::NotInjected);
}

#[test]
fn removal_keeps_what_was_added_to_the_pod_since() {
    let case = Case::read("plain");
    let mut injected = case.injected().unwrap();
    let mut expected = case.pod.clone();
    for pod in [&mut injected, &mut expected] {
        pod["metadata"]["labels"]["later"] = json!("1");
        let env = &mut pod["spec"]["containers"][0]["env"];
        let mut variables = env.as_array().cloned().unwrap_or_default();
        variables.insert(0, json!({"name": "LATER", "value": "1"}));
        *env = variables.into();
        let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        volumes.insert(0, json!({"name": "later", "emptyDir": {}}));
        pod["spec"]["volumes"] = volumes.into();
    }
    assert_eq!(pruned(&taken_out(&injected)), pruned(&expected));
    injected["metadata"]["annotations"]["ebb-cache.io/status"] = json!("{}");
    assert_eq!(take_out(&injected), TakeOut::Unlisted);
}

/// The quality-of-service class, by the kubelet's rules.
fn class(pod: &Value) -> &'static str {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    let spec = pod.spec.unwrap();
    if let Some(total) = spec.resources {
        return class_of(&[(total.requests.unwrap_or_default(), total.limits.unwrap_or_default())]);
    }
    let all: Vec<Container> = spec.containers.into_iter().chain(spec.init_containers.unwrap_or_default()).collect();
    let resources: Vec<_> = all
        .into_iter()
        .map(|container| {
            let resources = container.resources.unwrap_or_default();
            let limits = resources.limits.unwrap_or_default();
            let mut requests = limits.clone();
            requests.extend(resources.requests.unwrap_or_default());
            (requests, limits)
        })
        .collect();
    class_of(&resources)
}

type Amounts = BTreeMap<String, Quantity>;

fn class_of(all: &[(Amounts, Amounts)]) -> &'static str {
    let same =
        |a: &Quantity, b: &Quantity| a == b || (a.0 == "1000m" && b.0 == "1") || (a.0 == "0.5Gi" && b.0 == "512Mi");
    // Amounts of zero do not count.
    let amount = |of: &Amounts, name: &str| of.get(name).filter(|amount| amount.0 != "0").cloned();
    let is_bound = |(requests, limits): &(Amounts, Amounts)| {
        let is_equal = |name| amount(requests, name).zip(amount(limits, name)).is_some_and(|(a, b)| same(&a, &b));
        ["cpu", "memory"].into_iter().all(is_equal)
    };
    match () {
        () if all.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) => "BestEffort",
        () if all.iter().all(is_bound) => "Guaranteed",
        () => "Burstable",
    }
}

#[test]
fn a_pod_keeps_its_class_of_service() {
    let (mut seen, mut wrong) = (BTreeMap::new(), Vec::new());
    for case in Case::all().into_iter().filter(|case| case.name != "unknown-fields") {
        let Some(injected) = case.injected() else { continue };
        let (before, after) = (class(&case.pod), class(&injected));
        // A BestEffort pod becomes Burstable, because the sidecar needs a memory limit.
        let expected = if before == "BestEffort" { "Burstable" } else { before };
        if after != expected {
            wrong.push(format!("{}: {after} instead of {expected}", case.name));
        }
        *seen.entry(before).or_insert(0) += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() == 3, "each class is among the pods: {seen:?}");
}

#[test]
fn a_pod_of_types_and_a_pod_of_json_are_the_same() {
    let mut wrong = Vec::new();
    for case in Case::all().into_iter().filter(|case| case.name != "unknown-fields") {
        let Some(injected) = case.injected() else { continue };
        let typed: Pod = serde_json::from_value(injected.clone()).unwrap();
        let typed = serde_json::to_value(typed).unwrap();
        if !contains(&typed, &pruned(&injected)) {
            wrong.push(format!("{}: {typed}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn generated_files_are_current() {
    let mut stale = Vec::new();
    for (path, expected) in [("docs/injection.md", reference()), ("charts/ebb/files/annotations.yaml", chart_file())] {
        if std::env::var_os("EBB_BLESS").is_some() {
            fs::write(path, &expected).unwrap();
        }
        if fs::read_to_string(path).unwrap_or_default() != expected {
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "{stale:?} are stale: EBB_BLESS=1 cargo test --test inject");
}

/// A pod with these annotations, injected from a template with loopback addresses and an additional variable.
fn over_loopback(annotations: &[(&str, &str)]) -> (Value, Vec<String>) {
    let text = fs::read_to_string("manifests/sidecar.yaml").unwrap();
    let mut documents = yaml::manifests::<Value>(&text).unwrap().into_iter();
    let mut template = documents.find(|document| document["kind"] == "PodTemplate").unwrap();
    let spec = &mut template["template"]["spec"];
    let address = json!({"name": "EBB_ADDR", "value": "127.0.0.1:7070"});
    let own = spec["initContainers"][0]["env"].as_array_mut().unwrap();
    own.retain(|variable| !["EBB_LISTEN", "EBB_SOCKET", "EBB_ADDR"].map(Value::from).contains(&variable["name"]));
    own.push(json!({"name": "EBB_LISTEN", "value": "127.0.0.1:7070"}));
    own.push(address.clone());
    spec["containers"][0] =
        json!({"name": "app", "image": "app", "env": [address, {"name": "CACHE", "value": "$(EBB_ADDR)"}]});
    let template = Template::parse(&template.to_string()).unwrap();
    let own = json!([{"name": "OWN", "value": "$(CACHE)"}]);
    let mut pod = json!({"metadata": {"annotations": {}}, "spec": {"containers": [{"name": "app", "env": own}]}});
    for (name, value) in annotations {
        pod["metadata"]["annotations"][format!("config.ebb-cache.io/{name}")] = json!(value);
    }
    let namespace = Namespace::default();
    let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
    let Outcome { verdict: Verdict::Inject(operations), warnings } = inject(&pod, &context, &template) else {
        panic!()
    };
    let injected = patched(&pod, &serde_json::to_value(operations).unwrap());
    assert_eq!(pruned(&taken_out(&injected)), pruned(&pod));
    (injected, warnings)
}

#[test]
fn loopback_addresses_follow_the_sidecars_listen_address() {
    let value = |list: &Value, name: &str| {
        let variable = list.as_array().unwrap().iter().find(|variable| variable["name"] == name);
        variable.unwrap()["value"].as_str().unwrap().to_owned()
    };
    let mut wrong = Vec::new();
    for (annotations, listens, told) in [
        (&[][..], "127.0.0.1:7070", "127.0.0.1:7070"),
        (&[("grpc-port", "9070")], "127.0.0.1:9070", "127.0.0.1:9070"),
        (&[("bind-address", "0.0.0.0")], "0.0.0.0:7070", "127.0.0.1:7070"),
        (&[("bind-address", "::"), ("grpc-port", "9070")], "[::]:9070", "127.0.0.1:9070"),
        (&[("bind-address", "127.0.0.2")], "127.0.0.2:7070", "127.0.0.2:7070"),
    ] {
        let (pod, warnings) = over_loopback(annotations);
        let sidecar = &pod["spec"]["initContainers"][0]["env"];
        let env = &pod["spec"]["containers"][0]["env"];
        // The program in the sidecar calls the same address.
        let found = [value(sidecar, "EBB_LISTEN"), value(env, "EBB_ADDR"), value(sidecar, "EBB_ADDR")];
        // Each variable can refer to those before it.
        let names: Vec<&Value> = env.as_array().unwrap().iter().map(|variable| &variable["name"]).collect();
        if found != [listens, told, told] || names != ["EBB_ADDR", "CACHE", "OWN"] || !warnings.is_empty() {
            wrong.push(format!("{annotations:?}: {found:?}, {names:?}, {warnings:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (pod, warnings) = over_loopback(&[("unix-socket-path", "/run/cache/ebb.sock")]);
    assert!(warnings[0].contains("unix-socket-path") && warnings[0].contains("in a pod that gets a socket"));
    assert!(!pod.to_string().contains("ebb.sock\"}"), "{pod}");
}

#[test]
fn the_policy_knows_every_annotation() {
    let policy = fs::read_to_string("manifests/policy.yaml").unwrap();
    let known = policy.lines().find_map(|line| line.trim().strip_prefix("[\"additional-env\",")).unwrap();
    let page = reference();
    let names = page.lines().filter_map(|line| line.strip_prefix("| `config.ebb-cache.io/")?.split('`').next());
    let names: Vec<&str> = names.filter(|name| *name != "additional-env").collect();
    assert!(names.len() > 25, "{names:?}");
    let unknown: Vec<_> = names.into_iter().filter(|name| !known.contains(&format!("\"{name}\""))).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not among {known}");
}
