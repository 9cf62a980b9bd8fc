//! What those who watch read from: metrics, the live page, the admin service and the doctor show the same figures.

use crate::cache::Cache;
use crate::cleaner::Cleaner;
use crate::clock::Clock;
use crate::config::InForce;
use crate::k8s::pod_events::Fates;
use crate::memory::View;
use crate::spans::Tracer;
use crate::store::Store;
use crate::traffic::Traffic;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// Where the figures are. Clones read the same.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The store beneath.
    pub store: Arc<Store>,
    /// The cleaner.
    pub cleaner: Cleaner,
    /// The governor's last reading.
    pub memory: View,
    /// Counted from the start of the process.
    pub clock: Clock,
    /// When that was, in Unix milliseconds.
    pub started_at_ms: u64,
    /// What came over the network.
    pub traffic: Traffic,
    /// What became of spans.
    pub tracer: Tracer,
    /// What became of the Events on the pod.
    pub events: Fates,
    /// The configuration in force.
    pub config: Arc<ArcSwap<InForce>>,
}
