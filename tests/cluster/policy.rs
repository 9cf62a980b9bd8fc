//! The policy: additions to pods, skipped pods, installation, upgrade and removal.

use crate::apiserver::Cluster;
use crate::corpus::{self, By, CROWD};
use crate::helm::{Helm, NAMESPACE};
use crate::objects::list;
use crate::pods::{annotated, labelled, lacks, plain, pod, resources, sidecar, told, with_containers};
use crate::quota;
use ebb_injector::inject::{Context, Namespace, Template, inject};
use serde_json::{Value, json};

const POLICY: &str = "injector.mode=policy";

/// Policies reach the admission chain a moment after they are stored.
pub async fn until_active(cluster: &Cluster) {
    cluster.until_injected(&labelled("enabled"), "plain").await;
}

/// Equal requests and limits.
fn both(cpu: &str, memory: &str) -> Value {
    json!({"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu, "memory": memory}})
}

/// The sidecar's default resources.
fn by_default() -> Value {
    json!({"limits": {"memory": "256Mi"}, "requests": {"cpu": "50m", "memory": "256Mi"}})
}

#[tokio::test]
async fn the_policy_injects_labelled_pods_and_skips_others() {
    let Some(cluster) = Cluster::start().await else { return };
    Helm::Four.install(&cluster, &format!("{POLICY},standalone.enabled=true,injector.failurePolicy=Fail"));
    until_active(&cluster).await;
    corpus::compare(&cluster, &Template::built_in(), By::Policy, 50).await;
    quota::namespaces_with_rules(&cluster).await;
    what_a_pod_gets(&cluster).await;
    how_large_the_sidecar_is(&cluster).await;
    what_is_asked_in_vain_is_said(&cluster);
    which_applications_are_told(&cluster).await;
    where_sockets_may_be(&cluster).await;
    which_pods_are_left_alone(&cluster).await;
    the_pod_of_helm_test(&cluster).await;

    let labels = json!({"ebb-cache.io/inject": "enabled", "pod-security.kubernetes.io/enforce": "restricted"});
    cluster.namespace("shop", labels).await;
    let restricted = json!([{"name": "app", "image": "app", "securityContext": {
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    }}]);
    let got = cluster.injected("restricted pod security", &with_containers(&restricted), "shop").await;
    assert_eq!(told(&got), ["app"]);
    let refused = cluster.admit(&plain(), "shop").await.expect_err("restricted pod security is active");
    assert!(refused.contains("violates PodSecurity"), "{refused}");
}

async fn what_a_pod_gets(cluster: &Cluster) {
    let nothing = cluster.injected("a pod with nothing", &plain(), "shop").await;
    assert_eq!((told(&nothing), resources(&nothing)), (vec!["app"], &by_default()));
    let bare = pod(&json!({"metadata": {"labels": null, "annotations": null}}));
    let bare = cluster.injected("a pod without labels and annotations", &bare, "shop").await;
    assert_eq!(told(&bare), ["app"]);

    let full = pod(&json!({"spec": {
        "containers": [
            {
                "name": "a", "image": "a", "env": [{"name": "A", "value": "$(EBB_ADDR)"}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            },
            {"name": "b", "image": "b"},
        ],
        "initContainers": [
            {"name": "first", "image": "first"}, {"name": "second", "image": "second", "restartPolicy": "Always"},
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "securityContext": {"fsGroup": 1000, "supplementalGroups": [7]},
    }}));
    let got = cluster.injected("a pod with everything", &full, "shop").await;
    let names =
        |list: &Value| -> Vec<Value> { list.as_array().unwrap().iter().map(|one| one["name"].clone()).collect() };
    assert_eq!(told(&got), ["a", "b"]);
    assert_eq!(names(&got["spec"]["initContainers"]), ["ebb", "first", "second"]);
    // A variable that uses EBB_ADDR must follow it.
    assert_eq!(names(&got["spec"]["containers"][0]["env"]), ["EBB_ADDR", "A"]);
    assert_eq!(got["spec"]["securityContext"], json!({"fsGroup": 1000, "supplementalGroups": [7, 65532]}));
    assert_eq!(got["spec"]["volumes"][0], json!({"name": "v", "emptyDir": {}}));

    let mut again = nothing.clone();
    for field in ["uid", "creationTimestamp", "generation", "managedFields"] {
        again["metadata"].as_object_mut().unwrap().remove(field);
    }
    again["status"] = Value::Null;
    let second = cluster.injected("a pod that has its sidecar", &again, "shop").await;
    assert_eq!(second["spec"], again["spec"], "a second round adds nothing");
}

async fn how_large_the_sidecar_is(cluster: &Cluster) {
    let zero = json!({"cpu": "0", "memory": "0"});
    let sized = [("memory-limit", "1Gi"), ("cpu-request", "200m")];
    let merged = |mut pod: Value, more: Value| {
        json_patch::merge(&mut pod, &more);
        pod
    };
    let app =
        |resources: Value| json!({"spec": {"containers": [{"name": "app", "image": "app", "resources": resources}]}});
    let total = |resources: Value| json!({"spec": {"resources": resources}});
    let mut wrong = Vec::new();
    for (what, given, expected, class) in [
        ("a Guaranteed pod stays so", pod(&app(both("1", "64Mi"))), both("50m", "256Mi"), "Guaranteed"),
        ("a Burstable pod stays so", pod(&app(json!({"requests": {"cpu": "1"}}))), by_default(), "Burstable"),
        (
            "a pod's own total is kept",
            merged(pod(&app(both("1", "1Gi"))), total(both("1", "1Gi"))),
            json!({"limits": {"cpu": "1", "memory": "256Mi"}, "requests": zero}),
            "Guaranteed",
        ),
        (
            "a limit is not above the pod's",
            pod(&total(both("1", "100Mi"))),
            json!({"limits": {"memory": "100Mi"}, "requests": zero}),
            "Guaranteed",
        ),
        (
            "annotations size the sidecar",
            annotated(&sized),
            json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "200m", "memory": "1Gi"}}),
            "Burstable",
        ),
        (
            "annotations size it in a Guaranteed pod",
            merged(annotated(&sized), app(both("1", "64Mi"))),
            both("200m", "1Gi"),
            "Guaranteed",
        ),
    ] {
        let got = cluster.injected(what, &given, "shop").await;
        if *resources(&got) != expected || got["status"]["qosClass"] != class {
            let found = &got["status"]["qosClass"];
            wrong.push(format!("{what}: {} and {found} instead of {expected} and {class}", resources(&got)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let wrong = annotated(&[("memory-limit", "lots"), ("cpu-request", "-1"), ("config-map", "No Name")]);
    let config_map = |pod: &Value| pod["spec"]["volumes"][0]["projected"]["sources"][1]["configMap"]["name"].clone();
    let got = cluster.injected("wrong annotations leave the defaults", &wrong, "shop").await;
    assert_eq!((resources(&got), config_map(&got)), (&by_default(), json!("ebb-config")));
    let named = annotated(&[("config-map", "orders")]);
    assert_eq!(config_map(&cluster.injected("a ConfigMap is named", &named, "shop").await), "orders");
}

/// The warnings of `ebb inject`, cut to the API server's maximum, without guesses.
fn what_is_asked_in_vain_is_said(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let said_of = |namespace: &str, given: &Value| {
        let file = folder.path().join("pod.json");
        std::fs::write(&file, given.to_string()).unwrap();
        let file = file.to_str().unwrap();
        let ended = cluster.kubectl(&["create", "--dry-run=server", "--namespace", namespace, "--filename", file]);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        ended.said
    };
    let said_in = |namespace: &str, annotations: &Value| {
        said_of(namespace, &pod(&json!({"metadata": {"annotations": annotations}})))
    };
    let said = |annotations: &Value| said_in("shop", annotations);
    let of_corpus = |name: &str| -> Value {
        let text = std::fs::read_to_string(format!("tests/inject/pods/{name}.yaml")).unwrap();
        ebb_config::yaml::manifests(&text).unwrap().remove(0)
    };
    let annotations = |name: &str| of_corpus(name)["metadata"]["annotations"].clone();
    let wrong_ones = ["every-annotation-wrong", "shares-and-storage-wrong"];
    let injected =
        wrong_ones.map(|name| std::fs::read_to_string(format!("tests/inject/injected/{name}.yaml")).unwrap());
    let sentences: Vec<&str> =
        injected.iter().flat_map(|text| text.lines().map_while(|line| line.strip_prefix("# "))).collect();
    let mut wrong = Vec::new();
    let given = wrong_ones.map(annotations);
    for (name, value) in given.iter().flat_map(|annotations| annotations.as_object().unwrap()) {
        let said = said(&json!({name: value}));
        let sentence = sentences.iter().find(|sentence| sentence.contains(&format!("{name} "))).unwrap();
        let start = sentence.split("(\"").next().unwrap().trim_end();
        // CEL has no distance between words, so the policy makes no guesses.
        let sentence = sentence.split("; did you mean").next().unwrap();
        let end: String = sentence.rsplit(": ").next().unwrap().chars().take(50).collect();
        let is_said = said.contains(start) && said.contains(&end);
        if said.matches("Warning:").count() != 1 || !is_said {
            wrong.push(format!("{name}: one warning with {sentence:?} is expected in {said}"));
        }
    }
    for name in ["image", "additional-env", "memory-high", "no-such"] {
        let name = format!("config.ebb-cache.io/{name}");
        let said = said(&json!({&name: "x".repeat(4097)}));
        let sentence = format!("annotation {name} is ignored: it must have at most 4096 bytes");
        if said.matches("Warning:").count() != 1 || !said.contains(&sentence) {
            wrong.push(format!("{sentence:?} alone is expected in {said}"));
        }
    }
    for (number, warnings) in [(100, 0), (101, 1)] {
        let variables: Vec<String> = (0..number).map(|n| format!("A_{n:020}=some value")).collect();
        let said = said(&json!({"config.ebb-cache.io/additional-env": variables.join(",")}));
        if said.matches("Warning:").count() != warnings {
            wrong.push(format!("{number} variables: {warnings} warnings are expected in {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let names = ["image", "additional-env", "unix-socket-path", "memory-limit"];
    let all: serde_json::Map<_, _> =
        names.iter().map(|name| (format!("config.ebb-cache.io/{name}"), json!("64Mi"))).collect();
    let refused = said_in(CROWD, &Value::Object(all));
    let sentence = |name| format!("config.ebb-cache.io/{name} is ignored: the namespace needs the label");
    let told = names.map(|name| refused.contains(&sentence(name)));
    assert_eq!((told, refused.matches("Warning:").count()), ([true, true, true, false], 1), "{refused}");
    for name in ["every-annotation", "init-containers-as-callers", "memory-limit-over-a-namespaces-share"] {
        let right = said_of("shop", &of_corpus(name));
        assert!(!right.contains("Warning:"), "{name}: {right}");
    }
    for name in [
        "data-port-collides",
        "declares-ebb-between-init-containers",
        "init-containers-before-the-sidecar",
        "memory-share-and-limit",
        "memory-share-without-limits",
    ] {
        let injected = std::fs::read_to_string(format!("tests/inject/injected/{name}.yaml")).unwrap();
        let sentence = injected.lines().next().unwrap().strip_prefix("# ").unwrap();
        let begin: String = sentence.chars().take(100).collect();
        let said = said_of("shop", &of_corpus(name));
        assert!(said.matches("Warning:").count() == 1 && said.contains(&begin), "{name}: {begin} in {said}");
    }
}

/// The policy and `ebb inject` agree about paths of sockets.
async fn where_sockets_may_be(cluster: &Cluster) {
    let folders = [
        "/run/a",
        "/run/a/b/c",
        "/var/run/a",
        "/tmp/a",
        "/var/tmp/a",
        "/run/secrets-of-mine",
        "/run",
        "/var/run",
        "/tmp",
        "/run/secrets",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "/tmp/secrets",
        "/etc/a",
        "/usr/lib",
        "/proc/1",
        "/sys/fs",
        "/var/lib/a",
        "/srv/a",
        "/app/data",
        "/run/../etc",
        "/run/./a",
        "/run//a",
        "run/a",
        "/etc/ebb",
    ];
    let mut wrong = Vec::new();
    for folder in folders {
        let given = annotated(&[("unix-socket-path", &format!("{folder}/e.sock"))]);
        let namespace = Namespace::default();
        let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
        let is_ignored = !inject(&given, &context, &Template::built_in()).warnings.is_empty();
        let got = cluster.admit(&given, "shop").await.unwrap();
        let mount = &got["spec"]["containers"][0]["volumeMounts"][0]["mountPath"];
        if *mount != if is_ignored { "/run/ebb" } else { folder } {
            wrong.push(format!("{folder}: mounted at {mount}, although ignored is {is_ignored}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn which_applications_are_told(cluster: &Cluster) {
    let own = json!({"spec": {
        "containers": [{
            "name": "app", "image": "app", "env": [{"name": "EBB_ADDR", "value": "mine"}],
            "volumeMounts": [{"name": "v", "mountPath": "/run/ebb"}],
        }],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }});
    let got = cluster.injected("a container's own EBB_ADDR and /run/ebb stay", &pod(&own), "shop").await;
    let container = &got["spec"]["containers"][0];
    assert_eq!((told(&got), &container["env"]), (vec!["app"], &own["spec"]["containers"][0]["env"]));
    assert_eq!(container["volumeMounts"], own["spec"]["containers"][0]["volumeMounts"]);
    let three = ["a", "b", "c"].map(|name| json!({"name": name, "image": name}));
    let three = json!({"spec": {"containers": three}});
    let mut found = Vec::new();
    for named in ["a, c", ""] {
        let mut given = annotated(&[("app-containers", named)]);
        json_patch::merge(&mut given, &three);
        let got = cluster.injected(named, &given, "shop").await;
        found.push((named, told(&got).join(" ")));
    }
    assert_eq!(found, [("a, c", "a c".to_owned()), ("", String::new())]);
}

async fn which_pods_are_left_alone(cluster: &Cluster) {
    let (asks, declines) = (labelled("enabled"), labelled("disabled"));
    cluster.injected("a pod asks in a namespace that does not", &asks, "plain").await;
    assert_eq!(told(&cluster.injected("a pod asks in a namespace that does", &asks, "shop").await), ["app"]);
    cluster.injected("a label that means nothing does not count", &labelled("perhaps"), "shop").await;
    let port = |more: Value| {
        let mut port = json!({"containerPort": 7072});
        json_patch::merge(&mut port, &more);
        with_containers(&json!([{"name": "app", "image": "app", "ports": [port]}]))
    };
    cluster.injected("a pod needs UDP port 7072", &port(json!({"protocol": "UDP"})), "shop").await;
    let spec = |spec: Value| pod(&json!({"spec": spec}));
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "n"}});
    let left_alone = [
        ("a pod that declines", declines, "shop"),
        ("a namespace that does not ask", plain(), "plain"),
        ("a pod that asks in kube-system", asks.clone(), "kube-system"),
        ("a pod that asks in the release's namespace", asks, NAMESPACE),
        ("a pod of the host's network", spec(json!({"hostNetwork": true})), "shop"),
        ("a pod for Windows", spec(json!({"os": {"name": "windows"}})), "shop"),
        ("a pod for nodes with Windows", spec(json!({"nodeSelector": {"kubernetes.io/os": "windows"}})), "shop"),
        ("a pod for a virtual kubelet", spec(json!({"nodeSelector": {"type": "virtual-kubelet"}})), "shop"),
        ("a mirror pod", pod(&mirror), "shop"),
        ("a pod with a volume ebb-config", spec(json!({"volumes": [{"name": "ebb-config", "emptyDir": {}}]})), "shop"),
        ("a pod that needs the port 7072", port(json!({})), "shop"),
    ];
    cluster.are_left_alone(&left_alone).await;
    let many = |number: usize| {
        let of = |n| json!({"name": format!("app-{n}"), "image": "app", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}});
        with_containers(&(0..number).map(of).collect())
    };
    let got = cluster.injected("a pod of 500 containers", &many(500), "shop").await;
    assert_eq!(told(&got).len(), 500);
    cluster.is_left_alone("a pod of 501 containers", &many(501), "shop").await;
    let own = with_containers(&json!([{"name": "ebb", "image": "ebb"}]));
    cluster.is_left_alone("a pod with a container ebb", &own, "shop").await;
}

/// The pod of `helm test` is the only injected one in the release's namespace.
async fn the_pod_of_helm_test(cluster: &Cluster) {
    let hooks = Helm::Four.get(cluster, "hooks");
    let test = hooks.iter().find(|hook| hook["metadata"]["name"] == "ebb-test-injection").expect("helm test has a pod");
    cluster.injected("the pod of helm test", test, NAMESPACE).await;
}

/// The policy's literals equal the PodTemplate's, for any values.
#[tokio::test]
async fn the_policy_follows_the_values_as_the_template_does() {
    let Some(cluster) = Cluster::start().await else { return };
    let strict = "injector.mode=policy,injector.failurePolicy=Fail,sidecar.example=true";
    Helm::Four.install(&cluster, strict);
    until_active(&cluster).await;
    // The data port of the last one is opened by annotations only.
    for (values, more, address) in [
        ("charts/ebb/ci/tcp-values.yaml", "", "127.0.0.1:17070"),
        ("charts/ebb/ci/sidecar-values.yaml", "", "127.0.0.1:7070"),
        ("charts/ebb/ci/events-policy-values.yaml", ",sidecar.ports.data=17070", "unix:/run/ebb/ebb.sock"),
    ] {
        Helm::Four.upgrade(&cluster, &format!("{strict}{more}"), &["--values", values]);
        let template = Template::parse(&Helm::Four.manifest(&cluster)).unwrap();
        let is_upgraded = async || {
            let got = cluster.admit(&labelled("enabled"), "plain").await.unwrap();
            got["spec"]["containers"][0]["env"][0]["value"] == address
        };
        cluster.until("the upgraded policy is active", is_upgraded).await;
        println!("{values}:");
        corpus::compare(&cluster, &template, By::Policy, 50).await;
    }
    let opens = annotated(&[("bind-address", "0.0.0.0")]);
    let got = cluster.injected("an annotation opens the data port of the values", &opens, "shop").await;
    let listen = list(&sidecar(&got).unwrap()["env"]).find(|variable| variable["name"] == "EBB_LISTEN").unwrap();
    assert_eq!(listen["value"], "0.0.0.0:17070");
}

/// Installs, upgrades (loopback, requests below limits) and uninstalls without leftovers.
async fn comes_changes_and_goes(helm: Helm) {
    let Some(cluster) = Cluster::start().await else { return };
    helm.install(&cluster, &format!("{POLICY},standalone.enabled=true"));
    until_active(&cluster).await;
    helm.upgrade(&cluster, POLICY, &["--values", "charts/ebb/ci/tcp-values.yaml"]);
    let asks = labelled("enabled");
    let is_upgraded = async || {
        let got = cluster.admit(&asks, "plain").await.unwrap();
        got["spec"]["containers"][0]["env"][0]["value"] == "127.0.0.1:17070"
    };
    cluster.until("the upgraded policy is active", is_upgraded).await;
    let mut sized = annotated(&[("memory-limit", "100Mi"), ("cpu-request", "2")]);
    json_patch::merge(&mut sized, &json!({"metadata": {"labels": asks["metadata"]["labels"]}}));
    let mut wrong = Vec::new();
    for (given, expected) in [
        (&asks, json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}})),
        (&sized, both("2", "100Mi")),
    ] {
        let got = cluster.admit(given, "plain").await.unwrap();
        if *resources(&got) != expected {
            wrong.push(format!("{given}: {} instead of {expected}", resources(&got)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    helm.uninstall(&cluster);
    assert_eq!(cluster.left_behind().await, Vec::<String>::new());
    let is_gone = async || cluster.admit(&asks, "plain").await.is_ok_and(|got| sidecar(&got).is_none());
    cluster.until("nothing is injected any more", is_gone).await;
}

#[tokio::test]
async fn helm_3_installs_upgrades_and_uninstalls_the_policy() {
    comes_changes_and_goes(Helm::Three).await;
}

#[tokio::test]
async fn helm_4_installs_upgrades_and_uninstalls_the_policy() {
    comes_changes_and_goes(Helm::Four).await;
}

#[test]
fn a_pod_without_its_label_or_its_volumes_is_found_out() {
    let mut whole = pod(&json!({
        "metadata": {"labels": {"ebb-cache.io/injected": "true"}},
        "spec": {
            "initContainers": [{"name": "ebb"}], "volumes": [{"name": "ebb-config"}, {"name": "ebb-socket"}],
            "securityContext": {"supplementalGroups": [65532]},
        },
    }));
    assert_eq!(lacks(&whole), None);
    whole["spec"]["volumes"] = json!([{"name": "ebb-socket"}, {"name": "ebb-config"}]);
    assert_eq!(lacks(&whole), Some("the volumes are missing"));
    assert_eq!(lacks(&plain()), Some("ebb is not the first init container"));
}
