//! Records resident memory: a thread reads it at once and then every five milliseconds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::process::{pause, rss_bytes};

/// Maximum deviation from the final value for settled memory.
const NEAR: f64 = 0.02;
/// Minimum time within that deviation.
const STILL: Duration = Duration::from_secs(1);

/// Resident memory over time.
#[derive(Debug)]
pub(super) struct Watch {
    series: Arc<Mutex<Vec<(Instant, u64)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Settled memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) rss_bytes: u64,
    /// When it entered the final 2 % for the last time.
    pub(super) at: Instant,
    /// Whether it stayed there for a second until the end.
    pub(super) still: bool,
}

impl Watch {
    pub(super) fn start(pid: u32) -> Self {
        let look = move || rss_bytes(pid).map(|rss| (Instant::now(), rss));
        let series = Arc::new(Mutex::new(look().into_iter().collect::<Vec<_>>()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (series.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                pause(Duration::from_millis(5));
                if let (Ok(seen), Ok(mut series)) = (look(), shared.lock()) {
                    series.push(seen);
                }
            }
        });
        Self { series, stop, thread: Some(thread) }
    }

    /// The peak since `from`.
    pub(super) fn peak_since(&self, from: Instant) -> u64 {
        let series = self.series.lock().expect("the watching thread does not panic");
        series.iter().filter(|(at, _)| *at >= from).map(|(_, rss)| *rss).max().unwrap_or(0)
    }

    /// The mean from `from` to `to`.
    pub(super) fn mean_between(&self, from: Instant, to: Instant) -> f64 {
        let series = self.series.lock().expect("the watching thread does not panic");
        let within: Vec<u64> = series.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, rss)| *rss).collect();
        within.iter().sum::<u64>() as f64 / within.len().max(1) as f64
    }

    /// Settled memory since `from`, judged by the series so far.
    pub(super) fn settled(&self, from: Instant) -> Option<Settled> {
        settled(&self.series.lock().expect("the watching thread does not panic"), from)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it only fails after a panic, which is already reported
        }
    }
}

fn settled(series: &[(Instant, u64)], from: Instant) -> Option<Settled> {
    let &(end, rss_bytes) = series.last()?;
    let near = |rss: u64| (rss as f64 - rss_bytes as f64).abs() <= rss_bytes as f64 * NEAR;
    let since = series.iter().rev().take_while(|(at, rss)| *at >= from && near(*rss)).last();
    let at = since.map_or(end, |(at, _)| *at);
    Some(Settled { rss_bytes, at, still: end - at >= STILL })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_settled_when_it_first_came_near_its_end_for_good() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let series: Vec<(Instant, u64)> = [(0, 1000), (100, 201), (200, 600), (300, 203), (800, 201), (1400, 200)]
            .map(|(ms, rss)| (at(ms), rss))
            .into();
        assert_eq!(settled(&series, begin), Some(Settled { rss_bytes: 200, at: at(300), still: true }));
        assert!(!settled(&series[..5], begin).unwrap().still, "half a second is too short");
        assert_eq!(settled(&[], begin), None);
    }

    #[test]
    fn a_process_is_watched_until_it_is_dropped() {
        let from = Instant::now();
        let watch = Watch::start(std::process::id());
        while watch.settled(from).is_none() {
            std::thread::yield_now();
        }
        assert!(watch.peak_since(from) > 0);
    }
}
