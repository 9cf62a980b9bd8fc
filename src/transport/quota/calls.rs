//! Quotas of open calls: running calls, queued calls, and parked calls, which wait for another call.

use super::{InFlight, Quota};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Memory of a running call without its messages, in bytes: its task, `h2`'s stream, its buffers, usual headers (7.3
/// KiB by `tests/call_memory.py`).
pub(in crate::transport) const CALL_BYTES: u64 = 8 << 10;
/// Memory of a queued call, in bytes: `h2`'s stream, usual headers (2 to 2.5 KiB).
pub(super) const QUEUED_CALL_BYTES: u64 = 3 << 10;
/// Headers included in the cost of a call, in bytes.
const USUAL_HEADER_BYTES: u64 = 2 << 10;
/// Maximum flow-control window of a call, in bytes, unless the windows of all calls of a connection fit into a quarter
/// of the bytes in flight. With it, a message of 64 KiB takes one round trip.
const USUAL_WINDOW_BYTES: u64 = 64 << 10;
/// Windows are multiples of the largest frame that HTTP/2 allows by default, in bytes (RFC 9113, section 4.2).
const FRAME_BYTES: u64 = 16 << 10;
/// Minimum open calls of every connection, and the number of connections up to which all have the same share.
pub(super) const FEWEST_STREAMS: u32 = 8;
const FEW_CONNECTIONS: u64 = 16;

impl InFlight {
    /// Maximum bytes of queued calls.
    fn max_queued(&self) -> u64 {
        self.max() + self.max() / 2
    }

    /// Maximum open calls of a new connection, up to `most`: its share of the queue. A client that does not know the
    /// bound yet assumes 100.
    pub fn streams(&self, most: u32) -> u32 {
        let share = self.max_queued() / QUEUED_CALL_BYTES / self.connections().max(FEW_CONNECTIONS);
        u32::try_from(share).unwrap_or(u32::MAX).clamp(FEWEST_STREAMS.min(most), most)
    }

    /// The flow-control window of a call, in bytes, up to `most`, on a connection with `streams` calls. The data that
    /// the client may send while all calls wait is less than a single connection may hold, so that no call is ended for
    /// it.
    pub(in crate::transport) fn window(&self, streams: u32, most: u32) -> u32 {
        let (max, streams) = (self.max(), u64::from(streams.max(1)));
        let window = (max / 5 * 4 / streams).min(USUAL_WINDOW_BYTES).max(max / 4 / streams);
        let window = (window / FRAME_BYTES * FRAME_BYTES).max(FRAME_BYTES);
        u32::try_from(window).unwrap_or(u32::MAX).min(most)
    }

    fn connections(&self) -> u64 {
        self.connections.lock().len() as u64
    }

    /// Wakes one connection with queued calls.
    fn wake_a_queue(&self) {
        let mut queues = self.queues.lock();
        while let Some(quota) = queues.pop_front() {
            if let Some(quota) = quota.upgrade().filter(|quota| quota.queued.load(Ordering::Relaxed) > 0) {
                quota.waker.wake();
                return;
            }
        }
    }

    /// The connection with the most bytes of queued calls.
    fn largest_queue(&self) -> Option<Arc<Quota>> {
        let connections = self.connections.lock();
        connections.iter().filter_map(Weak::upgrade).max_by_key(|quota| quota.queued.load(Ordering::Relaxed))
    }
}

impl Quota {
    /// Whether the connection should yield before it reads more: queued calls use half of their quota, and this
    /// connection has more of them than its share.
    pub(in crate::transport) fn is_crowded(&self) -> bool {
        let half = self.all.max_queued() / 2;
        self.all.queued.load(Ordering::Relaxed) > half
            && self.queued.load(Ordering::Relaxed) > half / self.all.connections().max(FEW_CONNECTIONS)
    }

    /// Whether a call with headers of `headers` bytes may run now. A connection without calls may always run one.
    pub(in crate::transport) fn try_run(self: &Arc<Self>, headers: u64) -> Option<Charge> {
        let max = self.all.max() / 2;
        let cost = CALL_BYTES + headers.saturating_sub(USUAL_HEADER_BYTES);
        let (own, all) = (self.running.load(Ordering::Relaxed), self.all.running.load(Ordering::Relaxed));
        let share = match own {
            0 => u64::MAX,
            _ => 2 * max.saturating_sub(all + cost),
        };
        (own + cost <= share).then(|| Charge::new(self, Stage::Running, cost))
    }

    /// Whether the connection has a call left if one more is parked: the call for which they wait may come from the same
    /// client.
    fn leaves_a_call(&self) -> bool {
        self.parked_calls.load(Ordering::Relaxed) < self.streams.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Charges `bytes` of an operation that is parked. `false` if too many are.
    pub(super) fn park_bytes(&self, bytes: u64) -> bool {
        let may_park = self.may_park(bytes);
        if may_park {
            self.add_parked(bytes);
            self.all.charge(bytes);
        }
        may_park
    }

    /// Removes the charge of a parked operation.
    pub(super) fn resume_bytes(&self, bytes: u64) {
        self.remove_parked(bytes);
        self.all.ledger.remove_in_flight(bytes);
    }

    fn add_parked(&self, bytes: u64) {
        self.parked.fetch_add(bytes, Ordering::Relaxed);
        self.all.parked.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove_parked(&self, bytes: u64) {
        self.parked.fetch_sub(bytes, Ordering::Relaxed);
        self.all.parked.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether `bytes` more may be parked: in total half of the bytes in flight.
    fn may_park(&self, bytes: u64) -> bool {
        let max = self.all.max() / 2;
        let (own, all) = (self.parked.load(Ordering::Relaxed), self.all.parked.load(Ordering::Relaxed));
        all + bytes <= max && (own == 0 || own + bytes <= 2 * max.saturating_sub(all + bytes))
    }

    /// Queues a call with headers of `headers` bytes. `None` if it does not fit and this connection has the most queued
    /// calls.
    pub(in crate::transport) fn try_queue(self: &Arc<Self>, headers: u64) -> Option<Charge> {
        let cost = QUEUED_CALL_BYTES + headers.saturating_sub(USUAL_HEADER_BYTES);
        if self.all.queued.load(Ordering::Relaxed) + cost > self.all.max_queued() {
            let largest = self.all.largest_queue()?;
            let own = self.queued.load(Ordering::Relaxed);
            let excess = largest.excess.load(Ordering::Relaxed);
            if largest.queued.load(Ordering::Relaxed) <= own + cost + excess {
                return None;
            }
            largest.excess.fetch_add(cost, Ordering::Relaxed);
            largest.waker.wake();
        }
        Some(Charge::new(self, Stage::Queued, cost))
    }

    /// Whether the connection must drop one of its queued calls, of `bytes`.
    pub(in crate::transport) fn take_excess(&self, bytes: u64) -> bool {
        let excess = self.excess.load(Ordering::Relaxed);
        if excess > 0 {
            self.excess.store(excess.saturating_sub(bytes), Ordering::Relaxed);
        }
        excess > 0
    }

    /// Wakes the connection's task when a call of another connection ends.
    pub(in crate::transport) fn wake_when_a_call_ends(self: &Arc<Self>) {
        let mut queues = self.all.queues.lock();
        if !queues.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(self))) {
            queues.push_back(Arc::downgrade(self));
        }
    }
}

/// The stage of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Queued,
    Running,
}

/// The charge of a call without its messages; released on drop.
#[derive(Debug)]
pub(in crate::transport) struct Charge {
    quota: Arc<Quota>,
    stage: Stage,
    bytes: u64,
}

impl Charge {
    fn new(quota: &Arc<Quota>, stage: Stage, bytes: u64) -> Self {
        let charge = Self { quota: quota.clone(), stage, bytes };
        for counter in charge.counters() {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
        quota.all.charge(bytes);
        charge
    }

    fn counters(&self) -> [&AtomicU64; 2] {
        match self.stage {
            Stage::Running => [&self.quota.running, &self.quota.all.running],
            Stage::Queued => [&self.quota.queued, &self.quota.all.queued],
        }
    }

    /// The charged bytes.
    pub(in crate::transport) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts a running call as parked, and charges `more` bytes. `false` if it may not wait.
    pub(super) fn park(&self, more: u64) -> bool {
        let may_park = self.quota.leaves_a_call() && self.quota.may_park(self.bytes + more);
        if may_park {
            self.quota.parked_calls.fetch_add(1, Ordering::Relaxed);
            self.quota.add_parked(self.bytes + more);
            self.quota.all.charge(more);
            self.counters().iter().for_each(|counter| _ = counter.fetch_sub(self.bytes, Ordering::Relaxed));
            self.wake_queues();
        }
        may_park
    }

    /// Counts a parked call as running.
    pub(super) fn resume(&self) {
        self.counters().iter().for_each(|counter| _ = counter.fetch_add(self.bytes, Ordering::Relaxed));
        self.quota.parked_calls.fetch_sub(1, Ordering::Relaxed);
        self.quota.remove_parked(self.bytes);
    }

    /// Wakes connections whose calls wait to run.
    fn wake_queues(&self) {
        if self.quota.queued.load(Ordering::Relaxed) > 0 {
            self.quota.waker.wake();
        }
        if self.quota.all.queued.load(Ordering::Relaxed) > 0 {
            self.quota.all.wake_a_queue();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for counter in self.counters() {
            counter.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.quota.all.ledger.remove_in_flight(self.bytes);
        if self.stage == Stage::Running {
            self.wake_queues();
        }
    }
}
