//! Reaching a server: an address is `HOST:PORT` or `unix:/path`, and an error names it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::Failure;
use crate::proto::admin_service_client::AdminServiceClient;
use crate::proto::cache_service_client::CacheServiceClient;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `HOST:PORT`.
    Tcp(String),
    /// `unix:/path`.
    Unix(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return if path.is_empty() { Err("`unix:` wants a path".into()) } else { Ok(Self::Unix(path.into())) };
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        match bare.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self::Tcp(bare.into())),
            _ => Err(format!("`{text}` is not an address; it must be HOST:PORT or unix:/path")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => f.write_str(at),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The listener of applications.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataAt {
    /// The server: HOST:PORT or unix:/path.
    #[arg(long, env = "EBB_ADDR", default_value = "127.0.0.1:7070")]
    pub(crate) addr: Address,
    /// How long to wait for an answer.
    #[arg(long, default_value = "10s")]
    pub(crate) timeout: crate::units::Span,
}

/// The listener of operators.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminAt {
    /// The server's admin listener: HOST:PORT or unix:/path.
    #[arg(long, env = "EBB_ADMIN_ADDR", default_value = "127.0.0.1:7071")]
    pub(crate) admin_addr: Address,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl DataAt {
    pub(crate) async fn connect(&self) -> Result<CacheServiceClient<Channel>, Failure> {
        let channel = channel(&self.addr, Some(Duration::from_millis(self.timeout.0))).await?;
        Ok(CacheServiceClient::new(channel).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX))
    }
}

/// A server answers an operator at once, or not at all.
const ADMIN_PATIENCE: Duration = Duration::from_secs(10);

impl AdminAt {
    pub(crate) async fn connect(&self) -> Result<AdminServiceClient<Channel>, Failure> {
        self.connect_for(Duration::ZERO).await
    }

    /// For calls that work so long before they are answered.
    pub(crate) async fn connect_for(&self, work: Duration) -> Result<AdminServiceClient<Channel>, Failure> {
        Ok(AdminServiceClient::new(channel(&self.admin_addr, Some(ADMIN_PATIENCE + work)).await?))
    }
}

/// Where to connect, within two seconds.
pub(crate) fn endpoint(at: &Address) -> Result<Endpoint, Failure> {
    let uri = match at {
        Address::Tcp(at) => format!("http://{at}"),
        Address::Unix(path) => format!("unix://{path}"),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|e| Failure::Usage(format!("{at}: {e}")))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(2)))
}

/// Connects, or says that nobody answers there.
pub(crate) async fn channel(at: &Address, timeout: Option<Duration>) -> Result<Channel, Failure> {
    let endpoint = endpoint(at)?;
    let endpoint = if let Some(timeout) = timeout { endpoint.timeout(timeout) } else { endpoint };
    endpoint.connect().await.map_err(|error| unreachable(at, &error))
}

fn unreachable(at: &Address, error: &dyn std::error::Error) -> Failure {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let cause = cause.to_string();
    let cause = cause.split(" (os error").next().unwrap_or_default();
    Failure::Failed(format!("cannot reach {at}: {}; is `ebb serve` running there?", cause.to_lowercase()))
}

/// A refusal in one sentence: what was refused, where, and when to try again.
pub(crate) fn refused(what: &str, at: &Address, status: &Status) -> Failure {
    let code = match status.code() {
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded | Code::Cancelled => "timed out",
        Code::ResourceExhausted => "no room",
        Code::InvalidArgument => "refused",
        Code::Unimplemented => "not known there (applications call port 7070, operators 7071)",
        _ => "failed",
    };
    let retry = status.metadata().get("grpc-retry-pushback-ms").and_then(|ms| ms.to_str().ok());
    let retry = retry.map(|ms| format!(" (try again in {ms} ms)")).unwrap_or_default();
    Failure::Failed(format!("{what} at {at}: {code}: {}{retry}", status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_port_or_a_socket() {
        assert_eq!("localhost:7070".parse(), Ok(Address::Tcp("localhost:7070".into())));
        assert_eq!("[::1]:7070".parse(), Ok(Address::Tcp("[::1]:7070".into())));
        assert_eq!("unix:/run/ebb.sock".parse(), Ok(Address::Unix("/run/ebb.sock".into())));
        assert_eq!("unix:///run/ebb.sock".parse(), Ok(Address::Unix("/run/ebb.sock".into())));
        for bad in ["", "7070", ":7070", "host:", "host:70700", "unix:"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_error_names_the_address_that_nobody_answers_at() {
        let Err(Failure::Failed(said)) = channel(&Address::Tcp("127.0.0.1:1".into()), None).await else {
            panic!("nobody listens on port 1")
        };
        assert_eq!(said, "cannot reach 127.0.0.1:1: connection refused; is `ebb serve` running there?");
        let missing = Address::Unix("/nonexistent/ebb.sock".into());
        let Err(Failure::Failed(said)) = channel(&missing, None).await else { panic!("nobody listens there") };
        assert!(said.starts_with("cannot reach unix:/nonexistent/ebb.sock: no such file"), "{said}");
    }
}
