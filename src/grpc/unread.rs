//! Requests that nobody reads at the moment: of calls that wait to run, wait for their turn, or wait for a client that
//! takes no answers.
//!
//! What the client goes on sending piles up in `h2`'s buffers, a window for each call. It is in flight as well: it is
//! charged as it comes, and when such calls of a connection hold more than is free for them, the largest of them are ended
//! until they do not.

use super::guard::Activity;
use super::quota::{Held, Quota};
use crate::cache::Refusal;
use h2::FlowControl;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The unread requests of one connection.
#[derive(Debug)]
pub(super) struct Unread {
    quota: Arc<Quota>,
    activity: Arc<Activity>,
    calls: Mutex<HashMap<u32, Entry>>,
    /// Bytes read from the connection at the last look.
    looked_at: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    flow: FlowControl,
    held: Held,
    waker: Waker,
    refused: Option<Refusal>,
}

/// So much must have come before it is worth another look, in bytes.
const LOOK_EVERY_BYTES: u64 = 16 << 10;

impl Unread {
    /// Of a new connection.
    pub(super) fn new(quota: Arc<Quota>, activity: Arc<Activity>) -> Arc<Self> {
        Arc::new(Self { quota, activity, calls: Mutex::default(), looked_at: AtomicU64::new(0) })
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that the requests of the connection, read or not, have brought so far.
    pub(super) fn arrived_bytes(&self) -> u64 {
        self.activity.data_bytes()
    }

    /// Charges what is unread, and ends calls while it is too much.
    pub(super) fn look(&self) {
        let read = self.activity.read_bytes();
        if read < self.looked_at.load(Ordering::Relaxed) + LOOK_EVERY_BYTES {
            return;
        }
        self.looked_at.store(read, Ordering::Relaxed);
        let mut calls = self.calls();
        for call in calls.values_mut() {
            call.held.resize(call.flow.used_capacity() as u64);
        }
        loop {
            let Err(refusal) = self.quota.may_hold(0) else { return };
            let unread = calls.values_mut().filter(|call| call.held.bytes() > 0);
            let Some(largest) = unread.max_by_key(|call| call.held.bytes()) else { return };
            largest.held.resize(0); // it ends as soon as its task runs
            largest.refused = Some(refusal);
            largest.waker.wake_by_ref();
        }
    }
}

/// A call whose request is not read until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    unread: Arc<Unread>,
    flow: FlowControl,
}

impl Waiting {
    /// The call with this request.
    pub(super) fn new(unread: Arc<Unread>, flow: FlowControl) -> Self {
        Self { unread, flow }
    }

    /// Ready when the call is to end, with the reason.
    pub(super) fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let mut calls = self.unread.calls();
        let call = calls.entry(self.flow.stream_id().as_u32()).or_insert_with(|| Entry {
            flow: self.flow.clone(),
            held: self.unread.quota.hold(self.flow.used_capacity() as u64),
            waker: cx.waker().clone(),
            refused: None,
        });
        call.waker.clone_from(cx.waker());
        call.refused.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let call = self.unread.calls().remove(&self.flow.stream_id().as_u32());
        drop(call);
    }
}
