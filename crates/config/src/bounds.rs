//! The bounds of settings: one table for the sidecar's start, the schema, the reference page and the chart.
//!
//! A type accepts every text of its kind. The table holds what a setting accepts of it, and [`problems`] holds the
//! relations between settings.

use super::{Config, Drift, OFF, Pod, Watermarks};
use crate::units::{ByteSize, Percent, Span};
use std::net::SocketAddr;

/// A hundred years, in milliseconds: more than any cache needs, and far from overflows.
const CENTURY: u64 = 36_500 * 86_400_000;
/// The longest path of a Unix socket, in bytes; the system stores 108 with a zero byte.
const SOCKET_PATH_BYTES: usize = 107;

/// What a setting counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    Number,
    /// Microseconds as a plain number.
    Micros,
    /// A percentage.
    Percent,
    /// A size, in bytes.
    Bytes,
    /// A duration, in milliseconds.
    Millis,
}

impl Unit {
    /// The unit in error messages.
    fn suffix(self) -> &'static str {
        match self {
            Self::Number => "",
            Self::Micros => " microseconds",
            Self::Percent => " percent",
            Self::Bytes => " bytes",
            Self::Millis => " ms",
        }
    }

    /// A value in its shortest form, for people.
    pub fn text(self, value: u64) -> String {
        match self {
            Self::Number | Self::Micros => value.to_string(),
            Self::Percent => Percent(value.min(100) as u8).to_string(),
            Self::Bytes => ByteSize(value).to_string(),
            Self::Millis => Span(value).to_string(),
        }
    }
}

/// The bounds of one setting, both inclusive.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Path of the setting.
    pub key: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Smallest value.
    pub min: u64,
    /// Largest value.
    pub max: u64,
    /// Whether 0 is allowed, too, because it disables the setting.
    pub is_zero_allowed: bool,
    of: fn(&Config) -> u64,
}

impl Bound {
    /// Whether a value is allowed.
    pub fn allows(&self, value: u64) -> bool {
        (self.min..=self.max).contains(&value) || self.is_zero_allowed && value == 0
    }

    /// The problem of a value that is not allowed.
    fn problem(&self, value: u64) -> String {
        let Self { key, unit, min, max, .. } = *self;
        match self.is_zero_allowed {
            true if value < min => {
                format!("{key}: {value}{} are too few (0 or at least {})", unit.suffix(), unit.text(min))
            }
            _ => format!("{key}: {value} is out of range ({min} to {max}{})", unit.suffix()),
        }
    }
}

macro_rules! bounds {
    ($($key:literal $unit:ident $min:expr, $max:expr $(, $zero:ident)?; $config:ident => $value:expr)+) => {
        /// All bounds. Every number, share, size and duration has one; a test checks this.
        pub const BOUNDS: &[Bound] = &[$(Bound {
            key: $key,
            unit: Unit::$unit,
            min: $min,
            max: $max,
            is_zero_allowed: !stringify!($($zero)?).is_empty(),
            of: |$config: &Config| $value,
        }),+];
    };
}

bounds! {
    "cores" Number 1, 64; c => c.static_settings.cores.into()
    "connections" Number 1, 65_536; c => c.static_settings.connections.into()
    "streams" Number 1, 65_536; c => c.static_settings.streams.into()
    "maxValue" Bytes 1, 3_584 << 10; c => c.static_settings.max_value.0
    "streamWindow" Bytes 32 << 10, (1 << 31) - 1; c => c.static_settings.stream_window.0
    "headerList" Bytes 1 << 10, 1 << 20; c => c.static_settings.header_list.0
    "defaultMemory" Bytes 16 << 20, 1 << 44; c => c.static_settings.default_memory.0
    "inFlight" Bytes 64 << 10, 1 << 44; c => c.static_settings.in_flight.0
    "inFlightPerConnection" Bytes 64 << 10, 1 << 44; c => c.static_settings.in_flight_per_connection.0
    "handshakeTimeout" Millis 10, 3_600_000; c => c.static_settings.handshake_timeout.0
    "idleTimeout" Millis 10, CENTURY; c => c.static_settings.idle_timeout.0
    "writeTimeout" Millis 10, 3_600_000; c => c.static_settings.write_timeout.0
    "drainTimeout" Millis 0, 3_600_000; c => c.static_settings.drain_timeout.0
    "maxMemory" Bytes 16 << 20, 1 << 44, or_zero; c => c.dynamic.max_memory.0
    "reserve.share" Percent 0, 100; c => c.dynamic.reserve.share.0.into()
    "reserve.least" Bytes 0, 1 << 44; c => c.dynamic.reserve.least.0
    "watermarks.low" Percent 0, 97; c => c.dynamic.watermarks.low.0.into()
    "watermarks.high" Percent 1, 98; c => c.dynamic.watermarks.high.0.into()
    // Use never exceeds the budget, so a critical watermark of 100% would never be passed.
    "watermarks.critical" Percent 2, 99; c => c.dynamic.watermarks.critical.0.into()
    "drift.dead" Percent 0, 100; c => c.dynamic.drift.dead.0.into()
    "drift.busyOccupancy" Percent 50, 99; c => c.dynamic.drift.busy_occupancy.0.into()
    "drift.idleOccupancy" Percent 51, 100; c => c.dynamic.drift.idle_occupancy.0.into()
    "pacing.stepMicros" Micros 10, 1_000; c => c.dynamic.pacing.step_micros.into()
    "pacing.cpu" Percent 1, 100; c => c.dynamic.pacing.cpu.0.into()
    "defaults.ttl" Millis 0, CENTURY; c => c.dynamic.defaults.ttl.0
    "defaults.maxStale" Millis 0, CENTURY; c => c.dynamic.defaults.max_stale.0
    "tick" Millis 10, 2_000; c => c.dynamic.tick.0
    "lookAhead" Millis 0, 600_000; c => c.dynamic.look_ahead.0
    "pressure" Percent 0, 100; c => c.dynamic.pressure.0.into()
    "traceSample" Percent 0, 100; c => c.dynamic.trace_sample.0.into()
}

/// An OTLP endpoint, as a pattern of JSON schema.
pub(super) const ENDPOINT_PATTERN: &str = "^(http://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9a-fA-F:.]+\\])\
    (:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?\
    (/[A-Za-z0-9._~/-]*)?)?$";

/// Every violation of a bound and of a relation between settings.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let Watermarks { low, high, critical } = &config.dynamic.watermarks;
    let Drift { busy_occupancy, idle_occupancy, .. } = &config.dynamic.drift;
    let mut problems = Vec::new();
    let mut below = |a: &str, a_value: &Percent, b: &str, b_value: &Percent| {
        if a_value >= b_value {
            problems.push(format!("{a}: {a_value} must be below {b} ({b_value})"));
        }
    };
    below("watermarks.low", low, "watermarks.high", high);
    below("watermarks.high", high, "watermarks.critical", critical);
    below("drift.busyOccupancy", busy_occupancy, "drift.idleOccupancy", idle_occupancy);
    for bound in BOUNDS {
        let value = (bound.of)(config);
        if !bound.allows(value) {
            problems.push(bound.problem(value));
        }
    }
    let Pod { events, name, namespace, uid } = &config.static_settings.pod;
    for (key, value) in [("name", name), ("namespace", namespace), ("uid", uid)] {
        if *events && value.is_empty() {
            problems.push(format!("pod.{key}: must not be empty if pod.events is true; set it from the downward API"));
        }
    }
    let collector = &config.static_settings.otlp_endpoint;
    if !collector.is_empty() && collector.expose().is_none() {
        // The value may hold a secret, so it is not quoted.
        problems.push("otlpEndpoint: the value is not an http:// URL such as http://localhost:4317".to_owned());
    }
    for name in config.static_settings.http_hosts.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !is_name(name) {
            problems.push(format!("httpHosts: {name:?} is not a name such as ebb.example.com (without a port)"));
        }
    }
    problems.extend(listeners(config));
    problems
}

/// Names of hosts, as a pattern of JSON schema.
pub(super) const HOSTS_PATTERN: &str = "^ *([A-Za-z0-9_.-]+ *(, *[A-Za-z0-9_.-]+ *)*)?$";

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Problems of the addresses to listen on.
fn listeners(config: &Config) -> Vec<String> {
    let settings = &config.static_settings;
    let mut problems = Vec::new();
    let admin = (settings.admin_socket.is_empty()).then_some(("adminListen", &settings.admin_listen));
    let data = (settings.listen != OFF).then_some(("listen", &settings.listen));
    if data.is_none() && settings.socket.is_empty() {
        problems.push("listen: off needs a path in socket".to_owned());
    }
    let tcp = [data, admin, Some(("httpListen", &settings.http_listen))];
    let mut bound: Vec<(&str, SocketAddr)> = Vec::new();
    for (key, text) in tcp.into_iter().flatten() {
        let Ok(address) = text.parse::<SocketAddr>() else {
            problems.push(format!("{key}: {text:?} is not an address such as 127.0.0.1:7070"));
            continue;
        };
        let overlaps = |other: &SocketAddr| {
            let (one, two) = (address.ip(), other.ip());
            address.port() != 0
                && address.port() == other.port()
                && (one == two || one.is_unspecified() || two.is_unspecified())
        };
        if let Some((other, taken)) = bound.iter().find(|(_, taken)| overlaps(taken)) {
            problems.push(format!("{key}: {address} collides with {other} ({taken})"));
        }
        bound.push((key, address));
    }
    for (key, path) in [("socket", &settings.socket), ("adminSocket", &settings.admin_socket)] {
        if path.len() > SOCKET_PATH_BYTES {
            problems.push(format!("{key}: the path has {} bytes (at most {SOCKET_PATH_BYTES})", path.len()));
        }
    }
    if !settings.socket.is_empty() && settings.socket == settings.admin_socket {
        problems.push(format!("adminSocket: {} collides with socket", settings.admin_socket));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{leaves, setting_paths};

    #[test]
    fn every_amount_has_a_bound_and_its_default_is_within() {
        let schema = crate::schema();
        let is_amount = |key: &String| {
            let setting = key.split('.').fold(&schema, |at, part| &at["properties"][part]);
            !setting["pattern"].is_null() && !["otlpEndpoint", "httpHosts"].contains(&key.as_str())
                || setting["type"] == "integer"
        };
        let mut amounts: Vec<String> = setting_paths().into_iter().filter(is_amount).collect();
        let mut bounded: Vec<String> = BOUNDS.iter().map(|bound| bound.key.to_owned()).collect();
        amounts.sort();
        bounded.sort();
        assert_eq!(bounded, amounts);
        assert_eq!(problems(&Config::default()), [""; 0]);
        assert!(leaves(&serde_json::to_value(Config::default()).unwrap()).len() > bounded.len());
    }

    #[test]
    fn names_of_hosts_have_neither_port_nor_wildcard() {
        let with = |names: &str| {
            let mut config = Config::default();
            config.static_settings.http_hosts = names.to_owned();
            problems(&config).len()
        };
        let cases = [("ebb.example.com, cache.shop.svc", 0), ("", 0), ("a:80", 1), ("*", 1), ("a b, http://c", 2)];
        assert_eq!(cases.map(|(names, _)| (names, with(names))), cases);
    }

    #[test]
    fn addresses_that_cannot_all_be_bound_are_named() {
        let with = |change: fn(&mut crate::StaticSettings)| {
            let mut config = Config::default();
            change(&mut config.static_settings);
            problems(&config)
        };
        assert_eq!(
            with(|settings| settings.http_listen = "0.0.0.0:7071".to_owned()),
            ["httpListen: 0.0.0.0:7071 collides with adminListen (127.0.0.1:7071)"]
        );
        assert_eq!(with(|settings| settings.http_listen = "127.0.0.2:7071".to_owned()), [""; 0]);
        let any = |settings: &mut crate::StaticSettings| {
            settings.listen = "127.0.0.1:0".to_owned();
            settings.http_listen = "127.0.0.1:0".to_owned();
        };
        assert_eq!(with(any), [""; 0], "port 0 takes a free port");
        assert_eq!(
            with(|settings| settings.listen = "999.1.1.1:7070".to_owned()),
            ["listen: \"999.1.1.1:7070\" is not an address such as 127.0.0.1:7070"]
        );
        assert_eq!(with(|settings| settings.listen = OFF.to_owned()), ["listen: off needs a path in socket"]);
        let no_port = |settings: &mut crate::StaticSettings| {
            (settings.listen, settings.socket) = (OFF.to_owned(), "/run/ebb/ebb.sock".to_owned());
            settings.http_listen = "127.0.0.1:7070".to_owned();
        };
        assert_eq!(with(no_port), [""; 0], "the port is free");
        assert!(
            with(|settings| settings.socket = format!("/{}", "s".repeat(107)))[0].contains("108 bytes (at most 107)")
        );
    }
}
