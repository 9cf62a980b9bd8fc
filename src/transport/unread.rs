//! Unread requests: those of calls that wait to run, for their turn, for quota, or for a stalled reader.
//!
//! Their data accumulates in `h2`'s buffers, up to a window per call. It is in flight as well: it is charged as it
//! arrives. If the unread requests of a connection exceed their quota, the largest of them are ended until the rest
//! fits.
//!
//! A frame pins the whole buffer that it was read into. So other bytes that arrived together with its small frames are
//! charged to an unread request, too: 60,000 frames of one byte, each followed by 8 KB of other data, would pin 470 MB.

use super::guard::Activity;
use super::quota::{CallQuota, Held, Quota};
use crate::service::Refusal;
use h2::FlowControl;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// The unread requests of one connection.
#[derive(Debug)]
pub(super) struct Unread {
    quota: Arc<Quota>,
    activity: Arc<Activity>,
    calls: Mutex<HashMap<u32, Entry>>,
    /// Bytes and small frames read from the connection up to the last check.
    looked_at: [AtomicU64; 2],
}

#[derive(Debug)]
struct Entry {
    flow: FlowControl,
    /// `None` while the call waits to run.
    call: Option<Arc<CallQuota>>,
    held: Held,
    /// Bytes arrived up to the last check.
    arrived: u64,
    has_grown: bool,
    /// Other bytes pinned by the request, the older and the newer part.
    beside: [Beside; 2],
    waker: Waker,
    refused: Option<Refusal>,
}

/// Pinned bytes, charged until the call has taken `until_taken` bytes of its request.
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    bytes: u64,
    until_taken: u64,
}

impl Entry {
    fn taken(&self) -> u64 {
        self.call.as_ref().map_or(0, |call| call.taken())
    }

    /// Bytes arrived since the last check.
    fn look(&mut self) -> u64 {
        let taken = self.taken();
        if taken >= self.beside[0].until_taken {
            self.beside = [self.beside[1], Beside::default()];
        }
        let before = self.arrived;
        self.arrived = taken + self.flow.used_capacity() as u64;
        self.has_grown = self.arrived > before;
        self.arrived.saturating_sub(before)
    }

    fn charge(&mut self, beside: u64) {
        if self.has_grown {
            self.beside[1].bytes += beside;
            self.beside[1].until_taken = self.arrived;
        }
        self.held.resize(self.arrived - self.taken() + self.beside[0].bytes + self.beside[1].bytes);
    }
}

/// Bytes that must arrive before the next check.
const LOOK_EVERY_BYTES: u64 = 16 << 10;
/// A frame that does not fit into the rest of a buffer is read into a new one, so up to half of a buffer may be empty.
const BUFFERS_PER_BYTE: u64 = 2;
/// Size of the largest read buffer that a small frame can pin, in bytes.
const BUFFER_BYTES: u64 = 32 << 10;

impl Unread {
    /// The unread requests of a new connection.
    pub(super) fn new(quota: Arc<Quota>, activity: Arc<Activity>) -> Arc<Self> {
        Arc::new(Self { quota, activity, calls: Mutex::default(), looked_at: [const { AtomicU64::new(0) }; 2] })
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.calls.lock()
    }

    /// Bytes of all requests of the connection, read or not, that have arrived so far.
    pub(super) fn arrived_bytes(&self) -> u64 {
        self.activity.data_bytes()
    }

    /// Charges unread bytes, and ends calls while they exceed the quota.
    pub(super) fn look(&self) {
        let read = self.activity.read_bytes();
        if read < self.looked_at[0].load(Ordering::Relaxed) + LOOK_EVERY_BYTES {
            return;
        }
        let small_frames = self.activity.small_data_frames();
        let [bytes, frames] =
            [(0, read), (1, small_frames)].map(|(i, now)| now - self.looked_at[i].swap(now, Ordering::Relaxed));
        let mut calls = self.calls();
        let (mut requests, mut grown) = (0, 0);
        for call in calls.values_mut() {
            requests += call.look();
            grown += u64::from(call.has_grown);
        }
        let beside = (BUFFERS_PER_BYTE * bytes.saturating_sub(requests)).min(frames * BUFFER_BYTES);
        calls.values_mut().for_each(|call| call.charge(beside / grown.max(1)));
        loop {
            let Err(refusal) = self.quota.may_hold(0) else { return };
            let unread = calls.values_mut().filter(|call| call.held.bytes() > 0);
            let Some(largest) = unread.max_by_key(|call| call.held.bytes()) else { return };
            largest.held.resize(0); // the call ends as soon as its task runs
            largest.refused = Some(refusal);
            largest.waker.wake_by_ref();
        }
    }
}

/// The request of a call. It counts as unread from the first wait of the call until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    unread: Arc<Unread>,
    flow: FlowControl,
    call: Option<Arc<CallQuota>>,
    is_counted: bool,
}

impl Waiting {
    /// The request with this flow control.
    pub(super) fn new(unread: Arc<Unread>, flow: FlowControl) -> Self {
        Self { unread, flow, call: None, is_counted: false }
    }

    /// Records that the call runs from now on, with this quota.
    pub(super) fn runs(&mut self, call: Arc<CallQuota>) {
        if self.is_counted
            && let Some(entry) = self.unread.calls().get_mut(&self.flow.stream_id().as_u32())
        {
            entry.call = Some(call.clone());
        }
        self.call = Some(call);
    }

    /// For a waiting call: ready, with the reason, when the call must end.
    pub(super) fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        self.is_counted = true;
        let unread = self.flow.used_capacity() as u64;
        let mut calls = self.unread.calls();
        let call = calls.entry(self.flow.stream_id().as_u32()).or_insert_with(|| {
            let (flow, call, waker) = (self.flow.clone(), self.call.clone(), cx.waker().clone());
            let arrived = call.as_ref().map_or(0, |call| call.taken());
            let (held, beside) = (self.unread.quota.hold(unread), Default::default());
            Entry { flow, call, held, arrived, has_grown: false, beside, waker, refused: None }
        });
        if unread == 0 {
            call.beside = Default::default(); // nothing is unread
            call.held.resize(0);
        }
        call.waker.clone_from(cx.waker());
        call.refused.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_counted {
            let call = self.unread.calls().remove(&self.flow.stream_id().as_u32());
            drop(call);
        }
    }
}
