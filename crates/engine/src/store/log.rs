//! The logs of a shard, and where an item is appended.

use strum::IntoStaticStr;

/// The two logs of a shard (S3-FIFO: Yang et al., SOSP 2023), each with a segment for what is new and one for what the
/// cleaner moved, so that items of one age stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Log {
    /// Items that were not asked for yet.
    Nursery,
    /// Items that have earned their place.
    Main,
}

/// Where an item is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The log.
    pub log: Log,
    /// Among items that were moved.
    pub moved: bool,
}

impl Log {
    /// The stable name.
    pub(super) fn name(self) -> &'static str {
        self.into()
    }
}

impl Tail {
    /// How many there are.
    pub(super) const COUNT: usize = 4;

    /// From 0 to [`Tail::COUNT`].
    pub(super) fn number(self) -> usize {
        self.log as usize * 2 + usize::from(self.moved)
    }
}
