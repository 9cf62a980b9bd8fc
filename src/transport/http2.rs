//! HTTP/2 by h2: accepts calls, receives their requests and sends their answers.
//!
//! ```text
//!  h2 ─accept─► headers checked and charged ─┬─► here, or in a task: request ─► service ─► answer ─► h2
//!                                            ├─► queue: the call waits to run
//!                                            └─► REFUSED_STREAM: the client may retry at once
//! ```

use super::MAX_METADATA_ENTRIES;
use super::call::{Call, Calls};
use super::deadline::Deadline;
use super::drain::{self, Leave, Stage};
use super::guard::{Activity, FIELD_BYTES, Guarded, yield_now};
use super::measure::SHAPES;
use super::mismatch::Mismatch;
use super::quota::{CallQuota, Charge, Quota};
use super::request::{Expected, RequestBody};
use super::response::ResponseBody;
use super::services::{self, Services};
use super::status;
use super::unread::{Unread, Waiting};
use crate::service::Refusal;
use crate::traffic::Rejection;
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use http_body::Body;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// Maximum calls that a connection accepts in one turn, and maximum queued calls that it starts in one turn.
const TURN_CALLS: usize = 32;
/// Turns that a crowded connection yields before it reads again.
const CROWDED_TURNS: u32 = 16;
/// Maximum bytes that it reads then, and maximum calls that it accepts.
const CROWDED_READ_BYTES: u64 = 1 << 10;
const CROWDED_CALLS: usize = 16;
/// The path prefix of health and reflection, and their maximum message length, in bytes: their messages are names.
const STANDARD: &str = "/grpc.";
const MAX_STANDARD_BYTES: u64 = 4 << 10;
/// The path prefix of reflection, and the memory of one call, in bytes: answers of 34 KB wait in channels and buffers.
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

/// Calls the service of each request, and accounts for its bytes.
pub(super) struct Dispatch {
    pub(super) services: Services,
    pub(super) quota: Arc<Quota>,
    pub(super) calls: Arc<Calls>,
    pub(super) unread: Arc<Unread>,
    /// Maximum length of a message, in bytes.
    pub(super) max_message: u64,
    /// Maximum size of a header list, in bytes.
    pub(super) max_header_list: usize,
    /// Maximum time a message may make no progress or wait for its turn.
    pub(super) patience: Duration,
}

impl Dispatch {
    /// Answers a call with a refusal, without a task.
    fn refuse(&self, request: &Request<RecvStream>, respond: &mut SendResponse<Bytes>, refusal: &Refusal) {
        self.quota.refused_a_call();
        let mut call = self.calls.begin(request);
        let answer = status::of(refusal).into_http::<()>();
        call.answered(answer.headers());
        let _ = respond.send_response(answer, true); // a client that is gone needs no answer
    }

    /// Answers a request that is not a call of this listener, without a task.
    fn reject(&self, request: &Request<RecvStream>, respond: &mut SendResponse<Bytes>, mismatch: &Mismatch) {
        self.quota.refused_a_call();
        self.calls.rejected(mismatch.rejection(), 1);
        let answer = mismatch.response();
        if let Mismatch::UnknownMethod(_) = mismatch {
            self.calls.begin(request).answered(answer.headers()); // a call of an unknown method counts as a call
        }
        let _ = respond.send_response(answer, true); // a client that is gone needs no answer
    }

    /// Runs a call. A single-item call is polled once in this task, which finishes most of them. A call that has to
    /// wait, and any other call, runs in its own task.
    fn run(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        deadline: Deadline,
        charge: Charge,
        mut waiting: Waiting,
    ) {
        let call = self.calls.begin(&request);
        let is_short = call.is_of_one_item();
        let (head, stream) = request.into_parts();
        let path = head.uri.path();
        let shape = SHAPES.request(path);
        let max_message = if path.starts_with(STANDARD) { MAX_STANDARD_BYTES } else { self.max_message };
        let expected = Expected { shape, max_message, patience: self.patience };
        let quota = CallQuota::new(self.quota.clone(), self.patience, deadline.at(), charge);
        waiting.runs(quota.clone());
        let body = RequestBody::new(stream, quota.clone(), expected, self.unread.clone());
        let answer = self.services.call(Request::from_parts(head, body), quota.clone());
        let mut call = Running { dispatch: self.clone(), call, quota, waiting, respond, deadline };
        if !is_short {
            let _ = call.waiting.poll_refused(cx); // its request is unread until the task polls it
        }
        let mut call = Box::pin(call.answer(answer));
        if !is_short || call.as_mut().poll(cx).is_pending() {
            tokio::spawn(call);
        }
    }
}

/// A running call.
struct Running {
    dispatch: Arc<Dispatch>,
    call: Call,
    quota: Arc<CallQuota>,
    waiting: Waiting,
    respond: SendResponse<Bytes>,
    deadline: Deadline,
}

impl Running {
    async fn answer(mut self, mut answer: services::Answer) {
        let drain = self.dispatch.calls.drain();
        let mut leave = Leave::new(drain, Stage::Ending);
        let answered = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending if self.deadline.poll_passed(cx).is_ready() => {
                Poll::Ready(Some(status::deadline_exceeded().into_http()))
            }
            Poll::Pending if leave.poll(cx).is_ready() => Poll::Ready(Some(drain::status().into_http())),
            Poll::Pending => match self.waiting.poll_refused(cx) {
                Poll::Ready(refusal) => Poll::Ready(Some(status::of(&refusal).into_http())),
                Poll::Pending => self.respond.poll_reset(cx).map(|_| None),
            },
        });
        let Some(response) = answered.await else { return };
        drop(answer);
        self.call.answered(response.headers());
        let leave = Leave::new(drain, self.call.leaves_at());
        let (head, body) = response.map(|body| ResponseBody::new(body, self.quota, self.call)).into_parts();
        let is_all = body.is_end_stream();
        let Ok(stream) = self.respond.send_response(Response::from_parts(head, ()), is_all) else { return };
        if !is_all {
            let (waiting, deadline) = (self.waiting, self.deadline);
            // A client that is gone needs no answer.
            let _ = Outgoing { body, stream, waiting, deadline, leave }.send().await;
        }
    }
}

/// An answer that is being sent.
struct Outgoing<'a> {
    body: ResponseBody,
    stream: SendStream<Bytes>,
    waiting: Waiting,
    deadline: Deadline,
    leave: Leave<'a>,
}

/// The client has closed the stream.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

/// Why sending an answer stopped.
enum Stop {
    Gone,
    Refused(Refusal),
    Deadline,
    Drain,
}

impl Outgoing<'_> {
    async fn send(&mut self) -> Result<(), Gone> {
        match self.send_frames().await {
            Ok(()) => Ok(()),
            Err(Stop::Gone) => Err(Gone),
            Err(Stop::Refused(refusal)) => {
                self.body.refuse(&refusal);
                self.stream.send_reset(Reason::ENHANCE_YOUR_CALM);
                Err(Gone)
            }
            Err(Stop::Deadline) => self.end_with(&status::deadline_exceeded()),
            Err(Stop::Drain) => {
                self.body.leave();
                self.end_with(&drain::status())
            }
        }
    }

    async fn send_frames(&mut self) -> Result<(), Stop> {
        loop {
            if self.leave.is_late() {
                return Err(Stop::Drain);
            }
            // Poll the body before reserving capacity: capacity reserved for data that may never come is missing for
            // the connection's other calls.
            let frame = poll_fn(|cx| {
                if self.stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Stop::Gone));
                }
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                    Poll::Pending => match ready!(self.poll_stop(cx)) {
                        // The drain may have begun after the body was polled, and the body may have a final frame for
                        // it.
                        Stop::Drain => match Pin::new(&mut self.body).poll_frame(cx) {
                            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                            Poll::Pending => Poll::Ready(Err(Stop::Drain)),
                        },
                        stop => Poll::Ready(Err(stop)),
                    },
                }
            });
            match frame.await? {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        let is_all = self.body.is_end_stream();
                        if !bytes.is_empty() {
                            self.room().await?;
                        }
                        self.stream.send_data(bytes, is_all).map_err(|_| Stop::Gone)?;
                        if is_all {
                            return Ok(());
                        }
                    }
                    Err(frame) => {
                        self.stream.reserve_capacity(0);
                        let trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new());
                        return self.stream.send_trailers(trailers).map_err(|_| Stop::Gone);
                    }
                },
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Ok(());
                }
                None => return self.stream.send_data(Bytes::new(), true).map_err(|_| Stop::Gone),
            }
        }
    }

    /// For a waiting answer: ready when the deadline has passed, the server shuts down, or the unread request exceeds
    /// its quota.
    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        if let Poll::Ready(refusal) = self.waiting.poll_refused(cx) {
            return Poll::Ready(Stop::Refused(refusal));
        }
        if self.deadline.poll_passed(cx).is_ready() {
            return Poll::Ready(Stop::Deadline);
        }
        self.leave.poll(cx).map(|()| Stop::Drain)
    }

    /// Ends the answer with a status.
    fn end_with(&mut self, status: &Status) -> Result<(), Gone> {
        self.stream.reserve_capacity(0);
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).map_err(|_| Gone)?;
        self.body.end_with(&trailers);
        Ok(self.stream.send_trailers(trailers)?)
    }

    /// Waits until the client's window has room.
    async fn room(&mut self) -> Result<(), Stop> {
        self.stream.reserve_capacity(1);
        poll_fn(|cx| {
            while self.stream.capacity() == 0 {
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Stop::Gone)),
                    Poll::Pending => return self.poll_stop(cx).map(Err),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}
