//! Log lines: text for people, JSON for machines, on standard error.
//!
//! ```text
//!  any thread ── event ──► level, quota of dependencies ──► queue of 256 KiB ──► thread `ebb-log` ──► standard error
//!                                        └ suppressed, counted    └ full: dropped, counted
//! ```
//! L1. No thread waits for the log. A line that does not fit into the queue is dropped and counted.
//! L2. Once lines can be written again, a line reports how many were dropped.
//! L3. A dependency may write a few lines per call site and window; the rest are counted, and one line reports them.
//! L4. Every line has the format of the log, also the first one, a refusal to start, and a panic.
//! L5. A line has no characters that a terminal obeys, and no credentials, whoever chose the texts in it.

mod quota;
mod writer;

pub(crate) use writer::{dropped_lines, flush};

use ebb_config::{LogFormat, LogLevel};
use ebb_terminal::has_colours;
use quota::Quota;
use std::fmt as text;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();
static IS_JSON: AtomicBool = AtomicBool::new(false);
static HAS_COLORS: AtomicBool = AtomicBool::new(false);

/// Starts logging. A second call changes format and level.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
    if LEVEL.get().is_some() {
        return set_level(level);
    }
    HAS_COLORS.store(has_colours(&std::io::stderr()), Ordering::Relaxed);
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer()
        .with_ansi(HAS_COLORS.load(Ordering::Relaxed))
        .event_format(Lines)
        .with_writer(|| writer::Line)
        .with_filter(filter.and(Quota::shared()));
    if tracing_subscriber::registry().with(lines).try_init().is_ok() {
        let _ = LEVEL.set(handle);
        writer::start();
        std::panic::set_hook(Box::new(|panic| {
            tracing::error!(panic = %panic, "a thread panicked; the process ends");
            flush();
        }));
    }
}

/// Whether lines are JSON.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Whether lines have colors.
fn has_colors() -> bool {
    HAS_COLORS.load(Ordering::Relaxed) && !is_json()
}

/// Changes the log level.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // Fails only when the subscriber is gone, at the end of the process.
        let _ = handle.modify(|current| *current = filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Whether a line comes from one of Ebb's own crates (`ebb`, `ebb_…`), not from a dependency.
fn is_own(target: &str) -> bool {
    let name = target.split_once("::").map_or(target, |(name, _)| name);
    name == "ebb" || name.starts_with("ebb_")
}

/// Writes events in the current format. The target names the dependency.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, into: Writer<'_>, event: &Event<'_>) -> text::Result {
        let lines = fmt::format().with_target(!is_own(event.metadata().target()));
        if is_json() {
            let json = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            json.format_event(context, into, event)
        } else {
            lines.format_event(context, into, event)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_are_told_from_those_of_dependencies() {
        let cases = [
            ("ebb", true),
            ("ebb::transport::serve", true),
            ("ebb_injector::webhook", true),
            ("h2::proto", false),
            ("ebbing", false),
        ];
        assert_eq!(cases.map(|(target, _)| (target, is_own(target))), cases);
    }
}
