//! Events on what made a pod: that it was injected, or why not. They are told off the path of admissions, and whatever goes
//! wrong with them is counted and otherwise passed over.

use super::metrics::Metrics;
use super::review::{Admission, Owner};
use crate::k8s::inject::SkipReason;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Events that may wait; more are dropped, since a rollout of hundreds of pods says one thing.
const WAITING: usize = 64;

/// Takes what is to be told.
#[derive(Clone, Debug)]
pub(super) struct Events {
    sender: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Starts telling on this runtime.
    pub(super) fn start(client: Client, identity: String, metrics: Arc<Metrics>) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(Event, ObjectReference)>(WAITING);
        let reporter = Reporter { controller: "ebb-cache.io/injector".to_owned(), instance: Some(identity) };
        let (recorder, counted) = (Recorder::new(client, reporter), metrics.clone());
        tokio::spawn(async move {
            while let Some((event, owner)) = receiver.recv().await {
                match recorder.publish(&event, &owner).await {
                    Ok(()) => counted.event("told"),
                    Err(kube::Error::Api(status)) if status.code == 403 => {
                        counted.event("forbidden");
                        tracing::warn!("Events are off: the account may not create them");
                        return; // what is sent from now on finds nobody, and is counted as dropped
                    }
                    Err(error) => {
                        counted.event("failed");
                        tracing::debug!(%error, "an Event was not taken");
                    }
                }
            }
        });
        Self { sender, metrics }
    }

    /// Tells of an admission, if there is somebody to tell.
    pub(super) fn tell(&self, admission: &Admission) {
        let (Some(owner), Some(reason)) = (&admission.owner, admission.reason) else { return };
        let silent = [SkipReason::AlreadyInjected, SkipReason::Disabled, SkipReason::NotLabelled];
        if admission.is_dry_run || reason.is_some_and(|reason| silent.contains(&reason)) {
            return;
        }
        let (type_, name, note) = match reason {
            None => (EventType::Normal, "Injected", "pods get an Ebb sidecar".to_owned()),
            Some(reason) => (
                EventType::Warning,
                "InjectionSkipped",
                format!("pods get no Ebb sidecar ({}): {}", reason.label(), admission.detail),
            ),
        };
        let event =
            Event { type_, reason: name.to_owned(), note: Some(note), action: "Inject".to_owned(), secondary: None };
        if self.sender.try_send((event, reference(owner, &admission.namespace))).is_err() {
            self.metrics.event("dropped");
        }
    }
}

fn reference(owner: &Owner, namespace: &str) -> ObjectReference {
    let Owner { api_version, kind, name, uid } = owner.clone();
    ObjectReference {
        api_version: Some(api_version),
        kind: Some(kind),
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        uid: Some(uid),
        ..ObjectReference::default()
    }
}
