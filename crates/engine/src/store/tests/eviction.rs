//! Which items are evicted to make room.

use super::*;
use crate::store::append::Way;
use crate::store::room::{Effort, MAX_CLEANED};

#[test]
fn recently_evicted_keys_have_ghosts() {
    let store = Store::new(options(1 << 20)).unwrap();
    let set = |i: u32| {
        store.set(key(&i.to_le_bytes()), &[1; 200], &Attributes::default(), Condition::Always, false, 1).unwrap();
    };
    (0..6_000).for_each(set);
    let why = |i: u32| store.get(key(&i.to_le_bytes()), 1, Use::Peek).unwrap();
    let remembered = (0..6_000).filter(|i| why(*i) == Lookup::Miss(Miss::Evicted)).count();
    assert!(remembered > 300, "{remembered} of the evicted keys have a ghost");
}

#[test]
fn overwrites_evict_nothing_while_live_items_fit() {
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
            // Moving items may open one segment per tail before it frees one.
            let beyond = store.ledger().total().saturating_sub(16 << 20) as usize;
            assert!(beyond <= shards * log::Tail::COUNT * segment_bytes, "{beyond} bytes");
        }
        assert_eq!((store.stats().evictions, store.stats().entries), (0, u64::from(keys)), "{shards} shards");
        assert!((0..keys).all(|i| value_of(&store, &i.to_le_bytes(), 1).is_some()));
    }
}

#[test]
fn makes_room_in_few_steps_when_all_items_are_hot() {
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
fn dead_large_values_are_freed_before_evictions() {
    let store = Store::new(Options { shards: Some(1), ..options(8 << 20) }).unwrap();
    let set = |name: &[u8], len: usize| {
        store.set(key(name), &vec![1; len], &Attributes::default(), Condition::Always, false, 1).unwrap();
    };
    (0..5_000_u32).for_each(|i| set(&i.to_le_bytes(), 200));
    for round in 0..200 {
        set(b"large", 300_000 + round); // longer than before, so it is written to a new location
    }
    assert_eq!((store.stats().evictions, store.stats().entries), (0, 5_001));
}

#[test]
fn eviction_prefers_unread_items() {
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
    assert!(read > 1_100 && unread < 5_000, "{read} of 1,200 read items and {unread} of 10,800 unread items survive");
}

#[test]
fn requeued_items_lose_a_read() {
    let (store, items) = read_segments(4);
    let reads = || {
        let shard = store.shards[0].lock(&store.shared);
        let find = |i: u32| shard.find(key(&i.to_le_bytes()), store.shared.hasher.hash(key(&i.to_le_bytes())));
        (0..4 * items).map(|i| find(i).expect("no item is evicted").slot.reads()).collect::<Vec<_>>()
    };
    assert!(reads().iter().all(|reads| *reads == 3));
    for _ in 0..4 {
        let way = Way::Evict { spares_read: true };
        assert!(store.shards[0].lock(&store.shared).clean_one_now(way, 1));
    }
    assert!(reads().iter().all(|reads| *reads < 3), "{:?}", reads());
    assert_eq!(store.stats().evictions, 0);
}

#[test]
fn compacted_items_keep_their_age() {
    let (store, items) = read_segments(4);
    let oldest = || {
        let shard = store.shards[0].lock(&store.shared);
        shard.writer.segments.values().map(|segment| segment.age).min().unwrap()
    };
    let before = oldest();
    for i in (0..items).filter(|i| i % 10 != 0) {
        store.delete(key(&i.to_le_bytes()), None, Deletion::Remove, 1).unwrap();
    }
    let task = Task { below_percent: 50, ..Task::CHEAP };
    let tally = settle(&store, task, 1);
    assert!(tally.moved_items > 0 && tally.freed_segments > 0, "{tally:?}");
    assert_eq!(oldest(), before);
}
