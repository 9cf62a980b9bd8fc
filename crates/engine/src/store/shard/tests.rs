use super::super::{Attributes, Condition, Options, Store, Use};
use super::*;

#[test]
#[should_panic(expected = "a shard's map is its own (M5)")]
fn a_map_of_another_shard_is_detected() {
    let options = Options { shards: Some(2), ..Options::new(8 << 20) };
    let store = Store::new(options).unwrap();
    let [one, two] = &store.shards[..] else { panic!("two shards") };
    one.map.swap(two.map.load().clone());
    // Enough keys that some belong to the first shard, whatever the seed of the hash.
    for key in 0_u32..1000 {
        let _ = store.get(Key { namespace: 0, bytes: &key.to_le_bytes() }, 1, Use::Read);
    }
}

fn full(capacity_bytes: u64) -> (Store, u32) {
    let store = Store::new(Options { most_bytes: Some(64 << 20), ..Options::new(capacity_bytes) }).unwrap();
    // Many times the capacity, so that the index has grown to its final number of ghosts.
    let keys = (capacity_bytes / 40) as u32;
    (0..keys).for_each(|i| set(&store, i));
    (store, keys)
}

fn set(store: &Store, i: u32) {
    let key = Key { namespace: 0, bytes: &i.to_le_bytes() };
    store.set(key, &[1; 200], &Attributes::default(), Condition::Always, false, 1).unwrap();
}

/// Number of items that 5,000 writes to a full store evict.
fn evicted_by_5_000(store: &Store, keys: u32) -> u64 {
    let before = store.stats().evictions;
    (keys..keys + 5_000).for_each(|i| set(store, i));
    store.stats().evictions - before
}

#[test]
fn a_descheduled_reader_pins_only_one_segment() {
    let (store, keys) = full(16 << 20);
    let alone = evicted_by_5_000(&store, keys);
    // As if a thread stopped while it held every map and announced a segment.
    let maps: Vec<_> = store.shards.iter().map(|shard| shard.map.load()).collect();
    let announced = {
        let shard = store.shards[0].lock(&store.shared);
        super::super::policy::eviction_victim(shard.writer.segments.values(), shard.writer.nursery).unwrap()
    };
    let announcement = store.shared.readers.own().unwrap().announce(announced);
    let beside = std::thread::scope(|scope| scope.spawn(|| evicted_by_5_000(&store, keys + 5_000)).join().unwrap());
    let of_two_segments = 2 * store.segment_bytes() as u64 / 200;
    assert!(
        alone > 1_000 && beside < alone + of_two_segments,
        "{beside} items evicted beside a stopped reader, {alone} without"
    );
    assert_eq!(store.stats().retired_bytes, store.segment_bytes() as u64, "only the announced segment is retired");
    drop((maps, announcement));
    store.reclaim(0);
    assert_eq!(store.stats().retired_bytes, 0);
}

#[test]
fn an_index_grows_without_evictions_while_a_map_is_held() {
    let store = Store::new(Options { shards: Some(1), most_bytes: Some(64 << 20), ..Options::new(48 << 20) });
    let store = store.unwrap();
    let map = store.shards[0].map.load();
    (0..150_000).for_each(|i| set(&store, i));
    assert_eq!((store.stats().entries, store.stats().evictions), (150_000, 0));
    drop(map);
}
