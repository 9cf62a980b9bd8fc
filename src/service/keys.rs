//! Hot keys and large keys.

use super::{Cache, Refusal};
use ebb_engine::store::{Cursor, Places};
use ebb_proto as proto;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

/// Default and maximum number of listed keys.
const LISTED: (u32, u32) = (10, super::hot::LISTED as u32);
/// Default and maximum number of sampled entries.
const SAMPLE: (u64, u64) = (100_000, 10_000_000);
/// Entries per page of the scan.
const PORTION: usize = 256;

/// The largest entries so far: by size, with namespace and key.
type Largest = BinaryHeap<Reverse<(u64, u16, Vec<u8>)>>;

/// A scan of a sample of the store, page by page, so that other tasks can run in between.
#[derive(Debug)]
pub struct BigKeys {
    limit: usize,
    clear: bool,
    sample: u64,
    seen: u64,
    began: Cursor,
    next: Option<Cursor>,
    wrapped: bool,
    largest: Largest,
    places: Places,
}

fn limit_of(limit: u32) -> Result<usize, Refusal> {
    Refusal::at_most("limit", limit.into(), LISTED.1.into())?;
    Ok(if limit == 0 { LISTED.0 } else { limit } as usize)
}

impl Cache {
    /// Lists the most-read keys.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn hot_keys(&self, request: &proto::ListHotKeysRequest) -> Result<proto::ListHotKeysResponse, Refusal> {
        let (keys, sampled_reads) = self.hot.hottest(limit_of(request.limit)?);
        let info = |heat: super::hot::Heat| proto::KeyInfo {
            read_share_millipercent: (heat.certain * 100_000 / sampled_reads.max(1)) as u32,
            sampled_reads: heat.certain,
            sampled_reads_error: heat.error,
            ..self.key_info(heat.namespace, &heat.key, request.clear)
        };
        Ok(proto::ListHotKeysResponse { keys: keys.into_iter().map(info).collect(), sampled_reads })
    }

    /// Begins a scan for the largest entries of the store.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn big_keys(&self, request: &proto::ListBigKeysRequest) -> Result<BigKeys, Refusal> {
        Refusal::at_most("sample", request.sample, SAMPLE.1)?;
        let sample = if request.sample == 0 { SAMPLE.0 } else { request.sample };
        // Scan a small store whole from its beginning, so that no entry is seen twice; sample a large one from a random
        // shard.
        let is_sample = self.store.stats().entries > sample;
        let shard = if is_sample { fastrand::u32(..self.store.shards() as u32) } else { 0 };
        let began = Cursor { shard, place: 0 };
        let limit = limit_of(request.limit)?;
        let largest = Largest::with_capacity(limit + 1);
        Ok(BigKeys {
            limit,
            clear: request.clear,
            sample,
            seen: 0,
            began,
            next: Some(began),
            wrapped: false,
            largest,
            places: Places::default(),
        })
    }

    fn key_info(&self, namespace: u16, key: &[u8], clear: bool) -> proto::KeyInfo {
        proto::KeyInfo {
            namespace: self.namespaces.name(namespace),
            key: if clear { key.to_vec().into() } else { Default::default() },
            key_hash: self.stand_in.hash_one((namespace, key)),
            ..proto::KeyInfo::default()
        }
    }
}

impl BigKeys {
    /// Scans one more page. Returns the answer once it has seen enough entries.
    pub fn look_on(&mut self, cache: &Cache) -> Option<proto::ListBigKeysResponse> {
        if let Some(from) = self.next.filter(|_| self.seen < self.sample) {
            let page = cache.store.scan(None, &[], from, PORTION, false, cache.clock.now_ms(), &mut self.places);
            for entry in page.entries {
                self.seen += 1;
                self.largest.push(Reverse((entry.value_bytes as u64, entry.namespace, entry.key.to_vec())));
                if self.largest.len() > self.limit {
                    self.largest.pop();
                }
            }
            self.next = match page.next {
                None if self.began.shard > 0 && !self.wrapped => {
                    self.wrapped = true;
                    Some(Cursor::default())
                }
                Some(next) if self.wrapped && next.shard >= self.began.shard => None,
                next => next,
            };
            return None;
        }
        let largest = std::mem::take(&mut self.largest).into_sorted_vec();
        let info = |Reverse((value_bytes, namespace, key)): Reverse<(u64, u16, Vec<u8>)>| proto::KeyInfo {
            value_bytes,
            ..cache.key_info(namespace, &key, self.clear)
        };
        Some(proto::ListBigKeysResponse { keys: largest.into_iter().map(info).collect(), sampled_entries: self.seen })
    }
}
