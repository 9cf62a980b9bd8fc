//! Charts over time: memory with the runs of the cleaner as marks, the hit ratio, latency.
//!
//! All charts have the same time axis, from the oldest reading to the newest. A curve has a gap while there were no
//! requests: it is drawn in pieces.

use super::style::{COMPACTED, EVICTED, HITS, LIVE, P50, P99, RESIDENT, SELECTED, USED, micros};
use crate::cli::top::follow::{Reading, Sidecar};
use ebb_config::units::format::{bytes, duration};
use ebb_proto as proto;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Stylize as _};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType};
use std::collections::VecDeque;

/// Minimum upper end of the latency axis, in microseconds.
const MIN_LATENCY_AXIS_US: u32 = 20;

/// Points of one color: seconds since the oldest reading, and a value.
type Points = (Color, Vec<(f64, f64)>);

/// The time axis.
struct TimeAxis {
    first_ms: i64,
    seconds: f64,
}

impl TimeAxis {
    fn of(readings: &VecDeque<Reading>) -> Self {
        let first_ms = readings.front().map_or(0, |reading| reading.at_ms);
        let last_ms = readings.back().map_or(0, |reading| reading.at_ms);
        Self { first_ms, seconds: ((last_ms - first_ms) as f64 / 1000.0).max(1.0) }
    }

    fn at(&self, at_ms: i64) -> f64 {
        (at_ms - self.first_ms) as f64 / 1000.0
    }

    fn axis(&self) -> Axis<'static> {
        let ago = format!("{} ago", duration((self.seconds * 1000.0) as u64));
        Axis::default().bounds([0.0, self.seconds]).labels([ago, "now".into()]).labels_alignment(Alignment::Center)
    }

    /// A curve, in pieces without a gap.
    fn curve(&self, readings: &VecDeque<Reading>, color: Color, of: fn(&Reading) -> Option<f64>) -> Vec<Points> {
        let point = |reading: &Reading| of(reading).map(|value| (self.at(reading.at_ms), value));
        let points: Vec<_> = readings.iter().map(point).collect();
        let pieces = points.split(Option::is_none).filter(|piece| !piece.is_empty());
        pieces.map(|piece| (color, piece.iter().copied().flatten().collect())).collect()
    }
}

/// Memory over time, with a mark at the resident memory after each run of the cleaner.
pub(super) fn memory(frame: &mut Frame<'_>, sidecar: &Sidecar, stats: &proto::GetStatsResponse, area: Rect) {
    let readings = &sidecar.readings;
    let time = TimeAxis::of(readings);
    let limit = stats.memory.as_ref().map_or(0, |memory| memory.limit_bytes);
    let most = readings.iter().map(|reading| reading.used_bytes.max(reading.rss_bytes)).max().unwrap_or(1).max(1);
    // Show the limit once use exceeds half of it.
    let top = if most * 2 > limit { limit.max(most) } else { most + most / 4 };

    let mut lines = time.curve(readings, USED, |reading| Some(reading.used_bytes as f64));
    lines.extend(time.curve(readings, RESIDENT, |reading| Some(reading.rss_bytes as f64)));
    lines.extend(time.curve(readings, LIVE, |reading| Some(reading.live_bytes as f64)));
    let shown = sidecar.receipts.iter().filter(|receipt| receipt.started_at_ms >= time.first_ms);
    let marks = |of: &dyn Fn(&proto::Receipt) -> bool| -> Vec<(f64, f64)> {
        let mark = |receipt: &proto::Receipt| {
            let at = time.at(receipt.started_at_ms).min(time.seconds);
            (at, rss_bytes(receipt.after.as_ref()).min(top) as f64)
        };
        shown.clone().filter(|receipt| of(receipt)).map(mark).collect()
    };
    let marks = [
        (COMPACTED, marks(&|receipt| receipt.evicted_items == 0)),
        (EVICTED, marks(&|receipt| receipt.evicted_items > 0)),
        (SELECTED, marks(&|receipt| Some(receipt.id) == sidecar.selected_receipt)),
    ];

    let mut title = vec![" memory: ".into(), "used".fg(USED), ", ".into(), "resident".fg(RESIDENT), ", ".into()];
    title.extend(["live ".fg(LIVE)]);
    for ((color, points), name) in marks.iter().zip(["• compaction ", "• eviction "]) {
        if !points.is_empty() {
            title.push(name.fg(*color));
        }
    }
    let y = Axis::default().bounds([0.0, top as f64]).labels(["0".to_owned(), bytes(top / 2), bytes(top)]);
    frame.render_widget(chart(&lines, &marks, &time, y).block(Block::bordered().title(Line::from(title))), area);
}

/// The hit ratio and latency over time, side by side, each in a copy of `block`.
pub(super) fn curves(frame: &mut Frame<'_>, sidecar: &Sidecar, block: &Block<'_>, area: Rect) {
    let readings = &sidecar.readings;
    let time = TimeAxis::of(readings);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);

    let hits = time.curve(readings, HITS, |reading| reading.hit_percent);
    let y = Axis::default().bounds([0.0, 100.0]).labels(["0 %", "50 %", "100 %"]);
    let mut title = vec![" hit ratio ".fg(HITS)];
    if hits.is_empty() {
        title.push("no reads ".dark_gray());
    }
    frame.render_widget(chart(&hits, &[], &time, y).block(block.clone().title(Line::from(title))), left);

    let mut latency = time.curve(readings, P50, |reading| reading.p50_us.map(f64::from));
    latency.extend(time.curve(readings, P99, |reading| reading.p99_us.map(f64::from)));
    let most = readings.iter().filter_map(|reading| reading.p99_us.max(reading.p50_us)).max();
    let most = most.unwrap_or(0).max(MIN_LATENCY_AXIS_US);
    let top = most.saturating_add(most / 8);
    let y = Axis::default().bounds([0.0, f64::from(top)]).labels(["0".to_owned(), micros(top / 2), micros(top)]);
    let mut title = vec![" latency: ".into(), "p99".fg(P99), ", ".into(), "p50 ".fg(P50)];
    if latency.is_empty() {
        title.push("no requests ".dark_gray());
    }
    frame.render_widget(chart(&latency, &[], &time, y).block(block.clone().title(Line::from(title))), right);
}

fn chart<'a>(lines: &'a [Points], marks: &'a [Points], time: &TimeAxis, y: Axis<'a>) -> Chart<'a> {
    let lines = lines.iter().map(|points| dataset(points, GraphType::Line, Marker::Braille));
    let marks = marks.iter().map(|points| dataset(points, GraphType::Scatter, Marker::Dot));
    Chart::new(lines.chain(marks).collect()).x_axis(time.axis()).y_axis(y).legend_position(None)
}

fn dataset((color, points): &Points, graph: GraphType, marker: Marker) -> Dataset<'_> {
    Dataset::default().marker(marker).graph_type(graph).style(*color).data(points)
}

pub(super) fn rss_bytes(account: Option<&proto::MemoryAccount>) -> u64 {
    account.map_or(0, |memory| memory.rss_bytes)
}
