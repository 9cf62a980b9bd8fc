//! The counters of a shard.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Counters of a shard, read without its lock.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sets: AtomicU64,
    pub(super) deletes: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) expirations: AtomicU64,
    pub(super) invalidated: AtomicU64,
    pub(super) appended_bytes: AtomicU64,
    pub(super) copied_bytes: AtomicU64,
    pub(super) died_bytes: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) live_bytes: AtomicU64,
    /// Words of live items and words written, of all segments together.
    pub(super) live_words: AtomicU64,
    pub(super) written_words: AtomicU64,
    /// Words of expired items that are not dropped yet: an estimate, updated by the cleaner.
    pub(super) expired_words: AtomicU64,
    /// Resident bytes of retired segments that readers still use.
    pub(super) retired_bytes: AtomicU64,
}

impl Counts {
    /// Words written that belong to no live item.
    pub(super) fn dead_words(&self) -> u64 {
        self.written_words.load(Ordering::Relaxed).saturating_sub(self.live_words.load(Ordering::Relaxed))
    }
}

/// Adds to a counter that only the holder of the shard's lock writes.
pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.store(counter.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
}

/// Subtracts from a counter that only the holder of the shard's lock writes.
pub(super) fn sub(counter: &AtomicU64, n: usize) {
    let before = counter.load(Ordering::Relaxed);
    assert!(before >= n as u64, "a counter of {before} cannot fall by {n}");
    counter.store(before - n as u64, Ordering::Relaxed);
}
