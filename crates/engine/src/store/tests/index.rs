//! The index while it grows, shrinks and migrates.

use super::*;

#[test]
fn expired_items_do_not_enlarge_the_index() {
    let store = Store::new(Options { shards: Some(1), ..options(48 << 20) }).unwrap();
    let set = |i: u32, now_ms: u64| {
        let attributes = Attributes { deadline_ms: now_ms + 500, ..Attributes::default() };
        store.set(key(&i.to_le_bytes()), &[1; 40], &attributes, Condition::Always, false, now_ms).unwrap();
    };
    (0..50_000).for_each(|i| set(i, 1));
    let before = store.stats().index_bytes;
    for round in 1..6 {
        settle(&store, Task::CHEAP, round * 10_000);
        assert_eq!(store.stats().entries, 0);
        (0..50_000).for_each(|i| set(round as u32 * 50_000 + i, round * 10_000));
    }
    assert!(store.stats().index_bytes <= before * 11 / 10, "{before} before, {:?}", store.stats());
}

#[test]
fn a_growing_index_stays_within_the_capacity() {
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
fn a_migration_continues_until_stop_returns_true() {
    let store = Store::new(Options { shards: Some(1), ..options(16 << 20) }).unwrap();
    (0..30_000).for_each(|n| put(&store, n, &[7; 8]));
    for n in 100..30_000_u32 {
        store.delete(key(&n.to_le_bytes()), None, Deletion::Remove, 1).unwrap();
    }
    let is_migrating = || store.shards[0].lock(&store.shared).writer.migration.is_some();
    let mut tally = Tally::default();
    while !is_migrating() {
        assert!(store.clean(0, THOROUGH, 1, &mut tally, &mut || true), "the index must shrink");
    }
    store.clean(0, THOROUGH, 1, &mut tally, &mut || true);
    assert!(is_migrating(), "one step does not end the migration");
    store.clean(0, THOROUGH, 1, &mut tally, &mut || false);
    assert_eq!((is_migrating(), tally.migrated_shards), (false, 1));
}

#[test]
fn writers_use_the_memory_of_an_old_index_while_it_is_released() {
    let store = Store::new(Options { shards: Some(1), ..options(16 << 20) }).unwrap();
    (0..30_000).for_each(|n| put(&store, n, &[7; 8]));
    store.reclaim(0);
    let piece = store.shards[0].lock(&store.shared).take_piece(4 << 10).expect("the index has grown");
    store.ledger().set_capacity(store.ledger().total());
    put(&store, 30_000, &[7; 3_000]);
    put(&store, 30_001, &[7; 3_000]);
    assert_eq!((store.stats().evictions, store.stats().copied_bytes), (0, 0));
    store.shared.give_back(&piece);
    let mut locked = store.shards[0].lock(&store.shared);
    locked.end_piece(&piece);
    while locked.clean_bank(u64::MAX) {}
    let clean = locked.writer.banks.iter().filter(|bank| **bank == bank::Bank::Clean).count();
    assert_eq!(clean, BANKS - 1);
}
