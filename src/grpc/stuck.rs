//! Calls whose client takes no answers at the moment, and what it has sent meanwhile.
//!
//! A call that cannot answer takes no more of its request, so what the client goes on sending piles up in h2's buffers, a
//! window for each call. It is in flight as well: it is counted as it comes, and when the stuck calls of a connection hold
//! more than a quarter of what nobody does, those that hold most are ended, until they do not.

use super::in_flight::{Permit, Share};
use crate::cache::Refusal;
use h2::FlowControl;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// The calls of one connection that wait for their client.
#[derive(Debug)]
pub(super) struct Stuck {
    share: Arc<Share>,
    calls: Mutex<HashMap<u32, Entry>>,
    /// What had been read from the connection at the last look, in bytes.
    looked_at: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    unread: FlowControl,
    permit: Permit,
    waker: Waker,
    refused: Option<Refusal>,
}

/// So much must have come before it is worth another look, in bytes.
const LOOK_EVERY_BYTES: u64 = 16 << 10;

impl Stuck {
    /// Of a new connection.
    pub(super) fn new(share: Arc<Share>) -> Arc<Self> {
        Arc::new(Self { share, calls: Mutex::default(), looked_at: AtomicU64::new(0) })
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Counts what is unread, and ends calls while it is too much. `read` is what has come over the connection so far.
    pub(super) fn look(&self, read: u64) {
        if read < self.looked_at.load(Ordering::Relaxed) + LOOK_EVERY_BYTES {
            return;
        }
        self.looked_at.store(read, Ordering::Relaxed);
        let mut calls = self.calls();
        for call in calls.values_mut() {
            call.permit.resize(call.unread.used_capacity() as u64);
        }
        loop {
            let all = calls.values().map(|call| call.permit.bytes()).sum();
            let Err(refusal) = self.share.room_of_stuck(all) else { return };
            let largest = calls.values_mut().max_by_key(|call| call.permit.bytes()).expect("somebody holds it");
            largest.permit.resize(0); // it ends as soon as its task runs
            largest.refused = Some(refusal);
            largest.waker.wake_by_ref();
        }
    }
}

/// A call that waits; it is forgotten when this is dropped.
pub(super) struct Waiting<'a> {
    stuck: &'a Stuck,
    unread: &'a FlowControl,
}

impl<'a> Waiting<'a> {
    /// The call with so much of its request unread.
    pub(super) fn new(stuck: &'a Stuck, unread: &'a FlowControl) -> Self {
        Self { stuck, unread }
    }

    /// Ready when the call is to end, with the reason.
    pub(super) fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let mut calls = self.stuck.calls();
        let call = calls.entry(self.unread.stream_id().as_u32()).or_insert_with(|| Entry {
            unread: self.unread.clone(),
            permit: self.stuck.share.force(self.unread.used_capacity() as u64),
            waker: cx.waker().clone(),
            refused: None,
        });
        call.waker.clone_from(cx.waker());
        call.refused.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let call = self.stuck.calls().remove(&self.unread.stream_id().as_u32());
        drop(call);
    }
}
