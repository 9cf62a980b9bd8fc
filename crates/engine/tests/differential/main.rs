//! The engine compared with the exact knowledge of its writers, under real threads.
//!
//! ```text
//!  writers ──every operation──► Store ◄──steps── Cleaner ◄─targets── driver
//!     │ begin, acknowledge        ▲                                    │ capacity, bytes in flight,
//!     ▼                           │ get, scan                          │ mass deletes, spinning threads
//!  registers ◄────judge──────── readers                                ▼
//! ```
//! Each key has one owner, so its states follow each other and every thread can judge what it sees (see `history`). A
//! run is a sequence of phases; each draws its options, causes disturbances for some seconds, ends them, and compares
//! everything.
//!
//! `EBB_DIFFERENTIAL_SECONDS` sets the duration (default 20). `EBB_DIFFERENTIAL_SEED` repeats the choices of a run, but
//! not the interleaving of its threads. A long run: `EBB_DIFFERENTIAL_SECONDS=7200 cargo test -p ebb-engine --test
//! differential -- --nocapture`.

mod collisions;
mod driver;
mod history;
mod random;
mod reader;
mod values;
mod world;
mod writer;

use driver::Driver;
use ebb_engine::store::Account;
use random::Random;
use reader::Reader;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use world::{MOST_WRITERS, Setup, World};
use writer::{LONGEST_DEADLINE_MS, Writer};

/// Set by the first panic of any thread, including the cleaner's, so that the others end too.
static FAILED: AtomicBool = AtomicBool::new(false);

fn has_failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_answer_fits_the_history_of_its_key() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        FAILED.store(true, Ordering::Relaxed);
        before(info);
    }));
    let time = Duration::from_secs(number_from("EBB_DIFFERENTIAL_SECONDS").unwrap_or(20));
    let seed = number_from("EBB_DIFFERENTIAL_SEED").unwrap_or_else(|| RandomState::new().hash_one(0_u8) & 0xffff_ffff);
    println!("EBB_DIFFERENTIAL_SEED={seed}");
    let mut random = Random::new(seed);
    let hash_seed = [random.next(), random.next()];
    let collisions = collisions::find(hash_seed, MOST_WRITERS);
    println!("{} keys share a place with another", collisions.iter().map(Vec::len).sum::<usize>());
    let end = Instant::now() + time;
    let mut phase = 0;
    while phase == 0 || Instant::now() < end {
        let setup = Setup::draw(&mut Random::of(seed, phase));
        let left = end.saturating_duration_since(Instant::now());
        let share = Duration::from_millis(1_000 + random.below(2_000)).min(left);
        run_phase(World::new(seed, phase, setup, hash_seed, &collisions), share);
        phase += 1;
    }
}

fn run_phase(world: World, time: Duration) {
    println!("{world}");
    let world = Arc::new(world);
    let writers: Vec<_> = (0..world.setup.writers)
        .map(|number| {
            let mut writer = Writer::new(world.clone(), number);
            std::thread::spawn(move || {
                writer.run();
                writer
            })
        })
        .collect();
    let readers: Vec<_> = (0..world.setup.readers)
        .map(|number| {
            let mut reader = Reader::new(world.clone(), number);
            std::thread::spawn(move || reader.run())
        })
        .collect();
    let spinners: Vec<_> = (0..world.setup.spinners)
        .map(|_| {
            let world = world.clone();
            std::thread::spawn(move || spin(&world))
        })
        .collect();
    let mut driver = Driver::new(world.clone());
    driver.run(time, has_failed);
    world.writers_stop.store(true, Ordering::Relaxed);
    if has_failed() {
        world.readers_stop.store(true, Ordering::Relaxed);
    }
    let mut writers = join(writers);
    if !has_failed() {
        driver.rest();
        compare(&world, &driver, &mut writers);
    }
    world.readers_stop.store(true, Ordering::Relaxed);
    join(readers);
    join(spinners);
    empty(&world, &driver, &mut writers);
    world.cleaner.stop();
    let stats = world.store.stats();
    assert!(world.counts.fills.load(Ordering::Relaxed) > 0, "{world}: no value was stored under a lease");
    println!("  {:?}, {} evictions, {} copied bytes", world.counts, stats.evictions, stats.copied_bytes);
}

/// Joins all threads, then resumes the first panic among them.
fn join<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    let results: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
    results.into_iter().map(|result| result.unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
}

/// Occupies a core while spinning is on.
fn spin(world: &World) {
    let mut number = 0_u64;
    while !world.readers_stop.load(Ordering::Relaxed) && !has_failed() {
        match world.spinning.load(Ordering::Relaxed) {
            true => (0..100_000).for_each(|_| number = std::hint::black_box(number + 1)),
            false => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
}

/// Maximum delay between the deadline of a short-lived item and its removal by a run, in milliseconds.
const PATIENCE_MS: u64 = 1_000;

/// Checks that one run drops all expired items, some time after every deadline has passed. Some deadlines are set late,
/// in segments in which nothing else expires.
fn expire(world: &World, driver: &Driver, writers: &mut [Writer]) {
    if world.setup.has_far_deadlines {
        return;
    }
    let wait_for_deadlines = || {
        let begun_ms = world.clock.now_ms();
        while world.clock.now_ms() <= begun_ms + LONGEST_DEADLINE_MS + PATIENCE_MS {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        driver.clean();
    };
    writers.iter_mut().for_each(Writer::draw_deadlines_near);
    writers.iter_mut().for_each(Writer::take_deadlines_away);
    wait_for_deadlines();
    writers.iter_mut().for_each(Writer::draw_deadlines_near);
    wait_for_deadlines();
    // Reads detect evicted items.
    writers.iter_mut().for_each(|writer| drop(writer.compare()));
    let lasting: u64 = writers.iter().map(Writer::lasting_items).sum();
    let stats = world.store.stats();
    assert_eq!(stats.entries, lasting, "{world}\nitems without a deadline, after all others have expired: {stats:?}");
}

/// Compares everything exactly, after the writers have stopped.
fn compare(world: &Arc<World>, driver: &Driver, writers: &mut [Writer]) {
    expire(world, driver, writers);
    writers.iter_mut().for_each(Writer::settle);
    driver.clean();
    let mut live = HashSet::new();
    let mut live_bytes = 0;
    for writer in writers.iter_mut() {
        let (keys, bytes) = writer.compare();
        live.extend(keys);
        live_bytes += bytes;
    }
    let stats = world.store.stats();
    let (counted, known) = ((stats.entries, stats.live_bytes), (live.len() as u64, live_bytes));
    if counted != known {
        let problem = format!("{counted:?} items and bytes are counted, {known:?} expected; one expected item:");
        world.fail(live.iter().copied().min().unwrap_or(0), problem);
    }
    let mut in_use = vec![false; usize::from(world.namespaces())];
    live.iter().for_each(|key| in_use[usize::from(world.registers[*key].namespace)] = true);
    let mut counted = world.store.namespaces_in_use();
    counted.resize(in_use.len().max(counted.len()), false);
    assert_eq!(counted[1..], in_use[1..], "{world}: namespaces in use");
    let mut items = vec![0; in_use.len()];
    live.iter().for_each(|key| items[usize::from(world.registers[*key].namespace)] += 1);
    let mut counted: Vec<_> = world.store.namespaces().iter().map(|used| used.entries).collect();
    counted.resize(items.len().max(counted.len()), 0);
    assert_eq!(counted, items, "{world}: items by namespace");
    let entries = Reader::new(world.clone(), world.setup.readers).scan_all();
    let found: HashSet<_> = entries.iter().copied().collect();
    if let Some(key) = live.symmetric_difference(&found).next() {
        world.fail(*key, format!("in a scan without writers: {}, live: {}", found.contains(key), live.contains(key)));
    }
    assert_eq!(entries.len(), found.len(), "{world}: a scan without writers returns each key once");
    if !world.is_lossy() {
        let none = (stats.evictions, stats.refusals);
        assert_eq!(none, (0, 0), "{world}\nall items fit, yet some were evicted or refused: {stats:?}");
    }
}

/// Checks that no bytes are left in segments after everything is deleted and cleaned.
fn empty(world: &World, driver: &Driver, writers: &mut [Writer]) {
    /// More than one, because the next run frees a segment that was retired between two runs.
    const RUNS: usize = 5;
    writers.iter_mut().for_each(Writer::delete_all);
    let ledger = world.store.ledger();
    for _ in 0..RUNS {
        driver.clean();
        if ledger.used(Account::Segments) == 0 {
            break;
        }
    }
    let stats = world.store.stats();
    let nothing = (stats.entries, stats.live_bytes, stats.item_bytes, stats.dead_bytes, ledger.used(Account::Segments));
    assert_eq!(nothing, (0, 0, 0, 0, 0), "{world}\nafter everything was deleted: {stats:?}");
    assert_eq!(ledger.total(), ledger.used(Account::Index), "{world}\nthe ledger's total is the sum of its accounts");
}
