//! `ebb-bench expire`: how long after its deadline an expired item stays in memory.
//!
//! ```text
//!   one stream of writes ──► deadline ──expired, in memory──► dropped
//!                                     └──── lateness ───────┘  must be at most max(2 s, TTL ÷ 8)
//! ```
//! X1. An item is in memory as long as a read with an early timestamp finds it: the store compares deadlines with the
//!     caller's time. Every expired item is read repeatedly, so its lateness is measured and not derived from a count.
//! X2. The clock is the machine's. The cleaner waits in real time, so a faster manual clock would leave it less time
//!     than on a server. Instead, the cases run concurrently, each with its own store, cleaner and governor, and take as long
//!     as the longest: about 70 s.

use anyhow::{anyhow, bail};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::engine::{self, Governed, ValueBytes, Writer, is_held, size_within};
use super::process::pause;
use ebb_config::units::format::{bytes, count};
use ebb_config::units::{ByteSize, Span};
use ebb_engine::clock::Clock;
use ebb_engine::store::Store;
use ebb_terminal::{Outcome, Output, Table, output};

/// Measure how long expired items stay in memory.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb-bench expire
  ebb-bench expire --case mixed --case short
  ebb-bench expire --items 20000 --budget 16Mi --output json

Cases: mixed 99 % of the items live 10 s and 1 % 30 days, in one stream of writes;
spread evenly from 5 to 60 s; equal all 8 s; short all 1 s. A case ends one second after the
bound of the last expired item. The error of a lateness is at most 50 ms or an eighth of it,
whichever is more, and the lateness is never underestimated. `>` marks items that were still
in memory at the end. `held` is segments and index at the end, `live` the keys and values that
have not expired.")]
pub(crate) struct ExpireArgs {
    /// Cases to run; repeatable [default: all].
    #[arg(long = "case", value_enum, value_name = "CASE")]
    cases: Vec<Case>,
    /// Number of items per case.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=5_000_000))]
    items: u64,
    /// Budget of the engine per case; all items must fit.
    #[arg(long, value_name = "SIZE", default_value = "64Mi", value_parser = size_within(16 << 20, 4 << 30))]
    budget: ByteSize,
    /// Minimum and maximum size of a value, in bytes.
    #[arg(long, value_name = "MIN-MAX", default_value = "100-500")]
    value_bytes: ValueBytes,
    /// Duration of the writes.
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = write_span)]
    write: Span,
    /// Seed of keys, sizes and times to live.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

fn write_span(text: &str) -> anyhow::Result<Span> {
    match text.parse::<Span>()? {
        span @ Span(100..=60_000) => Ok(span),
        _ => Err(anyhow!("{text} is out of range (100ms to 60s)")),
    }
}

/// How long items live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// 99 % live 10 s and 1 % 30 days.
    Mixed,
    /// Evenly from 5 to 60 s.
    Spread,
    /// All 8 s.
    Equal,
    /// All 1 s.
    Short,
}

const THIRTY_DAYS_MS: u64 = 30 * 86_400_000;

impl Case {
    /// Draws a time to live.
    fn ttl_ms(self, random: &mut fastrand::Rng) -> u64 {
        match self {
            Self::Mixed if random.u32(0..100) == 0 => THIRTY_DAYS_MS,
            Self::Mixed => 10_000,
            Self::Spread => random.u64(5_000..=60_000),
            Self::Equal => 8_000,
            Self::Short => 1_000,
        }
    }

    /// The longest time to live that ends within the run.
    fn longest_ms(self) -> u64 {
        match self {
            Self::Mixed => 10_000,
            Self::Spread => 60_000,
            Self::Equal => 8_000,
            Self::Short => 1_000,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Mixed => "mixed: 99 % 10 s, 1 % 30 days",
            Self::Spread => "spread: 5 to 60 s",
            Self::Equal => "equal: 8 s",
            Self::Short => "short: 1 s",
        }
    }
}

/// Maximum allowed lateness of an item.
fn bound_ms(ttl_ms: u64) -> u64 {
    (ttl_ms / 8).max(2_000)
}

/// A time before every deadline.
const EARLY_MS: u64 = 1;
/// Interval between two checks of writes and expired items.
const STEP: Duration = Duration::from_millis(10);
/// Minimum interval between two reads of an expired item.
const LOOK_MS: u64 = 50;
/// Time to continue after the bound of the last item.
const LONGER_MS: u64 = 1_000;

/// Time of the next read of an item found `late_ms` after its deadline. Later items are read less often.
fn next_look_ms(now_ms: u64, late_ms: u64) -> u64 {
    now_ms + (late_ms / 8).max(LOOK_MS)
}

/// An item that expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Late {
    late_ms: u64,
    ttl_ms: u64,
    /// Whether it was still in memory at the end, so that its lateness is a lower bound.
    held: bool,
}

impl Late {
    fn percent_of_ttl(&self) -> f64 {
        self.late_ms as f64 * 100.0 / self.ttl_ms as f64
    }
}

/// Pending and expired items.
#[derive(Debug, Default)]
struct Expiring {
    /// Time of the next read, number, deadline and time to live of each item.
    pending: BinaryHeap<Reverse<(u64, u64, u64, u64)>>,
    late: Vec<Late>,
}

impl Expiring {
    fn add(&mut self, n: u64, deadline_ms: u64, ttl_ms: u64) {
        self.pending.push(Reverse((deadline_ms + LOOK_MS, n, deadline_ms, ttl_ms)));
    }

    /// Reads every item that is due.
    fn look(&mut self, now_ms: u64, mut is_held: impl FnMut(u64) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        while let Some(&Reverse((look_ms, n, deadline_ms, ttl_ms))) = self.pending.peek() {
            if look_ms > now_ms {
                break;
            }
            self.pending.pop();
            let late_ms = now_ms - deadline_ms;
            match is_held(n)? {
                true => self.pending.push(Reverse((next_look_ms(now_ms, late_ms), n, deadline_ms, ttl_ms))),
                false => self.late.push(Late { late_ms, ttl_ms, held: false }),
            }
        }
        Ok(())
    }

    /// Reads all expired items a last time.
    fn end(mut self, now_ms: u64, mut is_held: impl FnMut(u64) -> anyhow::Result<bool>) -> anyhow::Result<Vec<Late>> {
        for Reverse((_, n, deadline_ms, ttl_ms)) in self.pending.into_iter().filter(|item| item.0.2 <= now_ms) {
            self.late.push(Late { late_ms: now_ms - deadline_ms, ttl_ms, held: is_held(n)? });
        }
        Ok(self.late)
    }
}

/// Lateness of all items.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Lateness {
    expired: u64,
    /// Number of items above the bound.
    over_bound: u64,
    /// Number of items in memory at the end.
    held: u64,
    worst_ms: u64,
    worst_held: bool,
    p99_ms: u64,
    p99_held: bool,
    /// In percent of the item's own time to live.
    worst_percent: f64,
    p99_percent: f64,
}

impl Lateness {
    fn of(late: &[Late]) -> Self {
        let mut by_time: Vec<_> = late.iter().map(|late| (late.late_ms, late.held)).collect();
        by_time.sort_unstable();
        let mut by_share: Vec<_> = late.iter().map(Late::percent_of_ttl).collect();
        by_share.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| (late.len() * percent).div_ceil(100).saturating_sub(1);
        let time = |percent| by_time.get(at(percent)).copied().unwrap_or_default();
        let share = |percent| by_share.get(at(percent)).copied().unwrap_or_default();
        let ((worst_ms, worst_held), (p99_ms, p99_held)) = (time(100), time(99));
        Self {
            expired: late.len() as u64,
            over_bound: late.iter().filter(|late| late.late_ms > bound_ms(late.ttl_ms)).count() as u64,
            held: late.iter().filter(|late| late.held).count() as u64,
            worst_ms,
            worst_held,
            p99_ms,
            p99_held,
            worst_percent: share(100),
            p99_percent: share(99),
        }
    }
}

/// Result of one case.
#[derive(Clone, Copy, Debug)]
struct Row {
    case: Case,
    lateness: Lateness,
    /// Segments and index at the end.
    held_bytes: u64,
    /// Keys and values that had not expired at the end.
    live_bytes: u64,
}

impl Row {
    fn held_to_live(&self) -> Option<f64> {
        (self.live_bytes > 0).then(|| self.held_bytes as f64 / self.live_bytes as f64)
    }
}

pub(super) fn run(args: ExpireArgs) -> Outcome {
    let cases = if args.cases.is_empty() { Case::value_variants().to_vec() } else { args.cases.clone() };
    let longest = cases.iter().map(|case| length_ms(*case, args.write)).max().unwrap_or_default();
    output::note(format_args!("expire: {} concurrent cases for {} s", cases.len(), longest.div_ceil(1000)));
    let rows: anyhow::Result<Vec<Row>> = std::thread::scope(|scope| {
        let threads: Vec<_> = cases.iter().map(|case| scope.spawn(|| measure(&args, *case))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a case panicked")))).collect()
    });
    let rows = rows?;
    match args.output {
        Output::Json => output::json(&as_json(&args, &rows)),
        Output::Text => output::line(as_text(&args, &rows).trim_end()),
    }
}

/// Duration of a case.
fn length_ms(case: Case, write: Span) -> u64 {
    write.0 + case.longest_ms() + bound_ms(case.longest_ms()) + LONGER_MS
}

fn measure(args: &ExpireArgs, case: Case) -> anyhow::Result<Row> {
    let (clock, store) = (Clock::monotonic(), engine::store(args.budget.0, args.seed)?);
    let _governed = Governed::start(&store, &clock)?;
    let mut writer = Writer::new(&store, &clock, args.value_bytes, args.seed);
    let mut expiring = Expiring::default();
    let (started_ms, mut written, mut live_bytes) = (clock.now_ms(), 0, 0);
    let end_ms = started_ms + length_ms(case, args.write);
    let held = |store: &Arc<Store>, n| is_held(store, n, EARLY_MS);
    while clock.now_ms() < end_ms {
        let due = (clock.now_ms() - started_ms) * args.items / args.write.0;
        while written < due.min(args.items) {
            let (now_ms, ttl_ms) = (clock.now_ms(), case.ttl_ms(&mut writer.random));
            let before = writer.stored_bytes;
            writer.set(written, now_ms + ttl_ms)?;
            match ttl_ms == THIRTY_DAYS_MS {
                true => live_bytes += writer.stored_bytes - before,
                false => expiring.add(written, now_ms + ttl_ms, ttl_ms),
            }
            written += 1;
        }
        expiring.look(clock.now_ms(), |n| held(&store, n))?;
        pause(STEP);
    }
    let late = expiring.end(clock.now_ms(), |n| held(&store, n))?;
    let stats = store.stats();
    if stats.evictions + writer.refused > 0 {
        let (case, evicted) = (case.describe(), stats.evictions + writer.refused);
        bail!("{case}: {evicted} items were evicted or refused; raise --budget or lower --items");
    }
    let held_bytes = stats.segment_bytes + stats.index_bytes;
    Ok(Row { case, lateness: Lateness::of(&late), held_bytes, live_bytes })
}

fn as_text(args: &ExpireArgs, rows: &[Row]) -> String {
    let mut table = Table::new([
        "case",
        "expired",
        "late, p99",
        "of its TTL",
        "late, worst",
        "of its TTL",
        "over bound",
        "still there",
        "held",
        "live",
        "held ÷ live",
    ]);
    for row in rows {
        let Lateness { expired, over_bound, held, worst_ms, worst_held, p99_ms, p99_held, .. } = row.lateness;
        let sign = |held| if held { "> " } else { "" };
        let seconds = |ms: u64, held| format!("{}{:.2} s", sign(held), ms as f64 / 1000.0);
        table.row([
            row.case.describe().to_owned(),
            count(expired),
            seconds(p99_ms, p99_held),
            format!("{:.0} %", row.lateness.p99_percent),
            seconds(worst_ms, worst_held),
            format!("{:.0} %", row.lateness.worst_percent),
            count(over_bound),
            count(held),
            bytes(row.held_bytes),
            bytes(row.live_bytes),
            row.held_to_live().map_or("-".into(), |ratio| format!("{ratio:.2}")),
        ]);
    }
    format!(
        "{} items of 16 + {} B in each case, written in {}; bound: max(2 s, TTL ÷ 8); seed {}\n\n{table}",
        count(args.items),
        args.value_bytes,
        args.write,
        args.seed,
    )
}

fn as_json(args: &ExpireArgs, rows: &[Row]) -> Value {
    let one = |row: &Row| {
        let late = row.lateness;
        json!({
            "case": row.case.to_possible_value().map(|value| value.get_name().to_owned()),
            "expired_items": late.expired,
            "late_p99_ms": late.p99_ms,
            "late_p99_percent_of_ttl": late.p99_percent,
            "late_worst_ms": late.worst_ms,
            "late_worst_percent_of_ttl": late.worst_percent,
            "over_bound_items": late.over_bound,
            "held_items": late.held,
            "held_bytes": row.held_bytes,
            "live_bytes": row.live_bytes,
            "held_to_live": row.held_to_live(),
        })
    };
    json!({
        "items": args.items,
        "budget_bytes": args.budget.0,
        "write_ms": args.write.0,
        "seed": args.seed,
        "cases": rows.iter().map(one).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_option_is_refused_with_its_name_and_bound() {
        let cases = [
            (["--items", "1"], ["--items", "1000..=5000000"]),
            (["--write", "1h"], ["--write", "100ms to 60s"]),
            (["--budget", "1Mi"], ["--budget", "16Mi to 4Gi"]),
            (["--case", "all"], ["--case", "mixed, spread, equal, short"]),
        ];
        crate::testing::assert_refused("expire", &cases);
    }

    #[test]
    fn one_item_in_a_hundred_of_the_mixed_case_lives_on() {
        let mut random = fastrand::Rng::with_seed(1);
        let long = (0..100_000).filter(|_| Case::Mixed.ttl_ms(&mut random) == THIRTY_DAYS_MS).count();
        assert!((900..1100).contains(&long), "{long}");
        let spread: Vec<_> = (0..10_000).map(|_| Case::Spread.ttl_ms(&mut random)).collect();
        assert!(spread.iter().all(|ttl| (5_000..=60_000).contains(ttl)));
    }

    #[test]
    fn an_item_is_as_late_as_the_look_that_misses_it() {
        let mut expiring = Expiring::default();
        expiring.add(1, 1_000, 500);
        expiring.add(2, 1_000, 500);
        expiring.add(3, 9_000, 500);
        // Item 1 is dropped at 1,300; item 2 stays.
        for now_ms in (0..5_000).step_by(10) {
            expiring.look(now_ms, |n| Ok(n != 1 || now_ms < 1_300)).unwrap();
        }
        let late = expiring.end(5_000, |_| Ok(true)).unwrap();
        assert_eq!(late.len(), 2, "item 3 has not expired: {late:?}");
        assert!((300..=350).contains(&late[0].late_ms) && !late[0].held, "{late:?}");
        assert_eq!(late[1], Late { late_ms: 4_000, ttl_ms: 500, held: true });
    }

    #[test]
    fn percentiles_and_bounds_are_of_each_items_own_ttl() {
        let late = |late_ms, ttl_ms| Late { late_ms, ttl_ms, held: late_ms > 8_000 };
        let mut items = vec![late(100, 1_000); 98];
        items.extend([late(3_000, 60_000), late(9_000, 60_000)]);
        let lateness = Lateness::of(&items);
        assert_eq!((lateness.p99_ms, lateness.p99_held), (3_000, false));
        assert_eq!((lateness.worst_ms, lateness.worst_held, lateness.worst_percent), (9_000, true, 15.0));
        assert_eq!((lateness.over_bound, lateness.held), (1, 1), "3 s are within an eighth of 60 s");
        assert_eq!(Lateness::of(&[]), Lateness::default());
        assert_eq!([1_000, 16_000, 80_000].map(bound_ms), [2_000, 2_000, 10_000]);
    }
}
