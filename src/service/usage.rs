//! Hits, misses and stored values by namespace: for each of the first 32, and for all others together.

use ebb_engine::per_thread::PerThread;
use std::sync::atomic::{AtomicU64, Ordering};

/// Namespaces that are counted separately.
pub(super) const NAMED: usize = 32;

/// A counted event.
#[derive(Clone, Copy)]
pub(super) enum Event {
    Hit,
    Miss,
    Stored,
    /// Of a namespace whose number is used for another one now; the engine counts the others.
    Evicted,
}

/// The counts of a namespace since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found no value.
    pub misses: u64,
    /// Values stored.
    pub sets: u64,
    /// Items dropped to make room.
    pub evictions: u64,
}

/// What a namespace uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceUsage {
    /// Its name.
    pub name: String,
    /// Items in the index.
    pub entries: u64,
    /// Keys and values of these items, in bytes.
    pub live_bytes: u64,
    /// Items dropped to make room.
    pub evictions: u64,
    /// Its other counts, if they are kept apart from those of other namespaces.
    pub counts: Option<Counts>,
}

/// The counters of a thread, by namespace and event.
#[derive(Debug)]
struct Counters([[AtomicU64; 4]; NAMED + 1]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { [const { AtomicU64::new(0) }; 4] }; NAMED + 1])
    }
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Usage(PerThread<Counters>);

impl Usage {
    /// Counts one event.
    pub(super) fn count(&self, namespace: u16, event: Event) {
        // `forget` may reset the count meanwhile.
        self.0.add_atomically(|own| &own.0[usize::from(namespace).min(NAMED)][event as usize], 1);
    }

    /// Moves the counts of a namespace to those of all others, before its number is reused, and its evictions.
    pub(super) fn forget(&self, namespace: u16, evictions: u64) {
        let number = usize::from(namespace);
        self.0.add_atomically(|own| &own.0[NAMED][Event::Evicted as usize], evictions);
        for Counters(counts) in self.0.all().filter(|_| number < NAMED) {
            for (count, others) in counts[number].iter().zip(&counts[NAMED]) {
                others.fetch_add(count.swap(0, Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// The counts of a namespace; at [`NAMED`], of all that are not counted separately.
    pub(super) fn of(&self, namespace: usize) -> Counts {
        let sum = |event: Event| -> u64 {
            self.0.all().map(|counters| counters.0[namespace][event as usize].load(Ordering::Relaxed)).sum()
        };
        Counts {
            hits: sum(Event::Hit),
            misses: sum(Event::Miss),
            sets: sum(Event::Stored),
            evictions: sum(Event::Evicted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_and_further_namespaces_are_merged() {
        let usage = Usage::default();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    usage.count(0, Event::Hit);
                    usage.count(31, Event::Miss);
                    usage.count(32, Event::Stored);
                    usage.count(900, Event::Stored);
                });
            }
        });
        assert_eq!(usage.of(0), Counts { hits: 6, ..Counts::default() });
        assert_eq!(usage.of(31), Counts { misses: 6, ..Counts::default() });
        assert_eq!(usage.of(NAMED), Counts { sets: 12, ..Counts::default() });
        usage.forget(31, 2);
        usage.forget(900, 3);
        assert_eq!(usage.of(31), Counts::default());
        assert_eq!(
            usage.of(NAMED),
            Counts { sets: 12, misses: 6, evictions: 5, ..Counts::default() },
            "no total decreases"
        );
    }
}
