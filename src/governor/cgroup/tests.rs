use super::*;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(own: &str, files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (name, text) in files.iter().chain([&("own", own)]) {
            let path = tree.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }

    fn paths(&self) -> Paths {
        let path = |name: &str| self.0.path().join(name);
        Paths { root: Some(path("")), own: path("own"), mountinfo: path("mountinfo") }
    }

    fn read(&self) -> Option<Reading> {
        Cgroup::find(&self.paths()).map(|cgroup| cgroup.read().unwrap())
    }

    /// Reads through a table of mounts: root, mount point, and type with its options.
    fn mounted(&self, mounts: &[(&str, &str, &str)]) -> Option<Reading> {
        let directory = self.0.path().display();
        let line =
            |(root, point, kind): &(&str, &str, &str)| format!("30 23 0:26 {root} {directory}{point} ro - {kind}\n");
        let other = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned();
        fs::write(self.0.path().join("mountinfo"), other + &mounts.iter().map(line).collect::<String>()).unwrap();
        Cgroup::find(&Paths { root: None, ..self.paths() }).map(|cgroup| cgroup.read().unwrap())
    }
}

const V2: &str = "cgroup2 cgroup2 rw";
const MEMORY: &str = "cgroup cgroup rw,memory";
const SYSTEMD: &str = "cgroup cgroup rw,xattr,name=systemd";
const NONE: &str = "9223372036854771712\n";

/// A real layout: /proc/self/cgroup, the mounts, the files, and the expected reading.
struct Layout {
    name: &'static str,
    own: &'static str,
    mounts: &'static [(&'static str, &'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
    limit: Option<(u64, LimitSource)>,
    high: Option<u64>,
    used: Option<u64>,
}

const LAYOUTS: &[Layout] = &[
    Layout {
        name: "v2, a container with a namespace of its own",
        own: "0::/\n",
        mounts: &[("/", "/cg", V2)],
        files: &[("cg/memory.max", "4096\n"), ("cg/memory.stat", "anon 9\n")],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: None,
        used: Some(9),
    },
    Layout {
        name: "v2, a container without a namespace: its group is mounted",
        own: "0::/kubepods/pod7/c1\n",
        mounts: &[("/kubepods/pod7/c1", "/cg", V2)],
        files: &[("cg/memory.max", "4096\n"), ("cg/memory.stat", "anon 9\n")],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: None,
        used: Some(9),
    },
    Layout {
        name: "v2, nested groups in a container whose group is mounted",
        own: "0::/kubepods/pod7/c1/inner\n",
        mounts: &[("/kubepods/pod7/c1", "/cg", V2)],
        files: &[
            ("cg/memory.max", "4096\n"),
            ("cg/memory.stat", "anon 9\n"),
            ("cg/inner/memory.max", "max\n"),
            ("cg/inner/memory.high", "2048\n"),
            ("cg/inner/memory.stat", "anon 5\n"),
        ],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: Some(2048),
        used: Some(5),
    },
    Layout {
        name: "v2, a service of systemd under a slice with the limit",
        own: "0::/system.slice/ebb.service\n",
        mounts: &[("/", "/cg", V2)],
        files: &[
            ("cg/memory.stat", "anon 1\n"),
            ("cg/system.slice/memory.max", "8192\n"),
            ("cg/system.slice/memory.stat", "anon 3\n"),
            ("cg/system.slice/ebb.service/memory.max", "max\n"),
            ("cg/system.slice/ebb.service/memory.stat", "anon 2\n"),
        ],
        limit: Some((8192, LimitSource::MemoryMax)),
        high: None,
        used: Some(3),
    },
    Layout {
        name: "v2, a group without the controller is charged to its ancestor",
        own: "0::/pod/leaf\n",
        mounts: &[("/", "/cg", V2)],
        files: &[
            ("cg/pod/memory.max", "4096\n"),
            ("cg/pod/memory.stat", "anon 7\n"),
            ("cg/pod/leaf/cgroup.procs", "1\n"),
        ],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: None,
        used: Some(7),
    },
    Layout {
        name: "v2, memory.stat is hidden and the limit is not",
        own: "0::/\n",
        mounts: &[("/", "/cg", V2)],
        files: &[("cg/memory.max", "4096\n")],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: None,
        used: None,
    },
    Layout {
        name: "v2, the root group of a machine has no limit",
        own: "0::/\n",
        mounts: &[("/", "/cg", V2)],
        files: &[("cg/memory.stat", "anon 9\n")],
        limit: None,
        high: None,
        used: Some(9),
    },
    Layout {
        name: "v2 at another place, with a space in its name",
        own: "0::/\n",
        mounts: &[("/", "/c\\040g", V2)],
        files: &[("c g/memory.max", "4096\n"), ("c g/memory.stat", "anon 9\n")],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: None,
        used: Some(9),
    },
    Layout {
        name: "v2, the node's tree is mounted beside the container's",
        own: "0::/\n",
        mounts: &[("/../..", "/host", V2), ("/", "/cg", V2)],
        files: &[("host/memory.stat", "anon 1000\n"), ("cg/memory.max", "4096\n"), ("cg/memory.stat", "anon 9\n")],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: None,
        used: Some(9),
    },
    Layout {
        name: "v2, the group of another container is mounted first",
        own: "0::/pod/own\n",
        mounts: &[("/pod/other", "/other", V2), ("/pod/own", "/cg", V2)],
        files: &[
            ("other/memory.max", "64\n"),
            ("other/memory.stat", "anon 1\n"),
            ("cg/memory.max", "4096\n"),
            ("cg/memory.stat", "anon 9\n"),
        ],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: None,
        used: Some(9),
    },
    Layout {
        name: "v1, a container without a namespace",
        own: "12:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n",
        mounts: &[("/docker/ab", "/cg/cpu", "cgroup cgroup rw,cpu"), ("/docker/ab", "/cg/memory", MEMORY)],
        files: &[("cg/memory/memory.limit_in_bytes", "4096\n"), ("cg/memory/memory.stat", "total_rss 9\n")],
        limit: Some((4096, LimitSource::LimitInBytes)),
        high: None,
        used: Some(9),
    },
    Layout {
        name: "v1, memory is mounted together with other controllers",
        own: "4:cpu,memory:/a/b\n",
        mounts: &[("/", "/cg/both", "cgroup cgroup rw,cpu,memory")],
        files: &[
            ("cg/both/memory.limit_in_bytes", NONE),
            ("cg/both/memory.stat", "total_rss 100\n"),
            ("cg/both/a/memory.limit_in_bytes", "4096\n"),
            ("cg/both/a/memory.stat", "total_rss 10\n"),
            ("cg/both/a/b/memory.limit_in_bytes", NONE),
            ("cg/both/a/b/memory.stat", "total_rss 9\n"),
        ],
        limit: Some((4096, LimitSource::LimitInBytes)),
        high: None,
        used: Some(10),
    },
    Layout {
        name: "hybrid, memory on v1 beside an empty v2 tree",
        own: "4:memory:/docker/ab\n1:name=systemd:/docker/ab\n0::/docker/ab\n",
        mounts: &[("/", "/cg/unified", V2), ("/", "/cg/systemd", SYSTEMD), ("/", "/cg/memory", MEMORY)],
        files: &[
            ("cg/unified/docker/ab/cgroup.procs", "1\n"),
            ("cg/memory/docker/ab/memory.limit_in_bytes", "4096\n"),
            ("cg/memory/docker/ab/memory.stat", "total_rss 9\n"),
        ],
        limit: Some((4096, LimitSource::LimitInBytes)),
        high: None,
        used: Some(9),
    },
    Layout {
        name: "hybrid, memory on v2 beside v1 controllers",
        own: "2:cpu:/pod\n1:name=systemd:/pod\n0::/pod\n",
        mounts: &[("/", "/cg/cpu", "cgroup cgroup rw,cpu"), ("/", "/cg/unified", V2)],
        files: &[("cg/unified/pod/memory.max", "4096\n"), ("cg/unified/pod/memory.stat", "anon 9\n")],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: None,
        used: Some(9),
    },
    Layout {
        name: "hybrid, the v1 controller is named and hidden, v2 has the files",
        own: "4:memory:/pod\n0::/\n",
        mounts: &[("/", "/cg", V2), ("/pod", "/cg/memory", MEMORY)],
        files: &[("cg/memory.max", "4096\n"), ("cg/memory.stat", "anon 9\n"), ("cg/memory/cgroup.procs", "")],
        limit: Some((4096, LimitSource::MemoryMax)),
        high: None,
        used: Some(9),
    },
    Layout {
        name: "no cgroups are mounted",
        own: "0::/\n",
        mounts: &[],
        files: &[("cg/memory.max", "4096\n")],
        limit: None,
        high: None,
        used: None,
    },
];

#[test]
fn the_limit_is_found_in_every_layout() {
    let mut wrong = Vec::new();
    for Layout { name, own, mounts, files, limit, high, used } in LAYOUTS {
        let found = Tree::new(own, files).mounted(mounts).unwrap_or_default();
        let (found, expected) = ((found.limit, found.high, found.used), (*limit, *high, *used));
        if found != expected {
            wrong.push(format!("{name}: {found:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn without_mountinfo_sys_fs_cgroup_is_read() {
    let tree = Tree::new("0::/\n", &[]);
    let paths = Paths { root: None, mountinfo: "/does/not/exist".into(), ..tree.paths() };
    assert!(mounts::find(&paths).iter().any(|mount| mount.point == Path::new("/sys/fs/cgroup")));
}

#[test]
fn v2_the_smallest_limit_of_all_ancestors_applies() {
    let tree = Tree::new(
        "0::/pod/ebb\n",
        &[
            ("pod/ebb/memory.max", "max\n"),
            ("pod/ebb/memory.high", "900\n"),
            (
                "pod/ebb/memory.stat",
                "anon 100\nanon_thp 64\nfile 5000\nkernel 50\nshmem 7\nsock 3\nslab_reclaimable 20\n",
            ),
            ("pod/ebb/memory.events", "low 0\noom 1\noom_kill 2\n"),
            ("pod/ebb/memory.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00\n"),
            ("pod/ebb/memory.swap.current", "5\n"),
            ("pod/memory.max", "1000\n"),
            ("pod/memory.stat", "anon 1\n"),
            ("memory.stat", "anon 1\n"),
        ],
    );
    let expected = Reading {
        limit: Some((1000, LimitSource::MemoryMax)),
        high: Some(900),
        used: Some(140),
        own_used: Some(140),
        events: Events { oom: 1, oom_kills: 2, ..Events::default() },
        pressure: Pressure { percent: 1.5, total_micros: 9 },
        swap_bytes: 5,
        huge_bytes: 64,
    };
    assert_eq!(tree.read(), Some(expected), "page cache (5000) does not count");
}

#[test]
fn the_limit_of_an_ancestor_is_compared_with_its_usage() {
    let v2 = [
        ("pod/ebb/memory.max", "max\n"),
        ("pod/ebb/memory.stat", "anon 100\n"),
        ("pod/memory.max", "1000\n"),
        ("pod/memory.stat", "anon 700\nfile 5000\n"),
        ("memory.stat", "anon 9000\n"),
    ];
    let found = Tree::new("0::/pod/ebb\n", &v2).read().unwrap();
    assert_eq!((found.limit, found.used), (Some((1000, LimitSource::MemoryMax)), Some(700)));
    let v1 = [
        ("memory/pod/ebb/memory.limit_in_bytes", "2000\n"),
        ("memory/pod/ebb/memory.stat", "total_rss 100\nhierarchical_memory_limit 1000\n"),
        ("memory/pod/memory.limit_in_bytes", "1000\n"),
        ("memory/pod/memory.stat", "rss 1\ntotal_rss 700\nhierarchical_memory_limit 1000\n"),
    ];
    let found = Tree::new("4:memory:/pod/ebb\n", &v1).read().unwrap();
    assert_eq!((found.limit, found.used), (Some((1000, LimitSource::LimitInBytes)), Some(700)));
}

#[test]
fn v2_in_a_namespace_the_root_is_the_own_group() {
    let tree = Tree::new("0::/\n", &[("memory.max", "4096\n"), ("memory.stat", "anon 9\n")]);
    assert_eq!(tree.read().unwrap().limit, Some((4096, LimitSource::MemoryMax)));
    let outside = Tree::new("0::/../other\n", &[("memory.max", "4096\n"), ("memory.stat", "anon 9\n")]);
    assert_eq!(outside.read().unwrap().limit, Some((4096, LimitSource::MemoryMax)));
}

#[test]
fn v1_no_limit_is_a_huge_number() {
    let none = [
        ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/memory.stat", "rss 10\ncache 99\nhierarchical_memory_limit 9223372036854771712\n"),
    ];
    let tree = Tree::new("4:memory:/\n0::/\n", &none);
    assert_eq!(tree.read(), Some(Reading { used: Some(10), own_used: Some(10), ..Reading::default() }));
}

#[test]
fn v1_is_used_next_to_an_empty_v2_tree() {
    let tree = Tree::new(
        "12:cpu,cpuacct:/x\n4:memory:/docker/ab\n0::/docker/ab\n",
        &[
            ("memory/docker/ab/memory.limit_in_bytes", "67108864\n"),
            ("memory/docker/ab/memory.stat", "total_rss 1000\ntotal_cache 77\nhierarchical_memory_limit 33554432\n"),
            ("memory/docker/ab/memory.kmem.usage_in_bytes", "24\n"),
            ("memory/docker/ab/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            ("unified/cgroup.procs", ""),
        ],
    );
    let reading = tree.read().unwrap();
    assert_eq!(reading.limit, Some((33_554_432, LimitSource::LimitInBytes)), "the limit of the hierarchy");
    assert_eq!((reading.used, reading.events.oom_kills), (Some(1024), 3));
}

#[test]
fn absent_unreadable_or_malformed_files_cause_no_panic() {
    assert_eq!(Tree::new("", &[]).read(), None);
    assert_eq!(Tree::new("0::/a\n", &[]).read(), None);
    assert_eq!(Tree::new("garbage\n::\n", &[("memory.max", "1")]).read(), None);
    let nonsense = Tree::new("0::/\n", &[("memory.max", "lots\n"), ("memory.stat", "anon many\n\n x\n")]);
    assert_eq!(nonsense.read(), Some(Reading { used: Some(0), own_used: Some(0), ..Reading::default() }));
}

#[test]
fn the_cgroup_of_this_machine_is_readable() {
    if let Some(cgroup) = Cgroup::find(&Paths::new(None)) {
        let reading = cgroup.read().unwrap();
        assert!(reading.used.is_some(), "{cgroup:?} {reading:?}");
    }
}
