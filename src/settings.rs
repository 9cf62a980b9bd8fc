//! Converts dynamic settings to those of governor, cleaner and cache.

use crate::governor::Setting;
use crate::service::Defaults;
use ebb_config::{Compaction, Drift, DynamicSettings, Reserve, Watermarks};
use ebb_engine::cleaner::Pacing;
use ebb_engine::decide::Thresholds;

/// Settings of the governor.
pub(crate) fn setting(tuning: &DynamicSettings) -> Setting {
    // Destructured completely, so that an unused setting causes a warning.
    let DynamicSettings {
        max_memory,
        reserve: Reserve { share, least },
        watermarks: Watermarks { low, high, critical },
        drift: Drift { dead, busy_occupancy, idle_occupancy },
        compaction,
        eviction_aware,
        pacing: _,
        defaults: _,
        tick,
        look_ahead,
        pressure,
        trace_sample: _,
        log_level: _,
    } = tuning;
    Setting {
        max_memory_bytes: Some(max_memory.0).filter(|bytes| *bytes > 0),
        tick: tick.duration(),
        eviction_aware: *eviction_aware,
        thresholds: Thresholds {
            compacts: *compaction != Compaction::Off,
            reserve_percent: share.0.into(),
            reserve_bytes: least.0,
            low_percent: low.0.into(),
            high_percent: high.0.into(),
            critical_percent: critical.0.into(),
            dead_percent: dead.0.into(),
            busy_occupancy_percent: busy_occupancy.0,
            idle_occupancy_percent: idle_occupancy.0,
            look_ahead_ms: look_ahead.0,
            pressure_percent: pressure.0.into(),
        },
    }
}

/// Settings of the cleaner.
pub(crate) fn pacing(tuning: &DynamicSettings) -> Pacing {
    Pacing { step_micros: tuning.pacing.step_micros, cpu_percent: tuning.pacing.cpu.0 }
}

/// Settings of the cache.
pub(crate) fn defaults(tuning: &DynamicSettings) -> Defaults {
    Defaults { ttl_ms: tuning.defaults.ttl.0, max_stale_ms: tuning.defaults.max_stale.0 }
}
