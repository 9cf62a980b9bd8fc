//! The screen, from what is known.

mod charts;
mod configuration;
mod overview;
mod parts;
mod places;
mod style;
#[cfg(test)]
mod tests;

use super::follow::Sidecar;
use super::{App, Part};
use ebb_config::units::format::{bytes, count, duration};
use ebb_proto as proto;
use places::{LEAST, Places};
use ratatui::Frame;
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};
use strum::VariantArray as _;
use style::{LIVE, RESIDENT};

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    let Some(places) = Places::of(area, app) else {
        let (width, height) = (area.width, area.height);
        let words = format!("terminal too small: {width} × {height}; ebb top needs {} × {}. q quits", LEAST.0, LEAST.1);
        return frame.render_widget(Paragraph::new(words).wrap(Wrap { trim: true }), area);
    };
    let reached = app.sidecars.iter().filter(|sidecar| sidecar.lost.is_none() && sidecar.now.is_some()).count();
    let title = format!("Ebb · {reached} of {} connected", app.sidecars.len());
    frame.render_widget(Line::from(title.bold()), places.head);
    frame.render_widget(overview::table(app, places.table), places.table);
    detail(frame, app, &places);
    let arrows = if places.configuration().is_some() { "PgUp PgDn scroll" } else { "← → receipt" };
    let tab = match (places.is_roomy, app.part) {
        (true, Part::Configuration) => "tab back",
        (true, _) => "tab configuration",
        (false, _) => "tab next part",
    };
    let keys = format!("↑ ↓ sidecar   {arrows}   {tab}   q quit");
    frame.render_widget(Line::from(keys).dark_gray(), places.foot);
}

/// The part that tab leads to.
pub(super) fn next_part(app: &App) -> Part {
    Places::of(app.area, app).map_or(app.part, |places| places.next(app.part))
}

/// How many lines of the configuration are scrolled away a page on, or back.
pub(super) fn scroll(app: &App, is_forward: bool) -> usize {
    let shown = Places::of(app.area, app).and_then(|places| places.configuration());
    let scroll = |area| {
        let inner = Block::bordered().inner(area);
        configuration::scroll(&app.sidecars[app.chosen], app.scrolled, inner, is_forward)
    };
    shown.map_or(app.scrolled, scroll)
}

fn detail(frame: &mut Frame<'_>, app: &App, places: &Places) {
    let sidecar = &app.sidecars[app.chosen];
    if let Some(why) = &sidecar.lost {
        let words = Paragraph::new(format!("{why}. Retrying every two seconds.")).red().wrap(Wrap { trim: true });
        return frame.render_widget(words.block(Block::bordered()), places.detail);
    }
    let Some((_, stats)) = &sidecar.now else { return };
    charts::memory(frame, sidecar, stats, places.memory);
    frame.render_widget(account(stats), places.account);
    if let Some(area) = places.curves {
        charts::curves(frame, sidecar, &Block::bordered(), area);
    }
    for &(which, area) in &places.parts {
        let title = match places.is_roomy {
            true => Line::from(format!(" {} ", parts::label(which, sidecar))),
            false => tabs(which, sidecar, area.width.saturating_sub(2)),
        };
        parts::draw(frame, which, app, Block::bordered().title(title), area);
    }
}

/// The parts, the chosen one bold; in short where there is no room for what there is to say of them.
fn tabs(chosen: Part, sidecar: &Sidecar, width: u16) -> Line<'static> {
    let row = |label: &dyn Fn(Part) -> String| {
        let mut tabs = Vec::new();
        for which in Part::VARIANTS.iter().copied() {
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
        line("uptime", duration(stats.uptime_ms)),
    ];
    lines[0].style = Style::new().fg(RESIDENT);
    lines[1].style = Style::new().fg(LIVE);
    Paragraph::new(lines).block(Block::bordered().title(format!(" {} ", stats.version)))
}
