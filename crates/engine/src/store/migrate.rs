//! Migration: copying the index of a shard into a larger or smaller one, a few buckets at a time.
//!
//! ```text
//!  index      [■■■■■■■■■■■■■■■■|□□□□□□□□]   readers read here until the end
//!                        cursor┘
//!  next       [▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪]   ──publish──► the index of the next map
//! ```
//! G1. Readers see only the old index until the new one is complete and published.
//! G2. A slot whose bucket the cursor has passed is in both indexes, and a writer changes it in both. A slot that the
//!     cursor has not reached is in the old index alone.
//! G3. During a migration no slot moves between buckets of the old index; otherwise the cursor could miss it.
//! G4. The `Place` of a key is computed from bucket and tag. No key is read, so the cost of a step depends only on the
//!     number of its slots.
//!
//! Writers help: each write copies a few buckets, so a migration ends even if the cleaner gets no CPU time.

use super::arena::WORD_BYTES;
use super::bank::{BANKS, Bank, Migration, Piece};
use super::index::{BUCKET_SLOTS, Index, MIN_BUCKETS, Position};
use super::ledger::Account;
use super::shard::Locked;
use super::shared::Shared;
use super::slot::{Location, Place, Slot};
use super::types::Error;
use crate::sync::atomic::Ordering;
use crate::sync::{Fault, planted};

/// The index grows when more of its slots are wanted, in percent.
const FULL_PERCENT: u64 = 88;
/// It shrinks when fewer are wanted and nothing more urgent is to be done, in percent.
const SPARSE_PERCENT: u64 = 55;
/// It shrinks when fewer are wanted while callers write, in percent. This is lower because each of a series of
/// migrations copies all slots.
const HOLLOW_PERCENT: u64 = 30;
/// The fill for which a new index is sized, in percent.
const FILL_PERCENT: u64 = 79;
/// Maximum ghosts for which an evicting shard makes room, in percent of its items.
const GHOST_PERCENT: u64 = 100;
/// Buckets that each write copies to the new index.
const HELP_BUCKETS: u32 = 8;

impl Shared {
    /// Returns a piece of a bank to the kernel. Needs no lock: no thread uses the bank meanwhile.
    pub(super) fn give_back(&self, piece: &Piece) {
        self.arena.release(piece.first..piece.first + piece.bytes as usize / WORD_BYTES);
        self.ledger.release(Account::Index, piece.bytes);
    }
}

impl Locked<'_> {
    pub(super) fn entries(&self) -> u64 {
        self.shard.counts.entries.load(Ordering::Relaxed)
    }

    /// Slots that the shard wants: one per item, and one per eviction for ghosts, up to [`GHOST_PERCENT`].
    fn wanted_slots(&self) -> u64 {
        let (entries, evictions) = (self.entries(), self.shard.counts.evictions.load(Ordering::Relaxed));
        entries + evictions.min(entries * GHOST_PERCENT / 100)
    }

    fn buckets_for(&self, wanted: u64) -> u32 {
        let slots = wanted * 100 / FILL_PERCENT;
        (slots / BUCKET_SLOTS as u64 + 1).clamp(u64::from(MIN_BUCKETS), self.most_buckets().into()) as u32
    }

    /// The number of buckets that fit a bank.
    fn most_buckets(&self) -> u32 {
        (self.shared.bank_words / BUCKET_SLOTS) as u32
    }

    /// The number of buckets to which a full index grows; `None` if the bank has no room for more.
    fn larger(&self) -> Option<u32> {
        let now = self.writer.index.buckets;
        let larger = self.buckets_for(self.wanted_slots()).max(now + now / 8).min(self.most_buckets());
        (larger > now).then_some(larger)
    }

    /// Advances a running migration, or starts one if the index is too full.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if room must be made for the new index. Like any write, it makes room by evicting items.
    pub(super) fn tend_index(&mut self) -> Result<(), Error> {
        if self.writer.migration.is_some() {
            self.migrate_some(HELP_BUCKETS);
        } else if self.wanted_slots() * 100 > self.writer.index.slots() * FULL_PERCENT {
            let Some(buckets) = self.larger() else { return Ok(()) };
            let (ledger, bytes) = (&self.shared.ledger, Index { base: 0, buckets }.resident_bytes());
            // A full index evicts one item per insertion, which is better than refusing writes.
            if !ledger.could_hold(bytes) || self.begin_migration_with_room(buckets) {
                return Ok(());
            }
            if self.grows_index && !ledger.has_room(bytes) {
                return Err(self.no_room(bytes));
            }
        }
        Ok(())
    }

    /// Starts a migration if the ledger has room for it, after returning free memory to the kernel.
    fn begin_migration_with_room(&mut self, buckets: u32) -> bool {
        let bytes = Index { base: 0, buckets }.resident_bytes();
        self.reclaim();
        let gives_back = |this: &mut Self| this.clean_bank(u64::MAX) || this.shared.cool(0, u64::MAX).is_some();
        while !self.shared.ledger.has_room(bytes) && gives_back(self) {}
        self.shared.ledger.has_room(bytes) && self.begin_migration(buckets)
    }

    /// Starts a migration to a smaller index if few slots are wanted (while `busy`: very few). Returns whether it did.
    pub(super) fn shrink_index(&mut self, busy: bool) -> bool {
        let bound = if busy { HOLLOW_PERCENT } else { SPARSE_PERCENT };
        let target = self.buckets_for(self.wanted_slots());
        let sparse = self.wanted_slots() * 100 < self.writer.index.slots() * bound;
        self.writer.migration.is_none() && sparse && target < self.writer.index.buckets && self.begin_migration(target)
    }

    /// Starts a migration; `false` if no other bank is free, or the size would not change.
    pub(super) fn begin_migration(&mut self, buckets: u32) -> bool {
        if buckets == self.writer.index.buckets {
            return false;
        }
        self.reclaim();
        while self.clean_bank(u64::MAX) {}
        let Some(bank) = self.writer.banks.iter().position(|bank| *bank == Bank::Clean) else { return false };
        self.writer.banks[bank] = Bank::InUse;
        let next = Index { base: self.bank_base(bank), buckets };
        // Forced: callers that can wait have made room for it. An insertion into two full buckets cannot wait.
        self.shared.ledger.force(Account::Index, next.resident_bytes());
        self.writer.migration = Some(Migration { next, cursor: 0 });
        true
    }

    /// The first word of a bank.
    fn bank_base(&self, bank: usize) -> usize {
        (self.shard.number as usize * BANKS + bank) * self.shared.bank_words
    }

    /// Copies some buckets to the new index, and publishes it after the last one. Returns whether a migration was
    /// running.
    pub(super) fn migrate_some(&mut self, buckets: u32) -> bool {
        let Some(Migration { next, cursor }) = self.writer.migration else { return false };
        let index = self.writer.index;
        let end = index.buckets.min(cursor.saturating_add(buckets));
        for bucket in cursor..end {
            for (at, slot) in index.occupied(&self.shared.arena, bucket..bucket + 1) {
                let place = index.place_of(bucket, slot);
                if slot.location().is_none() {
                    self.carry_ghost(next, place, slot);
                } else if !self.carry_over(next, place, slot) {
                    // No free slot in an emptier index is so unlikely that a cache may drop the item.
                    self.drop_at(at);
                }
            }
        }
        self.writer.migration = Some(Migration { next, cursor: end });
        if end == index.buckets {
            self.end_migration(next);
        }
        true
    }

    /// Inserts an item into the new index, which no reader sees yet; `false` if no slot can be freed in its two
    /// buckets.
    fn carry_over(&self, next: Index, place: Place, slot: Slot) -> bool {
        let arena = &self.shared.arena;
        let time = self.ghost_time();
        let vacancy = || next.vacancy(arena, place, |when| time.wrapping_sub(when));
        let made = || {
            for (from, to) in next.displacement(arena, place) {
                next.move_to_other(arena, from, to);
            }
            vacancy()
        };
        match vacancy().or_else(made) {
            Some((at, other)) => next.store(arena, at, slot.with_other(other)),
            None => return false,
        }
        true
    }

    fn carry_ghost(&mut self, next: Index, place: Place, slot: Slot) {
        let arena = &self.shared.arena;
        if self.is_fresh(slot)
            && let Some((at, other)) = next.vacancy(arena, place, |_| 0)
            && next.load(arena, at).is_empty()
        {
            next.store(arena, at, slot.with_other(other));
        }
    }

    /// Whether the item of a ghost left within one turnover of the shard's items.
    pub(super) fn is_fresh(&self, slot: Slot) -> bool {
        self.ghost_age(slot) <= self.entries() + 64
    }

    /// Removals since that of a ghost, to within 64.
    pub(super) fn ghost_age(&self, slot: Slot) -> u64 {
        slot.removal().map_or(u64::MAX, |(_, when)| u64::from(self.ghost_time().wrapping_sub(when)) * 64)
    }

    fn end_migration(&mut self, next: Index) {
        let old = self.writer.index;
        let bank = old.base / self.shared.bank_words % BANKS;
        self.writer.index = next;
        self.writer.banks[bank] = Bank::Held(old.resident_bytes());
        self.writer.migration = None;
        self.publish();
    }

    /// Returns up to `most` bytes of a bank that a migration left to the kernel. Returns whether there was such a bank.
    pub(super) fn clean_bank(&mut self, most: u64) -> bool {
        let resident = |(bank, state): (usize, &Bank)| match state {
            Bank::Dirty(bytes) | Bank::Leaving(bytes @ 1..) => Some((bank, *bytes)),
            _ => None,
        };
        let Some((bank, bytes)) = self.writer.banks.iter().enumerate().find_map(resident) else { return false };
        let left_bytes = bytes.saturating_sub(most);
        self.shared.give_back(&self.piece(bank, left_bytes, bytes));
        let state = &mut self.writer.banks[bank];
        *state = match (*state, left_bytes) {
            (Bank::Leaving(_), _) => Bank::Leaving(left_bytes),
            (_, 0) => Bank::Clean,
            _ => Bank::Dirty(left_bytes),
        };
        true
    }

    /// Takes up to `most` bytes of an old bank, to be [returned to the kernel](Shared::give_back) without the lock. The
    /// bank is not clean until [`Self::end_piece`], so this requires another clean bank: the index must be able to grow
    /// meanwhile.
    pub(super) fn take_piece(&mut self, most: u64) -> Option<Piece> {
        let banks = &self.writer.banks;
        let dirty = |(bank, state): (usize, &Bank)| match state {
            Bank::Dirty(bytes) => Some((bank, *bytes)),
            _ => None,
        };
        let (bank, bytes) = banks.iter().enumerate().find_map(dirty).filter(|_| banks.contains(&Bank::Clean))?;
        let left_bytes = bytes.saturating_sub(most);
        self.writer.banks[bank] = Bank::Leaving(left_bytes);
        Some(self.piece(bank, left_bytes, bytes))
    }

    /// The piece between two offsets in a bank, in bytes.
    fn piece(&self, bank: usize, from_bytes: u64, to_bytes: u64) -> Piece {
        let first = self.bank_base(bank) + from_bytes as usize / WORD_BYTES;
        Piece { bank, first, bytes: to_bytes - from_bytes }
    }

    /// Ends what [`Self::take_piece`] began, after the piece was returned to the kernel.
    pub(super) fn end_piece(&mut self, piece: &Piece) {
        let state = &mut self.writer.banks[piece.bank];
        *state = match *state {
            Bank::Leaving(0) => Bank::Clean,
            Bank::Leaving(left_bytes) => Bank::Dirty(left_bytes),
            other => unreachable!("a bank that is being given back is {other:?}"),
        };
    }

    /// The new index, if it also contains the slot at `at` (G2).
    fn mirror(&self, at: Position) -> Option<Index> {
        let Migration { next, cursor } = self.writer.migration?;
        (Index::bucket(at) < cursor && !planted(Fault::WriteOneSide)).then_some(next)
    }

    /// Replaces the slot of the item at location `from`.
    pub(super) fn replace_slot(&mut self, at: Position, place: Place, from: Location, slot: Slot) {
        let arena = &self.shared.arena;
        if let Some(next) = self.mirror(at)
            && let Some((at, there)) = next.position_of(arena, place, from)
        {
            next.store(arena, at, slot.with_other(there.is_other()));
        }
        let is_other = self.writer.index.load(arena, at).is_other();
        self.writer.index.store(arena, at, slot.with_other(is_other));
    }

    /// Removes the slot of the item at location `from`, and stores `instead` (empty or a ghost).
    pub(super) fn remove_slot(&mut self, at: Position, place: Place, from: Location, instead: Slot) {
        let arena = &self.shared.arena;
        if let Some(next) = self.mirror(at)
            && let Some((at, there)) = next.position_of(arena, place, from)
        {
            let instead = if instead.is_empty() { instead } else { instead.with_other(there.is_other()) };
            next.store(arena, at, instead);
        }
        let is_other = self.writer.index.load(arena, at).is_other();
        let instead = if instead.is_empty() { instead } else { instead.with_other(is_other) };
        self.writer.index.store(arena, at, instead);
    }

    /// Inserts the slot of an item whose key has none, which makes the item visible.
    pub(super) fn insert_slot(&mut self, place: Place, location: Location, reads: u8) {
        let slot = Slot::item(place.tag(), location).with_reads(reads);
        loop {
            let (arena, index, time) = (&self.shared.arena, self.writer.index, self.ghost_time());
            if let Some((at, other)) = index.vacancy(arena, place, |when| time.wrapping_sub(when)) {
                match self.mirror(at) {
                    Some(next) if !self.carry_over(next, place, slot) => self.migrate_some(u32::MAX),
                    _ => return index.store(arena, at, slot.with_other(other)),
                };
                continue;
            }
            if self.writer.migration.is_some() {
                self.migrate_some(u32::MAX); // G3 forbids a displacement; the new index has room
                continue;
            }
            let moves = index.displacement(arena, place);
            if !moves.is_empty() {
                for (from, to) in moves {
                    self.displace(|this| index.move_to_other(&this.shared.arena, from, to));
                }
            } else if self.larger().is_some_and(|buckets| self.begin_migration(buckets)) {
                self.migrate_some(u32::MAX);
            } else {
                let at = index.coldest(arena, place);
                self.drop_at(at);
            }
        }
    }
}
