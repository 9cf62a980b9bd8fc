//! The live page, which loads nothing from elsewhere, and the stream of events that it draws.
//!
//! ```text
//!  GET /                      the page; its policy allows scripts, styles and streams of this origin only
//!  GET /page.css, /page.js    its style and its script, by paths relative to the page: it works behind a proxy
//!  GET /events                first `history`: the last hour; then `now` each second
//! ```
//! The page is read-only. At most 16 pages are open at a time, each with its own connection.

mod events;

use crate::history::History;
use crate::sources::Sources;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ebb_terminal::escape::escaped_lines;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::IntervalStream;
use tokio_stream::{Stream, StreamExt};

/// Maximum number of open streams.
const VIEWERS: usize = 16;
/// Interval of the events of a stream.
const EVERY: Duration = Duration::from_secs(1);

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const MARKUP: &str = include_str!("page.html");

/// What a browser may do with the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the page.
pub(crate) fn routes(sources: Sources, history: History) -> Router {
    let viewers = Arc::new(Semaphore::new(VIEWERS));
    let events = move || {
        let (sources, history, viewers) = (sources.clone(), history.clone(), viewers.clone());
        async move { stream(sources, history, &viewers) }
    };
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", MARKUP) }))
        .route("/page.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/page.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/events", get(events))
}

fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

fn stream(sources: Sources, history: History, viewers: &Arc<Semaphore>) -> Response {
    let Ok(permit) = viewers.clone().try_acquire_owned() else {
        let full = format!("too many pages are open (at most {VIEWERS}); close one\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], full).into_response();
    };
    let event = |name: &'static str, data: Value| {
        // A reader of the stream may be a terminal.
        Event::default().event(name).data(escaped_lines(&data.to_string()))
    };
    let first = event("history", events::history(&history, sources.zero_unix_ms()));
    let mut last_receipt = history.receipts_after(0).last().map_or(0, |receipt| receipt.id);
    let ticks = IntervalStream::new(tokio::time::interval(EVERY));
    let rest = ticks.map(move |_| {
        let _held = &permit;
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
