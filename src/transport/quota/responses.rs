//! Quotas of responses: reserved before the values are read, and held until the last byte is written.

use super::Quota;
use super::calls::Charge;
use super::messages::{Permit, SMALL_BYTES};
use crate::service::Refusal;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The quota of a running call: its charge, which is released with the last reference to the call, the consumed bytes
/// of its request, and the reservation for responses.
#[derive(Debug)]
pub(in crate::transport) struct CallQuota {
    quota: Arc<Quota>,
    patience: Duration,
    deadline: Option<tokio::time::Instant>,
    /// Bytes of the request that were taken from `h2`.
    taken: AtomicU64,
    /// Reserved for responses that are not encoded yet.
    response: Mutex<Option<Permit>>,
    charge: Charge,
    is_parked: AtomicBool,
}

impl CallQuota {
    /// The quota of a call, which waits for room at most `patience` and never beyond its deadline.
    pub(in crate::transport) fn new(
        quota: Arc<Quota>,
        patience: Duration,
        deadline: Option<tokio::time::Instant>,
        charge: Charge,
    ) -> Arc<Self> {
        let taken = AtomicU64::new(0);
        Arc::new(Self {
            quota,
            patience,
            deadline,
            taken,
            response: Mutex::default(),
            charge,
            is_parked: AtomicBool::new(false),
        })
    }

    /// Bytes of the request that were taken from `h2`, and no longer occupy its buffers.
    pub(in crate::transport) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Counts bytes taken from `h2`.
    pub(in crate::transport) fn take(&self, bytes: u64) {
        self.taken.store(self.taken() + bytes, Ordering::Relaxed); // only the call's task writes it
    }

    /// The connection's quota.
    pub(in crate::transport) fn connection(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// Maximum time the call may wait for room from now.
    pub(in crate::transport) fn patience(&self) -> Duration {
        self.time_left().map_or(self.patience, |left| left.min(self.patience))
    }

    /// Time until the deadline of the call, if it has one.
    pub(in crate::transport) fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(tokio::time::Instant::now()))
    }

    /// Counts the call as waiting for another call, not as running, until the result is dropped, and charges `more`
    /// bytes that it keeps. `None` if too many calls wait, or if its connection would have too few calls left for
    /// others.
    pub(in crate::transport) fn park(self: &Arc<Self>, more: u64) -> Option<Parked> {
        self.charge.park(more).then(|| {
            self.is_parked.store(true, Ordering::Relaxed); // only the call's task reads it
            Parked { call: self.clone(), is_call: true, more }
        })
    }

    /// Charges `bytes` of an operation of the call that waits for another one, until the result is dropped. `None` if
    /// too many wait.
    pub(in crate::transport) fn park_operation(self: &Arc<Self>, bytes: u64) -> Option<Parked> {
        let parks = self.quota.park_bytes(bytes);
        parks.then(|| Parked { call: self.clone(), is_call: false, more: bytes })
    }

    /// Whether the call waits for another call.
    pub(in crate::transport) fn is_parked(&self) -> bool {
        self.is_parked.load(Ordering::Relaxed)
    }

    /// Checks that there is room for a response with `len` bytes of values now.
    ///
    /// # Errors
    /// [`Refusal::InFlight`].
    pub(in crate::transport) fn has_room(&self, len: u64) -> Result<(), Refusal> {
        let need = self.quota.twice(len);
        if len <= SMALL_BYTES { Ok(()) } else { self.quota.fits_now(need) }
    }

    /// The refusal of a response with `len` bytes of values that exceeds its reservation.
    pub(in crate::transport) fn no_room(&self, len: u64) -> Refusal {
        let (used, max) = (self.quota.used(), self.quota.all.max());
        Refusal::InFlight { need: self.quota.twice(len), used, max, whose: "this connection" }
    }

    /// Reserves room for a response with `len` bytes of values, for the values and their encoding, if it is free now.
    ///
    /// # Errors
    /// [`Refusal::InFlight`].
    pub(in crate::transport) fn try_room(&self, len: u64) -> Result<(), Refusal> {
        if len > SMALL_BYTES {
            self.keep(self.quota.try_reserve(self.quota.twice(len))?);
        }
        Ok(())
    }

    /// Waits for room for a response with `len` bytes of values.
    ///
    /// # Errors
    /// [`Refusal::InFlight`] if it does not become free in time.
    pub(in crate::transport) async fn wait_for_room(self: Arc<Self>, len: u64) -> Result<(), Refusal> {
        let need = self.quota.twice(len);
        let permit = self.quota.clone().wait_for(need, self.patience()).await?;
        self.keep(permit);
        Ok(())
    }

    fn keep(&self, mut permit: Permit) {
        permit.charge(permit.reserved);
        let mut response = self.response.lock();
        match &mut *response {
            Some(kept) if kept.class == permit.class => {
                kept.reserve(kept.reserved + permit.reserved);
                kept.charge(kept.charged + permit.charged);
            }
            _ => *response = Some(permit),
        }
    }

    /// The permit of `len` encoded bytes, from the reservation of the response. The rest of the reservation is
    /// released.
    pub(in crate::transport) fn encoded(&self, len: u64) -> Outgoing {
        let permit = match self.response.lock().take() {
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

/// A call or an operation that waits for another call.
#[derive(Debug)]
pub(in crate::transport) struct Parked {
    call: Arc<CallQuota>,
    is_call: bool,
    more: u64,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.call.quota.resume_bytes(self.more);
        if self.is_call {
            self.call.is_parked.store(false, Ordering::Relaxed);
            self.call.charge.resume();
        }
    }
}

/// Bytes of a response, until they are written or dropped.
#[derive(Debug)]
pub(in crate::transport) struct Outgoing {
    permit: Permit,
    len: u64,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.permit.quota.outgoing.fetch_sub(self.len, Ordering::Relaxed);
        self.permit.quota.written.fetch_add(self.len, Ordering::Relaxed);
    }
}
