//! The watchdog: evicts pods that should have a sidecar and lack one, so that their owners replace them.
//!
//! ```text
//!  metadata of pods without the label ──► candidates ──► each whole, with the metadata of its owner's template
//!                                    missed (pure: what `inject` would do now) ◄──┘
//!                                       └──► Memory::choose (pure) ──► evictions
//! ```
//! Lists are read in pages, metadata first. Memory is bounded for pods of any size and number (`pages`).
//!
//! W1. Only pods whose owners replace them are evicted. Pods of Jobs are not: an eviction would count as a failure.
//! W2. Pods are evicted, not deleted, so PodDisruptionBudgets apply. Only the leader evicts, with a limit per minute.
//! W3. One pod of an owner is evicted first, and others only after its replacement has a sidecar.
//! W4. A live pod's labels and annotations evict nobody, since more people may change them than evict pods. What asks is
//!     the label of the namespace, or the template of an owner that the API server has with the uid of the pod's owner.
//! W5. Until a first replacement has a sidecar, and after one has none, only one owner is probed at a time, since no
//!     injector may be working. Any replica may answer a review, so only the pods show this.
//! W6. A pod that the webhook is not shown, by the selectors of its configuration, is not missed. Without the configuration
//!     no pod is evicted.

use super::Injector;
use super::coverage::Coverage;
use super::owners::{self, Asked};
use super::pages::{self, Of};
use super::review::{Owner, owner};
use crate::inject::{Context, Template, Verdict, inject};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Maximum number of remembered missed pods, in addition to those of probed owners; the others are only counted.
const MOST_MISSED: usize = 2_000;
/// Kinds of owners that replace their pods.
const CREATES_AGAIN: [&str; 4] = ["DaemonSet", "ReplicaSet", "ReplicationController", "StatefulSet"];

/// Settings of the watchdog.
#[derive(Clone, Debug)]
pub struct Watchdog {
    /// Interval between searches.
    pub interval: Duration,
    /// Maximum evictions per minute.
    pub max_per_minute: u32,
    /// Namespaces that the webhook does not cover.
    pub excluded: Vec<String>,
}

/// A pod that should have a sidecar and lacks one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Missed {
    namespace: String,
    name: String,
    uid: String,
    owner: Owner,
}

/// Whether a pod was missed: it would be injected if it were created now, and its owner replaces it.
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

/// The pod with the labels and annotations of its owner's template instead of its own.
fn as_asked(pod: &Value, asked: &Asked) -> Value {
    let mut pod = pod.clone();
    let has_sidecar = pod["metadata"]["labels"]["ebb-cache.io/injected"].clone();
    pod["metadata"]["labels"] = json!(asked.labels);
    if !has_sidecar.is_null() {
        pod["metadata"]["labels"]["ebb-cache.io/injected"] = has_sidecar;
    }
    pod["metadata"]["annotations"] = json!(asked.annotations);
    pod
}

/// The pod, if its metadata allows that it was missed.
fn candidate(pod: &Value, context: &Context<'_>, template: &Template) -> Option<Missed> {
    let stand_in = json!({"metadata": pod["metadata"], "spec": {"containers": [{"name": "any"}]}});
    missed(&stand_in, context, template)
}

/// UIDs of pods with a sidecar, by UID of the owner.
type Injected = BTreeMap<String, BTreeSet<String>>;

/// State of an owner with an evicted pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trial {
    /// Waiting for the replacement: the pods that had a sidecar before, and the number of searches since.
    Open { namespace: String, before: BTreeSet<String>, looks: u32 },
    /// The replacement has a sidecar.
    Passed,
    /// The replacement has no sidecar.
    Failed,
}

/// Number of searches after which waiting for a replacement ends.
const LOOKS: u32 = 10;

/// State of the watchdog between searches.
#[derive(Debug, Default)]
struct Memory {
    seen: BTreeSet<String>,
    owners: BTreeMap<String, Trial>,
    /// Whether the last replacement had a sidecar.
    is_proven: bool,
}

impl Memory {
    /// Namespaces with an awaited replacement.
    fn awaited_in(&self) -> BTreeSet<String> {
        let namespace = |trial: &Trial| match trial {
            Trial::Open { namespace, .. } => Some(namespace.clone()),
            Trial::Passed | Trial::Failed => None,
        };
        self.owners.values().filter_map(namespace).collect()
    }

    /// Whether pods of this owner were evicted.
    fn knows(&self, owner: &str) -> bool {
        self.owners.contains_key(owner)
    }

    /// Owners with an awaited replacement in this namespace.
    fn awaited_owners(&self, namespace: &str) -> BTreeSet<String> {
        let is_here = |trial: &Trial| matches!(trial, Trial::Open { namespace: own, .. } if own == namespace);
        self.owners.iter().filter(|(_, trial)| is_here(trial)).map(|(owner, _)| owner.clone()).collect()
    }

    /// Chooses the missed pods that may be evicted now, and their maximum number.
    fn choose(&mut self, missed: &[Missed], injected: &Injected) -> (Vec<Missed>, usize) {
        let came_without =
            |owner: &String| missed.iter().any(|pod| pod.owner.uid == *owner && !self.seen.contains(&pod.uid));
        let is_new = |owner: &String, before: &BTreeSet<String>| {
            injected.get(owner).is_some_and(|pods| pods.difference(before).next().is_some())
        };
        for (owner, trial) in &mut self.owners {
            match trial {
                _ if came_without(owner) => (*trial, self.is_proven) = (Trial::Failed, false),
                Trial::Open { before, .. } if is_new(owner, before) => (*trial, self.is_proven) = (Trial::Passed, true),
                Trial::Open { looks, .. } => *looks += 1,
                Trial::Passed | Trial::Failed => {}
            }
        }
        let before = std::mem::take(&mut self.seen);
        self.seen = missed.iter().map(|pod| pod.uid.clone()).collect();
        self.owners.retain(|uid, trial| match trial {
            Trial::Open { looks, .. } => *looks < LOOKS,
            Trial::Passed | Trial::Failed => missed.iter().any(|pod| pod.owner.uid == *uid),
        });
        // If no pod is missed, the proof expires: a pod missed later shows a new failure.
        self.is_proven &= !missed.is_empty();
        let is_awaited = self.owners.values().any(|trial| matches!(trial, Trial::Open { .. }));
        let most = match (self.is_proven, is_awaited) {
            (true, _) => missed.len(),
            (false, true) => 0,
            (false, false) => 1,
        };
        let mut tried = BTreeSet::new();
        let mut may = |pod: &&Missed| match self.owners.get(&pod.owner.uid) {
            None => tried.insert(pod.owner.uid.clone()),
            Some(Trial::Passed) => true,
            Some(Trial::Open { .. } | Trial::Failed) => false,
        };
        // A pod that the last search did not find may still be terminating or starting.
        let known = missed.iter().filter(|pod| before.contains(&pod.uid));
        (known.filter(|pod| may(pod)).cloned().collect(), most)
    }

    /// Records an eviction; `injected` are the owner's pods with a sidecar before it.
    fn evicted(&mut self, pod: &Missed, injected: &Injected) {
        let before = injected.get(&pod.owner.uid).cloned().unwrap_or_default();
        let open = Trial::Open { namespace: pod.namespace.clone(), before, looks: 0 };
        self.owners.entry(pod.owner.uid.clone()).or_insert(open);
    }

    /// Owners whose replacements have no sidecar.
    fn given_up(&self) -> usize {
        self.owners.values().filter(|trial| **trial == Trial::Failed).count()
    }
}

/// Runs the watchdog.
pub(super) async fn watch(
    client: Client,
    injector: Arc<Injector>,
    how: Watchdog,
    webhook: String,
    leads: watch::Receiver<bool>,
) {
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
        let step = async {
            let coverage = Coverage::read(&client, &webhook).await?;
            let (chosen, most) = look(&client, &injector, (&coverage, &how.excluded), &mut memory).await?;
            let mut evicted = 0;
            for pod in chosen {
                // An eviction blocked by a budget does not block others.
                if evicted == most {
                    break;
                }
                evictions.tick().await;
                let owner = BTreeSet::from([pod.owner.uid.clone()]);
                let injected = injected_in(&client, &pod.namespace, &owner).await?;
                if *leads.borrow() && evict(&client, &injector, &pod).await {
                    memory.evicted(&pod, &injected);
                    evicted += 1;
                }
            }
            Ok::<(), kube::Error>(())
        };
        if let Err(error) = step.await {
            tracing::warn!(%error, "watchdog failed to search for pods");
        }
    }
}

/// Searches all pods; returns those that may be evicted now, and their maximum number.
async fn look(
    client: &Client,
    injector: &Injector,
    shown: (&Coverage, &[String]),
    memory: &mut Memory,
) -> Result<(Vec<Missed>, usize), kube::Error> {
    let (all, number) = missed_in_all(client, injector, shown, memory).await?;
    injector.metrics.missed(number);
    let mut injected = Injected::new();
    for namespace in memory.awaited_in() {
        injected.extend(injected_in(client, &namespace, &memory.awaited_owners(&namespace)).await?);
    }
    let (chosen, most) = memory.choose(&all, &injected);
    if number > 0 {
        tracing::info!(
            missed = number,
            may_be_evicted = chosen.len().min(most),
            owners_given_up = memory.given_up(),
            "found pods without the sidecar they ask for"
        );
    }
    Ok((chosen, most))
}

/// The missed pods and their number, of those that the webhook is shown: by its selectors, except in these namespaces. Beyond [`MOST_MISSED`] only pods of owners in `memory` are returned, and the others
/// are counted by their own labels instead of those of their owners' templates.
async fn missed_in_all(
    client: &Client,
    injector: &Injector,
    (coverage, excluded): (&Coverage, &[String]),
    memory: &Memory,
) -> Result<(Vec<Missed>, usize), kube::Error> {
    // Without a template nobody would get a sidecar.
    let Some(template) = injector.template.load_full() else { return Ok((Vec::new(), 0)) };
    let judge = |pod: &Value, judge: fn(&Value, &Context<'_>, &Template) -> Option<Missed>| {
        let namespace = injector.namespace(pod["metadata"]["namespace"].as_str().unwrap_or_default());
        let context = Context {
            namespace: &namespace,
            own_namespace: Some(&injector.own_namespace),
            needs_label: true,
            by: &injector.by,
        };
        if excluded.contains(&namespace.name) { None } else { judge(pod, &context, &template) }
    };
    let listed = async |of, is_missed: fn(&Value, &Context<'_>, &Template) -> Option<Missed>| {
        let (mut kept, mut others) = (Vec::new(), 0);
        for part in coverage.parts() {
            let selector = part.query()?;
            let and = if selector.is_empty() { "" } else { "%2C" };
            let path = format!("/api/v1/pods?labelSelector=%21ebb-cache.io%2Finjected{and}{selector}");
            pages::each(client, &path, of, |read| {
                // A pod that is too large to read is skipped by the webhook, too.
                let Some(pod) = judge(&read.value, is_missed).filter(|_| !read.is_too_large) else { return };
                if !part.covers_namespace(&pod.namespace) {
                    return;
                }
                match kept.len() >= MOST_MISSED && !memory.knows(&pod.owner.uid) {
                    true => others += 1,
                    false => kept.push(pod),
                }
            })
            .await?;
        }
        // Two selectors of an administrator may select the same pod.
        let mut seen = BTreeSet::new();
        kept.retain(|pod| seen.insert(pod.uid.clone()));
        Ok::<_, kube::Error>((kept, others))
    };
    let (mut candidates, mut others) = listed(Of::Metadata, candidate).await?;
    if others > 0 {
        // Metadata do not show which pods are left alone on purpose. They must neither count nor displace missed ones.
        (candidates, others) = listed(Of::Pod, missed).await?;
    }
    let (mut found, mut templates, keys) = (Vec::new(), BTreeMap::new(), coverage.keys());
    for Missed { namespace, name, uid, owner } in candidates {
        if !templates.contains_key(&owner.uid) {
            let asked = match owners::path(&owner, &namespace) {
                Some(path) => owners::asked(client, &path, &owner.uid, &keys).await?,
                None => None,
            };
            templates.insert(owner.uid.clone(), asked);
        }
        let Some(asked) = &templates[&owner.uid] else { continue };
        // The live pod's labels may have changed since it was created.
        if !coverage.covers(&namespace, &asked.labels) {
            continue;
        }
        let path = format!("/api/v1/namespaces/{namespace}/pods?fieldSelector=metadata.name%3D{name}");
        pages::each(client, &path, Of::Pod, |read| {
            // A pod of the same name may have replaced it.
            if read.value["metadata"]["uid"] == uid.as_str() && !read.is_too_large {
                found.extend(judge(&as_asked(&read.value, asked), missed));
            }
        })
        .await?;
    }
    let number = found.len() + others;
    Ok((found, number))
}

/// The pods of these owners in a namespace that have a sidecar.
async fn injected_in(client: &Client, namespace: &str, owners: &BTreeSet<String>) -> Result<Injected, kube::Error> {
    let mut found = Injected::new();
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector=ebb-cache.io%2Finjected");
    pages::each(client, &path, Of::Metadata, |read| {
        if let (Some(owner), Some(uid)) = (owner(&read.value), read.value["metadata"]["uid"].as_str())
            && owners.contains(&owner.uid)
        {
            found.entry(owner.uid).or_default().insert(uid.to_owned());
        }
    })
    .await?;
    Ok(found)
}

/// Evicts a pod; returns whether it was evicted.
async fn evict(client: &Client, injector: &Injector, pod: &Missed) -> bool {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let only_this = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let delete_options = Some(DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() });
    let outcome = match pods.evict(&pod.name, &EvictParams { delete_options, ..EvictParams::default() }).await {
        Ok(_) => "evicted",
        Err(kube::Error::Api(status)) if status.code == 429 => "held-back",
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => "gone",
        Err(error) => {
            tracing::warn!(%error, namespace = pod.namespace, pod = pod.name, "failed to evict pod");
            "failed"
        }
    };
    injector.metrics.evicted(outcome);
    tracing::info!(
        namespace = pod.namespace,
        pod = pod.name,
        owner = pod.owner.name,
        outcome,
        "pod eviction requested"
    );
    let is_evicted = outcome == "evicted";
    if is_evicted && let Some(events) = &injector.events {
        events.evicted(&pod.owner, &pod.namespace);
    }
    is_evicted
}

#[cfg(test)]
mod tests;
