//! Many keys in one call. A batch is checked whole before its first item is carried out.

use super::{Cache, MAX_BATCH_ITEMS, Refusal};
use crate::proto;
use crate::store::{Deletion, Key, MAX_KEY_BYTES, Use};

/// Keys whose memory is asked for together: as many as a processor has misses under way, a few times over.
const LOOK_AHEAD: usize = 32;

impl Cache {
    /// Reads many keys; results stand in the order of the request. `room` is asked whether a response of so many bytes
    /// may be built, before each value.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn batch_get(
        &self,
        request: &proto::BatchGetRequest,
        room: impl Fn(u64) -> Result<(), Refusal>,
    ) -> Result<proto::BatchGetResponse, Refusal> {
        check_keys(&request.keys)?;
        let namespace = self.namespaces.number(&request.namespace)?;
        let usage = if request.peek { Use::Peek } else { Use::Read };
        let now_ms = self.clock.now_ms();
        let mut bytes = 0;
        let results = request.keys.iter().enumerate().map(|(i, key)| {
            if i % LOOK_AHEAD == 0 {
                let soon = request.keys[i..].iter().take(LOOK_AHEAD);
                self.store.look_ahead(soon.map(|key| Key { namespace, bytes: key }));
            }
            let lookup = self.store.get(Key { namespace, bytes: key }, now_ms, usage)?;
            if usage == Use::Read {
                self.count(Key { namespace, bytes: key }, &lookup);
            }
            let response = self.answer(lookup, 0, None, now_ms);
            bytes += response.value.len() as u64;
            room(bytes)?;
            Ok(response)
        });
        Ok(proto::BatchGetResponse { results: results.collect::<Result<_, Refusal>>()? })
    }

    /// Stores many values.
    ///
    /// # Errors
    /// A [`Refusal`]: because of what an item asks for, before any was stored; for want of room, after those before it.
    pub fn batch_set(&self, request: &proto::BatchSetRequest) -> Result<proto::BatchSetResponse, Refusal> {
        Refusal::too_many("items", request.items.len(), MAX_BATCH_ITEMS)?;
        let namespace = self.namespaces.number(&request.namespace)?;
        let check = |item: &proto::SetRequest| match item.namespace.is_empty() {
            true => self.check_set(item),
            false => Err(Refusal::Conflicting { field: "items.namespace", with: "namespace" }),
        };
        let conditions = request.items.iter().map(check).collect::<Result<Vec<_>, _>>()?;
        let items = request.items.iter().zip(conditions);
        let results =
            items.map(|(item, condition)| self.set_checked(Key { namespace, bytes: &item.key }, item, condition));
        Ok(proto::BatchSetResponse { results: results.collect::<Result<_, Refusal>>()? })
    }

    /// Removes many keys.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn batch_delete(&self, request: &proto::BatchDeleteRequest) -> Result<proto::BatchDeleteResponse, Refusal> {
        check_keys(&request.keys)?;
        let namespace = self.namespaces.number(&request.namespace)?;
        let results =
            request.keys.iter().map(|key| self.delete_key(Key { namespace, bytes: key }, None, Deletion::Remove));
        Ok(proto::BatchDeleteResponse { results: results.collect::<Result<_, Refusal>>()? })
    }
}

fn check_keys(keys: &[bytes::Bytes]) -> Result<(), Refusal> {
    Refusal::too_many("keys", keys.len(), MAX_BATCH_ITEMS)?;
    keys.iter().try_for_each(|key| Refusal::length("keys", key.len(), 1, MAX_KEY_BYTES))
}
