//! Parses values of annotations.

use super::pod::{LEAST, LEAST_STORAGE};
use ebb_config::units::{Quantity, Span};
use std::net::IpAddr;

pub(super) fn is_socket(address: &str) -> bool {
    address.starts_with("unix:")
}

/// Host and port of an address; `None` for a Unix socket.
pub(super) fn host_and_port(address: &str) -> Option<(&str, &str)> {
    address.rsplit_once(':').filter(|_| !is_socket(address))
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    text.parse().ok()
}

pub(super) fn names(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// A quantity above 0.
pub(super) fn quantity(text: &str) -> Option<String> {
    let text = text.trim();
    Quantity::parse(text).filter(|amount| *amount > Quantity::ZERO).map(|_| text.to_owned())
}

/// A size above 0, as a quantity.
pub(super) fn size(text: &str) -> Option<String> {
    Quantity::spelled(text).and_then(|text| quantity(&text))
}

/// A size of at least the minimum memory limit, as a quantity.
pub(super) fn enough(text: &str) -> Option<String> {
    size(text).filter(|text| Quantity::parse(text) >= Quantity::parse(LEAST))
}

/// A share of 1 to 100 percent.
pub(super) fn share(text: &str) -> Option<u64> {
    let text = text.trim();
    let number = text.strip_suffix('%').unwrap_or(text).trim_end_matches(' ');
    digits(number).filter(|share| !number.starts_with('0') && (1..=100).contains(share))
}

/// A size of at least the minimum of ephemeral storage, as a quantity.
pub(super) fn storage(text: &str) -> Option<String> {
    size(text).filter(|text| Quantity::parse(text) >= Quantity::parse(LEAST_STORAGE))
}

/// A duration of 1 s to 1 h.
pub(super) fn startup_timeout(text: &str) -> Option<Span> {
    let seconds = digits(text.trim()).map(|seconds| Span(seconds * 1000));
    seconds.or_else(|| text.parse().ok()).filter(|timeout| (1_000..=3_600_000).contains(&timeout.0))
}

pub(super) fn id(text: &str) -> Option<u64> {
    digits(text).filter(|id| (1..=0x7fff_ffff).contains(id))
}

/// A port that needs no privilege.
pub(super) fn port(text: &str) -> Option<u64> {
    digits(text).filter(|port| (1024..=65535).contains(port))
}

/// A number of at most ten digits, without a sign: the policy accepts the same.
pub(super) fn digits(text: &str) -> Option<u64> {
    let is_number = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().expect("ten digits fit"))
}

/// An address to listen on that every pod has, in Kubernetes' syntax.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|address: &IpAddr| address.is_loopback() || address.is_unspecified())
}

/// Whether the text is a valid name of a ConfigMap: a DNS subdomain.
pub(crate) fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Returns the word that equals the text, if any.
pub(super) fn one_of<'a>(words: &[&'a str], text: &str) -> Option<&'a str> {
    words.iter().find(|word| **word == text).copied()
}
