//! The lock of a shard: a writer spins for it before it sleeps, and the cleaner sees that a writer waits.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, Stopwatch, lock, try_lock};

/// How long a writer spins for the lock before it sleeps, in microseconds: several times as long as the cleaner holds
/// the lock. A writer that sleeps may then wait 3 to 4 ms for a processor, until the time slice of another thread ends.
const SPIN_US: u64 = 50;
/// Spin-loop hints between two attempts to lock: some hundred nanoseconds.
const PAUSE: usize = 8;

/// A lock and its waits.
#[derive(Debug)]
pub(super) struct Lock<T> {
    inner: Mutex<T>,
    /// Threads that wait for the lock.
    waiting: AtomicU64,
    /// The longest wait since the last call of `take_longest_wait_us`, in microseconds.
    longest_wait_us: AtomicU64,
}

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Self {
        Self { inner: Mutex::new(value), waiting: AtomicU64::new(0), longest_wait_us: AtomicU64::new(0) }
    }

    /// Takes the lock.
    pub(super) fn take(&self) -> MutexGuard<'_, T> {
        try_lock(&self.inner).unwrap_or_else(|| self.wait())
    }

    /// Takes the lock for the cleaner, whose wait delays no caller: it neither spins nor counts as waiting.
    pub(super) fn take_as_cleaner(&self) -> MutexGuard<'_, T> {
        lock(&self.inner)
    }

    /// Takes the lock if it becomes free within [`SPIN_US`].
    fn spin(&self, waited: &Stopwatch) -> Option<MutexGuard<'_, T>> {
        while waited.is_within(SPIN_US) {
            if let Some(guard) = try_lock(&self.inner) {
                return Some(guard);
            }
            // Without a pause the spinning writer would keep the lock's cache line from its holder.
            (0..PAUSE).for_each(|_| std::hint::spin_loop());
        }
        None
    }

    /// Waits for the lock. The cleaner sees `waiting` and releases the lock early.
    #[cold]
    fn wait(&self) -> MutexGuard<'_, T> {
        // Relaxed: the cleaner may see it a little later, and then it only yields a little later.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waited = Stopwatch::start();
        let guard = self.spin(&waited).unwrap_or_else(|| lock(&self.inner));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.longest_wait_us.fetch_max(waited.micros(), Ordering::Relaxed);
        guard
    }

    /// Whether a writer waits for the lock.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The longest wait since the last call, in microseconds.
    pub(super) fn take_longest_wait_us(&self) -> u64 {
        self.longest_wait_us.swap(0, Ordering::Relaxed)
    }
}
