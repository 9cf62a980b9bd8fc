//! The screen, from what is known.

use super::App;
use super::follow::Sidecar;
use crate::cli::units::{bytes, count, duration};
use crate::proto;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Cell, Chart, Dataset, GraphType, Paragraph, Row, Table, Wrap};

/// The smallest screen that shows something useful.
const LEAST: (u16, u16) = (60, 12);
const USED: Color = Color::Magenta;
const RESIDENT: Color = Color::Blue;
const LIVE: Color = Color::Green;

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
    frame.render_widget(overview(app, table), table);
    detail(frame, &app.sidecars[app.chosen], rest);
    frame.render_widget(Line::from("↑ ↓ choose   q leave").dark_gray(), foot);
}

fn overview(app: &App, area: Rect) -> Table<'_> {
    let visible = usize::from(area.height.saturating_sub(1)).max(1);
    let first = (app.chosen + 1).saturating_sub(visible);
    let rows = app.sidecars.iter().enumerate().skip(first).map(|(number, sidecar)| {
        let style = if number == app.chosen { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        row(sidecar).style(style)
    });
    let widths = [
        Constraint::Fill(3),
        Constraint::Length(9),
        Constraint::Length(24),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let header = Row::new(["sidecar", "regime", "used of limit", "live", "hits", "req/s", "99 %"]);
    Table::new(rows, widths).header(header.style(Style::new().add_modifier(Modifier::BOLD)))
}

fn row(sidecar: &Sidecar) -> Row<'_> {
    let name = sidecar.address.to_string();
    let Some((_, stats)) = &sidecar.now else {
        let (word, why) = match &sidecar.lost {
            Some(why) => ("away".red(), why.clone()),
            None => ("…".dark_gray(), "connecting".to_owned()),
        };
        return Row::new([Cell::from(name), Cell::from(word), Cell::from(why)]);
    };
    let memory = stats.memory.clone().unwrap_or_default();
    let regime = match &sidecar.lost {
        Some(_) => "away".red(),
        None => regime(&stats.regime),
    };
    let rate = sidecar.rate(|stats| stats.requests).map_or_else(|| "–".to_owned(), |rate| short(rate as u64));
    Row::new([
        Cell::from(name),
        Cell::from(regime),
        Cell::from(format!("{} of {}", bytes(memory.used_bytes), bytes(memory.limit_bytes))),
        Cell::from(bytes(memory.live_bytes)),
        Cell::from(sidecar.hit_percent().map_or_else(|| "–".to_owned(), |percent| format!("{percent:.1}%"))),
        Cell::from(rate),
        Cell::from(micros(stats.p99_us)),
    ])
}

fn regime(name: &str) -> Span<'_> {
    match name {
        "calm" => name.green(),
        "drift" => name.yellow(),
        "high" => name.light_red(),
        _ => name.red(),
    }
}

/// A latency; 0 stands for none.
fn micros(us: u32) -> String {
    match us {
        0 => "–".to_owned(),
        1..1000 => format!("{us}µs"),
        _ => format!("{:.1}ms", f64::from(us) / 1000.0),
    }
}

fn short(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.0}k", n as f64 / 1e3),
        _ => format!("{:.0}M", n as f64 / 1e6),
    }
}

fn detail(frame: &mut Frame<'_>, sidecar: &Sidecar, area: Rect) {
    if let Some(why) = &sidecar.lost {
        let words = format!("{why}. Trying again every two seconds.");
        return frame
            .render_widget(Paragraph::new(words).red().wrap(Wrap { trim: true }).block(Block::bordered()), area);
    }
    let Some((_, stats)) = &sidecar.now else { return };
    let receipts = (stats.receipts.len() as u16).clamp(1, 5) + 2;
    let [upper, lower] = Layout::vertical([Constraint::Min(5), Constraint::Length(receipts)]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(30)]).areas(upper);
    chart(frame, sidecar, stats, left);
    frame.render_widget(account(stats), right);
    frame.render_widget(receipts_of(stats), lower);
}

fn chart(frame: &mut Frame<'_>, sidecar: &Sidecar, stats: &proto::GetStatsResponse, area: Rect) {
    let line = |which: usize| -> Vec<(f64, f64)> {
        sidecar.readings.iter().enumerate().map(|(at, reading)| (at as f64, reading[which] as f64)).collect()
    };
    let lines = [("used", USED, line(0)), ("resident", RESIDENT, line(1)), ("live", LIVE, line(2))];
    let datasets = lines.iter().map(|(name, color, points)| {
        Dataset::default().name(*name).marker(Marker::Braille).graph_type(GraphType::Line).style(*color).data(points)
    });
    let limit = stats.memory.as_ref().map_or(0, |memory| memory.limit_bytes);
    let most = sidecar.readings.iter().flatten().copied().max().unwrap_or(1).max(1);
    // The limit is on the chart once it is near enough to matter.
    let top = if most * 2 > limit { limit.max(most) } else { most + most / 4 };
    let labels = ["0".to_owned(), bytes(top / 2), bytes(top)];
    let x = Axis::default().bounds([0.0, sidecar.readings.len().max(2) as f64 - 1.0]);
    let y = Axis::default().bounds([0.0, top as f64]).labels(labels);
    frame.render_widget(
        Chart::new(datasets.collect()).x_axis(x).y_axis(y).block(Block::bordered().title(" memory ")),
        area,
    );
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

fn receipts_of(stats: &proto::GetStatsResponse) -> Paragraph<'_> {
    let rss = |account: &Option<proto::MemoryAccount>| bytes(account.as_ref().map_or(0, |memory| memory.rss_bytes));
    let line = |receipt: &proto::Receipt| {
        let proto::Receipt { id, reason, moved_bytes, freed_segments, cpu_us, before, after, .. } = receipt;
        Line::from(format!(
            "#{id} {reason}: {} moved, {} segments freed, resident {} → {}, {:.1} ms of CPU",
            bytes(*moved_bytes),
            count(*freed_segments),
            rss(before),
            rss(after),
            *cpu_us as f64 / 1000.0,
        ))
    };
    let lines: Vec<_> = match stats.receipts.as_slice() {
        [] => vec![Line::from("the cleaner has not run yet").dark_gray()],
        receipts => receipts.iter().take(5).map(line).collect(),
    };
    Paragraph::new(lines).block(Block::bordered().title(" receipts "))
}

#[cfg(test)]
mod tests {
    use super::super::follow::News;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(app: &App, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        terminal.backend().to_string()
    }

    fn app() -> App {
        let mut up = Sidecar::new("127.0.0.1:7071".parse().unwrap());
        let memory = proto::MemoryAccount {
            limit_bytes: 256 << 20,
            used_bytes: 200 << 20,
            rss_bytes: 199 << 20,
            live_bytes: 150 << 20,
            ..Default::default()
        };
        let receipt = proto::Receipt { id: 7, reason: "drift".into(), moved_bytes: 1 << 20, ..Default::default() };
        for requests in [1000, 5000] {
            up.learn(News::Stats(Box::new(proto::GetStatsResponse {
                memory: Some(memory.clone()),
                regime: "high".into(),
                requests,
                hits: requests,
                p99_us: 250,
                receipts: vec![receipt.clone()],
                ..Default::default()
            })));
        }
        let mut away = Sidecar::new("unix:/run/b.sock".parse().unwrap());
        away.learn(News::Lost("cannot reach unix:/run/b.sock".into()));
        App { sidecars: vec![up, away], chosen: 0 }
    }

    #[test]
    fn sidecars_stand_side_by_side() {
        let mut app = app();
        let shown = screen(&app, 110, 30);
        for part in [
            "1 of 2 reached",
            "127.0.0.1:7071",
            "high",
            "200.0 MiB of 256.0 MiB",
            "100.0%",
            "250µs",
            "away",
            "#7 drift: 1.0 MiB moved",
        ] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        app.chosen = 1;
        let shown = screen(&app, 110, 30);
        assert!(shown.contains("Trying again every two seconds"), "{shown}");
    }

    #[test]
    fn every_size_of_screen_can_be_drawn_and_a_small_one_says_so() {
        let mut app = app();
        for (width, height) in
            (1..140).step_by(7).flat_map(|width| (1..50).step_by(3).map(move |height| (width, height)))
        {
            app.chosen = usize::from(width % 2);
            screen(&app, width, height);
        }
        let small = screen(&app, 59, 30);
        assert!(small.contains("the terminal has 59 × 30; this needs 60 × 12"), "{small}");
    }
}
