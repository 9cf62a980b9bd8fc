//! The next task, as a pure function of statistics and target. The thread only executes it.

use super::report::Target;
use crate::store::{Stats, Task};

/// A compaction to at least this occupancy also includes open segments, in percent.
const THOROUGH_PERCENT: u8 = 93;

/// Compact every segment with dead bytes, open ones too.
const THOROUGH: Task = Task { below_percent: 98, thorough: true, ..Task::CHEAP };
/// Free a segment, even if that drops live items.
const EVICT: Task = Task { thorough: true, evict: true, ..Task::CHEAP };

/// Cleaning may exceed the capacity by one part in this many: the open segments of one or two threads.
const OVERDRAFT: u64 = 64;

/// A compaction always includes segments with fewer live bytes, in percent: it frees more than it copies.
const EMPTY_PERCENT: usize = 50;

/// Live bytes of all segments, in thousandths of the bytes written; 1000 without segments.
fn occupancy_permille(stats: &Stats) -> u64 {
    (stats.item_bytes * 1000).checked_div(stats.item_bytes + stats.dead_bytes).unwrap_or(1000)
}

/// The occupancy below which a segment is worth compacting while callers write much, in percent. An item copied now may
/// soon be dead, so fewer copies are better as long as the occupancy of all segments stays near its target.
///
/// If keys are overwritten at random and segments are cleaned when they fall below an occupancy u, all segments
/// together stay at an occupancy U = (u - 1) ÷ ln u (Desnoyers, SYSTOR 2012). Near 0.9 that is u = 1 - 1.9 (1 - U). The
/// bar starts slightly below this u and rises with the distance from the target, so a more favourable load gets a lower
/// bar.
fn busy_bar_percent(occupancy_permille: u64, target_percent: u64) -> usize {
    let wanted = target_percent * 10;
    let level = 1000_u64.saturating_sub((1000 - wanted.min(1000)) * 19 / 10);
    let missing = wanted.saturating_sub(occupancy_permille);
    ((level + 2 * missing).saturating_sub(30) / 10).min(90) as usize
}

/// Bytes the engine uses, without retired segments, which become free without further work.
fn used(stats: &Stats) -> u64 {
    stats.segment_bytes.saturating_sub(stats.retired_bytes) + stats.index_bytes + stats.in_flight_bytes
}

/// Whether the engine uses more than a target allows.
pub(super) fn is_over(stats: &Stats, target: Target) -> bool {
    target.evict_to_bytes.is_some_and(|bound| used(stats) > bound)
}

/// Whether the engine uses more than its capacity, because the overhead or the bytes in flight grew or the limit fell.
/// The cleaner exceeds the capacity by less than this when it copies.
pub(super) fn is_overdrawn(stats: &Stats) -> bool {
    used(stats) > stats.capacity_bytes.saturating_add(stats.capacity_bytes / OVERDRAFT)
}

/// Chooses the next task. While live bytes, index and bytes in flight fit the bound, the cleaner compacts and evicts
/// nothing. If the engine exceeds its capacity, it evicts at once, because compaction frees memory too slowly.
pub(super) fn plan(stats: &Stats, target: Target) -> Task {
    let live = stats.item_bytes - stats.expired_bytes + stats.index_bytes + stats.in_flight_bytes;
    if is_over(stats, target) {
        let fits = target.evict_to_bytes.is_some_and(|bound| live <= bound);
        return if fits && !is_overdrawn(stats) { THOROUGH } else { EVICT };
    }
    let wanted = u64::from(target.occupancy_percent);
    let occupancy = occupancy_permille(stats);
    if occupancy >= 10 * wanted {
        return Task::CHEAP;
    }
    if target.occupancy_percent >= THOROUGH_PERCENT {
        return THOROUGH;
    }
    let below_percent = busy_bar_percent(occupancy, wanted).max(EMPTY_PERCENT).min(wanted as usize);
    Task { below_percent, ..Task::CHEAP }
}

/// Progress towards a target, 0 to 99 percent. `at_start` is the value of [`work_left`] at the beginning.
pub(super) fn percent(stats: &Stats, target: Target, at_start: u64) -> u8 {
    let left = work_left(stats, target);
    100_u64.saturating_sub((left * 100).div_ceil(at_start.max(1))).min(99) as u8
}

/// Bytes a target still has to free.
pub(super) fn work_left(stats: &Stats, target: Target) -> u64 {
    let bound = target.evict_to_bytes.map_or(0, |bound| used(stats).saturating_sub(bound));
    let allowed = stats.item_bytes * (100 - u64::from(target.occupancy_percent.min(100))) / 100;
    let sparse = if target.occupancy_percent == 0 { 0 } else { stats.dead_bytes.saturating_sub(allowed) };
    bound.max(sparse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleaner::Reason;

    fn compact(below_percent: usize) -> Task {
        Task { below_percent, ..Task::CHEAP }
    }

    fn stats(live: u64, dead: u64) -> Stats {
        let bytes = live + dead;
        Stats { item_bytes: live, dead_bytes: dead, segment_bytes: bytes, capacity_bytes: bytes, ..Stats::default() }
    }

    fn target(occupancy_percent: u8, evict_to: Option<u64>) -> Target {
        Target { reason: Reason::Drift, occupancy_percent, evict_to_bytes: evict_to }
    }

    #[test]
    fn without_a_target_only_cheap_work_is_done() {
        assert_eq!(plan(&stats(10, 90), Target::NONE), Task::CHEAP);
    }

    #[test]
    fn drift_is_compacted_to_the_target_without_evictions() {
        assert_eq!(plan(&stats(10, 90), target(88, None)), compact(88));
        assert_eq!(plan(&stats(10, 90), target(97, None)), THOROUGH);
        assert_eq!(plan(&stats(10, 90), target(50, None)), compact(50));
        assert_eq!(plan(&stats(90, 10), target(88, None)), Task::CHEAP);
    }

    #[test]
    fn the_busy_bar_rises_with_the_distance_from_the_target() {
        let bar = |live| plan(&stats(live, 1000 - live), target(90, None));
        // With random overwrites, segments cleaned at 0.79 keep the total at 0.89, a stable state.
        assert_eq!([899, 888, 870, 700].map(bar), [78, 80, 84, 90].map(compact));
        assert_eq!(plan(&stats(900, 100), target(90, None)), Task::CHEAP);
    }

    #[test]
    fn over_the_bound_compacts_if_dead_bytes_suffice() {
        assert_eq!(plan(&stats(50, 50), target(0, Some(60))), THOROUGH);
        assert_eq!(plan(&stats(80, 20), target(0, Some(60))), EVICT, "live bytes alone exceed the bound");
        assert_eq!(plan(&stats(98, 2), target(0, Some(60))), EVICT);
        assert_eq!(plan(&stats(59, 2), target(0, Some(60))), THOROUGH);
        assert_eq!(plan(&stats(50, 5), target(0, Some(60))), Task::CHEAP);
        assert_eq!(plan(&stats(50, 10), target(0, Some(60))), Task::CHEAP, "the bound itself is allowed");
        let expired = Stats { expired_bytes: 25, ..stats(80, 20) };
        assert_eq!(plan(&expired, target(0, Some(60))), THOROUGH, "expired items are not live");
        let read = Stats { retired_bytes: 25, ..stats(50, 30) };
        assert_eq!(plan(&read, target(0, Some(60))), Task::CHEAP, "retired segments count as freed");
    }

    #[test]
    fn evicts_at_once_when_the_capacity_is_exceeded() {
        let with_capacity = |capacity_bytes| Stats { capacity_bytes, ..stats(500, 500) };
        let plan = |capacity_bytes| plan(&with_capacity(capacity_bytes), target(0, Some(900)));
        assert_eq!([1000, 990].map(plan), [THOROUGH, THOROUGH], "cleaning may exceed the capacity slightly");
        assert_eq!([980, 600].map(plan), [EVICT, EVICT]);
        let burst = Stats { capacity_bytes: 1000, in_flight_bytes: 100, ..stats(500, 500) };
        assert_eq!(super::plan(&burst, target(0, Some(900))), EVICT, "bytes in flight count as used");
        assert_eq!(super::plan(&with_capacity(600), target(88, None)), compact(88), "no eviction without a bound");
    }

    #[test]
    fn the_index_counts_as_used_and_live() {
        let with_index = |live, dead| Stats { index_bytes: 30, capacity_bytes: live + dead + 30, ..stats(live, dead) };
        assert_eq!(plan(&with_index(40, 0), target(0, Some(60))), EVICT);
        assert_eq!(plan(&with_index(20, 5), target(0, Some(60))), Task::CHEAP);
        assert_eq!(plan(&with_index(20, 15), target(0, Some(60))), THOROUGH);
    }

    #[test]
    fn progress_goes_from_0_to_99_percent() {
        let (start, target) = (stats(100, 900), target(100, None));
        let work = work_left(&start, target);
        assert_eq!((work, percent(&start, target, work)), (900, 0));
        let to_nine_tenths = Target { occupancy_percent: 90, ..target };
        assert_eq!(work_left(&stats(900, 300), to_nine_tenths), 210, "a tenth of the live bytes may be dead");
        assert_eq!(percent(&stats(100, 450), target, work), 50);
        assert_eq!(percent(&stats(100, 0), target, work), 99);
    }
}
