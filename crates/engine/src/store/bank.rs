//! The banks that hold a shard's index: the state of each, and a migration from one to another.

use super::index::Index;

/// Banks of a shard's index: the one in use, the one it migrates to, and one that a reader may hold meanwhile.
pub(super) const BANKS: usize = 3;

/// The state of a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bank {
    /// All zero.
    Clean,
    /// It holds the index, or the index that a migration fills.
    InUse,
    /// It held the index, and a retired map may refer to it. The field is its resident and reserved bytes, counted from
    /// its beginning.
    Held(u64),
    /// No reader uses it. The field is its resident and reserved bytes, counted from its beginning.
    Dirty(u64),
    /// Like `Dirty`, with 0 or more bytes left, while a piece behind these bytes is being returned to the kernel
    /// without the lock.
    Leaving(u64),
}

/// A piece of a bank that is being returned to the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) bank: usize,
    /// Its first word in the arena.
    pub(super) first: usize,
    pub(super) bytes: u64,
}

/// A running migration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    pub(super) next: Index,
    /// Number of buckets of the old index that are already copied to the new one.
    pub(super) cursor: u32,
}
