//! Checks that the API server trusts the webhook, and for how long.
//!
//! ```text
//!  MutatingWebhookConfiguration ── caBundle ──► CAs: still valid? ──────────────┐
//!   └─ service: NAME.NAMESPACE.svc ─────────────────────────────────────────────┼─► does a CA verify the chain, for this name?
//!  Secret ── tls.crt ──► serving certificate and intermediates: still valid? ───┘
//! ```
//! The API server uses Go's verifier, this check webpki. Where the two may differ, there is no error: the dry run of a
//! pod shows the API server's result.

use super::{Certificate, Facts, Finding, Severity, bad, items, ok, plain};
use base64::Engine as _;
use ebb_config::units::one_or_many;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Maximum time before expiry at which a certificate counts as overdue, in seconds.
const MONTH: i64 = 30 * 86_400;

const CATEGORY: &str = "webhook";

pub(super) fn webhook(facts: &Facts, all: &mut Vec<Finding>) {
    for configuration in items(&facts.webhooks, "webhooks", CATEGORY, all) {
        let mut judged = Vec::new();
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            // The webhooks of the chart differ in their selectors only.
            if judged.contains(&&webhook["clientConfig"]) {
                continue;
            }
            judged.push(&webhook["clientConfig"]);
            let name = webhook["name"].as_str().unwrap_or_default();
            let bundle = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
            match last(bundle) {
                None => {
                    let found = format!("{name} has no readable CA (caBundle)");
                    let remedy = "The injector writes it. Read its log, and check that its role may patch the webhook.";
                    bad(all, CATEGORY, Severity::Error, found, remedy);
                }
                Some((_, end)) if end <= facts.now => {
                    let found = format!("the CA of {name} has expired");
                    bad(
                        all,
                        CATEGORY,
                        Severity::Error,
                        found,
                        "Renew it, or let the injector renew it (tls.source=self).",
                    );
                }
                Some((from, end)) if end - facts.now < late(from, end) => {
                    let found = format!("the CA of {name} expires in {}", lasting(end - facts.now));
                    let remedy = "Renew it. If the injector or cert-manager should renew it, read its log.";
                    bad(all, CATEGORY, Severity::Warning, found, remedy);
                }
                Some((_, end)) => {
                    ok(all, CATEGORY, format!("the CA of {name} is valid for {}", lasting(end - facts.now)));
                }
            }
            if last(bundle).is_some() {
                served(facts, plain(&configuration["metadata"]["name"]), webhook, all);
            }
        }
    }
}

/// Time before expiry at which a certificate counts as overdue, in seconds. The injector and cert-manager renew when a
/// third of the lifetime is left, so a quarter means that renewal has failed. Manually issued certificates last for
/// years; for them a month is enough.
fn late(from: i64, end: i64) -> i64 {
    MONTH.min((end - from) / 4)
}

/// Formats seconds as days, or as hours below three days.
fn lasting(seconds: i64) -> String {
    let (n, one, many) = match seconds.max(0) as u64 {
        seconds @ 0..259_200 => (seconds / 3600, "hour", "hours"),
        seconds => (seconds / 86_400, "day", "days"),
    };
    format!("{n} {}", one_or_many(n, one, many))
}

/// The validity of the CA that expires last.
fn last(bundle: &str) -> Option<(i64, i64)> {
    certificates(bundle).iter().filter_map(validity).max_by_key(|(_, end)| *end)
}

/// The readable certificates in base64-encoded PEM.
fn certificates(encoded: &str) -> Vec<CertificateDer<'static>> {
    let pem = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect()
}

fn validity(der: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Compares the serving certificate with the CAs that a webhook of this configuration trusts.
fn served(facts: &Facts, configuration: &str, webhook: &Value, all: &mut Vec<Finding>) {
    let (client, name) = (&webhook["clientConfig"], plain(&webhook["name"]));
    let service = (plain(&client["service"]["namespace"]), plain(&client["service"]["name"]));
    let is_of = |served: &&Certificate| (&*served.namespace, &*served.service) == service;
    let Some(Certificate { namespace, secret, chain, .. }) = facts.certificates.iter().find(is_of) else { return };
    let secret = format!("the Secret {namespace}/{secret}");
    let chain = match chain {
        Ok(chain) => certificates(chain),
        Err(why) => {
            return ok(
                all,
                CATEGORY,
                format!("{secret} not checked ({why}); the dry run of a pod tests the certificate"),
            );
        }
    };
    let Some((from, end)) = chain.first().and_then(validity) else {
        let found = format!("{secret} has no readable serving certificate for {name} (tls.crt)");
        return bad(all, CATEGORY, Severity::Error, found, "The injector or cert-manager writes it. Read its log.");
    };
    let (trusted, host) = (certificates(plain(&client["caBundle"])), format!("{}.{}.svc", service.1, service.0));
    let renew = "Renew it. If the injector or cert-manager should renew it, read its log.";
    let mut tell = |severity, found: String, remedy: &str| bad(all, CATEGORY, severity, found, remedy);
    match verdict(&chain, trusted, &host, facts.now) {
        _ if end <= facts.now => tell(Severity::Error, format!("the certificate in {secret} has expired"), renew),
        Verdict::Foreign => {
            let found = format!("the certificate in {secret} is not signed by a CA that {name} trusts");
            let remedy = format!(
                "Put the CA of {secret} into caBundle of the MutatingWebhookConfiguration {configuration}. If the injector \
                 or cert-manager's cainjector writes both, read its log."
            );
            tell(Severity::Error, found, &remedy);
        }
        Verdict::OfAnother => {
            let found =
                format!("the certificate in {secret} is not for {host}, the name by which the API server calls {name}");
            let remedy =
                format!("Issue one for {host}; the MutatingWebhookConfiguration {configuration} names the Service.");
            tell(Severity::Error, found, &remedy);
        }
        Verdict::Unsure(why) => {
            let found = format!("cannot verify the certificate in {secret} for {name}: {why}");
            let remedy = format!("Compare it with caBundle of the MutatingWebhookConfiguration {configuration}.");
            tell(Severity::Warning, found, &remedy);
        }
        Verdict::Trusted if end - facts.now < late(from, end) => {
            let left = lasting(end - facts.now);
            tell(Severity::Warning, format!("the certificate in {secret} expires in {left}"), renew);
        }
        Verdict::Trusted => {
            let left = lasting(end - facts.now);
            ok(all, CATEGORY, format!("{name} trusts the certificate in {secret}, which is valid for {left}"));
        }
    }
}

/// A client's verdict on a chain.
#[derive(Debug)]
enum Verdict {
    Trusted,
    /// No trusted CA has signed it.
    Foreign,
    /// It is for other names.
    OfAnother,
    /// Another problem, which the API server may judge differently.
    Unsure(rustls::Error),
}

fn verdict(chain: &[CertificateDer<'_>], trusted: Vec<CertificateDer<'_>>, host: &str, now: i64) -> Verdict {
    let Some((serving, between)) = chain.split_first() else { return Verdict::Foreign };
    // Go accepts a certificate that is itself in the bundle.
    if trusted.contains(serving) {
        return Verdict::Trusted;
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return Verdict::Foreign;
    };
    let Ok(name) = ServerName::try_from(host) else { return Verdict::OfAnother };
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or(0)));
    match verifier.verify_server_cert(serving, between, &name, &[], at) {
        Ok(_) => Verdict::Trusted,
        Err(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Verdict::Foreign,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Verdict::OfAnother,
            why => Verdict::Unsure(why.into()),
        },
        Err(why) => Verdict::Unsure(why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only, refused, troubles, well};
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;

    fn days(days: i64) -> time::OffsetDateTime {
        time::OffsetDateTime::from_unix_timestamp(NOW + days * 86_400).unwrap()
    }

    fn encoded(pem: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(pem)
    }

    /// A cluster with one webhook that trusts these CAs.
    fn trusting(bundle: &str) -> Facts {
        let client = json!({"caBundle": encoded(bundle), "service": {"namespace": "sys", "name": "i"}});
        let webhook = json!({"metadata": {"name": "c"}, "webhooks": [{"name": "w", "clientConfig": client}]});
        Facts { webhooks: Ok(vec![webhook]), policies: Ok(Vec::new()), ..well() }
    }

    /// A webhook that trusts one CA with this age and remaining lifetime, in days.
    fn of_age(old: i64, left: i64) -> Facts {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        (params.not_before, params.not_after) = (days(-old), days(left));
        trusting(&params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem())
    }

    #[test]
    fn a_ca_is_overdue_a_month_or_a_quarter_before_its_expiry() {
        let in_time = [(0, 365), (334, 31), (60, 30), (67, 23), (6, 2)];
        let found = in_time.map(|(old, left)| (old, left, troubles(&of_age(old, left))));
        assert_eq!(found, in_time.map(|(old, left)| (old, left, Vec::new())), "days of age, days left");
        let overdue = [(336, 29, "29 days"), (3600, 29, "29 days"), (68, 22, "22 days"), (7, 2, "48 hours")];
        let wrong: Vec<_> = overdue
            .map(|(old, left, words)| (old, left, words, troubles(&of_age(old, left))))
            .into_iter()
            .filter(|(_, _, words, found)| {
                let [("webhook", Severity::Warning, evidence)] = found.as_slice() else { return true };
                !evidence.contains(&format!("expires in {words}"))
            })
            .collect();
        assert!(wrong.is_empty(), "days of age, days left: {wrong:?}");
        only(&of_age(9, 0), "webhook", Severity::Error, "has expired");
    }

    type Ca = rcgen::CertifiedIssuer<'static, rcgen::KeyPair>;

    fn ca() -> Ca {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
    }

    /// A serving certificate for a name, with this age and remaining lifetime, in days.
    fn signed_by(ca: &Ca, name: &str, old: i64, left: i64) -> String {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (days(-old), days(left));
        params.signed_by(&rcgen::KeyPair::generate().unwrap(), ca).unwrap().pem()
    }

    /// The same cluster with this serving certificate, or with an unreadable one.
    fn serving(bundle: &str, chain: Result<&str, &str>) -> Facts {
        let text = |text: &str| text.to_owned();
        let (namespace, service, secret) = (text("sys"), text("i"), text("tls"));
        let chain = chain.map(encoded).map_err(refused);
        Facts { certificates: vec![Certificate { namespace, service, secret, chain }], ..trusting(bundle) }
    }

    #[test]
    fn webhooks_that_call_one_server_are_judged_once() {
        let mut facts = of_age(9, 0);
        let webhooks = facts.webhooks.as_mut().unwrap()[0]["webhooks"].as_array_mut().unwrap();
        let mut second = webhooks[0].clone();
        second["name"] = json!("w2");
        webhooks.push(second.clone());
        only(&facts, "webhook", Severity::Error, "the CA of w has expired");
        second["clientConfig"]["caBundle"] = Value::Null;
        facts.webhooks.as_mut().unwrap()[0]["webhooks"].as_array_mut().unwrap()[1] = second;
        assert_eq!(troubles(&facts).len(), 2, "another without its CA");
    }

    #[test]
    fn what_is_served_is_held_against_what_is_trusted() {
        use Severity::{Error, Warning};
        const HOST: &str = "i.sys.svc";
        let (ours, next, foreign) = (ca(), ca(), ca());
        let both = ours.pem() + &next.pem();
        let found = |bundle: &str, chain: &str| troubles(&serving(bundle, Ok(chain)));
        let rotation = [&ours, &next].map(|signer| found(&both, &signed_by(signer, HOST, 1, 90)));
        assert_eq!(rotation, [Vec::new(), Vec::new()], "in a rotation both are trusted");
        let itself = signed_by(&ours, HOST, 1, 90);
        assert_eq!(found(&itself, &itself), [], "it is in the bundle itself");
        assert_eq!(troubles(&serving(&ours.pem(), Err("this account lacks permission to get it"))), []);

        let wrong = |bundle: &str, chain: &str, severity, words| {
            only(&serving(bundle, Ok(chain)), "webhook", severity, words);
        };
        let of_none = "the certificate in the Secret sys/tls is not signed by a CA that w trusts";
        wrong(&both, &signed_by(&foreign, HOST, 1, 90), Error, of_none);
        wrong(&next.pem(), &signed_by(&ours, HOST, 1, 90), Error, of_none);
        wrong(
            &both,
            &signed_by(&ours, "i.shop.svc", 1, 90),
            Error,
            "is not for i.sys.svc, the name by which the API server calls w",
        );
        wrong(&both, &signed_by(&ours, HOST, 90, 0), Error, "the certificate in the Secret sys/tls has expired");
        wrong(
            &both,
            &signed_by(&ours, HOST, 80, 20),
            Warning,
            "the certificate in the Secret sys/tls expires in 20 days",
        );
        wrong(
            &both,
            &signed_by(&ours, HOST, -1, 90),
            Warning,
            "cannot verify the certificate in the Secret sys/tls for w: ",
        );
        wrong(&both, "", Error, "the Secret sys/tls has no readable serving certificate");

        let facts = serving(&next.pem(), Ok(&itself));
        let remedy = super::super::judge(&facts).into_iter().find(|finding| finding.severity == Error).unwrap().remedy;
        assert!(
            remedy.contains("the Secret sys/tls") && remedy.contains("MutatingWebhookConfiguration c."),
            "{remedy}"
        );
    }
}
