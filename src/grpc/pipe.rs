//! The pipe: many operations over one stream.
//!
//! No task, no channel, no queue of our own: the response stream pulls an operation off the request stream, carries it
//! out (the store never waits), and hands the result to tonic, which goes on collecting results into one write while
//! they are ready. What may pile up is bounded by HTTP/2's windows on both sides. Results happen to come in the order of
//! the operations today; clients match by id.

use super::cache::room;
use super::in_flight::Share;
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
#[derive(Debug)]
pub(super) struct Pipe {
    cache: Arc<Cache>,
    operations: Streaming<proto::PipeRequest>,
    share: Option<Arc<Share>>,
    announced: bool,
    /// Operations so far, to time one of some.
    operated: u32,
}

impl Pipe {
    /// The results of `operations`.
    pub(super) fn new(cache: Arc<Cache>, operations: Streaming<proto::PipeRequest>, share: Option<Arc<Share>>) -> Self {
        Self { cache, operations, share, announced: false, operated: 0 }
    }

    /// Carries an operation out and counts it.
    fn counted(&mut self, operation: Option<Operation>) -> Result<Answer, Refusal> {
        let method = match operation {
            Some(Operation::Get(_)) => Method::PipeGet,
            Some(Operation::Set(_)) => Method::PipeSet,
            Some(Operation::Delete(_)) => Method::PipeDelete,
            Some(Operation::Touch(_)) => Method::PipeTouch,
            Some(Operation::Increment(_)) => Method::PipeIncrement,
            None => Method::Other,
        };
        let began = self.operated.is_multiple_of(PIPE_TIMED).then(Instant::now);
        self.operated = self.operated.wrapping_add(1);
        let result = self.carry_out(operation);
        if let Some(share) = &self.share {
            let lane = share.lane();
            let (code, reason) = result.as_ref().map_or_else(
                |refusal| (status::table(refusal).0, Some(status::table(refusal).1)),
                |_| (Code::Ok, None),
            );
            lane.ended(method, code);
            reason.into_iter().for_each(|reason| lane.refused(reason));
            began.into_iter().for_each(|began| lane.took(method, Outcome::of(code), began.elapsed()));
        }
        result
    }

    fn carry_out(&self, operation: Option<Operation>) -> Result<Answer, Refusal> {
        match operation {
            Some(Operation::Get(request)) => {
                let response = self.cache.get(&request)?;
                room(self.share.as_ref(), response.value.len() as u64)?;
                Ok(Answer::Get(response))
            }
            Some(Operation::Set(request)) => self.cache.set(&request).map(Answer::Set),
            Some(Operation::Delete(request)) => self.cache.delete(&request).map(Answer::Delete),
            Some(Operation::Touch(request)) => self.cache.touch(&request).map(Answer::Touch),
            Some(Operation::Increment(request)) => self.cache.increment(&request).map(Answer::Increment),
            None => Err(Refusal::Missing { field: "operation" }),
        }
    }
}

impl Stream for Pipe {
    type Item = Result<proto::PipeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let request = match ready!(Pin::new(&mut self.operations).poll_next(cx)) {
            Some(Ok(request)) => request,
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            None => return Poll::Ready(None),
        };
        let result = self.counted(request.operation).unwrap_or_else(|refusal| Answer::Error(status::within(&refusal)));
        let window = if std::mem::replace(&mut self.announced, true) { 0 } else { WINDOW };
        Poll::Ready(Some(Ok(proto::PipeResponse { id: request.id, result: Some(result), window })))
    }
}
