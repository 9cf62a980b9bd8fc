//! The connections of a plane. At the cap the one that has been idle for longest makes room for a new one.

use super::call::Calls;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// A connection is not closed for another one before it has been idle for so long.
const LEAST_IDLE: Duration = Duration::from_secs(1);
/// How long to wait for a connection that was asked to close, before another one is.
const CLOSING: Duration = Duration::from_millis(250);

/// The connections of a plane, and its cap.
#[derive(Debug)]
pub struct Connections {
    permits: Arc<Semaphore>,
    open: Mutex<Vec<Weak<Entry>>>,
    epoch: Instant,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Entry {
    calls: Arc<Calls>,
    epoch: Instant,
    active_at_ms: AtomicU64,
    is_closing: AtomicBool,
    close: Notify,
}

impl Entry {
    /// The connection did something at `now`.
    pub(super) fn active(&self, now: Instant) {
        self.active_at_ms.store(now.duration_since(self.epoch).as_millis() as u64, Ordering::Relaxed);
    }

    /// Ready when the connection is to make room for another.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }
}

impl Connections {
    /// None, of at most `most`.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(most)), open: Mutex::default(), epoch: Instant::now() })
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Entry>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection, and closes idle ones until there is one. `closed` is called for each of them.
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

    /// Enters a connection with these calls.
    pub(super) fn enter(&self, calls: Arc<Calls>) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            calls,
            epoch: self.epoch,
            active_at_ms: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            close: Notify::new(),
        });
        entry.active(Instant::now());
        let mut open = self.open();
        open.retain(|other| other.strong_count() > 0);
        open.push(Arc::downgrade(&entry));
        entry
    }

    /// Closes the connection that has been idle for longest, one without open calls if there is any.
    fn close_longest_idle(&self) -> bool {
        let now_ms = self.epoch.elapsed().as_millis() as u64;
        let idle_ms = |entry: &Entry| now_ms.saturating_sub(entry.active_at_ms.load(Ordering::Relaxed));
        let open = self.open();
        let idle = open.iter().filter_map(Weak::upgrade).filter(|entry| {
            idle_ms(entry) >= LEAST_IDLE.as_millis() as u64 && !entry.is_closing.load(Ordering::Relaxed)
        });
        let Some(longest) = idle.max_by_key(|entry| (!entry.calls.are_open(), idle_ms(entry))) else { return false };
        longest.is_closing.store(true, Ordering::Relaxed);
        longest.close.notify_one();
        true
    }
}
