//! The layout of the screen, by its size.
//!
//! ```text
//!  large screen                       small screen
//!  ┌───────────────────┬─────────┐    ┌───────────────────┬─────────┐
//!  │ memory            │ account │    │ memory            │ account │
//!  ├─────────┬─────────┤         │    ├───────────────────┴─────────┤
//!  │ hits    │ latency │         │    │ one panel                   │
//!  ├─────────┴┬────────┴─────────┤    └─────────────────────────────┘
//!  │ segments │ findings         │
//!  ├──────────┴──────────────────┤
//!  │ receipts                    │    the configuration replaces these three panels
//!  └─────────────────────────────┘
//! ```

use super::panels::HISTOGRAM_ROWS;
use crate::cli::top::{App, Panel};
use ratatui::layout::{Constraint, Layout, Rect};
use strum::VariantArray as _;

/// Minimum size of a screen.
pub(super) const MIN_SIZE: (u16, u16) = (60, 12);
/// Minimum size of an area that shows all panels except the configuration at once.
const LARGE_SIZE: (u16, u16) = (90, 2 * MIN_CHART_ROWS + HISTOGRAM_ROWS + 2 + 3);
/// Minimum rows of a chart on a large screen.
const MIN_CHART_ROWS: u16 = 8;
/// Minimum rows of a tall panel. If it leaves too few rows for memory, it takes all of them.
const MIN_TALL_ROWS: u16 = 8;

/// The layout of the screen.
#[derive(Debug)]
pub(super) struct ScreenLayout {
    pub(super) header: Rect,
    /// The table of sidecars.
    pub(super) table: Rect,
    /// Everything of the selected sidecar.
    pub(super) detail: Rect,
    pub(super) memory: Rect,
    pub(super) account: Rect,
    /// The hit ratio and latency on a large screen; on a small one they are a panel.
    pub(super) curves: Option<Rect>,
    pub(super) panels: Vec<(Panel, Rect)>,
    pub(super) footer: Rect,
    pub(super) is_large: bool,
}

impl ScreenLayout {
    /// `None` if the screen is too small.
    pub(super) fn of(area: Rect, app: &App) -> Option<Self> {
        if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
            return None;
        }
        let rows = app.sidecars.len() as u16 + 1;
        let [header, table, detail, footer] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(rows.min(area.height / 2)),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        let is_large = detail.width >= LARGE_SIZE.0 && detail.height >= LARGE_SIZE.1;
        let receipts = app.selected().map_or(0, |sidecar| sidecar.receipts.len() as u16).clamp(1, 5) + 2;
        let lower = match (is_large, app.panel) {
            (false, panel) => panel_rows(panel, receipts, detail.height),
            (true, Panel::Configuration) => detail.height - 2 * MIN_CHART_ROWS,
            // Rows beyond the minimum go to receipts first, then to the charts.
            (true, _) => HISTOGRAM_ROWS + 2 + receipts.min(detail.height - HISTOGRAM_ROWS - 2 - 2 * MIN_CHART_ROWS),
        };
        let [upper, lower] = Layout::vertical([Constraint::Fill(1), Constraint::Length(lower)]).areas(detail);
        let [charts, account] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(30)]).areas(upper);
        let curves = if is_large { (charts.height * 2 / 5).max(MIN_CHART_ROWS) } else { 0 };
        let [memory, curves] = Layout::vertical([Constraint::Fill(1), Constraint::Length(curves)]).areas(charts);
        let curves = is_large.then_some(curves);
        let panels = if is_large && app.panel != Panel::Configuration {
            let rows = [Constraint::Length(HISTOGRAM_ROWS + 2), Constraint::Fill(1)];
            let [middle, receipts] = Layout::vertical(rows).areas(lower);
            let columns = [Constraint::Length(44), Constraint::Fill(1)];
            let [segments, findings] = Layout::horizontal(columns).areas(middle);
            vec![(Panel::Segments, segments), (Panel::Findings, findings), (Panel::Receipts, receipts)]
        } else {
            vec![(app.panel, lower)]
        };
        Some(Self { header, table, detail, memory, account, curves, panels, footer, is_large })
    }

    /// The panel after this one. A large screen switches between the configuration and all others.
    pub(super) fn next(&self, panel: Panel) -> Panel {
        let order = if self.is_large { &[Panel::Receipts, Panel::Configuration][..] } else { Panel::VARIANTS };
        let at = order.iter().position(|each| *each == panel).unwrap_or(0);
        order[(at + 1) % order.len()]
    }

    /// The area of the configuration, if it is visible.
    pub(super) fn configuration(&self) -> Option<Rect> {
        self.panels.iter().find(|(panel, _)| *panel == Panel::Configuration).map(|(_, area)| *area)
    }
}

/// Rows of a panel that shares `rows` with memory.
fn panel_rows(panel: Panel, receipts: u16, rows: u16) -> u16 {
    let (wanted, least) = match panel {
        Panel::Receipts => (receipts, 3),
        Panel::Findings => (8, 3),
        Panel::Segments => (HISTOGRAM_ROWS + 2, 3),
        Panel::Curves => (10, MIN_TALL_ROWS),
        Panel::Configuration => (rows, MIN_TALL_ROWS),
    };
    let panel_rows = wanted.min(rows.saturating_sub(7).max(least));
    if least == MIN_TALL_ROWS && rows < panel_rows + 5 { rows } else { panel_rows }
}
