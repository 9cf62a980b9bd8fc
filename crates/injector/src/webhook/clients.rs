//! Client certificates of API servers: reviews need one if the CA of these certificates is known.
//!
//! A handshake without a certificate succeeds, so that the injector's probe of its own port needs none. A certificate
//! that the CA has not signed ends the handshake. A CA may also sign certificates of users or kubelets, so an administrator
//! can list the names of API servers' certificates. The answer to a client without such a name gives this reason.

use arc_swap::ArcSwap;
use ebb_listener::RateLimit;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::extensions::GeneralName;

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

/// Interval between log lines about certificates without an accepted name.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Why a client may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It has no certificate.
    NoCertificate,
    /// Its certificate has none of the accepted names.
    Name,
}

impl Denied {
    /// The reason in the answer to the client.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::NoCertificate => "reviews need a client certificate",
            Self::Name => "the client certificate has none of the accepted names (--client-names)",
        }
    }
}

/// Verifies certificates of clients by the CA in a file, which may change, and by their names.
#[derive(Debug)]
pub(super) struct Clients {
    /// Accepted names; if there are none, every name is.
    names: Vec<String>,
    log: Mutex<RateLimit>,
    path: PathBuf,
    text: ArcSwap<String>,
    verifier: ArcSwap<Arc<dyn ClientCertVerifier>>,
}

impl Clients {
    /// Reads the CA.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) fn read(path: PathBuf, names: Vec<String>) -> Result<Self, ClientCaError> {
        let text = text(&path)?;
        let verifier = verifier(&path, &text)?;
        let log = Mutex::new(RateLimit::new(LOG_EVERY));
        Ok(Self { names, log, path, text: ArcSwap::from_pointee(text), verifier: ArcSwap::from_pointee(verifier) })
    }

    /// Why a client with this chain, which the CA has signed, may not ask.
    pub(super) fn denies(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<Denied> {
        let Some(own) = chain.and_then(<[_]>::first) else { return Some(Denied::NoCertificate) };
        if self.names.is_empty() {
            return None;
        }
        let found = names_of(own);
        if found.iter().any(|name| self.names.contains(name)) {
            return None;
        }
        if let Some(suppressed) = self.log.lock().due() {
            tracing::warn!(names = ?found, accepted = ?self.names, suppressed, "client certificate has no accepted name");
        }
        Some(Denied::Name)
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

/// The common names of a certificate, and its alternative names that are DNS names or URIs.
fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, read)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let common = read.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned));
    let mut names: Vec<String> = common.collect();
    if let Ok(Some(alternative)) = read.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    names
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(common: Option<&str>, dns: &[&str], uri: Option<&str>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(dns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_client_is_known_by_any_of_its_names() {
        let folder = std::env::temp_dir().join(format!("ebb-clients-{}", std::process::id()));
        let ca = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&folder, ca.pem()).unwrap();
        let clients = |names: &[&str]| {
            Clients::read(folder.clone(), names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
        };
        let some = clients(&["kube-apiserver", "spiffe://cluster/apiserver"]);
        let denied = |clients: &Clients, own: CertificateDer<'static>| clients.denies(Some(&[own]));
        let user = || certificate(Some("kubernetes-admin"), &["admin.example"], None);
        for (own, expected) in [
            (certificate(Some("kube-apiserver"), &[], None), None),
            (certificate(Some("x"), &["a.example", "kube-apiserver"], None), None),
            (certificate(None, &[], Some("spiffe://cluster/apiserver")), None),
            (user(), Some(Denied::Name)),
            (certificate(Some("kube-apiserver-kubelet-client"), &[], None), Some(Denied::Name)),
            (certificate(Some("Kube-Apiserver"), &[], None), Some(Denied::Name)),
            (certificate(None, &[], None), Some(Denied::Name)),
            (CertificateDer::from(vec![1, 2, 3]), Some(Denied::Name)),
        ] {
            assert_eq!(denied(&some, own.clone()), expected, "{:?}", names_of(&own));
        }
        assert_eq!(denied(&clients(&[]), user()), None, "without names, the CA alone decides");
        assert_eq!([some.denies(None), some.denies(Some(&[]))], [Some(Denied::NoCertificate); 2]);
        std::fs::remove_file(&folder).unwrap();
    }
}
