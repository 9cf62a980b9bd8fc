//! Readers: which segment each thread is reading without a lock, and its counts of hits and misses.
//!
//! ```text
//!  reader   announce segment ──► does the slot still name it? ──► copy ──► withdraw
//!  writer   remove its last slot ──► is it announced? ── no ──► free
//! ```
//! These are hazard pointers (Michael, IEEE TPDS 2004), one per thread.
//!
//! R1. A reader announces a segment, then checks again that its map is still the shard's newest and that the slot still
//!     names the item. A writer that frees a segment first removes its last slot and then loads the announcements. One
//!     of the two comes first in the order of sequentially consistent operations, so one of them sees the other.
//! R2. A thread announces one segment at a time, so a descheduled thread pins one segment.
//! R3. Only its own thread writes to a reader's words, so that counting a read shares no cache line. The counts are beside
//!     the announcement, in a line that the read has loaded already, and not in a [`crate::per_thread::PerThread`].

use super::types::Miss;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Fault, planted, thread_number, thread_numbers};
use strum::EnumCount as _;

/// Maximum number of threads that read without a lock. Others take the lock of the shard.
#[cfg(not(any(loom, shuttle)))]
const MAX_READERS: usize = 256;
#[cfg(any(loom, shuttle))]
const MAX_READERS: usize = 8;

/// The announcement and the counts of one thread, in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Reader {
    /// The first number of the announced segment; 0 for none.
    segment: AtomicU64,
    hits: AtomicU64,
    /// In the order of [`Miss`].
    misses: [AtomicU64; Miss::COUNT],
}

/// Keeps a segment from being reused until it is dropped.
#[derive(Debug)]
pub(super) struct Announcement<'a>(&'a Reader);

impl Reader {
    /// Announces a segment. Its items stay valid only if a sequentially consistent load finds their slots afterwards
    /// (R1).
    pub(super) fn announce(&self, segment: u32) -> Announcement<'_> {
        if !planted(Fault::ReadUnannounced) {
            self.segment.swap(u64::from(segment), Ordering::SeqCst);
            // loom treats a sequentially consistent access as one that only acquires and releases.
            #[cfg(loom)]
            fence(Ordering::SeqCst);
        }
        Announcement(self)
    }

    /// Counts a read: a hit (`None`), or a miss by reason.
    pub(super) fn count(&self, miss: Option<Miss>) {
        let counter = miss.map_or(&self.hits, |miss| &self.misses[miss as usize]);
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed); // R3
    }
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        // Release pairs with the Acquire load in `announced`: all reads of the segment happen before it is freed.
        self.0.segment.store(0, Ordering::Release);
    }
}

/// The readers of all threads.
#[derive(Debug)]
pub(super) struct Readers {
    all: Box<[Reader]>,
    /// The counts of threads without a reader of their own.
    others: Reader,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self { all: (0..MAX_READERS).map(|_| Reader::default()).collect(), others: Reader::default() }
    }

    /// The reader of this thread; `None` if too many threads have one.
    pub(super) fn own(&self) -> Option<&Reader> {
        self.all.get(thread_number()?)
    }

    /// The reader of a model's thread.
    #[cfg(loom)]
    pub(super) fn at(&self, number: usize) -> &Reader {
        &self.all[number]
    }

    /// Counts a read of a thread without a reader.
    pub(super) fn count_other(&self, miss: Option<Miss>) {
        let counter = miss.map_or(&self.others.hits, |miss| &self.others.misses[miss as usize]);
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The segments that are announced now. The caller has already removed the slots of the segments that it wants to
    /// free.
    pub(super) fn announced(&self) -> Vec<u32> {
        fence(Ordering::SeqCst); // R1
        let announced =
            self.all.iter().take(thread_numbers()).map(|reader| reader.segment.load(Ordering::Acquire) as u32);
        announced.filter(|segment| *segment != 0).collect()
    }

    /// The number of hits, and of misses by reason.
    pub(super) fn counts(&self) -> (u64, [u64; Miss::COUNT]) {
        let all = || self.all.iter().chain([&self.others]);
        let sum = |of: &dyn Fn(&Reader) -> u64| all().map(of).sum();
        let misses = std::array::from_fn(|miss| sum(&|reader| reader.misses[miss].load(Ordering::Relaxed)));
        (sum(&|reader| reader.hits.load(Ordering::Relaxed)), misses)
    }
}
