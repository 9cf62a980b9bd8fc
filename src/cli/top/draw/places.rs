//! Where everything stands, from the size of the screen.
//!
//! ```text
//!  roomy                              elsewhere
//!  ┌───────────────────┬─────────┐    ┌───────────────────┬─────────┐
//!  │ memory            │ account │    │ memory            │ account │
//!  ├─────────┬─────────┤         │    ├───────────────────┴─────────┤
//!  │ hits    │ latency │         │    │ one part                    │
//!  ├─────────┴┬────────┴─────────┤    └─────────────────────────────┘
//!  │ segments │ findings         │
//!  ├──────────┴──────────────────┤
//!  │ receipts                    │    the configuration: in the place of these three
//!  └─────────────────────────────┘
//! ```

use super::parts::TENTHS;
use crate::cli::top::{App, Part};
use ratatui::layout::{Constraint, Layout, Rect};
use strum::VariantArray as _;

/// The smallest screen that shows something useful.
pub(super) const LEAST: (u16, u16) = (60, 12);
/// The smallest place in which everything but the configuration is shown at once.
const ROOMY: (u16, u16) = (90, 2 * CHART + TENTHS + 2 + 3);
/// The least rows that a chart has there.
const CHART: u16 = 8;
/// The rows of a part that few are of no use to: where memory would have no more than a frame beside it, it makes way.
const TALL: u16 = 8;

/// Where everything stands.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) head: Rect,
    /// The sidecars side by side.
    pub(super) table: Rect,
    /// Everything of the chosen sidecar.
    pub(super) detail: Rect,
    pub(super) memory: Rect,
    pub(super) account: Rect,
    /// The hit ratio and latency, where they are no part of their own.
    pub(super) curves: Option<Rect>,
    pub(super) parts: Vec<(Part, Rect)>,
    pub(super) foot: Rect,
    pub(super) is_roomy: bool,
}

impl Places {
    /// `None` where nothing useful fits.
    pub(super) fn of(area: Rect, app: &App) -> Option<Self> {
        if area.width < LEAST.0 || area.height < LEAST.1 {
            return None;
        }
        let rows = app.sidecars.len() as u16 + 1;
        let [head, table, detail, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(rows.min(area.height / 2)),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        let is_roomy = detail.width >= ROOMY.0 && detail.height >= ROOMY.1;
        let receipts = (app.sidecars[app.chosen].receipts.len() as u16).clamp(1, 5) + 2;
        let lower = match (is_roomy, app.part) {
            (false, part) => rows_of(part, receipts, detail.height),
            (true, Part::Configuration) => detail.height - 2 * CHART,
            // What is beyond the least goes to receipts first, then to the charts.
            (true, _) => TENTHS + 2 + receipts.min(detail.height - TENTHS - 2 - 2 * CHART),
        };
        let [upper, lower] = Layout::vertical([Constraint::Fill(1), Constraint::Length(lower)]).areas(detail);
        let [charts, account] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(30)]).areas(upper);
        let curves = if is_roomy { (charts.height * 2 / 5).max(CHART) } else { 0 };
        let [memory, curves] = Layout::vertical([Constraint::Fill(1), Constraint::Length(curves)]).areas(charts);
        let curves = is_roomy.then_some(curves);
        let parts = if is_roomy && app.part != Part::Configuration {
            let rows = [Constraint::Length(TENTHS + 2), Constraint::Fill(1)];
            let [middle, receipts] = Layout::vertical(rows).areas(lower);
            let columns = [Constraint::Length(44), Constraint::Fill(1)];
            let [segments, findings] = Layout::horizontal(columns).areas(middle);
            vec![(Part::Segments, segments), (Part::Findings, findings), (Part::Receipts, receipts)]
        } else {
            vec![(app.part, lower)]
        };
        Some(Self { head, table, detail, memory, account, curves, parts, foot, is_roomy })
    }

    /// The part that is shown after this one: where there is room, the configuration or all others.
    pub(super) fn next(&self, part: Part) -> Part {
        let ring = if self.is_roomy { &[Part::Receipts, Part::Configuration][..] } else { Part::VARIANTS };
        let at = ring.iter().position(|each| *each == part).unwrap_or(0);
        ring[(at + 1) % ring.len()]
    }

    /// Where the configuration is shown, if it is.
    pub(super) fn configuration(&self) -> Option<Rect> {
        self.parts.iter().find(|(part, _)| *part == Part::Configuration).map(|(_, area)| *area)
    }
}

/// How many of the rows a part has that shares them with memory.
fn rows_of(part: Part, receipts: u16, rows: u16) -> u16 {
    let (wanted, least) = match part {
        Part::Receipts => (receipts, 3),
        Part::Findings => (8, 3),
        Part::Segments => (TENTHS + 2, 3),
        Part::Curves => (10, TALL),
        Part::Configuration => (rows, TALL),
    };
    let part = wanted.min(rows.saturating_sub(7).max(least));
    if least == TALL && rows < part + 5 { rows } else { part }
}
