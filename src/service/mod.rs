//! The cache: executes the messages of `ebb.v1` on the store. It knows neither transport nor status codes.
//!
//! A request is checked completely before it has an effect. A request that cannot be executed gets a [`Refusal`] with
//! the field, the problem and the bound. Unary calls, batches and the pipe all use this module, so they behave alike.

mod answers;
mod batch;
mod counter;
mod hot;
mod keys;
mod lease;
mod limits;
mod namespaces;
mod refusal;
mod scan;
mod usage;

pub use batch::Results;
pub use keys::BigKeys;
pub use lease::{Attempt, LeaseFigures, LeaseResult, Leases, MAX_LEASE_MS, Wait};
pub use limits::{MAX_BATCH_ITEMS, MAX_JITTER_PERCENT, MAX_REQUEST_ID_BYTES, MAX_TAGS, MAX_TTL_MS, Transport};
pub use namespaces::{MAX_NAME_BYTES, MAX_NAMESPACES};
pub use refusal::{Reason, Refusal};
pub use usage::{Counts, NamespaceUsage};

use answers::Answers;
use bytes::Bytes;
use ebb_engine::clock::Clock;
use ebb_engine::store::{
    Attributes, Condition, DeleteOutcome, Deletion, Error, Group, Item, Key, Lookup, MAX_KEY_BYTES, MAX_VERSION, Miss,
    SetOutcome, Store, Update, Use,
};
use ebb_proto::{self as proto, get_response, set_request::Condition as Wanted};
use hot::Hot;
use lease::LeaseTraffic;
use limits::AskTransport;
use namespaces::{Held, NOWHERE, Namespaces};
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use usage::{Event, Usage};

/// Defaults for fields that a request does not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Time to live of a value stored without one, in milliseconds. 0: none.
    pub ttl_ms: u64,
    /// How long after its soft deadline a value is served, in milliseconds.
    pub max_stale_ms: u64,
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    clock: Clock,
    namespaces: Namespaces,
    answers: Answers,
    transport: AskTransport,
    hot: Hot,
    usage: Usage,
    leases: LeaseTraffic,
    /// Hashes keys for answers that do not contain keys in clear.
    stand_in: RandomState,
    default_ttl_ms: AtomicU64,
    default_max_stale_ms: AtomicU64,
}

impl Cache {
    /// A cache over a store.
    pub fn new(store: Arc<Store>, clock: Clock, defaults: Defaults) -> Self {
        Self {
            answers: Answers::new(store.ledger()),
            store,
            clock,
            namespaces: Namespaces::default(),
            transport: AskTransport(Box::new(Transport::default)),
            hot: Hot::default(),
            usage: Usage::default(),
            leases: LeaseTraffic::default(),
            stand_in: RandomState::new(),
            default_ttl_ms: AtomicU64::new(defaults.ttl_ms),
            default_max_stale_ms: AtomicU64::new(defaults.max_stale_ms),
        }
    }

    /// Sets the transport, whose limits the cache obeys and reports.
    #[must_use]
    pub fn behind(self, transport: impl Fn() -> Transport + Send + Sync + 'static) -> Self {
        Self { transport: AskTransport(Box::new(transport)), ..self }
    }

    /// Sets the defaults for fields that a request does not set.
    pub fn set_defaults(&self, defaults: Defaults) {
        self.default_ttl_ms.store(defaults.ttl_ms, Ordering::Relaxed);
        self.default_max_stale_ms.store(defaults.max_stale_ms, Ordering::Relaxed);
    }

    /// Reads one key. It takes no lease; [`Cache::get_with_lease`] does.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn get(&self, request: &proto::GetRequest) -> Result<proto::GetResponse, Refusal> {
        check_key(&request.key)?;
        let namespace = self.namespaces.find(&request.namespace)?;
        let usage = if request.peek { Use::Peek } else { Use::Read };
        self.read(namespace.number, request, usage).map(|(response, _)| response)
    }

    /// Reads a key of a namespace. Returns whether it has a fresh entry, too.
    fn read(
        &self,
        namespace: u16,
        request: &proto::GetRequest,
        usage: Use,
    ) -> Result<(proto::GetResponse, bool), Refusal> {
        check_ttl("touch_ttl_ms", request.touch_ttl_ms.unwrap_or(0))?;
        let key = Key { namespace, bytes: &request.key };
        let now_ms = self.clock.now_ms();
        let lookup = self.store.get(key, now_ms, usage)?;
        if usage == Use::Read {
            self.count(key, &lookup);
        }
        let is_fresh = is_fresh(&lookup, now_ms);
        if let (Some(ttl_ms), Lookup::Found(_)) = (request.touch_ttl_ms, &lookup) {
            let deadline_ms = self.deadline(ttl_ms, now_ms);
            self.store.touch(key, deadline_ms, now_ms)?;
            let touched = with_deadline(lookup, deadline_ms);
            return Ok((self.answer(touched, request.max_stale_ms, request.if_version_differs, now_ms), is_fresh));
        }
        Ok((self.answer(lookup, request.max_stale_ms, request.if_version_differs, now_ms), is_fresh))
    }

    /// Counts a read that is a use of the key.
    fn count(&self, key: Key<'_>, lookup: &Lookup) {
        if key.namespace != NOWHERE {
            self.hot.read(key);
        }
        let event = if matches!(lookup, Lookup::Found(_)) { Event::Hit } else { Event::Miss };
        self.usage.count(key.namespace, event);
    }

    /// What each namespace uses, in the order in which they were created; the default one is the first.
    pub fn namespaces(&self) -> Vec<NamespaceUsage> {
        let used = self.store.namespaces();
        let usage = |(number, name): (u16, String)| {
            let number = usize::from(number);
            let used = used.get(number).copied().unwrap_or_default();
            let counts = (number < usage::NAMED).then(|| Counts { evictions: used.evictions, ..self.usage.of(number) });
            NamespaceUsage {
                name,
                entries: used.entries,
                live_bytes: used.live_bytes,
                evictions: used.evictions,
                counts,
            }
        };
        self.namespaces.all().into_iter().map(usage).collect()
    }

    /// What namespaces use, for series of metrics: the first 32 by name, and all others together with an empty name.
    pub fn usage(&self) -> Vec<NamespaceUsage> {
        let (mut named, others): (Vec<_>, Vec<_>) =
            self.namespaces().into_iter().partition(|usage| usage.counts.is_some());
        let mut rest = NamespaceUsage::default();
        let mut counts = self.usage.of(usage::NAMED);
        for other in others {
            rest.entries += other.entries;
            rest.live_bytes += other.live_bytes;
            counts.evictions += other.evictions;
        }
        named.push(NamespaceUsage { evictions: counts.evictions, counts: Some(counts), ..rest });
        named
    }

    /// Lists the namespaces that have entries, and the default one.
    pub fn list_namespaces(&self, request: &proto::ListNamespacesRequest) -> proto::ListNamespacesResponse {
        let mut all = self.namespaces();
        all.retain(|usage| usage.entries > 0 || usage.name == namespaces::DEFAULT);
        all.sort_by(|a, b| b.live_bytes.cmp(&a.live_bytes).then_with(|| a.name.cmp(&b.name)));
        let total = all.len() as u32;
        let limit = if request.limit == 0 { all.len() } else { request.limit as usize };
        let info = |usage: NamespaceUsage| proto::NamespaceInfo {
            name: usage.name,
            entries: usage.entries,
            live_bytes: usage.live_bytes,
            evictions: usage.evictions,
            hits: usage.counts.map(|counts| counts.hits),
            misses: usage.counts.map(|counts| counts.misses),
            sets: usage.counts.map(|counts| counts.sets),
        };
        proto::ListNamespacesResponse { namespaces: all.into_iter().take(limit).map(info).collect(), total }
    }

    fn answer(&self, lookup: Lookup, max_stale_ms: Option<u64>, known: Option<u64>, now_ms: u64) -> proto::GetResponse {
        let item = match lookup {
            Lookup::Found(item) => item,
            Lookup::Miss(miss) => return missed(miss),
        };
        let stale = item.stale_for_ms(now_ms);
        if let Some(age_ms) = stale {
            let allowed = max_stale_ms.unwrap_or_else(|| self.default_max_stale_ms.load(Ordering::Relaxed));
            if age_ms > allowed || allowed == 0 {
                return missed(Miss::Expired);
            }
        }
        let Item { value, version, attributes, .. } = item;
        let (outcome, value) = match stale {
            None if known == Some(version) => (get_response::Outcome::Unchanged, Bytes::new()),
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
        let namespace = self.namespace_to_set(&request.namespace, condition)?;
        self.set_checked(Key { namespace: namespace.number, bytes: &request.key }, request, condition)
    }

    /// The namespace for a Set with this condition. A condition that requires an existing entry creates no namespace.
    fn namespace_to_set(&self, name: &str, condition: Condition) -> Result<Held, Refusal> {
        match condition {
            Condition::Always | Condition::Absent | Condition::Version(0) => self.namespace_to_fill(name),
            Condition::Present | Condition::Version(_) | Condition::Lease(_) => self.namespaces.find(name),
        }
    }

    /// The namespace of an operation that may create an entry.
    fn namespace_to_fill(&self, name: &str) -> Result<Held, Refusal> {
        let forget = |number| {
            self.store.end_leases(number);
            self.hot.forget(number);
            self.usage.forget(number, self.store.take_evictions(number));
        };
        self.namespaces.find_or_create(name, || self.store.namespaces_in_use(), forget)
    }

    /// Checks that need no access to the store.
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
        check_ttl("ttl_ms", request.ttl_ms)?;
        let longest = if request.ttl_ms == 0 { MAX_TTL_MS } else { request.ttl_ms };
        Refusal::at_most("soft_ttl_ms", request.soft_ttl_ms, longest)?;
        check_key(&request.key)?;
        self.check_value(request.value.len())?;
        match request.condition {
            None | Some(Wanted::IfAbsent(false) | Wanted::IfPresent(false)) => Ok(Condition::Always),
            Some(Wanted::IfAbsent(true)) => Ok(Condition::Absent),
            Some(Wanted::IfPresent(true)) => Ok(Condition::Present),
            Some(Wanted::IfVersion(version)) => Ok(Condition::Version(version)),
            Some(Wanted::LeaseToken(token)) => {
                Refusal::within("lease_token", token, 1, MAX_VERSION)?;
                Ok(Condition::Lease(token))
            }
        }
    }

    /// Refuses a value that is too large.
    fn check_value(&self, len: usize) -> Result<(), Refusal> {
        let max = self.max_value_bytes();
        if len <= max { Ok(()) } else { Err(Error::ValueTooLarge { len, max }.into()) }
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
        // One factor for both deadlines, so that a value does not become stale after it has expired.
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
            SetOutcome::LeaseLost(version) => (Outcome::LeaseLost, version),
        };
        if outcome == Outcome::Stored {
            self.usage.count(key.namespace, Event::Stored);
        }
        if let Condition::Lease(_) = condition {
            self.leases.filled(outcome == Outcome::Stored);
        }
        Ok(proto::SetResponse { outcome: outcome.into(), version, refusal: None })
    }

    /// Removes one key, or marks it stale.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn delete(&self, request: &proto::DeleteRequest) -> Result<proto::DeleteResponse, Refusal> {
        use proto::delete_request::Mode;
        let hold_off_ms = request.hold_off_ms;
        let deletion = match Mode::try_from(request.mode) {
            Ok(Mode::Tombstone) => {
                Refusal::within("hold_off_ms", hold_off_ms, 1, MAX_LEASE_MS)?;
                Deletion::Tombstone { until_ms: self.clock.now_ms() + hold_off_ms }
            }
            Ok(_) if hold_off_ms != 0 => {
                return Err(Refusal::Conflicting { field: "hold_off_ms", with: "a mode other than TOMBSTONE" });
            }
            Ok(Mode::Unspecified) => Deletion::Remove,
            Ok(Mode::MarkStale) => Deletion::MarkStale,
            Err(_) => return Err(Refusal::UnknownValue { field: "mode", value: request.mode }),
        };
        check_key(&request.key)?;
        let namespace = match deletion {
            // The hold-off is kept like an entry.
            Deletion::Tombstone { .. } => self.namespace_to_fill(&request.namespace)?,
            Deletion::Remove | Deletion::MarkStale => self.namespaces.find(&request.namespace)?,
        };
        self.delete_key(Key { namespace: namespace.number, bytes: &request.key }, request.if_version, deletion)
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
        Ok(proto::DeleteResponse { outcome: outcome.into(), version, refusal: None })
    }

    /// Sets a new time to live.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn touch(&self, request: &proto::TouchRequest) -> Result<proto::TouchResponse, Refusal> {
        check_key(&request.key)?;
        check_ttl("ttl_ms", request.ttl_ms)?;
        let namespace = self.namespaces.find(&request.namespace)?;
        let key = Key { namespace: namespace.number, bytes: &request.key };
        let now_ms = self.clock.now_ms();
        let version = self.store.touch(key, self.deadline(request.ttl_ms, now_ms), now_ms)?;
        Ok(proto::TouchResponse { found: version.is_some(), version: version.unwrap_or(0) })
    }

    /// Adds bytes to the end of a value.
    ///
    /// # Errors
    /// A [`Refusal`]; the value is unchanged then.
    pub fn append(&self, request: &proto::AppendRequest) -> Result<proto::AppendResponse, Refusal> {
        check_key(&request.key)?;
        check_ttl("ttl_ms", request.ttl_ms)?;
        let namespace = match request.create {
            true => self.namespace_to_fill(&request.namespace)?,
            false => self.namespaces.find(&request.namespace)?,
        };
        let key = Key { namespace: namespace.number, bytes: &request.key };
        let now_ms = self.clock.now_ms();
        let created =
            Attributes { deadline_ms: self.deadline_or_default(request.ttl_ms, now_ms), ..Attributes::default() };
        let (size, version) = self.store.update(key, now_ms, |item| {
            let (value, attributes) = match item.filter(|item| has_value(item)) {
                Some(item) => ([&item.value[..], &request.value].concat().into(), item.attributes),
                None if request.create => (request.value.clone(), created),
                None => return (Update::Keep, Ok(0)),
            };
            match self.check_value(value.len()) {
                Ok(()) => {
                    let size = value.len() as u64;
                    (Update::Store { value, attributes }, Ok(size))
                }
                Err(refusal) => (Update::Keep, Err(refusal)),
            }
        })?;
        Ok(proto::AppendResponse { found: version.is_some(), size: size?, version: version.unwrap_or(0) })
    }

    /// Invalidates a group of keys.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing is invalidated then.
    pub fn invalidate(&self, request: &proto::InvalidateRequest) -> Result<proto::InvalidateResponse, Refusal> {
        use proto::invalidate_request::Group as Wanted;
        let namespace = self.namespaces.find(&request.namespace)?;
        let group = match &request.group {
            Some(Wanted::WholeNamespace(true)) => Group::Namespace(namespace.number),
            Some(Wanted::Prefix(prefix)) => {
                Refusal::length("prefix", prefix.len(), 1, MAX_KEY_BYTES)?;
                Group::Prefix(namespace.number, prefix)
            }
            Some(Wanted::Tag(_)) => return Err(Refusal::Unsupported { field: "tag" }),
            Some(Wanted::WholeNamespace(false)) | None => return Err(Refusal::Missing { field: "group" }),
        };
        if !namespace.is_unknown() {
            self.store.invalidate(group, request.mark_stale)?;
        }
        let generation = self.namespaces.count_invalidation(&request.namespace, &namespace);
        Ok(proto::InvalidateResponse { generation })
    }

    /// The deadline for a time to live from now; 0 means never. Saturates at the largest time.
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

fn check_key(key: &[u8]) -> Result<(), Refusal> {
    Refusal::length("key", key.len(), 1, MAX_KEY_BYTES)
}

fn check_ttl(field: &'static str, ttl_ms: u64) -> Result<(), Refusal> {
    Refusal::at_most(field, ttl_ms, MAX_TTL_MS)
}

fn is_fresh(lookup: &Lookup, now_ms: u64) -> bool {
    matches!(lookup, Lookup::Found(item) if item.stale_for_ms(now_ms).is_none())
}

/// Whether an item has a value: a negative entry has none.
fn has_value(item: &Item) -> bool {
    !item.attributes.negative
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
