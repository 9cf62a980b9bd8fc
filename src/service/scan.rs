//! Scans: the keys of a namespace, page by page, and the tokens that continue them.

use super::{Cache, Refusal};
use bytes::Bytes;
use ebb_engine::store::{Cursor, MAX_KEY_BYTES, Places};
use ebb_proto as proto;

/// Maximum entries per page of a scan.
const SCAN_PORTION: usize = 256;

impl Cache {
    /// One page of a scan, of at most `left` entries, and where to continue. `places` belongs to the scan.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn scan(
        &self,
        request: &proto::ScanRequest,
        from: Cursor,
        left: u64,
        places: &mut Places,
    ) -> Result<(proto::ScanResponse, Option<Cursor>), Refusal> {
        Refusal::length("prefix", request.prefix.len(), 0, MAX_KEY_BYTES)?;
        let namespace = self.namespaces.find(&request.namespace)?;
        if namespace.is_unknown() {
            return Ok((proto::ScanResponse::default(), None));
        }
        let now_ms = self.clock.now_ms();
        let limit = left.min(SCAN_PORTION as u64) as usize;
        let (namespace, prefix, values) = (Some(namespace.number), &request.prefix, request.with_values);
        let page = self.store.scan(namespace, prefix, from, limit, values, now_ms, places);
        let entries = page.entries.into_iter().map(|entry| proto::scan_response::Entry {
            key: entry.key,
            value: entry.item.value,
            version: entry.item.version,
            ttl_ms: entry.item.attributes.deadline_ms.saturating_sub(now_ms),
            size: entry.value_bytes as u64,
        });
        let next_page_token = page.next.map_or(Bytes::new(), page_token);
        Ok((proto::ScanResponse { entries: entries.collect(), next_page_token }, page.next))
    }

    /// The cursor of a page token.
    ///
    /// # Errors
    /// A [`Refusal`] for an invalid token.
    pub fn cursor(&self, token: &[u8]) -> Result<Cursor, Refusal> {
        match (token.len(), token.first_chunk::<4>(), token.last_chunk::<4>()) {
            (0, ..) => Ok(Cursor::default()),
            (8, Some(shard), Some(place)) if u32::from_be_bytes(*shard) < self.store.shards() as u32 => {
                Ok(Cursor { shard: u32::from_be_bytes(*shard), place: u32::from_be_bytes(*place) })
            }
            _ => Err(Refusal::PageToken),
        }
    }
}

fn page_token(cursor: Cursor) -> Bytes {
    [cursor.shard.to_be_bytes(), cursor.place.to_be_bytes()].concat().into()
}
