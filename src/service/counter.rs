//! Counters: values that are decimal numbers.

use super::{Cache, MAX_REQUEST_ID_BYTES, Refusal, check_key, check_ttl, has_value};
use ebb_engine::store::{Attributes, Item, Key, Update};
use ebb_proto as proto;

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
        let id = self.answers.id(&request.namespace, &request.key, &request.request_id);
        let mut answers = self.answers.part(id);
        let now_ms = self.clock.now_ms();
        answers.forget_old(now_ms);
        if let Some(answer) = answers.get(id) {
            return Ok(answer);
        }
        let answer = self.add(request)?;
        answers.remember(id, answer, now_ms);
        Ok(answer)
    }

    fn add(&self, request: &proto::IncrementRequest) -> Result<proto::IncrementResponse, Refusal> {
        check_key(&request.key)?;
        check_ttl("ttl_ms", request.ttl_ms)?;
        let namespace = match request.initial {
            Some(_) => self.namespace_to_fill(&request.namespace)?,
            None => self.namespaces.find(&request.namespace)?,
        };
        let key = Key { namespace: namespace.number, bytes: &request.key };
        let now_ms = self.clock.now_ms();
        let created =
            Attributes { deadline_ms: self.deadline_or_default(request.ttl_ms, now_ms), ..Attributes::default() };
        let (sum, version) = self.store.update(key, now_ms, |item| {
            let before = match (item.filter(|item| has_value(item)), request.initial) {
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
