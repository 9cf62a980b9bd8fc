//! The governor's thread, and what it lets others see.

use super::cgroup::{Cgroup, Paths, Reading};
use super::decide::{Marks, Regime, Sample, Standing, decide, reserve};
use super::node::Node;
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
    /// The file of the downward API that holds the limit, if there is one.
    pub file: Option<PathBuf>,
    /// The file of the downward API that holds the request, if there is one.
    pub request: Option<PathBuf>,
    /// Usually `/proc/meminfo`.
    pub meminfo: PathBuf,
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
    /// Whether the request is the limit while the node is short of memory.
    pub eviction_aware: bool,
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
    /// Kept free under the limit, in bytes.
    pub reserve_bytes: u64,
    /// The memory request of the container, in bytes, where it is known.
    pub request_bytes: Option<u64>,
    /// How often the regime has changed since the start.
    pub regime_changes: u64,
    /// How long each regime has held so far, in milliseconds, in the order of [`Regime::ALL`].
    pub in_regime_ms: [u64; Regime::ALL.len()],
    /// What the container's files say beside limit and usage.
    pub container: Reading,
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

    /// The limit in it, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.0.load().limit_bytes
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
        let mut in_regime_ms = [0; Regime::ALL.len()];
        let mut regime_changes = 0;
        let mut last_ms = clock.now_ms();
        // Returns how long to wait for the next reading.
        let mut govern = move |setting: Setting| {
            let now_ms = clock.now_ms();
            let elapsed_ms = now_ms - std::mem::replace(&mut last_ms, now_ms);
            in_regime_ms[standing.regime as usize] += elapsed_ms;
            store.ledger().let_go(elapsed_ms);
            let (snapshot, sample) = sampler.read(&setting, &store, now_ms);
            let before = standing.regime;
            standing = act(sample, &standing, &setting.marks, &store, &cleaner);
            let Standing { regime, budget_bytes, order, .. } = standing;
            regime_changes += u64::from(regime != before);
            let reason = order.reason;
            let snapshot = Snapshot { regime, budget_bytes, reason, regime_changes, in_regime_ms, ..snapshot };
            view.0.store(Arc::new(snapshot));
            if regime.evicts() { (setting.tick / 4).max(SHORTEST_TICK).min(setting.tick) } else { setting.tick }
        };
        let mut tick = govern(setting); // at once: nobody asks a server that has not read
        let on_thread = shared.clone();
        let thread = std::thread::Builder::new().name("ebb-governor".to_owned()).spawn(move || {
            while let Some(setting) = on_thread.next(tick) {
                tick = govern(setting);
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
    /// Waits for `tick`; `None` when the thread is to stop.
    fn next(&self, tick: Duration) -> Option<Setting> {
        let state = held(&self.state);
        let before = state.setting;
        let idle = |state: &mut State| !state.stopping && state.setting == before;
        let waited = self.bell.wait_timeout_while(state, tick, idle);
        let (state, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        (!state.stopping).then_some(state.setting)
    }
}

/// While memory is short it is read four times as often, but for this: what takes the last of a container takes it
/// between two readings.
const SHORTEST_TICK: Duration = Duration::from_millis(20);

/// Decides, and carries the decision to the ledger and the cleaner.
fn act(sample: Sample, before: &Standing, marks: &Marks, store: &Store, cleaner: &Cleaner) -> Standing {
    let standing = decide(sample, before, marks);
    store.ledger().set_capacity(standing.budget_bytes);
    if standing.order != before.order {
        cleaner.obey(standing.order);
    }
    if standing.regime != before.regime {
        // The log of the server gathers changes; this has each of them.
        tracing::debug!(
            from = before.regime.name(),
            to = standing.regime.name(),
            reason = standing.order.reason.name(),
            limit_bytes = sample.limit_bytes,
            used_bytes = sample.used_bytes,
            engine_bytes = sample.engine_bytes,
            dead_bytes = sample.dead_bytes,
            budget_bytes = standing.budget_bytes,
            "governor changed the regime"
        );
    }
    standing
}

/// Reads the limits once: for the size of the store at the start.
pub fn sample_limits(limits: &Limits, setting: &Setting) -> Snapshot {
    Sampler::new(limits.clone()).limits(setting).0
}

/// What the files say, the process's own aside.
#[derive(Clone, Debug, Default)]
struct Files {
    cgroup: Reading,
    /// The limit of the downward API, in bytes.
    limit: Option<u64>,
    /// The request of the downward API, in bytes.
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

/// Reads everything.
struct Sampler {
    limits: Limits,
    cgroup: Option<Cgroup>,
    process: Process,
    last: Files,
    node_is_short: bool,
}

impl Sampler {
    fn new(limits: Limits) -> Self {
        let cgroup = Cgroup::find(&limits.cgroup);
        let last = Files::read(&limits, cgroup.as_ref()).unwrap_or_default();
        Self { limits, cgroup, process: Process::own(), last, node_is_short: false }
    }

    fn limits(&mut self, setting: &Setting) -> (Snapshot, Reading) {
        match Files::read(&self.limits, self.cgroup.as_ref()) {
            Ok(now) => self.last = now,
            // A limit does not end because it cannot be seen; what was used then says nothing about now.
            Err(_) => self.last.cgroup.used = None,
        }
        let Files { cgroup, limit, request, node } = self.last.clone();
        let reachable = cgroup.limit.filter(|(limit, _)| node.is_none_or(|node| node.has(*limit)));
        let enforced = reachable.map(|(limit, _)| limit);
        let file = limit.filter(|limit| enforced.is_some() || !node.is_some_and(|node| node.is_whole(*limit)));
        self.node_is_short = node.is_some_and(|node| node.is_short(self.node_is_short));
        let keeps_to_request = setting.eviction_aware && self.node_is_short;
        let all = [
            reachable,
            cgroup.high.map(|limit| (limit, "cgroup memory.high")),
            file.map(|limit| (limit, "limit file")),
            request.filter(|_| keeps_to_request).map(|request| (request, "memory request")),
            setting.max_memory_bytes.map(|limit| (limit, "max_memory")),
        ];
        let found = all.into_iter().flatten().min_by_key(|(limit, _)| *limit);
        let (limit_bytes, limit_source) = found.unwrap_or((self.limits.default_bytes, "default_memory"));
        let snapshot = Snapshot {
            limit_bytes,
            limit_source,
            is_default_limit: found.is_none(),
            shrink_pending: file.zip(enforced).is_some_and(|(file, enforced)| file < enforced),
            reserve_bytes: reserve(limit_bytes, &setting.marks),
            request_bytes: request,
            container: cgroup.clone(),
            ..Snapshot::default()
        };
        (snapshot, cgroup)
    }

    fn read(&mut self, setting: &Setting, store: &Store, now_ms: u64) -> (Snapshot, Sample) {
        // Before the usage: what callers write between the two readings must not look like memory that the process has
        // no use for.
        let engine_bytes = store.ledger().total();
        let (snapshot, reading) = self.limits(setting);
        let rss_bytes = self.process.rss_bytes();
        // A limit that only the configuration knows is held against this process alone; a container's usage may hold
        // others, whose share is not ours to give back.
        let by_container = snapshot.limit_source.starts_with("cgroup")
            || ["limit file", "memory request"].contains(&snapshot.limit_source);
        let used_bytes = match reading.used {
            Some(used) if by_container => used,
            _ => rss_bytes,
        };
        let Stats { item_bytes, dead_bytes, index_bytes, in_flight_bytes, appended_bytes, buried_bytes, .. } =
            store.stats();
        let sample = Sample {
            now_ms,
            limit_bytes: snapshot.limit_bytes,
            used_bytes,
            engine_bytes,
            live_bytes: item_bytes + index_bytes + in_flight_bytes,
            item_bytes,
            dead_bytes,
            changed_bytes: appended_bytes + buried_bytes,
            pressure_percent: reading.pressure.percent,
        };
        (Snapshot { used_bytes, rss_bytes, ..snapshot }, sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MIB: u64 = 1 << 20;

    /// The files of a container whose cgroup enforces 256 MiB, on a node of 4 GiB.
    struct Pod(tempfile::TempDir);

    impl Pod {
        fn new() -> Self {
            let pod = Self(tempfile::tempdir().unwrap());
            pod.write("own", "0::/\n").write("memory.stat", "anon 1048576\n").write("memory.max", "268435456\n");
            pod.node(2048);
            pod
        }

        fn write(&self, name: &str, text: &str) -> &Self {
            fs::write(self.0.path().join(name), text).unwrap();
            self
        }

        fn node(&self, available_mib: u64) {
            self.write("meminfo", &format!("MemTotal: 4194304 kB\nMemAvailable: {} kB\n", available_mib << 10));
        }

        fn sampler(&self) -> Sampler {
            let path = |name: &str| self.0.path().join(name);
            Sampler::new(Limits {
                cgroup: Paths { root: path(""), own: path("own") },
                file: Some(path("memory-limit")),
                request: Some(path("memory-request")),
                meminfo: path("meminfo"),
                default_bytes: 64 * MIB,
            })
        }
    }

    fn setting(eviction_aware: bool) -> Setting {
        let tick = Duration::from_millis(100);
        Setting { max_memory_bytes: None, tick, eviction_aware, marks: Marks::default() }
    }

    fn limit(sampler: &mut Sampler, setting: &Setting) -> (u64, &'static str) {
        let found = sampler.limits(setting).0;
        (found.limit_bytes / MIB, found.limit_source)
    }

    #[test]
    fn a_cache_keeps_to_its_request_while_the_node_is_short_of_memory() {
        let pod = Pod::new();
        pod.write("memory-request", "67108864");
        let mut sampler = pod.sampler();
        let aware = setting(true);
        assert_eq!(limit(&mut sampler, &aware), (256, "cgroup memory.max"));
        pod.node(300);
        assert_eq!(limit(&mut sampler, &aware), (64, "memory request"));
        assert_eq!(limit(&mut sampler, &setting(false)), (256, "cgroup memory.max"), "only where it is asked for");
        pod.node(500);
        assert_eq!(limit(&mut sampler, &aware), (64, "memory request"), "not yet out of danger");
        pod.node(700);
        assert_eq!(limit(&mut sampler, &aware), (256, "cgroup memory.max"));
        pod.node(100);
        pod.write("memory-request", "0");
        assert_eq!(limit(&mut sampler, &aware), (256, "cgroup memory.max"), "a pod without a request has none to keep");
    }

    #[test]
    fn a_limit_file_below_the_cgroup_is_a_pending_shrink() {
        let pod = Pod::new();
        pod.write("memory-limit", "134217728");
        let mut sampler = pod.sampler();
        let (found, _) = sampler.limits(&setting(false));
        assert_eq!((found.limit_bytes / MIB, found.limit_source, found.shrink_pending), (128, "limit file", true));
        pod.write("memory.max", "134217728\n");
        assert!(!sampler.limits(&setting(false)).0.shrink_pending, "the kubelet has done it");
    }

    #[test]
    fn what_the_node_can_give_is_no_limit_of_the_container() {
        let pod = Pod::new();
        pod.write("memory.max", "max\n").write("memory-limit", &(3900 * MIB).to_string());
        let mut sampler = pod.sampler();
        let (found, _) = sampler.limits(&setting(false));
        assert!(found.is_default_limit, "{found:?}");
        pod.write("memory-limit", &(512 * MIB).to_string());
        assert_eq!(limit(&mut sampler, &setting(false)), (512, "limit file"));
    }
}
