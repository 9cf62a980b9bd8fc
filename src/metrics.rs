//! What Prometheus sees: every metric declared once, with its unit and a sentence, and read from its source when asked.
//!
//! Nothing on the path of a request is counted for metrics alone: the store counts for its own sake.

use crate::cleaner::{Cleaner, Reason};
use crate::memory::{Regime, View};
use crate::store::{Stats, Store};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

type Label = Vec<(&'static str, &'static str)>;
type U64 = Gauge<u64, AtomicU64>;
/// Where a figure stands in the store's account.
type Of = fn(&Stats) -> u64;

/// The metrics and where they are read from.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    store: Arc<Store>,
    cleaner: Cleaner,
    memory: View,
    gauges: Vec<(Of, U64)>,
    counters: Vec<(Of, Counter)>,
    outside: [U64; 4],
    regime: Family<Label, U64>,
    runs: Family<Label, Counter>,
    config_good: U64,
    config_is_good: AtomicBool,
    /// The receipt that was counted last.
    counted: Mutex<u64>,
}

impl Metrics {
    /// Declares everything.
    pub(crate) fn new(store: Arc<Store>, cleaner: Cleaner, memory: View) -> Self {
        let mut registry = Registry::with_prefix("ebb");
        let gauges = [
            ("live", "Keys and values that can be read", Some(Unit::Bytes), (|s| s.live_bytes) as fn(&Stats) -> u64),
            ("dead", "Bytes in segments that no reader can reach", Some(Unit::Bytes), |s| s.dead_bytes),
            ("segment", "Segments in use", Some(Unit::Bytes), |s| s.segment_bytes),
            ("index", "The index of all shards", Some(Unit::Bytes), |s| s.index_bytes),
            ("in_flight", "Requests and responses in flight", Some(Unit::Bytes), |s| s.in_flight_bytes),
            ("budget", "What may be in use before eviction begins", Some(Unit::Bytes), |s| s.capacity_bytes),
            ("entries", "Entries that can be read", None, |s| s.entries),
        ]
        .map(|(name, help, unit, of)| (of, registered(&mut registry, name, help, unit, U64::default())))
        .into();
        let counters = [
            ("hits", "Reads that found a value", None, (|s| s.hits) as fn(&Stats) -> u64),
            ("misses", "Reads that did not", None, |s| s.misses),
            ("sets", "Values stored", None, |s| s.sets),
            ("deletes", "Keys deleted by callers", None, |s| s.deletes),
            ("evictions", "Entries dropped to make room", None, |s| s.evictions),
            ("expirations", "Entries whose time to live passed", None, |s| s.expirations),
            ("invalidated", "Entries dropped because their group was declared void", None, |s| s.invalidated),
            ("refusals", "Writes refused for want of room", None, |s| s.refusals),
            ("appended", "Items written by callers", Some(Unit::Bytes), |s| s.appended_bytes),
            ("copied", "Items copied by the cleaner", Some(Unit::Bytes), |s| s.copied_bytes),
        ]
        .map(|(name, help, unit, of)| (of, registered(&mut registry, name, help, unit, Counter::default())))
        .into();
        let outside = [
            ("memory_limit", "The memory limit that is obeyed"),
            ("memory_used", "What counts against the limit"),
            ("rss", "Resident set size of the process"),
            ("oom_kills", "Kills in this container for want of memory"),
        ]
        .map(|(name, help)| {
            let unit = (name != "oom_kills").then_some(Unit::Bytes);
            registered(&mut registry, name, help, unit, U64::default())
        });
        let regime = registered(&mut registry, "regime", "1 for what the memory is like", None, Family::default());
        let runs = registered(&mut registry, "cleaner_runs", "Runs of the cleaner by reason", None, Family::default());
        let config_good = registered(
            &mut registry,
            "config_good",
            "1 while the configuration on disk is in force",
            None,
            U64::default(),
        );
        Self {
            registry,
            store,
            cleaner,
            memory,
            gauges,
            counters,
            outside,
            regime,
            runs,
            config_good,
            config_is_good: AtomicBool::new(true),
            counted: Mutex::new(0),
        }
    }

    /// Says whether the configuration on disk is in force.
    pub(crate) fn set_config_good(&self, good: bool) {
        self.config_is_good.store(good, Ordering::Relaxed);
    }

    /// The page, in OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let stats = self.store.stats();
        for (of, gauge) in &self.gauges {
            gauge.set(of(&stats));
        }
        for (of, counter) in &self.counters {
            counter.inc_by(of(&stats).saturating_sub(counter.get()));
        }
        let memory = self.memory.get();
        let outside = [memory.limit_bytes, memory.used_bytes, memory.rss_bytes, memory.oom_kills];
        for (gauge, value) in self.outside.iter().zip(outside) {
            gauge.set(value);
        }
        for regime in Regime::ALL {
            let label = vec![("regime", regime.name())];
            self.regime.get_or_create(&label).set(u64::from(regime == memory.regime));
        }
        self.count_runs();
        self.config_good.set(u64::from(self.config_is_good.load(Ordering::Relaxed)));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }

    fn count_runs(&self) {
        for reason in Reason::ALL {
            drop(self.runs.get_or_create(&vec![("reason", reason.name())]));
        }
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *counted;
        for receipt in self.cleaner.receipts().into_iter().rev().filter(|receipt| receipt.id > before) {
            *counted = receipt.id;
            self.runs.get_or_create(&vec![("reason", receipt.reason.name())]).inc();
        }
    }
}

fn registered<M>(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, metric: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
    metric
}
