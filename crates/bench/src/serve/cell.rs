//! One cell of the table: a closed loop of one kind of call over some connections, for a fixed time.

use anyhow::{Context as _, anyhow, bail};
use std::fmt;
use std::time::{Duration, Instant};

use super::super::connection::{Connection, Load};
use super::super::latency::{Latency, Percentiles};
use super::super::process::Server;
use super::super::wire::{Kind, Reply, Request, Shape};
use super::super::workload::{Entries, Sizes, key, mix};
use super::system;
use ebb_proto::client::Address;

/// Keys in a batch.
pub(super) const BATCH: u64 = 64;
/// Warm-up before the window.
const WARM: Duration = Duration::from_millis(60);
/// Timeout of replies after the window, and maximum length of a repeated window.
const LATE: Duration = Duration::from_secs(10);

/// Transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Tcp,
    Unix,
}

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) shape: Shape,
    pub(super) kind: Kind,
    pub(super) batch: bool,
    pub(super) via: Via,
    pub(super) connections: usize,
    pub(super) in_flight: usize,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let via = if self.via == Via::Tcp { "tcp" } else { "unix" };
        let shape = match (self.batch, self.shape) {
            (true, _) => "batch",
            (false, Shape::Unary) => "unary",
            (false, Shape::Pipe) => "pipe",
        };
        let kind = format!("{:?}", self.kind).to_lowercase();
        write!(f, "{via} {shape} {kind} {} x {}", self.connections, self.in_flight)
    }
}

/// Result of one round of a cell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) per_second: f64,
    pub(super) latency: Percentiles,
    /// Server CPU per operation, in microseconds.
    pub(super) cpu_us: f64,
    pub(super) refused: u64,
}

/// The entries of every server.
pub(super) fn entries(count: u64) -> Entries {
    Entries { count, sizes: Sizes::Fixed(128) }
}

/// The load of one connection.
struct Share {
    cell: Cell,
    entries: Entries,
    random: u64,
    opens: Instant,
    closes: Instant,
    operations: u64,
    refused: u64,
    latency: Latency,
}

impl Share {
    fn new(cell: Cell, keys: u64, number: usize, opens: Instant, window: Duration) -> Self {
        Self {
            cell,
            entries: entries(keys),
            random: mix(number as u64),
            opens,
            closes: opens + window,
            operations: 0,
            refused: 0,
            latency: Latency::default(),
        }
    }

    fn pick(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random % self.entries.count
    }
}

impl Load for Share {
    fn next(&mut self, now: Instant, request: &mut Request) -> bool {
        if now >= self.closes {
            return false;
        }
        let Cell { kind, batch, .. } = self.cell;
        // The mark is the start time, so that requests from before the window can be ignored.
        request.begin(kind, batch, u64::from(now >= self.opens));
        let keys = match kind {
            Kind::Empty => 0,
            _ if batch => BATCH,
            _ => 1,
        };
        for _ in 0..keys {
            let n = self.pick();
            match kind {
                Kind::Set => request.pair(key(n), |value| self.entries.write_value(n, 0, value)),
                _ => request.key(key(n)),
            }
        }
        true
    }

    fn take(&mut self, inside: u64, took: Duration, reply: Reply<'_>) {
        if inside == 0 {
            return;
        }
        self.operations += if self.cell.batch { BATCH } else { 1 };
        let found = match reply {
            Reply::Many { found } => found as u64 == BATCH,
            Reply::Value(value) => value.len() == 128,
            Reply::Done => true,
            Reply::Miss | Reply::Refused(_) => false,
        };
        self.refused += u64::from(!found);
        self.latency.record(took);
    }
}

/// Measures a cell once; `None` if the server does not listen on that transport.
///
/// If the server did not run during a window, because the machine was busy, the window is repeated with twice the
/// length.
pub(super) async fn measure(
    server: &Server,
    cell: Cell,
    keys: u64,
    mut window: Duration,
) -> anyhow::Result<Option<Figures>> {
    let at = match cell.via {
        Via::Tcp => Some(&server.data),
        Via::Unix => server.socket.as_ref(),
    };
    let Some(at) = at else { return Ok(None) };
    loop {
        let figures = measure_window(server, at, cell, keys, window).await?;
        if figures.per_second > 0.0 && figures.cpu_us > 0.0 {
            return Ok(Some(figures));
        }
        if window >= LATE {
            bail!("{}: {cell}: no reply in {} s", server.name, window.as_secs());
        }
        window *= 2;
    }
}

async fn measure_window(
    server: &Server,
    at: &Address,
    cell: Cell,
    keys: u64,
    window: Duration,
) -> anyhow::Result<Figures> {
    let mut connections = Vec::new();
    for _ in 0..cell.connections {
        connections.push(Connection::open(at, system(server, cell.shape)).await?);
    }
    let opens = Instant::now() + WARM;
    let tasks = (0..).zip(connections).map(|(number, mut connection)| {
        let mut share = Share::new(cell, keys, number, opens, window);
        tokio::spawn(async move { connection.drive(cell.in_flight, &mut share).await.map(|()| share) })
    });
    let tasks: Vec<_> = tasks.collect();
    // The server's CPU is read at the start and end of the window, regardless of calls in flight.
    let before = at_instant(opens, || server.cpu()).await;
    let after = at_instant(opens + window, || server.cpu()).await;
    let mut figures = Figures::default();
    let (mut operations, mut latency) = (0, Latency::default());
    for task in tasks {
        let share = tokio::time::timeout(LATE, task).await.map_err(|_| anyhow!("{cell}: no reply in 10 s"))?;
        let share = share?.with_context(|| format!("{}: {cell}", server.name))?;
        operations += share.operations;
        figures.refused += share.refused;
        latency.add(&share.latency);
    }
    figures.per_second = operations as f64 / window.as_secs_f64();
    figures.cpu_us = after.since(&before).as_secs_f64() * 1e6 / operations.max(1) as f64;
    figures.latency = latency.percentiles();
    Ok(figures)
}

async fn at_instant<T>(when: Instant, look: impl FnOnce() -> T) -> T {
    tokio::time::sleep_until(when.into()).await;
    look()
}

/// Stores the keys for all cells.
pub(super) async fn store(server: &Server, keys: u64) -> anyhow::Result<()> {
    struct Fill(Entries, u64, u64);
    impl Load for Fill {
        fn next(&mut self, _: Instant, request: &mut Request) -> bool {
            if self.1 == self.0.count {
                return false;
            }
            request.begin(Kind::Set, false, 0);
            request.pair(key(self.1), |value| self.0.write_value(self.1, 0, value));
            self.1 += 1;
            true
        }

        fn take(&mut self, _: u64, _: Duration, reply: Reply<'_>) {
            self.2 += u64::from(reply != Reply::Done);
        }
    }
    let mut connection = Connection::open(&server.data, system(server, Shape::Pipe)).await?;
    let mut fill = Fill(entries(keys), 0, 0);
    let filled = tokio::time::timeout(Duration::from_secs(60), connection.drive(64, &mut fill)).await;
    filled.map_err(|_| anyhow!("{}: storing took longer than a minute", server.name))??;
    if fill.2 > 0 { Err(anyhow!("{}: {} of {keys} values were refused", server.name, fill.2)) } else { Ok(()) }
}

/// Opens a connection for sequential calls.
pub(super) async fn unary(at: &Address) -> anyhow::Result<Connection> {
    Connection::open(at, super::super::wire::System::Ebb(Shape::Unary)).await
}
