//! The webhook's certificates: issued and rotated by the injector, or read from files.
//!
//! ```text
//!  self    the leader: decide (pure) ──► Secret ──► every replica: the serving certificate it serves
//!                                  │     └───► caBundle and path of the MutatingWebhookConfiguration
//!                                  └──► Events on the Secret
//!  files   tls.crt, tls.key, paths ──► every replica
//! ```
//! Events are on the Secret: it changes at each of these steps and is in the namespace of the release, and the leader
//! has already read it, so only the right to write Events is needed. `kubectl events` shows them. A Deployment would
//! need another read, and Events on the cluster-scoped MutatingWebhookConfiguration would be in `default`.

mod decide;
mod issue;
mod material;
mod paths;

pub use decide::Times;

use super::events::Events;
use super::metrics::Metrics;
use arc_swap::{ArcSwap, ArcSwapOption};
use decide::{Step, decide as next_step};
use issue::{Pair, PairError, is_trusted, presented, validity};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use material::{Data, Material};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::Arc;

/// Consecutive failures before an Event: conflicts between two leaders and restarts of the API server are transient.
const FAILURES_TOLD: u32 = 3;

/// The current serving certificate and the paths of reviews. They can change while connections are open.
#[derive(Debug, Default)]
pub(super) struct Served {
    key: ArcSwapOption<CertifiedKey>,
    paths: ArcSwap<Vec<String>>,
}

impl Served {
    /// Whether there is a certificate.
    pub(super) fn is_there(&self) -> bool {
        self.key.load().is_some()
    }

    /// Whether reviews go to this path.
    pub(super) fn accepts(&self, path: &str) -> bool {
        paths::is_among(path, &self.paths.load())
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}

/// Names of the objects with the certificates.
#[derive(Clone, Debug)]
pub struct Objects {
    /// The namespace of Secret and Lease.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The Lease.
    pub lease: String,
    /// The MutatingWebhookConfiguration.
    pub webhook: String,
    /// Identity of this replica.
    pub identity: String,
}

/// Why the certificates were not checked or rotated.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeeperError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{}: line {line}: must be 16 to 128 small letters, digits or -", path.display())]
    Path { path: PathBuf, line: usize },
    #[error("the Secret: {0}")]
    Secret(kube::Error),
    #[error("the MutatingWebhookConfiguration {name}: {error}")]
    Webhook { name: String, error: kube::Error },
    /// A certificate or key cannot be generated.
    #[error("{0}")]
    Issue(rcgen::Error),
    #[error("the Secret contains a certificate that its CAs have not signed")]
    NotSigned,
    #[error(transparent)]
    Pair(#[from] PairError),
}

/// Source of certificates.
pub(super) enum Keeper {
    /// Files that another program renews.
    Files(Files),
    /// Issued by the injector.
    Own(Box<Own>),
}

/// Certificate and key in files.
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// The secrets of the paths; without the file, the path has none.
    paths: Option<PathBuf>,
    last: Option<Pair>,
}

/// Certificates of a self-signed CA.
pub(super) struct Own {
    client: Client,
    objects: Objects,
    names: Vec<String>,
    times: Times,
    events: Option<Events>,
    /// The content of the Secret.
    uid: Option<String>,
    /// Consecutive failures while this replica was the leader.
    failures: u32,
    /// The CA bundle in the webhook's configuration, and since when.
    published: Option<(String, i64)>,
    loaded: Option<Pair>,
}

impl Keeper {
    pub(super) fn files(certificate: PathBuf, key: PathBuf, paths: Option<PathBuf>) -> Self {
        Self::Files(Files { certificate, key, paths, last: None })
    }

    pub(super) fn own(
        client: Client,
        objects: Objects,
        names: Vec<String>,
        times: Times,
        events: Option<Events>,
    ) -> Self {
        let (published, loaded, uid, failures) = (None, None, None, 0);
        Self::Own(Box::new(Own { client, objects, names, times, events, uid, failures, published, loaded }))
    }

    /// Checks the certificates once, and as the leader rotates them if due.
    ///
    /// # Errors
    /// Why the check failed; the serving certificate stays.
    pub(super) async fn tick(&mut self, leads: bool, served: &Served, metrics: &Metrics) -> Result<(), KeeperError> {
        match self {
            Self::Files(files) => files.tick(served, metrics),
            Self::Own(own) => {
                let done = own.tick(leads, served, metrics).await;
                own.report_failure(done.as_ref().err().filter(|_| leads));
                done
            }
        }
    }
}

fn load(pair: &Pair, served: &Served, metrics: &Metrics) -> Result<(), KeeperError> {
    let key = presented(pair)?;
    served.key.store(Some(Arc::new(key)));
    if let Some(validity) = validity(&pair.certificate) {
        metrics.certificate_ends(validity.to);
        tracing::info!(not_after = validity.to, "serving a new certificate");
    }
    Ok(())
}

/// Seconds since 1970, the clock of certificates.
fn now() -> i64 {
    Timestamp::now().as_second()
}

impl Files {
    fn tick(&mut self, served: &Served, metrics: &Metrics) -> Result<(), KeeperError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| KeeperError::Unreadable { path: path.clone(), error })
        };
        let paths = match &self.paths {
            None => vec![paths::PLAIN.to_owned()],
            Some(path) => {
                let text = read(path)?;
                let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
                let secret = |(at, line)| match paths::Secret::read(line) {
                    Some(secret) => Ok(secret.path()),
                    None => Err(KeeperError::Path { path: path.clone(), line: at + 1 }),
                };
                lines.map(secret).collect::<Result<_, _>>()?
            }
        };
        served.paths.store(Arc::new(paths));
        let pair = Pair { certificate: read(&self.certificate)?, key: read(&self.key)? };
        if self.last.as_ref() != Some(&pair) {
            load(&pair, served, metrics)?;
            self.last = Some(pair);
        }
        Ok(())
    }
}

impl Own {
    async fn tick(&mut self, leads: bool, served: &Served, metrics: &Metrics) -> Result<(), KeeperError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.objects.namespace);
        let secret = secrets.get(&self.objects.secret).await.map_err(KeeperError::Secret)?;
        self.uid = secret.uid();
        let mut material = Material::read(&texts(&secret));
        served.paths.store(Arc::new(material.secrets.paths()));
        if leads {
            material = self.lead(&secrets, secret, material, served).await?;
        }
        if let Some(serving) = material.serving.as_ref().filter(|serving| self.loaded.as_ref() != Some(serving)) {
            // A serving certificate that clients cannot verify must not replace a working one.
            let name = self.names.first().map_or("", String::as_str);
            if !is_trusted(&serving.certificate, &material.bundle(), name, now()) {
                return Err(KeeperError::NotSigned);
            }
            load(serving, served, metrics)?;
            self.loaded = Some(serving.clone());
        }
        Ok(())
    }

    /// The leader's task: publish the CAs, then take the next step.
    async fn lead(
        &mut self,
        secrets: &Api<Secret>,
        mut secret: Secret,
        material: Material,
        served: &Served,
    ) -> Result<Material, KeeperError> {
        self.publish(&material).await?;
        let since = self.published.as_ref().filter(|(bundle, _)| *bundle == material.bundle()).map(|(_, since)| *since);
        let step = next_step(now(), &material.state(&self.names, now(), since), &self.times);
        if step == Step::Rest {
            return Ok(material);
        }
        let material = material.take(step, &self.names, now(), &self.times).map_err(KeeperError::Issue)?;
        let bytes = |(name, text): (String, String)| (name, ByteString(text.into_bytes()));
        secret.data = Some(material.data().into_iter().map(bytes).collect());
        // The update includes the Secret's version, so that one of two leaders is refused.
        let name = &self.objects.secret;
        let replaced = secrets.replace(name, &PostParams::default(), &secret).await;
        replaced.map_err(KeeperError::Secret)?;
        tracing::info!(step = ?step, "certificates changed");
        self.report(step, &material);
        served.paths.store(Arc::new(material.secrets.paths()));
        self.publish(&material).await?;
        Ok(material)
    }

    /// Writes an Event after a step that changed the serving certificate or the signing CA. Other steps need none.
    fn report(&self, step: Step, material: &Material) {
        let Some(events) = &self.events else { return };
        let until = |pem: Option<&str>| {
            let end = pem.and_then(validity).and_then(|validity| Timestamp::from_second(validity.to).ok());
            end.map_or_else(|| "?".to_owned(), |end| end.to_string())
        };
        let serving = until(material.serving.as_ref().map(|serving| serving.certificate.as_str()));
        let ca = until(material.ca.as_ref().map(|ca| ca.certificate.as_str()));
        match step {
            Step::Rest | Step::PrepareNext | Step::DropOld => {}
            Step::Begin => {
                let note = format!(
                    "no usable CA found: new CA, valid until {ca}; new serving certificate, valid until {serving}"
                );
                events.certificates_created(note, self.secret());
            }
            Step::SignServing => {
                let note = format!("new serving certificate, valid until {serving}; the CA stays valid until {ca}");
                events.certificate_rotated("RotateCertificate", note, self.secret());
            }
            Step::Promote => {
                let note = format!("new CA, valid until {ca}; new serving certificate, valid until {serving}");
                events.certificate_rotated("RotateCa", note, self.secret());
            }
        }
    }

    /// Writes one Event about a persistent failure.
    fn report_failure(&mut self, error: Option<&KeeperError>) {
        self.failures = error.map_or(0, |_| self.failures.saturating_add(1));
        if let (FAILURES_TOLD, Some(error), Some(events)) = (self.failures, error, &self.events) {
            events.rotation_failed(error, self.secret());
        }
    }

    /// The object of the Events.
    fn secret(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            name: Some(self.objects.secret.clone()),
            namespace: Some(self.objects.namespace.clone()),
            uid: self.uid.clone(),
            ..ObjectReference::default()
        }
    }

    /// Writes CA bundle and path to every webhook of the configuration with others.
    async fn publish(&mut self, material: &Material) -> Result<(), KeeperError> {
        let (bundle, path) = (material.bundle(), material.secrets.current.as_ref().map(paths::Secret::path));
        let Some(path) = path.filter(|_| !bundle.is_empty()) else { return Ok(()) };
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let name = &self.objects.webhook;
        let failed = |error| KeeperError::Webhook { name: name.clone(), error };
        let found = configurations.get(name).await.map_err(failed)?;
        let mut operations = vec![serde_json::json!({
            "op": "test", "path": "/metadata/resourceVersion", "value": found.resource_version(),
        })];
        for (at, webhook) in found.webhooks.iter().flatten().enumerate() {
            let there = webhook.client_config.ca_bundle.as_ref().map(|bytes| bytes.0.as_slice());
            if there != Some(bundle.as_bytes()) {
                let path = format!("/webhooks/{at}/clientConfig/caBundle");
                let value = ByteString(bundle.as_bytes().to_vec());
                operations.push(serde_json::json!({"op": "add", "path": path, "value": value}));
            }
            let service = webhook.client_config.service.as_ref();
            if service.is_some_and(|service| service.path.as_ref() != Some(&path)) {
                let at = format!("/webhooks/{at}/clientConfig/service/path");
                operations.push(serde_json::json!({"op": "add", "path": at, "value": path}));
            }
        }
        if operations.len() > 1 {
            self.published = None;
            let patch: json_patch::Patch =
                serde_json::from_value(operations.into()).expect("these are operations of a patch");
            let patched = configurations.patch(name, &PatchParams::default(), &Patch::<()>::Json(patch)).await;
            patched.map_err(failed)?;
            tracing::info!(webhook = name, "published the CAs and the path in the webhook configuration");
        }
        if self.published.as_ref().is_none_or(|(published, _)| *published != bundle) {
            self.published = Some((bundle, now()));
        }
        Ok(())
    }
}

/// The values of a Secret as text; other values are skipped.
fn texts(secret: &Secret) -> Data {
    let entries = secret.data.iter().flatten();
    entries.filter_map(|(name, bytes)| Some((name.clone(), String::from_utf8(bytes.0.clone()).ok()?))).collect()
}
