//! The pipe: many operations over one stream.
//!
//! A pipe has no task, channel or queue of its own: the body of the answer takes an operation from the request,
//! executes it (the store never blocks), and collects ready results into one frame. HTTP/2's windows bound the backlog
//! on both sides. Reads that request a lease may wait; other operations pass them. Clients match results by id.
//!
//! A pipe may be open for days and mostly idle, so no buffer here outlives its frame. That is why it does not use
//! tonic's streams: each keeps the buffer of the largest message it has seen.

use super::cache::{self, Pause, Who};
use super::messages::Messages;
use super::prefetch;
use super::quota::CallQuota;
use super::request::{PREFIX_BYTES, RequestBody};
use super::status;
use crate::service::{Cache, Refusal};
use crate::traffic::{Method, Outcome, PIPE_TIMED};
use bytes::{BufMut, Bytes, BytesMut};
use ebb_proto::{self as proto, pipe_request::Operation, pipe_response::Result as Answer};
use futures::stream::{FuturesUnordered, StreamExt as _};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use prost::Message;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tonic::{Code, Status};

/// Maximum unanswered operations of a client, announced with the first response. The server queues none of them: this
/// is about the number of small messages in a connection window.
pub(super) const WINDOW: u32 = 1_024;

/// Maximum reads of a pipe that wait for leases. Further ones are answered at once, so that the operation for which they
/// wait is read, too.
const MAX_WAITING: usize = WINDOW as usize;
/// The method's path.
pub(super) const PATH: &str = "/ebb.v1.CacheService/Pipe";
/// Operations prefetched together: a few times the cache misses that a processor handles concurrently.
const LOOK_AHEAD: usize = 32;
/// A frame is sent when it contains this many bytes of results, or when no operation is ready.
const FRAME_BYTES: usize = 32 << 10;

/// The answer to a call with the operations of `request`.
pub(super) fn answer(
    cache: Arc<Cache>,
    request: Request<RequestBody>,
    quota: Arc<CallQuota>,
) -> Response<tonic::body::Body> {
    let encoding = request.headers().get("grpc-encoding").filter(|encoding| *encoding != "identity");
    if let Some(encoding) = encoding {
        let mut refused =
            Status::unimplemented(format!("grpc-encoding: {encoding:?} is not supported (identity)")).into_http();
        refused.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        return refused;
    }
    let pipe = Pipe::new(cache, Messages::new(request.into_body()), quota);
    let results = Results { pipe, end: None, usual_bytes: 0 };
    let mut response = Response::new(tonic::body::Body::new(results));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The body of an answer: results, then the status.
struct Results {
    pipe: Pipe,
    end: Option<Status>,
    /// The length of the last frame, which is the initial capacity of the next one.
    usual_bytes: usize,
}

impl Body for Results {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut bytes = BytesMut::new();
        while self.end.is_none() && bytes.len() < FRAME_BYTES {
            match self.pipe.poll_next(cx) {
                Poll::Ready(Some(Ok(result))) => {
                    let len = PREFIX_BYTES + result.encoded_len();
                    bytes.reserve(if bytes.is_empty() { len.max(self.usual_bytes) } else { len });
                    bytes.put_u8(0); // not compressed
                    bytes.put_u32(result.encoded_len() as u32);
                    result.encode(&mut bytes).map_err(|error| Status::internal(error.to_string()))?;
                }
                Poll::Ready(Some(Err(status))) => self.end = Some(status),
                Poll::Ready(None) => self.end = Some(Status::ok("")),
                Poll::Pending if bytes.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if !bytes.is_empty() {
            self.usual_bytes = bytes.len().min(FRAME_BYTES);
            return Poll::Ready(Some(Ok(Frame::data(bytes.freeze()))));
        }
        let mut trailers = HeaderMap::new();
        if let Some(status) = &self.end {
            status.add_header(&mut trailers)?;
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// A pipe's results.
struct Pipe {
    cache: Arc<Cache>,
    operations: Messages<proto::PipeRequest>,
    quota: Arc<CallQuota>,
    announced: bool,
    /// Operations so far, to time a sample of them.
    operated: u32,
    /// Next operations that are already prefetched.
    foreseen: usize,
    /// An operation whose result waits for quota.
    waiting: Option<(proto::PipeRequest, Pause)>,
    /// Reads that request a lease.
    leased: FuturesUnordered<Leased>,
    /// Whether all operations have been read.
    is_all: bool,
}

/// A read that requests a lease: its id and result.
type Leased = Pin<Box<dyn Future<Output = (u64, Result<proto::GetResponse, Refusal>)> + Send>>;

impl Pipe {
    /// The results of `operations`.
    fn new(cache: Arc<Cache>, operations: Messages<proto::PipeRequest>, quota: Arc<CallQuota>) -> Self {
        Self {
            cache,
            operations,
            quota,
            announced: false,
            operated: 0,
            foreseen: 0,
            waiting: None,
            leased: FuturesUnordered::new(),
            is_all: false,
        }
    }

    /// The next result.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<proto::PipeResponse, Status>>> {
        loop {
            if !self.leased.is_empty()
                && let Poll::Ready(Some((id, result))) = self.leased.poll_next_unpin(cx)
            {
                return Poll::Ready(Some(Ok(self.counted(id, Method::PipeGet, None, result.map(Answer::Get)))));
            }
            let (request, room) = match &mut self.waiting {
                Some((_, room)) => {
                    let room = ready!(room.as_mut().poll(cx));
                    let Some((request, _)) = self.waiting.take() else { continue };
                    (request, Some(room))
                }
                None if self.is_all && self.leased.is_empty() => return Poll::Ready(None),
                // The next result of `leased` wakes this task.
                None if self.is_all || self.leased.len() >= 2 * MAX_WAITING => return Poll::Pending,
                None => {
                    self.look_ahead();
                    match ready!(self.operations.poll_next(cx)) {
                        Some(Ok(request)) => (request, None),
                        Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                        None => {
                            self.is_all = true;
                            continue;
                        }
                    }
                }
            };
            let request = match request.operation {
                Some(Operation::Get(get)) if get.lease.is_some() => {
                    let (cache, quota) = (self.cache.clone(), self.quota.clone());
                    let id = request.id;
                    let who = if self.leased.len() < MAX_WAITING { Who::Operation } else { Who::HastyOperation };
                    let read = cache::get_with_lease(cache, Some(quota), who, get);
                    self.leased.push(Box::pin(async move { (id, read.await) }));
                    continue;
                }
                operation => proto::PipeRequest { operation, ..request },
            };
            let response = match room {
                Some(Err(refusal)) => Some(self.counted(request.id, method(&request.operation), None, Err(refusal))),
                room => self.operate(request, room.is_some()),
            };
            if let Some(response) = response {
                return Poll::Ready(Some(Ok(response)));
            }
        }
    }

    /// Prefetches the memory of the next operations, after the prefetched ones are executed.
    fn look_ahead(&mut self) {
        match self.foreseen.checked_sub(1) {
            Some(left) => self.foreseen = left,
            None => {
                let soon = prefetch::keys(self.operations.next_bytes(), LOOK_AHEAD);
                let number = self.cache.look_ahead(soon.map(|named| (named.namespace, named.key)));
                self.foreseen = number.saturating_sub(1); // the first of them is executed now
            }
        }
    }

    /// Executes an operation, times a sample of them, and counts the result.
    fn operate(&mut self, request: proto::PipeRequest, has_room: bool) -> Option<proto::PipeResponse> {
        let began = self.operated.is_multiple_of(PIPE_TIMED).then(Instant::now);
        let result = self.carry_out(&request.operation);
        if let (Ok(Answer::Get(found)), false) = (&result, has_room)
            && self.quota.try_room(found.value.len() as u64).is_err()
        {
            let room = Box::pin(self.quota.clone().wait_for_room(found.value.len() as u64));
            self.waiting = Some((request, room));
            self.operations.give_up_permit(); // otherwise the operation would wait for its own quota
            return None;
        }
        Some(self.counted(request.id, method(&request.operation), began, result))
    }

    fn counted(
        &mut self,
        id: u64,
        method: Method,
        began: Option<Instant>,
        result: Result<Answer, Refusal>,
    ) -> proto::PipeResponse {
        self.operated = self.operated.wrapping_add(1);
        let traffic = self.quota.connection().traffic();
        let reason = result.as_ref().err().map(Refusal::reason);
        let code = reason.map_or(Code::Ok, |reason| status::code(reason).0);
        traffic.ended(method, code);
        reason.into_iter().for_each(|reason| traffic.refused(reason));
        began.into_iter().for_each(|began| traffic.took(method, Outcome::of(code), began.elapsed()));
        let result = result.unwrap_or_else(|refusal| Answer::Error(status::within(&refusal)));
        let window = if std::mem::replace(&mut self.announced, true) { 0 } else { WINDOW };
        proto::PipeResponse { id, result: Some(result), window }
    }

    fn carry_out(&self, operation: &Option<Operation>) -> Result<Answer, Refusal> {
        match operation {
            Some(Operation::Get(request)) => self.cache.get(request).map(Answer::Get),
            Some(Operation::Set(request)) => self.cache.set(request).map(Answer::Set),
            Some(Operation::Delete(request)) => self.cache.delete(request).map(Answer::Delete),
            Some(Operation::Touch(request)) => self.cache.touch(request).map(Answer::Touch),
            Some(Operation::Increment(request)) => self.cache.increment(request).map(Answer::Increment),
            None => Err(Refusal::Missing { field: "operation" }),
        }
    }
}

fn method(operation: &Option<Operation>) -> Method {
    match operation {
        Some(Operation::Get(_)) => Method::PipeGet,
        Some(Operation::Set(_)) => Method::PipeSet,
        Some(Operation::Delete(_)) => Method::PipeDelete,
        Some(Operation::Touch(_)) => Method::PipeTouch,
        Some(Operation::Increment(_)) => Method::PipeIncrement,
        None => Method::Other,
    }
}
