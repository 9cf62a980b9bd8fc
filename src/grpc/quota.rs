//! Requests, responses and open calls are memory too: they are in the ledger before their pages are touched, and a
//! message that does not fit waits for its turn.
//!
//! ```text
//!  bytes in flight of all connections: at most `max`, which follows the memory limit
//!  ┌──────────────── large messages ────────────────┐┌── only small ones ──┐
//!  └──────────────────── 3/4 ───────────────────────┘└──────── 1/4 ────────┘
//!  open calls: half of `max` for those that run, twice as much as `max` for those that wait to run
//! ```
//! Of the bytes in flight a connection may hold at most twice what is free, so clients that stop reading never hold all:
//! dynamic thresholds, as A. K. Choudhury and E. L. Hahne gave the queues of a switch in "Dynamic Queue Length Thresholds
//! for Shared-Memory Packet Switches" (IEEE/ACM Transactions on Networking 6(2), 1998). When calls that wait to run do not
//! fit, the connection with most of them gives one up (longest queue drop, the same field).
//!
//! A message *reserves* its whole size, which decides whose turn it is, and *charges* to the ledger what is there of it:
//! who announces 3 MiB and sends 100 bytes takes a place in the queue, not memory.

use crate::cache::Refusal;
use crate::store::{Account, Ledger};
use crate::traffic::Lane;
use futures::task::AtomicWaker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// Messages and frames up to this size are part of what a call costs, in bytes.
pub(super) const SMALL_BYTES: u64 = 1024;
/// Messages above this size are large: a quarter of the bytes in flight is closed to them.
const LARGE_BYTES: u64 = 32 << 10;
/// What a call that runs takes beside its messages, in bytes: its task, `h2`'s stream, its buffers, usual headers
///.
pub(super) const CALL_BYTES: u64 = 8 << 10;
/// What a call that waits to run takes, in bytes: `h2`'s stream, usual headers.
const QUEUED_CALL_BYTES: u64 = 3 << 10;
/// Headers that are part of what a call costs, in bytes.
const USUAL_HEADER_BYTES: u64 = 2 << 10;
/// Calls that every connection may have open, and the number of connections up to which all have the same share.
const FEWEST_STREAMS: u32 = 8;
const FEW_CONNECTIONS: u64 = 16;
/// What a connection takes, in bytes: its task, `h2`'s buffers and tables.
const CONNECTION_BYTES: u64 = 16 << 10;

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
    running: AtomicU64,
    queued: AtomicU64,
    waiters: Mutex<VecDeque<Waiter>>,
    /// How many of them are small, and large.
    waiting: [AtomicUsize; 2],
    connections: Mutex<Vec<Weak<Quota>>>,
    /// Connections with calls that wait to run.
    queues: Mutex<VecDeque<Weak<Quota>>>,
}

/// How large a message is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Small,
    Large,
}

impl Class {
    fn of(bytes: u64) -> Self {
        if bytes > LARGE_BYTES { Self::Large } else { Self::Small }
    }
}

/// A message that waits for its turn.
struct Waiter {
    quota: Arc<Quota>,
    need: u64,
    grant: oneshot::Sender<Permit>,
}

/// Whose bound a message exceeds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Connection,
    All,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            running: zero(),
            queued: zero(),
            waiters: Mutex::default(),
            waiting: [AtomicUsize::new(0), AtomicUsize::new(0)],
            connections: Mutex::default(),
            queues: Mutex::default(),
        })
    }

    fn max(&self) -> u64 {
        (self.max)()
    }

    fn reserved(&self, class: Class) -> u64 {
        self.reserved[class as usize].load(Ordering::Relaxed)
    }

    /// Counts `bytes` in the ledger, before their pages are touched.
    fn charge(&self, bytes: u64) {
        self.ledger.take_off(bytes);
        if !self.ledger.has_room(0) {
            (self.make_room)();
        }
    }

    /// Whether `need` more bytes fit into what may be in flight.
    fn fits(&self, quota: &Quota, need: u64) -> Result<(), (Whose, Refusal)> {
        let class = Class::of(need);
        let max = self.max();
        let (all, max) = match class {
            Class::Large => (self.reserved(Class::Large), max - max / 4),
            Class::Small => (self.reserved(Class::Small) + self.reserved(Class::Large), max),
        };
        let sum = all.saturating_add(need);
        let refusal = |whose: Whose, used: u64, max: u64| {
            let whose_text = match whose {
                Whose::Connection => "this connection",
                Whose::All => "all connections",
            };
            Err((whose, Refusal::InFlight { need, used, max, whose: whose_text }))
        };
        // The connection's own bound first: who waits for its own messages must not hold up others.
        let used = quota.reserved[class as usize].load(Ordering::Relaxed);
        let share = match used {
            0 => u64::MAX,
            _ => (2 * max.saturating_sub(sum)).min(self.max_per_connection),
        };
        if used.saturating_add(need) > share {
            return refusal(Whose::Connection, used, share);
        }
        // A large message that comes alone may have any size, or large values would never fit small limits.
        if sum > max && !(class == Class::Large && all == 0) {
            return refusal(Whose::All, all, max);
        }
        Ok(())
    }

    /// Gives freed bytes to the messages that wait, in order. One that waits for its connection does not hold up others.
    /// What a small message gives back is of no use to large ones.
    fn grant(&self, freed: Class) {
        let is_awaited = |class: Class| self.waiting[class as usize].load(Ordering::Relaxed) > 0;
        if !is_awaited(Class::Small) && (freed == Class::Small || !is_awaited(Class::Large)) {
            return;
        }
        let mut granted = Vec::new();
        {
            let mut waiters = lock(&self.waiters);
            let mut full = [false; 2];
            let mut full_connections: Vec<(*const Quota, Class)> = Vec::new();
            let mut at = 0;
            while at < waiters.len() && full != [true; 2] {
                let Waiter { quota, need, grant } = &waiters[at];
                let class = Class::of(*need);
                let key = (Arc::as_ptr(quota), class);
                let fits = if grant.is_closed() {
                    Ok(())
                } else if full[class as usize] || full_connections.contains(&key) {
                    Err(None)
                } else {
                    self.fits(quota, *need).map_err(|(whose, _)| Some(whose))
                };
                match fits {
                    Ok(()) => {
                        let waiter = waiters.remove(at).expect("it is there");
                        if !waiter.grant.is_closed() {
                            granted.push((waiter.grant, waiter.quota.reserve(waiter.need)));
                        }
                        continue;
                    }
                    Err(Some(Whose::All)) => full[class as usize] = true,
                    Err(Some(Whose::Connection)) => full_connections.push(key),
                    Err(None) => {}
                }
                at += 1;
            }
            self.count(&waiters);
        }
        // Outside the lock: a permit that nobody takes any more comes back here.
        for (grant, permit) in granted {
            let _ = grant.send(permit);
        }
    }

    /// Counts the messages that wait.
    fn count(&self, waiters: &VecDeque<Waiter>) {
        let large = waiters.iter().filter(|waiter| Class::of(waiter.need) == Class::Large).count();
        self.waiting[Class::Large as usize].store(large, Ordering::Relaxed);
        self.waiting[Class::Small as usize].store(waiters.len() - large, Ordering::Relaxed);
    }

    /// What calls that wait to run may take, in bytes.
    fn max_queued(&self) -> u64 {
        2 * self.max()
    }

    /// Wakes one connection with calls that wait to run.
    fn wake_a_queue(&self) {
        let mut queues = lock(&self.queues);
        while let Some(quota) = queues.pop_front() {
            if let Some(quota) = quota.upgrade().filter(|quota| quota.queued.load(Ordering::Relaxed) > 0) {
                quota.waker.wake();
                return;
            }
        }
    }

    /// The connection with the most bytes of calls that wait to run.
    fn largest_queue(&self) -> Option<Arc<Quota>> {
        let connections = lock(&self.connections);
        connections.iter().filter_map(Weak::upgrade).max_by_key(|quota| quota.queued.load(Ordering::Relaxed))
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
    /// Bytes of responses that have not been written, and bytes that have, since the connection opened.
    outgoing: AtomicU64,
    written: AtomicU64,
    running: AtomicU64,
    queued: AtomicU64,
    /// Bytes of waiting calls that this connection is to give up.
    excess: AtomicU64,
    waker: AtomicWaker,
}

impl Quota {
    /// The quota of a new connection.
    pub(super) fn new(all: Arc<InFlight>, lane: Arc<Lane>) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        all.ledger.force(Account::Connections, CONNECTION_BYTES);
        let quota = Arc::new(Self {
            all,
            lane,
            reserved: [zero(), zero()],
            outgoing: zero(),
            written: zero(),
            running: zero(),
            queued: zero(),
            excess: zero(),
            waker: AtomicWaker::new(),
        });
        let mut connections = lock(&quota.all.connections);
        connections.retain(|other| other.strong_count() > 0);
        connections.push(Arc::downgrade(&quota));
        drop(connections);
        quota
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

    /// Whether messages wait for their turn.
    pub(super) fn others_wait(&self) -> bool {
        self.all.waiting.iter().any(|waiting| waiting.load(Ordering::Relaxed) > 0)
    }

    /// Whether `bytes` fit now and no other large message waits.
    fn fits_now(&self, bytes: u64) -> Result<(), Refusal> {
        if self.others_wait() && Class::of(bytes) == Class::Large {
            let (used, max) = (self.all.reserved(Class::Large), self.all.max());
            return Err(Refusal::InFlight { need: bytes, used, max, whose: "all connections" });
        }
        self.all.fits(self, bytes).map_err(|(_, refusal)| refusal)
    }

    /// Reserves `bytes` if they fit now and no other message waits.
    ///
    /// # Errors
    /// [`Refusal::InFlight`] names the bound.
    pub(super) fn try_reserve(self: &Arc<Self>, bytes: u64) -> Result<Permit, Refusal> {
        self.fits_now(bytes)?;
        Ok(self.reserve(bytes))
    }

    /// Reserves `bytes` when it is their turn, within `limit`.
    ///
    /// # Errors
    /// [`Refusal::InFlight`] when the time is over.
    pub(super) async fn wait_for(self: Arc<Self>, bytes: u64, limit: Duration) -> Result<Permit, Refusal> {
        let (grant, granted) = oneshot::channel();
        {
            let mut waiters = lock(&self.all.waiters);
            waiters.push_back(Waiter { quota: self.clone(), need: bytes, grant });
            self.all.count(&waiters);
        }
        self.all.grant(Class::Large);
        match tokio::time::timeout(limit, granted).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let refused = self.all.fits(&self, bytes).err().map(|(_, refusal)| refusal);
                let (used, max) = (self.used(), self.all.max());
                Err(refused.unwrap_or(Refusal::InFlight { need: bytes, used, max, whose: "all connections" }))
            }
        }
    }

    /// What a message of `len` bytes takes while it arrives and is handed on: it is there twice for a moment. One that
    /// comes alone may have all there is.
    pub(super) fn twice(&self, len: u64) -> u64 {
        let max = self.all.max();
        len.saturating_mul(2).min((max - max / 4).max(len))
    }

    /// Whether what this connection holds of waiting and unread requests, `used` bytes, may stay: a quarter of what is
    /// free, so that a client that only sends never keeps out the messages of others.
    ///
    /// # Errors
    /// [`Refusal::InFlight`].
    pub(super) fn may_hold(&self, used: u64) -> Result<(), Refusal> {
        let all = self.all.reserved(Class::Small) + self.all.reserved(Class::Large);
        let taken = all + self.all.held.load(Ordering::Relaxed).saturating_sub(used);
        let max = self.all.max().saturating_sub(taken) / 4;
        let whose = "unread requests of this connection";
        if used <= max { Ok(()) } else { Err(Refusal::InFlight { need: 0, used, max, whose }) }
    }

    /// Charges bytes of a request that waits or is not read.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Held {
        let mut held = Held { quota: self.clone(), bytes: 0 };
        held.resize(bytes);
        held
    }

    fn reserve(self: &Arc<Self>, bytes: u64) -> Permit {
        let mut permit = Permit { quota: self.clone(), class: Class::of(bytes), reserved: 0, charged: 0 };
        permit.reserve(bytes);
        permit
    }

    /// Reserves and charges bytes that are there already.
    pub(super) fn force(self: &Arc<Self>, bytes: u64) -> Permit {
        let mut permit = self.reserve(bytes);
        permit.charge(bytes);
        permit
    }

    /// Where the waker of the connection's task is kept: it is woken when a call ends.
    pub(super) fn waker(&self) -> &AtomicWaker {
        &self.waker
    }

    /// Whether the connection should let others work before it reads more.
    pub(super) fn is_crowded(&self) -> bool {
        self.all.queued.load(Ordering::Relaxed) > self.all.max_queued() / 2
    }

    /// Calls that a new connection may have open, of at most `most`: so many that those of all open connections may wait
    /// to run together.
    pub(super) fn streams(&self, most: u32) -> u32 {
        let open = lock(&self.all.connections).len() as u64;
        let share = self.all.max_queued() / QUEUED_CALL_BYTES / open.max(FEW_CONNECTIONS);
        u32::try_from(share).unwrap_or(u32::MAX).clamp(FEWEST_STREAMS.min(most), most)
    }

    /// Whether a call with headers of `headers` bytes may run now. A connection without calls may always run one.
    pub(super) fn try_run(self: &Arc<Self>, headers: u64) -> Option<Charge> {
        let max = self.all.max() / 2;
        let cost = CALL_BYTES + headers.saturating_sub(USUAL_HEADER_BYTES);
        let (own, all) = (self.running.load(Ordering::Relaxed), self.all.running.load(Ordering::Relaxed));
        let share = match own {
            0 => u64::MAX,
            _ => 2 * max.saturating_sub(all + cost),
        };
        (own + cost <= share).then(|| Charge::new(self, Stage::Running, cost))
    }

    /// Takes a call with headers of `headers` bytes that waits to run. `None` when it does not fit and this connection
    /// is the one with the most of them.
    pub(super) fn try_queue(self: &Arc<Self>, headers: u64) -> Option<Charge> {
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

    /// Whether the connection should give up one of its waiting calls, of `bytes`.
    pub(super) fn take_excess(&self, bytes: u64) -> bool {
        let excess = self.excess.load(Ordering::Relaxed);
        if excess > 0 {
            self.excess.store(excess.saturating_sub(bytes), Ordering::Relaxed);
        }
        excess > 0
    }

    /// Wakes the connection's task when a call of another connection ends.
    pub(super) fn wake_when_a_call_ends(self: &Arc<Self>) {
        let mut queues = lock(&self.all.queues);
        if !queues.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(self))) {
            queues.push_back(Arc::downgrade(self));
        }
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.all.ledger.release(Account::Connections, CONNECTION_BYTES);
    }
}

/// Bytes of a message; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    quota: Arc<Quota>,
    class: Class,
    reserved: u64,
    charged: u64,
}

impl std::fmt::Debug for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Small { "Small" } else { "Large" })
    }
}

impl Permit {
    /// Sets the reserved bytes.
    pub(super) fn reserve(&mut self, bytes: u64) {
        for counter in [&self.quota.reserved[self.class as usize], &self.quota.all.reserved[self.class as usize]] {
            match bytes.checked_sub(self.reserved) {
                Some(more) => counter.fetch_add(more, Ordering::Relaxed),
                None => counter.fetch_sub(self.reserved - bytes, Ordering::Relaxed),
            };
        }
        let is_less = bytes < self.reserved;
        self.reserved = bytes;
        if is_less {
            self.quota.all.grant(self.class);
        }
    }

    /// Reserves up to `bytes` in all, if the difference fits.
    pub(super) fn try_grow(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.reserved);
        let fits = more == 0 || self.quota.all.fits(&self.quota, more).is_ok();
        if fits {
            self.reserve(bytes.max(self.reserved));
        }
        fits
    }

    /// Sets the bytes that are in the ledger.
    pub(super) fn charge(&mut self, bytes: u64) {
        match bytes.checked_sub(self.charged) {
            Some(more) => self.quota.all.charge(more),
            None => self.quota.all.ledger.land(self.charged - bytes),
        }
        self.charged = bytes;
    }

    /// Sets both.
    pub(super) fn resize(&mut self, bytes: u64) {
        self.charge(bytes);
        self.reserve(bytes);
    }

    /// Takes `bytes` of it, or what is left, into a permit of its own.
    fn split(&mut self, bytes: u64) -> Self {
        let (reserved, charged) = (bytes.min(self.reserved), bytes.min(self.charged));
        self.reserved -= reserved;
        self.charged -= charged;
        Self { quota: self.quota.clone(), class: self.class, reserved, charged }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.resize(0);
    }
}

/// Bytes of a request that waits or is not read; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Held {
    /// How many.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// As many as there are now.
    pub(super) fn resize(&mut self, bytes: u64) {
        let all = &self.quota.all;
        match bytes.checked_sub(self.bytes) {
            Some(more) => {
                all.held.fetch_add(more, Ordering::Relaxed);
                all.charge(more);
            }
            None => {
                all.held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
                all.ledger.land(self.bytes - bytes);
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.resize(0);
    }
}

/// Bytes of a response, until they are written or given up.
#[derive(Debug)]
pub(super) struct Outgoing {
    permit: Permit,
    len: u64,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.permit.quota.outgoing.fetch_sub(self.len, Ordering::Relaxed);
        self.permit.quota.written.fetch_add(self.len, Ordering::Relaxed);
    }
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Queued,
    Running,
}

/// What a call costs beside its messages; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
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

    /// How many bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for counter in self.counters() {
            counter.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.quota.all.ledger.land(self.bytes);
        if self.stage == Stage::Running {
            if self.quota.queued.load(Ordering::Relaxed) > 0 {
                self.quota.waker.wake();
            }
            if self.quota.all.queued.load(Ordering::Relaxed) > 0 {
                self.quota.all.wake_a_queue();
            }
        }
    }
}

/// What a call may take, for its service: room for responses, and until when to wait for it.
#[derive(Debug)]
pub(super) struct CallQuota {
    quota: Arc<Quota>,
    patience: Duration,
    deadline: Option<tokio::time::Instant>,
    /// Reserved for responses that have not been encoded.
    response: Mutex<Option<Permit>>,
}

impl CallQuota {
    /// Of one call, which waits for room for at most `patience` and never beyond its deadline.
    pub(super) fn new(quota: Arc<Quota>, patience: Duration, deadline: Option<tokio::time::Instant>) -> Arc<Self> {
        Arc::new(Self { quota, patience, deadline, response: Mutex::default() })
    }

    /// The connection's.
    pub(super) fn connection(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// How long the call may wait for room from now.
    pub(super) fn patience(&self) -> Duration {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(tokio::time::Instant::now()));
        left.map_or(self.patience, |left| left.min(self.patience))
    }

    /// Whether there is room for a response with `len` bytes of values now.
    ///
    /// # Errors
    /// [`Refusal::InFlight`].
    pub(super) fn has_room(&self, len: u64) -> Result<(), Refusal> {
        let need = self.quota.twice(len);
        if len <= SMALL_BYTES { Ok(()) } else { self.quota.fits_now(need) }
    }

    /// The refusal of a response with `len` bytes of values that has less room.
    pub(super) fn no_room(&self, len: u64) -> Refusal {
        let (used, max) = (self.quota.used(), self.quota.all.max());
        Refusal::InFlight { need: self.quota.twice(len), used, max, whose: "this connection" }
    }

    /// Takes room for a response with `len` bytes of values, if there is some now: the values and their encoding.
    ///
    /// # Errors
    /// [`Refusal::InFlight`].
    pub(super) fn try_room(&self, len: u64) -> Result<(), Refusal> {
        if len > SMALL_BYTES {
            self.keep(self.quota.try_reserve(self.quota.twice(len))?);
        }
        Ok(())
    }

    /// Waits for room for a response with `len` bytes of values.
    ///
    /// # Errors
    /// [`Refusal::InFlight`] when it does not come in time.
    pub(super) async fn wait_for_room(self: Arc<Self>, len: u64) -> Result<(), Refusal> {
        let need = self.quota.twice(len);
        let permit = self.quota.clone().wait_for(need, self.patience()).await?;
        self.keep(permit);
        Ok(())
    }

    fn keep(&self, mut permit: Permit) {
        permit.charge(permit.reserved);
        let mut response = lock(&self.response);
        match &mut *response {
            Some(kept) if kept.class == permit.class => {
                kept.reserve(kept.reserved + permit.reserved);
                kept.charge(kept.charged + permit.charged);
            }
            _ => *response = Some(permit),
        }
    }

    /// The permit of `len` encoded bytes: out of the room that was taken for the response, the rest of which is free.
    pub(super) fn encoded(&self, len: u64) -> Outgoing {
        let permit = match lock(&self.response).take() {
            Some(mut kept) if kept.reserved >= len => kept.split(len),
            kept => {
                drop(kept);
                self.quota.force(len)
            }
        };
        self.quota.outgoing.fetch_add(len, Ordering::Relaxed);
        Outgoing { permit, len }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
