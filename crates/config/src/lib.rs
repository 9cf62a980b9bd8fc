//! The configuration: every setting once, with its meaning, unit and default.
//!
//! ```text
//!  built-in ◄ environment EBB_… ◄ file (YAML, the shape a ConfigMap mounts) ◄ pod annotations ◄ flags        later ones win
//! ```
//! [`StaticSettings`] is read once, when the process starts; [`DynamicSettings`] again whenever the file changes. The schema and
//! `docs/configuration.md` are printed from these structs, and a test says when they are stale.

use strum::IntoStaticStr;

pub mod annotations;
mod document;
pub mod environment;
mod layers;
mod live;
mod source;
pub mod units;

pub use document::{reference, schema};
pub use environment::Environment;
pub use layers::{Effective, Flags, Problems, Row, check, check_text, check_value};
pub use live::{InForce, Live, Reload};
pub use source::Source;

use crate::units::{ByteSize, Percent, Span};
use ebb_engine::cleaner::Pacing;
use ebb_engine::decide::Thresholds;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Read once.
    #[serde(flatten)]
    pub static_settings: StaticSettings,
    /// Read again on change.
    #[serde(flatten)]
    pub dynamic: DynamicSettings,
}

/// What is read once, when the process starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct StaticSettings {
    /// Address of the data listener; port 0 takes a free one.
    pub listen: String,
    /// Path of a Unix socket for data; none if empty.
    pub socket: String,
    /// Address of the admin listener.
    pub admin_listen: String,
    /// Path of a Unix socket for admin calls, instead of the address; none if empty.
    pub admin_socket: String,
    /// Where traces are sent by OTLP over gRPC, such as `http://localhost:4317`; nowhere if empty.
    pub otlp_endpoint: String,
    /// Address of the HTTP listener: the live page, `/livez`, `/readyz`, `/metrics`.
    pub http_listen: String,
    /// Data-plane threads. One serves several hundred thousand piped reads a second.
    pub cores: u8,
    /// The limit when no other is found.
    pub default_memory: ByteSize,
    /// The largest value; at most 3584Ki, which stock clients can receive.
    pub max_value: ByteSize,
    /// Connections at a time; at the cap the longest idle one is closed.
    pub connections: u32,
    /// Calls at a time on one connection.
    pub streams: u32,
    /// Flow-control window of one call, at most: less under a small limit, but 32 KiB at least.
    pub stream_window: ByteSize,
    /// How long a client may take to say that it speaks HTTP/2.
    pub handshake_timeout: Span,
    /// How long a connection may do nothing.
    pub idle_timeout: Span,
    /// How long bytes in flight may stand still before their connection is closed.
    pub write_timeout: Span,
    /// Headers of one call.
    pub header_list: ByteSize,
    /// Bytes in flight of all connections together, at most; never more than 1/16 of the limit. A message that arrives
    /// counts twice, as its buffer doubles while it grows.
    pub in_flight: ByteSize,
    /// Bytes in flight of one connection, at most; never more than twice what all connections together leave free.
    pub in_flight_per_connection: ByteSize,
    /// How long calls may go on after SIGTERM.
    pub drain_timeout: Span,
    /// File with the container's memory limit in bytes, as the downward API writes it; none if empty.
    pub limit_file: String,
    /// File with the container's memory request in bytes, as the downward API writes it; none if empty.
    pub request_file: String,
    /// Directory under which the cgroup file systems are mounted: v1 at `memory`, v2 there or at `unified`. If empty, they
    /// are found in `/proc/self/mountinfo`.
    pub cgroup_root: String,
    /// `text` for people, `json` for machines.
    pub log_format: LogFormat,
    /// The pod it runs in, and what is told about it.
    pub pod: Pod,
}

/// The pod it runs in, and what is told about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Pod {
    /// Whether Events are written on the pod when its memory, its limit or its configuration change for better or worse.
    /// Its account must be allowed to create and patch `events` of `events.k8s.io`.
    pub events: bool,
    /// Its name, as the downward API gives it.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

impl Default for StaticSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7070".to_owned(),
            socket: String::new(),
            admin_listen: "127.0.0.1:7071".to_owned(),
            admin_socket: String::new(),
            otlp_endpoint: String::new(),
            http_listen: "127.0.0.1:7072".to_owned(),
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

/// What is followed while the process runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DynamicSettings {
    /// A limit of its own, beside the container's; 0: none.
    pub max_memory: ByteSize,
    /// What is kept free under the limit.
    pub reserve: Reserve,
    /// When eviction starts and stops, as shares of what the cache may use.
    pub watermarks: Watermarks,
    /// When compaction starts, and how far it goes.
    pub drift: Drift,
    /// Whether compaction starts by itself: `auto` or `off`; `now` is `auto` with one run at once.
    pub compaction: Compaction,
    /// Whether the cache keeps to the container's memory request while the node is short of memory: the kubelet evicts
    /// first what uses more than it asked for.
    pub eviction_aware: bool,
    /// How hard the cleaner may work.
    pub pacing: PacingSettings,
    /// What a request leaves to the server.
    pub defaults: DefaultSettings,
    /// How often memory is read.
    pub tick: Span,
    /// How far growth is followed into the future.
    pub look_ahead: Span,
    /// From this share of the last ten seconds spent waiting for memory on, the container is short of it.
    pub pressure: Percent,
    /// The share of calls that is traced where the caller does not say (by `traceparent`) whether it should be.
    pub trace_sample: Percent,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: LogLevel,
}

/// Whether compaction starts by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Compaction {
    /// When there is enough to win.
    #[default]
    #[serde(alias = "on")]
    Auto,
    /// Only when somebody asks for it, or to make room.
    Off,
    /// As `auto`, and one run as soon as this is read.
    Now,
}

/// What is logged.
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

/// What is kept free under the limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Reserve {
    /// Of the limit.
    pub share: Percent,
    /// At the least.
    pub least: ByteSize,
}

/// When eviction starts and stops, as shares of what the cache may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Watermarks {
    /// Eviction stops once use is at or below this.
    pub low: Percent,
    /// Eviction starts once use reaches this. Must be above `low`.
    pub high: Percent,
    /// Eviction is urgent. Must be above `high`, and at most 99%.
    pub critical: Percent,
}

/// When compaction starts, and how far it goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Drift {
    /// Dead bytes, as a share of live ones, at which compaction starts.
    pub dead: Percent,
    /// How full of live bytes segments are made while callers write much: fuller costs more copying.
    pub busy_occupancy: Percent,
    /// How full they are made while callers do not.
    pub idle_occupancy: Percent,
}

/// How hard the cleaner may work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PacingSettings {
    /// The longest step, in microseconds of CPU; 10 to 1,000.
    pub step_micros: u32,
    /// Of one core.
    pub cpu: Percent,
}

/// What a request leaves to the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultSettings {
    /// Time to live of a value stored without one; 0: none.
    pub ttl: Span,
    /// How long past its soft deadline a value is served.
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

impl Config {
    /// What the types cannot say: every problem, in sentences.
    fn problems(&self) -> Vec<String> {
        let Watermarks { low, high, critical } = &self.dynamic.watermarks;
        let Drift { busy_occupancy, idle_occupancy, .. } = &self.dynamic.drift;
        let mut problems = Vec::new();
        let mut below = |a: &str, a_value: &Percent, b: &str, b_value: &Percent| {
            if a_value >= b_value {
                problems.push(format!("{a} ({}) must be below {b} ({})", a_value.0, b_value.0));
            }
        };
        below("watermarks.low", low, "watermarks.high", high);
        below("watermarks.high", high, "watermarks.critical", critical);
        below("drift.busyOccupancy", busy_occupancy, "drift.idleOccupancy", idle_occupancy);
        let mut within = |name: &str, value: u64, min: u64, max: u64| {
            if !(min..=max).contains(&value) {
                problems.push(format!("{name} is {value}; it must be {min} to {max}"));
            }
        };
        // Use does not go beyond what the cache may use, so that at all of it nothing would ever be urgent.
        within("watermarks.critical (percent)", critical.0.into(), 2, 99);
        within("cores", self.static_settings.cores.into(), 1, 64);
        within("connections", self.static_settings.connections.into(), 1, 65_536);
        within("streams", self.static_settings.streams.into(), 1, 65_536);
        within("maxValue (bytes)", self.static_settings.max_value.0, 1, 3_584 << 10);
        within("streamWindow (bytes)", self.static_settings.stream_window.0, 32 << 10, (1 << 31) - 1);
        within("headerList (bytes)", self.static_settings.header_list.0, 1 << 10, 1 << 20);
        within("defaultMemory (bytes)", self.static_settings.default_memory.0, 16 << 20, 1 << 44);
        within("pacing.stepMicros", self.dynamic.pacing.step_micros.into(), 10, 1_000);
        within("pacing.cpu", self.dynamic.pacing.cpu.0.into(), 1, 100);
        within("tick (ms)", self.dynamic.tick.0, 10, 2_000);
        within("drift.busyOccupancy", busy_occupancy.0.into(), 50, 99);
        within("traceSample", self.dynamic.trace_sample.0.into(), 0, 100);
        let Pod { events, name, namespace, uid } = &self.static_settings.pod;
        for (key, value) in [("name", name), ("namespace", namespace), ("uid", uid)] {
            if *events && value.is_empty() {
                problems.push(format!("pod.events is true and pod.{key} is empty; the downward API gives it"));
            }
        }
        let collector = &self.static_settings.otlp_endpoint;
        let is_http = |uri: http::Uri| uri.scheme_str() == Some("http");
        if !collector.is_empty() && !collector.parse().is_ok_and(is_http) {
            problems.push(format!("otlpEndpoint ({collector:?}) is not like http://localhost:4317"));
        }
        let max_memory = self.dynamic.max_memory.0;
        if max_memory != 0 && max_memory < 16 << 20 {
            problems.push(format!("maxMemory ({max_memory} bytes) must be 0 or at least 16Mi"));
        }
        problems
    }
}
