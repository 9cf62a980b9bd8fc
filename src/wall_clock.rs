//! Wall-clock time, for output only. Deadlines must not use it, since it can jump.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in nanoseconds.
#[expect(clippy::disallowed_methods, reason = "the one place of the server that reads the wall clock")]
pub fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Unix time in milliseconds.
pub fn unix_ms() -> u64 {
    unix_nanos() / 1_000_000
}
