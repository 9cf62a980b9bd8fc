//! The governor's thread, and the snapshot it publishes.

use super::cgroup::{Cgroup, Reading};
use super::limit::LimitSource;
use super::mounts::Paths;
use super::node::Node;
use super::process::{self, Process};
use arc_swap::ArcSwap;
use ebb_engine::cleaner::{Cleaner, ProcessMemory, Reason};
use ebb_engine::clock::Clock;
use ebb_engine::decide::{Decision, Regime, Sample, Thresholds, decide, reserve};
use ebb_engine::store::{Stats, Store};
use parking_lot::{Condvar, Mutex};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strum::EnumCount as _;

/// The files and the default from which limits are read.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The cgroup files.
    pub cgroup: Paths,
    /// The downward API's file with the limit, if there is one.
    pub file: Option<PathBuf>,
    /// The downward API's file with the request, if there is one.
    pub request: Option<PathBuf>,
    /// Usually `/proc/meminfo`.
    pub meminfo: PathBuf,
    /// The limit if none is found, in bytes.
    pub default_bytes: u64,
}

/// The governor's dynamic settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// A limit from the configuration, in bytes.
    pub max_memory_bytes: Option<u64>,
    /// Interval between samples.
    pub tick: Duration,
    /// Whether the request is the limit while the node is short of memory.
    pub eviction_aware: bool,
    /// The thresholds of the rules.
    pub thresholds: Thresholds,
}

/// The last sample and the decision about it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The effective limit, in bytes.
    pub limit_bytes: u64,
    /// The source of the limit.
    pub limit_source: LimitSource,
    /// The smallest limit found, in bytes, and its source, if it exceeds the machine's memory. The machine's memory is
    /// then the limit.
    pub beyond_machine: Option<(u64, LimitSource)>,
    /// Whether the limit file shows less than the cgroup enforces: a resize waits until the usage falls.
    pub shrink_pending: bool,
    /// Memory charged against the limit, in bytes.
    pub used_bytes: u64,
    /// Resident set size, in bytes.
    pub rss_bytes: u64,
    /// The state of memory.
    pub regime: Regime,
    /// The reason of the cleaner's current target.
    pub reason: Reason,
    /// Memory that the engine may use, in bytes.
    pub budget_bytes: u64,
    /// Memory kept free under the limit, in bytes.
    pub reserve_bytes: u64,
    /// The memory request of the container, in bytes, if known.
    pub request_bytes: Option<u64>,
    /// Number of regime changes since the start.
    pub regime_changes: u64,
    /// Time spent in each regime, in milliseconds, in the order of [`Regime`].
    pub in_regime_ms: [u64; Regime::COUNT],
    /// The last reading of the container's files.
    pub container: Reading,
}

/// Access to the last snapshot. Clones share it.
#[derive(Clone, Debug)]
pub struct View(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    snapshot: ArcSwap<Snapshot>,
    /// A copy of the snapshot's limit: every request reads it, and loading the snapshot costs more.
    limit_bytes: AtomicU64,
}

impl Snapshot {
    /// Whether no limit was found, so that the default applies.
    pub fn is_default_limit(&self) -> bool {
        self.limit_source == LimitSource::Default
    }
}

impl View {
    /// A view that returns `first` until the governor's first sample.
    pub fn new(first: Snapshot) -> Self {
        let limit_bytes = AtomicU64::new(first.limit_bytes);
        Self(Arc::new(Shown { snapshot: ArcSwap::from_pointee(first), limit_bytes }))
    }

    fn show(&self, snapshot: Snapshot) {
        self.0.limit_bytes.store(snapshot.limit_bytes, Ordering::Relaxed);
        self.0.snapshot.store(Arc::new(snapshot));
    }

    /// The last snapshot.
    pub fn get(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// The limit of the last snapshot, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.0.limit_bytes.load(Ordering::Relaxed)
    }

    /// Memory of the process, for the cleaner's reports.
    pub fn process(&self) -> ProcessMemory {
        let now = self.0.snapshot.load();
        // Read RSS again: a report compares two moments that may be within one tick.
        ProcessMemory {
            limit_bytes: now.limit_bytes,
            used_bytes: now.used_bytes,
            rss_bytes: Process::own().rss_bytes(),
        }
    }
}

/// A handle to the governor's thread.
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

impl Governor {
    /// Starts the governor's thread.
    ///
    /// # Errors
    /// If the system cannot start a thread.
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
        let mut decision = Decision::default();
        let mut in_regime_ms = [0; Regime::COUNT];
        let mut regime_changes = 0;
        let mut last_ms = clock.now_ms();
        // Returns the delay until the next sample.
        let mut govern = move |setting: Setting| {
            let now_ms = clock.now_ms();
            let elapsed_ms = now_ms - std::mem::replace(&mut last_ms, now_ms);
            in_regime_ms[decision.regime as usize] += elapsed_ms;
            store.ledger().decay_in_flight(elapsed_ms);
            let (snapshot, sample) = sampler.read(&setting, &store, now_ms);
            let before = decision.regime;
            decision = act(sample, &decision, &setting.thresholds, &store, &cleaner);
            let Decision { regime, budget_bytes, target, .. } = decision;
            regime_changes += u64::from(regime != before);
            let reason = target.reason;
            let snapshot = Snapshot { regime, budget_bytes, reason, regime_changes, in_regime_ms, ..snapshot };
            view.show(snapshot);
            if regime.evicts() { (setting.tick / 4).max(SHORTEST_TICK).min(setting.tick) } else { setting.tick }
        };
        let mut tick = govern(setting); // now, so that the first request already sees a sample
        let on_thread = shared.clone();
        let thread = std::thread::Builder::new().name("ebb-governor".to_owned()).spawn(move || {
            while let Some(setting) = on_thread.next(tick) {
                tick = govern(setting);
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Changes the settings, which take effect at once.
    pub fn set(&self, setting: Setting) {
        self.shared.state.lock().setting = setting;
        self.shared.bell.notify_one();
    }

    /// Stops the thread and waits for it.
    pub fn stop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the governor does not panic");
        }
    }
}

impl Shared {
    /// Waits for `tick` or a change of the settings; `None` if the thread must stop.
    fn next(&self, tick: Duration) -> Option<Setting> {
        let mut state = self.state.lock();
        let before = state.setting;
        let idle = |state: &mut State| !state.stopping && state.setting == before;
        self.bell.wait_while_for(&mut state, idle, tick);
        (!state.stopping).then_some(state.setting)
    }
}

/// Minimum interval between samples. While memory is short the governor samples four times as often, because a burst
/// can exhaust the container between two samples.
const SHORTEST_TICK: Duration = Duration::from_millis(20);

/// Decides, and applies the decision to the ledger and the cleaner.
fn act(sample: Sample, before: &Decision, thresholds: &Thresholds, store: &Store, cleaner: &Cleaner) -> Decision {
    let decision = decide(sample, before, thresholds);
    store.ledger().set_capacity(decision.budget_bytes);
    store.ledger().set_low(decision.budget_bytes / 100 * thresholds.low_percent);
    if decision.target != before.target {
        cleaner.set_target(decision.target);
    }
    if decision.regime != before.regime {
        // The server's log line summarizes changes; this debug line has each of them.
        tracing::debug!(
            from = before.regime.name(),
            to = decision.regime.name(),
            reason = decision.target.reason.name(),
            limit_bytes = sample.limit_bytes,
            used_bytes = sample.used_bytes,
            engine_bytes = sample.engine_bytes,
            dead_bytes = sample.dead_bytes,
            budget_bytes = decision.budget_bytes,
            "governor changed the regime"
        );
    }
    decision
}

/// Reads the limits once, to size the store at the start.
pub fn sample_limits(limits: &Limits, setting: &Setting) -> Snapshot {
    Sampler::new(limits.clone()).limits(setting, 0).0
}

/// One reading of all files except the process's own.
#[derive(Clone, Debug, Default)]
struct Files {
    cgroup: Reading,
    /// The limit from the downward API, in bytes.
    limit: Option<u64>,
    /// The request from the downward API, in bytes.
    request: Option<u64>,
    node: Option<Node>,
}

impl Files {
    fn read(limits: &Limits, cgroup: Option<&Cgroup>) -> io::Result<Self> {
        let number = |path: &Option<PathBuf>| path.as_deref().map_or(Ok(None), process::limit_file);
        Ok(Self {
            cgroup: cgroup.map_or_else(|| Ok(Reading::default()), Cgroup::read)?,
            limit: number(&limits.file)?,
            request: number(&limits.request)?,
            node: Node::read(&limits.meminfo)?,
        })
    }
}

/// A value from an ordinary file. A change counts only after two equal readings, because the first may have caught the
/// file half-written. The kernel's own files do not need this.
#[derive(Debug)]
struct Settled<T> {
    value: T,
    candidate: Option<T>,
}

impl<T: PartialEq + Copy> Settled<T> {
    fn new(value: T) -> Self {
        Self { value, candidate: None }
    }

    /// Takes a reading and returns the value that counts.
    fn read(&mut self, now: T) -> T {
        match self.candidate == Some(now) || now == self.value {
            true => *self = Self::new(now),
            false => self.candidate = Some(now),
        }
        self.value
    }
}

/// Grace period before a missing limit is dropped, in milliseconds: files vanish for a moment while they are replaced.
const LASTS_MS: u64 = 5_000;

/// A limit that survives being missing for a moment.
#[derive(Debug, Default)]
struct Lasting<T> {
    /// The last limit found, and when.
    found: Option<(T, u64)>,
}

impl<T: Copy> Lasting<T> {
    /// Takes a reading and returns the limit that counts.
    fn read(&mut self, now: Option<T>, now_ms: u64) -> Option<T> {
        if let Some(limit) = now {
            self.found = Some((limit, now_ms));
        }
        self.found = self.found.filter(|(_, at)| now_ms.saturating_sub(*at) < LASTS_MS);
        self.found.map(|(limit, _)| limit)
    }
}

/// Takes the samples.
struct Sampler {
    limits: Limits,
    cgroup: Option<Cgroup>,
    process: Process,
    last: Files,
    limit: Settled<Option<u64>>,
    request: Settled<Option<u64>>,
    lasting: LastingLimits,
    node_is_short: bool,
}

#[derive(Debug, Default)]
struct LastingLimits {
    enforced: Lasting<(u64, LimitSource)>,
    file: Lasting<u64>,
}

impl Sampler {
    fn new(limits: Limits) -> Self {
        let cgroup = Cgroup::find(&limits.cgroup);
        let last = Files::read(&limits, cgroup.as_ref()).unwrap_or_default();
        let (limit, request) = (Settled::new(last.limit), Settled::new(last.request));
        Self {
            limits,
            cgroup,
            process: Process::own(),
            last,
            limit,
            request,
            lasting: LastingLimits::default(),
            node_is_short: false,
        }
    }

    fn limits(&mut self, setting: &Setting, now_ms: u64) -> (Snapshot, Reading) {
        match Files::read(&self.limits, self.cgroup.as_ref()) {
            Ok(now) => {
                let (limit, request) = (self.limit.read(now.limit), self.request.read(now.request));
                let lasting = &mut self.lasting;
                let cgroup = Reading { limit: lasting.enforced.read(now.cgroup.limit, now_ms), ..now.cgroup };
                let limit = lasting.file.read(limit, now_ms);
                self.last = Files { limit, request, cgroup, ..now };
            }
            // An unreadable limit stays valid, but an old usage says nothing about the present.
            Err(_) => (self.last.cgroup.used, self.last.cgroup.own_used) = (None, None),
        }
        let Files { cgroup, limit, request, node } = self.last.clone();
        let enforced = cgroup.limit.map(|(limit, _)| limit);
        let file = limit.filter(|limit| enforced.is_some() || !node.is_some_and(|node| node.is_whole(*limit)));
        self.node_is_short = node.is_some_and(|node| node.is_short(self.node_is_short));
        let keeps_to_request = setting.eviction_aware && self.node_is_short;
        let all = [
            cgroup.limit,
            cgroup.high.map(|limit| (limit, LimitSource::MemoryHigh)),
            file.map(|limit| (limit, LimitSource::LimitFile)),
            request.filter(|_| keeps_to_request).map(|request| (request, LimitSource::Request)),
            setting.max_memory_bytes.map(|limit| (limit, LimitSource::MaxMemory)),
        ];
        let found = all.into_iter().flatten().min_by_key(|(limit, _)| *limit);
        let beyond_machine = found.filter(|(limit, _)| node.is_some_and(|node| node.lacks(*limit)));
        let machine = node.filter(|_| beyond_machine.is_some()).map(|node| (node.total_bytes, LimitSource::Machine));
        let default = (self.limits.default_bytes, LimitSource::Default);
        let (limit_bytes, limit_source) = machine.or(found).unwrap_or(default);
        let snapshot = Snapshot {
            limit_bytes,
            limit_source,
            beyond_machine,
            shrink_pending: file.zip(enforced).is_some_and(|(file, enforced)| file < enforced),
            reserve_bytes: reserve(limit_bytes, &setting.thresholds),
            request_bytes: request,
            container: cgroup.clone(),
            ..Snapshot::default()
        };
        (snapshot, cgroup)
    }

    fn read(&mut self, setting: &Setting, store: &Store, now_ms: u64) -> (Snapshot, Sample) {
        // Read this before the usage: writes between the two readings then look like overhead, not like free memory.
        let engine_bytes = store.ledger().total();
        let (snapshot, reading) = self.limits(setting, now_ms);
        let rss_bytes = self.process.rss_bytes();
        // A limit from the configuration is compared with this process alone: the container's usage may include other
        // processes, whose memory the cleaner cannot free.
        let used = match snapshot.limit_source {
            LimitSource::LimitFile | LimitSource::Request => reading.own_used,
            source if source.is_of_container() => reading.used,
            _ => None,
        };
        let used_bytes = used.unwrap_or(rss_bytes);
        let stats = store.stats();
        let Stats { item_bytes, dead_bytes, index_bytes, table_bytes, in_flight_bytes, .. } = stats;
        let sample = Sample {
            now_ms,
            limit_bytes: snapshot.limit_bytes,
            used_bytes,
            engine_bytes,
            live_bytes: item_bytes + index_bytes + table_bytes + in_flight_bytes,
            item_bytes,
            dead_bytes,
            changed_bytes: stats.appended_bytes + stats.died_bytes,
            pressure_percent: reading.pressure.percent,
        };
        (Snapshot { used_bytes, rss_bytes, ..snapshot }, sample)
    }
}

#[cfg(test)]
mod tests;
