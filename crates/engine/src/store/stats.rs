//! The account of the store.

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

/// The account of the store. Counts are since its beginning, amounts are of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items that can be read (those that have expired and wait to be dropped included).
    pub entries: u64,
    /// Their keys and values, in bytes.
    pub live_bytes: u64,
    /// The same with what the store keeps beside them, in bytes.
    pub item_bytes: u64,
    /// Of these, what has expired and waits to be dropped: an estimate.
    pub expired_bytes: u64,
    /// Bytes in segments that no reader can reach any more.
    pub dead_bytes: u64,
    /// Resident bytes of segments, those that wait for reuse included.
    pub segment_bytes: u64,
    /// Those of them that were given up and are still being read: they come back by themselves.
    pub retired_bytes: u64,
    /// The index of all shards, in bytes.
    pub index_bytes: u64,
    /// Tables that the cache keeps beside the store, in bytes.
    pub table_bytes: u64,
    /// Requests and responses in flight, the most of late, in bytes.
    pub in_flight_bytes: u64,
    /// What all of these may be together, in bytes.
    pub capacity_bytes: u64,
    /// Reads that found an item.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// The same by reason, in the order of [`Miss`].
    pub misses_by: [u64; Miss::COUNT],
    /// Values stored.
    pub sets: u64,
    /// Keys deleted by callers.
    pub deletes: u64,
    /// Items dropped to make room.
    pub evictions: u64,
    /// Items dropped because their time had passed.
    pub expirations: u64,
    /// Items dropped because their group was invalidated.
    pub invalidated: u64,
    /// Writes refused for want of room.
    pub refusals: u64,
    /// Bytes of items written by callers.
    pub appended_bytes: u64,
    /// Bytes of items copied by the cleaner.
    pub copied_bytes: u64,
    /// Bytes of items that were deleted, replaced or dropped.
    pub buried_bytes: u64,
}

/// One log of one shard, as far as memory goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOccupancy {
    /// Which shard, from 0.
    pub shard: usize,
    /// Which of its logs: `nursery` or `main`.
    pub log: &'static str,
    /// How full of live bytes each segment is, in percent of what is written there, oldest first.
    pub percent: Vec<u8>,
}

/// A time before any deadline: what has expired counts as live until it is dropped.
const WITH_EXPIRED: u64 = 0;

impl Store {
    /// The account. Takes no lock, so its figures may be a few operations apart.
    pub fn stats(&self) -> Stats {
        let sum = |of: fn(&Counts) -> &AtomicU64| -> u64 {
            self.shards.iter().map(|shard| of(&shard.counts).load(Ordering::Relaxed)).sum()
        };
        let (hits, misses_by) = self.ground.readers.counts();
        let ledger = &self.ground.ledger;
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
            buried_bytes: sum(|c| &c.buried_bytes),
        }
    }

    /// How many segments are 0-10 %, 10-20 %, ... 90-100 % full of live bytes. Takes each shard's lock for a moment.
    pub fn occupancy(&self) -> [u64; 10] {
        let mut histogram = [0; 10];
        for shard in &self.shards {
            for segment in shard.lock(&self.ground).writer.segments.values() {
                histogram[(segment.occupancy_percent(WITH_EXPIRED) / 10).min(9)] += 1;
            }
        }
        histogram
    }

    /// The segments one by one: every log that has any, by shard. Takes each shard's lock for a moment.
    pub fn logs(&self) -> Vec<LogOccupancy> {
        let logs_of = |(shard, each): (usize, &Shard)| {
            let of =
                |segment: &Segment| (segment.log, segment.age, segment.occupancy_percent(WITH_EXPIRED).min(100) as u8);
            // The lock is held for the copy alone.
            let mut segments: Vec<_> = each.lock(&self.ground).writer.segments.values().map(of).collect();
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
