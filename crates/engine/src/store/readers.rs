//! Readers: which segment each thread is reading without a lock, and what it has found.
//!
//! ```text
//!  reader   announce segment ──► does the slot still name it? ──► copy ──► withdraw
//!  writer   take its last slot away ──► is it announced? ── no ──► free
//! ```
//! These are hazard pointers (Michael, IEEE TPDS 2004), one to a thread.
//!
//! R1. A reader announces a segment, then looks again whether the index it goes by is still the shard's and still names
//!     the item. Whoever frees a segment takes its last slot away first and then looks at the announcements. One of the
//!     two comes first in the order of sequentially consistent operations, so one of them sees the other.
//! R2. A thread announces one segment at a time: one that is descheduled pins one segment.
//! R3. Only its own thread writes to a reader's words, so that counting a read shares no cache line.

use super::types::Miss;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Fault, planted, thread_number, thread_numbers};
use strum::EnumCount as _;

/// Threads that may read without a lock at a time. Others take the lock of the shard.
#[cfg(not(any(loom, shuttle)))]
const MAX_READERS: usize = 256;
#[cfg(any(loom, shuttle))]
const MAX_READERS: usize = 8;

/// What one thread announces and counts: a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Reader {
    /// The first number of the segment it reads; 0 for none.
    segment: AtomicU64,
    hits: AtomicU64,
    /// In the order of [`Miss`].
    misses: [AtomicU64; Miss::COUNT],
}

/// Keeps a segment from being reused until it is dropped.
#[derive(Debug)]
pub(super) struct Announcement<'a>(&'a Reader);

impl Reader {
    /// Announces a segment. Only what is looked up afterwards, sequentially consistent, is known to stay (R1).
    pub(super) fn announce(&self, segment: u32) -> Announcement<'_> {
        if !planted(Fault::ReadUnannounced) {
            self.segment.swap(u64::from(segment), Ordering::SeqCst);
            // loom takes a sequentially consistent access for one that acquires and releases.
            #[cfg(loom)]
            fence(Ordering::SeqCst);
        }
        Announcement(self)
    }

    /// Counts a read: a hit, or why there was none.
    pub(super) fn count(&self, miss: Option<Miss>) {
        let counter = miss.map_or(&self.hits, |miss| &self.misses[miss as usize]);
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed); // R3
    }
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        // Release pairs with the Acquire load in `announced`: what was read was read before the segment is free.
        self.0.segment.store(0, Ordering::Release);
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Readers {
    all: Box<[Reader]>,
    /// What threads count that have no reader of their own.
    others: Reader,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self { all: (0..MAX_READERS).map(|_| Reader::default()).collect(), others: Reader::default() }
    }

    /// That of the thread; `None` when too many threads have one.
    pub(super) fn own(&self) -> Option<&Reader> {
        self.all.get(thread_number()?)
    }

    /// That of a model's thread.
    #[cfg(loom)]
    pub(super) fn at(&self, number: usize) -> &Reader {
        &self.all[number]
    }

    /// Counts a read of a thread without a reader.
    pub(super) fn count_other(&self, miss: Option<Miss>) {
        let counter = miss.map_or(&self.others.hits, |miss| &self.others.misses[miss as usize]);
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The segments that are announced now. The caller has taken the slots away that named what it wants to free.
    pub(super) fn announced(&self) -> Vec<u32> {
        fence(Ordering::SeqCst); // R1
        let announced =
            self.all.iter().take(thread_numbers()).map(|reader| reader.segment.load(Ordering::Acquire) as u32);
        announced.filter(|segment| *segment != 0).collect()
    }

    /// Reads that found an item, and those that did not, by reason.
    pub(super) fn counts(&self) -> (u64, [u64; Miss::COUNT]) {
        let all = || self.all.iter().chain([&self.others]);
        let sum = |of: &dyn Fn(&Reader) -> u64| all().map(of).sum();
        let misses = std::array::from_fn(|miss| sum(&|reader| reader.misses[miss].load(Ordering::Relaxed)));
        (sum(&|reader| reader.hits.load(Ordering::Relaxed)), misses)
    }
}
