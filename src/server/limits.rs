//! Converts static settings to limits: of memory, of the listeners, and of the transport as the cache reports them.

use crate::governor::{self, Paths};
use crate::service::Transport;
use crate::transport::{InFlight, Limits, MAX_METADATA_ENTRIES};
use ebb_config::StaticSettings;
use std::path::PathBuf;
use std::sync::Arc;

/// Allowance for the parts of a message other than its values, in bytes.
const MESSAGE_MARGIN: u64 = 64 << 10;
/// Maximum size of the values of a batch, in bytes: with default settings, gRPC clients receive no more.
const BATCH_BYTES: u64 = 4 << 20;

pub(super) fn memory_limits(static_settings: &StaticSettings) -> governor::Limits {
    let path = |text: &String| Some(text).filter(|text| !text.is_empty()).map(PathBuf::from);
    governor::Limits {
        cgroup: Paths::new(path(&static_settings.cgroup_root)),
        file: path(&static_settings.limit_file),
        request: path(&static_settings.request_file),
        meminfo: PathBuf::from("/proc/meminfo"),
        default_bytes: static_settings.default_memory.0,
    }
}

pub(super) fn limits(static_settings: &StaticSettings) -> Limits {
    Limits {
        connections: static_settings.connections as usize,
        streams: static_settings.streams,
        stream_window: static_settings.stream_window.0 as u32,
        handshake_timeout: static_settings.handshake_timeout.duration(),
        idle_timeout: static_settings.idle_timeout.duration(),
        write_timeout: static_settings.write_timeout.duration(),
        header_list: static_settings.header_list.0 as u32,
        message: static_settings.max_value.0.max(BATCH_BYTES).saturating_add(MESSAGE_MARGIN) as usize,
    }
}

/// The limits of the data listeners. A message may use three quarters of a connection's quota, which leaves a quarter
/// for small ones.
pub(super) fn transport(
    static_settings: &StaticSettings,
    in_flight: Arc<InFlight>,
) -> impl Fn() -> Transport + Send + Sync + use<> {
    let limits = limits(static_settings);
    let per_connection = static_settings.in_flight_per_connection.0;
    move || {
        let in_flight_bytes = in_flight.max();
        let in_flight_bytes_per_connection = per_connection.min(in_flight_bytes);
        Transport {
            message_bytes: (limits.message as u64).min(in_flight_bytes_per_connection / 4 * 3),
            connections: limits.connections as u32,
            calls_per_connection: in_flight.streams(limits.streams),
            in_flight_bytes,
            in_flight_bytes_per_connection,
            header_bytes: limits.header_list,
            header_entries: MAX_METADATA_ENTRIES as u32,
            write_timeout_ms: limits.write_timeout.as_millis() as u64,
        }
    }
}
