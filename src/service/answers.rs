//! Remembered answers, which a repeated request gets again.
//!
//! A request is remembered by a keyed hash of 128 bits, never by its bytes: a slice of a request would keep the whole
//! buffer it was decoded from. The probability of a false match is about 1 in 2^100.

use ebb_engine::store::{Account, Ledger};
use ebb_proto as proto;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

/// How long a request id is remembered, in milliseconds.
pub(super) const REMEMBERED_MS: u64 = 60_000;
/// Minimum number of remembered requests within that time.
#[cfg(test)]
const LEAST_REMEMBERED: usize = 4_096;
/// Parts with a lock each: requests with an id wait for each other only within a part.
const PARTS: usize = 16;
/// Maximum requests of one part, beyond which the oldest is forgotten. This is twice the part's share of the minimum,
/// so that an uneven distribution does not forget requests too early.
const MAX_REMEMBERED: usize = 512;
/// Memory of an entry in the map and in the queue, in bytes; the map adds one byte of metadata per entry.
const MAP_BYTES: usize = size_of::<(Id, proto::IncrementResponse)>() + 1;
const QUEUE_BYTES: usize = size_of::<(u64, Id)>();

/// The hash by which a request is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id([u64; 2]);

/// The answers of the last minute to requests with an id.
#[derive(Debug)]
pub(super) struct Answers {
    hashers: [RandomState; 2],
    parts: [Mutex<Part>; PARTS],
}

impl Answers {
    pub(super) fn new(ledger: &Arc<Ledger>) -> Self {
        let part = |_| Mutex::new(Part::new(ledger.clone()));
        Self { hashers: [RandomState::new(), RandomState::new()], parts: std::array::from_fn(part) }
    }

    /// The hash of a request with this id.
    pub(super) fn id(&self, namespace: &str, key: &[u8], request_id: &str) -> Id {
        let [a, b] = &self.hashers;
        let hash = |hasher: &RandomState| hasher.hash_one((namespace, key, request_id));
        Id([hash(a), hash(b)])
    }

    /// The part of an id, locked. The caller holds it until the request is answered, so that two concurrent copies of a
    /// request are executed once.
    pub(super) fn part(&self, Id([hash, _]): Id) -> MutexGuard<'_, Part> {
        self.parts[hash as usize % PARTS].lock()
    }
}

/// A part of the answers.
#[derive(Debug)]
pub(super) struct Part {
    by_id: HashMap<Id, proto::IncrementResponse>,
    by_age: VecDeque<(u64, Id)>,
    ledger: Arc<Ledger>,
    /// Bytes charged to the ledger for this part.
    counted_bytes: u64,
}

impl Part {
    fn new(ledger: Arc<Ledger>) -> Self {
        Self { by_id: HashMap::new(), by_age: VecDeque::new(), ledger, counted_bytes: 0 }
    }

    pub(super) fn get(&self, id: Id) -> Option<proto::IncrementResponse> {
        self.by_id.get(&id).copied()
    }

    /// Forgets answers older than a minute.
    pub(super) fn forget_old(&mut self, now_ms: u64) {
        let is_old = |at_ms: u64| at_ms.saturating_add(REMEMBERED_MS) <= now_ms;
        self.forget(|part| part.by_age.front().is_some_and(|(at_ms, _)| is_old(*at_ms)));
        let len = self.by_age.len();
        if len < self.by_age.capacity() / 4 {
            self.by_age.shrink_to(len * 2);
            self.by_id.shrink_to(len * 2);
            self.count();
        }
    }

    pub(super) fn remember(&mut self, id: Id, answer: proto::IncrementResponse, now_ms: u64) {
        self.forget(|part| part.by_age.len() >= MAX_REMEMBERED);
        self.by_age.push_back((now_ms, id));
        self.by_id.insert(id, answer);
        self.count();
    }

    fn forget(&mut self, goes_on: impl Fn(&Self) -> bool) {
        while goes_on(self)
            && let Some((_, id)) = self.by_age.pop_front()
        {
            self.by_id.remove(&id);
        }
    }

    /// Updates the ledger to the size of the tables. They are small and bounded, and every answer must be remembered,
    /// so the bytes are charged even beyond the capacity, and the engine makes room for them.
    fn count(&mut self) {
        let buckets = self.by_id.capacity() * 8 / 7; // the map fills at most 7/8 of its buckets
        let bytes = (buckets * MAP_BYTES + self.by_age.capacity() * QUEUE_BYTES) as u64;
        match bytes.checked_sub(self.counted_bytes) {
            Some(more) => self.ledger.force(Account::Tables, more),
            None => self.ledger.release(Account::Tables, self.counted_bytes - bytes),
        }
        self.counted_bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembered_requests_are_bounded_and_in_the_ledger() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let answers = Answers::new(&ledger);
        let answer = |value| proto::IncrementResponse { found: true, value, version: 1 };
        let id = |i: usize| answers.id("n", b"k", &i.to_string());
        let get = |i: usize| answers.part(id(i)).get(id(i));
        let all = 4 * LEAST_REMEMBERED;
        for i in 0..all {
            answers.part(id(i)).remember(id(i), answer(i as i64), 1_000);
        }
        assert_eq!(get(0), None, "the oldest is forgotten");
        assert!((all - LEAST_REMEMBERED..all).all(|i| get(i) == Some(answer(i as i64))));
        let full = ledger.used(Account::Tables);
        let of_each = MAP_BYTES + QUEUE_BYTES;
        assert!((LEAST_REMEMBERED * of_each..4 * LEAST_REMEMBERED * of_each).contains(&(full as usize)), "{full}");
        for part in &answers.parts {
            part.lock().forget_old(1_000 + REMEMBERED_MS);
        }
        assert_eq!(get(all - 1), None);
        assert_eq!(ledger.used(Account::Tables), 0, "the memory is released");
        assert_ne!(answers.id("a", b"bc", ""), answers.id("ab", b"c", ""), "the hash separates fields");
    }
}
