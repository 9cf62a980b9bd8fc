//! HTTP for those who watch: `/livez`, `/readyz` and `/metrics`.

use crate::metrics::Metrics;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;
use tokio::sync::watch;

/// The content type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `draining` turns true. A kubelet may go on asking for a moment: the process is live while it drains, but
/// no longer ready.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    metrics: Arc<Metrics>,
    mut draining: watch::Receiver<bool>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let ready = draining.clone();
    let readyz = move || {
        let ready = !*ready.borrow();
        async move { if ready { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") } }
    };
    let router = Router::new().route("/livez", get(|| async { "live\n" })).route("/readyz", get(readyz)).route(
        "/metrics",
        get(move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text()).into_response() }),
    );
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let drained = async move {
        let _ = draining.wait_for(|draining| *draining).await;
    };
    tokio::select! {
        result = async { axum::serve(listener, router).await } => result,
        () = drained => Ok(()),
    }
}
