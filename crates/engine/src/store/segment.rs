//! A segment: a fixed run of memory that is filled once, read, then freed whole; and the pool of free segments.
//!
//! ```text
//!  pool ──take──► open ──seal──► sealed ──emptied──► retired ──last reader left──► pool (hot) ──cool──► pages returned
//! ```
//! S1. Bytes below `tail` are an unbroken run of items; only the shard's writer appends, and only to an open segment.
//! S2. A segment is retired when no slot of its shard's index names it, and its number returns to the pool only when no
//!     reader announces it.
//! S3. Every page of a segment is reserved in the ledger before it is touched.
//!
//! An item too large for a segment gets a segment of its own, made of consecutive segment numbers. The unused rest of
//! the last one costs only address space, because untouched pages are not resident.

use super::arena::{Arena, WORD_BYTES, page_bytes};
use super::expiry::Expiry;
use super::item::Facts;
use super::ledger::{Account, Bound, Ledger};
use super::log::Log;
use super::slot::OFFSET_BITS;
use crate::sync::{Mutex, lock};
use std::collections::BTreeMap;

/// The largest segment, in bytes: the range of an offset.
pub(super) const MAX_BYTES: usize = 2 << 20;
const _: () = assert!(MAX_BYTES == WORD_BYTES << OFFSET_BITS);
const MIN_BYTES: usize = 64 << 10;

/// The size of a segment in a shard of this capacity, both in bytes: 1/128 of the capacity, within bounds.
pub(super) fn bytes_for(shard_bytes: u64) -> usize {
    ((shard_bytes / 128).max(1).next_power_of_two() as usize).clamp(MIN_BYTES, MAX_BYTES)
}

/// A run of segment numbers and their memory, as allocated by the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first segment number.
    pub id: u32,
    /// Number of consecutive segment numbers.
    pub units: u32,
    /// Bytes from its beginning that are resident and reserved in the ledger.
    pub resident_bytes: u64,
}

/// The state of a segment, kept by the writer of its shard.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its memory.
    pub extent: Extent,
    /// The log it belongs to.
    pub log: Log,
    /// Position in the queue of eviction, larger for newer segments; compacted items keep the age of their old segment.
    pub age: u64,
    /// Its sequence number among all segments opened in its shard.
    pub(super) opened: u64,
    /// Words written.
    pub tail_words: usize,
    /// Words of live items.
    pub live_words: usize,
    /// Number of live items.
    pub live_items: usize,
    /// No more items are appended.
    pub sealed: bool,
    /// Number of batches being copied into it (B2 in [`super::relocate`]).
    pub(super) pins: u32,
    /// When its items expire.
    pub(super) expiry: Expiry,
    /// `tail_words` at the last visit of the cleaner.
    pub(super) tail_words_seen: usize,
    /// Next time, in ms, to scan this segment for expired items; `u64::MAX` for never.
    pub(super) due_ms: u64,
}

/// Items that were moved from one segment to another.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub items: usize,
    pub words: usize,
    /// Words, deadline and octave of each item with a deadline.
    ttls: Vec<(usize, u64, u8)>,
}

impl Moved {
    /// Adds an item.
    pub(super) fn add(&mut self, words: usize, facts: &Facts) {
        self.items += 1;
        self.words += words;
        self.ttls.extend(facts.ttl().map(|(deadline_ms, octave)| (words, deadline_ms, octave)));
    }
}

impl Segment {
    /// A new, open segment.
    pub(super) fn open(extent: Extent, log: Log, age: u64, opened: u64) -> Self {
        Self {
            extent,
            log,
            age,
            opened,
            tail_words: 0,
            live_words: 0,
            live_items: 0,
            sealed: false,
            pins: 0,
            expiry: Expiry::default(),
            tail_words_seen: 0,
            due_ms: u64::MAX,
        }
    }

    /// Words of live items that have not expired, in percent of the words written.
    pub(super) fn occupancy_percent(&self, now_ms: u64) -> usize {
        let lasting = self.live_words.saturating_sub(self.expiry.expired_words(now_ms));
        (lasting * 100).checked_div(self.tail_words).unwrap_or(0)
    }

    /// Counts an item that has become live in this segment.
    pub(super) fn admit(&mut self, words: usize, facts: &Facts) {
        self.live_words += words;
        self.live_items += 1;
        if let Some((deadline_ms, octave)) = facts.ttl() {
            self.change_expiry(|expiry| expiry.add(words, deadline_ms, octave));
        }
    }

    /// Counts an item that is no longer live in this segment.
    pub(super) fn dismiss(&mut self, words: usize, facts: &Facts) {
        self.live_words -= words;
        self.live_items -= 1;
        if let Some((_, octave)) = facts.ttl() {
            self.change_expiry(|expiry| expiry.remove(words, octave));
        }
    }

    /// Counts items that have become live in this segment.
    pub(super) fn admit_all(&mut self, moved: &Moved) {
        self.live_words += moved.words;
        self.live_items += moved.items;
        if !moved.ttls.is_empty() {
            let add = |expiry: &mut Expiry| {
                moved.ttls.iter().for_each(|(words, deadline_ms, octave)| expiry.add(*words, *deadline_ms, *octave));
            };
            self.change_expiry(add);
        }
    }

    /// Counts items that are no longer live in this segment.
    pub(super) fn dismiss_all(&mut self, moved: &Moved) {
        self.live_words -= moved.words;
        self.live_items -= moved.items;
        if !moved.ttls.is_empty() {
            let remove = |expiry: &mut Expiry| {
                moved.ttls.iter().for_each(|(words, _, octave)| expiry.remove(*words, *octave));
            };
            self.change_expiry(remove);
        }
    }

    /// Changes the summary of its deadlines, and `due_ms` with it.
    pub(super) fn change_expiry(&mut self, change: impl FnOnce(&mut Expiry)) {
        change(&mut self.expiry);
        self.due_ms = self.expiry.due_ms();
    }
}

/// The free segments and their address space.
#[derive(Debug)]
pub(super) struct Pool {
    /// The first word of segment number 0 in the arena. Number 0 is never allocated.
    base: usize,
    segment_bytes: usize,
    /// Number of segment numbers.
    count: u32,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// Resident and reserved extents: used first, or cooled.
    hot: Vec<Extent>,
    /// Runs of numbers without a resident page, by first number, with their length.
    cold: BTreeMap<u32, u32>,
}

impl Free {
    /// Adds a run without a resident page, and merges it with its neighbours.
    fn join(&mut self, extent: Extent) {
        let (mut id, mut units) = (extent.id, extent.units);
        if let Some(next) = self.cold.remove(&(id + units)) {
            units += next;
        }
        if let Some((&before, &len)) = self.cold.range(..id).next_back().filter(|(first, len)| *first + *len == id) {
            self.cold.remove(&before);
            (id, units) = (before, len + units);
        }
        self.cold.insert(id, units);
    }
}

impl Pool {
    /// A pool of `count` segments of `segment_bytes`, from the word `base` of the arena on.
    pub(super) fn new(base: usize, segment_bytes: usize, count: u32) -> Self {
        let free = Free { hot: Vec::new(), cold: BTreeMap::from([(1, count - 1)]) };
        Self { base, segment_bytes, count, free: Mutex::new(free) }
    }

    /// The size of a segment in bytes.
    pub(super) fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// Whether an item of `words` gets a segment of its own. Because of this bound, a shared segment that is sealed for
    /// lack of room wastes less than a quarter.
    pub(super) fn is_alone(&self, words: usize) -> bool {
        words > self.most_shared_words()
    }

    /// Maximum words of one append to a shared segment.
    pub(super) fn most_shared_words(&self) -> usize {
        self.segment_bytes / 4 / WORD_BYTES
    }

    /// The words of an extent.
    pub(super) fn words(&self, extent: Extent) -> std::ops::Range<usize> {
        let unit = self.segment_bytes / WORD_BYTES;
        let first = self.base + extent.id as usize * unit;
        first..first + extent.units as usize * unit
    }

    /// The first word of a segment in the arena.
    pub(super) fn first_word(&self, id: u32) -> usize {
        debug_assert!(id < self.count);
        self.base + id as usize * (self.segment_bytes / WORD_BYTES)
    }

    /// Allocates `units` consecutive numbers, a hot extent first. `None` if the address space is exhausted.
    pub(super) fn take(&self, units: u32) -> Option<Extent> {
        let mut free = lock(&self.free);
        if let Some(at) = free.hot.iter().rposition(|extent| extent.units == units) {
            return Some(free.hot.swap_remove(at));
        }
        let (&id, &len) = free.cold.iter().find(|(_, len)| **len >= units)?;
        free.cold.remove(&id);
        if len > units {
            free.cold.insert(id + units, len - units);
        }
        Some(Extent { id, units, resident_bytes: 0 })
    }

    /// Returns an extent that no reader announces (S2) to the pool, with its pages as they are.
    pub(super) fn put_back(&self, extent: Extent) {
        let mut free = lock(&self.free);
        match extent.resident_bytes {
            0 => free.join(extent),
            _ => free.hot.push(extent),
        }
    }

    /// Returns up to `most_bytes` (whole pages) of one hot extent to the kernel, if there are more than `keep`. Returns
    /// the number of bytes.
    pub(super) fn cool(&self, arena: &Arena, ledger: &Ledger, keep: usize, most_bytes: u64) -> Option<u64> {
        let mut extent = {
            let mut free = lock(&self.free);
            if free.hot.len() <= keep {
                return None;
            }
            free.hot.pop()?
        };
        let piece = extent.resident_bytes.min(most_bytes);
        extent.resident_bytes -= piece;
        let first = self.words(extent).start + extent.resident_bytes as usize / WORD_BYTES;
        arena.release(first..first + piece as usize / WORD_BYTES);
        ledger.release(Account::Segments, piece);
        self.put_back(extent);
        Some(piece)
    }

    /// Whether this number is in the pool.
    #[cfg(shuttle)]
    pub(super) fn is_free(&self, id: u32) -> bool {
        let free = lock(&self.free);
        let has = |first: u32, units: u32| (first..first + units).contains(&id);
        free.hot.iter().any(|extent| has(extent.id, extent.units)) || free.cold.iter().any(|(id, len)| has(*id, *len))
    }

    /// Resident bytes of free segments.
    #[cfg(all(test, not(loom), not(shuttle)))]
    pub(super) fn hot_bytes(&self) -> u64 {
        lock(&self.free).hot.iter().map(|extent| extent.resident_bytes).sum()
    }
}

/// Reserves the first `words` of an extent of `whole_bytes` (S3) within `bound`, in steps of `step_bytes` (whole pages).
/// `false` if refused.
#[must_use]
pub(super) fn reserve_up_to(
    extent: &mut Extent,
    words: usize,
    whole_bytes: usize,
    step_bytes: usize,
    ledger: &Ledger,
    bound: Bound,
) -> bool {
    debug_assert!(step_bytes.is_multiple_of(page_bytes()));
    let need = (words * WORD_BYTES) as u64;
    if need <= extent.resident_bytes {
        return true;
    }
    let up_to = need.next_multiple_of(step_bytes as u64).min(whole_bytes as u64);
    let more = up_to - extent.resident_bytes;
    if !ledger.reserve_within(Account::Segments, more, bound) {
        return false;
    }
    extent.resident_bytes = up_to;
    true
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reused_and_free_neighbours_are_merged() {
        let arena = Arena::reserve(64 * page_bytes()).unwrap();
        let ledger = Ledger::new(u64::MAX);
        let pool = Pool::new(0, page_bytes(), 64);
        let mut extents: Vec<_> = (0..3).map(|_| pool.take(1).unwrap()).collect();
        extents.push(pool.take(60).unwrap());
        assert_eq!(pool.take(1), None, "all 63 numbers are allocated");
        for extent in &mut extents {
            assert!(reserve_up_to(extent, 1, page_bytes(), page_bytes(), &ledger, Bound::Capacity));
        }
        for extent in extents {
            pool.put_back(extent);
        }
        assert!(pool.hot_bytes() > 0);
        while pool.cool(&arena, &ledger, 0, page_bytes() as u64).is_some() {}
        assert_eq!((ledger.total(), pool.hot_bytes()), (0, 0));
        assert_eq!(pool.take(63).map(|extent| extent.id), Some(1), "the cold runs are merged into one");
    }

    #[test]
    fn reserves_in_steps_up_to_the_end_of_the_segment() {
        let ledger = Ledger::new(8 * page_bytes() as u64);
        let mut extent = Extent { id: 1, units: 1, resident_bytes: 0 };
        assert!(reserve_up_to(&mut extent, 1, 6 * page_bytes(), 4 * page_bytes(), &ledger, Bound::Capacity));
        assert_eq!(extent.resident_bytes, 4 * page_bytes() as u64);
        assert!(reserve_up_to(
            &mut extent,
            5 * page_bytes() / WORD_BYTES,
            6 * page_bytes(),
            4 * page_bytes(),
            &ledger,
            Bound::Capacity
        ));
        assert_eq!(ledger.total(), 6 * page_bytes() as u64);
        let mut next = Extent { id: 2, units: 1, resident_bytes: 0 };
        assert!(!reserve_up_to(&mut next, 1, 6 * page_bytes(), 4 * page_bytes(), &ledger, Bound::Capacity));
        assert_eq!(next.resident_bytes, 0);
    }
}
