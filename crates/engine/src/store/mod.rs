//! The store: keys and values in memory that the store owns and can return to the kernel.
//!
//! ```text
//!  Store ── hash ──► Shard ─┬─ ArcSwap<ShardMap> ─► index: slots ─► items in segments     lock-free readers
//!                           └─ lock ─► Writer: logs of segments, migration, job      one writer or cleaner per shard
//!    └─ Ground: one arena (index banks, segments), the pool of segments, the ledger
//! ```
//! Read the files in this order: [`types`](self), `arena` (the memory), `slot`, `item`, `index`, `segment`, `ledger`,
//! `readers`, then `shard` (what readers see, and the rules that keep them safe), `write`, `append`, `migrate`, and
//! `clean` with `policy` (what is worth keeping).
//!
//! The store starts no threads and does no I/O. The caller passes the current time, in milliseconds.

mod append;
mod arena;
mod bank;
mod clean;
mod counts;
mod expiry;
mod ground;
mod hash;
mod index;
mod invalidation;
mod item;
mod job;
mod ledger;
mod log;
mod migrate;
mod policy;
mod readers;
mod relocate;
mod scan;
mod segment;
mod shard;
mod slot;
mod stats;
mod types;
mod write;

pub use clean::Task;
pub use job::Tally;
pub use ledger::{Account, Ledger};
pub use scan::Places;
pub use stats::{LogOccupancy, Stats};
pub use types::*;

use crate::sync::atomic::{AtomicU64, Ordering};
use append::Way;
use arena::{Arena, WORD_BYTES, page_bytes};
use bank::BANKS;
use clean::Step;
use counts::Counts;
use ground::Ground;
use hash::{Hash, Hasher};
use segment::Pool;
use shard::{Locked, Shard};
use std::io;

/// Options for [`Store::new`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Maximum bytes of segments, index and bytes in flight together. The ledger can change it later.
    pub capacity_bytes: u64,
    /// Maximum capacity that may ever be set, in bytes: the store reserves address space for it. `None`: the memory of
    /// the machine.
    pub most_bytes: Option<u64>,
    /// Maximum size of a value, in bytes; at most [`MAX_VALUE_BYTES`].
    pub max_value_bytes: usize,
    /// Seed of the keyed hash.
    pub seed: [u64; 2],
    /// Every version is larger than this, and at most [`MAX_VERSION`]. [`first_version`] derives it from the start
    /// time, so that versions also grow across restarts.
    pub first_version: u64,
    /// Number of shards, a power of two up to 256. `None`: one per 16 MiB of capacity, at most 64, because each shard
    /// keeps a few pages of its own.
    pub shards: Option<usize>,
    /// Size of a segment in bytes, a power of two from a page to 2 MiB. `None`: 1/128 of a shard, at least 64 KiB; it
    /// grows when the capacity is raised.
    pub segment_bytes: Option<usize>,
}

/// Upper bound of [`Options::max_value_bytes`], in bytes.
pub const MAX_VALUE_BYTES: usize = (item::MAX_ITEM_WORDS - 256) * WORD_BYTES;

/// Versions that remain for writes even if the clock is wrong.
const VERSIONS_LEFT: u64 = 1 << 49;

/// The version that a store started at this time counts up from. A shard writes fewer than 2,048 times per millisecond,
/// so a restart never reuses a version. The clock reaches the bound in the year 2100; a clock that is wrong by
/// centuries still leaves [`VERSIONS_LEFT`] versions.
pub fn first_version(unix_ms: u64) -> u64 {
    const WRITES_PER_MS_BITS: u32 = 11;
    unix_ms.min((MAX_VERSION - VERSIONS_LEFT) >> WRITES_PER_MS_BITS) << WRITES_PER_MS_BITS
}

impl Options {
    /// Options derived from the capacity, with a random seed and versions that start at 1.
    pub fn new(capacity_bytes: u64) -> Self {
        use std::hash::{BuildHasher, RandomState};
        // The standard library derives its random state from the operating system's randomness.
        let random = || RandomState::new().hash_one(0_u8);
        Self {
            capacity_bytes,
            most_bytes: None,
            max_value_bytes: 1 << 20,
            seed: [random(), random()],
            first_version: 0,
            shards: None,
            segment_bytes: None,
        }
    }

    fn shard_count(&self) -> usize {
        const SHARD_BYTES: u64 = 16 << 20;
        let wanted = self.capacity_bytes.div_ceil(SHARD_BYTES).clamp(1, 64) as usize;
        self.shards.unwrap_or(wanted).next_power_of_two().min(256)
    }

    fn segment_size(&self) -> usize {
        let wanted = || segment::bytes_for(self.capacity_bytes / self.shard_count() as u64);
        self.segment_bytes.unwrap_or_else(wanted).next_power_of_two().clamp(page_bytes(), segment::MAX_BYTES)
    }

    fn most(&self) -> u64 {
        let machine = || {
            let info = rustix::system::sysinfo();
            info.totalram as u64 * u64::from(info.mem_unit)
        };
        self.most_bytes.unwrap_or_else(machine).max(self.capacity_bytes).next_multiple_of(page_bytes() as u64)
    }
}

/// A sharded, in-memory key-value store with a bounded size.
#[derive(Debug)]
pub struct Store {
    ground: Ground,
    shards: Box<[Shard]>,
    max_value_bytes: usize,
    reservation: Reservation,
    refusals: AtomicU64,
}

/// The address space that a store has reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Maximum capacity that may be set, in bytes.
    pub most_bytes: u64,
    /// Reserved address space, in bytes.
    pub reserved_bytes: u64,
    /// Larger reservations that the system refused, in bytes, in the order of the attempts.
    pub tried: Vec<u64>,
}

/// How the reserved address space is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Maximum capacity that may be set, in bytes.
    most: u64,
    /// Words of each bank of an index.
    bank_words: usize,
    shards: usize,
    /// Number of segments.
    numbers: u32,
    segment_bytes: usize,
}

/// Address space that must remain for everything else: thread stacks and the heap.
const HEADROOM_BYTES: usize = 96 << 20;
/// Minimum capacity of a store, in bytes.
const LEAST_BYTES: u64 = 8 << 20;

impl Layout {
    /// A layout for a capacity of up to `most` bytes, in `spread` times as much address space.
    fn new(most: u64, spread: u64, shards: usize, segment_bytes: usize) -> Self {
        let (most_numbers, segment) = ((1 << slot::SEGMENT_BITS) - 1, segment_bytes as u64);
        let most = most.min((most_numbers - 2) * segment / 2);
        let numbers = (most * spread / segment + 2).min(most_numbers) as u32;
        // An index needs at most 8 bytes per item, and an item has at least 16 bytes: half of all memory is plenty.
        let bank_bytes = (most / shards as u64 / 2).min(u64::from(index::MAX_BUCKETS) * index::BUCKET_BYTES);
        let bank_words = bank_bytes.next_multiple_of(page_bytes() as u64) as usize / WORD_BYTES;
        Self { most, bank_words, shards, numbers, segment_bytes }
    }

    fn bytes(&self) -> usize {
        self.bank_words * BANKS * self.shards * WORD_BYTES + self.numbers as usize * self.segment_bytes
    }

    /// The layouts to try, in this order. The first ones give up room to grow, the next ones the spread that leaves
    /// free neighbours for runs of segments (large values), the last ones a part of the capacity.
    fn to_try(capacity: u64, most: u64, shards: usize, segment_bytes: usize) -> Vec<Self> {
        let halves = |from: u64, least: u64| {
            std::iter::successors(Some(from), move |most| Some((most / 2).max(least)).filter(|next| next < most))
        };
        let roomy = halves(most, capacity).map(|most| (most, 4));
        let tight = halves(capacity, LEAST_BYTES.min(capacity)).map(|most| (most, 2));
        let mut layouts: Vec<_> =
            roomy.chain(tight).map(|(most, spread)| Self::new(most, spread, shards, segment_bytes)).collect();
        layouts.dedup(); // layouts that reach the maximum number of segments are equal
        layouts
    }
}

/// Segments that a write compacts before it evicts, and evicts from before it is refused, in addition to those that its
/// size requires. After a quarter of the evictions, reads no longer protect an item.
const MAX_CLEANED: usize = 64;
/// Maximum number of times a write yields while readers announce retired segments, before it frees more.
#[cfg(not(any(loom, shuttle)))]
const MAX_WAITS: usize = 64;
#[cfg(any(loom, shuttle))]
const MAX_WAITS: usize = 2;
/// Bytes returned to the kernel in one step. Such a step takes about as long as the other steps of the cleaner.
const COOL_BYTES: u64 = 256 << 10;
/// A few times the size of a processor's second-level cache, in bytes.
const PROCESSOR_BYTES: u64 = 8 << 20;

impl Store {
    /// Creates a store. It reserves address space and touches only a few pages of it.
    ///
    /// # Errors
    /// If the system refuses every size of address space (the error lists them), or cannot take pages back.
    pub fn new(options: Options) -> io::Result<Self> {
        let layouts =
            Layout::to_try(options.capacity_bytes, options.most(), options.shard_count(), options.segment_size());
        let mut tried = Vec::new();
        for layout in layouts {
            let reserved = Arena::reserve(layout.bytes()).and_then(|arena| match Arena::has_room(HEADROOM_BYTES) {
                true => Ok(arena),
                false => Err(io::ErrorKind::OutOfMemory.into()),
            });
            match reserved {
                Ok(arena) => return Ok(Self::with_layout(options, arena, layout, tried)),
                Err(error) if matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock) => {
                    tried.push(layout.bytes() as u64);
                }
                Err(error) => return Err(error), // a smaller size would fail as well
            }
        }
        let mib: Vec<_> = tried.iter().map(|bytes| (bytes >> 20).to_string()).collect();
        let (mib, headroom) = (mib.join(", "), HEADROOM_BYTES >> 20);
        let sentence = format!(
            "the system refuses address space; tried {mib} MiB, each with {headroom} MiB for everything else; see \
             ulimit -v, ulimit -d and vm.overcommit_memory"
        );
        Err(io::Error::new(io::ErrorKind::OutOfMemory, sentence))
    }

    fn with_layout(options: Options, arena: Arena, layout: Layout, tried: Vec<u64>) -> Self {
        let Layout { bank_words, numbers, most, shards, segment_bytes } = layout;
        let ground = Ground {
            arena,
            pool: Pool::new(bank_words * BANKS * shards, segment_bytes, numbers),
            ledger: std::sync::Arc::new(Ledger::up_to(options.capacity_bytes, most)),
            hasher: Hasher::new(options.seed),
            bank_words,
            shards,
            segments_follow: options.segment_bytes.is_none(),
            readers: readers::Readers::new(),
        };
        let reservation = Reservation { most_bytes: most, reserved_bytes: layout.bytes() as u64, tried };
        let first_version = options.first_version.min(MAX_VERSION - VERSIONS_LEFT);
        let shards = (0..shards as u32).map(|number| Shard::new(&ground, number, first_version)).collect();
        let max_value_bytes = options.max_value_bytes.min(MAX_VALUE_BYTES);
        Self { ground, shards, max_value_bytes, reservation, refusals: AtomicU64::new(0) }
    }

    /// The reserved address space.
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// The ledger in which all memory that can grow is reserved.
    pub fn ledger(&self) -> &std::sync::Arc<Ledger> {
        &self.ground.ledger
    }

    /// Maximum size of a value, in bytes.
    pub fn max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    /// Size of the smallest segment, in bytes. Counts of freed segments use this unit.
    pub fn segment_bytes(&self) -> usize {
        self.ground.pool.segment_bytes()
    }

    /// Size of a segment that is opened now, in bytes: a multiple of the smallest size after the capacity was raised.
    pub fn new_segment_bytes(&self) -> usize {
        self.ground.segment_units() as usize * self.segment_bytes()
    }

    /// Reads a key without a lock. It locks the shard only if the key keeps changing during the read, or if more than
    /// 256 threads read.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    pub fn get(&self, key: Key<'_>, now_ms: u64, usage: Use) -> Result<Lookup, Error> {
        let (shard, hash) = self.shard_of(key)?;
        Ok(shard.get(&self.ground, key, hash, now_ms, usage))
    }

    /// Stores a value under a condition. With `keep_deadline`, an existing item keeps its deadline.
    ///
    /// # Errors
    /// [`Error::KeyLength`], [`Error::ValueTooLarge`]; [`Error::NoSpace`] if cleaning some tens of segments freed too
    /// little.
    pub fn set(
        &self,
        key: Key<'_>,
        value: &[u8],
        attributes: &Attributes,
        condition: Condition,
        keep_deadline: bool,
        now_ms: u64,
    ) -> Result<SetOutcome, Error> {
        let (_, hash) = self.shard_of(key)?;
        if value.len() > self.max_value_bytes {
            return Err(Error::ValueTooLarge { len: value.len(), max: self.max_value_bytes });
        }
        let put = write::Put { value, attributes: *attributes, condition, keep_deadline };
        self.with_room(hash, now_ms, |shard| shard.set(key, hash, put, now_ms))
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    pub fn delete(
        &self,
        key: Key<'_>,
        if_version: Option<u64>,
        deletion: Deletion,
        now_ms: u64,
    ) -> Result<DeleteOutcome, Error> {
        let (shard, hash) = self.shard_of(key)?;
        Ok(shard.lock(&self.ground).delete(key, hash, if_version, deletion, now_ms))
    }

    /// Sets a new deadline (0: never) and returns the unchanged version; `None` if there is no item.
    ///
    /// # Errors
    /// As for [`Store::set`], because an item without a deadline must be rewritten to get one.
    pub fn touch(&self, key: Key<'_>, deadline_ms: u64, now_ms: u64) -> Result<Option<u64>, Error> {
        let (_, hash) = self.shard_of(key)?;
        self.with_room(hash, now_ms, |shard| shard.touch(key, hash, deadline_ms, now_ms))
    }

    /// Reads and writes one key atomically. `decide` runs under the shard's lock with the item that may be served. It
    /// runs again if the write first had to make room in other shards. Returns the result of `decide`, and the version
    /// if a value was stored.
    ///
    /// # Errors
    /// As for [`Store::set`].
    pub fn update<R>(
        &self,
        key: Key<'_>,
        now_ms: u64,
        mut decide: impl FnMut(Option<&Item>) -> (Update, R),
    ) -> Result<(R, Option<u64>), Error> {
        let (_, hash) = self.shard_of(key)?;
        let most = self.max_value_bytes;
        self.with_room(hash, now_ms, |shard| shard.update(key, hash, now_ms, &mut decide, most))
    }

    /// Invalidates a group of keys (with `mark_stale`: marks it stale) in time that does not depend on its size. From
    /// now on no item of the group that was stored before is served as fresh. The cleaner sweeps the items later.
    ///
    /// # Errors
    /// [`Error::TooManyInvalidations`] if too many invalidations wait for the cleaner.
    pub fn invalidate(&self, group: Group<'_>, mark_stale: bool) -> Result<(), Error> {
        for shard in &self.shards {
            shard.lock(&self.ground).can_invalidate()?;
        }
        for shard in &self.shards {
            shard.lock(&self.ground).invalidate(group, mark_stale);
        }
        Ok(())
    }

    /// Which namespaces other than the default one hold items, by number. Expired and invalidated items count until the
    /// cleaner drops them.
    pub fn namespaces_in_use(&self) -> Vec<bool> {
        let mut in_use = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock(&self.ground);
            let counts = &shard.writer.by_namespace;
            in_use.resize(in_use.len().max(counts.len()), false);
            in_use.iter_mut().zip(counts).for_each(|(in_use, count)| *in_use |= *count > 0);
        }
        in_use
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Cleans a shard until `stop` returns true or a writer waits for its lock. Each hold of the lock covers at most 32
    /// items. Returns `false` if there was nothing to do. Only one thread may clean a shard at a time.
    pub fn clean(
        &self,
        shard: usize,
        task: Task,
        now_ms: u64,
        tally: &mut Tally,
        stop: &mut dyn FnMut() -> bool,
    ) -> bool {
        let shard = &self.shards[shard];
        let mut stop = || stop() || shard.is_waited_for();
        let (mut did, mut looked) = (false, false);
        let mut batches = Vec::new();
        loop {
            let step = {
                let mut locked = shard.lock_as_cleaner(&self.ground);
                batches.drain(..).for_each(|batch| locked.commit(&batch, now_ms, tally));
                locked.clean(task, now_ms, tally, looked, &mut stop)
            };
            match step {
                Step::Nothing => return did,
                Step::Done => return true,
                Step::LookAhead(_) if looked && stop() => return true,
                Step::LookAhead(ahead) => {
                    let items = self.ground.look_ahead(&ahead, clean::STRIDE, now_ms);
                    batches = shard.lock_as_cleaner(&self.ground).reserve(&ahead, items);
                    batches.iter().for_each(|batch| self.ground.copy(batch));
                    (did, looked) = (true, true);
                }
                Step::GiveBack(piece) => {
                    self.ground.give_back(&piece);
                    shard.lock_as_cleaner(&self.ground).end_piece(&piece);
                    if stop() {
                        return true;
                    }
                    did = true;
                }
            }
        }
    }

    /// Whether a writer waits for a shard's lock.
    pub fn is_waited_for(&self, shard: usize) -> bool {
        self.shards[shard].is_waited_for()
    }

    /// The longest wait for a shard's lock since the last call, in microseconds.
    pub fn take_longest_wait_us(&self) -> u64 {
        self.shards.iter().map(Shard::take_longest_wait_us).max().unwrap_or(0)
    }

    /// Number of segments that a shard has opened since the start; see [`Task::opened_before`].
    pub fn opened(&self, shard: usize) -> u64 {
        self.shards[shard].lock_as_cleaner(&self.ground).writer.opened
    }

    /// Frees the retired segments and maps of a shard that no reader holds any more, for reuse or [`Store::cool`].
    pub fn reclaim(&self, shard: usize) {
        self.shards[shard].lock_as_cleaner(&self.ground).reclaim();
    }

    /// Whether the stored data exceeds the cache of a processor, so that a [prefetch](Self::look_ahead) pays off.
    pub fn outgrows_processor(&self) -> bool {
        self.ground.ledger.total() > PROCESSOR_BYTES
    }

    /// Prefetches the memory that lookups of these keys will read, so that their cache misses overlap. It is only a
    /// hint, meant for some tens of keys at a time.
    pub fn look_ahead<'a>(&self, keys: impl Iterator<Item = Key<'a>>) {
        let hashes: Vec<_> = keys.filter_map(|key| self.shard_of(key).ok()).collect();
        let indexes: Vec<_> = hashes.iter().map(|(shard, hash)| (shard.index(), hash.place())).collect();
        for (index, place) in &indexes {
            index.prefetch(&self.ground.arena, *place);
        }
        for (index, place) in &indexes {
            if let Some(location) = index.candidates(&self.ground.arena, *place).find_map(|(_, slot)| slot.location()) {
                self.ground.prefetch(location);
            }
        }
    }

    /// Returns pages of one freed segment to the kernel, up to the bytes of one step, if more than `keep` segments wait
    /// for reuse. Returns the number of bytes.
    pub fn cool(&self, keep: usize) -> Option<u64> {
        self.ground.cool(keep, COOL_BYTES)
    }

    fn shard_of(&self, key: Key<'_>) -> Result<(&Shard, Hash), Error> {
        if !(1..=MAX_KEY_BYTES).contains(&key.bytes.len()) {
            return Err(Error::KeyLength { len: key.bytes.len(), max: MAX_KEY_BYTES });
        }
        let hash = self.ground.hasher.hash(key);
        Ok((&self.shards[hash.shard(self.shards.len())], hash))
    }

    /// Runs a write. If there is no room, makes room and tries again.
    fn with_room<T>(
        &self,
        hash: Hash,
        now_ms: u64,
        mut write: impl FnMut(&mut Locked<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let number = hash.shard(self.shards.len());
        let shard = &self.shards[number];
        let mut effort = Effort::default();
        let mut grows_index = true;
        loop {
            // Cleaning takes the locks of shards, so this one must be free by then.
            let result = {
                let mut locked = shard.lock(&self.ground);
                locked.grows_index = grows_index;
                write(&mut locked)
            };
            let Err(Error::NoSpace { need, .. }) = result else { return result };
            if self.ledger().could_hold(need) && self.make_some_room(shard, need, &mut effort, now_ms) {
                continue;
            }
            // Perhaps only a larger index lacked room, and the old index still has a slot for the item.
            if std::mem::replace(&mut grows_index, false) {
                continue;
            }
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return result;
        }
    }

    /// Cleans segments while usage exceeds the capacity. Bytes in flight can cause that, because the ledger never
    /// refuses them. Cleans some tens of segments at most, and none if index, tables, connections and bytes in flight
    /// alone exceed the capacity.
    pub fn make_room(&self, now_ms: u64) {
        let ledger = self.ledger();
        let is_needed = || ledger.total() > ledger.capacity() + self.retired_bytes() && ledger.could_hold(0);
        let mut effort = Effort::default();
        while is_needed() && self.make_some_room(self.fullest(), 0, &mut effort, now_ms) {
            while self.cool(0).is_some() {}
        }
    }

    /// Makes about one segment of room for a write of `need` bytes to a shard: first from retired segments that readers
    /// are about to leave, then by compaction while all live bytes fit, and only then by eviction. `false` if nothing
    /// more can be freed.
    fn make_some_room(&self, shard: &Shard, need: u64, effort: &mut Effort, now_ms: u64) -> bool {
        if need > 0 && self.retired_bytes() >= need && effort.waits < MAX_WAITS {
            effort.waits += 1;
            self.let_readers_go_on();
            return true;
        }
        let of_size = need as usize / self.segment_bytes();
        let clean = |shard: &Shard, way| shard.lock(&self.ground).clean_one_now(way, now_ms);
        // A compaction frees a small part of a segment.
        let most_compacted = MAX_CLEANED + 16 * of_size;
        if effort.compacted < most_compacted && self.live_fits(need) {
            effort.compacted += 1;
            if self.sparsest_first().into_iter().any(|shard| clean(shard, Way::Compact)) {
                return true;
            }
            effort.compacted = most_compacted; // all segments are full
        }
        let most = MAX_CLEANED + 2 * of_size;
        if effort.evicted >= most {
            return false;
        }
        effort.evicted += 1;
        let way = Way::Evict { spares_read: effort.evicted <= most / 4 };
        clean(shard, way) || clean(self.fullest(), way)
    }

    /// Whether `need` more bytes fit without an eviction.
    fn live_fits(&self, need: u64) -> bool {
        let live_words = |counts: &Counts| {
            counts.live_words.load(Ordering::Relaxed).saturating_sub(counts.expired_words.load(Ordering::Relaxed))
        };
        self.sum(live_words) * WORD_BYTES as u64 + self.ledger().fixed() + need <= self.ledger().low()
    }

    /// Bytes of retired segments, which become free as soon as no reader announces them.
    fn retired_bytes(&self) -> u64 {
        self.sum(|counts| counts.retired_bytes.load(Ordering::Relaxed))
    }

    fn sum(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(&shard.counts)).sum()
    }

    /// Yields to the threads that read retired segments, then frees those that no thread reads any more.
    fn let_readers_go_on(&self) {
        crate::sync::yield_now();
        for shard in self.shards.iter().filter(|shard| shard.counts.retired_bytes.load(Ordering::Relaxed) > 0) {
            shard.lock(&self.ground).reclaim();
        }
    }

    /// The shard with the most bytes written.
    fn fullest(&self) -> &Shard {
        let written = |shard: &&Shard| shard.counts.written_words.load(Ordering::Relaxed);
        self.shards.iter().max_by_key(written).expect("there is a shard")
    }

    /// All shards, the one with the most dead bytes first.
    fn sparsest_first(&self) -> Vec<&Shard> {
        let mut shards: Vec<_> = self.shards.iter().map(|shard| (shard.counts.dead_words(), shard)).collect();
        shards.sort_unstable_by_key(|(dead_words, _)| std::cmp::Reverse(*dead_words));
        shards.into_iter().map(|(_, shard)| shard).collect()
    }
}

/// The work done so far to make room for one write.
#[derive(Clone, Copy, Debug, Default)]
struct Effort {
    /// Number of yields to readers.
    waits: usize,
    /// Segments compacted, and segments evicted from.
    compacted: usize,
    evicted: usize,
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;

#[cfg(all(test, any(loom, shuttle)))]
mod models;
