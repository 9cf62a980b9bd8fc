//! Appending items to segments, and making room for them.

use super::arena::{WORD_BYTES, page_bytes};
use super::counts::{add, sub};
use super::job::Tally;
use super::ledger::Bound;
use super::log::Tail;
use super::policy::{self, Purpose};
use super::segment::{Segment, reserve_up_to};
use super::shard::Locked;
use super::slot::Location;
use super::types::Error;

/// How a shard makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Moves live items together and drops none.
    Compact,
    /// Drops items. With `spares_read`, frequently read items stay.
    Evict { spares_read: bool },
}

/// A write compacts only segments with fewer live bytes, in percent.
const FULL_PERCENT: usize = 95;
/// A segment with fewer live bytes is compacted instead of evicted from, in percent: copying little frees much.
const CHEAP_PERCENT: usize = 50;

/// A table of up to this many segments is not worth shrinking.
const FEW_SEGMENTS: usize = 8;

impl Locked<'_> {
    /// Appends room for an item of `words`, or refuses. It cleans nothing: [`super::Store`] does, because it sees all
    /// shards.
    pub(super) fn append_or_refuse(&mut self, tail: Tail, words: usize) -> Result<Location, Error> {
        loop {
            if let Some(location) = self.append(tail, words, self.bound) {
                return Ok(location);
            }
            // First return free memory of other segment sizes or shards to the kernel, which costs no live item.
            self.reclaim();
            if self.shared.cool(0, u64::MAX).is_none() && !self.clean_bank(u64::MAX) {
                return Err(self.no_room((words * WORD_BYTES) as u64));
            }
        }
    }

    pub(super) fn no_room(&self, need: u64) -> Error {
        let ledger = &self.shared.ledger;
        Error::NoSpace { need, used: ledger.total(), capacity: ledger.capacity() }
    }

    /// Retires dead segments; if there are none, cleans one segment from beginning to end. `false` if there is nothing
    /// to clean.
    pub(super) fn clean_one_now(&mut self, way: Way, now_ms: u64) -> bool {
        let mut tally = Tally::default();
        if self.writer.job.is_none() {
            if self.retire_dead(true, &mut tally) {
                return true;
            }
            let Some((id, purpose)) = self.choose_victim(way, now_ms) else { return false };
            self.begin_job(id, purpose);
        }
        self.work(now_ms, &mut tally, &mut || false);
        self.reclaim();
        true
    }

    /// Chooses dead and expired bytes before live items.
    fn choose_victim(&mut self, way: Way, now_ms: u64) -> Option<(u32, Purpose)> {
        let segments = self.writer.segments.values();
        let below_percent = if way == Way::Compact { FULL_PERCENT } else { CHEAP_PERCENT };
        let compaction =
            || policy::compaction_victim(segments.clone(), below_percent, now_ms).map(|id| (id, Purpose::Compact));
        let eviction = |purpose| policy::eviction_victim(segments.clone(), self.writer.nursery).map(|id| (id, purpose));
        let victim = compaction().or_else(|| match way {
            Way::Compact => None,
            Way::Evict { spares_read: true } => eviction(Purpose::Evict),
            Way::Evict { spares_read: false } => eviction(Purpose::Discard),
        });
        // All items may be in open segments: seal them and choose again.
        match victim {
            None if self.is_worth_sealing(way, now_ms) && self.seal_all() => self.choose_victim(way, now_ms),
            victim => victim,
        }
    }

    fn is_worth_sealing(&self, way: Way, now_ms: u64) -> bool {
        way != Way::Compact || self.has_sparse_open_segment(FULL_PERCENT, u64::MAX, now_ms)
    }

    /// Seals the open segments. Returns whether there was one.
    pub(super) fn seal_all(&mut self) -> bool {
        let open = std::mem::take(&mut self.writer.open);
        let sealed = open.into_iter().flatten().filter(|id| self.seal(*id));
        sealed.count() > 0
    }

    /// Ends appending to a segment, and returns the pages behind its tail, left from its last use, to the kernel.
    fn seal(&mut self, id: u32) -> bool {
        let worth_bytes = (self.shared.pool.segment_bytes() / 16).clamp(page_bytes(), 4 * page_bytes());
        let (shared, writer) = (self.shared, &mut *self.writer);
        writer.segments.get_mut(&id).is_some_and(|segment| {
            segment.sealed = true;
            if segment.extent.resident_bytes as usize >= segment.tail_words * WORD_BYTES + worth_bytes {
                shared.trim(&mut segment.extent, segment.tail_words);
            }
            true
        })
    }

    /// Appends room for an item of `words` without cleaning anything; `None` if there is none within
    /// `bound`.
    pub(super) fn append(&mut self, tail: Tail, words: usize, bound: Bound) -> Option<Location> {
        if self.shared.pool.is_alone(words) {
            return self.append_alone(tail, words, bound);
        }
        let number = tail.number();
        if let Some(id) = self.writer.open[number]
            && self.room_words(&self.writer.segments[&id]) < words
        {
            self.seal(id);
            self.writer.open[number] = None;
        }
        let id = match self.writer.open[number] {
            Some(id) => id,
            None => {
                let units = self.shared.segment_units();
                let id = self.open_segment(tail, units, bound).or_else(|| self.open_segment(tail, 1, bound))?;
                self.writer.open[number] = Some(id);
                id
            }
        };
        let location = self.extend(id, words, bound);
        if location.is_none() && self.writer.segments[&id].tail_words == 0 {
            self.writer.open[number] = None;
            self.give_back_unused(id);
        }
        location
    }

    /// Unused words of a segment.
    fn room_words(&self, segment: &Segment) -> usize {
        self.shared.pool.words(segment.extent).len() - segment.tail_words
    }

    /// Maximum words of one batch: the rest of the open segment if the first item, of `first_words`, fits there.
    pub(super) fn room_for_many(&self, tail: Tail, first_words: usize) -> usize {
        let most = self.shared.pool.most_shared_words();
        let left = self.writer.open[tail.number()].map_or(0, |id| self.room_words(&self.writer.segments[&id]));
        if left < first_words { most } else { left.min(most) }
    }

    /// Appends an item that gets a segment of its own.
    fn append_alone(&mut self, tail: Tail, words: usize, bound: Bound) -> Option<Location> {
        let units = (words * WORD_BYTES).div_ceil(self.shared.pool.segment_bytes()) as u32;
        let id = self.open_segment(tail, units, bound)?;
        let location = self.extend(id, words, bound);
        match location {
            Some(_) => drop(self.seal(id)),
            None => self.give_back_unused(id),
        }
        location
    }

    fn open_segment(&mut self, tail: Tail, units: u32, bound: Bound) -> Option<u32> {
        // Beyond the bound nothing is granted (L1), not even memory that is already resident.
        if !self.shared.ledger.has_room_within(0, bound) {
            return None;
        }
        let extent = self.shared.pool.take(units)?;
        self.writer.next_age += 1;
        self.writer.opened += 1;
        let segment = Segment::open(extent, tail.log, self.writer.next_age, self.writer.opened);
        self.writer.segments.insert(extent.id, segment);
        Some(extent.id)
    }

    /// A shard with many segments reserves a new one whole, so that a freed segment can be reused unchanged. A shard
    /// with few segments reserves page by page, so that it reserves only resident memory.
    fn reservation_step(&self, alone: bool, whole: usize) -> usize {
        const MANY: usize = 16;
        match self.writer.segments.len() {
            _ if alone => page_bytes(),
            MANY.. => whole,
            _ => (4 * page_bytes()).min(whole),
        }
    }

    fn extend(&mut self, id: u32, words: usize, bound: Bound) -> Option<Location> {
        let whole = self.shared.pool.words(self.writer.segments[&id].extent).len() * WORD_BYTES;
        let step = self.reservation_step(self.shared.pool.is_alone(words), whole);
        let segment = self.writer.segments.get_mut(&id).expect("an open segment is known");
        let (at, end) = (segment.tail_words, segment.tail_words + words);
        if !reserve_up_to(&mut segment.extent, end, whole, step, &self.shared.ledger, bound) {
            return None;
        }
        segment.tail_words = end;
        add(&self.shard.counts.written_words, words);
        Some(Location::new(id, at as u32))
    }

    /// Returns a segment without items to the pool at once: no slot ever named it.
    fn give_back_unused(&mut self, id: u32) {
        let segment = self.writer.segments.remove(&id).expect("it was just opened");
        debug_assert_eq!(segment.tail_words, 0);
        self.shared.pool.put_back(segment.extent);
    }

    /// Removes segments without a live item from the shard, and retires them (see `shard`, M2).
    pub(super) fn retire_segments(&mut self, ids: &[u32], tally: &mut Tally) {
        let mut extents = Vec::with_capacity(ids.len());
        for id in ids {
            let segment = self.writer.segments.remove(id).expect("a segment is retired once");
            assert_eq!((segment.live_items, segment.live_words), (0, 0), "an emptied segment holds nothing live");
            assert_eq!(segment.pins, 0, "no batch is being copied into it (B2)");
            self.writer.open.iter_mut().filter(|open| **open == Some(*id)).for_each(|open| *open = None);
            sub(&self.shard.counts.written_words, segment.tail_words);
            tally.freed_segments += u64::from(segment.extent.units);
            extents.push(segment.extent);
        }
        let segments = &mut self.writer.segments;
        if segments.capacity() > FEW_SEGMENTS && segments.len() < segments.capacity() / 4 {
            segments.shrink_to(segments.len() * 2); // a full shard's table is larger than all else of an empty shard
        }
        self.retire(extents);
    }
}
