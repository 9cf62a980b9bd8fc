//! Random operations on a store and on a plain map: both give the same answers, whatever the cleaner does in between.
//! A failure shrinks to a short list of operations.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::HashMap;

/// The expected state of an item.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    value: Vec<u8>,
    attributes: Attributes,
    version: u64,
    marked_stale: bool,
}

/// An operation. Versions are relative to the item's, deadlines to now.
#[derive(Clone, Debug)]
enum Operation {
    Set {
        len: usize,
        fill: u8,
        flags: u32,
        ttl_ms: Option<u64>,
        is_stale_soon: bool,
        condition: If,
        keep_deadline: bool,
    },
    Get,
    Delete {
        if_version: Option<u64>,
    },
    Touch {
        ttl_ms: Option<u64>,
    },
    MarkStale,
    Append,
    InvalidateNamespace {
        mark_stale: bool,
    },
    InvalidatePrefix {
        digit: u8,
        mark_stale: bool,
    },
    Wait {
        ms: u64,
    },
    Clean {
        below_percent: usize,
        thorough: bool,
        patience: u32,
        shard: usize,
        cool: usize,
    },
}

/// The condition of a set.
#[derive(Clone, Copy, Debug)]
enum If {
    Always,
    Absent,
    Present,
    Version { ahead: u64 },
}

/// An operation, and the key that it names: lengths of names differ, and so do the sizes of items.
#[derive(Clone, Debug)]
struct Step {
    namespace: u16,
    number: u32,
    width: usize,
    operation: Operation,
}

fn condition() -> impl Strategy<Value = If> {
    prop_oneof![
        3 => Just(If::Always),
        1 => Just(If::Absent),
        1 => Just(If::Present),
        1 => (0..2_u64).prop_map(|ahead| If::Version { ahead }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let ttl = || prop_oneof![2 => Just(None), 1 => (1..5_000_u64).prop_map(Some)];
    let len = prop_oneof![19 => 0..300_usize, 1 => 0..40_000_usize];
    let set = (len, any::<u8>(), select(&[0_u32, 7][..]), ttl(), prop::bool::weighted(0.125), condition())
        .prop_flat_map(|fields| (Just(fields), prop::bool::weighted(0.25)))
        .prop_map(|((len, fill, flags, ttl_ms, is_stale_soon, condition), keep_deadline)| Operation::Set {
            len,
            fill,
            flags,
            ttl_ms,
            is_stale_soon,
            condition,
            keep_deadline,
        });
    let clean = (0..101_usize, any::<bool>(), 0..40_u32, 0..2_usize, 0..3_usize).prop_map(
        |(below_percent, thorough, patience, shard, cool)| Operation::Clean {
            below_percent,
            thorough,
            patience,
            shard,
            cool,
        },
    );
    prop_oneof![
        40 => set,
        30 => Just(Operation::Get),
        10 => prop::option::weighted(0.33, 0..2_u64).prop_map(|if_version| Operation::Delete { if_version }),
        4 => prop::option::of(1..1_000_u64).prop_map(|ttl_ms| Operation::Touch { ttl_ms }),
        2 => Just(Operation::MarkStale),
        4 => Just(Operation::Append),
        1 => any::<bool>().prop_map(|mark_stale| Operation::InvalidateNamespace { mark_stale }),
        1 => (0..10_u8, any::<bool>())
            .prop_map(|(digit, mark_stale)| Operation::InvalidatePrefix { digit, mark_stale }),
        4 => (0..400_u64).prop_map(|ms| Operation::Wait { ms }),
        5 => clean,
    ]
}

/// Up to `most` operations on up to 3,000 keys in three namespaces.
fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    (1..3_000_u32).prop_flat_map(move |keys| {
        let step = (0..3_u16, 0..keys, 0..3_usize, operation()).prop_map(|(namespace, number, width, operation)| {
            Step { namespace, number, width: 1 + width * 9, operation }
        });
        prop::collection::vec(step, 1..most)
    })
}

type Map = HashMap<(u16, Vec<u8>), Expected>;

/// A store with room for all items, and what it must hold.
struct Pair {
    store: Store,
    map: Map,
    now_ms: u64,
}

impl Pair {
    fn new() -> Self {
        Self { store: Store::new(options(48 << 20)).unwrap(), map: Map::new(), now_ms: 1_000 }
    }

    fn forget_expired(&mut self) {
        let now_ms = self.now_ms;
        self.map.retain(|_, e| e.attributes.deadline_ms == 0 || e.attributes.deadline_ms > now_ms);
    }

    fn apply(&mut self, Step { namespace, number, width, operation }: &Step) {
        self.forget_expired();
        let name = format!("key-{number:0width$}");
        let id = (*namespace, name.clone().into_bytes());
        let k = Key { namespace: *namespace, bytes: name.as_bytes() };
        let there = self.map.get(&id).cloned();
        let version = there.as_ref().map_or(0, |e| e.version);
        let Self { store, map, now_ms } = self;
        let deadline = |ttl_ms: &Option<u64>| ttl_ms.map_or(0, |ttl_ms| *now_ms + ttl_ms);
        match operation {
            Operation::Set { len, fill, flags, ttl_ms, is_stale_soon, condition, keep_deadline } => {
                let value: Vec<u8> = (0..*len).map(|i| (i as u8) ^ fill).collect();
                let mut attributes = Attributes {
                    flags: *flags,
                    deadline_ms: deadline(ttl_ms),
                    stale_at_ms: if *is_stale_soon { *now_ms + 50 } else { 0 },
                    negative: false,
                };
                let (condition, expected) = match condition {
                    If::Absent if there.is_some() => (Condition::Absent, SetOutcome::NotStored(version)),
                    If::Absent => (Condition::Absent, SetOutcome::Stored(0)),
                    If::Present if there.is_none() => (Condition::Present, SetOutcome::NotStored(0)),
                    If::Present => (Condition::Present, SetOutcome::Stored(0)),
                    If::Version { ahead: 0 } => (Condition::Version(version), SetOutcome::Stored(0)),
                    If::Version { ahead } => (Condition::Version(version + ahead), SetOutcome::Conflict(version)),
                    If::Always => (Condition::Always, SetOutcome::Stored(0)),
                };
                let outcome = store.set(k, &value, &attributes, condition, *keep_deadline, *now_ms).unwrap();
                let (SetOutcome::Stored(_), SetOutcome::Stored(new)) = (expected, outcome) else {
                    return assert_eq!(outcome, expected);
                };
                assert!(new > version, "versions grow");
                if let (true, Some(e)) = (*keep_deadline, &there) {
                    attributes.deadline_ms = e.attributes.deadline_ms;
                }
                map.insert(id, Expected { value, attributes, version: new, marked_stale: false });
            }
            Operation::Get => match (store.get(k, *now_ms, Use::Read).unwrap(), there) {
                (Lookup::Found(item), Some(e)) => {
                    assert_eq!(item.value, e.value);
                    assert_eq!((item.version, item.attributes), (e.version, e.attributes));
                    assert_eq!(item.marked_stale, e.marked_stale);
                }
                (Lookup::Miss(_), None) => {}
                (got, e) => panic!("{got:?}, expected {e:?}"),
            },
            Operation::Delete { if_version } => {
                let if_version = if_version.map(|ahead| version + ahead);
                let outcome = store.delete(k, if_version, Deletion::Remove, *now_ms).unwrap();
                match there {
                    None => assert_eq!(outcome, DeleteOutcome::NotFound),
                    Some(_) if if_version.is_some_and(|v| v != version) => {
                        assert_eq!(outcome, DeleteOutcome::Conflict(version));
                    }
                    Some(_) => {
                        assert_eq!(outcome, DeleteOutcome::Deleted(0));
                        map.remove(&id);
                    }
                }
            }
            Operation::Touch { ttl_ms } => {
                let touched = store.touch(k, deadline(ttl_ms), *now_ms).unwrap();
                assert_eq!(touched, there.map(|e| e.version));
                let deadline_ms = deadline(ttl_ms);
                map.entry(id).and_modify(|e| e.attributes.deadline_ms = deadline_ms);
            }
            Operation::MarkStale => {
                let outcome = store.delete(k, None, Deletion::MarkStale, *now_ms).unwrap();
                assert_eq!(outcome != DeleteOutcome::NotFound, there.is_some());
                map.entry(id).and_modify(|e| e.marked_stale = true);
            }
            Operation::Append => {
                let append = |item: Option<&Item>| match item {
                    Some(item) if item.value.len() < 1_000 => {
                        let value = [&item.value[..], b"+"].concat().into();
                        (Update::Store { value, attributes: item.attributes }, ())
                    }
                    _ => (Update::Keep, ()),
                };
                let ((), stored) = store.update(k, *now_ms, append).unwrap();
                if let Some(e) = map.get_mut(&id).filter(|e| e.value.len() < 1_000) {
                    e.value.push(b'+');
                    e.version = stored.expect("it was stored");
                }
            }
            Operation::InvalidateNamespace { mark_stale } => {
                if store.invalidate(Group::Namespace(*namespace), *mark_stale).is_ok() {
                    invalidate(map, *mark_stale, |id| id.0 == *namespace);
                }
            }
            Operation::InvalidatePrefix { digit, mark_stale } => {
                let prefix = format!("key-{digit}").into_bytes();
                if store.invalidate(Group::Prefix(*namespace, &prefix), *mark_stale).is_ok() {
                    invalidate(map, *mark_stale, |id| id.0 == *namespace && id.1.starts_with(&prefix));
                }
            }
            Operation::Wait { ms } => *now_ms += ms,
            Operation::Clean { below_percent, thorough, patience, shard, cool } => {
                let task = Task { below_percent: *below_percent, thorough: *thorough, ..Task::CHEAP };
                let (mut patience, mut tally) = (*patience, Tally::default());
                store.clean(*shard, task, *now_ms, &mut tally, &mut || {
                    patience = patience.saturating_sub(1);
                    patience == 0
                });
                assert_eq!(tally.evicted_items, 0, "compaction drops no item");
                store.cool(*cool);
            }
        }
    }

    /// Checks every item, a scan, and what is left after every deadline.
    fn check(mut self) {
        settle(&self.store, THOROUGH, self.now_ms);
        self.forget_expired();
        let Self { store, map, now_ms } = &mut self;
        for ((namespace, k), e) in map.iter() {
            let Lookup::Found(item) = store.get(Key { namespace: *namespace, bytes: k }, *now_ms, Use::Peek).unwrap()
            else {
                panic!("{} is missing", String::from_utf8_lossy(k));
            };
            assert_eq!((item.value, item.version), (Bytes::from(e.value.clone()), e.version));
        }
        let mut seen = 0;
        for namespace in 0..3 {
            let mut cursor = Some(Cursor::default());
            let mut names = std::collections::HashSet::new();
            let mut places = Places::default();
            while let Some(from) = cursor {
                let page = store.scan(Some(namespace), b"", from, 100, false, *now_ms, &mut places);
                names.extend(page.entries.into_iter().map(|entry| entry.key));
                cursor = page.next;
            }
            seen += names.len();
        }
        assert_eq!(seen, map.len(), "a scan of an idle store returns every key once");
        // A segment is scanned for expired items some time after their deadline, at most two seconds for these times to
        // live. After that all are dropped.
        settle(store, THOROUGH, *now_ms + 5_000 + 2_000);
        map.retain(|_, e| e.attributes.deadline_ms == 0);
        let stats = store.stats();
        assert_eq!(stats.entries, map.len() as u64, "after everything was cleaned");
        let bytes: usize = map.iter().map(|((_, k), e)| k.len() + e.value.len()).sum();
        assert_eq!(stats.live_bytes, bytes as u64);
    }
}

fn invalidate(map: &mut Map, mark_stale: bool, is_meant: impl Fn(&(u16, Vec<u8>)) -> bool) {
    match mark_stale {
        true => map.iter_mut().filter(|(id, _)| is_meant(id)).for_each(|(_, e)| e.marked_stale = true),
        false => map.retain(|id, _| !is_meant(id)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_a_map(steps in steps(3_000)) {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.apply(step));
        pair.check();
    }
}
