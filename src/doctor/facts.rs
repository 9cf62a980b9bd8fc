//! The facts that the rules of the doctor examine.

use crate::governor::Snapshot;
use crate::history::Point;
use crate::sources::SocketFiles;
use ebb_config::ActiveConfig;
use ebb_engine::store::Stats;

/// Age of the counts to compare with, in milliseconds: people run the doctor minutes after a problem.
pub(super) const EARLIER_MS: u64 = 600_000;

/// The facts about a server.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) memory: &'a Snapshot,
    pub(crate) stats: &'a Stats,
    pub(crate) config: &'a ActiveConfig,
    /// Counts of the last minute, or since the start.
    pub(crate) recent: Recent,
    pub(crate) uptime_ms: u64,
    /// The counts of ten minutes ago. For a younger process, all are zero except the kernel's OOM kills in the container
    /// before its start.
    pub(crate) earlier: Point,
    /// Writes refused because the value can never be stored.
    pub(crate) too_large: u64,
    /// Maximum size of a value, in bytes.
    pub(crate) max_value_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) open_connections: u64,
    /// State of the files of Unix sockets.
    pub(crate) sockets: SocketFiles,
    /// Connections of the HTTP listener.
    pub(crate) http: ebb_listener::Counts,
    /// Idle connections of the data and admin ports that were closed for new ones.
    pub(crate) at_cap: u64,
    /// Difference between wall clock and monotonic clock in the time since the start, in milliseconds.
    pub(crate) clock_jump_ms: u64,
}

/// Counts of a period.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recent {
    pub(crate) seconds: u64,
    pub(crate) reads: u64,
    pub(crate) misses: u64,
    /// Misses of evicted items.
    pub(crate) missed_evicted: u64,
    pub(crate) evictions: u64,
}
