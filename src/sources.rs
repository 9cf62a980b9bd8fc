//! Sources of figures, shared by metrics, live page, admin service and doctor.

use crate::governor::View;
use crate::pod_events::Fates;
use crate::service::Cache;
use crate::spans::Tracer;
use crate::traffic::Traffic;
use crate::wall_clock;
use arc_swap::ArcSwap;
use ebb_config::ActiveConfig;
use ebb_engine::cleaner::Cleaner;
use ebb_engine::clock::Clock;
use ebb_engine::store::Store;
use ebb_listener::Connections;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

/// Sources of figures. Clones share them.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The cache.
    pub cache: Arc<Cache>,
    /// Its store.
    pub store: Arc<Store>,
    /// The cleaner.
    pub cleaner: Cleaner,
    /// The governor's last sample.
    pub memory: View,
    /// Time since the start of the process.
    pub clock: Clock,
    /// Start of the process, in Unix milliseconds.
    pub started_at_ms: u64,
    /// Counters of requests and connections.
    pub traffic: Traffic,
    /// Connections of the HTTP listener.
    pub(crate) http: Arc<Connections>,
    /// Counters of spans.
    pub tracer: Tracer,
    /// Counters of Events on the pod.
    pub events: Fates,
    /// State of the files of Unix sockets.
    pub sockets: Sockets,
    /// The active configuration.
    pub config: Arc<ArcSwap<ActiveConfig>>,
}

impl Sources {
    /// The Unix time of the monotonic clock's zero, in milliseconds, by the current wall clock. All times of one
    /// response use the same value, so that they are consistent even if the wall clock has jumped since the start.
    pub(crate) fn zero_unix_ms(&self) -> u64 {
        wall_clock::unix_ms().saturating_sub(self.clock.now_ms())
    }
}

/// State of the files of Unix sockets. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Sockets(Arc<Mutex<SocketFiles>>);

/// Files of sockets that were removed while in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketFiles {
    /// Number of recreated files.
    pub(crate) made_again: u64,
    /// Time of the last recreation, in milliseconds since the start.
    pub(crate) last_ms: u64,
    /// Why a missing file cannot be recreated.
    pub(crate) lost: Option<String>,
}

impl Sockets {
    fn files(&self) -> MutexGuard<'_, SocketFiles> {
        self.0.lock()
    }

    /// The current state.
    pub(crate) fn get(&self) -> SocketFiles {
        self.files().clone()
    }

    /// Records a recreated file.
    pub(crate) fn made_again(&self, now_ms: u64) {
        let mut files = self.files();
        *files = SocketFiles { made_again: files.made_again + 1, last_ms: now_ms, lost: None };
    }

    /// Records why a missing file cannot be recreated.
    pub(crate) fn lost(&self, why: &str) {
        self.files().lost = Some(why.to_owned());
    }

    /// Records that all files exist.
    pub(crate) fn found(&self) {
        self.files().lost = None;
    }
}
