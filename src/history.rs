//! The last hour in bounded memory, for the live page and the doctor.
//!
//! ```text
//!  each second ── now ──► every fifth ──► Point ──► ring of 720 (an hour)       at most 113 KiB
//!                    └──► new receipts ───────────► ring of 120                  at most 48 KiB
//! ```
//! A point contains the maximum of each amount since the previous point, so that no peak is lost, and counts since the
//! start, so that any two points give a rate.

use crate::sources::Sources;
use crate::traffic::{Durations, Method, Rejection, Totals};
use crate::wall_clock;
use ebb_engine::cleaner::Report;
use ebb_engine::decide::Regime;
use ebb_engine::store::Stats;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use strum::VariantArray as _;

/// Interval between points, in seconds.
pub(crate) const POINT_SECONDS: u64 = 5;
/// Number of points in an hour.
const POINTS: usize = 720;
/// Number of remembered receipts.
const RECEIPTS: usize = 120;

/// One point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Point {
    /// Time since the start of the process, in milliseconds; independent of the wall clock.
    pub(crate) uptime_ms: u64,
    /// Unix time in milliseconds, for people.
    pub(crate) at_ms: u64,
    pub(crate) limit_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) regime: Regime,
    /// Since the start, like all following counts.
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Misses of evicted items.
    pub(crate) missed_evicted: u64,
    pub(crate) evictions: u64,
    pub(crate) requests: u64,
    /// Writes refused for lack of memory.
    pub(crate) refusals: u64,
    /// Writes refused because the value can never be stored.
    pub(crate) too_large: u64,
    /// Idle connections closed for new ones.
    pub(crate) at_cap: u64,
    /// Connections of the HTTP listener that the server closed.
    pub(crate) http_closed: u64,
    pub(crate) appended_bytes: u64,
    pub(crate) copied_bytes: u64,
    /// OOM kills since the start of the container.
    pub(crate) oom_kills: u64,
    /// Since the previous point; 0 if there were no requests, or if it lies beyond the last bucket.
    pub(crate) p50_micros: u32,
    /// The same.
    pub(crate) p99_micros: u32,
}

/// The last hour. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Rings>>);

#[derive(Debug, Default)]
struct Rings {
    now: Point,
    points: VecDeque<Point>,
    receipts: VecDeque<Report>,
    last_receipt: u64,
    /// Maxima since the last point: used, resident, live.
    peaks: [u64; 3],
    /// Durations of all timed requests, at the last second and at the last point.
    durations: [Durations; 2],
}

impl History {
    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.lock()
    }

    /// Takes a sample; called once a second.
    pub(crate) fn record(&self, sources: &Sources) {
        let (stats, totals) = (sources.store.stats(), sources.traffic.totals());
        let memory = sources.memory.get();
        let point = Point {
            uptime_ms: sources.clock.now_ms(),
            at_ms: wall_clock::unix_ms(),
            limit_bytes: memory.limit_bytes,
            used_bytes: memory.used_bytes,
            rss_bytes: memory.rss_bytes,
            regime: memory.regime,
            oom_kills: memory.container.events.oom_kills,
            http_closed: sources.http.counts().closed(),
            ..counted(&stats, &totals)
        };
        self.rings().add(point, &all(&totals), sources.cleaner.reports());
    }

    /// A history of these points.
    #[cfg(test)]
    pub(crate) fn of(moments: impl Iterator<Item = Point>) -> Self {
        let mut rings = Rings::default();
        moments.for_each(|point| rings.add(point, &Durations::default(), Vec::new()));
        Self(Arc::new(Mutex::new(rings)))
    }

    /// An hour of large figures.
    #[cfg(test)]
    pub(crate) fn of_a_busy_hour() -> Self {
        use ebb_engine::cleaner::{Account, Cost, ProcessMemory, Reason};
        use ebb_engine::store::Tally;
        let (gib, many, start) = (64 << 30, 10_u64.pow(11), 1_795_000_000_000);
        let mut rings = Rings::default();
        for second in 0..4_000 {
            let point = Point {
                uptime_ms: second * 1000,
                at_ms: start + second * 1000,
                limit_bytes: gib,
                used_bytes: gib - second,
                rss_bytes: gib - second,
                live_bytes: gib - second,
                hits: many + second,
                misses: many / 10 + second,
                requests: many + second,
                ..Point::default()
            };
            let process = ProcessMemory { rss_bytes: gib - second, ..ProcessMemory::default() };
            let account = Account { process, ..Account::default() };
            let receipt = Report {
                id: 1_000_000 + second,
                reason: Reason::LimitLowered,
                started_ms: second * 1000,
                cost: Cost { duration_us: 1_000_000, cpu_us: 100_000, longest_step_us: 1_000, ..Cost::default() },
                done: Tally {
                    moved_bytes: gib - second,
                    evicted_items: 1_000_000,
                    freed_segments: 1_000_000,
                    ..Tally::default()
                },
                before: account,
                after: account,
            };
            rings.add(point, &Durations::default(), vec![receipt]);
        }
        rings.points.iter_mut().for_each(|point| (point.p50_micros, point.p99_micros) = (100_000, 100_000));
        Self(Arc::new(Mutex::new(rings)))
    }

    /// The last second.
    pub(crate) fn now(&self) -> Point {
        self.rings().now
    }

    /// The points of the last hour, oldest first.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.rings().points.iter().copied().collect()
    }

    /// The newest point of at least this age, or the oldest point.
    pub(crate) fn before(&self, age_ms: u64) -> Option<Point> {
        let rings = self.rings();
        let latest = rings.now.uptime_ms.saturating_sub(age_ms);
        rings.points.iter().rev().find(|point| point.uptime_ms <= latest).or(rings.points.front()).copied()
    }

    /// Receipts of the last hour with higher numbers than this, oldest first, at most 120.
    pub(crate) fn receipts_after(&self, id: u64) -> Vec<Report> {
        self.rings().receipts.iter().filter(|receipt| receipt.id > id).cloned().collect()
    }
}

impl Rings {
    fn add(&mut self, mut now: Point, durations: &Durations, newest_first: Vec<Report>) {
        let is_due = self.points.back().is_none_or(|last| now.uptime_ms >= last.uptime_ms + POINT_SECONDS * 1000);
        let within =
            |since: &Durations, permille| since.within_nanos(permille).map_or(0, |nanos| (nanos / 1000) as u32);
        let of = |before: &Durations| {
            let since = durations.since(before);
            (within(&since, 500), within(&since, 990))
        };
        let amounts = [now.used_bytes, now.rss_bytes, now.live_bytes];
        self.peaks.iter_mut().zip(amounts).for_each(|(peak, amount)| *peak = amount.max(*peak));
        if is_due {
            let [used_bytes, rss_bytes, live_bytes] = std::mem::take(&mut self.peaks);
            let (p50_micros, p99_micros) = of(&self.durations[1]);
            self.points.drain(..(self.points.len() + 1).saturating_sub(POINTS));
            // Allocate the whole ring at once: untouched pages take no memory.
            self.points.reserve_exact(POINTS - self.points.len());
            self.points.push_back(Point { used_bytes, rss_bytes, live_bytes, p50_micros, p99_micros, ..now });
            self.durations[1] = *durations;
        }
        (now.p50_micros, now.p99_micros) = of(&self.durations[0]);
        self.durations[0] = *durations;
        self.now = now;
        let new = newest_first.into_iter().rev().filter(|receipt| receipt.id > self.last_receipt);
        self.receipts.extend(new);
        self.last_receipt = self.receipts.back().map_or(0, |receipt| receipt.id);
        self.receipts.drain(..self.receipts.len().saturating_sub(RECEIPTS));
    }
}

fn counted(stats: &Stats, totals: &Totals) -> Point {
    let is_call = |method: &&Method| **method != Method::Other && **method != Method::Pipe;
    let requests = Method::VARIANTS.iter().filter(is_call).flat_map(|method| totals.ended[*method as usize]).sum();
    Point {
        live_bytes: stats.live_bytes,
        hits: stats.hits,
        misses: stats.misses,
        missed_evicted: stats.misses_by[ebb_engine::store::Miss::Evicted as usize],
        evictions: stats.evictions,
        requests,
        refusals: stats.refusals,
        too_large: totals.too_large(),
        at_cap: totals.rejections[Rejection::ConnectionCap as usize],
        appended_bytes: stats.appended_bytes,
        copied_bytes: stats.copied_bytes,
        ..Point::default()
    }
}

/// Sum of the durations of all methods and outcomes.
fn all(totals: &Totals) -> Durations {
    totals.durations.iter().flatten().fold(Durations::default(), |all, durations| all.and(durations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(rings: &mut Rings, at: u64, durations: &Durations, receipts: &[u64]) {
        let receipts = receipts.iter().rev().map(|id| Report { id: *id, ..Report::default() }).collect();
        rings.add(Point { uptime_ms: at * 1000, ..Point::default() }, durations, receipts);
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut rings = Rings::default();
        for at in 0..3 * 3600 {
            second(&mut rings, at, &Durations::default(), &[at + 1]);
        }
        assert_eq!((rings.points.len(), rings.receipts.len()), (POINTS, RECEIPTS));
        assert_eq!(rings.points.back().unwrap().uptime_ms - rings.points[0].uptime_ms, 3595 * 1000);
        let bytes = (rings.points.capacity() * size_of::<Point>(), rings.receipts.capacity() * size_of::<Report>());
        assert!(bytes.0 <= 113 << 10 && bytes.1 <= 48 << 10, "{bytes:?} bytes");
        let history = History(Arc::new(Mutex::new(rings)));
        assert_eq!(history.before(60_000).unwrap().uptime_ms, (3 * 3600 - 65) * 1000);
        assert_eq!(history.receipts_after(3 * 3600 - 2).len(), 2);
    }

    #[test]
    fn what_the_doctor_compares_is_in_a_point() {
        let stats = Stats { refusals: 1, appended_bytes: 2, copied_bytes: 3, ..Stats::default() };
        let mut totals = Totals::default();
        totals.refusals[crate::service::Reason::ValueTooLarge as usize] = 4;
        let Point { refusals, appended_bytes, copied_bytes, too_large, .. } = counted(&stats, &totals);
        assert_eq!([refusals, appended_bytes, copied_bytes, too_large], [1, 2, 3, 4]);
    }

    #[test]
    fn latency_is_of_the_time_between_two_looks() {
        let mut rings = Rings::default();
        let mut durations = Durations::default();
        second(&mut rings, 0, &durations, &[]);
        durations.buckets[0] = 100;
        second(&mut rings, 1, &durations, &[]);
        assert_eq!((rings.now.p50_micros, rings.now.p99_micros), (10, 10));
        second(&mut rings, 2, &durations, &[]);
        assert_eq!(rings.now.p99_micros, 0, "nothing came");
        durations.buckets[3] = 100;
        second(&mut rings, 5, &durations, &[]);
        let point = rings.points.back().unwrap();
        assert_eq!((point.p50_micros, point.p99_micros), (10, 100), "of the five seconds");
    }

    #[test]
    fn a_peak_between_two_points_is_not_lost() {
        let mut rings = Rings::default();
        for (at, rss_bytes) in [(0, 1), (1, 9), (2, 3), (5, 2), (10, 4)] {
            rings.add(Point { uptime_ms: at * 1000, rss_bytes, ..Point::default() }, &Durations::default(), Vec::new());
        }
        let peaks: Vec<_> = rings.points.iter().map(|point| point.rss_bytes).collect();
        assert_eq!((peaks, rings.now.rss_bytes), (vec![1, 9, 4], 4));
    }

    #[test]
    fn a_receipt_is_remembered_once() {
        let mut rings = Rings::default();
        second(&mut rings, 0, &Durations::default(), &[1, 2]);
        second(&mut rings, 1, &Durations::default(), &[1, 2, 3]);
        let ids: Vec<_> = rings.receipts.iter().map(|receipt| receipt.id).collect();
        assert_eq!(ids, [1, 2, 3]);
    }
}
