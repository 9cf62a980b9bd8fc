//! The cleaner: the thread that frees memory.
//!
//! ```text
//!  governor ──target──►┐                          ┌─ store.clean(shard): one step, with that shard's lock
//!  operator ──run────►├─ cleaner thread: pick ───┤
//!  clock ────tick────►┘                          └─ store.cool(): pages returned to the kernel, no lock
//! ```
//! It works in steps of bounded CPU time, not wall time, which would include the time of other processes. A step holds
//! the shard's lock for at most 32 items, releases it, and takes it again. It ends early when a writer waits for the
//! lock. The thread has normal priority: at a lower one the scheduler preempts it while it holds a lock (at nice 10,
//! next to four busy threads on two cores, writers waited up to 257 ms). Its CPU is limited to a share of one core. It
//! never catches up on missed work: a comparable cleaner that lengthens its steps by its waiting time makes pauses of
//! 71 ms.
//!
//! A lasting target comes from the governor and holds until the next one. A requested run cleans only the segments that
//! existed when it began, and pauses while the lasting target must free memory over its bound. Both end in a
//! [`Report`].

mod plan;
mod report;
mod steps;
mod thread;

pub use report::{Account, Cost, ProcessMemory, Reason, Report, Target, Total};

use crate::clock::Clock;
use crate::store::{Stats, Store};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use strum::EnumCount as _;

/// Limits on the cleaner's CPU use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// Maximum length of a step, in microseconds of CPU time.
    pub step_micros: u32,
    /// Maximum CPU the cleaner may use, in percent of one core.
    pub cpu_percent: u8,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { step_micros: 50, cpu_percent: 75 }
    }
}

/// Number of reports kept.
const REPORTS: usize = 16;

/// A handle to the cleaner's thread. Clones refer to the same thread.
#[derive(Clone)]
pub struct Cleaner(Arc<Shared>);

/// State shared by the thread and its handles.
struct Shared {
    store: Arc<Store>,
    state: Mutex<State>,
    /// Wakes the thread after a change of the state.
    bell: Condvar,
    stopping: AtomicBool,
    process: Box<dyn Fn() -> ProcessMemory + Send + Sync>,
    joined: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct State {
    target: Target,
    pacing: Pacing,
    asked: VecDeque<(Target, Arc<Progress>)>,
    reports: VecDeque<Report>,
    /// In the order of [`Reason`].
    totals: [Total; Reason::COUNT],
}

/// Progress of a requested run.
#[derive(Debug, Default)]
struct Progress {
    percent: AtomicU8,
    report: Mutex<Option<Report>>,
}

/// A requested run.
#[derive(Clone, Debug)]
pub struct Run(Arc<Progress>);

impl Run {
    /// Progress, in percent.
    pub fn percent(&self) -> u8 {
        self.0.percent.load(Ordering::Relaxed)
    }

    /// The report, once the run has ended.
    pub fn report(&self) -> Option<Report> {
        self.0.report.lock().clone()
    }
}

impl std::fmt::Debug for Cleaner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Cleaner").field("target", &state.target).field("pacing", &state.pacing).finish_non_exhaustive()
    }
}

impl Cleaner {
    /// Starts the cleaner's thread. `process` reads the memory of the process, for reports.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn spawn(
        store: Arc<Store>,
        clock: Clock,
        pacing: Pacing,
        process: impl Fn() -> ProcessMemory + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let state = State {
            target: Target::NONE,
            pacing,
            asked: VecDeque::new(),
            reports: VecDeque::new(),
            totals: Default::default(),
        };
        let shared = Arc::new(Shared {
            store,
            state: Mutex::new(state),
            bell: Condvar::new(),
            stopping: AtomicBool::new(false),
            process: Box::new(process),
            joined: Mutex::new(None),
        });
        let worker = thread::Worker::new(shared.clone(), clock);
        let handle = std::thread::Builder::new().name("ebb-cleaner".to_owned()).spawn(move || worker.run())?;
        *shared.joined.lock() = Some(handle);
        Ok(Self(shared))
    }

    /// Sets the lasting target.
    pub fn set_target(&self, target: Target) {
        self.0.state.lock().target = target;
        self.0.bell.notify_one();
    }

    /// Sets the limits on CPU use.
    pub fn set_pacing(&self, pacing: Pacing) {
        self.0.state.lock().pacing = pacing;
    }

    /// Requests one run in addition to the lasting target. Requested runs are executed one after the other.
    pub fn run(&self, target: Target) -> Run {
        let progress = Arc::new(Progress::default());
        self.0.state.lock().asked.push_back((target, progress.clone()));
        self.0.bell.notify_one();
        Run(progress)
    }

    /// The current account of memory.
    pub fn account(&self) -> Account {
        self.0.account()
    }

    /// The last reports, newest first, at most 16.
    pub fn reports(&self) -> Vec<Report> {
        self.0.state.lock().reports.iter().cloned().collect()
    }

    /// Totals of all runs by reason, in the order of [`Reason`].
    pub fn totals(&self) -> [Total; Reason::COUNT] {
        self.0.state.lock().totals
    }

    /// Stops the thread after its current step and waits for it. Requested runs end unfinished, with a report.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
        self.0.bell.notify_one();
        let handle = self.0.joined.lock().take();
        if let Some(handle) = handle {
            handle.join().expect("the cleaner does not panic");
        }
    }
}

impl Shared {
    fn account(&self) -> Account {
        let Stats {
            live_bytes,
            expired_bytes,
            dead_bytes,
            segment_bytes,
            index_bytes,
            in_flight_bytes,
            capacity_bytes,
            ..
        } = self.store.stats();
        Account {
            process: (self.process)(),
            live_bytes,
            expired_bytes,
            dead_bytes,
            segment_bytes,
            index_bytes,
            in_flight_bytes,
            budget_bytes: capacity_bytes,
        }
    }
}

#[cfg(test)]
mod tests;
