//! Tests of the store by subject, and what they share.

mod cleaning;
mod eviction;
mod expiry;
mod index;
mod namespaces;
mod operations;
mod room;

use super::*;
use bytes::Bytes;

/// A small generator with a seed that a failure prints.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

fn options(capacity_bytes: u64) -> Options {
    Options {
        most_bytes: Some(64 << 20),
        seed: [1, 2],
        first_version: 1 << 40,
        shards: Some(2),
        segment_bytes: Some(16 << 10),
        ..Options::new(capacity_bytes)
    }
}

fn key(bytes: &[u8]) -> Key<'_> {
    Key { namespace: 0, bytes }
}

const THOROUGH: Task = Task { below_percent: 97, thorough: true, ..Task::CHEAP };

/// Cleans until nothing is left to do.
fn settle(store: &Store, task: Task, now_ms: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..100_000 {
        let mut busy = false;
        for shard in 0..store.shards() {
            busy |= store.clean(shard, task, now_ms, &mut tally, &mut || false);
        }
        while store.cool(0).is_some() {}
        if !busy {
            return tally;
        }
    }
    panic!("the cleaner never runs out of work");
}

fn value_of(store: &Store, k: &[u8], now_ms: u64) -> Option<Bytes> {
    match store.get(key(k), now_ms, Use::Read).unwrap() {
        Lookup::Found(item) => Some(item.value),
        Lookup::Miss(_) => None,
    }
}

/// A random size, 300 bytes on average.
fn size(random: &mut Random) -> usize {
    100 + random.below(401) as usize
}

fn put(store: &Store, n: u32, value: &[u8]) {
    let attributes = Attributes::default();
    store.set(key(&n.to_le_bytes()), value, &attributes, Condition::Always, false, 1).unwrap();
}

/// A store of one shard with slightly more than `count` sealed segments of read items, and the items per segment.
fn read_segments(count: u32) -> (Store, u32) {
    let store = Store::new(Options { shards: Some(1), ..options(8 << 20) }).unwrap();
    let items = (store.segment_bytes() / (8 + 208)) as u32;
    for i in 0..count * items + 1 {
        store.set(key(&i.to_le_bytes()), &[1; 200], &Attributes::default(), Condition::Always, false, 1).unwrap();
    }
    // Ends a running migration: reads counted in its old index would be lost.
    settle(&store, Task::CHEAP, 1);
    for i in 0..count * items + 1 {
        (0..3).for_each(|_| drop(value_of(&store, &i.to_le_bytes(), 1)));
    }
    store.shards[0].lock(&store.shared).seal_all();
    (store, items)
}
