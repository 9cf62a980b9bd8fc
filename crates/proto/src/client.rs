//! Client connections. An address is `HOST:PORT` or `unix:/path`, and errors contain it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// Address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`.
    Tcp(String),
    /// `unix:/path`.
    Unix(String),
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// A Unix socket without its path.
    #[error("unix: needs a path, such as unix:/run/ebb.sock")]
    NoPath,
    /// Neither form. The text may hold credentials, so it is not quoted.
    #[error("not an address (HOST:PORT or unix:/path, without user and password)")]
    Form,
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return if path.is_empty() { Err(ParseAddressError::NoPath) } else { Ok(Self::Unix(path.into())) };
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        match bare.rsplit_once(':') {
            Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => Ok(Self::Tcp(bare.into())),
            _ => Err(ParseAddressError::Form),
        }
    }
}

/// Whether the text has neither credentials nor a path.
fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(['@', '/', '?', '#'])
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => f.write_str(at),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// Error of a connection attempt.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not a valid URI.
    #[error("{at}: {error}")]
    Address {
        /// The address as given.
        at: Address,
        /// The problem.
        error: tonic::transport::Error,
    },
    /// No server answers at the address.
    #[error("cannot reach {at}: {cause}; is `ebb serve` running there?")]
    Unreachable {
        /// The address as given.
        at: Address,
        /// The system's reason, in lower case.
        cause: String,
    },
}

/// An endpoint that connects within two seconds.
///
/// # Errors
/// [`ConnectError::Address`].
pub fn endpoint(at: &Address) -> Result<Endpoint, ConnectError> {
    let uri = match at {
        Address::Tcp(at) => format!("http://{at}"),
        Address::Unix(path) => format!("unix://{path}"),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| ConnectError::Address { at: at.clone(), error })?;
    Ok(endpoint.connect_timeout(Duration::from_secs(2)))
}

/// Connects. Each call on the channel ends after `timeout`.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(at: &Address, timeout: Option<Duration>) -> Result<Channel, ConnectError> {
    let endpoint = endpoint(at)?;
    let endpoint = if let Some(timeout) = timeout { endpoint.timeout(timeout) } else { endpoint };
    endpoint.connect().await.map_err(|error| unreachable(at, &error))
}

fn unreachable(at: &Address, error: &dyn std::error::Error) -> ConnectError {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let cause = cause.to_string();
    let cause = cause.split(" (os error").next().unwrap_or_default().to_lowercase();
    ConnectError::Unreachable { at: at.clone(), cause }
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
        let taken: Vec<_> = ["", "7070", ":7070", "host:", "host:70700", "unix:", "u:p@host:7070", "host/?token:7070"]
            .into_iter()
            .filter(|bad| bad.parse::<Address>().is_ok())
            .collect();
        assert!(taken.is_empty(), "{taken:?}");
    }

    #[tokio::test]
    async fn a_connection_error_names_the_address() {
        let Err(error) = connect(&Address::Tcp("127.0.0.1:1".into()), None).await else {
            panic!("port 1 must be closed")
        };
        assert_eq!(error.to_string(), "cannot reach 127.0.0.1:1: connection refused; is `ebb serve` running there?");
        let missing = Address::Unix("/nonexistent/ebb.sock".into());
        let Err(error) = connect(&missing, None).await else { panic!("the socket must not exist") };
        let said = error.to_string();
        assert!(said.starts_with("cannot reach unix:/nonexistent/ebb.sock: no such file"), "{said}");
    }
}
