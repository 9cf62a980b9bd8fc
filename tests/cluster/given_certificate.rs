//! The webhook with an existing certificate: a Secret, mounted as files.

use crate::apiserver::Cluster;
use crate::helm::{Helm, NAMESPACE};
use crate::pods::plain;
use crate::rbac::rights_of;
use crate::replica::{CONFIGURATION, GIVEN, INJECTOR, Replica, can_be_reached, mount_certificate, mount_paths, path};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;

/// Writes a certificate of a new CA with this validity to the Secret; returns the CA as PEM.
pub async fn renew(cluster: &Cluster, mut params: CertificateParams) -> String {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(params, ca_key);
    let serving = CertificateParams::new(vec![format!("{INJECTOR}.{NAMESPACE}.svc")]).unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": GIVEN}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": serving.signed_by(&key, &issuer).unwrap().pem(), "tls.key": key.serialize_pem()},
    });
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    secrets.patch(GIVEN, &PatchParams::apply("a-scenario").force(), &Patch::Apply(secret)).await.unwrap();
    ca
}

/// Sets the CAs that the API server trusts. If `tls.caBundle` is empty, the chart leaves this to others.
pub async fn trust(cluster: &Cluster, cas: &str) {
    let bundle = ByteString(cas.as_bytes().to_vec());
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let webhooks = configurations.get(CONFIGURATION).await.unwrap().webhooks.unwrap_or_default();
    let operations: Vec<_> = (0..webhooks.len())
        .map(|at| json!({"op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": bundle}))
        .collect();
    let patch: json_patch::Patch = serde_json::from_value(operations.into()).unwrap();
    configurations.patch(CONFIGURATION, &PatchParams::default(), &Patch::<()>::Json(patch)).await.unwrap();
}

#[tokio::test]
async fn serves_an_existing_certificate_and_its_renewals() {
    let Some(cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    let source = format!("injector.mode=webhook,injector.tls.source=secret,injector.tls.existingSecret={GIVEN}");
    let values = format!("{source},injector.tls.paths={{the-first-of-the-paths}}");
    cluster.namespace(NAMESPACE, json!({})).await;
    let first = renew(&cluster, CertificateParams::default()).await;
    Helm::Four.install(&cluster, &values);
    trust(&cluster, &first).await;
    let one = Replica::serving(&cluster, "one").await;
    cluster.until_injected(&plain(), "shop").await;
    assert!(one.leads(), "an alert about a missing leader would never end");

    let second = renew(&cluster, CertificateParams::default()).await;
    mount_certificate(&cluster).await;
    // If only the second CA is trusted, pods are created without a sidecar until the replica serves its certificate.
    trust(&cluster, &second).await;
    cluster.until_injected(&plain(), "shop").await;

    // A path is replaced in two upgrades: replicas accept the next one before API servers use it.
    let both = ["the-first-of-the-paths,the-second-of-the-paths", "the-second-of-the-paths,the-first-of-the-paths"];
    for (paths, used) in both.into_iter().zip(["the-first-of-the-paths", "the-second-of-the-paths"]) {
        Helm::Four.upgrade(&cluster, &format!("{source},injector.tls.paths={{{paths}}}"), &[]);
        assert_eq!(path(&cluster).await, Some(format!("/inject/{used}")));
        trust(&cluster, &second).await;
        mount_paths(&cluster).await;
        cluster.until_injected(&plain(), "shop").await;
    }

    let rights = rights_of(&Helm::Four.get(&cluster, "manifest"), INJECTOR);
    assert!(rights.iter().all(|right| !["secrets", "leases"].contains(&&*right.resource)), "{rights:?}");
}
