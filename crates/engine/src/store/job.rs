//! Unfinished work of the cleaner on a shard, and the tally of finished work.

use super::policy::Purpose;

/// The pass over one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) segment: u32,
    pub(super) purpose: Purpose,
    /// An eviction first passes over the segment to sum up the items worth keeping, and acts in a second pass.
    pub(super) weighing: bool,
    pub(super) cursor_words: usize,
    pub(super) kept_words: usize,
}

/// The segments that a sweep has not visited yet.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    pub(super) segments: Vec<u32>,
    /// Number of the shard's invalidations that are complete when the sweep ends.
    pub(super) invalidations: usize,
}

/// Counts of the work that cleaning has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of live items copied.
    pub moved_bytes: u64,
    /// Items copied.
    pub moved_items: u64,
    /// Items dropped to make room.
    pub evicted_items: u64,
    /// Items dropped because their deadline had passed.
    pub expired_items: u64,
    /// Segments retired, in units of the smallest segment.
    pub freed_segments: u64,
    /// Shards whose index was migrated.
    pub migrated_shards: u64,
}

impl Tally {
    /// Adds the counts of another tally.
    pub fn add(&mut self, other: &Self) {
        self.moved_bytes += other.moved_bytes;
        self.moved_items += other.moved_items;
        self.evicted_items += other.evicted_items;
        self.expired_items += other.expired_items;
        self.freed_segments += other.freed_segments;
        self.migrated_shards += other.migrated_shards;
    }
}
