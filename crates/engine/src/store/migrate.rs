//! Migration: the index of a shard moves to a larger or smaller one, a few buckets at a time.
//!
//! ```text
//!  index      [■■■■■■■■■■■■■■■■|□□□□□□□□]   readers read here until the end
//!                        cursor┘
//!  next       [▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪]   ──publish──► the index of the next map
//! ```
//! G1. Readers see only the old index until the new one is complete and published.
//! G2. A slot whose bucket the cursor has passed is in both; whoever changes it in one changes it in the other. A slot
//!     before the cursor is in the old index alone.
//! G3. During a migration no slot moves between buckets of the old index, or it could slip past the cursor.
//! G4. Places are computed from buckets and tags: no key is read, so a step costs what its slots cost.
//!
//! Writers help: each write moves a few buckets on, so a migration ends whether or not the cleaner gets the CPU.

use super::arena::WORD_BYTES;
use super::bank::{BANKS, Bank, Migration, Piece};
use super::ground::Ground;
use super::index::{BUCKET_SLOTS, Index, MIN_BUCKETS, Position};
use super::ledger::Account;
use super::shard::Locked;
use super::slot::{Location, Place, Slot};
use super::types::Error;
use crate::sync::atomic::Ordering;
use crate::sync::{Fault, planted};

/// The index grows when this share of its slots holds items, in percent.
const FULL_PERCENT: u64 = 88;
/// It shrinks when fewer do, and nothing more urgent is to be done.
const SPARSE_PERCENT: u64 = 55;
/// It shrinks when fewer do even while callers delete: each migration on the way down costs all its slots.
const HOLLOW_PERCENT: u64 = 30;
/// A new index is made for this share.
const FILL_PERCENT: u64 = 79;
/// Ghosts an evicting shard makes room for, in percent of its items.
const GHOST_PERCENT: u64 = 100;
/// Buckets that a write carries over.
const HELP_BUCKETS: u32 = 8;

impl Ground {
    /// Gives a piece of a bank back. Needs no lock: nobody uses the bank meanwhile.
    pub(super) fn give_back(&self, piece: &Piece) {
        self.arena.release(piece.first..piece.first + piece.bytes as usize / WORD_BYTES);
        self.ledger.release(Account::Index, piece.bytes);
    }
}

impl Locked<'_> {
    pub(super) fn entries(&self) -> u64 {
        self.shard.counts.entries.load(Ordering::Relaxed)
    }

    /// Slots that the shard has use for: its items, and ghosts for as many as it lately evicted.
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
        (self.ground.bank_words / BUCKET_SLOTS) as u32
    }

    /// The number of buckets that a full index grows to; `None` when the bank has no room for more.
    fn larger(&self) -> Option<u32> {
        let now = self.writer.index.buckets;
        let larger = self.buckets_for(self.wanted_slots()).max(now + now / 8).min(self.most_buckets());
        (larger > now).then_some(larger)
    }

    /// Helps a migration along, and starts one when the index is too full.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when room must be made for the new index: it takes that of items, as any other write.
    pub(super) fn tend_index(&mut self) -> Result<(), Error> {
        if self.writer.migration.is_some() {
            self.migrate_some(HELP_BUCKETS);
        } else if self.wanted_slots() * 100 > self.writer.index.slots() * FULL_PERCENT {
            let Some(buckets) = self.larger() else { return Ok(()) };
            let (ledger, bytes) = (&self.ground.ledger, Index { base: 0, buckets }.resident_bytes());
            // A full index evicts one item for each insertion: that is better than refusing writes.
            if !ledger.could_hold(bytes) || self.begin_migration_with_room(buckets) {
                return Ok(());
            }
            if self.grows_index && !ledger.has_room(bytes) {
                return Err(self.no_room(bytes));
            }
        }
        Ok(())
    }

    /// Starts a migration if the ledger has room for it, with what waits for reuse.
    fn begin_migration_with_room(&mut self, buckets: u32) -> bool {
        let bytes = Index { base: 0, buckets }.resident_bytes();
        self.reclaim();
        let gives_back = |this: &mut Self| this.clean_bank(u64::MAX) || this.ground.cool(0, u64::MAX).is_some();
        while !self.ground.ledger.has_room(bytes) && gives_back(self) {}
        self.ground.ledger.has_room(bytes) && self.begin_migration(buckets)
    }

    /// Starts a migration to a smaller index if few slots are used, or very few while `busy`; says whether it did.
    pub(super) fn shrink_index(&mut self, busy: bool) -> bool {
        let bound = if busy { HOLLOW_PERCENT } else { SPARSE_PERCENT };
        let target = self.buckets_for(self.wanted_slots());
        let sparse = self.wanted_slots() * 100 < self.writer.index.slots() * bound;
        self.writer.migration.is_none() && sparse && target < self.writer.index.buckets && self.begin_migration(target)
    }

    /// Starts a migration; `false` when readers hold all other banks.
    pub(super) fn begin_migration(&mut self, buckets: u32) -> bool {
        if buckets == self.writer.index.buckets {
            return false;
        }
        self.reclaim();
        while self.clean_bank(u64::MAX) {}
        let Some(bank) = self.writer.banks.iter().position(|bank| *bank == Bank::Clean) else { return false };
        self.writer.banks[bank] = Bank::InUse;
        let next = Index { base: self.bank_base(bank), buckets };
        // Forced: room was made for it where room can be made; an insertion that finds both its buckets full cannot wait.
        self.ground.ledger.force(Account::Index, next.resident_bytes());
        self.writer.migration = Some(Migration { next, cursor: 0 });
        true
    }

    /// The first word of a bank.
    fn bank_base(&self, bank: usize) -> usize {
        (self.shard.number as usize * BANKS + bank) * self.ground.bank_words
    }

    /// Carries some buckets over; publishes when the last one was. Says whether there was something to do.
    pub(super) fn migrate_some(&mut self, buckets: u32) -> bool {
        let Some(Migration { next, cursor }) = self.writer.migration else { return false };
        let index = self.writer.index;
        let end = index.buckets.min(cursor.saturating_add(buckets));
        for bucket in cursor..end {
            for (at, slot) in index.occupied(&self.ground.arena, bucket..bucket + 1) {
                let place = index.place_of(bucket, slot);
                if slot.location().is_none() {
                    self.carry_ghost(next, place, slot);
                } else if !self.carry_over(next, place, slot) {
                    // No place in an emptier index: so unlikely that a cache may answer it by forgetting the item.
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

    /// Enters an item in the new index, which nobody reads yet; `false` when both its buckets are full for good.
    fn carry_over(&self, next: Index, place: Place, slot: Slot) -> bool {
        let arena = &self.ground.arena;
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
        let arena = &self.ground.arena;
        if self.is_fresh(slot)
            && let Some((at, other)) = next.vacancy(arena, place, |_| 0)
            && next.load(arena, at).is_empty()
        {
            next.store(arena, at, slot.with_other(other));
        }
    }

    /// A ghost that departed within one turnover of the shard's items.
    pub(super) fn is_fresh(&self, slot: Slot) -> bool {
        self.ghost_age(slot) <= self.entries() + 64
    }

    /// Departures since that of a ghost, to within 64.
    pub(super) fn ghost_age(&self, slot: Slot) -> u64 {
        slot.removal().map_or(u64::MAX, |(_, when)| u64::from(self.ghost_time().wrapping_sub(when)) * 64)
    }

    fn end_migration(&mut self, next: Index) {
        let old = self.writer.index;
        let bank = old.base / self.ground.bank_words % BANKS;
        self.writer.index = next;
        self.writer.banks[bank] = Bank::Held(old.resident_bytes());
        self.writer.migration = None;
        self.publish();
    }

    /// Gives back up to `most` bytes of a bank that a migration left; says whether there was something to do.
    pub(super) fn clean_bank(&mut self, most: u64) -> bool {
        let resident = |(bank, state): (usize, &Bank)| match state {
            Bank::Dirty(bytes) | Bank::Leaving(bytes @ 1..) => Some((bank, *bytes)),
            _ => None,
        };
        let Some((bank, bytes)) = self.writer.banks.iter().enumerate().find_map(resident) else { return false };
        let left_bytes = bytes.saturating_sub(most);
        self.ground.give_back(&self.piece(bank, left_bytes, bytes));
        let state = &mut self.writer.banks[bank];
        *state = match (*state, left_bytes) {
            (Bank::Leaving(_), _) => Bank::Leaving(left_bytes),
            (_, 0) => Bank::Clean,
            _ => Bank::Dirty(left_bytes),
        };
        true
    }

    /// Takes up to `most` bytes of an old bank, to be [returned to the kernel](Ground::give_back) without the lock. The bank
    /// is not clean until [`Self::end_piece`], so this needs another clean bank: the index must be able to grow meanwhile.
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

    /// What lies between two distances from the beginning of a bank, in bytes.
    fn piece(&self, bank: usize, from_bytes: u64, to_bytes: u64) -> Piece {
        let first = self.bank_base(bank) + from_bytes as usize / WORD_BYTES;
        Piece { bank, first, bytes: to_bytes - from_bytes }
    }

    /// A piece was given back.
    pub(super) fn end_piece(&mut self, piece: &Piece) {
        let state = &mut self.writer.banks[piece.bank];
        *state = match *state {
            Bank::Leaving(0) => Bank::Clean,
            Bank::Leaving(left_bytes) => Bank::Dirty(left_bytes),
            other => unreachable!("a bank that is being given back is {other:?}"),
        };
    }

    /// The other index, if the slot at `at` stands in it too (G2).
    fn mirror(&self, at: Position) -> Option<Index> {
        let Migration { next, cursor } = self.writer.migration?;
        (Index::bucket(at) < cursor && !planted(Fault::WriteOneSide)).then_some(next)
    }

    /// Replaces the slot of an item that is at `from` now.
    pub(super) fn replace_slot(&mut self, at: Position, place: Place, from: Location, slot: Slot) {
        let arena = &self.ground.arena;
        if let Some(next) = self.mirror(at)
            && let Some((at, there)) = next.position_of(arena, place, from)
        {
            next.store(arena, at, slot.with_other(there.is_other()));
        }
        let is_other = self.writer.index.load(arena, at).is_other();
        self.writer.index.store(arena, at, slot.with_other(is_other));
    }

    /// Takes away the slot of an item that is at `from` now, and leaves `instead` (empty or a ghost).
    pub(super) fn remove_slot(&mut self, at: Position, place: Place, from: Location, instead: Slot) {
        let arena = &self.ground.arena;
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

    /// Makes an item visible that has no slot yet.
    pub(super) fn insert_slot(&mut self, place: Place, location: Location, reads: u8) {
        let slot = Slot::item(place.tag(), location).with_reads(reads);
        loop {
            let (arena, index, time) = (&self.ground.arena, self.writer.index, self.ghost_time());
            if let Some((at, other)) = index.vacancy(arena, place, |when| time.wrapping_sub(when)) {
                match self.mirror(at) {
                    Some(next) if !self.carry_over(next, place, slot) => self.migrate_some(u32::MAX),
                    _ => return index.store(arena, at, slot.with_other(other)),
                };
                continue;
            }
            if self.writer.migration.is_some() {
                self.migrate_some(u32::MAX); // then there is room (G3: nothing may be displaced before)
                continue;
            }
            let moves = index.displacement(arena, place);
            if !moves.is_empty() {
                for (from, to) in moves {
                    self.displace(|this| index.move_to_other(&this.ground.arena, from, to));
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
