//! `/metrics`: OpenMetrics for clients that ask for it, the older Prometheus text format for all others.
//!
//! The client's `Accept` decides (RFC 9110). A client that accepts neither gets the older format rather than a 406: a
//! scraper with an odd header is better served than left without metrics.

use super::negotiation::{self, Offer};
use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::fmt::Write as _;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Both formats, the default first. Every name here is plain, so any `escaping` gives the same page.
const OFFERS: [Offer<'_>; 2] = [
    Offer {
        kind: "text",
        subtype: "plain",
        parameters: &[("version", "0.0.4"), ("charset", "utf-8")],
        any: &["escaping"],
    },
    Offer {
        kind: "application",
        subtype: "openmetrics-text",
        parameters: &[("version", "1.0.0"), ("charset", "utf-8")],
        any: &["escaping"],
    },
];

/// Whether these headers ask for OpenMetrics.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let lines: Vec<_> = headers.get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes).collect();
    negotiation::best(&OFFERS, &lines) == Some(1)
}

/// The route `/metrics`; `open_metrics` renders the page.
pub fn metrics(open_metrics: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    let answer = move |headers: HeaderMap| async move {
        let (kind, page) = match wants_open_metrics(&headers) {
            true => (OPEN_METRICS, open_metrics()),
            false => (TEXT, as_text(&open_metrics())),
        };
        ([(header::CONTENT_TYPE, kind), (header::VARY, "accept")], page).into_response()
    };
    Router::new().route("/metrics", get(answer))
}

/// Converts OpenMetrics to the older format, in which a counter's comments carry the suffix `_total` and no line ends
/// the page.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_the_format_that_they_ask_for() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,\
                            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        let cases: [(&[&str], bool); 14] = [
            (&[], false),
            (&["*/*"], false),
            (&[browser], false),
            (&[prometheus_3], true),
            (&["application/openmetrics-text; version=1.0.0; charset=utf-8"], true),
            (&["text/plain;version=0.0.4;q=0.3", "application/openmetrics-text;version=1.0.0;q=0.4"], true),
            (&["text/plain;q=0.9, application/openmetrics-text;q=0.1"], false),
            (&["application/openmetrics-text;q=0, */*"], false),
            (&["text/plain;q=0, */*;q=0.1"], true),
            (&["application/openmetrics-text;version=2.0.0"], false),
            (&["application/json"], false),
            (&["application/openmetrics-text, text/plain"], true),
            (&["text/plain, application/openmetrics-text"], false),
            (&["text/plain;note=\"application/openmetrics-text\""], false),
        ];
        let found = cases.map(|(lines, _)| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT, HeaderValue::from_static(line));
            }
            (lines, wants_open_metrics(&headers))
        });
        assert_eq!(found, cases);
    }

    #[test]
    fn text_format_names_counters_with_suffix_and_has_no_end() {
        let open = "# HELP ebb_hits Reads that found a value.\n# TYPE ebb_hits counter\nebb_hits_total 3\n\
                    # HELP ebb_live_bytes Keys and values.\n# TYPE ebb_live_bytes gauge\n# UNIT ebb_live_bytes bytes\n\
                    ebb_live_bytes 7\n# EOF\n";
        let text = "# HELP ebb_hits_total Reads that found a value\n# TYPE ebb_hits_total counter\nebb_hits_total 3\n\
                    # HELP ebb_live_bytes Keys and values\n# TYPE ebb_live_bytes gauge\nebb_live_bytes 7\n";
        assert_eq!(as_text(open), text);
    }
}
