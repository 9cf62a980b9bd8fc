//! Workloads: keys and values are derived from a number, so that a value can be verified without storing it.
//!
//! ```text
//!   w0      300,000 entries   16 + 128 bytes                 a sidecar of 43 MB
//!   w1    1,000,000           16 + 128
//!   w2    1,250,000           16 + log-uniform 32 .. 4096
//! ```

use clap::ValueEnum;

/// Sizes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizes {
    /// One size for all.
    Fixed(usize),
    /// Log-uniform from 32 to 4,096 bytes.
    LogUniform,
}

/// Size of a key: 16 hexadecimal digits of its hashed number.
pub(super) type Key = [u8; 16];

/// Numbered entries. Number and round determine the value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entries {
    pub(super) count: u64,
    pub(super) sizes: Sizes,
}

/// Which 10 % of the keys survive the deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Pattern {
    /// Random: each key is deleted with a probability of 90 %.
    #[default]
    Random,
    /// Every tenth key, so that every page has a survivor.
    Even,
}

impl Pattern {
    /// Whether entry `n` survives.
    pub(super) fn keeps(self, n: u64) -> bool {
        match self {
            Self::Random => mix(n ^ 0x5eed).is_multiple_of(10),
            Self::Even => n.is_multiple_of(10),
        }
    }
}

impl Entries {
    /// The size of the value of entry `n` as it is written in `round`, in bytes.
    pub(super) fn value_bytes(&self, n: u64, round: u64) -> usize {
        match self.sizes {
            Sizes::Fixed(bytes) => bytes,
            Sizes::LogUniform => {
                let unit = (mix(n ^ round << 40 ^ 0x517e) >> 11) as f64 / (1_u64 << 53) as f64;
                (32.0 * (unit * 7.0).exp2()) as usize
            }
        }
    }

    /// Appends the value of entry `n` as it is written in `round`.
    pub(super) fn write_value(&self, n: u64, round: u64, out: &mut Vec<u8>) {
        let end = out.len() + self.value_bytes(n, round);
        let mut word = mix(n ^ round << 40);
        while out.len() + 8 <= end {
            out.extend(word.to_le_bytes());
            word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        }
        out.resize(end, word as u8);
    }

    /// Keys and values of the entries that `keep` chooses, in bytes, as they are after `round`.
    pub(super) fn live_bytes(&self, keep: impl Fn(u64) -> bool) -> u64 {
        let size = |n: u64| 16 + self.value_bytes(n, 0) as u64;
        (0..self.count).filter(|&n| keep(n)).map(size).sum()
    }

    /// All numbers once, shuffled.
    pub(super) fn shuffled(&self) -> impl Iterator<Item = u64> + use<> {
        let count = self.count;
        // The prime exceeds every count, so it shares no factor with the count and its multiples visit all numbers.
        (0..count).map(move |i| (u128::from(i) * 2_147_483_647 % u128::from(count)) as u64)
    }
}

/// The key of entry `n`.
pub(super) fn key(n: u64) -> Key {
    let spread = mix(n);
    std::array::from_fn(|at| b"0123456789abcdef"[(spread >> (60 - 4 * at)) as usize & 15])
}

/// A bijection of 64-bit numbers that hides patterns (splitmix64).
pub(super) fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn shuffling_visits_every_entry_once() {
        let counts = [1, 10, 999, 4096];
        let visited = counts.map(|count| {
            let entries = Entries { count, sizes: Sizes::Fixed(1) };
            entries.shuffled().collect::<HashSet<_>>().len() as u64
        });
        assert_eq!(visited, counts);
    }

    #[test]
    fn a_value_can_be_made_again_and_differs_by_entry_and_round() {
        let entries = Entries { count: 10, sizes: Sizes::Fixed(13) };
        let value = |n, round| {
            let mut value = Vec::new();
            entries.write_value(n, round, &mut value);
            value
        };
        assert_eq!((value(3, 0).len(), value(3, 0)), (13, value(3, 0)));
        assert_ne!(value(3, 0), value(4, 0));
        assert_ne!(value(3, 0), value(3, 1));
        assert_eq!(key(1).len(), 16);
        assert_ne!(key(1), key(2));
    }

    #[test]
    fn sizes_and_survivors_are_as_stated() {
        let entries = Entries { count: 20_000, sizes: Sizes::LogUniform };
        let sizes: Vec<usize> = (0..20_000).map(|n| entries.value_bytes(n, 0)).collect();
        assert!(sizes.iter().all(|size| (32..=4096).contains(size)));
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((800..880).contains(&mean), "the mean of 32..4096 log-uniform is 837, not {mean}");
        let kept = [Pattern::Random, Pattern::Even]
            .map(|pattern| (pattern, (0..20_000).filter(|&n| pattern.keeps(n)).count()));
        assert!(kept.iter().all(|(_, kept)| (1850..2150).contains(kept)), "{kept:?}");
    }
}
