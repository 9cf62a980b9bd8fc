//! The cleaner's thread: a dull loop around [`super::plan`].

use super::plan::{self, Plan};
use super::steps::Steps;
use super::{Order, Pacing, Progress, RECEIPTS, Receipt, Shared, State, held};
use crate::clock::{self, Clock};
use crate::store::{Stats, Tally, Task};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the thread looks whether something has expired or emptied, when nobody rings.
const TICK: Duration = Duration::from_millis(100);
/// Freed segments that stay resident for reuse while writers are evicting.
const HOT_SEGMENTS: usize = 4;
/// Steps between two looks at the account: summing it over all shards costs about as much as a short step.
const STEPS_OF_A_PLAN: usize = 8;
/// The shortest rest: a shorter one costs more in switching than it gives.
const REST: Duration = Duration::from_millis(1);
/// While callers write, the time from a look that found no segment empty enough to the next.
const ROUND: Duration = Duration::from_millis(10);
/// How much nicer than other threads it is: readers and writers come first.
const NICENESS: i32 = 10;

pub(super) struct Worker {
    shared: Arc<Shared>,
    clock: Clock,
    /// The shard that is next.
    shard: usize,
    /// Rest that is owed.
    owed: Cell<Duration>,
}

/// What a run has cost and done so far.
struct Account {
    tally: Tally,
    steps: Steps,
    started: Instant,
    receipt: Receipt,
    work_at_start: u64,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, clock: Clock) -> Self {
        Self { shared, clock, shard: 0, owed: Cell::new(Duration::ZERO) }
    }

    pub(super) fn run(mut self) {
        // Refused in some sandboxes; then it runs as everybody else does.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
        while let Some((order, asked)) = self.next_order() {
            self.carry_out(order, asked);
        }
        for (_, progress) in held(&self.shared.state).asked.drain(..) {
            finish(&progress, Receipt::default());
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    /// Waits for a tick or the bell; `None` when the thread is to stop.
    fn next_order(&self) -> Option<(Order, Option<Arc<Progress>>)> {
        let state = held(&self.shared.state);
        let idle = |state: &mut State| state.asked.is_empty() && !self.stopping();
        let waited = self.shared.bell.wait_timeout_while(state, TICK, idle);
        let (mut state, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.stopping() {
            return None;
        }
        match state.asked.pop_front() {
            Some((order, progress)) => Some((order, Some(progress))),
            None => Some((state.order, None)),
        }
    }

    fn pacing(&self) -> Pacing {
        held(&self.shared.state).pacing
    }

    /// Works on an order until there is nothing left to do about it.
    fn carry_out(&mut self, order: Order, asked: Option<Arc<Progress>>) {
        let stats = self.shared.store.stats();
        let is_run = asked.is_some() || plan::plan(&stats, order) != Plan::Tidy;
        let mut account = Account {
            tally: Tally::default(),
            steps: Steps::default(),
            started: Instant::now(),
            receipt: Receipt { reason: order.reason, started_at_ms: clock::unix_ms(), ..Receipt::default() },
            work_at_start: plan::work_left(&stats, order),
        };
        if is_run {
            account.receipt.before = self.shared.account();
        }
        let mut evicting = false;
        let mut idle_shards = 0;
        let mut plan = plan::plan(&stats, order);
        let mut steps = 0_usize;
        while idle_shards < self.shared.store.shards() && !self.stopping() {
            if steps.is_multiple_of(STEPS_OF_A_PLAN) {
                let stats = self.shared.store.stats();
                plan = plan::plan(&stats, order);
                evicting |= plan == Plan::Evict;
                if let Some(progress) = &asked {
                    progress.percent.store(plan::percent(&stats, order, account.work_at_start), Ordering::Relaxed);
                }
            }
            steps += 1;
            match self.step(plan.task(), &mut account) {
                true => idle_shards = 0,
                false => idle_shards += 1,
            }
            if asked.is_none() && self.has_other_work(order) {
                break;
            }
            if asked.is_none() && idle_shards == self.shared.store.shards() && plan.goes_on() {
                self.rest(ROUND);
                (idle_shards, steps) = (0, 0);
            }
        }
        // Who asks for memory gets all there is; writers who evict will want some of it again in a moment.
        let reuse = asked.is_none() && (evicting || self.writers_evict(&stats));
        let keep = if reuse { HOT_SEGMENTS } else { 0 };
        self.cool(keep, &mut account);
        if is_run && (asked.is_some() || account.tally != Tally::default()) {
            self.end_run(account, asked);
        }
    }

    /// Something was asked for, or the standing order is another one by now.
    fn has_other_work(&self, order: Order) -> bool {
        let state = held(&self.shared.state);
        !state.asked.is_empty() || state.order != order
    }

    fn writers_evict(&self, before: &Stats) -> bool {
        self.shared.store.stats().evictions != before.evictions
    }

    /// One step on the next shard, and the pause that its cost asks for; `false` when the shard had nothing to do.
    fn step(&mut self, task: Task, account: &mut Account) -> bool {
        let pacing = self.pacing();
        let (started, limit) = (clock::thread_cpu_micros(), u64::from(pacing.step_micros));
        let mut stop = || clock::thread_cpu_micros() - started >= limit;
        let store = &self.shared.store;
        let freed_before = account.tally.freed_segments;
        let did = store.clean(self.shard, task, self.clock.now_ms(), &mut account.tally, &mut stop);
        // On to the next shard after each segment, so that the emptiest of every shard go before the others.
        if !did || account.tally.freed_segments != freed_before {
            store.reclaim(self.shard);
            self.shard = (self.shard + 1) % store.shards();
        }
        self.charge(started, pacing, account);
        if did {
            self.cool(HOT_SEGMENTS, account);
        }
        did
    }

    /// Gives freed pages back, one segment a step, without any lock.
    fn cool(&self, keep: usize, account: &mut Account) {
        let pacing = self.pacing();
        loop {
            let started = clock::thread_cpu_micros();
            if self.shared.store.cool(keep).is_none() {
                return;
            }
            self.charge(started, pacing, account);
        }
    }

    /// Books a step and rests for as long as the cleaner's share of a core asks, once that is worth going to sleep for.
    fn charge(&self, started: u64, pacing: Pacing, account: &mut Account) {
        let cost = clock::thread_cpu_micros() - started;
        account.receipt.cpu_us += cost;
        account.steps.count(cost);
        let share = u64::from(pacing.cpu_percent.clamp(1, 100));
        let rest = self.owed.get() + Duration::from_micros(cost * (100 - share) / share);
        self.owed.set(rest);
        if rest >= REST {
            self.owed.set(Duration::ZERO);
            self.rest(rest);
        }
    }

    /// Sleeps. The bell may ring for an order meanwhile; only a stop ends the rest.
    fn rest(&self, rest: Duration) {
        let state = held(&self.shared.state);
        drop(self.shared.bell.wait_timeout_while(state, rest, |_: &mut State| !self.stopping()));
    }

    fn end_run(&self, account: Account, asked: Option<Arc<Progress>>) {
        let Account { tally, steps, started, mut receipt, .. } = account;
        (receipt.steps, receipt.step_p999_us) = (steps.total(), steps.within_us(999));
        receipt.longest_step_us = steps.longest_us();
        let Tally { moved_bytes, moved_items, evicted_items, expired_items, freed_segments, migrated_shards } = tally;
        receipt.after = self.shared.account();
        receipt.duration_us = started.elapsed().as_micros() as u64;
        (receipt.moved_bytes, receipt.moved_items) = (moved_bytes, moved_items);
        (receipt.evicted_items, receipt.expired_items) = (evicted_items, expired_items);
        (receipt.freed_segments, receipt.migrated_shards) = (freed_segments, migrated_shards);
        let mut state = held(&self.shared.state);
        receipt.id = state.totals.iter().map(|total| total.runs).sum::<u64>() + 1;
        state.totals[receipt.reason as usize].add(&receipt);
        state.receipts.push_front(receipt.clone());
        state.receipts.truncate(RECEIPTS);
        drop(state);
        if let Some(progress) = asked {
            finish(&progress, receipt);
        }
    }
}

fn finish(progress: &Progress, receipt: Receipt) {
    progress.percent.store(100, Ordering::Relaxed);
    *held(&progress.receipt) = Some(receipt);
}
