//! Sidecars of pods, reached through the API server.
//!
//! ```text
//!  pod/NAME, deploy/NAME ──► Pods ──► Pod ──► channel: exec of `ebb dial-stdio` in the container `ebb`, gRPC over its streams
//! ```
//! An exec reaches every admin listener, on a loopback address or a Unix socket, and needs no port of this machine.

use super::dial_stdio::GREETING;
use super::targets::{Target, is_object_name};
use clap::Args;
use ebb_terminal::Failure;
use http::uri::Uri;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{AttachParams, AttachedProcess, DynamicObject, ListParams};
use kube::config::KubeConfigOptions;
use kube::core::Selector;
use kube::{Api, Client, Config};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
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
    #[arg(id = "target_namespace", long = "namespace", short = 'n', value_name = "NAME", value_parser = namespace)]
    namespace: Option<String>,
    /// Context of kubectl's configuration; its current one if not given.
    #[arg(id = "target_context", long = "context", value_name = "NAME")]
    context: Option<String>,
}

fn namespace(text: &str) -> Result<String, String> {
    match is_object_name(text) && !text.contains('.') && text.len() <= 63 {
        true => Ok(text.to_owned()),
        false => Err("a namespace has lower-case letters, digits and -, at most 63".to_owned()),
    }
}

/// A pod.
#[derive(Clone)]
pub(crate) struct Pod {
    api: Api<core::Pod>,
    name: String,
    /// Tells it from a later pod of the same name, as StatefulSets create them.
    uid: String,
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

/// The pods of targets in a cluster, which may be looked for again and again.
#[derive(Clone)]
pub(crate) struct Pods {
    client: Client,
    namespace: String,
    targets: Vec<Target>,
}

impl fmt::Debug for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let targets: Vec<_> = self.targets.iter().map(Target::to_string).collect();
        write!(f, "{} in namespace {}", targets.join(", "), self.namespace)
    }
}

/// The present pods of a target, or why they are not known.
#[derive(Debug)]
pub(crate) enum Present {
    /// The pods, in the order of their names.
    Pods(Vec<Pod>),
    /// The target does not exist. A pod is named still, with this problem.
    Missing(Vec<Pod>, String),
    /// The API server did not tell.
    Unknown(String),
}

impl Pods {
    /// Prepares calls of the API server.
    ///
    /// # Errors
    /// A message with the reason, if there is no configuration of a cluster.
    pub(crate) async fn of(targets: &[Target], within: &InCluster) -> Result<Self, Failure> {
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
        Ok(Self { client, namespace, targets: targets.to_vec() })
    }

    /// Finds the pods of all targets, in the order of their names for each. Of a workload, pods that end are left out;
    /// others without a running sidecar are found, and cannot be asked.
    ///
    /// # Errors
    /// A message that names the target and the reason.
    pub(crate) async fn find(&self) -> Result<Vec<Pod>, Failure> {
        let mut found = Vec::new();
        for (target, present) in self.present().await {
            match present {
                Present::Pods(pods) if pods.is_empty() => {
                    return Err(Failure::Failed(format!("{target}: has no pods in namespace {}", self.namespace)));
                }
                Present::Pods(pods) => found.extend(pods),
                Present::Missing(_, why) | Present::Unknown(why) => return Err(Failure::Failed(why)),
            }
        }
        Ok(once_each(found))
    }

    /// The pods of each target, as they are now.
    pub(crate) async fn present(&self) -> Vec<(Target, Present)> {
        let mut all = Vec::new();
        for target in &self.targets {
            let present = self.of_target(target).await.unwrap_or_else(|error| {
                let why = format!("{target}: {}", reason(&error, &self.namespace));
                match &error {
                    kube::Error::Api(status) if status.is_not_found() => {
                        let named = (!target.is_workload()).then(|| self.missing(target));
                        Present::Missing(named.into_iter().collect(), why)
                    }
                    _ => Present::Unknown(why),
                }
            });
            all.push((target.clone(), present));
        }
        all
    }

    async fn of_target(&self, target: &Target) -> Result<Present, kube::Error> {
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let named = |pod: &core::Pod| Pod {
            api: api.clone(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            problem: problem(pod),
        };
        if !target.is_workload() {
            return Ok(Present::Pods(vec![named(&api.get(&target.name).await?)]));
        }
        let resource = target.kind.resource();
        let workloads = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let selector = workloads.get(&target.name).await?.data["spec"]["selector"].clone();
        let Ok(selector) = serde_json::from_value::<LabelSelector>(selector) else {
            return Ok(Present::Unknown(format!("{target}: has no selector of pods")));
        };
        let selector = match Selector::try_from(selector) {
            Ok(selector) => selector,
            Err(error) => return Ok(Present::Unknown(format!("{target}: {error}"))),
        };
        let pods = api.list(&ListParams::default().labels_from(&selector)).await?;
        let mut pods: Vec<Pod> = pods.items.iter().filter(|pod| !has_ended(pod)).map(named).collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Present::Pods(pods))
    }

    /// A pod that does not exist.
    fn missing(&self, target: &Target) -> Pod {
        let problem = Some(format!("not found in namespace {}", self.namespace));
        let api = Api::namespaced(self.client.clone(), &self.namespace);
        Pod { api, name: target.name.clone(), uid: String::new(), problem }
    }
}

/// The pods without repetitions: two targets may share some.
pub(crate) fn once_each(mut pods: Vec<Pod>) -> Vec<Pod> {
    let mut seen = std::collections::BTreeSet::new();
    pods.retain(|pod| seen.insert(pod.name.clone()));
    pods
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
    /// Whether it is the same pod, at another time.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.uid) == (&other.name, &other.uid)
    }

    /// Why it cannot be asked.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    #[cfg(test)]
    pub(crate) fn fake(name: &str, uid: &str, problem: Option<&str>) -> Self {
        let nobody = |_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(io::Error::other("there is no API server"))
        };
        let api = Api::namespaced(Client::new(tower::service_fn(nobody), "default"), "default");
        Self { api, name: name.to_owned(), uid: uid.to_owned(), problem: problem.map(str::to_owned) }
    }

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
