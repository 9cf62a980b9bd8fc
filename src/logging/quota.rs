//! Quotas of log lines for dependencies, since peers can trigger some of them.

use super::is_own;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};

/// Lines per call site and window.
const LINES: u64 = 10;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(10);

static SHARED: LazyLock<Quota> = LazyLock::new(Quota::default);

/// The quotas of all call sites outside this program.
#[derive(Debug, Default)]
pub(super) struct Quota {
    windows: Mutex<HashMap<Identifier, Window>>,
}

/// A window of one call site.
#[derive(Clone, Copy, Debug)]
struct Window {
    opened: Instant,
    lines: u64,
    site: &'static Metadata<'static>,
}

/// Lines that a call site wrote beyond its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suppressed {
    pub(super) lines: u64,
    pub(super) target: &'static str,
}

impl Quota {
    /// The quota of the process.
    pub(super) fn shared() -> &'static Self {
        &SHARED
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<Identifier, Window>> {
        self.windows.lock()
    }

    /// Counts a line; returns whether it may be written.
    fn admit(&self, site: &'static Metadata<'static>, now: Instant) -> bool {
        if is_own(site.target()) {
            return true;
        }
        let mut windows = self.windows();
        let window = windows.entry(site.callsite()).or_insert(Window { opened: now, lines: 0, site });
        window.lines += 1;
        window.lines <= LINES
    }

    /// Closes expired windows, and returns the suppressed lines of each.
    pub(super) fn close(&self, now: Instant) -> Vec<Suppressed> {
        let mut suppressed = Vec::new();
        self.windows().retain(|_, window| {
            let is_open = now.duration_since(window.opened) < WINDOW;
            if !is_open && window.lines > LINES {
                suppressed.push(Suppressed { lines: window.lines - LINES, target: window.site.target() });
            }
            is_open
        });
        suppressed
    }

    /// Whether a window is open.
    pub(super) fn is_open(&self) -> bool {
        !self.windows().is_empty()
    }
}

impl<S> Filter<S> for &'static Quota {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.admit(event.metadata(), Instant::now())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::callsite::DefaultCallsite;
    use tracing::field::FieldSet;
    use tracing::metadata::Kind;

    static FOREIGN: DefaultCallsite = DefaultCallsite::new(&FOREIGN_SITE);
    static FOREIGN_SITE: Metadata<'static> = Metadata::new(
        "ack",
        "h2::proto",
        tracing::Level::WARN,
        None,
        None,
        None,
        FieldSet::new(&[], Identifier(&FOREIGN)),
        Kind::EVENT,
    );
    static OWN: DefaultCallsite = DefaultCallsite::new(&OWN_SITE);
    static OWN_SITE: Metadata<'static> = Metadata::new(
        "line",
        "ebb::server",
        tracing::Level::INFO,
        None,
        None,
        None,
        FieldSet::new(&[], Identifier(&OWN)),
        Kind::EVENT,
    );

    #[test]
    fn a_dependency_writes_a_few_lines_a_window() {
        let (quota, start) = (Quota::default(), Instant::now());
        let admitted = (0..1_000).filter(|_| quota.admit(&FOREIGN_SITE, start)).count();
        assert_eq!(admitted as u64, LINES);
        assert!((0..1_000).all(|_| quota.admit(&OWN_SITE, start)), "our own lines have no quota");
        assert_eq!(quota.close(start), [], "the window is open");
        let suppressed = Suppressed { lines: 990, target: "h2::proto" };
        assert_eq!(quota.close(start + WINDOW), [suppressed]);
        assert!(!quota.is_open() && quota.admit(&FOREIGN_SITE, start + WINDOW), "a new window");
        assert_eq!(quota.close(start + 3 * WINDOW), [], "nothing was suppressed in it");
    }
}
