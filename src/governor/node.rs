//! Memory of the node, and whether the node is short of it.
//!
//! The kubelet evicts pods when `memory.available` falls below a threshold (100 MiB by default), first pods that use
//! more than they requested. A cache that shrinks to its request in time is not among them. So the threshold here is
//! well above the kubelet's.

use super::cgroup::text;
use std::io;
use std::path::Path;

/// The node becomes short of memory below the first share of available memory, and recovers at the second, in percent.
const SHORT_PERCENT: u64 = 10;
const EASED_PERCENT: u64 = 15;

/// The node's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) total_bytes: u64,
    pub(super) available_bytes: u64,
}

impl Node {
    /// Reads `/proc/meminfo`; `None` if it lacks one of the two values.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub(super) fn read(meminfo: &Path) -> io::Result<Option<Self>> {
        let Some(text) = text(meminfo)? else { return Ok(None) };
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
        };
        let both = bytes("MemTotal:").zip(bytes("MemAvailable:"));
        Ok(both.map(|(total_bytes, available_bytes)| Self { total_bytes, available_bytes }))
    }

    /// Whether the node is short of memory, given whether it was before (hysteresis).
    pub(super) fn is_short(self, was_short: bool) -> bool {
        let mark = if was_short { EASED_PERCENT } else { SHORT_PERCENT };
        self.available_bytes < self.total_bytes / 100 * mark
    }

    /// Whether a limit exceeds the node's memory, so that it can never be reached.
    pub(super) fn lacks(self, limit_bytes: u64) -> bool {
        limit_bytes > self.total_bytes
    }

    /// Whether a number from the downward API is not a limit, but the node's allocatable memory, which the kubelet
    /// writes if the container has no limit.
    pub(super) fn is_whole(self, limit_bytes: u64) -> bool {
        limit_bytes >= self.total_bytes / 4 * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_of_this_machine_is_read_and_malformed_is_not() {
        let node = Node::read(Path::new("/proc/meminfo")).unwrap().unwrap();
        assert!(node.total_bytes > 1 << 28 && node.available_bytes <= node.total_bytes, "{node:?}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meminfo");
        let malformed = ["", "MemTotal: 12 kB\n", "MemTotal: lots kB\nMemAvailable: 1 kB\n"];
        let found = malformed.map(|text| {
            std::fs::write(&path, text).unwrap();
            (text, Node::read(&path).unwrap())
        });
        assert_eq!(found, malformed.map(|text| (text, None)));
    }

    #[test]
    fn limits_above_the_node_and_allocatable_memory_are_detected() {
        let node = Node { total_bytes: 1000, available_bytes: 500 };
        assert!(!node.lacks(1000) && node.lacks(1001), "for a limit of a cgroup");
        assert!(!node.is_whole(749) && node.is_whole(750), "allocatable memory is less than the total");
    }

    #[test]
    fn a_node_is_short_below_10_until_it_has_15_percent() {
        let with = |available_bytes| Node { total_bytes: 1000, available_bytes };
        assert!(!with(100).is_short(false));
        assert!(with(99).is_short(false));
        assert!(with(149).is_short(true), "hysteresis between the two shares");
        assert!(!with(149).is_short(false));
        assert!(!with(150).is_short(true));
        assert!(with(1).is_whole(750) && !with(1).is_whole(749));
    }
}
