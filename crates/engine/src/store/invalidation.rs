//! Invalidations: groups of keys whose items are no longer served, until a sweep has dropped or marked them.

use super::item::{Facts, Header};
use super::types::Miss;

/// A group of keys that a caller has invalidated and whose items are not swept yet.
#[derive(Clone, Debug)]
pub(super) struct Invalidation {
    pub(super) namespace: u16,
    pub(super) prefix: Box<[u8]>,
    /// The invalidation covers items of this version and of earlier ones.
    pub(super) up_to_version: u64,
    pub(super) mark_stale: bool,
}

impl Invalidation {
    /// Whether it covers this item. An item without a full version was written before every pending invalidation: while
    /// one is pending, every write stores its full version.
    pub(super) fn means(&self, header: Header, facts: &Facts, key: &[u8]) -> bool {
        let before = !header.is_versioned() || facts.version <= self.up_to_version;
        before && facts.namespace == self.namespace && key.starts_with(&self.prefix)
    }
}

/// Whether an item is stale, if it may be served; else the reason for the miss.
pub(super) fn judge(
    invalidations: &[Invalidation],
    header: Header,
    facts: &Facts,
    key: &[u8],
    now_ms: u64,
) -> Result<bool, Miss> {
    let deadline = facts.attributes.deadline_ms;
    if deadline != 0 && deadline <= now_ms {
        return Err(Miss::Expired);
    }
    let mut marked_stale = facts.marked_stale;
    for invalidation in invalidations.iter().filter(|invalidation| invalidation.means(header, facts, key)) {
        if !invalidation.mark_stale {
            return Err(Miss::Invalidated);
        }
        marked_stale = true;
    }
    Ok(marked_stale)
}
