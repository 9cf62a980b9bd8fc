//! How much memory the node has, and whether it is short of it.
//!
//! The kubelet evicts pods when `memory.available` falls under a threshold (100 MiB unless configured), first those that
//! use more than they requested. A cache that keeps to its request is not among them, if it does so in time: hence a mark
//! well above that threshold.

use super::cgroup::text;
use std::io;
use std::path::Path;

/// The node is short of memory from this share left on, in percent, and no longer above the second.
const SHORT_PERCENT: u64 = 10;
const EASED_PERCENT: u64 = 15;

/// The node's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) total_bytes: u64,
    pub(super) available_bytes: u64,
}

impl Node {
    /// Reads `/proc/meminfo`; `None` when it says neither.
    ///
    /// # Errors
    /// When the process has no descriptor left to read with.
    pub(super) fn read(meminfo: &Path) -> io::Result<Option<Self>> {
        let Some(text) = text(meminfo)? else { return Ok(None) };
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
        };
        let both = bytes("MemTotal:").zip(bytes("MemAvailable:"));
        Ok(both.map(|(total_bytes, available_bytes)| Self { total_bytes, available_bytes }))
    }

    /// Whether it is short of memory, given whether it was.
    pub(super) fn is_short(self, was_short: bool) -> bool {
        let mark = if was_short { EASED_PERCENT } else { SHORT_PERCENT };
        self.available_bytes < self.total_bytes / 100 * mark
    }

    /// Whether a limit is more than there is: it can never be reached.
    pub(super) fn lacks(self, limit_bytes: u64) -> bool {
        limit_bytes > self.total_bytes
    }

    /// Whether a number from the downward API is no limit but what the kubelet writes where there is none: all that
    /// the node can give to pods.
    pub(super) fn is_whole(self, limit_bytes: u64) -> bool {
        limit_bytes >= self.total_bytes / 4 * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_this_runs_on_has_memory_and_nonsense_has_none() {
        let node = Node::read(Path::new("/proc/meminfo")).unwrap().unwrap();
        assert!(node.total_bytes > 1 << 28 && node.available_bytes <= node.total_bytes, "{node:?}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meminfo");
        for text in ["", "MemTotal: 12 kB\n", "MemTotal: lots kB\nMemAvailable: 1 kB\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Node::read(&path).unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn a_limit_that_the_node_cannot_reach_is_none() {
        let node = Node { total_bytes: 1000, available_bytes: 500 };
        assert!(!node.lacks(1000) && node.lacks(1001), "a cgroup's");
        assert!(!node.is_whole(749) && node.is_whole(750), "the downward API's is less what the system keeps");
    }

    #[test]
    fn a_node_is_short_below_a_tenth_and_until_it_has_more_than_a_bit_more() {
        let with = |available_bytes| Node { total_bytes: 1000, available_bytes };
        assert!(!with(100).is_short(false));
        assert!(with(99).is_short(false));
        assert!(with(149).is_short(true), "between the marks it stays what it was");
        assert!(!with(149).is_short(false));
        assert!(!with(150).is_short(true));
        assert!(with(1).is_whole(750) && !with(1).is_whole(749));
    }
}
