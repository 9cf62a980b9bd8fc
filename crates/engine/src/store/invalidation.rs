//! Invalidations: groups of keys whose items are no longer served, until a sweep has dropped or marked them.

use super::item::{Facts, Header};
use super::types::Miss;

/// A group of keys that a caller has invalidated, until its items are swept.
#[derive(Clone, Debug)]
pub(super) struct Invalidation {
    pub(super) namespace: u16,
    pub(super) prefix: Box<[u8]>,
    /// Items of this version or an earlier one are meant.
    pub(super) up_to_version: u64,
    pub(super) mark_stale: bool,
}

impl Invalidation {
    /// Whether it means this item. Items without a full version were written before any invalidation that is still
    /// being swept, for while there is one, every write carries its full version.
    pub(super) fn means(&self, header: Header, facts: &Facts, key: &[u8]) -> bool {
        let before = !header.is_versioned() || facts.version <= self.up_to_version;
        before && facts.namespace == self.namespace && key.starts_with(&self.prefix)
    }
}

/// Whether an item may be served, and whether as one that was declared stale.
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
