//! What those who watch read from: metrics, the live page, the admin service and the doctor show the same figures.

use crate::governor::View;
use crate::pod_events::Fates;
use crate::service::Cache;
use crate::spans::Tracer;
use crate::traffic::Traffic;
use crate::wall_clock;
use arc_swap::ArcSwap;
use ebb_config::InForce;
use ebb_engine::cleaner::Cleaner;
use ebb_engine::clock::Clock;
use ebb_engine::store::Store;
use ebb_listener::Connections;
use parking_lot::{Mutex, MutexGuard};
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
    /// Connections of the HTTP listener.
    pub(crate) http: Arc<Connections>,
    /// What became of spans.
    pub tracer: Tracer,
    /// What became of the Events on the pod.
    pub events: Fates,
    /// What became of the files of Unix sockets.
    pub sockets: Sockets,
    /// The active configuration.
    pub config: Arc<ArcSwap<InForce>>,
}

impl Sources {
    /// The Unix time at which the clock was zero, in milliseconds, by the wall clock of now. Times of one answer are counted
    /// from one such reading, so that they agree with each other although the wall clock may have jumped since the start.
    pub(crate) fn zero_unix_ms(&self) -> u64 {
        wall_clock::unix_ms().saturating_sub(self.clock.now_ms())
    }
}

/// What became of the files of Unix sockets while the server ran. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Sockets(Arc<Mutex<SocketFiles>>);

/// Files that were removed while their sockets were in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketFiles {
    /// How many were made again.
    pub(crate) made_again: u64,
    /// When the last of them was, in milliseconds since the start.
    pub(crate) last_ms: u64,
    /// Why one that is missing cannot be made again.
    pub(crate) lost: Option<String>,
}

impl Sockets {
    fn files(&self) -> MutexGuard<'_, SocketFiles> {
        self.0.lock()
    }

    /// What there is to know.
    pub(crate) fn get(&self) -> SocketFiles {
        self.files().clone()
    }

    /// A file was made again.
    pub(crate) fn made_again(&self, now_ms: u64) {
        let mut files = self.files();
        *files = SocketFiles { made_again: files.made_again + 1, last_ms: now_ms, lost: None };
    }

    /// A file is missing, and this is in the way.
    pub(crate) fn lost(&self, why: &str) {
        self.files().lost = Some(why.to_owned());
    }

    /// Every file is there.
    pub(crate) fn found(&self) {
        self.files().lost = None;
    }
}
