//! What to do next, as a pure function of the account and the order. The thread only carries it out.

use super::receipt::Order;
use crate::store::{Stats, Task};

/// What the cleaner is doing about an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// What costs next to nothing: segments without a live item, what has expired, what was declared void.
    Tidy,
    /// Compact segments emptier than this, in percent.
    Compact {
        /// The bound.
        below_percent: usize,
        /// Open segments too: nothing more is expected soon.
        thorough: bool,
    },
    /// Evict until enough is free.
    Evict,
}

/// From this target on a compaction takes open segments too.
const THOROUGH_PERCENT: u8 = 93;

/// While callers write or delete much, a segment fuller than this is left alone: what is copied now may be dead soon.
const BUSY_BELOW_PERCENT: usize = 85;

/// How full segments are of live bytes, in percent; 100 when there are none.
pub(super) fn occupancy_percent(stats: &Stats) -> u64 {
    (stats.item_bytes * 100).checked_div(stats.item_bytes + stats.dead_bytes).unwrap_or(100)
}

/// Bytes the engine uses.
fn used(stats: &Stats) -> u64 {
    stats.segment_bytes + stats.index_bytes + stats.in_flight_bytes
}

/// Decides. Eviction comes first only if compaction could not do it: when what is live, with the index, is above the
/// bound by itself.
pub(super) fn plan(stats: &Stats, order: Order) -> Plan {
    let over = order.evict_to_bytes.is_some_and(|bound| used(stats) > bound);
    let live = stats.item_bytes + stats.index_bytes + stats.in_flight_bytes;
    let compaction_is_enough = order.evict_to_bytes.is_none_or(|bound| live <= bound);
    let target = u64::from(order.target_occupancy_percent);
    let sparse = occupancy_percent(stats) < target.max(if over { 90 } else { 0 });
    match (over, sparse) {
        (true, false) => Plan::Evict,
        (true, true) if !compaction_is_enough => Plan::Evict,
        (true, true) => Plan::Compact { below_percent: 98, thorough: true },
        (false, true) if order.target_occupancy_percent >= THOROUGH_PERCENT => {
            Plan::Compact { below_percent: 98, thorough: true }
        }
        (false, true) => Plan::Compact { below_percent: BUSY_BELOW_PERCENT.min(target as usize), thorough: false },
        (false, false) => Plan::Tidy,
    }
}

impl Plan {
    /// As the store is told.
    pub(super) fn task(self) -> Task {
        match self {
            Self::Tidy => Task { below_percent: 0, thorough: false, evict: false },
            Self::Compact { below_percent, thorough } => Task { below_percent, thorough, evict: false },
            Self::Evict => Task { below_percent: 0, thorough: true, evict: true },
        }
    }
}

/// How much of an order is done, 0 to 99, given what was dead or too much at its beginning and is now.
pub(super) fn percent(stats: &Stats, order: Order, at_start: u64) -> u8 {
    let left = work_left(stats, order);
    100_u64.saturating_sub((left * 100).div_ceil(at_start.max(1))).min(99) as u8
}

/// Bytes an order still has to free.
pub(super) fn work_left(stats: &Stats, order: Order) -> u64 {
    let bound = order.evict_to_bytes.map_or(0, |bound| used(stats).saturating_sub(bound));
    let allowed = stats.item_bytes * (100 - u64::from(order.target_occupancy_percent.min(100))) / 100;
    let sparse = if order.target_occupancy_percent == 0 { 0 } else { stats.dead_bytes.saturating_sub(allowed) };
    bound.max(sparse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleaner::Reason;

    fn stats(live: u64, dead: u64) -> Stats {
        Stats { item_bytes: live, dead_bytes: dead, segment_bytes: live + dead, ..Stats::default() }
    }

    fn order(target: u8, evict_to: Option<u64>) -> Order {
        Order { reason: Reason::Drift, target_occupancy_percent: target, evict_to_bytes: evict_to }
    }

    #[test]
    fn at_rest_only_what_costs_nothing_is_done() {
        assert_eq!(plan(&stats(10, 90), Order::REST), Plan::Tidy);
    }

    #[test]
    fn drift_is_compacted_until_the_target_and_no_item_is_evicted_for_it() {
        assert_eq!(plan(&stats(10, 90), order(88, None)), Plan::Compact { below_percent: 85, thorough: false });
        assert_eq!(plan(&stats(10, 90), order(97, None)), Plan::Compact { below_percent: 98, thorough: true });
        assert_eq!(plan(&stats(10, 90), order(50, None)), Plan::Compact { below_percent: 50, thorough: false });
        assert_eq!(plan(&stats(90, 10), order(88, None)), Plan::Tidy);
    }

    #[test]
    fn over_the_bound_the_dead_go_first_if_that_is_enough() {
        assert_eq!(plan(&stats(50, 50), order(0, Some(60))), Plan::Compact { below_percent: 98, thorough: true });
        assert_eq!(plan(&stats(80, 20), order(0, Some(60))), Plan::Evict, "the live alone are too much");
        assert_eq!(plan(&stats(98, 2), order(0, Some(60))), Plan::Evict);
        assert_eq!(plan(&stats(50, 5), order(0, Some(60))), Plan::Tidy);
    }

    #[test]
    fn progress_goes_from_nothing_to_almost_done() {
        let (start, order) = (stats(100, 900), order(100, None));
        let work = work_left(&start, order);
        assert_eq!((work, percent(&start, order, work)), (900, 0));
        assert_eq!(percent(&stats(100, 450), order, work), 50);
        assert_eq!(percent(&stats(100, 0), order, work), 99);
    }
}
