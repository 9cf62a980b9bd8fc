//! A shard: what readers see of it, and how that is replaced under their eyes.
//!
//! ```text
//!           load                    ┌─ index (slots) ──► items in segments
//!  reader ────────► ArcSwap<Map> ───┤
//!                       ▲           └─ invalidations that are still being swept
//!                 swap  │
//!  writer, cleaner ─────┴──► retired: [map n-2][map n-1] ──oldest first, when nobody holds it──► memory it kept
//! ```
//! Every structural change (segments cleaned away, the index migrated, an invalidation declared) is the publication of
//! a new map. The old one is retired together with the memory that only it and its predecessors could lead to.
//!
//! M1. A map is immutable; the slots of its index are not.
//! M2. Maps retire in the order of their generations: what generation n was the last to lead to is free when every map
//!     up to n has been dropped. A reader therefore needs no pin, no epoch and no list of segments: the map it holds
//!     keeps everything its slots can name, also what was added after the map was published.
//! M3. A reader holds a map for one lookup, never across a wait.
//! M4. Memory is freed by whoever holds the shard's lock, never by a reader: a reader's last release leaves the map to
//!     the retired list's own reference.
//! M5. A map knows its shard and its generation, and a load checks the shard: a pointer of another instance would be
//!     noticed, not followed.
//!
//! The races that follow from lock-free readers, the rule against each, and what checks it: a model in `models` with a
//! planted-bug twin, or a test in `tests`, under the name that is given.
//!
//! | race | rule | checked by |
//! |---|---|---|
//! | lost update: the cleaner overwrites a newer slot | the cleaner moves an item under the shard's lock and only if the slot still names the very copy it read | `an_update_is_not_lost_to_the_cleaner` |
//! | resurrection: a deleted item comes back by a move | as above: a deleted item's slot names nothing | `a_delete_that_was_answered_is_never_undone_by_the_cleaner` |
//! | torn read: a slot is seen before its bytes | bytes first, then the slot with Release; readers load slots with Acquire | `a_published_item_is_whole` |
//! | torn read: bytes change during the copy | H2 and H3 in [`super::item`] | `an_overwrite_in_place_is_seen_whole_or_not_at_all` |
//! | read of freed or reused memory | M2, and keys are always compared in full | `memory_is_reused_only_when_the_last_reader_has_left` |
//! | recycled segment, same offset (ABA) | M2: a number is not given out while a map older than its release is held | the same: the old place is refilled |
//! | live bytes counted twice | only who takes the slot away counts, under the lock | `a_delete_that_was_answered_is_never_undone_by_the_cleaner`, and exact totals in `random_operations_answer_as_a_map_whatever_the_cleaner_does` |
//! | two entries for one key | one writer a shard at a time looks and inserts | `two_writers_of_one_key_make_one_entry` |
//! | false miss while an item moves between buckets | `moves` is odd during the move and grows by two; a miss counts only if it stood still | `an_item_that_moves_between_its_buckets_is_never_missed` |
//! | a write lands in the old index during a migration | writers write both sides of the migration's cursor, under the lock | `a_write_during_a_migration_is_in_the_index_that_comes_out` |
//! | foreign map | M5 | `a_map_of_another_shard_is_noticed` |
//! | version goes back, or two writes share one | versions come from one counter under the lock | `random_operations_…`, and exact totals of increments under contention |
//! | expiry during a copy | a deadline is judged by the reader's own clock reading, on the copy that is known to be whole | `expired_items_are_never_returned_and_their_memory_comes_back_untouched` |
//! | scan during a swap | a scan walks a shard under its lock, by place, and places do not change with the index | `random_operations_…`: scans in portions between migrations |
//! | read counts against unlinking | the count is raised by exchanging the whole slot | `a_read_that_is_counted_undoes_no_write` |

use super::arena::Arena;
use super::clean::Job;
use super::hash::{Hash, Hasher};
use super::index::Index;
use super::item::{Facts, Header, Read, View};
use super::ledger::{Account, Ledger};
use super::migrate::Migration;
use super::policy::Share;
use super::segment::{Extent, Pool, Segment, Tail};
use super::slot::{Departure, Location};
use super::types::{Item, Key, Lookup, MAX_VERSION, Miss, Use};
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Arc, Fault, Mutex, MutexGuard, Swap, lock, planted};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

/// What all shards stand on.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) arena: Arena,
    pub(super) pool: Pool,
    pub(super) ledger: std::sync::Arc<Ledger>,
    pub(super) hasher: Hasher,
    /// Words of one bank of an index. Shard n has the banks 2n and 2n + 1, from the arena's beginning on.
    pub(super) bank_words: usize,
}

impl Ground {
    /// The item at a location, and everything behind it.
    pub(super) fn view(&self, at: Location) -> View<'_> {
        let first = self.pool.first_word(at.segment()) + at.offset_words() as usize;
        let end = (first + super::item::MAX_ITEM_WORDS).min(self.arena.words_total());
        View::new(self.arena.words(first..end))
    }

    /// See [`Pool::cool`].
    pub(super) fn cool(&self, keep: usize, most_bytes: u64) -> Option<u64> {
        self.pool.cool(&self.arena, &self.ledger, keep, most_bytes)
    }

    /// Asks the processor for the beginning of the item at a location.
    pub(super) fn touch(&self, at: Location) {
        let first = self.pool.first_word(at.segment()) + at.offset_words() as usize;
        for line in 0..TOUCHED_LINES {
            self.arena.touch((first + line * 8).min(self.arena.words_total() - 1));
        }
    }
}

/// Cache lines of an item that [`Ground::touch`] asks for: what a small item has.
const TOUCHED_LINES: usize = 3;

/// A group of keys that was declared void.
#[derive(Clone, Debug)]
pub(super) struct Void {
    pub(super) namespace: u16,
    pub(super) prefix: Box<[u8]>,
    /// Items of this version or an earlier one are meant.
    pub(super) up_to_version: u64,
    pub(super) mark_stale: bool,
}

impl Void {
    /// Whether it means this item. Items without a full version were written before any invalidation that is still
    /// being swept, for while there is one, every write carries its full version.
    pub(super) fn means(&self, header: Header, facts: &Facts, key: &[u8]) -> bool {
        let before = !header.is_versioned() || facts.version <= self.up_to_version;
        before && facts.namespace == self.namespace && key.starts_with(&self.prefix)
    }
}

/// What readers see of a shard (M1).
#[derive(Debug)]
pub(super) struct Map {
    shard: u32,
    generation: u64,
    pub(super) index: Index,
    voids: std::sync::Arc<[Void]>,
}

/// Counters of a shard, read without its lock.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) hits: AtomicU64,
    /// By [`Miss`], in the order of [`Miss::ALL`].
    pub(super) misses: [AtomicU64; Miss::ALL.len()],
    pub(super) sets: AtomicU64,
    pub(super) deletes: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) expirations: AtomicU64,
    pub(super) invalidated: AtomicU64,
    pub(super) appended_bytes: AtomicU64,
    pub(super) copied_bytes: AtomicU64,
    pub(super) buried_bytes: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) live_bytes: AtomicU64,
    /// Words of live items and words written, of all segments together.
    pub(super) live_words: AtomicU64,
    pub(super) written_words: AtomicU64,
}

/// Adds to a counter that only the holder of the shard's lock writes.
pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.store(counter.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
}

/// Subtracts from such a counter.
pub(super) fn sub(counter: &AtomicU64, n: usize) {
    let before = counter.load(Ordering::Relaxed);
    assert!(before >= n as u64, "a counter of {before} cannot fall by {n}");
    counter.store(before - n as u64, Ordering::Relaxed);
}

/// A shard.
#[derive(Debug)]
pub(super) struct Shard {
    number: u32,
    map: Swap<Map>,
    /// The number of writes, which the newest version equals.
    version: AtomicU64,
    /// Odd while a slot moves between the buckets of its key.
    moves: AtomicU64,
    writer: Mutex<Writer>,
    pub(super) counts: Counts,
}

/// What only the holder of the shard's lock sees.
#[derive(Debug)]
pub(super) struct Writer {
    generation: u64,
    pub(super) index: Index,
    pub(super) bank: usize,
    pub(super) spare: SpareBank,
    pub(super) migration: Option<Migration>,
    pub(super) segments: HashMap<u32, Segment, BuildHasherDefault<IdHasher>>,
    pub(super) open: [Option<u32>; Tail::COUNT],
    pub(super) next_age: u64,
    /// Departures since the beginning: the clock of ghosts.
    pub(super) departures: u64,
    /// Those from the main log.
    pub(super) main_departures: u64,
    /// The nursery's share.
    pub(super) nursery: Share,
    retired: VecDeque<Retired>,
    pub(super) job: Option<Job>,
    pub(super) voids: Vec<Void>,
    pub(super) sweep: Option<super::clean::Sweep>,
    pub(super) scratch: Vec<u8>,
    /// Live items by the number of their namespace, up to the highest number seen; the default namespace is not counted.
    pub(super) by_namespace: Vec<u32>,
}

/// The bank of the index that is not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpareBank {
    /// A retired map still leads to it.
    Held,
    /// Nobody reads it, but this many bytes from its beginning are resident and reserved.
    Dirty(u64),
    /// All zero.
    Clean,
}

/// A map that was replaced, and what is free once it and its predecessors are gone (M2).
#[derive(Debug)]
struct Retired {
    map: Arc<Map>,
    extents: Vec<Extent>,
    index_bytes: Option<u64>,
}

/// Hashes a segment's number, which is as good as random already.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl std::hash::Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }
    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// After so many tries without a lock a reader takes it: writers to one key cannot starve its readers.
const TRIES: usize = 16;

impl Shard {
    /// An empty shard. `first_version` is below every version it will give.
    pub(super) fn new(ground: &Ground, number: u32, first_version: u64) -> Self {
        let bank = number as usize * 2;
        let index = Index { base: bank * ground.bank_words, buckets: super::index::MIN_BUCKETS };
        ground.ledger.force(Account::Index, index.bytes());
        let map = Map { shard: number, generation: 0, index, voids: std::sync::Arc::from([]) };
        let writer = Writer {
            generation: 0,
            index,
            bank,
            spare: SpareBank::Clean,
            migration: None,
            segments: HashMap::default(),
            open: [None; Tail::COUNT],
            next_age: 0,
            departures: 0,
            main_departures: 0,
            nursery: Share::default(),
            retired: VecDeque::new(),
            job: None,
            voids: Vec::new(),
            sweep: None,
            scratch: Vec::new(),
            by_namespace: Vec::new(),
        };
        Self {
            number,
            map: Swap::new(map),
            version: AtomicU64::new(first_version),
            moves: AtomicU64::new(0),
            writer: Mutex::new(writer),
            counts: Counts::default(),
        }
    }

    /// Takes the shard's lock.
    pub(super) fn lock<'a>(&'a self, ground: &'a Ground) -> Locked<'a> {
        Locked { ground, shard: self, writer: lock(&self.writer) }
    }

    /// Reads a key without a lock. `with_value`: copy the value too.
    pub(super) fn get(&self, ground: &Ground, key: Key<'_>, hash: Hash, now_ms: u64, usage: Use) -> Lookup {
        let found = (0..TRIES).find_map(|_| self.try_get(ground, key, hash, now_ms, usage));
        let lookup = found.unwrap_or_else(|| self.lock(ground).get(key, hash, now_ms));
        if usage == Use::Read {
            let counter = match &lookup {
                Lookup::Found(_) => &self.counts.hits,
                Lookup::Miss(miss) => &self.counts.misses[*miss as usize],
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        lookup
    }

    /// One try; `None`: look again.
    fn try_get(&self, ground: &Ground, key: Key<'_>, hash: Hash, now_ms: u64, usage: Use) -> Option<Lookup> {
        let map = self.map.load();
        assert_eq!(map.shard, self.number, "a shard's map is its own (M5)");
        // Acquire pairs with the Release that ends a move (see `Locked::displace`).
        let moves = self.moves.load(Ordering::Acquire);
        let mut miss = Miss::Unknown;
        for (at, slot) in map.index.candidates(&ground.arena, hash.place()) {
            let Some(location) = slot.location() else {
                miss = slot.departure().map_or(miss, |(why, _)| reason(why));
                continue;
            };
            let read = ground.view(location).read(
                key.namespace,
                key.bytes,
                || self.version(),
                |header, facts, view| {
                    judge(&map.voids, header, &facts, key.bytes, now_ms)
                        .map(|marked_stale| item(view.copy_value(header), facts, marked_stale))
                },
            );
            match read {
                Read::Mine(Ok(item)) => {
                    if usage == Use::Read {
                        map.index.count_read(&ground.arena, at, slot);
                    }
                    return Some(Lookup::Found(item));
                }
                Read::Mine(Err(miss)) => return Some(Lookup::Miss(miss)),
                Read::Another => continue,
                Read::Again => return None,
            }
        }
        // Acquire pairs with the Release fence in `Locked::displace`: if a slot was seen missing because it was moving,
        // the count is seen to have moved too.
        fence(Ordering::Acquire);
        (moves.is_multiple_of(2) && self.moves.load(Ordering::Relaxed) == moves).then_some(Lookup::Miss(miss))
    }

    /// The index as it is now.
    pub(super) fn index(&self) -> Index {
        self.map.load().index
    }

    /// The shard's write count: not below the version of any item whose slot was seen before this call.
    fn version(&self) -> u64 {
        // Relaxed: the count is stored before the slot or header that carries it is published with Release, and the
        // caller has read that with Acquire (see `Locked::next_version`).
        self.version.load(Ordering::Relaxed)
    }
}

fn item(value: bytes::Bytes, facts: Facts, marked_stale: bool) -> Item {
    Item { value, version: facts.version, attributes: facts.attributes, marked_stale }
}

fn reason(why: Departure) -> Miss {
    match why {
        Departure::Evicted => Miss::Evicted,
        Departure::Expired => Miss::Expired,
        Departure::Invalidated => Miss::Invalidated,
    }
}

/// Whether an item may be served, and whether as one that was declared stale.
fn judge(voids: &[Void], header: Header, facts: &Facts, key: &[u8], now_ms: u64) -> Result<bool, Miss> {
    let deadline = facts.attributes.deadline_ms;
    if deadline != 0 && deadline <= now_ms {
        return Err(Miss::Expired);
    }
    let mut marked_stale = facts.marked_stale;
    for void in voids.iter().filter(|void| void.means(header, facts, key)) {
        if !void.mark_stale {
            return Err(Miss::Invalidated);
        }
        marked_stale = true;
    }
    Ok(marked_stale)
}

/// A shard whose lock is held. Everything that changes a shard is a method of this.
pub(super) struct Locked<'a> {
    pub(super) ground: &'a Ground,
    pub(super) shard: &'a Shard,
    pub(super) writer: MutexGuard<'a, Writer>,
}

/// An item found under the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) at: super::index::Position,
    pub(super) slot: super::slot::Slot,
    pub(super) location: Location,
    pub(super) header: Header,
    pub(super) facts: Facts,
}

impl Locked<'_> {
    /// The item of a key, whether it may be served or not.
    pub(super) fn find(&self, key: Key<'_>, hash: Hash) -> Option<Found> {
        self.writer.index.candidates(&self.ground.arena, hash.place()).find_map(|(at, slot)| {
            let location = slot.location()?;
            let view = self.ground.view(location);
            let header = view.header();
            view.is(header, key.namespace, key.bytes).then(|| {
                let facts = view.facts(header, self.version());
                Found { at, slot, location, header, facts }
            })
        })
    }

    /// The item of a key if it may be served, and whether as one that was declared stale.
    pub(super) fn find_servable(&self, key: Key<'_>, hash: Hash, now_ms: u64) -> Result<(Found, bool), Miss> {
        let found = self.find(key, hash).ok_or(Miss::Unknown)?;
        let stale = judge(&self.writer.voids, found.header, &found.facts, key.bytes, now_ms)?;
        Ok((found, stale))
    }

    /// The item as a reader would get it.
    pub(super) fn get(&self, key: Key<'_>, hash: Hash, now_ms: u64) -> Lookup {
        match self.find_servable(key, hash, now_ms) {
            Ok((found, stale)) => Lookup::Found(self.item(&found, stale)),
            Err(miss) => Lookup::Miss(miss),
        }
    }

    /// A copy of an item that was found.
    pub(super) fn item(&self, found: &Found, marked_stale: bool) -> Item {
        item(self.ground.view(found.location).copy_value(found.header), found.facts, marked_stale)
    }

    /// The shard's write count.
    pub(super) fn version(&self) -> u64 {
        self.shard.version.load(Ordering::Relaxed)
    }

    /// The version of the next write. It is visible to readers before the slot or header that carries it (both are
    /// stored with Release afterwards).
    pub(super) fn next_version(&mut self) -> u64 {
        let next = self.version() + 1;
        assert!(next <= MAX_VERSION, "versions are exhausted at {MAX_VERSION}");
        self.shard.version.store(next, Ordering::Relaxed);
        next
    }

    /// The time of ghosts, in units of 64 departures.
    pub(super) fn ghost_time(&self) -> u16 {
        (self.writer.departures / 64) as u16
    }

    /// Runs `change`, which moves a slot between the buckets of its key, so that no reader takes the gap for a miss.
    pub(super) fn displace(&mut self, change: impl FnOnce(&mut Self)) {
        let moves = self.shard.moves.load(Ordering::Relaxed);
        if planted(Fault::MoveUncounted) {
            return change(self);
        }
        self.shard.moves.store(moves + 1, Ordering::Relaxed);
        // Release pairs with the Acquire fence in `try_get`.
        fence(Ordering::Release);
        change(self);
        // Release pairs with the Acquire load in `try_get`.
        self.shard.moves.store(moves + 2, Ordering::Release);
    }

    /// Publishes the shard as it now is, and retires the old map with what only it and its predecessors lead to.
    pub(super) fn publish(&mut self, extents: Vec<Extent>, index_bytes: Option<u64>) {
        self.writer.generation += 1;
        let map = Map {
            shard: self.shard.number,
            generation: self.writer.generation,
            index: self.writer.index,
            voids: std::sync::Arc::from(self.writer.voids.as_slice()),
        };
        let old = self.shard.map.swap(Arc::new(map));
        assert_eq!(old.generation + 1, self.writer.generation, "generations follow each other");
        self.writer.retired.push_back(Retired { map: old, extents, index_bytes });
        self.reclaim();
    }

    /// Frees what no reader can reach any more (M2). Whoever is left with a map that a reader holds tries again later.
    pub(super) fn reclaim(&mut self) -> bool {
        let mut freed = false;
        while let Some(Retired { map, extents, index_bytes }) = self.writer.retired.pop_front() {
            // The count is ours alone only if every reader's release happened before (try_unwrap acquires).
            if let Err(map) = Arc::try_unwrap(map)
                && !planted(Fault::FreeUnderReaders)
            {
                self.writer.retired.push_front(Retired { map, extents, index_bytes });
                break;
            }
            for extent in extents {
                self.ground.pool.put_back(extent);
                freed = true;
            }
            if let Some(bytes) = index_bytes {
                self.writer.spare = SpareBank::Dirty(bytes);
            }
        }
        freed
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::super::{Options, Store, Use};
    use super::*;

    #[test]
    #[should_panic(expected = "a shard's map is its own (M5)")]
    fn a_map_of_another_shard_is_noticed() {
        let options = Options { shards: Some(2), ..Options::new(8 << 20) };
        let store = Store::new(options).unwrap();
        let [one, two] = &store.shards[..] else { panic!("two shards") };
        one.map.swap(two.map.load().clone());
        // So many that some belong to the first, however the store hashes.
        for key in 0_u32..1000 {
            let _ = store.get(Key { namespace: 0, bytes: &key.to_le_bytes() }, 1, Use::Read);
        }
    }
}
