//! The layout of the address space: how much to reserve, and how to divide it into banks of indexes and segments.

use super::arena::{WORD_BYTES, page_bytes};
use super::bank::BANKS;
use super::{index, slot};

/// The address space that a store has reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Maximum capacity that may be set, in bytes.
    pub most_bytes: u64,
    /// Reserved address space, in bytes.
    pub reserved_bytes: u64,
    /// Larger reservations that the system refused, in bytes, in the order of the attempts.
    pub tried: Vec<u64>,
}

/// How the reserved address space is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Maximum capacity that may be set, in bytes.
    pub(super) most: u64,
    /// Words of each bank of an index.
    pub(super) bank_words: usize,
    pub(super) shards: usize,
    /// Number of segments.
    pub(super) numbers: u32,
    pub(super) segment_bytes: usize,
}

/// Address space that must remain for everything else: thread stacks and the heap.
pub(super) const HEADROOM_BYTES: usize = 96 << 20;
/// Minimum capacity of a store, in bytes.
const LEAST_BYTES: u64 = 8 << 20;

impl Layout {
    /// A layout for a capacity of up to `most` bytes, in `spread` times as much address space.
    pub(super) fn new(most: u64, spread: u64, shards: usize, segment_bytes: usize) -> Self {
        let (most_numbers, segment) = ((1 << slot::SEGMENT_BITS) - 1, segment_bytes as u64);
        let most = most.min((most_numbers - 2) * segment / 2);
        let numbers = (most * spread / segment + 2).min(most_numbers) as u32;
        // An index needs at most 8 bytes per item, and an item has at least 16 bytes: half of all memory is plenty.
        let bank_bytes = (most / shards as u64 / 2).min(u64::from(index::MAX_BUCKETS) * index::BUCKET_BYTES);
        let bank_words = bank_bytes.next_multiple_of(page_bytes() as u64) as usize / WORD_BYTES;
        Self { most, bank_words, shards, numbers, segment_bytes }
    }

    /// Address space of the layout, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bank_words * BANKS * self.shards * WORD_BYTES + self.numbers as usize * self.segment_bytes
    }

    /// The layouts to try, in this order. The first ones give up room to grow, the next ones the spread that leaves
    /// free neighbours for runs of segments (large values), the last ones a part of the capacity.
    pub(super) fn to_try(capacity: u64, most: u64, shards: usize, segment_bytes: usize) -> Vec<Self> {
        let halves = |from: u64, least: u64| {
            std::iter::successors(Some(from), move |most| Some((most / 2).max(least)).filter(|next| next < most))
        };
        let roomy = halves(most, capacity).map(|most| (most, 4));
        let tight = halves(capacity, LEAST_BYTES.min(capacity)).map(|most| (most, 2));
        let mut layouts: Vec<_> =
            roomy.chain(tight).map(|(most, spread)| Self::new(most, spread, shards, segment_bytes)).collect();
        layouts.dedup(); // layouts that reach the maximum number of segments are equal
        layouts
    }
}
