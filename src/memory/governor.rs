//! The governor's thread, and what it lets others see.

use super::cgroup::{Cgroup, Paths, Reading};
use super::decide::{Marks, Regime, Sample, Standing, decide};
use super::process::{self, Process};
use crate::cleaner::{Cleaner, Outside, Reason};
use crate::clock::Clock;
use crate::store::{Stats, Store};
use arc_swap::ArcSwap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Where limits come from.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The cgroup files.
    pub cgroup: Paths,
    /// The file of the downward API, if there is one.
    pub file: Option<PathBuf>,
    /// The limit when none is found, in bytes.
    pub default_bytes: u64,
}

/// What can be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// A limit from the configuration, in bytes.
    pub max_memory_bytes: Option<u64>,
    /// How often it reads.
    pub tick: Duration,
    /// The rules' numbers.
    pub marks: Marks,
}

/// The last reading and what was made of it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The limit that is obeyed, in bytes.
    pub limit_bytes: u64,
    /// Where it comes from.
    pub limit_source: &'static str,
    /// No limit was found anywhere: the default is obeyed.
    pub is_default_limit: bool,
    /// The limit file shows less than the cgroup enforces: a resize waits for memory to be given back.
    pub shrink_pending: bool,
    /// What counts against the limit, in bytes.
    pub used_bytes: u64,
    /// Resident set size, in bytes.
    pub rss_bytes: u64,
    /// What the memory is like.
    pub regime: Regime,
    /// Why the cleaner was last told something.
    pub reason: Reason,
    /// What the engine may use, in bytes.
    pub budget_bytes: u64,
    /// The share of the last 10 s in which somebody in the container waited for memory, in percent.
    pub pressure_percent: f64,
    /// How often the kernel killed in this container for want of memory.
    pub oom_kills: u64,
}

/// Shows the last snapshot. Clones show the same.
#[derive(Clone, Debug)]
pub struct View(Arc<ArcSwap<Snapshot>>);

impl View {
    /// Shows `first` until the governor has read.
    pub fn new(first: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// The last snapshot.
    pub fn get(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// As the cleaner's receipts show it.
    pub fn outside(&self) -> Outside {
        let now = self.0.load();
        // RSS is read afresh: a receipt compares two moments that may lie within one tick.
        Outside { limit_bytes: now.limit_bytes, used_bytes: now.used_bytes, rss_bytes: Process::own().rss_bytes() }
    }
}

/// The governor.
#[derive(Debug)]
pub struct Governor {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug)]
struct State {
    setting: Setting,
    stopping: bool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Governor {
    /// Starts the governor's thread.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn spawn(
        limits: Limits,
        setting: Setting,
        store: Arc<Store>,
        cleaner: Cleaner,
        clock: Clock,
        view: View,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::new(State { setting, stopping: false }), bell: Condvar::new() });
        let mut sampler = Sampler::new(limits);
        let mut standing = Standing::default();
        let mut govern = move |setting: Setting| {
            let (snapshot, sample) = sampler.read(&setting, &store, clock.now_ms());
            standing = act(sample, &standing, &setting.marks, &store, &cleaner);
            let Standing { regime, budget_bytes, order, .. } = standing;
            view.0.store(Arc::new(Snapshot { regime, budget_bytes, reason: order.reason, ..snapshot }));
        };
        govern(setting); // at once: nobody asks a server that has not read
        let on_thread = shared.clone();
        let thread = std::thread::Builder::new().name("ebb-governor".to_owned()).spawn(move || {
            while let Some(setting) = on_thread.next() {
                govern(setting);
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Changes the setting; it is followed at once.
    pub fn set(&self, setting: Setting) {
        held(&self.shared.state).setting = setting;
        self.shared.bell.notify_one();
    }

    /// Stops the thread and waits for it.
    pub fn stop(&mut self) {
        held(&self.shared.state).stopping = true;
        self.shared.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the governor does not panic");
        }
    }
}

impl Shared {
    /// Waits for a tick; `None` when the thread is to stop.
    fn next(&self) -> Option<Setting> {
        let state = held(&self.state);
        let before = state.setting;
        let idle = |state: &mut State| !state.stopping && state.setting == before;
        let waited = self.bell.wait_timeout_while(state, before.tick, idle);
        let (state, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        (!state.stopping).then_some(state.setting)
    }
}

/// Decides, and carries the decision to the ledger and the cleaner.
fn act(sample: Sample, before: &Standing, marks: &Marks, store: &Store, cleaner: &Cleaner) -> Standing {
    let standing = decide(sample, before, marks);
    store.ledger().set_capacity(standing.budget_bytes);
    if standing.order != before.order {
        cleaner.obey(standing.order);
    }
    if standing.regime != before.regime {
        tracing::info!(
            from = before.regime.name(),
            to = standing.regime.name(),
            reason = standing.order.reason.name(),
            limit_bytes = sample.limit_bytes,
            used_bytes = sample.used_bytes,
            engine_bytes = sample.engine_bytes,
            dead_bytes = sample.dead_bytes,
            budget_bytes = standing.budget_bytes,
            "regime",
        );
    }
    standing
}

/// Reads the limits once: for the size of the store at the start.
pub fn sample_limits(limits: &Limits, max_memory_bytes: Option<u64>) -> Snapshot {
    Sampler::new(limits.clone()).limits(max_memory_bytes).0
}

/// Reads the cgroup and the limit file.
fn files(limits: &Limits, cgroup: Option<&Cgroup>) -> io::Result<(Reading, Option<u64>)> {
    let reading = cgroup.map_or_else(|| Ok(Reading::default()), Cgroup::read)?;
    let file = limits.file.as_deref().map_or(Ok(None), process::limit_file)?;
    Ok((reading, file))
}

/// Reads everything.
struct Sampler {
    limits: Limits,
    cgroup: Option<Cgroup>,
    process: Process,
    /// The last reading of the cgroup and the limit file.
    last: (Reading, Option<u64>),
}

impl Sampler {
    fn new(limits: Limits) -> Self {
        let cgroup = Cgroup::find(&limits.cgroup);
        let last = files(&limits, cgroup.as_ref()).unwrap_or_default();
        Self { limits, cgroup, process: Process::own(), last }
    }

    fn limits(&mut self, max_memory_bytes: Option<u64>) -> (Snapshot, Reading) {
        match files(&self.limits, self.cgroup.as_ref()) {
            Ok(now) => self.last = now,
            // A limit does not end because it cannot be seen; what was used then says nothing about now.
            Err(_) => self.last.0.used = None,
        }
        let (reading, file) = self.last.clone();
        let all = [
            reading.limit,
            reading.high.map(|limit| (limit, "cgroup memory.high")),
            file.map(|limit| (limit, "limit file")),
            max_memory_bytes.map(|limit| (limit, "max_memory")),
        ];
        let found = all.into_iter().flatten().min_by_key(|(limit, _)| *limit);
        let (limit_bytes, limit_source) = found.unwrap_or((self.limits.default_bytes, "default_memory"));
        let enforced = reading.limit.map(|(limit, _)| limit);
        let snapshot = Snapshot {
            limit_bytes,
            limit_source,
            is_default_limit: found.is_none(),
            shrink_pending: file.zip(enforced).is_some_and(|(file, enforced)| file < enforced),
            pressure_percent: reading.pressure_percent,
            oom_kills: reading.oom_kills,
            ..Snapshot::default()
        };
        (snapshot, reading)
    }

    fn read(&mut self, setting: &Setting, store: &Store, now_ms: u64) -> (Snapshot, Sample) {
        let (snapshot, reading) = self.limits(setting.max_memory_bytes);
        let rss_bytes = self.process.rss_bytes();
        // A limit that only the configuration knows is held against this process alone; a container's usage may hold
        // others, whose share is not ours to give back.
        let by_container = snapshot.limit_source.starts_with("cgroup") || snapshot.limit_source == "limit file";
        let used_bytes = match reading.used {
            Some(used) if by_container => used,
            _ => rss_bytes,
        };
        let Stats {
            item_bytes,
            dead_bytes,
            segment_bytes,
            index_bytes,
            in_flight_bytes,
            appended_bytes,
            buried_bytes,
            ..
        } = store.stats();
        let sample = Sample {
            now_ms,
            limit_bytes: snapshot.limit_bytes,
            used_bytes,
            engine_bytes: segment_bytes + index_bytes + in_flight_bytes,
            live_bytes: item_bytes + index_bytes + in_flight_bytes,
            item_bytes,
            dead_bytes,
            changed_bytes: appended_bytes + buried_bytes,
            pressure_percent: reading.pressure_percent,
        };
        (Snapshot { used_bytes, rss_bytes, ..snapshot }, sample)
    }
}
