//! The cleaner's thread: a dull loop around [`super::plan`].

use super::plan;
use super::steps::Steps;
use super::{Cost, Pacing, Progress, REPORTS, Report, Shared, State, Target, held};
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
/// Steps between two looks at the run: summing it over all shards costs about as much as a short step.
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
/// A run under a lasting target ends when it has had nothing to do for this long, so that a target that comes and goes makes
/// one report.
const QUIET: Duration = Duration::from_secs(1);
/// How long a lasting target over its bound works before a run that was asked for goes on for some steps.
const TURN: Duration = Duration::from_millis(100);
/// Beside callers who always write, a run under a lasting target ends after this long, and another begins.
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
    /// The run under a lasting target that has not ended yet.
    open_run: Option<OpenRun>,
}

/// A run that has not ended.
struct OpenRun {
    steps: Steps,
    started: Instant,
    /// When something was last done.
    worked: Instant,
    report: Report,
}

impl OpenRun {
    fn new(target: Target, now_ms: u64) -> Self {
        let now = Instant::now();
        let report = Report { reason: target.reason, started_ms: now_ms, ..Report::default() };
        Self { steps: Steps::default(), started: now, worked: now, report }
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
            open_run: None,
        }
    }

    pub(super) fn run(mut self) {
        while let Some((target, asked)) = self.next_target() {
            match asked {
                Some(progress) => self.carry_out(target, progress),
                None => self.keep_to(target, None),
            }
        }
        self.end_open_run();
        for (_, progress) in held(&self.shared.state).asked.drain(..) {
            finish(&progress, Report::default());
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    /// Waits for a tick or the bell; `None` when the thread is to stop.
    fn next_target(&self) -> Option<(Target, Option<Arc<Progress>>)> {
        let state = held(&self.shared.state);
        let idle = |state: &mut State| state.asked.is_empty() && !self.stopping();
        let waited = self.shared.bell.wait_timeout_while(state, TICK, idle);
        let (mut state, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.stopping() {
            return None;
        }
        match state.asked.pop_front() {
            Some((target, progress)) => Some((target, Some(progress))),
            None => Some((state.target, None)),
        }
    }

    fn pacing(&self) -> Pacing {
        held(&self.shared.state).pacing
    }

    /// Carries out a run that was asked for.
    fn carry_out(&mut self, target: Target, progress: Arc<Progress>) {
        self.end_open_run();
        let store = &self.shared.store;
        let opened = (0..store.shards()).map(|shard| store.opened(shard)).collect();
        let asked = Asked { progress, opened, work_at_start: plan::work_left(&store.stats(), target) };
        let mut run = self.begin_run(target);
        self.work_on(target, Some(&asked), None, &mut run);
        // Who asks for memory gets all there is.
        self.cool(0, &mut run);
        let report = self.end_run(run);
        finish(&asked.progress, report);
    }

    /// Works on the lasting target until there is nothing left to do about it, or as long as it has.
    fn keep_to(&mut self, target: Target, has: Option<Duration>) {
        let stats = self.shared.store.stats();
        let is_run = plan::plan(&stats, target) != Task::CHEAP;
        if is_run && self.open_run.as_ref().is_some_and(|run| run.report.reason != target.reason) {
            self.end_open_run();
        }
        // What costs next to nothing is done under any target. It is no run, but may end what a run has begun.
        let is_told = is_run || self.open_run.is_some();
        let mut run = self
            .open_run
            .take()
            .unwrap_or_else(|| if is_run { self.begin_run(target) } else { OpenRun::new(target, self.clock.now_ms()) });
        let before = run.report.done;
        let ends = has.map(|has| Instant::now() + has);
        let evicts = self.work_on(target, None, ends, &mut run);
        // Writers who evict will want some of it again in a moment.
        let keep = if evicts || self.writers_evict(&stats) { HOT_SEGMENTS } else { 0 };
        self.cool(keep, &mut run);
        if is_run && run.report.done != before {
            run.worked = Instant::now();
        }
        self.open_run = Some(run).filter(|run| is_told && run.report.done != Tally::default());
        let is_over = |run: &OpenRun| run.worked.elapsed() >= QUIET || run.started.elapsed() >= LONGEST_RUN;
        if self.open_run.as_ref().is_some_and(is_over) {
            self.end_open_run();
        }
    }

    fn begin_run(&self, target: Target) -> OpenRun {
        let mut run = OpenRun::new(target, self.clock.now_ms());
        run.report.before = self.shared.account();
        self.shared.store.take_longest_wait_us();
        run
    }

    /// Takes down for a run how long callers have waited for a lock.
    fn note_waits(&self, run: &mut OpenRun) {
        let longest = &mut run.report.cost.longest_wait_us;
        *longest = (*longest).max(self.shared.store.take_longest_wait_us());
    }

    /// Takes steps for a target until every shard in turn had nothing to do; says whether any evicted.
    fn work_on(&mut self, target: Target, asked: Option<&Asked>, ends: Option<Instant>, run: &mut OpenRun) -> bool {
        let (mut evicting, mut urgent) = (false, false);
        let (mut idle_shards, mut steps) = (0, 0_usize);
        let mut task = Task::CHEAP;
        while idle_shards < self.shared.store.shards() && !self.stopping() {
            if steps.is_multiple_of(STEPS_OF_A_PLAN) {
                let stats = self.shared.store.stats();
                task = plan::plan(&stats, target);
                evicting |= task.evict;
                urgent = plan::is_over(&stats, target);
                self.keeps_hot = if plan::is_overdrawn(&stats) { 0 } else { HOT_SEGMENTS };
                match asked {
                    Some(asked) => {
                        let percent = plan::percent(&stats, target, asked.work_at_start);
                        asked.progress.percent.store(percent, Ordering::Relaxed);
                        self.free_what_is_too_much(&stats);
                    }
                    None if run.started.elapsed() >= LONGEST_RUN => break,
                    None if ends.is_some_and(|ends| Instant::now() >= ends) => break,
                    None => {}
                }
                self.note_waits(run);
            }
            steps += 1;
            let opened_before = asked.map_or(u64::MAX, |asked| asked.opened[self.shard]);
            match self.step(Task { opened_before, ..task }, run) {
                true => idle_shards = 0,
                false => idle_shards += 1,
            }
            if asked.is_none() && self.has_other_work(target, urgent) {
                break;
            }
            if asked.is_none() && idle_shards == self.shared.store.shards() && task.beside_writers() {
                self.rest(ROUND);
                (idle_shards, steps) = (0, 0);
            }
        }
        evicting
    }

    /// A target that frees memory the engine may not use goes before a run that somebody asked for.
    fn free_what_is_too_much(&mut self, stats: &Stats) {
        let lasting = held(&self.shared.state).target;
        if plan::is_over(stats, lasting) {
            self.keep_to(lasting, Some(TURN));
        }
    }

    /// The lasting target is another one by now, or something was asked for and this is not urgent.
    fn has_other_work(&self, target: Target, urgent: bool) -> bool {
        let state = held(&self.shared.state);
        state.target != target || !(urgent || state.asked.is_empty())
    }

    fn writers_evict(&self, before: &Stats) -> bool {
        self.shared.store.stats().evictions != before.evictions
    }

    /// One step on the next shard, and the pause that its cost asks for; `false` when the shard had nothing to do.
    fn step(&mut self, task: Task, run: &mut OpenRun) -> bool {
        let pacing = self.pacing();
        let (started, limit) = (clock::thread_cpu_micros(), u64::from(pacing.step_micros));
        let mut stop = || clock::thread_cpu_micros() - started >= limit;
        let store = &self.shared.store;
        let freed_before = run.report.done.freed_segments;
        let did = store.clean(self.shard, task, self.clock.now_ms(), &mut run.report.done, &mut stop);
        let is_waited_for = |_: &usize| store.is_waited_for(self.shard);
        self.cut_short = if is_waited_for(&0) { self.cut_short + 1 } else { 0 };
        (0..LOOKS).take_while(is_waited_for).for_each(|_| std::hint::spin_loop());
        // On to the next shard after each segment, so that the emptiest of every shard go before the others. Not before:
        // a segment that is half copied takes memory and has freed none. Evicting copies little.
        let is_held_up = task.evict && self.cut_short >= CUT_SHORT;
        if !did || run.report.done.freed_segments != freed_before || is_held_up {
            store.reclaim(self.shard);
            self.shard = (self.shard + 1) % store.shards();
            self.cut_short = 0;
        }
        self.charge(started, pacing, run);
        if did {
            self.cool(self.keeps_hot, run);
        }
        did
    }

    /// Gives freed pages back, one segment a step, without any lock.
    fn cool(&self, keep: usize, run: &mut OpenRun) {
        let pacing = self.pacing();
        loop {
            let started = clock::thread_cpu_micros();
            if self.shared.store.cool(keep).is_none() {
                return;
            }
            self.charge(started, pacing, run);
        }
    }

    /// Books a step and rests for as long as the cleaner's share of a core asks, once that is worth going to sleep for.
    fn charge(&self, started: u64, pacing: Pacing, run: &mut OpenRun) {
        let cost = clock::thread_cpu_micros() - started;
        run.report.cost.cpu_us += cost;
        run.steps.count(cost);
        let share = u64::from(pacing.cpu_percent.clamp(1, 100));
        let rest = self.owed.get() + Duration::from_micros(cost * (100 - share) / share);
        self.owed.set(rest);
        if rest >= REST {
            self.owed.set(Duration::ZERO);
            self.rest(rest);
        }
    }

    /// Sleeps. The bell may ring for a target meanwhile; only a stop ends the rest.
    fn rest(&self, rest: Duration) {
        let state = held(&self.shared.state);
        drop(self.shared.bell.wait_timeout_while(state, rest, |_: &mut State| !self.stopping()));
    }

    fn end_open_run(&mut self) {
        if let Some(run) = self.open_run.take() {
            self.end_run(run);
        }
    }

    fn end_run(&self, run: OpenRun) -> Report {
        let OpenRun { steps, started, worked, mut report } = run;
        let ended = if worked > started { worked } else { Instant::now() };
        report.cost = Cost {
            duration_us: (ended - started).as_micros() as u64,
            longest_step_us: steps.longest_us(),
            longest_wait_us: report.cost.longest_wait_us.max(self.shared.store.take_longest_wait_us()),
            steps: steps.total(),
            step_p999_us: steps.within_us(999),
            ..report.cost
        };
        report.after = self.shared.account();
        let mut state = held(&self.shared.state);
        report.id = state.totals.iter().map(|total| total.runs).sum::<u64>() + 1;
        state.totals[report.reason as usize].add(&report);
        state.reports.push_front(report.clone());
        state.reports.truncate(REPORTS);
        report
    }
}

fn finish(progress: &Progress, report: Report) {
    progress.percent.store(100, Ordering::Relaxed);
    *held(&progress.report) = Some(report);
}
