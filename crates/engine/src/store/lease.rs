//! Leases: the right of one caller at a time to fill a key (R. Nishtala et al., "Scaling Memcache at Facebook", NSDI
//! 2013).
//!
//! Each shard has a table of leases, which changes only under the shard's lock. So grants, fills and writes of one key
//! have one order. Callers wait for the end of a lease without a lock, and never poll.
//!
//! E1. A key has at most one lease.
//! E2. Whatever changes the meaning of a key ends its lease before the lock is released: a write, a deletion (also of a
//!     key without an item), a tombstone, an invalidation of its group. A fill is stored only under the current lease.
//!     So a value that was loaded before a deletion is not stored after it.
//! E3. A waiter joins the queue of a lease under the hold of the lock in which it found the lease, so the end of the
//!     lease always wakes it.
//! E4. Tokens come from one counter that starts at the clock: no token is granted twice in a process, and a token from
//!     before a restart is not current.
//!
//! A hold-off is a lease that nobody holds: no lease is granted until it ends. Only time ends it.

use super::ledger::{Account, Ledger};
use super::types::Key;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Maximum leases at a time, and maximum hold-offs. They are counted apart: no reader can prevent a tombstone.
pub const MAX_LEASES: u64 = 8_192;
/// Maximum callers that wait for one lease.
pub const MAX_WAITERS_OF_A_LEASE: usize = 4_096;
/// Maximum callers that wait for any lease.
pub const MAX_WAITERS: u64 = 16_384;
/// Share of the capacity that leases, hold-offs and waiters may use each, as a divisor. They are charged even beyond the
/// capacity, and the engine makes room: a full store must still grant leases.
const SHARE: u64 = 64;
/// Memory of a lease without its key, and of a waiter, in bytes.
const LEASE_BYTES: u64 = 192;
const WAITER_BYTES: u64 = 128;
/// The token of a hold-off. No caller has it.
const NOBODY: u64 = 0;

/// A request for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Maximum duration of the lease, in milliseconds.
    pub ttl_ms: u64,
    /// A token that the caller already holds: if its lease is current, the caller keeps it.
    pub token: Option<u64>,
    /// Whether the caller waits if it gets no lease.
    pub waits: bool,
}

/// The answer to a request for a lease.
#[derive(Debug)]
pub enum Leased {
    /// The key has a fresh item now, and needs no lease.
    Fresh,
    /// The caller holds the lease.
    Won {
        /// The token for [`super::Condition::Lease`].
        token: u64,
        /// When the lease expires.
        ends_at_ms: u64,
    },
    /// Another caller holds the lease, or nobody may hold one until the hold-off ends.
    Refused {
        /// Whether it is a hold-off.
        is_hold_off: bool,
        /// When it ends.
        ends_at_ms: u64,
        /// The caller's place in the queue; `None` if it does not wait, or if the queue is full.
        waiter: Option<Waiter>,
    },
    /// There are too many leases.
    Exhausted,
}

/// A caller's place in the queue of a lease: a future that is ready when the lease has ended. Its holder also stops
/// waiting when the lease expires. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Waiter {
    signal: Arc<Signal>,
    totals: Arc<Totals>,
}

/// What wakes a waiter.
#[derive(Debug, Default)]
struct Signal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    has_ended: bool,
    waker: Option<Waker>,
}

impl Signal {
    fn end(&self) {
        let waker = {
            let mut state = lock(&self.0);
            state.has_ended = true;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Future for Waiter {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.signal.0);
        if state.has_ended {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.totals.waiters.fetch_sub(1, Ordering::Relaxed);
        self.totals.ledger.release(Account::Tables, WAITER_BYTES);
    }
}

/// Waiters whose lease has ended. Dropping it wakes them; the holder of a lock drops it after the lock.
#[derive(Debug, Default)]
pub(super) struct Ended(Vec<Arc<Signal>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|signal| signal.end());
    }
}

/// Bounds and figures of the leases of all shards.
#[derive(Debug)]
pub(super) struct Totals {
    ledger: Arc<Ledger>,
    /// The newest token (E4).
    token: AtomicU64,
    /// Leases, and hold-offs.
    amounts: [Amount; 2],
    waiters: AtomicU64,
}

/// The number of leases or of hold-offs, and their memory.
#[derive(Debug, Default)]
struct Amount {
    number: AtomicU64,
    bytes: AtomicU64,
}

/// Figures of leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Leases and hold-offs now.
    pub leases: u64,
    /// Callers that wait for one.
    pub waiters: u64,
}

impl Totals {
    /// No leases. All tokens are larger than `first_token`.
    pub(super) fn new(ledger: Arc<Ledger>, first_token: u64) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self { ledger, token: AtomicU64::new(first_token), amounts: Default::default(), waiters: zero() })
    }

    pub(super) fn counts(&self) -> LeaseCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let leases = self.amounts.iter().map(|amount| read(&amount.number)).sum();
        LeaseCounts { leases, waiters: read(&self.waiters) }
    }

    fn next_token(&self) -> u64 {
        self.token.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Charges the memory of a lease. `false` if there are too many.
    fn reserve(&self, bytes: u64, is_hold_off: bool) -> bool {
        let Amount { number, bytes: used } = &self.amounts[usize::from(is_hold_off)];
        let is_within = number.load(Ordering::Relaxed) < MAX_LEASES
            && used.load(Ordering::Relaxed) + bytes <= self.ledger.capacity() / SHARE;
        if is_within {
            self.ledger.force(Account::Tables, bytes);
            number.fetch_add(1, Ordering::Relaxed);
            used.fetch_add(bytes, Ordering::Relaxed);
        }
        is_within
    }

    fn release(&self, bytes: u64, is_hold_off: bool) {
        let Amount { number, bytes: used } = &self.amounts[usize::from(is_hold_off)];
        number.fetch_sub(1, Ordering::Relaxed);
        used.fetch_sub(bytes, Ordering::Relaxed);
        self.ledger.release(Account::Tables, bytes);
    }

    fn reserve_waiter(&self) -> bool {
        let waiters = self.waiters.load(Ordering::Relaxed);
        let is_within = waiters < MAX_WAITERS && (waiters + 1) * WAITER_BYTES <= self.ledger.capacity() / SHARE;
        if is_within {
            self.ledger.force(Account::Tables, WAITER_BYTES);
            self.waiters.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }
}

#[derive(Debug)]
struct Lease {
    token: u64,
    ends_at_ms: u64,
    waiters: Vec<Arc<Signal>>,
}

impl Lease {
    fn is_hold_off(&self) -> bool {
        self.token == NOBODY
    }
}

/// The leases of a shard, by namespace and key.
#[derive(Debug)]
pub(super) struct Leases {
    by_key: BTreeMap<Box<[u8]>, Lease>,
    totals: Arc<Totals>,
}

/// Namespace and key as one string of bytes, so that groups of keys are ranges.
fn full_key(namespace: u16, key: &[u8]) -> Box<[u8]> {
    [&namespace.to_be_bytes()[..], key].concat().into()
}

fn bytes_of(full_key: &[u8]) -> u64 {
    LEASE_BYTES + full_key.len() as u64
}

impl Leases {
    pub(super) fn new(totals: Arc<Totals>) -> Self {
        Self { by_key: BTreeMap::new(), totals }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Whether this token is that of the key's lease.
    pub(super) fn is_current(&self, key: Key<'_>, token: u64, now_ms: u64) -> bool {
        let lease = self.by_key.get(&full_key(key.namespace, key.bytes));
        token != NOBODY && lease.is_some_and(|lease| lease.token == token && lease.ends_at_ms > now_ms)
    }

    /// Grants a lease, unless the key has one (E1).
    pub(super) fn request(&mut self, key: Key<'_>, request: LeaseRequest, now_ms: u64, ended: &mut Ended) -> Leased {
        let full_key = full_key(key.namespace, key.bytes);
        let lease = self.by_key.get_mut(&full_key).filter(|lease| lease.ends_at_ms > now_ms);
        match lease {
            Some(lease) if request.token == Some(lease.token) && !lease.is_hold_off() => {
                Leased::Won { token: lease.token, ends_at_ms: lease.ends_at_ms }
            }
            Some(lease) => Leased::Refused {
                is_hold_off: lease.is_hold_off(),
                ends_at_ms: lease.ends_at_ms,
                waiter: if request.waits { join(&mut lease.waiters, &self.totals) } else { None },
            },
            None => {
                let (token, ends_at_ms) = (self.totals.next_token(), now_ms.saturating_add(request.ttl_ms));
                match self.insert(full_key, token, ends_at_ms, now_ms, ended) {
                    true => Leased::Won { token, ends_at_ms },
                    false => Leased::Exhausted,
                }
            }
        }
    }

    /// A place in the queue of the key's lease, if it has one.
    #[cfg(shuttle)]
    pub(super) fn join_late(&mut self, key: Key<'_>) -> Option<Waiter> {
        match self.by_key.get_mut(&full_key(key.namespace, key.bytes)) {
            Some(lease) => join(&mut lease.waiters, &self.totals),
            None => join(&mut Vec::new(), &self.totals),
        }
    }

    /// Ends the key's lease, and refuses leases until a time, or until the end of a longer hold-off. `false` if there
    /// are too many leases; nothing changes then.
    pub(super) fn hold_off(&mut self, key: Key<'_>, ends_at_ms: u64, now_ms: u64, ended: &mut Ended) -> bool {
        let full_key = full_key(key.namespace, key.bytes);
        match self.by_key.get(&full_key) {
            Some(lease) if lease.is_hold_off() && lease.ends_at_ms >= ends_at_ms => true,
            _ => self.insert(full_key, NOBODY, ends_at_ms, now_ms, ended),
        }
    }

    /// Puts a lease in place of the present one. `false` if there are too many.
    fn insert(&mut self, full_key: Box<[u8]>, token: u64, ends_at_ms: u64, now_ms: u64, ended: &mut Ended) -> bool {
        let bytes = bytes_of(&full_key);
        let lease = Lease { token, ends_at_ms, waiters: Vec::new() };
        if !self.totals.reserve(bytes, lease.is_hold_off()) {
            self.expire(now_ms, ended);
            if !self.totals.reserve(bytes, lease.is_hold_off()) {
                return false;
            }
        }
        if let Some(before) = self.by_key.insert(full_key, lease) {
            self.totals.release(bytes, before.is_hold_off());
            ended.0.extend(before.waiters);
        }
        true
    }

    /// Ends the key's lease (E2). A hold-off stays, and its waiters are woken: the key may have an item now.
    pub(super) fn end(&mut self, key: Key<'_>, ended: &mut Ended) {
        let full_key = full_key(key.namespace, key.bytes);
        match self.by_key.get_mut(&full_key) {
            None => {}
            Some(hold_off) if hold_off.is_hold_off() => ended.0.append(&mut hold_off.waiters),
            Some(_) => self.remove(&full_key, ended),
        }
    }

    /// Ends the lease with this token.
    pub(super) fn give_back(&mut self, key: Key<'_>, token: u64, ended: &mut Ended) {
        let full_key = full_key(key.namespace, key.bytes);
        if token != NOBODY && self.by_key.get(&full_key).is_some_and(|lease| lease.token == token) {
            self.remove(&full_key, ended);
        }
    }

    /// Ends the leases of the keys of a namespace that begin with `prefix` (E2).
    pub(super) fn end_group(&mut self, namespace: u16, prefix: &[u8], ended: &mut Ended) {
        let first = full_key(namespace, prefix);
        let of_group = self.by_key.range::<[u8], _>((Bound::Included(&first[..]), Bound::Unbounded));
        let of_group = of_group.take_while(|(full_key, _)| full_key.starts_with(&first));
        let of_group: Vec<_> = of_group.filter(|(_, lease)| !lease.is_hold_off()).map(|(key, _)| key.clone()).collect();
        of_group.iter().for_each(|full_key| self.remove(full_key, ended));
    }

    /// Removes the leases and hold-offs whose time is over.
    pub(super) fn expire(&mut self, now_ms: u64, ended: &mut Ended) {
        let over = self.by_key.iter().filter(|(_, lease)| lease.ends_at_ms <= now_ms);
        let over: Vec<_> = over.map(|(full_key, _)| full_key.clone()).collect();
        over.iter().for_each(|full_key| self.remove(full_key, ended));
    }

    fn remove(&mut self, full_key: &[u8], ended: &mut Ended) {
        if let Some(lease) = self.by_key.remove(full_key) {
            self.totals.release(bytes_of(full_key), lease.is_hold_off());
            ended.0.extend(lease.waiters);
        }
    }

    /// The namespaces that have hold-offs.
    pub(super) fn held_off_namespaces(&self) -> impl Iterator<Item = u16> {
        let hold_offs = self.by_key.iter().filter(|(_, lease)| lease.is_hold_off());
        hold_offs.map(|(full_key, _)| full_key).map(|full_key| u16::from_be_bytes([full_key[0], full_key[1]]))
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        for (full_key, lease) in &self.by_key {
            self.totals.release(bytes_of(full_key), lease.is_hold_off());
        }
    }
}

/// A place in a queue; `None` if there are too many waiters. Waiters that have left count until the queue is full.
fn join(queue: &mut Vec<Arc<Signal>>, totals: &Arc<Totals>) -> Option<Waiter> {
    if queue.len() >= MAX_WAITERS_OF_A_LEASE {
        queue.retain(|signal| Arc::strong_count(signal) > 1);
    }
    if queue.len() >= MAX_WAITERS_OF_A_LEASE || !totals.reserve_waiter() {
        return None;
    }
    let signal = Arc::<Signal>::default();
    queue.push(signal.clone());
    Some(Waiter { signal, totals: totals.clone() })
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;
