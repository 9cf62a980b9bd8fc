//! The watchdog: evicts pods that ask for a sidecar and were created while nothing injected, so that they come again with one.
//!
//! ```text
//!  pods without the label ──► missed (pure: what `inject` would do now) ──► Memory::choose (pure) ──► evictions
//! ```
//! W1. Only pods that somebody creates again are evicted, and of those no Job's: it would count that as a failure.
//! W2. Pods are evicted, not deleted, so PodDisruptionBudgets hold; so many a minute, by the leader alone.
//! W3. Of an owner one pod is evicted first, and more only if it did not come again without a sidecar.
//! W4. An eviction that brings no review says that nobody asks this injector: nothing more is evicted until somebody does.

use super::Injector;
use super::review::{Owner, owner};
use crate::k8s::inject::{Context, Template, Verdict, inject};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Preconditions};
use kube::{Api, Client};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Pods of a page: few, since each is held whole for a moment.
const PAGE: usize = 50;
/// What creates its pods again, and thinks nothing of it.
const CREATES_AGAIN: [&str; 4] = ["DaemonSet", "ReplicaSet", "ReplicationController", "StatefulSet"];

/// How the watchdog runs.
#[derive(Clone, Debug)]
pub(crate) struct Watchdog {
    /// How often all pods are looked at.
    pub(crate) interval: Duration,
    /// How many are evicted in a minute, at most.
    pub(crate) max_per_minute: u32,
    /// Namespaces that the webhook is not asked about.
    pub(crate) excluded: Vec<String>,
}

/// A pod that should have a sidecar and has none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Missed {
    namespace: String,
    name: String,
    uid: String,
    owner: Owner,
}

/// Whether a pod was missed: it would be injected if it were created now, and somebody creates it again.
fn missed(pod: &Value, context: &Context<'_>, template: &Template) -> Option<Missed> {
    let meta = &pod["metadata"];
    let owner = owner(pod).filter(|owner| CREATES_AGAIN.contains(&owner.kind.as_str()))?;
    let has_ended = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    if has_ended || !meta["deletionTimestamp"].is_null() {
        return None;
    }
    let text = |key: &str| meta[key].as_str().map(str::to_owned);
    match inject(pod, context, template).verdict {
        Verdict::Inject(_) => {
            Some(Missed { namespace: text("namespace")?, name: text("name")?, uid: text("uid")?, owner })
        }
        Verdict::Skip(..) => None,
    }
}

/// What is known of an owner of which a pod was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// What came of it is not known yet.
    Open,
    /// It came again with a sidecar, or not at all.
    Passed,
    /// It came again without one.
    Failed,
}

/// What the watchdog knows from the looks before.
#[derive(Debug, Default)]
struct Memory {
    seen: BTreeSet<String>,
    owners: BTreeMap<String, Trial>,
    /// How many reviews there were when the last pod was evicted.
    reviews_at_eviction: Option<u64>,
}

impl Memory {
    /// The pods that may be evicted now, of those that are without, and how many of them.
    fn choose(&mut self, missed: &[Missed], reviews: u64) -> (Vec<Missed>, usize) {
        for pod in missed.iter().filter(|pod| !self.seen.contains(&pod.uid)) {
            if let Some(trial) = self.owners.get_mut(&pod.owner.uid) {
                *trial = Trial::Failed;
            }
        }
        for trial in self.owners.values_mut().filter(|trial| **trial == Trial::Open) {
            *trial = Trial::Passed;
        }
        let before = std::mem::take(&mut self.seen);
        self.seen = missed.iter().map(|pod| pod.uid.clone()).collect();
        self.owners.retain(|uid, _| missed.iter().any(|pod| pod.owner.uid == *uid));
        let most = match reviews {
            _ if self.reviews_at_eviction == Some(reviews) => 0,
            0 => 1,
            _ => missed.len(),
        };
        let mut tried = BTreeSet::new();
        let mut may = |pod: &&Missed| match self.owners.get(&pod.owner.uid) {
            None => tried.insert(pod.owner.uid.clone()),
            Some(Trial::Passed) => true,
            Some(Trial::Open | Trial::Failed) => false,
        };
        // One that was not there at the look before may be about to go, or to get what it waits for.
        let known = missed.iter().filter(|pod| before.contains(&pod.uid));
        (known.filter(|pod| may(pod)).cloned().collect(), most)
    }

    /// A pod was evicted.
    fn evicted(&mut self, pod: &Missed, reviews: u64) {
        self.owners.entry(pod.owner.uid.clone()).or_insert(Trial::Open);
        self.reviews_at_eviction = Some(reviews);
    }

    /// Owners whose pods come again without a sidecar.
    fn given_up(&self) -> usize {
        self.owners.values().filter(|trial| **trial == Trial::Failed).count()
    }
}

/// Watches for as long as it is polled.
pub(super) async fn watch(client: Client, injector: Arc<Injector>, how: Watchdog, leads: watch::Receiver<bool>) {
    let mut looks = tokio::time::interval(how.interval);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut evictions = tokio::time::interval(Duration::from_secs(60) / how.max_per_minute);
    evictions.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut memory = Memory::default();
    loop {
        looks.tick().await;
        if !*leads.borrow() {
            memory = Memory::default();
            injector.metrics.missed(0);
            continue;
        }
        let missed = match look(&client, &injector, &how.excluded).await {
            Ok(missed) => missed,
            Err(error) => {
                tracing::warn!(%error, "the watchdog cannot look at pods");
                continue;
            }
        };
        injector.metrics.missed(missed.len());
        let (chosen, most) = memory.choose(&missed, injector.metrics.reviews());
        if !missed.is_empty() {
            let (missed, given_up) = (missed.len(), memory.given_up());
            tracing::info!(
                missed,
                may_be_evicted = chosen.len().min(most),
                owners_given_up = given_up,
                "pods without the sidecar they ask for"
            );
        }
        let mut evicted = 0;
        for pod in chosen {
            // One that a budget holds back does not keep the others.
            if evicted == most {
                break;
            }
            evictions.tick().await;
            let reviews = injector.metrics.reviews();
            if *leads.borrow() && evict(&client, &injector, &pod).await {
                memory.evicted(&pod, reviews);
                evicted += 1;
            }
        }
    }
}

/// All pods that were missed, looked for page by page.
async fn look(client: &Client, injector: &Injector, excluded: &[String]) -> Result<Vec<Missed>, kube::Error> {
    let (mut found, mut token) = (Vec::new(), String::new());
    let template = injector.template.load();
    loop {
        let path = format!("/api/v1/pods?labelSelector=%21ebb-cache.io%2Finjected&limit={PAGE}&continue={token}");
        let request = Request::get(path).body(Vec::new()).expect("a token is made of letters and digits");
        let page: Value = client.request(request).await?;
        for pod in page["items"].as_array().into_iter().flatten() {
            let namespace = injector.namespace(pod["metadata"]["namespace"].as_str().unwrap_or_default());
            if excluded.contains(&namespace.name) {
                continue;
            }
            let context = Context {
                namespace: &namespace,
                own_namespace: Some(&injector.own_namespace),
                needs_label: true,
                by: &injector.by,
            };
            found.extend(missed(pod, &context, &template));
        }
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => return Ok(found),
        }
    }
}

/// Whether it was evicted.
async fn evict(client: &Client, injector: &Injector, pod: &Missed) -> bool {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let only_this = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let delete_options = Some(DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() });
    let outcome = match pods.evict(&pod.name, &EvictParams { delete_options, ..EvictParams::default() }).await {
        Ok(_) => "evicted",
        Err(kube::Error::Api(status)) if status.code == 429 => "held-back",
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => "gone",
        Err(error) => {
            tracing::warn!(%error, namespace = pod.namespace, pod = pod.name, "an eviction failed");
            "failed"
        }
    };
    injector.metrics.evicted(outcome);
    tracing::info!(namespace = pod.namespace, pod = pod.name, owner = pod.owner.name, outcome, "eviction");
    let is_evicted = outcome == "evicted";
    if is_evicted && let Some(events) = &injector.events {
        events.evicted(&pod.owner, &pod.namespace);
    }
    is_evicted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::inject::Namespace;
    use serde_json::json;

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

    fn is_missed(pod: &Value) -> bool {
        let namespace = Namespace { name: "shop".to_owned(), ..Namespace::default() };
        let context =
            Context { namespace: &namespace, own_namespace: Some("ebb-system"), needs_label: true, by: "a test" };
        missed(pod, &context, &Template::built_in()).is_some()
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
        for (at, change) in changes.iter().enumerate() {
            let mut other = pod("ReplicaSet");
            change(&mut other);
            assert!(!is_missed(&other), "change {at}");
        }
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

    /// The watchdog over several looks: who is without, how many reviews there were, and who is evicted.
    struct Story(Memory);

    impl Story {
        fn look(&mut self, missed: &[Missed], reviews: u64) -> Vec<String> {
            let (chosen, most) = self.0.choose(missed, reviews);
            let chosen: Vec<_> = chosen.into_iter().take(most).collect();
            chosen.iter().for_each(|pod| self.0.evicted(pod, reviews));
            chosen.into_iter().map(|pod| pod.name).collect()
        }
    }

    const NOBODY: [&str; 0] = [];

    #[test]
    fn one_pod_of_an_owner_is_tried_and_then_the_others_follow() {
        let mut story = Story(Memory::default());
        let [a, b, c, d] = [of("one", "a"), of("one", "b"), of("one", "c"), of("two", "d")];
        assert_eq!(story.look(&[a.clone(), b.clone(), c.clone(), d.clone()], 5), NOBODY, "seen for the first time");
        assert_eq!(story.look(&[a, b.clone(), c.clone(), d], 6), ["a", "d"]);
        assert_eq!(story.look(&[b, c], 8), ["b", "c"], "what was tried did not come again without");
        assert_eq!(story.look(&[], 10), NOBODY);
    }

    #[test]
    fn an_owner_whose_pod_comes_again_without_is_left_alone() {
        let mut story = Story(Memory::default());
        let [a, b, again] = [of("one", "a"), of("one", "b"), of("one", "a2")];
        story.look(&[a.clone(), b.clone()], 5);
        assert_eq!(story.look(&[a, b.clone()], 6), ["a"]);
        for reviews in 7..12 {
            assert_eq!(story.look(&[b.clone(), again.clone()], reviews), NOBODY);
        }
        assert_eq!(story.0.given_up(), 1);
    }

    #[test]
    fn while_nobody_asks_for_reviews_one_pod_is_tried_and_no_more() {
        let mut story = Story(Memory::default());
        let [a, b, c] = [of("one", "a"), of("two", "b"), of("three", "c")];
        story.look(&[a.clone(), b.clone(), c.clone()], 0);
        assert_eq!(story.look(&[a, b.clone(), c.clone()], 0), ["a"]);
        assert_eq!(story.look(&[b.clone(), c.clone()], 0), NOBODY);
        assert_eq!(story.look(&[b.clone(), c.clone()], 0), NOBODY);
        assert_eq!(story.look(&[b, c], 1), ["b", "c"], "somebody asks again");
    }
}
