//! Quotas of messages: each reserves its whole size when its turn comes, and charges its arrived bytes.

use super::{InFlight, Quota};
use crate::service::Refusal;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// Messages and frames up to this size are included in the cost of a call, in bytes.
pub(in crate::transport) const SMALL_BYTES: u64 = 1024;
/// Messages above this size are large, in bytes: they may not use a quarter of the bytes in flight.
const LARGE_BYTES: u64 = 32 << 10;

/// The size class of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Small,
    Large,
}

impl Class {
    fn of(bytes: u64) -> Self {
        if bytes > LARGE_BYTES { Self::Large } else { Self::Small }
    }
}

/// A message that waits for its turn.
pub(super) struct Waiter {
    quota: Arc<Quota>,
    need: u64,
    grant: oneshot::Sender<Permit>,
}

/// The quota that a message exceeds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Connection,
    All,
}

impl InFlight {
    /// Whether `need` more bytes fit into the quotas.
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
        // Check the connection's own quota first: a connection that waits for its own messages must not block others.
        let used = quota.reserved[class as usize].load(Ordering::Relaxed);
        let share = match used {
            0 => u64::MAX,
            _ => (2 * max.saturating_sub(sum)).min(self.max_per_connection),
        };
        if used.saturating_add(need) > share {
            return refusal(Whose::Connection, used, share);
        }
        // A large message that is alone may have any size; otherwise large values would never fit small limits.
        if sum > max && !(class == Class::Large && all == 0) {
            return refusal(Whose::All, all, max);
        }
        Ok(())
    }

    /// Grants freed bytes to the waiting messages, in order. A message that waits for its own connection does not block
    /// others. Bytes freed by a small message are of no use to large ones.
    fn grant(&self, freed: Class) {
        let is_awaited = |class: Class| self.waiting[class as usize].load(Ordering::Relaxed) > 0;
        if !is_awaited(Class::Small) && (freed == Class::Small || !is_awaited(Class::Large)) {
            return;
        }
        let mut granted = Vec::new();
        {
            let mut waiters = self.waiters.lock();
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
                        let waiter = waiters.remove(at).expect("`at` is below the length");
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
        // Outside the lock, because dropping a permit that is no longer wanted calls this function again.
        for (grant, permit) in granted {
            let _ = grant.send(permit);
        }
    }

    /// Updates the counts of waiting messages.
    fn count(&self, waiters: &VecDeque<Waiter>) {
        let large = waiters.iter().filter(|waiter| Class::of(waiter.need) == Class::Large).count();
        self.waiting[Class::Large as usize].store(large, Ordering::Relaxed);
        self.waiting[Class::Small as usize].store(waiters.len() - large, Ordering::Relaxed);
    }
}

impl Quota {
    /// Whether messages wait for their turn.
    pub(in crate::transport) fn others_wait(&self) -> bool {
        self.all.waiting.iter().any(|waiting| waiting.load(Ordering::Relaxed) > 0)
    }

    /// Whether `bytes` fit now and no other large message waits.
    pub(super) fn fits_now(&self, bytes: u64) -> Result<(), Refusal> {
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
    pub(in crate::transport) fn try_reserve(self: &Arc<Self>, bytes: u64) -> Result<Permit, Refusal> {
        self.fits_now(bytes)?;
        Ok(self.reserve(bytes))
    }

    /// Waits for the turn of `bytes`, at most `limit`, and reserves them.
    ///
    /// # Errors
    /// [`Refusal::InFlight`] if the time is over.
    pub(in crate::transport) async fn wait_for(
        self: Arc<Self>,
        bytes: u64,
        limit: Duration,
    ) -> Result<Permit, Refusal> {
        let (grant, granted) = oneshot::channel();
        {
            let mut waiters = self.all.waiters.lock();
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

    /// Memory of a message of `len` bytes while it arrives and is decoded: for a moment it exists twice. It is bounded,
    /// so that a message that is alone always fits.
    pub(in crate::transport) fn twice(&self, len: u64) -> u64 {
        let max = self.all.max();
        len.saturating_mul(2).min((max - max / 4).max(len))
    }

    /// Whether this connection may hold `more` bytes of waiting or unread requests: in total at most eight times the
    /// free bytes for such requests, so that other connections can always wait, too. A single connection may hold eight
    /// ninths.
    ///
    /// # Errors
    /// [`Refusal::InFlight`].
    pub(in crate::transport) fn may_hold(&self, more: u64) -> Result<(), Refusal> {
        let used = self.held.load(Ordering::Relaxed) + more;
        let max = 8 * self.all.max().saturating_sub(self.all.held.load(Ordering::Relaxed) + more);
        let whose = "unread requests of this connection";
        if used <= max { Ok(()) } else { Err(Refusal::InFlight { need: more, used, max, whose }) }
    }

    /// Charges bytes of a waiting or unread request.
    pub(in crate::transport) fn hold(self: &Arc<Self>, bytes: u64) -> Held {
        let mut held = Held { quota: self.clone(), bytes: 0 };
        held.resize(bytes);
        held
    }

    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Permit {
        let mut permit = Permit { quota: self.clone(), class: Class::of(bytes), reserved: 0, charged: 0 };
        permit.reserve(bytes);
        permit
    }

    /// Reserves and charges bytes that already exist, regardless of the quotas.
    pub(in crate::transport) fn force(self: &Arc<Self>, bytes: u64) -> Permit {
        let mut permit = self.reserve(bytes);
        permit.charge(bytes);
        permit
    }
}

/// Quota of a message; released on drop.
#[derive(Debug)]
pub(in crate::transport) struct Permit {
    pub(super) quota: Arc<Quota>,
    pub(super) class: Class,
    pub(super) reserved: u64,
    pub(super) charged: u64,
}

impl std::fmt::Debug for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Small { "Small" } else { "Large" })
    }
}

impl Permit {
    /// Sets the reserved bytes.
    pub(in crate::transport) fn reserve(&mut self, bytes: u64) {
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

    /// Raises the reservation to `bytes`, if the difference fits.
    pub(in crate::transport) fn try_grow(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.reserved);
        let fits = more == 0 || self.quota.all.fits(&self.quota, more).is_ok();
        if fits {
            self.reserve(bytes.max(self.reserved));
        }
        fits
    }

    /// Sets the charged bytes.
    pub(in crate::transport) fn charge(&mut self, bytes: u64) {
        self.quota.all.recharge(self.charged, bytes);
        self.charged = bytes;
    }

    /// Sets the reserved and the charged bytes.
    pub(in crate::transport) fn resize(&mut self, bytes: u64) {
        self.charge(bytes);
        self.reserve(bytes);
    }

    /// Splits off a permit of `bytes`, or of the remaining ones.
    pub(super) fn split(&mut self, bytes: u64) -> Self {
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

/// The charge of a waiting or unread request; released on drop.
#[derive(Debug)]
pub(in crate::transport) struct Held {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Held {
    /// The charged bytes.
    pub(in crate::transport) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets the charged bytes.
    pub(in crate::transport) fn resize(&mut self, bytes: u64) {
        for counter in [&self.quota.held, &self.quota.all.held] {
            match bytes.checked_sub(self.bytes) {
                Some(more) => counter.fetch_add(more, Ordering::Relaxed),
                None => counter.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
            };
        }
        self.quota.all.recharge(self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.resize(0);
    }
}
