//! The webhook's certificates: made here and rotated, or made by others and read from files.
//!
//! ```text
//!  self    the leader: decide (pure) ──► Secret ──► every replica: the leaf it serves
//!                                        └───► caBundle of the MutatingWebhookConfiguration
//!  files   tls.crt, tls.key ──► every replica
//! ```

mod authority;
mod decide;
mod material;

pub(crate) use decide::Times;

use super::metrics::Metrics;
use arc_swap::ArcSwapOption;
use authority::{Pair, is_trusted, presented, validity};
use decide::{Step, decide as next_step};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use material::{Data, Material};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::Arc;

/// The certificate that is served now; it is changed while connections go on.
#[derive(Debug, Default)]
pub(super) struct Served(ArcSwapOption<CertifiedKey>);

impl Served {
    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.0.load().is_some()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// Names of the objects that hold and use the certificates.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// The namespace of Secret and Lease.
    pub(crate) namespace: String,
    /// The Secret.
    pub(crate) secret: String,
    /// The Lease.
    pub(crate) lease: String,
    /// The MutatingWebhookConfiguration.
    pub(crate) webhook: String,
    /// Who this replica is.
    pub(crate) identity: String,
}

/// Where certificates come from.
pub(super) enum Keeper {
    /// Files that somebody else renews.
    Files(Files),
    /// Made here.
    Own(Box<Own>),
}

/// Certificate and key in files.
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    last: Option<Pair>,
}

/// Certificates of an authority of our own.
pub(super) struct Own {
    client: Client,
    objects: Objects,
    names: Vec<String>,
    times: Times,
    /// The bundle that was found in the webhook's configuration, and since when.
    published: Option<(String, i64)>,
    loaded: Option<Pair>,
}

impl Keeper {
    pub(super) fn files(certificate: PathBuf, key: PathBuf) -> Self {
        Self::Files(Files { certificate, key, last: None })
    }

    pub(super) fn own(client: Client, objects: Objects, names: Vec<String>, times: Times) -> Self {
        Self::Own(Box::new(Own { client, objects, names, times, published: None, loaded: None }))
    }

    /// Looks once, and does what is to be done, as the leader or not.
    ///
    /// # Errors
    /// A sentence about what went wrong; what is served stays.
    pub(super) async fn tick(&mut self, leads: bool, served: &Served, metrics: &Metrics) -> Result<(), String> {
        match self {
            Self::Files(files) => files.tick(served, metrics),
            Self::Own(own) => own.tick(leads, served, metrics).await,
        }
    }
}

fn load(pair: &Pair, served: &Served, metrics: &Metrics) -> Result<(), String> {
    let key = presented(pair)?;
    served.0.store(Some(Arc::new(key)));
    if let Some(validity) = validity(&pair.certificate) {
        metrics.certificate_ends(validity.to);
        tracing::info!(not_after = validity.to, "serving a new certificate");
    }
    Ok(())
}

/// Seconds since 1970: certificates know no other clock.
fn now() -> i64 {
    Timestamp::now().as_second()
}

impl Files {
    fn tick(&mut self, served: &Served, metrics: &Metrics) -> Result<(), String> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let pair = Pair { certificate: read(&self.certificate)?, key: read(&self.key)? };
        if self.last.as_ref() != Some(&pair) {
            load(&pair, served, metrics)?;
            self.last = Some(pair);
        }
        Ok(())
    }
}

impl Own {
    async fn tick(&mut self, leads: bool, served: &Served, metrics: &Metrics) -> Result<(), String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.objects.namespace);
        let secret = secrets.get(&self.objects.secret).await.map_err(|error| format!("the Secret: {error}"))?;
        let mut material = Material::read(&texts(&secret));
        if leads {
            material = self.lead(&secrets, secret, material).await?;
        }
        if let Some(leaf) = material.leaf.as_ref().filter(|leaf| self.loaded.as_ref() != Some(leaf)) {
            // A leaf that no client could verify is not served in place of one that works.
            let name = self.names.first().map_or("", String::as_str);
            if !is_trusted(&leaf.certificate, &material.bundle(), name, now()) {
                return Err("the Secret holds a certificate that its own authorities have not signed".to_owned());
            }
            load(leaf, served, metrics)?;
            self.loaded = Some(leaf.clone());
        }
        Ok(())
    }

    /// The leader's part: publish, then take the next step.
    async fn lead(
        &mut self,
        secrets: &Api<Secret>,
        mut secret: Secret,
        material: Material,
    ) -> Result<Material, String> {
        self.publish(&material.bundle()).await?;
        let since = self.published.as_ref().filter(|(bundle, _)| *bundle == material.bundle()).map(|(_, since)| *since);
        let step = next_step(now(), &material.state(&self.names, now(), since), &self.times);
        if step == Step::Rest {
            return Ok(material);
        }
        let material = material.take(step, &self.names, now(), &self.times).map_err(|error| error.to_string())?;
        let bytes = |(name, text): (String, String)| (name, ByteString(text.into_bytes()));
        secret.data = Some(material.data().into_iter().map(bytes).collect());
        // The Secret's version goes along: of two leaders one is refused.
        let name = &self.objects.secret;
        let replaced = secrets.replace(name, &PostParams::default(), &secret).await;
        replaced.map_err(|error| format!("the Secret: {error}"))?;
        tracing::info!(step = ?step, "certificates");
        self.publish(&material.bundle()).await?;
        Ok(material)
    }

    /// Puts the bundle into every webhook of the configuration that has another one.
    async fn publish(&mut self, bundle: &str) -> Result<(), String> {
        if bundle.is_empty() {
            return Ok(());
        }
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let name = &self.objects.webhook;
        let said = |error: kube::Error| format!("the MutatingWebhookConfiguration {name}: {error}");
        let found = configurations.get(name).await.map_err(said)?;
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
        }
        if operations.len() > 1 {
            self.published = None;
            let patch: json_patch::Patch =
                serde_json::from_value(operations.into()).expect("these are operations of a patch");
            let patched = configurations.patch(name, &PatchParams::default(), &Patch::<()>::Json(patch)).await;
            patched.map_err(said)?;
            tracing::info!(webhook = name, "published the authorities");
        }
        if self.published.as_ref().is_none_or(|(published, _)| published != bundle) {
            self.published = Some((bundle.to_owned(), now()));
        }
        Ok(())
    }
}

/// The texts of a Secret; what is none is left out.
fn texts(secret: &Secret) -> Data {
    let entries = secret.data.iter().flatten();
    entries.filter_map(|(name, bytes)| Some((name.clone(), String::from_utf8(bytes.0.clone()).ok()?))).collect()
}
