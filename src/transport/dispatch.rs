//! Calls: from a request to its service, and to the first bytes of the answer.

use super::call::{Call, Calls};
use super::deadline::Deadline;
use super::drain::{self, Leave, Stage};
use super::measure::SHAPES;
use super::mismatch::Mismatch;
use super::outgoing::Outgoing;
use super::quota::{CallQuota, Charge, Quota};
use super::request::{Expected, RequestBody};
use super::response::ResponseBody;
use super::services::{self, Services};
use super::status;
use super::unread::{Unread, Waiting};
use crate::service::Refusal;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use http_body::Body;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The path prefix of health and reflection, and the longest message they take, in bytes: their messages are names.
const STANDARD: &str = "/grpc.";
const MAX_STANDARD_BYTES: u64 = 4 << 10;

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
    pub(super) fn refuse(&self, request: &Request<RecvStream>, respond: &mut SendResponse<Bytes>, refusal: &Refusal) {
        self.quota.refused_a_call();
        let mut call = self.calls.begin(request);
        let answer = status::of(refusal).into_http::<()>();
        call.answered(answer.headers());
        let _ = respond.send_response(answer, true); // a client that is gone needs no answer
    }

    /// Answers a request that is not a call of this listener, without a task.
    pub(super) fn reject(&self, request: &Request<RecvStream>, respond: &mut SendResponse<Bytes>, mismatch: &Mismatch) {
        self.quota.refused_a_call();
        self.calls.rejected(mismatch.rejection(), 1);
        let answer = mismatch.response();
        if let Mismatch::UnknownMethod(_) = mismatch {
            self.calls.begin(request).answered(answer.headers()); // a call of an unknown method counts as a call
        }
        let _ = respond.send_response(answer, true); // a client that is gone needs no answer
    }

    /// Runs a call. A call of one item is polled once in this task, which finishes most of them. A call that has to wait,
    /// and any other call, runs in its own task.
    pub(super) fn run(
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
        let mut leave_parked = Leave::new(drain, Stage::Draining);
        let answered = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending if self.deadline.poll_passed(cx).is_ready() => {
                Poll::Ready(Some(status::deadline_exceeded().into_http()))
            }
            Poll::Pending if self.quota.is_parked() && leave_parked.poll(cx).is_ready() => {
                Poll::Ready(Some(drain::status().into_http()))
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
