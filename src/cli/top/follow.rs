//! Following one sidecar: what it says, and what is known of it when it says nothing.

use crate::cli::connect::channel;
use ebb_proto::client::Address;
use ebb_proto::diagnose_response::Finding;
use ebb_proto::{self as proto, admin_service_client::AdminServiceClient};
use ebb_terminal::Failure;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;
use tokio::time::MissedTickBehavior;
use tonic::Code;
use tonic::transport::Channel;

/// How often it is tried at most.
const AGAIN: Duration = Duration::from_secs(2);
/// What says nothing for so long, or for three intervals, is away.
const SILENCE: Duration = Duration::from_secs(3);
/// How often it is looked at more closely at most: the memory map takes each shard's lock for a moment.
const LOOK: Duration = Duration::from_secs(1);
/// Readings that are remembered for the charts.
const READINGS: usize = 300;
/// Receipts that are remembered, as many as the live page has.
const RECEIPTS: usize = 120;

/// What is heard of a sidecar.
#[derive(Debug)]
pub(super) enum News {
    /// Its account.
    Stats(Box<proto::GetStatsResponse>),
    /// What has to be asked for.
    Look(Look),
    /// Why there is none.
    Lost(String),
}

/// What a closer look has found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// What the doctor finds, worst first.
    pub(super) findings: Vec<Finding>,
    /// How full the segments are.
    pub(super) map: proto::GetMemoryMapResponse,
    /// How it is configured; `None` where the server is older than that question.
    pub(super) config: Option<proto::GetConfigResponse>,
}

/// Listens to a sidecar and passes on what it says, until nobody wants to know any more.
pub(super) async fn follow(number: usize, address: Address, every_ms: u64, to: Sender<(usize, News)>) {
    let mut tries = tokio::time::interval(AGAIN);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tries.tick().await;
        let why = match listen(number, &address, every_ms, &to).await {
            Ok(()) => "the server closed the stream".to_owned(),
            Err(failure) => failure.code().1.unwrap_or_default(),
        };
        if to.send((number, News::Lost(why))).await.is_err() {
            return;
        }
    }
}

async fn listen(number: usize, address: &Address, every_ms: u64, to: &Sender<(usize, News)>) -> Result<(), Failure> {
    let silence = (Duration::from_millis(every_ms) * 3).max(SILENCE);
    let mut client = AdminServiceClient::new(channel(address, Some(silence)).await?);
    let request = proto::WatchStatsRequest { interval_ms: every_ms };
    let failed =
        |status: tonic::Status| Failure::Failed(format!("lost the connection to {address}: {}", status.message()));
    let mut stream = client.watch_stats(request).await.map_err(failed)?.into_inner();
    let mut looked: Option<Instant> = None;
    loop {
        let update = tokio::time::timeout(silence, stream.message()).await;
        let update = update.map_err(|_| Failure::Failed(format!("no data from {address} for {silence:?}")))?;
        let Some(update) = update.map_err(failed)? else { return Ok(()) };
        let news = News::Stats(Box::new(update.stats.unwrap_or_default()));
        if to.send((number, news)).await.is_err() {
            return Ok(());
        }
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            let news = News::Look(look(&mut client).await.map_err(failed)?);
            if to.send((number, news)).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn look(client: &mut AdminServiceClient<Channel>) -> Result<Look, tonic::Status> {
    let findings = client.diagnose(proto::DiagnoseRequest {}).await?.into_inner().findings;
    let map = client.get_memory_map(proto::GetMemoryMapRequest {}).await?.into_inner();
    let config = match client.get_config(proto::GetConfigRequest {}).await {
        Ok(config) => Some(config.into_inner()),
        Err(status) if status.code() == Code::Unimplemented => None,
        Err(status) => return Err(status),
    };
    Ok(Look { findings, map, config })
}

/// What the charts show of one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// By the sidecar's clock, which its receipts are dated with, too: Unix time in milliseconds.
    pub(super) at_ms: i64,
    pub(super) used_bytes: u64,
    pub(super) rss_bytes: u64,
    pub(super) live_bytes: u64,
    /// Of the reads since the reading before; `None`: there were none.
    pub(super) hit_percent: Option<f64>,
    /// Of the requests of the last second; `None`: there were none.
    pub(super) p50_us: Option<u32>,
    pub(super) p99_us: Option<u32>,
}

/// What is known of a sidecar.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) address: Address,
    /// The last account, and the one before it.
    pub(super) now: Option<(Instant, proto::GetStatsResponse)>,
    before: Option<(Instant, proto::GetStatsResponse)>,
    /// Why nothing is heard, if so.
    pub(super) lost: Option<String>,
    /// Oldest first.
    pub(super) readings: VecDeque<Reading>,
    /// Oldest first.
    pub(super) receipts: VecDeque<proto::Receipt>,
    /// The number of the receipt that was chosen; `None`: none was.
    pub(super) receipt: Option<u64>,
    pub(super) look: Option<Look>,
}

impl Sidecar {
    /// Of which nothing is known.
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            now: None,
            before: None,
            lost: None,
            readings: VecDeque::new(),
            receipts: VecDeque::new(),
            receipt: None,
            look: None,
        }
    }

    /// Takes in what was heard.
    pub(super) fn learn(&mut self, news: News) {
        match news {
            News::Lost(why) => self.lost = Some(why),
            News::Look(look) => self.look = Some(look),
            News::Stats(stats) => {
                // A server that has started anew counts from nothing: rates and receipts begin anew with it.
                let restarted = self.now.as_ref().is_some_and(|(_, last)| stats.uptime_ms < last.uptime_ms);
                if restarted {
                    self.receipts.clear();
                    self.receipt = None;
                }
                let memory = stats.memory.clone().unwrap_or_default();
                let proto::MemoryAccount { used_bytes, rss_bytes, live_bytes, .. } = memory;
                let before = self.now.as_ref().filter(|_| !restarted).map(|(_, last)| last);
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
                    self.readings.clear(); // its clock was set back: what is drawn goes on from there
                }
                self.readings.push_back(reading);
                self.readings.drain(..self.readings.len().saturating_sub(READINGS));
                let last = self.receipts.back().map_or(0, |receipt| receipt.id);
                let new = stats.receipts.iter().rev().filter(|receipt| receipt.id > last);
                self.receipts.extend(new.cloned());
                self.receipts.drain(..self.receipts.len().saturating_sub(RECEIPTS));
                self.before = self.now.take().filter(|_| !restarted);
                self.now = Some((Instant::now(), *stats));
                self.lost = None;
            }
        }
    }

    /// Chooses the receipt before (-1) or after (1) the one that is chosen; after the newest, none is.
    pub(super) fn choose(&mut self, step: isize) {
        let newest = self.receipts.len();
        let chosen = self.receipts.iter().position(|receipt| Some(receipt.id) == self.receipt).unwrap_or(newest);
        self.receipt = self.receipts.get(chosen.saturating_add_signed(step)).map(|receipt| receipt.id);
    }

    /// How fast a count grows, a second.
    pub(super) fn rate(&self, of: fn(&proto::GetStatsResponse) -> u64) -> Option<f64> {
        let ((then, before), (at, now)) = (self.before.as_ref()?, self.now.as_ref()?);
        let seconds = at.duration_since(*then).as_secs_f64().max(0.001);
        Some(of(now).saturating_sub(of(before)) as f64 / seconds)
    }

    /// Hits of the reads since the last account, or of all when there were none, in percent.
    pub(super) fn hit_percent(&self) -> Option<f64> {
        let ((_, now), nothing) = (self.now.as_ref()?, proto::GetStatsResponse::default());
        let before = self.before.as_ref().map_or(&nothing, |(_, before)| before);
        hit_percent(before, now).or_else(|| hit_percent(&nothing, now))
    }
}

/// Hits of the reads between two accounts, in percent; `None` when there were none.
fn hit_percent(before: &proto::GetStatsResponse, now: &proto::GetStatsResponse) -> Option<f64> {
    let (hits, misses) = (now.hits.saturating_sub(before.hits), now.misses.saturating_sub(before.misses));
    (hits + misses > 0).then(|| hits as f64 * 100.0 / (hits + misses) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(uptime_ms: u64, hits: u64, misses: u64) -> News {
        News::Stats(Box::new(proto::GetStatsResponse { uptime_ms, hits, misses, ..Default::default() }))
    }

    #[test]
    fn rates_are_of_the_time_between_and_begin_anew_with_the_server() {
        let mut sidecar = Sidecar::new("127.0.0.1:1".parse().unwrap());
        assert_eq!((sidecar.hit_percent(), sidecar.rate(|s| s.hits)), (None, None));
        sidecar.learn(stats(1_000, 10, 10));
        assert_eq!(sidecar.hit_percent(), Some(50.0));
        sidecar.learn(stats(2_000, 40, 20));
        assert_eq!(sidecar.hit_percent(), Some(75.0));
        assert!(sidecar.rate(|s| s.hits).unwrap() > 0.0);
        sidecar.learn(stats(100, 1, 0));
        assert_eq!((sidecar.hit_percent(), sidecar.rate(|s| s.hits)), (Some(100.0), None));
    }

    #[test]
    fn an_idle_interval_has_neither_ratio_nor_latency() {
        let mut sidecar = Sidecar::new("127.0.0.1:1".parse().unwrap());
        for (uptime_ms, hits, misses) in [(1_000, 5, 5), (2_000, 8, 6), (3_000, 8, 6), (4_000, 8, 8), (100, 9, 9)] {
            sidecar.learn(stats(uptime_ms, hits, misses));
        }
        let ratios: Vec<_> = sidecar.readings.iter().map(|reading| reading.hit_percent).collect();
        assert_eq!(
            ratios,
            [None, Some(75.0), None, Some(0.0), None],
            "of the first, and of a new server's, nobody knows"
        );
        assert!(sidecar.readings.iter().all(|reading| reading.p50_us.is_none() && reading.p99_us.is_none()));
    }

    #[test]
    fn receipts_are_kept_once_and_begin_anew_with_the_server() {
        let said = |uptime_ms, newest: u64| {
            let receipts = (1..=newest).rev().take(16).map(|id| proto::Receipt { id, ..Default::default() }).collect();
            News::Stats(Box::new(proto::GetStatsResponse { uptime_ms, receipts, ..Default::default() }))
        };
        let mut sidecar = Sidecar::new("127.0.0.1:1".parse().unwrap());
        for newest in [2, 2, 5] {
            sidecar.learn(said(1_000 + newest, newest));
        }
        let ids = |sidecar: &Sidecar| sidecar.receipts.iter().map(|receipt| receipt.id).collect::<Vec<_>>();
        assert_eq!(ids(&sidecar), [1, 2, 3, 4, 5]);
        for (step, chosen) in [(-1, Some(5)), (-1, Some(4)), (1, Some(5)), (1, None), (1, None), (-1, Some(5))] {
            sidecar.choose(step);
            assert_eq!(sidecar.receipt, chosen);
        }
        (0..9).for_each(|_| sidecar.choose(-1));
        assert_eq!(sidecar.receipt, Some(1), "the oldest is the last");
        for newest in 6..500 {
            sidecar.learn(said(1_000 + newest, newest));
        }
        assert_eq!((sidecar.receipts.len(), sidecar.readings.len()), (RECEIPTS, READINGS));
        sidecar.choose(-1);
        sidecar.learn(said(10, 1));
        assert_eq!((ids(&sidecar), sidecar.receipt), (vec![1], None));
    }

    #[tokio::test]
    async fn follows_a_server_that_does_not_report_its_configuration() {
        let server = crate::cli::testing::Server::start().await;
        let mut client = AdminServiceClient::new(channel(&server.address, None).await.unwrap());
        let look = look(&mut client).await.unwrap();
        assert_eq!((look.findings.len(), look.config), (2, None));
    }

    #[test]
    fn what_was_known_stays_when_a_sidecar_falls_silent() {
        let mut sidecar = Sidecar::new("127.0.0.1:1".parse().unwrap());
        sidecar.learn(stats(1_000, 1, 0));
        sidecar.learn(News::Lost("gone".into()));
        assert!(sidecar.now.is_some() && sidecar.lost.as_deref() == Some("gone"));
        sidecar.learn(stats(2_000, 1, 0));
        assert_eq!(sidecar.lost, None);
    }
}
