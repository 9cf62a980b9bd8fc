//! Which keys are read most, from a sample of the reads.
//!
//! One read in 256, chosen at random, is counted in a table of 64 keys; a key that is not in it takes the place and the
//! count of the coldest one (Space-Saving: Metwally, Agrawal and El Abbadi, 2005). So whatever has more than a 64th of
//! the sampled reads is in the table. Counts are halved now and then, so that what was hot cools down.

use crate::store::Key;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One read of so many is looked at.
const SAMPLED: u32 = 256;
/// Keys in the table.
pub(super) const KEYS: usize = 64;
/// Samples after which all counts are halved.
const HALVED_AFTER: u64 = 1 << 14;

/// A key and the sampled reads that are counted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heat {
    pub(super) namespace: u16,
    pub(super) key: Box<[u8]>,
    pub(super) reads: u64,
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
    /// A read.
    pub(super) fn read(&self, key: Key<'_>) {
        if fastrand::u32(..).is_multiple_of(SAMPLED) {
            self.table().count(key);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hottest first, and how many reads were sampled, older ones counting less.
    pub(super) fn hottest(&self, limit: usize) -> (Vec<Heat>, u64) {
        let table = self.table();
        let mut keys = table.keys.clone();
        keys.sort_by_key(|heat| std::cmp::Reverse(heat.reads));
        keys.truncate(limit);
        (keys, table.samples)
    }
}

impl Table {
    fn count(&mut self, key: Key<'_>) {
        self.samples += 1;
        if self.samples >= HALVED_AFTER {
            self.samples /= 2;
            self.keys.iter_mut().for_each(|heat| heat.reads /= 2);
        }
        let is_it = |heat: &&mut Heat| heat.namespace == key.namespace && *heat.key == *key.bytes;
        if let Some(heat) = self.keys.iter_mut().find(is_it) {
            heat.reads += 1;
            return;
        }
        let heat = Heat { namespace: key.namespace, key: key.bytes.into(), reads: 1 };
        if self.keys.len() < KEYS {
            self.keys.push(heat);
        } else if let Some(coldest) = self.keys.iter_mut().min_by_key(|heat| heat.reads) {
            *coldest = Heat { reads: coldest.reads + 1, ..heat };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_much_is_found_among_many() {
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
        let (keys, samples) = hot.hottest(1);
        assert_eq!((keys[0].namespace, &*keys[0].key), (7, b"hot".as_slice()));
        let share = keys[0].reads as f64 / samples as f64;
        assert!((0.08..0.12).contains(&share), "a tenth, or a little more: {share}");
    }

    #[test]
    fn what_was_hot_cools_down() {
        let mut table = Table::default();
        (0..HALVED_AFTER).for_each(|_| table.count(Key { namespace: 0, bytes: b"yesterday" }));
        (0..HALVED_AFTER * 4).for_each(|_| table.count(Key { namespace: 0, bytes: b"today" }));
        let hot = Hot(Mutex::new(table));
        let (keys, _) = hot.hottest(2);
        assert_eq!(&*keys[0].key, b"today");
        assert!(keys[1].reads * 20 < keys[0].reads, "{keys:?}");
    }
}
