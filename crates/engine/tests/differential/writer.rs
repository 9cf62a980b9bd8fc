//! A writer: the owner of some keys. It knows the exact state of each and checks every answer against it.

use crate::history::{Call, Content, Position, Sight, State, Verdict};
use crate::random::Random;
use crate::world::{Mode, World, count};
use ebb_engine::store::{
    Attributes, Condition, DeleteOutcome, Deletion, Error, Group, Item, Lookup, SetOutcome, Update, Use,
};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const HOUR_MS: u64 = 3_600_000;
/// Maximum distance of a near deadline.
pub(crate) const LONGEST_DEADLINE_MS: u64 = 300;

pub(crate) struct Writer {
    world: Arc<World>,
    number: u32,
    keys: Range<usize>,
    random: Random,
    /// Upper bound of the bytes of segments of each key's last item, including expired and invalidated items.
    footprints: Vec<usize>,
    footprint: usize,
}

impl Writer {
    pub(crate) fn new(world: Arc<World>, number: u32) -> Self {
        let keys = world.keys_of(number);
        let random = Random::of(world.seed, world.phase << 8 | 0x10 | u64::from(number));
        Self { world, number, footprints: vec![0; keys.len()], keys, random, footprint: 0 }
    }

    /// Writes until the phase ends.
    pub(crate) fn run(&mut self) {
        while !self.world.writers_stop.load(Ordering::Relaxed) {
            self.world.wait_for_room();
            let key = self.any_key();
            match self.world.mode() {
                Mode::Mixed => self.mixed(key),
                Mode::Delete => self.delete(key, None),
                Mode::Insert if self.current(key).must_be_missed(self.world.clock.now_ms()) => self.insert(key),
                Mode::Insert => self.read(key),
            }
            count(&self.world.counts.operations);
        }
    }

    /// A tenth of the keys gets most operations.
    fn any_key(&mut self) -> usize {
        let (all, huge) = (self.keys.len(), self.world.setup.huge_keys);
        if huge > 0 && self.random.one_in(20) {
            return self.keys.start + self.random.index(huge);
        }
        let few = if self.random.one_in(3) { all } else { all.div_ceil(10) };
        self.keys.start + self.random.index(few)
    }

    fn mixed(&mut self, key: usize) {
        match self.random.below(1_000) {
            0..350 => self.set_anyhow(key),
            350..430 => self.set_if(key),
            430..520 => self.touch(key),
            520..620 => self.delete(key, None),
            620..650 => self.delete_if(key),
            650..690 => self.mark_stale(key),
            690..820 => self.update(key),
            820..824 => self.invalidate(),
            _ => self.read(key),
        }
    }

    fn current(&self, key: usize) -> State {
        self.world.registers[key].current()
    }

    fn may_be_missed(&self, state: &State, call: Call) -> bool {
        call.lossy || state.may_be_missed(call.after_ms)
    }

    // Values and attributes.

    fn length(&mut self, key: usize) -> usize {
        let setup = &self.world.setup;
        let before = self.current(key).content.map(|content| content.len);
        if key - self.keys.start < setup.huge_keys {
            // Often the same length again, so that it is overwritten in place.
            let again = before.filter(|len| *len >= 200_000 && self.random.one_in(2));
            return again.unwrap_or_else(|| self.random.between(200_000, 400_000));
        }
        let largest = setup.largest_bytes;
        let small = self.random.below(100) < setup.small_percent;
        match (before, self.random.below(4)) {
            (Some(before), 0) => before,
            (Some(before), 1) => self.random.between(0, before),
            (Some(before), 2) => (before + self.random.between(1, 64)).min(largest),
            _ if small => self.random.between(0, 256),
            _ => self.random.between(0, largest),
        }
    }

    fn attributes(&mut self) -> Attributes {
        let random = &mut self.random;
        let now_ms = self.world.clock.now_ms();
        let expiring = random.below(100) < self.world.setup.expiring_percent;
        let deadline_ms = match random.below(5) {
            _ if expiring => now_ms + random.below(150),
            0 if self.world.setup.has_far_deadlines => now_ms + HOUR_MS + random.below(HOUR_MS),
            _ => 0,
        };
        let stale_at_ms = if random.one_in(6) { now_ms + random.below(300) } else { 0 };
        let flags = if random.one_in(2) { random.next() as u32 } else { 0 };
        Attributes { flags, deadline_ms, stale_at_ms, negative: false }
    }

    /// Whether a value of this length is within the quota; if not, deletes another key.
    fn has_quota(&mut self, key: usize, len: usize) -> bool {
        let need = self.footprint_of(key, len);
        if self.footprint - self.footprints[key - self.keys.start] + need <= self.world.setup.quota_bytes {
            return true;
        }
        let other = self.keys.start + self.random.index(self.keys.len());
        self.clear(other);
        false
    }

    fn footprint_of(&self, key: usize, len: usize) -> usize {
        self.world.setup.footprint(self.world.registers[key].name.len(), len)
    }

    fn note_footprint(&mut self, key: usize, bytes: usize) {
        let before = std::mem::replace(&mut self.footprints[key - self.keys.start], bytes);
        self.footprint = self.footprint - before + bytes;
    }

    /// Deletes the item of a key, even an invisible one: expired or invalidated, and not yet dropped by the cleaner.
    fn clear(&mut self, key: usize) {
        if self.footprints[key - self.keys.start] == 0 {
            return;
        }
        self.supersede(key);
        self.delete(key, None);
    }

    /// Stores a small item without a deadline in place of one that may be hidden.
    fn supersede(&mut self, key: usize) {
        let is_hidden = self.current(key).must_be_missed(self.world.clock.now_ms() + 1_000);
        if is_hidden {
            self.set(key, 8, Attributes::default(), Condition::Always, "supersede");
        }
    }

    // Operations.

    fn insert(&mut self, key: usize) {
        let len = self.random.between(0, 40);
        if self.has_quota(key, len) {
            self.set(key, len, Attributes::default(), Condition::Always, "insert");
        }
    }

    fn set_anyhow(&mut self, key: usize) {
        let (len, attributes) = (self.length(key), self.attributes());
        if !self.has_quota(key, len) {
            return;
        }
        match self.random.below(12) {
            0 => self.set(key, 0, Attributes { negative: true, ..attributes }, Condition::Always, "set negative"),
            _ => self.set(key, len, attributes, Condition::Always, "set"),
        }
    }

    fn set_if(&mut self, key: usize) {
        let (len, attributes, version) = (self.length(key), self.attributes(), self.current(key).version());
        if !self.has_quota(key, len) {
            return;
        }
        match self.random.below(4) {
            0 => self.set(key, len, attributes, Condition::Absent, "set if absent"),
            1 => self.set(key, len, attributes, Condition::Present, "set if present"),
            2 => self.set(key, len, attributes, Condition::Version(version), "compare and set"),
            _ => {
                let wrong = version.saturating_sub(self.random.below(3)).max(1) ^ 1;
                let wrong = if wrong == version { version + 2 } else { wrong };
                self.set(key, len, attributes, Condition::Version(wrong), "compare and set, wrong version");
            }
        }
    }

    fn set(&mut self, key: usize, len: usize, attributes: Attributes, condition: Condition, operation: &'static str) {
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
                };
                let content = begun.content.map(|content| Content { version: Some(stored), ..content });
                (is_met && stored > register.highest_version(), content)
            }
            Ok(SetOutcome::NotStored(0)) => (condition == Condition::Present && may_be_missed, missed),
            Ok(SetOutcome::NotStored(there)) => {
                let is_met = match condition {
                    Condition::Absent => is_value,
                    Condition::Present => present.is_some() && !is_value,
                    Condition::Always | Condition::Version(_) => false,
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
            Err(Error::NoSpace { .. }) => (self.is_refusable(), unchanged),
            Err(_) => (false, unchanged),
        };
        if !is_right {
            world.fail(key, format!("{operation} ({condition:?}) at {call:?} was answered {outcome:?}"));
        }
        if matches!(outcome, Ok(SetOutcome::Stored(_))) {
            self.note_footprint(key, self.footprint_of(key, len));
        }
        register.acknowledge(after);
    }

    /// A write may be refused only where items are evicted.
    fn is_refusable(&self) -> bool {
        count(&self.world.counts.refusals);
        self.world.is_lossy()
    }

    fn touch(&mut self, key: usize) {
        let world = self.world.clone();
        let now_ms = world.clock.now_ms();
        let deadline_ms = match self.random.below(4) {
            0 => 0,
            _ if world.setup.expiring_percent == 0 && !world.setup.has_far_deadlines => 0,
            1 if world.setup.expiring_percent > 0 => now_ms + self.random.below(100),
            _ if !world.setup.has_far_deadlines => now_ms + self.random.below(LONGEST_DEADLINE_MS),
            _ => now_ms + HOUR_MS + self.random.below(HOUR_MS),
        };
        self.touch_to(key, deadline_ms);
    }

    fn touch_to(&mut self, key: usize, deadline_ms: u64) {
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

    fn delete(&mut self, key: usize, if_version: Option<u64>) {
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

    fn delete_if(&mut self, key: usize) {
        let version = self.current(key).version();
        let wanted = version + self.random.below(2);
        self.delete(key, Some(wanted));
    }

    fn mark_stale(&mut self, key: usize) {
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
    fn update(&mut self, key: usize) {
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
    fn invalidate(&mut self) {
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
    pub(crate) fn read(&mut self, key: usize) {
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

    // The end of a phase.

    /// Removes every deadline. The item keeps the word for it, so a new deadline needs no rewrite.
    pub(crate) fn take_deadlines_away(&mut self) {
        for key in self.keys.clone() {
            if self.current(key).content.is_some_and(|content| content.attributes.deadline_ms != 0) {
                self.touch_to(key, 0);
            }
        }
    }

    /// Sets a near deadline for about half of the items.
    pub(crate) fn draw_deadlines_near(&mut self) {
        for key in self.keys.clone() {
            if self.random.one_in(2) {
                let near_ms = self.world.clock.now_ms() + self.random.below(LONGEST_DEADLINE_MS);
                self.touch_to(key, near_ms);
            }
        }
    }

    /// Number of items without a deadline.
    pub(crate) fn lasting_items(&self) -> u64 {
        let contents = self.keys.clone().filter_map(|key| self.current(key).content);
        contents.filter(|content| content.attributes.deadline_ms == 0).count() as u64
    }

    /// Overwrites every item that may still expire or be dropped by the cleaner, so that counts are exact.
    pub(crate) fn settle(&mut self) {
        for key in self.keys.clone() {
            // A write is refused while a preempted reader keeps too much retired memory.
            while self.is_unsettled(key) && !crate::has_failed() {
                self.set(key, 8, Attributes::default(), Condition::Always, "settle");
                std::thread::yield_now();
            }
        }
    }

    fn is_unsettled(&self, key: usize) -> bool {
        match self.current(key).content {
            Some(content) => content.attributes.deadline_ms != 0,
            None => self.footprints[key - self.keys.start] > 0,
        }
    }

    /// Reads every key. Returns the keys with an item, and the bytes of their keys and values.
    pub(crate) fn compare(&mut self) -> (Vec<usize>, u64) {
        self.keys.clone().for_each(|key| self.read(key));
        let live: Vec<_> = self.keys.clone().filter(|key| self.current(*key).content.is_some()).collect();
        let bytes =
            |key: &usize| self.world.registers[*key].name.len() + self.current(*key).content.map_or(0, |c| c.len);
        let sum = live.iter().map(bytes).sum::<usize>();
        (live, sum as u64)
    }

    pub(crate) fn delete_all(&mut self) {
        self.keys.clone().for_each(|key| self.delete(key, None));
    }
}
