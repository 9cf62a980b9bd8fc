//! Models under loom of the parts that depend on memory order: every execution of an item, an announcement, the ledger.

use super::arena::Arena;
use super::index::Index;
use super::item::{Draft, Facts, Read, View};
use super::readers::Readers;
use super::slot::{Location, Place, Slot};
use super::*;
use crate::sync::atomic::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

fn facts(version: u64) -> Facts {
    Facts { version, attributes: Attributes::default(), marked_stale: false, namespace: 0, ttl_octave: 0 }
}

/// Explores every execution. Returns their number.
fn explore(model: impl Fn() + Send + Sync + 'static) -> usize {
    let count = std::sync::Arc::new(Count::new(0));
    let counted = count.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        model();
    });
    count.load(std::sync::atomic::Ordering::SeqCst)
}

#[test]
fn a_published_item_is_whole() {
    for fault in [Fault::SlotBeforeBytes, Fault::SlotRelaxed] {
        with_mutant(fault, 2, |_| {
            explore(|| {
                // One bucket, followed by the item.
                let arena = Arc::new(Arena::reserve(12 * 8).unwrap());
                let index = Index { base: 0, buckets: 1 };
                let (place, slot) = (Place(7), Slot::item(7, Location::new(1, 0)));
                let writer = {
                    let arena = arena.clone();
                    thread::spawn(move || {
                        let draft = Draft { key: b"key", value: b"value", facts: facts(1), versioned: false };
                        if crate::sync::planted(Fault::SlotBeforeBytes) {
                            index.store(&arena, 0, slot);
                        }
                        draft.write(arena.words(8..12));
                        index.store(&arena, 0, slot);
                    })
                };
                AtomicU64::new(0).store(1, Ordering::Relaxed); // loom explores a thread only after its first store
                let found = index.candidates(&arena, place).next();
                if let Some((at, found)) = found {
                    assert_eq!((at, found.location()), (0, slot.location()));
                    let item = View::new(arena.words(8..12));
                    let Read::Mine(opened) = item.open(0, b"key", || 1, || true) else {
                        panic!("a published item is whole")
                    };
                    assert_eq!(opened.value(), Some(bytes::Bytes::from("value")));
                }
                writer.join().unwrap();
            })
        });
    }
}

#[test]
fn an_overwrite_in_place_is_seen_whole_or_not_at_all() {
    with_mutant(Fault::OverwriteUnannounced, 10, |_| {
        explore(|| {
            let words: Arc<Vec<AtomicU64>> = Arc::new((0..4).map(|_| AtomicU64::new(0)).collect());
            let old = Draft { key: b"keykeyke", value: &[1; 16], facts: facts(1), versioned: false };
            old.write(&words);
            let writer = {
                let words = words.clone();
                thread::spawn(move || Draft { value: &[2; 8], facts: facts(2), ..old }.overwrite(&words))
            };
            AtomicU64::new(0).store(1, Ordering::Relaxed); // loom explores a thread only after its first store
            match View::new(&words).open(0, b"keykeyke", || 2, || true) {
                Read::Mine(opened) => match (opened.facts.version, opened.value()) {
                    (_, None) => {}
                    (1, Some(value)) => assert_eq!(value, [1; 16][..]),
                    (2, Some(value)) => assert_eq!(value, [2; 8][..]),
                    other => panic!("{other:?}"),
                },
                Read::Another => panic!("the key of an item never changes"),
                Read::Again => {}
            }
            writer.join().unwrap();
        })
    });
}

#[test]
fn an_announced_segment_is_not_freed() {
    for fault in [Fault::ReadUnannounced, Fault::AnnouncedUnlooked] {
        with_mutant(fault, 10, |_| {
            explore(|| {
                let (segment, slot) = (7, Arc::new(AtomicU64::new(7)));
                let readers = Arc::new(Readers::new());
                // The content of the segment; 0 after its reuse.
                let word = Arc::new(AtomicU64::new(1));
                let writer = {
                    let (readers, slot, word) = (readers.clone(), slot.clone(), word.clone());
                    thread::spawn(move || {
                        slot.store(0, Ordering::Release);
                        if !readers.announced().contains(&segment) {
                            word.store(0, Ordering::Relaxed);
                        }
                    })
                };
                let announcement = readers.at(0).announce(segment);
                let named = slot.load(Ordering::SeqCst) == u64::from(segment);
                if named || crate::sync::planted(Fault::AnnouncedUnlooked) {
                    assert_eq!(word.load(Ordering::Relaxed), 1, "freed while a reader announces it");
                }
                drop(announcement);
                writer.join().unwrap();
            })
        });
    }
}

#[test]
fn bytes_added_during_the_decay_stay_charged() {
    with_mutant(Fault::DecayUnlooked, 10, |_| {
        explore(|| {
            let ledger = Arc::new(Ledger::new(1 << 20));
            ledger.add_in_flight(64 << 10);
            ledger.remove_in_flight(64 << 10);
            let caller = {
                let ledger = ledger.clone();
                thread::spawn(move || ledger.add_in_flight(48 << 10))
            };
            ledger.decay_in_flight(u64::MAX);
            caller.join().unwrap();
            assert!(ledger.in_flight_kept() >= ledger.in_flight(), "{ledger:?}");
            assert_eq!(ledger.total(), ledger.in_flight_kept());
        })
    });
}
