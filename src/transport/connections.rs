//! The connections of a plane. At the cap the longest-idle connection is closed to make room for a new one.

use super::call::Calls;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Minimum idle time before a connection is closed for another one.
const LEAST_IDLE: Duration = Duration::from_secs(1);
/// How long to wait for a connection to close before another one is closed.
const CLOSING: Duration = Duration::from_millis(250);

/// The connections of a plane, and its cap.
#[derive(Debug)]
pub struct Connections {
    permits: Arc<Semaphore>,
    open: Mutex<Vec<Weak<Entry>>>,
    epoch: Instant,
}

/// Progress of a connection: grows with its calls and their data.
type Progress = Box<dyn Fn() -> u64 + Send + Sync>;

/// An open connection.
pub(super) struct Entry {
    calls: Arc<Calls>,
    progress: Progress,
    epoch: Instant,
    /// The progress at the last check, and the time of the last check that found growth.
    seen: AtomicU64,
    active_at_ms: AtomicU64,
    is_closing: AtomicBool,
    close: Notify,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("active_at_ms", &self.active_at_ms).finish_non_exhaustive()
    }
}

impl Entry {
    /// Checks the progress of the connection. Returns its idle time, in milliseconds.
    pub(super) fn look(&self) -> u64 {
        let now_ms = self.epoch.elapsed().as_millis() as u64;
        let progress = (self.progress)();
        if self.seen.swap(progress, Ordering::Relaxed) != progress {
            self.active_at_ms.store(now_ms, Ordering::Relaxed);
        }
        now_ms.saturating_sub(self.active_at_ms.load(Ordering::Relaxed))
    }

    /// Ready when the connection must make room for another.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }
}

impl Connections {
    /// An empty table of at most `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(most)), open: Mutex::default(), epoch: Instant::now() })
    }

    fn open(&self) -> parking_lot::MutexGuard<'_, Vec<Weak<Entry>>> {
        self.open.lock()
    }

    /// Acquires a permit for a connection, and closes idle ones until one is free. Calls `closed` for each of them.
    pub(super) async fn place(&self, mut closed: impl FnMut()) -> OwnedSemaphorePermit {
        loop {
            let place = self.permits.clone().acquire_owned();
            if let Ok(place) = self.permits.clone().try_acquire_owned() {
                return place;
            }
            if self.close_longest_idle() {
                closed();
            }
            if let Ok(Ok(place)) = timeout(CLOSING, place).await {
                return place;
            }
        }
    }

    /// Adds a connection with these calls.
    pub(super) fn enter(&self, calls: Arc<Calls>, progress: impl Fn() -> u64 + Send + Sync + 'static) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            calls,
            progress: Box::new(progress),
            epoch: self.epoch,
            seen: AtomicU64::new(0),
            active_at_ms: AtomicU64::new(self.epoch.elapsed().as_millis() as u64),
            is_closing: AtomicBool::new(false),
            close: Notify::new(),
        });
        let mut open = self.open();
        open.retain(|other| other.strong_count() > 0);
        open.push(Arc::downgrade(&entry));
        entry
    }

    /// Closes the longest-idle connection, one without open calls if there is any. Returns whether there was one.
    fn close_longest_idle(&self) -> bool {
        let open = self.open();
        let entries = open.iter().filter_map(Weak::upgrade);
        let idle = entries
            .filter(|entry| !entry.is_closing.load(Ordering::Relaxed))
            .map(|entry| (entry.look(), entry))
            .filter(|(idle_ms, _)| *idle_ms >= LEAST_IDLE.as_millis() as u64);
        let longest = idle.max_by_key(|(idle_ms, entry)| (!entry.calls.are_open(), *idle_ms));
        let Some((_, longest)) = longest else { return false };
        longest.is_closing.store(true, Ordering::Relaxed);
        longest.close.notify_one();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::Watchers;
    use super::super::drain::Stage;
    use super::*;
    use crate::spans::Tracer;
    use crate::traffic::Traffic;

    fn calls() -> Arc<Calls> {
        let watchers = Watchers { traffic: Traffic::default(), tracer: Tracer::default(), complaints: Arc::default() };
        Calls::new(watchers, tokio::sync::watch::channel(Stage::default()).1)
    }

    #[tokio::test(start_paused = true)]
    async fn closes_the_longest_idle_connection_and_never_a_busy_one() {
        let connections = Connections::new(3);
        let worked = Arc::new(AtomicU64::new(0));
        let progress = worked.clone();
        let busy = connections.enter(calls(), move || progress.load(Ordering::Relaxed));
        let old = connections.enter(calls(), || 0);
        tokio::time::advance(LEAST_IDLE * 3 / 4).await;
        let young = connections.enter(calls(), || 0);
        tokio::time::advance(LEAST_IDLE / 2).await;
        // `look` has not been called since it was opened.
        worked.store(1, Ordering::Relaxed);
        assert!(connections.close_longest_idle());
        assert!(old.is_closing.load(Ordering::Relaxed));
        assert!(!connections.close_longest_idle(), "one was busy, and one is too young");
        tokio::time::advance(LEAST_IDLE / 2).await;
        worked.store(2, Ordering::Relaxed);
        assert!(connections.close_longest_idle());
        assert!(young.is_closing.load(Ordering::Relaxed) && !busy.is_closing.load(Ordering::Relaxed));
    }
}
