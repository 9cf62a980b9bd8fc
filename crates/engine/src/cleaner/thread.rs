//! The cleaner's thread: a dull loop around [`super::plan`].

use super::plan;
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
/// The shortest rest. Rests are short and many, so that the cleaner has seldom used up its turn when a writer takes the
/// processor from it inside a lock, and then gets the processor back soon.
const REST: Duration = Duration::from_micros(20);
/// How often the cleaner looks whether the writer it gave way to has the lock by now. Some microseconds.
const LOOKS: usize = 100;
/// Steps in a row that writers cut short, after which an eviction goes on in the next shard.
const CUT_SHORT: usize = 64;
/// While callers write, the time from a look that found no segment empty enough to the next.
const ROUND: Duration = Duration::from_millis(10);
/// A run under a standing order ends when it has had nothing to do for this long, so that an order that comes and goes makes
/// one receipt.
const QUIET: Duration = Duration::from_secs(1);
/// How long a standing order over its bound works before a run that was asked for goes on for some steps.
const TURN: Duration = Duration::from_millis(100);
/// Beside callers who always write, a run under a standing order ends after this long, and another begins.
const LONGEST_RUN: Duration = Duration::from_secs(10);

pub(super) struct Worker {
    shared: Arc<Shared>,
    clock: Clock,
    /// The shard that is next.
    shard: usize,
    /// Steps in a row that a writer cut short.
    cut_short: usize,
    /// Freed segments that stay resident while it works.
    keeps_hot: usize,
    /// Rest that is owed.
    owed: Cell<Duration>,
    /// The run under a standing order that has not ended yet.
    standing: Option<Account>,
}

/// What a run has cost and done so far.
struct Account {
    tally: Tally,
    steps: Steps,
    started: Instant,
    /// When something was last done.
    worked: Instant,
    receipt: Receipt,
}

impl Account {
    fn new(order: Order, now_ms: u64) -> Self {
        let now = Instant::now();
        let receipt = Receipt { reason: order.reason, started_ms: now_ms, ..Receipt::default() };
        Self { tally: Tally::default(), steps: Steps::default(), started: now, worked: now, receipt }
    }
}

/// A run that somebody asked for.
struct Asked {
    progress: Arc<Progress>,
    /// Segments there were when it began, by shard: later ones are left alone, or beside writers it would never end.
    opened: Vec<u64>,
    work_at_start: u64,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, clock: Clock) -> Self {
        Self {
            shared,
            clock,
            shard: 0,
            cut_short: 0,
            keeps_hot: HOT_SEGMENTS,
            owed: Cell::new(Duration::ZERO),
            standing: None,
        }
    }

    pub(super) fn run(mut self) {
        while let Some((order, asked)) = self.next_order() {
            match asked {
                Some(progress) => self.carry_out(order, progress),
                None => self.keep_to(order, None),
            }
        }
        self.end_standing_run();
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

    /// Carries out a run that was asked for.
    fn carry_out(&mut self, order: Order, progress: Arc<Progress>) {
        self.end_standing_run();
        let store = &self.shared.store;
        let opened = (0..store.shards()).map(|shard| store.opened(shard)).collect();
        let asked = Asked { progress, opened, work_at_start: plan::work_left(&store.stats(), order) };
        let mut account = self.begin_run(order);
        self.work_on(order, Some(&asked), None, &mut account);
        // Who asks for memory gets all there is.
        self.cool(0, &mut account);
        let receipt = self.end_run(account);
        finish(&asked.progress, receipt);
    }

    /// Works on the standing order until there is nothing left to do about it, or as long as it has.
    fn keep_to(&mut self, order: Order, has: Option<Duration>) {
        let stats = self.shared.store.stats();
        let is_run = plan::plan(&stats, order) != Task::TIDY;
        if is_run && self.standing.as_ref().is_some_and(|run| run.receipt.reason != order.reason) {
            self.end_standing_run();
        }
        // What costs next to nothing is done under any order. It is no run, but may end what a run has begun.
        let is_told = is_run || self.standing.is_some();
        let mut account = self
            .standing
            .take()
            .unwrap_or_else(|| if is_run { self.begin_run(order) } else { Account::new(order, self.clock.now_ms()) });
        let before = account.tally;
        let ends = has.map(|has| Instant::now() + has);
        let evicts = self.work_on(order, None, ends, &mut account);
        // Writers who evict will want some of it again in a moment.
        let keep = if evicts || self.writers_evict(&stats) { HOT_SEGMENTS } else { 0 };
        self.cool(keep, &mut account);
        if is_run && account.tally != before {
            account.worked = Instant::now();
        }
        self.standing = Some(account).filter(|account| is_told && account.tally != Tally::default());
        let is_over = |run: &Account| run.worked.elapsed() >= QUIET || run.started.elapsed() >= LONGEST_RUN;
        if self.standing.as_ref().is_some_and(is_over) {
            self.end_standing_run();
        }
    }

    fn begin_run(&self, order: Order) -> Account {
        let mut account = Account::new(order, self.clock.now_ms());
        account.receipt.before = self.shared.account();
        self.shared.store.take_longest_wait_us();
        account
    }

    /// Takes down for a run how long callers have waited for a lock.
    fn note_waits(&self, account: &mut Account) {
        let longest = &mut account.receipt.longest_wait_us;
        *longest = (*longest).max(self.shared.store.take_longest_wait_us());
    }

    /// Takes steps for an order until every shard in turn had nothing to do; says whether any evicted.
    fn work_on(&mut self, order: Order, asked: Option<&Asked>, ends: Option<Instant>, account: &mut Account) -> bool {
        let (mut evicting, mut urgent) = (false, false);
        let (mut idle_shards, mut steps) = (0, 0_usize);
        let mut task = Task::TIDY;
        while idle_shards < self.shared.store.shards() && !self.stopping() {
            if steps.is_multiple_of(STEPS_OF_A_PLAN) {
                let stats = self.shared.store.stats();
                task = plan::plan(&stats, order);
                evicting |= task.evict;
                urgent = plan::is_over(&stats, order);
                self.keeps_hot = if plan::is_overdrawn(&stats) { 0 } else { HOT_SEGMENTS };
                match asked {
                    Some(asked) => {
                        let percent = plan::percent(&stats, order, asked.work_at_start);
                        asked.progress.percent.store(percent, Ordering::Relaxed);
                        self.free_what_is_too_much(&stats);
                    }
                    None if account.started.elapsed() >= LONGEST_RUN => break,
                    None if ends.is_some_and(|ends| Instant::now() >= ends) => break,
                    None => {}
                }
                self.note_waits(account);
            }
            steps += 1;
            let opened_before = asked.map_or(u64::MAX, |asked| asked.opened[self.shard]);
            match self.step(Task { opened_before, ..task }, account) {
                true => idle_shards = 0,
                false => idle_shards += 1,
            }
            if asked.is_none() && self.has_other_work(order, urgent) {
                break;
            }
            if asked.is_none() && idle_shards == self.shared.store.shards() && task.beside_writers() {
                self.rest(ROUND);
                (idle_shards, steps) = (0, 0);
            }
        }
        evicting
    }

    /// An order that frees memory the engine may not use goes before a run that somebody asked for.
    fn free_what_is_too_much(&mut self, stats: &Stats) {
        let standing = held(&self.shared.state).order;
        if plan::is_over(stats, standing) {
            self.keep_to(standing, Some(TURN));
        }
    }

    /// The standing order is another one by now, or something was asked for and this is not urgent.
    fn has_other_work(&self, order: Order, urgent: bool) -> bool {
        let state = held(&self.shared.state);
        state.order != order || !(urgent || state.asked.is_empty())
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
        let is_waited_for = |_: &usize| store.is_waited_for(self.shard);
        self.cut_short = if is_waited_for(&0) { self.cut_short + 1 } else { 0 };
        (0..LOOKS).take_while(is_waited_for).for_each(|_| std::hint::spin_loop());
        // On to the next shard after each segment, so that the emptiest of every shard go before the others. Not before:
        // a segment that is half copied takes memory and has freed none. Evicting copies little.
        let is_held_up = task.evict && self.cut_short >= CUT_SHORT;
        if !did || account.tally.freed_segments != freed_before || is_held_up {
            store.reclaim(self.shard);
            self.shard = (self.shard + 1) % store.shards();
            self.cut_short = 0;
        }
        self.charge(started, pacing, account);
        if did {
            self.cool(self.keeps_hot, account);
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

    fn end_standing_run(&mut self) {
        if let Some(account) = self.standing.take() {
            self.end_run(account);
        }
    }

    fn end_run(&self, account: Account) -> Receipt {
        let Account { tally, steps, started, worked, mut receipt } = account;
        (receipt.steps, receipt.step_p999_us) = (steps.total(), steps.within_us(999));
        receipt.longest_step_us = steps.longest_us();
        receipt.longest_wait_us = receipt.longest_wait_us.max(self.shared.store.take_longest_wait_us());
        let Tally { moved_bytes, moved_items, evicted_items, expired_items, freed_segments, migrated_shards } = tally;
        receipt.after = self.shared.account();
        let ended = if worked > started { worked } else { Instant::now() };
        receipt.duration_us = (ended - started).as_micros() as u64;
        (receipt.moved_bytes, receipt.moved_items) = (moved_bytes, moved_items);
        (receipt.evicted_items, receipt.expired_items) = (evicted_items, expired_items);
        (receipt.freed_segments, receipt.migrated_shards) = (freed_segments, migrated_shards);
        let mut state = held(&self.shared.state);
        receipt.id = state.totals.iter().map(|total| total.runs).sum::<u64>() + 1;
        state.totals[receipt.reason as usize].add(&receipt);
        state.receipts.push_front(receipt.clone());
        state.receipts.truncate(RECEIPTS);
        receipt
    }
}

fn finish(progress: &Progress, receipt: Receipt) {
    progress.percent.store(100, Ordering::Relaxed);
    *held(&progress.receipt) = Some(receipt);
}
