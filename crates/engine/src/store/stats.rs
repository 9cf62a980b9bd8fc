//! Statistics of the store.

use super::Store;
use super::arena::WORD_BYTES;
use super::counts::Counts;
use super::ledger::Account;
use super::log::Log;
use super::segment::Segment;
use super::shard::Shard;
use super::types::Miss;
use crate::sync::atomic::{AtomicU64, Ordering};
use strum::EnumCount as _;

/// Statistics of the store. Counts are since its start; amounts are current.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items in the index, including expired ones that are not dropped yet.
    pub entries: u64,
    /// Keys and values of these items, in bytes.
    pub live_bytes: u64,
    /// The same including per-item overhead, in bytes.
    pub item_bytes: u64,
    /// The part of `item_bytes` that has expired and is not dropped yet: an estimate.
    pub expired_bytes: u64,
    /// Bytes in segments that belong to no live item.
    pub dead_bytes: u64,
    /// Resident bytes of segments, including free ones.
    pub segment_bytes: u64,
    /// The part of `segment_bytes` that is retired and still announced by readers; it becomes free when they finish.
    pub retired_bytes: u64,
    /// Indexes of all shards, in bytes.
    pub index_bytes: u64,
    /// Tables that the cache keeps outside the store, in bytes.
    pub table_bytes: u64,
    /// Recent peak of requests and responses in flight, in bytes.
    pub in_flight_bytes: u64,
    /// Maximum of all these together, in bytes.
    pub capacity_bytes: u64,
    /// Reads that found an item.
    pub hits: u64,
    /// Reads that found no item.
    pub misses: u64,
    /// Misses by reason, in the order of [`Miss`].
    pub misses_by: [u64; Miss::COUNT],
    /// Values stored.
    pub sets: u64,
    /// Keys deleted by callers.
    pub deletes: u64,
    /// Items dropped to make room.
    pub evictions: u64,
    /// Items dropped because their deadline had passed.
    pub expirations: u64,
    /// Items dropped because their group was invalidated.
    pub invalidated: u64,
    /// Writes refused for lack of room.
    pub refusals: u64,
    /// Bytes of items written by callers.
    pub appended_bytes: u64,
    /// Bytes of items copied by the cleaner.
    pub copied_bytes: u64,
    /// Bytes of items that were deleted, replaced or dropped.
    pub died_bytes: u64,
}

/// What one namespace uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceUse {
    /// Items in the index, including expired ones that are not dropped yet.
    pub entries: u64,
    /// Keys and values of these items, in bytes.
    pub live_bytes: u64,
    /// Items dropped to make room, since the namespace has its number.
    pub evictions: u64,
}

/// The occupancy of one log of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOccupancy {
    /// Number of the shard, from 0.
    pub shard: usize,
    /// Name of the log: `nursery` or `main`.
    pub log: &'static str,
    /// Live bytes of each segment, in percent of the bytes written to it, oldest first.
    pub percent: Vec<u8>,
}

/// A time before any deadline, so that expired items count as live until they are dropped.
const WITH_EXPIRED: u64 = 0;

impl Store {
    /// Statistics. Takes no lock, so the figures may be a few operations apart.
    pub fn stats(&self) -> Stats {
        let sum = |of: fn(&Counts) -> &AtomicU64| -> u64 {
            self.shards.iter().map(|shard| of(&shard.counts).load(Ordering::Relaxed)).sum()
        };
        let (hits, misses_by) = self.shared.readers.counts();
        let ledger = &self.shared.ledger;
        let words = WORD_BYTES as u64;
        let item_bytes = sum(|c| &c.live_words) * words;
        Stats {
            entries: sum(|c| &c.entries),
            live_bytes: sum(|c| &c.live_bytes),
            item_bytes,
            expired_bytes: (sum(|c| &c.expired_words) * words).min(item_bytes),
            dead_bytes: (sum(|c| &c.written_words) * words).saturating_sub(item_bytes),
            segment_bytes: ledger.used(Account::Segments),
            retired_bytes: sum(|c| &c.retired_bytes),
            index_bytes: ledger.used(Account::Index),
            table_bytes: ledger.used(Account::Tables),
            in_flight_bytes: ledger.in_flight_kept(),
            capacity_bytes: ledger.capacity(),
            hits,
            misses: misses_by.iter().sum(),
            misses_by,
            sets: sum(|c| &c.sets),
            deletes: sum(|c| &c.deletes),
            evictions: sum(|c| &c.evictions),
            expirations: sum(|c| &c.expirations),
            invalidated: sum(|c| &c.invalidated),
            refusals: self.refusals.load(Ordering::Relaxed),
            appended_bytes: sum(|c| &c.appended_bytes),
            copied_bytes: sum(|c| &c.copied_bytes),
            died_bytes: sum(|c| &c.died_bytes),
        }
    }

    /// What each namespace uses, by its number, up to the highest number that was ever used. Takes each shard's lock
    /// briefly.
    pub fn namespaces(&self) -> Vec<NamespaceUse> {
        let mut all = vec![NamespaceUse::default()];
        for shard in &self.shards {
            let locked = shard.lock(&self.shared);
            let used = &locked.writer.by_namespace;
            all.resize(all.len().max(used.len()), NamespaceUse::default());
            for (sum, used) in all.iter_mut().zip(used) {
                sum.entries += used.entries;
                sum.live_bytes += used.live_bytes;
                sum.evictions += used.evictions;
            }
            // Items of the default namespace are not counted one by one, since most stores have no others.
            let named = |of: fn(&NamespaceUse) -> u64| used.iter().skip(1).map(of).sum::<u64>();
            all[0].entries += shard.counts.entries.load(Ordering::Relaxed) - named(|used| used.entries);
            all[0].live_bytes += shard.counts.live_bytes.load(Ordering::Relaxed) - named(|used| used.live_bytes);
        }
        all
    }

    /// Takes the count of evictions of a namespace whose number will be used for another one.
    pub fn take_evictions(&self, namespace: u16) -> u64 {
        let take = |shard: &Shard| {
            let mut locked = shard.lock(&self.shared);
            let used = locked.writer.by_namespace.get_mut(usize::from(namespace));
            used.map_or(0, |used| std::mem::take(&mut used.evictions))
        };
        self.shards.iter().map(take).sum()
    }

    /// Number of segments with 0-10 %, 10-20 %, ... 90-100 % live bytes. Takes each shard's lock briefly.
    pub fn occupancy(&self) -> [u64; 10] {
        let mut histogram = [0; 10];
        for shard in &self.shards {
            for segment in shard.lock(&self.shared).writer.segments.values() {
                histogram[(segment.occupancy_percent(WITH_EXPIRED) / 10).min(9)] += 1;
            }
        }
        histogram
    }

    /// The occupancy of every log that has segments, by shard. Takes each shard's lock briefly.
    pub fn logs(&self) -> Vec<LogOccupancy> {
        let logs_of = |(shard, each): (usize, &Shard)| {
            let of =
                |segment: &Segment| (segment.log, segment.age, segment.occupancy_percent(WITH_EXPIRED).min(100) as u8);
            // Hold the lock only for the copy.
            let mut segments: Vec<_> = each.lock(&self.shared).writer.segments.values().map(of).collect();
            segments.sort_unstable_by_key(|(_, age, _)| *age);
            [Log::Nursery, Log::Main].map(|log| LogOccupancy {
                shard,
                log: log.name(),
                percent: segments.iter().filter(|(of, ..)| *of == log).map(|(.., percent)| *percent).collect(),
            })
        };
        let logs = self.shards.iter().enumerate().flat_map(logs_of);
        logs.filter(|log| !log.percent.is_empty()).collect()
    }
}
