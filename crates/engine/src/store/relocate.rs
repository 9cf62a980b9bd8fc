//! Moving items out of a segment while writers continue.
//!
//! ```text
//!  cleaner   look ahead ──► [lock: reserve] ──► copy ──► [lock: commit, visit the remaining items]
//! ```
//! A thread that loses its processor while it holds the lock of a shard stops every writer of that shard until it runs
//! again. So the cleaner reads and copies before it takes the lock, and does only the rest under it.
//!
//! B1. Data read without the lock decides nothing. The segment may be retired meanwhile, and its memory may hold other
//!     items. A copy counts only if, at the commit, the segment is still the same one, the index names the item, and
//!     the item's header is unchanged: every overwrite, deletion or mark of an item changes its header (H2, H4 in
//!     [`super::item`]). A deadline may change alone, so the words before the key are copied at the commit.
//! B2. Reserved room is one dead item until the commit, so that items follow each other without a gap (S1 in
//!     [`super::segment`]). Until then its segment is pinned: no writer retires or cleans it, and the cleaner itself
//!     commits before it begins anything else.
//! B3. While an invalidation waits for its sweep nothing is committed: the job visits the items under the lock.
//! B4. The job visits the same items after the commit, and handles those that were not committed.

use super::arena::WORD_BYTES;
use super::counts::add;
use super::index::{Index, Position};
use super::item::{self, Facts, Header};
use super::job::Tally;
use super::ledger::Bound;
use super::log::{Log, Tail};
use super::segment::{MAX_BYTES, Moved};
use super::shard::Locked;
use super::shared::Shared;
use super::slot::{Location, Place, Slot};
use super::types::Key;
use crate::sync::{Fault, planted};

/// Words to prefetch of an item that is not copied: enough for most headers and keys.
const HEAD_WORDS: usize = 16;

/// The part of a job's segment that it has not visited yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub segment: u32,
    /// The segment's sequence number among all segments opened in its shard.
    pub opened: u64,
    /// Offsets of the next item and of the end of the last one, in words.
    pub from_words: usize,
    pub end_words: usize,
    /// The index that names its items.
    pub index: Index,
    /// The log its items are moved to; `None` if the job does not move all live items.
    pub moves_to: Option<Log>,
}

/// A live item, as read without the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    at: Location,
    header: Header,
    place: Place,
    /// The position of its slot.
    position: Position,
}

/// Items that are being moved, and the room reserved for them.
#[derive(Debug)]
pub(super) struct Batch {
    items: Vec<Seen>,
    from: Ahead,
    to: Location,
}

impl Batch {
    /// The items, and the new location of each.
    fn places(&self) -> impl Iterator<Item = (&Seen, Location)> {
        let mut next = self.to.offset_words();
        self.items.iter().map(move |item| {
            let to = Location::new(self.to.segment(), next);
            next += item.header.words() as u32;
            (item, to)
        })
    }
}

impl Shared {
    /// Reads up to `most_items` of a job's next items and returns those that can be moved. Prefetches their memory and
    /// their buckets, so that the next hold of the lock is short.
    pub(super) fn look_ahead(&self, ahead: &Ahead, most_items: usize, now_ms: u64) -> Vec<Seen> {
        let (mut seen, mut key) = (Vec::with_capacity(most_items), Vec::new());
        let mut from_words = ahead.from_words;
        for _ in 0..most_items {
            if from_words >= ahead.end_words.min(MAX_BYTES / WORD_BYTES) {
                break;
            }
            let at = Location::new(ahead.segment, from_words as u32);
            let view = self.view(at);
            let header = view.header();
            if !header.ends_within(ahead.end_words - from_words) {
                break; // the memory no longer holds an item here
            }
            from_words += header.words();
            if !header.is_settled() {
                continue;
            }
            let is_copied = ahead.moves_to.is_some() && !self.pool.is_alone(header.words());
            self.prefetch_words(at, if is_copied { header.words() } else { HEAD_WORDS });
            view.copy_key(header, &mut key);
            let place = self.hasher.hash(Key { namespace: view.namespace(header), bytes: &key }).place();
            ahead.index.prefetch_both(&self.arena, place);
            if is_copied && !is_expired(view.deadline_ms(header), now_ms) {
                seen.push(Seen { at, header, place, position: 0 });
            }
        }
        seen.retain_mut(|item| {
            let named = ahead.index.position_of(&self.arena, item.place, item.at);
            item.position = named.map_or(0, |(position, _)| position);
            named.is_some()
        });
        seen
    }

    /// Copies the items of a batch, without the lock.
    pub(super) fn copy(&self, batch: &Batch) {
        for (item, to) in batch.places() {
            let words = item.header.words();
            self.view(item.at).copy_body(item.header, self.arena.words(self.range(to, words)));
        }
    }
}

impl Locked<'_> {
    /// Reserves room for the items: first the rest of the open segment, then new segments. Returns no batch if the
    /// items must be cleaned under the lock.
    pub(super) fn reserve(&mut self, ahead: &Ahead, mut items: Vec<Seen>) -> Vec<Batch> {
        let mut batches = Vec::new();
        let Some(log) = ahead.moves_to.filter(|_| self.may_commit(ahead)) else { return batches };
        let tail = Tail { log, moved: true };
        while let Some(first) = items.first() {
            let room_words = self.room_for_many(tail, first.header.words());
            let (mut count, mut words) = (0, 0);
            while let Some(item) = items.get(count)
                && words + item.header.words() <= room_words
            {
                (count, words) = (count + 1, words + item.header.words());
            }
            let Some(to) = self.append(tail, words, Bound::None) else { return batches };
            item::fill(self.shared.arena.words(self.shared.range(to, words)));
            self.segment_mut(to).pins += 1;
            let rest = items.split_off(count);
            batches.push(Batch { items: std::mem::replace(&mut items, rest), from: *ahead, to });
        }
        batches
    }

    /// Points the index at the copies of a batch. Items that have changed since the copy stay in their old segment.
    pub(super) fn commit(&mut self, batch: &Batch, now_ms: u64, tally: &mut Tally) {
        self.segment_mut(batch.to).pins -= 1;
        let may_commit = self.may_commit(&batch.from);
        let mut moved = Moved::default();
        for (item, to) in batch.places() {
            match may_commit.then(|| self.commit_one(item, to, &batch.from.index, now_ms)).flatten() {
                Some(facts) => moved.add(item.header.words(), &facts),
                None => item::fill(self.shared.arena.words(self.shared.range(to, item.header.words()))),
            }
        }
        if moved.items > 0 {
            self.count_moved(batch.from.segment, batch.to.segment(), &moved, tally);
        }
    }

    /// Whether the segment is still the one that was read (B1), and no invalidation waits (B3).
    fn may_commit(&self, from: &Ahead) -> bool {
        let segment = self.writer.segments.get(&from.segment);
        segment.is_some_and(|segment| segment.opened == from.opened) && self.writer.invalidations.is_empty()
    }

    /// Points the index at the copy of an item and returns the item's facts; `None` if the item has changed.
    fn commit_one(&mut self, item: &Seen, to: Location, index: &Index, now_ms: u64) -> Option<Facts> {
        let Seen { at, header, place, position } = *item;
        let view = self.shared.view(at);
        if view.header() != header && !planted(Fault::CommitUnlooked) && !planted(Fault::MoveWhatDied) {
            return None;
        }
        let facts = view.facts(header, self.version());
        if is_expired(facts.attributes.deadline_ms, now_ms) {
            return None;
        }
        let arena = &self.shared.arena;
        let there = (self.writer.index == *index).then(|| (position, index.load(arena, position)));
        let is_named = |slot: &Slot| slot.location() == Some(at) || planted(Fault::MoveWhatDied);
        let named = there.filter(|(_, slot)| is_named(slot));
        let (position, slot) = named.or_else(|| self.writer.index.position_of(arena, place, at))?;
        view.copy_head(header, arena.words(self.shared.range(to, header.words())));
        self.replace_slot(position, place, at, slot.with_location(to));
        view.mark_dead();
        Some(facts)
    }

    /// Subtracts moved items from one segment and adds them to another. If a compaction begins to fill the other
    /// segment, it inherits the age of the first one, so that items keep their position in the queue of eviction.
    pub(super) fn count_moved(&mut self, from: u32, to: u32, moved: &Moved, tally: &mut Tally) {
        let compacts = self.compacts();
        let from = self.writer.segments.get_mut(&from).expect("moved items come from a segment of the shard");
        from.dismiss_all(moved);
        let age = from.age;
        let into = self.writer.segments.get_mut(&to).expect("moved items were appended to a segment of the shard");
        if into.live_items == 0 && compacts {
            into.age = age;
        }
        into.admit_all(moved);
        add(&self.shard.counts.copied_bytes, moved.words * WORD_BYTES);
        tally.moved_bytes += (moved.words * WORD_BYTES) as u64;
        tally.moved_items += moved.items as u64;
    }
}

fn is_expired(deadline_ms: u64, now_ms: u64) -> bool {
    deadline_ms != 0 && deadline_ms <= now_ms
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::super::append::Way;
    use super::super::policy::Purpose;
    use super::super::{Attributes, Condition, Deletion, Group, Lookup, Options, Store, Task, Use};
    use super::*;

    const NOW_MS: u64 = 1_000;
    const KEYS: u32 = 60;

    fn key(n: &[u8]) -> Key<'_> {
        Key { namespace: 3, bytes: n }
    }

    fn name(n: u32) -> Vec<u8> {
        format!("{}{n:03}", if n.is_multiple_of(2) { "even" } else { "odd" }).into_bytes()
    }

    fn put(store: &Store, n: u32, value: &[u8]) {
        let attributes = Attributes { deadline_ms: 60_000 + u64::from(n), flags: n, ..Attributes::default() };
        store.set(key(&name(n)), value, &attributes, Condition::Always, false, NOW_MS).unwrap();
    }

    /// A store with one sealed segment. Its items have all extra words, and every third is dead.
    fn sparse_segment() -> Store {
        let options = Options { shards: Some(1), segment_bytes: Some(16 << 10), ..Options::new(8 << 20) };
        let store = Store::new(Options { most_bytes: Some(64 << 20), ..options }).unwrap();
        (0..KEYS).for_each(|n| put(&store, n, &[n as u8; 100]));
        for n in (0..KEYS).filter(|n| n.is_multiple_of(3)) {
            store.delete(key(&name(n)), None, Deletion::Remove, NOW_MS).unwrap();
        }
        store.shards[0].lock(&store.shared).seal_all();
        store
    }

    /// Moves the first items of the only segment up to, but not including, the commit.
    fn begin(store: &Store) -> Batch {
        let shard = &store.shards[0];
        let ahead = {
            let mut locked = shard.lock(&store.shared);
            let segment = *locked.writer.segments.keys().next().unwrap();
            locked.begin_job(segment, Purpose::Compact);
            locked.ahead().unwrap()
        };
        let items = store.shared.look_ahead(&ahead, 30, NOW_MS);
        assert_eq!(items.len(), 20, "every third of 30 is dead");
        let mut batches = shard.lock(&store.shared).reserve(&ahead, items);
        assert_eq!(batches.len(), 1, "the items fit into one segment");
        store.shared.copy(&batches[0]);
        batches.remove(0)
    }

    fn answers(store: &Store, now_ms: u64) -> Vec<Lookup> {
        (0..KEYS).map(|n| store.get(key(&name(n)), now_ms, Use::Peek).unwrap()).collect()
    }

    /// An event between copy and commit: its name, the event, the time of the commit, and how many of 20 copies count.
    type Meanwhile = (&'static str, fn(&Store), u64, u64);

    const CASES: &[Meanwhile] = &[
        ("nothing", |_| {}, NOW_MS, 20),
        ("an overwrite in place", |store| put(store, 1, &[200; 100]), NOW_MS, 19),
        ("an overwrite in place that is shorter", |store| put(store, 1, &[200; 20]), NOW_MS, 19),
        ("an overwrite elsewhere", |store| put(store, 2, &[200; 300]), NOW_MS, 19),
        (
            "a deletion, and the key again",
            |store| {
                store.delete(key(&name(1)), None, Deletion::Remove, NOW_MS).unwrap();
                put(store, 1, &[200; 100]);
            },
            NOW_MS,
            19,
        ),
        (
            "an item declared stale",
            |store| _ = store.delete(key(&name(1)), None, Deletion::MarkStale, NOW_MS).unwrap(),
            NOW_MS,
            19,
        ),
        ("another deadline", |store| _ = store.touch(key(&name(1)), 70_000, NOW_MS).unwrap(), NOW_MS, 20),
        ("a deadline removed", |store| _ = store.touch(key(&name(1)), 0, NOW_MS).unwrap(), NOW_MS, 20),
        (
            "a negative entry in its place",
            |store| {
                let negative = Attributes { negative: true, ..Attributes::default() };
                store.set(key(&name(1)), b"", &negative, Condition::Always, false, NOW_MS).unwrap();
            },
            NOW_MS,
            19,
        ),
        ("a value in a segment of its own", |store| put(store, 1, &[200; 9_000]), NOW_MS, 19),
        ("an item that expires", |_| {}, 60_002, 18),
        ("an invalidated prefix", |store| store.invalidate(Group::Prefix(3, b"even"), false).unwrap(), NOW_MS, 0),
        ("a stale prefix", |store| store.invalidate(Group::Prefix(3, b"odd"), true).unwrap(), NOW_MS, 0),
        ("a read", |store| _ = store.get(key(&name(1)), NOW_MS, Use::Read).unwrap(), NOW_MS, 20),
        ("an index that grows", |store| (1_000..9_000).for_each(|n| put(store, n, &[7; 10])), NOW_MS, 20),
        (
            "a writer that cleans the segment",
            |store| assert!(store.shards[0].lock(&store.shared).clean_one_now(Way::Compact, NOW_MS)),
            NOW_MS,
            0,
        ),
        (
            "a writer that cleans everything, and another segment in its place",
            |store| {
                let way = Way::Evict { spares_read: false };
                while store.shards[0].lock(&store.shared).clean_one_now(way, NOW_MS) {}
                (0..KEYS).for_each(|n| put(store, n, &[n as u8; 100]));
            },
            NOW_MS,
            0,
        ),
    ];

    #[test]
    fn a_commit_changes_no_answer_whatever_happened_before_it() {
        let mut wrong = Vec::new();
        for (name, meanwhile, now_ms, counting) in CASES {
            let store = sparse_segment();
            let batch = begin(&store);
            meanwhile(&store);
            let before = answers(&store, *now_ms);
            let mut tally = Tally::default();
            store.shards[0].lock(&store.shared).commit(&batch, *now_ms, &mut tally);
            if tally.moved_items != *counting {
                wrong.push(format!("{name}: {} items moved instead of {counting}", tally.moved_items));
            }
            if answers(&store, *now_ms) != before {
                wrong.push(format!("{name}: other answers after the commit"));
            }
            let thorough = Task { below_percent: 97, thorough: true, ..Task::CHEAP };
            while store.clean(0, thorough, *now_ms, &mut tally, &mut || false) {}
            let after = answers(&store, *now_ms);
            let found = |answers: &[Lookup]| -> Vec<_> {
                answers.iter().map(|answer| matches!(answer, Lookup::Found(_)).then_some(answer.clone())).collect()
            };
            if found(&after) != found(&before) {
                wrong.push(format!("{name}: other answers after the cleaning"));
            }
            let stats = store.stats();
            let live = found(&after).iter().flatten().count() as u64;
            if !(live..=live + 8_000).contains(&stats.entries) {
                wrong.push(format!("{name}: {live} items found, {stats:?}"));
            }
            for n in 0..KEYS {
                store.delete(key(&super::tests::name(n)), None, Deletion::Remove, *now_ms).unwrap();
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn reserved_room_is_neither_retired_nor_cleaned() {
        let store = sparse_segment();
        let batch = begin(&store);
        let mut locked = store.shards[0].lock(&store.shared);
        assert!(
            !locked.retire_dead(true, &mut Tally::default()),
            "the reserved segment has no live item yet, but is pinned"
        );
        let everything = Way::Evict { spares_read: false };
        while locked.clean_one_now(everything, NOW_MS) {}
        let ids: Vec<_> = locked.writer.segments.keys().copied().collect();
        assert_eq!(ids, [batch.to.segment()], "only the pinned segment is left");
        assert!(locked.shared.view(batch.to).header().is_dead());
        locked.commit(&batch, NOW_MS, &mut Tally::default());
        while locked.clean_one_now(everything, NOW_MS) {}
        assert!(locked.writer.segments.is_empty(), "after the commit it is cleaned as well");
    }

    #[test]
    fn a_batch_from_a_recycled_segment_is_not_committed() {
        let store = sparse_segment();
        let batch = begin(&store);
        let mut locked = store.shards[0].lock(&store.shared);
        assert!(locked.may_commit(&batch.from));
        while locked.clean_one_now(Way::Evict { spares_read: false }, NOW_MS) {}
        assert!(!locked.may_commit(&batch.from), "the segment is retired");
        let tail = Tail { log: Log::Main, moved: false };
        let to = locked.append(tail, 10, Bound::None).unwrap();
        assert_eq!(to.segment(), batch.from.segment, "the number of the freed segment is reused");
        assert!(!locked.may_commit(&batch.from));
    }

    #[test]
    fn a_batch_fills_the_open_segment_before_it_begins_another() {
        let store = sparse_segment();
        let tail = Tail { log: Log::Nursery, moved: true };
        let mut locked = store.shards[0].lock(&store.shared);
        let most = locked.shared.pool.most_shared_words();
        assert_eq!(locked.room_for_many(tail, 20), most);
        let whole = locked.shared.pool.segment_bytes() / WORD_BYTES;
        for words in [most, most, most, most - 30] {
            let to = locked.append(tail, words, Bound::None).unwrap();
            item::fill(locked.shared.arena.words(locked.shared.range(to, words)));
        }
        assert_eq!(whole, 4 * most);
        assert_eq!(locked.room_for_many(tail, 20), 30, "the first item fits the rest of the segment");
        assert_eq!(locked.room_for_many(tail, 31), most, "the first item does not fit");
        let ahead = {
            let is_full = |segment: &&super::super::segment::Segment| segment.live_items > 0;
            let segment = locked.writer.segments.values().find(is_full).unwrap().extent.id;
            locked.begin_job(segment, Purpose::Compact);
            locked.ahead().unwrap()
        };
        let items = store.shared.look_ahead(&ahead, 30, NOW_MS);
        let words = items[0].header.words();
        let batches = locked.reserve(&ahead, items);
        let counts: Vec<_> = batches.iter().map(|batch| batch.items.len()).collect();
        assert_eq!(counts, [30 / words, 20 - 30 / words]);
        assert_ne!(batches[0].to.segment(), batches[1].to.segment());
    }
}
