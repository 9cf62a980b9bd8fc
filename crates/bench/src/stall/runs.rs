//! The parts `run` and `target`: how soon the cleaner completes a run or reaches a target during writes at full speed.

use anyhow::anyhow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::engine::{self, Writer};
use super::super::process::pause;
use super::options::{CHURNED, StallArgs};
use ebb_engine::cleaner::{Reason, Target};
use ebb_engine::clock::Clock;
use ebb_engine::store::{Stats, Store};

/// Live items that are overwritten during a run, in percent of the store.
pub(super) const LIVE_PERCENT: u64 = 60;
/// The target that the governor sets during such writes.
const COMPACTING: Target = Target { reason: Reason::Drift, occupancy_percent: 90, evict_to_bytes: None };
const RUN_OCCUPANCY_PERCENT: u8 = 97;
pub(super) const RUN_BOUND: Duration = Duration::from_secs(30);
pub(super) const TARGET_BOUND: Duration = Duration::from_secs(10);
/// Duration of the writes before a run is requested, and of a run before a target is set.
const HEAD_START: Duration = Duration::from_secs(1);

/// A measured wait during writes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Awaited {
    /// `None` if it took longer than the bound.
    pub(super) took: Option<Duration>,
    pub(super) written_bytes: u64,
    pub(super) during: Duration,
    pub(super) evicted: u64,
    pub(super) from_bytes: u64,
    pub(super) to_bytes: u64,
}

/// Overwrites the items of a store at full speed until stopped; returns the stored bytes.
fn start_churn(mut writer: Writer, items: u64) -> (Arc<AtomicBool>, JoinHandle<anyhow::Result<u64>>) {
    let stopping = Arc::new(AtomicBool::new(false));
    let stopped = stopping.clone();
    let thread = std::thread::spawn(move || {
        let before = writer.stored_bytes;
        while !stopped.load(Ordering::Relaxed) {
            let n = writer.random.u64(0..items);
            writer.set(n, 0)?;
        }
        Ok(writer.stored_bytes - before)
    });
    (stopping, thread)
}

/// A store that is overwritten at full speed, with a cleaner that has the usual target during writes until the
/// measurement sets another one.
struct Churned {
    store: Arc<Store>,
    cleaner: ebb_engine::cleaner::Cleaner,
    stopping: Arc<AtomicBool>,
    writer: Option<JoinHandle<anyhow::Result<u64>>>,
    started: Instant,
    before: Stats,
}

impl Churned {
    fn start(args: &StallArgs) -> anyhow::Result<Self> {
        let (clock, store) = (Clock::monotonic(), engine::store(args.run_store.0, args.seed)?);
        let mut writer = Writer::new(&store, &clock, CHURNED.parse()?, args.seed);
        let items = writer.fill(args.run_store.0 / 100 * LIVE_PERCENT)?;
        let cleaner = engine::cleaner(&store, &clock)?;
        cleaner.set_target(COMPACTING);
        let before = store.stats();
        let (stopping, writer) = start_churn(writer, items);
        pause(HEAD_START);
        Ok(Self { store, cleaner, stopping, writer: Some(writer), started: Instant::now() - HEAD_START, before })
    }

    /// Waits for a condition, at most for `bound`.
    fn wait(&self, bound: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
        let from = Instant::now();
        while from.elapsed() < bound {
            if holds() {
                return Some(from.elapsed());
            }
            pause(Duration::from_millis(1));
        }
        None
    }

    fn end(mut self, awaited: Awaited) -> anyhow::Result<Awaited> {
        let (during, after) = (self.started.elapsed(), self.store.stats());
        self.stopping.store(true, Ordering::Relaxed);
        let writer = self.writer.take().expect("it is taken once");
        let written_bytes = writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        let evicted = after.evictions - self.before.evictions;
        Ok(Awaited { written_bytes, during, evicted, ..awaited })
    }
}

impl Drop for Churned {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.cleaner.stop();
    }
}

pub(super) fn await_run(args: &StallArgs) -> anyhow::Result<Awaited> {
    let churned = Churned::start(args)?;
    let from_bytes = churned.store.ledger().total();
    let run = churned.cleaner.run(Target::compact(RUN_OCCUPANCY_PERCENT));
    let took = churned.wait(RUN_BOUND, || run.report().is_some());
    let to_bytes = churned.store.ledger().total();
    churned.end(Awaited { took, from_bytes, to_bytes, ..Awaited::default() })
}

pub(super) fn await_target(args: &StallArgs) -> anyhow::Result<Awaited> {
    let churned = Churned::start(args)?;
    let _run = churned.cleaner.run(Target::compact(RUN_OCCUPANCY_PERCENT));
    pause(HEAD_START);
    let from_bytes = churned.store.ledger().total();
    let bound_bytes = from_bytes / 3 * 2;
    churned.cleaner.set_target(Target { reason: Reason::High, evict_to_bytes: Some(bound_bytes), ..COMPACTING });
    let took = churned.wait(TARGET_BOUND, || churned.store.ledger().total() <= bound_bytes);
    let to_bytes = churned.store.ledger().total();
    churned.end(Awaited { took, from_bytes, to_bytes, ..Awaited::default() })
}
