//! The operations of callers that change a shard: set, delete, touch, update, invalidate, lease. One writer per shard at a
//! time.
//!
//! A write first appends room for the item, then writes the item, and last publishes it by one store of a slot. Then it
//! marks the replaced item dead. Without room it changes nothing; the store makes room and runs it again.

use super::counts::{add, sub};
use super::expiry;
use super::hash::Hash;
use super::invalidation::Invalidation;
use super::item::{Draft, Facts, MAX_DEADLINE_MS};
use super::lease::{LeaseRequest, Leased, MAX_LEASES};
use super::log::{Log, Tail};
use super::segment::Segment;
use super::shard::{Found, Locked, Writer};
use super::slot::{Location, RemovalCause, Slot};
use super::stats::NamespaceUse;
use super::types::{Attributes, Condition, DeleteOutcome, Deletion, Error, Group, Item, Key, SetOutcome, Update};
use crate::sync::atomic::Ordering;
use crate::sync::{Fault, planted};

/// Maximum invalidations of a shard that wait for their sweep.
const MAX_INVALIDATIONS: usize = 64;

/// A value to store, and its condition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Put<'a> {
    pub(super) value: &'a [u8],
    pub(super) attributes: Attributes,
    pub(super) condition: Condition,
    pub(super) keep_deadline: bool,
}

/// The same facts with another deadline, and the octave of the time from now until then.
fn with_deadline(facts: Facts, deadline_ms: u64, now_ms: u64) -> Facts {
    let deadline_ms = deadline_ms.min(MAX_DEADLINE_MS);
    let ttl_octave = if deadline_ms == 0 { 0 } else { expiry::octave(deadline_ms, now_ms) };
    Facts { attributes: Attributes { deadline_ms, ..facts.attributes }, ttl_octave, ..facts }
}

impl Locked<'_> {
    /// See [`super::Store::set`].
    pub(super) fn set(&mut self, key: Key<'_>, hash: Hash, put: Put<'_>, now_ms: u64) -> Result<SetOutcome, Error> {
        let Put { value, mut attributes, condition, keep_deadline } = put;
        let present = self.find_servable(key, hash, now_ms).ok().map(|(found, _)| found.facts);
        let version = present.map_or(0, |facts| facts.version);
        // A negative entry has a version and no value.
        let has_value = present.is_some_and(|facts| !facts.attributes.negative);
        match condition {
            Condition::Absent if has_value => return Ok(SetOutcome::NotStored(version)),
            Condition::Present if !has_value => return Ok(SetOutcome::NotStored(version)),
            Condition::Version(wanted) if wanted != version => return Ok(SetOutcome::Conflict(version)),
            Condition::Lease(token) if !self.writer.leases.is_current(key, token, now_ms) => {
                return Ok(SetOutcome::LeaseLost(version));
            }
            _ => {}
        }
        if let (true, Some(facts)) = (keep_deadline, present) {
            attributes.deadline_ms = facts.attributes.deadline_ms;
        }
        let facts = self.new_facts(key, attributes, false, now_ms);
        let version = self.store(key, hash, value, facts, false)?;
        self.end_lease(key);
        Ok(SetOutcome::Stored(version))
    }

    /// See [`super::Store::update`].
    pub(super) fn update<R>(
        &mut self,
        key: Key<'_>,
        hash: Hash,
        now_ms: u64,
        decide: impl FnOnce(Option<&Item>) -> (Update, R),
        max_value_bytes: usize,
    ) -> Result<(R, Option<u64>), Error> {
        let present = self.find_servable(key, hash, now_ms).ok().map(|(found, stale)| self.item(&found, stale));
        let (update, answer) = decide(present.as_ref());
        match update {
            Update::Keep => Ok((answer, None)),
            Update::Store { value, .. } if value.len() > max_value_bytes => {
                Err(Error::ValueTooLarge { len: value.len(), max: max_value_bytes })
            }
            Update::Store { value, attributes } => {
                // A value computed from a stale one is stale as well; a negative entry has no value.
                let stale = present.is_some_and(|item| item.marked_stale && !item.attributes.negative);
                let facts = self.new_facts(key, attributes, stale, now_ms);
                let version = self.store(key, hash, &value, facts, false)?;
                self.end_lease(key);
                Ok((answer, Some(version)))
            }
        }
    }

    /// See [`super::Store::delete`].
    pub(super) fn delete(
        &mut self,
        key: Key<'_>,
        hash: Hash,
        if_version: Option<u64>,
        deletion: Deletion,
        now_ms: u64,
    ) -> Result<DeleteOutcome, Error> {
        let found = self.find_servable(key, hash, now_ms).ok().map(|(found, _)| found);
        if let (Some(found), Some(wanted)) = (&found, if_version)
            && wanted != found.facts.version
        {
            return Ok(DeleteOutcome::Conflict(found.facts.version));
        }
        match deletion {
            Deletion::Tombstone { until_ms } => self.hold_off(key, until_ms, now_ms)?,
            Deletion::Remove | Deletion::MarkStale => self.end_lease(key),
        }
        let Some(found) = found else { return Ok(DeleteOutcome::NotFound) };
        add(&self.shard.counts.deletes, 1);
        Ok(match deletion {
            Deletion::Remove | Deletion::Tombstone { .. } => {
                self.remove_slot(found.at, hash.place(), found.location, Slot::EMPTY);
                self.mark_dead(found.location);
                DeleteOutcome::Deleted(0)
            }
            Deletion::MarkStale => {
                self.shared.view(found.location).mark_stale();
                DeleteOutcome::Deleted(found.facts.version)
            }
        })
    }

    /// See [`super::Store::lease`].
    pub(super) fn lease(&mut self, key: Key<'_>, hash: Hash, request: LeaseRequest, now_ms: u64) -> Leased {
        let found = self.find_servable(key, hash, now_ms);
        let is_fresh = |(found, stale): (Found, bool)| found.without_value(stale).stale_for_ms(now_ms).is_none();
        if found.is_ok_and(is_fresh) {
            return Leased::Fresh;
        }
        if planted(Fault::SecondLease) {
            self.end_lease(key);
        }
        self.writer.leases.request(key, request, now_ms, &mut self.ended)
    }

    /// See [`super::Store::give_back_lease`].
    pub(super) fn give_back_lease(&mut self, key: Key<'_>, token: u64) {
        self.writer.leases.give_back(key, token, &mut self.ended);
    }

    /// See [`super::Store::end_leases`].
    pub(super) fn end_leases(&mut self, namespace: u16) {
        self.writer.leases.end_group(namespace, &[], &mut self.ended);
    }

    /// See [`super::Store::expire_leases`].
    pub(super) fn expire_leases(&mut self, now_ms: u64) {
        self.writer.leases.expire(now_ms, &mut self.ended);
    }

    /// Ends the key's lease (E2 in [`super::lease`]).
    fn end_lease(&mut self, key: Key<'_>) {
        if !self.writer.leases.is_empty() && !planted(Fault::WriteKeepsLease) {
            self.writer.leases.end(key, &mut self.ended);
        }
    }

    /// Ends the key's lease, and refuses others until a time.
    fn hold_off(&mut self, key: Key<'_>, until_ms: u64, now_ms: u64) -> Result<(), Error> {
        match self.writer.leases.hold_off(key, until_ms, now_ms, &mut self.ended) {
            true => Ok(()),
            false => {
                let leases = self.shared.leases.counts().leases;
                Err(Error::TooManyLeases { leases, max: MAX_LEASES })
            }
        }
    }

    /// See [`super::Store::touch`].
    pub(super) fn touch(
        &mut self,
        key: Key<'_>,
        hash: Hash,
        deadline_ms: u64,
        now_ms: u64,
    ) -> Result<Option<u64>, Error> {
        let Ok((found, stale)) = self.find_servable(key, hash, now_ms) else { return Ok(None) };
        let facts = with_deadline(found.facts, deadline_ms, now_ms);
        if self.shared.view(found.location).set_deadline(deadline_ms, facts.ttl_octave) {
            let segment = self.segment_mut(found.location);
            segment.dismiss(found.header.words(), &found.facts);
            segment.admit(found.header.words(), &facts);
            return Ok(Some(found.facts.version));
        }
        // The item has no word for a deadline, so it is rewritten under its present version.
        let value = self.item(&found, stale).value;
        self.store(key, hash, &value, Facts { marked_stale: stale, ..facts }, true)?;
        Ok(Some(facts.version))
    }

    /// The facts of a new write.
    fn new_facts(&self, key: Key<'_>, attributes: Attributes, marked_stale: bool, now_ms: u64) -> Facts {
        let version = self.version() + 1;
        let facts = Facts { version, attributes, marked_stale, namespace: key.namespace, ttl_octave: 0 };
        with_deadline(facts, attributes.deadline_ms, now_ms)
    }

    /// Writes an item and publishes it in place of an existing one. With `as_is` it is a rewrite that keeps the
    /// version.
    fn store(&mut self, key: Key<'_>, hash: Hash, value: &[u8], facts: Facts, as_is: bool) -> Result<u64, Error> {
        self.tend_index()?;
        let draft = Draft { key: key.bytes, value, facts, versioned: self.sweeping() };
        if !as_is
            && let Some(found) = self.find(key, hash)
            && draft.fits_in_place(found.header)
            && !self.wastes_pages(&found, draft.words())
        {
            return Ok(self.overwrite(&found, draft));
        }

        let words = draft.words();
        let log = self.log_for(key, hash);
        let (location, place) = (self.append_or_refuse(Tail { log, moved: false }, words)?, hash.place());
        let draft = match as_is {
            true => draft,
            false => Draft { facts: Facts { version: self.next_version(), ..facts }, ..draft },
        };
        if !planted(Fault::SlotBeforeBytes) {
            draft.write(self.shared.arena.words(self.shared.range(location, words)));
        }
        match self.find(key, hash).filter(|_| !planted(Fault::InsertUnlooked)) {
            Some(old) => {
                self.replace_slot(old.at, place, old.location, old.slot.with_location(location));
                self.mark_dead(old.location);
            }
            None => self.insert_slot(place, location, 0),
        }
        if planted(Fault::SlotBeforeBytes) {
            draft.write(self.shared.arena.words(self.shared.range(location, words)));
        }
        self.count_live(location, &facts, words, key.bytes.len() + value.len());
        let counts = &self.shard.counts;
        add(&counts.appended_bytes, words * super::arena::WORD_BYTES);
        add(&counts.sets, 1);
        Ok(draft.facts.version)
    }

    /// Whether an invalidation waits for the end of its sweep. Until then every write stores its full version.
    fn sweeping(&self) -> bool {
        !self.writer.invalidations.is_empty() && !planted(Fault::SweepUnversioned)
    }

    /// Whether an overwrite in place would waste pages for good: an item in a segment of its own is never compacted, so
    /// the rest that a shorter value leaves is never freed.
    fn wastes_pages(&self, found: &Found, words: usize) -> bool {
        words < found.header.words() && self.shared.pool.is_alone(found.header.words())
    }

    fn overwrite(&mut self, found: &Found, draft: Draft<'_>) -> u64 {
        let version = self.next_version();
        let draft = Draft { facts: Facts { version, ..draft.facts }, ..draft };
        draft.overwrite(self.shared.arena.words(self.shared.range(found.location, found.header.words())));
        let (words, payload) = (draft.words(), draft.key.len() + draft.value.len());
        let cut_off = found.header.words() - words;
        let segment = self.segment_mut(found.location);
        segment.dismiss(found.header.words(), &found.facts);
        segment.admit(words, &draft.facts);
        if draft.facts.namespace != 0 {
            let used = self.namespace_mut(draft.facts.namespace);
            used.live_bytes = used.live_bytes + payload as u64 - found.header.payload_bytes() as u64;
        }
        let counts = &self.shard.counts;
        add(&counts.live_bytes, payload);
        sub(&counts.live_bytes, found.header.payload_bytes());
        sub(&counts.live_words, cut_off);
        add(&counts.died_bytes, cut_off * super::arena::WORD_BYTES);
        add(&counts.appended_bytes, words * super::arena::WORD_BYTES);
        add(&counts.sets, 1);
        version
    }

    /// The log for a new item: that of the item it replaces. A key that comes back soon after its eviction goes to the
    /// main log, any other to the nursery.
    fn log_for(&mut self, key: Key<'_>, hash: Hash) -> Log {
        if let Some(found) = self.find(key, hash) {
            return self.writer.segments[&found.location.segment()].log;
        }
        let mut slots = self.writer.index.candidates(&self.shared.arena, hash.place());
        let evicted = |slot: Slot| matches!(slot.removal(), Some((RemovalCause::Evicted, _)));
        let Some((_, ghost)) = slots.find(|(_, slot)| evicted(*slot) && self.is_fresh(*slot)) else {
            return Log::Nursery;
        };
        let (age, entries) = (self.ghost_age(ghost), self.entries());
        let Writer { nursery, main_removals, removals, .. } = &mut *self.writer;
        nursery.learn(ghost.removed_from(), age, entries, *main_removals, *removals);
        Log::Main
    }

    /// The segment that contains an item.
    pub(super) fn segment_mut(&mut self, at: Location) -> &mut Segment {
        self.writer.segments.get_mut(&at.segment()).expect("an item is in a segment")
    }

    /// The counts of a namespace.
    pub(super) fn namespace_mut(&mut self, namespace: u16) -> &mut NamespaceUse {
        let (by_namespace, number) = (&mut self.writer.by_namespace, usize::from(namespace));
        by_namespace.resize(by_namespace.len().max(number + 1), NamespaceUse::default());
        &mut by_namespace[number]
    }

    /// Counts an item that has just become visible.
    fn count_live(&mut self, at: Location, facts: &Facts, words: usize, payload: usize) {
        if facts.namespace != 0 {
            let used = self.namespace_mut(facts.namespace);
            used.entries += 1;
            used.live_bytes += payload as u64;
        }
        self.segment_mut(at).admit(words, facts);
        let counts = &self.shard.counts;
        add(&counts.entries, 1);
        add(&counts.live_bytes, payload);
        add(&counts.live_words, words);
    }

    /// Marks an item dead whose slot was just removed, and subtracts it from the counts. Only this function does, so
    /// each item is subtracted once. Returns the item's namespace.
    pub(super) fn mark_dead(&mut self, at: Location) -> u16 {
        let view = self.shared.view(at);
        let header = view.header();
        let facts = view.facts(header, self.version());
        if facts.namespace != 0 {
            let used = self.namespace_mut(facts.namespace);
            used.entries -= 1;
            used.live_bytes -= header.payload_bytes() as u64;
        }
        view.mark_dead();
        self.segment_mut(at).dismiss(header.words(), &facts);
        let counts = &self.shard.counts;
        sub(&counts.entries, 1);
        sub(&counts.live_bytes, header.payload_bytes());
        sub(&counts.live_words, header.words());
        add(&counts.died_bytes, header.words() * super::arena::WORD_BYTES);
        facts.namespace
    }

    /// See [`super::Store::invalidate`]. The caller has checked [`Locked::can_invalidate`] for every shard.
    pub(super) fn invalidate(&mut self, group: Group<'_>, mark_stale: bool) {
        let (namespace, prefix) = match group {
            Group::Namespace(namespace) => (namespace, &[][..]),
            Group::Prefix(namespace, prefix) => (namespace, prefix),
        };
        let up_to_version = self.version();
        self.writer.leases.end_group(namespace, prefix, &mut self.ended);
        if self.shard.counts.entries.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.writer.invalidations.push(Invalidation { namespace, prefix: prefix.into(), up_to_version, mark_stale });
        self.publish();
    }

    /// Checks that there is room for one more pending invalidation.
    pub(super) fn can_invalidate(&self) -> Result<(), Error> {
        match self.writer.invalidations.len() {
            MAX_INVALIDATIONS.. => {
                Err(Error::TooManyInvalidations { pending: self.writer.invalidations.len(), max: MAX_INVALIDATIONS })
            }
            _ => Ok(()),
        }
    }
}
