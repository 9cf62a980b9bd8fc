//! The ledger: all memory that can grow is reserved here before a page is touched.
//!
//! A process that exceeds its cgroup limit gets SIGKILL, never a failed allocation. So the cache keeps its own account
//! with a capacity, and a refusal is a normal path: the writer evicts, or the request fails with RESOURCE_EXHAUSTED.
//!
//! L1. The total is at most the capacity, unless the capacity was lowered below it, or [`Ledger::force`] or bytes in
//!     flight exceeded it; then nothing is granted until the total has fallen below the capacity. The exception is a
//!     write that has released more than it reserves ([`Bound::Before`]): the total falls nevertheless.
//! L2. Every reservation is released exactly once, by its owner.
//! L3. The total charges the recent peak of the bytes in flight: an allocator keeps freed buffers for a while, and
//!     their pages must not be promised to segments meanwhile.

#[cfg(loom)]
use crate::sync::atomic::fence;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Fault, planted};

/// The use for which bytes are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Segments of items.
    Segments,
    /// The index of all shards.
    Index,
    /// Tables that the cache keeps outside the store.
    Tables,
    /// Open connections.
    Connections,
}

/// What the total may reach by a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// The capacity.
    Capacity,
    /// The total before a write that has cleaned as many segments as one write may, in bytes; or the capacity.
    Before(u64),
    /// Anything: for the little memory that the cleaner needs to free more.
    None,
}

/// The low watermark, in percent of the capacity, until one is set.
const LOW_PERCENT: u64 = 88;
/// Time constant with which the charge for bytes in flight decays to the current value, in milliseconds: half of the
/// second in which the allocator returns freed pages to the kernel (see `MALLOC_CONF` in `src/allocator.rs`).
const KEPT_MS: u64 = 500;
/// A charge at most this far above the bytes in flight decays at once, in bytes.
const KEPT_BYTES: u64 = 4 << 10;

/// The account of all memory that can grow.
#[derive(Debug)]
pub struct Ledger {
    /// Maximum capacity, in bytes: the address space is no larger.
    most: u64,
    capacity: AtomicU64,
    /// See [`Ledger::low`].
    low: AtomicU64,
    total: AtomicU64,
    accounts: [AtomicU64; 4],
    in_flight: AtomicU64,
    /// The part of the total that is charged for bytes in flight (L3).
    in_flight_kept: AtomicU64,
}

impl Ledger {
    /// A ledger that grants up to `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self::up_to(capacity, u64::MAX)
    }

    /// A ledger that grants up to `capacity` bytes, and whose capacity is never raised above `most` bytes.
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

    /// Maximum of the total, in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Sets the capacity, bounded by the address space. It may be less than the total; see L1. This also resets the low
    /// watermark to its default share of the capacity.
    pub fn set_capacity(&self, bytes: u64) {
        let capacity = bytes.min(self.most);
        self.capacity.store(capacity, Ordering::Relaxed);
        self.set_low(capacity / 100 * LOW_PERCENT);
    }

    /// The low watermark, in bytes: nothing is evicted while live bytes and all accounts other than segments fit in it.
    pub fn low(&self) -> u64 {
        self.low.load(Ordering::Relaxed)
    }

    /// Sets [`Ledger::low`], in bytes.
    pub fn set_low(&self, bytes: u64) {
        self.low.store(bytes.min(self.capacity()), Ordering::Relaxed);
    }

    /// Bytes reserved by `account`.
    pub fn used(&self, account: Account) -> u64 {
        self.accounts[account as usize].load(Ordering::Relaxed)
    }

    /// Bytes reserved by all accounts, plus the charge for bytes in flight.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether `bytes` of segments would fit if there were no other segments. If not, eviction cannot make room for
    /// them.
    pub fn could_hold(&self, bytes: u64) -> bool {
        self.fixed().saturating_add(bytes) <= self.capacity()
    }

    /// Bytes in use by everything other than segments.
    pub(super) fn fixed(&self) -> u64 {
        let others = [Account::Index, Account::Tables, Account::Connections].map(|account| self.used(account));
        others.iter().sum::<u64>() + self.in_flight_kept()
    }

    /// Whether `bytes` would be granted now.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.total().saturating_add(bytes) <= self.capacity()
    }

    /// Whether `bytes` would be granted within `bound`.
    pub(super) fn has_room_within(&self, bytes: u64, bound: Bound) -> bool {
        self.total().saturating_add(bytes) <= self.most_within(bound)
    }

    fn most_within(&self, bound: Bound) -> u64 {
        match bound {
            Bound::Capacity => self.capacity(),
            Bound::Before(total) => self.capacity().max(total),
            Bound::None => u64::MAX,
        }
    }

    /// Reserves `bytes`. If they exceed the capacity, returns `false` and changes nothing.
    #[must_use]
    pub fn reserve(&self, account: Account, bytes: u64) -> bool {
        self.reserve_within(account, bytes, Bound::Capacity)
    }

    /// Reserves `bytes`. If they exceed `bound`, returns `false` and changes nothing.
    #[must_use]
    pub(super) fn reserve_within(&self, account: Account, bytes: u64, bound: Bound) -> bool {
        let most = self.most_within(bound);
        // Relaxed: the ledger guards amounts, not the memory itself.
        let granted = self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| {
            total.checked_add(bytes).filter(|&sum| sum <= most)
        });
        if granted.is_err() {
            return false;
        }
        self.accounts[account as usize].fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Reserves `bytes` even beyond the capacity.
    pub fn force(&self, account: Account, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.accounts[account as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes in flight now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Bytes charged for bytes in flight; see L3.
    pub fn in_flight_kept(&self) -> u64 {
        self.in_flight_kept.load(Ordering::Relaxed)
    }

    /// Adds the `bytes` of a request or a response to the bytes in flight, even beyond the capacity.
    pub fn add_in_flight(&self, bytes: u64) {
        // Sequentially consistent, as in `decay_in_flight`: either `decay_in_flight` sees these bytes in flight, or the load below sees
        // the value that `decay_in_flight` lowered. So this call usually writes only one shared word.
        let in_flight = self.in_flight.fetch_add(bytes, Ordering::SeqCst) + bytes;
        // loom treats a sequentially consistent access as one that only acquires and releases.
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        if self.in_flight_kept.load(Ordering::SeqCst) < in_flight {
            self.keep(in_flight);
        }
    }

    /// Removes the `bytes` of a finished request or response. The charge stays until it [decays](Self::decay_in_flight).
    pub fn remove_in_flight(&self, bytes: u64) {
        let before = self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} bytes removed of the {before} in flight (L2)");
    }

    /// Decays the charge towards the bytes in flight, `elapsed_ms` after the last call.
    pub fn decay_in_flight(&self, elapsed_ms: u64) {
        let kept = self.in_flight_kept();
        let above = kept.saturating_sub(self.in_flight());
        let step = if above <= KEPT_BYTES { above } else { above * elapsed_ms.min(KEPT_MS) / KEPT_MS };
        let lowered = self.in_flight_kept.compare_exchange(kept, kept - step, Ordering::SeqCst, Ordering::Relaxed);
        if lowered.is_ok() {
            self.total.fetch_sub(step, Ordering::Relaxed);
        }
        // A request that was added meanwhile may have seen the old, larger charge. This load sees its bytes in flight.
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        if !planted(Fault::DecayUnlooked) {
            self.keep(self.in_flight.load(Ordering::SeqCst));
        }
    }

    /// Raises the charge for bytes in flight to at least `bytes`.
    fn keep(&self, bytes: u64) {
        loop {
            let kept = self.in_flight_kept();
            let more = bytes.saturating_sub(kept);
            if more == 0 {
                return;
            }
            // The total first: when `decay_in_flight` subtracts the charge, the total must already contain it.
            self.total.fetch_add(more, Ordering::Relaxed);
            let exchanged =
                self.in_flight_kept.compare_exchange(kept, kept + more, Ordering::AcqRel, Ordering::Relaxed);
            if exchanged.is_ok() {
                return;
            }
            self.total.fetch_sub(more, Ordering::Relaxed);
        }
    }

    /// Releases `bytes` of a reservation.
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
    fn a_lowered_capacity_grants_nothing_until_the_total_falls() {
        let ledger = Ledger::new(100);
        assert!(ledger.reserve(Account::Segments, 90));
        ledger.set_capacity(50);
        assert!(!ledger.reserve(Account::Index, 1));
        ledger.release(Account::Segments, 60);
        assert!(ledger.reserve(Account::Index, 20));
    }

    #[test]
    fn a_write_that_has_released_more_is_granted_above_a_lowered_capacity() {
        let ledger = Ledger::new(100);
        assert!(ledger.reserve(Account::Segments, 90));
        ledger.set_capacity(50);
        let before = Bound::Before(ledger.total());
        assert!(!ledger.reserve_within(Account::Segments, 1, before) && ledger.has_room_within(0, before));
        ledger.release(Account::Segments, 20);
        assert!(ledger.reserve_within(Account::Segments, 15, before) && !ledger.has_room_within(6, before));
        ledger.release(Account::Segments, 85);
        assert!(ledger.reserve_within(Account::Segments, 50, Bound::Before(1)), "the capacity is always granted");
    }

    #[test]
    fn the_charge_for_bytes_in_flight_decays_and_is_reused() {
        let ledger = Ledger::new(4 << 20);
        ledger.add_in_flight(1 << 20);
        ledger.remove_in_flight(1 << 20);
        assert_eq!((ledger.in_flight(), ledger.in_flight_kept(), ledger.total()), (0, 1 << 20, 1 << 20));
        assert!(!ledger.reserve(Account::Segments, (3 << 20) + 1), "the allocator may still keep the pages");
        ledger.add_in_flight(1 << 19);
        assert_eq!(ledger.total(), 1 << 20, "the next request reuses the charge");
        ledger.decay_in_flight(250);
        assert_eq!(ledger.total(), (1 << 20) - (1 << 18), "half of the excess decays");
        ledger.decay_in_flight(60_000);
        assert_eq!((ledger.in_flight_kept(), ledger.total()), (1 << 19, 1 << 19));
        ledger.remove_in_flight(1 << 19);
        (0..100).for_each(|_| ledger.decay_in_flight(100));
        assert_eq!((ledger.in_flight_kept(), ledger.total()), (0, 0), "the charge decays to zero");
    }

    #[test]
    fn a_reservation_that_would_overflow_is_refused() {
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
