//! Client certificates of API servers: reviews need one if the CA of these certificates is known.
//!
//! A handshake without a certificate succeeds, so that the injector's probe of its own port needs none. A certificate
//! that the CA has not signed ends the handshake.

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a CA of clients cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientCaError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The text is not PEM.
    #[error("{}: not a certificate as PEM: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        error: pem::Error,
    },
    /// A certificate cannot be a CA.
    #[error("{}: not a CA: {error}", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// The verifier's reason.
        error: Error,
    },
    /// There is no certificate.
    #[error("{}: no usable CA: {error}", path.display())]
    None {
        /// The file.
        path: PathBuf,
        /// The verifier's reason.
        error: VerifierBuilderError,
    },
}

/// Verifies certificates of clients by the CA in a file, which may change.
#[derive(Debug)]
pub(super) struct Clients {
    path: PathBuf,
    text: ArcSwap<String>,
    verifier: ArcSwap<Arc<dyn ClientCertVerifier>>,
}

impl Clients {
    /// Reads the CA.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) fn read(path: PathBuf) -> Result<Self, ClientCaError> {
        let text = text(&path)?;
        let verifier = verifier(&path, &text)?;
        Ok(Self { path, text: ArcSwap::from_pointee(text), verifier: ArcSwap::from_pointee(verifier) })
    }

    /// Reads the CA again; an unusable one leaves the last one.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) fn follow(&self) -> Result<(), ClientCaError> {
        let text = text(&self.path)?;
        if **self.text.load() != text {
            self.verifier.store(Arc::new(verifier(&self.path, &text)?));
            self.text.store(Arc::new(text));
            tracing::info!("CA of clients reloaded");
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<String, ClientCaError> {
    std::fs::read_to_string(path).map_err(|error| ClientCaError::Unreadable { path: path.to_owned(), error })
}

fn verifier(path: &Path, text: &str) -> Result<Arc<dyn ClientCertVerifier>, ClientCaError> {
    let path = || path.to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| ClientCaError::Pem { path: path(), error })?;
        roots.add(certificate).map_err(|error| ClientCaError::Root { path: path(), error })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
    verifier.build().map_err(|error| ClientCaError::None { path: path(), error })
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No names of CAs: every client then offers the certificate that it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier.load().verify_client_cert(end, between, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.load().supported_verify_schemes()
    }
}
