//! The store: keys and values in memory that the store owns, and can give back.
//!
//! ```text
//!  Store ── hash ──► Shard ─┬─ ArcSwap<ShardMap> ─► index: slots ─► items in segments     readers, without a lock
//!                           └─ lock ─► Writer: logs of segments, migration, job      one writer or cleaner a shard
//!    └─ Ground: one arena (index banks, segments), the pool of segments, the ledger
//! ```
//! Read the files in this order: [`types`](self), `arena` (the memory), `slot`, `item`, `index`, `segment`, `ledger`,
//! `readers`, then `shard` (what readers see, and the rules that keep them safe), `write`, `append`, `migrate`, and `clean` with
//! `policy` (what is worth keeping).
//!
//! The store knows nothing of threads, files, time or the network. Who calls it brings the time, in milliseconds.

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

/// How a store is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// What segments, index and bytes in flight may use together, in bytes. Can be changed later through the ledger.
    pub capacity_bytes: u64,
    /// The most that the capacity may ever be raised to, in bytes: address space is reserved for it. `None`: the
    /// machine's memory.
    pub most_bytes: Option<u64>,
    /// The largest value, in bytes; at most [`MAX_VALUE_BYTES`].
    pub max_value_bytes: usize,
    /// The seed of the keyed hash.
    pub seed: [u64; 2],
    /// Every version is larger than this, and at most [`MAX_VERSION`]. [`first_version`] derives it from the time of the
    /// start, so that versions grow over restarts too.
    pub first_version: u64,
    /// How many shards, a power of two up to 256. `None`: one for every 16 MiB of capacity, at most 64: each keeps a
    /// few pages of its own.
    pub shards: Option<usize>,
    /// Size of a segment in bytes, a power of two from a page to 2 MiB. `None`: 1/128 of a shard, at least 64 KiB, and
    /// larger when the capacity is raised.
    pub segment_bytes: Option<usize>,
}

/// The largest value a store can be made for, in bytes.
pub const MAX_VALUE_BYTES: usize = (item::MAX_ITEM_WORDS - 256) * WORD_BYTES;

/// Writes that always remain, whatever the clock says.
const VERSIONS_LEFT: u64 = 1 << 49;

/// The version from which a store that starts at this time counts up. A shard writes less than 2,048 times a millisecond,
/// so that a restart never gives a version again. The clock reaches the bound in the year 2100; a clock that is wrong
/// by centuries leaves [`VERSIONS_LEFT`] versions.
pub fn first_version(unix_ms: u64) -> u64 {
    const WRITES_PER_MS_BITS: u32 = 11;
    unix_ms.min((MAX_VERSION - VERSIONS_LEFT) >> WRITES_PER_MS_BITS) << WRITES_PER_MS_BITS
}

impl Options {
    /// With everything chosen from the capacity, a random seed, and versions that count up from 1.
    pub fn new(capacity_bytes: u64) -> Self {
        use std::hash::{BuildHasher, RandomState};
        // The standard library's random state is the operating system's randomness, stretched.
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

/// The store.
#[derive(Debug)]
pub struct Store {
    ground: Ground,
    shards: Box<[Shard]>,
    max_value_bytes: usize,
    reservation: Reservation,
    refusals: AtomicU64,
}

/// The address space of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// What the capacity may be raised to, in bytes.
    pub most_bytes: u64,
    /// What was reserved, in bytes.
    pub reserved_bytes: u64,
    /// Larger reservations, in bytes, that the system refused, in the order of the tries.
    pub tried: Vec<u64>,
}

/// How address space is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// What the capacity may be raised to, in bytes.
    most: u64,
    /// Of each bank of an index.
    bank_words: usize,
    shards: usize,
    /// Numbers of segments.
    numbers: u32,
    segment_bytes: usize,
}

/// Address space that is left for everything else: stacks of threads, the heap.
const HEADROOM_BYTES: usize = 96 << 20;
/// The least capacity that is worth a store, in bytes.
const LEAST_BYTES: u64 = 8 << 20;

impl Layout {
    /// For a capacity of up to `most` bytes, in `spread` times as much address space.
    fn new(most: u64, spread: u64, shards: usize, segment_bytes: usize) -> Self {
        let (most_numbers, segment) = ((1 << slot::SEGMENT_BITS) - 1, segment_bytes as u64);
        let most = most.min((most_numbers - 2) * segment / 2);
        let numbers = (most * spread / segment + 2).min(most_numbers) as u32;
        // An index takes at most 8 bytes for each smallest item (16 bytes) at its fill: half of all memory is plenty.
        let bank_bytes = (most / shards as u64 / 2).min(u64::from(index::MAX_BUCKETS) * index::BUCKET_BYTES);
        let bank_words = bank_bytes.next_multiple_of(page_bytes() as u64) as usize / WORD_BYTES;
        Self { most, bank_words, shards, numbers, segment_bytes }
    }

    fn bytes(&self) -> usize {
        self.bank_words * BANKS * self.shards * WORD_BYTES + self.numbers as usize * self.segment_bytes
    }

    /// What to try, one after the other: room to grow is given up first, then the spread by which runs of segments for
    /// large values never want for neighbours, and last a part of the capacity.
    fn to_try(capacity: u64, most: u64, shards: usize, segment_bytes: usize) -> Vec<Self> {
        let halves = |from: u64, least: u64| {
            std::iter::successors(Some(from), move |most| Some((most / 2).max(least)).filter(|next| next < most))
        };
        let roomy = halves(most, capacity).map(|most| (most, 4));
        let tight = halves(capacity, LEAST_BYTES.min(capacity)).map(|most| (most, 2));
        let mut layouts: Vec<_> =
            roomy.chain(tight).map(|(most, spread)| Self::new(most, spread, shards, segment_bytes)).collect();
        layouts.dedup(); // one that has as many numbers as there are is asked for once
        layouts
    }
}

/// Segments that are compacted for a write before any is evicted from, and evicted from before it is refused, beside those
/// its size asks for. After a quarter of the evictions, reads no longer protect an item.
const MAX_CLEANED: usize = 64;
/// How often a write yields while readers still announce retired segments, before it frees more.
#[cfg(not(any(loom, shuttle)))]
const MAX_WAITS: usize = 64;
#[cfg(any(loom, shuttle))]
const MAX_WAITS: usize = 2;
/// Bytes given back to the operating system in one step: what takes about as long as any other step.
const COOL_BYTES: u64 = 256 << 10;
/// What a processor's second-level cache may hold, a few times over.
const PROCESSOR_BYTES: u64 = 8 << 20;

impl Store {
    /// Makes a store: reserves its address space, touches next to nothing.
    ///
    /// # Errors
    /// When the system refuses the address space, with the sizes that were tried, or takes no page back.
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
                Err(error) => return Err(error), // less would be refused as well
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

    /// The address space it has.
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// The ledger that every growing byte is reserved in.
    pub fn ledger(&self) -> &std::sync::Arc<Ledger> {
        &self.ground.ledger
    }

    /// The largest value, in bytes.
    pub fn max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    /// The size of the smallest segment, in bytes: what freed segments are counted in.
    pub fn segment_bytes(&self) -> usize {
        self.ground.pool.segment_bytes()
    }

    /// The size of a segment that is opened now, in bytes: a multiple of the smallest after the capacity was raised.
    pub fn new_segment_bytes(&self) -> usize {
        self.ground.segment_units() as usize * self.segment_bytes()
    }

    /// Reads a key. Takes no lock, but for a key that is written all the time, and where more than 256 threads read.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    pub fn get(&self, key: Key<'_>, now_ms: u64, usage: Use) -> Result<Lookup, Error> {
        let (shard, hash) = self.shard_of(key)?;
        Ok(shard.get(&self.ground, key, hash, now_ms, usage))
    }

    /// Stores a value under a condition. `keep_deadline`: an item that is there keeps its deadline.
    ///
    /// # Errors
    /// [`Error::KeyLength`], [`Error::ValueTooLarge`]; [`Error::NoSpace`] when some tens of segments were cleaned in vain.
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

    /// Sets a new deadline (0: never) and returns the version, which stays; `None` when there is no item.
    ///
    /// # Errors
    /// As for [`Store::set`]: an item without a deadline must be written again to get one.
    pub fn touch(&self, key: Key<'_>, deadline_ms: u64, now_ms: u64) -> Result<Option<u64>, Error> {
        let (_, hash) = self.shard_of(key)?;
        self.with_room(hash, now_ms, |shard| shard.touch(key, hash, deadline_ms, now_ms))
    }

    /// Reads and writes one key without anybody in between. `decide` runs under the shard's lock and sees the item that
    /// may be served; it may be asked again when room had to be made in other shards. The answer is what it returned,
    /// and the version if something was stored.
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

    /// Invalidates a group of keys (or, with `mark_stale`, stale) in time that does not depend on its size: from now on no
    /// item of it that was stored before is fresh. The cleaner finds the items later.
    ///
    /// # Errors
    /// [`Error::TooManyInvalidations`] when too many wait for the cleaner.
    pub fn invalidate(&self, group: Group<'_>, mark_stale: bool) -> Result<(), Error> {
        for shard in &self.shards {
            shard.lock(&self.ground).can_invalidate()?;
        }
        for shard in &self.shards {
            shard.lock(&self.ground).invalidate(group, mark_stale);
        }
        Ok(())
    }

    /// Which namespaces other than the default one hold items, by number: expired and invalidated items count until the
    /// cleaner has found them.
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

    /// How many shards there are to be cleaned.
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

    /// Whether somebody waits for a shard's lock.
    pub fn is_waited_for(&self, shard: usize) -> bool {
        self.shards[shard].is_waited_for()
    }

    /// The longest that somebody has waited for the lock of a shard since this was last called, in microseconds.
    pub fn take_longest_wait_us(&self) -> u64 {
        self.shards.iter().map(Shard::take_longest_wait_us).max().unwrap_or(0)
    }

    /// How many segments a shard has ever opened: see [`Task::opened_before`].
    pub fn opened(&self, shard: usize) -> u64 {
        self.shards[shard].lock_as_cleaner(&self.ground).writer.opened
    }

    /// Takes back what a shard has given up and no reader can reach any more, so that it can be reused or cooled.
    pub fn reclaim(&self, shard: usize) {
        self.shards[shard].lock_as_cleaner(&self.ground).reclaim();
    }

    /// Whether more is stored than a processor is likely to have in a cache of its own, so that it is worth
    /// [looking ahead](Self::look_ahead).
    pub fn outgrows_processor(&self) -> bool {
        self.ground.ledger.total() > PROCESSOR_BYTES
    }

    /// Asks the processor for what looking these keys up will read: their cache misses then overlap instead of following
    /// each other. Only a hint; meant for some tens of keys at a time.
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

    /// Gives pages of one freed segment back to the operating system, as many as go in a step, if more than `keep`
    /// segments wait for reuse; returns the bytes given back.
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

    /// Runs a write; without room for it, makes some and tries again.
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
            // The lock is free again when a shard is cleaned.
            let result = {
                let mut locked = shard.lock(&self.ground);
                locked.grows_index = grows_index;
                write(&mut locked)
            };
            let Err(Error::NoSpace { need, .. }) = result else { return result };
            if self.ledger().could_hold(need) && self.make_some_room(shard, need, &mut effort, now_ms) {
                continue;
            }
            // The room may have been wanted for a larger index alone, and the old one still takes the item.
            if std::mem::replace(&mut grows_index, false) {
                continue;
            }
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return result;
        }
    }

    /// Cleans segments while more is in use than the capacity: for bytes in flight, which the ledger never refuses. Some tens
    /// at most, and none when what is no segment fills the capacity alone.
    pub fn make_room(&self, now_ms: u64) {
        let ledger = self.ledger();
        let is_needed = || ledger.total() > ledger.capacity() + self.retired_bytes() && ledger.could_hold(0);
        let mut effort = Effort::default();
        while is_needed() && self.make_some_room(self.fullest(), 0, &mut effort, now_ms) {
            while self.cool(0).is_some() {}
        }
    }

    /// One segment's worth of room, for a write of `need` bytes to a shard: first what readers are about to leave, then by
    /// compaction while what is live fits, and only then by eviction. `false` when nothing more can be done.
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

    /// Whether nothing live has to go for `need` more bytes.
    fn live_fits(&self, need: u64) -> bool {
        let live_words = |counts: &Counts| {
            counts.live_words.load(Ordering::Relaxed).saturating_sub(counts.expired_words.load(Ordering::Relaxed))
        };
        self.sum(live_words) * WORD_BYTES as u64 + self.ledger().fixed() + need <= self.ledger().low()
    }

    /// Bytes that were given up and come back as soon as nobody reads them.
    fn retired_bytes(&self) -> u64 {
        self.sum(|counts| counts.retired_bytes.load(Ordering::Relaxed))
    }

    fn sum(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(&shard.counts)).sum()
    }

    /// Gives way to the threads that read what was given up, and takes back what they have left.
    fn let_readers_go_on(&self) {
        crate::sync::yield_now();
        for shard in self.shards.iter().filter(|shard| shard.counts.retired_bytes.load(Ordering::Relaxed) > 0) {
            shard.lock(&self.ground).reclaim();
        }
    }

    /// The shard with most items.
    fn fullest(&self) -> &Shard {
        let written = |shard: &&Shard| shard.counts.written_words.load(Ordering::Relaxed);
        self.shards.iter().max_by_key(written).expect("there is a shard")
    }

    /// All shards, the one with most dead bytes first.
    fn sparsest_first(&self) -> Vec<&Shard> {
        let mut shards: Vec<_> = self.shards.iter().map(|shard| (shard.counts.dead_words(), shard)).collect();
        shards.sort_unstable_by_key(|(dead_words, _)| std::cmp::Reverse(*dead_words));
        shards.into_iter().map(|(_, shard)| shard).collect()
    }
}

/// What a write has cost others so far.
#[derive(Clone, Copy, Debug, Default)]
struct Effort {
    /// How often it gave way to readers.
    waits: usize,
    /// Segments that were compacted for it, and those evicted from.
    compacted: usize,
    evicted: usize,
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;

#[cfg(all(test, any(loom, shuttle)))]
mod models;
