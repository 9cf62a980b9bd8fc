//! Whether the API server trusts the webhook, and for how long.

use super::{Facts, Finding, Severity, bad, items, ok};
use base64::Engine as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The longest time before its end at which an authority should have been replaced, in seconds.
const MONTH: i64 = 30 * 86_400;

pub(super) fn webhook(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "webhook";
    for configuration in items(&facts.webhooks, "webhooks", CATEGORY, all) {
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            let name = webhook["name"].as_str().unwrap_or_default();
            let bundle = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
            match last(bundle) {
                None => {
                    let found = format!("{name} has no authority that can be read (caBundle)");
                    let remedy = "The injector writes it: read its logs, and see that its role may patch the webhook.";
                    bad(all, CATEGORY, Severity::Error, found, remedy);
                }
                Some((_, end)) if end <= facts.now => {
                    let found = format!("the authority of {name} has ended");
                    bad(all, CATEGORY, Severity::Error, found, "Renew it, or let the injector do so: tls.source self.");
                }
                Some((from, end)) if end - facts.now < late(from, end) => {
                    let found = format!("the authority of {name} ends in {} hours", (end - facts.now) / 3600);
                    let remedy = "Renew it; if the injector or cert-manager should, read its logs.";
                    bad(all, CATEGORY, Severity::Warning, found, remedy);
                }
                Some((_, end)) => {
                    ok(all, CATEGORY, format!("the authority of {name} holds for {} days", (end - facts.now) / 86_400));
                }
            }
        }
    }
}

/// How long before its end an authority should have been replaced, in seconds. Whoever renews by itself, as the injector
/// and cert-manager do, starts when a third of its life is left: at a quarter nobody did. Those that people make last for
/// years, of which a quarter is too early and a month is time enough.
fn late(from: i64, end: i64) -> i64 {
    MONTH.min((end - from) / 4)
}

/// From when to when the authority of a bundle is valid that ends last.
fn last(bundle: &str) -> Option<(i64, i64)> {
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).ok()?;
    let authorities = CertificateDer::pem_slice_iter(&pem).filter_map(|der| {
        let der = der.ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let validity = certificate.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    });
    authorities.max_by_key(|(_, end)| *end)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only, troubles, well};
    use super::*;
    use serde_json::json;

    /// A webhook that trusts one authority, so many days old and so many before its end.
    fn trusting(old: i64, left: i64) -> Facts {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let at = |days: i64| time::OffsetDateTime::from_unix_timestamp(well().now + days * 86_400).unwrap();
        (params.not_before, params.not_after) = (at(-old), at(left));
        let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let bundle = base64::engine::general_purpose::STANDARD.encode(pem);
        let webhook = json!({"webhooks": [{"name": "w", "clientConfig": {"caBundle": bundle}}]});
        Facts { webhooks: Ok(vec![webhook]), policies: Ok(Vec::new()), ..well() }
    }

    #[test]
    fn an_authority_is_late_a_month_before_its_end_or_in_the_last_quarter_of_its_life() {
        for (old, left) in [(0, 365), (334, 31), (60, 30), (67, 23), (6, 2)] {
            assert_eq!(troubles(&trusting(old, left)), [], "{old} days old, {left} left");
        }
        for (old, left) in [(336, 29), (3600, 29), (68, 22), (7, 2)] {
            let words = format!("ends in {} hours", left * 24);
            only(&trusting(old, left), "webhook", Severity::Warning, &words);
        }
        only(&trusting(9, 0), "webhook", Severity::Error, "has ended");
    }
}
