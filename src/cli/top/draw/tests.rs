//! Tests of the screen.

use super::*;
use crate::cli::top::follow::{Details, Update};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ebb_proto::{diagnose_response::Finding, get_config_response::Setting};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

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
    let mut online = Sidecar::new(1, "127.0.0.1:7071".parse().unwrap());
    let memory = proto::MemoryAccount {
        limit_bytes: 256 << 20,
        used_bytes: 200 << 20,
        rss_bytes: 199 << 20,
        live_bytes: 150 << 20,
        ..Default::default()
    };
    for (at_ms, requests) in [(12_000, 1000), (32_000, 5000)] {
        online.apply(Update::Stats(Box::new(proto::GetStatsResponse {
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
    let setting = |(key, value, source): (&str, &str, &str)| Setting {
        key: key.into(),
        value: value.into(),
        source: source.into(),
    };
    let mut settings =
        vec![setting(("maxMemory", "64Mi", "flag --max-memory")), setting(("tick", "50ms", "/etc/ebb/ebb.yaml"))];
    settings.extend((10..30).map(|n| setting((&format!("a{n}"), "1s", "default"))));
    let config = proto::GetConfigResponse { settings, generation: 3, applied_at_ms: 2_000, ..Default::default() };
    let findings = vec![finding("error"), finding("info")];
    online.apply(Update::Details(Details { findings, map, config: Some(config) }));
    let mut offline = Sidecar::new(2, "unix:/run/b.sock".parse().unwrap());
    offline.apply(Update::Disconnected("cannot reach unix:/run/b.sock".into()));
    App { sidecars: vec![online, offline], ..App::new() }
}

fn shows(shown: &str, parts: &[&str]) {
    let missing: Vec<_> = parts.iter().filter(|part| !shown.contains(**part)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in\n{shown}");
}

#[test]
fn lists_sidecars_side_by_side() {
    let mut app = app();
    let texts = ["1 of 2 connected", "127.0.0.1:7071", "high", "200.0 MiB of 256.0 MiB", "100.0%", "250µs", "offline"];
    shows(&screen(&app, 110, 30), &texts);
    shows(&screen(&app, 110, 30), &["findings", "error ×1"]);
    app.selected = 1;
    shows(&screen(&app, 110, 30), &["Retrying every two seconds"]);
}

#[test]
fn the_first_line_says_which_pods_are_shown() {
    let mut app = app();
    app.targets = Some("deployment/shop in namespace shop".into());
    app.change = Some("new: pod/c, gone: pod/a".into());
    let line = "1 of 2 connected · deployment/shop in namespace shop · new: pod/c, gone: pod/a";
    shows(&screen(&app, 110, 30), &[line]);
    app.problem = Some("deployment/shop: not found in namespace shop".into());
    shows(&screen(&app, 160, 30), &["in namespace shop · deployment/shop: not found in namespace shop"]);
    app.sidecars.clear();
    (app.change, app.problem) = (None, None);
    let keys = [KeyCode::Left, KeyCode::Right, KeyCode::Down, KeyCode::Tab, KeyCode::PageDown, KeyCode::PageUp];
    for (width, height) in [(60, 12), (80, 24), (120, 40)] {
        app.panel = Panel::Configuration;
        shows(&screen(&app, width, height), &["0 of 0 connected", "There are no pods."]);
        app.area = Rect::new(0, 0, width, height);
        for key in keys {
            assert!(!app.handle(&Event::Key(KeyEvent::new(key, KeyModifiers::NONE))));
        }
    }
}

#[test]
fn a_large_terminal_shows_everything_at_once() {
    let shown = screen(&app(), 120, 36);
    shows(&shown, &["14.0 s ago  #2 limit lowered: 1.0 MiB moved, 12 segments freed, resident 180.0 MiB → 100.0 MiB"]);
    shows(&shown, &["findings (2)", "error: an error was seen → cure the error", "info: an info was seen"]);
    shows(&shown, &["63 segments of 64.0 KiB", "  0-10 %         3 ██ ", " 90-100 %       60 ██████"]);
    shows(&shown, &["↑ ↓ sidecar   ← → receipt   tab configuration   q quit", "20.0 s ago"]);
}

#[test]
fn one_segment_is_singular() {
    let mut app = app();
    let sidecar = &mut app.sidecars[0];
    sidecar.receipts.iter_mut().for_each(|receipt| receipt.freed_segments = 1);
    sidecar.details.as_mut().unwrap().map.occupancy = vec![1];
    shows(&screen(&app, 120, 36), &["1.0 MiB moved, 1 segment freed, resident", " 1 segment of 64.0 KiB "]);
}

#[test]
fn a_run_of_the_cleaner_is_a_mark_on_the_chart() {
    let mut app = app();
    // Skips the header, the table and the title of the chart, whose legend contains a dot.
    let dots = |shown: &str| shown.lines().skip(5).map(|line| line.matches('•').count()).sum::<usize>();
    let shown = screen(&app, 120, 36);
    shows(&shown, &["memory: used, resident, live • compaction ─"]);
    assert_eq!(dots(&shown), 2, "one per run since the first reading:\n{shown}");
    let mut stats = app.sidecars[0].latest.clone().unwrap().1;
    stats.receipts.insert(0, receipt(3, 9));
    app.sidecars[0].apply(Update::Stats(Box::new(stats)));
    let shown = screen(&app, 120, 36);
    shows(
        &shown,
        &["• compaction • eviction", "#3 limit lowered: 1.0 MiB moved, 12 segments freed, 9 evicted, resident"],
    );
    assert_eq!(dots(&shown), 3, "{shown}");
}

/// The columns in which something is drawn in a color.
fn columns(app: &App, color: Color, width: u16, height: u16) -> Vec<u16> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let is_drawn = |x, y| buffer[(x, y)].fg == color && ("\u{2801}"..="\u{28ff}").contains(&buffer[(x, y)].symbol());
    (0..width).filter(|&x| (0..height).any(|y| is_drawn(x, y))).collect()
}

#[test]
fn a_curve_has_a_gap_while_there_are_no_requests() {
    let mut app = app();
    let mut sidecar = Sidecar::new(1, "127.0.0.1:7071".parse().unwrap());
    let mut stats = proto::GetStatsResponse::default();
    let mut feed = |seconds, has_requests: bool| {
        for _ in 0..seconds {
            (stats.at_ms, stats.uptime_ms) = (stats.at_ms + 1_000, stats.uptime_ms + 1_000);
            (stats.p50_us, stats.p99_us) = if has_requests { (60, 900) } else { (0, 0) };
            stats.hits += u64::from(has_requests);
            sidecar.apply(Update::Stats(Box::new(stats.clone())));
        }
        app.sidecars[0] = std::mem::replace(&mut sidecar, Sidecar::new(1, "127.0.0.1:7071".parse().unwrap()));
        let drawn = [style::HITS, style::P99, style::P50].map(|color| columns(&app, color, 120, 36));
        let shown = screen(&app, 120, 36);
        sidecar = std::mem::replace(&mut app.sidecars[0], Sidecar::new(1, "127.0.0.1:7071".parse().unwrap()));
        (drawn, shown)
    };
    let (drawn, shown) = feed(20, false);
    assert!(drawn.iter().all(Vec::is_empty), "{drawn:?}");
    shows(
        &shown,
        &["hit ratio no reads ─", "latency: p99, p50 no requests ─", "│100 %│", "│50 % │", "│0 %  │", "│22µs │"],
    );
    let (drawn, shown) = feed(1, true);
    assert!(drawn.iter().all(|columns| columns.len() == 1), "a single reading is a dot: {drawn:?}");
    shows(&shown, &["hit ratio ─", "latency: p99, p50 ─", "│1.0ms│", "20.0 s ago"]);
    feed(19, true);
    feed(20, false);
    let (drawn, _) = feed(20, true);
    for columns in drawn {
        let gaps: Vec<u16> = columns.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 1).collect();
        assert!(matches!(gaps[..], [5..15]), "one gap, a quarter of the time: {columns:?}");
    }
}

#[test]
fn highlights_the_selected_receipt_and_scrolls_to_it() {
    let mut app = app();
    app.sidecars[0].select_receipt(-1);
    app.sidecars[0].select_receipt(-1);
    let mut terminal = Terminal::new(TestBackend::new(80, 14)).unwrap();
    terminal.draw(|frame| draw(frame, &app)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = (0..14).rev().find(|&y| (0..80).any(|x| buffer[(x, y)].symbol() == "#")).unwrap();
    let text: String = (1..79).map(|x| buffer[(x, row)].symbol()).collect();
    assert!(text.contains("18.0 s ago  #1 limit lowered"), "the only visible row shows it: {text}");
    assert!(buffer[(20, row)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn a_small_terminal_shows_one_panel_at_a_time() {
    let mut app = app();
    let shown = screen(&app, 80, 24);
    shows(
        &shown,
        &[
            "receipts │ findings (2) │ 63 segments of 64.0 KiB │ curves │ configuration ",
            "#2 limit lowered",
            "tab next panel",
        ],
    );
    assert!(!shown.contains("90-100 %"));
    app.panel = Panel::Findings;
    shows(&screen(&app, 80, 24), &["error: an error was seen → cure the error"]);
    app.panel = Panel::Segments;
    shows(&screen(&app, 80, 24), &[" 90-100 %       60 ██████"]);
    app.panel = Panel::Curves;
    shows(&screen(&app, 80, 24), &["hit ratio ", "latency: p99, p50 ", "100 %│", "281µs│", "20.0 s ago"]);
    app.panel = Panel::Segments;
    let shown = screen(&app, 60, 12);
    shows(&shown, &["┌ receipts │ findings │ segments │ curves │ configuration ─┐"]);
    shows(&shown, &["0 % live ▁        █ 100 %", "127.0.0.1:7071  high ", "unix:/run/b.soc offline ", "error ×1"]);
}

#[test]
fn draws_set_values_first_and_scrolls_the_configuration() {
    let mut app = app();
    app.panel = Panel::Configuration;
    app.area = Rect::new(0, 0, 80, 24);
    let rows = |app: &App| {
        let shown = screen(app, 80, 24);
        let row = |line: &str| line.strip_prefix("\"│")?.split_whitespace().next().map(str::to_owned);
        (shown.lines().filter_map(row).filter(|key| key.starts_with(['a', 'm', 't'])).collect::<Vec<_>>(), shown)
    };
    let (first, shown) = rows(&app);
    assert_eq!(first[..3], ["maxMemory", "tick", "a10"], "{shown}");
    let texts =
        ["64Mi  flag --max-memory", "50ms  /etc/ebb/ebb.yaml", "generation 3, active for 30.0 s", "1 to 10 of 22"];
    shows(&shown, &texts);
    shows(&shown, &["↑ ↓ sidecar   PgUp PgDn scroll   tab next panel   q quit"]);
    app.scroll_offset = scroll(&app, true);
    assert_eq!(rows(&app).0[0], first[first.len() - 1], "the last line of a page is the first of the next");
    (0..9).for_each(|_| app.scroll_offset = scroll(&app, true));
    let (last, shown) = rows(&app);
    assert_eq!((last.len(), &*last[last.len() - 1]), (first.len(), "a29"), "{shown}");
    shows(&shown, &["13 to 22 of 22"]);
    app.scroll_offset = scroll(&app, false);
    shows(&rows(&app).1, &["4 to 13 of 22"]);
    (0..9).for_each(|_| app.scroll_offset = scroll(&app, false));
    assert_eq!(rows(&app).0, first);

    let large = screen(&app, 120, 36);
    shows(&large, &["┌ configuration ─", "hit ratio", "latency", "a20", "tab back"]);
    assert!(!large.contains("receipts"));
    shows(&screen(&app, 120, 50), &["a29"]);
}

#[test]
fn draws_rejected_long_and_missing_configurations() {
    let mut app = app();
    app.panel = Panel::Configuration;
    let problem = "ebb.yaml: tick: 1 is out of range (10 to 2000 ms); and so on, until the line is too long for it";
    app.sidecars[0].details.as_mut().unwrap().config.as_mut().unwrap().problem = problem.into();
    shows(
        &screen(&app, 80, 24),
        &["│configuration on disk rejected: ebb.yaml: tick: 1 is out", "1 to 10 of 24", "for it"],
    );
    let settings = vec![Setting { key: "k".repeat(1 << 17), value: "v".repeat(1 << 17), source: "default".into() }];
    let config = Some(proto::GetConfigResponse { settings, ..Default::default() });
    app.sidecars[0].apply(Update::Details(Details { config, ..Default::default() }));
    let cut = format!("{}…  {}…  default", "k".repeat(31), "v".repeat(23));
    shows(&screen(&app, 80, 24), &[&cut]);
    app.sidecars[0].apply(Update::Details(Details::default()));
    let screens = [(60, 12), (80, 24), (120, 36)].map(|(width, height)| screen(&app, width, height));
    let sentence = "this server is too old to report its configuration";
    let wrong: Vec<_> = screens.into_iter().filter(|screen| !screen.contains(sentence)).collect();
    assert!(wrong.is_empty(), "{sentence} is missing in\n{}", wrong.join("\n"));
}

#[test]
fn an_idle_sidecar_has_no_findings() {
    let mut app = app();
    let mut idle = Sidecar::new(1, "127.0.0.1:7071".parse().unwrap());
    idle.apply(Update::Stats(Default::default()));
    app.sidecars[0] = idle;
    shows(&screen(&app, 120, 40), &["the cleaner has not run yet", "…"]);
    app.sidecars[0].apply(Update::Details(Details::default()));
    shows(&screen(&app, 120, 40), &["all is well", "0 segments of 0 B", "none"]);
}

#[test]
fn draws_every_size_and_reports_one_that_is_too_small() {
    let mut app = app();
    for (width, height) in (1..140).step_by(7).flat_map(|width| (1..50).step_by(3).map(move |height| (width, height))) {
        app.selected = usize::from(width % 2);
        app.panel = Panel::VARIANTS[usize::from(height) % Panel::VARIANTS.len()];
        screen(&app, width, height);
    }
    let small = screen(&app, 59, 30);
    assert!(small.contains("terminal too small: 59 × 30; ebb top needs 60 × 12"), "{small}");
}
