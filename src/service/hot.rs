//! Which keys are read most, from a sample of the reads.
//!
//! One read in 256, chosen at random, is counted in a table of 128 keys; a key that is not in it takes the place of the
//! coldest one, and that one's count as its error (Space-Saving: Metwally, Agrawal and El Abbadi, 2005). A key's reads are
//! therefore at least its count less its error: what is reported. Where reads are spread evenly, nearly all of every
//! count is error, and nothing is hot. Counts are halved now and then, so that what was hot cools down.

use ebb_engine::store::Key;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One read of so many is looked at.
const SAMPLED: u32 = 256;
/// Keys in the table: each that has more than one in 128 of the sampled reads is in it.
const KEYS: usize = 128;
/// Keys that can be listed.
pub(super) const LISTED: usize = 64;
/// Samples after which all counts are halved.
const HALVED_AFTER: u64 = 1 << 14;
/// Certain reads below this are chance.
const LEAST_CERTAIN: f64 = 4.0;

/// A key and the sampled reads that are counted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heat {
    pub(super) namespace: u16,
    pub(super) key: Box<[u8]>,
    /// Reads that are certainly of this key.
    pub(super) certain: u64,
    /// Reads that may be of this key or of those it displaced.
    pub(super) error: u64,
}

impl Heat {
    fn count(&self) -> u64 {
        self.certain + self.error
    }

    /// Whether the key stands out: more of its count is certain than not, and that is more than an even share of the
    /// samples among the keys of the table, by three standard deviations.
    fn is_hot(&self, samples: u64) -> bool {
        let even = samples as f64 / KEYS as f64;
        self.certain > self.error && self.certain as f64 >= LEAST_CERTAIN.max(even + 3.0 * even.sqrt())
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Hot(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    keys: Vec<Heat>,
    samples: u64,
}

impl Hot {
    /// Counts a read.
    pub(super) fn read(&self, key: Key<'_>) {
        if fastrand::u32(..).is_multiple_of(SAMPLED) {
            self.table().count(key);
        }
    }

    /// Drops the keys of a namespace before another one gets its number.
    pub(super) fn forget(&self, namespace: u16) {
        self.table().keys.retain(|heat| heat.namespace != namespace);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hot keys, the hottest first, and how many reads were sampled, older ones counting less.
    pub(super) fn hottest(&self, limit: usize) -> (Vec<Heat>, u64) {
        let table = self.table();
        let mut keys: Vec<_> = table.keys.iter().filter(|heat| heat.is_hot(table.samples)).cloned().collect();
        keys.sort_by_key(|heat| std::cmp::Reverse(heat.certain));
        keys.truncate(limit);
        (keys, table.samples)
    }
}

impl Table {
    fn count(&mut self, key: Key<'_>) {
        self.samples += 1;
        if self.samples >= HALVED_AFTER {
            self.samples /= 2;
            self.keys.iter_mut().for_each(|heat| (heat.certain, heat.error) = (heat.certain / 2, heat.error / 2));
        }
        let is_it = |heat: &&mut Heat| heat.namespace == key.namespace && *heat.key == *key.bytes;
        if let Some(heat) = self.keys.iter_mut().find(is_it) {
            heat.certain += 1;
            return;
        }
        let heat = Heat { namespace: key.namespace, key: key.bytes.into(), certain: 1, error: 0 };
        if self.keys.len() < KEYS {
            self.keys.push(heat);
        } else if let Some(coldest) = self.keys.iter_mut().min_by_key(|heat| heat.count()) {
            *coldest = Heat { error: coldest.count(), ..heat };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_read_much_among_many() {
        let mut table = Table::default();
        for i in 0..10_000_u32 {
            let cold = i.to_be_bytes();
            table.count(Key { namespace: 0, bytes: &cold });
            if i % 10 == 0 {
                table.count(Key { namespace: 7, bytes: b"hot" });
            }
        }
        assert_eq!(table.keys.len(), KEYS);
        let hot = Hot(Mutex::new(table));
        let (keys, samples) = hot.hottest(LISTED);
        assert_eq!((keys[0].namespace, &*keys[0].key), (7, b"hot".as_slice()));
        let share = keys[0].certain as f64 / samples as f64;
        assert!((0.08..=0.1).contains(&share), "a tenth, and never more than that: {share}");
        assert_eq!(keys.len(), 1, "keys that were read once are not hot: {keys:?}");
        hot.forget(7);
        assert_eq!(hot.hottest(LISTED).0, []);
    }

    #[test]
    fn nothing_is_hot_where_all_keys_are_read_alike() {
        let mut random = fastrand::Rng::with_seed(7);
        for keys in [300_u64, 2_000, 20_000] {
            let mut table = Table::default();
            for reads in 1..60_000_u32 {
                table.count(Key { namespace: 0, bytes: &random.u64(..keys).to_be_bytes() });
                let hot: Vec<_> = table.keys.iter().filter(|heat| heat.is_hot(table.samples)).collect();
                assert!(hot.is_empty() || reads % 1_000 > 0, "{keys} keys, {reads} reads: {hot:?}");
            }
        }
        let mut table = Table::default();
        (0..2_000_u64).for_each(|read| table.count(Key { namespace: 0, bytes: &(read % 10).to_be_bytes() }));
        let (keys, samples) = Hot(Mutex::new(table)).hottest(LISTED);
        assert!(keys.len() == 10 && keys.iter().all(|heat| heat.certain == samples / 10), "a tenth each is much");
    }

    #[test]
    fn what_was_hot_cools_down() {
        let mut table = Table::default();
        (0..HALVED_AFTER).for_each(|_| table.count(Key { namespace: 0, bytes: b"yesterday" }));
        (0..HALVED_AFTER * 4).for_each(|_| table.count(Key { namespace: 0, bytes: b"today" }));
        let hot = Hot(Mutex::new(table));
        let (keys, _) = hot.hottest(2);
        assert!(keys.len() == 1 && *keys[0].key == *b"today", "{keys:?}");
    }
}
