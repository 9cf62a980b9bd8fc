//! Requests, responses and open calls are memory too: they are in the ledger before their pages are touched, and a
//! message that does not fit waits for its turn.
//!
//! ```text
//!  bytes in flight of all connections: at most `max`, which follows the memory limit
//!  ┌──────────────── large messages ────────────────┐┌── only small ones ──┐
//!  └──────────────────── 3/4 ───────────────────────┘└──────── 1/4 ────────┘
//!  requests of calls that wait, or whose client reads no answers: as much as `max` besides
//!  running calls: half of `max`; queued calls: one and a half times `max`; unfinished header blocks: half of `max`
//! ```
//! Of the bytes in flight a connection may hold at most twice what is free, so clients that stop reading never hold all:
//! dynamic thresholds, as A. K. Choudhury and E. L. Hahne gave the queues of a switch in "Dynamic Queue Length Thresholds
//! for Shared-Memory Packet Switches" (IEEE/ACM Transactions on Networking 6(2), 1998). When calls that wait to run do not
//! fit, the connection with most of them gives one up (longest queue drop, the same field).
//!
//! A message *reserves* its whole size, which decides whose turn it is, and *charges* to the ledger what is there of it:
//! who announces 3 MiB and sends 100 bytes takes a place in the queue, not memory. While a message waits, its client may
//! send one flow-control window of it. The windows of all calls of a connection fit into four fifths of `max`, and the
//! window of the connection is their sum, so calls that wait never keep the one that does not from its data.

mod calls;
mod headers;
mod messages;
mod responses;

pub(super) use calls::Charge;
pub(super) use headers::HeaderBlock;
pub(super) use messages::{Held, Permit, SMALL_BYTES};
pub(super) use responses::{CallQuota, Outgoing};

use crate::traffic::Lane;
use ebb_engine::store::{Account, Ledger};
use futures::task::AtomicWaker;
use messages::{Class, Waiter};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// What a connection takes, in bytes: its task, `h2`'s buffers and tables (18 KiB by `tests/call_memory.py`, more where its
/// buffers have grown).
const CONNECTION_BYTES: u64 = 24 << 10;
/// What `h2` keeps for a while of a call that was refused, in bytes, and of how many calls of a connection at most.
const REFUSED_CALL_BYTES: u64 = 1 << 10;
pub(super) const KEPT_REFUSED_CALLS: usize = 50;

/// What all connections together have in flight.
pub struct InFlight {
    ledger: Arc<Ledger>,
    max: Box<dyn Fn() -> u64 + Send + Sync>,
    max_per_connection: u64,
    make_room: Box<dyn Fn() + Send + Sync>,
    /// Reserved for messages: small and large.
    reserved: [AtomicU64; 2],
    /// Charged for messages that wait for their turn and for requests that nobody reads.
    held: AtomicU64,
    /// Charged for header blocks that have not ended.
    headers: AtomicU64,
    running: AtomicU64,
    queued: AtomicU64,
    waiters: Mutex<VecDeque<Waiter>>,
    /// How many of them are small, and large.
    waiting: [AtomicUsize; 2],
    connections: Mutex<Vec<Weak<Quota>>>,
    /// Connections with calls that wait to run.
    queues: Mutex<VecDeque<Weak<Quota>>>,
}

impl InFlight {
    /// At most as many bytes as `max` returns at the time, and `max_per_connection` for one connection. When the ledger
    /// is full, `make_room` is called.
    pub fn new(
        ledger: Arc<Ledger>,
        max: impl Fn() -> u64 + Send + Sync + 'static,
        max_per_connection: u64,
        make_room: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            ledger,
            max: Box::new(max),
            max_per_connection,
            make_room: Box::new(make_room),
            reserved: [zero(), zero()],
            held: zero(),
            headers: zero(),
            running: zero(),
            queued: zero(),
            waiters: Mutex::default(),
            waiting: [AtomicUsize::new(0), AtomicUsize::new(0)],
            connections: Mutex::default(),
            queues: Mutex::default(),
        })
    }

    /// Bytes of all messages together, at most, at present.
    pub fn max(&self) -> u64 {
        (self.max)()
    }

    fn reserved(&self, class: Class) -> u64 {
        self.reserved[class as usize].load(Ordering::Relaxed)
    }

    /// Counts `now` bytes in the ledger where `before` were counted.
    fn recharge(&self, before: u64, now: u64) {
        match now.checked_sub(before) {
            Some(more) => self.charge(more),
            None => self.ledger.land(before - now),
        }
    }

    /// Counts `bytes` in the ledger, before their pages are touched.
    fn charge(&self, bytes: u64) {
        self.ledger.take_off(bytes);
        self.make_room_if_full();
    }

    /// The same for what a connection takes as long as it is open.
    fn charge_connection(&self, bytes: u64) {
        self.ledger.force(Account::Connections, bytes);
        self.make_room_if_full();
    }

    fn make_room_if_full(&self) {
        if !self.ledger.has_room(0) {
            (self.make_room)();
        }
    }
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight").field("max", &self.max()).finish_non_exhaustive()
    }
}

/// What one connection has in flight.
#[derive(Debug)]
pub(super) struct Quota {
    all: Arc<InFlight>,
    lane: Arc<Lane>,
    reserved: [AtomicU64; 2],
    held: AtomicU64,
    /// Bytes of responses that have not been written, and bytes that have, since the connection opened.
    outgoing: AtomicU64,
    written: AtomicU64,
    running: AtomicU64,
    queued: AtomicU64,
    /// Bytes of waiting calls that this connection is to give up.
    excess: AtomicU64,
    /// Calls that were refused, up to as many as `h2` keeps.
    refused: AtomicU64,
    waker: AtomicWaker,
}

impl Quota {
    /// The quota of a new connection.
    pub(super) fn new(all: Arc<InFlight>, lane: Arc<Lane>) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        all.charge_connection(CONNECTION_BYTES);
        let quota = Arc::new(Self {
            all,
            lane,
            reserved: [zero(), zero()],
            held: zero(),
            outgoing: zero(),
            written: zero(),
            running: zero(),
            queued: zero(),
            excess: zero(),
            refused: zero(),
            waker: AtomicWaker::new(),
        });
        let mut connections = quota.all.connections.lock();
        connections.retain(|other| other.strong_count() > 0);
        connections.push(Arc::downgrade(&quota));
        drop(connections);
        quota
    }

    /// Charges the stream that `h2` keeps of a refused call.
    pub(super) fn refused_a_call(&self) {
        let refused = self.refused.load(Ordering::Relaxed);
        if refused < KEPT_REFUSED_CALLS as u64 {
            self.refused.store(refused + 1, Ordering::Relaxed); // by the connection's task alone
            self.all.charge_connection(REFUSED_CALL_BYTES);
        }
    }

    /// Counts the requests of the connection's thread.
    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Bytes reserved by this connection's messages.
    pub(super) fn used(&self) -> u64 {
        self.reserved.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of responses that have not been written.
    pub(super) fn outgoing(&self) -> u64 {
        self.outgoing.load(Ordering::Relaxed)
    }

    /// Bytes of responses that have been written, since the connection opened.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Where the waker of the connection's task is kept: it is woken when a call ends.
    pub(super) fn waker(&self) -> &AtomicWaker {
        &self.waker
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let refused = self.refused.load(Ordering::Relaxed) * REFUSED_CALL_BYTES;
        self.all.ledger.release(Account::Connections, CONNECTION_BYTES + refused);
    }
}

#[cfg(test)]
mod tests;
