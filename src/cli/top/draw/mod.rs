//! Draws the screen from the state of the sidecars.

mod charts;
mod configuration;
mod layout;
mod overview;
mod panels;
mod style;
#[cfg(test)]
mod tests;

use super::follow::Sidecar;
use super::{App, Panel};
use ebb_config::units::format::{bytes, count, duration};
use ebb_proto as proto;
use layout::{MIN_SIZE, ScreenLayout};
use ratatui::Frame;
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};
use strum::VariantArray as _;
use style::{LIVE, RESIDENT};

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    let Some(layout) = ScreenLayout::of(area, app) else {
        let (width, height) = (area.width, area.height);
        let words =
            format!("terminal too small: {width} × {height}; ebb top needs {} × {}. q quits", MIN_SIZE.0, MIN_SIZE.1);
        return frame.render_widget(Paragraph::new(words).wrap(Wrap { trim: true }), area);
    };
    let reached =
        app.sidecars.iter().filter(|sidecar| sidecar.disconnected.is_none() && sidecar.latest.is_some()).count();
    let mut title = vec![format!("Ebb · {reached} of {} connected", app.sidecars.len()).bold()];
    title.extend(app.targets.iter().map(|targets| format!(" · {targets}").bold()));
    title.extend(match (&app.problem, &app.change) {
        (Some(problem), _) => Some(format!(" · {problem}").red()),
        (None, change) => change.as_ref().map(|change| format!(" · {change}").into()),
    });
    frame.render_widget(Line::from(title), layout.header);
    frame.render_widget(overview::table(app, layout.table), layout.table);
    detail(frame, app, &layout);
    let arrows = if layout.configuration().is_some() { "PgUp PgDn scroll" } else { "← → receipt" };
    let tab = match (layout.is_large, app.panel) {
        (true, Panel::Configuration) => "tab back",
        (true, _) => "tab configuration",
        (false, _) => "tab next panel",
    };
    let keys = format!("↑ ↓ sidecar   {arrows}   {tab}   q quit");
    frame.render_widget(Line::from(keys).dark_gray(), layout.footer);
}

/// The panel that tab selects.
pub(super) fn next_panel(app: &App) -> Panel {
    ScreenLayout::of(app.area, app).map_or(app.panel, |layout| layout.next(app.panel))
}

/// The scroll offset of the configuration after one page forward or back.
pub(super) fn scroll(app: &App, is_forward: bool) -> usize {
    let shown = ScreenLayout::of(app.area, app).and_then(|layout| layout.configuration());
    let scroll = |area| {
        let inner = Block::bordered().inner(area);
        let sidecar = app.selected()?;
        Some(configuration::scroll(sidecar, app.scroll_offset, inner, is_forward))
    };
    shown.and_then(scroll).unwrap_or(app.scroll_offset)
}

fn detail(frame: &mut Frame<'_>, app: &App, layout: &ScreenLayout) {
    let Some(sidecar) = app.selected() else {
        let words = Paragraph::new("There are no pods. New ones are shown when they start.").wrap(Wrap { trim: true });
        return frame.render_widget(words.block(Block::bordered()), layout.detail);
    };
    if let Some(why) = &sidecar.disconnected {
        let words = Paragraph::new(format!("{why}. Retrying every two seconds.")).red().wrap(Wrap { trim: true });
        return frame.render_widget(words.block(Block::bordered()), layout.detail);
    }
    let Some((_, stats)) = &sidecar.latest else { return };
    charts::memory(frame, sidecar, stats, layout.memory);
    frame.render_widget(account(stats), layout.account);
    if let Some(area) = layout.curves {
        charts::curves(frame, sidecar, &Block::bordered(), area);
    }
    for &(which, area) in &layout.panels {
        let title = match layout.is_large {
            true => Line::from(format!(" {} ", panels::label(which, sidecar))),
            false => tabs(which, sidecar, area.width.saturating_sub(2)),
        };
        panels::draw(frame, which, (app, sidecar), Block::bordered().title(title), area);
    }
}

/// The tabs, with the selected one in bold; short labels if the full ones do not fit.
fn tabs(selected: Panel, sidecar: &Sidecar, width: u16) -> Line<'static> {
    let row = |label: &dyn Fn(Panel) -> String| {
        let mut tabs = Vec::new();
        for which in Panel::VARIANTS.iter().copied() {
            let style = if which == selected { Style::new().bold() } else { Style::new().dark_gray() };
            tabs.extend([Span::styled(format!(" {} ", label(which)), style), Span::raw("│")]);
        }
        tabs.pop();
        Line::from(tabs)
    };
    let full = row(&|which| panels::label(which, sidecar));
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
        line("uptime", duration(stats.uptime_ms)),
    ];
    lines[0].style = Style::new().fg(RESIDENT);
    lines[1].style = Style::new().fg(LIVE);
    Paragraph::new(lines).block(Block::bordered().title(format!(" {} ", stats.version)))
}
