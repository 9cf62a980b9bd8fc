//! The banks that hold a shard's index: the state of each, and a migration from one to another.

use super::index::Index;

/// Banks of a shard's index: the one in use, the one it migrates to, and one that a reader may hold meanwhile.
pub(super) const BANKS: usize = 3;

/// What a bank is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bank {
    /// All zero.
    Clean,
    /// It is the index, or becomes it.
    InUse,
    /// It was the index; a retired map may lead to it. Holds its resident and reserved bytes, counted from its beginning.
    Held(u64),
    /// No reader uses it. Holds its resident and reserved bytes, counted from its beginning.
    Dirty(u64),
    /// As `Dirty`, with 0 or more bytes; and what was behind them is being given back without the lock.
    Leaving(u64),
}

/// A piece of a bank, on its way to the operating system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) bank: usize,
    /// Its first word in the arena.
    pub(super) first: usize,
    pub(super) bytes: u64,
}

/// A migration on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    pub(super) next: Index,
    /// Buckets of the old index that have been carried over.
    pub(super) cursor: u32,
}
