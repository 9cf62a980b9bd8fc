//! The ledger: every byte that can grow is asked for here before a page is touched.
//!
//! A cgroup limit never shows up as a failed allocation; it is always SIGKILL. So the cache keeps its own account under
//! a ceiling, and a refusal is a normal path: the writer evicts, the request is answered RESOURCE_EXHAUSTED.
//!
//! L1. The sum of the accounts is at most the capacity, unless the capacity was lowered under it or [`Ledger::force`]
//!     was used; then nothing is granted until the sum has fallen below it.
//! L2. What was reserved is released exactly once, by whoever holds it.
//! L3. Of requests and responses the sum holds the most that was in flight of late: an allocator keeps freed buffers for
//!     a while, and their pages must not be promised to segments meanwhile.

#[cfg(loom)]
use crate::sync::atomic::fence;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Fault, planted};

/// What bytes are reserved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Segments of items.
    Segments,
    /// The index of all shards.
    Index,
    /// Tables that the cache keeps beside the store.
    Tables,
    /// Open connections.
    Connections,
}

/// The low mark, in percent of the capacity, until one is set.
const LOW_PERCENT: u64 = 88;
/// In this time what is kept for bytes in flight falls to what is in flight, were it to fall evenly: half of the second
/// in which the allocator gives its freed pages back (see `MALLOC_CONF` in `src/allocator.rs`).
const KEPT_MS: u64 = 500;
/// What is kept above what is in flight, in bytes, is not worth keeping.
const KEPT_BYTES: u64 = 4 << 10;

/// The account of all memory that can grow.
#[derive(Debug)]
pub struct Ledger {
    /// What the capacity may be raised to, in bytes: there is address space for no more.
    most: u64,
    capacity: AtomicU64,
    /// See [`Ledger::low`].
    low: AtomicU64,
    total: AtomicU64,
    accounts: [AtomicU64; 4],
    in_flight: AtomicU64,
    /// What the total holds of it.
    in_flight_kept: AtomicU64,
}

impl Ledger {
    /// A ledger that grants up to `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self::up_to(capacity, u64::MAX)
    }

    /// The same; the capacity is never raised above `most` bytes.
    pub fn up_to(capacity: u64, most: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            most,
            capacity: AtomicU64::new(capacity.min(most)),
            low: AtomicU64::new(capacity.min(most) / 100 * LOW_PERCENT),
            total: zero(),
            accounts: [zero(), zero(), zero(), zero()],
            in_flight: zero(),
            in_flight_kept: zero(),
        }
    }

    /// What may be in use, in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Sets what may be in use, up to what there is address space for. It may be less than what is in use; see L1. The low
    /// mark follows, until it is set.
    pub fn set_capacity(&self, bytes: u64) {
        let capacity = bytes.min(self.most);
        self.capacity.store(capacity, Ordering::Relaxed);
        self.set_low(capacity / 100 * LOW_PERCENT);
    }

    /// Nothing is evicted while what is live, with everything that is no segment, fits this many bytes.
    pub fn low(&self) -> u64 {
        self.low.load(Ordering::Relaxed)
    }

    /// Sets [`Ledger::low`], in bytes.
    pub fn set_low(&self, bytes: u64) {
        self.low.store(bytes.min(self.capacity()), Ordering::Relaxed);
    }

    /// What is in use by `account`, in bytes.
    pub fn used(&self, account: Account) -> u64 {
        self.accounts[account as usize].load(Ordering::Relaxed)
    }

    /// What is in use by all accounts together, in bytes.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether `bytes` of segments would fit if there were no other: otherwise it is vain to evict for them.
    pub fn could_hold(&self, bytes: u64) -> bool {
        self.fixed().saturating_add(bytes) <= self.capacity()
    }

    /// What is in use that is no segment, in bytes.
    pub(super) fn fixed(&self) -> u64 {
        let others = [Account::Index, Account::Tables, Account::Connections].map(|account| self.used(account));
        others.iter().sum::<u64>() + self.in_flight_kept()
    }

    /// Whether `bytes` would be granted now.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.total().saturating_add(bytes) <= self.capacity()
    }

    /// Reserves `bytes`, or refuses and changes nothing.
    #[must_use]
    pub fn reserve(&self, account: Account, bytes: u64) -> bool {
        let capacity = self.capacity();
        // Relaxed: the ledger guards amounts, not the memory they stand for.
        let granted = self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| {
            total.checked_add(bytes).filter(|&sum| sum <= capacity)
        });
        if granted.is_err() {
            return false;
        }
        self.accounts[account as usize].fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Reserves `bytes` whatever the capacity: for the little the cleaner needs in order to free more.
    pub fn force(&self, account: Account, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.accounts[account as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// What is in flight, in bytes.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What is counted for it, in bytes; see L3.
    pub fn in_flight_kept(&self) -> u64 {
        self.in_flight_kept.load(Ordering::Relaxed)
    }

    /// Counts a request or a response of `bytes`, whatever the capacity.
    pub fn take_off(&self, bytes: u64) {
        // Sequentially consistent, as in `let_go`: either `let_go` sees these bytes in flight, or the load below sees the
        // value that `let_go` lowered. So a call usually writes to one shared word.
        let in_flight = self.in_flight.fetch_add(bytes, Ordering::SeqCst) + bytes;
        // loom takes a sequentially consistent access for one that acquires and releases.
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        if self.in_flight_kept.load(Ordering::SeqCst) < in_flight {
            self.keep(in_flight);
        }
    }

    /// One of `bytes` has ended. What was kept for it stays so until it is [let go](Self::let_go).
    pub fn land(&self, bytes: u64) {
        let before = self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} bytes ended of the {before} in flight (L2)");
    }

    /// Lets go of some of what is kept and not in flight any more, `elapsed_ms` after the last time.
    pub fn let_go(&self, elapsed_ms: u64) {
        let kept = self.in_flight_kept();
        let above = kept.saturating_sub(self.in_flight());
        let step = if above <= KEPT_BYTES { above } else { above * elapsed_ms.min(KEPT_MS) / KEPT_MS };
        let lowered = self.in_flight_kept.compare_exchange(kept, kept - step, Ordering::SeqCst, Ordering::Relaxed);
        if lowered.is_ok() {
            self.total.fetch_sub(step, Ordering::Relaxed);
        }
        // Whoever took off meanwhile may have found enough kept that is not kept any more: then it is seen in flight.
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        if !planted(Fault::LetGoUnlooked) {
            self.keep(self.in_flight.load(Ordering::SeqCst));
        }
    }

    /// Keeps at least `bytes` for what is in flight.
    fn keep(&self, bytes: u64) {
        loop {
            let kept = self.in_flight_kept();
            let more = bytes.saturating_sub(kept);
            if more == 0 {
                return;
            }
            // The sum first: whoever lets go of what is kept takes it off a sum that holds it.
            self.total.fetch_add(more, Ordering::Relaxed);
            let exchanged =
                self.in_flight_kept.compare_exchange(kept, kept + more, Ordering::AcqRel, Ordering::Relaxed);
            if exchanged.is_ok() {
                return;
            }
            self.total.fetch_sub(more, Ordering::Relaxed);
        }
    }

    /// Gives back what was reserved.
    pub fn release(&self, account: Account, bytes: u64) {
        let before = self.accounts[account as usize].fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} bytes released of the {before} reserved for {account:?} (L2)");
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_stays_within_the_address_space() {
        let ledger = Ledger::up_to(100, 80);
        assert_eq!(ledger.capacity(), 80);
        ledger.set_capacity(60);
        assert_eq!(ledger.capacity(), 60);
        ledger.set_capacity(1_000);
        assert_eq!(ledger.capacity(), 80);
    }

    #[test]
    fn nothing_is_granted_above_the_capacity() {
        let ledger = Ledger::new(100);
        assert!(ledger.reserve(Account::Segments, 60));
        assert!(!ledger.reserve(Account::Index, 41));
        assert!(ledger.reserve(Account::Index, 40));
        assert_eq!((ledger.total(), ledger.used(Account::Segments)), (100, 60));
    }

    #[test]
    fn a_capacity_lowered_under_the_sum_grants_nothing_until_the_sum_has_fallen() {
        let ledger = Ledger::new(100);
        assert!(ledger.reserve(Account::Segments, 90));
        ledger.set_capacity(50);
        assert!(!ledger.reserve(Account::Index, 1));
        ledger.release(Account::Segments, 60);
        assert!(ledger.reserve(Account::Index, 20));
    }

    #[test]
    fn what_was_in_flight_is_kept_for_a_while_and_used_again() {
        let ledger = Ledger::new(4 << 20);
        ledger.take_off(1 << 20);
        ledger.land(1 << 20);
        assert_eq!((ledger.in_flight(), ledger.in_flight_kept(), ledger.total()), (0, 1 << 20, 1 << 20));
        assert!(!ledger.reserve(Account::Segments, (3 << 20) + 1), "its pages are still there");
        ledger.take_off(1 << 19);
        assert_eq!(ledger.total(), 1 << 20, "the next one uses them");
        ledger.let_go(250);
        assert_eq!(ledger.total(), (1 << 20) - (1 << 18), "half of what is not in flight");
        ledger.let_go(60_000);
        assert_eq!((ledger.in_flight_kept(), ledger.total()), (1 << 19, 1 << 19));
        ledger.land(1 << 19);
        (0..100).for_each(|_| ledger.let_go(100));
        assert_eq!((ledger.in_flight_kept(), ledger.total()), (0, 0), "and it ends");
    }

    #[test]
    fn a_sum_that_would_overflow_is_refused() {
        let ledger = Ledger::new(u64::MAX);
        assert!(ledger.reserve(Account::Segments, 1));
        assert!(!ledger.reserve(Account::Segments, u64::MAX));
    }

    #[test]
    #[should_panic(expected = "(L2)")]
    fn releasing_more_than_was_reserved_stops_the_process() {
        Ledger::new(10).release(Account::Index, 1);
    }
}
