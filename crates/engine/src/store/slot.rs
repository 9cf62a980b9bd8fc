//! A slot: the eight bytes by which the index refers to an item.
//!
//! ```text
//!  63           43 42          25 24          3   2    1 0
//! ┌───────────────┬──────────────┬─────────────┬─────┬─────┐
//! │ segment  (21) │ offset  (18) │  tag  (22)  │other│reads│   an item
//! ├───────────────┼──────────────┼─────────────┼─────┼─────┤
//! │ 0             │ why │  when  │  tag        │other│ log │   a ghost: an item that was dropped, and from which log
//! ├───────────────┴──────────────┴─────────────┴─────┴─────┤
//! │ 0                                                      │   empty
//! └────────────────────────────────────────────────────────┘
//! ```
//! `other` is set if the slot is in the second of the two buckets of its key. Bucket, `other` and tag together
//! determine the whole [`Place`] of the key, so that an index migrates without reading a single key.

use super::log::Log;
use std::fmt;

const READS_BITS: u32 = 2;
const OTHER_BITS: u32 = 1;
/// Bits of a tag.
pub(super) const TAG_BITS: u32 = 22;
/// Bits of an offset, in words.
pub(super) const OFFSET_BITS: u32 = 18;
/// Bits of a segment's number.
pub(super) const SEGMENT_BITS: u32 = 21;
const _: () =
    assert!(SEGMENT_BITS + OFFSET_BITS + TAG_BITS + OTHER_BITS + READS_BITS == 64, "the fields tile the slot");

const OTHER_SHIFT: u32 = READS_BITS;
const TAG_SHIFT: u32 = OTHER_SHIFT + OTHER_BITS;
const OFFSET_SHIFT: u32 = TAG_SHIFT + TAG_BITS;
const SEGMENT_SHIFT: u32 = OFFSET_SHIFT + OFFSET_BITS;
const WHEN_BITS: u32 = 16;

/// The read count at which a slot saturates.
pub(super) const READS_MAX: u8 = (1 << READS_BITS) - 1;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The position of a key within its shard: 28 bits of its hash. The high bits choose the bucket, the low bits are the
/// tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub u32);

impl Place {
    /// Bits of a `Place`.
    pub(super) const BITS: u32 = 28;

    /// The bits that a slot stores.
    pub(super) fn tag(self) -> u32 {
        self.0 & mask(TAG_BITS) as u32
    }
}

/// A segment and an offset in it, in words. The pool does not reuse a segment's number while a reader announces it
/// ([`super::readers`]), so an announced location never means another segment's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Location(u64);

impl Location {
    /// `segment` is at least 1.
    pub(super) fn new(segment: u32, offset_words: u32) -> Self {
        debug_assert!(segment > 0 && u64::from(segment) <= mask(SEGMENT_BITS));
        debug_assert!(u64::from(offset_words) <= mask(OFFSET_BITS));
        Self(u64::from(segment) << OFFSET_BITS | u64::from(offset_words))
    }

    /// The segment's number.
    pub(super) fn segment(self) -> u32 {
        (self.0 >> OFFSET_BITS) as u32
    }

    /// Offset in the segment, in words.
    pub(super) fn offset_words(self) -> u32 {
        (self.0 & mask(OFFSET_BITS)) as u32
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seg{}+{}", self.segment(), self.offset_words())
    }
}

/// Why an item left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemovalCause {
    /// Dropped to make room.
    Evicted = 1,
    /// Its deadline had passed.
    Expired = 2,
    /// Its group was invalidated.
    Invalidated = 3,
}

/// A slot as a word: an item, a ghost, or empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    /// Neither an item nor a ghost.
    pub(super) const EMPTY: Self = Self(0);

    /// An item at `location` with a read count of 0.
    pub(super) fn item(tag: u32, location: Location) -> Self {
        Self(location.0 << OFFSET_SHIFT | u64::from(tag) << TAG_SHIFT)
    }

    /// The ghost of an item that left a log at `when`, a count that wraps at 2^16.
    pub(super) fn ghost(tag: u32, why: RemovalCause, log: Log, when: u16) -> Self {
        let why = (why as u64) << (OFFSET_SHIFT + WHEN_BITS);
        Self(why | u64::from(when) << OFFSET_SHIFT | u64::from(tag) << TAG_SHIFT | log as u64)
    }

    /// A slot from its word in the index.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word for the index.
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// Whether it is neither an item nor a ghost.
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Location of the item; `None` for a ghost and for an empty slot.
    pub(super) fn location(self) -> Option<Location> {
        (self.0 >> SEGMENT_SHIFT != 0).then_some(Location(self.0 >> OFFSET_SHIFT))
    }

    /// Why and when the item of a ghost left; `None` for an item and for an empty slot.
    pub(super) fn removal(self) -> Option<(RemovalCause, u16)> {
        let when = (self.0 >> OFFSET_SHIFT & mask(WHEN_BITS)) as u16;
        if self.0 >> SEGMENT_SHIFT != 0 {
            return None;
        }
        match self.0 >> (OFFSET_SHIFT + WHEN_BITS) {
            1 => Some((RemovalCause::Evicted, when)),
            2 => Some((RemovalCause::Expired, when)),
            3 => Some((RemovalCause::Invalidated, when)),
            _ => None,
        }
    }

    /// The log that the item of a ghost left.
    pub(super) fn removed_from(self) -> Log {
        if self.0 & mask(READS_BITS) == Log::Main as u64 { Log::Main } else { Log::Nursery }
    }

    /// The low bits of the key's `Place`.
    pub(super) fn tag(self) -> u32 {
        (self.0 >> TAG_SHIFT & mask(TAG_BITS)) as u32
    }

    /// Whether it is in the second bucket of its key.
    pub(super) fn is_other(self) -> bool {
        self.0 >> OTHER_SHIFT & 1 == 1
    }

    /// The read count, saturating at [`READS_MAX`].
    pub(super) fn reads(self) -> u8 {
        (self.0 & mask(READS_BITS)) as u8
    }

    /// The same slot in the second bucket (`true`) or in the home bucket.
    pub(super) fn with_other(self, other: bool) -> Self {
        Self(self.0 & !(1 << OTHER_SHIFT) | u64::from(other) << OTHER_SHIFT)
    }

    /// The same slot with another read count.
    pub(super) fn with_reads(self, reads: u8) -> Self {
        Self(self.0 & !mask(READS_BITS) | u64::from(reads.min(READS_MAX)))
    }

    /// The same slot with another location.
    pub(super) fn with_location(self, location: Location) -> Self {
        Self(self.0 & mask(OFFSET_SHIFT) | location.0 << OFFSET_SHIFT)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = if self.is_other() { "'" } else { "" };
        match (self.location(), self.removal()) {
            (Some(at), _) => write!(f, "{at:?}#{:x}{other} read {}", self.tag(), self.reads()),
            (_, Some((why, when))) => write!(f, "ghost#{:x}{other} {why:?}@{when}", self.tag()),
            _ => write!(f, "empty"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_round_trips_its_fields() {
        let at = Location::new((1 << SEGMENT_BITS) - 1, (1 << OFFSET_BITS) - 1);
        let slot = Slot::item(0x3f_ffff, at).with_other(true).with_reads(9);
        assert_eq!((slot.location(), slot.tag(), slot.is_other(), slot.reads()), (Some(at), 0x3f_ffff, true, 3));
        assert_eq!(slot.removal(), None);
        let moved = slot.with_location(Location::new(9, 512));
        assert_eq!(format!("{moved:?}"), "seg9+512#3fffff' read 3");
    }

    #[test]
    fn a_ghost_is_no_item_and_keeps_cause_and_time() {
        let ghost = Slot::ghost(5, RemovalCause::Expired, Log::Main, u16::MAX);
        assert_eq!(
            (ghost.location(), ghost.removal(), ghost.tag()),
            (None, Some((RemovalCause::Expired, u16::MAX)), 5)
        );
        assert!(!ghost.is_empty());
        assert_eq!(format!("{:?} {:?}", ghost, Slot::EMPTY), "ghost#5 Expired@65535 empty");
    }
}
