//! The types of the store's interface: requests, answers and refusals.
//!
//! Ordinary answers (a miss, a version that differs) are values. An [`Error`] is a refusal and contains its numbers.
//! Times are milliseconds of the caller's clock. A deadline of 0 means "never".

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

/// The largest version. JavaScript and JSON readers hold integers in doubles, which are exact up to this number; a
/// version that a client rounds would never compare equal again.
pub const MAX_VERSION: u64 = (1 << 53) - 1;

/// Attributes that are stored with a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Opaque to the store.
    pub flags: u32,
    /// The item expires at this time. 0: never.
    pub deadline_ms: u64,
    /// The item becomes stale at this time. 0: never.
    pub stale_at_ms: u64,
    /// A negative entry: the item records that its key has no value. Its own value is empty.
    pub negative: bool,
}

/// A consistent copy of an item, as returned to a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The value.
    pub value: Bytes,
    /// Grows with every write of the key.
    pub version: u64,
    /// The attributes stored with it.
    pub attributes: Attributes,
    /// Marked stale by a deletion or an invalidation that kept the item.
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
    /// No item; with the reason, if the store still has it.
    Miss(Miss),
}

/// Why there is no item. Best effort: the store remembers recent removals only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Miss {
    /// The key was never stored, or left so long ago that the store no longer has the reason.
    #[strum(serialize = "unknown_key")]
    Unknown,
    /// Its deadline has passed.
    Expired,
    /// It was dropped to make room.
    Evicted,
    /// Its group was invalidated.
    Invalidated,
}

impl Miss {
    /// Name in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Whether a read counts as a use of the item when the cleaner chooses what to keep.
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
    /// Only if the key has no value. A negative entry is no value.
    Absent,
    /// Only if the key has a value. A negative entry is no value.
    Present,
    /// Only if the stored version is this one. A negative entry has a version; without an entry the version is 0.
    Version(u64),
    /// Only under the lease with this token.
    Lease(u64),
}

/// The answer to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// Stored under this version.
    Stored(u64),
    /// `Absent` or `Present` did not hold. The field is the stored version, 0 for none.
    NotStored(u64),
    /// The stored version is this one instead; 0 for none.
    Conflict(u64),
    /// The lease has ended. The field is the stored version, 0 for none.
    LeaseLost(u64),
}

/// What a deletion does with the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It drops the item.
    Remove,
    /// It keeps the item and marks it stale.
    MarkStale,
    /// It drops the item, and no lease of its key is granted until a time.
    Tombstone {
        /// The end of this hold-off.
        until_ms: u64,
    },
}

/// The answer to a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// Removed (0), or marked stale (the version, which does not change).
    Deleted(u64),
    /// The key had no value.
    NotFound,
    /// The stored version is this one instead.
    Conflict(u64),
}

/// The decision of an update about the present item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing changes.
    Keep,
    /// Replaces it by this item.
    Store {
        /// The new value.
        value: Bytes,
        /// The attributes stored with it.
        attributes: Attributes,
    },
}

/// A group of keys that is invalidated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group<'a> {
    /// Every key of a namespace.
    Namespace(u16),
    /// The keys of a namespace that begin with these bytes.
    Prefix(u16, &'a [u8]),
}

/// Where a scan continues. Opaque to callers; 0-0 is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next shard.
    pub shard: u32,
    /// The first `Place` to visit in it.
    pub place: u32,
}

/// One entry of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of its namespace.
    pub namespace: u16,
    /// The key.
    pub key: Bytes,
    /// The item; its value is empty unless the scan asks for values.
    pub item: Item,
    /// The value's size in bytes.
    pub value_bytes: usize,
}

/// One portion of a scan.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The entries, in no particular order.
    pub entries: Vec<Entry>,
    /// Where to continue; `None` at the end.
    pub next: Option<Cursor>,
}

/// A refusal. The operation changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key is empty or too long.
    #[error("key: length {len} is out of range (1 to {max} bytes)")]
    KeyLength {
        /// Its length.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The value is larger than the store accepts.
    #[error("value: {len} bytes are too many (at most {max})")]
    ValueTooLarge {
        /// Its length.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// There is no room, although the write has cleaned some tens of segments.
    #[error("no room for an item of {need} bytes: {used} of {capacity} bytes are in use")]
    NoSpace {
        /// Bytes that the item needs.
        need: u64,
        /// Bytes in use.
        used: u64,
        /// The capacity, in bytes.
        capacity: u64,
    },
    /// Too many invalidations are still being swept.
    #[error("invalidations: {pending} are still pending (at most {max})")]
    TooManyInvalidations {
        /// Number of pending invalidations.
        pending: usize,
        /// Maximum number of pending invalidations.
        max: usize,
    },
    /// A hold-off cannot be kept.
    #[error(
        "leases: no room for another hold-off ({leases} leases and hold-offs exist; at most {max} hold-offs, less at small memory limits)"
    )]
    TooManyLeases {
        /// Leases and hold-offs now.
        leases: u64,
        /// Maximum number of hold-offs.
        max: u64,
    },
}
