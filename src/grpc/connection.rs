//! One connection: HTTP/2 by hyper, our services called directly, and a watch on its progress.
//!
//! hyper and tonic bound neither how long a connection may do nothing nor what it may pin. The watch does, once a
//! second: a handshake that does not come, a connection without calls, and one whose bytes in flight do not move are
//! ended. Only connections with a real problem pay for it.

use super::call::Calls;
use super::in_flight::{Counted, Held, InFlight, Share};
use super::{Limits, Services};
use crate::spans::Tracer;
use crate::traffic::Lane;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

/// The client's preface and an empty SETTINGS frame: less is no handshake.
const HANDSHAKE_BYTES: u64 = 24 + 9;

/// Who hears of the calls of a connection.
#[derive(Clone, Debug)]
pub(super) struct Watchers {
    /// Counts them.
    pub(super) lane: Arc<Lane>,
    /// Traces those that are sampled.
    pub(super) tracer: Tracer,
}

/// Serves a connection until either side ends it.
pub(super) async fn serve<S>(
    stream: S,
    services: Services,
    in_flight: Arc<InFlight>,
    limits: Limits,
    watchers: Watchers,
    keepalive: bool,
    draining: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let moved = Arc::new(Moved::default());
    let share = Share::new(in_flight, watchers.lane.clone());
    let calls = Calls::new(watchers);
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.stream_window)
        // Also h2's budget for small frames: half the window, 256 bytes for each. 1 MiB would end honest pipelines.
        .initial_connection_window_size(limits.connection_window)
        .adaptive_window(false)
        .max_header_list_size(limits.header_list)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(keepalive.then_some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(10));
    let service = Dispatch { services, share: share.clone(), calls: calls.clone() };
    let io = TokioIo::new(Watched { stream, moved: moved.clone() });
    let connection = pin!(builder.serve_connection(io, service));
    watch_over(connection, &moved, &share, &calls, limits, draining).await;
}

/// Bytes in flight of which fewer move in the write timeout stand still: pings and single bytes are no progress.
const PROGRESS_BYTES: u64 = 16 << 10;

/// What hyper hands to h2 for one stream before it waits for the client, in bytes.
const SEND_BUFFER_BYTES: usize = 64 << 10;

async fn watch_over<C>(
    mut connection: Pin<&mut C>,
    moved: &Moved,
    share: &Share,
    calls: &Calls,
    limits: Limits,
    mut draining: watch::Receiver<bool>,
) where
    C: Future<Output = hyper::Result<()>> + Drain,
{
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let opened = Instant::now();
    let mut last = (moved.total(), opened);
    let mut last_call = (0, opened);
    let mut asked_to_drain = false;
    loop {
        tokio::select! {
            _ = &mut connection => return,
            _ = draining.wait_for(|draining| *draining), if !asked_to_drain => {
                asked_to_drain = true;
                connection.as_mut().drain();
            }
            now = ticks.tick() => {
                if share.used() == 0 || moved.total() >= last.0 + PROGRESS_BYTES {
                    last = (moved.total(), now);
                }
                let still = now.duration_since(last.1);
                let unshaken = moved.read.load(Ordering::Relaxed) < HANDSHAKE_BYTES && now.duration_since(opened) >= limits.handshake_timeout;
                let stuck = still >= limits.write_timeout;
                if unshaken || stuck {
                    return; // dropping the connection closes it and gives back what it held
                }
                if calls.are_open() || calls.begun() != last_call.0 {
                    last_call = (calls.begun(), now);
                }
                let idle = now.duration_since(last_call.1);
                if idle >= limits.idle_timeout.saturating_add(limits.write_timeout) {
                    return; // it was asked to end, and does not answer
                }
                if idle >= limits.idle_timeout {
                    connection.as_mut().drain();
                }
            }
        }
    }
}

/// What ends a connection politely.
trait Drain {
    fn drain(self: Pin<&mut Self>);
}

impl<I, S, E> Drain for hyper::server::conn::http2::Connection<I, S, E>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = Held>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, Held>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Bytes that went through a socket.
#[derive(Debug, Default)]
struct Moved {
    read: AtomicU64,
    written: AtomicU64,
}

impl Moved {
    fn total(&self) -> u64 {
        self.read.load(Ordering::Relaxed) + self.written.load(Ordering::Relaxed)
    }
}

/// A stream whose bytes are counted.
struct Watched<S> {
    stream: S,
    moved: Arc<Moved>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, into);
        self.moved.read.fetch_add((into.filled().len() - before) as u64, Ordering::Relaxed);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> Watched<S> {
    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = result {
            self.moved.written.fetch_add(written as u64, Ordering::Relaxed);
        }
        result
    }
}

/// Sends a request to its service, with the bytes it brings and takes counted.
struct Dispatch {
    services: Services,
    share: Arc<Share>,
    calls: Arc<Calls>,
}

impl hyper::service::Service<Request<Incoming>> for Dispatch {
    type Response = Response<Held>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Held>, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (mut call, share) = (self.calls.begin(&request), self.share.clone());
        let mut request = request.map(|body| tonic::body::Body::new(Counted::new(body, share.clone())));
        request.extensions_mut().insert(share.clone());
        let mut services = self.services.clone();
        let answer = services.call(request);
        Box::pin(async move {
            let response = answer.await?;
            call.answered(response.headers());
            Ok(response.map(|body| Held::new(body, share, call)))
        })
    }
}
