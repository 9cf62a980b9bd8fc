//! Per-key linearizability of the engine under real threads, while segments move.
//!
//! Every write of a key contains a growing number; one thread writes a key, several read it. A read must return a
//! number not below the last one acknowledged before it began, and not above the last one begun before it ended. No
//! reader may see a number decrease. With one writer per key this is exactly linearizability of a register (Gibbons and
//! Korach, 1997), and it is decided during the run, in constant memory.

use ebb_engine::cleaner::{Cleaner, Pacing, ProcessMemory, Reason, Target};
use ebb_engine::clock::Clock;
use ebb_engine::store::{Attributes, Condition, Deletion, Key, Lookup, Options, Store, Use};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const KEYS: u64 = 512;
const READERS: usize = 3;

/// Duration of the test: `EBB_LIN_SECONDS` seconds, by default 4.
fn duration() -> Duration {
    Duration::from_secs(std::env::var("EBB_LIN_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4))
}

struct Register {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

fn value(number: u64, key: u64) -> Vec<u8> {
    // The length changes with the number: some writes are in place, some move.
    let length = 16 + (number.wrapping_mul(key + 7) % 5) as usize * 40;
    let mut value = number.to_le_bytes().to_vec();
    value.resize(length, number as u8);
    value
}

#[test]
fn a_read_is_never_older_than_an_acknowledged_write() {
    let options = Options {
        most_bytes: Some(64 << 20),
        shards: Some(2),
        segment_bytes: Some(16 << 10),
        ..Options::new(32 << 20)
    };
    let store = Arc::new(Store::new(options).unwrap());
    let clock = Clock::monotonic();
    let pacing = Pacing { step_micros: 20, cpu_percent: 100 };
    let cleaner = Cleaner::spawn(store.clone(), clock, pacing, ProcessMemory::default).unwrap();
    cleaner.set_target(Target { reason: Reason::Drift, occupancy_percent: 99, evict_to_bytes: None });
    let registers: Arc<Vec<Register>> =
        Arc::new((0..KEYS).map(|_| Register { begun: AtomicU64::new(0), acknowledged: AtomicU64::new(0) }).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let put = |store: &Store, key: u64, number: u64| {
        let name = key.to_le_bytes();
        let key_of = Key { namespace: 0, bytes: &name };
        store.set(key_of, &value(number, key), &Attributes::default(), Condition::Always, false, 1).unwrap();
    };
    for (key, register) in registers.iter().enumerate() {
        put(&store, key as u64, 1);
        register.begun.store(1, Ordering::SeqCst);
        register.acknowledged.store(1, Ordering::SeqCst);
    }
    let mut threads = Vec::new();
    threads.push({
        let (store, registers, stop) = (store.clone(), registers.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut number = 1;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                for (key, register) in registers.iter().enumerate() {
                    register.begun.store(number, Ordering::SeqCst);
                    put(&store, key as u64, number);
                    register.acknowledged.store(number, Ordering::SeqCst);
                }
                // Garbage next to these items, so that the cleaner compacts segments.
                for i in 0..200_u64 {
                    let name = (1_000_000 + i).to_le_bytes();
                    let garbage = Key { namespace: 1, bytes: &name };
                    store.set(garbage, &[1; 300], &Attributes::default(), Condition::Always, false, 1).unwrap();
                    store.delete(garbage, None, Deletion::Remove, 1).unwrap();
                }
            }
        })
    });
    for reader in 0..READERS {
        let (store, registers, stop, reads) = (store.clone(), registers.clone(), stop.clone(), reads.clone());
        threads.push(std::thread::spawn(move || {
            let mut seen = vec![0; KEYS as usize];
            let mut key = reader as u64 * 97;
            while !stop.load(Ordering::Relaxed) {
                key = (key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)) % KEYS;
                let register = &registers[key as usize];
                let least = register.acknowledged.load(Ordering::SeqCst);
                let name = key.to_le_bytes();
                let Lookup::Found(item) = store.get(Key { namespace: 0, bytes: &name }, 1, Use::Read).unwrap() else {
                    panic!("key {key} is missing, although nothing was evicted");
                };
                let number = u64::from_le_bytes(item.value[..8].try_into().unwrap());
                let most = register.begun.load(Ordering::SeqCst);
                assert!((least..=most).contains(&number), "key {key}: {number} is not in {least}..={most}");
                assert!(number >= seen[key as usize], "key {key}: {number} after {}", seen[key as usize]);
                assert_eq!(item.value, value(number, key), "key {key}: a torn value");
                seen[key as usize] = number;
                reads.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let deadline = Instant::now() + duration();
    while Instant::now() < deadline && threads.iter().all(|thread| !thread.is_finished()) {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    let (moved, freed) =
        cleaner.reports().iter().fold((0, 0), |sum, r| (sum.0 + r.done.moved_items, sum.1 + r.done.freed_segments));
    cleaner.stop();
    println!(
        "{} reads checked; in the last reports {moved} items moved, {freed} segments freed",
        reads.load(Ordering::Relaxed)
    );
    assert!(store.stats().copied_bytes > 0, "segments were compacted during the run");
    assert!(reads.load(Ordering::Relaxed) > 10_000);
}
