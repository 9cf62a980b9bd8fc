//! What the present engine does wrong, and this test accepts for now. Each constant is set to `false` when its defect is
//! mended; then the answer it excuses is a failure.

/// An item that was marked stale becomes fresh when it is updated.
pub(crate) const UPDATE_MAKES_FRESH: bool = true;

/// An invalidation whose sweep is over still hides a key, written afterwards, from a reader with an older map.
pub(crate) const INVALIDATION_OUTLIVES_ITS_SWEEP: bool = true;

/// An index that is full, while a reader holds the map of the last migration, drops items. Once it has, the misses of an
/// ample phase are not judged any more.
pub(crate) const FULL_INDEX_DROPS_ITEMS: bool = true;
