//! Writes Events about injected and skipped pods on their owners, and about certificates on their Secret.

use super::bucket::{Bucket, EVENTS};
use super::certificates::KeeperError;
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use super::owners;
use super::review::{Admission, Owner, shortened};
use crate::events::{EventWriter, Fate};
use crate::inject::{SYSTEM_NAMESPACES, SkipReason, names as annotation_names};
use ebb_config::annotations::{PREFIX, SETTINGS};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Reporter};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Maximum number of admissions that wait until their object is read.
const WAITING: usize = 64;

/// The sender of Events.
#[derive(Clone, Debug)]
pub(super) struct Events {
    writer: EventWriter,
    metrics: Arc<Metrics>,
    /// Admissions whose object is not known to exist.
    claims: mpsc::Sender<Claim>,
    bucket: Arc<Mutex<Bucket>>,
}

/// Events about an object that a review names.
struct Claim {
    owner: Owner,
    namespace: String,
    events: Vec<Event>,
}

impl Events {
    /// Starts on this runtime.
    pub(super) fn start(client: Client, identity: String, metrics: Arc<Metrics>, namespaces: Namespaces) -> Self {
        let reporter = Reporter { controller: "ebb-cache.io/injector".to_owned(), instance: Some(identity) };
        let counted = metrics.clone();
        let writer = EventWriter::start(client.clone(), reporter, move |fate| counted.event(fate.name()));
        let (claims, waiting) = mpsc::channel(WAITING);
        let bucket = Arc::new(Mutex::new(Bucket::new(EVENTS, Instant::now())));
        let events = Self { writer, metrics, claims, bucket };
        tokio::spawn(events.clone().verify(client, namespaces, waiting));
        events
    }

    /// Writes the Events of admissions about objects that the API server has. Everybody who reaches the webhook can name
    /// any object.
    async fn verify(self, client: Client, namespaces: Namespaces, mut waiting: mpsc::Receiver<Claim>) {
        while let Some(Claim { owner, namespace, events }) = waiting.recv().await {
            let about = match owners::path(&owner, &namespace) {
                Some(path) => match owners::is_there(&client, &path, &owner.uid).await {
                    Ok(is_there) => is_there.then(|| reference(&owner, &namespace)),
                    Err(error) => {
                        tracing::debug!(%error, "failed to read the owner of a pod");
                        None
                    }
                },
                // Owners of other kinds are not read.
                None => namespaces.reference(&namespace),
            };
            for event in events {
                match &about {
                    Some(about) => self.send(event, about.clone()),
                    None => self.metrics.event("unverified"),
                }
            }
        }
    }

    /// Reports an admission, if the pod has an owner. The notes contain nothing that the review says, except names of
    /// annotations that exist.
    pub(super) fn admitted(&self, admission: &Admission) {
        let (Some(owner), Some(reason)) = (&admission.owner, admission.reason) else { return };
        let silent =
            [SkipReason::AlreadyInjected, SkipReason::Disabled, SkipReason::NotLabelled, SkipReason::SystemNamespace];
        let is_silent = admission.is_dry_run || reason.is_some_and(|reason| silent.contains(&reason));
        if is_silent || SYSTEM_NAMESPACES.contains(&admission.namespace.as_str()) {
            return;
        }
        let (type_, name, note) = match reason {
            None => (EventType::Normal, "Injected", "Ebb sidecar injected into pods".to_owned()),
            Some(reason) => (
                EventType::Warning,
                "InjectionSkipped",
                format!(
                    "no Ebb sidecar injected into pods ({}): {}",
                    reason.label(),
                    reason.meaning().replace('`', "")
                ),
            ),
        };
        let mut events = vec![event(type_, name, "Inject", note)];
        if !admission.warnings.is_empty() {
            let note = ignored(&admission.warnings);
            events.push(event(EventType::Warning, "AnnotationIgnored", "Inject", note));
        }
        if !self.bucket.lock().take(Instant::now()) {
            return self.metrics.limited("event");
        }
        let claim = Claim { owner: owner.clone(), namespace: admission.namespace.clone(), events };
        if self.claims.try_send(claim).is_err() {
            self.metrics.event(Fate::Dropped.name());
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
        self.send(event(type_, reason, action, note), about);
    }

    fn send(&self, event: Event, about: ObjectReference) {
        if let Err(fate) = self.writer.write(event, about) {
            self.metrics.event(fate.name());
        }
    }
}

fn event(type_: EventType, reason: &str, action: &str, note: String) -> Event {
    let (reason, action) = (reason.to_owned(), action.to_owned());
    Event { type_, reason, note: Some(note), action, secondary: None }
}

/// The note about ignored annotations: their names, without values.
fn ignored(warnings: &[String]) -> String {
    let followed = SETTINGS.iter().map(|(name, _)| *name);
    let is_ignored = |name: &&str| {
        let begins = format!("annotation {PREFIX}{name} ");
        warnings.iter().any(|warning| warning.starts_with(&begins))
    };
    let mut known: Vec<String> =
        annotation_names().chain(followed).filter(is_ignored).map(|name| format!("{PREFIX}{name}")).collect();
    if known.len() < warnings.len() {
        known.push("others".to_owned());
    }
    shortened(&format!("annotations of pods are ignored; the injector's log has the reasons: {}", known.join(", ")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_about_annotations_has_their_names_and_no_values() {
        let warnings = ["uid (\"s3cret\") is ignored: x", "memory-high (\"y\") is ignored: x", "no-such is ignored: x"];
        let warnings = warnings.map(|text| format!("annotation {PREFIX}{text}"));
        let sentence = "annotations of pods are ignored; the injector's log has the reasons: ";
        let both = "config.ebb-cache.io/uid, config.ebb-cache.io/memory-high";
        assert_eq!(ignored(&warnings), format!("{sentence}{both}, others"));
        assert_eq!(ignored(&warnings[..2]), format!("{sentence}{both}"));
        let many: Vec<_> = annotation_names().map(|name| format!("annotation {PREFIX}{name} is ignored: x")).collect();
        assert!(ignored(&many).len() <= 256, "the note is bounded");
    }
}
