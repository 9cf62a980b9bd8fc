//! Following one sidecar: what it says, and what is known of it when it says nothing.

use crate::cli::Failure;
use crate::cli::connect::{Address, channel};
use crate::proto::{self, admin_service_client::AdminServiceClient};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;
use tokio::time::MissedTickBehavior;

/// How often it is tried at most.
const AGAIN: Duration = Duration::from_secs(2);
/// What says nothing for so long, or for three intervals, is away.
const SILENCE: Duration = Duration::from_secs(3);
/// Readings that are remembered for the chart.
const READINGS: usize = 300;

/// What is heard of a sidecar.
#[derive(Debug)]
pub(super) enum News {
    /// Its account.
    Stats(Box<proto::GetStatsResponse>),
    /// Why there is none.
    Lost(String),
}

/// Listens to a sidecar and passes on what it says, until nobody wants to know any more.
pub(super) async fn follow(number: usize, address: Address, every_ms: u64, to: Sender<(usize, News)>) {
    let mut tries = tokio::time::interval(AGAIN);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tries.tick().await;
        let why = match listen(number, &address, every_ms, &to).await {
            Ok(()) => "it has ended the stream".to_owned(),
            Err(Failure::Failed(why) | Failure::Usage(why) | Failure::Config(why)) => why,
            Err(Failure::Said) => String::new(),
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
    let failed = |status: tonic::Status| Failure::Failed(format!("lost {address}: {}", status.message()));
    let mut stream = client.watch_stats(request).await.map_err(failed)?.into_inner();
    loop {
        let update = tokio::time::timeout(silence, stream.message()).await;
        let update = update.map_err(|_| Failure::Failed(format!("{address} has been silent for {silence:?}")))?;
        let Some(update) = update.map_err(failed)? else { return Ok(()) };
        let news = News::Stats(Box::new(update.stats.unwrap_or_default()));
        if to.send((number, news)).await.is_err() {
            return Ok(());
        }
    }
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
    /// Used, resident and live bytes, oldest first.
    pub(super) readings: VecDeque<[u64; 3]>,
}

impl Sidecar {
    /// Of which nothing is known.
    pub(super) fn new(address: Address) -> Self {
        Self { address, now: None, before: None, lost: None, readings: VecDeque::new() }
    }

    /// Takes in what was heard.
    pub(super) fn learn(&mut self, news: News) {
        match news {
            News::Lost(why) => self.lost = Some(why),
            News::Stats(stats) => {
                let memory = stats.memory.clone().unwrap_or_default();
                self.readings.push_back([memory.used_bytes, memory.rss_bytes, memory.live_bytes]);
                self.readings.drain(..self.readings.len().saturating_sub(READINGS));
                // A server that has started anew counts from nothing: rates begin anew with it.
                let restarted = self.now.as_ref().is_some_and(|(_, last)| stats.uptime_ms < last.uptime_ms);
                self.before = self.now.take().filter(|_| !restarted);
                self.now = Some((Instant::now(), *stats));
                self.lost = None;
            }
        }
    }

    /// How fast a count grows, a second.
    pub(super) fn rate(&self, of: fn(&proto::GetStatsResponse) -> u64) -> Option<f64> {
        let ((then, before), (at, now)) = (self.before.as_ref()?, self.now.as_ref()?);
        let seconds = at.duration_since(*then).as_secs_f64().max(0.001);
        Some(of(now).saturating_sub(of(before)) as f64 / seconds)
    }

    /// Hits of the reads since the last account, or of all when there were none, in percent.
    pub(super) fn hit_percent(&self) -> Option<f64> {
        let (_, now) = self.now.as_ref()?;
        let of = |hits: u64, misses: u64| (hits + misses > 0).then(|| hits as f64 * 100.0 / (hits + misses) as f64);
        let before = self.before.as_ref().map_or((0, 0), |(_, before)| (before.hits, before.misses));
        of(now.hits.saturating_sub(before.0), now.misses.saturating_sub(before.1)).or_else(|| of(now.hits, now.misses))
    }
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
    fn what_was_known_stays_when_a_sidecar_falls_silent() {
        let mut sidecar = Sidecar::new("127.0.0.1:1".parse().unwrap());
        sidecar.learn(stats(1_000, 1, 0));
        sidecar.learn(News::Lost("gone".into()));
        assert!(sidecar.now.is_some() && sidecar.lost.as_deref() == Some("gone"));
        sidecar.learn(stats(2_000, 1, 0));
        assert_eq!(sidecar.lost, None);
    }
}
