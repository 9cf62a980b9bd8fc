//! HTTP/2 by h2: calls are accepted, their requests come in, their answers go out.
//!
//! ```text
//!  h2 ─accept─► a task for each call: request ──Counted──► service ──Held──► answer ──► h2
//!                                                                              └ has to wait for its client: Stuck
//! ```

use super::call::Calls;
use super::drain::{self, Leave, Stage};
use super::in_flight::{Counted, Held, Running, Share};
use super::services::Services;
use super::stuck::{Stuck, Waiting};
use super::watched::{Moved, Watched};
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{FlowControl, Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// How many calls are accepted before those that were are carried out, or one if no more have room: a call that waits to
/// be accepted takes less memory than one that runs.
const TURN_CALLS: usize = 64;

/// A connection that accepts calls, until either side ends it.
pub(super) struct Accepting<S> {
    h2: Connection<Watched<S>, Bytes>,
    dispatch: Dispatch,
    moved: Arc<Moved>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Accepting<S> {
    /// Hands the calls of `h2`, whose bytes are counted in `moved`, to `dispatch`.
    pub(super) fn new(h2: Connection<Watched<S>, Bytes>, dispatch: Dispatch, moved: Arc<Moved>) -> Self {
        Self { h2, dispatch, moved }
    }

    /// Takes no more calls, and ends when those that are open have ended.
    pub(super) fn drain(&mut self) {
        self.h2.graceful_shutdown();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Accepting<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        for turn in 0..TURN_CALLS {
            if turn > 0 && !self.dispatch.share.has_room_for_call() {
                break;
            }
            // Reads and writes frames, too, as far as the socket goes.
            let accepted = self.h2.poll_accept(cx);
            self.dispatch.stuck.look(self.moved.read());
            match ready!(accepted) {
                Some(Ok((request, respond))) => {
                    let running = self.dispatch.share.run_call();
                    tokio::spawn(self.dispatch.clone().call(request, respond, running));
                }
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref(); // after those that were accepted
        Poll::Pending
    }
}

/// Sends requests to their service, with the bytes they bring and take counted.
#[derive(Clone)]
pub(super) struct Dispatch {
    pub(super) services: Services,
    pub(super) share: Arc<Share>,
    pub(super) calls: Arc<Calls>,
    pub(super) stuck: Arc<Stuck>,
}

impl Dispatch {
    async fn call(self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>, _running: Running) {
        let Self { mut services, share, calls, stuck } = self;
        let mut call = calls.begin(&request);
        let mut leave = Leave::new(calls.drain(), Stage::Ending);
        let (head, mut stream) = request.into_parts();
        let unread = stream.flow_control().clone();
        let body = tonic::body::Body::new(Counted::new(Arriving(stream), share.clone()));
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(share.clone());
        let mut answer = pin!(services.call(request));
        let answered = leave.unless(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(Some(answered)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        });
        let response = match answered.await {
            Some(Some(Ok(response))) => response,
            Some(_) => return,
            None => drain::status().into_http(),
        };
        call.answered(response.headers());
        let mut leave = Leave::new(calls.drain(), call.leaves_at());
        let (head, body) = response.map(|body| Held::new(body, share, call)).into_parts();
        let is_all = body.is_end_stream();
        let Ok(stream) = respond.send_response(Response::from_parts(head, ()), is_all) else { return };
        if !is_all {
            // A client that is gone is not told.
            let _ = Answer { body, stream, unread, stuck: &stuck }.send(&mut leave).await;
        }
    }
}

/// A request's body, as it arrives.
#[derive(Debug)]
struct Arriving(RecvStream);

impl Body for Arriving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        Poll::Ready(match ready!(self.0.poll_data(cx)) {
            Some(Ok(bytes)) => {
                // Who takes bytes has room for more.
                self.0.flow_control().release_capacity(bytes.len())?;
                Some(Ok(Frame::data(bytes)))
            }
            // The client wants no more than the answer.
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => None,
            Some(Err(error)) => Some(Err(error)),
            None => ready!(self.0.poll_trailers(cx))?.map(|trailers| Ok(Frame::trailers(trailers))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// An answer that goes out.
struct Answer<'a> {
    body: Held,
    stream: SendStream<Bytes>,
    /// Of the request.
    unread: FlowControl,
    stuck: &'a Stuck,
}

/// The stream takes no more.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

impl Answer<'_> {
    async fn send(mut self, leave: &mut Leave<'_>) -> Result<(), Gone> {
        loop {
            if leave.is_late() {
                return self.leave();
            }
            // The body first: room that is reserved for what may never come is taken from the connection's other calls.
            let frame = poll_fn(|cx| {
                if self.stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Gone));
                }
                Pin::new(&mut self.body).poll_frame(cx).map(Ok)
            });
            let mut frame = pin!(frame);
            let Some(frame) = leave.unless(|cx| frame.as_mut().poll(cx)).await else { return self.leave() };
            match frame? {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        let is_all = self.body.is_end_stream();
                        if !bytes.is_empty() {
                            self.room().await?;
                        }
                        self.stream.send_data(bytes, is_all)?;
                        if is_all {
                            return Ok(());
                        }
                    }
                    Err(frame) => {
                        self.stream.reserve_capacity(0);
                        let trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new());
                        return Ok(self.stream.send_trailers(trailers)?);
                    }
                },
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Ok(());
                }
                None => return Ok(self.stream.send_data(Bytes::new(), true)?),
            }
        }
    }

    /// Ends with the server.
    fn leave(mut self) -> Result<(), Gone> {
        self.body.leave();
        self.stream.reserve_capacity(0);
        Ok(self.stream.send_trailers(drain::trailers())?)
    }

    /// Waits until the client has room for something.
    async fn room(&mut self) -> Result<(), Gone> {
        self.stream.reserve_capacity(1);
        let mut waiting = None;
        let refused = poll_fn(|cx| {
            while self.stream.capacity() == 0 {
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Gone)),
                    Poll::Pending => {
                        let waiting = waiting.get_or_insert_with(|| Waiting::new(self.stuck, &self.unread));
                        return waiting.poll_refused(cx).map(|refusal| Ok(Some(refusal)));
                    }
                }
            }
            Poll::Ready(Ok(None))
        })
        .await?;
        match refused {
            None => Ok(()),
            Some(refusal) => {
                self.body.refuse(&refusal);
                self.stream.send_reset(Reason::ENHANCE_YOUR_CALM);
                Err(Gone)
            }
        }
    }
}
