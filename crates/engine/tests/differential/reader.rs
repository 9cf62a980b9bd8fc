//! A reader: reads any key, and scans, while owners write and segments move.

use crate::history::{Position, Sight, Verdict};
use crate::random::Random;
use crate::world::{World, count};
use ebb_engine::store::{Cursor, Lookup, Miss, Places, Use};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) struct Reader {
    world: Arc<World>,
    name: String,
    random: Random,
    /// How far this reader has come, by key.
    seen: Vec<Position>,
}

impl Reader {
    pub(crate) fn new(world: Arc<World>, number: usize) -> Self {
        let random = Random::of(world.seed, world.phase << 8 | 0x80 | number as u64);
        Self { seen: vec![Position::default(); world.registers.len()], name: format!("reader {number}"), random, world }
    }

    /// Reads until the phase ends.
    pub(crate) fn run(&mut self) {
        let keys = self.world.registers.len();
        while !self.world.readers_stop.load(Ordering::Relaxed) {
            if self.world.slow_readers.load(Ordering::Relaxed) && self.world.setup.huge_keys > 0 {
                let writer = self.random.below(u64::from(self.world.setup.writers)) as u32;
                let huge = self.world.keys_of(writer).start + self.random.index(self.world.setup.huge_keys);
                self.read(huge);
            } else if self.random.one_in(3_000) {
                self.scan();
            } else if self.random.one_in(100) {
                let first = self.random.index(keys);
                let ahead = self.world.registers[first..].iter().take(16).map(|register| register.key());
                self.world.store.look_ahead(ahead);
                (first..keys.min(first + 16)).for_each(|key| self.read(key));
            } else {
                let writer = self.random.below(u64::from(self.world.setup.writers)) as u32;
                let own = self.world.keys_of(writer);
                let few = if self.random.one_in(3) { own.len() } else { own.len().div_ceil(10) };
                let key = own.start + self.random.index(few);
                self.read(key);
            }
        }
    }

    fn least(&self, key: usize) -> Position {
        self.world.registers[key].acknowledged().max(self.seen[key])
    }

    fn read(&mut self, key: usize) {
        let world = self.world.clone();
        let register = &world.registers[key];
        let least = self.least(key);
        let now_ms = world.clock.now_ms();
        let usage = if self.random.one_in(4) { Use::Peek } else { Use::Read };
        let lookup = world.store.get(register.key(), now_ms, usage).expect("a key's length");
        let call = world.call(now_ms);
        count(&world.counts.reads);
        let sight = match &lookup {
            Lookup::Found(item) => Sight::Item(item),
            Lookup::Miss(_) => Sight::Miss,
        };
        if matches!(sight, Sight::Miss) {
            count(&world.counts.misses);
        }
        match register.judge(least, sight, call) {
            Verdict::Explained(position) => self.seen[key] = position,
            Verdict::Forgotten => count(&world.counts.forgotten),
            Verdict::Wrong => {
                world.fail_sight(key, &format!("{}, {call:?}, {usage:?}, {:?},", self.name, why(&lookup)), sight, least)
            }
        }
    }

    /// Scans a whole namespace, and judges every entry and every key without an entry.
    fn scan(&mut self) {
        let namespace = self.random.below(u64::from(self.world.namespaces())) as u16;
        self.scan_of(namespace);
    }

    fn scan_of(&mut self, namespace: u16) -> Vec<usize> {
        let world = self.world.clone();
        let (limit, with_values) = (self.random.between(1, 300), self.random.one_in(2));
        let least: Vec<_> = (0..world.registers.len()).map(|key| self.least(key)).collect();
        let began_ms = world.clock.now_ms();
        let (mut found, mut is_found) = (Vec::new(), vec![false; world.registers.len()]);
        let (mut places, mut next) = (Places::default(), Some(Cursor::default()));
        while let Some(cursor) = next {
            let now_ms = world.clock.now_ms();
            let page = world.store.scan(Some(namespace), b"", cursor, limit, with_values, now_ms, &mut places);
            let call = world.call(now_ms);
            for entry in &page.entries {
                let Some(key) = world.find(entry.namespace, &entry.key) else {
                    panic!("{world}\na scan found {:?}, which no writer has stored", entry.key);
                };
                let sight = match with_values {
                    true => Sight::Item(&entry.item),
                    false => Sight::Outline(&entry.item, entry.value_bytes),
                };
                if entry.namespace != namespace || world.registers[key].judge(least[key], sight, call) == Verdict::Wrong
                {
                    world.fail_sight(key, &format!("a scan of {}, {call:?},", self.name), sight, least[key]);
                }
                found.push(key);
                is_found[key] = true;
            }
            next = page.next;
            if world.readers_stop.load(Ordering::Relaxed) && next.is_some() {
                return found;
            }
        }
        count(&world.counts.scans);
        // A scan must return every key that existed from the first page to the last.
        let call = world.call(began_ms);
        for (key, register) in world.registers.iter().enumerate() {
            if register.namespace == namespace
                && !is_found[key]
                && register.judge(least[key], Sight::Miss, call) == Verdict::Wrong
            {
                let who = format!("a scan of {} that began at {began_ms} ms", self.name);
                world.fail_sight(key, &who, Sight::Miss, least[key]);
            }
        }
        found
    }

    /// All keys of all namespaces, as returned by scans.
    pub(crate) fn scan_all(&mut self) -> Vec<usize> {
        (0..self.world.namespaces()).flat_map(|namespace| self.scan_of(namespace)).collect()
    }
}

fn why(lookup: &Lookup) -> Option<Miss> {
    match lookup {
        Lookup::Found(_) => None,
        Lookup::Miss(miss) => Some(*miss),
    }
}
