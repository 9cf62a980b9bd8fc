//! The HTTP listener: probes (`/livez`, `/readyz`), metrics and whatever routes the caller adds.
//!
//! ```text
//!  accept ──► Connections (cap, memory bound) ──► hyper (HTTP/1.1, bounded buffers) ──► routes ──► Charged body
//!                  └── at a bound the longest-stalled connection is closed, so a probe is always answered
//! ```
//! The port is open to the whole cluster, so the cost of each client is bounded: the head of a request is limited in
//! size, fields and time, a body is refused, and a stalled reader loses its connection. No response is stored by
//! caches, and its type is never guessed.

mod hosts;
mod negotiation;
mod openmetrics;

pub use hosts::Hosts;
pub use openmetrics::metrics;

use crate::{Acceptor, Account, Bounds, Charge, Connection, Connections, Progress, Watched};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower_service::Service as _;

/// Maximum open connections: the kubelet, a few scrapers, a few browsers.
const CONNECTIONS: usize = 64;
/// Maximum size of the head of a request, in bytes: a browser may send 8 KiB of cookies of other ports of the host.
const HEAD_BYTES: usize = 16 << 10;
/// Maximum header fields of a request.
const HEADER_FIELDS: usize = 64;
/// The requested sizes of the socket's buffers, in bytes. Linux doubles them, and cgroup v2 charges for their content.
const SEND_BUFFER_BYTES: usize = 32 << 10;
const RECEIVE_BUFFER_BYTES: usize = 8 << 10;
/// Memory of a connection that has sent nothing yet, in bytes: its task and its socket.
const SILENT_BYTES: u64 = 4 << 10;
/// Memory of a connection that has sent something, without its responses, in bytes: hyper's read buffer may be twice
/// the longest head, the kernel's buffers are the rest (`tests/attacks.sh` measures it).
const CONNECTION_BYTES: u64 = 64 << 10;
/// Response bodies up to this size are part of [`CONNECTION_BYTES`].
const SMALL_BYTES: usize = 1 << 10;
/// Connections that wait to be accepted; the kernel may hold fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;
/// Timeout for the head of a request, and for the wait for the next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may read nothing while a response waits.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection's progress is checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The addresses of a connection, an extension of its requests.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Of the client.
    pub peer: SocketAddr,
    /// Of the server, as the client sees it.
    pub local: SocketAddr,
}

/// The connections of an HTTP listener; `max_bytes` bounds their memory.
pub fn connections(
    max_bytes: impl Fn() -> u64 + Send + Sync + 'static,
    account: impl Account + 'static,
) -> Arc<Connections> {
    Connections::new(Bounds {
        listener: "http",
        connections: CONNECTIONS,
        silent_bytes: SILENT_BYTES,
        max_bytes: Box::new(max_bytes),
        account: Box::new(account),
    })
}

/// Serves `routes` and the probes until `draining` turns true. While `unready` has a reason, `/readyz` answers 503 with it.
///
/// # Errors
/// When the listener cannot be registered.
pub async fn serve(
    listener: std::net::TcpListener,
    routes: Router,
    connections: Arc<Connections>,
    unready: watch::Receiver<Option<String>>,
    mut draining: watch::Receiver<bool>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    // Accepted sockets inherit both sizes.
    rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, RECEIVE_BUFFER_BYTES)?;
    // A second listen only changes the backlog. With a short one, a client whose SYN is dropped retries a second later.
    rustix::net::listen(&listener, BACKLOG)?;
    let readyz = move || {
        let reason = unready.borrow().clone();
        async move {
            match reason {
                None => (StatusCode::OK, "ready\n".to_owned()),
                Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
            }
        }
    };
    let router = routes.route("/livez", get(|| async { "live\n" })).route("/readyz", get(readyz));
    let listener = TcpListener::from_std(listener)?;
    tokio::select! {
        () = accept(listener, router, connections) => {}
        _ = draining.wait_for(|draining| *draining) => {}
    }
    Ok(())
}

async fn accept(listener: TcpListener, router: Router, connections: Arc<Connections>) {
    let mut acceptor = Acceptor::new("http");
    loop {
        let (stream, peer) = acceptor.next(|| listener.accept()).await;
        // A connection without an address has ended.
        let Ok(local) = stream.local_addr() else { continue };
        let (connection, router, ends) = (connections.admit(peer.ip()), router.clone(), Ends { peer, local });
        tokio::spawn(async move {
            tokio::select! {
                () = converse(stream, router, ends, &connection) => {}
                () = connection.displaced() => {}
            }
        });
        // Requests that have arrived are read before more connections are accepted that could displace them.
        tokio::task::yield_now().await;
    }
}

/// Serves one connection until it ends or its client stalls.
async fn converse(stream: TcpStream, router: Router, ends: Ends, connection: &Arc<Connection>) {
    // Allocate no buffers for clients that send nothing.
    let Ok(Ok(1)) = tokio::time::timeout(HEAD_TIMEOUT, stream.peek(&mut [0])).await else { return };
    connection.stalled_since(Instant::now());
    let _buffers = connection.charge(CONNECTION_BYTES);
    let progress = Arc::new(Progress::default());
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADER_FIELDS);
    let service = hyper::service::service_fn(|request| answer(request, router.clone(), ends, connection.clone()));
    let served = builder.serve_connection(TokioIo::new(Watched::new(stream, progress.clone())), service);
    let mut served = std::pin::pin!(served);
    let mut checks = tokio::time::interval(CHECK_EVERY);
    loop {
        tokio::select! {
            // The connection has ended, so an error needs no answer.
            _ = &mut served => return,
            _ = checks.tick() => {
                if progress.blocked_for() >= WRITE_TIMEOUT {
                    return connection.count_stalled();
                }
                if let Some(at) = progress.answered_at() {
                    connection.stalled_since(at);
                }
            }
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    router: Router,
    ends: Ends,
    connection: Arc<Connection>,
) -> Result<Response<Body>, Infallible> {
    let mut response = route(request, router, ends, connection).await?;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn route(
    mut request: Request<Incoming>,
    mut router: Router,
    ends: Ends,
    connection: Arc<Connection>,
) -> Result<Response<Body>, Infallible> {
    if !request.body().is_end_stream() {
        let close = [(header::CONNECTION, "close")];
        return Ok((StatusCode::PAYLOAD_TOO_LARGE, close, "requests have no body here\n").into_response());
    }
    connection.stalled_since(Instant::now());
    request.extensions_mut().insert(ends);
    let response = router.call(request.map(Body::new)).await?;
    Ok(response.map(|inner| Body::new(Charged { inner, connection })))
}

/// A response body whose bytes are charged until they are written to the kernel.
struct Charged {
    inner: Body,
    connection: Arc<Connection>,
}

/// Bytes with their charge.
struct WithCharge {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for WithCharge {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl http_body::Body for Charged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let charged = |bytes: Bytes| match bytes.len() {
            0..=SMALL_BYTES => bytes,
            len => Bytes::from_owner(WithCharge { _charge: self.connection.charge(len as u64), bytes }),
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(charged))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
