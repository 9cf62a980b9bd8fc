//! Pods that are missed, and scenarios of several searches.

use super::*;
use crate::inject::Namespace;
use crate::webhook::bucket::{Buckets, REVIEWS};
use crate::webhook::metrics::Metrics;
use crate::webhook::namespaces::Namespaces;
use crate::webhook::serve;
use arc_swap::ArcSwapOption;
use http::{Request, Response};
use kube::client::Body;
use serde_json::json;
use std::convert::Infallible;
use std::time::Instant;

fn pod(kind: &str) -> Value {
    json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "1", "labels": {"ebb-cache.io/inject": "enabled"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": "o", "controller": true},
            ],
        },
        "spec": {"containers": [{"name": "app"}]},
    })
}

fn judged(pod: &Value, judge: fn(&Value, &Context<'_>, &Template) -> Option<Missed>) -> bool {
    let namespace = Namespace { name: "shop".to_owned(), ..Namespace::default() };
    let context = Context { namespace: &namespace, own_namespace: Some("ebb-system"), needs_label: true, by: "a test" };
    judge(pod, &context, &Template::built_in()).is_some()
}

fn is_missed(pod: &Value) -> bool {
    judged(pod, missed)
}

fn is_candidate(pod: &Value) -> bool {
    judged(pod, candidate)
}

#[test]
fn a_pod_is_missed_if_it_asks_and_somebody_creates_it_again() {
    assert!(is_missed(&pod("ReplicaSet")));
    assert!(!is_missed(&pod("Job")));
    type Change = fn(&mut Value);
    let changes: &[Change] = &[
        |pod| pod["metadata"]["labels"] = json!({}),
        |pod| pod["metadata"]["ownerReferences"] = json!([]),
        |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-11-25T00:00:00Z"),
        |pod| pod["status"] = json!({"phase": "Failed"}),
        |pod| pod["spec"]["hostNetwork"] = json!(true),
    ];
    let found = changes.iter().map(|change| {
        let mut other = pod("ReplicaSet");
        change(&mut other);
        (is_missed(&other), is_candidate(&other))
    });
    let (by_metadata, by_the_rest) = ((false, false), (false, true));
    let expected = [by_metadata, by_metadata, by_metadata, by_the_rest, by_the_rest];
    assert_eq!(found.collect::<Vec<_>>(), expected, "whether it is missed, and a candidate, after each change");
    assert!(is_candidate(&json!({"metadata": pod("ReplicaSet")["metadata"]})));
}

#[test]
fn labels_of_a_live_pod_evict_nobody() {
    let entry = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let of_owner = |labels| Asked { labels, annotations: BTreeMap::new() };
    let [asks, declines, silent] = [
        of_owner(entry("ebb-cache.io/inject", "enabled")),
        of_owner(entry("ebb-cache.io/inject", "disabled")),
        of_owner(BTreeMap::new()),
    ];
    let live = pod("ReplicaSet");
    let found = [&asks, &declines, &silent].map(|asked| is_missed(&as_asked(&live, asked)));
    assert_eq!(found, [true, false, false], "whether it is missed, by what its owner's template says");

    // An annotation of the live pod does not move the port that keeps it from being injected.
    let mut taken = live.clone();
    taken["spec"]["containers"][0]["ports"] = json!([{"containerPort": 7072}]);
    taken["metadata"]["annotations"] = json!({"config.ebb-cache.io/http-port": "9072"});
    assert_eq!([is_missed(&taken), is_missed(&as_asked(&taken, &asks))], [true, false]);
    // Nor does the removal of a label: a pod with its sidecar has the sidecar's volumes.
    let mut injected = live;
    injected["spec"]["volumes"] = json!([{"name": "ebb-config"}]);
    injected["spec"]["initContainers"] = json!([{"name": "ebb"}]);
    assert!(!is_missed(&as_asked(&injected, &asks)));
}

fn of(owner: &str, uid: &str) -> Missed {
    let owner = Owner {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: "web".to_owned(),
        uid: owner.to_owned(),
    };
    Missed { namespace: "shop".to_owned(), name: uid.to_owned(), uid: uid.to_owned(), owner }
}

/// Several searches of the watchdog: missed pods, pods with a sidecar by owner, and evicted pods.
#[derive(Default)]
struct Scenario(Memory);

impl Scenario {
    fn look(&mut self, missed: &[&Missed], injected: &[(&str, &str)]) -> Vec<String> {
        let mut by_owner = Injected::new();
        for (owner, pod) in injected {
            by_owner.entry((*owner).to_owned()).or_default().insert((*pod).to_owned());
        }
        let missed: Vec<_> = missed.iter().map(|pod| (*pod).clone()).collect();
        let (chosen, most) = self.0.choose(&missed, &by_owner);
        let chosen: Vec<_> = chosen.into_iter().take(most).collect();
        chosen.iter().for_each(|pod| self.0.evicted(pod, &by_owner));
        chosen.into_iter().map(|pod| pod.name).collect()
    }
}

const NOBODY: [&str; 0] = [];

#[test]
fn evicts_others_only_after_a_replacement_has_its_sidecar() {
    let mut scenario = Scenario::default();
    let [a, b, c, d, e] = [of("one", "a"), of("one", "b"), of("one", "c"), of("two", "d"), of("two", "e")];
    let had = ("one", "earlier");
    assert_eq!(scenario.look(&[&a, &b, &c, &d, &e], &[had]), NOBODY, "seen for the first time");
    assert_eq!(scenario.look(&[&a, &b, &c, &d, &e], &[had]), ["a"]);
    assert_eq!(scenario.look(&[&b, &c, &d, &e], &[had]), NOBODY, "it has not come again yet");
    assert_eq!(scenario.look(&[&b, &c, &d, &e], &[had, ("one", "a2")]), ["b", "c", "d"], "of another owner one again");
    assert_eq!(scenario.look(&[&e], &[("two", "d2")]), ["e"]);
    assert_eq!(scenario.look(&[], &[]), NOBODY);
}

#[test]
fn gives_up_an_owner_whose_replacement_has_no_sidecar() {
    let mut scenario = Scenario::default();
    let [a, b, again, c, d] = [of("one", "a"), of("one", "b"), of("one", "a2"), of("two", "c"), of("three", "d")];
    scenario.look(&[&a, &b, &c, &d], &[]);
    assert_eq!(scenario.look(&[&a, &b, &c, &d], &[]), ["a"]);
    assert_eq!(scenario.look(&[&b, &again, &c, &d], &[]), ["c"], "one at a time, since nobody may be asking");
    assert_eq!(scenario.look(&[&b, &again, &d], &[]), NOBODY);
    assert_eq!(scenario.look(&[&b, &again, &d], &[("two", "c2")]), ["d"], "somebody asks");
    assert_eq!(scenario.look(&[&b, &again], &[("three", "d2")]), NOBODY);
    assert_eq!(scenario.0.given_up(), 1);
}

#[test]
fn a_pod_that_never_comes_again_is_no_trial_for_ever() {
    let mut scenario = Scenario::default();
    let [a, b] = [of("one", "a"), of("one", "b")];
    scenario.look(&[&a, &b], &[]);
    assert_eq!(scenario.look(&[&a, &b], &[]), ["a"]);
    let looks = (1..).find(|_| scenario.look(&[&b], &[]) == ["b"]);
    assert_eq!(looks, Some(LOOKS));
}

/// An API server with these pods, whose owners' templates have the label.
fn server(pods: Vec<Value>) -> Client {
    let pods = Arc::new(pods);
    let answer = move |request: Request<Body>| {
        let pods = pods.clone();
        async move {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            let asked = |key: &str| query.split('&').find_map(|word| word.strip_prefix(key)).unwrap_or_default();
            let answer = match path {
                _ if path.contains("mutatingwebhookconfigurations") => json!({"webhooks": [{}]}),
                "/api/v1/namespaces" => json!({"metadata": {}, "items": [{"metadata": {"name": "shop"}}]}),
                _ if path.ends_with("/pods") => {
                    let name = asked("fieldSelector=metadata.name%3D");
                    let all = || pods.iter().filter(|pod| name.is_empty() || pod["metadata"]["name"] == name);
                    let at: usize = asked("continue=").parse().unwrap_or(0);
                    let next = if at + 100 < all().count() { (at + 100).to_string() } else { String::new() };
                    json!({"metadata": {"continue": next}, "items": all().skip(at).take(100).collect::<Vec<_>>()})
                }
                _ => {
                    let asks = json!({"metadata": {"labels": {"ebb-cache.io/inject": "enabled"}}});
                    json!({"metadata": {"uid": path.rsplit('/').next()}, "spec": {"template": asks}})
                }
            };
            Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
        }
    };
    Client::new(tower::service_fn(answer), "default")
}

#[tokio::test]
async fn pods_left_alone_neither_count_nor_displace_missed_ones() {
    let of = |owner: &str, name: String, is_alone: bool| {
        let mut pod = pod("ReplicaSet");
        (pod["metadata"]["name"], pod["metadata"]["uid"]) = (json!(name), json!(name));
        (pod["metadata"]["ownerReferences"][0]["name"], pod["metadata"]["ownerReferences"][0]["uid"]) =
            (json!(owner), json!(owner));
        pod["spec"]["hostNetwork"] = json!(is_alone);
        pod
    };
    let alone = (0..MOST_MISSED + 50).map(|n| of("net", format!("net-{n}"), true));
    let missed = (0..3).map(|n| of("web", format!("web-{n}"), false));
    let client = server(alone.chain(missed).collect());
    let injector = Injector {
        template: ArcSwapOption::new(Some(Arc::new(Template::built_in()))),
        namespaces: Namespaces::follow(client.clone()),
        own_namespace: "ebb-system".to_owned(),
        by: "a test".to_owned(),
        metrics: Arc::new(Metrics::new(serve::connections())),
        events: None,
        connections: serve::connections(),
        reviews: Buckets::new(REVIEWS, Instant::now()),
        large: tokio::sync::Semaphore::new(1),
        clients: None,
    };
    let coverage = Coverage::read(&client, "ebb").await.unwrap();
    let (found, number) = missed_in_all(&client, &injector, (&coverage, &[]), &Memory::default()).await.unwrap();
    let names: Vec<_> = found.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!((names, number), (vec!["web-0", "web-1", "web-2"], 3));
    let nowhere = missed_in_all(&client, &injector, (&Coverage::default(), &[]), &Memory::default()).await.unwrap();
    assert_eq!(nowhere, (Vec::new(), 0), "no selector shows a pod to the webhook");
}
