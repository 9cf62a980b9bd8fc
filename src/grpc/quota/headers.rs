//! What `h2` keeps of header blocks: all it has decoded of one that has not ended, and frames that entries of its table are
//! parts of.

use super::{InFlight, Quota};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Blocks up to this size are part of what a connection costs, in bytes.
pub(super) const SMALL_BLOCK_BYTES: u64 = 4 << 10;
/// One block may take this part of what is free for all of them, and at least what the longest list takes that is served:
/// 16 KiB in 128 fields.
const PART: u64 = 16;
const SERVED_BLOCK_BYTES: u64 = 64 << 10;

impl InFlight {
    /// What header blocks may take that have not ended, in bytes.
    fn max_headers(&self) -> u64 {
        self.max() / 2
    }
}

/// What `h2` keeps of a connection's header blocks; given back when it is dropped.
#[derive(Debug)]
pub(in crate::grpc) struct HeaderBlock {
    quota: Arc<Quota>,
    bytes: u64,
}

impl HeaderBlock {
    /// Of a connection that has begun none.
    pub(in crate::grpc) fn new(quota: Arc<Quota>) -> Self {
        Self { quota, bytes: 0 }
    }

    /// Sets what there is of it now. Returns whether that may be: blocks longer than any that is served may take a sixteenth
    /// of what is free for all of them, so a client that never ends its blocks leaves room for those of others.
    #[must_use]
    pub(in crate::grpc) fn resize(&mut self, bytes: u64) -> bool {
        let bytes = if bytes <= SMALL_BLOCK_BYTES { 0 } else { bytes };
        if bytes == self.bytes {
            return true;
        }
        let all = &self.quota.all;
        let others = all.headers.load(Ordering::Relaxed) - self.bytes;
        let free = all.max_headers().saturating_sub(others);
        if bytes > (free / PART).max(free.min(SERVED_BLOCK_BYTES)) {
            return false;
        }
        all.headers.fetch_add(bytes, Ordering::Relaxed);
        all.headers.fetch_sub(self.bytes, Ordering::Relaxed);
        all.recharge(self.bytes, bytes);
        self.bytes = bytes;
        true
    }
}

impl Drop for HeaderBlock {
    fn drop(&mut self) {
        let _ = self.resize(0);
    }
}
