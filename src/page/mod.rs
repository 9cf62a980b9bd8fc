//! The live page, which loads nothing from elsewhere, and the stream of events that it draws.
//!
//! ```text
//!  GET /                      the page; its policy allows scripts, styles and streams of this origin only
//!  GET /page.css, /page.js    its style and its script, by paths relative to the page: it works behind a proxy
//!  GET /events                first `history`: the last hour; then `now` each second
//! ```
//! The page is read-only. At most 16 pages are open at a time, 8 of them of one peer, each with its own connection. A
//! request for another host is refused: a page of another site could read everything (DNS rebinding).

mod events;
mod viewers;

use crate::history::History;
use crate::sources::Sources;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use ebb_listener::http::{Ends, Hosts};
use ebb_terminal::escape::{escaped_lines, escaped_name};
use serde_json::Value;
use std::convert::Infallible;
use std::time::Duration;
use tokio_stream::wrappers::IntervalStream;
use tokio_stream::{Stream, StreamExt};
use viewers::{Viewer, Viewers};

/// Maximum characters of a refused name in the answer: names of DNS are no longer.
const HOST_CHARS: usize = 253;
/// Interval of the events of a stream.
const EVERY: Duration = Duration::from_secs(1);

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const MARKUP: &str = include_str!("page.html");

/// What a browser may do with the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the page, for requests to these hosts.
pub(crate) fn routes(sources: Sources, history: History, hosts: Hosts) -> Router {
    let viewers = Viewers::default();
    let events = move |Extension(ends): Extension<Ends>| {
        let (sources, history, viewer) = (sources.clone(), history.clone(), viewers.admit(ends.peer.ip()));
        async move {
            match viewer {
                Ok(viewer) => stream(sources, history, viewer),
                Err(full) => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], full).into_response(),
            }
        }
    };
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", MARKUP) }))
        .route("/page.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/page.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/events", get(events))
        .route_layer(middleware::from_fn(move |request: Request, next: Next| guard(hosts.clone(), request, next)))
}

/// Refuses requests for other hosts.
async fn guard(hosts: Hosts, request: Request, next: Next) -> Response {
    let ends = request.extensions().get::<Ends>().copied();
    let known = ends.map_or(Err(String::new()), |ends| hosts.check(request.uri(), request.headers(), ends));
    match known {
        Ok(()) => next.run(request).await,
        Err(host) => {
            let host: String = escaped_name(&host).chars().take(HOST_CHARS).collect();
            let refusal = format!("host: \"{host}\" is not a name of this server; add it to httpHosts\n");
            (StatusCode::MISDIRECTED_REQUEST, refusal).into_response()
        }
    }
}

fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text)
}

fn stream(sources: Sources, history: History, viewer: Viewer) -> Response {
    let event = |name: &'static str, data: Value| {
        // A reader of the stream may be a terminal.
        Event::default().event(name).data(escaped_lines(&data.to_string()))
    };
    let first = event("history", events::history(&history, sources.zero_unix_ms()));
    let mut last_receipt = history.receipts_after(0).last().map_or(0, |receipt| receipt.id);
    let ticks = IntervalStream::new(tokio::time::interval(EVERY));
    let rest = ticks.map(move |_| {
        let _held = &viewer;
        let (now, last) = events::now(&sources, &history, last_receipt);
        last_receipt = last;
        event("now", now)
    });
    let all = tokio_stream::once(first).chain(rest);
    Sse::new(endless(all)).keep_alive(KeepAlive::default()).into_response()
}

fn endless(events: impl Stream<Item = Event> + Send) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    events.map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_brings_everything_with_it() {
        assert!(
            MARKUP.len() + STYLE.len() + SCRIPT.len() <= 32 << 10,
            "a third of what may be loaded; the rest is history"
        );
        let parts = [("markup", MARKUP), ("style", STYLE), ("script", SCRIPT)];
        let foreign = parts.map(|(name, part)| {
            let part = part.replace("http://www.w3.org/2000/svg", "");
            (name, ["http:", "https:", "@import"].map(|text| part.contains(text)))
        });
        assert_eq!(foreign, parts.map(|(name, _)| (name, [false; 3])), "http:, https:, @import");
        assert!(!SCRIPT.contains("innerHTML") && !MARKUP.contains("style=") && !MARKUP.contains("onclick"));
        assert!(MARKUP.contains("href=\"page.css\"") && MARKUP.contains("src=\"page.js\""));
    }
}
