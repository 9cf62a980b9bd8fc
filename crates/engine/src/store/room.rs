//! Room: a write that finds none, and bytes in flight that exceed the capacity, clean segments until they fit.
//!
//! Retired segments come first, because readers are about to leave them. Compaction follows while all live items fit;
//! it loses nothing. Eviction is last. The number of segments is bounded, so that a write ends. If usage still exceeds a
//! lowered capacity by then, the write is granted part of what it has freed.

use super::Store;
use super::append::Way;
use super::arena::WORD_BYTES;
use super::counts::Counts;
use super::hash::Hash;
use super::ledger::Bound;
use super::shard::{Locked, Shard};
use super::types::Error;
use crate::sync::atomic::Ordering;

/// Maximum number of segments that one write cleans beyond its own size: it compacts at most this many before it evicts,
/// and evicts from at most this many before it is refused. After a quarter of the evictions, reads no longer protect an
/// item.
pub(super) const MAX_CLEANED: usize = 64;
/// Maximum number of times a write yields while readers announce retired segments, before it frees more.
#[cfg(not(any(loom, shuttle)))]
const MAX_WAITS: usize = 64;
#[cfg(any(loom, shuttle))]
const MAX_WAITS: usize = 2;

/// The work done so far to make room for one write.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effort {
    /// Number of yields to readers.
    waits: usize,
    /// Segments compacted, and segments evicted from.
    compacted: usize,
    pub(super) evicted: usize,
}

impl Store {
    /// Runs a write. If there is no room, makes room and tries again.
    pub(super) fn with_room<T>(
        &self,
        hash: Hash,
        now_ms: u64,
        mut write: impl FnMut(&mut Locked<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let number = hash.shard(self.shards.len());
        let shard = &self.shards[number];
        let mut effort = Effort::default();
        let (mut grows_index, mut bound, mut before) = (true, Bound::Capacity, None);
        loop {
            // Cleaning takes the locks of shards, so this one must be free by then.
            let result = {
                let mut locked = shard.lock(&self.shared);
                (locked.grows_index, locked.bound) = (grows_index, bound);
                write(&mut locked)
            };
            let Err(Error::NoSpace { need, .. }) = result else { return result };
            let before = *before.get_or_insert_with(|| self.ledger().total());
            let could_hold = self.ledger().could_hold(need);
            if could_hold && self.make_some_room(shard, need, &mut effort, now_ms) {
                continue;
            }
            // Perhaps only a larger index lacked room, and the old index still has a slot for the item.
            if std::mem::replace(&mut grows_index, false) {
                continue;
            }
            if could_hold && bound == Bound::Capacity {
                bound = Bound::Before(before);
                continue;
            }
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return result;
        }
    }

    /// Cleans segments while usage exceeds the capacity. Bytes in flight can cause that, because the ledger never
    /// refuses them. Cleans some tens of segments at most, and none if index, tables, connections and bytes in flight
    /// alone exceed the capacity.
    pub fn make_room(&self, now_ms: u64) {
        let ledger = self.ledger();
        let is_needed = || ledger.total() > ledger.capacity() + self.retired_bytes() && ledger.could_hold(0);
        let mut effort = Effort::default();
        while is_needed() && self.make_some_room(self.fullest(), 0, &mut effort, now_ms) {
            while self.cool(0).is_some() {}
        }
    }

    /// Makes about one segment of room for a write of `need` bytes to a shard: first from retired segments that readers
    /// are about to leave, then by compaction while all live bytes fit, and only then by eviction. `false` if nothing
    /// more can be freed.
    pub(super) fn make_some_room(&self, shard: &Shard, need: u64, effort: &mut Effort, now_ms: u64) -> bool {
        if need > 0 && self.retired_bytes() >= need && effort.waits < MAX_WAITS {
            effort.waits += 1;
            self.let_readers_go_on();
            return true;
        }
        let of_size = need as usize / self.segment_bytes();
        let clean = |shard: &Shard, way| shard.lock(&self.shared).clean_one_now(way, now_ms);
        // A compaction frees a small part of a segment.
        let most_compacted = MAX_CLEANED + 16 * of_size;
        if effort.compacted < most_compacted && self.live_fits(need) {
            effort.compacted += 1;
            if self.sparsest_first().into_iter().any(|shard| clean(shard, Way::Compact)) {
                return true;
            }
            effort.compacted = most_compacted; // all segments are full
        }
        let most = MAX_CLEANED + 2 * of_size;
        if effort.evicted >= most {
            return false;
        }
        effort.evicted += 1;
        let way = Way::Evict { spares_read: effort.evicted <= most / 4 };
        clean(shard, way) || clean(self.fullest(), way)
    }

    /// Whether `need` more bytes fit without an eviction.
    fn live_fits(&self, need: u64) -> bool {
        let live_words = |counts: &Counts| {
            counts.live_words.load(Ordering::Relaxed).saturating_sub(counts.expired_words.load(Ordering::Relaxed))
        };
        self.sum(live_words) * WORD_BYTES as u64 + self.ledger().fixed() + need <= self.ledger().low()
    }

    /// Bytes of retired segments, which become free as soon as no reader announces them.
    fn retired_bytes(&self) -> u64 {
        self.sum(|counts| counts.retired_bytes.load(Ordering::Relaxed))
    }

    fn sum(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(&shard.counts)).sum()
    }

    /// Yields to the threads that read retired segments, then frees those that no thread reads any more.
    fn let_readers_go_on(&self) {
        crate::sync::yield_now();
        for shard in self.shards.iter().filter(|shard| shard.counts.retired_bytes.load(Ordering::Relaxed) > 0) {
            shard.lock(&self.shared).reclaim();
        }
    }

    /// The shard with the most bytes written.
    fn fullest(&self) -> &Shard {
        let written = |shard: &&Shard| shard.counts.written_words.load(Ordering::Relaxed);
        self.shards.iter().max_by_key(written).expect("there is a shard")
    }

    /// All shards, the one with the most dead bytes first.
    fn sparsest_first(&self) -> Vec<&Shard> {
        let mut shards: Vec<_> = self.shards.iter().map(|shard| (shard.counts.dead_words(), shard)).collect();
        shards.sort_unstable_by_key(|(dead_words, _)| std::cmp::Reverse(*dead_words));
        shards.into_iter().map(|(_, shard)| shard).collect()
    }
}
