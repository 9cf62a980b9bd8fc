//! The words the store is spoken to in: what is asked, what is answered, and what is refused.
//!
//! Ordinary answers (a miss, a version that differs) are values. An [`Error`] is a refusal and says its numbers.
//! Times are milliseconds of the clock the caller brings; 0 stands for "never" in a deadline.

use bytes::Bytes;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// A key within its namespace. `bytes` is 1 to [`MAX_KEY_BYTES`] long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    /// The number of the namespace; 0 is the default one.
    pub namespace: u16,
    /// The key itself.
    pub bytes: &'a [u8],
}

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// The largest version. JavaScript and JSON readers hold integers in doubles, which are exact up to this number; a version
/// that a client rounds would never compare equal again.
pub const MAX_VERSION: u64 = (1 << 53) - 1;

/// What is stored beside a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Opaque to the store.
    pub flags: u32,
    /// From this time on the item is gone. 0: never.
    pub deadline_ms: u64,
    /// From this time on the item is stale. 0: never.
    pub stale_at_ms: u64,
    /// The item says that its key has no value; the value is empty.
    pub negative: bool,
}

/// An item as a reader sees it: a copy, taken while nothing could move under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The value.
    pub value: Bytes,
    /// Grows with every write of the key.
    pub version: u64,
    /// What was stored beside it.
    pub attributes: Attributes,
    /// Declared stale by a deletion or an invalidation that kept it.
    pub marked_stale: bool,
}

impl Item {
    /// For how long the item has been stale at `now_ms`, in milliseconds; `None` while it is fresh.
    pub fn stale_for_ms(&self, now_ms: u64) -> Option<u64> {
        let stale_at = self.attributes.stale_at_ms;
        match stale_at {
            _ if stale_at != 0 && now_ms >= stale_at => Some(now_ms - stale_at),
            _ if self.marked_stale => Some(0),
            _ => None,
        }
    }
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The item, fresh or stale.
    Found(Item),
    /// No item, and why, as far as the store remembers.
    Miss(Miss),
}

/// Why there is no item. Best effort: the store remembers recent removals only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Miss {
    /// Not stored as far as the store remembers.
    #[strum(serialize = "unknown_key")]
    Unknown,
    /// Its deadline had passed.
    Expired,
    /// It was dropped to make room.
    Evicted,
    /// Its group was invalidated.
    Invalidated,
}

impl Miss {
    /// The stable name, as in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Whether a read counts as use of the item when the cleaner chooses what to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It counts.
    Read,
    /// It does not.
    Peek,
}

/// The condition under which a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// Only when the key has no value. A negative entry is no value.
    Absent,
    /// Only when the key has a value. A negative entry is no value.
    Present,
    /// Only when the stored version is this one. A negative entry has a version; without an entry the version is 0.
    Version(u64),
}

/// The answer to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// Stored under this version.
    Stored(u64),
    /// `Absent` or `Present` did not hold; the version that is stored, 0 for none.
    NotStored(u64),
    /// The stored version is another one; 0 for none.
    Conflict(u64),
}

/// What a deletion leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Nothing.
    Remove,
    /// The item, from now on stale.
    MarkStale,
}

/// The answer to a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// Removed, or marked stale (then with the version that stays).
    Deleted(u64),
    /// The key had no value.
    NotFound,
    /// The stored version is this one.
    Conflict(u64),
}

/// What an update, seeing the present item, makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing changes.
    Keep,
    /// This is stored in its place.
    Store {
        /// The new value.
        value: Bytes,
        /// What is stored beside it.
        attributes: Attributes,
    },
}

/// A group of keys that is invalidated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group<'a> {
    /// Every key of a namespace.
    Namespace(u16),
    /// Every key of a namespace that begins with these bytes.
    Prefix(u16, &'a [u8]),
}

/// Where a scan goes on. Opaque; 0-0 is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The shard that is next.
    pub shard: u32,
    /// The first place within it.
    pub place: u32,
}

/// One entry of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of its namespace.
    pub namespace: u16,
    /// The key.
    pub key: Bytes,
    /// The item; its value is empty unless values were asked for.
    pub item: Item,
    /// The value's size in bytes.
    pub value_bytes: usize,
}

/// One portion of a scan.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The entries, in no order a caller could rely on.
    pub entries: Vec<Entry>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// A refusal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key is empty or too long.
    #[error("key has {len} bytes; it must have 1 to {max}")]
    KeyLength {
        /// Its length.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The value can never be stored.
    #[error("value has {len} bytes; it must have at most {max}")]
    ValueTooLarge {
        /// Its length.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// There is no room now, although some tens of segments were cleaned for it.
    #[error("no room for an item of {need} bytes: {used} of {capacity} bytes are in use")]
    NoSpace {
        /// What the item needs.
        need: u64,
        /// What is in use.
        used: u64,
        /// What may be in use.
        capacity: u64,
    },
    /// Too many invalidations are still being swept.
    #[error("{pending} invalidations are still being carried out; at most {max} may be")]
    TooManyInvalidations {
        /// How many there are.
        pending: usize,
        /// How many there may be.
        max: usize,
    },
}
