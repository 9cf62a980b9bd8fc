//! The parts `readers` and `roomy`: a writer and readers of one large value, in a full store and in one with room.

use anyhow::Context as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::engine::{self, Governed, ValueBytes, Writer, named};
use super::super::workload::key;
use super::options::StallArgs;
use super::threads::Threads;
use ebb_engine::clock::Clock;
use ebb_engine::store::{Attributes, Condition, Lookup, Stats, Store, Use};

/// Number of the large item; no small item has it.
const LARGE: u64 = u64::MAX;
const SMALL_BYTES: usize = 128;

/// Result of a full store with some readers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readers {
    pub(super) readers: u64,
    pub(super) sets: u64,
    pub(super) refused: u64,
    pub(super) evicted: u64,
    pub(super) most_evicted: u64,
    pub(super) full_entries: u64,
    pub(super) fewest_entries: u64,
    pub(super) reads: u64,
}

/// Result of a store with room for everything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Roomy {
    pub(super) cleaner: bool,
    pub(super) took: Duration,
    pub(super) evicted: u64,
    pub(super) refused: u64,
    pub(super) lost: u64,
    pub(super) reads: u64,
}

/// Stores the large value.
fn store_large(store: &Store, len: u64, now_ms: u64) -> anyhow::Result<()> {
    let (name, value) = (key(LARGE), vec![7; len as usize]);
    let stored = store.set(named(&name), &value, &Attributes::default(), Condition::Always, false, now_ms);
    stored.map(drop).with_context(|| format!("cannot store the value of {len} bytes"))
}

/// Starts threads that read the large value; each returns its number of reads. After a miss a reader stores the value
/// again, as an application would. As long as the value is hot, eviction keeps it.
fn start_readers(number: u64, store: &Arc<Store>, clock: &Clock, len: u64) -> Threads<u64> {
    let (store, clock) = (store.clone(), clock.clone());
    Threads::start(number, move |stopping| {
        let (name, mut reads) = (key(LARGE), 0);
        while !stopping.load(Ordering::Relaxed) {
            match store.get(named(&name), clock.now_ms(), Use::Read) {
                Ok(Lookup::Found(_)) => reads += 1,
                _ => drop(store_large(&store, len, clock.now_ms())), // refused: the next one tries again
            }
        }
        reads
    })
}

pub(super) fn fill_full(args: &StallArgs, number: u64) -> anyhow::Result<Readers> {
    let (clock, store) = (Clock::monotonic(), engine::store(args.store.0, args.seed)?);
    let mut writer = Writer::new(&store, &clock, ValueBytes::fixed(SMALL_BYTES), args.seed);
    let mut n = 0;
    while store.stats().evictions == 0 {
        writer.set(n, 0)?;
        n += 1;
    }
    // Store the large value last, so that it is present when the readers begin.
    store_large(&store, args.large.0, clock.now_ms())?;
    let before = store.stats();
    let (sets, refused) = (writer.stored, writer.refused);
    let readers = start_readers(number, &store, &clock, args.large.0);
    let mut result = Readers { readers: number, full_entries: before.entries, ..Readers::default() };
    let (mut evictions, mut fewest_entries) = (before.evictions, before.entries);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(args.seconds) {
        writer.set(n, 0)?;
        n += 1;
        let Stats { evictions: now, entries, .. } = store.stats();
        result.most_evicted = result.most_evicted.max(now - evictions);
        fewest_entries = fewest_entries.min(entries);
        evictions = now;
    }
    result.reads = readers.stop()?.into_iter().sum();
    (result.sets, result.refused) = (writer.stored - sets, writer.refused - refused);
    (result.evicted, result.fewest_entries) = (evictions - before.evictions, fewest_entries);
    Ok(result)
}

pub(super) fn fill_roomy(args: &StallArgs, cleaner: bool) -> anyhow::Result<Roomy> {
    let (clock, store) = (Clock::monotonic(), engine::store(args.roomy.0, args.seed)?);
    let _governed = cleaner.then(|| Governed::start(&store, &clock)).transpose()?;
    let mut writer = Writer::new(&store, &clock, ValueBytes::fixed(SMALL_BYTES), args.seed);
    store_large(&store, args.large.0, clock.now_ms())?;
    let readers = start_readers(args.readers, &store, &clock, args.large.0);
    let started = Instant::now();
    for n in 0..args.keys {
        writer.set(n, 0)?;
    }
    let took = started.elapsed();
    let reads = readers.stop()?.into_iter().sum();
    let lost = engine::lost(&store, 0..args.keys, clock.now_ms())?;
    Ok(Roomy { cleaner, took, evicted: store.stats().evictions, refused: writer.refused, lost, reads })
}
