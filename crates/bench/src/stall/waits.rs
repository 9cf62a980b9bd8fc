//! The part `waits`: the longest Sets at a fixed rate on busy cores, with and without a cleaner.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::engine::{self, Governed, Pace, Writer};
use super::super::latency::{Latency, median};
use super::options::{CHURNED, StallArgs};
use super::threads::Threads;
use ebb_engine::clock::Clock;

/// Live items, in percent of the store: so few that nothing is evicted even without a cleaner.
const LIVE_PERCENT: u64 = 25;
/// Number of threads that only keep a core busy.
pub(super) const BUSY_THREADS: usize = 2;

/// The Sets of one round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    pub(super) cleaner: bool,
    pub(super) sets: u64,
    pub(super) evicted: u64,
    pub(super) copied_bytes: u64,
    pub(super) p9999_us: f64,
    pub(super) longest_us: f64,
}

pub(super) fn wait_for_sets(args: &StallArgs, cleaner: bool) -> anyhow::Result<Waits> {
    let (clock, store) = (Clock::monotonic(), engine::store(args.store.0, args.seed)?);
    let mut writer = Writer::new(&store, &clock, CHURNED.parse()?, args.seed);
    let items = writer.fill(args.store.0 / 100 * LIVE_PERCENT)?;
    let _governed = cleaner.then(|| Governed::start(&store, &clock)).transpose()?;
    let busy = Threads::start(BUSY_THREADS as u64, |stopping| {
        while !stopping.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    let mut latency = Latency::default();
    let (pace, length) = (Pace::new(args.rate as f64), Duration::from_secs(args.seconds));
    let (started, mut sets) = (Instant::now(), 0);
    while started.elapsed() < length {
        pace.wait(sets);
        let n = writer.random.u64(0..items);
        let begun = Instant::now();
        writer.set(n, 0)?;
        latency.record(begun.elapsed());
        sets += 1;
    }
    busy.stop()?;
    let stats = store.stats();
    Ok(Waits {
        cleaner,
        sets,
        evicted: stats.evictions,
        copied_bytes: stats.copied_bytes,
        p9999_us: latency.micros_at(0.9999),
        longest_us: latency.percentiles().max,
    })
}

/// Medians of the rounds with a cleaner and without, and their ratio: of p99.99 and of the longest Set.
pub(super) fn medians(waits: &[Waits]) -> [(f64, f64); 3] {
    let of =
        |cleaner, figure: fn(&Waits) -> f64| median(waits.iter().filter(|round| round.cleaner == cleaner).map(figure));
    let [on, off] = [true, false].map(|cleaner| (of(cleaner, |r| r.p9999_us), of(cleaner, |r| r.longest_us)));
    [on, off, (on.0 / off.0, on.1 / off.1)]
}
