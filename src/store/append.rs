//! Where items are appended, and how room is made for them.

use super::arena::{PAGE_BYTES, WORD_BYTES};
use super::clean::Tally;
use super::policy::{self, Purpose};
use super::segment::{Segment, Tail, reserve_up_to};
use super::shard::{Locked, add, sub};
use super::slot::Location;
use super::types::Error;

/// Segments a write may clean before it gives up: several are needed when all of them are worth keeping.
const MAX_CLEANED: usize = 64;

/// A table of so many segments is not worth shrinking.
const FEW_SEGMENTS: usize = 8;

impl Locked<'_> {
    /// Room for an item of `words`; evicts and compacts in this shard until there is.
    pub(super) fn make_room_and_append(&mut self, tail: Tail, words: usize, now_ms: u64) -> Result<Location, Error> {
        let mut left = MAX_CLEANED.max(self.writer.segments.len() * 2);
        loop {
            if let Some(location) = self.append(tail, words, false) {
                return Ok(location);
            }
            let (ledger, need) = (&self.ground.ledger, (words * WORD_BYTES) as u64);
            let no_room = Error::NoSpace { need, used: ledger.total(), capacity: ledger.capacity() };
            if left == 0 || !ledger.could_hold(need) {
                return Err(no_room);
            }
            left -= 1;
            // Memory that waits for reuse in another shape or shard goes back first: it costs nobody anything.
            self.reclaim();
            if self.ground.cool(0, u64::MAX).is_some() {
                continue;
            }
            let is_on_its_way = self.waits_for_readers && self.retired_bytes() >= need;
            if is_on_its_way || !self.clean_one_now(now_ms) {
                return Err(no_room);
            }
        }
    }

    /// Cleans one segment from beginning to end; `false` when there is none to clean.
    pub(super) fn clean_one_now(&mut self, now_ms: u64) -> bool {
        let mut tally = Tally::default();
        if self.writer.job.is_none() && !self.choose_victim() {
            return false;
        }
        self.work(now_ms, &mut tally, &mut || false);
        self.reclaim();
        true
    }

    /// Compacts when that frees much for little, else evicts: what is dead goes before what is live.
    fn choose_victim(&mut self) -> bool {
        const CHEAP_PERCENT: usize = 50;
        let segments = self.writer.segments.values();
        let cheap = policy::compaction_victim(segments.clone(), CHEAP_PERCENT).map(|id| (id, Purpose::Compact));
        let victim =
            cheap.or_else(|| policy::eviction_victim(segments, self.writer.nursery).map(|id| (id, Purpose::Evict)));
        match victim {
            Some((id, purpose)) => self.begin_job(id, purpose),
            // Everything there is, is in open segments: seal them and look again.
            None if self.seal_all() => return self.choose_victim(),
            None => return false,
        }
        true
    }

    /// Closes the open segments that hold anything; says whether there was one.
    pub(super) fn seal_all(&mut self) -> bool {
        let open = std::mem::take(&mut self.writer.open);
        let sealed = open.into_iter().flatten().filter(|id| self.seal(*id));
        sealed.count() > 0
    }

    /// Nothing more is appended; pages behind the tail that a segment brought along from its last use go back.
    fn seal(&mut self, id: u32) -> bool {
        const WORTH_BYTES: usize = 4 * PAGE_BYTES;
        let (ground, writer) = (self.ground, &mut *self.writer);
        writer.segments.get_mut(&id).is_some_and(|segment| {
            segment.sealed = true;
            if segment.extent.resident_bytes as usize >= segment.tail_words * WORD_BYTES + WORTH_BYTES {
                segment.extent.trim(segment.tail_words, ground);
            }
            true
        })
    }

    /// Appends room for an item of `words` without cleaning anything; `None` when there is none. `force` goes over the
    /// ledger's capacity, for the cleaner.
    pub(super) fn append(&mut self, tail: Tail, words: usize, force: bool) -> Option<Location> {
        let segment_words = self.ground.pool.segment_bytes() / WORD_BYTES;
        if self.ground.pool.is_alone(words) {
            return self.append_alone(tail, words, force);
        }
        let number = tail.number();
        let full = |segment: &Segment| segment.tail_words + words > segment_words;
        if let Some(id) = self.writer.open[number]
            && full(&self.writer.segments[&id])
        {
            self.seal(id);
            self.writer.open[number] = None;
        }
        let id = match self.writer.open[number] {
            Some(id) => id,
            None => {
                let id = self.open_segment(tail, 1)?;
                self.writer.open[number] = Some(id);
                id
            }
        };
        self.extend(id, words, force)
    }

    /// An item of its own pages.
    fn append_alone(&mut self, tail: Tail, words: usize, force: bool) -> Option<Location> {
        let units = (words * WORD_BYTES).div_ceil(self.ground.pool.segment_bytes()) as u32;
        let id = self.open_segment(tail, units)?;
        let location = self.extend(id, words, force);
        match location {
            Some(_) => drop(self.seal(id)),
            None => self.give_back_unused(id),
        }
        location
    }

    fn open_segment(&mut self, tail: Tail, units: u32) -> Option<u32> {
        let extent = self.ground.pool.take(units)?;
        self.writer.next_age += 1;
        let segment = Segment::open(extent, tail.log, self.writer.next_age);
        self.writer.segments.insert(extent.id, segment);
        Some(extent.id)
    }

    /// A shard of many segments reserves a new one whole, so that a segment just freed can serve again as it is; a
    /// shard of few goes by pages, so that what is reserved is what is resident.
    fn reservation_step(&self, alone: bool) -> usize {
        const MANY: usize = 16;
        match self.writer.segments.len() {
            _ if alone => PAGE_BYTES,
            MANY.. => self.ground.pool.segment_bytes(),
            _ => (4 * PAGE_BYTES).min(self.ground.pool.segment_bytes()),
        }
    }

    fn extend(&mut self, id: u32, words: usize, force: bool) -> Option<Location> {
        let alone = self.ground.pool.is_alone(words);
        let step = self.reservation_step(alone);
        let segment = self.writer.segments.get_mut(&id).expect("an open segment is known");
        let (at, end) = (segment.tail_words, segment.tail_words + words);
        let segment_bytes = self.ground.pool.segment_bytes();
        if !reserve_up_to(&mut segment.extent, end, segment_bytes, step, &self.ground.ledger, force) {
            return None;
        }
        segment.tail_words = end;
        add(&self.shard.counts.written_words, words);
        Some(Location::new(id, at as u32))
    }

    /// A segment nothing was appended to goes back to the pool at once: no map ever led to it.
    fn give_back_unused(&mut self, id: u32) {
        let segment = self.writer.segments.remove(&id).expect("it was just opened");
        debug_assert_eq!(segment.tail_words, 0);
        self.ground.pool.put_back(segment.extent);
    }

    /// Takes segments without a live item out of the shard, and retires them (see `shard`, M2).
    pub(super) fn retire_segments(&mut self, ids: &[u32], tally: &mut Tally) {
        let mut extents = Vec::with_capacity(ids.len());
        for id in ids {
            let segment = self.writer.segments.remove(id).expect("a segment is retired once");
            assert_eq!((segment.live_items, segment.live_words), (0, 0), "an emptied segment holds nothing live");
            self.writer.open.iter_mut().filter(|open| **open == Some(*id)).for_each(|open| *open = None);
            sub(&self.shard.counts.written_words, segment.tail_words);
            tally.freed_segments += u64::from(segment.extent.units);
            extents.push(segment.extent);
        }
        let segments = &mut self.writer.segments;
        if segments.capacity() > FEW_SEGMENTS && segments.len() < segments.capacity() / 4 {
            segments.shrink_to(segments.len() * 2); // the table of a full shard is larger than an empty one's everything
        }
        self.retire(extents);
    }
}
