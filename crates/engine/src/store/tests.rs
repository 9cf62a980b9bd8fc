//! The store against a plain map: whatever the cleaner does in between, the answers are the map's.

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

const THOROUGH: Task = Task { below_percent: 97, thorough: true, ..Task::TIDY };

#[test]
fn a_reservation_shrinks_from_room_to_grow_to_the_least() {
    let layouts = Layout::to_try(60 << 20, 24 << 30, 4, 128 << 10);
    let mib: Vec<_> = layouts.iter().map(|layout| layout.most >> 20).collect();
    assert_eq!(mib, [24_576, 12_288, 6_144, 3_072, 1_536, 768, 384, 192, 96, 60, 60, 30, 15, 8]);
    assert!(layouts.is_sorted_by(|before, after| before.bytes() > after.bytes()), "each asks for less");
    assert!(layouts[9].bytes() < 340 << 20 && layouts[10].bytes() < 220 << 20);
}

#[test]
fn a_store_in_little_address_space_evicts_and_keeps_working() {
    // As after a reservation that had to shrink below the capacity.
    let layout = Layout::new(8 << 20, 2, 2, 64 << 10);
    let store = Store::with_layout(options(60 << 20), Arena::reserve(layout.bytes()).unwrap(), layout, Vec::new());
    store.ledger().set_capacity(60 << 20);
    assert_eq!(store.ledger().capacity(), 8 << 20);
    for i in 0..40_000_u32 {
        let value = vec![7; if i % 100 == 0 { 40_000 } else { 500 }];
        let stored = store.set(key(&i.to_le_bytes()), &value, &Attributes::default(), Condition::Always, false, 1);
        stored.unwrap_or_else(|error| panic!("write {i}: {error}"));
    }
    assert!(store.stats().evictions > 0 && store.stats().entries > 1_000);
}

/// Cleans until there is nothing left to do.
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
    panic!("the cleaner finds something to do for ever");
}

fn value_of(store: &Store, k: &[u8], now_ms: u64) -> Option<Bytes> {
    match store.get(key(k), now_ms, Use::Read).unwrap() {
        Lookup::Found(item) => Some(item.value),
        Lookup::Miss(_) => None,
    }
}

/// What the map remembers of an item.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    value: Vec<u8>,
    attributes: Attributes,
    version: u64,
    marked_stale: bool,
}

/// Random operations with every kind of cleaning forced in between, with room for everything: nothing may be missed.
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
                let task = Task { below_percent, thorough, ..Task::TIDY };
                let mut patience = random.below(40);
                let shard = random.below(store.shards() as u64) as usize;
                let mut tally = Tally::default();
                store.clean(shard, task, now_ms, &mut tally, &mut || {
                    patience = patience.saturating_sub(1);
                    patience == 0
                });
                assert_eq!(tally.evicted_items, 0, "{context}: compaction loses nothing");
                store.cool(random.below(3) as usize);
            }
        }
    }
    settle(&store, THOROUGH, now_ms);
    map.retain(|_, e| e.attributes.deadline_ms == 0 || e.attributes.deadline_ms > now_ms);
    for ((namespace, k), e) in &map {
        let Lookup::Found(item) = store.get(Key { namespace: *namespace, bytes: k }, now_ms, Use::Peek).unwrap() else {
            panic!("seed {seed}: {} is gone", String::from_utf8_lossy(k));
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
    assert_eq!(seen, map.len(), "seed {seed}: a scan of what stands still finds everything once");
    // Some of what has expired may wait for more to expire beside it; when every deadline has passed, all of it goes.
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

#[test]
fn memory_falls_to_the_live_bytes_after_a_mass_delete_and_to_nothing_after_the_last() {
    let store = Store::new(options(48 << 20)).unwrap();
    let name = |i: u32| format!("{i:016}");
    for i in 0..100_000 {
        store.set(key(name(i).as_bytes()), &[7; 128], &Attributes::default(), Condition::Always, false, 1).unwrap();
    }
    let full = store.stats();
    assert!(full.segment_bytes < 100_000 * 160, "{full:?}");
    for i in (0..100_000).filter(|i| i % 10 != 0) {
        store.delete(key(name(i).as_bytes()), None, Deletion::Remove, 1).unwrap();
    }
    settle(&store, THOROUGH, 1);
    let tenth = store.stats();
    let pages = 8 * (page_bytes() as u64 - 4096);
    assert!(tenth.segment_bytes + tenth.index_bytes < 10_000 * 144 * 12 / 10 + pages, "{tenth:?}");
    assert!((0..100_000).step_by(10).all(|i| value_of(&store, name(i).as_bytes(), 1).is_some()));
    for i in (0..100_000).step_by(10) {
        store.delete(key(name(i).as_bytes()), None, Deletion::Remove, 1).unwrap();
    }
    settle(&store, THOROUGH, 1);
    let nothing = store.stats();
    assert_eq!((nothing.entries, nothing.segment_bytes, nothing.dead_bytes), (0, 0, 0));
    assert!(nothing.index_bytes <= 2 * page_bytes() as u64, "{nothing:?}");
}

#[test]
fn room_is_made_for_what_takes_memory_without_asking_unless_that_is_vain() {
    let store = Store::new(options(4 << 20)).unwrap();
    for i in 0..60_000_u32 {
        store.set(key(&i.to_le_bytes()), &[1; 200], &Attributes::default(), Condition::Always, false, 1).unwrap();
    }
    let ledger = store.ledger();
    let full = ledger.total();
    ledger.take_off(1 << 20);
    store.make_room(1);
    assert!(ledger.has_room(0) && ledger.total() >= full - (64 << 10), "no more than needed: {ledger:?}");
    let entries = store.stats().entries;
    ledger.take_off(4 << 20);
    store.make_room(1);
    assert_eq!(store.stats().entries, entries, "what will not fit an empty store drops nothing");
}

#[test]
fn a_write_that_does_not_fit_evicts_and_the_ledger_is_never_exceeded() {
    let store = Store::new(options(4 << 20)).unwrap();
    let mut random = Random(5);
    for i in 0..60_000_u32 {
        let len = random.below(600) as usize;
        store.set(key(&i.to_le_bytes()), &vec![1; len], &Attributes::default(), Condition::Always, false, 1).unwrap();
        assert!(store.ledger().total() <= (4 << 20) + 2 * (16 << 10), "{:?}", store.ledger());
    }
    let stats = store.stats();
    assert!(stats.evictions > 30_000 && stats.refusals == 0, "{stats:?}");
    assert!(stats.live_bytes > (4 << 20) * 7 / 10, "{stats:?}");
    assert!(value_of(&store, &59_999_u32.to_le_bytes(), 1).is_some());
}

#[test]
fn what_can_never_fit_is_refused_and_changes_nothing() {
    let store = Store::new(options(1 << 20)).unwrap();
    let set = |k: &[u8], value: &[u8]| store.set(key(k), value, &Attributes::default(), Condition::Always, false, 1);
    set(b"a", b"1").unwrap();
    assert_eq!(set(b"", b"1"), Err(Error::KeyLength { len: 0, max: 1024 }));
    assert_eq!(set(&[0; 1025], b"1"), Err(Error::KeyLength { len: 1025, max: 1024 }));
    let max = 1 << 20;
    assert_eq!(set(b"b", &vec![0; max + 1]), Err(Error::ValueTooLarge { len: max + 1, max }));
    assert!(matches!(set(b"b", &vec![0; max]), Err(Error::NoSpace { .. })));
    assert_eq!(value_of(&store, b"a", 1).as_deref(), Some(&b"1"[..]));
    assert_eq!(store.stats().refusals, 1);
}

#[test]
fn large_values_have_pages_of_their_own_and_leave_none_behind() {
    let store = Store::new(options(32 << 20)).unwrap();
    for round in 0..5_u8 {
        for i in 0..16_u8 {
            let value = vec![i ^ round; 1 << 20];
            store.set(key(&[i]), &value, &Attributes::default(), Condition::Always, false, 1).unwrap();
        }
        for i in 0..16_u8 {
            let value = value_of(&store, &[i], 1).unwrap();
            assert!(value.len() == 1 << 20 && value.iter().all(|b| *b == i ^ round));
        }
    }
    for i in 0..16_u8 {
        store.delete(key(&[i]), None, Deletion::Remove, 1).unwrap();
    }
    settle(&store, THOROUGH, 1);
    assert_eq!(store.stats().segment_bytes, 0);
}

#[test]
fn expired_items_are_never_returned_and_their_memory_comes_back_untouched() {
    let store = Store::new(options(48 << 20)).unwrap();
    let soon = Attributes { deadline_ms: 1_000, ..Attributes::default() };
    for i in 0..50_000_u32 {
        let attributes = if i % 2 == 0 { soon } else { Attributes::default() };
        store.set(key(&i.to_le_bytes()), &[3; 100], &attributes, Condition::Always, false, 1).unwrap();
    }
    assert!(value_of(&store, &0_u32.to_le_bytes(), 999).is_some());
    assert_eq!(
        store.get(key(&0_u32.to_le_bytes()), 1_000, Use::Read),
        Ok(Lookup::Miss(Miss::Expired)),
        "at the deadline, before any cleaning"
    );
    let tally = settle(&store, THOROUGH, 2_000);
    assert_eq!((tally.expired_items, tally.evicted_items, store.stats().entries), (25_000, 0, 25_000));
    assert!(store.stats().segment_bytes < 25_000 * 130, "{:?}", store.stats());
    let why = |i: u32| store.get(key(&i.to_le_bytes()), 2_000, Use::Read).unwrap();
    let remembered = (0..50_000).step_by(2).filter(|i| why(*i) == Lookup::Miss(Miss::Expired)).count();
    assert!(remembered > 1_000, "{remembered} departures are remembered in slots nobody needed");
}

#[test]
fn evicted_keys_are_remembered_for_a_while() {
    let store = Store::new(options(1 << 20)).unwrap();
    let set = |i: u32| {
        store.set(key(&i.to_le_bytes()), &[1; 200], &Attributes::default(), Condition::Always, false, 1).unwrap();
    };
    (0..6_000).for_each(set);
    let why = |i: u32| store.get(key(&i.to_le_bytes()), 1, Use::Peek).unwrap();
    let remembered = (0..6_000).filter(|i| why(*i) == Lookup::Miss(Miss::Evicted)).count();
    assert!(remembered > 300, "{remembered} of the evicted keys are remembered");
}

#[test]
fn an_overwrite_of_the_same_size_takes_no_new_memory() {
    let store = Store::new(options(8 << 20)).unwrap();
    for round in 0..1_000_u64 {
        let value = round.to_le_bytes();
        store.set(key(b"counter"), &value, &Attributes::default(), Condition::Always, false, 1).unwrap();
    }
    assert_eq!(store.stats().dead_bytes, 0);
    assert_eq!(value_of(&store, b"counter", 1).as_deref(), Some(&999_u64.to_le_bytes()[..]));
}

#[test]
fn a_deadline_that_is_set_while_its_segment_is_looked_through_is_kept_to() {
    let store = Store::new(Options { shards: Some(1), ..options(8 << 20) }).unwrap();
    let set = |i: u32, deadline_ms: u64| {
        let attributes = Attributes { deadline_ms, ..Attributes::default() };
        store.set(key(&i.to_le_bytes()), &[1; 40], &attributes, Condition::Always, false, 1).unwrap();
    };
    (0..200).for_each(|i| set(i, if i % 10 == 0 { 1_000_000 } else { 10 }));
    // One stride, and the first item has been looked at: now its deadline is drawn nearer.
    let mut tally = Tally::default();
    while tally.expired_items == 0 {
        store.clean(0, Task::TIDY, 200_000, &mut tally, &mut || true);
    }
    set(0, 201_000);
    settle(&store, Task::TIDY, 200_000);
    assert_eq!(store.stats().entries, 20);
    settle(&store, Task::TIDY, 301_000);
    assert_eq!(store.stats().entries, 19, "the one whose deadline was drawn nearer is gone");
}

#[test]
fn a_shorter_value_takes_no_new_memory_and_what_it_leaves_is_reclaimed() {
    let store = Store::new(options(8 << 20)).unwrap();
    let set = |i: u32, value: &[u8]| {
        store.set(key(&i.to_le_bytes()), value, &Attributes::default(), Condition::Always, false, 1).unwrap();
    };
    (0..2_000).for_each(|i| set(i, &[1; 1_000]));
    let before = store.stats();
    (0..2_000).for_each(|i| set(i, &[2; 96]));
    let after = store.stats();
    assert_eq!(after.segment_bytes, before.segment_bytes);
    assert_eq!(after.item_bytes + after.dead_bytes, before.item_bytes + before.dead_bytes);
    assert_eq!(after.item_bytes, 2_000 * (8 + 104));
    settle(&store, THOROUGH, 1);
    assert!(store.stats().segment_bytes < before.segment_bytes / 4, "{:?}", store.stats());
    assert!((0..2_000_u32).all(|i| value_of(&store, &i.to_le_bytes(), 1).as_deref() == Some(&[2; 96][..])));
}

#[test]
fn a_shard_without_anything_to_evict_takes_room_from_the_fullest() {
    let store = Store::new(options(2 << 20)).unwrap();
    let mut random = Random(11);
    for i in 0..2_000_u32 {
        let len = if random.below(3) == 0 { 700_000 } else { random.below(3_000) as usize };
        store.set(key(&i.to_le_bytes()), &vec![1; len], &Attributes::default(), Condition::Always, false, 1).unwrap();
    }
    assert!(store.stats().evictions > 1_000 && store.stats().refusals == 0, "{:?}", store.stats());
}

/// Random sizes that keep an average of 300 bytes.
fn size(random: &mut Random) -> usize {
    100 + random.below(401) as usize
}

#[test]
fn nothing_live_is_evicted_while_it_fits_however_much_is_overwritten() {
    for (shards, segment_bytes) in [(1, 16 << 10), (4, 64 << 10)] {
        let options = Options { shards: Some(shards), segment_bytes: Some(segment_bytes), ..options(16 << 20) };
        let store = Store::new(options).unwrap();
        let mut random = Random(17);
        let mut keys = 0_u32;
        let set = |key_number: u32, random: &mut Random| {
            let value = vec![key_number as u8; size(random)];
            store
                .set(key(&key_number.to_le_bytes()), &value, &Attributes::default(), Condition::Always, false, 1)
                .unwrap();
        };
        let live = |store: &Store| store.stats().item_bytes + store.stats().index_bytes;
        while live(&store) < (16 << 20) * 84 / 100 {
            set(keys, &mut random);
            keys += 1;
        }
        for _ in 0..3 * keys {
            set(random.below(u64::from(keys)) as u32, &mut random);
            // What is moved may take a segment of each log before it frees one.
            let beyond = store.ledger().total().saturating_sub(16 << 20) as usize;
            assert!(beyond <= shards * segment::Tail::COUNT * segment_bytes, "{beyond} bytes");
        }
        assert_eq!((store.stats().evictions, store.stats().entries), (0, u64::from(keys)), "{shards} shards");
        assert!((0..keys).all(|i| value_of(&store, &i.to_le_bytes(), 1).is_some()));
    }
}

#[test]
fn a_store_whose_items_are_all_read_makes_room_in_few_steps() {
    let store = Store::new(Options { shards: Some(1), ..options(8 << 20) }).unwrap();
    let set = |i: u32| {
        store.set(key(&i.to_le_bytes()), &[1; 200], &Attributes::default(), Condition::Always, false, 1).unwrap();
    };
    let mut keys = 0_u32;
    while store.stats().evictions == 0 {
        set(keys);
        keys += 1;
    }
    for i in 0..keys {
        (0..3).for_each(|_| drop(value_of(&store, &i.to_le_bytes(), 1)));
    }
    let segments = store.occupancy().iter().sum::<u64>() as usize;
    let mut effort = Effort::default();
    let before = store.ledger().used(Account::Segments);
    while store.ledger().used(Account::Segments) == before {
        assert!(store.make_some_room(&store.shards[0], 200, &mut effort, 1));
        while store.cool(0).is_some() {}
    }
    assert!(effort.evicted <= MAX_CLEANED / 4 + 1 && effort.evicted * 4 < segments, "{effort:?} of {segments}");
}

#[test]
fn items_expire_by_their_own_time_to_live_whatever_they_lie_beside() {
    const MONTH_MS: u64 = 30 * 24 * 3_600_000;
    let ttls = [1, 1_500, 4_000, 10_000, 10_000, 10_000, 60_000, 60_000, 3_600_000, MONTH_MS];
    let store = Store::new(options(16 << 20)).unwrap();
    let set = |i: usize, now_ms| {
        let attributes = Attributes { deadline_ms: now_ms + ttls[i % ttls.len()], ..Attributes::default() };
        store.set(key(&i.to_le_bytes()), &[3; 100], &attributes, Condition::Always, false, now_ms).unwrap();
    };
    let bound = |ttl: u64| ttl + (ttl / 8).max(2_000);
    let started = 1_000;
    (0..20_000).for_each(|i| set(i, started));
    // The cleaner's tick is a tenth of a second; here it is seen to at every bound.
    let mut passed: Vec<u64> = (1..110).map(|tick| tick * 100).chain(ttls.map(bound)).collect();
    passed.sort_unstable();
    for passed in passed {
        settle(&store, Task::TIDY, started + passed);
        let left = (0..20_000).filter(|i| bound(ttls[i % ttls.len()]) > passed).count() as u64;
        let alive = (0..20_000).filter(|i| ttls[i % ttls.len()] > passed).count() as u64;
        let entries = store.stats().entries;
        assert!((alive..=left).contains(&entries), "after {passed} ms {entries} items, between {alive} and {left}");
    }
    assert_eq!((store.stats().entries, store.stats().expired_bytes), (0, 0));
}

#[test]
fn expired_bytes_are_known_and_go_before_anything_live() {
    let store = Store::new(Options { shards: Some(1), ..options(8 << 20) }).unwrap();
    let (soon, never) = (Attributes { deadline_ms: 1_000_000, ..Attributes::default() }, Attributes::default());
    let set = |i: u32, attributes: &Attributes, now_ms| {
        store.set(key(&i.to_le_bytes()), &[1; 200], attributes, Condition::Always, false, now_ms).unwrap();
    };
    (0..30_000).for_each(|i| set(i, if i % 2 == 0 { &soon } else { &never }, 1));
    settle(&store, Task::TIDY, 1_000_000);
    assert_eq!(store.stats().expired_bytes, 15_000 * (8 + 8 + 208), "not due for a while, but known");
    for i in 0..10_000_u32 {
        store.delete(key(&i.to_le_bytes()), None, Deletion::Remove, 1).unwrap();
    }
    settle(&store, Task::TIDY, 1_000_000);
    assert_eq!(store.stats().expired_bytes, 10_000 * (8 + 8 + 208), "what is deleted has not expired");
    (30_000..40_000).for_each(|i| set(i, &never, 1_000_001));
    assert_eq!((store.stats().evictions, store.stats().expired_bytes > 0), (0, true), "{:?}", store.stats());
}

#[test]
fn what_is_made_of_a_stale_value_is_stale() {
    let store = Store::new(options(1 << 20)).unwrap();
    let append = |now_ms| {
        let change = |item: Option<&Item>| {
            let item = item.expect("it is there");
            (Update::Store { value: [&item.value[..], b"+"].concat().into(), attributes: item.attributes }, ())
        };
        store.update(key(b"k"), now_ms, change).unwrap();
    };
    let stale = || match store.get(key(b"k"), 1, Use::Read).unwrap() {
        Lookup::Found(item) => item.marked_stale,
        Lookup::Miss(_) => panic!("it is there"),
    };
    let set = || store.set(key(b"k"), b"1", &Attributes::default(), Condition::Always, false, 1).unwrap();
    set();
    store.delete(key(b"k"), None, Deletion::MarkStale, 1).unwrap();
    append(1);
    assert!(stale(), "by a deletion that kept it");
    set();
    assert!(!stale(), "a new value is fresh");
    store.invalidate(Group::Prefix(0, b"k"), true).unwrap();
    append(1);
    settle(&store, THOROUGH, 1);
    assert!(stale(), "by an invalidation");
}

#[test]
fn what_expires_leaves_no_larger_index() {
    let store = Store::new(Options { shards: Some(1), ..options(48 << 20) }).unwrap();
    let set = |i: u32, now_ms: u64| {
        let attributes = Attributes { deadline_ms: now_ms + 500, ..Attributes::default() };
        store.set(key(&i.to_le_bytes()), &[1; 40], &attributes, Condition::Always, false, now_ms).unwrap();
    };
    (0..50_000).for_each(|i| set(i, 1));
    let before = store.stats().index_bytes;
    for round in 1..6 {
        settle(&store, Task::TIDY, round * 10_000);
        assert_eq!(store.stats().entries, 0);
        (0..50_000).for_each(|i| set(round as u32 * 50_000 + i, round * 10_000));
    }
    assert!(store.stats().index_bytes <= before * 11 / 10, "{before} before, {:?}", store.stats());
}

#[test]
fn an_index_that_grows_keeps_to_the_capacity() {
    for capacity in [1 << 20, 2 << 20, 8 << 20] {
        let store = Store::new(Options { shards: Some(1), ..options(capacity) }).unwrap();
        for i in 0..200_000_u32 {
            store.set(key(&i.to_le_bytes()), b"", &Attributes::default(), Condition::Always, false, 1).unwrap();
            let (total, segment) = (store.ledger().total(), store.segment_bytes() as u64);
            assert!(total <= capacity + 2 * segment, "{total} of {capacity} after {i} entries");
        }
    }
}

#[test]
fn dead_large_values_go_before_anything_live() {
    let store = Store::new(Options { shards: Some(1), ..options(8 << 20) }).unwrap();
    let set = |name: &[u8], len: usize| {
        store.set(key(name), &vec![1; len], &Attributes::default(), Condition::Always, false, 1).unwrap();
    };
    (0..5_000_u32).for_each(|i| set(&i.to_le_bytes(), 200));
    for round in 0..200 {
        set(b"large", 300_000 + round); // longer than before, so that it is written elsewhere
    }
    assert_eq!((store.stats().evictions, store.stats().entries), (0, 5_001));
}

#[test]
fn what_was_read_stays_when_room_is_made() {
    let store = Store::new(Options { shards: Some(1), ..options(4 << 20) }).unwrap();
    let set = |i: u32| {
        store.set(key(&i.to_le_bytes()), &[1; 200], &Attributes::default(), Condition::Always, false, 1).unwrap();
    };
    (0..12_000).for_each(set);
    for _ in 0..2 {
        (0..12_000).step_by(10).for_each(|i: u32| assert!(value_of(&store, &i.to_le_bytes(), 1).is_some()));
    }
    (12_000..24_000).for_each(set);
    let stays = |i: &u32| store.get(key(&i.to_le_bytes()), 1, Use::Peek).is_ok_and(|l| matches!(l, Lookup::Found(_)));
    let read = (0..12_000).step_by(10).filter(stays).count();
    let unread = (0..12_000).filter(|i| i % 10 != 0).filter(stays).count();
    assert!(read > 1_100 && unread < 5_000, "{read} of 1,200 that were read, {unread} of 10,800 that were not");
}

/// A store of one shard with some more than this many segments of read items, sealed; and how many items a segment has.
fn read_segments(count: u32) -> (Store, u32) {
    let store = Store::new(Options { shards: Some(1), ..options(8 << 20) }).unwrap();
    let items = (store.segment_bytes() / (8 + 208)) as u32;
    for i in 0..count * items + 1 {
        store.set(key(&i.to_le_bytes()), &[1; 200], &Attributes::default(), Condition::Always, false, 1).unwrap();
    }
    // A read that is counted in the old index during a migration is lost.
    settle(&store, Task::TIDY, 1);
    for i in 0..count * items + 1 {
        (0..3).for_each(|_| drop(value_of(&store, &i.to_le_bytes(), 1)));
    }
    store.shards[0].lock(&store.ground).seal_all();
    (store, items)
}

#[test]
fn what_is_spared_loses_the_reads_it_was_spared_for() {
    let (store, items) = read_segments(4);
    let reads = || {
        let shard = store.shards[0].lock(&store.ground);
        let find = |i: u32| shard.find(key(&i.to_le_bytes()), store.ground.hasher.hash(key(&i.to_le_bytes())));
        (0..4 * items).map(|i| find(i).expect("nothing is evicted").slot.reads()).collect::<Vec<_>>()
    };
    assert!(reads().iter().all(|reads| *reads == 3));
    for _ in 0..4 {
        let way = Way::Evict { spares_read: true };
        assert!(store.shards[0].lock(&store.ground).clean_one_now(way, 1));
    }
    assert!(reads().iter().all(|reads| *reads < 3), "{:?}", reads());
    assert_eq!(store.stats().evictions, 0);
}

#[test]
fn survivors_of_a_compaction_keep_their_place_in_the_queue() {
    let (store, items) = read_segments(4);
    let oldest = || {
        let shard = store.shards[0].lock(&store.ground);
        shard.writer.segments.values().map(|segment| segment.age).min().unwrap()
    };
    let before = oldest();
    for i in (0..items).filter(|i| i % 10 != 0) {
        store.delete(key(&i.to_le_bytes()), None, Deletion::Remove, 1).unwrap();
    }
    let task = Task { below_percent: 50, ..Task::TIDY };
    let tally = settle(&store, task, 1);
    assert!(tally.moved_items > 0 && tally.freed_segments > 0, "{tally:?}");
    assert_eq!(oldest(), before);
}

#[test]
fn a_step_ends_when_it_is_told_to() {
    let (store, items) = read_segments(40);
    for i in 0..40 * items {
        if i % 3 == 0 {
            store.delete(key(&i.to_le_bytes()), None, Deletion::Remove, 1).unwrap();
        }
    }
    let mut tally = Tally::default();
    assert!(store.clean(0, THOROUGH, 1, &mut tally, &mut || true));
    let mut most = 0;
    for _ in 0..200 {
        let before = tally.moved_items;
        store.clean(0, THOROUGH, 1, &mut tally, &mut || true);
        most = most.max(tally.moved_items - before);
    }
    assert!((1..=32).contains(&most), "{most} items in a step");
}

#[test]
fn a_deadline_that_was_touched_is_kept_to() {
    let store = Store::new(options(4 << 20)).unwrap();
    let long = Attributes { deadline_ms: 10_000_000, ..Attributes::default() };
    for i in 0..3_000_u32 {
        let attributes = if i % 2 == 0 { long } else { Attributes::default() };
        store.set(key(&i.to_le_bytes()), &[1; 40], &attributes, Condition::Always, false, 1).unwrap();
    }
    (0..3_000_u32).filter(|i| i % 3 == 0).for_each(|i| {
        assert!(store.touch(key(&i.to_le_bytes()), 5_000, 1).unwrap().is_some());
    });
    settle(&store, Task::TIDY, 7_000);
    assert_eq!((store.stats().entries, store.stats().expirations), (2_000, 1_000));
}

fn put(store: &Store, n: u32, value: &[u8]) {
    let attributes = Attributes::default();
    store.set(key(&n.to_le_bytes()), value, &attributes, Condition::Always, false, 1).unwrap();
}

#[test]
fn segments_grow_with_a_capacity_that_is_raised() {
    let raised = Store::new(Options { most_bytes: Some(1 << 30), ..Options::new(16 << 20) }).unwrap();
    let (small, shards) = (raised.segment_bytes() as u64, raised.shards.len() as u64);
    raised.ledger().set_capacity(1 << 30);
    let mut n = 0_u32;
    while raised.stats().entries < 200_000 {
        put(&raised, n, &[7; 400]);
        n += 1;
    }
    let segments = raised.shards.iter().map(|shard| shard.lock(&raised.ground).writer.segments.len()).sum::<usize>();
    let stats = raised.stats();
    assert!((segments as u64) < stats.segment_bytes / small / 8, "{segments} segments for {stats:?}");
    assert_eq!((shards, stats.evictions), (1, 0));
    // Lowered again, the large segments go first to last, as writes ask for room.
    raised.ledger().set_capacity(8 << 20);
    for more in 0..10_000 {
        put(&raised, n + more, &[7; 400]);
    }
    assert!(raised.ledger().total() <= 8 << 20, "{:?}", raised.stats());
}

#[test]
fn nothing_live_is_evicted_after_a_capacity_was_raised() {
    let store = Store::new(Options { most_bytes: Some(256 << 20), ..Options::new(16 << 20) }).unwrap();
    store.ledger().set_capacity(96 << 20);
    assert!(store.new_segment_bytes() >= 4 * store.segment_bytes());
    let mut random = Random(11);
    for n in 0..80_000 {
        put(&store, n, &vec![7; 400 + random.below(400) as usize]);
    }
    for _ in 0..400_000 {
        let n = random.below(80_000) as u32;
        put(&store, n, &vec![8; 400 + random.below(400) as usize]);
    }
    let stats = store.stats();
    assert_eq!((stats.evictions, stats.entries), (0, 80_000), "{stats:?}");
    assert!(stats.copied_bytes > 0, "the capacity was reached: {stats:?}");
}

#[test]
fn a_small_store_on_a_large_machine_can_be_made_and_grows() {
    // Address space for this much may be refused; then there is less, and the store says how much.
    let store = Store::new(Options { most_bytes: Some(4 << 40), ..Options::new(8 << 20) }).unwrap();
    let most = store.reservation().most_bytes;
    assert!(most <= 64 << 30, "2^21 segments of 64 KiB, with room to find neighbours: {most}");
    store.ledger().set_capacity(u64::MAX);
    assert_eq!(store.ledger().capacity(), most);
    for n in 0..20_000 {
        put(&store, n, &[7; 8]);
    }
    assert_eq!(store.stats().entries, 20_000);
}

#[test]
fn what_costs_next_to_nothing_is_done_beside_any_order_but_does_not_keep_a_run_from_its_end() {
    let trims = |task: Task| {
        let store = Store::new(Options { shards: Some(1), ..options(4 << 20) }).unwrap();
        put(&store, 1, &[7; 40]);
        let resident = || store.stats().segment_bytes;
        let before = resident();
        let clean = || store.clean(0, task, 1, &mut Tally::default(), &mut || false);
        let answers = [clean(), clean(), clean()];
        (answers, resident() < before)
    };
    assert_eq!(trims(Task::TIDY), ([false, true, false], true), "what is left of a segment that rests");
    let of_a_run = Task { opened_before: 1, ..Task::TIDY };
    assert_eq!(trims(of_a_run), ([false; 3], true));
    let beside_writers = Task { below_percent: 50, ..Task::TIDY };
    assert_eq!(trims(beside_writers), ([false; 3], false), "writers append to it in a moment");
}

#[test]
fn a_migration_goes_on_until_it_is_told_to_stop() {
    let store = Store::new(Options { shards: Some(1), ..options(16 << 20) }).unwrap();
    (0..30_000).for_each(|n| put(&store, n, &[7; 8]));
    for n in 100..30_000_u32 {
        store.delete(key(&n.to_le_bytes()), None, Deletion::Remove, 1).unwrap();
    }
    let is_migrating = || store.shards[0].lock(&store.ground).writer.migration.is_some();
    let mut tally = Tally::default();
    while !is_migrating() {
        assert!(store.clean(0, THOROUGH, 1, &mut tally, &mut || true), "the index is to shrink");
    }
    store.clean(0, THOROUGH, 1, &mut tally, &mut || true);
    assert!(is_migrating(), "a step is a part of it");
    store.clean(0, THOROUGH, 1, &mut tally, &mut || false);
    assert_eq!((is_migrating(), tally.migrated_shards), (false, 1));
}

#[test]
fn each_step_copies_its_items_before_it_takes_the_lock() {
    let (store, items) = read_segments(40);
    (0..40 * items).filter(|i| i % 3 == 0).for_each(|i| {
        store.delete(key(&i.to_le_bytes()), None, Deletion::Remove, 1).unwrap();
    });
    for _ in 0..20 {
        let next = store.shards[0].lock(&store.ground).ahead();
        let mut tally = Tally::default();
        store.clean(0, THOROUGH, 1, &mut tally, &mut || true);
        let Some(next) = next.filter(|next| next.from_words < next.end_words) else { continue };
        let view = store.ground.view(slot::Location::new(next.segment, next.from_words as u32));
        assert!(tally.moved_items > 0 && view.header().is_dead(), "a copy that was committed leaves a dead item");
    }
}

#[test]
fn an_old_index_is_room_for_writers_while_a_piece_of_it_is_given_back() {
    let store = Store::new(Options { shards: Some(1), ..options(16 << 20) }).unwrap();
    (0..30_000).for_each(|n| put(&store, n, &[7; 8]));
    store.reclaim(0);
    let piece = store.shards[0].lock(&store.ground).take_piece(4 << 10).expect("the index has grown");
    store.ledger().set_capacity(store.ledger().total());
    put(&store, 30_000, &[7; 3_000]);
    put(&store, 30_001, &[7; 3_000]);
    assert_eq!((store.stats().evictions, store.stats().copied_bytes), (0, 0));
    store.ground.give_back(&piece);
    let mut locked = store.shards[0].lock(&store.ground);
    locked.end_piece(&piece);
    while locked.clean_bank(u64::MAX) {}
    let clean = locked.writer.banks.iter().filter(|bank| **bank == shard::Bank::Clean).count();
    assert_eq!(clean, BANKS - 1);
}
