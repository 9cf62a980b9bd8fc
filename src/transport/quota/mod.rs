//! Quotas of requests, responses and open calls. They are charged to the ledger before their pages are touched, and a
//! message that does not fit waits for its turn.
//!
//! ```text
//!  bytes in flight of all connections: at most `max`, which follows the memory limit
//!  ┌──────────────── large messages ────────────────┐┌── only small ones ──┐
//!  └──────────────────── 3/4 ───────────────────────┘└──────── 1/4 ────────┘
//!  requests of waiting calls and of stalled readers: another `max`
//!  running calls: half of `max`, parked ones another half; queued calls: one and a half times `max`; unfinished
//!  header blocks: half of `max`
//! ```
//! The quota of a connection is twice the free bytes in flight, so that stalled readers never exhaust the total:
//! dynamic thresholds (A. K. Choudhury and E. L. Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet
//! Switches", IEEE/ACM Transactions on Networking 6(2), 1998). If the queued calls do not fit, the connection with most
//! of them drops one (longest queue drop, from the same field).
//!
//! A message *reserves* its whole size, which determines its turn, but *charges* only its arrived bytes to the ledger:
//! a client that announces 3 MiB and sends 100 bytes occupies the queue, not memory. While a message waits, its client
//! may send one flow-control window of it. The windows of all calls of a connection fit into four fifths of `max`, and
//! the window of the connection is their sum, so waiting calls never block the data of a running one.

mod calls;
mod headers;
mod messages;
mod responses;

pub(super) use calls::Charge;
pub(super) use headers::HeaderBlock;
pub(super) use messages::{Held, Permit, SMALL_BYTES};
pub(super) use responses::{CallQuota, Outgoing};

use crate::traffic::Traffic;
use ebb_engine::store::{Account, Ledger};
use futures::task::AtomicWaker;
use messages::{Class, Waiter};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Memory of a connection, in bytes: its task, `h2`'s buffers and tables (18 KiB by `tests/call_memory.py`, more if its
/// buffers have grown).
const CONNECTION_BYTES: u64 = 24 << 10;
/// Memory that `h2` keeps for a while for a refused call, in bytes, and the maximum number of such calls per
/// connection.
const REFUSED_CALL_BYTES: u64 = 1 << 10;
pub(super) const KEPT_REFUSED_CALLS: usize = 50;

/// The bytes in flight of all connections.
pub struct InFlight {
    ledger: Arc<Ledger>,
    max: Box<dyn Fn() -> u64 + Send + Sync>,
    max_per_connection: u64,
    make_room: Box<dyn Fn() + Send + Sync>,
    /// Reserved for messages: small and large.
    reserved: [AtomicU64; 2],
    /// Charged for messages that wait for their turn and for unread requests.
    held: AtomicU64,
    /// Charged for header blocks that have not ended.
    headers: AtomicU64,
    running: AtomicU64,
    parked: AtomicU64,
    queued: AtomicU64,
    waiters: Mutex<VecDeque<Waiter>>,
    /// Number of small and of large waiters.
    waiting: [AtomicUsize; 2],
    connections: Mutex<Vec<Weak<Quota>>>,
    /// Connections with calls that wait to run.
    queues: Mutex<VecDeque<Weak<Quota>>>,
}

impl InFlight {
    /// Allows as many bytes as `max` currently returns, and `max_per_connection` for one connection. It calls
    /// `make_room` if the ledger is full.
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
            parked: zero(),
            queued: zero(),
            waiters: Mutex::default(),
            waiting: [AtomicUsize::new(0), AtomicUsize::new(0)],
            connections: Mutex::default(),
            queues: Mutex::default(),
        })
    }

    /// Current maximum bytes of all messages together.
    pub fn max(&self) -> u64 {
        (self.max)()
    }

    fn reserved(&self, class: Class) -> u64 {
        self.reserved[class as usize].load(Ordering::Relaxed)
    }

    /// Changes a charge in the ledger from `before` to `now` bytes.
    fn recharge(&self, before: u64, now: u64) {
        match now.checked_sub(before) {
            Some(more) => self.charge(more),
            None => self.ledger.remove_in_flight(before - now),
        }
    }

    /// Charges `bytes` to the ledger, before their pages are touched.
    fn charge(&self, bytes: u64) {
        self.ledger.add_in_flight(bytes);
        self.make_room_if_full();
    }

    /// Charges `bytes` of a connection, for as long as it is open.
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

/// The bytes in flight of one connection.
#[derive(Debug)]
pub(super) struct Quota {
    all: Arc<InFlight>,
    traffic: Traffic,
    reserved: [AtomicU64; 2],
    held: AtomicU64,
    /// Unwritten bytes of responses, and bytes written since the connection opened.
    outgoing: AtomicU64,
    written: AtomicU64,
    running: AtomicU64,
    /// Bytes of parked calls, and their number.
    parked: AtomicU64,
    parked_calls: AtomicU32,
    /// Maximum open calls of the connection.
    streams: AtomicU32,
    queued: AtomicU64,
    /// Bytes of queued calls that this connection must drop.
    excess: AtomicU64,
    /// Refused calls, up to the number that `h2` keeps.
    refused: AtomicU64,
    waker: AtomicWaker,
}

impl Quota {
    /// The quota of a new connection.
    pub(super) fn new(all: Arc<InFlight>, traffic: Traffic) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        all.charge_connection(CONNECTION_BYTES);
        let quota = Arc::new(Self {
            all,
            traffic,
            reserved: [zero(), zero()],
            held: zero(),
            outgoing: zero(),
            written: zero(),
            running: zero(),
            parked: zero(),
            parked_calls: AtomicU32::new(0),
            streams: AtomicU32::new(u32::MAX),
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

    /// Charges the stream that `h2` keeps for a refused call.
    pub(super) fn refused_a_call(&self) {
        let refused = self.refused.load(Ordering::Relaxed);
        if refused < KEPT_REFUSED_CALLS as u64 {
            self.refused.store(refused + 1, Ordering::Relaxed); // only the connection's task writes it
            self.all.charge_connection(REFUSED_CALL_BYTES);
        }
    }

    /// Sets the maximum number of open calls of the connection.
    pub(super) fn set_streams(&self, streams: u32) {
        self.streams.store(streams, Ordering::Relaxed);
    }

    /// Counters of requests.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Bytes reserved by this connection's messages.
    pub(super) fn used(&self) -> u64 {
        self.reserved.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// Unwritten bytes of responses.
    pub(super) fn outgoing(&self) -> u64 {
        self.outgoing.load(Ordering::Relaxed)
    }

    /// Bytes of responses written since the connection opened.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The waker of the connection's task, which is woken when a call ends.
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
