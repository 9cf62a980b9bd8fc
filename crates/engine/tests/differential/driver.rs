//! The driver: switches disturbances on and off at random, and ends all of them at the end.

use crate::random::Random;
use crate::world::{Mode, Room, World};
use ebb_engine::cleaner::{Pacing, Reason, Run, Target};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use strum::VariantArray as _;

pub(crate) struct Driver {
    world: Arc<World>,
    random: Random,
    in_flight_bytes: u64,
}

impl Driver {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let random = Random::of(world.seed, world.phase << 8 | 2);
        Self { world, random, in_flight_bytes: 0 }
    }

    /// Causes disturbances for `time`, or until a thread has failed.
    pub(crate) fn run(&mut self, time: Duration, has_failed: impl Fn() -> bool) {
        let end = Instant::now() + time;
        while Instant::now() < end && !has_failed() {
            self.disturb();
            std::thread::park_timeout(Duration::from_millis(self.random.below(40)));
        }
    }

    fn disturb(&mut self) {
        let (world, random) = (self.world.clone(), &mut self.random);
        match random.below(11) {
            0 => world.slow_readers.store(random.one_in(2), Ordering::Relaxed),
            1 => world.spinning.store(random.one_in(2), Ordering::Relaxed),
            2 => {
                let step_micros = random.pick(&[1, 20, 200, 2_000]);
                world.cleaner.set_pacing(Pacing { step_micros, cpu_percent: random.pick(&[5, 50, 100]) });
            }
            3 => {
                let target = self.target();
                drop(self.ask(target));
            }
            4..7 => {
                let target = self.target();
                world.cleaner.set_target(target);
            }
            7 => {
                let mode = if random.one_in(2) { Mode::Mixed } else { random.pick(&Mode::ALL) };
                world.set_mode(mode);
            }
            8 => self.change_capacity(),
            9 => self.change_in_flight(),
            _ => {
                let (occupancy, logs) = (world.store.occupancy(), world.store.logs());
                std::hint::black_box((occupancy, logs, world.store.namespaces_in_use()));
                world.store.cool(random.index(4));
                world.store.reclaim(random.index(world.store.shards()));
            }
        }
    }

    fn ask(&self, target: Target) -> Run {
        self.world.cleaner.run(target)
    }

    fn target(&mut self) -> Target {
        let random = &mut self.random;
        let occupancy_percent = random.pick(&[0, 50, 80, 90, 97, 100]);
        let (capacity, is_lossy) = (self.world.setup.capacity_bytes, self.world.setup.is_lossy());
        let evict_to_bytes = (is_lossy && random.one_in(2)).then(|| capacity * random.between(40, 120) as u64 / 100);
        Target { reason: random.pick(Reason::VARIANTS), occupancy_percent, evict_to_bytes }
    }

    fn change_capacity(&mut self) {
        let setup = &self.world.setup;
        let percent = match setup.room {
            Room::Ample | Room::Unpaced => self.random.between(100, 150),
            Room::Tight => self.random.between(100, 110),
            Room::Scarce => self.random.between(30, 250),
        };
        self.world.store.ledger().set_capacity(setup.capacity_bytes * percent as u64 / 100);
    }

    fn change_in_flight(&mut self) {
        let ledger = self.world.store.ledger();
        let more = self.random.below(1 + self.world.setup.in_flight_bytes - self.in_flight_bytes);
        ledger.add_in_flight(more);
        self.in_flight_bytes += more;
        let less = self.random.below(1 + self.in_flight_bytes);
        ledger.remove_in_flight(less);
        self.in_flight_bytes -= less;
        ledger.decay_in_flight(self.random.below(500));
        if self.world.setup.is_lossy() {
            self.world.store.make_room(self.world.clock.now_ms());
        }
    }

    /// Ends every disturbance, and waits until the cleaner has finished its work.
    pub(crate) fn rest(&mut self) {
        let world = &self.world;
        world.slow_readers.store(false, Ordering::Relaxed);
        world.spinning.store(false, Ordering::Relaxed);
        let ledger = world.store.ledger();
        ledger.remove_in_flight(std::mem::take(&mut self.in_flight_bytes));
        while ledger.in_flight_kept() > 0 {
            ledger.decay_in_flight(500);
        }
        ledger.set_capacity(world.setup.ample_bytes());
        world.cleaner.set_target(Target::NONE);
        world.cleaner.set_pacing(Pacing { step_micros: 200, cpu_percent: 100 });
        // Earlier requested runs, which may evict, end before this one.
        self.clean();
    }

    /// Requests a run and waits for its end.
    pub(crate) fn clean(&self) {
        let run = self.ask(Target::compact(97));
        while run.report().is_none() {
            assert!(!crate::has_failed(), "the cleaner or another thread has failed");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}
