//! Counters: values of decimal digits, and the answers that a repeated request gets again.

use super::{Cache, MAX_REQUEST_ID_BYTES, Refusal};
use crate::proto;
use crate::store::{Attributes, Item, Update};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

/// How long a request id is remembered, in milliseconds.
const REMEMBERED_MS: u64 = 60_000;
/// How many are remembered; the oldest gives way.
const MAX_REMEMBERED: usize = 4_096;

type Id = (String, bytes::Bytes, String);

/// The answers of the last minute to requests that carried an id.
#[derive(Debug, Default)]
pub(super) struct Answered(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    by_id: HashMap<Id, proto::IncrementResponse>,
    by_age: VecDeque<(u64, Id)>,
}

impl Answers {
    fn forget_old(&mut self, now_ms: u64) {
        while let Some((at_ms, _)) = self.by_age.front()
            && (at_ms + REMEMBERED_MS <= now_ms || self.by_age.len() >= MAX_REMEMBERED)
        {
            if let Some((_, id)) = self.by_age.pop_front() {
                self.by_id.remove(&id);
            }
        }
    }

    fn remember(&mut self, id: Id, answer: proto::IncrementResponse, now_ms: u64) {
        self.by_age.push_back((now_ms, id.clone()));
        self.by_id.insert(id, answer);
    }
}

impl Cache {
    /// Adds to a counter.
    ///
    /// # Errors
    /// A [`Refusal`]; the counter is unchanged then.
    pub fn increment(&self, request: &proto::IncrementRequest) -> Result<proto::IncrementResponse, Refusal> {
        Refusal::length("request_id", request.request_id.len(), 0, MAX_REQUEST_ID_BYTES)?;
        if request.request_id.is_empty() {
            return self.add(request);
        }
        // Held over the addition: the same request twice at once is still one request.
        let mut answers = self.answers();
        let now_ms = self.clock.now_ms();
        answers.forget_old(now_ms);
        let id = (request.namespace.clone(), request.key.clone(), request.request_id.clone());
        if let Some(answer) = answers.by_id.get(&id) {
            return Ok(*answer);
        }
        let answer = self.add(request)?;
        answers.remember(id, answer, now_ms);
        Ok(answer)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answered.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn add(&self, request: &proto::IncrementRequest) -> Result<proto::IncrementResponse, Refusal> {
        let key = self.key(&request.namespace, &request.key)?;
        let now_ms = self.clock.now_ms();
        let created =
            Attributes { deadline_ms: self.deadline_or_default(request.ttl_ms, now_ms), ..Attributes::default() };
        let (sum, version) = self.store.update(key, now_ms, |item| {
            let before = match (item.filter(|item| !item.attributes.negative), request.initial) {
                (Some(item), _) => parse(item).map(|value| (value, item.attributes)),
                (None, Some(initial)) => Ok((initial, created)),
                (None, None) => return (Update::Keep, Ok(0)),
            };
            match before {
                Err(refusal) => (Update::Keep, Err(refusal)),
                Ok((value, attributes)) => {
                    let sum = value.saturating_add(request.delta);
                    (Update::Store { value: sum.to_string().into(), attributes }, Ok(sum))
                }
            }
        })?;
        Ok(proto::IncrementResponse { found: version.is_some(), value: sum?, version: version.unwrap_or(0) })
    }
}

fn parse(item: &Item) -> Result<i64, Refusal> {
    let digits = std::str::from_utf8(&item.value).ok();
    digits.and_then(|digits| digits.parse().ok()).ok_or(Refusal::NotACounter { len: item.value.len() })
}
