//! Keys that share a `Place`: collisions.
//!
//! The index keeps 28 bits of a key's hash. Two keys with the same bits have slots in the same buckets with the same
//! tag, and only the comparison of the whole keys distinguishes them. Some thousand keys rarely contain such a pair, so
//! this module searches many keys: a page of a scan with a limit of one contains all items of one `Place`.

use ebb_engine::store::{Attributes, Condition, Cursor, Key, Options, Places, Store};
use std::collections::BTreeSet;

const CANDIDATES: u32 = 25_000;

/// The name of a candidate.
fn name(writer: u32, number: u32) -> Vec<u8> {
    format!("w{writer}/t/{number}").into_bytes()
}

/// Names of keys of the default namespace that share their `Place` with another key, by writer.
pub(crate) fn find(seed: [u64; 2], writers: u32) -> Vec<Vec<Vec<u8>>> {
    let options = Options { shards: Some(1), seed, most_bytes: Some(64 << 20), ..Options::new(64 << 20) };
    let store = Store::new(options).expect("address space for the search of collisions");
    for writer in 0..writers {
        for number in 0..CANDIDATES {
            let name = name(writer, number);
            let key = Key { namespace: 0, bytes: &name };
            store.set(key, b"", &Attributes::default(), Condition::Always, false, 1).expect("room for a twin");
        }
    }
    let mut found = BTreeSet::new();
    let mut seen = 0;
    let (mut places, mut next) = (Places::default(), Some(Cursor::default()));
    while let Some(cursor) = next {
        let page = store.scan(Some(0), b"", cursor, 1, false, 1, &mut places);
        let keys: BTreeSet<_> = page.entries.into_iter().map(|entry| entry.key.to_vec()).collect();
        seen += keys.len();
        if keys.len() > 1 {
            found.extend(keys);
        }
        next = page.next;
    }
    // A store that confused two colliding keys would return fewer keys.
    assert_eq!(seen, (writers * CANDIDATES) as usize, "a scan must return every stored key");
    let of = |writer: u32| {
        let prefix = format!("w{writer}/").into_bytes();
        found.iter().filter(|name| name.starts_with(&prefix)).cloned().collect()
    };
    (0..writers).map(of).collect()
}
