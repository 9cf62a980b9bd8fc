//! A slot: the eight bytes by which the index knows an item.
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
//! `other` says that the slot stands in the second of the two buckets its key may stand in. With the bucket it stands
//! in, the tag then gives back the whole [`Place`] of the key: an index is migrated without reading a single key.

use super::log::Log;
use std::fmt;

const READS_BITS: u32 = 2;
const OTHER_BITS: u32 = 1;
/// Bits of a tag.
pub(super) const TAG_BITS: u32 = 22;
/// Bits of an offset, which counts words.
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

/// A read count that grows no further.
pub(super) const READS_MAX: u8 = (1 << READS_BITS) - 1;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Where a key belongs within its shard: 28 bits of its hash. The high ones choose the bucket, the low ones are the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub u32);

impl Place {
    /// Bits of a place.
    pub(super) const BITS: u32 = 28;

    /// The part that a slot keeps.
    pub(super) fn tag(self) -> u32 {
        self.0 & mask(TAG_BITS) as u32
    }
}

/// Which segment, and where inside it (in words). A segment's number is not given out again while a
/// reader announces it ([`super::readers`]), so a location that was announced never means another segment's bytes.
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

    /// Words from the segment's beginning.
    pub(super) fn offset_words(self) -> u32 {
        (self.0 & mask(OFFSET_BITS)) as u32
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seg{}+{}", self.segment(), self.offset_words())
    }
}

/// Why an item is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemovalCause {
    /// Dropped to make room.
    Evicted = 1,
    /// Its deadline had passed.
    Expired = 2,
    /// Its group was invalidated.
    Invalidated = 3,
}

/// The word itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    /// No item, and no memory of one.
    pub(super) const EMPTY: Self = Self(0);

    /// An item at `location`, not read yet.
    pub(super) fn item(tag: u32, location: Location) -> Self {
        Self(location.0 << OFFSET_SHIFT | u64::from(tag) << TAG_SHIFT)
    }

    /// The memory of an item that departed from a log at `when`, a count that wraps at 2^16.
    pub(super) fn ghost(tag: u32, why: RemovalCause, log: Log, when: u16) -> Self {
        let why = (why as u64) << (OFFSET_SHIFT + WHEN_BITS);
        Self(why | u64::from(when) << OFFSET_SHIFT | u64::from(tag) << TAG_SHIFT | log as u64)
    }

    /// From the word in the index.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word for the index.
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// Nothing is here.
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Where the item is; `None` for a ghost and for an empty slot.
    pub(super) fn location(self) -> Option<Location> {
        (self.0 >> SEGMENT_SHIFT != 0).then_some(Location(self.0 >> OFFSET_SHIFT))
    }

    /// What departed and when; `None` for an item and for an empty slot.
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

    /// Which log a ghost departed from.
    pub(super) fn removed_from(self) -> Log {
        if self.0 & mask(READS_BITS) == Log::Main as u64 { Log::Main } else { Log::Nursery }
    }

    /// The low bits of the key's place.
    pub(super) fn tag(self) -> u32 {
        (self.0 >> TAG_SHIFT & mask(TAG_BITS)) as u32
    }

    /// It stands in the second bucket of its key.
    pub(super) fn is_other(self) -> bool {
        self.0 >> OTHER_SHIFT & 1 == 1
    }

    /// How often it was read, saturating at [`READS_MAX`].
    pub(super) fn reads(self) -> u8 {
        (self.0 & mask(READS_BITS)) as u8
    }

    /// The same, standing in the second bucket or in the first.
    pub(super) fn with_other(self, other: bool) -> Self {
        Self(self.0 & !(1 << OTHER_SHIFT) | u64::from(other) << OTHER_SHIFT)
    }

    /// The same with another count of reads.
    pub(super) fn with_reads(self, reads: u8) -> Self {
        Self(self.0 & !mask(READS_BITS) | u64::from(reads.min(READS_MAX)))
    }

    /// The same item somewhere else.
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
    fn a_slot_keeps_what_it_was_given() {
        let at = Location::new((1 << SEGMENT_BITS) - 1, (1 << OFFSET_BITS) - 1);
        let slot = Slot::item(0x3f_ffff, at).with_other(true).with_reads(9);
        assert_eq!((slot.location(), slot.tag(), slot.is_other(), slot.reads()), (Some(at), 0x3f_ffff, true, 3));
        assert_eq!(slot.removal(), None);
        let moved = slot.with_location(Location::new(9, 512));
        assert_eq!(format!("{moved:?}"), "seg9+512#3fffff' read 3");
    }

    #[test]
    fn a_ghost_is_no_item_and_says_why_and_when() {
        let ghost = Slot::ghost(5, RemovalCause::Expired, Log::Main, u16::MAX);
        assert_eq!(
            (ghost.location(), ghost.removal(), ghost.tag()),
            (None, Some((RemovalCause::Expired, u16::MAX)), 5)
        );
        assert!(!ghost.is_empty());
        assert_eq!(format!("{:?} {:?}", ghost, Slot::EMPTY), "ghost#5 Expired@65535 empty");
    }
}
