//! Writes Events about injected and skipped pods on their owners, and about certificates on their Secret.

use super::certificates::KeeperError;
use super::metrics::Metrics;
use super::review::{Admission, Owner, shortened};
use crate::events::EventWriter;
use crate::inject::SkipReason;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Reporter};
use std::sync::Arc;

/// The sender of Events.
#[derive(Clone, Debug)]
pub(super) struct Events {
    writer: EventWriter,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Starts on this runtime.
    pub(super) fn start(client: Client, identity: String, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: "ebb-cache.io/injector".to_owned(), instance: Some(identity) };
        let counted = metrics.clone();
        Self { writer: EventWriter::start(client, reporter, move |fate| counted.event(fate)), metrics }
    }

    /// Reports an admission, if the pod has an owner.
    pub(super) fn admitted(&self, admission: &Admission) {
        let (Some(owner), Some(reason)) = (&admission.owner, admission.reason) else { return };
        let silent = [SkipReason::AlreadyInjected, SkipReason::Disabled, SkipReason::NotLabelled];
        if admission.is_dry_run || reason.is_some_and(|reason| silent.contains(&reason)) {
            return;
        }
        let (type_, name, note) = match reason {
            None => (EventType::Normal, "Injected", "Ebb sidecar injected into pods".to_owned()),
            Some(reason) => (
                EventType::Warning,
                "InjectionSkipped",
                format!("no Ebb sidecar injected into pods ({}): {}", reason.label(), admission.detail),
            ),
        };
        let owner = reference(owner, &admission.namespace);
        self.write(type_, name, "Inject", note, owner.clone());
        if !admission.warnings.is_empty() {
            let note = shortened(&admission.warnings.join("; "));
            self.write(EventType::Warning, "AnnotationIgnored", "Inject", note, owner);
        }
    }

    /// Reports the eviction of a pod without a sidecar.
    pub(super) fn evicted(&self, owner: &Owner, namespace: &str) {
        let note = "evicting pods without the Ebb sidecar they ask for; their replacements get one".to_owned();
        self.write(EventType::Normal, "SidecarMissing", "Evict", note, reference(owner, namespace));
    }

    /// Reports new certificates where there were no usable ones.
    pub(super) fn certificates_created(&self, note: String, secret: ObjectReference) {
        self.write(EventType::Normal, "CertificateCreated", "Create", note, secret);
    }

    /// Reports a new certificate. The action names its kind, so that Events about serving certificates and CAs are not
    /// merged. If serving certificates live for minutes only, the note keeps the times of the first Event.
    pub(super) fn certificate_rotated(&self, action: &str, note: String, secret: ObjectReference) {
        self.write(EventType::Normal, "CertificateRotated", action, note, secret);
    }

    /// Reports that certificates cannot be renewed.
    pub(super) fn rotation_failed(&self, error: &KeeperError, secret: ObjectReference) {
        let note = shortened(&format!("certificates cannot be renewed: {error}"));
        self.write(EventType::Warning, "CertificateRotationFailed", "Rotate", note, secret);
    }

    /// Reports a template that is not used.
    pub(super) fn template_rejected(&self, why: &str, has_last: bool, pod: ObjectReference) {
        let meanwhile = if has_last { "the last good one stays active" } else { "no pod gets a sidecar" };
        let note = shortened(&format!("sidecar template rejected, {meanwhile}: {why}"));
        self.write(EventType::Warning, "TemplateRejected", "Load", note, pod);
    }

    fn write(&self, type_: EventType, reason: &str, action: &str, note: String, about: ObjectReference) {
        let (reason, action) = (reason.to_owned(), action.to_owned());
        let event = Event { type_, reason, note: Some(note), action, secondary: None };
        if let Err(fate) = self.writer.write(event, about) {
            self.metrics.event(fate);
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
