//! The store: keys and values in memory that the store owns and can return to the kernel.
//!
//! ```text
//!  Store ── hash ──► Shard ─┬─ ArcSwap<ShardMap> ─► index: slots ─► items in segments     lock-free readers
//!                           └─ lock ─► Writer: logs of segments, migration, job      one writer or cleaner per shard
//!    └─ Shared: one arena (index banks, segments), the pool of segments, the ledger
//! ```
//! Read the files in this order: [`types`](self), `arena` (the memory), `slot`, `item`, `index`, `segment`, `ledger`,
//! `readers`, then `shard` (what readers see, and the rules that keep them safe), `write`, `append`, `migrate`, `clean`
//! with `policy` (what is worth keeping), `room` (what a write does when it finds none), and `lease`.
//!
//! The store starts no threads and does no I/O. The caller passes the current time, in milliseconds.

mod append;
mod arena;
mod bank;
mod clean;
mod counts;
mod expiry;
mod hash;
mod index;
mod invalidation;
mod item;
mod job;
mod layout;
mod lease;
mod ledger;
mod lock;
mod log;
mod migrate;
mod options;
mod policy;
mod readers;
mod relocate;
mod room;
mod scan;
mod segment;
mod shard;
mod shared;
mod slot;
mod stats;
mod types;
mod write;

pub use clean::Task;
pub use job::Tally;
pub use layout::Reservation;
pub use lease::{LeaseCounts, LeaseRequest, Leased, MAX_LEASES, MAX_WAITERS, MAX_WAITERS_OF_A_LEASE, Waiter};
pub use ledger::{Account, Ledger};
pub use options::{MAX_VALUE_BYTES, Options, first_version};
pub use scan::Places;
pub use stats::{LogOccupancy, NamespaceUse, Stats};
pub use types::*;

use crate::sync::atomic::AtomicU64;
use arena::Arena;
use bank::BANKS;
use clean::Step;
use hash::{Hash, Hasher};
use layout::{HEADROOM_BYTES, Layout};
use options::VERSIONS_LEFT;
use segment::Pool;
use shard::Shard;
use shared::Shared;
use std::io;

/// A sharded, in-memory key-value store with a bounded size.
#[derive(Debug)]
pub struct Store {
    shared: Shared,
    shards: Box<[Shard]>,
    max_value_bytes: usize,
    reservation: Reservation,
    refusals: AtomicU64,
}

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
        let first_version = options.first_version.min(MAX_VERSION - VERSIONS_LEFT);
        let ledger = std::sync::Arc::new(Ledger::up_to(options.capacity_bytes, most));
        let shared = Shared {
            arena,
            pool: Pool::new(bank_words * BANKS * shards, segment_bytes, numbers),
            leases: lease::Totals::new(ledger.clone(), first_version),
            ledger,
            hasher: Hasher::new(options.seed),
            bank_words,
            shards,
            segments_follow: options.segment_bytes.is_none(),
            readers: readers::Readers::new(),
        };
        let reservation = Reservation { most_bytes: most, reserved_bytes: layout.bytes() as u64, tried };
        let shards = (0..shards as u32).map(|number| Shard::new(&shared, number, first_version)).collect();
        let max_value_bytes = options.max_value_bytes.min(MAX_VALUE_BYTES);
        Self { shared, shards, max_value_bytes, reservation, refusals: AtomicU64::new(0) }
    }

    /// The reserved address space.
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// The ledger in which all memory that can grow is reserved.
    pub fn ledger(&self) -> &std::sync::Arc<Ledger> {
        &self.shared.ledger
    }

    /// Maximum size of a value, in bytes.
    pub fn max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    /// Size of the smallest segment, in bytes. Counts of freed segments use this unit.
    pub fn segment_bytes(&self) -> usize {
        self.shared.pool.segment_bytes()
    }

    /// Size of a segment that is opened now, in bytes: a multiple of the smallest size after the capacity was raised.
    pub fn new_segment_bytes(&self) -> usize {
        self.shared.segment_units() as usize * self.segment_bytes()
    }

    /// Reads a key without a lock. It locks the shard only if the key keeps changing during the read, or if more than
    /// 256 threads read.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    pub fn get(&self, key: Key<'_>, now_ms: u64, usage: Use) -> Result<Lookup, Error> {
        let (shard, hash) = self.shard_of(key)?;
        Ok(shard.get(&self.shared, key, hash, now_ms, usage))
    }

    /// Stores a value under a condition. With `keep_deadline`, an existing item keeps its deadline.
    ///
    /// # Errors
    /// [`Error::KeyLength`], [`Error::ValueTooLarge`]; [`Error::NoSpace`] if cleaning some tens of segments freed less
    /// than the item needs.
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
    /// [`Error::KeyLength`]; [`Error::TooManyLeases`] for a tombstone that cannot be kept.
    pub fn delete(
        &self,
        key: Key<'_>,
        if_version: Option<u64>,
        deletion: Deletion,
        now_ms: u64,
    ) -> Result<DeleteOutcome, Error> {
        let (shard, hash) = self.shard_of(key)?;
        shard.lock(&self.shared).delete(key, hash, if_version, deletion, now_ms)
    }

    /// Requests the lease of a key, for a caller that has found no fresh item.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    pub fn lease(&self, key: Key<'_>, request: LeaseRequest, now_ms: u64) -> Result<Leased, Error> {
        let (shard, hash) = self.shard_of(key)?;
        let leased = shard.lock(&self.shared).lease(key, hash, request, now_ms);
        #[cfg(shuttle)]
        if let Leased::Refused { is_hold_off, ends_at_ms, .. } = leased
            && crate::sync::planted(crate::sync::Fault::WaiterJoinsLate)
        {
            let waiter = shard.lock(&self.shared).writer.leases.join_late(key);
            return Ok(Leased::Refused { is_hold_off, ends_at_ms, waiter });
        }
        Ok(leased)
    }

    /// Ends a lease whose holder will not fill the key.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    pub fn give_back_lease(&self, key: Key<'_>, token: u64) -> Result<(), Error> {
        let (shard, _) = self.shard_of(key)?;
        shard.lock(&self.shared).give_back_lease(key, token);
        Ok(())
    }

    /// Ends the leases of a namespace, before its number is reused.
    pub fn end_leases(&self, namespace: u16) {
        if self.lease_counts().leases > 0 {
            self.shards.iter().for_each(|shard| shard.lock(&self.shared).end_leases(namespace));
        }
    }

    /// Removes the leases whose time is over.
    pub fn expire_leases(&self, now_ms: u64) {
        if self.lease_counts().leases > 0 {
            self.shards.iter().for_each(|shard| shard.lock_as_cleaner(&self.shared).expire_leases(now_ms));
        }
    }

    /// Figures of leases.
    pub fn lease_counts(&self) -> LeaseCounts {
        self.shared.leases.counts()
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
            shard.lock(&self.shared).can_invalidate()?;
        }
        for shard in &self.shards {
            shard.lock(&self.shared).invalidate(group, mark_stale);
        }
        Ok(())
    }

    /// Which namespaces other than the default one hold items or hold-offs, by number. Leases do not count; see
    /// [`Store::end_leases`]. Expired and invalidated items count
    /// until the cleaner drops them.
    pub fn namespaces_in_use(&self) -> Vec<bool> {
        let mut in_use = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock(&self.shared);
            let used = &shard.writer.by_namespace;
            in_use.resize(in_use.len().max(used.len()), false);
            in_use.iter_mut().zip(used).for_each(|(in_use, used)| *in_use |= used.entries > 0);
            for number in shard.writer.leases.held_off_namespaces().map(usize::from) {
                in_use.resize(in_use.len().max(number + 1), false);
                in_use[number] = true;
            }
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
                let mut locked = shard.lock_as_cleaner(&self.shared);
                batches.drain(..).for_each(|batch| locked.commit(&batch, now_ms, tally));
                locked.clean(task, now_ms, tally, looked, &mut stop)
            };
            match step {
                Step::Nothing => return did,
                Step::Done => return true,
                Step::LookAhead(_) if looked && stop() => return true,
                Step::LookAhead(ahead) => {
                    let items = self.shared.look_ahead(&ahead, clean::STRIDE, now_ms);
                    batches = shard.lock_as_cleaner(&self.shared).reserve(&ahead, items);
                    batches.iter().for_each(|batch| self.shared.copy(batch));
                    (did, looked) = (true, true);
                }
                Step::GiveBack(piece) => {
                    self.shared.give_back(&piece);
                    shard.lock_as_cleaner(&self.shared).end_piece(&piece);
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
        self.shards[shard].lock_as_cleaner(&self.shared).writer.opened
    }

    /// Frees the retired segments and maps of a shard that no reader holds any more, for reuse or [`Store::cool`].
    pub fn reclaim(&self, shard: usize) {
        self.shards[shard].lock_as_cleaner(&self.shared).reclaim();
    }

    /// Whether the stored data exceeds the cache of a processor, so that a [prefetch](Self::look_ahead) pays off.
    pub fn outgrows_processor(&self) -> bool {
        self.shared.ledger.total() > PROCESSOR_BYTES
    }

    /// Prefetches the memory that lookups of these keys will read, so that their cache misses overlap. It is only a
    /// hint, meant for some tens of keys at a time.
    pub fn look_ahead<'a>(&self, keys: impl Iterator<Item = Key<'a>>) {
        let hashes: Vec<_> = keys.filter_map(|key| self.shard_of(key).ok()).collect();
        let indexes: Vec<_> = hashes.iter().map(|(shard, hash)| (shard.index(), hash.place())).collect();
        for (index, place) in &indexes {
            index.prefetch(&self.shared.arena, *place);
        }
        for (index, place) in &indexes {
            if let Some(location) = index.candidates(&self.shared.arena, *place).find_map(|(_, slot)| slot.location()) {
                self.shared.prefetch(location);
            }
        }
    }

    /// Returns pages of one freed segment to the kernel, up to the bytes of one step, if more than `keep` segments wait
    /// for reuse. Returns the number of bytes.
    pub fn cool(&self, keep: usize) -> Option<u64> {
        self.shared.cool(keep, COOL_BYTES)
    }

    fn shard_of(&self, key: Key<'_>) -> Result<(&Shard, Hash), Error> {
        if !(1..=MAX_KEY_BYTES).contains(&key.bytes.len()) {
            return Err(Error::KeyLength { len: key.bytes.len(), max: MAX_KEY_BYTES });
        }
        let hash = self.shared.hasher.hash(key);
        Ok((&self.shards[hash.shard(self.shards.len())], hash))
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;

#[cfg(all(test, any(loom, shuttle)))]
mod models;
