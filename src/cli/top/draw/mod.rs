//! The screen, from what is known: where everything stands on it.

mod charts;
mod overview;
mod parts;
#[cfg(test)]
mod tests;

use super::follow::Sidecar;
use super::{App, Part};
use crate::cli::units::{bytes, count, duration};
use crate::proto;
use charts::{LIVE, RESIDENT};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

/// The smallest screen that shows something useful.
const LEAST: (u16, u16) = (60, 12);
/// The smallest place in which everything of a sidecar is shown at once.
const ALL: (u16, u16) = (90, 2 * CHART + parts::TENTHS + 2 + 3);
/// The least rows that a chart has there.
const CHART: u16 = 8;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let (width, height) = (area.width, area.height);
        let words = format!("the terminal has {width} × {height}; this needs {} × {}. q leaves", LEAST.0, LEAST.1);
        return frame.render_widget(Paragraph::new(words).wrap(Wrap { trim: true }), area);
    }
    let rows = app.sidecars.len() as u16 + 1;
    let [head, table, rest, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(rows.min(area.height / 2)),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    let reached = app.sidecars.iter().filter(|sidecar| sidecar.lost.is_none() && sidecar.now.is_some()).count();
    let title = format!("Ebb · {reached} of {} reached", app.sidecars.len());
    frame.render_widget(Line::from(title.bold()), head);
    frame.render_widget(overview::table(app, table), table);
    detail(frame, app, rest);
    let tab = if is_for_all(rest) { "" } else { "   tab next part" };
    frame.render_widget(Line::from(format!("↑ ↓ sidecar   ← → receipt{tab}   q leave")).dark_gray(), foot);
}

fn detail(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let sidecar = &app.sidecars[app.chosen];
    if let Some(why) = &sidecar.lost {
        let words = format!("{why}. Trying again every two seconds.");
        return frame
            .render_widget(Paragraph::new(words).red().wrap(Wrap { trim: true }).block(Block::bordered()), area);
    }
    let Some((_, stats)) = &sidecar.now else { return };
    let receipts = (sidecar.receipts.len() as u16).clamp(1, 5) + 2;
    if is_for_all(area) {
        // What is beyond the least goes to receipts first, then to the charts.
        let tenths = parts::TENTHS + 2;
        let lower = receipts.min(area.height - tenths - 2 * CHART);
        let rows = [Constraint::Fill(1), Constraint::Length(tenths), Constraint::Length(lower)];
        let [upper, middle, lower] = Layout::vertical(rows).areas(area);
        let [charts, account] = beside_account(upper);
        let rows = Constraint::Length((charts.height * 2 / 5).max(CHART));
        let [memory, curves] = Layout::vertical([Constraint::Fill(1), rows]).areas(charts);
        let [left, right] = Layout::horizontal([Constraint::Length(44), Constraint::Fill(1)]).areas(middle);
        charts::memory(frame, sidecar, stats, memory);
        charts::curves(frame, sidecar, &Block::bordered(), curves);
        frame.render_widget(self::account(stats), account);
        for (which, area) in [(Part::Segments, left), (Part::Findings, right), (Part::Receipts, lower)] {
            let title = format!(" {} ", parts::label(which, sidecar));
            parts::draw(frame, which, sidecar, Block::bordered().title(title), area);
        }
        return;
    }
    let wanted = match app.part {
        Part::Receipts => receipts,
        Part::Findings => 8,
        Part::Segments => parts::TENTHS + 2,
        Part::Curves => 10,
    };
    let most = area.height.saturating_sub(7).max(3);
    let [upper, lower] = Layout::vertical([Constraint::Fill(1), Constraint::Length(wanted.min(most))]).areas(area);
    let [memory, account] = beside_account(upper);
    charts::memory(frame, sidecar, stats, memory);
    frame.render_widget(self::account(stats), account);
    let block = Block::bordered().title(tabs(app.part, sidecar, lower.width.saturating_sub(2)));
    parts::draw(frame, app.part, sidecar, block, lower);
}

/// Whether everything of a sidecar fits there at once.
fn is_for_all(area: Rect) -> bool {
    area.width >= ALL.0 && area.height >= ALL.1
}

fn beside_account(area: Rect) -> [Rect; 2] {
    Layout::horizontal([Constraint::Fill(1), Constraint::Length(30)]).areas(area)
}

/// The parts, the chosen one bold; in short where there is no room for what there is to say of them.
fn tabs(chosen: Part, sidecar: &Sidecar, width: u16) -> Line<'static> {
    let row = |label: &dyn Fn(Part) -> String| {
        let mut tabs = Vec::new();
        for which in Part::ALL {
            let style = if which == chosen { Style::new().bold() } else { Style::new().dark_gray() };
            tabs.extend([Span::styled(format!(" {} ", label(which)), style), Span::raw("│")]);
        }
        tabs.pop();
        Line::from(tabs)
    };
    let full = row(&|which| parts::label(which, sidecar));
    if full.width() <= usize::from(width) { full } else { row(&|which| which.name().to_owned()) }
}

fn account(stats: &proto::GetStatsResponse) -> Paragraph<'_> {
    let memory = stats.memory.clone().unwrap_or_default();
    let line = |name: &str, value: String| Line::from(format!("{name:<12}{value:>15}"));
    let mut lines = vec![
        line("resident", bytes(memory.rss_bytes)),
        line("live", bytes(memory.live_bytes)),
        line("dead", bytes(memory.dead_bytes)),
        line("index", bytes(memory.index_bytes)),
        line("in flight", bytes(memory.in_flight_bytes)),
        line("budget", bytes(memory.budget_bytes)),
        line("entries", count(stats.entries)),
        line("evicted", count(stats.evictions)),
        line("expired", count(stats.expirations)),
        line("refused", count(stats.refusals)),
        line("connections", count(stats.open_connections)),
        line("up", duration(stats.uptime_ms)),
    ];
    lines[0].style = Style::new().fg(RESIDENT);
    lines[1].style = Style::new().fg(LIVE);
    Paragraph::new(lines).block(Block::bordered().title(format!(" {} ", stats.version)))
}
