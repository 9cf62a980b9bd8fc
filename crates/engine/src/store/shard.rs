//! A shard: the map that readers see, and how a writer replaces it while they read.
//!
//! ```text
//!           load                    ┌─ index (slots) ──► items in segments ◄── announced while they are read
//!  reader ────────► ArcSwap<ShardMap> ───┤
//!                       ▲           └─ invalidations that are still being swept
//!                 swap  │
//!  writer, cleaner ─────┴──► retired maps, each keeps its bank of the index     retired segments
//! ```
//! Every change of structure publishes a new map: a migration of the index, and the start and the end of an
//! invalidation. A reader holds a map while it looks at slots, and announces the segment while it reads an item. So it
//! pins at most one bank of an index and one segment.
//!
//! M1. A map is immutable; the slots of its index are not.
//! M2. A segment is free when no slot names it and no reader announces it ([`super::readers`]). A bank of the index is
//!     free when no map refers to it. A shard has three banks: if a reader holds one, the index can still grow.
//! M3. A reader holds a map for one lookup, and drops it before it copies the value.
//! M4. Only the holder of the shard's lock frees memory, never a reader.
//! M5. A map contains the number of its shard and its generation. A load checks the shard, to detect a pointer of
//!     another instance. An item counts only if the map was still the shard's newest after the reader loaded the item's
//!     header: a retired map knows neither where items are now nor which of them have been invalidated.
//!
//! The races that lock-free readers make possible, the rule that prevents each, and its check: a model in `models` with
//! a mutant (a planted bug), or a test in `tests`.
//!
//! | race | rule | checked by |
//! |---|---|---|
//! | lost update: the cleaner overwrites a newer slot | the cleaner stores an item's new location under the shard's lock, only if the slot still names the copy that it read, and only if that copy has not changed since (B1 in [`super::relocate`]) | `an_update_is_not_lost_to_the_cleaner`, `an_overwrite_in_place_is_not_lost_to_an_unlocked_copy` |
//! | resurrection: a deleted item comes back by a move | as above: a deleted item's slot names nothing | `an_acknowledged_delete_is_never_undone_by_the_cleaner` |
//! | torn read: a slot is seen before its bytes | bytes first, then the slot with Release; readers load slots with Acquire | `a_published_item_is_whole` |
//! | torn read: bytes change during the copy | H2 and H3 in [`super::item`] | `an_overwrite_in_place_is_seen_whole_or_not_at_all` |
//! | read of freed or reused memory | M2, R1, and keys are always compared in full | `memory_is_reused_only_when_the_last_reader_has_left`, `an_announced_segment_is_not_freed` |
//! | recycled segment, same offset (ABA) | M2: a number is not given out while a reader announces it | the same: another item fills the old location |
//! | the index is reused under a reader | M2: a bank is free when no map refers to it | `a_bank_is_reused_only_when_no_map_refers_to_it` |
//! | an invalidation that is over judges a later write | M5 | `a_write_after_a_sweep_is_not_invalidated_by_it` |
//! | live bytes counted twice | only the thread that removes the slot counts, under the lock | `an_acknowledged_delete_is_never_undone_by_the_cleaner`, and exact totals in `answers_are_those_of_a_map` |
//! | two entries for one key | one writer per shard at a time looks up and inserts | `two_writers_of_one_key_make_one_entry` |
//! | false miss while an item moves between buckets | `moves` is odd during the move and grows by two; a miss counts only if it is even and has not changed | `an_item_that_moves_between_its_buckets_is_never_missed` |
//! | a write lands in the old index during a migration | writers change both indexes for slots that the migration's cursor has passed, under the lock | `a_write_during_a_migration_is_in_the_new_index` |
//! | foreign map | M5 | `a_map_of_another_shard_is_detected` |
//! | version goes back, or two writes share one | versions come from one counter under the lock | `answers_are_those_of_a_map`, and exact totals of increments under contention |
//! | expiry during a copy | a deadline is judged by the reader's own clock reading, on the copy that is known to be whole | `expired_items_are_never_returned_and_free_their_memory` |
//! | scan during a swap | a scan walks a shard under its lock, by `Place`, which does not change with the index | `answers_are_those_of_a_map`: scans in portions between migrations |
//! | a read count overwrites a changed slot | the count is raised by a compare-and-exchange of the whole slot | `counting_a_read_undoes_no_write` |

use super::bank::{BANKS, Bank, Migration};
use super::counts::{Counts, add, sub};
use super::hash::{Hash, IdHasher};
use super::index::{Index, Position};
use super::invalidation::{Invalidation, judge};
use super::item::{Facts, Header, Read};
use super::job::{Job, Sweep};
use super::lease::{Ended, Leases};
use super::ledger::{Account, Bound};
use super::lock::Lock;
use super::log::Tail;
use super::policy::Share;
use super::readers::Reader;
use super::segment::{Extent, Segment};
use super::shared::Shared;
use super::slot::{Location, RemovalCause};
use super::stats::NamespaceUse;
use super::types::{Item, Key, Lookup, MAX_VERSION, Miss, Use};
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Arc, Fault, MutexGuard, Swap, planted};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// The part of a shard that readers see (M1).
#[derive(Debug)]
pub(super) struct ShardMap {
    shard: u32,
    generation: u64,
    pub(super) index: Index,
    invalidations: std::sync::Arc<[Invalidation]>,
}

/// An independent part of the store: one index, its segments, one writer lock.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) number: u32,
    map: Swap<ShardMap>,
    /// Generation of the newest map (M5).
    generation: AtomicU64,
    /// The number of writes, equal to the newest version.
    version: AtomicU64,
    /// Odd while a slot moves between the buckets of its key.
    moves: AtomicU64,
    writer: Lock<Writer>,
    pub(super) counts: Counts,
}

/// The part of a shard that only the holder of its lock sees.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) index: Index,
    pub(super) banks: [Bank; BANKS],
    pub(super) migration: Option<Migration>,
    pub(super) segments: HashMap<u32, Segment, BuildHasherDefault<IdHasher>>,
    pub(super) open: [Option<u32>; Tail::COUNT],
    pub(super) next_age: u64,
    /// Number of segments opened since the start.
    pub(super) opened: u64,
    /// Segments that eviction requeued whole since it last emptied one.
    pub(super) spared: usize,
    /// Removals since the start: the clock of ghosts.
    pub(super) removals: u64,
    /// Removals from the main log.
    pub(super) main_removals: u64,
    /// The nursery's share of the shard.
    pub(super) nursery: Share,
    /// Segments that no slot names, kept until no reader announces them.
    retired: Vec<Extent>,
    /// Replaced maps, kept until no reader holds them.
    retired_maps: Vec<Arc<ShardMap>>,
    pub(super) job: Option<Job>,
    pub(super) invalidations: Vec<Invalidation>,
    pub(super) sweep: Option<Sweep>,
    pub(super) scratch: Vec<u8>,
    /// The use of namespaces by number, up to the highest number seen. Of the default namespace, only evictions are
    /// counted.
    pub(super) by_namespace: Vec<NamespaceUse>,
    pub(super) leases: Leases,
}

/// Lock-free attempts of a read before it takes the lock: writers to one key cannot starve its readers.
const TRIES: usize = 16;

impl Shard {
    /// An empty shard. All its versions are larger than `first_version`.
    pub(super) fn new(shared: &Shared, number: u32, first_version: u64) -> Self {
        let bank = number as usize * BANKS;
        let index = Index { base: bank * shared.bank_words, buckets: super::index::MIN_BUCKETS };
        shared.ledger.force(Account::Index, index.resident_bytes());
        let map = ShardMap { shard: number, generation: 0, index, invalidations: std::sync::Arc::from([]) };
        let mut banks = [Bank::Clean; BANKS];
        banks[0] = Bank::InUse;
        let writer = Writer {
            index,
            banks,
            migration: None,
            segments: HashMap::default(),
            open: [None; Tail::COUNT],
            next_age: 0,
            opened: 0,
            spared: 0,
            removals: 0,
            main_removals: 0,
            nursery: Share::default(),
            retired: Vec::new(),
            retired_maps: Vec::new(),
            job: None,
            invalidations: Vec::new(),
            sweep: None,
            scratch: Vec::new(),
            by_namespace: Vec::new(),
            leases: Leases::new(shared.leases.clone()),
        };
        Self {
            number,
            map: Swap::new(map),
            generation: AtomicU64::new(0),
            version: AtomicU64::new(first_version),
            moves: AtomicU64::new(0),
            writer: Lock::new(writer),
            counts: Counts::default(),
        }
    }

    /// Takes the shard's lock.
    pub(super) fn lock<'a>(&'a self, shared: &'a Shared) -> Locked<'a> {
        Locked {
            shared,
            shard: self,
            writer: self.writer.take(),
            ended: Ended::default(),
            grows_index: true,
            bound: Bound::Capacity,
        }
    }

    /// Takes the shard's lock for the cleaner.
    pub(super) fn lock_as_cleaner<'a>(&'a self, shared: &'a Shared) -> Locked<'a> {
        Locked {
            shared,
            shard: self,
            writer: self.writer.take_as_cleaner(),
            ended: Ended::default(),
            grows_index: true,
            bound: Bound::Capacity,
        }
    }

    /// Whether a writer waits for the lock.
    pub(super) fn is_waited_for(&self) -> bool {
        self.writer.is_waited_for()
    }

    /// The longest wait for the lock since the last call, in microseconds.
    pub(super) fn take_longest_wait_us(&self) -> u64 {
        self.writer.take_longest_wait_us()
    }

    /// Reads a key, without the lock unless too many attempts fail.
    pub(super) fn get(&self, shared: &Shared, key: Key<'_>, hash: Hash, now_ms: u64, usage: Use) -> Lookup {
        let reader = shared.readers.own();
        let try_get = |reader| (0..TRIES).find_map(|_| self.try_get(shared, reader, key, hash, now_ms, usage));
        let lookup = reader.and_then(try_get).unwrap_or_else(|| self.lock(shared).get(key, hash, now_ms, usage));
        if usage == Use::Read {
            let miss = match &lookup {
                Lookup::Found(_) => None,
                Lookup::Miss(miss) => Some(*miss),
            };
            match reader {
                Some(reader) => reader.count(miss),
                None => shared.readers.count_other(miss),
            }
        }
        lookup
    }

    /// One attempt; `None`: try again.
    fn try_get(
        &self,
        shared: &Shared,
        reader: &Reader,
        key: Key<'_>,
        hash: Hash,
        now_ms: u64,
        usage: Use,
    ) -> Option<Lookup> {
        let map = self.map.load();
        assert_eq!(map.shard, self.number, "a shard's map is its own (M5)");
        // Acquire pairs with the Release that ends a move (see `Locked::displace`).
        let moves = self.moves.load(Ordering::Acquire);
        let mut miss = Miss::Unknown;
        for (at, slot) in map.index.candidates(&shared.arena, hash.place()) {
            let Some(location) = slot.location() else {
                miss = slot.removal().map_or(miss, |(why, _)| reason(why));
                continue;
            };
            // Prefetch before the announcement, which delays the loads that follow it.
            shared.prefetch(location);
            let announcement = reader.announce(location.segment());
            let is_current = || self.is_current(shared, &map, at, location);
            let opened = match shared.view(location).open(key.namespace, key.bytes, || self.version(), is_current) {
                Read::Mine(opened) => opened,
                Read::Another => continue,
                Read::Again => return None,
            };
            let marked_stale = match judge(&map.invalidations, opened.header, &opened.facts, key.bytes, now_ms) {
                Ok(marked_stale) => marked_stale,
                Err(miss) => return Some(Lookup::Miss(miss)),
            };
            if usage == Use::Read {
                map.index.count_read(&shared.arena, at, slot);
            }
            drop(map); // copying may take long (M3)
            let value = opened.value();
            // The model checks the rule itself, because a read that breaks it goes unnoticed in only one of 2^24 cases:
            // in all others the header differs.
            #[cfg(shuttle)]
            assert!(!shared.pool.is_free(location.segment()), "a segment that is announced is not free (M2)");
            drop(announcement);
            return value.map(|value| Lookup::Found(item(value, opened.facts, marked_stale)));
        }
        // Acquire pairs with the Release fence in `Locked::displace`: a reader that misses a slot because it is moving
        // also sees that the count has changed.
        fence(Ordering::Acquire);
        let stood_still = moves.is_multiple_of(2) && self.moves.load(Ordering::Relaxed) == moves;
        stood_still.then_some(Lookup::Miss(miss))
    }

    /// Whether an announced item may be read: the slot still names it, and the map is the newest one (R1, M5).
    fn is_current(&self, shared: &Shared, map: &ShardMap, at: Position, location: Location) -> bool {
        if planted(Fault::AnnouncedUnlooked) {
            return true;
        }
        let is_newest = || planted(Fault::JudgedByOldMap) || self.generation.load(Ordering::SeqCst) == map.generation;
        map.index.load_after_announcement(&shared.arena, at).location() == Some(location) && is_newest()
    }

    /// The index of the current map.
    pub(super) fn index(&self) -> Index {
        self.map.load().index
    }

    /// The shard's write count: at least the version of every item whose slot was loaded before this call.
    fn version(&self) -> u64 {
        // Relaxed: a writer stores the count before it publishes the slot or header of that version with Release, and
        // the caller has loaded that with Acquire (see `Locked::next_version`).
        self.version.load(Ordering::Relaxed)
    }
}

fn item(value: bytes::Bytes, facts: Facts, marked_stale: bool) -> Item {
    Item { value, version: facts.version, attributes: facts.attributes, marked_stale }
}

fn reason(why: RemovalCause) -> Miss {
    match why {
        RemovalCause::Evicted => Miss::Evicted,
        RemovalCause::Expired => Miss::Expired,
        RemovalCause::Invalidated => Miss::Invalidated,
    }
}

/// A shard whose lock is held. All changes of a shard are methods of this type.
pub(super) struct Locked<'a> {
    pub(super) shared: &'a Shared,
    pub(super) shard: &'a Shard,
    pub(super) writer: MutexGuard<'a, Writer>,
    /// Waiters to wake. Dropped after the guard, so that they find the lock free.
    pub(super) ended: Ended,
    /// Whether a write may demand room for a larger index.
    pub(super) grows_index: bool,
    /// What the ledger's total may reach by a write.
    pub(super) bound: Bound,
}

/// An item found under the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) at: Position,
    pub(super) slot: super::slot::Slot,
    pub(super) location: Location,
    pub(super) header: Header,
    pub(super) facts: Facts,
}

impl Found {
    /// The item with an empty value.
    pub(super) fn without_value(&self, marked_stale: bool) -> Item {
        item(bytes::Bytes::new(), self.facts, marked_stale)
    }
}

impl Locked<'_> {
    /// The item of a key, whether it may be served or not.
    pub(super) fn find(&self, key: Key<'_>, hash: Hash) -> Option<Found> {
        self.writer.index.candidates(&self.shared.arena, hash.place()).find_map(|(at, slot)| {
            let location = slot.location()?;
            let view = self.shared.view(location);
            let header = view.header();
            view.is(header, key.namespace, key.bytes).then(|| {
                let facts = view.facts(header, self.version());
                Found { at, slot, location, header, facts }
            })
        })
    }

    /// The item of a key if it may be served, and whether it is marked stale.
    pub(super) fn find_servable(&self, key: Key<'_>, hash: Hash, now_ms: u64) -> Result<(Found, bool), Miss> {
        let found = self.find(key, hash).ok_or(Miss::Unknown)?;
        let stale = judge(&self.writer.invalidations, found.header, &found.facts, key.bytes, now_ms)?;
        Ok((found, stale))
    }

    /// The item as a reader would get it.
    fn get(&self, key: Key<'_>, hash: Hash, now_ms: u64, usage: Use) -> Lookup {
        match self.find_servable(key, hash, now_ms) {
            Ok((found, stale)) => {
                if usage == Use::Read {
                    self.writer.index.count_read(&self.shared.arena, found.at, found.slot);
                }
                Lookup::Found(self.item(&found, stale))
            }
            Err(miss) => Lookup::Miss(miss),
        }
    }

    /// A copy of an item that was found.
    pub(super) fn item(&self, found: &Found, marked_stale: bool) -> Item {
        item(self.shared.view(found.location).copy_value(found.header), found.facts, marked_stale)
    }

    /// The shard's write count.
    pub(super) fn version(&self) -> u64 {
        self.shard.version.load(Ordering::Relaxed)
    }

    /// The version of the next write. Readers see the count before the slot or header of that version, because both are
    /// stored with Release afterwards.
    pub(super) fn next_version(&mut self) -> u64 {
        let next = self.version() + 1;
        assert!(next <= MAX_VERSION, "versions are exhausted at {MAX_VERSION}");
        self.shard.version.store(next, Ordering::Relaxed);
        next
    }

    /// The current time of the ghosts' clock, in units of 64 removals.
    pub(super) fn ghost_time(&self) -> u16 {
        (self.writer.removals / 64) as u16
    }

    /// Runs `change`, which moves a slot between the buckets of its key. A reader that finds neither tries again
    /// instead of reporting a miss.
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

    /// Publishes a map of the current state, and retires the old map.
    pub(super) fn publish(&mut self) {
        let generation = self.shard.generation.load(Ordering::Relaxed) + 1;
        let map = ShardMap {
            shard: self.shard.number,
            generation,
            index: self.writer.index,
            invalidations: std::sync::Arc::from(self.writer.invalidations.as_slice()),
        };
        let old = self.shard.map.swap(Arc::new(map));
        assert_eq!(old.generation + 1, generation, "generations follow each other");
        // Relaxed: everything that follows and is valid for the new map alone is either stored with Release, or freed
        // after the fence in `Readers::announced`. A reader that sees it also sees this generation.
        self.shard.generation.store(generation, Ordering::Relaxed);
        self.writer.retired_maps.push(old);
        self.reclaim();
    }

    /// Keeps segments that no slot names any more until no reader announces them.
    pub(super) fn retire(&mut self, extents: impl IntoIterator<Item = Extent>) {
        for extent in extents {
            add(&self.shard.counts.retired_bytes, extent.resident_bytes as usize);
            self.writer.retired.push(extent);
        }
        self.reclaim();
    }

    /// Frees the retired segments and banks that no reader can reach any more (M2); the next call tries the others
    /// again. Returns whether it freed a segment.
    pub(super) fn reclaim(&mut self) -> bool {
        let freed = self.reclaim_segments();
        self.reclaim_banks();
        freed
    }

    fn reclaim_segments(&mut self) -> bool {
        if self.writer.retired.is_empty() {
            return false;
        }
        let (shared, counts) = (self.shared, &self.shard.counts);
        let announced = if planted(Fault::FreeUnderReaders) { Vec::new() } else { shared.readers.announced() };
        let before = self.writer.retired.len();
        self.writer.retired.retain(|extent| {
            let is_read = announced.contains(&extent.id);
            if !is_read {
                sub(&counts.retired_bytes, extent.resident_bytes as usize);
                shared.pool.put_back(*extent);
            }
            is_read
        });
        self.writer.retired.len() < before
    }

    fn reclaim_banks(&mut self) {
        let writer = &mut *self.writer;
        if writer.retired_maps.is_empty() {
            return;
        }
        for map in std::mem::take(&mut writer.retired_maps) {
            // try_unwrap acquires: it succeeds only after every reader has dropped the map.
            if let Err(map) = Arc::try_unwrap(map) {
                writer.retired_maps.push(map);
            }
        }
        let first = self.shard.number as usize * BANKS;
        for (number, bank) in writer.banks.iter_mut().enumerate() {
            let base = (first + number) * self.shared.bank_words;
            let is_held = writer.retired_maps.iter().any(|map| map.index.base == base);
            if let Bank::Held(bytes) = *bank
                && (!is_held || planted(Fault::BankUnderReaders))
            {
                *bank = Bank::Dirty(bytes);
            }
        }
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;
