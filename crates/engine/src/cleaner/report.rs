//! The target of a run of the cleaner, and its report.

use crate::store::Tally;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// Why the cleaner ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Dead bytes exceeded their threshold.
    #[default]
    Drift,
    /// The engine's memory reached the high watermark.
    High,
    /// The engine's memory reached the critical watermark.
    Critical,
    /// The limit was lowered.
    LimitLowered,
    /// The kernel reports memory pressure in the container.
    Pressure,
    /// A caller requested the run.
    Requested,
}

impl Reason {
    /// Name in reports and metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What the cleaner must reach. A lasting target holds until the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The reason, for the report.
    pub reason: Reason,
    /// Compact until segments have this share of live bytes, in percent. 0: do not compact.
    pub occupancy_percent: u8,
    /// Evict until the engine (segments, index and bytes in flight) uses at most this many bytes. `None`: do not evict.
    pub evict_to_bytes: Option<u64>,
}

impl Target {
    /// Only cheap work: free segments without live bytes, drop expired items.
    pub const NONE: Self = Self { reason: Reason::Drift, occupancy_percent: 0, evict_to_bytes: None };

    /// A requested compaction until segments have this share of live bytes, in percent.
    pub fn compact(occupancy_percent: u8) -> Self {
        Self { reason: Reason::Requested, occupancy_percent, evict_to_bytes: None }
    }
}

/// The cost of runs. Durations are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Wall time.
    pub duration_us: u64,
    /// CPU time of the cleaner's thread.
    pub cpu_us: u64,
    /// CPU time of the longest single step.
    pub longest_step_us: u64,
    /// The longest wait of a caller for a shard's lock during the run, whichever thread held it.
    pub longest_wait_us: u64,
    /// Number of steps.
    pub steps: u64,
    /// 99.9th percentile of the CPU time of a step.
    pub step_p999_us: u64,
}

impl Cost {
    /// Adds another cost. For maxima and the percentile it keeps the larger value; the true percentile of the sum is
    /// not known.
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
    /// Their cost.
    pub cost: Cost,
    /// Counts of their work.
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

/// Memory of the process, as reported by the engine's caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// The effective memory limit, 0 for none.
    pub limit_bytes: u64,
    /// Memory charged against the limit.
    pub used_bytes: u64,
    /// Resident set size of the process.
    pub rss_bytes: u64,
}

/// The use of memory at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Memory of the whole process.
    pub process: ProcessMemory,
    /// Keys and values that can be read.
    pub live_bytes: u64,
    /// Expired items that are not dropped yet, including per-item overhead: an estimate.
    pub expired_bytes: u64,
    /// Bytes in segments that belong to no live item.
    pub dead_bytes: u64,
    /// Resident segments.
    pub segment_bytes: u64,
    /// The index of all shards.
    pub index_bytes: u64,
    /// Requests and responses in flight.
    pub in_flight_bytes: u64,
    /// The budget: the memory that the engine may use.
    pub budget_bytes: u64,
}

/// The report of one run of the cleaner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Counts up from 1.
    pub id: u64,
    /// Why it ran.
    pub reason: Reason,
    /// When it started, in milliseconds of the cleaner's clock.
    pub started_ms: u64,
    /// Its cost.
    pub cost: Cost,
    /// Counts of its work.
    pub done: Tally,
    /// The account before the run.
    pub before: Account,
    /// The account after the run.
    pub after: Account,
}

impl Report {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        self.done == Tally::default()
    }
}
