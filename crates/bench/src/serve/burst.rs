//! The burst: 10,000 unary calls in flight, and the memory ten seconds later.

use std::time::{Duration, Instant};

use super::super::connection::Load;
use super::super::process::Server;
use super::super::wire::{Kind, Reply, Request};
use super::super::workload::key;
use super::cell;
use ebb_terminal::output;

const CONNECTIONS: usize = 100;
const IN_FLIGHT: usize = 100;
const AFTER: Duration = Duration::from_secs(10);

/// Resident memory around the burst, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    pub(super) before: u64,
    pub(super) peak: u64,
    pub(super) after: u64,
}

/// Gets of one connection: five times its calls in flight.
struct Shot {
    left: usize,
}

impl Load for Shot {
    fn next(&mut self, _: Instant, request: &mut Request) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        request.begin(Kind::Get, false, 0);
        request.key(key(self.left as u64));
        true
    }

    fn take(&mut self, _: u64, _: Duration, _: Reply<'_>) {}
}

/// Sends the calls, closes the connections, waits, and reads the memory.
pub(super) async fn measure(server: &Server) -> anyhow::Result<Burst> {
    output::note(format_args!(
        "{}: a burst of {} calls in flight, then {} s",
        server.name,
        CONNECTIONS * IN_FLIGHT,
        AFTER.as_secs()
    ));
    tokio::time::sleep_until((Instant::now() + Duration::from_secs(2)).into()).await; // earlier rounds decay
    let before = server.rss_bytes()?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(cell::unary(&server.data).await?);
    }
    let calls = connections.into_iter().map(|mut connection| {
        tokio::spawn(async move { connection.drive(IN_FLIGHT, &mut Shot { left: 5 * IN_FLIGHT }).await })
    });
    let calls: Vec<_> = calls.collect();
    let mut peak = before;
    while !calls.iter().all(|call| call.is_finished()) {
        peak = peak.max(server.rss_bytes()?);
        tokio::time::sleep_until((Instant::now() + Duration::from_millis(2)).into()).await; // the next sample
    }
    for call in calls {
        call.await??;
    }
    tokio::time::sleep_until((Instant::now() + AFTER).into()).await; // what the figure is defined by
    Ok(Burst { before, peak, after: server.rss_bytes()? })
}
