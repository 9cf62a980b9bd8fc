//! Dead bytes, steps of the cleaner, and the cost of a run.

use super::*;
use crate::store::arena::page_bytes;

#[test]
fn memory_falls_with_the_live_bytes_after_a_mass_delete() {
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
fn a_shorter_value_frees_the_rest_of_its_memory() {
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
fn a_step_ends_when_stop_returns_true() {
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
fn cheap_work_is_done_for_every_task_but_does_not_prolong_a_run() {
    let trims = |task: Task| {
        let store = Store::new(Options { shards: Some(1), ..options(4 << 20) }).unwrap();
        put(&store, 1, &[7; 40]);
        let resident = || store.stats().segment_bytes;
        let before = resident();
        let clean = || store.clean(0, task, 1, &mut Tally::default(), &mut || false);
        let answers = [clean(), clean(), clean()];
        (answers, resident() < before)
    };
    assert_eq!(trims(Task::CHEAP), ([false, true, false], true), "the unused pages of an idle open segment");
    let of_a_run = Task { opened_before: 1, ..Task::CHEAP };
    assert_eq!(trims(of_a_run), ([false; 3], true));
    let beside_writers = Task { below_percent: 50, ..Task::CHEAP };
    assert_eq!(trims(beside_writers), ([false; 3], false), "writers will soon append to it");
}

#[test]
fn each_step_copies_its_items_before_it_takes_the_lock() {
    let (store, items) = read_segments(40);
    (0..40 * items).filter(|i| i % 3 == 0).for_each(|i| {
        store.delete(key(&i.to_le_bytes()), None, Deletion::Remove, 1).unwrap();
    });
    for _ in 0..20 {
        let next = store.shards[0].lock(&store.shared).ahead();
        let mut tally = Tally::default();
        store.clean(0, THOROUGH, 1, &mut tally, &mut || true);
        let Some(next) = next.filter(|next| next.from_words < next.end_words) else { continue };
        let view = store.shared.view(slot::Location::new(next.segment, next.from_words as u32));
        assert!(tally.moved_items > 0 && view.header().is_dead(), "a copy that was committed leaves a dead item");
    }
}
