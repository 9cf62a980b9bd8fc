//! The index of a shard: slots of eight bytes, in buckets of one cache line.
//!
//! The slot of a key is in one of two buckets: the home, given by the high bits of the key's [`Place`], or the other
//! one, given by home and tag. Each of the two buckets, with the tag, determines the other one and the whole `Place`,
//! for any number of buckets from [`MIN_BUCKETS`] on. So a slot can move to its other bucket (cuckoo hashing: Pagh and
//! Rodler 2001; partial keys: Fan et al., MemC3, 2013), and an index can migrate to any other size, without reading a
//! key. With two buckets of eight, nine tenths of the slots fill before an insertion finds no free slot.
//!
//! Readers search both buckets without a lock. A writer replaces a slot in place, so a reader sees the old item or the
//! new one. Only a move between the buckets can hide an item from a reader; [`super::shard`] counts these moves.

use super::arena::{Arena, WORD_BYTES, page_bytes};
use super::slot::{Location, Place, Slot, TAG_BITS};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Fault, planted};

/// Slots of a bucket: one cache line.
pub(super) const BUCKET_SLOTS: usize = 8;
/// Bytes of a bucket.
pub(super) const BUCKET_BYTES: u64 = (BUCKET_SLOTS * WORD_BYTES) as u64;

/// Minimum buckets of an index. With fewer, bucket and tag would not determine the `Place` of a key.
pub(super) const MIN_BUCKETS: u32 = 1 << (Place::BITS - TAG_BITS);

/// Maximum buckets of an index. With more, some would be the home of no `Place`.
pub(super) const MAX_BUCKETS: u32 = 1 << Place::BITS;

/// The number of a slot in the index: bucket times [`BUCKET_SLOTS`] plus the slot within the bucket.
pub(super) type Position = usize;

/// An index: a range of the arena, divided into buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// The first word in the arena.
    pub base: usize,
    /// Number of buckets.
    pub buckets: u32,
}

impl Index {
    /// Prefetches the home bucket of a key.
    pub(super) fn prefetch(self, arena: &Arena, place: Place) {
        arena.prefetch(self.base + self.home(place) as usize * BUCKET_SLOTS);
    }

    /// Prefetches both buckets of a key.
    pub(super) fn prefetch_both(self, arena: &Arena, place: Place) {
        let home = self.home(place);
        for bucket in [home, self.other(home, place.tag())] {
            arena.prefetch(self.base + bucket as usize * BUCKET_SLOTS);
        }
    }

    /// Size, in bytes.
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.buckets) * BUCKET_BYTES
    }

    /// Resident size, in bytes: whole pages.
    pub(super) fn resident_bytes(self) -> u64 {
        self.bytes().next_multiple_of(page_bytes() as u64)
    }

    /// Number of slots.
    pub(super) fn slots(self) -> u64 {
        u64::from(self.buckets) * BUCKET_SLOTS as u64
    }

    fn home(self, place: Place) -> u32 {
        ((u64::from(place.0) * u64::from(self.buckets)) >> Place::BITS) as u32
    }

    /// The other bucket of a key that has `bucket` as one of its two. Applying it twice returns `bucket`.
    fn other(self, bucket: u32, tag: u32) -> u32 {
        let spread = (u64::from(tag.wrapping_mul(0x9e37_79b1)) * u64::from(self.buckets)) >> 32;
        ((spread + u64::from(self.buckets) - u64::from(bucket)) % u64::from(self.buckets)) as u32
    }

    /// The `Place` of the key whose slot is in `bucket`.
    pub(super) fn place_of(self, bucket: u32, slot: Slot) -> Place {
        let home = if slot.is_other() { self.other(bucket, slot.tag()) } else { bucket };
        // The first `Place` with this home; the tag selects one of the at most 2^TAG_BITS that follow.
        let first = ((u64::from(home) << Place::BITS).div_ceil(u64::from(self.buckets))) as u32;
        let place = Place(first + (slot.tag().wrapping_sub(first) & ((1 << TAG_BITS) - 1)));
        debug_assert_eq!(self.home(place), home);
        place
    }

    /// The slot at a position.
    pub(super) fn slot(self, arena: &Arena, at: Position) -> &AtomicU64 {
        arena.word(self.base + at)
    }

    /// Loads the slot at a position.
    pub(super) fn load(self, arena: &Arena, at: Position) -> Slot {
        // Acquire pairs with the Release in `store`: an item's bytes are written before its location is seen.
        Slot::from_bits(self.slot(arena, at).load(Ordering::Acquire))
    }

    /// Loads the slot again after the announcement of its segment, sequentially consistent with it (R1 in
    /// [`super::readers`]).
    pub(super) fn load_after_announcement(self, arena: &Arena, at: Position) -> Slot {
        Slot::from_bits(self.slot(arena, at).load(Ordering::SeqCst))
    }

    /// Publishes a slot.
    pub(super) fn store(self, arena: &Arena, at: Position, slot: Slot) {
        // Release pairs with the Acquire in `load`.
        let order = if planted(Fault::SlotRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        self.slot(arena, at).store(slot.bits(), order);
    }

    /// Moves the slot at `from` to `to`, a position in its key's other bucket. It stores `to` first, so that the slot
    /// is always in at least one of the two.
    pub(super) fn move_to_other(self, arena: &Arena, from: Position, to: Position) {
        let slot = self.load(arena, from);
        self.store(arena, to, slot.with_other(!slot.is_other()));
        self.store(arena, from, Slot::EMPTY);
    }

    /// The slots that may belong to a key, those of the home bucket first.
    pub(super) fn candidates(self, arena: &Arena, place: Place) -> impl Iterator<Item = (Position, Slot)> {
        let tag = place.tag();
        let home = self.home(place);
        let other = self.other(home, tag);
        let twice = if other == home { 1 } else { 2 };
        [(home, false), (other, true)].into_iter().take(twice).flat_map(move |(bucket, is_other)| {
            let first = bucket as usize * BUCKET_SLOTS;
            let words = arena.words(self.base + first..self.base + first + BUCKET_SLOTS);
            words.iter().enumerate().filter_map(move |(i, word)| {
                // Acquire pairs with the Release in `store`.
                let slot = Slot::from_bits(word.load(Ordering::Acquire));
                (slot.tag() == tag && slot.is_other() == is_other && !slot.is_empty()).then_some((first + i, slot))
            })
        })
    }

    /// Counts a read in a slot, unless the slot has changed or the count is saturated.
    pub(super) fn count_read(self, arena: &Arena, at: Position, slot: Slot) {
        let counted = slot.with_reads(slot.reads() + 1);
        if planted(Fault::CountByStore) {
            self.store(arena, at, counted);
        } else if counted != slot {
            // The exchange covers the whole word, so it leaves a slot alone that a writer has changed meanwhile. No
            // other memory depends on it.
            let word = self.slot(arena, at);
            let _ = word.compare_exchange(slot.bits(), counted.bits(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// A free position for a key, and whether it is in the other bucket: an empty slot, else the oldest ghost (by
    /// `age`), in the home bucket first. `None` if both buckets are full of items.
    pub(super) fn vacancy(self, arena: &Arena, place: Place, age: impl Fn(u16) -> u16) -> Option<(Position, bool)> {
        let home = self.home(place);
        let other = self.other(home, place.tag());
        [(home, false), (other, true)].into_iter().find_map(|(bucket, is_other)| {
            let rank = |at: &Position| match self.load(arena, *at) {
                slot if slot.is_empty() => Some(u32::MAX),
                slot => slot.removal().map(|(_, when)| u32::from(age(when))),
            };
            let free = Self::positions(bucket).filter(|at| rank(at).is_some());
            free.max_by_key(|at| rank(at)).map(|at| (at, is_other))
        })
    }

    /// Moves (from, to) of items to their other buckets that free a position for a key, in the order of execution.
    /// Empty if two moves do not suffice.
    pub(super) fn displacement(self, arena: &Arena, place: Place) -> Vec<(Position, Position)> {
        let home = self.home(place);
        let buckets = [home, self.other(home, place.tag())];
        (0..=1)
            .flat_map(|depth| buckets.map(|bucket| self.moves_out_of(arena, bucket, depth)))
            .find(|m| !m.is_empty())
            .unwrap_or_default()
    }

    /// Moves that free a position of `bucket`, with at most `depth` buckets in between.
    fn moves_out_of(self, arena: &Arena, bucket: u32, depth: usize) -> Vec<(Position, Position)> {
        for from in Self::positions(bucket) {
            let target = self.other(bucket, self.load(arena, from).tag());
            if target == bucket {
                continue;
            }
            if let Some(to) = Self::positions(target).find(|at| self.load(arena, *at).location().is_none()) {
                return vec![(from, to)];
            }
            if depth > 0 {
                let mut moves = self.moves_out_of(arena, target, depth - 1);
                if let Some(&(to, _)) = moves.last() {
                    moves.push((from, to));
                    return moves;
                }
            }
        }
        Vec::new()
    }

    /// The positions of the other bucket of the slot at `at`.
    #[cfg(all(test, shuttle))]
    pub(super) fn other_positions(self, at: Position, slot: Slot) -> std::ops::Range<Position> {
        Self::positions(self.other(Self::bucket(at), slot.tag()))
    }

    fn positions(bucket: u32) -> std::ops::Range<Position> {
        let first = bucket as usize * BUCKET_SLOTS;
        first..first + BUCKET_SLOTS
    }

    /// The position of the least-read item in a key's buckets: the item to drop if no slot can be freed otherwise.
    pub(super) fn coldest(self, arena: &Arena, place: Place) -> Position {
        let home = self.home(place);
        let buckets = [home, self.other(home, place.tag())];
        let all = buckets.into_iter().flat_map(Self::positions);
        all.min_by_key(|at| self.load(arena, *at).reads()).expect("a bucket has slots")
    }

    /// Position and slot of the item at `location`, in the buckets of its key.
    pub(super) fn position_of(self, arena: &Arena, place: Place, location: Location) -> Option<(Position, Slot)> {
        self.candidates(arena, place).find(|(_, slot)| slot.location() == Some(location))
    }

    /// The bucket of a position.
    pub(super) fn bucket(at: Position) -> u32 {
        (at / BUCKET_SLOTS) as u32
    }

    /// All non-empty slots of a range of buckets.
    pub(super) fn occupied(
        self,
        arena: &Arena,
        buckets: std::ops::Range<u32>,
    ) -> impl Iterator<Item = (Position, Slot)> {
        let positions = buckets.start as usize * BUCKET_SLOTS..buckets.end as usize * BUCKET_SLOTS;
        positions.map(move |at| (at, self.load(arena, at))).filter(|(_, slot)| !slot.is_empty())
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;

    fn places(seed: u64) -> impl Iterator<Item = Place> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Place((state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 36) as u32)
        })
    }

    #[test]
    fn bucket_and_slot_determine_the_place_for_any_bucket_count() {
        for buckets in [MIN_BUCKETS, 65, 100, 1000, 4099, 1 << 17] {
            let index = Index { base: 0, buckets };
            for place in places(7).take(10_000).chain([Place(0), Place((1 << Place::BITS) - 1)]) {
                let home = index.home(place);
                let slot = Slot::item(place.tag(), Location::new(1, 0));
                assert_eq!(index.place_of(home, slot), place);
                let other = index.other(home, place.tag());
                assert!(other < buckets);
                assert_eq!(index.place_of(other, slot.with_other(true)), place);
            }
        }
    }

    #[test]
    fn candidates_have_the_tag_and_the_bucket_of_the_key() {
        let index = Index { base: 0, buckets: 1 };
        let arena = Arena::reserve(index.bytes() as usize).unwrap();
        for tag in 0..4 {
            let slot = Slot::item(tag, Location::new(1 + tag, 0)).with_other(tag == 3);
            index.store(&arena, tag as usize, slot);
        }
        let found = |tag| index.candidates(&arena, Place(tag)).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!([0, 1, 2, 4].map(found), [vec![0], vec![1], vec![2], vec![]]);
        assert!(found(3).is_empty(), "with one bucket there is no other bucket");
    }

    #[test]
    fn nine_tenths_of_the_slots_fill_before_an_insertion_fails() {
        let index = Index { base: 0, buckets: 8192 };
        let arena = Arena::reserve(index.bytes() as usize).unwrap();
        let mut filled = 0_u64;
        for place in places(99) {
            if index.vacancy(&arena, place, |_| 0).is_none() {
                for (from, to) in index.displacement(&arena, place) {
                    index.move_to_other(&arena, from, to);
                }
            }
            let Some((at, other)) = index.vacancy(&arena, place, |_| 0) else { break };
            index.store(&arena, at, Slot::item(place.tag(), Location::new(1, 0)).with_other(other));
            filled += 1;
        }
        assert!(filled * 100 >= index.slots() * 92, "{filled} of {}", index.slots());
    }
}
