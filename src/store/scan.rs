//! Scanning: the keys of a namespace, portion by portion, while everything moves.
//!
//! A portion is a range of places of one shard. A key's place is its hash: it stays the same when its item moves, when
//! its slot moves, and when the index is migrated. So a key that is there from the first portion to the last is seen,
//! and a portion is walked under the shard's lock, slot by slot, without looking at keys outside its range.

use super::arena::WORD_BYTES;
use super::shard::Locked;
use super::slot::{Location, Place};
use super::types::{Cursor, Entry, Key, Page};
use super::{Store, item::MAX_ITEM_WORDS};
use crate::sync::atomic::Ordering;
use bytes::Bytes;

/// Portions that one call looks through without finding anything before it returns an empty page.
const MAX_RANGES: usize = 64;
/// Bytes of values after which a page is full.
const PAGE_VALUE_BYTES: usize = 256 << 10;
const PLACES: u64 = 1 << Place::BITS;
const _: () = assert!(PAGE_VALUE_BYTES < MAX_ITEM_WORDS * WORD_BYTES, "one value may fill a page");

/// What a scan looks for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    namespace: Option<u16>,
    prefix: &'a [u8],
    limit: usize,
    with_values: bool,
    now_ms: u64,
}

impl Store {
    /// One portion of the keys of a namespace, or of all, up to `limit` entries. A key present from the first portion to the last
    /// appears at least once. A page may be empty and yet not be the last.
    pub fn scan(
        &self,
        namespace: Option<u16>,
        prefix: &[u8],
        from: Cursor,
        limit: usize,
        with_values: bool,
        now_ms: u64,
    ) -> Page {
        let wanted = Wanted { namespace, prefix, limit: limit.max(1), with_values, now_ms };
        let mut page = Page { entries: Vec::new(), next: Some(from) };
        for _ in 0..MAX_RANGES {
            let Some(cursor) = page.next else { break };
            let Some(shard) = self.shards.get(cursor.shard as usize) else {
                page.next = None;
                break;
            };
            let reached = shard.lock(&self.ground).scan(wanted, u64::from(cursor.place), &mut page.entries);
            page.next = match reached {
                PLACES.. if cursor.shard as usize + 1 == self.shards.len() => None,
                PLACES.. => Some(Cursor { shard: cursor.shard + 1, place: 0 }),
                place => Some(Cursor { shard: cursor.shard, place: place as u32 }),
            };
            if !page.entries.is_empty() {
                break;
            }
        }
        page
    }
}

impl Locked<'_> {
    /// Adds the entries of the next range of places, and returns where to go on.
    fn scan(&self, wanted: Wanted<'_>, from: u64, into: &mut Vec<Entry>) -> u64 {
        let entries = self.shard.counts.entries.load(Ordering::Relaxed).max(1);
        let to = (from + (PLACES * wanted.limit as u64 / entries).max(1)).min(PLACES);
        let index = self.writer.index;
        let mut range: Vec<(Place, Location)> = index
            .occupied(&self.ground.arena, 0..index.buckets)
            .filter_map(|(at, slot)| Some((index.place_of(super::index::Index::bucket(at), slot), slot.location()?)))
            .filter(|(place, _)| (from..to).contains(&u64::from(place.0)))
            .collect();
        range.sort_unstable_by_key(|(place, _)| *place);
        let mut bytes = 0;
        let mut last = None;
        for (place, location) in range {
            let full = into.len() >= wanted.limit || bytes >= PAGE_VALUE_BYTES;
            if full && last != Some(place) {
                return u64::from(place.0);
            }
            last = Some(place);
            if let Some(entry) = self.entry(wanted, location) {
                bytes += entry.item.value.len();
                into.push(entry);
            }
        }
        to
    }

    fn entry(&self, wanted: Wanted<'_>, location: Location) -> Option<Entry> {
        let view = self.ground.view(location);
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
        let hash = self.ground.hasher.hash(Key { namespace, bytes: &key });
        let (found, stale) = self.find_servable(Key { namespace, bytes: &key }, hash, wanted.now_ms).ok()?;
        let mut item = self.item(&found, stale);
        let value_bytes = item.value.len();
        if !wanted.with_values {
            item.value = Bytes::new();
        }
        Some(Entry { namespace, key: key.into(), item, value_bytes })
    }
}
