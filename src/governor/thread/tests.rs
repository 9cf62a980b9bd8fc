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
            cgroup: Paths { root: Some(path("")), own: path("own"), mountinfo: path("mountinfo") },
            file: Some(path("memory-limit")),
            request: Some(path("memory-request")),
            meminfo: path("meminfo"),
            default_bytes: 64 * MIB,
        })
    }
}

fn setting(eviction_aware: bool) -> Setting {
    let tick = Duration::from_millis(100);
    Setting { max_memory_bytes: None, tick, eviction_aware, thresholds: Thresholds::default() }
}

/// The snapshot after two equal readings.
fn settled(sampler: &mut Sampler, setting: &Setting) -> Snapshot {
    sampler.limits(setting, 0);
    sampler.limits(setting, 0).0
}

fn limit(sampler: &mut Sampler, setting: &Setting) -> (u64, &'static str) {
    let found = settled(sampler, setting);
    (found.limit_bytes / MIB, found.limit_source.name())
}

#[test]
fn the_request_is_the_limit_while_the_node_is_short() {
    let pod = Pod::new();
    pod.write("memory-request", "67108864");
    let mut sampler = pod.sampler();
    let aware = setting(true);
    assert_eq!(limit(&mut sampler, &aware), (256, "cgroup memory.max"));
    pod.node(300);
    assert_eq!(limit(&mut sampler, &aware), (64, "memory request"));
    assert_eq!(limit(&mut sampler, &setting(false)), (256, "cgroup memory.max"), "only if eviction_aware is set");
    pod.node(500);
    assert_eq!(limit(&mut sampler, &aware), (64, "memory request"), "hysteresis: the node has not recovered yet");
    pod.node(700);
    assert_eq!(limit(&mut sampler, &aware), (256, "cgroup memory.max"));
    pod.node(100);
    pod.write("memory-request", "0");
    assert_eq!(limit(&mut sampler, &aware), (256, "cgroup memory.max"), "without a request there is no such limit");
}

#[test]
fn a_limit_file_below_the_cgroup_is_a_pending_shrink() {
    let pod = Pod::new();
    pod.write("memory-limit", "134217728");
    let mut sampler = pod.sampler();
    let found = settled(&mut sampler, &setting(false));
    let expected = (128, LimitSource::LimitFile, true);
    assert_eq!((found.limit_bytes / MIB, found.limit_source, found.shrink_pending), expected);
    pod.write("memory.max", "134217728\n");
    assert!(!sampler.limits(&setting(false), 0).0.shrink_pending, "the kubelet has applied the limit");
}

#[test]
fn allocatable_memory_of_the_node_is_no_limit() {
    let pod = Pod::new();
    pod.write("memory.max", "max\n").write("memory-limit", &(3900 * MIB).to_string());
    let mut sampler = pod.sampler();
    let (found, _) = sampler.limits(&setting(false), 0);
    assert!(found.is_default_limit(), "{found:?}");
    pod.write("memory-limit", &(512 * MIB).to_string());
    assert_eq!(limit(&mut sampler, &setting(false)), (512, "limit file"));
}

#[test]
fn a_limit_beyond_the_machine_becomes_the_machine_memory() {
    let pod = Pod::new();
    let cases = [
        ("4294967295\n", (4095, "cgroup memory.max", None)),
        ("4294967296\n", (4096, "cgroup memory.max", None)),
        ("4294967297\n", (4096, "machine memory", Some(LimitSource::MemoryMax))),
        ("9223372036854771712\n", (4096, "machine memory", Some(LimitSource::MemoryMax))),
        ("max\n", (64, "default_memory", None)),
    ];
    let found = cases.map(|(max, _)| {
        pod.write("memory.max", max);
        let found = settled(&mut pod.sampler(), &setting(false));
        let (limit, beyond) = (found.limit_bytes / MIB, found.beyond_machine.map(|(_, source)| source));
        (max, (limit, found.limit_source.name(), beyond))
    });
    assert_eq!(found, cases);
    let asked = Setting { max_memory_bytes: Some(1 << 40), ..setting(false) };
    let found = settled(&mut pod.sampler(), &asked);
    let beyond = Some((1 << 40, LimitSource::MaxMemory));
    assert_eq!((found.limit_bytes, found.limit_source, found.beyond_machine), (4 << 30, LimitSource::Machine, beyond));
    pod.write("memory.max", "268435456\n");
    assert_eq!(limit(&mut pod.sampler(), &asked), (256, "cgroup memory.max"), "a smaller limit applies");
}

#[test]
fn a_half_written_limit_file_changes_nothing() {
    let pod = Pod::new();
    pod.write("memory-limit", "134217728");
    let mut sampler = pod.sampler();
    let now = |sampler: &mut Sampler| sampler.limits(&setting(false), 0).0.limit_bytes / MIB;
    for half in ["", "13421", "1342177"] {
        pod.write("memory-limit", half);
        assert_eq!(now(&mut sampler), 128, "{half:?}");
        pod.write("memory-limit", "134217728");
        assert_eq!(now(&mut sampler), 128);
    }
    pod.write("memory-limit", "67108864");
    assert_eq!((now(&mut sampler), now(&mut sampler)), (128, 64), "a change counts after two equal readings");
}

#[test]
fn a_limit_that_is_missing_briefly_stays() {
    let pod = Pod::new();
    pod.write("memory-limit", "134217728");
    let mut sampler = pod.sampler();
    let now = |sampler: &mut Sampler, now_ms| {
        let found = sampler.limits(&setting(false), now_ms).0;
        (found.limit_bytes / MIB, found.limit_source.name())
    };
    assert_eq!(now(&mut sampler, 100), (128, "limit file"));
    fs::remove_file(pod.0.path().join("memory-limit")).unwrap();
    for now_ms in [200, 300, 4_000, 5_000] {
        assert_eq!(now(&mut sampler, now_ms), (128, "limit file"));
    }
    assert_eq!(now(&mut sampler, 5_300), (256, "cgroup memory.max"), "the grace period is over");
    fs::remove_file(pod.0.path().join("memory.max")).unwrap();
    assert_eq!(now(&mut sampler, 5_400), (256, "cgroup memory.max"));
    assert_eq!(now(&mut sampler, 10_400), (64, "default_memory"));
}
