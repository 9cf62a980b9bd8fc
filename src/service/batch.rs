//! Many keys in one call. Each item is executed or refused separately. Only a problem of the whole batch (too many
//! items, its namespace) refuses all of it.

use super::lease::{self, Asked, Attempt, Leases, Wait};
use super::{Cache, MAX_BATCH_ITEMS, Refusal, check_key, is_fresh};
use ebb_engine::store::{Condition, Deletion, Key, Use, Waiter};
use ebb_proto as proto;

/// Keys prefetched together: a few times the cache misses that a processor handles concurrently.
const LOOK_AHEAD: usize = 32;
/// Maximum size of a result in the response without its value, in bytes.
const RESULT_BYTES: u64 = 64;
/// The results of a whole batch of refusals fit into any response.
const _: () = assert!(RESULT_BYTES * MAX_BATCH_ITEMS as u64 <= 64 << 10);

/// The leases of others for which a batch may wait.
#[derive(Default)]
struct Waiting {
    waiters: Vec<Waiter>,
    first_end_ms: u64,
}

impl Waiting {
    fn join(&mut self, waiter: Waiter, ends_at_ms: u64) {
        self.first_end_ms = if self.waiters.is_empty() { ends_at_ms } else { self.first_end_ms.min(ends_at_ms) };
        self.waiters.push(waiter);
    }

    /// What the batch waits for. It does not wait while it holds a lease: two batches would wait for each other.
    fn wait(self, leases: &Leases, now_ms: u64) -> Option<Wait> {
        let waits = !self.waiters.is_empty() && leases.may_wait(now_ms);
        waits.then(|| Wait { at_most: leases.until(self.first_end_ms, now_ms), waiters: self.waiters })
    }
}

/// One result for each item, in the order of the request.
pub type Results<T> = Vec<Result<T, Refusal>>;

impl Cache {
    /// Prefetches the memory for lookups of these keys, and returns their number. Does nothing, and returns 0, if the
    /// processor's caches hold the whole cache.
    pub fn look_ahead<'a>(&self, keys: impl Iterator<Item = (&'a str, &'a [u8])>) -> usize {
        if !self.store.outgrows_processor() {
            return 0;
        }
        let mut number = 0;
        self.store.look_ahead(keys.filter_map(|(namespace, bytes)| {
            number += 1;
            let namespace = self.namespaces.find(namespace).ok()?.number;
            Some(Key { namespace, bytes })
        }));
        number
    }

    /// Reads many keys. `room` checks, before each value, whether a response with this many bytes of values may be
    /// built. With `leases`, it takes or waits for the leases of keys without a fresh entry.
    ///
    /// # Errors
    /// A [`Refusal`] of the whole batch, that of `room` included.
    pub fn batch_get(
        &self,
        request: &proto::BatchGetRequest,
        mut leases: Option<&mut Leases>,
        room: impl Fn(u64) -> Result<(), Refusal>,
    ) -> Result<Attempt<Results<proto::GetResponse>>, Refusal> {
        Refusal::too_many("keys", request.keys.len(), MAX_BATCH_ITEMS)?;
        let leasable = match &leases {
            Some(_) => self.namespace_to_lease(&request.namespace)?,
            None => None,
        };
        let has_leases = leasable.is_some();
        let namespace = match leasable {
            Some(namespace) => namespace,
            None => self.namespaces.find(&request.namespace)?,
        };
        let number = namespace.number;
        let key = |bytes| Key { namespace: number, bytes };
        let usage = match &mut leases {
            Some(leases) => leases.attempt(request.peek),
            None if request.peek => Use::Peek,
            None => Use::Read,
        };
        let now_ms = self.clock.now_ms();
        let max = self.transport.0().message_bytes;
        let mut bytes = 0;
        let mut results = Vec::with_capacity(request.keys.len());
        let mut waiting = Waiting::default();
        for (i, bytes_of_key) in request.keys.iter().enumerate() {
            if i % LOOK_AHEAD == 0 {
                let soon = request.keys[i..].iter().take(LOOK_AHEAD);
                self.store.look_ahead(soon.map(|bytes| key(bytes)));
            }
            if let Err(refusal) = check_key(bytes_of_key) {
                results.push(Err(refusal));
                continue;
            }
            let key = key(bytes_of_key);
            let mut usage = usage;
            let response = loop {
                let lookup = self.store.get(key, now_ms, usage)?;
                if usage == Use::Read {
                    self.count(key, &lookup);
                }
                let is_fresh = is_fresh(&lookup, now_ms);
                let mut response = self.answer(lookup, request.max_stale_ms, None, now_ms);
                let Some(leases) = leases.as_deref_mut().filter(|_| !is_fresh) else { break response };
                if !has_leases {
                    response.lease = Some(lease::exhausted());
                    break response;
                }
                match self.ask(number, bytes_of_key, lease::is_miss(&response), leases, now_ms)? {
                    Asked::Fresh => usage = Use::Peek,
                    Asked::Lease(lease) => {
                        response.lease = Some(lease);
                        break response;
                    }
                    Asked::Wait(waiter, ends_at_ms, lease) => {
                        waiting.join(waiter, ends_at_ms);
                        response.lease = Some(lease);
                        break response;
                    }
                }
            };
            let value_bytes = response.value.len() as u64;
            // The first value always fits: every stored value can be read.
            if bytes > 0 && value_bytes > 0 && bytes + value_bytes + RESULT_BYTES > max {
                results.push(Err(Refusal::ResponseFull { max }));
                leases.iter_mut().for_each(|leases| leases.give_back(bytes_of_key));
                continue;
            }
            room(bytes + value_bytes)?;
            bytes += value_bytes + RESULT_BYTES;
            results.push(Ok(response));
        }
        Ok(match leases.and_then(|leases| waiting.wait(leases, now_ms)) {
            Some(wait) => Attempt::Wait(wait),
            None => Attempt::Answer(results),
        })
    }

    /// Stores many values.
    ///
    /// # Errors
    /// A [`Refusal`] of the whole batch.
    pub fn batch_set(&self, request: &proto::BatchSetRequest) -> Result<Results<proto::SetResponse>, Refusal> {
        Refusal::too_many("items", request.items.len(), MAX_BATCH_ITEMS)?;
        let check = |item: &proto::SetRequest| match item.namespace.is_empty() {
            true => self.check_set(item),
            false => Err(Refusal::Conflicting { field: "items.namespace", with: "namespace" }),
        };
        let conditions: Vec<_> = request.items.iter().map(check).collect();
        // The namespace is created if any of the items may create an entry.
        let creates = |condition: &&Condition| {
            !matches!(condition, Condition::Present | Condition::Version(1..) | Condition::Lease(_))
        };
        let creating = conditions.iter().flatten().find(creates);
        let namespace = self.namespace_to_set(&request.namespace, *creating.unwrap_or(&Condition::Present))?;
        let items = request.items.iter().zip(conditions);
        let results = items.map(|(item, condition)| {
            self.set_checked(Key { namespace: namespace.number, bytes: &item.key }, item, condition?)
        });
        Ok(results.collect())
    }

    /// Removes many keys.
    ///
    /// # Errors
    /// A [`Refusal`] of the whole batch.
    pub fn batch_delete(&self, request: &proto::BatchDeleteRequest) -> Result<Results<proto::DeleteResponse>, Refusal> {
        Refusal::too_many("keys", request.keys.len(), MAX_BATCH_ITEMS)?;
        let namespace = self.namespaces.find(&request.namespace)?;
        let results = request.keys.iter().map(|bytes| {
            check_key(bytes)?;
            self.delete_key(Key { namespace: namespace.number, bytes }, None, Deletion::Remove)
        });
        Ok(results.collect())
    }
}
