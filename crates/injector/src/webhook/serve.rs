//! The webhook itself: TLS, HTTP/1.1 and HTTP/2, `POST /inject`, and a drain that lets open calls finish.
//!
//! ```text
//!  accept ──► Connections (cap, memory bound) ──► TLS ──► hyper ──► answer ──► review (pure)
//!                └── at a bound the longest-stalled connection is closed, so a new one never waits
//! ```
//! The port is open to the whole cluster, and what a review holds is chosen by whoever may create a pod. A connection
//! that stalls is closed: in its handshake, before its first call, within a call, or idle. A connection is idle without
//! a call, whatever else its client sends: pings do not keep it. Reviews are charged while they arrive and while their
//! answers wait to be read; one is parsed at a time, since the injector has one thread.

use super::certificates::Served;
use super::{Injector, review};
use bytes::Bytes;
use ebb_listener::{Acceptor, Bounds, Charge, Connection, Connections, Progress, Unaccounted, Watched};
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

/// The longest review, in bytes. The API server takes pods of 3 MiB; the rest is for the escapes of JSON (a `<` becomes
/// `\u003c`) and for the envelope.
const BODY: usize = 8 << 20;
/// Connections open at a time; an API server needs a few.
const CONNECTIONS: usize = 64;
/// Memory of all connections with their calls, in bytes: a quarter of 64 MiB, the least limit that the chart takes.
const MAX_BYTES: u64 = 16 << 20;
/// Memory of a connection that has sent nothing yet, and of one with a TLS session and HTTP/2, in bytes.
const SILENT_BYTES: u64 = 4 << 10;
const CONNECTION_BYTES: u64 = 96 << 10;
/// Memory of a call beside its body, in bytes: its headers, decoded, and its task.
const CALL_BYTES: u64 = 16 << 10;
/// Calls of one HTTP/2 connection at a time; an API server with more opens another connection.
const STREAMS: u32 = 64;
/// What a client may send ahead on one stream and on all of a connection, in bytes.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// The longest list of header fields, as HTTP/2 counts it, in bytes.
const HEADER_LIST: u32 = 8 << 10;
/// How a long body or answer is cut, in bytes: HTTP/2 takes a piece at a time.
const PIECE: usize = 16 << 10;
/// How long a client may take over its handshake, its first call, its headers and its body.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may read nothing while an answer waits.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may last, from its headers to the last byte of its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection stays without a call.
const IDLE: Duration = Duration::from_secs(30);
/// How long open calls may take at the end. The API server waits 5 s for an answer.
const DRAIN: Duration = Duration::from_secs(6);
/// How often a connection's progress is checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted.
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

/// Serves until `draining` turns true and the last answer is given.
pub(super) async fn serve(
    listener: TcpListener,
    injector: Arc<Injector>,
    served: Arc<Served>,
    mut draining: watch::Receiver<bool>,
) -> Result<(), String> {
    // Listening again changes the backlog alone.
    rustix::net::listen(&listener, BACKLOG).map_err(|error| format!("cannot listen: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(|error| format!("TLS: {error}"))?.with_no_client_auth();
    let mut tls = tls.with_cert_resolver(served);
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
        tokio::spawn(async move {
            tokio::select! {
                () = converse(stream, tls, injector, &connection, draining) => {}
                () = connection.displaced() => {}
            }
            drop(alive);
        });
        // A client that has sent its part is answered before more connections ask for its place.
        tokio::task::yield_now().await;
    }
    drop((listener, alive));
    if tokio::time::timeout(DRAIN, all_ended.recv()).await.is_err() {
        tracing::warn!("drain timed out with unanswered admission reviews");
    }
    Ok(())
}

/// Serves one connection until it ends or stalls.
async fn converse(
    stream: TcpStream,
    tls: TlsAcceptor,
    injector: Arc<Injector>,
    connection: &Arc<Connection>,
    draining: watch::Receiver<bool>,
) {
    let opened = Instant::now();
    // No buffers for clients that send nothing.
    let Ok(Ok(1)) = tokio::time::timeout(PATIENCE, stream.peek(&mut [0])).await else { return };
    let _buffers = connection.charge(CONNECTION_BYTES);
    let stream = match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let progress = Arc::new(Progress::default());
    let calls = Arc::new(Calls::new(opened, connection.clone()));
    let stream = TokioIo::new(Watched::new(stream, progress.clone()));
    let service = {
        let calls = calls.clone();
        hyper::service::service_fn(move |request| {
            let (injector, call) = (injector.clone(), calls.begin());
            async move { Ok::<_, Infallible>(answer(request, &injector, call).await) }
        })
    };
    let watch = Watch { progress, calls, draining };
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
            .keep_alive_interval(Some(IDLE / 2));
        watch.over(builder.serve_connection(stream, service), |served| served.graceful_shutdown()).await;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(CONNECTION_BYTES as usize / 2);
        watch.over(builder.serve_connection(stream, service), |served| served.graceful_shutdown()).await;
    }
}

/// The calls of a connection.
struct Calls {
    connection: Arc<Connection>,
    state: Mutex<CallsState>,
}

struct CallsState {
    begun: u64,
    open: BTreeSet<(Instant, u64)>,
    /// When the last call ended, or the connection was opened.
    idle_since: Instant,
}

impl Calls {
    fn new(opened: Instant, connection: Arc<Connection>) -> Self {
        let state = CallsState { begun: 0, open: BTreeSet::new(), idle_since: opened };
        Self { connection, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, CallsState> {
        self.state.lock()
    }

    fn begin(self: &Arc<Self>) -> Call {
        let mut state = self.state();
        state.begun += 1;
        let id = (Instant::now(), state.begun);
        state.open.insert(id);
        self.connection.stalled_since(state.stalled_since());
        drop(state);
        Call { calls: self.clone(), id, charges: vec![self.connection.charge(CALL_BYTES)] }
    }
}

impl CallsState {
    /// Since when the client has not let the server finish anything.
    fn stalled_since(&self) -> Instant {
        self.open.first().map_or(self.idle_since, |(since, _)| *since)
    }

    /// What is wrong with the connection, if anything is.
    fn verdict(&self, now: Instant) -> Verdict {
        let stalled = now.duration_since(self.stalled_since());
        match (self.open.is_empty(), self.begun) {
            (false, _) if stalled >= CALL_TIMEOUT => Verdict::Stalled,
            (true, 0) if stalled >= PATIENCE => Verdict::Stalled,
            (true, _) if stalled >= IDLE + PATIENCE => Verdict::Stalled,
            (true, _) if stalled >= IDLE => Verdict::Idle,
            _ => Verdict::Well,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    /// It is asked to end.
    Idle,
    /// It is closed.
    Stalled,
}

/// A call; dropped when its answer has been taken or given up.
struct Call {
    calls: Arc<Calls>,
    id: (Instant, u64),
    charges: Vec<Charge>,
}

impl Call {
    fn charge(&mut self, bytes: usize) {
        self.charges.push(self.calls.connection.charge(bytes as u64));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.calls.state();
        state.open.remove(&self.id);
        state.idle_since = Instant::now();
        self.calls.connection.stalled_since(state.stalled_since());
    }
}

/// Watches the progress of a connection.
struct Watch {
    progress: Arc<Progress>,
    calls: Arc<Calls>,
    draining: watch::Receiver<bool>,
}

impl Watch {
    async fn over<C: Future>(mut self, served: C, shut_down: impl Fn(Pin<&mut C>)) {
        let mut served = std::pin::pin!(served);
        let mut checks = tokio::time::interval(CHECK_EVERY);
        let mut is_asked = false;
        loop {
            tokio::select! {
                // Nobody waits for an answer any more, whatever ended it.
                _ = &mut served => return,
                _ = self.draining.wait_for(|draining| *draining), if !is_asked => {
                    is_asked = true;
                    shut_down(served.as_mut());
                }
                _ = checks.tick() => {
                    let verdict = self.calls.state().verdict(Instant::now());
                    if verdict == Verdict::Stalled || self.progress.blocked_for() >= WRITE_TIMEOUT {
                        return self.calls.connection.count_stalled();
                    }
                    if verdict == Verdict::Idle && !is_asked {
                        is_asked = true;
                        shut_down(served.as_mut());
                    }
                }
            }
        }
    }
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
            // Twice as much each time, and no more than was announced.
            let room = (needed.max(bytes.capacity() * 2).max(PIECE)).min(needed.max(announced as usize));
            call.charge(room - bytes.capacity());
            bytes.reserve_exact(room - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn answer(request: Request<Incoming>, injector: &Injector, mut call: Call) -> Answer {
    match (request.uri().path(), request.method()) {
        ("/inject", &Method::POST) => {}
        ("/inject", _) => return said(StatusCode::METHOD_NOT_ALLOWED, "reviews are POSTed", call),
        // What the injector asks itself, to know that the listener answers.
        ("/livez", &Method::GET) => return said(StatusCode::OK, "live", call),
        _ => return said(StatusCode::NOT_FOUND, "reviews go to /inject", call),
    }
    let body = match tokio::time::timeout(PATIENCE, read(request.into_body(), &mut call)).await {
        Ok(Ok(body)) => body,
        Ok(Err(Unread::TooLarge)) => {
            injector.metrics.refused();
            let sentence = format!("the review is too large (at most {BODY} bytes)");
            return said(StatusCode::PAYLOAD_TOO_LARGE, &sentence, call);
        }
        Ok(Err(Unread::Broken(error))) => {
            return said(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}"), call);
        }
        Err(_) => return said(StatusCode::REQUEST_TIMEOUT, "the body took too long", call),
    };
    let begun = Instant::now();
    let template = injector.template.load();
    let admission =
        review::review(&body, |name| injector.namespace(name), &injector.own_namespace, &injector.by, &template);
    drop(body);
    let admission = match admission {
        Ok(admission) => admission,
        Err(sentence) => {
            injector.metrics.refused();
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
        outcome = if matches!(admission.reason, Some(None)) { "injected" } else { "left alone" },
        reason = admission.reason.flatten().map(|reason| reason.label()),
        detail = admission.detail,
        warnings = (!admission.warnings.is_empty()).then(|| admission.warnings.join("; ")),
        dry_run = admission.is_dry_run,
        micros = took.as_micros() as u64,
        "admission review answered",
    );
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_judged_by_its_calls_alone() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let state = |begun, open: Option<u64>| CallsState {
            begun,
            open: open.map(|seconds| (after(seconds), 1)).into_iter().collect(),
            idle_since: start,
        };
        for (what, state, seconds, expected) in [
            ("no call yet", state(0, None), 4, Verdict::Well),
            ("no call at all", state(0, None), 5, Verdict::Stalled),
            ("a call is open", state(1, Some(20)), 29, Verdict::Well),
            ("a call that lasts", state(1, Some(20)), 30, Verdict::Stalled),
            ("idle for a while", state(1, None), 29, Verdict::Well),
            ("idle", state(1, None), 30, Verdict::Idle),
            ("idle, and does not go", state(1, None), 35, Verdict::Stalled),
        ] {
            assert_eq!(state.verdict(after(seconds)), expected, "{what}");
        }
    }
}
