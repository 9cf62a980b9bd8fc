//! A writer: the owner of some keys. It knows the exact state of each, and draws what to do with it next.

mod operations;

use crate::history::State;
use crate::random::Random;
use crate::world::{Mode, World, count};
use ebb_engine::store::{Attributes, Condition};
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
    /// The token of the lease that the writer holds.
    lease: Option<u64>,
}

impl Writer {
    pub(crate) fn new(world: Arc<World>, number: u32) -> Self {
        let keys = world.keys_of(number);
        let random = Random::of(world.seed, world.phase << 8 | 0x10 | u64::from(number));
        Self { world, number, footprints: vec![0; keys.len()], keys, random, footprint: 0, lease: None }
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
            824..860 => self.fill_anyhow(key),
            _ => self.read(key),
        }
    }

    fn current(&self, key: usize) -> State {
        self.world.registers[key].current()
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

    // The choice of operations.

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

    fn fill_anyhow(&mut self, key: usize) {
        let (len, attributes) = (self.length(key), self.attributes());
        if self.has_quota(key, len) {
            self.fill(key, len, attributes);
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

    fn delete_if(&mut self, key: usize) {
        let version = self.current(key).version();
        let wanted = version + self.random.below(2);
        self.delete(key, Some(wanted));
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
