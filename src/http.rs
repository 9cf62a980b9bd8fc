//! HTTP for those who watch: `/livez`, `/readyz`, and what the caller adds. A few connections at a time, and none that does not say
//! what it wants.

use crate::logging::Seldom;
use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// The content type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of the format before it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Connections at a time: kubelet, a few scrapers, a few people. More wait.
const CONNECTIONS: usize = 64;
/// How long a client may take over its headers, and how long a connection may wait for the next request.
const HEADERS: Duration = Duration::from_secs(5);

/// The route of the metrics, which `open_metrics` prints; who does not ask for OpenMetrics gets the older text format.
pub(crate) fn metrics(open_metrics: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    let answer = move |headers: HeaderMap| async move {
        let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        match accepted.contains("application/openmetrics-text") {
            true => ([(header::CONTENT_TYPE, OPEN_METRICS)], open_metrics()).into_response(),
            false => ([(header::CONTENT_TYPE, TEXT)], as_text(&open_metrics())).into_response(),
        }
    };
    Router::new().route("/metrics", get(answer))
}

/// From OpenMetrics to the older format: there a counter's comments name it with its suffix, and nothing marks the end.
fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = ("", "");
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(words)) => help = (name, words.trim_end_matches('.')),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let suffix = if kind == "counter" { "_total" } else { "" };
                // Writing to a string cannot fail.
                let _ = writeln!(text, "# HELP {name}{suffix} {}", if help.0 == name { help.1 } else { "" });
                let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
            }
            (Some("#"), ..) => {}
            _ => {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

/// Serves `routes` until `draining` turns true. While `unready` is true, the process is live but does not want to be called.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    routes: Router,
    unready: watch::Receiver<bool>,
    mut draining: watch::Receiver<bool>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let readyz = move || {
        let ready = !*unready.borrow();
        async move { if ready { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") } }
    };
    let router = routes.route("/livez", get(|| async { "live\n" })).route("/readyz", get(readyz));
    let listener = TcpListener::from_std(listener)?;
    tokio::select! {
        () = accept(listener, router) => {}
        _ = draining.wait_for(|draining| *draining) => {}
    }
    Ok(())
}

async fn accept(listener: TcpListener, router: Router) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut complaint = Seldom::new(Duration::from_secs(1));
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
                if let Some(left_out) = complaint.due() {
                    tracing::warn!(%error, left_out, "accept");
                }
                tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_whole_and_has_no_end() {
        let open = "# HELP ebb_hits Reads that found a value.\n# TYPE ebb_hits counter\nebb_hits_total 3\n\
                    # HELP ebb_live_bytes Keys and values.\n# TYPE ebb_live_bytes gauge\n# UNIT ebb_live_bytes bytes\n\
                    ebb_live_bytes 7\n# EOF\n";
        let text = "# HELP ebb_hits_total Reads that found a value\n# TYPE ebb_hits_total counter\nebb_hits_total 3\n\
                    # HELP ebb_live_bytes Keys and values\n# TYPE ebb_live_bytes gauge\nebb_live_bytes 7\n";
        assert_eq!(as_text(open), text);
    }
}
