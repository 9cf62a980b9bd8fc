//! A pod as JSON: what every part of injection asks of one.

use serde_json::Value;

/// The volume that the socket is in.
pub(super) const SOCKET_VOLUME: &str = "ebb-socket";
/// Below this a container of Ebb has no room for a cache, in bytes.
pub(super) const LEAST: &str = "16Mi";

/// The values of a list; none if it is none.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// The containers of both kinds.
pub(super) fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    list(&spec["containers"]).chain(list(&spec["initContainers"]))
}

/// A quantity as it was written; numbers are quantities, too.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
