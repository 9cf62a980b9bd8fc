//! The most-read keys, from a sample of the reads.
//!
//! One read in 256, chosen at random, is counted in a table of 128 keys. A new key replaces the coldest one and
//! inherits its count as error (Space-Saving: Metwally, Agrawal and El Abbadi, 2005). So a key's reads are at least its
//! count minus its error, which is the reported number. If reads are evenly distributed, nearly all of every count is
//! error, and no key is hot. Counts are halved periodically, so that hot keys cool down.

use ebb_engine::store::Key;
use parking_lot::{Mutex, MutexGuard};

/// One read in this many is sampled.
const SAMPLED: u32 = 256;
/// Keys in the table. It contains every key with more than one in 128 of the sampled reads.
const KEYS: usize = 128;
/// Maximum number of listed keys.
pub(super) const LISTED: usize = 64;
/// Samples after which all counts are halved.
const HALVED_AFTER: u64 = 1 << 14;
/// Minimum certain reads of a hot key: fewer may be chance.
const LEAST_CERTAIN: f64 = 4.0;

/// A key and the sampled reads that are counted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heat {
    pub(super) namespace: u16,
    pub(super) key: Box<[u8]>,
    /// Sampled reads that are certainly of this key.
    pub(super) certain: u64,
    /// Sampled reads that may be of this key or of the keys it replaced.
    pub(super) error: u64,
}

impl Heat {
    fn count(&self) -> u64 {
        self.certain + self.error
    }

    /// Whether the key is hot: most of its count is certain, and the certain part exceeds an even share of the samples
    /// per key of the table by three standard deviations.
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
        self.0.lock()
    }

    /// The hot keys, hottest first, and the number of sampled reads, in which older ones count less.
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
    fn finds_a_hot_key_among_many_cold_ones() {
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
        assert!((0.08..=0.1).contains(&share), "at most a tenth of the reads: {share}");
        assert_eq!(keys.len(), 1, "keys that were read once are not hot: {keys:?}");
        hot.forget(7);
        assert_eq!(hot.hottest(LISTED).0, []);
    }

    #[test]
    fn evenly_read_keys_are_not_hot() {
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
        assert!(
            keys.len() == 10 && keys.iter().all(|heat| heat.certain == samples / 10),
            "keys with a tenth of the reads each are hot"
        );
    }

    #[test]
    fn hot_keys_cool_down() {
        let mut table = Table::default();
        (0..HALVED_AFTER).for_each(|_| table.count(Key { namespace: 0, bytes: b"yesterday" }));
        (0..HALVED_AFTER * 4).for_each(|_| table.count(Key { namespace: 0, bytes: b"today" }));
        let hot = Hot(Mutex::new(table));
        let (keys, _) = hot.hottest(2);
        assert!(keys.len() == 1 && *keys[0].key == *b"today", "{keys:?}");
    }
}
