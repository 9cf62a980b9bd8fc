//! `ebb injector` as the Deployment runs it, reachable by the API server.

use crate::apiserver::Cluster;
use crate::common::{metric, page, program, until};
use crate::helm::NAMESPACE;
use crate::process::Process;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Name of its Deployment, Service, account, ConfigMap and Lease.
pub const INJECTOR: &str = "ebb-injector";
/// The Secret with the certificates that it issues.
pub const SECRET: &str = "ebb-injector-tls";
/// The Secret with an existing certificate.
pub const GIVEN: &str = "given-certificate";
/// The ConfigMap with the CA of the API servers' client certificates.
pub const CLIENT_CA: &str = "api-server-ca";
/// Its MutatingWebhookConfiguration.
pub const CONFIGURATION: &str = "ebb.ebb-system.ebb-cache.io";

/// A running `ebb injector`.
pub struct Replica {
    process: Process,
    injector: String,
    address: SocketAddr,
    http: String,
    log: PathBuf,
}

/// An address of this machine for an EndpointSlice, which does not allow loopback. Sends no packets.
fn own_address() -> Option<IpAddr> {
    let asking = UdpSocket::bind("0.0.0.0:0").ok()?;
    asking.connect("192.0.2.1:9").ok()?;
    asking.local_addr().ok().map(|address| address.ip())
}

/// Whether an API server on loopback can reach a webhook here; prints a message if not.
pub fn can_be_reached() -> bool {
    let can = own_address().is_some();
    if !can {
        eprintln!("skipped: this machine has no address but loopback, which no EndpointSlice may hold");
    }
    can
}

impl Replica {
    /// Starts a replica with the account and arguments of the Deployment, except for paths and durations: a serving
    /// certificate lives for 12 s, a CA for 36 s, and certificates are checked every `look`. With a `group` it runs in
    /// that memory cgroup.
    async fn start(cluster: &Cluster, injector: &str, name: &str, look: &str, group: Option<&Path>) -> Self {
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
        let spec = deployments.get(injector).await.unwrap().spec.template.spec.unwrap();
        let given = spec.containers[0].args.clone().unwrap();
        assert_eq!(given[0], "injector");
        let template = mount_of(cluster, injector).await;
        let mut ours = vec![
            format!("--listen={}:0", own_address().unwrap()),
            "--http-listen=127.0.0.1:0".to_owned(),
            format!("--template={}", template.display()),
            "--certificate-lifetime=12s".to_owned(),
            "--ca-lifetime=36s".to_owned(),
            "--settle=2s".to_owned(),
            format!("--look={look}"),
            "--drain-delay=500ms".to_owned(),
        ];
        if given.iter().any(|word| word.starts_with("--tls-cert=")) {
            let [certificate, key] = mount_certificate(cluster).await.map(|path| path.display().to_string());
            ours.extend([format!("--tls-cert={certificate}"), format!("--tls-key={key}")]);
        }
        if given.iter().any(|word| word.starts_with("--paths=")) {
            ours.push(format!("--paths={}", mount_paths(cluster).await.display()));
        }
        if given.iter().any(|word| word.starts_with("--client-ca=")) {
            ours.push(format!("--client-ca={}", mount_client_ca(cluster).await.display()));
        }
        let key = |word: &str| word.split('=').next().unwrap().to_owned();
        let kept = given[1..].iter().filter(|word| !ours.iter().any(|own| key(own) == key(word)));
        let log = cluster.folder.path().join(format!("{name}.log"));
        let mut command = program();
        command.args(["injector"]).args(kept).args(&ours);
        command.env("KUBECONFIG", cluster.kubeconfig_as(NAMESPACE, &spec.service_account_name.unwrap()).await);
        command.env("EBB_INJECTOR_IDENTITY", name).stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        let mut process = Process::start(&mut command);
        if let Some(group) = group {
            fs::write(group.join("cgroup.procs"), process.0.id().to_string()).unwrap();
        }
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let part = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        let (Some(address), Some(http)) = (part("webhook="), part("http=")) else {
            panic!("no addresses in {line:?}: {}", fs::read_to_string(&log).unwrap());
        };
        Self { process, injector: injector.to_owned(), address: address.parse().unwrap(), http, log }
    }

    /// Starts a replica and waits until it is ready.
    pub async fn ready(cluster: &Cluster, name: &str, look: &str) -> Self {
        Self::ready_in(cluster, name, look, None).await
    }

    /// The same in a memory cgroup.
    pub async fn ready_in(cluster: &Cluster, name: &str, look: &str, group: Option<&Path>) -> Self {
        Self::ready_of(cluster, INJECTOR, name, look, group).await
    }

    async fn ready_of(cluster: &Cluster, injector: &str, name: &str, look: &str, group: Option<&Path>) -> Self {
        let replica = Self::start(cluster, injector, name, look, group).await;
        let is_ready = async || page(&replica.http, "/readyz").is_some_and(|(status, _)| status == 200);
        cluster.until("the injector is ready", is_ready).await;
        replica
    }

    /// The same, as an endpoint of the Service.
    pub async fn serving(cluster: &Cluster, name: &str) -> Self {
        Self::serving_of(cluster, INJECTOR, name).await
    }

    /// The same for another injector of the namespace.
    pub async fn serving_of(cluster: &Cluster, injector: &str, name: &str) -> Self {
        let replica = Self::ready_of(cluster, injector, name, "100ms", None).await;
        replica.route(cluster, name).await;
        replica
    }

    pub fn leads(&self) -> bool {
        self.metric("ebb_injector_leader") == 1
    }

    pub fn metric(&self, name: &str) -> u64 {
        metric(&self.http, &format!("{name} "))
    }

    /// The address for reviews.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resident set size, in MiB.
    pub fn rss_mib(&self) -> f64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.process.0.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() / 256.0
    }

    /// Terminates it; returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.process.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        until("the injector ends", || self.process.0.try_wait().unwrap().is_some());
        self.process.0.wait().unwrap().code()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Adds it to the EndpointSlice of the Service, as a controller would.
    pub async fn route(&self, cluster: &Cluster, name: &str) {
        let service = &self.injector;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{service}-{name}"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "webhook", "port": self.address.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [self.address.ip()], "conditions": {"ready": true}}],
        });
        let params = PatchParams::apply("a-scenario").force();
        slices(cluster).patch(&format!("{service}-{name}"), &params, &Patch::Apply(slice)).await.unwrap();
    }
}

fn slices(cluster: &Cluster) -> Api<EndpointSlice> {
    Api::namespaced(cluster.client.clone(), NAMESPACE)
}

/// Removes a replica from the Service.
pub async fn unroute(cluster: &Cluster, name: &str) {
    slices(cluster).delete(&format!("{INJECTOR}-{name}"), &DeleteParams::default()).await.unwrap();
}

/// Writes the current template to a file, as a kubelet would.
pub async fn mount(cluster: &Cluster) -> PathBuf {
    mount_of(cluster, INJECTOR).await
}

async fn mount_of(cluster: &Cluster, injector: &str) -> PathBuf {
    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let path = cluster.folder.path().join(format!("{injector}.sidecar.yaml"));
    fs::write(&path, &config_maps.get(injector).await.unwrap().data.unwrap()["sidecar.yaml"]).unwrap();
    path
}

/// Writes the files of the Secret with an existing certificate, as a kubelet would.
pub async fn mount_certificate(cluster: &Cluster) -> [PathBuf; 2] {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let data = secrets.get(GIVEN).await.unwrap().data.unwrap();
    ["tls.crt", "tls.key"].map(|name| {
        let path = cluster.folder.path().join(name);
        fs::write(&path, &data[name].0).unwrap();
        path
    })
}

/// Writes the secrets of the webhook's path, as a kubelet would.
pub async fn mount_paths(cluster: &Cluster) -> PathBuf {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let data = secrets.get("ebb-injector-paths").await.unwrap().data.unwrap();
    let path = cluster.folder.path().join("paths");
    fs::write(&path, &data["paths"].0).unwrap();
    path
}

/// Writes the CA of the API servers' client certificates, as a kubelet would.
pub async fn mount_client_ca(cluster: &Cluster) -> PathBuf {
    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let path = cluster.folder.path().join("client-ca.crt");
    fs::write(&path, &config_maps.get(CLIENT_CA).await.unwrap().data.unwrap()["ca.crt"]).unwrap();
    path
}

/// The path by which the API server calls the webhook, if there is one.
pub async fn path(cluster: &Cluster) -> Option<String> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let webhooks = configurations.get(CONFIGURATION).await.unwrap().webhooks.unwrap();
    webhooks[0].client_config.service.clone().unwrap().path
}

/// The distinct CA bundles of the webhooks; empty bytes if none is set.
pub async fn bundles(cluster: &Cluster) -> Vec<Vec<u8>> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let webhooks = configurations.get(CONFIGURATION).await.unwrap().webhooks.unwrap();
    let bundles =
        webhooks.into_iter().map(|webhook| webhook.client_config.ca_bundle.map_or(Vec::new(), |bytes| bytes.0));
    bundles.collect()
}
