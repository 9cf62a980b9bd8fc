//! The panels about a sidecar: receipts, findings, segments, curves, configuration.

use super::charts::{self, rss_bytes};
use super::configuration;
use super::style::{COMPACTED, EVICTED, LIVE, severity_color};
use crate::cli::top::follow::{Details, Sidecar};
use crate::cli::top::{App, Panel};
use ebb_config::units::format::{bytes, count, counted, duration};
use ebb_proto::{self as proto, diagnose_response::Finding};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize as _;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Padding, Paragraph, Wrap};

/// Rows of the histogram of segments.
pub(super) const HISTOGRAM_ROWS: u16 = 10;

/// The title of a panel.
pub(super) fn label(which: Panel, sidecar: &Sidecar) -> String {
    match (which, &sidecar.details) {
        (Panel::Findings, Some(details)) if !details.findings.is_empty() => {
            format!("findings ({})", details.findings.len())
        }
        (Panel::Segments, Some(Details { map, .. })) => {
            let segments = counted(map.occupancy.iter().sum(), "segment", "segments");
            format!("{segments} of {}", bytes(map.segment_bytes))
        }
        _ => which.name().to_owned(),
    }
}

/// Draws a panel of the selected sidecar.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    which: Panel,
    (app, sidecar): (&App, &Sidecar),
    block: Block<'_>,
    area: Rect,
) {
    let inner = block.inner(area);
    // Findings are wrapped; rows of receipts and segments are cut off at the edge.
    let words = match which {
        Panel::Receipts => Paragraph::new(receipts(sidecar, usize::from(inner.height))),
        Panel::Findings => Paragraph::new(findings(sidecar)).wrap(Wrap { trim: true }),
        Panel::Segments => Paragraph::new(segments(sidecar, inner)),
        Panel::Curves => {
            frame.render_widget(block, area);
            return charts::curves(frame, sidecar, &Block::new().padding(Padding::right(1)), inner);
        }
        Panel::Configuration => return configuration::draw(frame, sidecar, app.scroll_offset, block, area),
    };
    frame.render_widget(words.block(block), area);
}

/// As many receipts as fit, newest first, scrolled so that the selected one is visible.
fn receipts(sidecar: &Sidecar, rows: usize) -> Vec<Line<'static>> {
    let Some((_, stats)) = &sidecar.latest else { return Vec::new() };
    if sidecar.receipts.is_empty() {
        return vec![Line::from("the cleaner has not run yet").dark_gray()];
    }
    let newest_first = || sidecar.receipts.iter().rev();
    let selected = newest_first().position(|receipt| Some(receipt.id) == sidecar.selected_receipt);
    let first = selected.map_or(0, |at| (at + 1).saturating_sub(rows));
    let line = |(at, receipt): (usize, &proto::Receipt)| {
        let line = receipt_line(receipt, stats.at_ms);
        if Some(at) == selected { line.reversed() } else { line }
    };
    newest_first().enumerate().skip(first).take(rows).map(line).collect()
}

fn receipt_line(receipt: &proto::Receipt, now_ms: i64) -> Line<'static> {
    let proto::Receipt { id, reason, started_at_ms, moved_bytes, evicted_items, freed_segments, cpu_us, .. } = receipt;
    let ago = duration(now_ms.saturating_sub(*started_at_ms).max(0) as u64);
    let (color, evicted) = match evicted_items {
        0 => (COMPACTED, String::new()),
        n => (EVICTED, format!("{} evicted, ", count(*n))),
    };
    let did = format!(
        " {}: {} moved, {} freed, {evicted}resident {} → {}, {:.1} ms of CPU",
        reason.replace('_', " "),
        bytes(*moved_bytes),
        counted(*freed_segments, "segment", "segments"),
        bytes(rss_bytes(receipt.before.as_ref())),
        bytes(rss_bytes(receipt.after.as_ref())),
        *cpu_us as f64 / 1000.0,
    );
    Line::from(vec![format!("{ago:>8} ago  ").into(), format!("#{id}").fg(color), did.into()])
}

/// The findings, worst first.
fn findings(sidecar: &Sidecar) -> Vec<Line<'_>> {
    let line = |finding: &'_ Finding| {
        let Finding { severity, evidence, remedy, .. } = finding;
        let severity = Span::styled(severity.clone(), severity_color(severity)).bold();
        Line::from(vec![severity, format!(": {evidence} → ").into(), remedy.clone().dark_gray()])
    };
    match sidecar.details.as_ref().map(|details| &*details.findings) {
        None => vec![Line::from("…").dark_gray()],
        Some([]) => vec![Line::from("all is well").green()],
        Some(findings) => findings.iter().map(line).collect(),
    }
}

/// A histogram of segments by occupancy: one row per tenth, or a single row if ten do not fit.
fn segments(sidecar: &Sidecar, area: Rect) -> Vec<Line<'static>> {
    let Some(Details { map, .. }) = &sidecar.details else { return vec![Line::from("…").dark_gray()] };
    let most = map.occupancy.iter().copied().max().unwrap_or(0).max(1);
    // Compaction frees segments with a low occupancy.
    let color = |tenth: usize| if tenth < 5 { COMPACTED } else { LIVE };
    let tenths = || map.occupancy.iter().copied().enumerate();
    if area.height < HISTOGRAM_ROWS {
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
