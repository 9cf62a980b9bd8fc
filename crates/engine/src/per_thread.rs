//! Counters that threads count in without sharing a cache line.
//!
//! ```text
//!  thread 0 ──► slot 0 ┐
//!  thread 1 ──► slot 1 ├─ summed on request
//!  others   ──► shared ┘
//! ```
//! T1. Only one thread counts in a slot, so counting is a load and a store: no shared cache line, no locked
//!     instruction.
//! T2. A slot is allocated when its thread counts first, and is never freed. A thread that starts after another has
//!     ended gets its number, and continues its counts.

use crate::sync::thread_number;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Threads with a slot of their own. All others share one.
const THREADS: usize = 256;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot<T>(T);

/// A `T`, which holds counters, for every thread.
#[derive(Debug)]
pub struct PerThread<T> {
    own: [OnceLock<Box<Slot<T>>>; THREADS],
    shared: Slot<T>,
}

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        Self { own: [const { OnceLock::new() }; THREADS], shared: Slot::default() }
    }
}

impl<T: Default> PerThread<T> {
    /// Adds `n` to the counter that `of` chooses.
    pub fn add(&self, of: impl FnOnce(&T) -> &AtomicU64, n: u64) {
        match self.own() {
            Some(own) => {
                let counter = of(own);
                counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed); // T1
            }
            None => {
                of(&self.shared.0).fetch_add(n, Ordering::Relaxed);
            }
        }
    }

    /// Adds `n` where another thread may reset the counter meanwhile.
    pub fn add_atomically(&self, of: impl FnOnce(&T) -> &AtomicU64, n: u64) {
        of(self.own().unwrap_or(&self.shared.0)).fetch_add(n, Ordering::Relaxed);
    }

    /// The sum of the counters that `of` chooses. Counting threads are not blocked, so two sums may be a few counts
    /// apart.
    pub fn sum(&self, of: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.all().map(|slot| of(slot).load(Ordering::Relaxed)).sum()
    }

    /// The counters of every thread.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.own.iter().filter_map(OnceLock::get).map(|slot| &slot.0).chain([&self.shared.0])
    }

    fn own(&self) -> Option<&T> {
        let slot = self.own.get(thread_number()?)?;
        Some(&slot.get_or_init(Box::default).0)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn no_count_is_lost_with_and_without_a_slot() {
        let counters = PerThread::<[AtomicU64; 2]>::default();
        let threads = THREADS as u64 + 20;
        let everybody_is_here = std::sync::Barrier::new(threads as usize);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    everybody_is_here.wait();
                    counters.add(|slot| &slot[0], 1);
                    counters.add_atomically(|slot| &slot[1], 2);
                    everybody_is_here.wait();
                });
            }
        });
        assert_eq!((counters.sum(|slot| &slot[0]), counters.sum(|slot| &slot[1])), (threads, 2 * threads));
        assert!(counters.shared.0[0].load(Ordering::Relaxed) >= 20, "the last threads share a slot");
    }

    #[test]
    fn a_later_thread_continues_the_counts_of_an_ended_one() {
        let counters = PerThread::<[AtomicU64; 1]>::default();
        for _ in 0..600 {
            std::thread::scope(|scope| _ = scope.spawn(|| counters.add(|slot| &slot[0], 1)));
        }
        assert_eq!(counters.sum(|slot| &slot[0]), 600);
    }
}
