//! Models of the whole store under shuttle: random schedules of its operations beside its cleaner.

use super::*;
use crate::sync::Arc;
use shuttle::thread;

const EXECUTIONS: usize = 2_000;

/// Explores random schedules, then PCT schedules. Returns their number.
fn explore(search: Search, model: impl Fn() + Send + Sync + Clone + 'static) -> usize {
    let pct = match search {
        Search::Model => EXECUTIONS,
        Search::Mutant => 100 * EXECUTIONS,
    };
    let count = std::sync::Arc::new(Count::new(0));
    let counted = {
        let count = count.clone();
        move || {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            model();
        }
    };
    shuttle::check_random(counted.clone(), EXECUTIONS);
    shuttle::check_pct(counted, pct, 3);
    count.load(std::sync::atomic::Ordering::SeqCst)
}

fn small() -> Arc<Store> {
    Arc::new(
        Store::new(Options {
            capacity_bytes: 64 << 10,
            most_bytes: Some(16 << 10),
            max_value_bytes: 512,
            seed: [3, 4],
            first_version: 1 << 30,
            shards: Some(1),
            segment_bytes: Some(4 << 10),
        })
        .unwrap(),
    )
}

fn key(bytes: &[u8]) -> Key<'_> {
    Key { namespace: 0, bytes }
}

fn set(store: &Store, k: &[u8], value: &[u8]) {
    store.set(key(k), value, &Attributes::default(), Condition::Always, false, 1).unwrap();
}

fn value(store: &Store, k: &[u8]) -> Option<bytes::Bytes> {
    match store.get(key(k), 1, Use::Read).unwrap() {
        Lookup::Found(item) => Some(item.value),
        Lookup::Miss(_) => None,
    }
}

/// A store with one live item in a segment of dead bytes, so that the cleaner moves the item and frees the segment.
fn one_item_among_dead_bytes() -> Arc<Store> {
    let store = small();
    set(&store, b"k", &[1; 40]);
    for i in 0..7_u8 {
        set(&store, &[i], &[9; 500]);
    }
    for i in 0..7_u8 {
        store.delete(key(&[i]), None, Deletion::Remove, 1).unwrap();
    }
    store
}

fn clean(store: &Store, steps: usize) {
    let task = Task { below_percent: 99, thorough: true, ..Task::CHEAP };
    for _ in 0..steps {
        store.clean(0, task, 1, &mut Tally::default(), &mut || false);
        while store.cool(0).is_some() {}
    }
}

fn is_uniform(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == value[0])
}

#[test]
fn a_published_item_is_whole() {
    with_mutant(Fault::SlotBeforeBytes, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            let writer = {
                let store = store.clone();
                thread::spawn(move || set(&store, b"k", &[7; 24]))
            };
            if let Some(value) = value(&store, b"k") {
                assert_eq!(&value[..], [7; 24]);
            }
            writer.join().unwrap();
            assert!(value(&store, b"k").is_some());
        })
    });
}

#[test]
fn an_overwrite_in_place_is_seen_whole_or_not_at_all() {
    with_mutant(Fault::OverwriteUnannounced, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            set(&store, b"k", &[1; 24]);
            let writer = {
                let store = store.clone();
                // The first overwrite has the same size, the second is shorter.
                thread::spawn(move || [(2, 24), (3, 9)].iter().for_each(|(i, len)| set(&store, b"k", &vec![*i; *len])))
            };
            for _ in 0..2 {
                let seen = value(&store, b"k").expect("the key always has a value");
                assert!(is_uniform(&seen) && seen.len() == if seen[0] == 3 { 9 } else { 24 }, "{seen:?}");
            }
            writer.join().unwrap();
            assert_eq!(value(&store, b"k").unwrap()[0], 3);
        })
    });
}

#[test]
fn memory_is_reused_only_when_the_last_reader_has_left() {
    with_mutant(Fault::FreeUnderReaders, EXECUTIONS, |search| {
        explore(search, || {
            let store = one_item_among_dead_bytes();
            let cleaner = {
                let store = store.clone();
                thread::spawn(move || {
                    clean(&store, 6);
                    // Write another item over the old copy.
                    (0..8_u8).for_each(|i| set(&store, &[200 + i], &[8; 500]));
                })
            };
            let seen = value(&store, b"k").expect("moving an item never hides it");
            assert_eq!(&seen[..], [1; 40], "another item's bytes");
            cleaner.join().unwrap();
        })
    });
}

#[test]
fn a_read_without_announcement_or_recheck_fails() {
    for fault in [Fault::ReadUnannounced, Fault::AnnouncedUnlooked] {
        with_mutant(fault, EXECUTIONS, |search| explore(search, segments_are_reused_beside_a_reader));
    }
}

/// Two segments are retired during one read, before or after its checks.
fn segments_are_reused_beside_a_reader() {
    let store = one_item_among_dead_bytes();
    let cleaner = {
        let store = store.clone();
        thread::spawn(move || {
            clean(&store, 4);
            (0..7_u8).for_each(|i| set(&store, &[200 + i], &[8; 500]));
            (0..7_u8).for_each(|i| drop(store.delete(key(&[200 + i]), None, Deletion::Remove, 1).unwrap()));
            clean(&store, 4);
            (0..7_u8).for_each(|i| set(&store, &[100 + i], &[7; 500]));
        })
    };
    for _ in 0..2 {
        let seen = value(&store, b"k").expect("moving an item never hides it");
        assert_eq!(&seen[..], [1; 40], "another item's bytes");
    }
    cleaner.join().unwrap();
}

#[test]
fn a_bank_is_reused_only_when_no_map_refers_to_it() {
    with_mutant(Fault::BankUnderReaders, 300, |search| {
        // The bug needs a reader that stops once while all migrations run; random schedules almost never do that.
        let executions = match search {
            Search::Model => 300,
            Search::Mutant => 10_000,
        };
        let count = std::sync::Arc::new(Count::new(0));
        let counted = count.clone();
        shuttle::check_pct(
            move || {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let store = small();
                set(&store, b"k", &[1; 8]);
                let migrations = {
                    let store = store.clone();
                    thread::spawn(move || {
                        for buckets in [80, 96, 112, 80] {
                            let shard = &store.shards[0];
                            if shard.lock(&store.shared).begin_migration(buckets) {
                                while shard.lock(&store.shared).migrate_some(u32::MAX) {}
                            }
                        }
                    })
                };
                assert_eq!(value(&store, b"k").map(|v| v[0]), Some(1), "its bank was reused during the read");
                migrations.join().unwrap();
                assert_eq!(value(&store, b"k").map(|v| v[0]), Some(1));
            },
            executions,
            3,
        );
        count.load(std::sync::atomic::Ordering::SeqCst)
    });
}

#[test]
fn a_write_after_a_sweep_is_not_invalidated_by_it() {
    with_mutant(Fault::JudgedByOldMap, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            set(&store, b"a", &[1; 8]);
            store.invalidate(Group::Prefix(0, b"a"), false).unwrap();
            set(&store, b"a", &[2; 8]);
            let sweeper = {
                let store = store.clone();
                thread::spawn(move || {
                    clean(&store, 3);
                    set(&store, b"a", &[3; 8]);
                })
            };
            assert!(value(&store, b"a").is_some(), "a finished invalidation hid a later write");
            sweeper.join().unwrap();
            assert_eq!(value(&store, b"a").map(|v| v[0]), Some(3));
        })
    });
}

#[test]
fn an_item_that_moves_between_its_buckets_is_never_missed() {
    with_mutant(Fault::MoveUncounted, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            set(&store, b"k", &[1; 8]);
            let mover = {
                let store = store.clone();
                thread::spawn(move || {
                    let shard = &store.shards[0];
                    let hash = store.shared.hasher.hash(key(b"k"));
                    for _ in 0..2 {
                        let mut locked = shard.lock(&store.shared);
                        let from = locked.find(key(b"k"), hash).unwrap().at;
                        let index = locked.writer.index;
                        // The other bucket is empty, so any position in it is free.
                        let to = index.other_positions(from, locked.find(key(b"k"), hash).unwrap().slot).start;
                        locked.displace(|this| index.move_to_other(&this.shared.arena, from, to));
                    }
                })
            };
            assert!(value(&store, b"k").is_some(), "missed while its slot moved");
            mover.join().unwrap();
        })
    });
}

#[test]
fn a_write_during_a_migration_is_in_the_new_index() {
    with_mutant(Fault::WriteOneSide, 300, |search| {
        let count = std::sync::Arc::new(Count::new(0));
        let counted = count.clone();
        shuttle::check_random(
            move || {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let store = small();
                set(&store, b"k", &[1; 8]);
                let migration = {
                    let store = store.clone();
                    thread::spawn(move || {
                        assert!(store.shards[0].lock(&store.shared).begin_migration(80));
                        while store.shards[0].lock(&store.shared).migrate_some(16) {}
                    })
                };
                // A value of another size is written to a new location, so its slot changes.
                set(&store, b"k", &[2; 64]);
                set(&store, b"new", &[3; 64]);
                migration.join().unwrap();
                assert_eq!(value(&store, b"k").map(|v| v[0]), Some(2), "a lost update");
                assert_eq!(value(&store, b"new").map(|v| v[0]), Some(3), "a lost insertion");
            },
            match search {
                Search::Model => 300,
                Search::Mutant => 30_000,
            },
        );
        count.load(std::sync::atomic::Ordering::SeqCst)
    });
}

#[test]
fn a_write_after_an_invalidation_survives_its_sweep() {
    with_mutant(Fault::SweepUnversioned, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            set(&store, b"a-old", &[1; 8]);
            let sweeper = {
                let store = store.clone();
                thread::spawn(move || clean(&store, 3))
            };
            store.invalidate(Group::Prefix(0, b"a"), false).unwrap();
            assert_eq!(value(&store, b"a-old"), None, "an acknowledged invalidation prevents hits");
            set(&store, b"a-new", &[2; 8]);
            assert!(value(&store, b"a-new").is_some(), "written after the invalidation");
            sweeper.join().unwrap();
            clean(&store, 3);
            assert!(value(&store, b"a-new").is_some(), "swept away");
        })
    });
}

#[test]
fn an_update_is_not_lost_to_the_cleaner() {
    with_mutant(Fault::MoveWhatDied, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            set(&store, b"k", &[1; 40]);
            set(&store, b"dead", &[9; 500]);
            store.delete(key(b"dead"), None, Deletion::Remove, 1).unwrap();
            let cleaner = {
                let store = store.clone();
                thread::spawn(move || clean(&store, 4))
            };
            // A larger value is written to a new location while the old copy waits to be moved.
            set(&store, b"k", &[2; 80]);
            assert_eq!(value(&store, b"k").map(|v| v[0]), Some(2));
            cleaner.join().unwrap();
            assert_eq!(value(&store, b"k").map(|v| v[0]), Some(2), "the old copy came back");
        })
    });
}

#[test]
fn an_overwrite_in_place_is_not_lost_to_an_unlocked_copy() {
    with_mutant(Fault::CommitUnlooked, EXECUTIONS, |search| {
        explore(search, || {
            let store = one_item_among_dead_bytes();
            let cleaner = {
                let store = store.clone();
                thread::spawn(move || clean(&store, 4))
            };
            set(&store, b"k", &[2; 40]);
            assert_eq!(value(&store, b"k").as_deref(), Some(&[2; 40][..]));
            cleaner.join().unwrap();
            assert_eq!(value(&store, b"k").as_deref(), Some(&[2; 40][..]), "the cleaner's copy has the old value");
        })
    });
}

#[test]
fn two_writers_of_one_key_make_one_entry() {
    with_mutant(Fault::InsertUnlooked, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            let other = {
                let store = store.clone();
                thread::spawn(move || set(&store, b"k", &[1; 40]))
            };
            set(&store, b"k", &[2; 80]);
            other.join().unwrap();
            assert_eq!(store.stats().entries, 1);
            store.delete(key(b"k"), None, Deletion::Remove, 1).unwrap();
            assert_eq!(value(&store, b"k"), None, "a second entry");
        })
    });
}

#[test]
fn counting_a_read_undoes_no_write() {
    with_mutant(Fault::CountByStore, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            set(&store, b"k", &[1; 24]);
            let writer = {
                let store = store.clone();
                thread::spawn(move || set(&store, b"k", &[2; 80]))
            };
            assert!(value(&store, b"k").is_some());
            writer.join().unwrap();
            assert_eq!(value(&store, b"k").map(|v| v[0]), Some(2), "the count restored the old slot");
        })
    });
}

#[test]
fn an_acknowledged_delete_is_never_undone_by_the_cleaner() {
    let _turn = TURN.lock();
    let executions = explore(Search::Model, || {
        let store = small();
        set(&store, b"k", &[1; 40]);
        set(&store, b"dead", &[9; 500]);
        store.delete(key(b"dead"), None, Deletion::Remove, 1).unwrap();
        let cleaner = {
            let store = store.clone();
            thread::spawn(move || clean(&store, 4))
        };
        store.delete(key(b"k"), None, Deletion::Remove, 1).unwrap();
        assert_eq!(value(&store, b"k"), None);
        cleaner.join().unwrap();
        assert_eq!(value(&store, b"k"), None, "resurrected");
        assert_eq!(store.stats().entries, 0, "counted once");
    });
    assert!(executions >= EXECUTIONS);
}

fn lease(store: &Store, k: &[u8]) -> Leased {
    store.lease(key(k), LeaseRequest { ttl_ms: 1_000, token: None, waits: true }, 1).unwrap()
}

fn fill(store: &Store, k: &[u8], value: &[u8], token: u64) -> SetOutcome {
    store.set(key(k), value, &Attributes::default(), Condition::Lease(token), false, 1).unwrap()
}

#[test]
fn two_callers_never_hold_the_lease_of_a_key() {
    with_mutant(Fault::SecondLease, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            let holders = Arc::new(shuttle::sync::Mutex::new(0));
            let callers = [(); 2].map(|()| {
                let (store, holders) = (store.clone(), holders.clone());
                thread::spawn(move || {
                    if let Leased::Won { token, .. } = lease(&store, b"k") {
                        let mut held = holders.lock().unwrap();
                        *held += 1;
                        assert_eq!(*held, 1, "the other caller holds the lease");
                        drop(held);
                        thread::yield_now();
                        *holders.lock().unwrap() -= 1;
                        fill(&store, b"k", b"value", token);
                    }
                })
            });
            callers.into_iter().for_each(|caller| caller.join().unwrap());
            assert!(value(&store, b"k").is_some());
        })
    });
}

/// A caller loads from a source while another changes the source and deletes the key.
#[test]
fn a_value_loaded_before_a_deletion_is_not_stored_after_it() {
    with_mutant(Fault::WriteKeepsLease, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            let source = Arc::new(crate::sync::atomic::AtomicU64::new(1));
            let writer = {
                let (store, source) = (store.clone(), source.clone());
                thread::spawn(move || {
                    source.store(2, crate::sync::atomic::Ordering::SeqCst);
                    store.delete(key(b"k"), None, Deletion::Remove, 1).unwrap();
                })
            };
            if let Leased::Won { token, .. } = lease(&store, b"k") {
                let loaded = source.load(crate::sync::atomic::Ordering::SeqCst) as u8;
                fill(&store, b"k", &[loaded], token);
            }
            writer.join().unwrap();
            let stored = value(&store, b"k");
            assert!(stored.as_ref().is_none_or(|value| value[..] == [2]), "an old value is stored: {stored:?}");
        })
    });
}

#[test]
fn the_end_of_a_lease_wakes_every_waiter() {
    with_mutant(Fault::WaiterJoinsLate, EXECUTIONS, |search| {
        explore(search, || {
            let store = small();
            let Leased::Won { token, .. } = lease(&store, b"k") else { panic!("nobody else asks for it") };
            let waiter = {
                let store = store.clone();
                thread::spawn(move || {
                    if let Leased::Refused { waiter, .. } = lease(&store, b"k") {
                        // A lost wake-up is a deadlock.
                        shuttle::future::block_on(waiter.expect("the queue has room"));
                        assert!(value(&store, b"k").is_some());
                    }
                })
            };
            fill(&store, b"k", b"value", token);
            waiter.join().unwrap();
        })
    });
}
