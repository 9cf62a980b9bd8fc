//! What a run of the cleaner is asked to do, and the receipt it ends in.

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
    /// The stable name, as in receipts and metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What the cleaner keeps to until it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Why, for the receipt.
    pub reason: Reason,
    /// Compact while segments are less full of live bytes than this, in percent. 0: do not compact.
    pub target_occupancy_percent: u8,
    /// Evict until the engine (segments, index and bytes in flight) uses at most this many bytes. `None`: do not evict.
    pub evict_to_bytes: Option<u64>,
}

impl Order {
    /// Do nothing but what is nearly free: give back segments without a live byte, drop what has expired.
    pub const REST: Self = Self { reason: Reason::Drift, target_occupancy_percent: 0, evict_to_bytes: None };

    /// Move items together until segments are this full, in percent, as somebody has asked for.
    pub fn compact(target_occupancy_percent: u8) -> Self {
        Self { reason: Reason::Requested, target_occupancy_percent, evict_to_bytes: None }
    }
}

/// What all runs of one reason together did and cost, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How many there were.
    pub runs: u64,
    /// CPU time of the cleaner's thread in microseconds.
    pub cpu_us: u64,
    /// The longest single step in microseconds of CPU.
    pub longest_step_us: u64,
    /// The longest time that a caller waited for the lock of a shard, in microseconds.
    pub longest_wait_us: u64,
    /// Bytes of live items copied.
    pub moved_bytes: u64,
    /// Segments given back to the operating system.
    pub freed_segments: u64,
}

impl Total {
    /// Adds a run.
    pub(super) fn add(&mut self, receipt: &Receipt) {
        self.runs += 1;
        self.cpu_us += receipt.cpu_us;
        self.longest_step_us = self.longest_step_us.max(receipt.longest_step_us);
        self.longest_wait_us = self.longest_wait_us.max(receipt.longest_wait_us);
        self.moved_bytes += receipt.moved_bytes;
        self.freed_segments += receipt.freed_segments;
    }
}

/// Memory of the process, as the engine's caller sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outside {
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
    /// As the process is seen from outside.
    pub outside: Outside,
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
pub struct Receipt {
    /// Counts up from 1.
    pub id: u64,
    /// Why it ran.
    pub reason: Reason,
    /// When it started, in milliseconds of the cleaner's clock.
    pub started_ms: u64,
    /// Wall time in microseconds.
    pub duration_us: u64,
    /// CPU time of the cleaner's thread in microseconds.
    pub cpu_us: u64,
    /// The longest single step in microseconds of CPU.
    pub longest_step_us: u64,
    /// The longest time that a caller waited for the lock of a shard meanwhile, in microseconds, whoever held it.
    pub longest_wait_us: u64,
    /// How many steps it took.
    pub steps: u64,
    /// What 99.9 % of the steps stayed within, in microseconds of CPU.
    pub step_p999_us: u64,
    /// Bytes of live items copied.
    pub moved_bytes: u64,
    /// Items copied.
    pub moved_items: u64,
    /// Items dropped to make room.
    pub evicted_items: u64,
    /// Items dropped because their time had passed.
    pub expired_items: u64,
    /// Segments given back to the operating system.
    pub freed_segments: u64,
    /// Shards whose index was migrated.
    pub migrated_shards: u64,
    /// Before the run.
    pub before: Account,
    /// After the run.
    pub after: Account,
}

impl Receipt {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        self.moved_items + self.evicted_items + self.expired_items + self.freed_segments + self.migrated_shards == 0
    }
}
