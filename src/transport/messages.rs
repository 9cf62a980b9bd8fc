//! The messages of a streamed request, decoded from the frames that contain them.
//!
//! tonic's own stream copies them into a buffer that it keeps while the call is open: an idle pipe that had once
//! transported a value of 200 KB kept 200 KB, charged to no account.

use super::chunks::Chunks;
use super::request::{PREFIX_BYTES, RequestBody};
use super::status;
use crate::service::Refusal;
use bytes::Buf;
use http_body::Body;
use prost::Message;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// The messages of a request.
pub(super) struct Messages<T> {
    body: RequestBody,
    frames: Chunks,
    /// Length of the next message, once known.
    length: Option<usize>,
    _message: PhantomData<fn() -> T>,
}

impl<T: Message + Default> Messages<T> {
    /// The messages of `body`.
    pub(super) fn new(body: RequestBody) -> Self {
        Self { body, frames: Chunks::default(), length: None, _message: PhantomData }
    }

    /// The next message, or an error. No message follows an error.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Status>>> {
        loop {
            if let Some(message) = self.decode().transpose() {
                return Poll::Ready(Some(message));
            }
            if !self.frames.has_remaining() {
                self.frames = Chunks::default(); // free it: the next frame may come much later
            }
            // The caller has handled the previous messages, so the body releases their quota.
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().into_iter().for_each(|data| self.frames.push(data)),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// The next messages, as far as they are contiguous.
    pub(super) fn next_bytes(&self) -> &[u8] {
        if self.length.is_some() { &[] } else { self.frames.chunk() }
    }

    /// Releases the quota of messages that are not handled yet, while their reader waits for something else.
    pub(super) fn give_up_permit(&mut self) {
        self.body.give_up_permit();
    }

    /// Decodes the next message if it has arrived completely.
    fn decode(&mut self) -> Result<Option<T>, Status> {
        let length = match self.length {
            Some(length) => length,
            None if self.frames.remaining() < PREFIX_BYTES => return Ok(None),
            None => {
                if self.frames.get_u8() != 0 {
                    return Err(status::of(&Refusal::Malformed("the message is compressed")));
                }
                self.frames.get_u32() as usize
            }
        };
        self.length = Some(length);
        if self.frames.remaining() < length {
            return Ok(None);
        }
        self.length = None;
        let decoded = T::decode((&mut self.frames).take(length));
        decoded.map(Some).map_err(|_| status::of(&Refusal::Malformed("the message cannot be decoded")))
    }
}
