//! The webhook itself: TLS, HTTP/1.1 and HTTP/2, `POST /inject`, and an end that lets those in flight finish.

use super::certificates::Served;
use super::{Injector, review};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// The largest review, in bytes: the API server takes objects of 3 MiB, and a review holds one.
const BODY: usize = 8 << 20;
/// Connections at a time; an API server needs one.
const CONNECTIONS: usize = 128;
/// How long a client may take over its handshake, its headers and its body.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long those in flight may take at the end. The API server waits 5 s for an answer.
const DRAIN: Duration = Duration::from_secs(6);

/// Serves until `draining` turns true and the last answer is given.
pub(super) async fn serve(
    listener: TcpListener,
    injector: Arc<Injector>,
    served: Arc<Served>,
    mut draining: watch::Receiver<bool>,
) -> Result<(), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(|error| format!("TLS: {error}"))?.with_no_client_auth();
    let mut tls = tls.with_cert_resolver(served);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = GracefulShutdown::new();
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = async { drop(draining.wait_for(|draining| *draining).await) } => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, most likely: the loop goes on, but does not spin.
                tracing::warn!(%error, "accept");
                tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.ok();
                continue;
            }
        };
        let (acceptor, injector, watcher) = (acceptor.clone(), injector.clone(), connections.watcher());
        tokio::spawn(async move {
            let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "handshake"),
                Err(_) => return tracing::debug!("a handshake took too long"),
            };
            let service = hyper::service::service_fn(move |request| {
                let injector = injector.clone();
                async move { Ok::<_, Infallible>(answer(request, &injector).await) }
            });
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(256)
                .keep_alive_interval(Some(PATIENCE * 6));
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            let _ = watcher.watch(connection).await; // whatever ended it, nobody waits for an answer any more
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, connections.shutdown()).await.is_err() {
        tracing::warn!("some admissions were not answered in time");
    }
    Ok(())
}

type Answer = Response<Full<Bytes>>;

fn said(status: StatusCode, sentence: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{sentence}\n"))));
    *answer.status_mut() = status;
    answer
}

async fn answer(request: Request<Incoming>, injector: &Injector) -> Answer {
    match (request.uri().path(), request.method()) {
        ("/inject", &Method::POST) => {}
        ("/inject", _) => return said(StatusCode::METHOD_NOT_ALLOWED, "reviews are POSTed"),
        _ => return said(StatusCode::NOT_FOUND, "reviews go to /inject"),
    }
    let body = Limited::new(request.into_body(), BODY).collect();
    let body = match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            injector.metrics.refused();
            return said(StatusCode::PAYLOAD_TOO_LARGE, &format!("a review may have {BODY} bytes"));
        }
        Ok(Err(error)) => return said(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}")),
        Err(_) => return said(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    };
    let begun = Instant::now();
    let template = injector.template.load();
    let admission =
        review::review(&body, |name| injector.namespace(name), &injector.own_namespace, &injector.by, &template);
    let admission = match admission {
        Ok(admission) => admission,
        Err(sentence) => {
            injector.metrics.refused();
            tracing::warn!(sentence, "refused");
            return said(StatusCode::BAD_REQUEST, &sentence);
        }
    };
    let mut answer = Response::new(Full::new(Bytes::from(admission.answer.to_string())));
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
        "admission",
    );
    answer
}
