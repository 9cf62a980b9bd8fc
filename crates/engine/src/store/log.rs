//! The logs of a shard, and the four segments to which items are appended.

use strum::IntoStaticStr;

/// The two logs of a shard (S3-FIFO: Yang et al., SOSP 2023). Each appends new items and items moved by the cleaner to
/// different segments, so that items of one age stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Log {
    /// New items, which have not been read often enough for the main log.
    Nursery,
    /// Items that eviction has kept, or whose keys came back soon after their eviction.
    Main,
}

/// The end of a log to which an item is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The log.
    pub log: Log,
    /// Whether it takes items moved by the cleaner.
    pub moved: bool,
}

impl Log {
    /// Name in metrics and on the wire.
    pub(super) fn name(self) -> &'static str {
        self.into()
    }
}

impl Tail {
    /// Number of tails per shard.
    pub(super) const COUNT: usize = 4;

    /// Number of the tail, below [`Tail::COUNT`].
    pub(super) fn number(self) -> usize {
        self.log as usize * 2 + usize::from(self.moved)
    }
}
