//! The table of cells: medians of the rounds, and ratios to the first peer.

use serde_json::{Value, json};

use super::super::process::Server;
use super::super::wire::Kind;
use super::burst::Burst;
use super::cell::{Cell, Figures};
use ebb_config::units::format::count;
use ebb_config::units::one_or_many;
use ebb_terminal::Table;

/// The rounds of each cell on each server.
#[derive(Debug)]
pub(super) struct Rows {
    names: Vec<&'static str>,
    rows: Vec<(Cell, Vec<Vec<Figures>>)>,
    pub(super) burst: Option<Burst>,
    /// Whether client and started servers run on separate cores.
    pinned: bool,
}

impl Rows {
    pub(super) fn new(servers: &[Server], pinned: bool) -> Self {
        Self { names: servers.iter().map(|server| server.name).collect(), rows: Vec::new(), burst: None, pinned }
    }

    pub(super) fn add(&mut self, cell: Cell, server: usize, figures: Figures) {
        let at = self.rows.iter().position(|(known, _)| *known == cell).unwrap_or_else(|| {
            self.rows.push((cell, vec![Vec::new(); self.names.len()]));
            self.rows.len() - 1
        });
        self.rows[at].1[server].push(figures);
    }

    /// Throughput of a cell relative to the empty call of the same shape.
    fn of_empty(&self, cell: Cell, server: usize) -> Option<f64> {
        let empty = Cell { kind: Kind::Empty, batch: false, ..cell };
        let (_, rounds) =
            self.rows.iter().find(|(known, _)| *known == empty && cell.kind != Kind::Empty && !cell.batch)?;
        let (_, own) = self.rows.iter().find(|(known, _)| *known == cell)?;
        Some(median(&own[server])?.per_second / median(&rounds[server])?.per_second)
    }

    pub(super) fn as_text(&self) -> String {
        let against = self.names.get(1);
        let header =
            ["", "server", "ops/s", "p50 µs", "p99", "p99.9", "server CPU µs/op", "of empty"].map(str::to_owned);
        let more = against.map(|name| [format!("ops ÷ {name}"), format!("CPU ÷ {name}")]);
        let mut table = Table::new(header.into_iter().chain(more.into_iter().flatten()));
        let mut refused = 0;
        for (cell, servers) in &self.rows {
            let peer = servers.get(1).and_then(|rounds| median(rounds));
            for (server, rounds) in servers.iter().enumerate() {
                let Some(figures) = median(rounds) else { continue };
                refused += figures.refused;
                let mut cells = vec![
                    cell.to_string(),
                    self.names[server].to_owned(),
                    count(figures.per_second as u64),
                    format!("{:.0}", figures.latency.p50),
                    format!("{:.0}", figures.latency.p99),
                    format!("{:.0}", figures.latency.p999),
                    format!("{:.2}", figures.cpu_us),
                    self.of_empty(*cell, server).map_or(String::new(), |ratio| format!("{ratio:.2}")),
                ];
                if let (Some(peer), true) = (peer, server != 1) {
                    cells.push(format!("{:.2}", figures.per_second / peer.per_second));
                    cells.push(format!("{:.2}", figures.cpu_us / peer.cpu_us));
                }
                table.row(cells);
            }
        }
        let cores =
            if self.pinned { "servers started here on core 0, client on core 1" } else { "client not bound to a core" };
        let mut text = format!("{table}\n{cores}; medians; the empty call is GetCapabilities (PING, mn)\n");
        if refused > 0 {
            let calls = one_or_many(refused, "call was refused", "calls were refused");
            text += &format!("{refused} {calls} or found nothing\n");
        }
        if let Some(Burst { before, peak, after }) = self.burst {
            let over = |bytes: u64| (bytes as f64 - before as f64) / 1e6;
            let (before, peak, after) = (before as f64 / 1e6, over(peak), over(after));
            text += &format!(
                "burst of 10,000 calls in flight: {before:.1} MB before, {peak:+.1} MB at most, {after:+.1} MB 10 s later\n"
            );
        }
        text
    }

    pub(super) fn as_json(&self) -> Value {
        let mut cells = Vec::new();
        for (cell, servers) in &self.rows {
            for (server, rounds) in servers.iter().enumerate() {
                let Some(figures) = median(rounds) else { continue };
                cells.push(json!({
                    "cell": cell.to_string(),
                    "server": self.names[server],
                    "per_second": figures.per_second,
                    "latency": figures.latency.json(),
                    "server_cpu_us_per_op": figures.cpu_us,
                    "of_empty": self.of_empty(*cell, server),
                    "refused": figures.refused,
                    "rounds": rounds.len(),
                }));
            }
        }
        let burst = self
            .burst
            .map(|burst| json!({ "before_bytes": burst.before, "peak_bytes": burst.peak, "after_bytes": burst.after }));
        json!({ "cells": cells, "burst": burst, "pinned": self.pinned })
    }
}

/// The median of the rounds, separately for each figure.
fn median(rounds: &[Figures]) -> Option<Figures> {
    let middle = |figure: &dyn Fn(&Figures) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    let mut figures = *rounds.first()?;
    figures.per_second = middle(&|f| f.per_second)?;
    figures.cpu_us = middle(&|f| f.cpu_us)?;
    figures.latency.p50 = middle(&|f| f.latency.p50)?;
    figures.latency.p99 = middle(&|f| f.latency.p99)?;
    figures.latency.p999 = middle(&|f| f.latency.p999)?;
    figures.refused = rounds.iter().map(|f| f.refused).sum();
    Some(figures)
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::Shape;
    use super::super::cell::Via;
    use super::*;

    #[test]
    fn figures_are_medians_and_ratios_to_the_first_peer() {
        let mut rows = Rows { names: vec!["ebb", "redis"], rows: Vec::new(), burst: None, pinned: true };
        let cell =
            |kind| Cell { shape: Shape::Unary, kind, batch: false, via: Via::Tcp, connections: 4, in_flight: 64 };
        let figures = |per_second, cpu_us| Figures { per_second, cpu_us, ..Figures::default() };
        for (per_second, cpu_us) in [(300.0, 1.0), (100.0, 9.0), (200.0, 2.0)] {
            rows.add(cell(Kind::Get), 0, figures(per_second, cpu_us));
        }
        rows.add(cell(Kind::Get), 1, figures(400.0, 4.0));
        rows.add(cell(Kind::Empty), 0, figures(250.0, 1.0));
        let text = rows.as_text();
        let line = text.lines().find(|line| line.contains("get") && line.contains("ebb")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(&words[..8], ["tcp", "unary", "get", "4", "x", "64", "ebb", "200"], "{line}");
        assert_eq!(&words[words.len() - 4..], ["2.00", "0.80", "0.50", "0.50"], "{line}");
        assert_eq!(median(&[]).map(|figures| figures.cpu_us), None);
    }
}
