//! Selects changes of regime for the log (pure).
//!
//! A full cache changes its regime several times a second. The first change after a quiet period is logged at once.
//! Changes within ten seconds after a line are summed up in one line, with their number and the duration of each
//! regime.

use crate::governor::Snapshot;
use ebb_engine::decide::Regime;
use strum::EnumCount as _;

/// Minimum interval between lines, in milliseconds.
const DWELL_MS: u64 = 10_000;

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The regime of the previous line.
    pub(crate) from: Regime,
    /// The regime now.
    pub(crate) to: Regime,
    /// Number of changes since the previous line.
    pub(crate) changes: u64,
    /// Duration of each regime since then, in milliseconds, in the order of [`Regime`].
    pub(crate) held_ms: [u64; Regime::COUNT],
}

/// The logged state.
#[derive(Debug, Default)]
pub(crate) struct Regimes {
    logged_at_ms: Option<u64>,
    regime: Regime,
    changes: u64,
    in_regime_ms: [u64; Regime::COUNT],
}

impl Regimes {
    /// The due line, if any.
    pub(crate) fn look(&mut self, now_ms: u64, memory: &Snapshot) -> Option<Change> {
        let is_due = self.logged_at_ms.is_none_or(|at| now_ms >= at + DWELL_MS);
        if !is_due { None } else { self.rest(now_ms, memory) }
    }

    /// The line of pending changes, at the end.
    pub(crate) fn rest(&mut self, now_ms: u64, memory: &Snapshot) -> Option<Change> {
        let changes = memory.regime_changes - self.changes;
        if changes == 0 {
            return None;
        }
        let held_ms = std::array::from_fn(|at| memory.in_regime_ms[at].saturating_sub(self.in_regime_ms[at]));
        let change = Change { from: self.regime, to: memory.regime, changes, held_ms };
        *self = Self {
            logged_at_ms: Some(now_ms),
            regime: memory.regime,
            changes: memory.regime_changes,
            in_regime_ms: memory.in_regime_ms,
        };
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(regime: Regime, regime_changes: u64, in_regime_ms: [u64; Regime::COUNT]) -> Snapshot {
        Snapshot { regime, regime_changes, in_regime_ms, ..Snapshot::default() }
    }

    #[test]
    fn a_change_after_a_quiet_time_is_logged_at_once() {
        let mut log = Regimes::default();
        assert_eq!(log.look(0, &memory(Regime::Calm, 0, [0; 4])), None);
        let change = Change { from: Regime::Calm, to: Regime::High, changes: 1, held_ms: [5_000, 0, 0, 0] };
        assert_eq!(log.look(5_000, &memory(Regime::High, 1, [5_000, 0, 0, 0])), Some(change));
        assert_eq!(log.look(6_000, &memory(Regime::High, 1, [5_000, 0, 1_000, 0])), None, "it holds");
        let change = Change { from: Regime::High, to: Regime::Calm, changes: 1, held_ms: [0, 0, 60_000, 0] };
        assert_eq!(log.look(65_000, &memory(Regime::Calm, 2, [5_000, 0, 60_000, 0])), Some(change));
    }

    #[test]
    fn a_cache_that_flaps_has_a_line_in_ten_seconds() {
        let mut log = Regimes::default();
        let mut lines = Vec::new();
        for second in 0..27_u64 {
            let (regime, held) = if second % 2 == 0 { (Regime::High, 0) } else { (Regime::Calm, 500) };
            let now = memory(regime, (second + 1) * 6, [second * 500 + held, 0, second * 500, 0]);
            lines.extend(log.look(second * 1_000, &now));
        }
        assert_eq!(lines.iter().map(|line| line.changes).collect::<Vec<_>>(), [6, 60, 60]);
        lines.extend(log.rest(27_000, &memory(Regime::High, 163, [13_500, 0, 13_500, 0])));
        assert_eq!(lines.iter().map(|line| line.changes).sum::<u64>(), 163, "each change is in one line");
    }
}
