//! What a run of the cleaner is asked to do, and the report it ends in.

use crate::store::Tally;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// Why the cleaner ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Dead bytes, or memory nobody accounts for, passed their share.
    #[default]
    Drift,
    /// Memory use reached the high watermark.
    High,
    /// Memory use reached the critical watermark.
    Critical,
    /// The limit was lowered, or is about to be.
    LimitLowered,
    /// The kernel reports that the container waits for memory.
    Pressure,
    /// Somebody asked.
    Requested,
}

impl Reason {
    /// The stable name, as in reports and metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What the cleaner keeps to until it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Why, for the report.
    pub reason: Reason,
    /// Compact while segments are less full of live bytes than this, in percent. 0: do not compact.
    pub occupancy_percent: u8,
    /// Evict until the engine (segments, index and bytes in flight) uses at most this many bytes. `None`: do not evict.
    pub evict_to_bytes: Option<u64>,
}

impl Target {
    /// Do nothing but what is nearly free: give back segments without a live byte, drop what has expired.
    pub const NONE: Self = Self { reason: Reason::Drift, occupancy_percent: 0, evict_to_bytes: None };

    /// Move items together until segments are this full, in percent, as somebody has asked for.
    pub fn compact(occupancy_percent: u8) -> Self {
        Self { reason: Reason::Requested, occupancy_percent, evict_to_bytes: None }
    }
}

/// What runs cost. Durations are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Wall time.
    pub duration_us: u64,
    /// CPU time of the cleaner's thread.
    pub cpu_us: u64,
    /// CPU time of the longest single step.
    pub longest_step_us: u64,
    /// The longest wait of a caller for the lock of a shard meanwhile, whoever held it.
    pub longest_wait_us: u64,
    /// Number of steps.
    pub steps: u64,
    /// 99.9th percentile of the CPU time of a step.
    pub step_p999_us: u64,
}

impl Cost {
    /// Adds another cost. Maxima stay maxima, and so does the percentile: the sum's own is not known.
    pub fn add(&mut self, other: &Self) {
        self.duration_us += other.duration_us;
        self.cpu_us += other.cpu_us;
        self.longest_step_us = self.longest_step_us.max(other.longest_step_us);
        self.longest_wait_us = self.longest_wait_us.max(other.longest_wait_us);
        self.steps += other.steps;
        self.step_p999_us = self.step_p999_us.max(other.step_p999_us);
    }
}

/// All runs of one reason since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Number of runs.
    pub runs: u64,
    /// What they cost.
    pub cost: Cost,
    /// What they did.
    pub done: Tally,
}

impl Total {
    /// Adds a run.
    pub(super) fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.cost.add(&report.cost);
        self.done.add(&report.done);
    }
}

/// Memory of the process, as the engine's caller sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// The limit that is obeyed, 0 for none.
    pub limit_bytes: u64,
    /// What counts against it.
    pub used_bytes: u64,
    /// Resident set size of the process.
    pub rss_bytes: u64,
}

/// Where the bytes are, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// As the process is seen from process.
    pub process: ProcessMemory,
    /// Keys and values that can be read.
    pub live_bytes: u64,
    /// Items, with what is kept beside them, that have expired and wait to be dropped: an estimate.
    pub expired_bytes: u64,
    /// Bytes in segments that no reader can reach any more.
    pub dead_bytes: u64,
    /// Segments in use.
    pub segment_bytes: u64,
    /// The index of all shards.
    pub index_bytes: u64,
    /// Requests and responses in flight.
    pub in_flight_bytes: u64,
    /// What may be in use before eviction begins.
    pub budget_bytes: u64,
}

/// The account of one run of the cleaner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Counts up from 1.
    pub id: u64,
    /// Why it ran.
    pub reason: Reason,
    /// When it started, in milliseconds of the cleaner's clock.
    pub started_ms: u64,
    /// What it cost.
    pub cost: Cost,
    /// What it did.
    pub done: Tally,
    /// Before the run.
    pub before: Account,
    /// After the run.
    pub after: Account,
}

impl Report {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        self.done == Tally::default()
    }
}
