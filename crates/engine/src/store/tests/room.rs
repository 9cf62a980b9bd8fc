//! Capacity, reservation and refusals.

use super::*;

#[test]
fn a_reservation_gives_up_growth_before_capacity() {
    let layouts = Layout::to_try(60 << 20, 24 << 30, 4, 128 << 10);
    let mib: Vec<_> = layouts.iter().map(|layout| layout.most >> 20).collect();
    assert_eq!(mib, [24_576, 12_288, 6_144, 3_072, 1_536, 768, 384, 192, 96, 60, 60, 30, 15, 8]);
    assert!(
        layouts.is_sorted_by(|before, after| before.bytes() > after.bytes()),
        "each layout is smaller than the one before"
    );
    assert!(layouts[9].bytes() < 340 << 20 && layouts[10].bytes() < 220 << 20);
}

#[test]
fn a_store_in_little_address_space_evicts_and_keeps_working() {
    // As if the reservation had shrunk below the capacity.
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

#[test]
fn makes_room_for_bytes_in_flight_unless_that_is_impossible() {
    let store = Store::new(options(4 << 20)).unwrap();
    for i in 0..60_000_u32 {
        store.set(key(&i.to_le_bytes()), &[1; 200], &Attributes::default(), Condition::Always, false, 1).unwrap();
    }
    let ledger = store.ledger();
    let full = ledger.total();
    ledger.add_in_flight(1 << 20);
    store.make_room(1);
    assert!(ledger.has_room(0) && ledger.total() >= full - (64 << 10), "evicts no more than needed: {ledger:?}");
    let entries = store.stats().entries;
    ledger.add_in_flight(4 << 20);
    store.make_room(1);
    assert_eq!(store.stats().entries, entries, "nothing is evicted for bytes that would not fit an empty store");
}

#[test]
fn writes_evict_and_stay_within_the_capacity() {
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
fn items_that_can_never_fit_are_refused_without_effect() {
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
fn large_values_have_own_pages_and_free_all_of_them() {
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
fn a_shard_without_victims_evicts_from_the_fullest_shard() {
    let store = Store::new(options(2 << 20)).unwrap();
    let mut random = Random(11);
    for i in 0..2_000_u32 {
        let len = if random.below(3) == 0 { 700_000 } else { random.below(3_000) as usize };
        store.set(key(&i.to_le_bytes()), &vec![1; len], &Attributes::default(), Condition::Always, false, 1).unwrap();
    }
    assert!(store.stats().evictions > 1_000 && store.stats().refusals == 0, "{:?}", store.stats());
}

#[test]
fn segments_grow_when_the_capacity_is_raised() {
    let raised = Store::new(Options { most_bytes: Some(1 << 30), ..Options::new(16 << 20) }).unwrap();
    let (small, shards) = (raised.segment_bytes() as u64, raised.shards.len() as u64);
    raised.ledger().set_capacity(1 << 30);
    let mut n = 0_u32;
    while raised.stats().entries < 200_000 {
        put(&raised, n, &[7; 400]);
        n += 1;
    }
    let segments = raised.shards.iter().map(|shard| shard.lock(&raised.shared).writer.segments.len()).sum::<usize>();
    let stats = raised.stats();
    assert!((segments as u64) < stats.segment_bytes / small / 8, "{segments} segments for {stats:?}");
    assert_eq!((shards, stats.evictions), (1, 0));
    // After the capacity is lowered again, writes evict from the large segments.
    raised.ledger().set_capacity(8 << 20);
    for more in 0..10_000 {
        put(&raised, n + more, &[7; 400]);
    }
    assert!(raised.ledger().total() <= 8 << 20, "{:?}", raised.stats());
}

#[test]
fn writes_go_on_while_the_use_falls_to_a_lowered_capacity() {
    // Far more segments lie above the new capacity than one write cleans.
    for (segment_bytes, len) in [(4 << 10, 100), (4 << 10, 3_000), (64 << 10, 30_000), (64 << 10, 300_000)] {
        let options = Options { segment_bytes: Some(segment_bytes), shards: Some(2), ..options(48 << 20) };
        let store = Store::new(options).unwrap();
        let write = |n: u32| {
            let value = vec![n as u8; len];
            store.set(key(&n.to_le_bytes()), &value, &Attributes::default(), Condition::Always, false, 1)
        };
        let many = (64 << 20) / len as u32;
        for n in 0..many {
            write(n).unwrap();
        }
        let ledger = store.ledger();
        for percent in [50, 25] {
            let before = ledger.total();
            ledger.set_capacity(before / 100 * percent);
            for n in 0..many {
                write(n).unwrap_or_else(|error| panic!("{segment_bytes}, {len}, {percent} %, write {n}: {error}"));
                assert!(ledger.total() <= before + 2 * segment_bytes as u64, "{ledger:?}");
            }
            assert!(ledger.has_room(0), "{segment_bytes}, {len}: writes alone bring the use down: {ledger:?}");
        }
        assert_eq!(store.stats().refusals, 0);
    }
}

#[test]
fn raising_the_capacity_causes_no_eviction() {
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
fn a_small_store_on_a_large_machine_grows() {
    // The system may refuse this much address space; then the store reports a smaller reservation.
    let store = Store::new(Options { most_bytes: Some(4 << 40), ..Options::new(8 << 20) }).unwrap();
    let most = store.reservation().most_bytes;
    assert!(most <= 64 << 30, "2^21 segments of 64 KiB, with room for runs of free neighbours: {most}");
    store.ledger().set_capacity(u64::MAX);
    assert_eq!(store.ledger().capacity(), most);
    for n in 0..20_000 {
        put(&store, n, &[7; 8]);
    }
    assert_eq!(store.stats().entries, 20_000);
}
