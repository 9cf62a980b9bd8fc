//! Work of the cleaner on a shard that is not finished, and what has been done.

use super::policy::Purpose;

/// One segment being looked through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) segment: u32,
    pub(super) purpose: Purpose,
    /// For an eviction: first it is weighed what would be kept, then acted.
    pub(super) weighing: bool,
    pub(super) cursor_words: usize,
    pub(super) kept_words: usize,
}

/// The segments that an invalidation still has to look through.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    pub(super) segments: Vec<u32>,
    /// How many of the shard's invalidations are carried out when it ends.
    pub(super) invalidations: usize,
}

/// What cleaning has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of live items copied.
    pub moved_bytes: u64,
    /// Items copied.
    pub moved_items: u64,
    /// Items dropped to make room.
    pub evicted_items: u64,
    /// Items dropped because their time had passed.
    pub expired_items: u64,
    /// Segments taken out of use.
    pub freed_segments: u64,
    /// Shards whose index was migrated.
    pub migrated_shards: u64,
}

impl Tally {
    /// Adds what others did.
    pub fn add(&mut self, other: &Self) {
        self.moved_bytes += other.moved_bytes;
        self.moved_items += other.moved_items;
        self.evicted_items += other.evicted_items;
        self.expired_items += other.expired_items;
        self.freed_segments += other.freed_segments;
        self.migrated_shards += other.migrated_shards;
    }
}
