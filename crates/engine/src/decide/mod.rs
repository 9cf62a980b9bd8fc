//! The governor's decision about a sample: a pure function, so that tests can be scenarios.
//!
//! ```text
//!  limit ──minus reserve──► ceiling ──minus overhead──► budget of the engine
//!
//!  use ÷ budget    0 ────────────────── low ──────── high ── critical ── 1
//!  evicts                               stop ◄────── start               refuse
//! ```
//! Two independent rules. **Eviction** depends on the engine's use of its budget, because dropping live items lowers
//! exactly that. **Compaction** depends on dead bytes as a share of live bytes, because moving items lowers exactly
//! that. Overhead lowers the budget, by at most three quarters of the ceiling: evicting the whole cache would not
//! reduce overhead.
//!
//! D1. The budget never exceeds the ceiling.
//! D2. Nothing is evicted while the engine's use fits the low watermark.
//! D3. Every regime except calm ends once its cause has ended. The only hysteresis is between the low and high
//!     watermarks.

use crate::cleaner::{Reason, Target};
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// One sample of all values on which a decision depends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Time of the sample, in milliseconds.
    pub now_ms: u64,
    /// The effective limit: the smallest of all limits.
    pub limit_bytes: u64,
    /// Memory charged against the limit.
    pub used_bytes: u64,
    /// Memory that the engine accounts for: segments, index, bytes in flight.
    pub engine_bytes: u64,
    /// Live items, index and bytes in flight: the part that compaction cannot lower.
    pub live_bytes: u64,
    /// Live items alone.
    pub item_bytes: u64,
    /// Bytes in segments that belong to no live item.
    pub dead_bytes: u64,
    /// Bytes that callers have written, replaced or deleted since the process started.
    pub changed_bytes: u64,
    /// PSI memory `some avg10`: the share of the last 10 s in which tasks of the container stalled on memory, in
    /// percent.
    pub pressure_percent: f64,
}

impl Sample {
    /// Memory charged to the container that the engine does not account for.
    fn overhead_bytes(&self) -> u64 {
        self.used_bytes.saturating_sub(self.engine_bytes)
    }
}

/// Thresholds of the rules; the configuration describes each of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Memory kept free under the limit, in percent of the limit.
    pub reserve_percent: u64,
    /// Minimum memory kept free under the limit, in bytes.
    pub reserve_bytes: u64,
    /// Low watermark, in percent of the budget: eviction stops.
    pub low_percent: u64,
    /// High watermark, in percent of the budget: eviction starts.
    pub high_percent: u64,
    /// Critical watermark, in percent of the budget: eviction is urgent.
    pub critical_percent: u64,
    /// Whether compaction starts automatically.
    pub compacts: bool,
    /// Dead bytes in percent of live ones at which compaction starts.
    pub dead_percent: u64,
    /// Target occupancy of segments while callers write much, in percent.
    pub busy_occupancy_percent: u8,
    /// Target occupancy of segments otherwise, in percent.
    pub idle_occupancy_percent: u8,
    /// Horizon of the extrapolation of the engine's use, in milliseconds.
    pub look_ahead_ms: u64,
    /// PSI memory `some avg10` from which on the container counts as short of memory, in percent.
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

/// The state of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Regime {
    /// Nothing to do.
    #[default]
    Calm,
    /// Dead bytes exceeded their threshold: compact.
    Drift,
    /// The high watermark was reached: evict down to the low one.
    High,
    /// The critical watermark was reached.
    Critical,
}

impl Regime {
    /// Name in metrics and Events.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether eviction ends this regime.
    pub fn evicts(self) -> bool {
        matches!(self, Self::High | Self::Critical)
    }
}

/// A decision, and the state that the next decision needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The state of memory.
    pub regime: Regime,
    /// Memory that the engine may use.
    pub budget_bytes: u64,
    /// The lasting target of the cleaner.
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

/// Fewer dead bytes are never worth a run.
const WORTH_BYTES: u64 = 512 << 10;
/// Target occupancy of segments while callers delete much, in percent. Copied items may be deleted next, and memory use
/// falls anyway. At 50, deleting a random nine tenths cost twice the copying.
const EMPTYING_OCCUPANCY_PERCENT: u8 = 30;
/// Time constant with which the peak of the overhead decays to the current value, in milliseconds.
const OVERHEAD_FALLS_MS: u64 = 5_000;
/// Callers write much if they change more bytes per second than this, in percent of live bytes.
const BUSY_PERCENT: u64 = 2;

/// Decides regime, budget and target from a sample and the decision before.
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

/// Memory kept free under a limit, in bytes.
pub fn reserve(limit_bytes: u64, thresholds: &Thresholds) -> u64 {
    (limit_bytes / 100 * thresholds.reserve_percent).max(thresholds.reserve_bytes)
}

/// The budget: the limit, minus the reserve, minus the overhead (program, threads, connections, allocator). In a small
/// container under high load the overhead is more than half.
fn budget(now: &Sample, overhead_bytes: u64, thresholds: &Thresholds) -> u64 {
    let ceiling = now.limit_bytes.saturating_sub(reserve(now.limit_bytes, thresholds));
    ceiling - overhead_bytes.min(ceiling / 4 * 3)
}

/// The recent peak of the overhead, which rises at once and decays slowly. Buffers come and go many times between two
/// samples, and the engine would fill the room that a low sample suggests.
fn recent_overhead(now: &Sample, before: &Decision, elapsed_ms: u64) -> u64 {
    let seen = now.overhead_bytes();
    let above = before.overhead_bytes.saturating_sub(seen);
    seen + above / OVERHEAD_FALLS_MS
        * if is_plausible(elapsed_ms) { OVERHEAD_FALLS_MS.saturating_sub(elapsed_ms) } else { 0 }
}

/// The overhead at the next sample, if it keeps growing as it did since the last one.
fn overhead_ahead(now: &Sample, before: &Decision, elapsed_ms: u64) -> u64 {
    let seen = now.overhead_bytes();
    let earlier = before.before.filter(|_| is_plausible(elapsed_ms)).map_or(seen, |earlier| earlier.overhead_bytes());
    seen.saturating_add(seen.saturating_sub(earlier))
}

/// Whether a slope can be computed: not if the clock stood still or jumped.
fn is_plausible(elapsed_ms: u64) -> bool {
    (10..=10_000).contains(&elapsed_ms)
}

/// The engine's use after the horizon, if it keeps growing as it did since the last sample.
fn expected(now: &Sample, earlier: Option<&Sample>, elapsed_ms: u64, look_ahead_ms: u64) -> u64 {
    let Some(earlier) = earlier else { return now.engine_bytes };
    if !is_plausible(elapsed_ms) {
        return now.engine_bytes;
    }
    let grown = now.engine_bytes.saturating_sub(earlier.engine_bytes);
    now.engine_bytes.saturating_add(grown.saturating_mul(look_ahead_ms) / elapsed_ms)
}

/// Whether live bytes shrink by at least a hundredth per 100 ms.
fn is_emptying(now: &Sample, earlier: &Sample, elapsed_ms: u64) -> bool {
    let gone = earlier.item_bytes.saturating_sub(now.item_bytes);
    gone > 0 && gone >= earlier.item_bytes / 100 * elapsed_ms / 100
}

fn is_busy(now: &Sample, earlier: Option<&Sample>, elapsed_ms: u64) -> bool {
    let Some(earlier) = earlier.filter(|_| is_plausible(elapsed_ms)) else { return false };
    let changed = now.changed_bytes.saturating_sub(earlier.changed_bytes);
    changed.saturating_mul(1000) / elapsed_ms > now.item_bytes / 100 * BUSY_PERCENT
}

/// Whether there is something to free: live items only above the low watermark (D2), and dead bytes only above the 3 %
/// that full segments always contain.
fn can_free(now: &Sample, low: u64) -> bool {
    const LEFT_PERCENT: u64 = 3;
    now.live_bytes > low || now.dead_bytes > now.item_bytes / 100 * LEFT_PERCENT
}

/// Compaction starts above the threshold, and continues until dead bytes have fallen to the share that full segments
/// leave.
fn is_drift(now: &Sample, before: &Decision, thresholds: &Thresholds) -> bool {
    if !thresholds.compacts || (now.dead_bytes < WORTH_BYTES && now.item_bytes > 0) {
        return false;
    }
    let started = before.regime == Regime::Drift;
    let goal = match before.target.occupancy_percent {
        // The low target of a deletion phase must not end the compaction when the deletions end.
        EMPTYING_OCCUPANCY_PERCENT => thresholds.idle_occupancy_percent,
        target => target.max(50),
    };
    let mark = if started { 100 - u64::from(goal) } else { thresholds.dead_percent };
    now.dead_bytes > now.item_bytes / 100 * mark
}

#[cfg(test)]
mod scenarios;
