//! HTTP/2 by h2: a connection accepts calls, and runs, queues or refuses them.
//!
//! ```text
//!  h2 ─accept─► headers checked and charged ─┬─► dispatch, here or in a task: request ─► service ─► outgoing ─► h2
//!                                            ├─► queue: waits to run
//!                                            └─► REFUSED_STREAM: the client may try again at once
//! ```

use super::MAX_METADATA_ENTRIES;
use super::deadline::Deadline;
use super::dispatch::Dispatch;
use super::guard::{Activity, FIELD_BYTES, Guarded, yield_now};
use super::mismatch::Mismatch;
use super::quota::Charge;
use super::unread::Waiting;
use crate::service::Refusal;
use crate::traffic::Rejection;
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

/// Maximum calls that a connection accepts in one turn, and maximum queued calls that it starts in one turn.
const TURN_CALLS: usize = 32;
/// Turns that a crowded connection yields before it reads again.
const CROWDED_TURNS: u32 = 16;
/// Maximum bytes that it reads then, and maximum calls that it accepts.
const CROWDED_READ_BYTES: u64 = 1 << 10;
const CROWDED_CALLS: usize = 16;
/// The path prefix of reflection, and the memory of one call, in bytes: its answers of 34 KB wait in channels and buffers.
const REFLECTION: &str = "/grpc.reflection.";
const REFLECTION_BYTES: u64 = 128 << 10;
/// Delay before a connection is closed for a flood of control frames. Its client reconnects as soon as it is closed,
/// and a new connection costs more than one that is not read.
const FLOOD_PAUSE: Duration = Duration::from_secs(1);

/// A connection that accepts calls until either side ends it.
pub(super) struct Accepting<S> {
    h2: Connection<Guarded<S>, Bytes>,
    dispatch: Arc<Dispatch>,
    activity: Arc<Activity>,
    queue: VecDeque<Queued>,
    crowded_turns: u32,
    closing: Closing,
}

/// Whether a connection is being closed because of what its client sends.
enum Closing {
    No,
    After(Pin<Box<Sleep>>),
    Yes,
}

/// A call that waits to run.
struct Queued {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    deadline: Deadline,
    headers: u64,
    charge: Charge,
    waiting: Waiting,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Accepting<S> {
    /// Passes the calls of `h2` to `dispatch`; `activity` belongs to the connection.
    pub(super) fn new(h2: Connection<Guarded<S>, Bytes>, dispatch: Dispatch, activity: Arc<Activity>) -> Self {
        Self {
            h2,
            dispatch: Arc::new(dispatch),
            activity,
            queue: VecDeque::new(),
            crowded_turns: 0,
            closing: Closing::No,
        }
    }

    /// Stops accepting calls, and ends the connection when all open calls have ended.
    pub(super) fn drain(&mut self) {
        self.h2.graceful_shutdown();
    }

    /// Runs queued calls within the quota, and drops those that exceed it.
    fn run_queued(&mut self, cx: &mut Context<'_>) {
        while let Some(mut last) = self.queue.pop_back() {
            if !self.dispatch.quota.take_excess(last.charge.bytes()) {
                self.queue.push_back(last);
                break;
            }
            last.respond.send_reset(Reason::REFUSED_STREAM);
            self.dispatch.calls.rejected(Rejection::RefusedStream, 1);
        }
        self.queue.retain_mut(|queued| match queued.waiting.poll_refused(cx) {
            Poll::Ready(refusal) => {
                self.dispatch.refuse(&queued.request, &mut queued.respond, &refusal);
                false
            }
            Poll::Pending => true,
        });
        // A call that finishes at once releases its charge, so the quota alone does not end this loop.
        for _ in 0..TURN_CALLS {
            let Some(first) = self.queue.front() else { return };
            let Some(charge) = self.dispatch.quota.try_run(first.headers) else {
                self.dispatch.quota.wake_when_a_call_ends();
                return;
            };
            let Some(Queued { request, respond, deadline, waiting, .. }) = self.queue.pop_front() else { return };
            self.dispatch.run(cx, request, respond, deadline, charge, waiting);
        }
        if !self.queue.is_empty() {
            let _: Poll<()> = yield_now(cx);
        }
    }

    /// Accepts a call from h2: runs, queues or refuses it.
    fn take(&mut self, cx: &mut Context<'_>, mut request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if let Some(mismatch) = Mismatch::of(&request, &self.dispatch.services) {
            return self.dispatch.reject(&request, &mut respond, &mismatch);
        }
        let Headers { fields, list_bytes, deadline } = Headers::of(request.headers());
        let max_list = self.dispatch.max_header_list;
        let too_much = if fields > MAX_METADATA_ENTRIES {
            Some(Refusal::TooMany { field: "metadata", count: fields, max: MAX_METADATA_ENTRIES })
        } else if list_bytes > max_list {
            Some(Refusal::MetadataTooLarge { len: list_bytes, max: max_list })
        } else {
            None
        };
        if let Some(refusal) = too_much {
            return self.dispatch.refuse(&request, &mut respond, &refusal);
        }
        let kept = if request.uri().path().starts_with(REFLECTION) { REFLECTION_BYTES } else { 0 };
        let headers = (list_bytes + fields * FIELD_BYTES) as u64 + kept;
        let flow = request.body_mut().flow_control().clone();
        let mut waiting = Waiting::new(self.dispatch.unread.clone(), flow);
        if self.queue.is_empty()
            && let Some(charge) = self.dispatch.quota.try_run(headers)
        {
            return self.dispatch.run(cx, request, respond, deadline, charge, waiting);
        }
        let Some(charge) = self.dispatch.quota.try_queue(headers) else {
            self.dispatch.quota.refused_a_call();
            respond.send_reset(Reason::REFUSED_STREAM);
            self.dispatch.calls.rejected(Rejection::RefusedStream, 1);
            return;
        };
        let _ = waiting.poll_refused(cx);
        self.queue.push_back(Queued { request, respond, deadline, headers, charge, waiting });
        self.dispatch.quota.wake_when_a_call_ends();
    }

    /// Sets the bytes to read in this turn, and returns the maximum number of calls to accept. A crowded connection
    /// accepts few calls, and none until other tasks have run.
    fn turn(&mut self) -> usize {
        if !self.dispatch.quota.is_crowded() {
            self.crowded_turns = 0;
            self.activity.begin_turn(u64::MAX);
            return TURN_CALLS;
        }
        self.crowded_turns += 1;
        if self.crowded_turns < CROWDED_TURNS {
            self.activity.begin_turn(0);
            return 0;
        }
        self.crowded_turns = 0;
        self.activity.begin_turn(CROWDED_READ_BYTES);
        CROWDED_CALLS
    }

    /// Reads and writes frames until the socket blocks. Returns the next call, if `may_take` is set.
    fn poll_next(&mut self, cx: &mut Context<'_>, may_take: bool) -> Poll<Next> {
        let next = if may_take {
            self.h2.poll_accept(cx).map(|call| match call {
                Some(Ok((request, respond))) => Next::Call(request, respond),
                Some(Err(_)) | None => Next::End,
            })
        } else {
            self.h2.poll_closed(cx).map(|_| Next::End)
        };
        match self.activity.take_oversized_headers() {
            0 => {}
            count => self.dispatch.calls.rejected(Rejection::HeaderList, count),
        }
        if let Some(rejection) = self.activity.refused() {
            self.poll_refused(cx, rejection);
        }
        next
    }

    /// Closes a connection that the guard has rejected.
    fn poll_refused(&mut self, cx: &mut Context<'_>, rejection: Rejection) {
        if let Closing::No = self.closing {
            self.dispatch.calls.rejected(rejection, 1);
            let pause = if rejection == Rejection::ControlFrames { FLOOD_PAUSE } else { Duration::ZERO };
            self.closing = Closing::After(Box::pin(sleep_until(Instant::now() + pause)));
        }
        if let Closing::After(pause) = &mut self.closing
            && pause.as_mut().poll(cx).is_ready()
        {
            self.closing = Closing::Yes;
            self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            cx.waker().wake_by_ref();
        }
    }
}

/// The next event of a connection.
#[expect(clippy::large_enum_variant, reason = "created once per call and matched at once")]
enum Next {
    Call(Request<RecvStream>, SendResponse<Bytes>),
    End,
}

/// Properties of a call's headers.
struct Headers {
    fields: usize,
    /// Size as HTTP/2 counts it.
    list_bytes: usize,
    deadline: Deadline,
}

impl Headers {
    fn of(headers: &HeaderMap) -> Self {
        let mut found = Self { fields: headers.len(), list_bytes: 0, deadline: Deadline::default() };
        for (name, value) in headers {
            found.list_bytes += name.as_str().len() + value.len() + 32;
            if name.as_str() == Deadline::HEADER {
                found.deadline = Deadline::of(value);
            }
        }
        found
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Accepting<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.dispatch.quota.waker().register(cx.waker());
        this.run_queued(cx);
        let most = this.turn();
        let mut calls = Vec::new();
        let (is_all, is_over) = loop {
            let may_take = calls.len() < most;
            match this.poll_next(cx, may_take) {
                Poll::Ready(Next::Call(request, respond)) => calls.push((request, respond)),
                Poll::Ready(Next::End) => break (true, true),
                Poll::Pending => break (may_take, false),
            }
        };
        for (request, respond) in calls {
            this.take(cx, request, respond);
        }
        this.dispatch.unread.look(); // after queueing, so that it includes the new calls
        if is_over {
            return Poll::Ready(());
        }
        if !is_all {
            return yield_now(cx); // to other connections
        }
        this.activity.headers_taken();
        // `h2` wakes this task when a call is answered. The next turn writes the answers, after the other ready
        // connections have read. One write per answer would wake the client each time, which costs both sides more.
        Poll::Pending
    }
}
