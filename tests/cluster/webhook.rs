//! The webhook: additions to pods, certificate rotation, and failures.

use crate::apiserver::{Cluster, client};
use crate::audit::EVENT_TRIES;
use crate::common::within;
use crate::corpus::{self, By};
use crate::helm::{Helm, NAMESPACE};
use crate::pods::{annotated, labelled, lacks, plain, pod, resources, told, with_containers};
use crate::quota;
use crate::rbac::rights_of;
use crate::replica::{CONFIGURATION, INJECTOR, Replica, SECRET, bundles, can_be_reached, mount, path, unroute};
use ebb_injector::inject::Template;
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Config};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

/// The failure policy is `Fail`, so that a call without an answer fails the scenario.
const WEBHOOK: &str = "injector.mode=webhook,injector.failurePolicy=Fail";

/// A cluster with the chart, and whether a webhook can be reached in it.
async fn installed(helm: Helm) -> Option<Cluster> {
    let cluster = Cluster::start().await.filter(|_| can_be_reached())?;
    helm.install(&cluster, WEBHOOK);
    Some(cluster)
}

#[tokio::test]
async fn the_webhook_gives_pods_what_ebb_inject_gives_them() {
    let Some(cluster) = installed(Helm::Four).await else { return };
    let nobody = cluster.admit(&plain(), "shop").await.expect_err("nobody is there, and the policy is to fail");
    assert!(nobody.contains("namespaces.injector.ebb-cache.io"), "the webhook is named: {nobody}");
    let one = Replica::serving(&cluster, "one").await;
    cluster.until_injected(&plain(), "shop").await;
    steady_load(&one, &path(&cluster).await.unwrap()).await;

    assert_eq!(told(&cluster.injected("a pod with nothing", &plain(), "shop").await), ["app"]);
    corpus::compare(&cluster, &Template::built_in(), By::Webhook, 49).await;
    let left_alone = [
        ("a pod that declines", labelled("disabled"), "shop"),
        ("a namespace that does not ask", plain(), "plain"),
        ("a pod that asks in the release's namespace", labelled("enabled"), NAMESPACE),
        ("a pod of the host's network", pod(&json!({"spec": {"hostNetwork": true}})), "shop"),
    ];
    cluster.are_left_alone(&left_alone).await;
    cluster.injected("a pod asks in a namespace that does not", &labelled("enabled"), "plain").await;
    quota::namespaces_with_rules(&cluster).await;
    annotations_are_inherited(&cluster).await;
    a_wrong_annotation_is_a_warning(&cluster).await;
    owners_are_told(&cluster, &one).await;

    let all = futures::stream::iter(0..200).map(async |_| cluster.injected("200 at once", &plain(), "shop").await);
    assert_eq!(all.buffer_unordered(50).count().await, 200);
    let value = "x".repeat(2800 << 10);
    let big = json!([{"name": "app", "image": "app", "env": [{"name": "BIG", "value": value}]}]);
    let got = cluster.admit(&with_containers(&big), "shop").await.expect("a pod of 2.8 MiB is admitted");
    assert_eq!(lacks(&got), None, "a pod of 2.8 MiB");

    let rights = rights_of(&Helm::Four.get(&cluster, "manifest"), INJECTOR);
    cluster.used_its_rights(NAMESPACE, INJECTOR, &rights);
}

/// Pods follow the current annotations of their namespace.
async fn annotations_are_inherited(cluster: &Cluster) {
    for (value, expected) in [(json!("64Mi"), "64Mi"), (Value::Null, "256Mi")] {
        cluster.annotate("shop", json!({"config.ebb-cache.io/memory-limit": value})).await;
        let holds = async || {
            let got = cluster.admit(&plain(), "shop").await.unwrap();
            resources(&got)["limits"]["memory"] == expected
        };
        cluster.until("a namespace's annotation is inherited, and then no longer", holds).await;
    }
}

/// The client gets warnings in the response headers.
async fn a_wrong_annotation_is_a_warning(cluster: &Cluster) {
    let body = Body::from(annotated(&[("uid", "root")]).to_string().into_bytes());
    let asked =
        http::Request::post("/api/v1/namespaces/shop/pods?dryRun=All").header("content-type", "application/json");
    let answer = cluster.client.send(asked.body(body).unwrap()).await.unwrap();
    let warnings: Vec<_> = answer.headers().get_all("warning").iter().map(|text| text.to_str().unwrap()).collect();
    let sentence = r#"annotation config.ebb-cache.io/uid (\"root\") is ignored: it must be 1 to 2147483647"#;
    assert!(answer.status().is_success(), "{}", answer.status());
    assert!(warnings.iter().any(|warning| warning.contains(sentence)), "{warnings:?}");
}

/// The owner of a pod gets Events, except for dry runs.
async fn owners_are_told(cluster: &Cluster, one: &Replica) {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "shop");
    let told = async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        let told =
            events.items.into_iter().map(|event| (event.reason.unwrap(), event.regarding.unwrap().name.unwrap()));
        told.collect::<BTreeSet<_>>()
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let owned = |owner: &Value, more: Value| {
        let metadata = json!({"name": null, "generateName": "p-", "ownerReferences": [owner]});
        let mut pod = pod(&json!({"metadata": metadata}));
        json_patch::merge(&mut pod, &more);
        pod
    };
    let create = async |pod: Value| {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    };
    let owner = cluster.owner("ReplicaSet", "web", "shop", &json!({})).await;
    cluster.injected("only tried", &owned(&owner, json!({})), "shop").await;
    // A second Event of the same kind is merged with the first.
    for spec in [json!({}), json!({"hostNetwork": true}), json!({})] {
        let annotations = json!({"config.ebb-cache.io/uid": "s3cret"});
        create(owned(&owner, json!({"metadata": {"annotations": annotations}, "spec": spec}))).await;
    }
    for kind in ["DaemonSet", "Job", "ReplicationController", "StatefulSet"] {
        let other = cluster.owner(kind, &format!("other-{}", kind.to_lowercase()), "shop", &json!({})).await;
        create(owned(&other, json!({}))).await;
    }
    // An owner of a kind that is not read: the Event is about the namespace.
    let unknown =
        json!({"apiVersion": "example.test/v1", "kind": "Rollout", "name": "r", "uid": "1", "controller": true});
    create(owned(&unknown, json!({}))).await;
    // An owner that does not exist gets no Event.
    let so_far = one.metric(UNVERIFIED);
    let mut forged = owner.clone();
    forged["uid"] = json!("forged");
    create(owned(&forged, json!({}))).await;
    cluster.until("a forged owner is noticed", async || one.metric(UNVERIFIED) == so_far + 1).await;

    let injected = ["web", "other-daemonset", "other-job", "other-replicationcontroller", "other-statefulset", "shop"];
    let mut expected: BTreeSet<_> = injected.iter().map(|name| ("Injected".to_owned(), (*name).to_owned())).collect();
    expected.extend(["AnnotationIgnored", "InjectionSkipped"].map(|reason| (reason.to_owned(), "web".to_owned())));
    cluster.until("the owners have Events", async || told().await == expected).await;
    let of_the_first = async || {
        let injected = events.list(&ListParams::default()).await.unwrap().items;
        let is_first = |event: &&Event| {
            let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
            event.reason.as_deref() == Some("Injected") && about == Some("web")
        };
        let injected: Vec<_> = injected.iter().filter(is_first).collect();
        injected.len() == 1 && injected[0].series.as_ref().is_some_and(|series| series.count == 2)
    };
    cluster.until("a repeated Event is counted, a dry run is not", of_the_first).await;
    let notes = events.list(&ListParams::default()).await.unwrap().items;
    let notes: Vec<_> = notes.into_iter().filter_map(|event| event.note).collect();
    assert!(!notes.iter().any(|note| note.contains("s3cret")), "an annotation's value is in a note: {notes:?}");
    reviews_of_anybody_write_nothing_elsewhere(cluster, one).await;
}

/// Admissions whose object the API server does not have.
const UNVERIFIED: &str = "ebb_injector_events_total{outcome=\"unverified\"}";

/// Whoever reaches the webhook can name any object, also one that exists.
async fn reviews_of_anybody_write_nothing_elsewhere(cluster: &Cluster, one: &Replica) {
    let real = cluster.owner("ReplicaSet", "of-the-system", "kube-system", &json!({})).await;
    let of_plain = cluster.owner("ReplicaSet", "of-plain", "plain", &json!({})).await;
    let caller = client(Config::new(format!("https://{}", one.address()).parse().unwrap()));
    let path = path(cluster).await.unwrap();
    let ask = async |namespace: &str, owner: &Value| {
        let object = pod(&json!({"metadata": {"ownerReferences": [owner]}}));
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": namespace, "object": object,
            },
        });
        let asked = http::Request::post(&path).body(review.to_string().into_bytes()).unwrap();
        caller.request::<Value>(asked).await.unwrap()
    };
    ask("kube-system", &real).await;
    let so_far = one.metric(UNVERIFIED);
    // The owner exists, but in another namespace.
    ask("plain", &real).await;
    cluster.until("it is not found there", async || one.metric(UNVERIFIED) == so_far + 1).await;
    ask("plain", &of_plain).await;
    let events = async |namespace: &str| {
        let events: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
        events.list(&ListParams::default()).await.unwrap().items.len()
    };
    cluster.until("an owner that exists has its Event", async || events("plain").await == 1).await;
    assert_eq!(events("kube-system").await, 0);
    // A flood from one address is limited, as soon as it is faster than the rate and longer than the burst.
    for _ in 0..20 {
        let answers = futures::future::join_all((0..1_000).map(async |_| {
            let asked = http::Request::post(&path).body(Vec::from("{}")).unwrap();
            caller.request::<Value>(asked).await.err()
        }));
        if answers.await.into_iter().flatten().any(|error| error.to_string().contains("too many reviews")) {
            break;
        }
    }
    assert!(one.metric("ebb_injector_limited_total{what=\"review\"}") > 0);
}

/// Prints the latency of reviews, at 200 per second over kept connections. There is no bound, since the machine is
/// busy.
async fn steady_load(replica: &Replica, path: &str) {
    const CONNECTIONS: u64 = 4;
    const EACH: usize = 250;
    let idle = replica.rss_mib();
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": "shop", "object": plain(),
        },
    });
    let review = review.to_string().into_bytes();
    let callers = (0..CONNECTIONS).map(async |number| {
        let caller = client(Config::new(format!("https://{}", replica.address()).parse().unwrap()));
        let first = tokio::time::Instant::now() + Duration::from_millis(number * 1000 / 200);
        let mut due = tokio::time::interval_at(first, Duration::from_millis(CONNECTIONS * 1000 / 200));
        let mut took = Vec::new();
        for _ in 0..EACH {
            due.tick().await;
            let begun = Instant::now();
            let asked = http::Request::post(path).body(review.clone()).unwrap();
            let answer: Value = caller.request(asked).await.unwrap();
            took.push(begun.elapsed());
            assert_eq!(answer["response"]["allowed"], true, "{answer}");
        }
        took
    });
    let mut took = futures::future::join_all(callers).await.concat();
    took.sort();
    println!(
        "{} reviews at 200 a second: {:.2} ms in the median, {:.2} ms at p99; {idle:.1} MiB resident before, {:.1} MiB after",
        took.len(),
        took[took.len() / 2].as_secs_f64() * 1000.0,
        took[took.len() * 99 / 100].as_secs_f64() * 1000.0,
        replica.rss_mib(),
    );
}

/// CAs live 36 s and serving certificates 12 s; a pod is refused if they ever do not match. The called replica is not
/// the leader, and sees each step up to a second later.
#[tokio::test]
async fn cas_change_and_no_pod_is_refused() {
    let Some(cluster) = installed(Helm::Four).await else { return };
    let leader = Replica::ready(&cluster, "leader", "100ms").await;
    let follower = Replica::ready(&cluster, "follower", "1s").await;
    follower.route(&cluster, "follower").await;
    cluster.until_injected(&plain(), "shop").await;
    let (seen, paths) = (std::cell::RefCell::new(BTreeSet::new()), std::cell::RefCell::new(BTreeSet::new()));
    let more = async || {
        for _ in 0..10 {
            cluster.injected("while CAs change", &plain(), "shop").await;
        }
        let now = bundles(&cluster).await;
        seen.borrow_mut().extend(now);
        let path = path(&cluster).await;
        paths.borrow_mut().extend(path);
        seen.borrow().len() >= 5
    };
    within(Duration::from_secs(150), "five different bundles of CAs", more).await;
    assert!(leader.leads() && !follower.leads(), "no replica failed meanwhile");
    let paths: Vec<_> = paths.into_inner().into_iter().collect();
    assert!(paths.len() >= 2 && paths.iter().all(|path| path.len() == 72), "the path changes with the CA: {paths:?}");
    let caller = client(Config::new(format!("https://{}", follower.address()).parse().unwrap()));
    for wrong in
        ["/inject", "/inject/", "/", "/inject/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
    {
        let asked = http::Request::post(wrong).body(Vec::from("{}")).unwrap();
        let refused = caller.request::<Value>(asked).await.unwrap_err().to_string();
        assert!(refused.contains("path in the webhook configuration"), "{wrong}: {refused}");
    }
    rotations_are_told(&cluster).await;
    failures_are_told(&cluster).await;
    nobody_insists_on_telling(&cluster, &leader).await;
}

/// Events on the Secret, as `reason action`, each with its note.
async fn told_of_certificates(cluster: &Cluster) -> BTreeMap<String, String> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let uid = secrets.get(SECRET).await.unwrap().metadata.uid;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let ours = events.into_iter().filter(|event| event.regarding.as_ref().is_some_and(|about| about.uid == uid));
    ours.map(|event| {
        let name = format!("{} {}", event.reason.unwrap(), event.action.unwrap());
        (name, format!("{}: {}", event.type_.unwrap(), event.note.unwrap()))
    })
    .collect()
}

/// New serving certificates and CAs cause Events with their expiry; intermediate steps cause none.
async fn rotations_are_told(cluster: &Cluster) {
    let expected = ["CertificateCreated Create", "CertificateRotated RotateCa", "CertificateRotated RotateCertificate"];
    let is_told = async || told_of_certificates(cluster).await.keys().eq(&expected);
    cluster.until("both are rotated, and the Secret has Events about it", is_told).await;
    let told = told_of_certificates(cluster).await;
    let mut wrong = Vec::new();
    for (which, begins) in [(expected[1], "Normal: new CA"), (expected[2], "Normal: new serving certificate")] {
        let note = &told[which];
        let ends: Vec<Timestamp> =
            note.split([' ', ',', ';']).filter(|word| word.ends_with('Z')).map(|time| time.parse().unwrap()).collect();
        if !note.starts_with(begins) || ends.len() != 2 {
            wrong.push(format!("{which}: {note:?} must begin with {begins:?} and tell two times"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let words = ["events", "--namespace", NAMESPACE, "--for", &format!("secret/{SECRET}")];
    let shown = cluster.kubectl(&words);
    assert!(shown.out.contains("RotateCa") || shown.out.contains("new CA"), "{}", shown.said);
}

/// A leader without the right to write the Secret writes an Event, and continues once it has the right.
async fn failures_are_told(cluster: &Cluster) {
    let roles: Api<Role> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let allow = async |verbs: &[&str]| {
        let patch = json!([
            {"op": "test", "path": "/rules/0/resources", "value": ["secrets"]},
            {"op": "replace", "path": "/rules/0/verbs", "value": verbs},
        ]);
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        roles.patch(INJECTOR, &PatchParams::default(), &Patch::<()>::Json(patch)).await.unwrap();
    };
    allow(&["get"]).await;
    const FAILED: &str = "CertificateRotationFailed Rotate";
    let is_told = async || told_of_certificates(cluster).await.contains_key(FAILED);
    cluster.until("the Secret has an Event about the failure", is_told).await;
    let note = told_of_certificates(cluster).await.remove(FAILED).unwrap();
    assert!(note.starts_with("Warning: certificates cannot be renewed: the Secret: "), "{note}");
    assert!(note.contains("forbidden"), "{note}");
    allow(&["get", "update"]).await;
    cluster.until_injected(&plain(), "shop").await;
}

/// Without the right to write Events, certificates rotate as before, and one Event is tried instead of each.
async fn nobody_insists_on_telling(cluster: &Cluster, leader: &Replica) {
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let mut role = roles.get(CONFIGURATION).await.unwrap();
    let is_about_events = |rule: &PolicyRule| rule.resources.iter().flatten().any(|resource| resource == "events");
    role.rules.as_mut().unwrap().retain(|rule| !is_about_events(rule));
    roles.replace(CONFIGURATION, &PostParams::default(), &role).await.unwrap();
    let before = cluster.times_refused(NAMESPACE, INJECTOR);
    let served = || leader.log().matches("serving a new certificate").count();
    let so_far = served();
    let forbidden = || leader.metric("ebb_injector_events_total{outcome=\"forbidden\"}");
    let goes_on = async || forbidden() >= 2 && served() >= so_far + 2;
    cluster.until("certificates rotate although Events cannot be written", goes_on).await;
    assert_eq!(cluster.times_refused(NAMESPACE, INJECTOR), before + EVENT_TRIES);
}

#[tokio::test]
async fn injection_recovers_from_failed_replicas_and_api_server() {
    let Some(mut cluster) = installed(Helm::Four).await else { return };
    let one = Replica::serving(&cluster, "one").await;
    let mut two = Replica::serving(&cluster, "two").await;
    assert!(one.leads() && !two.leads(), "one of two leads");
    drop(one); // killed
    unroute(&cluster, "one").await;
    cluster.until("the other takes the Lease", async || two.leads()).await;
    cluster.until_injected(&plain(), "shop").await;

    cluster.restart().await;
    cluster.until_injected(&plain(), "shop").await;
    cluster.until("the replica leads again", async || two.leads()).await;

    let file = cluster.folder.path().join(format!("{INJECTOR}.sidecar.yaml"));
    let good = fs::read_to_string(&file).unwrap();
    let log_format = "- name: EBB_LOG_FORMAT";
    assert!(good.contains(log_format), "{good}");
    let no_start =
        good.replacen(log_format, &format!("- {{name: EBB_CORES, value: \"0\"}}\n          {log_format}"), 1);
    for bad in ["not: a template # kubectl.kubernetes.io/x\n", &no_start] {
        fs::write(&file, bad).unwrap();
        cluster.until("a bad template is noticed", async || two.metric("ebb_injector_template_good") == 0).await;
        cluster.injected("the last good template stays", &plain(), "shop").await;
        if bad == no_start {
            let events: Api<Event> = Api::namespaced(cluster.client.clone(), NAMESPACE);
            let is_told = async || {
                let events = events.list(&ListParams::default()).await.unwrap();
                let notes = events.iter().filter(|event| event.reason.as_deref() == Some("TemplateRejected"));
                let mut notes = notes.filter_map(|event| event.note.as_deref());
                notes.any(|note| note.contains("the last good one stays active"))
            };
            cluster.until("an Event says so", is_told).await;
            assert!(two.log().contains("cores: 0 is out of range (1 to 64)"), "{}", two.log());
        }
        fs::write(&file, &good).unwrap();
        cluster.until("a good one is taken", async || two.metric("ebb_injector_template_good") == 1).await;
    }

    assert_eq!(two.terminate(), Some(0), "{}", two.log());
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let holder = leases.get(INJECTOR).await.unwrap().spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder.unwrap_or_default(), "", "it gave the Lease back");
}

/// Installs, upgrades during injection, and uninstalls without leftovers.
async fn comes_changes_and_goes(helm: Helm) {
    let Some(cluster) = installed(helm).await else { return };
    let mut one = Replica::serving(&cluster, "one").await;
    cluster.until_injected(&plain(), "shop").await;
    helm.upgrade(&cluster, WEBHOOK, &["--set", "sidecar.resources.limits.memory=300Mi"]);
    let bundles = bundles(&cluster).await;
    assert!(!bundles.is_empty() && bundles.iter().all(|bundle| !bundle.is_empty()), "the upgrade left the CAs alone");
    cluster.injected("before the file is there", &plain(), "shop").await;
    mount(&cluster).await;
    let is_new = async || {
        let got = cluster.injected("after the upgrade", &plain(), "shop").await;
        resources(&got)["limits"]["memory"] == "300Mi"
    };
    cluster.until("the injector follows its template", is_new).await;
    assert_eq!(one.terminate(), Some(0), "{}", one.log());
    unroute(&cluster, "one").await;
    helm.uninstall(&cluster);
    assert_eq!(cluster.left_behind().await, Vec::<String>::new());
    cluster.until("no webhook is called any more", async || cluster.admit(&plain(), "shop").await.is_ok()).await;
    cluster.is_left_alone("nothing is injected any more", &plain(), "shop").await;
}

#[tokio::test]
async fn helm_3_installs_upgrades_and_uninstalls_the_webhook() {
    comes_changes_and_goes(Helm::Three).await;
}

#[tokio::test]
async fn helm_4_installs_upgrades_and_uninstalls_the_webhook() {
    comes_changes_and_goes(Helm::Four).await;
}
