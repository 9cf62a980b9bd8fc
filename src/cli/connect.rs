//! Arguments for connecting to a server, and messages for failed calls.

use std::time::Duration;

use clap::Args;
use tonic::transport::Channel;
use tonic::{Code, Status};

use ebb_proto::admin_service_client::AdminServiceClient;
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::client::{self, Address, ConnectError};
use ebb_terminal::Failure;

/// Arguments for the data listener.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataAt {
    /// Address of the server: HOST:PORT or unix:/path.
    #[arg(long, env = "EBB_ADDR", default_value = "127.0.0.1:7070")]
    pub(crate) addr: Address,
    /// Deadline of the call.
    #[arg(long, default_value = "10s")]
    pub(crate) timeout: ebb_config::units::Span,
}

/// Arguments for the admin listener.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminAt {
    /// Address of the admin listener: HOST:PORT or unix:/path.
    #[arg(long, env = "EBB_ADMIN_ADDR", default_value = "127.0.0.1:7071")]
    pub(crate) admin_addr: Address,
}

impl DataAt {
    pub(crate) async fn connect(&self) -> Result<CacheServiceClient<Channel>, Failure> {
        let channel = channel(&self.addr, Some(Duration::from_millis(self.timeout.0))).await?;
        Ok(CacheServiceClient::new(channel).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX))
    }
}

/// Timeout of admin calls, which a healthy server answers at once.
const ADMIN_PATIENCE: Duration = Duration::from_secs(10);

impl AdminAt {
    pub(crate) async fn connect(&self) -> Result<AdminServiceClient<Channel>, Failure> {
        self.connect_for(Duration::ZERO).await
    }

    /// Extends the timeout for calls that run this long before they are answered.
    pub(crate) async fn connect_for(&self, work: Duration) -> Result<AdminServiceClient<Channel>, Failure> {
        Ok(AdminServiceClient::new(channel(&self.admin_addr, Some(ADMIN_PATIENCE + work)).await?))
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
pub(crate) fn refused(what: &str, at: &Address, status: &Status) -> Failure {
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
    Failure::Failed(format!("{what} at {at}: {code}: {}{retry}", status.message()))
}
