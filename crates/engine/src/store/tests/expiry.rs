//! Items whose deadline has passed, and items marked stale.

use super::*;

#[test]
fn expired_items_are_never_returned_and_free_their_memory() {
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
        "expired at the deadline, before any cleaning"
    );
    let tally = settle(&store, THOROUGH, 2_000);
    assert_eq!((tally.expired_items, tally.evicted_items, store.stats().entries), (25_000, 0, 25_000));
    assert!(store.stats().segment_bytes < 25_000 * 130, "{:?}", store.stats());
    let why = |i: u32| store.get(key(&i.to_le_bytes()), 2_000, Use::Read).unwrap();
    let remembered = (0..50_000).step_by(2).filter(|i| why(*i) == Lookup::Miss(Miss::Expired)).count();
    assert!(remembered > 1_000, "{remembered} ghosts of expired items remain in unused slots");
}

#[test]
fn a_deadline_set_during_the_scan_of_its_segment_is_kept() {
    let store = Store::new(Options { shards: Some(1), ..options(8 << 20) }).unwrap();
    let set = |i: u32, deadline_ms: u64| {
        let attributes = Attributes { deadline_ms, ..Attributes::default() };
        store.set(key(&i.to_le_bytes()), &[1; 40], &attributes, Condition::Always, false, 1).unwrap();
    };
    (0..200).for_each(|i| set(i, if i % 10 == 0 { 1_000_000 } else { 10 }));
    // After one stride the scan has passed the first item. Now its deadline moves closer.
    let mut tally = Tally::default();
    while tally.expired_items == 0 {
        store.clean(0, Task::CHEAP, 200_000, &mut tally, &mut || true);
    }
    set(0, 201_000);
    settle(&store, Task::CHEAP, 200_000);
    assert_eq!(store.stats().entries, 20);
    settle(&store, Task::CHEAP, 301_000);
    assert_eq!(store.stats().entries, 19, "the item whose deadline moved closer has expired");
}

#[test]
fn items_expire_by_their_own_ttl_in_a_mixed_segment() {
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
    // The cleaner ticks every 100 ms; here it also runs at every bound.
    let mut passed: Vec<u64> = (1..110).map(|tick| tick * 100).chain(ttls.map(bound)).collect();
    passed.sort_unstable();
    for passed in passed {
        settle(&store, Task::CHEAP, started + passed);
        let left = (0..20_000).filter(|i| bound(ttls[i % ttls.len()]) > passed).count() as u64;
        let alive = (0..20_000).filter(|i| ttls[i % ttls.len()] > passed).count() as u64;
        let entries = store.stats().entries;
        assert!((alive..=left).contains(&entries), "after {passed} ms {entries} items, between {alive} and {left}");
    }
    assert_eq!((store.stats().entries, store.stats().expired_bytes), (0, 0));
}

#[test]
fn expired_bytes_are_counted_and_freed_before_evictions() {
    let store = Store::new(Options { shards: Some(1), ..options(8 << 20) }).unwrap();
    let (soon, never) = (Attributes { deadline_ms: 1_000_000, ..Attributes::default() }, Attributes::default());
    let set = |i: u32, attributes: &Attributes, now_ms| {
        store.set(key(&i.to_le_bytes()), &[1; 200], attributes, Condition::Always, false, now_ms).unwrap();
    };
    (0..30_000).for_each(|i| set(i, if i % 2 == 0 { &soon } else { &never }, 1));
    settle(&store, Task::CHEAP, 1_000_000);
    assert_eq!(
        store.stats().expired_bytes,
        15_000 * (8 + 8 + 208),
        "the scan is not due yet, but the bytes are counted"
    );
    for i in 0..10_000_u32 {
        store.delete(key(&i.to_le_bytes()), None, Deletion::Remove, 1).unwrap();
    }
    settle(&store, Task::CHEAP, 1_000_000);
    assert_eq!(store.stats().expired_bytes, 10_000 * (8 + 8 + 208), "deleted items do not count as expired");
    (30_000..40_000).for_each(|i| set(i, &never, 1_000_001));
    assert_eq!((store.stats().evictions, store.stats().expired_bytes > 0), (0, true), "{:?}", store.stats());
}

#[test]
fn a_value_computed_from_a_stale_one_is_stale() {
    let store = Store::new(options(1 << 20)).unwrap();
    let append = |now_ms| {
        let change = |item: Option<&Item>| {
            let item = item.expect("the item exists");
            (Update::Store { value: [&item.value[..], b"+"].concat().into(), attributes: item.attributes }, ())
        };
        store.update(key(b"k"), now_ms, change).unwrap();
    };
    let stale = || match store.get(key(b"k"), 1, Use::Read).unwrap() {
        Lookup::Found(item) => item.marked_stale,
        Lookup::Miss(_) => panic!("the item exists"),
    };
    let set = || store.set(key(b"k"), b"1", &Attributes::default(), Condition::Always, false, 1).unwrap();
    set();
    store.delete(key(b"k"), None, Deletion::MarkStale, 1).unwrap();
    append(1);
    assert!(stale(), "marked by a deletion that kept the item");
    set();
    assert!(!stale(), "a new value is fresh");
    store.invalidate(Group::Prefix(0, b"k"), true).unwrap();
    append(1);
    settle(&store, THOROUGH, 1);
    assert!(stale(), "marked by an invalidation");
}

#[test]
fn a_touched_deadline_is_kept() {
    let store = Store::new(options(4 << 20)).unwrap();
    let long = Attributes { deadline_ms: 10_000_000, ..Attributes::default() };
    for i in 0..3_000_u32 {
        let attributes = if i % 2 == 0 { long } else { Attributes::default() };
        store.set(key(&i.to_le_bytes()), &[1; 40], &attributes, Condition::Always, false, 1).unwrap();
    }
    (0..3_000_u32).filter(|i| i % 3 == 0).for_each(|i| {
        assert!(store.touch(key(&i.to_le_bytes()), 5_000, 1).unwrap().is_some());
    });
    settle(&store, Task::CHEAP, 7_000);
    assert_eq!((store.stats().entries, store.stats().expirations), (2_000, 1_000));
}
