//! HTTP for those who watch: `/livez`, `/readyz` and `/metrics`. A few connections at a time, and none that does not say
//! what it wants.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// The content type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at a time: kubelet, a few scrapers, a few people. More wait.
const CONNECTIONS: usize = 64;
/// How long a client may take over its headers, and how long a connection may wait for the next request.
const HEADERS: Duration = Duration::from_secs(5);

/// Serves until `draining` turns true. `metrics` prints the page; while `unready` is true, the process is live but does not
/// want to be called.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
    unready: watch::Receiver<bool>,
    mut draining: watch::Receiver<bool>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let readyz = move || {
        let ready = !*unready.borrow();
        async move { if ready { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") } }
    };
    let router = Router::new().route("/livez", get(|| async { "live\n" })).route("/readyz", get(readyz)).route(
        "/metrics",
        get(move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics()).into_response() }),
    );
    let listener = TcpListener::from_std(listener)?;
    tokio::select! {
        () = accept(listener, router) => {}
        _ = draining.wait_for(|draining| *draining) => {}
    }
    Ok(())
}

async fn accept(listener: TcpListener, router: Router) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEADERS);
                let service = TowerToHyperService::new(router.clone());
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _ = connection.await; // whatever ended it, nobody waits for an answer any more
                    drop(permit);
                });
            }
            Err(error) => {
                // Too many open files, most likely: the loop goes on, but does not spin.
                tracing::warn!(%error, "accept");
                tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.ok();
            }
        }
    }
}
