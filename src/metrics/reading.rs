//! The values of one scrape.

use crate::governor::Snapshot;
use crate::service;
use crate::sources::{SocketFiles, Sources};
use crate::spans::Counts;
use crate::traffic::Totals;
use ebb_config::ActiveConfig;
use ebb_engine::cleaner::{Reason, Total};
use ebb_engine::store::{LeaseCounts, Stats};
use ebb_injector::events::Fate;
use strum::EnumCount as _;

use std::sync::Arc;

/// The values of one scrape.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) stats: Stats,
    pub(super) one_segment_bytes: u64,
    pub(super) memory: Arc<Snapshot>,
    pub(super) leases: LeaseCounts,
    pub(super) lease_figures: service::LeaseFigures,
    pub(super) namespaces: Vec<service::NamespaceUsage>,
    pub(super) runs: [Total; Reason::COUNT],
    pub(super) traffic: Totals,
    pub(super) http: ebb_listener::Counts,
    pub(super) spans: Counts,
    pub(super) pod_events: [u64; Fate::COUNT],
    pub(super) config: Arc<ActiveConfig>,
    pub(super) sockets: SocketFiles,
    pub(super) dropped_log_lines: u64,
    pub(super) uptime_ms: u64,
}

impl Reading {
    pub(super) fn of(sources: &Sources) -> Self {
        let Sources {
            store,
            cleaner,
            memory,
            clock,
            traffic,
            http,
            tracer,
            events,
            sockets,
            config,
            cache,
            started_at_ms: _,
        } = sources;
        Self {
            stats: store.stats(),
            one_segment_bytes: store.segment_bytes() as u64,
            memory: memory.get(),
            leases: store.lease_counts(),
            lease_figures: cache.lease_figures(),
            namespaces: cache.usage(),
            runs: cleaner.totals(),
            traffic: traffic.totals(),
            http: http.counts(),
            spans: tracer.counts(),
            pod_events: events.totals(),
            config: config.load_full(),
            sockets: sockets.get(),
            dropped_log_lines: crate::logging::dropped_lines(),
            uptime_ms: clock.now_ms(),
        }
    }

    /// Bytes that the engine accounts for.
    pub(super) fn engine_bytes(&self) -> u64 {
        self.stats.segment_bytes + self.stats.index_bytes + self.stats.in_flight_bytes
    }
}
