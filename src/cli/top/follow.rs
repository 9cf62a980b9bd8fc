//! Follows one sidecar: receives its updates, and keeps the last state while it is disconnected.

use crate::cli::connect::At;
use ebb_proto::diagnose_response::Finding;
use ebb_proto::{self as proto, admin_service_client::AdminServiceClient};
use ebb_terminal::Failure;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;
use tokio::time::MissedTickBehavior;
use tonic::Code;
use tonic::transport::Channel;

/// Minimum interval between attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// A sidecar that sends nothing for this long, and for three intervals, counts as disconnected.
const MIN_READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Minimum interval between requests for details: the memory map briefly takes each shard's lock.
const DETAILS_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of readings kept for the charts.
const MAX_READINGS: usize = 300;
/// Maximum number of receipts kept, as on the live page.
const MAX_RECEIPTS: usize = 120;

/// An update from a sidecar.
#[derive(Debug)]
pub(super) enum Update {
    /// Its statistics.
    Stats(Box<proto::GetStatsResponse>),
    /// Details, which are fetched with separate calls.
    Details(Details),
    /// The connection was lost; holds the reason.
    Disconnected(String),
}

/// Details of a sidecar.
#[derive(Debug, Default)]
pub(super) struct Details {
    /// The findings of the doctor, worst first.
    pub(super) findings: Vec<Finding>,
    /// The occupancy of segments.
    pub(super) map: proto::GetMemoryMapResponse,
    /// The active configuration; `None` if the server is too old to report it.
    pub(super) config: Option<proto::GetConfigResponse>,
}

/// Sends the updates of a sidecar to `to` until the receiver is dropped.
pub(super) async fn follow(id: u64, at: At, every_ms: u64, to: Sender<(u64, Update)>) {
    let mut tries = tokio::time::interval(RETRY_INTERVAL);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tries.tick().await;
        let why = match watch(id, &at, every_ms, &to).await {
            Ok(()) => "the server closed the stream".to_owned(),
            Err(failure) => failure.code().1.unwrap_or_default(),
        };
        if to.send((id, Update::Disconnected(why))).await.is_err() {
            return;
        }
    }
}

async fn watch(id: u64, at: &At, every_ms: u64, to: &Sender<(u64, Update)>) -> Result<(), Failure> {
    let timeout = (Duration::from_millis(every_ms) * 3).max(MIN_READ_TIMEOUT);
    let mut client = AdminServiceClient::new(at.channel(Some(timeout)).await?);
    let request = proto::WatchStatsRequest { interval_ms: every_ms };
    let failed = |status: tonic::Status| Failure::Failed(format!("lost the connection to {at}: {}", status.message()));
    let mut stream = client.watch_stats(request).await.map_err(failed)?.into_inner();
    let mut fetched: Option<Instant> = None;
    loop {
        let response = tokio::time::timeout(timeout, stream.message()).await;
        let response = response.map_err(|_| Failure::Failed(format!("no data from {at} for {timeout:?}")))?;
        let Some(response) = response.map_err(failed)? else { return Ok(()) };
        let update = Update::Stats(Box::new(response.stats.unwrap_or_default()));
        if to.send((id, update)).await.is_err() {
            return Ok(());
        }
        if fetched.is_none_or(|at| at.elapsed() >= DETAILS_INTERVAL) {
            fetched = Some(Instant::now());
            let update = Update::Details(fetch_details(&mut client).await.map_err(failed)?);
            if to.send((id, update)).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn fetch_details(client: &mut AdminServiceClient<Channel>) -> Result<Details, tonic::Status> {
    let findings = client.diagnose(proto::DiagnoseRequest {}).await?.into_inner().findings;
    let map = client.get_memory_map(proto::GetMemoryMapRequest {}).await?.into_inner();
    let config = match client.get_config(proto::GetConfigRequest {}).await {
        Ok(config) => Some(config.into_inner()),
        Err(status) if status.code() == Code::Unimplemented => None,
        Err(status) => return Err(status),
    };
    Ok(Details { findings, map, config })
}

/// The values of the charts at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// Unix time in milliseconds, by the sidecar's clock, as in its receipts.
    pub(super) at_ms: i64,
    pub(super) used_bytes: u64,
    pub(super) rss_bytes: u64,
    pub(super) live_bytes: u64,
    /// Hit ratio of the reads since the previous reading; `None` if there were none.
    pub(super) hit_percent: Option<f64>,
    /// Latency of the requests of the last second; `None` if there were none.
    pub(super) p50_us: Option<u32>,
    pub(super) p99_us: Option<u32>,
}

/// The latest state of a sidecar.
#[derive(Debug)]
pub(super) struct Sidecar {
    /// Tells its updates from those of others.
    pub(super) id: u64,
    pub(super) at: At,
    /// The latest statistics, and when they arrived.
    pub(super) latest: Option<(Instant, proto::GetStatsResponse)>,
    previous: Option<(Instant, proto::GetStatsResponse)>,
    /// Why the sidecar is disconnected, if it is.
    pub(super) disconnected: Option<String>,
    /// Oldest first.
    pub(super) readings: VecDeque<Reading>,
    /// Oldest first.
    pub(super) receipts: VecDeque<proto::Receipt>,
    /// ID of the selected receipt.
    pub(super) selected_receipt: Option<u64>,
    pub(super) details: Option<Details>,
}

impl Sidecar {
    /// A sidecar that has sent nothing yet.
    pub(super) fn new(id: u64, at: At) -> Self {
        Self {
            id,
            at,
            latest: None,
            previous: None,
            disconnected: None,
            readings: VecDeque::new(),
            receipts: VecDeque::new(),
            selected_receipt: None,
            details: None,
        }
    }

    /// Applies an update.
    pub(super) fn apply(&mut self, update: Update) {
        match update {
            Update::Disconnected(why) => self.disconnected = Some(why),
            Update::Details(details) => self.details = Some(details),
            Update::Stats(stats) => {
                // A restarted server counts from zero, so rates and receipts are reset.
                let restarted = self.latest.as_ref().is_some_and(|(_, last)| stats.uptime_ms < last.uptime_ms);
                if restarted {
                    self.receipts.clear();
                    self.selected_receipt = None;
                }
                let memory = stats.memory.clone().unwrap_or_default();
                let proto::MemoryAccount { used_bytes, rss_bytes, live_bytes, .. } = memory;
                let before = self.latest.as_ref().filter(|_| !restarted).map(|(_, last)| last);
                let reading = Reading {
                    at_ms: stats.at_ms,
                    used_bytes,
                    rss_bytes,
                    live_bytes,
                    hit_percent: before.and_then(|before| hit_percent(before, &stats)),
                    p50_us: Some(stats.p50_us).filter(|us| *us > 0),
                    p99_us: Some(stats.p99_us).filter(|us| *us > 0),
                };
                if self.readings.back().is_some_and(|last| reading.at_ms < last.at_ms) {
                    self.readings.clear(); // its clock was set back: the charts start again
                }
                self.readings.push_back(reading);
                self.readings.drain(..self.readings.len().saturating_sub(MAX_READINGS));
                let last = self.receipts.back().map_or(0, |receipt| receipt.id);
                let new = stats.receipts.iter().rev().filter(|receipt| receipt.id > last);
                self.receipts.extend(new.cloned());
                self.receipts.drain(..self.receipts.len().saturating_sub(MAX_RECEIPTS));
                self.previous = self.latest.take().filter(|_| !restarted);
                self.latest = Some((Instant::now(), *stats));
                self.disconnected = None;
            }
        }
    }

    /// Selects the previous (-1) or the next (1) receipt; after the newest one, none is selected.
    pub(super) fn select_receipt(&mut self, step: isize) {
        let newest = self.receipts.len();
        let selected =
            self.receipts.iter().position(|receipt| Some(receipt.id) == self.selected_receipt).unwrap_or(newest);
        self.selected_receipt = self.receipts.get(selected.saturating_add_signed(step)).map(|receipt| receipt.id);
    }

    /// Increase of a counter per second.
    pub(super) fn rate(&self, of: fn(&proto::GetStatsResponse) -> u64) -> Option<f64> {
        let ((then, before), (at, now)) = (self.previous.as_ref()?, self.latest.as_ref()?);
        let seconds = at.duration_since(*then).as_secs_f64().max(0.001);
        Some(of(now).saturating_sub(of(before)) as f64 / seconds)
    }

    /// Hit ratio since the previous statistics, or of all reads if there were none since, in percent.
    pub(super) fn hit_percent(&self) -> Option<f64> {
        let ((_, now), nothing) = (self.latest.as_ref()?, proto::GetStatsResponse::default());
        let before = self.previous.as_ref().map_or(&nothing, |(_, before)| before);
        hit_percent(before, now).or_else(|| hit_percent(&nothing, now))
    }
}

/// Hit ratio of the reads between two statistics, in percent; `None` if there were none.
fn hit_percent(before: &proto::GetStatsResponse, now: &proto::GetStatsResponse) -> Option<f64> {
    let (hits, misses) = (now.hits.saturating_sub(before.hits), now.misses.saturating_sub(before.misses));
    (hits + misses > 0).then(|| hits as f64 * 100.0 / (hits + misses) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(uptime_ms: u64, hits: u64, misses: u64) -> Update {
        Update::Stats(Box::new(proto::GetStatsResponse { uptime_ms, hits, misses, ..Default::default() }))
    }

    #[test]
    fn rates_cover_the_last_interval_and_reset_on_restart() {
        let mut sidecar = Sidecar::new(1, "127.0.0.1:1".parse().unwrap());
        assert_eq!((sidecar.hit_percent(), sidecar.rate(|s| s.hits)), (None, None));
        sidecar.apply(stats(1_000, 10, 10));
        assert_eq!(sidecar.hit_percent(), Some(50.0));
        sidecar.apply(stats(2_000, 40, 20));
        assert_eq!(sidecar.hit_percent(), Some(75.0));
        assert!(sidecar.rate(|s| s.hits).unwrap() > 0.0);
        sidecar.apply(stats(100, 1, 0));
        assert_eq!((sidecar.hit_percent(), sidecar.rate(|s| s.hits)), (Some(100.0), None));
    }

    #[test]
    fn an_idle_interval_has_neither_ratio_nor_latency() {
        let mut sidecar = Sidecar::new(1, "127.0.0.1:1".parse().unwrap());
        for (uptime_ms, hits, misses) in [(1_000, 5, 5), (2_000, 8, 6), (3_000, 8, 6), (4_000, 8, 8), (100, 9, 9)] {
            sidecar.apply(stats(uptime_ms, hits, misses));
        }
        let ratios: Vec<_> = sidecar.readings.iter().map(|reading| reading.hit_percent).collect();
        assert_eq!(
            ratios,
            [None, Some(75.0), None, Some(0.0), None],
            "unknown at the first reading and after a restart"
        );
        assert!(sidecar.readings.iter().all(|reading| reading.p50_us.is_none() && reading.p99_us.is_none()));
    }

    #[test]
    fn receipts_are_kept_once_and_reset_on_restart() {
        let stats = |uptime_ms, newest: u64| {
            let receipts = (1..=newest).rev().take(16).map(|id| proto::Receipt { id, ..Default::default() }).collect();
            Update::Stats(Box::new(proto::GetStatsResponse { uptime_ms, receipts, ..Default::default() }))
        };
        let mut sidecar = Sidecar::new(1, "127.0.0.1:1".parse().unwrap());
        for newest in [2, 2, 5] {
            sidecar.apply(stats(1_000 + newest, newest));
        }
        let ids = |sidecar: &Sidecar| sidecar.receipts.iter().map(|receipt| receipt.id).collect::<Vec<_>>();
        assert_eq!(ids(&sidecar), [1, 2, 3, 4, 5]);
        for (step, selected) in [(-1, Some(5)), (-1, Some(4)), (1, Some(5)), (1, None), (1, None), (-1, Some(5))] {
            sidecar.select_receipt(step);
            assert_eq!(sidecar.selected_receipt, selected);
        }
        (0..9).for_each(|_| sidecar.select_receipt(-1));
        assert_eq!(sidecar.selected_receipt, Some(1), "selection stops at the oldest");
        for newest in 6..500 {
            sidecar.apply(stats(1_000 + newest, newest));
        }
        assert_eq!((sidecar.receipts.len(), sidecar.readings.len()), (MAX_RECEIPTS, MAX_READINGS));
        sidecar.select_receipt(-1);
        sidecar.apply(stats(10, 1));
        assert_eq!((ids(&sidecar), sidecar.selected_receipt), (vec![1], None));
    }

    #[tokio::test]
    async fn follows_a_server_that_does_not_report_its_configuration() {
        let server = crate::cli::testing::Server::start().await;
        let mut client = AdminServiceClient::new(At::Address(server.address).channel(None).await.unwrap());
        let details = fetch_details(&mut client).await.unwrap();
        assert_eq!((details.findings.len(), details.config), (2, None));
    }

    #[test]
    fn keeps_the_last_stats_of_a_disconnected_sidecar() {
        let mut sidecar = Sidecar::new(1, "127.0.0.1:1".parse().unwrap());
        sidecar.apply(stats(1_000, 1, 0));
        sidecar.apply(Update::Disconnected("gone".into()));
        assert!(sidecar.latest.is_some() && sidecar.disconnected.as_deref() == Some("gone"));
        sidecar.apply(stats(2_000, 1, 0));
        assert_eq!(sidecar.disconnected, None);
    }
}
