//! The body of a response, whose bytes are in flight until the last one is written.

use super::call::Call;
use super::quota::{CallQuota, Outgoing, SMALL_BYTES};
use crate::service::Refusal;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// A response body whose bytes are counted until the last reference to them is dropped.
#[derive(Debug)]
pub(super) struct ResponseBody {
    inner: tonic::body::Body,
    quota: Arc<CallQuota>,
    call: Call,
}

impl ResponseBody {
    /// Counts the bytes of `inner` against `quota`; `call` ends with the body.
    pub(super) fn new(inner: tonic::body::Body, quota: Arc<CallQuota>, call: Call) -> Self {
        Self { inner, quota, call }
    }

    /// Ends the call with the status in these trailers.
    pub(super) fn end_with(&mut self, trailers: &HeaderMap) {
        self.call.end_with(trailers);
    }

    /// Ends the call because the server shuts down.
    pub(super) fn leave(&mut self) {
        self.call.leave();
    }

    /// Ends the call with a refusal.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        self.call.refuse(refusal);
    }
}

/// Bytes with their permit.
struct WithPermit {
    bytes: Bytes,
    _permit: Outgoing,
}

impl AsRef<[u8]> for WithPermit {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.end_with(trailers);
        }
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| match bytes.len() as u64 {
                    0..=SMALL_BYTES => bytes,
                    len => Bytes::from_owner(WithPermit { bytes, _permit: self.quota.encoded(len) }),
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
