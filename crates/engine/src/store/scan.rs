//! Scanning: listing the keys of a namespace in pages, while items and slots move.
//!
//! A scan visits the [`Place`]s of one shard after another. The `Place` of a key is part of its hash, so it stays the
//! same when its item moves, when its slot moves, and when the index migrates. The scan collects the places of a shard
//! once, in one walk over its index; after that each page visits only its own keys. So a scan returns every key that
//! exists from the first page to the last, and costs one walk of each index and one visit of each key.

use super::arena::WORD_BYTES;
use super::shard::Locked;
use super::slot::{Location, Place};
use super::types::{Cursor, Entry, Key, Page};
use super::{Store, item::MAX_ITEM_WORDS};

/// Maximum keys that one call visits before it returns, even with an empty page.
const MAX_VISITS: usize = 1_024;
/// Bytes of values after which a page is full.
const PAGE_VALUE_BYTES: usize = 256 << 10;
const _: () = assert!(PAGE_VALUE_BYTES < MAX_ITEM_WORDS * WORD_BYTES, "one value may fill a page");

/// The filter and the options of a scan.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    namespace: Option<u16>,
    prefix: &'a [u8],
    limit: usize,
    with_values: bool,
    now_ms: u64,
}

/// The collected places of the shard that a scan is visiting. A key's place is part of its hash.
#[derive(Debug, Default)]
pub struct Places {
    /// Where the collection began.
    from: Option<Cursor>,
    /// In ascending order.
    places: Vec<u32>,
}

impl Places {
    /// Memory used, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.places.capacity() * size_of::<u32>()) as u64
    }

    /// The places from `cursor` on, if the collection covers them.
    fn from(&self, cursor: Cursor) -> Option<&[u32]> {
        self.from.filter(|from| from.shard == cursor.shard && from.place <= cursor.place)?;
        Some(&self.places[self.places.partition_point(|place| *place < cursor.place)..])
    }

    /// Replaces the collection by the places of `cursor`'s shard.
    fn collect(&mut self, cursor: Cursor, shard: &Locked<'_>) {
        self.places.clear();
        shard.collect_places(cursor.place, &mut self.places);
        self.from = Some(cursor);
    }
}

impl Store {
    /// One page of the keys of a namespace (`None`: of all), up to `limit` entries. A key that exists from the first
    /// page to the last is returned at least once. An empty page need not be the last. `places` is a cache of the scan:
    /// it starts empty, and a lost one is collected again.
    #[allow(clippy::too_many_arguments, reason = "a filter, a cursor and the state of the scan")]
    pub fn scan(
        &self,
        namespace: Option<u16>,
        prefix: &[u8],
        from: Cursor,
        limit: usize,
        with_values: bool,
        now_ms: u64,
        places: &mut Places,
    ) -> Page {
        let wanted = Wanted { namespace, prefix, limit: limit.max(1), with_values, now_ms };
        let mut page = Page { entries: Vec::new(), next: Some(from) };
        let mut visits = MAX_VISITS;
        while let Some(cursor) = page.next.filter(|_| visits > 0) {
            let Some(shard) = self.shards.get(cursor.shard as usize) else {
                page.next = None;
                break;
            };
            if places.from(cursor).is_none() {
                places.collect(cursor, &shard.lock(&self.shared));
                places.places.sort_unstable();
                places.places.dedup();
            }
            let left = places.from(cursor).unwrap_or_default();
            let visited = shard.lock(&self.shared).visit(wanted, &left[..left.len().min(visits)], &mut page.entries);
            visits -= visited.max(1);
            page.next = match left.get(visited) {
                Some(place) => Some(Cursor { shard: cursor.shard, place: *place }),
                None if cursor.shard as usize + 1 == self.shards.len() => None,
                None => Some(Cursor { shard: cursor.shard + 1, place: 0 }),
            };
            if !page.entries.is_empty() {
                break;
            }
        }
        page
    }
}

impl Locked<'_> {
    /// Adds the places of all items from place `from` on.
    fn collect_places(&self, from: u32, into: &mut Vec<u32>) {
        let index = self.writer.index;
        let items = index.occupied(&self.shared.arena, 0..index.buckets).filter(|(_, slot)| slot.location().is_some());
        let places = items.map(|(at, slot)| index.place_of(super::index::Index::bucket(at), slot).0);
        into.extend(places.filter(|place| *place >= from));
    }

    /// Adds the entries at `places` until the page is full; returns how many places it has visited.
    fn visit(&self, wanted: Wanted<'_>, places: &[u32], into: &mut Vec<Entry>) -> usize {
        let index = self.writer.index;
        let mut bytes = 0;
        for (visited, place) in places.iter().enumerate() {
            if into.len() >= wanted.limit || bytes >= PAGE_VALUE_BYTES {
                return visited;
            }
            for (_, slot) in index.candidates(&self.shared.arena, Place(*place)) {
                if let Some(entry) = slot.location().and_then(|location| self.entry(wanted, location)) {
                    bytes += entry.item.value.len();
                    into.push(entry);
                }
            }
        }
        places.len()
    }

    fn entry(&self, wanted: Wanted<'_>, location: Location) -> Option<Entry> {
        let view = self.shared.view(location);
        let header = view.header();
        let namespace = view.namespace(header);
        if wanted.namespace.is_some_and(|wanted| wanted != namespace) {
            return None;
        }
        let mut key = Vec::with_capacity(header.key_len() + WORD_BYTES);
        view.copy_key(header, &mut key);
        if !key.starts_with(wanted.prefix) {
            return None;
        }
        let hash = self.shared.hasher.hash(Key { namespace, bytes: &key });
        let (found, stale) = self.find_servable(Key { namespace, bytes: &key }, hash, wanted.now_ms).ok()?;
        let item = if wanted.with_values { self.item(&found, stale) } else { found.without_value(stale) };
        let value_bytes = found.header.value_len();
        Some(Entry { namespace, key: key.into(), item, value_bytes })
    }
}
