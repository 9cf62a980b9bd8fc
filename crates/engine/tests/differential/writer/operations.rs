//! The operations of a writer. Each computes the states that its answer may leave, and fails the run on any other answer.

use super::{HOUR_MS, Writer};
use crate::history::{Call, Content, Position, Sight, State, Verdict};
use crate::world::count;
use ebb_engine::store::{
    Attributes, Condition, DeleteOutcome, Deletion, Error, Group, Item, LeaseRequest, Leased, Lookup, SetOutcome,
    Update, Use,
};

impl Writer {
    pub(super) fn set(
        &mut self,
        key: usize,
        len: usize,
        attributes: Attributes,
        condition: Condition,
        operation: &'static str,
    ) {
        let world = self.world.clone();
        let register = &world.registers[key];
        let before = register.current();
        let now_ms = world.clock.now_ms();
        // Whether a near deadline is kept cannot be predicted, nor that of an item that may be evicted.
        let kept = before.content.filter(|content| {
            let deadline = content.attributes.deadline_ms;
            !world.is_lossy() && (deadline == 0 || deadline > now_ms + HOUR_MS / 2)
        });
        let keep_deadline = kept.is_some() && self.random.one_in(5);
        let deadline_ms =
            kept.filter(|_| keep_deadline).map_or(attributes.deadline_ms, |kept| kept.attributes.deadline_ms);
        let stored = Attributes { deadline_ms, ..attributes };
        let begun = register.begin(operation, now_ms, |seq| {
            Some(Content { base: seq, len, attributes: stored, stale: Some(false), version: None })
        });
        let value = register.origin(begun.seq).value(len);
        let outcome = world.store.set(register.key(), &value, &attributes, condition, keep_deadline, now_ms);
        let call = world.call(now_ms);
        let present = before.content.filter(|_| !before.must_be_missed(now_ms));
        let is_value = present.is_some_and(|content| !content.attributes.negative);
        let may_be_missed = self.may_be_missed(&before, call);
        let version = before.version();
        let (unchanged, missed) = (before.content, before.left_when_missed(call.after_ms));
        let (is_right, after) = match outcome {
            Ok(SetOutcome::Stored(stored)) => {
                let is_met = match condition {
                    Condition::Always => true,
                    Condition::Absent => may_be_missed || !is_value,
                    Condition::Present => is_value,
                    Condition::Version(0) => may_be_missed,
                    Condition::Version(wanted) => present.is_some() && wanted == version,
                    Condition::Lease(token) => self.lease == Some(token),
                };
                let content = begun.content.map(|content| Content { version: Some(stored), ..content });
                (is_met && stored > register.highest_version(), content)
            }
            Ok(SetOutcome::NotStored(0)) => (condition == Condition::Present && may_be_missed, missed),
            Ok(SetOutcome::NotStored(there)) => {
                let is_met = match condition {
                    Condition::Absent => is_value,
                    Condition::Present => present.is_some() && !is_value,
                    Condition::Always | Condition::Version(_) | Condition::Lease(_) => false,
                };
                (is_met && there == version, unchanged)
            }
            Ok(SetOutcome::Conflict(there)) => {
                let is_conflict = matches!(condition, Condition::Version(wanted) if wanted != there);
                match there {
                    0 => (is_conflict && may_be_missed, missed),
                    _ => (is_conflict && present.is_some() && there == version, unchanged),
                }
            }
            // Another writer may have invalidated the key's group meanwhile.
            Ok(SetOutcome::LeaseLost(0)) => (matches!(condition, Condition::Lease(_)) && may_be_missed, missed),
            Ok(SetOutcome::LeaseLost(there)) => {
                (matches!(condition, Condition::Lease(_)) && present.is_some() && there == version, unchanged)
            }
            Err(Error::NoSpace { .. }) => (self.is_refusable(), unchanged),
            Err(_) => (false, unchanged),
        };
        if let (Condition::Lease(_), Ok(SetOutcome::Stored(_))) = (condition, &outcome) {
            count(&world.counts.fills);
        }
        if !is_right {
            world.fail(key, format!("{operation} ({condition:?}) at {call:?} was answered {outcome:?}"));
        }
        if matches!(outcome, Ok(SetOutcome::Stored(_))) {
            self.note_footprint(key, self.footprint_of(key, len));
        }
        register.acknowledge(after);
    }

    /// Takes the lease of a key without a fresh item, and fills the key under it, sometimes after a deletion.
    pub(super) fn fill(&mut self, key: usize, len: usize, attributes: Attributes) {
        let world = self.world.clone();
        let name = world.registers[key].key();
        let request = LeaseRequest { ttl_ms: HOUR_MS, token: None, waits: true };
        let token = match world.store.lease(name, request, world.clock.now_ms()).expect("a key's length") {
            Leased::Fresh => return,
            Leased::Won { token, .. } => token,
            other => world.fail(key, format!("only this writer asks for the lease, yet: {other:?}")),
        };
        self.lease = Some(token);
        if self.random.one_in(3) {
            self.delete(key, None);
            self.lease = None;
        }
        self.set(key, len, attributes, Condition::Lease(token), "fill");
        self.lease = None;
        world.store.give_back_lease(name, token).expect("a key's length"); // if the fill was refused
    }

    /// A write may be refused only where items are evicted.
    fn is_refusable(&self) -> bool {
        count(&self.world.counts.refusals);
        self.world.is_lossy()
    }

    pub(super) fn touch_to(&mut self, key: usize, deadline_ms: u64) {
        let world = self.world.clone();
        let register = &world.registers[key];
        let now_ms = world.clock.now_ms();
        let before = register.current();
        let touched = before
            .content
            .map(|content| Content { attributes: Attributes { deadline_ms, ..content.attributes }, ..content });
        register.begin("touch", now_ms, |_| touched);
        let outcome = world.store.touch(register.key(), deadline_ms, now_ms);
        let call = world.call(now_ms);
        let (is_right, after) = match outcome {
            Ok(Some(version)) => (!before.must_be_missed(now_ms) && version == before.version(), touched),
            Ok(None) => (self.may_be_missed(&before, call), before.left_when_missed(call.after_ms)),
            Err(Error::NoSpace { .. }) => (self.is_refusable(), before.content),
            Err(_) => (false, None),
        };
        if !is_right {
            world.fail(key, format!("touch to {deadline_ms} at {call:?} was answered {outcome:?}"));
        }
        register.acknowledge(after);
    }

    pub(super) fn delete(&mut self, key: usize, if_version: Option<u64>) {
        let world = self.world.clone();
        let register = &world.registers[key];
        let now_ms = world.clock.now_ms();
        let before = register.current();
        register.begin("delete", now_ms, |_| None);
        let outcome = world.store.delete(register.key(), if_version, Deletion::Remove, now_ms).expect("a key's length");
        let call = world.call(now_ms);
        let is_present = !before.must_be_missed(now_ms);
        let (is_right, after) = match outcome {
            DeleteOutcome::Deleted(0) => {
                (is_present && if_version.is_none_or(|wanted| wanted == before.version()), None)
            }
            DeleteOutcome::NotFound => (self.may_be_missed(&before, call), before.left_when_missed(call.after_ms)),
            DeleteOutcome::Conflict(there) => {
                let is_conflict = is_present && there == before.version() && if_version.is_some_and(|v| v != there);
                (is_conflict, before.content)
            }
            DeleteOutcome::Deleted(_) => (false, None),
        };
        if !is_right {
            world.fail(key, format!("delete ({if_version:?}) at {call:?} was answered {outcome:?}"));
        }
        if outcome == DeleteOutcome::Deleted(0) {
            self.note_footprint(key, 0);
        }
        register.acknowledge(after);
    }

    pub(super) fn mark_stale(&mut self, key: usize) {
        let world = self.world.clone();
        let register = &world.registers[key];
        let now_ms = world.clock.now_ms();
        let before = register.current();
        let stale = before.content.map(|content| Content { stale: Some(true), ..content });
        register.begin("mark stale", now_ms, |_| stale);
        let outcome = world.store.delete(register.key(), None, Deletion::MarkStale, now_ms).expect("a key's length");
        let call = world.call(now_ms);
        let (is_right, after) = match outcome {
            DeleteOutcome::Deleted(there) => (!before.must_be_missed(now_ms) && there == before.version(), stale),
            DeleteOutcome::NotFound => (self.may_be_missed(&before, call), before.left_when_missed(call.after_ms)),
            DeleteOutcome::Conflict(_) => (false, None),
        };
        if !is_right {
            world.fail(key, format!("mark stale at {call:?} was answered {outcome:?}"));
        }
        register.acknowledge(after);
    }

    /// Appends to the value, replaces it by one of the same length (like an increment), or keeps it.
    pub(super) fn update(&mut self, key: usize) {
        let world = self.world.clone();
        let register = &world.registers[key];
        let before = register.current();
        let now_ms = world.clock.now_ms();
        let kind = self.random.pick(&["append", "append", "increment", "keep"]);
        let more = self.random.between(1, 200);
        let longest = before.content.map_or(0, |content| content.len) + more;
        let is_huge = key - self.keys.start < world.setup.huge_keys;
        if longest > if is_huge { 400_000 } else { world.setup.largest_bytes } || !self.has_quota(key, longest) {
            return;
        }
        let mut begun: Option<State> = None;
        // Runs under the shard's lock, so the state begins before a reader can see it. It may run again.
        let outcome = world.store.update(register.key(), now_ms, |item| {
            let call = world.call(now_ms);
            self.check(key, &before, item, call, kind);
            let there = item.and(before.content);
            let kept = there.or(before.left_when_missed(call.after_ms));
            let content = |seq| match (kind, there) {
                ("append", Some(there)) => Some(Content { len: there.len + more, ..there }),
                (_, Some(there)) => Some(Content { base: seq, ..there }),
                (_, None) => {
                    let attributes = Attributes::default();
                    Some(Content { base: seq, len: more, attributes, stale: Some(false), version: None })
                }
            };
            let fresh = |content: Content| Content {
                attributes: Attributes { negative: false, ..content.attributes },
                // A negative entry has no stale value to compute from.
                stale: if content.attributes.negative { Some(false) } else { content.stale },
                version: None,
                ..content
            };
            let made = |seq| if kind == "keep" { kept } else { content(seq).map(fresh) };
            match begun {
                None => begun = Some(register.begin(kind, now_ms, made)),
                // The item may have been evicted since the first run.
                Some(state) => register.amend(made(state.seq)),
            }
            let state = begun.expect("it was just begun");
            let Some(content) = made(state.seq).filter(|_| kind != "keep") else {
                return (Update::Keep, state.content);
            };
            let value = register.origin(content.base).value(content.len);
            (Update::Store { value: value.into(), attributes: content.attributes }, Some(content))
        });
        let (is_right, after) = match outcome {
            Ok((content, Some(version))) => {
                let content = content.map(|content| Content { version: Some(version), ..content });
                (kind != "keep" && version > register.highest_version(), content)
            }
            Ok((content, None)) => (kind == "keep", content),
            Err(Error::NoSpace { .. }) => (self.is_refusable(), before.content),
            Err(_) => (false, None),
        };
        if !is_right {
            world.fail(key, format!("{kind} at {now_ms} ms was answered {outcome:?}"));
        }
        if let (Ok((_, Some(_))), Some(content)) = (&outcome, after) {
            self.note_footprint(key, self.footprint_of(key, content.len));
        }
        register.acknowledge(after);
    }

    /// Invalidates a prefix of the default namespace, or the writer's own namespace, or marks it stale.
    pub(super) fn invalidate(&mut self) {
        let world = self.world.clone();
        let now_ms = world.clock.now_ms();
        let letter = self.random.pick(b"abcd") as char;
        let (namespace, prefix) = match self.random.below(8) {
            0 => (self.number as u16 + 1, String::new()),
            1..4 => (self.number as u16 + 1, format!("{letter}/{}", self.random.below(10))),
            _ => (0, format!("w{}/{letter}/{}", self.number, self.random.below(100))),
        };
        let group = match prefix.is_empty() {
            true => Group::Namespace(namespace),
            false => Group::Prefix(namespace, prefix.as_bytes()),
        };
        let mark_stale = self.random.one_in(2);
        let meant = |key: &usize| {
            let register = &world.registers[*key];
            register.namespace == namespace && register.name.starts_with(prefix.as_bytes())
        };
        let states: Vec<_> = self.keys.clone().filter(meant).map(|key| (key, self.current(key))).collect();
        let states: Vec<_> = states.into_iter().filter(|(_, state)| state.content.is_some()).collect();
        let operation = if mark_stale { "invalidate, mark stale" } else { "invalidate" };
        let become_of = |state: &State| {
            state.content.filter(|_| mark_stale).map(|content| Content { stale: Some(true), ..content })
        };
        for (key, state) in &states {
            world.registers[*key].begin(operation, now_ms, |_| become_of(state));
        }
        // If too many invalidations wait for the cleaner, it is refused and nothing changes.
        let is_done = world.store.invalidate(group, mark_stale).is_ok();
        for (key, state) in &states {
            world.registers[*key].acknowledge(if is_done { become_of(state) } else { state.content });
        }
    }

    /// Reads a key of this owner, which must return exactly the current state.
    pub(super) fn read(&mut self, key: usize) {
        let world = self.world.clone();
        let before = self.current(key);
        let now_ms = world.clock.now_ms();
        let usage = if self.random.one_in(4) { Use::Peek } else { Use::Read };
        let lookup = world.store.get(world.registers[key].key(), now_ms, usage).expect("a key's length");
        let item = match &lookup {
            Lookup::Found(item) => Some(item),
            Lookup::Miss(_) => None,
        };
        let call = world.call(now_ms);
        self.check(key, &before, item, call, "a read");
        let left = before.left_when_missed(call.after_ms);
        if item.is_none() && left != before.content {
            let register = &world.registers[key];
            register.begin("found gone", now_ms, |_| left);
            register.acknowledge(left);
        }
    }

    fn check(&self, key: usize, state: &State, item: Option<&Item>, call: Call, who: &str) {
        let register = &self.world.registers[key];
        let sight = item.map_or(Sight::Miss, Sight::Item);
        let least = Position::of(state.seq);
        if register.judge(least, sight, call) == Verdict::Wrong {
            self.world.fail_sight(key, &format!("{who} of its owner, {call:?},"), sight, least);
        }
    }

    fn may_be_missed(&self, state: &State, call: Call) -> bool {
        call.lossy || state.may_be_missed(call.after_ms)
    }
}
