//! Sends the bytes of an answer, until h2 has the last one or the call ends.

use super::deadline::Deadline;
use super::drain::{self, Leave};
use super::response::ResponseBody;
use super::status;
use super::unread::Waiting;
use crate::service::Refusal;
use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::Body;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// An answer that is being sent.
pub(super) struct Outgoing<'a> {
    pub(super) body: ResponseBody,
    pub(super) stream: SendStream<Bytes>,
    pub(super) waiting: Waiting,
    pub(super) deadline: Deadline,
    pub(super) leave: Leave<'a>,
}

/// The stream accepts no more bytes.
pub(super) struct Gone;

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
    pub(super) async fn send(&mut self) -> Result<(), Gone> {
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
