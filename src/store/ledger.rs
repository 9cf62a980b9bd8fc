//! The ledger: every byte that can grow is asked for here before a page is touched.
//!
//! A cgroup limit never shows up as a failed allocation; it is always SIGKILL. So the cache keeps its own account under
//! a ceiling, and a refusal is a normal path: the writer evicts, the request is answered RESOURCE_EXHAUSTED.
//!
//! L1. The sum of the accounts is at most the capacity, unless the capacity was lowered under it or [`Ledger::force`]
//!     was used; then nothing is granted until the sum has fallen below it.
//! L2. What was reserved is released exactly once, by whoever holds it.

use crate::sync::atomic::{AtomicU64, Ordering};

/// What bytes are reserved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Segments of items.
    Segments,
    /// The index of all shards.
    Index,
    /// Requests and responses in flight.
    InFlight,
}

/// The account of all memory that can grow.
#[derive(Debug)]
pub struct Ledger {
    capacity: AtomicU64,
    total: AtomicU64,
    accounts: [AtomicU64; 3],
}

impl Ledger {
    /// A ledger that grants up to `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self { capacity: AtomicU64::new(capacity), total: zero(), accounts: [zero(), zero(), zero()] }
    }

    /// What may be in use, in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Sets what may be in use. It may be less than what is; see L1.
    pub fn set_capacity(&self, bytes: u64) {
        self.capacity.store(bytes, Ordering::Relaxed);
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
        let fixed = self.used(Account::Index) + self.used(Account::InFlight);
        fixed.saturating_add(bytes) <= self.capacity()
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
    fn nothing_is_granted_above_the_capacity() {
        let ledger = Ledger::new(100);
        assert!(ledger.reserve(Account::Segments, 60));
        assert!(!ledger.reserve(Account::InFlight, 41));
        assert!(ledger.reserve(Account::InFlight, 40));
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
