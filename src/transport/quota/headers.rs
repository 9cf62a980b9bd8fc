//! Quota of header blocks: the unfinished block of each connection, and the frames that its dynamic table pins.

use super::{InFlight, Quota};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Blocks up to this size are included in the cost of a connection, in bytes.
pub(super) const SMALL_BLOCK_BYTES: u64 = 4 << 10;
/// A connection may use a sixteenth of the free quota, and always the cost of a header list of 16 KiB in 128 fields.
const PART: u64 = 16;
const SERVED_BLOCK_BYTES: u64 = 64 << 10;

impl InFlight {
    /// Quota of all header blocks, in bytes.
    fn max_headers(&self) -> u64 {
        self.max() / 2
    }
}

/// Bytes charged for the header blocks of a connection; released on drop.
#[derive(Debug)]
pub(in crate::transport) struct HeaderBlock {
    quota: Arc<Quota>,
    bytes: u64,
}

impl HeaderBlock {
    /// The block of a new connection.
    pub(in crate::transport) fn new(quota: Arc<Quota>) -> Self {
        Self { quota, bytes: 0 }
    }

    /// Charged bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets the charged bytes. Returns false, and changes nothing, if they would exceed the connection's share, so that
    /// clients that never finish their blocks leave quota for others.
    #[must_use]
    pub(in crate::transport) fn resize(&mut self, bytes: u64) -> bool {
        let bytes = if bytes <= SMALL_BLOCK_BYTES { 0 } else { bytes };
        if bytes == self.bytes {
            return true;
        }
        let all = &self.quota.all;
        let others = all.headers.load(Ordering::Relaxed) - self.bytes;
        let free = all.max_headers().saturating_sub(others);
        if bytes > self.bytes && bytes > (free / PART).max(free.min(SERVED_BLOCK_BYTES)) {
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
