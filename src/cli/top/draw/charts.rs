//! What changes over time.

use crate::cli::top::follow::{Reading, Sidecar};
use crate::cli::units::{bytes, duration};
use crate::proto;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Stylize as _};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType};

const USED: Color = Color::Magenta;
pub(super) const RESIDENT: Color = Color::Blue;
pub(super) const LIVE: Color = Color::Green;
/// A run of the cleaner that lost nothing.
pub(super) const COMPACTED: Color = Color::Yellow;
/// One that dropped entries.
pub(super) const EVICTED: Color = Color::Red;
const CHOSEN: Color = Color::White;

/// Memory over time, and where it stood after each run of the cleaner.
pub(super) fn memory(frame: &mut Frame<'_>, sidecar: &Sidecar, stats: &proto::GetStatsResponse, area: Rect) {
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

pub(super) fn rss_bytes(account: Option<&proto::MemoryAccount>) -> u64 {
    account.map_or(0, |memory| memory.rss_bytes)
}
