//! The screen, from what is known.

use super::follow::{Reading, Sidecar};
use super::{App, Part};
use crate::cli::units::{bytes, count, duration};
use crate::proto::{self, diagnose_response::Finding};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Cell, Chart, Dataset, GraphType, Paragraph, Row, Table, Wrap};

/// The smallest screen that shows something useful.
const LEAST: (u16, u16) = (60, 12);
/// The smallest place in which everything of a sidecar is shown at once.
const ALL: (u16, u16) = (90, 26);
/// The columns of the table, how wide they are, and how wide a terminal has them.
const COLUMNS: [(&str, Constraint, u16); 8] = [
    ("sidecar", Constraint::Fill(1), 0),
    ("regime", Constraint::Length(8), 0),
    ("used of limit", Constraint::Length(24), 0),
    ("live", Constraint::Length(10), 100),
    ("hits", Constraint::Length(6), 80),
    ("req/s", Constraint::Length(6), 80),
    ("99 %", Constraint::Length(7), 90),
    ("findings", Constraint::Length(10), 0),
];
/// Rows of the histogram of segments.
const TENTHS: u16 = 10;
const USED: Color = Color::Magenta;
const RESIDENT: Color = Color::Blue;
const LIVE: Color = Color::Green;
/// A run of the cleaner that lost nothing.
const COMPACTED: Color = Color::Yellow;
/// One that dropped entries.
const EVICTED: Color = Color::Red;
const CHOSEN: Color = Color::White;

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
    detail(frame, app, rest);
    let tab = if is_for_all(rest) { "" } else { "   tab next part" };
    frame.render_widget(Line::from(format!("↑ ↓ sidecar   ← → receipt{tab}   q leave")).dark_gray(), foot);
}

fn overview(app: &App, area: Rect) -> Table<'_> {
    let visible = usize::from(area.height.saturating_sub(1)).max(1);
    let first = (app.chosen + 1).saturating_sub(visible);
    let rows = app.sidecars.iter().enumerate().skip(first).map(|(number, sidecar)| {
        let style = if number == app.chosen { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        let cells = cells(sidecar).into_iter().zip(COLUMNS).filter(|(_, (.., least))| area.width >= *least);
        Row::new(cells.map(|(cell, _)| cell)).style(style)
    });
    let shown = || COLUMNS.into_iter().filter(|(.., least)| area.width >= *least);
    let header = Row::new(shown().map(|(name, ..)| name)).style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, shown().map(|(_, width, _)| width)).header(header)
}

fn cells(sidecar: &Sidecar) -> Vec<Cell<'_>> {
    let name = sidecar.address.to_string();
    let Some((_, stats)) = &sidecar.now else {
        let (word, why) = match &sidecar.lost {
            Some(why) => ("away".red(), why.clone()),
            None => ("…".dark_gray(), "connecting".to_owned()),
        };
        return vec![Cell::from(name), Cell::from(word), Cell::from(why)];
    };
    let memory = stats.memory.clone().unwrap_or_default();
    let regime = match &sidecar.lost {
        Some(_) => "away".red(),
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

/// The worst that the doctor finds, and how many of it.
fn worst(sidecar: &Sidecar) -> Span<'_> {
    match sidecar.findings.as_deref() {
        None => "…".dark_gray(),
        Some([]) => "none".green(),
        Some(findings @ [worst, ..]) => {
            let alike = findings.iter().filter(|finding| finding.severity == worst.severity).count();
            Span::styled(format!("{} ×{alike}", worst.severity), color_of(&worst.severity))
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
        let rows = [Constraint::Min(5), Constraint::Length(TENTHS + 2), Constraint::Length(receipts)];
        let [upper, middle, lower] = Layout::vertical(rows).areas(area);
        let [left, right] = Layout::horizontal([Constraint::Length(44), Constraint::Fill(1)]).areas(middle);
        memory(frame, sidecar, stats, upper);
        for (which, area) in [(Part::Segments, left), (Part::Findings, right), (Part::Receipts, lower)] {
            let title = format!(" {} ", label(which, sidecar));
            part(frame, which, sidecar, Block::bordered().title(title), area);
        }
        return;
    }
    let wanted = match app.part {
        Part::Receipts => receipts,
        Part::Findings => 8,
        Part::Segments => TENTHS + 2,
    };
    let most = area.height.saturating_sub(7).max(3);
    let [upper, lower] = Layout::vertical([Constraint::Fill(1), Constraint::Length(wanted.min(most))]).areas(area);
    memory(frame, sidecar, stats, upper);
    let mut tabs = Vec::new();
    for which in Part::ALL {
        let style = if which == app.part { Style::new().bold() } else { Style::new().dark_gray() };
        tabs.extend([Span::styled(format!(" {} ", label(which, sidecar)), style), Span::raw("│")]);
    }
    tabs.pop();
    part(frame, app.part, sidecar, Block::bordered().title(Line::from(tabs)), lower);
}

/// Whether everything of a sidecar fits there at once.
fn is_for_all(area: Rect) -> bool {
    area.width >= ALL.0 && area.height >= ALL.1
}

fn label(which: Part, sidecar: &Sidecar) -> String {
    match (which, &sidecar.findings, &sidecar.map) {
        (Part::Findings, Some(findings), _) if !findings.is_empty() => format!("findings ({})", findings.len()),
        (Part::Segments, _, Some(map)) => {
            format!("{} segments of {}", count(map.occupancy.iter().sum()), bytes(map.segment_bytes))
        }
        _ => which.name().to_owned(),
    }
}

fn part(frame: &mut Frame<'_>, which: Part, sidecar: &Sidecar, block: Block<'_>, area: Rect) {
    let inner = block.inner(area);
    let lines = match which {
        Part::Receipts => receipts(sidecar, usize::from(inner.height)),
        Part::Findings => findings(sidecar),
        Part::Segments => segments(sidecar, inner),
    };
    let words = Paragraph::new(lines).block(block);
    // Findings are sentences; everything else is a table, whose rows end where the terminal does.
    frame.render_widget(if which == Part::Findings { words.wrap(Wrap { trim: true }) } else { words }, area);
}

fn memory(frame: &mut Frame<'_>, sidecar: &Sidecar, stats: &proto::GetStatsResponse, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(30)]).areas(area);
    chart(frame, sidecar, stats, left);
    frame.render_widget(account(stats), right);
}

/// Memory over time, and where it stood after each run of the cleaner.
fn chart(frame: &mut Frame<'_>, sidecar: &Sidecar, stats: &proto::GetStatsResponse, area: Rect) {
    let readings = &sidecar.readings;
    let first_ms = readings.front().map_or(0, |reading| reading.at_ms);
    let seconds = |at_ms: i64| (at_ms - first_ms) as f64 / 1000.0;
    let end = readings.back().map_or(0.0, |reading| seconds(reading.at_ms)).max(1.0);
    let limit = stats.memory.as_ref().map_or(0, |memory| memory.limit_bytes);
    let most = readings.iter().map(|reading| reading.used_bytes.max(reading.rss_bytes)).max().unwrap_or(1).max(1);
    // The limit is on the chart once it is near enough to matter.
    let top = if most * 2 > limit { limit.max(most) } else { most + most / 4 };

    let line = |of: fn(&Reading) -> u64| -> Vec<(f64, f64)> {
        readings.iter().map(|reading| (seconds(reading.at_ms), of(reading) as f64)).collect()
    };
    let lines = [(USED, line(|r| r.used_bytes)), (RESIDENT, line(|r| r.rss_bytes)), (LIVE, line(|r| r.live_bytes))];
    let shown = sidecar.receipts.iter().filter(|receipt| receipt.started_at_ms >= first_ms);
    let marks = |of: &dyn Fn(&proto::Receipt) -> bool| -> Vec<(f64, f64)> {
        let mark = |receipt: &proto::Receipt| {
            (seconds(receipt.started_at_ms).min(end), rss_bytes(receipt.after.as_ref()).min(top) as f64)
        };
        shown.clone().filter(|receipt| of(receipt)).map(mark).collect()
    };
    let marks = [
        (COMPACTED, marks(&|receipt| receipt.evicted_items == 0)),
        (EVICTED, marks(&|receipt| receipt.evicted_items > 0)),
        (CHOSEN, marks(&|receipt| Some(receipt.id) == sidecar.receipt)),
    ];
    let mut datasets: Vec<_> = lines.iter().map(|each| dataset(each, GraphType::Line, Marker::Braille)).collect();
    datasets.extend(marks.iter().map(|each| dataset(each, GraphType::Scatter, Marker::Dot)));

    let mut title = vec![" memory: ".into(), "used".fg(USED), ", ".into(), "resident".fg(RESIDENT), ", ".into()];
    title.extend(["live ".fg(LIVE)]);
    for ((color, points), name) in marks.iter().zip(["• compaction ", "• eviction "]) {
        if !points.is_empty() {
            title.push(name.fg(*color));
        }
    }
    let x =
        Axis::default().bounds([0.0, end]).labels([format!("{} ago", duration((end * 1000.0) as u64)), "now".into()]);
    let y = Axis::default().bounds([0.0, top as f64]).labels(["0".to_owned(), bytes(top / 2), bytes(top)]);
    let block = Block::bordered().title(Line::from(title));
    frame.render_widget(Chart::new(datasets).x_axis(x).y_axis(y).legend_position(None).block(block), area);
}

fn dataset((color, points): &(Color, Vec<(f64, f64)>), graph: GraphType, marker: Marker) -> Dataset<'_> {
    Dataset::default().marker(marker).graph_type(graph).style(*color).data(points)
}

fn rss_bytes(account: Option<&proto::MemoryAccount>) -> u64 {
    account.map_or(0, |memory| memory.rss_bytes)
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

/// The newest first; as many as fit, and the chosen one among them.
fn receipts(sidecar: &Sidecar, rows: usize) -> Vec<Line<'static>> {
    let Some((_, stats)) = &sidecar.now else { return Vec::new() };
    if sidecar.receipts.is_empty() {
        return vec![Line::from("the cleaner has not run yet").dark_gray()];
    }
    let newest_first = || sidecar.receipts.iter().rev();
    let chosen = newest_first().position(|receipt| Some(receipt.id) == sidecar.receipt);
    let first = chosen.map_or(0, |at| (at + 1).saturating_sub(rows));
    let line = |(at, receipt): (usize, &proto::Receipt)| {
        let line = story(receipt, stats.at_ms);
        if Some(at) == chosen { line.reversed() } else { line }
    };
    newest_first().enumerate().skip(first).take(rows).map(line).collect()
}

fn story(receipt: &proto::Receipt, now_ms: i64) -> Line<'static> {
    let proto::Receipt { id, reason, started_at_ms, moved_bytes, evicted_items, freed_segments, cpu_us, .. } = receipt;
    let ago = duration(now_ms.saturating_sub(*started_at_ms).max(0) as u64);
    let (color, evicted) = match evicted_items {
        0 => (COMPACTED, String::new()),
        n => (EVICTED, format!("{} evicted, ", count(*n))),
    };
    let did = format!(
        " {}: {} moved, {} segments freed, {evicted}resident {} → {}, {:.1} ms of CPU",
        reason.replace('_', " "),
        bytes(*moved_bytes),
        count(*freed_segments),
        bytes(rss_bytes(receipt.before.as_ref())),
        bytes(rss_bytes(receipt.after.as_ref())),
        *cpu_us as f64 / 1000.0,
    );
    Line::from(vec![format!("{ago:>8} ago  ").into(), format!("#{id}").fg(color), did.into()])
}

/// The worst first.
fn findings(sidecar: &Sidecar) -> Vec<Line<'_>> {
    let line = |finding: &'_ Finding| {
        let Finding { severity, evidence, remedy, .. } = finding;
        let severity = Span::styled(severity.clone(), color_of(severity)).bold();
        Line::from(vec![severity, format!(": {evidence} → ").into(), remedy.clone().dark_gray()])
    };
    match sidecar.findings.as_deref() {
        None => vec![Line::from("…").dark_gray()],
        Some([]) => vec![Line::from("all is well").green()],
        Some(findings) => findings.iter().map(line).collect(),
    }
}

fn color_of(severity: &str) -> Color {
    match severity {
        "error" => Color::Red,
        "warning" => Color::Yellow,
        _ => Color::Blue,
    }
}

/// How many segments are how full: a row for each tenth, or all in one where there is no room for ten.
fn segments(sidecar: &Sidecar, area: Rect) -> Vec<Line<'static>> {
    let Some(map) = &sidecar.map else { return vec![Line::from("…").dark_gray()] };
    let most = map.occupancy.iter().copied().max().unwrap_or(0).max(1);
    // What is less than half full is what compaction frees.
    let color = |tenth: usize| if tenth < 5 { COMPACTED } else { LIVE };
    let tenths = || map.occupancy.iter().copied().enumerate();
    if area.height < TENTHS {
        let bar = |(tenth, n): (usize, u64)| {
            let height = (n * 8).div_ceil(most) as usize;
            [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"][height].fg(color(tenth))
        };
        let mut line = vec!["0 % live ".into()];
        line.extend(tenths().map(bar));
        line.push(" 100 %".into());
        return vec![Line::from(line)];
    }
    let width = u64::from(area.width.saturating_sub(20));
    let row = |(tenth, n): (usize, u64)| {
        let words = format!("{:>3}-{} %", tenth * 10, tenth * 10 + 10);
        let bar = "█".repeat((n * width).div_ceil(most) as usize);
        Line::from(vec![format!("{words:<9} {:>8} ", count(n)).into(), bar.fg(color(tenth))])
    };
    tenths().map(row).collect()
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

    fn receipt(id: u64, evicted_items: u64) -> proto::Receipt {
        let account = |rss_bytes| Some(proto::MemoryAccount { rss_bytes, ..Default::default() });
        proto::Receipt {
            id,
            reason: "limit_lowered".into(),
            started_at_ms: 10_000 + 4_000 * id as i64,
            moved_bytes: 1 << 20,
            freed_segments: 12,
            evicted_items,
            before: account(180 << 20),
            after: account(100 << 20),
            ..Default::default()
        }
    }

    fn finding(severity: &str) -> Finding {
        let (evidence, remedy) = (format!("an {severity} was seen"), format!("cure the {severity}"));
        Finding { severity: severity.into(), evidence, remedy, ..Default::default() }
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
        for (at_ms, requests) in [(12_000, 1000), (32_000, 5000)] {
            up.learn(News::Stats(Box::new(proto::GetStatsResponse {
                memory: Some(memory.clone()),
                regime: "high".into(),
                requests,
                hits: requests,
                p99_us: 250,
                receipts: vec![receipt(2, 0), receipt(1, 0)],
                at_ms,
                ..Default::default()
            })));
        }
        let occupancy = vec![3, 0, 0, 0, 0, 0, 0, 0, 0, 60];
        let map = proto::GetMemoryMapResponse { segment_bytes: 64 << 10, occupancy, ..Default::default() };
        up.learn(News::Look(vec![finding("error"), finding("info")], map));
        let mut away = Sidecar::new("unix:/run/b.sock".parse().unwrap());
        away.learn(News::Lost("cannot reach unix:/run/b.sock".into()));
        App { sidecars: vec![up, away], chosen: 0, part: Part::default() }
    }

    fn shows(shown: &str, parts: &[&str]) {
        for part in parts {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }

    #[test]
    fn sidecars_stand_side_by_side() {
        let mut app = app();
        let parts = ["1 of 2 reached", "127.0.0.1:7071", "high", "200.0 MiB of 256.0 MiB", "100.0%", "250µs", "away"];
        shows(&screen(&app, 110, 30), &parts);
        shows(&screen(&app, 110, 30), &["findings", "error ×1"]);
        app.chosen = 1;
        shows(&screen(&app, 110, 30), &["Trying again every two seconds"]);
    }

    #[test]
    fn a_large_terminal_shows_everything_at_once() {
        let shown = screen(&app(), 120, 32);
        shows(
            &shown,
            &["14.0 s ago  #2 limit lowered: 1.0 MiB moved, 12 segments freed, resident 180.0 MiB → 100.0 MiB"],
        );
        shows(&shown, &["findings (2)", "error: an error was seen → cure the error", "info: an info was seen"]);
        shows(&shown, &["63 segments of 64.0 KiB", "  0-10 %         3 ██ ", " 90-100 %       60 ██████"]);
        shows(&shown, &["↑ ↓ sidecar   ← → receipt   q leave", "20.0 s ago"]);
    }

    #[test]
    fn a_run_of_the_cleaner_is_a_mark_on_the_chart() {
        let mut app = app();
        // Above them are the head, the table and the chart's title, whose legend has a dot, too.
        let dots = |shown: &str| shown.lines().skip(5).map(|line| line.matches('•').count()).sum::<usize>();
        let shown = screen(&app, 120, 32);
        shows(&shown, &["memory: used, resident, live • compaction ─"]);
        assert_eq!(dots(&shown), 2, "one for each run since the first reading:\n{shown}");
        let mut stats = app.sidecars[0].now.clone().unwrap().1;
        stats.receipts.insert(0, receipt(3, 9));
        app.sidecars[0].learn(News::Stats(Box::new(stats)));
        let shown = screen(&app, 120, 32);
        shows(
            &shown,
            &["• compaction • eviction", "#3 limit lowered: 1.0 MiB moved, 12 segments freed, 9 evicted, resident"],
        );
        assert_eq!(dots(&shown), 3, "{shown}");
    }

    #[test]
    fn a_chosen_receipt_stands_out_and_is_brought_into_view() {
        let mut app = app();
        app.sidecars[0].choose(-1);
        app.sidecars[0].choose(-1);
        let mut terminal = Terminal::new(TestBackend::new(80, 14)).unwrap();
        terminal.draw(|frame| draw(frame, &app)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = (0..14).rev().find(|&y| (0..80).any(|x| buffer[(x, y)].symbol() == "#")).unwrap();
        let text: String = (1..79).map(|x| buffer[(x, row)].symbol()).collect();
        assert!(text.contains("18.0 s ago  #1 limit lowered"), "the only row there is shows it: {text}");
        assert!(buffer[(20, row)].modifier.contains(Modifier::REVERSED));
    }

    #[test]
    fn a_small_terminal_shows_one_part_after_the_other() {
        let mut app = app();
        let shown = screen(&app, 80, 24);
        shows(&shown, &["receipts │ findings (2) │ 63 segments of 64.0 KiB", "#2 limit lowered", "tab next part"]);
        assert!(!shown.contains("90-100 %"));
        app.part = Part::Findings;
        shows(&screen(&app, 80, 24), &["error: an error was seen → cure the error"]);
        app.part = Part::Segments;
        shows(&screen(&app, 80, 24), &[" 90-100 %       60 ██████"]);
        let shown = screen(&app, 60, 12);
        shows(&shown, &["0 % live ▁        █ 100 %", "127.0.0.1:7071  high ", "unix:/run/b.soc away ", "error ×1"]);
    }

    #[test]
    fn a_sidecar_that_has_nothing_to_say_is_well() {
        let mut app = app();
        let mut quiet = Sidecar::new("127.0.0.1:7071".parse().unwrap());
        quiet.learn(News::Stats(Default::default()));
        app.sidecars[0] = quiet;
        shows(&screen(&app, 120, 40), &["the cleaner has not run yet", "…"]);
        app.sidecars[0].learn(News::Look(Vec::new(), proto::GetMemoryMapResponse::default()));
        shows(&screen(&app, 120, 40), &["all is well", "0 segments of 0 B", "none"]);
    }

    #[test]
    fn every_size_of_screen_can_be_drawn_and_a_small_one_says_so() {
        let mut app = app();
        for (width, height) in
            (1..140).step_by(7).flat_map(|width| (1..50).step_by(3).map(move |height| (width, height)))
        {
            app.chosen = usize::from(width % 2);
            app.part = Part::ALL[usize::from(height % 3)];
            screen(&app, width, height);
        }
        let small = screen(&app, 59, 30);
        assert!(small.contains("the terminal has 59 × 30; this needs 60 × 12"), "{small}");
    }
}
