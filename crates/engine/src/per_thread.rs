//! Counters that threads count in without sharing a cache line.
//!
//! ```text
//!  thread 0 ──► counters of thread 0 ┐
//!  thread 1 ──► counters of thread 1 ├─ summed on request
//!  others   ──► shared counters      ┘
//! ```
//! T1. Only one thread counts in counters of its own, so counting is a load and a store: no shared cache line, no locked
//!     instruction.
//! T2. They are allocated when their thread counts first, and are never freed. A thread that starts after another has
//!     ended gets its number, and continues its counts.

use crate::sync::thread_number;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Threads with counters of their own.
const THREADS: usize = 256;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Aligned<T>(T);

/// Counters, a `T` for each thread.
#[derive(Debug)]
pub struct PerThread<T> {
    own: [OnceLock<Box<Aligned<T>>>; THREADS],
    shared: Aligned<T>,
}

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        Self { own: [const { OnceLock::new() }; THREADS], shared: Aligned::default() }
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

    /// The counters of all threads. Counting threads are not blocked, so sums of them may be a few counts apart.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.own.iter().filter_map(OnceLock::get).map(|own| &own.0).chain([&self.shared.0])
    }

    fn own(&self) -> Option<&T> {
        let own = self.own.get(thread_number()?)?;
        Some(&own.get_or_init(Box::default).0)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    type Two = PerThread<[AtomicU64; 2]>;

    fn sum(counters: &Two, at: usize) -> u64 {
        counters.all().map(|of_thread| of_thread[at].load(Ordering::Relaxed)).sum()
    }

    #[test]
    fn no_count_is_lost_with_own_and_with_shared_counters() {
        let counters = Two::default();
        let threads = THREADS as u64 + 20;
        let everybody_is_here = std::sync::Barrier::new(threads as usize);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    everybody_is_here.wait();
                    counters.add(|own| &own[0], 1);
                    counters.add_atomically(|own| &own[1], 2);
                    everybody_is_here.wait();
                });
            }
        });
        assert_eq!((sum(&counters, 0), sum(&counters, 1)), (threads, 2 * threads));
        assert!(counters.shared.0[0].load(Ordering::Relaxed) >= 20, "the last threads share their counters");
    }

    #[test]
    fn a_later_thread_continues_the_counts_of_an_ended_one() {
        let counters = Two::default();
        for _ in 0..600 {
            std::thread::scope(|scope| _ = scope.spawn(|| counters.add(|own| &own[0], 1)));
        }
        assert_eq!(sum(&counters, 0), 600);
    }
}
