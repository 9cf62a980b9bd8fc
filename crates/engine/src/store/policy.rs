//! Which items to keep: the rules of the cleaner, as pure functions.
//!
//! Compaction, eviction, expiration and the sweep of invalidations work alike: they visit every item of a segment, and
//! keep it in place, move it, or drop it. They differ in which items they keep. Eviction follows S3-FIFO (Yang et al.,
//! SOSP 2023) on two logs of segments, and weighs the reads of an item against its size.

use super::log::Log;
use super::segment::Segment;
use super::slot::{READS_MAX, RemovalCause};

/// The purpose of a pass over a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Move all live items elsewhere and free the segment.
    Compact,
    /// Move the items worth keeping, drop the rest and free the segment.
    Evict,
    /// Like `Evict`, but leave the items worth keeping in place, because moving them would free too little.
    Requeue,
    /// Drop all items and free the segment: eviction by age, when too many items are worth keeping.
    Discard,
    /// Drop expired items and leave the rest in place.
    Expire,
    /// Drop or mark invalidated items and leave the rest in place.
    Sweep,
}

/// The properties of an item on which the rules depend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// Reads since the last decision about it.
    pub reads: u8,
    /// Its size in words.
    pub words: usize,
    /// Its deadline has passed.
    pub expired: bool,
    /// Its key was invalidated.
    pub invalidated: bool,
}

/// What the cleaner does with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Leave it in place, with this read count.
    Stay(u8),
    /// Copy it to this log, with this read count.
    Move(Log, u8),
    /// Drop it, for this cause.
    Drop(RemovalCause),
}

/// Reads that an item of average size needs to move from the nursery to the main log.
const NURSERY_BAR: usize = 2;
/// Reads that an item of average size needs to stay in the main log.
const MAIN_BAR: usize = 1;

/// Decides the fate of one item. `average_words` is the shard's average item.
pub(super) fn fate(purpose: Purpose, log: Log, case: Case, average_words: usize) -> Fate {
    if case.invalidated {
        return Fate::Drop(RemovalCause::Invalidated);
    }
    if case.expired {
        return Fate::Drop(RemovalCause::Expired);
    }
    match purpose {
        Purpose::Compact => Fate::Move(log, case.reads),
        Purpose::Discard => Fate::Drop(RemovalCause::Evicted),
        Purpose::Expire | Purpose::Sweep => Fate::Stay(case.reads),
        Purpose::Evict | Purpose::Requeue if !earns_its_place(log, case, average_words) => {
            Fate::Drop(RemovalCause::Evicted)
        }
        Purpose::Evict => Fate::Move(Log::Main, reads_left(log, case.reads)),
        Purpose::Requeue => Fate::Stay(reads_left(log, case.reads)),
    }
}

/// Whether eviction keeps an item: its read count is saturated, or high enough for its size.
pub(super) fn earns_its_place(log: Log, case: Case, average_words: usize) -> bool {
    let bar = match log {
        Log::Nursery => NURSERY_BAR,
        Log::Main => MAIN_BAR,
    };
    let reads = usize::from(case.reads);
    case.reads == READS_MAX || (reads > 0 && reads * average_words >= bar * case.words)
}

/// The read count of a kept item: 0 when it enters the main log, one less when it stays there.
fn reads_left(log: Log, reads: u8) -> u8 {
    match log {
        Log::Nursery => 0,
        Log::Main => reads.saturating_sub(1),
    }
}

/// A segment with at least this share of words worth keeping is requeued whole. That halves the copying, for 0.08 %
/// more misses.
pub(super) const REQUEUE_PERCENT: usize = 80;

/// The nursery's share of a shard. It starts at a tenth, as in S3-FIFO, and then adapts to misses. A key that comes
/// back soon after it was dropped from the nursery would have been a hit with a slightly larger nursery; a key dropped
/// from the main log, with a slightly larger main log. Each such miss moves the share by one item in that direction
/// (after ARC: Megiddo and Modha, FAST 2003). Only recent ghosts count: an item that a little more room would not have
/// saved is no reason to move the share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share(f64);

impl Default for Share {
    fn default() -> Self {
        Self(0.10)
    }
}

impl Share {
    /// Minimum and maximum share.
    const BOUNDS: (f64, f64) = (0.02, 0.50);
    /// How much more room counts as "slightly larger", as a share of all items. With 1.0, which counts every ghost,
    /// `arc-p3` at 10 % misses 0.85 instead of 0.72; with 0.1, `mooncake-conv` misses 0.747 instead of 0.735
    /// (`ebb-bench trace`).
    const LITTLE: f64 = 0.30;

    /// Adapts to a stored key whose ghost left `log` `age` removals ago. `main` of all `total` removals were from the
    /// main log.
    pub(super) fn learn(&mut self, log: Log, age: u64, entries: u64, main: u64, total: u64) {
        let room = Self::LITTLE * entries as f64;
        let (lasts, step) = match log {
            Log::Nursery => (room, 1.0),
            // The room of a log lasts longer if fewer items leave it.
            Log::Main => (room * total.max(1) as f64 / main.max(1) as f64, -1.0),
        };
        if (age as f64) <= lasts {
            self.0 = (self.0 + step / entries.max(1) as f64).clamp(Self::BOUNDS.0, Self::BOUNDS.1);
        }
    }
}

/// The segment to evict from: the oldest of the nursery while the nursery exceeds its share, else the oldest of the
/// main log. `None` if there is no sealed segment.
pub(super) fn eviction_victim<'a>(segments: impl Iterator<Item = &'a Segment> + Clone, nursery: Share) -> Option<u32> {
    let words = |log: Option<Log>| -> usize {
        let of_log = segments.clone().filter(|s| log.is_none_or(|log| s.log == log));
        of_log.map(|segment| segment.tail_words).sum()
    };
    let log = match words(Some(Log::Nursery)) as f64 > words(None) as f64 * nursery.0 {
        true => Log::Nursery,
        false => Log::Main,
    };
    let sealed = segments.filter(|segment| segment.sealed && segment.pins == 0);
    sealed.min_by_key(|segment| (segment.log != log, segment.age)).map(|segment| segment.extent.id)
}

/// The segment to compact: the one with the smallest share of live bytes, if that is below `below_percent`. Expired
/// items count as dead, because they are not copied. It is never a fully live segment, since copying that frees
/// nothing, and so never one that holds a single large item.
pub(super) fn compaction_victim<'a>(
    segments: impl Iterator<Item = &'a Segment>,
    below_percent: usize,
    now_ms: u64,
) -> Option<u32> {
    let sealed = segments.filter(|segment| segment.sealed && segment.pins == 0);
    let with_occupancy = sealed.map(|segment| (segment.occupancy_percent(now_ms), segment.extent.id));
    let (percent, id) = with_occupancy.min_by_key(|(percent, _)| *percent)?;
    (percent < below_percent.min(99)).then_some(id)
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;
    use crate::store::segment::Extent;

    fn case(reads: u8, words: usize) -> Case {
        Case { reads, words, expired: false, invalidated: false }
    }

    fn segment(id: u32, log: Log, age: u64, live: usize) -> Segment {
        let extent = Extent { id, units: 1, resident_bytes: 0 };
        Segment { tail_words: 100, live_words: live, sealed: true, ..Segment::open(extent, log, age, age) }
    }

    #[test]
    fn the_nursery_requires_two_reads_and_the_main_log_one() {
        assert_eq!(fate(Purpose::Evict, Log::Nursery, case(1, 10), 10), Fate::Drop(RemovalCause::Evicted));
        assert_eq!(fate(Purpose::Evict, Log::Nursery, case(2, 10), 10), Fate::Move(Log::Main, 0));
        assert_eq!(fate(Purpose::Evict, Log::Main, case(1, 10), 10), Fate::Move(Log::Main, 0));
        assert_eq!(fate(Purpose::Evict, Log::Main, case(0, 10), 10), Fate::Drop(RemovalCause::Evicted));
    }

    #[test]
    fn a_requeued_item_loses_a_read() {
        assert_eq!(fate(Purpose::Requeue, Log::Main, case(2, 10), 10), Fate::Stay(1));
        assert_eq!(fate(Purpose::Requeue, Log::Nursery, case(2, 10), 10), Fate::Stay(0));
        assert_eq!(fate(Purpose::Discard, Log::Main, case(READS_MAX, 1), 10), Fate::Drop(RemovalCause::Evicted));
    }

    #[test]
    fn a_large_item_needs_more_reads_unless_saturated() {
        assert!(!earns_its_place(Log::Main, case(1, 40), 10));
        assert!(earns_its_place(Log::Main, case(2, 20), 10));
        assert!(earns_its_place(Log::Nursery, case(READS_MAX, 400), 10));
        assert!(earns_its_place(Log::Nursery, case(1, 5), 10), "a small item needs fewer reads");
        assert!(!earns_its_place(Log::Main, case(0, 0), 10));
    }

    #[test]
    fn expired_and_invalidated_items_are_dropped_for_any_purpose() {
        for purpose in
            [Purpose::Compact, Purpose::Evict, Purpose::Requeue, Purpose::Discard, Purpose::Expire, Purpose::Sweep]
        {
            let expired = Case { expired: true, ..case(3, 1) };
            assert_eq!(fate(purpose, Log::Main, expired, 1), Fate::Drop(RemovalCause::Expired));
            let invalidated = Case { invalidated: true, ..expired };
            assert_eq!(fate(purpose, Log::Main, invalidated, 1), Fate::Drop(RemovalCause::Invalidated));
        }
    }

    #[test]
    fn compaction_drops_nothing_and_keeps_read_counts() {
        assert_eq!(fate(Purpose::Compact, Log::Nursery, case(0, 10), 10), Fate::Move(Log::Nursery, 0));
        assert_eq!(fate(Purpose::Compact, Log::Main, case(3, 10), 10), Fate::Move(Log::Main, 3));
    }

    #[test]
    fn evicts_from_the_nursery_only_above_its_share() {
        let mut segments: Vec<_> = (0..18).map(|i| segment(i + 1, Log::Main, 100 + u64::from(i), 50)).collect();
        segments.push(segment(50, Log::Nursery, 200, 50));
        assert_eq!(
            eviction_victim(segments.iter(), Share::default()),
            Some(1),
            "the nursery has a nineteenth: evict the oldest of the main log"
        );
        segments.extend([segment(51, Log::Nursery, 190, 50), segment(52, Log::Nursery, 210, 50)]);
        assert_eq!(
            eviction_victim(segments.iter(), Share::default()),
            Some(51),
            "the nursery has three of twenty-one: evict its oldest"
        );
    }

    #[test]
    fn the_nursery_share_follows_the_recent_ghosts_of_both_logs() {
        let after = |log, age, times| {
            let mut share = Share::default();
            (0..times).for_each(|_| share.learn(log, age, 1_000, 100, 1_000));
            share.0
        };
        let near = |share: f64, expected: f64| assert!((share - expected).abs() < 1e-9, "{share}, not {expected}");
        near(after(Log::Nursery, 300, 50), 0.15);
        near(after(Log::Nursery, 301, 50), 0.10);
        near(after(Log::Main, 3_000, 50), 0.05); // a tenth of all removals: ten times the age
        near(after(Log::Main, 3_001, 50), 0.10);
        near(after(Log::Nursery, 0, 10_000), 0.50);
        near(after(Log::Main, 0, 10_000), 0.02);
    }

    #[test]
    fn compacts_the_emptiest_segment_below_the_bound() {
        let segments = [segment(1, Log::Main, 1, 90), segment(2, Log::Main, 2, 40), segment(3, Log::Main, 3, 70)];
        assert_eq!(compaction_victim(segments.iter(), 80, 0), Some(2));
        assert_eq!(compaction_victim(segments.iter(), 40, 0), None);
        assert_eq!(compaction_victim([segment(1, Log::Main, 1, 100)].iter(), 100, 0), None, "nothing to gain");
    }

    #[test]
    fn expired_items_make_a_segment_worth_compacting() {
        let mut segments = [segment(1, Log::Main, 1, 90), segment(2, Log::Main, 2, 95)];
        segments[1].change_expiry(|expiry| expiry.add(60, 1_000, 3));
        assert_eq!(compaction_victim(segments.iter(), 80, 999), None);
        assert_eq!(compaction_victim(segments.iter(), 80, 1_000), Some(2));
    }
}
