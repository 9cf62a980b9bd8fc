//! What to do next, as a pure function of the account and the target. The thread only carries it out.

use super::report::Target;
use crate::store::{Stats, Task};

/// From this target on a compaction takes open segments too.
const THOROUGH_PERCENT: u8 = 93;

/// Compact whatever frees something, open segments too.
const THOROUGH: Task = Task { below_percent: 98, thorough: true, ..Task::CHEAP };
/// Free a segment, whatever lives in it.
const EVICT: Task = Task { thorough: true, evict: true, ..Task::CHEAP };

/// What cleaning itself may use beyond the capacity, as a fraction of it: open segments of a thread or two.
const OVERDRAFT: u64 = 64;

/// Segments emptier than this are compacted whenever anything is: they give more than they cost.
const EMPTY_PERCENT: usize = 50;

/// How full segments are of live bytes, in thousandths; 1000 when there are none.
fn occupancy_permille(stats: &Stats) -> u64 {
    (stats.item_bytes * 1000).checked_div(stats.item_bytes + stats.dead_bytes).unwrap_or(1000)
}

/// How empty a segment must be, while callers write much, for its live items to be worth copying: what is copied now may
/// be dead soon, so the fewer the better, as long as the whole stays near its target.
///
/// A log whose keys are overwritten at random stays at an occupancy U when segments are cleaned as they fall below u,
/// where U = (u - 1) ÷ ln u (Desnoyers, SYSTOR 2012); near 0.9 that is u = 1 - 1.9 (1 - U). The bar starts a little below
/// this level and follows the whole closely, so it finds the level that a more favourable load allows.
fn busy_bar_percent(occupancy_permille: u64, target_percent: u64) -> usize {
    let wanted = target_percent * 10;
    let level = 1000_u64.saturating_sub((1000 - wanted.min(1000)) * 19 / 10);
    let missing = wanted.saturating_sub(occupancy_permille);
    ((level + 2 * missing).saturating_sub(30) / 10).min(90) as usize
}

/// Bytes the engine uses, without those that come back by themselves.
fn used(stats: &Stats) -> u64 {
    stats.segment_bytes.saturating_sub(stats.retired_bytes) + stats.index_bytes + stats.in_flight_bytes
}

/// Whether the engine uses more than a target allows.
pub(super) fn is_over(stats: &Stats, target: Target) -> bool {
    target.evict_to_bytes.is_some_and(|bound| used(stats) > bound)
}

/// Whether the engine uses more than its capacity, because the rest of the process grew, bytes in flight grew or the limit
/// fell. The cleaner itself exceeds the capacity by less than this when it copies.
pub(super) fn is_overdrawn(stats: &Stats) -> bool {
    used(stats) > stats.capacity_bytes.saturating_add(stats.capacity_bytes / OVERDRAFT)
}

/// Chooses the next task. While the live bytes and the index fit the bound, the cleaner compacts and evicts nothing. If
/// memory was taken from the engine, it evicts at once: compaction is too slow to give that memory back in time.
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

/// How much of a target is done, 0 to 99, given what was dead or too much at its beginning and is now.
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
    fn at_rest_only_what_costs_nothing_is_done() {
        assert_eq!(plan(&stats(10, 90), Target::NONE), Task::CHEAP);
    }

    #[test]
    fn drift_is_compacted_until_the_target_and_no_item_is_evicted_for_it() {
        assert_eq!(plan(&stats(10, 90), target(88, None)), compact(88));
        assert_eq!(plan(&stats(10, 90), target(97, None)), THOROUGH);
        assert_eq!(plan(&stats(10, 90), target(50, None)), compact(50));
        assert_eq!(plan(&stats(90, 10), target(88, None)), Task::CHEAP);
    }

    #[test]
    fn while_callers_write_the_bar_rises_as_the_whole_falls_behind_its_target() {
        let bar = |live| plan(&stats(live, 1000 - live), target(90, None));
        // Overwritten at random, segments cleaned at 0.79 leave the whole at 0.89: there it comes to rest.
        assert_eq!([899, 888, 870, 700].map(bar), [78, 80, 84, 90].map(compact));
        assert_eq!(plan(&stats(900, 100), target(90, None)), Task::CHEAP);
    }

    #[test]
    fn over_the_bound_the_dead_go_first_if_that_is_enough() {
        assert_eq!(plan(&stats(50, 50), target(0, Some(60))), THOROUGH);
        assert_eq!(plan(&stats(80, 20), target(0, Some(60))), EVICT, "the live alone are too much");
        assert_eq!(plan(&stats(98, 2), target(0, Some(60))), EVICT);
        assert_eq!(plan(&stats(59, 2), target(0, Some(60))), THOROUGH);
        assert_eq!(plan(&stats(50, 5), target(0, Some(60))), Task::CHEAP);
        assert_eq!(plan(&stats(50, 10), target(0, Some(60))), Task::CHEAP, "the bound itself is allowed");
        let expired = Stats { expired_bytes: 25, ..stats(80, 20) };
        assert_eq!(plan(&expired, target(0, Some(60))), THOROUGH, "what has expired is not live");
        let read = Stats { retired_bytes: 25, ..stats(50, 30) };
        assert_eq!(plan(&read, target(0, Some(60))), Task::CHEAP, "what is on its way back is not freed twice");
    }

    #[test]
    fn memory_that_was_taken_from_the_engine_is_given_back_at_once() {
        let with_capacity = |capacity_bytes| Stats { capacity_bytes, ..stats(500, 500) };
        let plan = |capacity_bytes| plan(&with_capacity(capacity_bytes), target(0, Some(900)));
        assert_eq!([1000, 990].map(plan), [THOROUGH, THOROUGH], "cleaning itself takes a little more");
        assert_eq!([980, 600].map(plan), [EVICT, EVICT]);
        let burst = Stats { capacity_bytes: 1000, in_flight_bytes: 100, ..stats(500, 500) };
        assert_eq!(super::plan(&burst, target(0, Some(900))), EVICT, "bytes in flight take memory from it, too");
        assert_eq!(super::plan(&with_capacity(600), target(88, None)), compact(88), "without a target to evict: never");
    }

    #[test]
    fn the_index_counts_as_used_and_as_live() {
        let with_index = |live, dead| Stats { index_bytes: 30, capacity_bytes: live + dead + 30, ..stats(live, dead) };
        assert_eq!(plan(&with_index(40, 0), target(0, Some(60))), EVICT);
        assert_eq!(plan(&with_index(20, 5), target(0, Some(60))), Task::CHEAP);
        assert_eq!(plan(&with_index(20, 15), target(0, Some(60))), THOROUGH);
    }

    #[test]
    fn progress_goes_from_nothing_to_almost_done() {
        let (start, target) = (stats(100, 900), target(100, None));
        let work = work_left(&start, target);
        assert_eq!((work, percent(&start, target, work)), (900, 0));
        let to_nine_tenths = Target { occupancy_percent: 90, ..target };
        assert_eq!(work_left(&stats(900, 300), to_nine_tenths), 210, "a tenth of the live bytes may be dead");
        assert_eq!(percent(&stats(100, 450), target, work), 50);
        assert_eq!(percent(&stats(100, 0), target, work), 99);
    }
}
