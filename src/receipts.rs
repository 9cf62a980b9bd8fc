//! Selects and sums up receipts for the log.
//!
//! ```text
//!  receipt ──► no line for its reason in the last ten seconds? ──yes──► its own line, at once
//!                              └──no──► summed with others of its reason ──► one line, ten seconds after their last
//! ```
//! R1. Each receipt is in exactly one line, so the lines of a reason add up to the cleaner's total.
//! R2. Receipts are numbered from 1. The cleaner keeps only a few, so some may be missed between two polls. Gaps in the
//!     numbers show this, and the next line reports the number of missed receipts.

use ebb_engine::cleaner::{Reason, Report};
use strum::EnumCount as _;

/// Time without lines of a reason after which its next receipt gets its own line, in milliseconds.
const QUIET_MS: u64 = 10_000;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Number of runs in the line.
    pub(crate) runs: u64,
    /// Sum of their receipts, from before the first to after the last run, with the number of the last.
    pub(crate) sum: Report,
    /// Missed receipts since the previous line.
    pub(crate) missed: u64,
}

/// Logged and pending receipts.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// By reason, in the order of [`Reason`].
    reasons: [OfReason; Reason::COUNT],
    /// The number of the last known receipt.
    last: u64,
    missed: u64,
}

#[derive(Debug, Default)]
struct OfReason {
    logged_at_ms: Option<u64>,
    waiting: Option<Line>,
}

impl Receipts {
    /// The number of the last known receipt.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Adds receipts and returns the due lines, oldest first. `is_each` gives each receipt its own line.
    pub(crate) fn look(&mut self, now_ms: u64, is_each: bool, new: &[Report]) -> Vec<Line> {
        let mut due = self.waiting(|at| is_each || now_ms >= at + QUIET_MS, now_ms);
        for receipt in new {
            self.missed += receipt.id - self.last - 1;
            self.last = receipt.id;
            let of = &mut self.reasons[receipt.reason as usize];
            let line = Line { runs: 1, sum: receipt.clone(), missed: 0 };
            match &mut of.waiting {
                _ if is_each || of.logged_at_ms.is_none_or(|at| now_ms >= at + QUIET_MS) => {
                    of.logged_at_ms = Some(now_ms);
                    due.push(line);
                }
                Some(waiting) => waiting.add(receipt),
                waiting @ None => *waiting = Some(line),
            }
        }
        self.say_missed(due)
    }

    /// The lines of all pending receipts, at the end.
    pub(crate) fn rest(&mut self) -> Vec<Line> {
        let rest = self.waiting(|_| true, 0);
        self.say_missed(rest)
    }

    /// Takes the pending lines of reasons that are due.
    fn waiting(&mut self, is_due: impl Fn(u64) -> bool, now_ms: u64) -> Vec<Line> {
        let due = self.reasons.iter_mut().filter(|of| of.logged_at_ms.is_some_and(&is_due));
        let mut lines: Vec<Line> = due
            .filter_map(|of| {
                let line = of.waiting.take()?;
                of.logged_at_ms = Some(now_ms);
                Some(line)
            })
            .collect();
        lines.sort_by_key(|line| line.sum.id);
        lines
    }

    fn say_missed(&mut self, mut lines: Vec<Line>) -> Vec<Line> {
        if let Some(first) = lines.first_mut() {
            first.missed = std::mem::take(&mut self.missed);
        }
        lines
    }
}

impl Line {
    /// Adds a later receipt.
    fn add(&mut self, next: &Report) {
        self.runs += 1;
        self.sum.id = next.id;
        self.sum.cost.add(&next.cost);
        self.sum.done.add(&next.done);
        self.sum.after = next.after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_engine::cleaner::{Account, Cost, ProcessMemory};
    use ebb_engine::store::Tally;

    /// A run that moved as many bytes as its number and lowered RSS from 100 times its number by one.
    fn receipt(id: u64, reason: Reason) -> Report {
        let account = |rss_bytes| Account {
            process: ProcessMemory { rss_bytes, ..ProcessMemory::default() },
            ..Account::default()
        };
        let (before, after) = (account(id * 100), account(id * 100 - 1));
        Report {
            id,
            reason,
            cost: Cost { cpu_us: 10, longest_step_us: 50 - id, ..Cost::default() },
            done: Tally { moved_bytes: id, ..Tally::default() },
            before,
            after,
            ..Report::default()
        }
    }

    /// Number, reason, runs and missed receipts of each line.
    fn told(lines: &[Line]) -> Vec<(u64, Reason, u64, u64)> {
        lines.iter().map(|line| (line.sum.id, line.sum.reason, line.runs, line.missed)).collect()
    }

    #[test]
    fn logs_the_first_receipt_at_once_and_sums_up_repeats() {
        use Reason::{Drift, High};
        let mut log = Receipts::default();
        let mut look = |second: u64, new: &[Report]| log.look(second * 1000, false, new);
        let first = receipt(1, Drift);
        assert_eq!(look(0, std::slice::from_ref(&first)), [Line { runs: 1, sum: first, missed: 0 }], "all its figures");
        assert_eq!(look(1, &[receipt(2, Drift)]), [], "a repeat");
        assert_eq!(told(&look(2, &[receipt(3, Drift), receipt(4, High)])), [(4, High, 1, 0)], "another reason");
        assert_eq!(look(9, &[receipt(5, Drift)]), []);
        let repeats = look(10, &[receipt(6, Drift)]);
        assert_eq!(told(&repeats), [(5, Drift, 3, 0)], "the sixth is a repeat of this line");
        let sum = &repeats[0].sum;
        assert_eq!((sum.done.moved_bytes, sum.cost.cpu_us, sum.cost.longest_step_us), (10, 30, 48));
        assert_eq!((sum.before.process.rss_bytes, sum.after.process.rss_bytes), (200, 499));
        assert_eq!(look(19, &[]), []);
        assert_eq!(told(&look(20, &[])), [(6, Drift, 1, 0)], "nobody waits for one more to come");
        assert_eq!(told(&look(40, &[receipt(7, Drift)])), [(7, Drift, 1, 0)], "calm is over: at once");
    }

    #[test]
    fn each_receipt_has_its_own_line_if_requested() {
        use Reason::Drift;
        let mut log = Receipts::default();
        let told_now = told(&log.look(0, false, &[receipt(1, Drift), receipt(2, Drift), receipt(3, Drift)]));
        assert_eq!(told_now, [(1, Drift, 1, 0)]);
        let told_now = told(&log.look(1000, true, &[receipt(4, Drift), receipt(5, Drift)]));
        assert_eq!(told_now, [(3, Drift, 2, 0), (4, Drift, 1, 0), (5, Drift, 1, 0)], "first what waited");
        assert_eq!(log.look(2000, false, &[receipt(6, Drift)]), []);
        assert_eq!(told(&log.rest()), [(6, Drift, 1, 0)]);
        assert_eq!(log.rest(), []);
    }

    #[test]
    fn what_was_never_seen_is_counted_in_the_next_line() {
        use Reason::{Critical, Drift};
        let mut log = Receipts::default();
        assert_eq!(told(&log.look(0, false, &[receipt(3, Drift)])), [(3, Drift, 1, 2)]);
        assert_eq!(log.look(1000, false, &[receipt(8, Drift)]), []);
        assert_eq!(log.last(), 8);
        assert_eq!(told(&log.look(2000, false, &[receipt(10, Critical)])), [(10, Critical, 1, 5)]);
        assert_eq!(told(&log.rest()), [(8, Drift, 1, 0)]);
    }
}
