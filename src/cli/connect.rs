//! Arguments for connecting to a server, and messages for failed calls.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::pods::{InCluster, Pod, Pods};
use super::targets::Target;
use ebb_config::units::Span;
use ebb_proto::admin_service_client::AdminServiceClient;
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::client::{self, Address, ConnectError, ParseAddressError};
use ebb_terminal::escape::escaped;
use ebb_terminal::{Failure, Output, output};
use futures::StreamExt as _;
use serde_json::Value;

/// Arguments for the data listener.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataAt {
    /// Address of the server: HOST:PORT or unix:/path.
    #[arg(long, env = "EBB_ADDR", default_value = "127.0.0.1:7070")]
    pub(crate) addr: Address,
    /// Deadline of the call [default: 10s].
    #[arg(long)]
    pub(crate) timeout: Option<Span>,
}

/// Address of the admin listener.
#[derive(Args, Clone, Debug)]
pub(crate) struct AtHere {
    /// Address of the admin listener: HOST:PORT or unix:/path.
    #[arg(long, env = "EBB_ADMIN_ADDR", default_value = "127.0.0.1:7071")]
    pub(crate) admin_addr: Address,
}

/// Arguments for the admin listener, of this machine or of a pod.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminAt {
    /// Pod or workload whose sidecar to ask instead of an address: pod/NAME, deploy/NAME. Only `doctor`, `stats` and
    /// `top` take workloads with several pods. Uses kubectl's configuration, and the right to create pods/exec.
    #[arg(id = "target", value_name = "TARGET")]
    target: Option<Target>,
    #[command(flatten)]
    within: InCluster,
    #[command(flatten)]
    here: AtHere,
}

impl FromStr for At {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        text.parse().map(Self::Address)
    }
}

/// A server to ask.
#[derive(Clone, Debug)]
pub(crate) enum At {
    /// One at an address.
    Address(Address),
    /// The sidecar of a pod.
    Pod(Box<Pod>),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Pod(pod) => pod.fmt(f),
        }
    }
}

impl At {
    /// Connects to the admin listener; each call ends after `timeout`.
    pub(crate) async fn channel(&self, timeout: Option<Duration>) -> Result<Channel, Failure> {
        match self {
            Self::Address(address) => channel(address, timeout).await,
            Self::Pod(pod) => pod.channel(timeout).await,
        }
    }

    pub(crate) async fn connect(&self) -> Result<AdminServiceClient<Channel>, Failure> {
        self.connect_for(Duration::ZERO).await
    }

    /// Extends the timeout for calls that run this long before they are answered.
    pub(crate) async fn connect_for(&self, work: Duration) -> Result<AdminServiceClient<Channel>, Failure> {
        Ok(AdminServiceClient::new(self.channel(Some(ADMIN_PATIENCE + work)).await?))
    }
}

impl DataAt {
    pub(crate) async fn connect(&self) -> Result<CacheServiceClient<Channel>, Failure> {
        self.connect_for(Span(0)).await
    }

    /// Connects for a call that may wait this long for its answer. The default deadline is extended by the wait; one that a
    /// user gives must be longer.
    pub(crate) async fn connect_for(&self, wait: Span) -> Result<CacheServiceClient<Channel>, Failure> {
        let timeout = match self.timeout {
            Some(timeout) if wait > Span(0) && timeout <= wait => {
                return Err(Failure::Usage(format!(
                    "--wait ({wait}) must be shorter than --timeout ({timeout}), the deadline of the whole call; change \
                     one of them, or leave out --timeout"
                )));
            }
            Some(timeout) => Duration::from_millis(timeout.0),
            None => DATA_TIMEOUT.saturating_add(Duration::from_millis(wait.0)),
        };
        let channel = channel(&self.addr, Some(timeout)).await?;
        Ok(CacheServiceClient::new(channel).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX))
    }
}

/// Deadline of data calls, unless a user gives one.
const DATA_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of admin calls, which a healthy server answers at once.
const ADMIN_PATIENCE: Duration = Duration::from_secs(10);

impl AdminAt {
    /// Every server that is meant: one, or the sidecar of each pod of a workload.
    pub(crate) async fn servers(&self) -> Result<Vec<At>, Failure> {
        match &self.target {
            None => Ok(vec![At::Address(self.here.admin_addr.clone())]),
            Some(target) => {
                let pods = Pods::of(std::slice::from_ref(target), &self.within).await?.find().await?;
                Ok(pods.into_iter().map(|pod| At::Pod(Box::new(pod))).collect())
            }
        }
    }

    /// The one server that is meant.
    pub(crate) async fn server(&self) -> Result<At, Failure> {
        let mut servers = self.servers().await?;
        match (servers.pop(), servers.len(), &self.target) {
            (Some(one), 0, _) => Ok(one),
            (Some(last), more, Some(target)) => {
                Err(Failure::Usage(format!("{target} has {} pods; name one of them, such as {last}", more + 1)))
            }
            _ => Err(Failure::Usage("no server was named".into())),
        }
    }

    /// Whether a workload was named, which may have several pods.
    pub(crate) fn is_workload(&self) -> bool {
        self.target.as_ref().is_some_and(Target::is_workload)
    }
}

/// Sidecars that are asked at once.
const AT_ONCE: usize = 8;

/// Asks every server that is meant, and prints the answers: that of one server as it is, those of a workload under the
/// names of its pods. Returns the answers. A pod that cannot be asked is reported, and the others are asked; the command
/// fails in the end.
pub(crate) async fn print_each<T>(
    at: &AdminAt,
    how: Output,
    ask: impl AsyncFn(&At) -> Result<T, Failure>,
    as_text: impl Fn(&T) -> String,
    as_json: impl Fn(&T) -> Value,
) -> Result<Vec<T>, Failure> {
    let servers = at.servers().await?;
    if !at.is_workload() {
        let [server] = &servers[..] else { return Err(Failure::Usage("one pod has one sidecar".into())) };
        let answer = ask(server).await?;
        match how {
            Output::Json => output::json(&as_json(&answer))?,
            Output::Text => output::line(as_text(&answer).trim_end())?,
        }
        return Ok(vec![answer]);
    }
    let (all, ask) = (servers.len(), &ask);
    let asked = futures::stream::iter(servers).map(async |server| (ask(&server).await, server));
    let mut answers = Vec::new();
    let mut by_pod = serde_json::Map::new();
    let mut asked = std::pin::pin!(asked.buffered(AT_ONCE));
    while let Some((answer, server)) = asked.next().await {
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                if let (_, Some(sentence)) = failure.code() {
                    output::note(sentence);
                }
                continue;
            }
        };
        match how {
            Output::Json => drop(by_pod.insert(server.to_string(), as_json(&answer))),
            Output::Text => output::line(&format!("{server}\n{}\n", as_text(&answer).trim_end()))?,
        }
        answers.push(answer);
    }
    if let Output::Json = how {
        output::json(&by_pod.into())?;
    }
    match all - answers.len() {
        0 => Ok(answers),
        failed => Err(Failure::Failed(format!("{failed} of {all} pods could not be asked"))),
    }
}

/// Connects.
pub(crate) async fn channel(at: &Address, timeout: Option<Duration>) -> Result<Channel, Failure> {
    client::connect(at, timeout).await.map_err(failure)
}

fn failure(error: ConnectError) -> Failure {
    match error {
        ConnectError::Address { .. } => Failure::Usage(error.to_string()),
        ConnectError::Unreachable { .. } => Failure::Failed(error.to_string()),
    }
}

/// The message for a failed call: the call, the server, the reason and the retry delay.
pub(crate) fn refused(what: &str, at: &impl fmt::Display, status: &Status) -> Failure {
    let code = match status.code() {
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded | Code::Cancelled => "timed out",
        Code::ResourceExhausted => "no room",
        Code::InvalidArgument => "refused",
        Code::Unimplemented => "unknown to this server (data calls use port 7070, admin calls 7071)",
        _ => "failed",
    };
    let retry = status.metadata().get("grpc-retry-pushback-ms").and_then(|ms| ms.to_str().ok());
    let retry = retry.map(|ms| format!(" (try again in {ms} ms)")).unwrap_or_default();
    Failure::Failed(format!("{what} at {at}: {code}: {}{retry}", escaped(status.message())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing;

    #[tokio::test]
    async fn a_deadline_must_cover_the_wait_for_a_lease() {
        let server = testing::Server::start().await;
        let connect = async |timeout: Option<&str>, wait: &str| {
            let timeout = timeout.map(|timeout| timeout.parse().unwrap());
            DataAt { addr: server.address.clone(), timeout }.connect_for(wait.parse().unwrap()).await
        };
        for timeout in ["1s", "3s", "2999ms"] {
            let Err(Failure::Usage(said)) = connect(Some(timeout), "3s").await else { panic!("{timeout}: accepted") };
            assert!(said.starts_with(&format!("--wait (3s) must be shorter than --timeout ({timeout})")), "{said}");
        }
        for (timeout, wait) in [(Some("4s"), "3s"), (None, "30s"), (Some("1s"), "0s")] {
            assert!(connect(timeout, wait).await.is_ok(), "{timeout:?}, {wait}");
        }
    }
}
