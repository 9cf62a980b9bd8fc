//! The cache: what the messages of `ebb.v1` mean, in terms of the store. No transport, no status codes.
//!
//! A request is checked whole before anything is done; what cannot be done is a [`Refusal`] that names the field, the
//! problem and the bound. Unary calls, batches and the pipe all end here, so they cannot differ.

mod batch;
mod counter;
mod hot;
mod keys;
mod namespaces;
mod refusal;
mod usage;

pub use keys::BigKeys;
pub use refusal::Refusal;
pub use usage::Counts;

use crate::clock::Clock;
use crate::proto::{self, get_response, set_request::Condition as Wanted};
use crate::store::{
    Attributes, Condition, Cursor, DeleteOutcome, Deletion, Error, Group, Item, Key, Lookup, Miss, SetOutcome, Store,
    Update, Use,
};
use bytes::Bytes;
use counter::Answered;
use hot::Hot;
use namespaces::Namespaces;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use usage::{Event, Usage};

/// The most items of a batch.
pub const MAX_BATCH_ITEMS: usize = 1_000;
/// The most tags of an entry, and the longest of them in bytes.
pub const MAX_TAGS: (usize, usize) = (16, 128);
/// The longest `request_id`, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 64;
/// The largest jitter, in percent.
pub const MAX_JITTER_PERCENT: u32 = 50;
/// Entries of one portion of a scan.
const SCAN_PORTION: usize = 256;

/// What a request leaves to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Time to live of a value stored without one, in milliseconds. 0: none.
    pub ttl_ms: u64,
    /// How long past its soft deadline a value is served, in milliseconds.
    pub max_stale_ms: u64,
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    clock: Clock,
    namespaces: Namespaces,
    answered: Answered,
    hot: Hot,
    usage: Usage,
    /// Makes what stands for a key where keys are not said.
    stand_in: RandomState,
    default_ttl_ms: AtomicU64,
    default_max_stale_ms: AtomicU64,
}

impl Cache {
    /// A cache over a store.
    pub fn new(store: Arc<Store>, clock: Clock, defaults: Defaults) -> Self {
        Self {
            store,
            clock,
            namespaces: Namespaces::default(),
            answered: Answered::default(),
            hot: Hot::default(),
            usage: Usage::default(),
            stand_in: RandomState::new(),
            default_ttl_ms: AtomicU64::new(defaults.ttl_ms),
            default_max_stale_ms: AtomicU64::new(defaults.max_stale_ms),
        }
    }

    /// Sets what requests leave to the server.
    pub fn set_defaults(&self, defaults: Defaults) {
        self.default_ttl_ms.store(defaults.ttl_ms, Ordering::Relaxed);
        self.default_max_stale_ms.store(defaults.max_stale_ms, Ordering::Relaxed);
    }

    /// Reads one key.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn get(&self, request: &proto::GetRequest) -> Result<proto::GetResponse, Refusal> {
        if request.lease.is_some() {
            return Err(Refusal::Unsupported { field: "lease" });
        }
        let key = self.key(&request.namespace, &request.key)?;
        let usage = if request.peek { Use::Peek } else { Use::Read };
        let now_ms = self.clock.now_ms();
        let lookup = self.store.get(key, now_ms, usage)?;
        if usage == Use::Read {
            self.count(key, &lookup);
        }
        if let (Some(ttl_ms), Lookup::Found(_)) = (request.touch_ttl_ms, &lookup) {
            let deadline_ms = self.deadline(ttl_ms, now_ms);
            self.store.touch(key, deadline_ms, now_ms)?;
            let touched = with_deadline(lookup, deadline_ms);
            return Ok(self.answer(touched, request.max_stale_ms, request.if_version_differs, now_ms));
        }
        Ok(self.answer(lookup, request.max_stale_ms, request.if_version_differs, now_ms))
    }

    /// A read that counts as use.
    fn count(&self, key: Key<'_>, lookup: &Lookup) {
        self.hot.read(key);
        let event = if matches!(lookup, Lookup::Found(_)) { Event::Hit } else { Event::Miss };
        self.usage.count(key.namespace, event);
    }

    /// Hits, misses and values stored by namespace: of the first 32 by their names, of all others as `None`.
    pub fn usage(&self) -> Vec<(Option<String>, Counts)> {
        let named = self.namespaces.count().min(usage::NAMED);
        let names = (0..named).map(|number| (Some(self.namespaces.name(number as u16)), self.usage.of(number)));
        names.chain([(None, self.usage.of(usage::NAMED))]).collect()
    }

    fn answer(&self, lookup: Lookup, max_stale_ms: u64, known: Option<u64>, now_ms: u64) -> proto::GetResponse {
        let item = match lookup {
            Lookup::Found(item) => item,
            Lookup::Miss(miss) => return missed(miss),
        };
        let stale = item.stale_for_ms(now_ms);
        if let Some(age_ms) = stale {
            let allowed = match max_stale_ms {
                0 => self.default_max_stale_ms.load(Ordering::Relaxed),
                asked => asked,
            };
            if age_ms > allowed || allowed == 0 {
                return missed(Miss::Expired);
            }
        }
        let Item { value, version, attributes, .. } = item;
        let (outcome, value) = match stale {
            _ if known == Some(version) => (get_response::Outcome::Unchanged, Bytes::new()),
            _ if attributes.negative => (get_response::Outcome::Negative, Bytes::new()),
            Some(_) => (get_response::Outcome::Stale, value),
            None => (get_response::Outcome::Hit, value),
        };
        proto::GetResponse {
            outcome: outcome.into(),
            value,
            version,
            flags: attributes.flags,
            ttl_ms: attributes.deadline_ms.saturating_sub(now_ms),
            ..proto::GetResponse::default()
        }
    }

    /// Stores one value.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing was stored then.
    pub fn set(&self, request: &proto::SetRequest) -> Result<proto::SetResponse, Refusal> {
        let condition = self.check_set(request)?;
        let key = self.key(&request.namespace, &request.key)?;
        self.set_checked(key, request, condition)
    }

    /// What can be refused without looking at the store.
    fn check_set(&self, request: &proto::SetRequest) -> Result<Condition, Refusal> {
        let (max, max_len) = MAX_TAGS;
        Refusal::too_many("tags", request.tags.len(), max)?;
        for tag in &request.tags {
            Refusal::length("tags", tag.len(), 1, max_len)?;
        }
        if !request.tags.is_empty() {
            return Err(Refusal::Unsupported { field: "tags" });
        }
        Refusal::at_most("jitter_percent", request.jitter_percent.into(), MAX_JITTER_PERCENT.into())?;
        if request.negative && !request.value.is_empty() {
            return Err(Refusal::Conflicting { field: "value", with: "negative" });
        }
        if request.keep_ttl && request.ttl_ms != 0 {
            return Err(Refusal::Conflicting { field: "ttl_ms", with: "keep_ttl" });
        }
        Refusal::length("key", request.key.len(), 1, crate::store::MAX_KEY_BYTES)?;
        let (len, max) = (request.value.len(), self.store.max_value_bytes());
        if len > max {
            return Err(Error::ValueTooLarge { len, max }.into());
        }
        match request.condition {
            None | Some(Wanted::IfAbsent(false) | Wanted::IfPresent(false)) => Ok(Condition::Always),
            Some(Wanted::IfAbsent(true)) => Ok(Condition::Absent),
            Some(Wanted::IfPresent(true)) => Ok(Condition::Present),
            Some(Wanted::IfVersion(version)) => Ok(Condition::Version(version)),
            Some(Wanted::LeaseToken(_)) => Err(Refusal::Unsupported { field: "lease_token" }),
        }
    }

    fn set_checked(
        &self,
        key: Key<'_>,
        request: &proto::SetRequest,
        condition: Condition,
    ) -> Result<proto::SetResponse, Refusal> {
        use proto::set_response::Outcome;
        let now_ms = self.clock.now_ms();
        let ttl_ms = match request.ttl_ms {
            0 => self.default_ttl_ms.load(Ordering::Relaxed),
            ttl_ms => ttl_ms,
        };
        // One factor for both deadlines, so that a value does not turn stale after it has expired.
        let spread = u64::from(request.jitter_percent);
        let permille = if spread == 0 { 1_000 } else { fastrand::u64(1_000 - spread * 10..=1_000 + spread * 10) };
        let jittered = |ttl_ms: u64| (u128::from(ttl_ms) * u128::from(permille) / 1_000).min(u64::MAX.into()) as u64;
        let deadline = |ttl_ms: u64| self.deadline(if ttl_ms == 0 { 0 } else { jittered(ttl_ms).max(1) }, now_ms);
        let attributes = Attributes {
            flags: request.flags,
            deadline_ms: deadline(ttl_ms),
            stale_at_ms: deadline(request.soft_ttl_ms),
            negative: request.negative,
        };
        let outcome = self.store.set(key, &request.value, &attributes, condition, request.keep_ttl, now_ms)?;
        let (outcome, version) = match outcome {
            SetOutcome::Stored(version) => (Outcome::Stored, version),
            SetOutcome::NotStored(version) => (Outcome::NotStored, version),
            SetOutcome::Conflict(version) => (Outcome::Conflict, version),
        };
        if outcome == Outcome::Stored {
            self.usage.count(key.namespace, Event::Stored);
        }
        Ok(proto::SetResponse { outcome: outcome.into(), version })
    }

    /// Removes one key, or marks it stale.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn delete(&self, request: &proto::DeleteRequest) -> Result<proto::DeleteResponse, Refusal> {
        use proto::delete_request::Mode;
        let deletion = match Mode::try_from(request.mode) {
            Ok(Mode::Unspecified) => Deletion::Remove,
            Ok(Mode::MarkStale) => Deletion::MarkStale,
            Ok(Mode::Tombstone) => return Err(Refusal::Unsupported { field: "mode" }),
            Err(_) => return Err(Refusal::UnknownValue { field: "mode", value: request.mode }),
        };
        let key = self.key(&request.namespace, &request.key)?;
        self.delete_key(key, request.if_version, deletion)
    }

    fn delete_key(
        &self,
        key: Key<'_>,
        if_version: Option<u64>,
        deletion: Deletion,
    ) -> Result<proto::DeleteResponse, Refusal> {
        use proto::delete_response::Outcome;
        let (outcome, version) = match self.store.delete(key, if_version, deletion, self.clock.now_ms())? {
            DeleteOutcome::Deleted(version) => (Outcome::Deleted, version),
            DeleteOutcome::NotFound => (Outcome::NotFound, 0),
            DeleteOutcome::Conflict(version) => (Outcome::Conflict, version),
        };
        Ok(proto::DeleteResponse { outcome: outcome.into(), version })
    }

    /// Sets a new time to live.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn touch(&self, request: &proto::TouchRequest) -> Result<proto::TouchResponse, Refusal> {
        let key = self.key(&request.namespace, &request.key)?;
        let now_ms = self.clock.now_ms();
        let version = self.store.touch(key, self.deadline(request.ttl_ms, now_ms), now_ms)?;
        Ok(proto::TouchResponse { found: version.is_some(), version: version.unwrap_or(0) })
    }

    /// Adds bytes to the end of a value.
    ///
    /// # Errors
    /// A [`Refusal`]; the value is unchanged then.
    pub fn append(&self, request: &proto::AppendRequest) -> Result<proto::AppendResponse, Refusal> {
        let key = self.key(&request.namespace, &request.key)?;
        let now_ms = self.clock.now_ms();
        let created =
            Attributes { deadline_ms: self.deadline_or_default(request.ttl_ms, now_ms), ..Attributes::default() };
        let (size, version) = self.store.update(key, now_ms, |item| match item {
            Some(item) => {
                let value: Bytes = [&item.value[..], &request.value].concat().into();
                let size = value.len() as u64;
                (Update::Store { value, attributes: Attributes { negative: false, ..item.attributes } }, size)
            }
            None if request.create => {
                (Update::Store { value: request.value.clone(), attributes: created }, request.value.len() as u64)
            }
            None => (Update::Keep, 0),
        })?;
        Ok(proto::AppendResponse { found: version.is_some(), size, version: version.unwrap_or(0) })
    }

    /// Declares a group of keys void.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing is void then.
    pub fn invalidate(&self, request: &proto::InvalidateRequest) -> Result<proto::InvalidateResponse, Refusal> {
        use proto::invalidate_request::Group as Wanted;
        let namespace = self.namespaces.number(&request.namespace)?;
        let group = match &request.group {
            Some(Wanted::WholeNamespace(true)) => Group::Namespace(namespace),
            Some(Wanted::Prefix(prefix)) => {
                Refusal::length("prefix", prefix.len(), 1, crate::store::MAX_KEY_BYTES)?;
                Group::Prefix(namespace, prefix)
            }
            Some(Wanted::Tag(_)) => return Err(Refusal::Unsupported { field: "tag" }),
            Some(Wanted::WholeNamespace(false)) | None => return Err(Refusal::Missing { field: "group" }),
        };
        self.store.invalidate(group, request.mark_stale)?;
        Ok(proto::InvalidateResponse { generation: self.namespaces.next_generation(namespace) })
    }

    /// One portion of a scan, of at most `left` entries, and where to go on.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn scan(
        &self,
        request: &proto::ScanRequest,
        from: Cursor,
        left: u64,
    ) -> Result<(proto::ScanResponse, Option<Cursor>), Refusal> {
        let namespace = self.namespaces.number(&request.namespace)?;
        Refusal::length("prefix", request.prefix.len(), 0, crate::store::MAX_KEY_BYTES)?;
        let now_ms = self.clock.now_ms();
        let limit = left.min(SCAN_PORTION as u64) as usize;
        let page = self.store.scan(Some(namespace), &request.prefix, from, limit, request.with_values, now_ms);
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

    /// Where a page token says to go on.
    ///
    /// # Errors
    /// A [`Refusal`] for a token that no scan has given out.
    pub fn cursor(&self, token: &[u8]) -> Result<Cursor, Refusal> {
        match (token.len(), token.first_chunk::<4>(), token.last_chunk::<4>()) {
            (0, ..) => Ok(Cursor::default()),
            (8, Some(shard), Some(place)) if u32::from_be_bytes(*shard) < self.store.shards() as u32 => {
                Ok(Cursor { shard: u32::from_be_bytes(*shard), place: u32::from_be_bytes(*place) })
            }
            _ => Err(Refusal::PageToken),
        }
    }

    /// Limits and features.
    pub fn capabilities(&self) -> proto::GetCapabilitiesResponse {
        proto::GetCapabilitiesResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            max_key_bytes: crate::store::MAX_KEY_BYTES as u32,
            max_value_bytes: self.store.max_value_bytes() as u64,
            max_streamed_value_bytes: self.store.max_value_bytes() as u64,
            max_batch_items: MAX_BATCH_ITEMS as u32,
            features: ["invalidate_namespace", "invalidate_prefix", "negative", "pipe", "scan", "soft_ttl"]
                .map(str::to_owned)
                .into(),
        }
    }

    fn key<'a>(&self, namespace: &str, bytes: &'a [u8]) -> Result<Key<'a>, Refusal> {
        Ok(Key { namespace: self.namespaces.number(namespace)?, bytes })
    }

    /// A deadline from now; 0 stays never. A time to live beyond all clocks is the last moment of the clock.
    fn deadline(&self, ttl_ms: u64, now_ms: u64) -> u64 {
        if ttl_ms == 0 { 0 } else { now_ms.saturating_add(ttl_ms) }
    }

    fn deadline_or_default(&self, ttl_ms: u64, now_ms: u64) -> u64 {
        match ttl_ms {
            0 => self.deadline(self.default_ttl_ms.load(Ordering::Relaxed), now_ms),
            ttl_ms => self.deadline(ttl_ms, now_ms),
        }
    }
}

fn page_token(cursor: Cursor) -> Bytes {
    [cursor.shard.to_be_bytes(), cursor.place.to_be_bytes()].concat().into()
}

fn with_deadline(lookup: Lookup, deadline_ms: u64) -> Lookup {
    match lookup {
        Lookup::Found(item) => {
            Lookup::Found(Item { attributes: Attributes { deadline_ms, ..item.attributes }, ..item })
        }
        miss => miss,
    }
}

fn missed(miss: Miss) -> proto::GetResponse {
    use get_response::MissReason;
    let reason = match miss {
        Miss::Unknown => MissReason::UnknownKey,
        Miss::Expired => MissReason::Expired,
        Miss::Evicted => MissReason::Evicted,
        Miss::Invalidated => MissReason::Invalidated,
    };
    proto::GetResponse {
        outcome: get_response::Outcome::Miss.into(),
        miss_reason: reason.into(),
        ..proto::GetResponse::default()
    }
}
