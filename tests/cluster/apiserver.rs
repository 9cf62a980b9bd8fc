//! An API server without nodes, for one scenario: etcd and kube-apiserver on free ports. Both end with the scenario.

use crate::common::within;
use crate::process::Process;
use ebb_injector::inject::TRUSTED;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

/// The account of the scenario, with all rights.
const TOKEN: &str = "an-operator-of-this-test";
/// Timeout for the API server to become ready, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Serializes the selection of free ports.
static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Switches off the plugin that adds the token of an account to pods.
const WITHOUT_ACCOUNTS: &str = "--disable-admission-plugins=ServiceAccount";

/// Audit policy: logs the calls of service accounts and their results.
const AUDIT: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, userGroups: ['system:serviceaccounts']}
  - {level: None}
";

pub struct Cluster {
    /// A client with all rights.
    pub client: Client,
    /// Directory with data and logs of etcd and kube-apiserver.
    pub folder: tempfile::TempDir,
    /// Directory of Helm and kubectl.
    pub tools: PathBuf,
    port: u16,
    processes: Vec<Process>,
    server: Vec<String>,
}

impl Cluster {
    /// Starts a cluster with the namespaces `shop`, with the labels for injection and for all annotations, and `plain`,
    /// without any; `None` if the binaries are missing.
    pub async fn start() -> Option<Self> {
        let folder = |name, holds: &str| {
            let folder = Path::new(&env::var_os(name)?).canonicalize().ok()?;
            folder.join(holds).exists().then_some(folder)
        };
        let assets = folder("KUBEBUILDER_ASSETS", "kube-apiserver");
        let (Some(assets), Some(tools)) = (assets, folder("EBB_CHART_TOOLS", "helm4/helm")) else {
            eprintln!("skipped: KUBEBUILDER_ASSETS and EBB_CHART_TOOLS name no API server and no Helm");
            return None;
        };
        let alone = STARTING.lock().await;
        let mut cluster = Self::prepare(&assets, tools);
        let etcd = cluster.etcd(&assets);
        cluster.launch(&etcd);
        cluster.launch(&cluster.server.clone());
        cluster.is_ready().await;
        drop(alone);
        cluster.namespace("shop", json!({"ebb-cache.io/inject": "enabled", TRUSTED: "true"})).await;
        cluster.namespace("plain", json!({})).await;
        Some(cluster)
    }

    fn prepare(assets: &Path, tools: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let signing = rcgen::KeyPair::generate().unwrap();
        fs::write(at("accounts.key"), signing.serialize_pem()).unwrap();
        fs::write(at("accounts.pub"), signing.public_key_pem()).unwrap();
        fs::write(at("tokens.csv"), format!("{TOKEN},operator,operator,system:masters\n")).unwrap();
        fs::write(at("audit.yaml"), AUDIT).unwrap();
        let port = free_ports::<1>()[0];
        let server = [
            assets.join("kube-apiserver").to_str().unwrap(),
            &format!("--cert-dir={}", at("certs")),
            &format!("--secure-port={port}"),
            "--bind-address=127.0.0.1",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={}", at("accounts.pub")),
            &format!("--service-account-signing-key-file={}", at("accounts.key")),
            "--authorization-mode=RBAC",
            &format!("--token-auth-file={}", at("tokens.csv")),
            // This plugin refuses pods without the account that a controller would create in each namespace.
            WITHOUT_ACCOUNTS,
            // The API server calls webhooks at the addresses in EndpointSlices, since there is no kube-proxy.
            "--enable-aggregator-routing",
            &format!("--audit-policy-file={}", at("audit.yaml")),
            &format!("--audit-log-path={}", at("audit.log")),
        ]
        .map(str::to_owned)
        .to_vec();
        let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
        config.auth_info.token = Some(TOKEN.to_owned().into());
        let cluster = Self { client: client(config), folder, tools, port, processes: Vec::new(), server };
        fs::write(cluster.kubeconfig(), cluster.kubeconfig_of(TOKEN)).unwrap();
        cluster
    }

    /// The command of etcd; the API server gets its address.
    fn etcd(&mut self, assets: &Path) -> Vec<String> {
        let [client, peer] = free_ports::<2>().map(|port| format!("http://127.0.0.1:{port}"));
        self.server.push(format!("--etcd-servers={client}"));
        [
            assets.join("etcd").to_str().unwrap(),
            &format!("--data-dir={}", self.folder.path().join("etcd").display()),
            "--unsafe-no-fsync",
            &format!("--listen-client-urls={client}"),
            &format!("--advertise-client-urls={client}"),
            &format!("--listen-peer-urls={peer}"),
            &format!("--initial-advertise-peer-urls={peer}"),
            &format!("--initial-cluster=default={peer}"),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn launch(&mut self, words: &[String]) {
        let name = Path::new(&words[0]).file_name().unwrap().to_str().unwrap();
        let log = fs::File::create(self.folder.path().join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdout(log.try_clone().unwrap()).stderr(log);
        self.processes.push(Process::start(&mut command));
    }

    async fn is_ready(&mut self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            let asked = http::Request::get("/readyz").body(Vec::new()).unwrap();
            if self.client.request_text(asked).await.is_ok_and(|said| said == "ok") {
                return;
            }
            let has_ended = self.processes.iter_mut().any(|process| process.0.try_wait().unwrap().is_some());
            if has_ended || tokio::time::Instant::now() > deadline {
                panic!("the API server is not ready:\n{}\n{}", self.log("etcd"), self.log("kube-apiserver"));
            }
            ticks.tick().await;
        }
    }

    /// The end of a log.
    fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Kills the API server and starts it again.
    pub async fn restart(&mut self) {
        drop(self.processes.pop());
        self.launch(&self.server.clone());
        self.is_ready().await;
    }

    /// Restarts the API server with a certificate for calls of the injector, configured as docs/security.md says.
    pub async fn present(&mut self, certificate: &str, key: &str) {
        let page = fs::read_to_string("docs/security.md").unwrap();
        let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let blocks: Vec<_> = blocks.filter(|block| block.starts_with("apiVersion:")).collect();
        let [admission, kubeconfig] = blocks.as_slice() else { panic!("{blocks:?}") };
        let folder = format!("{}/", self.folder.path().display());
        for (name, text) in [
            ("admission.yaml", *admission),
            ("webhooks.kubeconfig", *kubeconfig),
            ("client.crt", certificate),
            ("client.key", key),
        ] {
            fs::write(format!("{folder}{name}"), text.replace("/etc/kubernetes/", &folder)).unwrap();
        }
        self.server.push(format!("--admission-control-config-file={folder}admission.yaml"));
        self.restart().await;
    }

    /// Restarts the API server so that it adds tokens to the pods of these namespaces.
    pub async fn add_tokens(&mut self, namespaces: &[&str]) {
        self.server.retain(|word| word != WITHOUT_ACCOUNTS);
        self.restart().await;
        for namespace in namespaces {
            let metadata = json!({"name": "default", "namespace": namespace});
            self.create(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})).await;
        }
    }

    /// A kubeconfig for this cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn kubeconfig_of(&self, token: &str) -> String {
        let server = format!("https://127.0.0.1:{}", self.port);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string()
    }

    /// A kubeconfig for a service account, with a token like that of its pods.
    pub async fn kubeconfig_as(&self, namespace: &str, account: &str) -> PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
        let asked = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let given = accounts.create_token_request(account, &PostParams::default(), &asked).await.unwrap();
        let path = self.folder.path().join(format!("{namespace}.{account}.kubeconfig"));
        fs::write(&path, self.kubeconfig_of(&given.status.unwrap().token.unwrap())).unwrap();
        path
    }

    /// A client with the rights of the user.
    pub fn client_as(&self, user: &str) -> Client {
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        config.auth_info.token = Some(TOKEN.to_owned().into());
        config.auth_info.impersonate = Some(user.to_owned());
        client(config)
    }

    /// Creates a namespace, or sets the labels of an existing one.
    pub async fn namespace(&self, name: &str, labels: Value) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let params = PatchParams::apply("a-scenario").force();
        namespaces.patch(name, &params, &Patch::Apply(namespace)).await.unwrap();
    }

    /// Sets an annotation of a namespace; null removes it.
    pub async fn annotate(&self, namespace: &str, annotations: Value) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.patch(namespace, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits for a condition, with a timeout for a busy machine.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, condition: impl FnMut() -> F) {
        within(Duration::from_secs(60), what, condition).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // End the API server first: it would log errors about a missing etcd.
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
    }
}

/// A client without retries, and with a timeout.
pub fn client(mut config: Config) -> Client {
    config.accept_invalid_certs = true;
    config.default_retry = false;
    config.read_timeout = Some(Duration::from_secs(30));
    config.reset_reader_on_write = true;
    Client::try_from(config).unwrap()
}

/// Free ports.
fn free_ports<const N: usize>() -> [u16; N] {
    let taken = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    taken.map(|listener| listener.local_addr().unwrap().port())
}
