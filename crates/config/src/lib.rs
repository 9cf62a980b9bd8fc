//! The configuration: defines every setting, with its meaning, unit and default.
//!
//! ```text
//!  defaults ◄ environment EBB_… ◄ file (YAML, as in a ConfigMap) ◄ pod annotations ◄ flags      later sources override
//! ```
//! [`StaticSettings`] are read once, at start; [`DynamicSettings`] are read again whenever the file changes. The schema
//! and `docs/configuration.md` are generated from these structs; a test fails if they are stale.

use strum::IntoStaticStr;

pub mod annotations;
pub mod bounds;
mod document;
pub mod environment;
mod layers;
mod live;
mod marks;
pub mod secret;
mod source;
pub mod units;
pub mod yaml;

pub use document::{reference, schema};
pub use environment::Environment;
pub use layers::{
    Effective, Flags, Problems, Row, check, check_annotations, check_environment, check_start, check_text, check_value,
    variable,
};
pub use live::{ActiveConfig, Live, Reload};
pub use secret::SecretUrl;
pub use source::Source;

use crate::units::{ByteSize, Percent, Span};
use ebb_engine::cleaner::Pacing;
use ebb_engine::decide::Thresholds;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Value of `listen` without a data port.
pub const OFF: &str = "off";

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Settings read at start.
    #[serde(flatten)]
    pub static_settings: StaticSettings,
    /// Settings followed while the process runs.
    #[serde(flatten)]
    pub dynamic: DynamicSettings,
}

/// Settings read once, at start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct StaticSettings {
    /// Address of the data listener; port 0 selects a free port. `off` leaves only `socket`.
    pub listen: String,
    /// Path of a Unix socket for data calls; disabled if empty.
    pub socket: String,
    /// Address of the admin listener.
    pub admin_listen: String,
    /// Path of a Unix socket for admin calls; if set, it replaces `adminListen`.
    pub admin_socket: String,
    /// OTLP/gRPC endpoint for traces, such as `http://localhost:4317`; tracing is disabled if empty. User information in
    /// it is sent as basic authentication, and never shown; pass it as a variable from a Secret.
    #[schemars(with = "String")]
    pub otlp_endpoint: SecretUrl,
    /// Address of the HTTP listener: the live page, `/livez`, `/readyz`, `/metrics`.
    pub http_listen: String,
    /// Names, separated by commas, under which browsers may open the live page, such as `ebb.example.com`: those of an
    /// ingress or a Service. Loopback names and the addresses of the listener are always allowed. `/metrics` and probes
    /// answer under any name.
    pub http_hosts: String,
    /// Number of data-plane threads. One thread serves several hundred thousand pipelined reads per second.
    pub cores: u8,
    /// Memory limit if no other limit is found.
    pub default_memory: ByteSize,
    /// Maximum size of a value; at most 3584Ki, which gRPC clients receive with default settings.
    pub max_value: ByteSize,
    /// Maximum number of connections; a new one beyond it closes the longest idle one.
    pub connections: u32,
    /// Maximum number of concurrent calls per connection.
    pub streams: u32,
    /// Maximum flow-control window of a call. A small memory limit reduces it, to no less than 32 KiB.
    pub stream_window: ByteSize,
    /// Timeout for the HTTP/2 preface of a new connection.
    pub handshake_timeout: Span,
    /// Time after which an idle connection is closed.
    pub idle_timeout: Span,
    /// Time without progress of bytes in flight after which their connection is closed.
    pub write_timeout: Span,
    /// Maximum size of the headers of a call.
    pub header_list: ByteSize,
    /// Maximum bytes in flight of all connections; capped at 1/16 of the limit. An incoming message counts twice,
    /// because its buffer doubles while it grows.
    pub in_flight: ByteSize,
    /// Maximum bytes in flight per connection; capped at twice the free part of `inFlight`.
    pub in_flight_per_connection: ByteSize,
    /// Time for calls to finish after SIGTERM.
    pub drain_timeout: Span,
    /// File with the container's memory limit in bytes, as the downward API writes it; not used if empty.
    pub limit_file: String,
    /// File with the container's memory request in bytes, as the downward API writes it; not used if empty.
    pub request_file: String,
    /// Directory of the cgroup mounts: v1 at `memory`, v2 at the directory itself or at `unified`. If empty,
    /// `/proc/self/mountinfo` is searched.
    pub cgroup_root: String,
    /// Format of log lines: `text` or `json`.
    pub log_format: LogFormat,
    /// The pod of this process, and Events on it.
    pub pod: Pod,
}

/// The pod of this process, and Events on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Pod {
    /// Write Events on the pod when memory pressure, the limit or the validity of the configuration changes. The pod's
    /// account needs the rights to create and patch `events` of `events.k8s.io`.
    pub events: bool,
    /// Name of the pod, from the downward API.
    pub name: String,
    /// Namespace of the pod, from the downward API.
    pub namespace: String,
    /// UID of the pod, from the downward API.
    pub uid: String,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for StaticSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7070".to_owned(),
            socket: String::new(),
            admin_listen: "127.0.0.1:7071".to_owned(),
            admin_socket: String::new(),
            otlp_endpoint: SecretUrl::default(),
            http_listen: "127.0.0.1:7072".to_owned(),
            http_hosts: String::new(),
            cores: 1,
            default_memory: ByteSize(256 << 20),
            max_value: ByteSize(1 << 20),
            connections: 256,
            streams: 100,
            stream_window: ByteSize(128 << 10),
            handshake_timeout: Span(2_000),
            idle_timeout: Span(15 * 60_000),
            write_timeout: Span(5_000),
            header_list: ByteSize(16 << 10),
            in_flight: ByteSize(32 << 20),
            in_flight_per_connection: ByteSize(8 << 20),
            drain_timeout: Span(1_500),
            limit_file: String::new(),
            request_file: String::new(),
            cgroup_root: String::new(),
            log_format: LogFormat::Text,
            pod: Pod::default(),
        }
    }
}

/// Settings followed while the process runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DynamicSettings {
    /// Additional memory limit for Ebb; the smaller of this and the container's applies. 0 disables it.
    pub max_memory: ByteSize,
    /// Memory kept free under the limit.
    pub reserve: Reserve,
    /// Shares of the budget at which eviction starts and stops.
    pub watermarks: Watermarks,
    /// When compaction starts, and how densely it packs segments.
    pub drift: Drift,
    /// When compaction runs: `auto` (when dead bytes reach `drift.dead`), `off` (on request only, or to make room), or
    /// `now` (`auto` with one immediate run).
    pub compaction: Compaction,
    /// Stay within the container's memory request while the node is short of memory, because the kubelet first evicts
    /// pods that exceed their requests.
    pub eviction_aware: bool,
    /// CPU use of the cleaner.
    pub pacing: PacingSettings,
    /// Defaults for requests that leave these fields open.
    pub defaults: DefaultSettings,
    /// Interval between samples of memory use.
    pub tick: Span,
    /// How far ahead memory growth is extrapolated.
    pub look_ahead: Span,
    /// Share of the last ten seconds stalled on memory (PSI `some avg10`) from which the container counts as short of
    /// memory.
    pub pressure: Percent,
    /// Share of calls to trace if the caller sends no `traceparent`.
    pub trace_sample: Percent,
    /// Log level: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: LogLevel,
}

/// When compaction runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Compaction {
    /// When dead bytes reach `drift.dead`.
    #[default]
    #[serde(alias = "on")]
    Auto,
    /// Only on request, or to make room.
    Off,
    /// As `auto`, with one immediate run.
    Now,
}

/// Log level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names say it")]
#[strum(serialize_all = "snake_case")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Memory kept free under the limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Reserve {
    /// Share of the limit kept free.
    pub share: Percent,
    /// Minimum kept free, in bytes.
    pub least: ByteSize,
}

/// Shares of the budget at which eviction starts and stops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Watermarks {
    /// Eviction stops once use is at or below this share of the budget.
    pub low: Percent,
    /// Eviction starts once use reaches this share of the budget. Must be above `low`.
    pub high: Percent,
    /// Eviction becomes urgent once use reaches this share of the budget. Must be above `high`, and at most 99%.
    pub critical: Percent,
}

/// When compaction starts, and how densely it packs segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Drift {
    /// Compaction starts once dead bytes reach this share of live bytes.
    pub dead: Percent,
    /// Target segment occupancy under heavy writes. A higher target means more copying. Must be below `idleOccupancy`.
    pub busy_occupancy: Percent,
    /// Target segment occupancy otherwise.
    pub idle_occupancy: Percent,
}

/// CPU use of the cleaner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PacingSettings {
    /// Maximum length of one step of the cleaner, in microseconds of CPU; 10 to 1,000.
    pub step_micros: u32,
    /// Maximum CPU use of the cleaner, in percent of one core.
    pub cpu: Percent,
}

/// Defaults for requests that leave these fields open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultSettings {
    /// Time to live of a value stored without one; 0: unlimited.
    pub ttl: Span,
    /// Time for which a value is served after its soft deadline.
    pub max_stale: Span,
}

impl Default for DynamicSettings {
    fn default() -> Self {
        Self {
            max_memory: ByteSize(0),
            reserve: Reserve::default(),
            watermarks: Watermarks::default(),
            drift: Drift::default(),
            compaction: Compaction::Auto,
            eviction_aware: false,
            pacing: PacingSettings::default(),
            defaults: DefaultSettings::default(),
            tick: Span(100),
            look_ahead: Span(Thresholds::default().look_ahead_ms),
            pressure: Percent(Thresholds::default().pressure_percent as u8),
            trace_sample: Percent(0),
            log_level: LogLevel::Info,
        }
    }
}

impl Default for Reserve {
    fn default() -> Self {
        let Thresholds { reserve_percent, reserve_bytes, .. } = Thresholds::default();
        Self { share: Percent(reserve_percent as u8), least: ByteSize(reserve_bytes) }
    }
}

impl Default for Watermarks {
    fn default() -> Self {
        let Thresholds { low_percent, high_percent, critical_percent, .. } = Thresholds::default();
        let percent = |n: u64| Percent(n as u8);
        Self { low: percent(low_percent), high: percent(high_percent), critical: percent(critical_percent) }
    }
}

impl Default for Drift {
    fn default() -> Self {
        let Thresholds { dead_percent, busy_occupancy_percent, idle_occupancy_percent, .. } = Thresholds::default();
        Self {
            dead: Percent(dead_percent as u8),
            busy_occupancy: Percent(busy_occupancy_percent),
            idle_occupancy: Percent(idle_occupancy_percent),
        }
    }
}

impl Default for PacingSettings {
    fn default() -> Self {
        let Pacing { step_micros, cpu_percent } = Pacing::default();
        Self { step_micros, cpu: Percent(cpu_percent) }
    }
}

impl Default for DefaultSettings {
    fn default() -> Self {
        Self { ttl: Span(0), max_stale: Span(60_000) }
    }
}
