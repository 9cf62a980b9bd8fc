//! Probes the injector's own webhook as an API server would call it: over TCP and TLS. Readiness follows the result.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Timeout of a probe; the API server waits 5 s.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Consecutive failures after which the webhook is not ready.
const FAILURES: u32 = 2;

/// Probes the webhook at one address.
pub(super) struct SelfProbe {
    address: SocketAddr,
    connector: TlsConnector,
    failures: u32,
}

impl SelfProbe {
    /// A probe of the webhook that listens at `listening`.
    pub(super) fn new(listening: SocketAddr) -> Self {
        // A listener of `[::]` serves IPv4, too, and `::1` is missing where IPv6 is switched off.
        let ip = if listening.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listening.ip() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = config.expect("the provider has cipher suites").dangerous();
        let config = config.with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth();
        let address = SocketAddr::new(ip, listening.port());
        Self { address, connector: TlsConnector::from(Arc::new(config)), failures: 0 }
    }

    /// Probes once; returns whether the webhook counts as ready.
    pub(super) async fn is_ready(&mut self) -> bool {
        let answered = tokio::time::timeout(TIMEOUT, self.ask()).await.is_ok_and(|result| result.unwrap_or(false));
        self.failures = if answered { 0 } else { self.failures + 1 };
        match self.failures {
            0 => true,
            FAILURES => {
                tracing::warn!(address = %self.address, "webhook does not answer its own probe");
                false
            }
            failures => failures < FAILURES,
        }
    }

    async fn ask(&self) -> std::io::Result<bool> {
        let stream = TcpStream::connect(self.address).await?;
        let mut stream = self.connector.connect(ServerName::from(self.address.ip()), stream).await?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        Ok(&status == b"HTTP/1.1 200")
    }
}

/// Accepts every certificate: the probe checks whether the webhook answers, not its identity.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
