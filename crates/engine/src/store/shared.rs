//! The state that all shards share: the memory, the pool of segments, the ledger, the hash and the readers.

use super::arena::{Arena, WORD_BYTES, page_bytes};
use super::hash::Hasher;
use super::item::{MAX_ITEM_WORDS, View};
use super::lease;
use super::ledger::{Account, Ledger};
use super::readers::Readers;
use super::segment::{self, Extent, Pool};
use super::slot::Location;

/// The state that all shards share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) arena: Arena,
    pub(super) pool: Pool,
    pub(super) ledger: std::sync::Arc<Ledger>,
    pub(super) leases: std::sync::Arc<lease::Totals>,
    pub(super) hasher: Hasher,
    /// Words of one bank of an index. The banks lie at the beginning of the arena; shard n has the `BANKS` banks from
    /// number n × `BANKS` on.
    pub(super) bank_words: usize,
    pub(super) shards: usize,
    /// The size of new segments follows the capacity, which may change; otherwise an option fixed it at the start.
    pub(super) segments_follow: bool,
    pub(super) readers: Readers,
}

impl Shared {
    /// Number of consecutive segment numbers of a new segment.
    pub(super) fn segment_units(&self) -> u32 {
        if !self.segments_follow {
            return 1;
        }
        let wanted = segment::bytes_for(self.ledger.capacity() / self.shards as u64);
        (wanted / self.pool.segment_bytes()).max(1) as u32
    }

    /// The words from a location on, which begin with its item.
    pub(super) fn view(&self, at: Location) -> View<'_> {
        let first = self.pool.first_word(at.segment()) + at.offset_words() as usize;
        let end = (first + MAX_ITEM_WORDS).min(self.arena.words_total());
        View::new(self.arena.words(first..end))
    }

    /// The words of an item.
    pub(super) fn range(&self, at: Location, words: usize) -> std::ops::Range<usize> {
        let first = self.pool.first_word(at.segment()) + at.offset_words() as usize;
        first..first + words
    }

    /// See [`Pool::cool`].
    pub(super) fn cool(&self, keep: usize, most_bytes: u64) -> Option<u64> {
        self.pool.cool(&self.arena, &self.ledger, keep, most_bytes)
    }

    /// Prefetches the first cache lines of the item at a location: all of a small item.
    pub(super) fn prefetch(&self, at: Location) {
        self.prefetch_words(at, 3 * LINE_WORDS);
    }

    /// Prefetches `words` words of the item at a location.
    pub(super) fn prefetch_words(&self, at: Location, words: usize) {
        let first = self.pool.first_word(at.segment()) + at.offset_words() as usize;
        for word in (first..first + words).step_by(LINE_WORDS) {
            self.arena.prefetch(word.min(self.arena.words_total() - 1));
        }
    }

    /// Returns the pages behind the first `words` of an extent to the kernel. Returns whether there were any.
    pub(super) fn trim(&self, extent: &mut Extent, words: usize) -> bool {
        let keep = (words * WORD_BYTES).next_multiple_of(page_bytes()) as u64;
        if extent.resident_bytes <= keep {
            return false;
        }
        let first = self.pool.words(*extent).start;
        self.arena.release(first + keep as usize / WORD_BYTES..first + extent.resident_bytes as usize / WORD_BYTES);
        self.ledger.release(Account::Segments, extent.resident_bytes - keep);
        extent.resident_bytes = keep;
        true
    }
}

/// Words of a cache line.
const LINE_WORDS: usize = 8;
