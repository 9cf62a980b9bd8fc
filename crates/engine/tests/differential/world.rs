//! The state that the threads of one phase share, and the random choice of a phase.

use crate::history::{Call, Register, Sight};
use crate::random::Random;
use crate::values::describe;
use ebb_engine::cleaner::{Cleaner, Pacing, ProcessMemory, Run, Target};
use ebb_engine::clock::Clock;
use ebb_engine::store::{MAX_KEY_BYTES, Options, Store};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// The capacity relative to live bytes, and its consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// 2.5 times. Writers wait while much of it is used, so that the cleaner keeps up even if it is preempted: nothing
    /// is evicted.
    Ample,
    /// 2.5 times, and writers do not wait: nothing is evicted.
    Unpaced,
    /// 1.3 times, and writers do not wait: nothing is evicted.
    Tight,
    /// Sometimes less than the live bytes: items are evicted.
    Scarce,
}

/// The options of a phase.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) room: Room,
    pub(crate) shards: usize,
    pub(crate) segment_bytes: usize,
    pub(crate) writers: u32,
    pub(crate) readers: usize,
    pub(crate) spinners: usize,
    pub(crate) keys_per_writer: usize,
    /// Maximum bytes of segments for the items of one writer.
    pub(crate) quota_bytes: usize,
    /// Keys of each writer whose values have about 300 KB.
    pub(crate) huge_keys: usize,
    /// Maximum length of the other values.
    pub(crate) largest_bytes: usize,
    /// Share of values of up to 256 bytes.
    pub(crate) small_percent: u64,
    /// Share of values with a near deadline.
    pub(crate) expiring_percent: u64,
    /// Whether some deadlines are hours away. If not, every item with a deadline has expired at the end.
    pub(crate) has_far_deadlines: bool,
    /// Bytes in flight never exceed this.
    pub(crate) in_flight_bytes: u64,
    pub(crate) capacity_bytes: u64,
}

impl Setup {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let room = match random.below(6) {
            0 | 1 => Room::Ample,
            2 => Room::Unpaced,
            3 => Room::Tight,
            _ => Room::Scarce,
        };
        let shards = random.pick(&[1, 1, 2, 4]);
        let segment_bytes = random.pick(&[4 << 10, 16 << 10, 64 << 10]);
        let writers = random.between(1, MOST_WRITERS as usize) as u32;
        let quota_bytes = random.between(1 << 20, 3 << 20);
        let mut setup = Self {
            room,
            shards,
            segment_bytes,
            writers,
            readers: random.between(1, 5),
            spinners: random.index(4),
            keys_per_writer: random.pick(&[20, 200, 1_000, 4_000]),
            quota_bytes,
            huge_keys: random.index(3),
            largest_bytes: random.pick(&[600, 5_000, 40 << 10]),
            small_percent: random.pick(&[20, 60, 95]),
            expiring_percent: random.pick(&[0, 5, 30]),
            has_far_deadlines: random.one_in(2),
            in_flight_bytes: random.pick(&[0, 1 << 20]),
            capacity_bytes: 0,
        };
        let live = setup.live_bytes();
        setup.capacity_bytes = match setup.room {
            Room::Ample | Room::Unpaced => live * 5 / 2,
            Room::Tight => live * 13 / 10,
            Room::Scarce => live * random.between(3, 9) as u64 / 10,
        } + setup.fixed_bytes();
        setup
    }

    /// Maximum bytes of segments for the items of all writers.
    pub(crate) fn live_bytes(&self) -> u64 {
        u64::from(self.writers) * self.quota_bytes as u64
    }

    /// Bytes used otherwise: two banks of the index, the open segments, bytes in flight.
    fn fixed_bytes(&self) -> u64 {
        let index = u64::from(self.writers) * self.keys_per_writer as u64 * 40 + self.shards as u64 * 16_384;
        index + (self.shards * 4 * self.segment_bytes) as u64 + self.in_flight_bytes
    }

    /// A capacity with which nothing must be evicted.
    pub(crate) fn ample_bytes(&self) -> u64 {
        self.live_bytes() * 4 + self.fixed_bytes()
    }

    /// Whether items may be evicted.
    pub(crate) fn is_lossy(&self) -> bool {
        self.room == Room::Scarce
    }

    /// Upper bound of the bytes of segments for an item: whole pages for an item in a segment of its own; shared
    /// segments waste up to a quarter.
    pub(crate) fn footprint(&self, name_len: usize, len: usize) -> usize {
        let bytes = (8 + 4 * 8 + name_len + len).next_multiple_of(8);
        if bytes > self.segment_bytes / 4 { bytes.next_multiple_of(4096) } else { bytes * 4 / 3 }
    }
}

/// Maximum writers of a phase.
pub(crate) const MOST_WRITERS: u32 = 4;

/// Address space for segments that a preempted reader keeps from being reused, in bytes.
const MOST_BYTES: u64 = 256 << 20;

/// What the writers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every operation.
    Mixed,
    /// Delete keys.
    Delete,
    /// Store small values under keys without one.
    Insert,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Mixed, Self::Delete, Self::Insert];
}

/// Counts of a phase, for its report.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) operations: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) scans: AtomicU64,
    /// Sights that could not be judged, because their states were already forgotten.
    pub(crate) forgotten: AtomicU64,
    pub(crate) refusals: AtomicU64,
    /// Values stored under a lease.
    pub(crate) fills: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The state that the threads of a phase share.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) phase: u64,
    pub(crate) setup: Setup,
    pub(crate) store: Arc<Store>,
    pub(crate) cleaner: Cleaner,
    pub(crate) clock: Clock,
    /// Grouped by writer: first the keys with huge values, then the keys that share a `Place`.
    pub(crate) registers: Vec<Register>,
    numbers: HashMap<(u16, Box<[u8]>), usize>,
    pub(crate) counts: Counts,
    mode: AtomicU8,
    /// The run that waiting writers have requested.
    relief: Mutex<Option<Run>>,
    /// Readers read the huge values, one after the other.
    pub(crate) slow_readers: AtomicBool,
    pub(crate) spinning: AtomicBool,
    pub(crate) writers_stop: AtomicBool,
    pub(crate) readers_stop: AtomicBool,
}

impl World {
    pub(crate) fn new(seed: u64, phase: u64, setup: Setup, hash_seed: [u64; 2], collisions: &[Vec<Vec<u8>>]) -> Self {
        let options = Options {
            most_bytes: Some(setup.ample_bytes().max(MOST_BYTES)),
            seed: hash_seed,
            shards: Some(setup.shards),
            segment_bytes: Some(setup.segment_bytes),
            ..Options::new(setup.capacity_bytes)
        };
        let store = Arc::new(Store::new(options).expect("address space for a store"));
        let clock = Clock::monotonic();
        let pacing = Pacing { step_micros: 50, cpu_percent: 100 };
        let cleaner = Cleaner::spawn(store.clone(), clock.clone(), pacing, ProcessMemory::default).expect("a thread");
        let registers = registers(&setup, collisions, &mut Random::of(seed, phase << 8 | 1));
        let numbers = registers
            .iter()
            .enumerate()
            .map(|(at, key)| ((key.namespace, key.name.clone()), at))
            .collect::<HashMap<_, _>>();
        assert_eq!(numbers.len(), registers.len(), "names are unique");
        Self {
            seed,
            phase,
            setup,
            store,
            cleaner,
            clock,
            registers,
            numbers,
            counts: Counts::default(),
            mode: AtomicU8::new(0),
            relief: Mutex::new(None),
            slow_readers: AtomicBool::new(false),
            spinning: AtomicBool::new(false),
            writers_stop: AtomicBool::new(false),
            readers_stop: AtomicBool::new(false),
        }
    }

    /// Whether items may be evicted, so that any miss is explained.
    pub(crate) fn is_lossy(&self) -> bool {
        self.setup.is_lossy()
    }

    /// The times of a call that was passed `now_ms` and has just returned.
    pub(crate) fn call(&self, now_ms: u64) -> Call {
        Call { now_ms, after_ms: self.clock.now_ms(), lossy: self.is_lossy() }
    }

    /// If nothing may be evicted, waits until enough memory is free for every writer's next operation.
    pub(crate) fn wait_for_room(&self) {
        while self.setup.room == Room::Ample
            && self.store.ledger().total() > self.setup.capacity_bytes * 6 / 10
            && !self.writers_stop.load(Ordering::Relaxed)
        {
            let mut relief = self.relief.lock();
            if relief.as_ref().is_none_or(|run| run.report().is_some()) {
                *relief = Some(self.cleaner.run(Target::compact(90)));
            }
            drop(relief);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// The keys of one writer.
    pub(crate) fn keys_of(&self, writer: u32) -> Range<usize> {
        let first = self.registers.partition_point(|key| key.writer < writer);
        first..self.registers.partition_point(|key| key.writer <= writer)
    }

    /// Number of namespaces that contain keys.
    pub(crate) fn namespaces(&self) -> u16 {
        self.setup.writers as u16 + 1
    }

    pub(crate) fn find(&self, namespace: u16, name: &[u8]) -> Option<usize> {
        self.numbers.get(&(namespace, name.into())).copied()
    }

    pub(crate) fn mode(&self) -> Mode {
        Mode::ALL[usize::from(self.mode.load(Ordering::Relaxed))]
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// Fails the test with the seed, the phase and the key's history.
    pub(crate) fn fail(&self, key: usize, problem: impl fmt::Display) -> ! {
        assert!(!crate::has_failed(), "another thread has failed");
        panic!("{self}\n{problem}\n{}\n{:?}", self.registers[key].history(), self.store.stats());
    }

    /// Fails the test because no state of the key explains a sight.
    pub(crate) fn fail_sight(&self, key: usize, who: &str, sight: Sight<'_>, from: impl fmt::Debug) -> ! {
        let seen = match sight {
            Sight::Miss => "no item".to_owned(),
            Sight::Outline(item, len) => format!("an item of {len} bytes: {item:?}"),
            Sight::Item(item) => format!(
                "version {}, {:?}, marked stale {}, value: {}",
                item.version,
                item.attributes,
                item.marked_stale,
                describe(&item.value)
            ),
        };
        self.fail(key, format!("{who} sees what no state from {from:?} on explains: {seen}"));
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, phase, setup, .. } = self;
        write!(f, "EBB_DIFFERENTIAL_SEED={seed}, phase {phase}: {setup:?}")
    }
}

/// The keys of a phase. Half of them are in the default namespace under a prefix of their writer, the others in a
/// namespace of their writer.
fn registers(setup: &Setup, collisions: &[Vec<Vec<u8>>], random: &mut Random) -> Vec<Register> {
    let mut registers = Vec::new();
    for writer in 0..setup.writers {
        let drawn: Vec<_> = (0..setup.keys_per_writer + setup.huge_keys)
            .map(|number| {
                let group = b"abcd"[random.index(4)] as char;
                let (namespace, mut name) = match random.one_in(2) {
                    true => (0, format!("w{writer}/{group}/{number}").into_bytes()),
                    false => (writer as u16 + 1, format!("{group}/{number}").into_bytes()),
                };
                let padding = if random.one_in(50) { MAX_KEY_BYTES } else { random.index(24) };
                name.push(b'/');
                name.resize((name.len() + padding).min(MAX_KEY_BYTES), b'_');
                (namespace, name)
            })
            .collect();
        let (huge, others) = drawn.split_at(setup.huge_keys);
        let collisions = collisions[writer as usize].iter().map(|name| (0, name.clone()));
        for (namespace, name) in huge.iter().cloned().chain(collisions).chain(others.iter().cloned()) {
            registers.push(Register::new(registers.len() as u32, writer, namespace, name));
        }
    }
    registers
}
