//! Helpers for reading a pod as JSON.

use serde_json::Value;

/// Name of the volume with the socket.
pub(super) const SOCKET_VOLUME: &str = "ebb-socket";
/// Minimum memory limit of a container of Ebb.
pub(super) const LEAST: &str = "16Mi";
/// Minimum ephemeral storage of a container of Ebb: a pod whose log does not fit is evicted.
pub(super) const LEAST_STORAGE: &str = "1Mi";

/// The elements of a list; empty if the value is not a list.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// Containers and init containers.
pub(super) fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    list(&spec["containers"]).chain(list(&spec["initContainers"]))
}

/// A quantity as text; numbers are quantities, too.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
