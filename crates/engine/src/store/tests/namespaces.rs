//! The use of namespaces.

use super::*;

/// What the values in a store say, counted one by one.
fn counted(store: &Store, namespaces: u16) -> Vec<(u64, u64)> {
    let of = |namespace: u16| {
        let mut found = (0, 0);
        for number in 0..KEYS {
            let name = number.to_le_bytes();
            let key = Key { namespace, bytes: &name };
            if let Lookup::Found(item) = store.get(key, 1, Use::Peek).unwrap() {
                found = (found.0 + 1, found.1 + (name.len() + item.value.len()) as u64);
            }
        }
        found
    };
    (0..namespaces).map(of).collect()
}

const KEYS: u32 = 3_000;

#[test]
fn entries_and_bytes_are_those_of_the_items() {
    for capacity in [48 << 20, 1 << 20] {
        let store = Store::new(options(capacity)).unwrap();
        let mut random = Random(7);
        for round in 0..60_000_u32 {
            let name = (random.below(KEYS.into()) as u32).to_le_bytes();
            let key = Key { namespace: random.below(4) as u16, bytes: &name };
            let value = vec![round as u8; random.below(200) as usize];
            match random.below(8) {
                0 => {
                    store.delete(key, None, Deletion::Remove, 1).unwrap();
                }
                _ => {
                    store.set(key, &value, &Attributes::default(), Condition::Always, false, 1).unwrap();
                }
            }
            if round % 20_000 == 0 {
                settle(&store, THOROUGH, 1);
            }
        }
        let used = store.namespaces();
        let found: Vec<_> = used.iter().map(|used| (used.entries, used.live_bytes)).collect();
        assert_eq!(found, counted(&store, 4));
        let stats = store.stats();
        assert_eq!(used.iter().map(|used| used.evictions).sum::<u64>(), stats.evictions);
        assert_eq!(stats.evictions > 0, capacity < 2 << 20, "{stats:?}");
        assert!(used.iter().all(|used| (used.evictions > 0) == (stats.evictions > 0)), "{used:?}");
        store.invalidate(Group::Namespace(2), false).unwrap();
        settle(&store, THOROUGH, 1);
        assert_eq!(store.take_evictions(2), used[2].evictions);
        assert_eq!(store.namespaces()[2], NamespaceUse::default());
        assert_eq!(store.namespaces()[0], used[0]);
    }
}
