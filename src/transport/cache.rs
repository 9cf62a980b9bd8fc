//! `ebb.v1.CacheService`: translates calls into calls of the cache.

use super::quota::{CallQuota, Held};
use super::status;
use crate::service::{Attempt, Cache, Refusal, Results, Wait};
use bytes::Bytes;
use ebb_engine::store::{Cursor, Places};
use ebb_proto::{self as proto, cache_service_server::CacheService};
use futures::future::join_all;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    cache: Arc<Cache>,
}

impl Service {
    /// A service for a cache.
    pub(super) fn new(cache: Arc<Cache>) -> Self {
        Self { cache }
    }
}

/// The quota of a call; `None` for a request without a connection, as in tests.
pub(super) fn quota<T>(request: &Request<T>) -> Option<Arc<CallQuota>> {
    request.extensions().get::<Arc<CallQuota>>().cloned()
}

/// What an attempt of a read may do.
struct Turn<'a> {
    /// Checks whether a response with this many bytes of values may be built.
    room: &'a dyn Fn(u64) -> Result<(), Refusal>,
    /// Whether the call may still wait for leases.
    may_wait: bool,
}

/// A request that can release the buffer it was decoded from.
trait Detach {
    /// Replaces its slices by copies. Returns the copied bytes.
    fn detach(&mut self) -> u64;
}

impl Detach for proto::GetRequest {
    fn detach(&mut self) -> u64 {
        self.key = Bytes::copy_from_slice(&self.key);
        self.key.len() as u64
    }
}

impl Detach for proto::BatchGetRequest {
    fn detach(&mut self) -> u64 {
        self.keys.iter_mut().for_each(|key| *key = Bytes::copy_from_slice(key));
        self.keys.iter().map(|key| key.len() as u64).sum()
    }
}

/// Waits for in-flight quota and for leases, then returns the response that `read` builds. While the call waits it
/// releases the values, and reads them again afterwards; of the request it keeps only the keys, which are charged as
/// held.
async fn with_room<Q: Detach, T>(
    quota: Option<Arc<CallQuota>>,
    who: Who,
    mut request: Q,
    mut read: impl FnMut(&Q, &Turn<'_>) -> Result<Attempt<T>, Refusal>,
) -> Result<T, Refusal> {
    let (mut granted, mut may_wait) = (None, who != Who::HastyOperation);
    loop {
        let (attempt, asked) = {
            let asked = Cell::new(0);
            let room = |bytes| {
                asked.set(bytes);
                match (&quota, granted) {
                    (Some(quota), Some(granted)) if bytes > granted => Err(quota.no_room(bytes)),
                    (Some(quota), None) => quota.has_room(bytes),
                    _ => Ok(()),
                }
            };
            (read(&request, &Turn { room: &room, may_wait }), asked.get())
        };
        match (attempt, &quota) {
            (Ok(Attempt::Answer(response)), Some(quota)) => {
                if granted.is_none() {
                    quota.try_room(asked)?;
                }
                return Ok(response);
            }
            (Ok(Attempt::Answer(response)), None) => return Ok(response),
            (Ok(Attempt::Wait(wait)), Some(quota)) => {
                let keys = request.detach();
                let parked = match who {
                    Who::Call => quota.park(keys),
                    Who::Operation | Who::HastyOperation => quota.park_operation(keys + OPERATION_BYTES),
                };
                // Without room for a wait, the call is answered at once.
                may_wait = parked.is_some();
                if may_wait {
                    Box::pin(pass(wait)).await;
                }
            }
            (Ok(Attempt::Wait(wait)), None) => Box::pin(pass(wait)).await,
            (Err(Refusal::InFlight { .. }), Some(quota)) => {
                let wanted = asked.max(2 * granted.unwrap_or(0));
                let keys = request.detach();
                quota.connection().may_hold(keys)?;
                let _held = quota.connection().hold(keys);
                quota.clone().wait_for_room(wanted).await?;
                granted = Some(wanted);
            }
            (Err(refusal), _) => return Err(refusal),
        }
    }
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A call. While it waits for another call, it does not count as running.
    Call,
    /// An operation of a pipe, whose call goes on.
    Operation,
    /// An operation of a pipe of which too many wait: it does not.
    HastyOperation,
}

/// Memory of a waiting operation of a pipe without its key, in bytes (2.5 KiB by `tests/call_memory.py`).
const OPERATION_BYTES: u64 = 3 << 10;

/// Waits until all leases have ended, or until the time is over.
async fn pass(Wait { waiters, at_most }: Wait) {
    let _ = tokio::time::timeout(at_most, join_all(waiters)).await;
}

/// Reads a key with a request for its lease.
pub(super) async fn get_with_lease(
    cache: Arc<Cache>,
    quota: Option<Arc<CallQuota>>,
    who: Who,
    request: proto::GetRequest,
) -> Result<proto::GetResponse, Refusal> {
    let wanted = request.lease.unwrap_or_default();
    let mut leases = cache.leases_of(&wanted, quota.as_ref().and_then(|quota| quota.time_left()))?;
    let read = |request: &proto::GetRequest, turn: &Turn<'_>| {
        leases.may_wait_more(turn.may_wait);
        let attempt = cache.get_with_lease(request, &mut leases)?;
        if let Attempt::Answer(response) = &attempt {
            (turn.room)(response.value.len() as u64)?;
        }
        Ok(attempt)
    };
    let response = with_room(quota, who, request, read).await?;
    leases.delivered(&cache, std::iter::once(&response));
    Ok(response)
}

/// The results of a batch as sent. A refused item contains its reason, and is counted by it.
fn each<T>(results: Results<T>, quota: Option<&CallQuota>, refused: impl Fn(proto::Refusal) -> T) -> Vec<T> {
    let result = |result: Result<T, Refusal>| {
        result.unwrap_or_else(|refusal| {
            quota.into_iter().for_each(|quota| quota.connection().traffic().refused(refusal.reason()));
            refused(status::within(&refusal))
        })
    };
    results.into_iter().map(result).collect()
}

#[tonic::async_trait]
impl CacheService for Service {
    type ScanStream = Scan;
    type PipeStream = tokio_stream::Empty<Result<proto::PipeResponse, Status>>;

    async fn get(&self, request: Request<proto::GetRequest>) -> Result<Response<proto::GetResponse>, Status> {
        let quota = quota(&request);
        let request = request.into_inner();
        if request.lease.is_some() {
            // In a box, so that other reads have a smaller future.
            let response = Box::pin(get_with_lease(self.cache.clone(), quota, Who::Call, request)).await?;
            return Ok(Response::new(response));
        }
        let read = |request: &proto::GetRequest, turn: &Turn<'_>| {
            let response = self.cache.get(request)?;
            (turn.room)(response.value.len() as u64)?;
            Ok(Attempt::Answer(response))
        };
        Ok(Response::new(with_room(quota, Who::Call, request, read).await?))
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
        let refused = |refusal| proto::GetResponse {
            outcome: proto::get_response::Outcome::Refused.into(),
            refusal: Some(refusal),
            ..Default::default()
        };
        let quota = quota(&request);
        let request = request.into_inner();
        let time_left = quota.as_ref().and_then(|quota| quota.time_left());
        let wanted = request.lease.as_ref();
        let mut leases = wanted.map(|wanted| self.cache.leases_of(wanted, time_left)).transpose()?;
        let read = |request: &proto::BatchGetRequest, turn: &Turn<'_>| {
            leases.iter_mut().for_each(|leases| leases.may_wait_more(turn.may_wait));
            self.cache.batch_get(request, leases.as_mut(), turn.room)
        };
        let results = with_room(quota.clone(), Who::Call, request, read).await?;
        if let Some(leases) = leases {
            leases.delivered(&self.cache, results.iter().flatten());
        }
        Ok(Response::new(proto::BatchGetResponse { results: each(results, quota.as_deref(), refused) }))
    }

    async fn batch_set(
        &self,
        request: Request<proto::BatchSetRequest>,
    ) -> Result<Response<proto::BatchSetResponse>, Status> {
        let results = self.cache.batch_set(request.get_ref())?;
        let outcome = proto::set_response::Outcome::Refused.into();
        let refused = |refusal| proto::SetResponse { outcome, version: 0, refusal: Some(refusal) };
        let results = each(results, quota(&request).as_deref(), refused);
        Ok(Response::new(proto::BatchSetResponse { results }))
    }

    async fn batch_delete(
        &self,
        request: Request<proto::BatchDeleteRequest>,
    ) -> Result<Response<proto::BatchDeleteResponse>, Status> {
        let results = self.cache.batch_delete(request.get_ref())?;
        let outcome = proto::delete_response::Outcome::Refused.into();
        let refused = |refusal| proto::DeleteResponse { outcome, version: 0, refusal: Some(refusal) };
        let results = each(results, quota(&request).as_deref(), refused);
        Ok(Response::new(proto::BatchDeleteResponse { results }))
    }

    async fn invalidate(
        &self,
        request: Request<proto::InvalidateRequest>,
    ) -> Result<Response<proto::InvalidateResponse>, Status> {
        Ok(Response::new(self.cache.invalidate(request.get_ref())?))
    }

    async fn scan(&self, request: Request<proto::ScanRequest>) -> Result<Response<Scan>, Status> {
        let quota = quota(&request);
        let mut request = request.into_inner();
        let next = Some(self.cache.cursor(&request.page_token)?);
        let left = if request.limit == 0 { u64::MAX } else { request.limit };
        // Slices of the request keep the buffer it was decoded from, and a scan may last long.
        request.prefix = Bytes::copy_from_slice(&request.prefix);
        request.page_token = Bytes::new();
        Ok(Response::new(Scan {
            cache: self.cache.clone(),
            request,
            quota,
            next,
            left,
            pause: None,
            places: Places::default(),
            held: None,
        }))
    }

    async fn pipe(&self, _: Request<Streaming<proto::PipeRequest>>) -> Result<Response<Self::PipeStream>, Status> {
        Err(Status::unimplemented("pipes are answered before their requests come to tonic"))
    }

    async fn get_capabilities(
        &self,
        _: Request<proto::GetCapabilitiesRequest>,
    ) -> Result<Response<proto::GetCapabilitiesResponse>, Status> {
        Ok(Response::new(self.cache.capabilities()))
    }
}

/// A future that a stream waits for.
pub(super) type Pause = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// The pages of a scan, each read when the transport has quota for it.
pub(super) struct Scan {
    cache: Arc<Cache>,
    request: proto::ScanRequest,
    quota: Option<Arc<CallQuota>>,
    next: Option<Cursor>,
    left: u64,
    pause: Option<Pause>,
    places: Places,
    /// The charge for the places.
    held: Option<Held>,
}

impl Stream for Scan {
    type Item = Result<proto::ScanResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let mut has_room = false;
            if let Some(pause) = &mut self.pause {
                let paused = ready!(pause.as_mut().poll(cx));
                self.pause = None;
                has_room = true;
                if let Err(refusal) = paused {
                    return self.end_with(refusal);
                }
            }
            let Some(from) = self.next.filter(|_| self.left > 0) else { return Poll::Ready(None) };
            let Self { cache, request, left, places, quota, held, .. } = &mut *self;
            let found = cache.scan(request, from, *left, places);
            if let Some(quota) = quota {
                held.get_or_insert_with(|| quota.connection().hold(0)).resize(places.bytes());
            }
            let (response, next) = match found {
                Ok(found) => found,
                Err(refusal) => return self.end_with(refusal),
            };
            if response.entries.is_empty() && next.is_some() {
                // The page is empty: yield, so that other tasks run and sockets are polled first.
                self.next = next;
                self.pause = Some(Box::pin(async {
                    tokio::task::yield_now().await;
                    Ok(())
                }));
                continue;
            }
            let bytes = response.entries.iter().map(|entry| entry.value.len() as u64).sum();
            if let Some(quota) = &self.quota
                && !has_room
                && quota.try_room(bytes).is_err()
            {
                let quota = quota.clone();
                self.pause = Some(Box::pin(quota.wait_for_room(bytes)));
                continue;
            }
            self.next = next;
            self.left -= (response.entries.len() as u64).min(self.left);
            return Poll::Ready(Some(Ok(response)));
        }
    }
}

impl Scan {
    fn end_with(&mut self, refusal: Refusal) -> Poll<Option<Result<proto::ScanResponse, Status>>> {
        self.next = None;
        Poll::Ready(Some(Err(refusal.into())))
    }
}
