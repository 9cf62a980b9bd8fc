//! A segment: a fixed run of memory that is filled once, read, then given back whole; and the pool they come from.
//!
//! ```text
//!  pool ──take──► open ──seal──► sealed ──emptied──► retired ──last reader left──► pool (hot) ──cool──► pages returned
//! ```
//! S1. Bytes below `tail` are an unbroken run of items; only the shard's writer appends, and only to an open segment.
//! S2. A segment is retired when no slot of its shard's index names it, and its number returns to the pool only when no
//!     reader announces it.
//! S3. What a segment has made resident is reserved in the ledger, page by page, before it is touched.
//!
//! An item too large for a segment has a segment of its own, made of as many numbers in a row as it needs: only address
//! space is spent on the last of them, for pages that are not touched are not resident.

use super::arena::{Arena, WORD_BYTES, page_bytes};
use super::expiry::Expiry;
use super::item::Facts;
use super::ledger::{Account, Ledger};
use super::log::Log;
use super::slot::OFFSET_BITS;
use crate::sync::{Mutex, lock};
use std::collections::BTreeMap;

/// The largest segment, in bytes: as far as an offset reaches.
pub(super) const MAX_BYTES: usize = 2 << 20;
const _: () = assert!(MAX_BYTES == WORD_BYTES << OFFSET_BITS);
const MIN_BYTES: usize = 64 << 10;

/// How large a segment is, in bytes, in a shard of this capacity, in bytes: 1/128 of it.
pub(super) fn bytes_for(shard_bytes: u64) -> usize {
    ((shard_bytes / 128).max(1).next_power_of_two() as usize).clamp(MIN_BYTES, MAX_BYTES)
}

/// A run of numbers with the memory behind them, as the pool gives it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first number.
    pub id: u32,
    /// How many.
    pub units: u32,
    /// What of it is resident and reserved in the ledger, from its beginning, in bytes.
    pub resident_bytes: u64,
}

/// What the writer of a shard knows of a segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its memory.
    pub extent: Extent,
    /// Which log it belongs to.
    pub log: Log,
    /// Grows with time; survivors keep the age of where they come from.
    pub age: u64,
    /// Its number among all that were ever opened in its shard.
    pub(super) opened: u64,
    /// Words written.
    pub tail_words: usize,
    /// Words of items that the index still names.
    pub live_words: usize,
    /// How many those are.
    pub live_items: usize,
    /// No more is appended.
    pub sealed: bool,
    /// How many batches are being copied into it (B2 in [`super::relocate`]).
    pub(super) pins: u32,
    /// When its items expire.
    pub(super) expiry: Expiry,
    /// What `tail_words` was when the cleaner last passed by.
    pub(super) tail_words_seen: usize,
    /// When it is looked through for expired items; `u64::MAX` for never.
    pub(super) due_ms: u64,
}

/// Items that were moved from one segment to another.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub items: usize,
    pub words: usize,
    /// Of those with a deadline: words, deadline and octave.
    ttls: Vec<(usize, u64, u8)>,
}

impl Moved {
    /// One more.
    pub(super) fn add(&mut self, words: usize, facts: &Facts) {
        self.items += 1;
        self.words += words;
        self.ttls.extend(facts.ttl().map(|(deadline_ms, octave)| (words, deadline_ms, octave)));
    }
}

impl Segment {
    /// A new one, open.
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

    /// Words of live items that have not expired, in a hundred written ones.
    pub(super) fn occupancy_percent(&self, now_ms: u64) -> usize {
        let lasting = self.live_words.saturating_sub(self.expiry.expired_words(now_ms));
        (lasting * 100).checked_div(self.tail_words).unwrap_or(0)
    }

    /// An item has become live here.
    pub(super) fn admit(&mut self, words: usize, facts: &Facts) {
        self.live_words += words;
        self.live_items += 1;
        if let Some((deadline_ms, octave)) = facts.ttl() {
            self.change_expiry(|expiry| expiry.add(words, deadline_ms, octave));
        }
    }

    /// One is live here no more.
    pub(super) fn dismiss(&mut self, words: usize, facts: &Facts) {
        self.live_words -= words;
        self.live_items -= 1;
        if let Some((_, octave)) = facts.ttl() {
            self.change_expiry(|expiry| expiry.remove(words, octave));
        }
    }

    /// Items have become live here.
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

    /// They are live here no more.
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

    /// Changes what is known of its deadlines.
    pub(super) fn change_expiry(&mut self, change: impl FnOnce(&mut Expiry)) {
        change(&mut self.expiry);
        self.due_ms = self.expiry.due_ms();
    }
}

/// The segments nobody uses, and the address space they lie in.
#[derive(Debug)]
pub(super) struct Pool {
    /// The first word of segment number 0 in the arena. Number 0 is never given out.
    base: usize,
    segment_bytes: usize,
    /// Numbers there are.
    count: u32,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// Resident and reserved; to be used first or to be cooled.
    hot: Vec<Extent>,
    /// Runs of numbers without a resident page: first number to length.
    cold: BTreeMap<u32, u32>,
}

impl Free {
    /// Takes back a run without a resident page, and joins it with its neighbours.
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
    /// `count` segments of `segment_bytes` from the word `base` of the arena on.
    pub(super) fn new(base: usize, segment_bytes: usize, count: u32) -> Self {
        let free = Free { hot: Vec::new(), cold: BTreeMap::from([(1, count - 1)]) };
        Self { base, segment_bytes, count, free: Mutex::new(free) }
    }

    /// The size of a segment in bytes.
    pub(super) fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// Whether an item of that many words has its pages to itself: what is left over of a segment because the next item
    /// does not fit is then less than a quarter.
    pub(super) fn is_alone(&self, words: usize) -> bool {
        words > self.most_shared_words()
    }

    /// The most words that are appended at once to a segment that others share.
    pub(super) fn most_shared_words(&self) -> usize {
        self.segment_bytes / 4 / WORD_BYTES
    }

    /// The words of an extent.
    pub(super) fn words(&self, extent: Extent) -> std::ops::Range<usize> {
        let unit = self.segment_bytes / WORD_BYTES;
        let first = self.base + extent.id as usize * unit;
        first..first + extent.units as usize * unit
    }

    /// The first word of a location's segment.
    pub(super) fn first_word(&self, id: u32) -> usize {
        debug_assert!(id < self.count);
        self.base + id as usize * (self.segment_bytes / WORD_BYTES)
    }

    /// `units` numbers in a row: a hot one first. `None` when the address space is used up.
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

    /// Takes back what nobody reads any more (S2), with its pages as they are.
    pub(super) fn put_back(&self, extent: Extent) {
        let mut free = lock(&self.free);
        match extent.resident_bytes {
            0 => free.join(extent),
            _ => free.hot.push(extent),
        }
    }

    /// Gives up to `most_bytes` (whole pages) of one hot extent back to the operating system, if there are more than
    /// `keep`; returns the bytes given back.
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

    /// Whether nobody has this number.
    #[cfg(shuttle)]
    pub(super) fn is_free(&self, id: u32) -> bool {
        let free = lock(&self.free);
        let has = |first: u32, units: u32| (first..first + units).contains(&id);
        free.hot.iter().any(|extent| has(extent.id, extent.units)) || free.cold.iter().any(|(id, len)| has(*id, *len))
    }

    /// Resident bytes that wait for reuse.
    #[cfg(all(test, not(loom), not(shuttle)))]
    pub(super) fn hot_bytes(&self) -> u64 {
        lock(&self.free).hot.iter().map(|extent| extent.resident_bytes).sum()
    }
}

/// Makes sure that the first `words` of an extent of `whole_bytes` are reserved (S3), `step_bytes` (whole pages) at a time.
/// `force` reserves whatever the capacity: for the cleaner, who frees more than that in the end.
#[must_use]
pub(super) fn reserve_up_to(
    extent: &mut Extent,
    words: usize,
    whole_bytes: usize,
    step_bytes: usize,
    ledger: &Ledger,
    force: bool,
) -> bool {
    debug_assert!(step_bytes.is_multiple_of(page_bytes()));
    let need = (words * WORD_BYTES) as u64;
    if need <= extent.resident_bytes {
        return true;
    }
    let up_to = need.next_multiple_of(step_bytes as u64).min(whole_bytes as u64);
    let more = up_to - extent.resident_bytes;
    if force {
        ledger.force(Account::Segments, more);
    } else if !ledger.reserve(Account::Segments, more) {
        return false;
    }
    extent.resident_bytes = up_to;
    true
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_neighbours_grow_together() {
        let arena = Arena::reserve(64 * page_bytes()).unwrap();
        let ledger = Ledger::new(u64::MAX);
        let pool = Pool::new(0, page_bytes(), 64);
        let mut extents: Vec<_> = (0..3).map(|_| pool.take(1).unwrap()).collect();
        extents.push(pool.take(60).unwrap());
        assert_eq!(pool.take(1), None, "all 63 numbers are out");
        for extent in &mut extents {
            assert!(reserve_up_to(extent, 1, page_bytes(), page_bytes(), &ledger, false));
        }
        for extent in extents {
            pool.put_back(extent);
        }
        assert!(pool.hot_bytes() > 0);
        while pool.cool(&arena, &ledger, 0, page_bytes() as u64).is_some() {}
        assert_eq!((ledger.total(), pool.hot_bytes()), (0, 0));
        assert_eq!(pool.take(63).map(|extent| extent.id), Some(1), "one run again");
    }

    #[test]
    fn pages_are_reserved_before_they_are_touched_and_never_beyond_the_segment() {
        let ledger = Ledger::new(8 * page_bytes() as u64);
        let mut extent = Extent { id: 1, units: 1, resident_bytes: 0 };
        assert!(reserve_up_to(&mut extent, 1, 6 * page_bytes(), 4 * page_bytes(), &ledger, false));
        assert_eq!(extent.resident_bytes, 4 * page_bytes() as u64);
        assert!(reserve_up_to(
            &mut extent,
            5 * page_bytes() / WORD_BYTES,
            6 * page_bytes(),
            4 * page_bytes(),
            &ledger,
            false
        ));
        assert_eq!(ledger.total(), 6 * page_bytes() as u64);
        let mut next = Extent { id: 2, units: 1, resident_bytes: 0 };
        assert!(!reserve_up_to(&mut next, 1, 6 * page_bytes(), 4 * page_bytes(), &ledger, false));
        assert_eq!(next.resident_bytes, 0);
    }
}
