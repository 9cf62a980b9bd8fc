//! A shard: what readers see of it, and how that is replaced under their eyes.
//!
//! ```text
//!           load                    ┌─ index (slots) ──► items in segments ◄── announced while they are read
//!  reader ────────► ArcSwap<ShardMap> ───┤
//!                       ▲           └─ invalidations that are still being swept
//!                 swap  │
//!  writer, cleaner ─────┴──► retired maps, each keeps its bank of the index     retired segments
//! ```
//! A change of structure (the index migrated, an invalidation declared or carried out) is the publication of a new map.
//! A reader holds a map while it looks at slots, and announces the segment while it reads an item. It pins at most one
//! bank of an index and one segment.
//!
//! M1. A map is immutable; the slots of its index are not.
//! M2. A segment is free when no slot names it and no reader announces it ([`super::readers`]); a bank of the index is
//!     free when no map leads to it. The shard has three: with one held by a reader, the index still grows.
//! M3. A reader holds a map for one lookup, and lets go of it before it copies the value.
//! M4. Memory is freed by whoever holds the shard's lock, never by a reader.
//! M5. A map knows its shard and its generation. A load checks the shard, so that a pointer of another instance would be
//!     noticed, not followed; and an item counts only if the map was the shard's newest after the item's header was
//!     read: a map that was replaced knows neither where items are now nor which of them have been invalidated.
//!
//! The races that follow from lock-free readers, the rule against each, and what checks it: a model in `models` with a
//! planted-bug mutant, or a test in `tests`, under the name that is given.
//!
//! | race | rule | checked by |
//! |---|---|---|
//! | lost update: the cleaner overwrites a newer slot | the cleaner stores an item's new place under the shard's lock, only if the slot still names the very copy it read, and only if that copy has not changed since (B1 in [`super::relocate`]) | `an_update_is_not_lost_to_the_cleaner`, `an_overwrite_in_place_is_not_lost_to_a_copy_made_without_the_lock` |
//! | resurrection: a deleted item comes back by a move | as above: a deleted item's slot names nothing | `a_delete_that_was_answered_is_never_undone_by_the_cleaner` |
//! | torn read: a slot is seen before its bytes | bytes first, then the slot with Release; readers load slots with Acquire | `a_published_item_is_whole` |
//! | torn read: bytes change during the copy | H2 and H3 in [`super::item`] | `an_overwrite_in_place_is_seen_whole_or_not_at_all` |
//! | read of freed or reused memory | M2, R1, and keys are always compared in full | `memory_is_reused_only_when_the_last_reader_has_left`, `an_announced_segment_is_not_freed` |
//! | recycled segment, same offset (ABA) | M2: a number is not given out while a reader announces it | the same: the old place is refilled |
//! | the index is reused under a reader | M2: a bank is free when no map leads to it | `a_bank_is_reused_only_when_no_map_leads_to_it` |
//! | an invalidation that is over judges a later write | M5 | `what_is_written_after_a_sweep_is_not_judged_by_it` |
//! | live bytes counted twice | only who takes the slot away counts, under the lock | `a_delete_that_was_answered_is_never_undone_by_the_cleaner`, and exact totals in `random_operations_answer_as_a_map_whatever_the_cleaner_does` |
//! | two entries for one key | one writer a shard at a time looks and inserts | `two_writers_of_one_key_make_one_entry` |
//! | false miss while an item moves between buckets | `moves` is odd during the move and grows by two; a miss counts only if it stood still | `an_item_that_moves_between_its_buckets_is_never_missed` |
//! | a write lands in the old index during a migration | writers write both sides of the migration's cursor, under the lock | `a_write_during_a_migration_is_in_the_index_that_comes_out` |
//! | foreign map | M5 | `a_map_of_another_shard_is_noticed` |
//! | version goes back, or two writes share one | versions come from one counter under the lock | `random_operations_…`, and exact totals of increments under contention |
//! | expiry during a copy | a deadline is judged by the reader's own clock reading, on the copy that is known to be whole | `expired_items_are_never_returned_and_their_memory_comes_back_untouched` |
//! | scan during a swap | a scan walks a shard under its lock, by place, and places do not change with the index | `random_operations_…`: scans in portions between migrations |
//! | read counts against unlinking | the count is raised by exchanging the whole slot | `a_read_that_is_counted_undoes_no_write` |

use super::bank::{BANKS, Bank, Migration};
use super::counts::{Counts, add, sub};
use super::ground::Ground;
use super::hash::Hash;
use super::index::{Index, Position};
use super::invalidation::{Invalidation, judge};
use super::item::{Facts, Header, Read};
use super::job::{Job, Sweep};
use super::ledger::Account;
use super::log::Tail;
use super::policy::Share;
use super::readers::Reader;
use super::segment::{Extent, Segment};
use super::slot::{Location, RemovalCause};
use super::types::{Item, Key, Lookup, MAX_VERSION, Miss, Use};
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Arc, Fault, Mutex, MutexGuard, Stopwatch, Swap, lock, planted, try_lock};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// What readers see of a shard (M1).
#[derive(Debug)]
pub(super) struct ShardMap {
    shard: u32,
    generation: u64,
    pub(super) index: Index,
    invalidations: std::sync::Arc<[Invalidation]>,
}

/// A shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) number: u32,
    map: Swap<ShardMap>,
    /// That of the newest map (M5).
    generation: AtomicU64,
    /// The number of writes, which the newest version equals.
    version: AtomicU64,
    /// Odd while a slot moves between the buckets of its key.
    moves: AtomicU64,
    writer: Mutex<Writer>,
    /// Threads that wait for the lock.
    waiting: AtomicU64,
    /// The longest that one has waited since it was last asked for, in microseconds.
    longest_wait_us: AtomicU64,
    pub(super) counts: Counts,
}

/// What only the holder of the shard's lock sees.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) index: Index,
    pub(super) banks: [Bank; BANKS],
    pub(super) migration: Option<Migration>,
    pub(super) segments: HashMap<u32, Segment, BuildHasherDefault<IdHasher>>,
    pub(super) open: [Option<u32>; Tail::COUNT],
    pub(super) next_age: u64,
    /// Segments that were ever opened.
    pub(super) opened: u64,
    /// Segments that eviction has left as they are since it last emptied one.
    pub(super) spared: usize,
    /// Departures since the beginning: the clock of ghosts.
    pub(super) removals: u64,
    /// Those from the main log.
    pub(super) main_removals: u64,
    /// The nursery's share.
    pub(super) nursery: Share,
    /// Segments that no slot names, until nobody reads them.
    retired: Vec<Extent>,
    /// Maps that were replaced, until nobody holds them.
    retired_maps: Vec<Arc<ShardMap>>,
    pub(super) job: Option<Job>,
    pub(super) invalidations: Vec<Invalidation>,
    pub(super) sweep: Option<Sweep>,
    pub(super) scratch: Vec<u8>,
    /// Live items by the number of their namespace, up to the highest number seen; the default namespace is not counted.
    pub(super) by_namespace: Vec<u32>,
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

/// How long a writer spins for the lock before it sleeps, in microseconds: several times the cleaner's hold. A writer that
/// sleeps may wait for a processor afterwards until another thread's slice ends, 3 to 4 ms.
const SPIN_US: u64 = 50;
/// Hints to the processor between two looks: some hundred nanoseconds.
const PAUSE: usize = 8;
/// After so many tries without a lock a reader takes it: writers to one key cannot starve its readers.
const TRIES: usize = 16;

impl Shard {
    /// An empty shard. `first_version` is below every version it will give.
    pub(super) fn new(ground: &Ground, number: u32, first_version: u64) -> Self {
        let bank = number as usize * BANKS;
        let index = Index { base: bank * ground.bank_words, buckets: super::index::MIN_BUCKETS };
        ground.ledger.force(Account::Index, index.resident_bytes());
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
        };
        Self {
            number,
            map: Swap::new(map),
            generation: AtomicU64::new(0),
            version: AtomicU64::new(first_version),
            moves: AtomicU64::new(0),
            writer: Mutex::new(writer),
            waiting: AtomicU64::new(0),
            longest_wait_us: AtomicU64::new(0),
            counts: Counts::default(),
        }
    }

    /// Takes the shard's lock.
    pub(super) fn lock<'a>(&'a self, ground: &'a Ground) -> Locked<'a> {
        let writer = try_lock(&self.writer).unwrap_or_else(|| self.wait_for_lock());
        Locked { ground, shard: self, writer, grows_index: true }
    }

    /// The same for the cleaner, whose waiting is nobody's loss.
    pub(super) fn lock_as_cleaner<'a>(&'a self, ground: &'a Ground) -> Locked<'a> {
        Locked { ground, shard: self, writer: lock(&self.writer), grows_index: true }
    }

    /// Takes the lock if it becomes free within [`SPIN_US`].
    fn spin_for_lock(&self, waited: &Stopwatch) -> Option<MutexGuard<'_, Writer>> {
        while waited.is_within(SPIN_US) {
            if let Some(writer) = try_lock(&self.writer) {
                return Some(writer);
            }
            // Without a pause the spinning writer would keep the lock's cache line from its holder.
            (0..PAUSE).for_each(|_| std::hint::spin_loop());
        }
        None
    }

    /// Waits for the lock, so that whoever has it for long sees that.
    #[cold]
    fn wait_for_lock(&self) -> MutexGuard<'_, Writer> {
        // Relaxed: whoever sees this a little later gives way a little later.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waited = Stopwatch::start();
        let writer = self.spin_for_lock(&waited).unwrap_or_else(|| lock(&self.writer));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.longest_wait_us.fetch_max(waited.micros(), Ordering::Relaxed);
        writer
    }

    /// Somebody waits for the lock.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The longest that somebody has waited for the lock since this was last called, in microseconds.
    pub(super) fn take_longest_wait_us(&self) -> u64 {
        self.longest_wait_us.swap(0, Ordering::Relaxed)
    }

    /// Reads a key, as a rule without a lock.
    pub(super) fn get(&self, ground: &Ground, key: Key<'_>, hash: Hash, now_ms: u64, usage: Use) -> Lookup {
        let reader = ground.readers.own();
        let try_get = |reader| (0..TRIES).find_map(|_| self.try_get(ground, reader, key, hash, now_ms, usage));
        let lookup = reader.and_then(try_get).unwrap_or_else(|| self.lock(ground).get(key, hash, now_ms, usage));
        if usage == Use::Read {
            let miss = match &lookup {
                Lookup::Found(_) => None,
                Lookup::Miss(miss) => Some(*miss),
            };
            match reader {
                Some(reader) => reader.count(miss),
                None => ground.readers.count_other(miss),
            }
        }
        lookup
    }

    /// One try; `None`: look again.
    fn try_get(
        &self,
        ground: &Ground,
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
        for (at, slot) in map.index.candidates(&ground.arena, hash.place()) {
            let Some(location) = slot.location() else {
                miss = slot.removal().map_or(miss, |(why, _)| reason(why));
                continue;
            };
            // The announcement holds up loads that follow it.
            ground.prefetch(location);
            let announcement = reader.announce(location.segment());
            let is_current = || self.is_current(ground, &map, at, location);
            let opened = match ground.view(location).open(key.namespace, key.bytes, || self.version(), is_current) {
                Read::Mine(opened) => opened,
                Read::Another => continue,
                Read::Again => return None,
            };
            let marked_stale = match judge(&map.invalidations, opened.header, &opened.facts, key.bytes, now_ms) {
                Ok(marked_stale) => marked_stale,
                Err(miss) => return Some(Lookup::Miss(miss)),
            };
            if usage == Use::Read {
                map.index.count_read(&ground.arena, at, slot);
            }
            drop(map); // copying may take long (M3)
            let value = opened.value();
            // A model looks at the rule itself: what comes of breaking it the header tells in all but one of 2^24 cases.
            #[cfg(shuttle)]
            assert!(!ground.pool.is_free(location.segment()), "a segment that is announced is not free (M2)");
            drop(announcement);
            return value.map(|value| Lookup::Found(item(value, opened.facts, marked_stale)));
        }
        // Acquire pairs with the Release fence in `Locked::displace`: if a slot was seen missing because it was moving,
        // the count is seen to have moved too.
        fence(Ordering::Acquire);
        let stood_still = moves.is_multiple_of(2) && self.moves.load(Ordering::Relaxed) == moves;
        stood_still.then_some(Lookup::Miss(miss))
    }

    /// Whether an item that was announced may be read: the slot still names it, in the newest map (R1, M5).
    fn is_current(&self, ground: &Ground, map: &ShardMap, at: Position, location: Location) -> bool {
        if planted(Fault::AnnouncedUnlooked) {
            return true;
        }
        let is_newest = || planted(Fault::JudgedByOldMap) || self.generation.load(Ordering::SeqCst) == map.generation;
        map.index.load_after_announcement(&ground.arena, at).location() == Some(location) && is_newest()
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

fn reason(why: RemovalCause) -> Miss {
    match why {
        RemovalCause::Evicted => Miss::Evicted,
        RemovalCause::Expired => Miss::Expired,
        RemovalCause::Invalidated => Miss::Invalidated,
    }
}

/// A shard whose lock is held. Everything that changes a shard is a method of this.
pub(super) struct Locked<'a> {
    pub(super) ground: &'a Ground,
    pub(super) shard: &'a Shard,
    pub(super) writer: MutexGuard<'a, Writer>,
    /// Whether a write asks for room for a larger index.
    pub(super) grows_index: bool,
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
    /// The item, but for its value.
    pub(super) fn without_value(&self, marked_stale: bool) -> Item {
        item(bytes::Bytes::new(), self.facts, marked_stale)
    }
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
        let stale = judge(&self.writer.invalidations, found.header, &found.facts, key.bytes, now_ms)?;
        Ok((found, stale))
    }

    /// The item as a reader would get it.
    fn get(&self, key: Key<'_>, hash: Hash, now_ms: u64, usage: Use) -> Lookup {
        match self.find_servable(key, hash, now_ms) {
            Ok((found, stale)) => {
                if usage == Use::Read {
                    self.writer.index.count_read(&self.ground.arena, found.at, found.slot);
                }
                Lookup::Found(self.item(&found, stale))
            }
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

    /// The time of ghosts, in units of 64 removals.
    pub(super) fn ghost_time(&self) -> u16 {
        (self.writer.removals / 64) as u16
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

    /// Publishes the shard as it now is, and retires the old map.
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
        // Relaxed: whatever is stored from here on for the new map alone is stored with Release, or freed after the
        // fence in `Readers::announced`; a reader that sees it sees this generation.
        self.shard.generation.store(generation, Ordering::Relaxed);
        self.writer.retired_maps.push(old);
        self.reclaim();
    }

    /// Keeps segments that no slot names any more until nobody reads them.
    pub(super) fn retire(&mut self, extents: impl IntoIterator<Item = Extent>) {
        for extent in extents {
            add(&self.shard.counts.retired_bytes, extent.resident_bytes as usize);
            self.writer.retired.push(extent);
        }
        self.reclaim();
    }

    /// Frees what no reader can reach any more (M2); says whether there was any. What is still read is tried again later.
    pub(super) fn reclaim(&mut self) -> bool {
        let freed = self.reclaim_segments();
        self.reclaim_banks();
        freed
    }

    fn reclaim_segments(&mut self) -> bool {
        if self.writer.retired.is_empty() {
            return false;
        }
        let (ground, counts) = (self.ground, &self.shard.counts);
        let announced = if planted(Fault::FreeUnderReaders) { Vec::new() } else { ground.readers.announced() };
        let before = self.writer.retired.len();
        self.writer.retired.retain(|extent| {
            let is_read = announced.contains(&extent.id);
            if !is_read {
                sub(&counts.retired_bytes, extent.resident_bytes as usize);
                ground.pool.put_back(*extent);
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
            // The count is ours alone only if every reader's release happened before (try_unwrap acquires).
            if let Err(map) = Arc::try_unwrap(map) {
                writer.retired_maps.push(map);
            }
        }
        let first = self.shard.number as usize * BANKS;
        for (number, bank) in writer.banks.iter_mut().enumerate() {
            let base = (first + number) * self.ground.bank_words;
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
