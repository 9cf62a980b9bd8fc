//! What is known about a server when it is examined.

use crate::governor::Snapshot;
use crate::history::Point;
use crate::sources::SocketFiles;
use ebb_config::ActiveConfig;
use ebb_engine::store::Stats;

/// How far back counts are compared: a person asks minutes after.
pub(super) const EARLIER_MS: u64 = 600_000;

/// What the doctor looks at.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) memory: &'a Snapshot,
    pub(crate) stats: &'a Stats,
    pub(crate) config: &'a ActiveConfig,
    /// What came and went in the last minute, or since the start.
    pub(crate) recent: Recent,
    pub(crate) uptime_ms: u64,
    /// What had been counted ten minutes ago. In a younger process it is of its start: no uptime, and nothing counted
    /// but what the kernel had killed in the container before.
    pub(crate) earlier: Point,
    /// Writes refused because the value can never be stored.
    pub(crate) too_large: u64,
    /// The largest value that is taken.
    pub(crate) max_value_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) open_connections: u64,
    /// What became of the files of Unix sockets.
    pub(crate) sockets: SocketFiles,
    /// Connections of the HTTP listener.
    pub(crate) http: ebb_listener::Counts,
    /// Idle connections of the data and admin ports that were closed for new ones.
    pub(crate) at_cap: u64,
    /// By how much the wall clock and the monotonic one disagree about the time since the start, in milliseconds.
    pub(crate) clock_jump_ms: u64,
}

/// What came and went in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recent {
    pub(crate) seconds: u64,
    pub(crate) reads: u64,
    pub(crate) misses: u64,
    /// Misses of what had been evicted.
    pub(crate) missed_evicted: u64,
    pub(crate) evictions: u64,
}
