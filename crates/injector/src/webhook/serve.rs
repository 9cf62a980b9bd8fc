//! The webhook itself: TLS, HTTP/1.1 and HTTP/2, `POST /inject`, and a drain that lets open calls finish.
//!
//! ```text
//!  accept ──► Connections (cap, memory bound) ──► TLS ──► hyper ──► answer ──► review (pure)
//!                └── at a bound the longest-stalled connection is closed, so a new one never waits
//! ```
//! The port is open to the whole cluster, and clients that may create pods choose the content of reviews. A stalled
//! connection is closed: in its handshake, before its first call, within a call, or idle. A connection without a call
//! is idle, even if its client sends pings. Reviews are charged while they arrive and while their answers wait to be
//! read. One is parsed at a time, since the injector has one thread.

use super::calls::{Call, Calls, PATIENCE, Watch};
use super::certificates::Served;
use super::clients::Denied;
use super::{Injector, RunError, review};
use bytes::Bytes;
use ebb_listener::{Acceptor, Bounds, Charge, Connection, Connections, Progress, Unaccounted, Watched};
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Maximum size of a review, in bytes. The API server accepts pods of 3 MiB; the rest is for JSON escapes (a `<`
/// becomes `\u003c`) and the envelope.
const BODY: usize = 8 << 20;
/// Maximum number of connections. API servers call webhooks over HTTP/1.1, so each needs a connection per concurrent
/// review.
const CONNECTIONS: usize = 448;
/// Memory of all connections with their calls, in bytes: a quarter of 64 MiB, the chart's minimum limit.
const MAX_BYTES: u64 = 16 << 20;
/// Memory of a connection that has sent nothing yet, what TLS and HTTP/1.1 with [`HTTP1_BUFFER`] add to it, and what
/// HTTP/2 adds to that, in bytes.
const SILENT_BYTES: u64 = 4 << 10;
const CONNECTION_BYTES: u64 = 32 << 10;
const HTTP2_BYTES: u64 = 64 << 10;
// Otherwise new connections displace idle ones, which an API server is about to use.
const _: () = assert!(CONNECTIONS as u64 * (SILENT_BYTES + CONNECTION_BYTES) <= MAX_BYTES);
/// Maximum size of the buffer of an HTTP/1.1 connection, in bytes.
const HTTP1_BUFFER: usize = 16 << 10;
/// Maximum number of concurrent calls per HTTP/2 connection; an API server with more opens another connection.
const STREAMS: u32 = 64;
/// Flow-control windows of a stream and of a connection, in bytes.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Maximum size of a header list, as HTTP/2 counts it, in bytes.
const HEADER_LIST: u32 = 8 << 10;
/// Size from which reviews are large, in bytes: they are parsed in milliseconds, not in microseconds.
const LARGE: usize = 64 << 10;
/// Size of the pieces of a long body or answer, in bytes.
const PIECE: usize = 16 << 10;
/// Interval of HTTP/2 pings, which find clients that are gone.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Maximum time for open calls during the drain. The API server waits 5 s for an answer.
const DRAIN: Duration = Duration::from_secs(6);
/// Sizes of the kernel's buffers of a connection, in bytes; the kernel doubles them, and charges them to the container.
const KERNEL_BUFFER: usize = 32 << 10;
/// Listen backlog.
const BACKLOG: i32 = 1024;

/// The connections of a webhook.
pub(super) fn connections() -> Arc<Connections> {
    Connections::new(Bounds {
        listener: "webhook",
        connections: CONNECTIONS,
        silent_bytes: SILENT_BYTES,
        max_bytes: Box::new(|| MAX_BYTES),
        account: Box::new(Unaccounted),
    })
}

/// Serves until `draining` is true and the last answer is sent.
pub(super) async fn serve(
    listener: TcpListener,
    injector: Arc<Injector>,
    served: Arc<Served>,
    mut draining: watch::Receiver<bool>,
) -> Result<(), RunError> {
    // Calling listen again only changes the backlog.
    rustix::net::listen(&listener, BACKLOG).map_err(RunError::Listen)?;
    // Accepted connections inherit the sizes.
    sockopt::set_socket_recv_buffer_size(&listener, KERNEL_BUFFER).map_err(RunError::Listen)?;
    sockopt::set_socket_send_buffer_size(&listener, KERNEL_BUFFER).map_err(RunError::Listen)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(RunError::Tls)?;
    let tls = match &injector.clients {
        Some(clients) => tls.with_client_cert_verifier(clients.clone()),
        None => tls.with_no_client_auth(),
    };
    let mut tls = tls.with_cert_resolver(served.clone());
    if injector.clients.is_some() {
        // A resumed session would skip the verification by a CA that has changed.
        tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
    }
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut acceptor = Acceptor::new("webhook");
    let tls = TlsAcceptor::from(Arc::new(tls));
    // Ends when the last connection has dropped its half.
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = acceptor.next(|| listener.accept()) => accepted,
            () = async { drop(draining.wait_for(|draining| *draining).await) } => break,
        };
        let connection = injector.connections.admit(peer.ip());
        let (tls, injector, draining, alive) = (tls.clone(), injector.clone(), draining.clone(), alive.clone());
        let served = served.clone();
        tokio::spawn(async move {
            converse((stream, peer.ip().to_canonical()), tls, (injector, served), &connection, draining).await;
            drop(alive);
        });
        // Complete requests are answered before new connections compete for their memory.
        tokio::task::yield_now().await;
    }
    drop((listener, alive));
    if tokio::time::timeout(DRAIN, all_ended.recv()).await.is_err() {
        tracing::warn!("drain timed out with unanswered admission reviews");
    }
    Ok(())
}

/// Serves one connection until it ends, stalls or is displaced.
async fn converse(
    (stream, peer): (TcpStream, IpAddr),
    tls: TlsAcceptor,
    (injector, served): (Arc<Injector>, Arc<Served>),
    connection: &Arc<Connection>,
    draining: watch::Receiver<bool>,
) {
    let opened = Instant::now();
    let greeted = tokio::select! {
        greeted = greet(stream, &tls, connection) => greeted,
        () = connection.displaced() => None,
    };
    let Some((stream, _buffers)) = greeted else { return };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let _more_buffers = is_http2.then(|| connection.charge(HTTP2_BYTES));
    let chain = stream.get_ref().1.peer_certificates();
    let denied = injector.clients.as_ref().and_then(|clients| clients.denies(chain));
    let progress = Arc::new(Progress::default());
    let calls = Arc::new(Calls::new(opened, connection.clone()));
    let stream = TokioIo::new(Watched::new(stream, progress.clone()));
    let service = {
        let calls = calls.clone();
        hyper::service::service_fn(move |request| {
            let (injector, served, call) = (injector.clone(), served.clone(), calls.begin());
            async move {
                Ok::<_, Infallible>(match refusal(&request, &injector, &served, peer, denied) {
                    Some((status, sentence)) => said(status, sentence, call),
                    None => answer(request, &injector, call).await,
                })
            }
        })
    };
    let watch = Watch { progress, calls, draining, is_http2 };
    if is_http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(STREAMS as usize)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .max_send_buf_size(STREAM_WINDOW as usize)
            .keep_alive_interval(Some(PING_EVERY));
        watch.over(builder.serve_connection(stream, service), |served| served.graceful_shutdown()).await;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        // hyper's timeout of the headers would also end the wait for the next call. The watch has its own.
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HTTP1_BUFFER);
        watch.over(builder.serve_connection(stream, service), |served| served.graceful_shutdown()).await;
    }
}

/// Establishes TLS, and charges the buffers of the connection.
async fn greet(
    stream: TcpStream,
    tls: &TlsAcceptor,
    connection: &Arc<Connection>,
) -> Option<(TlsStream<TcpStream>, Charge)> {
    // No buffers are allocated for clients that send nothing.
    let Ok(Ok(1)) = tokio::time::timeout(PATIENCE, stream.peek(&mut [0])).await else { return None };
    let buffers = connection.charge(CONNECTION_BYTES);
    match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some((stream, buffers)),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
    None
}

type Answer = Response<Pieces>;

/// An answer in pieces; the call ends with it.
struct Pieces {
    left: Bytes,
    _call: Call,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.left.len().min(PIECE);
        Poll::Ready((piece > 0).then(|| Ok(Frame::data(self.left.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

fn with_body(status: StatusCode, body: Bytes, mut call: Call) -> Answer {
    call.charge(body.len());
    let mut answer = Response::new(Pieces { left: body, _call: call });
    *answer.status_mut() = status;
    answer
}

fn said(status: StatusCode, sentence: &str, call: Call) -> Answer {
    with_body(status, Bytes::from(format!("{sentence}\n")), call)
}

/// Why a body was not read.
enum Unread {
    TooLarge,
    Broken(String),
}

/// Reads a body, charged piece by piece as it arrives.
async fn read(mut body: Incoming, call: &mut Call) -> Result<Vec<u8>, Unread> {
    let announced = body.size_hint().lower();
    if announced > BODY as u64 {
        return Err(Unread::TooLarge);
    }
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Unread::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        let needed = bytes.len() + data.len();
        if needed > BODY {
            return Err(Unread::TooLarge);
        }
        if needed > bytes.capacity() {
            // Double the buffer each time, up to the announced length.
            let room = (needed.max(bytes.capacity() * 2).max(PIECE)).min(needed.max(announced as usize));
            call.charge(room - bytes.capacity());
            bytes.reserve_exact(room - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The answer to a request that is not read, because it is no review of a client that may ask.
fn refusal(
    request: &Request<Incoming>,
    injector: &Injector,
    served: &Served,
    peer: IpAddr,
    denied: Option<Denied>,
) -> Option<(StatusCode, &'static str)> {
    let path = request.uri().path();
    // The self-probe, which checks that the listener answers.
    if request.method() == Method::GET && path == "/livez" {
        return Some((StatusCode::OK, "live"));
    }
    if let Some(denied) = denied {
        let is_known = denied == Denied::Name;
        return Some((if is_known { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED }, denied.sentence()));
    }
    Some(match *request.method() {
        _ if !served.accepts(path) => (StatusCode::NOT_FOUND, "reviews go to the path in the webhook configuration"),
        Method::POST if injector.reviews.take(peer, Instant::now()) => return None,
        Method::POST => {
            injector.metrics.limited("review");
            (StatusCode::TOO_MANY_REQUESTS, "too many reviews from this address (500 a second)")
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "reviews are POSTed"),
    })
}

async fn answer(request: Request<Incoming>, injector: &Injector, mut call: Call) -> Answer {
    let body = match tokio::time::timeout(PATIENCE, read(request.into_body(), &mut call)).await {
        Ok(Ok(body)) => body,
        Ok(Err(Unread::TooLarge)) => {
            injector.metrics.refused();
            let sentence = format!("the review is too large (at most {BODY} bytes)");
            return said(StatusCode::PAYLOAD_TOO_LARGE, &sentence, call);
        }
        Ok(Err(Unread::Broken(error))) => {
            return said(StatusCode::BAD_REQUEST, &format!("the body is incomplete: {error}"), call);
        }
        Err(_) => return said(StatusCode::REQUEST_TIMEOUT, "the body took too long", call),
    };
    // Large reviews take turns, so that small ones are answered between them.
    let _turn = match body.len() >= LARGE {
        true => injector.large.acquire().await.ok(),
        false => None,
    };
    let begun = Instant::now();
    let template = injector.template.load_full();
    let admission = review::review(
        &body,
        |name| injector.namespace(name),
        &injector.own_namespace,
        &injector.by,
        template.as_deref(),
    );
    drop(body);
    let admission = match admission {
        Ok(admission) => admission,
        Err(error) => {
            injector.metrics.refused();
            let sentence = error.to_string();
            tracing::warn!(sentence, "refused a request that is not an AdmissionReview");
            return said(StatusCode::BAD_REQUEST, &sentence, call);
        }
    };
    let mut answer = with_body(StatusCode::OK, Bytes::from(admission.answer.to_string()), call);
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    let took = begun.elapsed();
    injector.metrics.admitted(&admission, took);
    if let Some(events) = &injector.events {
        events.admitted(&admission);
    }
    tracing::info!(
        namespace = admission.namespace,
        owner = admission.owner.as_ref().map(|owner| format!("{}/{}", owner.kind, owner.name)),
        outcome = if matches!(admission.reason, Some(None)) { "injected" } else { "skipped" },
        reason = admission.reason.flatten().map(|reason| reason.label()),
        detail = admission.detail,
        warnings = (!admission.warnings.is_empty()).then(|| admission.warnings.join("; ")),
        dry_run = admission.is_dry_run,
        micros = took.as_micros() as u64,
        "admission review answered",
    );
    answer
}
