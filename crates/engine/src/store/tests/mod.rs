//! The store compared with a plain map: whatever the cleaner does in between, the answers are those of the map.

mod cleaning;
mod eviction;
mod expiry;
mod index;
mod room;

use super::*;
use bytes::Bytes;
use std::collections::HashMap;

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

/// The expected state of an item.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    value: Vec<u8>,
    attributes: Attributes,
    version: u64,
    marked_stale: bool,
}

/// Runs random operations and every kind of cleaning on a store with room for all items: no read may miss.
fn replay(seed: u64, operations: usize) {
    let mut random = Random(seed);
    let store = Store::new(options(48 << 20)).unwrap();
    let mut map: HashMap<(u16, Vec<u8>), Expected> = HashMap::new();
    let mut now_ms = 1_000;
    let keys = 1 + random.below(3_000);
    for step in 0..operations {
        let namespace = random.below(3) as u16;
        let name = format!("key-{:0width$}", random.below(keys), width = 1 + (step % 3) * 9);
        let k = Key { namespace, bytes: name.as_bytes() };
        let id = (namespace, name.clone().into_bytes());
        map.retain(|_, e| e.attributes.deadline_ms == 0 || e.attributes.deadline_ms > now_ms);
        let there = map.get(&id).cloned();
        let version = there.as_ref().map_or(0, |e| e.version);
        let context = format!("seed {seed} step {step} {name:?} in {namespace}");
        match random.below(100) {
            0..40 => {
                let len = match random.below(20) {
                    0 => random.below(40_000),
                    _ => random.below(300),
                };
                let value: Vec<u8> = (0..len).map(|i| (i as u8) ^ step as u8).collect();
                let attributes = Attributes {
                    flags: random.below(2) as u32 * 7,
                    deadline_ms: if random.below(3) == 0 { now_ms + random.below(5_000) + 1 } else { 0 },
                    stale_at_ms: if random.below(8) == 0 { now_ms + 50 } else { 0 },
                    negative: false,
                };
                let condition = match random.below(6) {
                    0 => Condition::Absent,
                    1 => Condition::Present,
                    2 => Condition::Version(version + random.below(2)),
                    _ => Condition::Always,
                };
                let keep = random.below(4) == 0;
                let expected = match condition {
                    Condition::Absent if there.is_some() => SetOutcome::NotStored(version),
                    Condition::Present if there.is_none() => SetOutcome::NotStored(0),
                    Condition::Version(wanted) if wanted != version => SetOutcome::Conflict(version),
                    _ => SetOutcome::Stored(0),
                };
                let outcome = store.set(k, &value, &attributes, condition, keep, now_ms).expect(&context);
                if let (SetOutcome::Stored(_), SetOutcome::Stored(new)) = (expected, outcome) {
                    assert!(new > version, "{context}: versions grow");
                    let mut attributes = attributes;
                    if let (true, Some(e)) = (keep, &there) {
                        attributes.deadline_ms = e.attributes.deadline_ms;
                    }
                    map.insert(id, Expected { value, attributes, version: new, marked_stale: false });
                } else {
                    assert_eq!(outcome, expected, "{context}");
                }
            }
            40..70 => match (store.get(k, now_ms, Use::Read).unwrap(), there) {
                (Lookup::Found(item), Some(e)) => {
                    assert_eq!(item.value, e.value, "{context}");
                    assert_eq!((item.version, item.attributes), (e.version, e.attributes), "{context}");
                    assert_eq!(item.marked_stale, e.marked_stale, "{context}");
                }
                (Lookup::Miss(_), None) => {}
                (got, e) => panic!("{context}: {got:?}, expected {e:?}"),
            },
            70..80 => {
                let if_version = (random.below(3) == 0).then(|| version + random.below(2));
                let outcome = store.delete(k, if_version, Deletion::Remove, now_ms).unwrap();
                match there {
                    None => assert_eq!(outcome, DeleteOutcome::NotFound, "{context}"),
                    Some(_) if if_version.is_some_and(|v| v != version) => {
                        assert_eq!(outcome, DeleteOutcome::Conflict(version), "{context}");
                    }
                    Some(_) => {
                        assert_eq!(outcome, DeleteOutcome::Deleted(0), "{context}");
                        map.remove(&id);
                    }
                }
            }
            80..84 => {
                let deadline = if random.below(2) == 0 { 0 } else { now_ms + 1 + random.below(1_000) };
                let touched = store.touch(k, deadline, now_ms).unwrap();
                assert_eq!(touched, there.map(|e| e.version), "{context}");
                if let Some(e) = map.get_mut(&id) {
                    e.attributes.deadline_ms = deadline;
                }
            }
            84..86 => {
                let outcome = store.delete(k, None, Deletion::MarkStale, now_ms).unwrap();
                assert_eq!(outcome != DeleteOutcome::NotFound, there.is_some(), "{context}");
                if let Some(e) = map.get_mut(&id) {
                    e.marked_stale = true;
                }
            }
            86..90 => {
                let ((), stored) = store
                    .update(k, now_ms, |item| match item {
                        Some(item) if item.value.len() < 1_000 => {
                            let value = [&item.value[..], b"+"].concat().into();
                            (Update::Store { value, attributes: item.attributes }, ())
                        }
                        _ => (Update::Keep, ()),
                    })
                    .expect(&context);
                if let Some(e) = map.get_mut(&id).filter(|e| e.value.len() < 1_000) {
                    e.value.push(b'+');
                    e.version = stored.expect(&context);
                }
            }
            90 => {
                let prefix = format!("key-{}", random.below(10));
                let group = match random.below(4) {
                    0 => Group::Namespace(namespace),
                    _ => Group::Prefix(namespace, prefix.as_bytes()),
                };
                let mark_stale = random.below(2) == 0;
                if store.invalidate(group, mark_stale).is_ok() {
                    let meant = |id: &(u16, Vec<u8>)| match group {
                        Group::Namespace(n) => id.0 == n,
                        Group::Prefix(n, p) => id.0 == n && id.1.starts_with(p),
                    };
                    match mark_stale {
                        true => map.iter_mut().filter(|(id, _)| meant(id)).for_each(|(_, e)| e.marked_stale = true),
                        false => map.retain(|id, _| !meant(id)),
                    }
                }
            }
            91..95 => now_ms += random.below(400),
            _ => {
                let (below_percent, thorough) = (random.below(101) as usize, random.below(2) == 0);
                let task = Task { below_percent, thorough, ..Task::CHEAP };
                let mut patience = random.below(40);
                let shard = random.below(store.shards() as u64) as usize;
                let mut tally = Tally::default();
                store.clean(shard, task, now_ms, &mut tally, &mut || {
                    patience = patience.saturating_sub(1);
                    patience == 0
                });
                assert_eq!(tally.evicted_items, 0, "{context}: compaction drops no item");
                store.cool(random.below(3) as usize);
            }
        }
    }
    settle(&store, THOROUGH, now_ms);
    map.retain(|_, e| e.attributes.deadline_ms == 0 || e.attributes.deadline_ms > now_ms);
    for ((namespace, k), e) in &map {
        let Lookup::Found(item) = store.get(Key { namespace: *namespace, bytes: k }, now_ms, Use::Peek).unwrap() else {
            panic!("seed {seed}: {} is missing", String::from_utf8_lossy(k));
        };
        assert_eq!((item.value, item.version), (Bytes::from(e.value.clone()), e.version), "seed {seed}");
    }
    let mut seen = 0;
    for namespace in 0..3 {
        let mut cursor = Some(Cursor::default());
        let mut names = std::collections::HashSet::new();
        let mut places = Places::default();
        while let Some(from) = cursor {
            let page = store.scan(Some(namespace), b"", from, 100, false, now_ms, &mut places);
            names.extend(page.entries.into_iter().map(|entry| entry.key));
            cursor = page.next;
        }
        seen += names.len();
    }
    assert_eq!(seen, map.len(), "seed {seed}: a scan of an idle store returns every key once");
    // Some expired items may wait until more items of their segment expire. After every deadline all are dropped.
    settle(&store, THOROUGH, now_ms + 5_000);
    map.retain(|_, e| e.attributes.deadline_ms == 0);
    let stats = store.stats();
    assert_eq!(stats.entries, map.len() as u64, "seed {seed}: after everything was cleaned");
    let bytes: usize = map.iter().map(|((_, k), e)| k.len() + e.value.len()).sum();
    assert_eq!(stats.live_bytes, bytes as u64, "seed {seed}");
}

#[test]
fn random_operations_answer_as_a_map_whatever_the_cleaner_does() {
    for seed in 1..=12 {
        replay(seed * 7919, 20_000);
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
    store.shards[0].lock(&store.ground).seal_all();
    (store, items)
}
