//! What is worth keeping: the rules of the cleaner, as pure functions.
//!
//! Compaction, eviction, expiration and the sweep of invalidations are one act: look at every item of a segment, and
//! keep it where it is, move it, or drop it. They differ in what counts as worth keeping. Eviction follows S3-FIFO
//! (Yang et al., SOSP 2023) on two logs of segments, with the size of an item set against its reads.

use super::log::Log;
use super::segment::Segment;
use super::slot::{READS_MAX, RemovalCause};

/// Why a segment is being looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Move what is live elsewhere, so that the segment can go.
    Compact,
    /// Move what has earned it, drop the rest, so that the segment can go.
    Evict,
    /// As for `Evict`, but what has earned it stays where it is: too little would be gained.
    Requeue,
    /// Drop everything, so that the segment can go: when too many have earned their place, age decides.
    Discard,
    /// Drop what has expired; the rest stays.
    Expire,
    /// Drop or mark what was invalidated; the rest stays.
    Sweep,
}

/// What the rules look at in an item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// How often it was read since it was last judged.
    pub reads: u8,
    /// Its size in words.
    pub words: usize,
    /// Its deadline has passed.
    pub expired: bool,
    /// Its key was invalidated.
    pub invalidated: bool,
}

/// What becomes of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays, with this count of reads.
    Stay(u8),
    /// It is copied to this log, with this count of reads.
    Move(Log, u8),
    /// It goes.
    Drop(RemovalCause),
}

/// Reads an item of the nursery must have had, were it of average size, to pass into the main log.
const NURSERY_BAR: usize = 2;
/// Likewise to stay in the main log.
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

/// Whether eviction keeps an item: it was read as often as can be counted, or often enough for its size.
pub(super) fn earns_its_place(log: Log, case: Case, average_words: usize) -> bool {
    let bar = match log {
        Log::Nursery => NURSERY_BAR,
        Log::Main => MAIN_BAR,
    };
    let reads = usize::from(case.reads);
    case.reads == READS_MAX || (reads > 0 && reads * average_words >= bar * case.words)
}

/// What is kept starts the main log afresh, or has one read less to its credit there.
fn reads_left(log: Log, reads: u8) -> u8 {
    match log {
        Log::Nursery => 0,
        Log::Main => reads.saturating_sub(1),
    }
}

/// From this share on, a segment whose items would be kept is put back whole: half the copying, for 0.08 % more misses.
pub(super) const REQUEUE_PERCENT: usize = 80;

/// The share of a shard that belongs to what was not asked for yet. S3-FIFO has a tenth, and so it begins; from there it
/// follows what is missed. A key that comes back soon after it was dropped from the nursery would have been found, had
/// the nursery been a little larger; one that was dropped from the main log, had that been. Each such miss moves the
/// share by one item its way (after ARC: Megiddo and Modha, FAST 2003), but only a recent ghost counts: one that a little
/// more room would not have saved says nothing about where to put it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share(f64);

impl Default for Share {
    fn default() -> Self {
        Self(0.10)
    }
}

impl Share {
    /// Between these it moves.
    const BOUNDS: (f64, f64) = (0.02, 0.50);
    /// "A little more room", as a share of all items. With 1.0, which counts every ghost, `arc-p3` at 10 % misses 0.85
    /// instead of 0.72; with 0.1, `mooncake-conv` misses 0.747 instead of 0.735 (`ebb-bench trace`).
    const LITTLE: f64 = 0.30;

    /// A key is stored whose ghost left `log`, `age` removals ago, of which the main log has `main` in all of `total`.
    pub(super) fn learn(&mut self, log: Log, age: u64, entries: u64, main: u64, total: u64) {
        let room = Self::LITTLE * entries as f64;
        let (lasts, step) = match log {
            Log::Nursery => (room, 1.0),
            // Room lasts longer where fewer items leave.
            Log::Main => (room * total.max(1) as f64 / main.max(1) as f64, -1.0),
        };
        if (age as f64) <= lasts {
            self.0 = (self.0 + step / entries.max(1) as f64).clamp(Self::BOUNDS.0, Self::BOUNDS.1);
        }
    }
}

/// The segment to evict from: the oldest of the nursery while that is larger than its share, else the oldest of the
/// main log. `None` when there is no sealed segment.
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

/// The segment to compact: the one that frees most for what it costs to copy, if it is emptier than `below_percent`.
/// What has expired is not copied. Never one that is all live: copying it frees nothing. So never an item that has its
/// pages to itself, either.
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
    fn the_nursery_asks_for_two_reads_and_the_main_log_for_one() {
        assert_eq!(fate(Purpose::Evict, Log::Nursery, case(1, 10), 10), Fate::Drop(RemovalCause::Evicted));
        assert_eq!(fate(Purpose::Evict, Log::Nursery, case(2, 10), 10), Fate::Move(Log::Main, 0));
        assert_eq!(fate(Purpose::Evict, Log::Main, case(1, 10), 10), Fate::Move(Log::Main, 0));
        assert_eq!(fate(Purpose::Evict, Log::Main, case(0, 10), 10), Fate::Drop(RemovalCause::Evicted));
    }

    #[test]
    fn what_stays_where_it_is_has_used_up_a_read() {
        assert_eq!(fate(Purpose::Requeue, Log::Main, case(2, 10), 10), Fate::Stay(1));
        assert_eq!(fate(Purpose::Requeue, Log::Nursery, case(2, 10), 10), Fate::Stay(0));
        assert_eq!(fate(Purpose::Discard, Log::Main, case(READS_MAX, 1), 10), Fate::Drop(RemovalCause::Evicted));
    }

    #[test]
    fn a_large_item_must_earn_its_room_unless_its_count_is_full() {
        assert!(!earns_its_place(Log::Main, case(1, 40), 10));
        assert!(earns_its_place(Log::Main, case(2, 20), 10));
        assert!(earns_its_place(Log::Nursery, case(READS_MAX, 400), 10));
        assert!(earns_its_place(Log::Nursery, case(1, 5), 10), "a small one needs less");
        assert!(!earns_its_place(Log::Main, case(0, 0), 10));
    }

    #[test]
    fn what_has_expired_or_is_void_goes_whatever_the_purpose() {
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
    fn compaction_loses_nothing_and_keeps_the_count() {
        assert_eq!(fate(Purpose::Compact, Log::Nursery, case(0, 10), 10), Fate::Move(Log::Nursery, 0));
        assert_eq!(fate(Purpose::Compact, Log::Main, case(3, 10), 10), Fate::Move(Log::Main, 3));
    }

    #[test]
    fn the_nursery_is_evicted_from_only_while_it_is_larger_than_its_share() {
        let mut segments: Vec<_> = (0..18).map(|i| segment(i + 1, Log::Main, 100 + u64::from(i), 50)).collect();
        segments.push(segment(50, Log::Nursery, 200, 50));
        assert_eq!(
            eviction_victim(segments.iter(), Share::default()),
            Some(1),
            "a nineteenth is nursery: the oldest of the main log"
        );
        segments.extend([segment(51, Log::Nursery, 190, 50), segment(52, Log::Nursery, 210, 50)]);
        assert_eq!(
            eviction_victim(segments.iter(), Share::default()),
            Some(51),
            "three in twenty-one: the oldest of the nursery"
        );
    }

    #[test]
    fn the_nursery_grows_by_what_it_lost_lately_and_shrinks_by_what_the_main_log_did() {
        let after = |log, age, times| {
            let mut share = Share::default();
            (0..times).for_each(|_| share.learn(log, age, 1_000, 100, 1_000));
            share.0
        };
        let near = |share: f64, expected: f64| assert!((share - expected).abs() < 1e-9, "{share}, not {expected}");
        near(after(Log::Nursery, 300, 50), 0.15);
        near(after(Log::Nursery, 301, 50), 0.10);
        near(after(Log::Main, 3_000, 50), 0.05); // a tenth of the removals: ten times as long
        near(after(Log::Main, 3_001, 50), 0.10);
        near(after(Log::Nursery, 0, 10_000), 0.50);
        near(after(Log::Main, 0, 10_000), 0.02);
    }

    #[test]
    fn the_emptiest_segment_is_compacted_unless_it_is_full_enough() {
        let segments = [segment(1, Log::Main, 1, 90), segment(2, Log::Main, 2, 40), segment(3, Log::Main, 3, 70)];
        assert_eq!(compaction_victim(segments.iter(), 80, 0), Some(2));
        assert_eq!(compaction_victim(segments.iter(), 40, 0), None);
        assert_eq!(compaction_victim([segment(1, Log::Main, 1, 100)].iter(), 100, 0), None, "nothing to gain");
    }

    #[test]
    fn what_has_expired_makes_a_segment_worth_compacting() {
        let mut segments = [segment(1, Log::Main, 1, 90), segment(2, Log::Main, 2, 95)];
        segments[1].change_expiry(|expiry| expiry.add(60, 1_000, 3));
        assert_eq!(compaction_victim(segments.iter(), 80, 999), None);
        assert_eq!(compaction_victim(segments.iter(), 80, 1_000), Some(2));
    }
}
