//! Issues, parses and verifies certificates.

use super::decide::Validity;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{RootCertStore, sign::CertifiedKey};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// Allowed clock skew in a cluster, in seconds.
const SKEW: i64 = 60;

/// A certificate with its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("validity", &validity(&self.certificate)).finish_non_exhaustive()
    }
}

/// Why a server cannot use a certificate and its key.
#[derive(Debug, thiserror::Error)]
pub(in crate::webhook) enum PairError {
    #[error("the certificate is not PEM: {0}")]
    CertificatePem(pem::Error),
    #[error("there is no certificate")]
    NoCertificate,
    #[error("the key is not PEM: {0}")]
    KeyPem(pem::Error),
    #[error("the key cannot be used: {0}")]
    Key(rustls::Error),
    #[error("certificate and key do not match: {0}")]
    Mismatch(rustls::Error),
}

type Made = Result<Pair, rcgen::Error>;

/// Issues a self-signed CA that is valid from now for the given seconds.
pub(super) fn ca(now: i64, seconds: i64) -> Made {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, format!("Ebb injector, CA of {now}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (moment(now - SKEW), moment(now + seconds));
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// Issues a serving certificate for these names, signed by the CA.
pub(super) fn serving(ca: &Pair, names: &[String], now: i64, seconds: i64) -> Made {
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "Ebb injector");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (moment(now - SKEW), moment(now + seconds));
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).expect("a time of this age")
}

/// The validity of a certificate without the skew; `None` if it cannot be parsed.
pub(super) fn validity(pem: &str) -> Option<Validity> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    let validity = certificate.validity();
    Some(Validity { from: validity.not_before.timestamp() + SKEW, to: validity.not_after.timestamp() })
}

/// Whether a client that trusts `bundle` accepts `serving` for `name` at that time, judged by the verifier of clients.
pub(super) fn is_trusted(serving: &str, bundle: &str, name: &str, now: i64) -> bool {
    let verified = || -> Option<()> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate.ok()?).ok()?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(serving.as_bytes()).collect::<Result<_, _>>().ok()?;
        let (end, between) = chain.split_first()?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().ok()?));
        let name = ServerName::try_from(name.to_owned()).ok()?;
        use rustls::client::danger::ServerCertVerifier as _;
        verifier.build().ok()?.verify_server_cert(end, between, &name, &[], at).ok().map(drop)
    };
    verified().is_some()
}

/// Converts certificate and key for a TLS server.
///
/// # Errors
/// Why certificate or key cannot be used.
pub(super) fn presented(pair: &Pair) -> Result<CertifiedKey, PairError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect();
    let chain = chain.map_err(PairError::CertificatePem)?;
    if chain.is_empty() {
        return Err(PairError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    let key = key.map_err(PairError::KeyPem)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key);
    let key = CertifiedKey::new(chain, key.map_err(PairError::Key)?);
    key.keys_match().map_err(PairError::Mismatch)?;
    Ok(key)
}
