//! The hashes of keys and of segment numbers. That of a key is keyed, so that a client cannot choose keys that collide in
//! one bucket.
//!
//! SipHash-1-3 (Aumasson and Bernstein) with a seed of the process.

use super::slot::Place;
use super::types::Key;
use siphasher::sip::SipHasher13;

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash(u64);

/// Hashes keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hasher {
    keyed: SipHasher13,
}

impl Hasher {
    /// A hasher with a secret seed.
    pub(super) fn new(seed: [u64; 2]) -> Self {
        Self { keyed: SipHasher13::new_with_keys(seed[0], seed[1]) }
    }

    /// The hash of a key of a namespace.
    pub(super) fn hash(&self, key: Key<'_>) -> Hash {
        let hash = self.keyed.hash(key.bytes);
        // Mixing an odd multiple of the namespace into the hash separates equal keys of two namespaces.
        Hash(hash ^ (u64::from(key.namespace)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32))
    }
}

impl Hash {
    /// Number of the shard, out of `shards` (a power of two).
    pub(super) fn shard(self, shards: usize) -> usize {
        (self.0 >> 40) as usize & (shards - 1)
    }

    /// Position within the shard.
    pub(super) fn place(self) -> Place {
        Place((self.0 & ((1 << Place::BITS) - 1)) as u32)
    }
}

/// A cheap hash of segment numbers. They come from Ebb itself, so it need not resist chosen keys.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl std::hash::Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }
    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
