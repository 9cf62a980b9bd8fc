//! The cleaner's thread on a real store, with a manual clock.

use super::*;
use crate::store::{Attributes, Condition, Deletion, Key, Options};
use std::time::{Duration, Instant};

const PACING: Pacing = Pacing { step_micros: 100, cpu_percent: 100 };

fn filled(entries: u32, clock: &Clock) -> Arc<Store> {
    let options = Options { most_bytes: Some(256 << 20), ..Options::new(64 << 20) };
    let store = Arc::new(Store::new(options).unwrap());
    for i in 0..entries {
        let name = format!("{i:016}");
        let key = Key { namespace: 0, bytes: name.as_bytes() };
        let attributes = Attributes { deadline_ms: if i % 2 == 0 { 0 } else { 10_000 }, ..Attributes::default() };
        store.set(key, &[5; 128], &attributes, Condition::Always, false, clock.now_ms()).unwrap();
    }
    store
}

fn delete_all_but_every_tenth(store: &Store, entries: u32) {
    for i in (0..entries).filter(|i| i % 10 != 0) {
        let name = format!("{i:016}");
        store.delete(Key { namespace: 0, bytes: name.as_bytes() }, None, Deletion::Remove, 1).unwrap();
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_requested_run_compacts_and_ends_with_a_report() {
    let clock = Clock::manual(1);
    let store = filled(100_000, &clock);
    delete_all_but_every_tenth(&store, 100_000);
    let cleaner = Cleaner::spawn(store.clone(), clock, PACING, ProcessMemory::default).unwrap();
    let run = cleaner.run(Target { reason: Reason::Requested, occupancy_percent: 100, evict_to_bytes: None });
    until("the run has ended", || run.report().is_some());
    let report = run.report().unwrap();
    assert_eq!((report.id, report.reason, report.done.evicted_items), (1, Reason::Requested, 0));
    assert_eq!(run.percent(), 100);
    assert!(report.after.segment_bytes * 5 < report.before.segment_bytes, "{report:?}");
    assert!(report.after.segment_bytes + report.after.index_bytes < report.after.live_bytes * 13 / 10, "{report:?}");
    assert!(
        report.done.moved_items >= 9_000 && report.done.freed_segments > 100 && report.cost.cpu_us > 0,
        "{report:?}"
    );
    assert_eq!(store.stats().entries, 10_000);
    assert_eq!(cleaner.reports().first(), Some(&report));
    cleaner.stop();
}

#[test]
fn a_lasting_target_needs_no_repetition() {
    let clock = Clock::manual(1);
    let store = filled(50_000, &clock);
    let cleaner = Cleaner::spawn(store.clone(), clock, PACING, ProcessMemory::default).unwrap();
    cleaner.set_target(Target { reason: Reason::High, occupancy_percent: 0, evict_to_bytes: Some(5 << 20) });
    until("it evicts to the bound", || cleaner.account().segment_bytes + cleaner.account().index_bytes <= 5 << 20);
    assert!(store.stats().evictions > 10_000);
    until("a report says why", || cleaner.reports().iter().any(|report| report.reason == Reason::High));
    cleaner.stop();
}

#[test]
fn a_run_that_frees_everything_keeps_nothing_for_reuse() {
    let clock = Clock::manual(1);
    let store = filled(50_000, &clock);
    let cleaner = Cleaner::spawn(store.clone(), clock, PACING, ProcessMemory::default).unwrap();
    let run = cleaner.run(Target { reason: Reason::Requested, occupancy_percent: 100, evict_to_bytes: Some(0) });
    until("the run has ended", || run.report().is_some());
    // Open segments hold the last items. No other page stays resident.
    let after = run.report().unwrap().after;
    assert!(after.segment_bytes < after.live_bytes * 2 + (128 << 10), "{after:?}");
    cleaner.stop();
}

#[test]
fn expired_items_are_dropped_without_a_target() {
    let clock = Clock::manual(1);
    let store = filled(50_000, &clock);
    let cleaner = Cleaner::spawn(store.clone(), clock.clone(), PACING, ProcessMemory::default).unwrap();
    clock.advance(20_000);
    until("half has expired", || store.stats().entries == 25_000);
    cleaner.stop();
}

#[test]
fn stopping_during_a_run_is_prompt_and_loses_nothing() {
    let clock = Clock::manual(1);
    let store = filled(100_000, &clock);
    delete_all_but_every_tenth(&store, 100_000);
    let slow = Pacing { step_micros: 25, cpu_percent: 1 };
    let cleaner = Cleaner::spawn(store.clone(), clock, slow, ProcessMemory::default).unwrap();
    let run = cleaner.run(Target { reason: Reason::Requested, occupancy_percent: 100, evict_to_bytes: None });
    until("it has taken some steps", || store.stats().copied_bytes > 32 << 10);
    cleaner.stop();
    let report = run.report().expect("a stopped run has a report");
    assert!(report.cost.cpu_us * 10 < report.cost.duration_us, "a hundredth of a core: {report:?}");
    assert!(report.done.moved_items < 10_000, "it ended early: {report:?}");
    assert_eq!(store.stats().entries, 10_000);
}

/// Stops a thread when it goes out of scope. Without it, a failed assertion would leave the thread running and the test
/// waiting.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Overwrites random entries as fast as possible until `stop` is set.
fn overwrite(store: &Store, entries: u64, stop: &AtomicBool) {
    let mut state = 7_u64;
    while !stop.load(Ordering::Relaxed) {
        (0..3).for_each(|i| state ^= [state << 13, state >> 7, state << 17][i]);
        let name = format!("{:016}", state % entries);
        let key = Key { namespace: 0, bytes: name.as_bytes() };
        let value = vec![7; 100 + (state >> 40) as usize % 200];
        store.set(key, &value, &Attributes::default(), Condition::Always, false, 1).unwrap();
    }
}

#[test]
fn a_run_ends_despite_fast_writers() {
    let clock = Clock::manual(1);
    let store = filled(100_000, &clock);
    let cleaner = Cleaner::spawn(store.clone(), clock, PACING, ProcessMemory::default).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| overwrite(&store, 100_000, &stop));
        until("there is something to compact", || store.stats().dead_bytes > 4 << 20);
        let run = cleaner.run(Target::compact(100));
        until("the run has ended", || run.report().is_some());
    });
    cleaner.stop();
}

#[test]
fn a_target_that_evicts_precedes_a_requested_run() {
    let clock = Clock::manual(1);
    let store = filled(100_000, &clock);
    delete_all_but_every_tenth(&store, 50_000);
    // At this pace, the eviction takes a tenth of the time of the run.
    let slow = Pacing { step_micros: 25, cpu_percent: 1 };
    let cleaner = Cleaner::spawn(store.clone(), clock, slow, ProcessMemory::default).unwrap();
    let run = cleaner.run(Target::compact(100));
    until("it has begun", || store.stats().copied_bytes > 0);
    let bound = store.stats().item_bytes * 2 / 3;
    cleaner.set_target(Target { reason: Reason::High, occupancy_percent: 0, evict_to_bytes: Some(bound) });
    until("the bytes over the bound are evicted", || store.stats().evictions > 1_000);
    assert!(run.report().is_none(), "the eviction precedes the run");
    cleaner.set_target(Target::NONE);
    cleaner.set_pacing(PACING);
    until("the run has ended", || run.report().is_some());
    cleaner.stop();
}

#[test]
fn a_repeatedly_set_target_ends_in_one_report() {
    let clock = Clock::manual(1);
    let store = filled(100_000, &clock);
    let cleaner = Cleaner::spawn(store.clone(), clock, PACING, ProcessMemory::default).unwrap();
    let used = store.stats().segment_bytes + store.stats().index_bytes;
    for step in 1..=8 {
        let bound = Some(used - used / 10 * step);
        let before = store.stats().evictions;
        cleaner.set_target(Target { reason: Reason::High, occupancy_percent: 0, evict_to_bytes: bound });
        until("it evicts", || store.stats().evictions > before + 1_000);
        cleaner.set_target(Target::NONE);
    }
    until("a report says why", || !cleaner.reports().is_empty());
    cleaner.stop();
    let reports = cleaner.reports();
    assert!(reports.len() <= 2, "{reports:?}");
    let evicted = reports.iter().map(|report| report.done.evicted_items).sum::<u64>();
    assert_eq!(evicted, store.stats().evictions, "the reports cover every eviction");
}
