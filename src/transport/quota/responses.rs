//! Responses: room for one is reserved before its values are read, and kept until its last byte is written.

use super::Quota;
use super::calls::Charge;
use super::messages::{Permit, SMALL_BYTES};
use crate::service::Refusal;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a running call takes: its charge, given back when nobody holds any part of the call, what it has taken of its
/// request, and room for responses.
#[derive(Debug)]
pub(in crate::transport) struct CallQuota {
    quota: Arc<Quota>,
    patience: Duration,
    deadline: Option<tokio::time::Instant>,
    /// Bytes of the request that are not `h2`'s any more.
    taken: AtomicU64,
    /// Reserved for responses that have not been encoded.
    response: Mutex<Option<Permit>>,
    _charge: Charge,
}

impl CallQuota {
    /// Of one call, which waits for room for at most `patience` and never beyond its deadline.
    pub(in crate::transport) fn new(
        quota: Arc<Quota>,
        patience: Duration,
        deadline: Option<tokio::time::Instant>,
        charge: Charge,
    ) -> Arc<Self> {
        let taken = AtomicU64::new(0);
        Arc::new(Self { quota, patience, deadline, taken, response: Mutex::default(), _charge: charge })
    }

    /// Bytes of the request that have been taken from `h2`, whose buffers are free of them.
    pub(in crate::transport) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Counts more of them.
    pub(in crate::transport) fn take(&self, bytes: u64) {
        self.taken.store(self.taken() + bytes, Ordering::Relaxed); // by the call's task alone
    }

    /// The connection's.
    pub(in crate::transport) fn connection(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// How long the call may wait for room from now.
    pub(in crate::transport) fn patience(&self) -> Duration {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(tokio::time::Instant::now()));
        left.map_or(self.patience, |left| left.min(self.patience))
    }

    /// Whether there is room for a response with `len` bytes of values now.
    ///
    /// # Errors
    /// [`Refusal::InFlight`].
    pub(in crate::transport) fn has_room(&self, len: u64) -> Result<(), Refusal> {
        let need = self.quota.twice(len);
        if len <= SMALL_BYTES { Ok(()) } else { self.quota.fits_now(need) }
    }

    /// The refusal of a response with `len` bytes of values that has less room.
    pub(in crate::transport) fn no_room(&self, len: u64) -> Refusal {
        let (used, max) = (self.quota.used(), self.quota.all.max());
        Refusal::InFlight { need: self.quota.twice(len), used, max, whose: "this connection" }
    }

    /// Takes room for a response with `len` bytes of values, if there is some now: the values and their encoding.
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
    /// [`Refusal::InFlight`] when it does not come in time.
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

    /// The permit of `len` encoded bytes: out of the room that was taken for the response, the rest of which is free.
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

/// Bytes of a response, until they are written or given up.
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
