//! Defines the colors of `ebb top`, and formats latencies.

use ratatui::style::Color;

pub(super) const USED: Color = Color::Magenta;
pub(super) const RESIDENT: Color = Color::Blue;
pub(super) const LIVE: Color = Color::Green;
/// A run of the cleaner that evicted nothing.
pub(super) const COMPACTED: Color = Color::Yellow;
/// A run of the cleaner that evicted entries.
pub(super) const EVICTED: Color = Color::Red;
pub(super) const SELECTED: Color = Color::White;
pub(super) const HITS: Color = Color::Cyan;
pub(super) const P99: Color = Color::LightMagenta;
pub(super) const P50: Color = Color::LightBlue;

/// The color of a severity.
pub(super) fn severity_color(severity: &str) -> Color {
    match severity {
        "error" => Color::Red,
        "warning" => Color::Yellow,
        _ => Color::Blue,
    }
}

/// Formats a latency; 0 means that there is none.
pub(super) fn micros(us: u32) -> String {
    match us {
        0 => "–".to_owned(),
        1..1000 => format!("{us}µs"),
        _ => format!("{:.1}ms", f64::from(us) / 1000.0),
    }
}
