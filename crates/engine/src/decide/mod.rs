//! What the governor makes of a reading: a pure function, so that it can be told as scenarios.
//!
//! ```text
//!  limit ──less the reserve──► ceiling ──less overhead──► budget of the engine
//!
//!  use ÷ budget    0 ────────────────── low ──────── high ── critical ── 1
//!  evicts                               stop ◄────── start               refuse
//! ```
//! Two reasons, never mixed. **Eviction** follows what the engine uses against its budget: dropping live items lowers
//! exactly that. **Compaction** follows dead bytes as a share of the live: moving items lowers exactly those. Memory
//! that nobody accounts for lowers the budget, by no more than three quarters: evicting a whole cache would not bring it back.
//!
//! D1. The budget never exceeds the ceiling.
//! D2. Nothing is evicted while what is live fits the low watermark.
//! D3. Every regime but calm ends by itself once its cause has gone: no state refers to an earlier state but for the
//!     space between low and high.

use crate::cleaner::{Reason, Target};
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// One reading of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// The clock, in milliseconds.
    pub now_ms: u64,
    /// The limit that is obeyed: the smallest there is.
    pub limit_bytes: u64,
    /// What counts against it.
    pub used_bytes: u64,
    /// What the engine accounts for: segments, index, bytes in flight.
    pub engine_bytes: u64,
    /// Items that are live, with the index and bytes in flight: what compaction cannot lower.
    pub live_bytes: u64,
    /// Items that are live, alone.
    pub item_bytes: u64,
    /// Bytes in segments that nobody can reach.
    pub dead_bytes: u64,
    /// Bytes that callers have written, replaced or deleted since the process started.
    pub changed_bytes: u64,
    /// The share of the last 10 s in which somebody in the container waited for memory, in percent.
    pub pressure_percent: f64,
}

impl Sample {
    /// What is used that the engine does not account for.
    fn overhead_bytes(&self) -> u64 {
        self.used_bytes.saturating_sub(self.engine_bytes)
    }
}

/// What the rules go by: see the configuration, where each is described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Kept free under the limit, in percent of it.
    pub reserve_percent: u64,
    /// Kept free under the limit at the least, in bytes.
    pub reserve_bytes: u64,
    /// Of the budget, in percent: eviction stops.
    pub low_percent: u64,
    /// Eviction starts.
    pub high_percent: u64,
    /// Eviction is urgent.
    pub critical_percent: u64,
    /// Whether compaction starts by itself.
    pub compacts: bool,
    /// Dead bytes in percent of live ones at which compaction starts.
    pub dead_percent: u64,
    /// How full segments are made while callers write much.
    pub busy_occupancy_percent: u8,
    /// And while they do not.
    pub idle_occupancy_percent: u8,
    /// How far the slope of the engine's use is followed into the future, in milliseconds.
    pub look_ahead_ms: u64,
    /// From this pressure on the container is taken to be short of memory, in percent.
    pub pressure_percent: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            reserve_percent: 6,
            reserve_bytes: 4 << 20,
            low_percent: 88,
            high_percent: 94,
            critical_percent: 98,
            compacts: true,
            dead_percent: 10,
            busy_occupancy_percent: 90,
            idle_occupancy_percent: 98,
            look_ahead_ms: 500,
            pressure_percent: 20.0,
        }
    }
}

/// What the memory is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Regime {
    /// Nothing to do.
    #[default]
    Calm,
    /// Dead bytes passed their share: compact.
    Drift,
    /// The high watermark was reached: evict down to the low one.
    High,
    /// The critical watermark was reached.
    Critical,
}

impl Regime {
    /// The stable name.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether it is left by evicting.
    pub fn evicts(self) -> bool {
        matches!(self, Self::High | Self::Critical)
    }
}

/// What was decided, and what the next decision needs to know of this one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// What the memory is like.
    pub regime: Regime,
    /// What the engine may use.
    pub budget_bytes: u64,
    /// What the cleaner is told.
    pub target: Target,
    /// Peak of the recent overhead, in bytes.
    overhead_bytes: u64,
    before: Option<Sample>,
}

impl Default for Decision {
    fn default() -> Self {
        Self { regime: Regime::Calm, budget_bytes: 0, target: Target::NONE, overhead_bytes: 0, before: None }
    }
}

/// Dead bytes below this are never worth a run.
const WORTH_BYTES: u64 = 512 << 10;
/// How full segments are made while callers delete much: what is copied now may be deleted next, and the need for
/// memory is falling anyway. At 50, a random nine tenths deleted cost twice the copying.
const EMPTYING_OCCUPANCY_PERCENT: u8 = 30;
/// In this time the envelope of the overhead falls to what is seen, were it to fall evenly.
const OVERHEAD_FALLS_MS: u64 = 5_000;
/// Bytes changed a second, in percent of live ones, from which on callers are said to write much.
const BUSY_PERCENT: u64 = 2;

/// Decides.
pub fn decide(now: Sample, before: &Decision, thresholds: &Thresholds) -> Decision {
    let elapsed_ms = before.before.map_or(0, |earlier| now.now_ms.saturating_sub(earlier.now_ms));
    let overhead_bytes = recent_overhead(&now, before, elapsed_ms);
    let budget_bytes = budget(&now, overhead_bytes.max(overhead_ahead(&now, before, elapsed_ms)), thresholds);
    let of_budget = |percent: u64| budget_bytes / 100 * percent;
    let (low, high, critical) =
        (of_budget(thresholds.low_percent), of_budget(thresholds.high_percent), of_budget(thresholds.critical_percent));
    let ahead = expected(&now, before.before.as_ref(), elapsed_ms, thresholds.look_ahead_ms);
    let was_evicting = before.regime.evicts();
    let short = now.pressure_percent >= thresholds.pressure_percent && now.engine_bytes > low;

    let regime = match () {
        () if now.engine_bytes >= critical => Regime::Critical,
        () if now.engine_bytes.max(ahead) >= high || short => Regime::High,
        () if was_evicting && now.engine_bytes > low && can_free(&now, low) => Regime::High,
        () if is_drift(&now, before, thresholds) => Regime::Drift,
        () => Regime::Calm,
    };
    let reason = match regime {
        Regime::Calm | Regime::Drift => Reason::Drift,
        _ if before.before.is_some_and(|earlier| now.limit_bytes < earlier.limit_bytes) => Reason::LimitLowered,
        _ if was_evicting && before.target.reason == Reason::LimitLowered => Reason::LimitLowered,
        _ if short && now.engine_bytes < high => Reason::Pressure,
        Regime::High => Reason::High,
        Regime::Critical => Reason::Critical,
    };
    let occupancy = match before.before {
        Some(earlier) if is_emptying(&now, &earlier, elapsed_ms) => EMPTYING_OCCUPANCY_PERCENT,
        earlier if is_busy(&now, earlier.as_ref(), elapsed_ms) => thresholds.busy_occupancy_percent,
        _ => thresholds.idle_occupancy_percent,
    };
    let target = match regime {
        Regime::Calm => Target::NONE,
        Regime::Drift => Target { reason, occupancy_percent: occupancy, evict_to_bytes: None },
        Regime::High | Regime::Critical => Target { reason, occupancy_percent: occupancy, evict_to_bytes: Some(low) },
    };
    Decision { regime, budget_bytes, target, overhead_bytes, before: Some(now) }
}

/// What is kept free under a limit, in bytes.
pub fn reserve(limit_bytes: u64, thresholds: &Thresholds) -> u64 {
    (limit_bytes / 100 * thresholds.reserve_percent).max(thresholds.reserve_bytes)
}

/// What the engine may use: the limit, less the reserve, less what the process uses that the engine does not account
/// for (program, threads, connections, allocator). In a small container under a storm that is more than half.
fn budget(now: &Sample, overhead_bytes: u64, thresholds: &Thresholds) -> u64 {
    let ceiling = now.limit_bytes.saturating_sub(reserve(now.limit_bytes, thresholds));
    ceiling - overhead_bytes.min(ceiling / 4 * 3)
}

/// the overhead, as an envelope: it rises at once and falls slowly. Buffers come and go many times
/// between two readings, and the engine fills whatever a low reading seems to leave.
fn recent_overhead(now: &Sample, before: &Decision, elapsed_ms: u64) -> u64 {
    let seen = now.overhead_bytes();
    let above = before.overhead_bytes.saturating_sub(seen);
    seen + above / OVERHEAD_FALLS_MS
        * if is_plausible(elapsed_ms) { OVERHEAD_FALLS_MS.saturating_sub(elapsed_ms) } else { 0 }
}

/// the overhead at the next reading, if it grows on as it did since the last.
fn overhead_ahead(now: &Sample, before: &Decision, elapsed_ms: u64) -> u64 {
    let seen = now.overhead_bytes();
    let earlier = before.before.filter(|_| is_plausible(elapsed_ms)).map_or(seen, |earlier| earlier.overhead_bytes());
    seen.saturating_add(seen.saturating_sub(earlier))
}

/// A clock that stood still or leapt says nothing about a slope.
fn is_plausible(elapsed_ms: u64) -> bool {
    (10..=10_000).contains(&elapsed_ms)
}

/// The engine's use after the look-ahead, if it grows on as it did since the last reading.
fn expected(now: &Sample, earlier: Option<&Sample>, elapsed_ms: u64, look_ahead_ms: u64) -> u64 {
    let Some(earlier) = earlier else { return now.engine_bytes };
    if !is_plausible(elapsed_ms) {
        return now.engine_bytes;
    }
    let grown = now.engine_bytes.saturating_sub(earlier.engine_bytes);
    now.engine_bytes.saturating_add(grown.saturating_mul(look_ahead_ms) / elapsed_ms)
}

/// Live items become fewer, by more than a hundredth in 100 ms.
fn is_emptying(now: &Sample, earlier: &Sample, elapsed_ms: u64) -> bool {
    let gone = earlier.item_bytes.saturating_sub(now.item_bytes);
    gone > 0 && gone >= earlier.item_bytes / 100 * elapsed_ms / 100
}

fn is_busy(now: &Sample, earlier: Option<&Sample>, elapsed_ms: u64) -> bool {
    let Some(earlier) = earlier.filter(|_| is_plausible(elapsed_ms)) else { return false };
    let changed = now.changed_bytes.saturating_sub(earlier.changed_bytes);
    changed.saturating_mul(1000) / elapsed_ms > now.item_bytes / 100 * BUSY_PERCENT
}

/// Whether there is something to free: live items may go only while they are too many (D2), and full segments always hold
/// up to 3 % of dead bytes.
fn can_free(now: &Sample, low: u64) -> bool {
    const LEFT_PERCENT: u64 = 3;
    now.live_bytes > low || now.dead_bytes > now.item_bytes / 100 * LEFT_PERCENT
}

/// Compaction starts above the mark and goes on until the dead bytes have fallen to what full segments leave.
fn is_drift(now: &Sample, before: &Decision, thresholds: &Thresholds) -> bool {
    if !thresholds.compacts || (now.dead_bytes < WORTH_BYTES && now.item_bytes > 0) {
        return false;
    }
    let started = before.regime == Regime::Drift;
    let goal = match before.target.occupancy_percent {
        // What was left for the end of the deleting is not forgotten when the deleting ends.
        EMPTYING_OCCUPANCY_PERCENT => thresholds.idle_occupancy_percent,
        target => target.max(50),
    };
    let mark = if started { 100 - u64::from(goal) } else { thresholds.dead_percent };
    now.dead_bytes > now.item_bytes / 100 * mark
}

#[cfg(test)]
mod scenarios;
