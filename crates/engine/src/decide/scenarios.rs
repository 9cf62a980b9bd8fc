//! Scenarios of the governor's rules: a list of samples of one container and the expected decisions.

use super::*;

const MIB: u64 = 1 << 20;

/// A container that is sampled every 250 ms.
struct Scenario {
    sample: Sample,
    decision: Decision,
    thresholds: Thresholds,
}

impl Scenario {
    fn new(limit_mib: u64) -> Self {
        let sample = Sample { limit_bytes: limit_mib * MIB, used_bytes: 8 * MIB, ..Sample::default() };
        let mut scenario = Self { sample, decision: Decision::default(), thresholds: Thresholds::default() };
        scenario.tick();
        scenario
    }

    /// Sets live and dead MiB, with 8 MiB of overhead.
    fn engine(&mut self, live_mib: u64, dead_mib: u64) -> &mut Self {
        let (live, dead) = (live_mib * MIB, dead_mib * MIB);
        let sample = &mut self.sample;
        (sample.item_bytes, sample.live_bytes, sample.dead_bytes) = (live, live, dead);
        sample.engine_bytes = live + dead;
        sample.used_bytes = sample.engine_bytes + 8 * MIB;
        self
    }

    fn tick(&mut self) -> Regime {
        self.sample.now_ms += 250;
        self.decision = decide(self.sample, &self.decision, &self.thresholds);
        assert!(self.decision.budget_bytes <= self.sample.limit_bytes, "D1");
        self.decision.regime
    }

    /// Samples until the decision no longer changes.
    fn settle(&mut self) -> Regime {
        (0..4).map(|_| self.tick()).last().unwrap()
    }
}

#[test]
fn compaction_starts_after_a_burst_is_deleted_and_ends() {
    let mut scenario = Scenario::new(256);
    assert_eq!(scenario.engine(160, 0).settle(), Regime::Calm);
    assert_eq!(scenario.engine(16, 144).tick(), Regime::Drift);
    assert_eq!(scenario.decision.target.evict_to_bytes, None, "drift causes no eviction");
    assert_eq!(scenario.decision.target.occupancy_percent, 30, "during deletions only cheap segments are compacted");
    assert_eq!(scenario.tick(), Regime::Drift);
    assert_eq!(scenario.decision.target.occupancy_percent, 98, "without writes, compact fully");
    assert_eq!(scenario.engine(16, 5).tick(), Regime::Drift, "compaction continues below its threshold");
    assert_eq!(scenario.engine(16, 0).tick(), Regime::Calm);
    assert_eq!(scenario.decision.target, Target::NONE);
}

#[test]
fn disabling_compaction_does_not_disable_eviction() {
    let mut scenario = Scenario::new(256);
    scenario.thresholds.compacts = false;
    assert_eq!(scenario.engine(16, 144).settle(), Regime::Calm);
    assert_eq!(scenario.engine(16, 206).settle(), Regime::High);
    assert!(scenario.decision.target.evict_to_bytes.is_some());
}

#[test]
fn full_compaction_follows_when_deletions_end() {
    let mut scenario = Scenario::new(256);
    scenario.engine(160, 0).settle();
    scenario.engine(60, 100).tick();
    assert_eq!(scenario.engine(40, 3).tick(), Regime::Drift, "7 % are dead, and the deletions continue");
    assert_eq!(scenario.tick(), Regime::Drift);
    assert_eq!(scenario.decision.target.occupancy_percent, 98);
    assert_eq!(scenario.engine(40, 0).tick(), Regime::Calm);
}

#[test]
fn drift_is_detected_at_the_threshold_in_small_caches() {
    let mut scenario = Scenario::new(64);
    scenario.engine(20, 0).settle();
    for dead in 0..=1 {
        assert_eq!(scenario.engine(20, dead).tick(), Regime::Calm);
    }
    assert_eq!(scenario.engine(20, 3).tick(), Regime::Drift);
    let mut small = Scenario::new(64);
    assert_eq!(small.engine(4, 1).settle(), Regime::Drift, "a small cache has no higher threshold");
    let mut tiny = Scenario::new(64);
    tiny.engine(1, 0).sample.dead_bytes = (512 << 10) - 1;
    assert_eq!(tiny.settle(), Regime::Calm, "too few dead bytes for a run");
    tiny.sample.dead_bytes += 1;
    assert_eq!(tiny.settle(), Regime::Drift);
}

#[test]
fn hysteresis_prevents_flapping_around_a_watermark() {
    let mut scenario = Scenario::new(256);
    let budget = scenario.decision.budget_bytes / MIB;
    let (low, high) = (budget * 88 / 100, budget * 94 / 100 + 1);
    assert_eq!(scenario.engine(high, 0).settle(), Regime::High);
    assert_eq!(scenario.engine(high - 3, 0).tick(), Regime::High);
    assert_eq!(scenario.engine(high - 1, 0).tick(), Regime::High);
    assert_eq!(scenario.engine(low - 1, 0).tick(), Regime::Calm);
    assert_eq!(scenario.engine(low + 1, 0).settle(), Regime::Calm, "eviction starts again only at the high watermark");
}

#[test]
fn a_limit_below_the_live_data_evicts_at_once() {
    let mut scenario = Scenario::new(256);
    scenario.engine(160, 0).settle();
    scenario.sample.limit_bytes = 128 * MIB;
    assert_eq!(scenario.tick(), Regime::Critical);
    assert_eq!(scenario.decision.target.reason, Reason::LimitLowered);
    let to = scenario.decision.target.evict_to_bytes.unwrap();
    assert!(to + 8 * MIB < 128 * MIB, "{to}");
    assert_eq!(scenario.tick(), Regime::Critical);
    assert_eq!(scenario.decision.target.reason, Reason::LimitLowered, "the reason stays until the eviction ends");
    assert_eq!(scenario.engine(to / MIB, 0).tick(), Regime::Calm);
}

#[test]
fn a_raised_limit_raises_the_budget_at_once() {
    let mut scenario = Scenario::new(64);
    scenario.engine(40, 0).settle();
    let before = scenario.decision.budget_bytes;
    scenario.sample.limit_bytes = 512 * MIB;
    assert_eq!(scenario.tick(), Regime::Calm);
    assert!(scenario.decision.budget_bytes > before * 8);
}

#[test]
fn page_cache_does_not_count() {
    // `used_bytes` excludes page cache; see `cgroup`. Overhead lowers the budget and causes no eviction.
    let mut scenario = Scenario::new(256);
    assert_eq!(scenario.engine(160, 0).settle(), Regime::Calm);
}

#[test]
fn overhead_takes_at_most_three_quarters_of_the_ceiling() {
    let mut scenario = Scenario::new(256);
    scenario.engine(30, 0).settle();
    scenario.sample.used_bytes = 250 * MIB;
    scenario.settle();
    assert_eq!(scenario.decision.budget_bytes / MIB, 240 / 4);
    assert_eq!(scenario.decision.regime, Regime::Calm, "30 MiB of items are not evicted for overhead");
}

#[test]
fn overhead_may_exceed_half_of_a_small_container() {
    let mut scenario = Scenario::new(40);
    scenario.engine(10, 0).settle();
    scenario.sample.used_bytes = (10 + 24) * MIB;
    scenario.settle();
    assert_eq!(scenario.decision.budget_bytes, (40 - 4 - 24) * MIB, "the limit, minus the reserve, minus the overhead");
}

#[test]
fn the_overhead_peak_decays_after_buffers_are_freed() {
    let mut scenario = Scenario::new(64);
    scenario.engine(30, 0).settle();
    let before = scenario.decision.budget_bytes;
    scenario.sample.used_bytes += 6 * MIB;
    scenario.settle();
    let with = scenario.decision.budget_bytes;
    assert_eq!(with, before - 6 * MIB);
    scenario.engine(30, 0).tick();
    let low = scenario.decision.budget_bytes;
    assert!(low > with && low < with + MIB, "the recent peak of the overhead decays slowly: {}", low / MIB);
    for _ in 0..200 {
        scenario.tick();
    }
    assert!(scenario.decision.budget_bytes > before - MIB / 8, "the peak has decayed");
}

#[test]
fn growing_overhead_is_extrapolated() {
    let mut scenario = Scenario::new(64);
    scenario.engine(30, 0).settle();
    let before = scenario.decision.budget_bytes;
    scenario.sample.used_bytes += 2 * MIB;
    scenario.tick();
    assert_eq!(scenario.decision.budget_bytes, before - 4 * MIB, "2 MiB of overhead, and 2 MiB expected");
    scenario.tick();
    assert_eq!(scenario.decision.budget_bytes, before - 2 * MIB, "the expected growth did not come");
}

#[test]
fn growth_that_will_reach_the_watermark_evicts_now() {
    let mut scenario = Scenario::new(256);
    scenario.engine(180, 0).settle();
    assert_eq!(scenario.engine(200, 0).tick(), Regime::High, "20 MiB in 250 ms: at the watermark in 200 ms");
    let mut slow = Scenario::new(256);
    slow.engine(180, 0).settle();
    assert_eq!(slow.engine(181, 0).tick(), Regime::Calm);
}

#[test]
fn a_clock_jump_causes_no_regime_change() {
    let mut scenario = Scenario::new(256);
    scenario.engine(150, 0).settle();
    scenario.sample.now_ms += 3_600_000;
    assert_eq!(scenario.engine(170, 0).tick(), Regime::Calm);
    scenario.sample.now_ms = 5;
    assert_eq!(scenario.engine(190, 0).tick(), Regime::Calm);
}

#[test]
fn memory_pressure_causes_eviction() {
    let mut scenario = Scenario::new(256);
    scenario.engine(206, 0).settle();
    scenario.sample.pressure_percent = 40.0;
    assert_eq!(scenario.tick(), Regime::High);
    assert_eq!(scenario.decision.target.reason, Reason::Pressure);
    scenario.sample.pressure_percent = 0.0;
    assert_eq!(scenario.engine(150, 0).tick(), Regime::Calm);
}

#[test]
fn busy_writers_lower_the_occupancy_target() {
    let mut scenario = Scenario::new(1024);
    scenario.engine(500, 0).settle();
    scenario.sample.changed_bytes += 100 * MIB;
    assert_eq!(scenario.engine(500, 70).tick(), Regime::Drift);
    assert_eq!(scenario.decision.target.occupancy_percent, 90);
}

#[test]
fn the_rules_hold_for_random_samples_and_calm_returns() {
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..2_000 {
        let mut scenario = Scenario::new(16 + random(1_000));
        for _ in 0..20 {
            scenario.sample.limit_bytes = (8 + random(1_000)) * MIB;
            scenario.sample.now_ms = random(1 << 40);
            scenario.sample.pressure_percent = random(100) as f64;
            scenario.engine(random(1_000), random(500));
            scenario.sample.used_bytes = random(2_000) * MIB;
            scenario.tick();
            let low = scenario.decision.budget_bytes / 100 * Thresholds::default().low_percent;
            if scenario.decision.target.evict_to_bytes.is_some() {
                assert!(scenario.sample.engine_bytes > low, "D2: {:?}", scenario.decision);
            }
        }
        scenario.sample.pressure_percent = 0.0;
        scenario.sample.limit_bytes = 1_000 * MIB;
        assert_eq!(scenario.engine(1, 0).settle(), Regime::Calm, "D3");
    }
}

#[test]
fn eviction_ends_when_only_free_segments_exceed_the_bound() {
    let mut scenario = Scenario::new(256);
    let low = scenario.decision.budget_bytes / 100 * 88;
    let live_mib = low / MIB - 1;
    assert!(scenario.engine(live_mib + 15, 0).settle().evicts());
    assert!(scenario.engine(live_mib, 12).tick().evicts(), "dead bytes can be compacted");
    // The rest are open and free segments, which more eviction would not free.
    scenario.engine(live_mib, 2);
    assert!(scenario.sample.engine_bytes > low);
    assert_eq!(scenario.tick(), Regime::Calm);
}

#[test]
fn an_hour_between_samples_is_not_extrapolated() {
    let mut scenario = Scenario::new(256);
    scenario.engine(20, 0).settle();
    scenario.sample.now_ms += 3_600_000;
    scenario.sample.used_bytes += 30 * MIB;
    scenario.tick();
    let beside = 38 * MIB;
    let ceiling = 256 * MIB - reserve(256 * MIB, &scenario.thresholds);
    assert_eq!(scenario.decision.budget_bytes, ceiling - beside, "the current overhead, not twice as much");
}

#[test]
fn busy_means_more_than_2_percent_changed_per_second() {
    let earlier = Sample { item_bytes: 64 << 20, changed_bytes: 7, ..Sample::default() };
    let is_busy = |changed_bytes: u64| {
        let now = Sample { changed_bytes: 7 + changed_bytes, ..earlier };
        super::is_busy(&now, Some(&earlier), 250)
    };
    // 1,342,176 bytes per second.
    assert_eq!([335_544, 335_545].map(is_busy), [false, true]);
}

#[test]
fn emptying_means_at_least_1_percent_deleted_per_100_ms() {
    let earlier = Sample { item_bytes: 64 << 20, ..Sample::default() };
    let is_emptying = |gone: u64, elapsed_ms| {
        super::is_emptying(&Sample { item_bytes: (64 << 20) - gone, ..earlier }, &earlier, elapsed_ms)
    };
    assert_eq!([671_087, 671_088].map(|gone| is_emptying(gone, 100)), [false, true]);
    assert_eq!([1_342_175, 1_342_176].map(|gone| is_emptying(gone, 200)), [false, true]);
    let empty = Sample::default();
    assert!(!super::is_emptying(&empty, &empty, 100), "an empty cache stays empty");
}

#[test]
fn can_free_above_the_low_watermark_or_3_percent_dead() {
    let full = Sample { live_bytes: 500, item_bytes: 10_000, dead_bytes: 300, ..Sample::default() };
    assert!(!can_free(&full, 500));
    assert!(can_free(&full, 499));
    assert!(can_free(&Sample { dead_bytes: 301, ..full }, 500));
}

#[test]
fn drift_means_dead_bytes_above_the_threshold() {
    let is_drift = |item_bytes, dead_bytes| {
        let now = Sample { item_bytes, dead_bytes, ..Sample::default() };
        super::is_drift(&now, &Decision::default(), &Thresholds::default())
    };
    assert_eq!([10 * MIB, 10 * MIB + 1].map(|dead| is_drift(100 * MIB, dead)), [false, true]);
    assert_eq!([0, 1].map(|dead| is_drift(0, dead)), [false, true], "without live items any dead byte is drift");
}
