//! Reads that take leases. A read does not wait itself: it returns what to wait for, and its caller reads again.

use super::{Cache, Held, Refusal, check_key};
use bytes::Bytes;
use ebb_engine::store::{Key, LeaseRequest, Leased, Store, Use, Waiter};
use ebb_proto::{self as proto, get_response::Outcome, lease::State};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// Maximum duration of a lease, of a wait for one, and of a hold-off, in milliseconds.
pub const MAX_LEASE_MS: u64 = 3_600_000;

/// One attempt of a read.
#[derive(Debug)]
pub enum Attempt<T> {
    /// The result.
    Answer(T),
    /// The caller waits, and then reads again.
    Wait(Wait),
}

/// What a read waits for: the end of the leases that others hold.
#[derive(Debug)]
pub struct Wait {
    /// Ready when a lease has ended.
    pub waiters: Vec<Waiter>,
    /// Maximum time to wait.
    pub at_most: Duration,
}

/// The leases of one call, kept over its attempts. Leases that were won and not [delivered](Leases::delivered) are given
/// back when it is dropped.
#[derive(Debug)]
pub struct Leases {
    store: Arc<Store>,
    ttl_ms: u64,
    /// When the call stops waiting. 0: it does not wait.
    waits_until_ms: u64,
    /// Namespace and token of each key.
    won: HashMap<Bytes, (u16, u64)>,
    is_repeated: bool,
}

impl Leases {
    /// Without `may_wait`, the call answers without further waits.
    pub fn may_wait_more(&mut self, may_wait: bool) {
        if !may_wait {
            self.waits_until_ms = 0;
        }
    }

    /// Gives the lease of a key back, if the call holds it.
    pub(super) fn give_back(&mut self, key: &[u8]) {
        if let Some((namespace, token)) = self.won.remove(key) {
            // It fails only for keys that no lease can have.
            let _ = self.store.give_back_lease(Key { namespace, bytes: key }, token);
        }
    }

    /// The caller of the call gets its leases with these responses.
    pub fn delivered<'a>(mut self, cache: &Cache, responses: impl Iterator<Item = &'a proto::GetResponse>) {
        self.won.clear();
        responses.for_each(|response| cache.leases.requested(response.lease.as_ref()));
    }

    /// How an attempt counts: only the first is a use of the keys.
    pub(super) fn attempt(&mut self, peek: bool) -> Use {
        let is_repeated = std::mem::replace(&mut self.is_repeated, true);
        if peek || is_repeated { Use::Peek } else { Use::Read }
    }

    /// Whether the call may wait: it holds no lease for which others wait.
    pub(super) fn may_wait(&self, now_ms: u64) -> bool {
        self.won.is_empty() && now_ms < self.waits_until_ms
    }

    /// Time until the call stops waiting or a lease ends.
    pub(super) fn until(&self, ends_at_ms: u64, now_ms: u64) -> Duration {
        Duration::from_millis(ends_at_ms.min(self.waits_until_ms).saturating_sub(now_ms))
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let keys: Vec<_> = self.won.keys().cloned().collect();
        keys.iter().for_each(|key| self.give_back(key));
    }
}

/// Results of requests for leases and of fills, since the start.
#[derive(Debug, Default)]
pub(super) struct LeaseTraffic {
    requests: [AtomicU64; LeaseResult::COUNT],
    fills: AtomicU64,
    lost: AtomicU64,
}

/// The result of a request for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum LeaseResult {
    /// The caller got it.
    Won,
    /// Another caller has it.
    HeldByOther,
    /// A tombstone forbids it.
    HeldOff,
    /// There were too many.
    Exhausted,
}

/// Figures of leases since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseFigures {
    /// Requests, in the order of [`LeaseResult`].
    pub requests: [u64; LeaseResult::COUNT],
    /// Values stored under a lease.
    pub fills: u64,
    /// Values refused because their lease had ended.
    pub lost: u64,
}

impl LeaseTraffic {
    fn requested(&self, lease: Option<&proto::Lease>) {
        let result = match lease.map(proto::Lease::state) {
            Some(State::Won) => LeaseResult::Won,
            Some(State::HeldByOther) => LeaseResult::HeldByOther,
            Some(State::HeldOff) => LeaseResult::HeldOff,
            Some(State::Exhausted) => LeaseResult::Exhausted,
            Some(State::Unspecified) | None => return,
        };
        self.requests[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a Set under a lease.
    pub(super) fn filled(&self, is_stored: bool) {
        let counter = if is_stored { &self.fills } else { &self.lost };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn figures(&self) -> LeaseFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LeaseFigures { requests: self.requests.each_ref().map(read), fills: read(&self.fills), lost: read(&self.lost) }
    }
}

/// The answer to a request for the lease of one key.
pub(super) enum Asked {
    /// The key has a fresh entry by now.
    Fresh,
    /// The state of the lease, for the response.
    Lease(proto::Lease),
    /// A place in the queue of the lease, its end, and its state if the caller does not wait.
    Wait(Waiter, u64, proto::Lease),
}

/// The state of a lease that the server cannot grant.
pub(super) fn exhausted() -> proto::Lease {
    proto::Lease { state: State::Exhausted.into(), token: 0, expires_in_ms: 0 }
}

/// Whether a read found nothing to serve, so that its caller may wait for a lease.
pub(super) fn is_miss(response: &proto::GetResponse) -> bool {
    response.outcome() == Outcome::Miss
}

impl Cache {
    /// Figures of leases.
    pub fn lease_figures(&self) -> LeaseFigures {
        self.leases.figures()
    }

    /// The leases of a call that has `time_left` until its deadline.
    ///
    /// # Errors
    /// [`Refusal::OutOfRange`].
    pub fn leases_of(&self, request: &proto::LeaseRequest, time_left: Option<Duration>) -> Result<Leases, Refusal> {
        Refusal::within("lease.ttl_ms", request.ttl_ms, 1, MAX_LEASE_MS)?;
        let left_ms = time_left.map_or(u64::MAX, |left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        // A deadline is rounded up: some of the time has passed on the way to the server.
        let longest = left_ms.saturating_add(left_ms / 10 + 10);
        Refusal::within("lease.wait_ms", request.wait_ms, 0, longest.min(MAX_LEASE_MS))?;
        // The answer must arrive before the deadline.
        let wait_ms = request.wait_ms.min(left_ms.saturating_sub((left_ms / 10).min(250) + 5));
        Ok(Leases {
            store: self.store.clone(),
            ttl_ms: request.ttl_ms,
            waits_until_ms: if wait_ms == 0 { 0 } else { self.clock.now_ms() + wait_ms },
            won: HashMap::new(),
            is_repeated: false,
        })
    }

    /// Reads one key, and takes or waits for its lease if it has no fresh entry.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn get_with_lease(
        &self,
        request: &proto::GetRequest,
        leases: &mut Leases,
    ) -> Result<Attempt<proto::GetResponse>, Refusal> {
        check_key(&request.key)?;
        let mut usage = leases.attempt(request.peek);
        let Some(namespace) = self.namespace_to_lease(&request.namespace)? else {
            let (response, _) = self.read(self.namespaces.find(&request.namespace)?.number, request, usage)?;
            return Ok(Attempt::Answer(proto::GetResponse { lease: Some(exhausted()), ..response }));
        };
        loop {
            let (response, is_fresh) = self.read(namespace.number, request, usage)?;
            if is_fresh {
                return Ok(Attempt::Answer(response));
            }
            let now_ms = self.clock.now_ms();
            return Ok(match self.ask(namespace.number, &request.key, is_miss(&response), leases, now_ms)? {
                Asked::Fresh => {
                    usage = Use::Peek;
                    continue;
                }
                Asked::Lease(lease) => Attempt::Answer(proto::GetResponse { lease: Some(lease), ..response }),
                Asked::Wait(waiter, ends_at_ms, _) => {
                    Attempt::Wait(Wait { waiters: vec![waiter], at_most: leases.until(ends_at_ms, now_ms) })
                }
            });
        }
    }

    /// The namespace of a read that may take a lease, which creates it. `None` if no namespace can be created.
    pub(super) fn namespace_to_lease(&self, name: &str) -> Result<Option<Held>, Refusal> {
        match self.namespace_to_fill(name) {
            Ok(namespace) => Ok(Some(namespace)),
            Err(Refusal::TooManyNamespaces { .. }) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Asks for the lease of a key without a fresh entry. With `waits`, it may return a place in the queue.
    pub(super) fn ask(
        &self,
        namespace: u16,
        bytes: &Bytes,
        waits: bool,
        leases: &mut Leases,
        now_ms: u64,
    ) -> Result<Asked, Refusal> {
        let held = leases.won.get(bytes).map(|(_, token)| *token);
        let waits = waits && leases.may_wait(now_ms);
        let request = LeaseRequest { ttl_ms: leases.ttl_ms, token: held, waits };
        let lease = |state: State, token, ends_at_ms: u64| proto::Lease {
            state: state.into(),
            token,
            expires_in_ms: ends_at_ms.saturating_sub(now_ms),
        };
        Ok(match self.store.lease(Key { namespace, bytes }, request, now_ms)? {
            Leased::Fresh => Asked::Fresh,
            Leased::Won { token, ends_at_ms } => {
                if held != Some(token) {
                    leases.won.insert(bytes.clone(), (namespace, token));
                }
                Asked::Lease(lease(State::Won, token, ends_at_ms))
            }
            Leased::Refused { is_hold_off, ends_at_ms, waiter } => {
                let state = if is_hold_off { State::HeldOff } else { State::HeldByOther };
                let lease = lease(state, 0, ends_at_ms);
                match waiter {
                    Some(waiter) => Asked::Wait(waiter, ends_at_ms, lease),
                    None => Asked::Lease(lease),
                }
            }
            Leased::Exhausted => Asked::Lease(exhausted()),
        })
    }
}
