//! Cleaning: passing over a segment item by item, in steps that can stop anywhere.
//!
//! C1. A step holds the shard's lock for some items at a time; writers continue between two holds. A job keeps the
//!     segment and the offset reached; only a batch of copies spans two holds ([`super::relocate`]).
//! C2. An item is moved or dropped only if the index names this very copy of it, looked up in the same hold.
//! C3. A move copies the item, then stores the slot. Readers see the old copy or the new one, which are identical.
//! C4. A segment is retired only when it has no live item; the counts prove it, and an assertion checks them.

use super::bank::Piece;
use super::counts::add;
use super::expiry::Expiry;
use super::hash::Hash;
use super::index::Position;
use super::item::View;
use super::job::{Job, Sweep, Tally};
use super::ledger::Bound;
use super::log::{Log, Tail};
use super::policy::{self, Case, Fate, Purpose};
use super::relocate::Ahead;
use super::segment::Moved;
use super::shard::{Found, Locked};
use super::slot::{Location, RemovalCause, Slot};
use super::types::Key;
use crate::sync::atomic::Ordering;
use crate::sync::{Fault, planted};

/// The cleaning requested for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Compact segments with fewer live bytes than this, in percent. 0: none.
    pub below_percent: usize,
    /// Seal open segments, so that they can be compacted too.
    pub thorough: bool,
    /// Evict one segment.
    pub evict: bool,
    /// Compact or evict only segments opened before this [count](super::Store::opened), so that the work ends.
    pub opened_before: u64,
}

impl Task {
    fn has_end(self) -> bool {
        self.opened_before != u64::MAX
    }

    /// Whether callers keep writing meanwhile, so that more work will follow soon.
    pub(crate) fn beside_writers(self) -> bool {
        self.below_percent > 0 && !self.thorough
    }

    /// Only the cheap work that every task does first.
    pub const CHEAP: Self = Self { below_percent: 0, thorough: false, evict: false, opened_before: u64::MAX };
}

/// What to do after the lock is released.
#[derive(Debug)]
pub(super) enum Step {
    /// There is nothing to do.
    Nothing,
    /// Some work was done.
    Done,
    /// Read the next items of the job before the lock is taken again.
    LookAhead(Ahead),
    /// Return this memory to the kernel.
    GiveBack(Piece),
}

/// Items between two checks whether to stop.
pub(super) const STRIDE: usize = 32;
/// Buckets of a migration between two checks whether to stop.
const STRIDE_BUCKETS: u32 = 128;
/// Bytes of an old index returned to the kernel between two checks whether to stop.
const STRIDE_BYTES: u64 = 64 << 10;

impl Locked<'_> {
    /// Cleans until `stop` returns true. A running job continues only if [`Shared::look_ahead`] has read its next items
    /// (`looked`); otherwise this returns [`Step::LookAhead`].
    ///
    /// [`Shared::look_ahead`]: super::shared::Shared::look_ahead
    pub(super) fn clean(
        &mut self,
        task: Task,
        now_ms: u64,
        tally: &mut Tally,
        looked: bool,
        stop: &mut dyn FnMut() -> bool,
    ) -> Step {
        let mut did = self.reclaim() && !task.has_end();
        if let (Some(ahead), false) = (self.ahead(), looked) {
            return Step::LookAhead(ahead);
        }
        if self.writer.job.is_some() {
            self.work(now_ms, tally, &mut || true);
            did = true;
        } else if let Some(piece) = self.take_piece(STRIDE_BYTES) {
            return Step::GiveBack(piece);
        } else if self.clean_bank(STRIDE_BYTES) {
            did = true;
        } else if self.writer.migration.is_some() {
            self.migrate_some(STRIDE_BUCKETS);
            while !stop() && self.migrate_some(STRIDE_BUCKETS) {}
            if self.writer.migration.is_none() {
                tally.migrated_shards += 1;
            }
            did = true;
        } else {
            did |= self.begin_something(task, now_ms, tally);
        }
        match self.ahead() {
            Some(ahead) => Step::LookAhead(ahead),
            None if did => Step::Done,
            None => Step::Nothing,
        }
    }

    fn begin_something(&mut self, task: Task, now_ms: u64, tally: &mut Tally) -> bool {
        self.count_expired(now_ms);
        if self.retire_dead(task.thorough, tally) {
            return true;
        }
        if let Some(id) = self.next_to_sweep() {
            self.begin_job(id, Purpose::Sweep);
            return true;
        }
        if !task.evict
            && let Some(id) = self.due(now_ms)
        {
            self.begin_job(id, Purpose::Expire);
            return true;
        }
        let segments = || self.writer.segments.values().filter(|segment| segment.opened <= task.opened_before);
        if task.evict
            && let Some(id) = policy::eviction_victim(segments(), self.writer.nursery)
        {
            // If eviction has requeued every segment, all items are hot: evict by age.
            let spares_none = self.writer.spared >= self.writer.segments.len();
            self.begin_job(id, if spares_none { Purpose::Discard } else { Purpose::Evict });
            return true;
        }
        if let Some(id) = policy::compaction_victim(segments(), task.below_percent, now_ms) {
            self.begin_job(id, Purpose::Compact);
            return true;
        }
        if task.thorough && self.has_sparse_open_segment(task.below_percent, task.opened_before, now_ms) {
            return self.seal_all();
        }
        if self.shrink_index(task.beside_writers()) {
            return true;
        }
        // Writers would touch the trimmed pages again at once, and each trim interrupts the other processors.
        !task.beside_writers() && self.trim_open_segments() && !task.has_end()
    }

    /// Retires all segments without a live item, with `open_too` also open ones. Returns whether there was any.
    pub(super) fn retire_dead(&mut self, open_too: bool, tally: &mut Tally) -> bool {
        let is_dead = |segment: &&super::segment::Segment| {
            segment.live_items == 0 && segment.tail_words > 0 && (open_too || segment.sealed) && segment.pins == 0
        };
        let dead: Vec<u32> = self.writer.segments.values().filter(is_dead).map(|segment| segment.extent.id).collect();
        if !dead.is_empty() {
            self.retire_segments(&dead, tally);
        }
        !dead.is_empty()
    }

    /// The segment whose scan for expired items is most overdue.
    pub(super) fn due(&self, now_ms: u64) -> Option<u32> {
        let due = self.writer.segments.values().filter(|segment| segment.due_ms <= now_ms);
        due.min_by_key(|segment| segment.due_ms).map(|segment| segment.extent.id)
    }

    /// Updates the estimate of expired bytes.
    fn count_expired(&self, now_ms: u64) {
        let words = self.writer.segments.values().map(|segment| segment.expiry.expired_words(now_ms)).sum::<usize>();
        self.shard.counts.expired_words.store(words as u64, Ordering::Relaxed);
    }

    /// Returns the pages behind the tail of open segments without an append since the last call to the kernel.
    fn trim_open_segments(&mut self) -> bool {
        let (shared, writer) = (self.shared, &mut *self.writer);
        let mut trimmed = false;
        for id in writer.open.iter().flatten() {
            let segment = writer.segments.get_mut(id).expect("an open segment is known");
            if std::mem::replace(&mut segment.tail_words_seen, segment.tail_words) == segment.tail_words {
                trimmed |= shared.trim(&mut segment.extent, segment.tail_words);
            }
        }
        trimmed
    }

    pub(super) fn has_sparse_open_segment(&self, below_percent: usize, opened_before: u64, now_ms: u64) -> bool {
        let open = self.writer.open.iter().flatten().map(|id| &self.writer.segments[id]);
        let mut written = open.filter(|segment| segment.tail_words > 0 && segment.opened <= opened_before);
        written.any(|segment| segment.occupancy_percent(now_ms) < below_percent.min(99))
    }

    /// The next segment of the running sweep. Starts a sweep if an invalidation waits, ends it if no segment is left.
    fn next_to_sweep(&mut self) -> Option<u32> {
        if self.writer.sweep.is_none() && !self.writer.invalidations.is_empty() {
            let segments = self.writer.segments.keys().copied().collect();
            self.writer.sweep = Some(Sweep { segments, invalidations: self.writer.invalidations.len() });
        }
        let writer = &mut *self.writer;
        let sweep = writer.sweep.as_mut()?;
        while let Some(id) = sweep.segments.pop() {
            if writer.segments.contains_key(&id) {
                return Some(id);
            }
        }
        // Every item written before the sweep has been visited: by the sweep, or when it was moved.
        let done = sweep.invalidations;
        writer.sweep = None;
        writer.invalidations.drain(..done);
        self.publish();
        None
    }

    /// Starts a job for a segment.
    pub(super) fn begin_job(&mut self, segment: u32, purpose: Purpose) {
        debug_assert!(self.writer.job.is_none());
        let weighing = purpose == Purpose::Evict;
        if purpose == Purpose::Expire {
            // Items written to the segment from now on record their deadlines, wherever the job has arrived.
            let segment = self.writer.segments.get_mut(&segment).expect("a job's segment is there");
            segment.change_expiry(Expiry::forget_deadlines);
        }
        self.writer.job = Some(Job { segment, purpose, weighing, cursor_words: 0, kept_words: 0 });
    }

    /// The unvisited part of the current job, if there is one.
    pub(super) fn ahead(&self) -> Option<Ahead> {
        let Job { segment, purpose, cursor_words, .. } = self.writer.job?;
        let job_segment = self.writer.segments.get(&segment)?;
        Some(Ahead {
            segment,
            opened: job_segment.opened,
            from_words: cursor_words,
            end_words: job_segment.tail_words,
            index: self.writer.index,
            moves_to: (purpose == Purpose::Compact).then_some(job_segment.log),
        })
    }

    /// Continues the job until it ends or `stop` returns true.
    pub(super) fn work(&mut self, now_ms: u64, tally: &mut Tally, stop: &mut dyn FnMut() -> bool) {
        while let Some(mut job) = self.writer.job {
            let Some(segment) = self.writer.segments.get(&job.segment) else {
                self.writer.job = None;
                return;
            };
            let (log, end) = (segment.log, segment.tail_words);
            let nothing_live = segment.live_items == 0;
            for _ in 0..STRIDE {
                if job.cursor_words >= end || nothing_live {
                    break;
                }
                self.look_at(&mut job, log, now_ms, tally);
                if self.shard.is_waited_for() {
                    break;
                }
            }
            self.writer.job = Some(job);
            if job.cursor_words >= end || nothing_live {
                self.end_pass(job, tally);
            }
            if stop() {
                return;
            }
        }
    }

    /// Visits one item: keeps, moves or drops it.
    fn look_at(&mut self, job: &mut Job, log: Log, now_ms: u64, tally: &mut Tally) {
        let location = Location::new(job.segment, job.cursor_words as u32);
        let view = self.shared.view(location);
        let header = view.header();
        assert!(header.words() > 0, "items follow each other without a gap (S1)");
        job.cursor_words += header.words();
        if header.is_dead() && !planted(Fault::MoveWhatDied) {
            return;
        }
        let Some((found, hash, invalidated)) = self.identify(location, view) else { return };
        let deadline = found.facts.attributes.deadline_ms;
        let case = Case {
            reads: found.slot.reads(),
            words: header.words(),
            expired: deadline != 0 && deadline <= now_ms,
            invalidated: invalidated == Some(false),
        };
        if job.weighing {
            let kept = !case.expired && !case.invalidated && policy::earns_its_place(log, case, self.average_words());
            job.kept_words += if kept { case.words } else { 0 };
            return;
        }
        if invalidated == Some(true) {
            view.mark_stale();
        }
        match policy::fate(job.purpose, log, case, self.average_words()) {
            Fate::Stay(reads) => {
                self.recount(found.at, found.slot, reads);
                if let (Purpose::Expire, Some((deadline_ms, octave))) = (job.purpose, found.facts.ttl()) {
                    self.segment_mut(location).change_expiry(|expiry| expiry.note(deadline_ms, octave));
                }
            }
            Fate::Move(to, reads) => self.move_item(&found, hash, to, reads, tally),
            Fate::Drop(why) => self.drop_item(&found, hash, why, tally),
        }
    }

    /// The slot of the item at a location, if the index still names this copy (C2), and whether it is invalidated
    /// (`Some(true)`: only stale).
    fn identify(&mut self, location: Location, view: View<'_>) -> Option<(Found, Hash, Option<bool>)> {
        let header = view.header();
        let facts = view.facts(header, self.version());
        let mut key = std::mem::take(&mut self.writer.scratch);
        view.copy_key(header, &mut key);
        let hash = self.shared.hasher.hash(Key { namespace: facts.namespace, bytes: &key });
        let invalidations =
            self.writer.invalidations.iter().filter(|invalidation| invalidation.means(header, &facts, &key));
        let invalidated = invalidations.map(|invalidation| invalidation.mark_stale).min();
        self.writer.scratch = key;
        let named = match header.is_dead() && planted(Fault::MoveWhatDied) {
            false => location,
            true => self.writer.index.candidates(&self.shared.arena, hash.place()).find_map(|(_, s)| s.location())?,
        };
        let (at, slot) = self.writer.index.position_of(&self.shared.arena, hash.place(), named)?;
        Some((Found { at, slot, location, header, facts }, hash, invalidated))
    }

    fn move_item(&mut self, found: &Found, hash: Hash, log: Log, reads: u8, tally: &mut Tally) {
        let words = found.header.words();
        if self.shared.pool.is_alone(words) {
            return self.keep_alone(found, log, reads);
        }
        let Some(to) = self.append(Tail { log, moved: true }, words, Bound::None) else {
            // The address space is used up: for a cache, dropping the item is better than stopping.
            return self.drop_item(found, hash, RemovalCause::Evicted, tally);
        };
        let view = self.shared.view(found.location);
        view.copy_to(view.header(), self.shared.arena.words(self.shared.range(to, words)));
        self.replace_slot(found.at, hash.place(), found.location, found.slot.with_location(to).with_reads(reads));
        let mut moved = Moved::default();
        moved.add(words, &found.facts);
        self.count_moved(found.location.segment(), to.segment(), &moved, tally);
    }

    /// Whether the job compacts.
    pub(super) fn compacts(&self) -> bool {
        self.writer.job.is_some_and(|job| job.purpose == Purpose::Compact)
    }

    /// Keeps an item in a segment of its own without a copy: the segment changes its log and its age.
    fn keep_alone(&mut self, found: &Found, log: Log, reads: u8) {
        self.recount(found.at, found.slot, reads);
        self.writer.next_age += 1;
        let age = self.writer.next_age;
        let segment = self.writer.segments.get_mut(&found.location.segment()).expect("it is being cleaned");
        (segment.log, segment.age) = (log, age);
    }

    fn recount(&self, at: Position, slot: Slot, reads: u8) {
        if slot.reads() != reads {
            // The exchange covers the whole word, so a read that is counted meanwhile wins.
            let word = self.writer.index.slot(&self.shared.arena, at);
            let fewer = slot.with_reads(reads).bits();
            let _ = word.compare_exchange(slot.bits(), fewer, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn drop_item(&mut self, found: &Found, hash: Hash, why: RemovalCause, tally: &mut Tally) {
        let log = self.writer.segments[&found.location.segment()].log;
        self.writer.removals += 1;
        self.writer.main_removals += u64::from(log == Log::Main);
        let ghost = Slot::ghost(hash.place().tag(), why, log, self.ghost_time());
        self.remove_slot(found.at, hash.place(), found.location, ghost);
        let namespace = self.mark_dead(found.location);
        let counts = &self.shard.counts;
        match why {
            RemovalCause::Evicted => {
                self.namespace_mut(namespace).evictions += 1;
                tally.evicted_items += 1;
                add(&counts.evictions, 1);
            }
            RemovalCause::Expired => {
                tally.expired_items += 1;
                add(&counts.expirations, 1);
                let expired = counts.expired_words.load(Ordering::Relaxed);
                counts.expired_words.store(expired.saturating_sub(found.header.words() as u64), Ordering::Relaxed);
            }
            RemovalCause::Invalidated => add(&counts.invalidated, 1),
        }
    }

    /// Drops the item whose slot is at a position of the index.
    pub(super) fn drop_at(&mut self, at: Position) {
        let slot = self.writer.index.load(&self.shared.arena, at);
        let Some(location) = slot.location() else { return };
        if let Some((found, hash, _)) = self.identify(location, self.shared.view(location)) {
            self.drop_item(&found, hash, RemovalCause::Evicted, &mut Tally::default());
        }
    }

    fn average_words(&self) -> usize {
        let counts = &self.shard.counts;
        let words = counts.live_words.load(Ordering::Relaxed);
        words.checked_div(counts.entries.load(Ordering::Relaxed)).unwrap_or(0) as usize
    }

    /// Ends a pass over a segment: decides after the weighing pass, and retires an empty segment.
    fn end_pass(&mut self, job: Job, tally: &mut Tally) {
        let writer = &mut *self.writer;
        let segment = writer.segments.get_mut(&job.segment).expect("a job's segment is there");
        if job.weighing {
            let keep = job.kept_words * 100 >= segment.tail_words * policy::REQUEUE_PERCENT && job.kept_words > 0;
            let purpose = if keep { Purpose::Requeue } else { Purpose::Evict };
            writer.job = Some(Job { purpose, weighing: false, cursor_words: 0, ..job });
            return;
        }
        writer.job = None;
        match job.purpose {
            Purpose::Requeue => writer.spared += 1,
            Purpose::Evict => writer.spared = 0,
            _ => {}
        }
        if segment.live_items == 0 {
            return self.retire_segments(&[job.segment], tally);
        }
        match job.purpose {
            Purpose::Requeue => {
                writer.next_age += 1;
                (segment.age, segment.log) = (writer.next_age, Log::Main);
            }
            Purpose::Expire | Purpose::Sweep => {}
            // Only an item in a segment of its own may be left.
            Purpose::Compact | Purpose::Evict | Purpose::Discard => {
                debug_assert!(segment.live_items == 1, "{segment:?}")
            }
        }
    }
}
