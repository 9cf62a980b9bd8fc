//! An item: a header word, the optional words that the header's flags announce, then key and value.
//!
//! ```text
//!  word 0: header     63      40 39  32 31    13 12  10 9          0
//!                    ┌──────────┬──────┬────────┬──────┬────────────┐
//!                    │ version  │flags │ words  │ pad  │ key len -1 │
//!                    └──────────┴──────┴────────┴──────┴────────────┘
//!  then, each only if its flag is set: deadline · stale_at · flags and namespace · full version
//!  then the bytes of the key and of the value without a gap, and `pad` bytes to the end of the last word
//! ```
//! A plain item of the default namespace has 8 bytes of overhead. The header is also the seqlock of an overwrite in
//! place:
//!
//! H1. Key and namespace never change while the segment lives, and an item's extent only shrinks: the rest becomes a
//!     dead item of its own, so that items still follow each other without a gap.
//! H2. A writer that changes value bytes in place holds the shard's lock, sets BUSY before and stores another version
//!     after.
//! H3. A reader loads the header before and after the copy. If the two differ, it discards the copy.
//! H4. DEAD is set after the slot no longer names the item, and is never cleared: a reader that sees it tries again.
//!
//! The header's 24 bits of version are the low bits of the shard's write count at the time of the write. A reader
//! completes them to the largest number with these bits that is not above the current count. So a version is exact for
//! the last 2^24 writes of its shard. An older one may appear larger although the key was not written; a caller that
//! compares versions then sees a change. It never equals the version of another write.

use super::arena::WORD_BYTES;
use super::types::Attributes;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Fault, planted};
use bytes::{Buf, Bytes};

const VERSION_SHIFT: u32 = 40;
const VERSION_MASK: u64 = (1 << 24) - 1;
const WORDS_SHIFT: u32 = 13;
const WORDS_MASK: u64 = (1 << 19) - 1;
const PAD_SHIFT: u32 = 10;

/// The word of a deadline: the octave of the time to live (see [`super::expiry`]) above the deadline itself.
const OCTAVE_SHIFT: u32 = 58;
/// The latest deadline, in milliseconds: nine million years. Later ones are reduced to it.
pub(super) const MAX_DEADLINE_MS: u64 = (1 << OCTAVE_SHIFT) - 1;

/// The most words an item can have.
pub(super) const MAX_ITEM_WORDS: usize = WORDS_MASK as usize;

/// The flags of an item.
pub(super) mod flag {
    /// No slot names the item any more (H4).
    pub(crate) const DEAD: u64 = 1 << 32;
    /// The value is being overwritten (H2).
    pub(crate) const BUSY: u64 = 1 << 33;
    /// Marked stale.
    pub(crate) const STALE: u64 = 1 << 34;
    /// The key has no value at its source.
    pub(crate) const NEGATIVE: u64 = 1 << 35;
    /// The item has a word with the deadline.
    pub(crate) const DEADLINE: u64 = 1 << 36;
    /// The item has a word with the time at which it becomes stale.
    pub(crate) const STALE_AT: u64 = 1 << 37;
    /// The item has a word with flags and namespace.
    pub(crate) const META: u64 = 1 << 38;
    /// The item has a word with the full version.
    pub(crate) const VERSIONED: u64 = 1 << 39;
}

/// The first word of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header(pub u64);

impl Header {
    /// The header of a dead item without content, of this many words.
    fn filler(words: usize) -> Self {
        Self((words as u64) << WORDS_SHIFT | flag::DEAD)
    }

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// See [`flag::DEAD`].
    pub(super) fn is_dead(self) -> bool {
        self.has(flag::DEAD)
    }

    /// See [`flag::STALE`].
    pub(super) fn is_stale(self) -> bool {
        self.has(flag::STALE)
    }

    /// See [`flag::VERSIONED`].
    pub(super) fn is_versioned(self) -> bool {
        self.has(flag::VERSIONED)
    }

    /// Size of the item, in words.
    pub(super) fn words(self) -> usize {
        (self.0 >> WORDS_SHIFT & WORDS_MASK) as usize
    }

    /// The key's length in bytes.
    pub(super) fn key_len(self) -> usize {
        (self.0 & 1023) as usize + 1
    }

    fn pad(self) -> usize {
        (self.0 >> PAD_SHIFT & 7) as usize
    }

    fn extras(self) -> usize {
        (self.0 & (flag::DEADLINE | flag::STALE_AT | flag::META | flag::VERSIONED)).count_ones() as usize
    }

    /// The value's length in bytes.
    pub(super) fn value_len(self) -> usize {
        (self.words() - 1 - self.extras()) * WORD_BYTES - self.pad() - self.key_len()
    }

    /// Whether this may be the header of an item of at most `words` words. Without the lock, the cleaner may load any
    /// word as a header.
    pub(super) fn ends_within(self, words: usize) -> bool {
        let least = if self.is_dead() { 1 } else { 1 + self.extras() + self.key_len().div_ceil(WORD_BYTES) };
        (least..=words).contains(&self.words())
    }

    /// Whether it is neither dead nor being overwritten.
    pub(super) fn is_settled(self) -> bool {
        !self.has(flag::DEAD | flag::BUSY)
    }

    /// Size of key and value, in bytes.
    pub(super) fn payload_bytes(self) -> usize {
        self.key_len() + self.value_len()
    }

    /// The largest number not above `now` that ends in this header's 24 bits.
    fn version(self, now: u64) -> u64 {
        now - (now.wrapping_sub(self.0 >> VERSION_SHIFT) & VERSION_MASK)
    }

    fn with_version(self, version: u64) -> Self {
        Self(self.0 & !(VERSION_MASK << VERSION_SHIFT) | (version & VERSION_MASK) << VERSION_SHIFT)
    }
}

/// The properties of an item, without key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Grows with every write of the key.
    pub version: u64,
    /// As stored.
    pub attributes: Attributes,
    /// Marked stale.
    pub marked_stale: bool,
    /// The number of its namespace.
    pub namespace: u16,
    /// Octave of its time to live; see [`super::expiry`]. 0 without a deadline.
    pub ttl_octave: u8,
}

impl Facts {
    /// Deadline and octave, if it has a deadline.
    pub(super) fn ttl(&self) -> Option<(u64, u8)> {
        let deadline_ms = self.attributes.deadline_ms;
        (deadline_ms != 0).then_some((deadline_ms, self.ttl_octave))
    }
}

/// An item to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The other properties.
    pub facts: Facts,
    /// Whether to store the full version (see the sweep of invalidations).
    pub versioned: bool,
}

impl Draft<'_> {
    fn header(&self) -> Header {
        let Attributes { flags, deadline_ms, stale_at_ms, negative } = self.facts.attributes;
        let set = |on: bool, flag: u64| if on { flag } else { 0 };
        let flags = set(deadline_ms != 0, flag::DEADLINE)
            | set(stale_at_ms != 0, flag::STALE_AT)
            | set(flags != 0 || self.facts.namespace != 0, flag::META)
            | set(self.versioned, flag::VERSIONED)
            | set(negative, flag::NEGATIVE)
            | set(self.facts.marked_stale, flag::STALE);
        let bytes = self.key.len() + self.value.len();
        let pad = bytes.next_multiple_of(WORD_BYTES) - bytes;
        let words = 1 + Header(flags).extras() + bytes.div_ceil(WORD_BYTES);
        let extent = (words as u64) << WORDS_SHIFT | (pad as u64) << PAD_SHIFT | (self.key.len() as u64 - 1);
        Header(flags | extent).with_version(self.facts.version)
    }

    /// Size of the item, in words.
    pub(super) fn words(&self) -> usize {
        self.header().words()
    }

    /// Writes the item to words that no reader sees yet. The caller publishes it by storing a slot with Release.
    pub(super) fn write(&self, words: &[AtomicU64]) {
        let header = self.header();
        words[0].store(header.0, Ordering::Relaxed);
        self.write_extras(header, words);
        write_bytes(&words[1 + header.extras()..header.words()], self.key, self.value);
    }

    /// Whether it can overwrite the item with header `there` in place: it is no larger, and has the same optional
    /// words.
    pub(super) fn fits_in_place(&self, there: Header) -> bool {
        const SHAPE: u64 = flag::DEADLINE | flag::STALE_AT | flag::META | flag::VERSIONED;
        let here = self.header();
        here.words() <= there.words() && here.0 & SHAPE == there.0 & SHAPE && !self.versioned && !there.is_versioned()
    }

    /// Overwrites the item that fills `words` (H2). The caller holds the shard's lock and has checked
    /// [`Draft::fits_in_place`].
    pub(super) fn overwrite(&self, words: &[AtomicU64]) {
        let before = Header(words[0].load(Ordering::Relaxed));
        if !planted(Fault::OverwriteUnannounced) {
            words[0].store(before.0 | flag::BUSY, Ordering::Relaxed);
        }
        // Release pairs with the Acquire fence in `is_unchanged`: a reader that sees one of the bytes below also sees
        // BUSY.
        fence(Ordering::Release);
        let header = self.header();
        self.write_extras(header, words);
        write_bytes(&words[1 + header.extras()..header.words()], self.key, self.value);
        fill(&words[header.words()..]);
        // Release pairs with the Acquire load in `View::header`: a reader that sees this version also sees its bytes.
        words[0].store(header.0, Ordering::Release);
    }

    fn write_extras(&self, header: Header, words: &[AtomicU64]) {
        let Attributes { flags, deadline_ms, stale_at_ms, negative: _ } = self.facts.attributes;
        let meta = u64::from(flags) << 32 | u64::from(self.facts.namespace);
        let extras = [
            (flag::DEADLINE, deadline_word(deadline_ms, self.facts.ttl_octave)),
            (flag::STALE_AT, stale_at_ms),
            (flag::META, meta),
            (flag::VERSIONED, self.facts.version),
        ];
        let present = extras.into_iter().filter(|(flag, _)| header.has(*flag));
        for (word, (_, value)) in words[1..].iter().zip(present) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// Turns words that no slot names into one dead item. Does nothing for no words. The caller holds the shard's lock.
pub(super) fn fill(words: &[AtomicU64]) {
    if let [first, ..] = words {
        first.store(Header::filler(words.len()).0, Ordering::Relaxed);
    }
}

fn deadline_word(deadline_ms: u64, ttl_octave: u8) -> u64 {
    deadline_ms.min(MAX_DEADLINE_MS) | u64::from(ttl_octave) << OCTAVE_SHIFT
}

/// Stores key and value without a gap; the rest of the last word is zero.
fn write_bytes(words: &[AtomicU64], key: &[u8], value: &[u8]) {
    let (whole, rest) = key.as_chunks::<WORD_BYTES>();
    let (head, words) = words.split_at(whole.len());
    for (word, bytes) in head.iter().zip(whole) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    // The word that contains the end of the key and the beginning of the value.
    let (joint, value) = value.split_at(value.len().min((WORD_BYTES - rest.len()) % WORD_BYTES));
    let words = match words.split_first() {
        Some((word, words)) if !rest.is_empty() => {
            let mut bytes = [0; WORD_BYTES];
            bytes[..rest.len()].copy_from_slice(rest);
            bytes[rest.len()..rest.len() + joint.len()].copy_from_slice(joint);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
            words
        }
        _ => words,
    };
    let (whole, rest) = value.as_chunks::<WORD_BYTES>();
    for (word, bytes) in words.iter().zip(whole) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut bytes = [0; WORD_BYTES];
        bytes[..rest.len()].copy_from_slice(rest);
        words[whole.len()].store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
}

/// The result of reading a location for a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read<T> {
    /// The item of this key.
    Mine(T),
    /// The item of another key with the same tag.
    Another,
    /// The item changed during the read, or is no longer current: try again.
    Again,
}

/// An item whose value is not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened<'a> {
    pub(super) header: Header,
    pub(super) facts: Facts,
    view: View<'a>,
}

impl Opened<'_> {
    /// The value; `None` if it changed during the copy.
    pub(super) fn value(self) -> Option<Bytes> {
        let value = self.view.copy_value(self.header);
        self.is_unchanged().then_some(value)
    }

    fn is_unchanged(&self) -> bool {
        // Acquire pairs with the Release fence in `overwrite`.
        fence(Ordering::Acquire);
        self.view.words[0].load(Ordering::Relaxed) == self.header.0
    }
}

/// An item in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    words: &'a [AtomicU64],
}

impl<'a> View<'a> {
    /// `words` begin with the item's header and reach at least to its end.
    pub(super) fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    /// Loads the header.
    pub(super) fn header(self) -> Header {
        // Acquire pairs with the Release in `overwrite`.
        Header(self.words[0].load(Ordering::Acquire))
    }

    /// Reads a consistent state of everything but the value, if the item is that of `key` (H3). It calls `version_now`
    /// (the shard's write count) after it has loaded the header, so that the count is at least the item's version.
    /// `is_current` returns whether the item may be read at all.
    pub(super) fn open(
        self,
        namespace: u16,
        key: &[u8],
        version_now: impl Fn() -> u64,
        is_current: impl FnOnce() -> bool,
    ) -> Read<Opened<'a>> {
        let header = self.header();
        let unsettled = !header.is_settled() || header.words() > self.words.len();
        if !is_current() || unsettled {
            return Read::Again;
        }
        let is_mine = self.is(header, namespace, key);
        let opened = Opened { header, facts: self.facts(header, version_now()), view: self };
        // A key never changes in place (H1), but before the announcement the memory may have belonged to another
        // segment.
        match opened.is_unchanged() {
            true if is_mine => Read::Mine(opened),
            true => Read::Another,
            false => Read::Again,
        }
    }

    /// Whether the item belongs to `key`. By H1 it need not load the header again.
    pub(super) fn is(self, header: Header, namespace: u16, key: &[u8]) -> bool {
        if header.key_len() != key.len() || self.namespace(header) != namespace {
            return false;
        }
        let words = &self.words[1 + header.extras()..];
        let (whole, rest) = key.as_chunks::<WORD_BYTES>();
        let same =
            whole.iter().zip(words).all(|(bytes, word)| word.load(Ordering::Relaxed) == u64::from_le_bytes(*bytes));
        same && (rest.is_empty() || words[whole.len()].load(Ordering::Relaxed).to_le_bytes().starts_with(rest))
    }

    fn extra(self, header: Header, wanted: u64) -> Option<&'a AtomicU64> {
        const ALL: u64 = flag::DEADLINE | flag::STALE_AT | flag::META | flag::VERSIONED;
        let before = header.0 & ALL & (wanted - 1);
        header.has(wanted).then(|| &self.words[1 + before.count_ones() as usize])
    }

    /// The number of its namespace.
    pub(super) fn namespace(self, header: Header) -> u16 {
        self.extra(header, flag::META).map_or(0, |word| word.load(Ordering::Relaxed) as u16)
    }

    /// Its deadline; 0 for none.
    pub(super) fn deadline_ms(self, header: Header) -> u64 {
        self.extra(header, flag::DEADLINE).map_or(0, |word| word.load(Ordering::Relaxed) & MAX_DEADLINE_MS)
    }

    /// The properties, without key and value.
    pub(super) fn facts(self, header: Header, version_now: u64) -> Facts {
        let load = |flag| self.extra(header, flag).map_or(0, |word| word.load(Ordering::Relaxed));
        let (meta, deadline) = (load(flag::META), load(flag::DEADLINE));
        Facts {
            version: if header.is_versioned() { load(flag::VERSIONED) } else { header.version(version_now) },
            attributes: Attributes {
                flags: (meta >> 32) as u32,
                deadline_ms: deadline & MAX_DEADLINE_MS,
                stale_at_ms: load(flag::STALE_AT),
                negative: header.has(flag::NEGATIVE),
            },
            marked_stale: header.is_stale(),
            namespace: meta as u16,
            ttl_octave: (deadline >> OCTAVE_SHIFT) as u8,
        }
    }

    /// The key, copied into `into`, which is cleared first.
    pub(super) fn copy_key(self, header: Header, into: &mut Vec<u8>) {
        into.clear();
        let words = &self.words[1 + header.extras()..];
        for word in &words[..header.key_len().div_ceil(WORD_BYTES)] {
            into.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        into.truncate(header.key_len());
    }

    /// A copy of the value. It copies whole words, then cuts off the bytes of the key in the first one.
    pub(super) fn copy_value(self, header: Header) -> Bytes {
        let (len, skip) = (header.value_len(), header.key_len() % WORD_BYTES);
        if len == 0 {
            return Bytes::new();
        }
        let first = 1 + header.extras() + header.key_len() / WORD_BYTES;
        let words = &self.words[first..header.words()];
        let mut bytes = vec![0; words.len() * WORD_BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<WORD_BYTES>().0.iter_mut().zip(words) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
        let mut bytes = Bytes::from(bytes);
        bytes.advance(skip);
        bytes.truncate(len);
        bytes
    }

    /// Copies the whole item to words that no reader sees yet. The caller holds the shard's lock.
    pub(super) fn copy_to(self, header: Header, to: &[AtomicU64]) {
        self.copy_words(0..header.words(), to);
    }

    /// Copies key and value, which never change while the header is unchanged. A caller without the shard's lock checks
    /// the header again before it uses the copy.
    pub(super) fn copy_body(self, header: Header, to: &[AtomicU64]) {
        let head = 1 + header.extras();
        self.copy_words(head..header.words(), to);
    }

    /// Copies the header and the optional words. The caller holds the shard's lock.
    pub(super) fn copy_head(self, header: Header, to: &[AtomicU64]) {
        self.copy_words(0..1 + header.extras(), to);
    }

    fn copy_words(self, range: std::ops::Range<usize>, to: &[AtomicU64]) {
        for (to, from) in to[range.clone()].iter().zip(&self.words[range]) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Marks the item dead, after its slot was removed (H4). The caller holds the shard's lock.
    pub(super) fn mark_dead(self) {
        let header = self.words[0].load(Ordering::Relaxed);
        self.words[0].store(header | flag::DEAD, Ordering::Release);
    }

    /// Marks the item stale. The caller holds the shard's lock.
    pub(super) fn mark_stale(self) {
        let header = self.words[0].load(Ordering::Relaxed);
        self.words[0].store(header | flag::STALE, Ordering::Release);
    }

    /// Sets the deadline. `false` if the item has no word for one and `deadline_ms` is not 0. The caller holds the
    /// shard's lock.
    pub(super) fn set_deadline(self, deadline_ms: u64, ttl_octave: u8) -> bool {
        let header = Header(self.words[0].load(Ordering::Relaxed));
        match self.extra(header, flag::DEADLINE) {
            // A reader sees the old deadline or the new one; both were valid during its call.
            Some(word) => word.store(deadline_word(deadline_ms, ttl_octave), Ordering::Relaxed),
            None => return deadline_ms == 0,
        }
        true
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;
