//! Sidecars of pods, reached through the API server.
//!
//! ```text
//!  pod/NAME, deploy/NAME ──► find ──► Pod ──► channel: exec of `ebb dial-stdio` in the container `ebb`, gRPC over its streams
//! ```
//! An exec reaches every admin listener, on a loopback address or a Unix socket, and needs no port of this machine.

use super::dial_stdio::GREETING;
use clap::Args;
use ebb_terminal::Failure;
use http::uri::Uri;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{ApiResource, AttachParams, AttachedProcess, DynamicObject, ListParams};
use kube::config::KubeConfigOptions;
use kube::core::Selector;
use kube::{Api, Client, Config};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;
use strum::{IntoStaticStr, VariantArray};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint};

/// Name of the sidecar's container.
const CONTAINER: &str = "ebb";
/// Path of the program in its image.
const PROGRAM: &str = "/ebb";
/// How long an exec may take until the program answers; an image may be read from a slow disk.
const EXEC_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a direction that wait to be read.
const BUFFER: usize = 64 << 10;
/// Maximum length of what the program says when it fails, in bytes.
const SAYING: u64 = 1 << 10;

/// Which cluster and namespace.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct InCluster {
    /// Namespace of the pod or workload; kubectl's if not given.
    #[arg(long, short, value_name = "NAME", requires = "target", value_parser = namespace)]
    namespace: Option<String>,
    /// Context of kubectl's configuration; its current one if not given.
    #[arg(long, value_name = "NAME", requires = "target")]
    context: Option<String>,
}

fn namespace(text: &str) -> Result<String, String> {
    match is_object_name(text) && !text.contains('.') && text.len() <= 63 {
        true => Ok(text.to_owned()),
        false => Err("a namespace has lower-case letters, digits and -, at most 63".to_owned()),
    }
}

/// Whether a text is a DNS subdomain (RFC 1123), as the names of objects are.
fn is_object_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-');
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A kind of object that has pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
enum Kind {
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
}

impl Kind {
    fn name(self) -> &'static str {
        self.into()
    }

    fn short(self) -> &'static str {
        match self {
            Self::Pod => "po",
            Self::Deployment => "deploy",
            Self::StatefulSet => "sts",
            Self::DaemonSet => "ds",
            Self::ReplicaSet => "rs",
            Self::Job => "job",
        }
    }

    fn resource(self) -> ApiResource {
        use k8s_openapi::api::{apps::v1 as apps, batch::v1::Job};
        match self {
            Self::Pod => ApiResource::erase::<core::Pod>(&()),
            Self::Deployment => ApiResource::erase::<apps::Deployment>(&()),
            Self::StatefulSet => ApiResource::erase::<apps::StatefulSet>(&()),
            Self::DaemonSet => ApiResource::erase::<apps::DaemonSet>(&()),
            Self::ReplicaSet => ApiResource::erase::<apps::ReplicaSet>(&()),
            Self::Job => ApiResource::erase::<Job>(&()),
        }
    }
}

/// A pod, or a workload with pods, as kubectl names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    kind: Kind,
    name: String,
}

impl Target {
    /// Whether it stands for any number of pods.
    pub(crate) fn is_workload(&self) -> bool {
        self.kind != Kind::Pod
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or(("pod", text));
        // As `kubectl get --output name` prints it: with the group.
        let asked = kind.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let asked = asked.strip_suffix('s').filter(|one| one.len() > 2).unwrap_or(&asked);
        let is_asked =
            |kind: &&Kind| asked == kind.name() || asked == kind.short() || format!("{asked}s") == kind.short();
        let Some(kind) = Kind::VARIANTS.iter().find(is_asked) else {
            let known: Vec<_> = Kind::VARIANTS.iter().map(|kind| kind.name()).collect();
            return Err(format!("{kind:?} is no kind of object with pods (one of {})", known.join(", ")));
        };
        if !is_object_name(name) {
            return Err(format!("{name:?} is no name of an object (lower-case letters, digits, - and ., at most 253)"));
        }
        Ok(Self { kind: *kind, name: name.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.name)
    }
}

/// A pod.
#[derive(Clone)]
pub(crate) struct Pod {
    api: Api<core::Pod>,
    name: String,
    /// Why it cannot be asked.
    problem: Option<String>,
}

impl fmt::Debug for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod/{}", self.name)
    }
}

/// Finds the pods of all targets, in the order of their names for each. Of a workload, pods that end are left out; others
/// without a running sidecar are found, and cannot be asked.
///
/// # Errors
/// A message that names the target and the reason.
pub(crate) async fn find(targets: &[Target], within: &InCluster) -> Result<Vec<Pod>, Failure> {
    let unreachable = |error: &dyn fmt::Display| Failure::Failed(format!("cannot reach the API server: {error}"));
    let config = match &within.context {
        None => Config::infer().await.map_err(|error| unreachable(&error))?,
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await.map_err(|error| unreachable(&error))?
        }
    };
    let namespace = within.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| unreachable(&error))?;
    let api: Api<core::Pod> = Api::namespaced(client.clone(), &namespace);
    let mut found: Vec<Pod> = Vec::new();
    for target in targets {
        let failed = |error: kube::Error| Failure::Failed(format!("{target}: {}", reason(&error, &namespace)));
        let named = |pod: &core::Pod| Pod {
            api: api.clone(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            problem: problem(pod),
        };
        let before = found.len();
        if target.is_workload() {
            let workloads = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &target.kind.resource());
            let workload = workloads.get(&target.name).await.map_err(failed)?;
            let selector = workload.data["spec"]["selector"].clone();
            let selector: LabelSelector = serde_json::from_value(selector)
                .map_err(|_| Failure::Failed(format!("{target}: has no selector of pods")))?;
            let selector = Selector::try_from(selector).map_err(|error| format!("{target}: {error}"))?;
            let pods = api.list(&ListParams::default().labels_from(&selector)).await.map_err(failed)?;
            found.extend(pods.items.iter().filter(|pod| !has_ended(pod)).map(named));
            if found.len() == before {
                return Err(Failure::Failed(format!("{target}: has no pods in namespace {namespace}")));
            }
        } else {
            found.push(named(&api.get(&target.name).await.map_err(failed)?));
        }
        found[before..].sort_by(|one, other| one.name.cmp(&other.name));
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|pod| seen.insert(pod.name.clone()));
    Ok(found)
}

/// Whether a pod has ended, or is about to.
fn has_ended(pod: &core::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || phase.is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase))
}

/// Why a pod has no sidecar that could be asked.
fn problem(pod: &core::Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let names: Vec<&str> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| &*c.name).collect();
    if !names.contains(&CONTAINER) {
        return Some(format!("has no sidecar: no container of it is named {CONTAINER} (it has {})", names.join(", ")));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("is terminating".to_owned());
    }
    let status = pod.status.as_ref();
    let statuses = status.into_iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    let is_running = statuses
        .filter(|status| status.name == CONTAINER)
        .any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let phase = || status.and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
    (!is_running).then(|| format!("its sidecar is not running (the pod is {})", phase()))
}

/// A failure of the API server, in one line.
fn reason(error: &kube::Error, namespace: &str) -> String {
    match error {
        kube::Error::Api(status) if status.is_not_found() => format!("not found in namespace {namespace}"),
        kube::Error::Api(status) => status.message.clone(),
        other => {
            let mut cause: &dyn std::error::Error = other;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            format!("cannot reach the API server: {cause}")
        }
    }
}

impl Pod {
    /// Connects to the admin listener. Each call on the channel ends after `timeout`.
    ///
    /// # Errors
    /// A message that names the pod and the reason.
    pub(crate) async fn channel(&self, timeout: Option<Duration>) -> Result<Channel, Failure> {
        if let Some(problem) = &self.problem {
            return Err(Failure::Failed(format!("{self}: {problem}")));
        }
        let endpoint = Endpoint::from_static("http://sidecar");
        let endpoint = if let Some(timeout) = timeout { endpoint.timeout(timeout) } else { endpoint };
        // The first connection is made here, since an error of the connector would arrive without its words.
        let first =
            std::sync::Mutex::new(Some(self.dial().await.map_err(|why| Failure::Failed(format!("{self}: {why}")))?));
        let pod = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (first, pod) = (first.lock().ok().and_then(|mut first| first.take()), pod.clone());
            async move {
                let stream = match first {
                    Some(stream) => Ok(stream),
                    None => pod.dial().await.map_err(io::Error::other),
                };
                stream.map(TokioIo::new)
            }
        });
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| Failure::Failed(format!("{self}: {error}")))
    }

    async fn dial(&self) -> Result<Stream, String> {
        let parameters = AttachParams::default()
            .container(CONTAINER)
            .stdin(true)
            .max_stdin_buf_size(BUFFER)
            .max_stdout_buf_size(BUFFER);
        let dialed = async {
            let process = self.api.exec(&self.name, [PROGRAM, "dial-stdio"], &parameters).await;
            Stream::greeted(process.map_err(|error| refusal(&error))?).await
        };
        let late = |_| format!("no answer to an exec within {EXEC_TIMEOUT:?}");
        tokio::time::timeout(EXEC_TIMEOUT, dialed).await.map_err(late)?
    }
}

/// Why an exec was refused.
fn refusal(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if [401, 403].contains(&status.code) => {
            format!("no permission: this needs the rights to get and create pods/exec ({})", status.message)
        }
        other => format!("cannot execute a program in container {CONTAINER}: {}", reason(other, "")),
    }
}

/// The standard streams of a program in a container.
struct Stream {
    input: Pin<Box<dyn AsyncWrite + Send>>,
    output: Pin<Box<dyn AsyncRead + Send>>,
    /// Ends with the connection.
    _process: AttachedProcess,
}

impl Stream {
    /// Waits for the greeting of `ebb dial-stdio`. If there is none, the error is what the program has said.
    async fn greeted(mut process: AttachedProcess) -> Result<Self, String> {
        let lost = || "the API server gave no streams of the program".to_owned();
        let status = process.take_status();
        let (input, mut output) = (process.stdin().ok_or_else(lost)?, process.stdout().ok_or_else(lost)?);
        let mut greeting = [0; GREETING.len()];
        if output.read_exact(&mut greeting).await.is_ok() && greeting == *GREETING {
            return Ok(Self { input: Box::pin(input), output: Box::pin(output), _process: process });
        }
        let mut said = String::new();
        if let Some(errors) = process.stderr() {
            let _ = errors.take(SAYING).read_to_string(&mut said).await;
        }
        let status = match status {
            Some(status) => status.await.and_then(|status| status.message),
            None => None,
        };
        let said = [said.trim().to_owned(), status.unwrap_or_default()];
        let said: Vec<_> = said.iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
        Err(format!("`{PROGRAM} dial-stdio` in container {CONTAINER} failed: {}", said.join("; ")))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.output.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.input.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_target_is_named_as_kubectl_names_it() {
        let shown = |text: &str| text.parse::<Target>().map(|target| target.to_string());
        for (text, expected) in [
            ("shop-0", "pod/shop-0"),
            ("po/shop-0", "pod/shop-0"),
            ("pods/shop-0", "pod/shop-0"),
            ("Pod/shop-0", "pod/shop-0"),
            ("deploy/shop", "deployment/shop"),
            ("deployments/shop", "deployment/shop"),
            ("sts/db", "statefulset/db"),
            ("statefulsets/db", "statefulset/db"),
            ("ds/logs", "daemonset/logs"),
            ("rs/shop-5d", "replicaset/shop-5d"),
            ("jobs/nightly", "job/nightly"),
            ("deployment.apps/shop", "deployment/shop"),
            ("job.batch/nightly", "job/nightly"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
        for (text, problem) in [
            ("svc/shop", "\"svc\" is no kind of object with pods (one of pod, deployment, "),
            ("cronjob/nightly", "\"cronjob\" is no kind"),
            ("pod/", "\"\" is no name"),
            ("pod/a/b", "\"a/b\" is no name"),
            ("127.0.0.1:7071", "is no name of an object"),
            ("pod/..", "\"..\" is no name"),
            ("pod/a.-b", "\"a.-b\" is no name"),
        ] {
            assert!(shown(text).unwrap_err().contains(problem), "{text}: {:?}", shown(text));
        }
    }

    #[test]
    fn a_pod_without_a_running_sidecar_is_described() {
        let of = |pod: serde_json::Value| problem(&serde_json::from_value(pod).unwrap());
        let running = json!([{"name": "ebb", "state": {"running": {}}, "image": "", "imageID": "", "ready": true, "restartCount": 0}]);
        let spec = json!({"containers": [{"name": "app"}], "initContainers": [{"name": "ebb"}]});
        let pod =
            json!({"metadata": {}, "spec": spec, "status": {"phase": "Running", "initContainerStatuses": running}});
        assert_eq!(of(pod.clone()), None);
        let mut waiting = pod.clone();
        waiting["status"] = json!({"phase": "Pending"});
        assert_eq!(of(waiting).unwrap(), "its sidecar is not running (the pod is Pending)");
        let mut bare = pod.clone();
        bare["spec"] = json!({"containers": [{"name": "app"}, {"name": "proxy"}]});
        assert_eq!(of(bare).unwrap(), "has no sidecar: no container of it is named ebb (it has app, proxy)");
        let mut ending = pod;
        ending["metadata"]["deletionTimestamp"] = json!("2026-11-28T00:00:00Z");
        assert_eq!(of(ending).unwrap(), "is terminating");
    }
}
