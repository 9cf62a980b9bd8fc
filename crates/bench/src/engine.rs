//! The engine in process, for benchmarks without a server: a store, its cleaner and a writer.
//!
//! ```text
//!   budget ──► rules of the governor, every 100 ms ──target──► cleaner ──► store ◄── writer
//! ```
//! G1. The rules are the server's (`ebb_engine::decide`) with its default settings. Only the sample differs: the budget
//!     is fixed, because this process also contains the benchmark.
//! G2. The clock is real: the cleaner waits in real time, so a faster clock would leave it less time than on a server.

use anyhow::{Context as _, anyhow, bail};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::process::pause;
use super::workload::{key, mix};
use ebb_config::units::ByteSize;
use ebb_engine::cleaner::{Cleaner, Pacing, ProcessMemory};
use ebb_engine::clock::Clock;
use ebb_engine::decide::{Decision, Sample, Thresholds, decide};
use ebb_engine::store::{Attributes, Condition, Error, Key, Lookup, Options, Stats, Store, Use};

/// Size of a key, in bytes.
pub(super) const KEY_BYTES: u64 = 16;
/// Default interval between a governor's samples.
const TICK: Duration = Duration::from_millis(100);
/// Maximum size of a [`Writer`]'s values, in bytes.
const LARGEST_BYTES: usize = 64 << 10;

/// Creates a store with a server's options.
pub(super) fn store(capacity_bytes: u64, seed: u64) -> anyhow::Result<Arc<Store>> {
    let options = Options { seed: [mix(seed), mix(!seed)], ..Options::new(capacity_bytes) };
    Store::new(options).map(Arc::new).context("cannot create a store")
}

/// Starts a cleaner with the server's pacing.
pub(super) fn cleaner(store: &Arc<Store>, clock: &Clock) -> anyhow::Result<Cleaner> {
    let cleaner = Cleaner::spawn(store.clone(), clock.clone(), Pacing::default(), ProcessMemory::default);
    cleaner.context("cannot start the cleaner")
}

/// A store with its cleaner and the rules of the governor; both threads end with this value.
pub(super) struct Governed {
    cleaner: Cleaner,
    stopping: Arc<AtomicBool>,
    governor: Option<JoinHandle<()>>,
}

impl Governed {
    /// Governs a store; its capacity is the budget.
    pub(super) fn start(store: &Arc<Store>, clock: &Clock) -> anyhow::Result<Self> {
        let cleaner = cleaner(store, clock)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let governor = {
            let (store, cleaner, clock, stopping) = (store.clone(), cleaner.clone(), clock.clone(), stopping.clone());
            std::thread::spawn(move || govern(&store, &cleaner, &clock, &stopping))
        };
        Ok(Self { cleaner, stopping, governor: Some(governor) })
    }
}

impl Drop for Governed {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(governor) = self.governor.take() {
            governor.thread().unpark();
            let _ = governor.join(); // it only fails after a panic, which is already reported
        }
        self.cleaner.stop();
    }
}

fn govern(store: &Store, cleaner: &Cleaner, clock: &Clock, stopping: &AtomicBool) {
    // The budget is the whole limit: overhead is not counted, so there is no reserve.
    let thresholds = Thresholds { reserve_percent: 0, reserve_bytes: 0, ..Thresholds::default() };
    let limit_bytes = store.ledger().capacity();
    let mut decision = Decision::default();
    while !stopping.load(Ordering::Relaxed) {
        let before = decision.target;
        decision = decide(sample(store, clock.now_ms(), limit_bytes), &decision, &thresholds);
        store.ledger().set_capacity(decision.budget_bytes);
        if decision.target != before {
            cleaner.set_target(decision.target);
        }
        // Like the server's governor, which samples more often while it evicts.
        std::thread::park_timeout(if decision.regime.evicts() { TICK / 4 } else { TICK });
    }
}

/// A sample like the server's governor's, for a process that contains only the engine.
fn sample(store: &Store, now_ms: u64, limit_bytes: u64) -> Sample {
    let engine_bytes = store.ledger().total();
    let Stats { item_bytes, dead_bytes, index_bytes, appended_bytes, died_bytes, .. } = store.stats();
    Sample {
        now_ms,
        limit_bytes,
        used_bytes: engine_bytes,
        engine_bytes,
        live_bytes: item_bytes + index_bytes,
        item_bytes,
        dead_bytes,
        changed_bytes: appended_bytes + died_bytes,
        ..Sample::default()
    }
}

/// Minimum and maximum size of a value, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ValueBytes {
    least: usize,
    most: usize,
}

impl ValueBytes {
    /// The same size for all values.
    pub(super) fn fixed(bytes: usize) -> Self {
        Self { least: bytes, most: bytes }
    }
}

impl FromStr for ValueBytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let bounds = text.split_once('-').and_then(|(least, most)| Some((least.parse().ok()?, most.parse().ok()?)));
        match bounds {
            Some((least, most)) if 1 <= least && least <= most && most <= LARGEST_BYTES => Ok(Self { least, most }),
            _ => Err(anyhow!("{text:?} is not MIN-MAX, such as 100-500 (1 to {LARGEST_BYTES} bytes)")),
        }
    }
}

impl fmt::Display for ValueBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.least, self.most)
    }
}

/// A parser of sizes between two bounds.
pub(super) fn size_within(least: u64, most: u64) -> impl Fn(&str) -> anyhow::Result<ByteSize> + Clone {
    move |text| match text.parse::<ByteSize>()? {
        ByteSize(bytes) if !(least..=most).contains(&bytes) => {
            Err(anyhow!("{text} is out of range ({} to {})", ByteSize(least), ByteSize(most)))
        }
        size => Ok(size),
    }
}

/// Stores numbered items with values of random sizes.
pub(super) struct Writer {
    store: Arc<Store>,
    clock: Clock,
    pub(super) random: fastrand::Rng,
    values: ValueBytes,
    noise: Vec<u8>,
    /// Keys and values stored, in bytes.
    pub(super) stored_bytes: u64,
    /// Number of successful Sets.
    pub(super) stored: u64,
    /// Number of Sets refused for lack of memory.
    pub(super) refused: u64,
}

impl Writer {
    pub(super) fn new(store: &Arc<Store>, clock: &Clock, values: ValueBytes, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut noise = vec![0; values.most];
        random.fill(&mut noise);
        let (store, clock) = (store.clone(), clock.clone());
        Self { store, clock, random, values, noise, stored_bytes: 0, stored: 0, refused: 0 }
    }

    /// Stores item `n` with a value of a random size. A `deadline_ms` of 0 means that it never expires.
    pub(super) fn set(&mut self, n: u64, deadline_ms: u64) -> anyhow::Result<()> {
        let len = self.random.usize(self.values.least..=self.values.most);
        let name = key(n);
        let attributes = Attributes { deadline_ms, ..Attributes::default() };
        let now_ms = self.clock.now_ms();
        match self.store.set(named(&name), &self.noise[..len], &attributes, Condition::Always, false, now_ms) {
            Ok(_) => {
                self.stored += 1;
                self.stored_bytes += KEY_BYTES + len as u64;
            }
            Err(Error::NoSpace { .. }) => self.refused += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Stores items from number 0 until their bytes with headers and index reach `live_bytes`; returns their number.
    pub(super) fn fill(&mut self, live_bytes: u64) -> anyhow::Result<u64> {
        let live = |stats: &Stats| stats.item_bytes + stats.index_bytes;
        for n in 0.. {
            if n % 64 == 0 {
                let stats = self.store.stats();
                if stats.evictions + self.refused > 0 {
                    let (reached, capacity) = (live(&stats) >> 20, self.store.ledger().capacity() >> 20);
                    bail!("the live items do not fit: {reached} MiB of {capacity} MiB are live");
                }
                if live(&stats) >= live_bytes {
                    return Ok(n);
                }
            }
            self.set(n, 0)?;
        }
        unreachable!("the iterator is infinite")
    }
}

/// A key of the default namespace.
pub(super) fn named(bytes: &[u8]) -> Key<'_> {
    Key { namespace: 0, bytes }
}

/// Whether item `n` is in memory and has not expired at `now_ms`.
pub(super) fn is_held(store: &Store, n: u64, now_ms: u64) -> anyhow::Result<bool> {
    let lookup = store.get(named(&key(n)), now_ms, Use::Peek)?;
    Ok(matches!(lookup, Lookup::Found(_)))
}

/// Number of items that are no longer in memory.
pub(super) fn lost(store: &Store, items: Range<u64>, now_ms: u64) -> anyhow::Result<u64> {
    let mut lost = 0;
    for n in items {
        lost += u64::from(!is_held(store, n, now_ms)?);
    }
    Ok(lost)
}

/// Spreads work evenly over time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    started: Instant,
    per_second: f64,
}

impl Pace {
    /// Starts the schedule now.
    pub(super) fn new(per_second: f64) -> Self {
        Self { started: Instant::now(), per_second }
    }

    /// Time from the start at which the unit after `done` units is due.
    fn due(&self, done: u64) -> Duration {
        Duration::from_secs_f64(done as f64 / self.per_second)
    }

    /// Waits until the unit after `done` units is due.
    pub(super) fn wait(&self, done: u64) {
        let early = self.due(done).saturating_sub(self.started.elapsed());
        if !early.is_zero() {
            pause(early);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_outside_of_their_bounds_are_refused_with_the_bounds() {
        assert_eq!("100-500".parse::<ValueBytes>().unwrap(), ValueBytes { least: 100, most: 500 });
        let wrong: Vec<_> = ["", "100", "0-5", "500-100", "1-65537", "a-b"]
            .map(|bad| (bad, bad.parse::<ValueBytes>()))
            .into_iter()
            .filter(|(_, found)| !found.as_ref().is_err_and(|error| error.to_string().contains("1 to 65536")))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let parse = size_within(16 << 20, 1 << 30);
        assert_eq!(parse("16Mi").unwrap(), ByteSize(16 << 20));
        assert_eq!(parse("2Gi").unwrap_err().to_string(), "2Gi is out of range (16Mi to 1Gi)");
        assert!(parse("much").unwrap_err().to_string().contains("is not a size"));
    }

    #[test]
    fn a_pace_is_kept_from_its_start_on() {
        let pace = Pace::new(1000.0);
        assert_eq!([0, 1, 2500].map(|done| pace.due(done).as_millis()), [0, 1, 2500]);
        pace.wait(5);
        assert!(pace.started.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn evicts_down_to_the_low_watermark_and_keeps_the_rest() {
        let clock = Clock::monotonic();
        let store = store(16 << 20, 1).unwrap();
        let mut writer = Writer::new(&store, &clock, "100-500".parse().unwrap(), 1);
        let items = writer.fill(8 << 20).unwrap();
        assert_eq!(lost(&store, 0..items, clock.now_ms()).unwrap(), 0);
        let governed = Governed::start(&store, &clock).unwrap();
        for n in items..items * 2 {
            writer.set(n, 0).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        let live = |stats: Stats| stats.item_bytes + stats.index_bytes;
        while live(store.stats()) > (16 << 20) * 88 / 100 {
            assert!(Instant::now() < deadline, "not within 30 s");
            std::thread::yield_now();
        }
        drop(governed);
        assert!(lost(&store, 0..items * 2, clock.now_ms()).unwrap() > 0);
        assert!(Writer::new(&store, &clock, ValueBytes::fixed(100), 1).fill(u64::MAX).is_err(), "it ends");
    }
}
