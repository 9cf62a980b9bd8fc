//! The webhook with a CA of API servers' client certificates.

use crate::apiserver::{Cluster, client};
use crate::helm::{Helm, NAMESPACE};
use crate::pods::plain;
use crate::replica::{CLIENT_CA, Replica, can_be_reached, mount_client_ca, path};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::config::AuthInfo;
use kube::{Api, Client, Config};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use serde_json::json;

/// A CA that signs client certificates.
struct Ca {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        Self { ca, issuer: Issuer::new(params, key) }
    }

    /// A certificate with this common name, and alternative names.
    fn signs(&self, common: &str, alternative: &[SanType]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut own = CertificateParams::default();
        own.distinguished_name = DistinguishedName::new();
        own.distinguished_name.push(DnType::CommonName, common);
        own.subject_alt_names = alternative.to_vec();
        own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = own.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { ca: self.ca.clone(), certificate, key: key.serialize_pem() }
    }
}

/// A CA, and a client certificate of it with its key.
struct Identity {
    ca: String,
    certificate: String,
    key: String,
}

impl Identity {
    fn new() -> Self {
        Ca::new().signs("x", &[SanType::DnsName("kube-apiserver".try_into().unwrap())])
    }

    /// Writes the CA into the ConfigMap that the chart mounts.
    async fn publish(&self, cluster: &Cluster) {
        let metadata = json!({"name": CLIENT_CA});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": self.ca}});
        let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), NAMESPACE);
        config_maps.patch(CLIENT_CA, &PatchParams::apply("a-scenario").force(), &Patch::Apply(map)).await.unwrap();
    }
}

/// A client of the webhook, with a certificate or without one.
fn caller(replica: &Replica, identity: Option<&Identity>) -> Client {
    let mut config = Config::new(format!("https://{}", replica.address()).parse().unwrap());
    if let Some(Identity { certificate, key, .. }) = identity {
        let encoded = |text: &str| {
            let encoded = serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap();
            encoded.as_str().unwrap().to_owned()
        };
        config.auth_info = AuthInfo {
            client_certificate_data: Some(encoded(certificate)),
            client_key_data: Some(encoded(key).into()),
            ..AuthInfo::default()
        };
    }
    client(config)
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_ca_may_ask() {
    let Some(mut cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    cluster.namespace(NAMESPACE, json!({})).await;
    let (ours, another) = (Identity::new(), Identity::new());
    ours.publish(&cluster).await;
    let values = "injector.mode=webhook,injector.failurePolicy=Fail,injector.clientCA.configMap=api-server-ca";
    Helm::Four.install(&cluster, values);
    let one = Replica::serving(&cluster, "one").await;
    cluster.until("the path is published", async || path(&cluster).await.is_some()).await;
    let refused = async || match cluster.admit(&plain(), "shop").await {
        Ok(_) => String::new(),
        Err(why) => why,
    };
    let needs_one = async || refused().await.contains("provide credentials");
    cluster.until("an API server without a certificate is refused", needs_one).await;

    cluster.present(&ours.certificate, &ours.key).await;
    cluster.until_injected(&plain(), "shop").await;

    let path = path(&cluster).await.unwrap();
    let ask = async |identity: Option<&Identity>| {
        let asked = http::Request::post(&path).body(Vec::from("{}")).unwrap();
        caller(&one, identity).request_text(asked).await.unwrap_err().to_string()
    };
    let [anybody, stranger, known] = [ask(None).await, ask(Some(&another)).await, ask(Some(&ours)).await];
    assert!(anybody.contains("reviews need a client certificate"), "{anybody}");
    assert!(!stranger.contains("the body is"), "{stranger}");
    assert!(known.contains("the body is null null"), "{known}");
    let probe = http::Request::get("/livez").body(Vec::new()).unwrap();
    assert_eq!(caller(&one, None).request_text(probe).await.unwrap(), "live\n", "probes need no certificate");

    // The CA changes while the injector runs.
    another.publish(&cluster).await;
    mount_client_ca(&cluster).await;
    let is_known = async || ask(Some(&another)).await.contains("the body is null null");
    cluster.until("the injector follows the CA", is_known).await;
    let stranger = ask(Some(&ours)).await;
    assert!(!stranger.contains("the body is"), "{stranger}");
}

/// A CA that also signs certificates of users and kubelets, as that of a cluster does.
#[tokio::test]
async fn only_clients_with_an_accepted_name_may_ask() {
    let Some(mut cluster) = Cluster::start().await.filter(|_| can_be_reached()) else { return };
    cluster.namespace(NAMESPACE, json!({})).await;
    let ca = Ca::new();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let server = ca.signs("kube-apiserver-webhook-client", &[]);
    server.publish(&cluster).await;
    let values = "injector.mode=webhook,injector.failurePolicy=Fail";
    Helm::Four.install(&cluster, values);
    let page = std::fs::read_to_string("docs/security.md").unwrap();
    let block =
        page.split("```yaml\n").find(|block| block.starts_with("# values")).unwrap().split("```").next().unwrap();
    let file = cluster.folder.path().join("values.yaml");
    std::fs::write(&file, block.replace("api-server-ca", CLIENT_CA)).unwrap();
    Helm::Four.upgrade(&cluster, values, &["--values", file.to_str().unwrap()]);
    let one = Replica::serving(&cluster, "one").await;
    cluster.until("the path is published", async || path(&cluster).await.is_some()).await;
    let path = path(&cluster).await.unwrap();
    let ask = async |identity: &Identity| {
        let asked = http::Request::post(&path).body(Vec::from("{}")).unwrap();
        caller(&one, Some(identity)).request_text(asked).await.unwrap_err().to_string()
    };
    let mut wrong = Vec::new();
    for (common, alternative, is_known) in [
        ("kube-apiserver-webhook-client", vec![], true),
        ("x", vec![uri("spiffe://cluster.local/kube-apiserver")], true),
        ("x", vec![dns("other.example"), dns("kube-apiserver-webhook-client")], true),
        ("kubernetes-admin", vec![], false),
        ("system:node:a", vec![dns("a.example")], false),
        ("kube-apiserver-webhook-client.", vec![uri("spiffe://cluster.local/kube-apiserver/x")], false),
        ("kube-apiserver-webhook-client,spiffe://cluster.local/kube-apiserver", vec![], false),
    ] {
        let said = ask(&ca.signs(common, &alternative)).await;
        let part = if is_known { "the body is null null" } else { "has none of the accepted names" };
        if !said.contains(part) {
            wrong.push(format!("{common} {alternative:?}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(one.log().contains("client certificate has no accepted name") && one.log().contains("kubernetes-admin"));

    let user = ca.signs("kubernetes-admin", &[]);
    cluster.present(&user.certificate, &user.key).await;
    let is_refused = async || cluster.admit(&plain(), "shop").await.is_err();
    cluster.until("an API server with a user's certificate is refused", is_refused).await;
    cluster.present(&server.certificate, &server.key).await;
    cluster.until_injected(&plain(), "shop").await;
}
