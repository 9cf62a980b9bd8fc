//! The pipe: many operations over one stream.
//!
//! No task, no channel, no queue of our own: the response stream pulls an operation off the request stream, carries it
//! out (the store never waits), and hands the result to tonic, which goes on collecting results into one write while
//! they are ready. What may pile up is bounded by HTTP/2's windows on both sides. Results happen to come in the order of
//! the operations today; clients match by id.

use super::cache::Pause;
use super::quota::CallQuota;
use super::status;
use crate::cache::{Cache, Refusal};
use crate::proto::{self, pipe_request::Operation, pipe_response::Result as Answer};
use crate::traffic::{Method, Outcome, PIPE_TIMED};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

/// Operations a client may have unanswered, announced with the first response. The server holds none of them: this is
/// what a connection window full of small messages amounts to.
pub(super) const WINDOW: u32 = 1_024;

/// A pipe's results.
pub(super) struct Pipe {
    cache: Arc<Cache>,
    operations: Streaming<proto::PipeRequest>,
    quota: Option<Arc<CallQuota>>,
    announced: bool,
    /// Operations so far, to time one of some.
    operated: u32,
    /// An operation whose result waits for room.
    waiting: Option<(proto::PipeRequest, Pause)>,
}

impl Pipe {
    /// The results of `operations`.
    pub(super) fn new(
        cache: Arc<Cache>,
        operations: Streaming<proto::PipeRequest>,
        quota: Option<Arc<CallQuota>>,
    ) -> Self {
        Self { cache, operations, quota, announced: false, operated: 0, waiting: None }
    }

    /// Carries an operation out, times one of some, and counts the result.
    fn operate(&mut self, request: proto::PipeRequest, has_room: bool) -> Option<proto::PipeResponse> {
        let began = self.operated.is_multiple_of(PIPE_TIMED).then(Instant::now);
        let result = self.carry_out(&request.operation);
        if let (Some(quota), Ok(Answer::Get(found)), false) = (&self.quota, &result, has_room)
            && quota.try_room(found.value.len() as u64).is_err()
        {
            let room = Box::pin(quota.clone().wait_for_room(found.value.len() as u64));
            self.waiting = Some((request, room));
            return None;
        }
        Some(self.counted(request, began, result))
    }

    fn counted(
        &mut self,
        request: proto::PipeRequest,
        began: Option<Instant>,
        result: Result<Answer, Refusal>,
    ) -> proto::PipeResponse {
        self.operated = self.operated.wrapping_add(1);
        let method = match request.operation {
            Some(Operation::Get(_)) => Method::PipeGet,
            Some(Operation::Set(_)) => Method::PipeSet,
            Some(Operation::Delete(_)) => Method::PipeDelete,
            Some(Operation::Touch(_)) => Method::PipeTouch,
            Some(Operation::Increment(_)) => Method::PipeIncrement,
            None => Method::Other,
        };
        if let Some(quota) = &self.quota {
            let lane = quota.connection().lane();
            let (code, reason) = result.as_ref().map_or_else(
                |refusal| (status::table(refusal).0, Some(status::table(refusal).1)),
                |_| (Code::Ok, None),
            );
            lane.ended(method, code);
            reason.into_iter().for_each(|reason| lane.refused(reason));
            began.into_iter().for_each(|began| lane.took(method, Outcome::of(code), began.elapsed()));
        }
        let result = result.unwrap_or_else(|refusal| Answer::Error(status::within(&refusal)));
        let window = if std::mem::replace(&mut self.announced, true) { 0 } else { WINDOW };
        proto::PipeResponse { id: request.id, result: Some(result), window }
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

impl Stream for Pipe {
    type Item = Result<proto::PipeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (request, room) = match &mut self.waiting {
                Some((_, room)) => {
                    let room = ready!(room.as_mut().poll(cx));
                    let Some((request, _)) = self.waiting.take() else { continue };
                    (request, Some(room))
                }
                None => match ready!(Pin::new(&mut self.operations).poll_next(cx)) {
                    Some(Ok(request)) => (request, None),
                    Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                    None => return Poll::Ready(None),
                },
            };
            let response = match room {
                Some(Err(refusal)) => Some(self.counted(request, None, Err(refusal))),
                room => self.operate(request, room.is_some()),
            };
            if let Some(response) = response {
                return Poll::Ready(Some(Ok(response)));
            }
        }
    }
}
