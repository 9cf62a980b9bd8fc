//! The limits of the contract and those of the transport: the maximum size of a value, and what GetCapabilities returns.

use super::Cache;
use super::lease::MAX_LEASE_MS;
use super::namespaces::{MAX_NAME_BYTES, MAX_NAMESPACES};
use ebb_engine::store::{MAX_KEY_BYTES, MAX_LEASES, MAX_VERSION, MAX_WAITERS};
use ebb_proto as proto;

/// Features that GetCapabilities returns.
const FEATURES: [&str; 8] =
    ["invalidate_namespace", "invalidate_prefix", "leases", "negative", "pipe", "scan", "soft_ttl", "tombstones"];
/// Maximum items of a batch.
pub const MAX_BATCH_ITEMS: usize = 1_000;
/// Maximum tags of an entry, and maximum length of a tag in bytes.
pub const MAX_TAGS: (usize, usize) = (16, 128);
/// Maximum length of a `request_id`, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 64;
/// Maximum jitter, in percent.
pub const MAX_JITTER_PERCENT: u32 = 50;
/// Maximum time to live, in milliseconds: the largest number that clients with doubles for numbers hold exactly.
pub const MAX_TTL_MS: u64 = MAX_VERSION;
/// Maximum size of a Set message without its value: key, namespace, tags and numbers, in bytes.
const ENVELOPE_BYTES: u64 = 4 << 10;
const _: () = assert!(ENVELOPE_BYTES as usize > MAX_KEY_BYTES + MAX_NAME_BYTES + MAX_TAGS.0 * (MAX_TAGS.1 + 3) + 128);

/// The current limits of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Maximum length of a message, in bytes.
    pub message_bytes: u64,
    /// Maximum open connections.
    pub connections: u32,
    /// Maximum concurrent calls on a connection opened now.
    pub calls_per_connection: u32,
    /// Maximum bytes in flight of all connections together.
    pub in_flight_bytes: u64,
    /// Maximum bytes in flight of one connection.
    pub in_flight_bytes_per_connection: u64,
    /// Maximum size of a call's header list, in bytes.
    pub header_bytes: u32,
    /// Maximum entries of a call's metadata.
    pub header_entries: u32,
    /// Maximum time a message may make no progress or wait for quota, in milliseconds.
    pub write_timeout_ms: u64,
}

impl Default for Transport {
    /// No limits.
    fn default() -> Self {
        let (bytes, number) = (u64::MAX, u32::MAX);
        Self {
            message_bytes: bytes,
            connections: number,
            calls_per_connection: number,
            in_flight_bytes: bytes,
            in_flight_bytes_per_connection: bytes,
            header_bytes: number,
            header_entries: number,
            write_timeout_ms: bytes,
        }
    }
}

/// Returns the current limits of the transport, which follow the memory limit.
pub(super) struct AskTransport(pub(super) Box<dyn Fn() -> Transport + Send + Sync>);

impl std::fmt::Debug for AskTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0().fmt(f)
    }
}

impl Cache {
    /// Current maximum size of a value, in bytes: with key and attributes it must fit into one message.
    pub fn max_value_bytes(&self) -> usize {
        let message = self.transport.0().message_bytes.saturating_sub(ENVELOPE_BYTES);
        self.store.max_value_bytes().min(usize::try_from(message).unwrap_or(usize::MAX))
    }

    /// Limits and features.
    pub fn capabilities(&self) -> proto::GetCapabilitiesResponse {
        let Transport {
            message_bytes,
            connections,
            calls_per_connection,
            in_flight_bytes,
            in_flight_bytes_per_connection,
            header_bytes,
            header_entries,
            write_timeout_ms,
        } = self.transport.0();
        proto::GetCapabilitiesResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            max_key_bytes: MAX_KEY_BYTES as u32,
            max_value_bytes: self.max_value_bytes() as u64,
            max_streamed_value_bytes: self.max_value_bytes() as u64,
            max_batch_items: MAX_BATCH_ITEMS as u32,
            max_batch_bytes: message_bytes,
            max_namespaces: MAX_NAMESPACES as u32,
            max_namespace_bytes: MAX_NAME_BYTES as u32,
            max_tags: MAX_TAGS.0 as u32,
            max_tag_bytes: MAX_TAGS.1 as u32,
            max_request_id_bytes: MAX_REQUEST_ID_BYTES as u32,
            max_jitter_percent: MAX_JITTER_PERCENT,
            features: FEATURES.map(str::to_owned).into(),
            max_connections: connections,
            max_calls_per_connection: calls_per_connection,
            max_in_flight_bytes: in_flight_bytes,
            max_in_flight_bytes_per_connection: in_flight_bytes_per_connection,
            max_header_bytes: header_bytes,
            max_header_entries: header_entries,
            write_timeout_ms,
            max_version: MAX_VERSION,
            max_lease_ms: MAX_LEASE_MS,
            max_leases: MAX_LEASES as u32,
            max_lease_waiters: MAX_WAITERS as u32,
            max_ttl_ms: MAX_TTL_MS,
        }
    }
}
