//! `ebb.v1.CacheService`: from calls to the cache, and nothing else.

use super::in_flight::Share;
use super::pipe::Pipe;
use super::status;
use crate::cache::{Cache, Refusal, Results};
use crate::proto::{self, cache_service_server::CacheService};
use crate::store::Cursor;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    cache: Arc<Cache>,
}

impl Service {
    /// Over a cache.
    pub(super) fn new(cache: Arc<Cache>) -> Self {
        Self { cache }
    }
}

/// The share of the connection a request came over; requests of a test without a connection have none.
pub(super) fn share<T>(request: &Request<T>) -> Option<Arc<Share>> {
    request.extensions().get::<Arc<Share>>().cloned()
}

/// Refuses a response that the connection has no room for.
pub(super) fn room(share: Option<&Arc<Share>>, bytes: u64) -> Result<(), Refusal> {
    share.map_or(Ok(()), |share| share.room(bytes))
}

/// The results of a batch as they are sent: an item that was refused says why.
fn each<T>(results: Results<T>, refused: impl Fn(proto::Refusal) -> T) -> Vec<T> {
    results.into_iter().map(|result| result.unwrap_or_else(|refusal| refused(status::within(&refusal)))).collect()
}

#[tonic::async_trait]
impl CacheService for Service {
    type ScanStream = Scan;
    type PipeStream = Pipe;

    async fn get(&self, request: Request<proto::GetRequest>) -> Result<Response<proto::GetResponse>, Status> {
        let response = self.cache.get(request.get_ref())?;
        room(share(&request).as_ref(), response.value.len() as u64)?;
        Ok(Response::new(response))
    }

    async fn set(&self, request: Request<proto::SetRequest>) -> Result<Response<proto::SetResponse>, Status> {
        Ok(Response::new(self.cache.set(request.get_ref())?))
    }

    async fn delete(&self, request: Request<proto::DeleteRequest>) -> Result<Response<proto::DeleteResponse>, Status> {
        Ok(Response::new(self.cache.delete(request.get_ref())?))
    }

    async fn touch(&self, request: Request<proto::TouchRequest>) -> Result<Response<proto::TouchResponse>, Status> {
        Ok(Response::new(self.cache.touch(request.get_ref())?))
    }

    async fn increment(
        &self,
        request: Request<proto::IncrementRequest>,
    ) -> Result<Response<proto::IncrementResponse>, Status> {
        Ok(Response::new(self.cache.increment(request.get_ref())?))
    }

    async fn append(&self, request: Request<proto::AppendRequest>) -> Result<Response<proto::AppendResponse>, Status> {
        Ok(Response::new(self.cache.append(request.get_ref())?))
    }

    async fn batch_get(
        &self,
        request: Request<proto::BatchGetRequest>,
    ) -> Result<Response<proto::BatchGetResponse>, Status> {
        let share = share(&request);
        let results = self.cache.batch_get(request.get_ref(), |bytes| room(share.as_ref(), bytes))?;
        let refused = |refusal| proto::GetResponse {
            outcome: proto::get_response::Outcome::Refused.into(),
            refusal: Some(refusal),
            ..Default::default()
        };
        Ok(Response::new(proto::BatchGetResponse { results: each(results, refused) }))
    }

    async fn batch_set(
        &self,
        request: Request<proto::BatchSetRequest>,
    ) -> Result<Response<proto::BatchSetResponse>, Status> {
        let results = self.cache.batch_set(request.get_ref())?;
        let outcome = proto::set_response::Outcome::Refused.into();
        let refused = |refusal| proto::SetResponse { outcome, version: 0, refusal: Some(refusal) };
        Ok(Response::new(proto::BatchSetResponse { results: each(results, refused) }))
    }

    async fn batch_delete(
        &self,
        request: Request<proto::BatchDeleteRequest>,
    ) -> Result<Response<proto::BatchDeleteResponse>, Status> {
        let results = self.cache.batch_delete(request.get_ref())?;
        let outcome = proto::delete_response::Outcome::Refused.into();
        let refused = |refusal| proto::DeleteResponse { outcome, version: 0, refusal: Some(refusal) };
        Ok(Response::new(proto::BatchDeleteResponse { results: each(results, refused) }))
    }

    async fn invalidate(
        &self,
        request: Request<proto::InvalidateRequest>,
    ) -> Result<Response<proto::InvalidateResponse>, Status> {
        Ok(Response::new(self.cache.invalidate(request.get_ref())?))
    }

    async fn scan(&self, request: Request<proto::ScanRequest>) -> Result<Response<Scan>, Status> {
        let share = share(&request);
        let mut request = request.into_inner();
        let next = Some(self.cache.cursor(&request.page_token)?);
        let left = if request.limit == 0 { u64::MAX } else { request.limit };
        // Slices of the request keep the buffer it was decoded from, and a scan may go on for long.
        request.prefix = Bytes::copy_from_slice(&request.prefix);
        request.page_token = Bytes::new();
        Ok(Response::new(Scan { cache: self.cache.clone(), request, share, next, left }))
    }

    async fn pipe(&self, request: Request<Streaming<proto::PipeRequest>>) -> Result<Response<Pipe>, Status> {
        let share = share(&request);
        Ok(Response::new(Pipe::new(self.cache.clone(), request.into_inner(), share)))
    }

    async fn get_capabilities(
        &self,
        _: Request<proto::GetCapabilitiesRequest>,
    ) -> Result<Response<proto::GetCapabilitiesResponse>, Status> {
        Ok(Response::new(self.cache.capabilities()))
    }
}

/// The portions of a scan, each made when the transport has room for it.
#[derive(Debug)]
pub(super) struct Scan {
    cache: Arc<Cache>,
    request: proto::ScanRequest,
    share: Option<Arc<Share>>,
    next: Option<Cursor>,
    left: u64,
}

impl Stream for Scan {
    type Item = Result<proto::ScanResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(from) = self.next.filter(|_| self.left > 0) else { return Poll::Ready(None) };
        match self.cache.scan(&self.request, from, self.left) {
            Ok((response, next)) => {
                self.next = next;
                self.left -= (response.entries.len() as u64).min(self.left);
                if response.entries.is_empty() && next.is_some() {
                    // Nothing of this namespace so far: let others have the thread before looking on.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let bytes = response.entries.iter().map(|entry| entry.value.len() as u64).sum();
                match room(self.share.as_ref(), bytes) {
                    Ok(()) => Poll::Ready(Some(Ok(response))),
                    Err(refusal) => self.end_with(refusal),
                }
            }
            Err(refusal) => self.end_with(refusal),
        }
    }
}

impl Scan {
    fn end_with(&mut self, refusal: Refusal) -> Poll<Option<Result<proto::ScanResponse, Status>>> {
        self.next = None;
        Poll::Ready(Some(Err(refusal.into())))
    }
}
