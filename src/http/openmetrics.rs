//! `/metrics`: OpenMetrics for clients that ask for it, the older Prometheus text format for all others.

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::fmt::Write as _;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The route `/metrics`; `open_metrics` renders the page.
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
    fn text_format_names_counters_with_suffix_and_has_no_end() {
        let open = "# HELP ebb_hits Reads that found a value.\n# TYPE ebb_hits counter\nebb_hits_total 3\n\
                    # HELP ebb_live_bytes Keys and values.\n# TYPE ebb_live_bytes gauge\n# UNIT ebb_live_bytes bytes\n\
                    ebb_live_bytes 7\n# EOF\n";
        let text = "# HELP ebb_hits_total Reads that found a value\n# TYPE ebb_hits_total counter\nebb_hits_total 3\n\
                    # HELP ebb_live_bytes Keys and values\n# TYPE ebb_live_bytes gauge\nebb_live_bytes 7\n";
        assert_eq!(as_text(open), text);
    }
}
