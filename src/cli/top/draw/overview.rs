//! The table of sidecars, with one row each.

use super::style::{micros, severity_color};
use crate::cli::top::App;
use crate::cli::top::follow::Sidecar;
use ebb_config::units::format::bytes;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style, Stylize as _};
use ratatui::text::Span;
use ratatui::widgets::{Cell, Row, Table};

/// The columns of the table: name, width, and minimum width of a terminal that shows them.
const COLUMNS: [(&str, Constraint, u16); 8] = [
    ("sidecar", Constraint::Fill(1), 0),
    ("regime", Constraint::Length(8), 0),
    ("used of limit", Constraint::Length(24), 0),
    ("live", Constraint::Length(10), 100),
    ("hits", Constraint::Length(6), 80),
    ("req/s", Constraint::Length(6), 80),
    ("p99", Constraint::Length(7), 90),
    ("findings", Constraint::Length(10), 0),
];
/// The table, scrolled so that the selected row is visible.
pub(super) fn table(app: &App, area: Rect) -> Table<'_> {
    let visible = usize::from(area.height.saturating_sub(1)).max(1);
    let first = (app.selected + 1).saturating_sub(visible);
    let rows = app.sidecars.iter().enumerate().skip(first).map(|(number, sidecar)| {
        let style = if number == app.selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        let cells = cells(sidecar).into_iter().zip(COLUMNS).filter(|(_, (.., least))| area.width >= *least);
        Row::new(cells.map(|(cell, _)| cell)).style(style)
    });
    let shown = || COLUMNS.into_iter().filter(|(.., least)| area.width >= *least);
    let header = Row::new(shown().map(|(name, ..)| name)).style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, shown().map(|(_, width, _)| width)).header(header)
}

fn cells(sidecar: &Sidecar) -> Vec<Cell<'_>> {
    let name = sidecar.at.to_string();
    let Some((_, stats)) = &sidecar.latest else {
        let (word, why) = match &sidecar.disconnected {
            Some(why) => ("offline".red(), why.clone()),
            None => ("…".dark_gray(), "connecting".to_owned()),
        };
        return vec![Cell::from(name), Cell::from(word), Cell::from(why)];
    };
    let memory = stats.memory.clone().unwrap_or_default();
    let regime = match &sidecar.disconnected {
        Some(_) => "offline".red(),
        None => regime(&stats.regime),
    };
    let rate = sidecar.rate(|stats| stats.requests).map_or_else(|| "–".to_owned(), |rate| short(rate as u64));
    vec![
        Cell::from(name),
        Cell::from(regime),
        Cell::from(format!("{} of {}", bytes(memory.used_bytes), bytes(memory.limit_bytes))),
        Cell::from(bytes(memory.live_bytes)),
        Cell::from(sidecar.hit_percent().map_or_else(|| "–".to_owned(), |percent| format!("{percent:.1}%"))),
        Cell::from(rate),
        Cell::from(micros(stats.p99_us)),
        Cell::from(worst(sidecar)),
    ]
}

/// The worst severity among the findings, and the number of findings with it.
fn worst(sidecar: &Sidecar) -> Span<'_> {
    match sidecar.details.as_ref().map(|details| &*details.findings) {
        None => "…".dark_gray(),
        Some([]) => "none".green(),
        Some(findings @ [worst, ..]) => {
            let count = findings.iter().filter(|finding| finding.severity == worst.severity).count();
            Span::styled(format!("{} ×{count}", worst.severity), severity_color(&worst.severity))
        }
    }
}

fn regime(name: &str) -> Span<'_> {
    match name {
        "calm" => name.green(),
        "drift" => name.yellow(),
        "high" => name.light_red(),
        _ => name.red(),
    }
}

fn short(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.0}k", n as f64 / 1e3),
        _ => format!("{:.0}M", n as f64 / 1e6),
    }
}
