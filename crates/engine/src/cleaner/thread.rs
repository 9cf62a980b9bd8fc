//! The cleaner's thread: a simple loop around [`super::plan`].

use super::plan;
use super::steps::Steps;
use super::{Cost, Pacing, Progress, REPORTS, Report, Shared, State, Target};
use crate::clock::{self, Clock};
use crate::store::{Stats, Tally, Task};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the thread checks for expired items and empty segments without a wake-up.
const TICK: Duration = Duration::from_millis(100);
/// Freed segments that stay resident for reuse while writers evict.
const HOT_SEGMENTS: usize = 4;
/// Steps between two plans: summing the statistics of all shards costs about as much as a short step.
const STEPS_OF_A_PLAN: usize = 8;
/// The shortest rest. Rests are short and frequent, so that the cleaner rarely exhausts its time slice. If a writer
/// preempts it while it holds a lock, the scheduler then resumes it soon.
const REST: Duration = Duration::from_micros(20);
/// Maximum checks whether the waiting writer has taken the lock: some microseconds.
const LOOKS: usize = 100;
/// Consecutive steps interrupted by writers, after which an eviction continues in the next shard.
const CUT_SHORT: usize = 64;
/// While callers write, the pause after a pass that found no segment worth compacting.
const ROUND: Duration = Duration::from_millis(10);
/// A run under a lasting target ends after this long without work, so that a target that is set and unset repeatedly
/// makes one report.
const QUIET: Duration = Duration::from_secs(1);
/// How long the lasting target, if over its bound, interrupts a requested run before the run continues for some steps.
const TURN: Duration = Duration::from_millis(100);
/// Maximum duration of a run under a lasting target. If callers never stop writing, another run then begins.
const LONGEST_RUN: Duration = Duration::from_secs(10);

pub(super) struct Worker {
    shared: Arc<Shared>,
    clock: Clock,
    /// The next shard.
    shard: usize,
    /// Consecutive steps interrupted by a writer.
    cut_short: usize,
    /// Freed segments that stay resident during the work.
    keeps_hot: usize,
    /// Rest that is due but not taken yet.
    owed: Cell<Duration>,
    /// When expired leases were last removed.
    leases_expired: Instant,
    /// The unfinished run under a lasting target.
    open_run: Option<OpenRun>,
}

/// An unfinished run.
struct OpenRun {
    steps: Steps,
    started: Instant,
    /// Time of the last work done.
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

/// The state of a requested run.
struct Asked {
    progress: Arc<Progress>,
    /// Segments opened by each shard before the run began. It ignores later ones; otherwise it would never end while
    /// callers write.
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
            leases_expired: Instant::now(),
            open_run: None,
        }
    }

    pub(super) fn run(mut self) {
        while let Some((target, asked)) = self.next_target() {
            match asked {
                Some(progress) => self.carry_out(target, progress),
                None => self.keep_to(target, None),
            }
            if self.leases_expired.elapsed() >= TICK {
                self.shared.store.expire_leases(self.clock.now_ms());
                self.leases_expired = Instant::now();
            }
        }
        self.end_open_run();
        for (_, progress) in self.shared.state.lock().asked.drain(..) {
            finish(&progress, Report::default());
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    /// Waits for a tick or a wake-up; `None` if the thread must stop.
    fn next_target(&self) -> Option<(Target, Option<Arc<Progress>>)> {
        let mut state = self.shared.state.lock();
        let idle = |state: &mut State| state.asked.is_empty() && !self.stopping();
        self.shared.bell.wait_while_for(&mut state, idle, TICK);
        if self.stopping() {
            return None;
        }
        match state.asked.pop_front() {
            Some((target, progress)) => Some((target, Some(progress))),
            None => Some((state.target, None)),
        }
    }

    fn pacing(&self) -> Pacing {
        self.shared.state.lock().pacing
    }

    /// Executes a requested run.
    fn carry_out(&mut self, target: Target, progress: Arc<Progress>) {
        self.end_open_run();
        let store = &self.shared.store;
        let opened = (0..store.shards()).map(|shard| store.opened(shard)).collect();
        let asked = Asked { progress, opened, work_at_start: plan::work_left(&store.stats(), target) };
        let mut run = self.begin_run(target);
        self.work_on(target, Some(&asked), None, &mut run);
        // A requested run returns all free segments to the kernel.
        self.cool(0, &mut run);
        let report = self.end_run(run);
        finish(&asked.progress, report);
    }

    /// Works on the lasting target until nothing is left to do, or for the time `has`.
    fn keep_to(&mut self, target: Target, has: Option<Duration>) {
        let stats = self.shared.store.stats();
        let is_run = plan::plan(&stats, target) != Task::CHEAP;
        if is_run && self.open_run.as_ref().is_some_and(|run| run.report.reason != target.reason) {
            self.end_open_run();
        }
        // Cheap work is done under any target. Alone it makes no run, but it may finish the work of an open run.
        let is_told = is_run || self.open_run.is_some();
        let mut run = self
            .open_run
            .take()
            .unwrap_or_else(|| if is_run { self.begin_run(target) } else { OpenRun::new(target, self.clock.now_ms()) });
        let before = run.report.done;
        let ends = has.map(|has| Instant::now() + has);
        let evicts = self.work_on(target, None, ends, &mut run);
        // Writers that evict will soon reuse some of the freed segments.
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

    /// Records the longest wait of callers for a lock in a run.
    fn note_waits(&self, run: &mut OpenRun) {
        let longest = &mut run.report.cost.longest_wait_us;
        *longest = (*longest).max(self.shared.store.take_longest_wait_us());
    }

    /// Takes steps for a target until a whole round over the shards had nothing to do. Returns whether any step
    /// evicted.
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

    /// Works on the lasting target first if the engine exceeds its bound. It has precedence over a requested run.
    fn free_what_is_too_much(&mut self, stats: &Stats) {
        let lasting = self.shared.state.lock().target;
        if plan::is_over(stats, lasting) {
            self.keep_to(lasting, Some(TURN));
        }
    }

    /// Whether the lasting target has changed, or a run was requested and the current target is not urgent.
    fn has_other_work(&self, target: Target, urgent: bool) -> bool {
        let state = self.shared.state.lock();
        state.target != target || !(urgent || state.asked.is_empty())
    }

    fn writers_evict(&self, before: &Stats) -> bool {
        self.shared.store.stats().evictions != before.evictions
    }

    /// Takes one step on the next shard, then rests according to its cost. `false` if the shard had nothing to do.
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
        // Go to the next shard after each segment, so that the emptiest segments of all shards come first. Not earlier:
        // a half-copied segment uses memory and has freed none. Eviction copies little, so it may leave a segment
        // earlier.
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

    /// Returns freed pages to the kernel without a lock, up to one segment per step.
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

    /// Records the cost of a step, and rests as its share of a core requires, once the due rest is worth a sleep.
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

    /// Sleeps. Only a stop ends the rest early, a new target does not.
    fn rest(&self, rest: Duration) {
        let mut state = self.shared.state.lock();
        self.shared.bell.wait_while_for(&mut state, |_: &mut State| !self.stopping(), rest);
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
        let mut state = self.shared.state.lock();
        report.id = state.totals.iter().map(|total| total.runs).sum::<u64>() + 1;
        state.totals[report.reason as usize].add(&report);
        state.reports.push_front(report.clone());
        state.reports.truncate(REPORTS);
        report
    }
}

fn finish(progress: &Progress, report: Report) {
    progress.percent.store(100, Ordering::Relaxed);
    *progress.report.lock() = Some(report);
}
