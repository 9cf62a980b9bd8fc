//! One name for the primitives of concurrency, so that the same code runs on threads and under a model checker.
//!
//! `--cfg loom` and `--cfg shuttle` (not cargo features, so that `--all-features` still lints the real code) swap the
//! standard library's atomics and locks for the checkers'. [`Swap`] is arc-swap in production and a lock in a model:
//! arc-swap's own protocol is checked by its authors; what is checked here is what we build on "a load returns the
//! pointer that was stored, and a swap returns the old one".

#[cfg(loom)]
pub use loom::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(shuttle)]
pub use shuttle::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(not(any(loom, shuttle)))]
pub use std::sync::{Arc, Mutex, MutexGuard, atomic};

/// Locks, and goes on after a panic elsewhere: every structure behind our locks is whole between two statements that
/// can panic, and the cleaner stops the process on a broken invariant.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(loom)]
    return mutex.lock().unwrap();
    #[cfg(not(loom))]
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A pointer that readers load without a lock and a writer swaps.
#[derive(Debug)]
pub struct Swap<T>(#[cfg(not(any(loom, shuttle)))] arc_swap::ArcSwap<T>, #[cfg(any(loom, shuttle))] Mutex<Arc<T>>);

#[cfg(not(any(loom, shuttle)))]
impl<T> Swap<T> {
    /// Points at `value`.
    pub fn new(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value))
    }

    /// What it points at; kept alive while the guard lives.
    pub fn load(&self) -> arc_swap::Guard<Arc<T>> {
        self.0.load()
    }

    /// Points at `value` from now on, and returns what it pointed at.
    pub fn swap(&self, value: Arc<T>) -> Arc<T> {
        self.0.swap(value)
    }
}

#[cfg(any(loom, shuttle))]
impl<T> Swap<T> {
    /// Points at `value`.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    /// What it points at; kept alive while the guard lives.
    pub fn load(&self) -> Arc<T> {
        lock(&self.0).clone()
    }

    /// Points at `value` from now on, and returns what it pointed at.
    pub fn swap(&self, value: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *lock(&self.0), value)
    }
}
