//! How commands show a lease.

use super::data::short;
use ebb_proto as proto;
use ebb_proto::json;
use serde_json::Value;

/// The lease as JSON.
pub(super) fn json(lease: &proto::Lease) -> Value {
    serde_json::json!({
        "state": short(lease.state().as_str_name(), "STATE_"),
        "token": json::number(lease.token),
        "expires_in_ms": json::number(lease.expires_in_ms),
    })
}

/// The lease as a sentence.
pub(super) fn sentence(lease: &proto::Lease) -> String {
    use proto::lease::State;
    let proto::Lease { token, expires_in_ms, .. } = lease;
    match lease.state() {
        State::Won => format!("lease: won for {expires_in_ms} ms; fill the key with set --lease-token {token}"),
        State::HeldByOther => format!("lease: another caller holds it, for at most {expires_in_ms} ms"),
        State::HeldOff => format!("lease: a tombstone holds fills off for {expires_in_ms} ms"),
        State::Exhausted => "lease: the server has too many leases".to_owned(),
        State::Unspecified => "lease: unknown state".to_owned(),
    }
}
