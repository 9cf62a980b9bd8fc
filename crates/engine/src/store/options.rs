//! The options of a store, and the bounds on them.

use super::arena::{WORD_BYTES, page_bytes};
use super::item::MAX_ITEM_WORDS;
use super::segment;
use super::types::MAX_VERSION;

/// Options for [`Store::new`](super::Store::new).
#[derive(Clone, Debug)]
pub struct Options {
    /// Maximum bytes of segments, index and bytes in flight together. The ledger can change it later.
    pub capacity_bytes: u64,
    /// Maximum capacity that may ever be set, in bytes: the store reserves address space for it. `None`: the memory of
    /// the machine.
    pub most_bytes: Option<u64>,
    /// Maximum size of a value, in bytes; at most [`MAX_VALUE_BYTES`].
    pub max_value_bytes: usize,
    /// Seed of the keyed hash.
    pub seed: [u64; 2],
    /// Every version is larger than this, and at most [`MAX_VERSION`]. [`first_version`] derives it from the start
    /// time, so that versions also grow across restarts.
    pub first_version: u64,
    /// Number of shards, a power of two up to 256. `None`: one per 16 MiB of capacity, at most 64, because each shard
    /// keeps a few pages of its own.
    pub shards: Option<usize>,
    /// Size of a segment in bytes, a power of two from a page to 2 MiB. `None`: 1/128 of a shard, at least 64 KiB; it
    /// grows when the capacity is raised.
    pub segment_bytes: Option<usize>,
}

/// Upper bound of [`Options::max_value_bytes`], in bytes.
pub const MAX_VALUE_BYTES: usize = (MAX_ITEM_WORDS - 256) * WORD_BYTES;

/// Versions that remain for writes even if the clock is wrong.
pub(super) const VERSIONS_LEFT: u64 = 1 << 49;

/// The version that a store started at this time counts up from. A shard writes fewer than 2,048 times per millisecond,
/// so a restart never reuses a version. The clock reaches the bound in the year 2100; a clock that is wrong by
/// centuries still leaves [`VERSIONS_LEFT`] versions.
pub fn first_version(unix_ms: u64) -> u64 {
    const WRITES_PER_MS_BITS: u32 = 11;
    unix_ms.min((MAX_VERSION - VERSIONS_LEFT) >> WRITES_PER_MS_BITS) << WRITES_PER_MS_BITS
}

impl Options {
    /// Options derived from the capacity, with a random seed and versions that start at 1.
    pub fn new(capacity_bytes: u64) -> Self {
        use std::hash::{BuildHasher, RandomState};
        // The standard library derives its random state from the operating system's randomness.
        let random = || RandomState::new().hash_one(0_u8);
        Self {
            capacity_bytes,
            most_bytes: None,
            max_value_bytes: 1 << 20,
            seed: [random(), random()],
            first_version: 0,
            shards: None,
            segment_bytes: None,
        }
    }

    pub(super) fn shard_count(&self) -> usize {
        const SHARD_BYTES: u64 = 16 << 20;
        let wanted = self.capacity_bytes.div_ceil(SHARD_BYTES).clamp(1, 64) as usize;
        self.shards.unwrap_or(wanted).next_power_of_two().min(256)
    }

    pub(super) fn segment_size(&self) -> usize {
        let wanted = || segment::bytes_for(self.capacity_bytes / self.shard_count() as u64);
        self.segment_bytes.unwrap_or_else(wanted).next_power_of_two().clamp(page_bytes(), segment::MAX_BYTES)
    }

    pub(super) fn most(&self) -> u64 {
        let machine = || {
            let info = rustix::system::sysinfo();
            info.totalram as u64 * u64::from(info.mem_unit)
        };
        self.most_bytes.unwrap_or_else(machine).max(self.capacity_bytes).next_multiple_of(page_bytes() as u64)
    }
}
